// The few primitives that keys and formats are made of, from OpenSSL 3.0: SHA-256, HMAC-SHA-256, HKDF (RFC 5869) and
// AES-256-GCM for wrapping a key. Contents and names of files have their own, faster use of OpenSSL in fs/format.
// Stateless: safe from any thread. A failure of OpenSSL is kIo with its own text.
#pragma once

#include <array>
#include <initializer_list>
#include <string_view>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::wrap {

using Sha256 = std::array<std::uint8_t, 32>;

// openssl_in_secret_heap has what OpenSSL allocates in this process come from the secret heap (wrap/base): its contexts
// hold keys. But for its tables of algorithms, which it makes here. Call before any other use of OpenSSL: kUnsupported
// if it was used already.
Status openssl_in_secret_heap();

// openssl_error takes the text of OpenSSL's last error and empties its queue: "what: text".
Error openssl_error(std::string_view what);

// sha256 and hmac_sha256 work on the parts as if joined.
Result<Sha256> sha256(std::initializer_list<ByteView> parts);
Result<Sha256> hmac_sha256(ByteView key, std::initializer_list<ByteView> parts);

// hkdf_extract gives the 32-byte PRK; hkdf_expand gives `len` bytes (at most 8160) of it.
Result<Secret> hkdf_extract(ByteView salt, ByteView input);
Result<Secret> hkdf_expand(const Secret& prk, std::string_view info, std::size_t len);

constexpr std::size_t kGcmNonceBytes = 12;
constexpr std::size_t kGcmTagBytes = 16;

// gcm_seal encrypts `plain` under a 32-byte key: gives ciphertext || 16-byte tag. The caller never uses a nonce twice
// under one key.
Result<Bytes> gcm_seal(const Secret& key, ByteView nonce, ByteView associated, const Secret& plain);

// gcm_open is the reverse; a tag that does not fit is kWrongKey.
Result<Secret> gcm_open(const Secret& key, ByteView nonce, ByteView associated, ByteView sealed);

}  // namespace ecfs::wrap
