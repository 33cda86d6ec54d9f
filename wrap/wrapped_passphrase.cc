#include "wrap/wrapped_passphrase.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>

#include "wrap/base/file.h"
#include "wrap/base/owned.h"
#include "wrap/crypto.h"

namespace ecfs::wrap {
namespace {

constexpr std::uint8_t kMarker = 0x3a;
constexpr std::uint8_t kVersion = 2;
constexpr std::size_t kPrefixBytes = 2;
constexpr std::size_t kSignatureChars = 16;
constexpr std::size_t kBlockBytes = 16;  // of AES, whose key has as many

using CipherCtx = Owned<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;

Error corrupt(const char* what) { return Error{Code::kCorrupt, 0, std::string("not a wrapped passphrase: ") + what}; }

// ecb encrypts or decrypts whole blocks under the first bytes of `key`.
Status ecb(const EcryptfsKey& key, bool encrypt, ByteView in, std::uint8_t* out) {
  const CipherCtx ctx(EVP_CIPHER_CTX_new());
  int len = 0;
  const bool ok = ctx &&
                  EVP_CipherInit_ex(ctx.get(), EVP_aes_128_ecb(), nullptr, key.key.reveal().data(), nullptr,
                                    encrypt ? 1 : 0) == 1 &&
                  EVP_CIPHER_CTX_set_padding(ctx.get(), 0) == 1 &&
                  EVP_CipherUpdate(ctx.get(), out, &len, in.data(), static_cast<int>(in.size())) == 1 &&
                  len == static_cast<int>(in.size());
  if (!ok) return openssl_error("use the key of a wrapping passphrase");
  return {};
}

// The file as it is; kNotFound if there is none.
Result<Bytes> read(int dir, const std::string& name) { return read_file(dir, name, kMaxWrappedPassphraseBytes); }

Status replace(int dir, const std::string& name, ByteView bytes, KeepPrevious keep) {
  ECFS_TRY(replace_file(dir, name, bytes, 0600, keep));
  ECFS_LET(const Bytes there, read(dir, name));
  if (!std::equal(there.begin(), there.end(), bytes.begin(), bytes.end())) {
    return Error{Code::kIo, EIO, name + ": what was written reads back otherwise"};
  }
  return {};
}

}  // namespace

Result<Bytes> wrap_passphrase(const Secret& passphrase, const Secret& wrapping) {
  const ByteView text = passphrase.reveal();
  if (text.empty() || text.size() > kEcryptfsMaxPassphraseBytes ||
      std::find(text.begin(), text.end(), 0) != text.end()) {
    return Error{Code::kInvalid, EINVAL, "a mount passphrase has 1 to 64 bytes, none of them NUL"};
  }
  EcryptfsSalt salt{};
  ECFS_TRY(fill_random(salt));
  ECFS_LET(const EcryptfsKey key, EcryptfsKey::derive(wrapping, salt));
  ECFS_LET(Secret padded, Secret::of_size((text.size() + kBlockBytes - 1) / kBlockBytes * kBlockBytes));
  std::copy(text.begin(), text.end(), padded.reveal_mutable().begin());
  Bytes file{kMarker, kVersion};
  append(file, salt);
  append(file, as_bytes(to_hex(key.signature)));
  const std::size_t at = file.size();
  file.resize(at + padded.size());
  ECFS_TRY(ecb(key, true, padded.reveal(), file.data() + at));
  ECFS_LET(const Secret back, unwrap_passphrase(file, wrapping, salt));
  if (!back.equals(passphrase)) return Error{Code::kIo, EIO, "a wrapped passphrase did not open to the same"};
  return file;
}

Result<WrappedPassphrase> parse_wrapped_passphrase(ByteView file) {
  ByteReader reader(file);
  WrappedPassphrase wrapped;
  if (!file.empty() && file[0] == kMarker) {
    ECFS_LET(const ByteView prefix, reader.take(kPrefixBytes));
    if (prefix[1] != kVersion) {
      return Error{Code::kUnsupported, EOPNOTSUPP,
                   "a wrapped passphrase of version " + std::to_string(prefix[1]) + ", which is not known"};
    }
    ECFS_LET(const ByteView salt, reader.take(sizeof(EcryptfsSalt)));
    std::copy(salt.begin(), salt.end(), wrapped.salt.emplace().begin());
  }
  ECFS_LET(const ByteView digits, reader.take(kSignatureChars));
  const auto signature = from_hex(as_text(digits));
  if (!signature) return corrupt("its signature is none");
  std::copy(signature->begin(), signature->end(), wrapped.signature.begin());
  if (reader.remaining() == 0 || reader.remaining() % kBlockBytes != 0 ||
      reader.remaining() > kEcryptfsMaxPassphraseBytes) {
    return corrupt("its length is wrong");
  }
  ECFS_LET(const ByteView encrypted, reader.take(reader.remaining()));
  append(wrapped.encrypted, encrypted);
  return wrapped;
}

Result<Secret> unwrap_passphrase(ByteView file, const Secret& wrapping, const EcryptfsSalt& salt) {
  ECFS_LET(const WrappedPassphrase wrapped, parse_wrapped_passphrase(file));
  ECFS_LET(const EcryptfsKey key, EcryptfsKey::derive(wrapping, wrapped.salt.value_or(salt)));
  if (wrapped.signature != key.signature) {
    return Error{Code::kWrongKey, 0, "the wrapping passphrase does not fit"};
  }
  ECFS_LET(Secret passphrase, Secret::of_size(wrapped.encrypted.size()));
  ECFS_TRY(ecb(key, false, wrapped.encrypted, passphrase.reveal_mutable().data()));
  const ByteView text = passphrase.reveal();
  const auto len = static_cast<std::size_t>(std::find(text.begin(), text.end(), 0) - text.begin());
  if (len == 0) return corrupt("it holds an empty passphrase");
  passphrase.shrink(len);
  return passphrase;
}

Result<int> wrapped_passphrase_version(int dir, const std::string& name) {
  ECFS_LET(const Bytes file, read(dir, name));
  ECFS_LET(const WrappedPassphrase wrapped, parse_wrapped_passphrase(file));
  return wrapped.salt ? 2 : 1;
}

Result<Secret> read_wrapped_passphrase(int dir, const std::string& name, const Secret& wrapping,
                                       const EcryptfsSalt& salt) {
  ECFS_LET(const Bytes file, read(dir, name));
  auto passphrase = unwrap_passphrase(file, wrapping, salt);
  if (!passphrase) return with_context(std::move(passphrase).error(), name);
  return passphrase;
}

Status write_wrapped_passphrase(int dir, const std::string& name, const Secret& passphrase, const Secret& wrapping) {
  ECFS_LET(const Bytes file, wrap_passphrase(passphrase, wrapping));
  return replace(dir, name, file, KeepPrevious::kYes);
}

Status rewrap_passphrase(int dir, const std::string& name, const Secret& old_wrapping, const Secret& new_wrapping,
                         const EcryptfsSalt& salt) {
  ECFS_LET(const Secret passphrase, read_wrapped_passphrase(dir, name, old_wrapping, salt));
  ECFS_LET(const Bytes file, wrap_passphrase(passphrase, new_wrapping));
  ECFS_TRY(replace(dir, name, file, KeepPrevious::kYes));
  const std::string previous = name + ".bak";
  if (auto done = replace(dir, previous, file, KeepPrevious::kNo); !done) {
    return with_context(std::move(done).error(),
                        name + " opens with the new passphrase now, and " + previous + " still with the old one");
  }
  return {};
}

}  // namespace ecfs::wrap
