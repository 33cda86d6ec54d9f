#include "fs/format/ecryptfs_botan.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>

#ifdef ECFS_BOTAN
#include <botan/block_cipher.h>
#endif

namespace ecfs::fs {

#ifdef ECFS_BOTAN
namespace {

constexpr std::size_t kBlockBytes = 16;

const char* name_of(std::uint8_t code) noexcept {
  if (code == 0x0a) return "Twofish";
  return code == 0x0b ? "CAST-256" : nullptr;
}

// Botan tells of failures by exceptions, which end here.
template <class Do>
auto caught(Do&& action) -> decltype(action()) try {
  return action();
} catch (const std::bad_alloc&) {
  return Error{Code::kNoMemory, ENOMEM, "no memory for a cipher of Botan's"};
} catch (const std::exception& failure) {
  return Error{Code::kIo, EIO, std::string("Botan: ") + failure.what()};
}

class Keyed final : public BotanCipher {
 public:
  explicit Keyed(std::unique_ptr<Botan::BlockCipher> cipher) : cipher_(std::move(cipher)) {}

  Status ecb(bool encrypt, ByteView in, std::uint8_t* out) override {
    if (in.size() % kBlockBytes != 0) return Error{Code::kInvalid, EINVAL, "not whole blocks of a cipher"};
    return caught([&]() -> Status {
      const std::size_t blocks = in.size() / kBlockBytes;
      if (encrypt) {
        cipher_->encrypt_n(in.data(), out, blocks);
      } else {
        cipher_->decrypt_n(in.data(), out, blocks);
      }
      return {};
    });
  }

  Status cbc(bool encrypt, ByteView iv, ByteView in, std::uint8_t* out) override {
    if (in.size() % kBlockBytes != 0 || iv.size() != kBlockBytes) {
      return Error{Code::kInvalid, EINVAL, "not whole blocks of a cipher"};
    }
    return caught([&]() -> Status {
      std::array<std::uint8_t, kBlockBytes> chain{};  // the block of ciphertext before
      std::copy(iv.begin(), iv.end(), chain.begin());
      std::array<std::uint8_t, kBlockBytes> sealed{};
      for (std::size_t at = 0; at < in.size(); at += kBlockBytes) {
        if (encrypt) {
          for (std::size_t i = 0; i < kBlockBytes; ++i) chain[i] ^= in[at + i];
          cipher_->encrypt_n(chain.data(), chain.data(), 1);
          std::copy(chain.begin(), chain.end(), out + at);
        } else {
          std::copy_n(in.data() + at, kBlockBytes, sealed.begin());
          cipher_->decrypt_n(sealed.data(), out + at, 1);
          for (std::size_t i = 0; i < kBlockBytes; ++i) out[at + i] ^= chain[i];
          chain = sealed;
        }
      }
      return {};
    });
  }

 private:
  std::unique_ptr<Botan::BlockCipher> cipher_;
};

}  // namespace

bool has_botan_cipher(std::uint8_t code) noexcept { return name_of(code) != nullptr; }

Result<std::unique_ptr<BotanCipher>> BotanCipher::make(std::uint8_t code, ByteView key) {
  const char* name = name_of(code);
  if (name == nullptr) return Error{Code::kUnsupported, EOPNOTSUPP, "Botan is not used for this cipher"};
  return caught([&]() -> Result<std::unique_ptr<BotanCipher>> {
    std::unique_ptr<Botan::BlockCipher> cipher = Botan::BlockCipher::create(name);
    if (!cipher || cipher->block_size() != kBlockBytes) {
      return Error{Code::kUnsupported, EOPNOTSUPP, std::string("this Botan lacks ") + name};
    }
    if (!cipher->valid_keylength(key.size())) return Error{Code::kInvalid, EINVAL, "a key of another length"};
    cipher->set_key(key.data(), key.size());
    return std::unique_ptr<BotanCipher>(std::make_unique<Keyed>(std::move(cipher)));
  });
}
#else
bool has_botan_cipher(std::uint8_t) noexcept { return false; }

Result<std::unique_ptr<BotanCipher>> BotanCipher::make(std::uint8_t, ByteView) {
  return Error{Code::kUnsupported, EOPNOTSUPP, "ecfs was built without Botan"};
}
#endif

}  // namespace ecfs::fs
