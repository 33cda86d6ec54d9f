// What an eCryptfs mount passphrase becomes: the 64-byte key that encrypts file keys or names, and the signature by
// which files, names and keyrings tell of it. Files of every version of eCryptfs depend on it; nothing new may.
//
// Safe from any thread. A failure of OpenSSL itself is kIo. Source: fs/ECRYPTFS-FORMAT.md §1.
#pragma once

#include <array>
#include <cstdint>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::wrap {

using EcryptfsSignature = std::array<std::uint8_t, 8>;  // shown as 16 hex digits
using EcryptfsSalt = std::array<std::uint8_t, 8>;

constexpr EcryptfsSalt kEcryptfsContentSalt{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77};  // unless told otherwise
constexpr EcryptfsSalt kEcryptfsNameSalt{'9', '9', '8', '8', '7', '7', '6', '6'};
constexpr std::size_t kEcryptfsMaxPassphraseBytes = 64;
constexpr std::size_t kEcryptfsKeyBytes = 64;

// EcryptfsKey is what a passphrase becomes: FEKEK or FNEK. Ciphers use the first bytes of `key`.
struct EcryptfsKey {
  Secret key;  // 64 bytes
  EcryptfsSalt salt{};
  EcryptfsSignature signature{};

  // derive takes tens of milliseconds. kInvalid: a passphrase that is not 1..64 bytes, or has a NUL in it.
  static Result<EcryptfsKey> derive(const Secret& passphrase, const EcryptfsSalt& salt);
};

// ecryptfs_signature is the signature of 64 bytes of key.
Result<EcryptfsSignature> ecryptfs_signature(ByteView key);

}  // namespace ecfs::wrap
