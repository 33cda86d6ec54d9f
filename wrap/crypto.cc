#include "wrap/crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <atomic>

#include "wrap/base/owned.h"
#include "wrap/base/secret_heap.h"

namespace ecfs::wrap {
namespace {

using Kdf = Owned<EVP_KDF, EVP_KDF_free>;
using KdfCtx = Owned<EVP_KDF_CTX, EVP_KDF_CTX_free>;
using Mac = Owned<EVP_MAC, EVP_MAC_free>;
using MacCtx = Owned<EVP_MAC_CTX, EVP_MAC_CTX_free>;
using DigestCtx = Owned<EVP_MD_CTX, EVP_MD_CTX_free>;
using Digest = Owned<EVP_MD, EVP_MD_free>;
using Cipher = Owned<EVP_CIPHER, EVP_CIPHER_free>;
using CipherCtx = Owned<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;

constexpr std::size_t kMaxHkdfBytes = 255 * 32;
constexpr std::size_t kGcmKeyBytes = 32;
constexpr std::size_t kMaxGcmBytes = std::size_t{1} << 20;

// OpenSSL's parameters take non-const pointers but only read what they point to.
OSSL_PARAM octets(const char* name, ByteView bytes) {
  static constexpr std::uint8_t kNone = 0;  // a null pointer would mean "not given"
  const std::uint8_t* data = bytes.empty() ? &kNone : bytes.data();
  return OSSL_PARAM_construct_octet_string(name, const_cast<std::uint8_t*>(data), bytes.size());  // NOLINT
}

OSSL_PARAM text(const char* name, const char* value) {
  return OSSL_PARAM_construct_utf8_string(name, const_cast<char*>(value), 0);  // NOLINT
}

Result<Secret> hkdf(int mode, ByteView key, const OSSL_PARAM& extra, std::size_t len) {
  if (len > kMaxHkdfBytes) return Error{Code::kInvalid, 0, "HKDF: more output than it can give"};
  const Kdf kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  if (!kdf) return openssl_error("HKDF");
  const KdfCtx ctx(EVP_KDF_CTX_new(kdf.get()));
  if (!ctx) return openssl_error("HKDF");
  const std::array<OSSL_PARAM, 5> params{OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
                                         text(OSSL_KDF_PARAM_DIGEST, "SHA256"), octets(OSSL_KDF_PARAM_KEY, key), extra,
                                         OSSL_PARAM_construct_end()};
  ECFS_LET(Secret out, Secret::of_size(len));
  if (EVP_KDF_derive(ctx.get(), out.reveal_mutable().data(), len, params.data()) != 1) return openssl_error("HKDF");
  return out;
}

Result<CipherCtx> gcm_context(const Secret& key, ByteView nonce, ByteView associated, bool encrypt) {
  if (key.size() != kGcmKeyBytes || nonce.size() != kGcmNonceBytes || associated.size() > kMaxGcmBytes) {
    return Error{Code::kInvalid, 0, "AES-256-GCM: a key, nonce or length that it does not take"};
  }
  const Cipher cipher(EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr));
  CipherCtx ctx(EVP_CIPHER_CTX_new());
  int len = 0;
  if (!cipher || !ctx ||
      EVP_CipherInit_ex2(ctx.get(), cipher.get(), key.reveal().data(), nonce.data(), encrypt ? 1 : 0, nullptr) != 1 ||
      (!associated.empty() &&
       EVP_CipherUpdate(ctx.get(), nullptr, &len, associated.data(), static_cast<int>(associated.size())) != 1)) {
    return openssl_error("AES-256-GCM");
  }
  return ctx;
}

// From the first that may hold a key. Until then OpenSSL makes its tables, which would take a hundred pages that cost
// far more than others.
std::atomic<bool> g_secrets_come{false};

// With the names that OpenSSL gives of its source, which nobody needs.
void* heap_alloc(std::size_t len, const char*, int) { return g_secrets_come ? secret_alloc(len) : ordinary_alloc(len); }
void* heap_realloc(void* piece, std::size_t len, const char*, int) { return secret_realloc(piece, len); }
void heap_free(void* piece, const char*, int) { secret_free(piece); }

}  // namespace

Status openssl_in_secret_heap() {
  if (CRYPTO_set_mem_functions(heap_alloc, heap_realloc, heap_free) != 1) {
    return Error{Code::kUnsupported, 0, "OpenSSL has memory of its own already"};
  }
  // What a provider has of a kind is looked up at the first of that kind. Nothing random: that has a state of its own.
  OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, nullptr);
  (void)Cipher(EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr));
  (void)Digest(EVP_MD_fetch(nullptr, "SHA256", nullptr));
  (void)Mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
  (void)Kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  ERR_clear_error();
  g_secrets_come = true;
  return {};
}

