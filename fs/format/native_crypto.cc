#include "fs/format/native_crypto.h"

#include <openssl/hmac.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "wrap/base/secret_heap.h"
#include "wrap/crypto.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kMaxIdle = 4;  // contexts kept of each direction: as many threads as usually share a file

class KernelRandom final : public NonceSource {
 public:
  Status fill(MutableByteView out) override { return fill_random(out); }
};

int to_int(std::size_t n) noexcept { return static_cast<int>(n); }

// Contexts are copied from a keyed one: setting a key anew would fetch CMAC and CTR from the provider each time.
Result<CipherCtx> copy_of(const CipherCtx& keyed) {
  if (!keyed) return no_keys();
  CipherCtx ctx(EVP_CIPHER_CTX_new());
  if (!ctx || EVP_CIPHER_CTX_copy(ctx.get(), keyed.get()) != 1) return wrap::openssl_error("copy an AES-SIV context");
  return ctx;
}

Result<CipherCtx> keyed_siv(const Ciphers& ciphers, const Secret& key, int encrypt) {
  CipherCtx ctx(EVP_CIPHER_CTX_new());
  if (!ctx ||
      EVP_CipherInit_ex2(ctx.get(), ciphers.aes_siv.get(), key.reveal().data(), nullptr, encrypt, nullptr) != 1) {
    return wrap::openssl_error("set an AES-SIV key");
  }
  return ctx;
}

Error empty_siv() { return Error{Code::kInvalid, EINVAL, "AES-SIV of nothing"}; }

}  // namespace

std::shared_ptr<NonceSource> random_nonces() { return std::make_shared<KernelRandom>(); }

Result<Ciphers> Ciphers::fetch() {
  Ciphers c{Cipher(EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr)),
            Cipher(EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr)),
            Cipher(EVP_CIPHER_fetch(nullptr, "AES-256-SIV", nullptr))};
  if (!c.aes_gcm || !c.chacha_poly || !c.aes_siv) return wrap::openssl_error("this OpenSSL lacks a cipher");
  return c;
}

Result<Siv> Siv::make(const Ciphers& ciphers, const Secret& key) {
  if (key.size() != 64) return Error{Code::kInvalid, EINVAL, "an AES-SIV key has 64 bytes"};
  ECFS_LET(CipherCtx seal, keyed_siv(ciphers, key, 1));
  ECFS_LET(CipherCtx open, keyed_siv(ciphers, key, 0));
  return Siv(std::move(seal), std::move(open));
}

Result<Bytes> Siv::seal(ByteView associated, ByteView plain) const {
  if (associated.empty() || plain.empty()) return empty_siv();
  ECFS_LET(const CipherCtx ctx, copy_of(seal_));
  Bytes out(kSivBytes + plain.size());
  int len = 0;
  if (EVP_EncryptUpdate(ctx.get(), nullptr, &len, associated.data(), to_int(associated.size())) != 1 ||
      EVP_EncryptUpdate(ctx.get(), out.data() + kSivBytes, &len, plain.data(), to_int(plain.size())) != 1 ||
      EVP_EncryptFinal_ex(ctx.get(), out.data() + out.size(), &len) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_GET_TAG, to_int(kSivBytes), out.data()) != 1) {
    return wrap::openssl_error("encrypt with AES-SIV");
  }
  return out;
}

Result<Bytes> Siv::open(ByteView associated, ByteView sealed) const {
  if (associated.empty()) return empty_siv();
  if (sealed.size() <= kSivBytes) return Error{Code::kCorrupt, EIO, "too short for AES-SIV"};
  ECFS_LET(const CipherCtx ctx, copy_of(open_));
  std::array<std::uint8_t, kSivBytes> tag{};
  std::copy_n(sealed.begin(), kSivBytes, tag.begin());
  Bytes out(sealed.size() - kSivBytes);
  int len = 0;
  if (EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_SET_TAG, to_int(kSivBytes), tag.data()) != 1 ||
      EVP_DecryptUpdate(ctx.get(), nullptr, &len, associated.data(), to_int(associated.size())) != 1) {
    return wrap::openssl_error("decrypt with AES-SIV");
  }
  if (EVP_DecryptUpdate(ctx.get(), out.data(), &len, sealed.data() + kSivBytes, to_int(out.size())) != 1 ||
      EVP_DecryptFinal_ex(ctx.get(), out.data() + out.size(), &len) != 1) {
    (void)wrap::openssl_error("");  // only to empty OpenSSL's queue
    return Error{Code::kCorrupt, EIO, "AES-SIV does not verify"};
  }
  return out;
}

