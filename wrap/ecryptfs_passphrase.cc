#include "wrap/ecryptfs_passphrase.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "wrap/base/file.h"
#include "wrap/base/owned.h"
#include "wrap/crypto.h"

namespace ecfs::wrap {
namespace {

constexpr int kHashes = 65536;

using DigestCtx = Owned<EVP_MD_CTX, EVP_MD_CTX_free>;
using Digest = Owned<EVP_MD, EVP_MD_free>;

// hash gives the 64-byte digest of `in` at `out` (may be the same place); `ctx` is used again.
bool hash(const DigestCtx& ctx, const Digest& sha512, ByteView in, std::uint8_t* out) noexcept {
  return EVP_DigestInit_ex(ctx.get(), sha512.get(), nullptr) == 1 &&
         EVP_DigestUpdate(ctx.get(), in.data(), in.size()) == 1 && EVP_DigestFinal_ex(ctx.get(), out, nullptr) == 1;
}

}  // namespace

Result<EcryptfsKey> EcryptfsKey::derive(const Secret& passphrase, const EcryptfsSalt& salt) {
  const ByteView text = passphrase.reveal();
  if (text.empty() || text.size() > kEcryptfsMaxPassphraseBytes ||
      std::find(text.begin(), text.end(), 0) != text.end()) {
    return Error{Code::kInvalid, EINVAL, "an eCryptfs passphrase has 1 to 64 bytes, none of them NUL"};
  }
  ECFS_LET(Secret salted, Secret::of_size(salt.size() + text.size()));
  const MutableByteView bytes = salted.reveal_mutable();
  std::copy(salt.begin(), salt.end(), bytes.begin());
  std::copy(text.begin(), text.end(), bytes.subspan(salt.size()).begin());
  EcryptfsKey key;
  key.salt = salt;
  ECFS_LET(key.key, Secret::of_size(kEcryptfsKeyBytes));
  std::uint8_t* const at = key.key.reveal_mutable().data();
  const Digest sha512(EVP_MD_fetch(nullptr, "SHA512", nullptr));
  const DigestCtx ctx(EVP_MD_CTX_new());
  bool ok = sha512 && ctx && hash(ctx, sha512, salted.reveal(), at);
  for (int i = 1; ok && i < kHashes; ++i) ok = hash(ctx, sha512, key.key.reveal(), at);
  if (!ok) return openssl_error("derive an eCryptfs key");
  ECFS_LET(key.signature, ecryptfs_signature(key.key.reveal()));
  return key;
}

Result<EcryptfsSignature> ecryptfs_signature(ByteView key) {
  const Digest sha512(EVP_MD_fetch(nullptr, "SHA512", nullptr));
  const DigestCtx ctx(EVP_MD_CTX_new());
  std::array<std::uint8_t, 64> whole{};  // a hash of the key; all of it but the signature is thrown away
  if (!sha512 || !ctx || !hash(ctx, sha512, key, whole.data())) return openssl_error("hash an eCryptfs key");
  EcryptfsSignature signature{};
  std::copy_n(whole.begin(), signature.size(), signature.begin());
  return signature;
}

Result<Secret> pack_ecryptfs_keys(std::span<const EcryptfsKey> keys) {
  if (keys.size() > kMaxPackedEcryptfsKeys) return Error{Code::kInvalid, EINVAL, "more than 64 eCryptfs keys"};
  ECFS_LET(Secret packed, Secret::of_size(keys.size() * kPackedEcryptfsKeyBytes));
  auto at = packed.reveal_mutable().begin();
  for (const EcryptfsKey& key : keys) {
    at = std::copy(key.salt.begin(), key.salt.end(), at);
    at = std::copy(key.key.reveal().begin(), key.key.reveal().end(), at);
  }
  return packed;
}

Result<EcryptfsSalt> ecryptfs_rc_salt(ByteView rc) {
  constexpr std::string_view kName = "salt=";
  std::string_view rest = as_text(rc);
  while (!rest.empty()) {
    const std::string_view word = rest.substr(0, rest.find_first_of("\n,"));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    // The original passes over what has another length, and so do files that were made with it.
    if (!word.starts_with(kName) || word.size() != kName.size() + 2 * sizeof(EcryptfsSalt)) continue;
    const auto bytes = from_hex(word.substr(kName.size()));
    if (!bytes) return Error{Code::kInvalid, EINVAL, "the salt in .ecryptfsrc is not 16 hex digits"};
    EcryptfsSalt salt{};
    std::copy(bytes->begin(), bytes->end(), salt.begin());
    return salt;
  }
  return kEcryptfsContentSalt;
}

Result<EcryptfsSalt> read_ecryptfs_rc_salt(int home, uid_t owner) {
  constexpr std::uint64_t kMostBytes = 65536;
  const auto rc = read_file(home, ".ecryptfsrc", kMostBytes, owner);
  if (!rc && rc.error().code == Code::kNotFound) return kEcryptfsContentSalt;
  if (!rc) return with_context(rc.error(), ".ecryptfsrc");
  return ecryptfs_rc_salt(*rc);
}

}  // namespace ecfs::wrap