Error openssl_error(std::string_view what) {
  std::array<char, 256> buffer{};
  const unsigned long code = ERR_get_error();
  std::string message(what);
  message += ": ";
  if (code == 0) {
    message += "OpenSSL failed without saying why";
  } else {
    ERR_error_string_n(code, buffer.data(), buffer.size());
    message += buffer.data();
  }
  ERR_clear_error();
  return Error{Code::kIo, 0, std::move(message)};
}

Result<Sha256> sha256(std::initializer_list<ByteView> parts) {
  const DigestCtx ctx(EVP_MD_CTX_new());
  if (!ctx || EVP_DigestInit_ex2(ctx.get(), EVP_sha256(), nullptr) != 1) return openssl_error("SHA-256");
  for (const ByteView part : parts) {
    if (EVP_DigestUpdate(ctx.get(), part.data(), part.size()) != 1) return openssl_error("SHA-256");
  }
  Sha256 digest{};
  if (EVP_DigestFinal_ex(ctx.get(), digest.data(), nullptr) != 1) return openssl_error("SHA-256");
  return digest;
}

Result<Sha256> hmac_sha256(ByteView key, std::initializer_list<ByteView> parts) {
  const Mac mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
  if (!mac) return openssl_error("HMAC");
  const MacCtx ctx(EVP_MAC_CTX_new(mac.get()));
  const std::array<OSSL_PARAM, 2> params{text(OSSL_MAC_PARAM_DIGEST, "SHA256"), OSSL_PARAM_construct_end()};
  static constexpr std::uint8_t kNone = 0;  // a null key would mean "the key set before"
  const std::uint8_t* key_bytes = key.empty() ? &kNone : key.data();
  if (!ctx || EVP_MAC_init(ctx.get(), key_bytes, key.size(), params.data()) != 1) return openssl_error("HMAC");
  for (const ByteView part : parts) {
    if (EVP_MAC_update(ctx.get(), part.data(), part.size()) != 1) return openssl_error("HMAC");
  }
  Sha256 out{};
  std::size_t len = 0;
  if (EVP_MAC_final(ctx.get(), out.data(), &len, out.size()) != 1 || len != out.size()) return openssl_error("HMAC");
  return out;
}

Result<Secret> hkdf_extract(ByteView salt, ByteView input) {
  return hkdf(EVP_KDF_HKDF_MODE_EXTRACT_ONLY, input, octets(OSSL_KDF_PARAM_SALT, salt), 32);
}

Result<Secret> hkdf_expand(const Secret& prk, std::string_view info, std::size_t len) {
  return hkdf(EVP_KDF_HKDF_MODE_EXPAND_ONLY, prk.reveal(), octets(OSSL_KDF_PARAM_INFO, as_bytes(info)), len);
}

Result<Bytes> gcm_seal(const Secret& key, ByteView nonce, ByteView associated, const Secret& plain) {
  if (plain.size() > kMaxGcmBytes) return Error{Code::kInvalid, 0, "AES-256-GCM: more than a key to wrap"};
  ECFS_LET(const CipherCtx ctx, gcm_context(key, nonce, associated, true));
  Bytes out(plain.size() + kGcmTagBytes);
  int len = 0;
  if ((!plain.empty() &&
       EVP_CipherUpdate(ctx.get(), out.data(), &len, plain.reveal().data(), static_cast<int>(plain.size())) != 1) ||
      EVP_CipherFinal_ex(ctx.get(), out.data() + plain.size(), &len) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_GET_TAG, kGcmTagBytes, out.data() + plain.size()) != 1) {
    return openssl_error("AES-256-GCM");
  }
  return out;
}

Result<Secret> gcm_open(const Secret& key, ByteView nonce, ByteView associated, ByteView sealed) {
  if (sealed.size() < kGcmTagBytes || sealed.size() > kMaxGcmBytes) {
    return Error{Code::kInvalid, 0, "AES-256-GCM: a wrapped key of an impossible length"};
  }
  ECFS_LET(const CipherCtx ctx, gcm_context(key, nonce, associated, false));
  const std::size_t plain_len = sealed.size() - kGcmTagBytes;
  ECFS_LET(Secret out, Secret::of_size(plain_len));
  std::array<std::uint8_t, kGcmTagBytes> tag{};
  std::copy(sealed.begin() + static_cast<std::ptrdiff_t>(plain_len), sealed.end(), tag.begin());
  int len = 0;
  if (plain_len > 0 &&
      EVP_CipherUpdate(ctx.get(), out.reveal_mutable().data(), &len, sealed.data(), static_cast<int>(plain_len)) != 1) {
    return openssl_error("AES-256-GCM");
  }
  if (EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_SET_TAG, kGcmTagBytes, tag.data()) != 1) {
    return openssl_error("AES-256-GCM");
  }
  std::array<std::uint8_t, kGcmTagBytes> rest{};
  if (EVP_CipherFinal_ex(ctx.get(), rest.data(), &len) != 1) {
    ERR_clear_error();
    return Error{Code::kWrongKey, 0, "the key does not fit"};
  }
  return out;
}

}  // namespace ecfs::wrap