Result<std::shared_ptr<const FileCipher>> FileCipher::make(const NativeKeys& keys, const Ciphers& ciphers,
                                                           const FileFixed& fixed) {
  const EVP_CIPHER* cipher = nullptr;
  switch (static_cast<wrap::Suite>(fixed[5])) {
    case wrap::Suite::kAes256Gcm: cipher = ciphers.aes_gcm.get(); break;
    case wrap::Suite::kChaCha20Poly1305: cipher = ciphers.chacha_poly.get(); break;
    default: return Error{Code::kCorrupt, EIO, "file header: unknown suite"};
  }
  return std::shared_ptr<const FileCipher>(new FileCipher(keys, cipher, fixed));
}

Result<CipherCtx> FileCipher::new_context(bool seals) const {
  ECFS_TRY(check_there(keys_->file));
  // The one place where a file's key stands by itself, for as long as OpenSSL takes to schedule it.
  constexpr std::string_view kLabel = "ecfs1 content";
  std::array<std::uint8_t, kLabel.size() + kFileFixedBytes> message{};
  std::copy(kLabel.begin(), kLabel.end(), message.begin());
  std::copy(fixed_.begin(), fixed_.end(), message.begin() + kLabel.size());
  SecretBytes<32> key;
  if (!key) return Error{Code::kNoMemory, ENOMEM, "no memory for a file's key"};
  std::uint8_t* const key_at = key.reveal_mutable().data();
  const ByteView parent = keys_->file.reveal();
  CipherCtx ctx(EVP_CIPHER_CTX_new());
  const bool ok = ctx &&
                  HMAC(EVP_sha256(), parent.data(), to_int(parent.size()), message.data(), message.size(), key_at,
                       nullptr) != nullptr &&
                  EVP_CipherInit_ex2(ctx.get(), cipher_, key_at, nullptr, seals ? 1 : 0, nullptr) == 1;
  if (!ok) return wrap::openssl_error("set a file's key");
  return ctx;
}

Result<FileCipher::Lease> FileCipher::lease(bool seals) const {
  {
    const std::lock_guard lock(mutex_);
    std::vector<CipherCtx>& idle = idle_[seals ? 1 : 0];
    if (!idle.empty()) {
      CipherCtx ctx = std::move(idle.back());
      idle.pop_back();
      return Lease(*this, std::move(ctx), seals);
    }
  }
  ECFS_LET(CipherCtx ctx, new_context(seals));
  return Lease(*this, std::move(ctx), seals);
}

void FileCipher::drop_keys() const noexcept {
  const std::lock_guard lock(mutex_);
  for (std::vector<CipherCtx>& idle : idle_) idle.clear();
}

FileCipher::Lease::~Lease() {
  if (!ctx_) return;
  const std::lock_guard lock(owner_->mutex_);
  std::vector<CipherCtx>& idle = owner_->idle_[seals_ ? 1 : 0];
  if (idle.size() < kMaxIdle) idle.push_back(std::move(ctx_));
}

Status FileCipher::Lease::seal(const Nonce& nonce, ByteView associated, ByteView plain, std::uint8_t* out, Tag& tag) {
  int len = 0;
  if (EVP_EncryptInit_ex2(ctx_.get(), nullptr, nullptr, nonce.data(), nullptr) != 1 ||
      EVP_EncryptUpdate(ctx_.get(), nullptr, &len, associated.data(), to_int(associated.size())) != 1 ||
      EVP_EncryptUpdate(ctx_.get(), out, &len, plain.data(), to_int(plain.size())) != 1 ||
      EVP_EncryptFinal_ex(ctx_.get(), out + plain.size(), &len) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx_.get(), EVP_CTRL_AEAD_GET_TAG, to_int(kTagBytes), tag.data()) != 1) {
    return wrap::openssl_error("encrypt contents");
  }
  return {};
}

Result<bool> FileCipher::Lease::open(const Nonce& nonce, const Tag& tag, ByteView associated, ByteView sealed,
                                     std::uint8_t* out) {
  Tag given = tag;  // OpenSSL takes it by a pointer that is not const
  int len = 0;
  if (EVP_DecryptInit_ex2(ctx_.get(), nullptr, nullptr, nonce.data(), nullptr) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx_.get(), EVP_CTRL_AEAD_SET_TAG, to_int(kTagBytes), given.data()) != 1 ||
      EVP_DecryptUpdate(ctx_.get(), nullptr, &len, associated.data(), to_int(associated.size())) != 1 ||
      EVP_DecryptUpdate(ctx_.get(), out, &len, sealed.data(), to_int(sealed.size())) != 1) {
    return wrap::openssl_error("decrypt contents");
  }
  if (EVP_DecryptFinal_ex(ctx_.get(), out + sealed.size(), &len) == 1) return true;
  (void)wrap::openssl_error("");  // only to empty OpenSSL's queue
  return false;
}

}  // namespace ecfs::fs
