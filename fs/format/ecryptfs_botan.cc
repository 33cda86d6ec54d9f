#include "fs/format/ecryptfs_botan.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <type_traits>
#include <utility>

#ifdef ECFS_BOTAN_LIBRARY
#include <botan/ffi.h>
#include <dlfcn.h>

#include <optional>
#endif

namespace ecfs::fs {

#ifdef ECFS_BOTAN_LIBRARY
namespace {

constexpr std::size_t kBlockBytes = 16;
constexpr std::size_t kBlocksAtOnce = 32;

const char* name_of(std::uint8_t code) noexcept {
  if (code == 0x0a) return "Twofish";
  return code == 0x0b ? "CAST-256" : nullptr;
}

// What is used of Botan's interface for C.
struct Library {
  decltype(&botan_block_cipher_init) init;
  decltype(&botan_block_cipher_destroy) destroy;
  decltype(&botan_block_cipher_block_size) block_size;
  decltype(&botan_block_cipher_set_key) set_key;
  decltype(&botan_block_cipher_encrypt_blocks) encrypt;
  decltype(&botan_block_cipher_decrypt_blocks) decrypt;
};

std::optional<Library> load() noexcept {
  void* const handle = dlopen(ECFS_BOTAN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return {};
  Library found{};
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    return function != nullptr;
  };
  if (find(found.init, "botan_block_cipher_init") && find(found.destroy, "botan_block_cipher_destroy") &&
      find(found.block_size, "botan_block_cipher_block_size") && find(found.set_key, "botan_block_cipher_set_key") &&
      find(found.encrypt, "botan_block_cipher_encrypt_blocks") &&
      find(found.decrypt, "botan_block_cipher_decrypt_blocks")) {
    return found;  // stays loaded: keys are wiped when the last cipher goes, whenever that is
  }
  dlclose(handle);
  return {};
}

// Null: the library is not there.
const Library* library() noexcept {
  static const std::optional<Library> kLoaded = load();
  return kLoaded ? &*kLoaded : nullptr;
}

struct Destroy {
  void operator()(botan_block_cipher_t cipher) const noexcept { library()->destroy(cipher); }
};
using Handle = std::unique_ptr<botan_block_cipher_struct, Destroy>;

Status checked(int status) {
  if (status == 0) return {};
  if (status == BOTAN_FFI_ERROR_OUT_OF_MEMORY)
    return Error{Code::kNoMemory, ENOMEM, "no memory for a cipher of Botan's"};
  return Error{Code::kIo, EIO, "Botan: error " + std::to_string(status)};
}

class Keyed final : public BotanCipher {
 public:
  Keyed(const Library& botan, Handle cipher) : botan_(botan), cipher_(std::move(cipher)) {}

  Status ecb(bool encrypt, ByteView in, std::uint8_t* out) override {
    if (in.size() % kBlockBytes != 0) return not_whole();
    return blocks(encrypt, in.data(), out, in.size() / kBlockBytes);
  }

  Status cbc(bool encrypt, ByteView iv, ByteView in, std::uint8_t* out) override {
    if (in.size() % kBlockBytes != 0 || iv.size() != kBlockBytes) return not_whole();
    std::array<std::uint8_t, kBlockBytes> chain{};  // the block of ciphertext before
    std::copy(iv.begin(), iv.end(), chain.begin());
    return encrypt ? seal(chain, in, out) : open(chain, in, out);
  }

 private:
  using Block = std::array<std::uint8_t, kBlockBytes>;

  static Error not_whole() { return Error{Code::kInvalid, EINVAL, "not whole blocks of a cipher"}; }

  Status blocks(bool encrypt, const std::uint8_t* in, std::uint8_t* out, std::size_t count) {
    return checked((encrypt ? botan_.encrypt : botan_.decrypt)(cipher_.get(), in, out, count));
  }

  Status seal(Block& chain, ByteView in, std::uint8_t* out) {
    for (std::size_t at = 0; at < in.size(); at += kBlockBytes) {
      for (std::size_t i = 0; i < kBlockBytes; ++i) chain[i] ^= in[at + i];
      ECFS_TRY(blocks(true, chain.data(), chain.data(), 1));
      std::copy(chain.begin(), chain.end(), out + at);
    }
    return {};
  }

  Status open(Block& chain, ByteView in, std::uint8_t* out) {
    std::array<std::uint8_t, kBlocksAtOnce * kBlockBytes> sealed{};  // `out` may be `in`
    for (std::size_t at = 0; at < in.size();) {
      const std::size_t len = std::min(sealed.size(), in.size() - at);
      std::copy_n(in.data() + at, len, sealed.begin());
      ECFS_TRY(blocks(false, sealed.data(), out + at, len / kBlockBytes));
      for (std::size_t i = 0; i < kBlockBytes; ++i) out[at + i] ^= chain[i];
      for (std::size_t i = kBlockBytes; i < len; ++i) out[at + i] ^= sealed[i - kBlockBytes];
      std::copy_n(sealed.data() + len - kBlockBytes, kBlockBytes, chain.begin());
      at += len;
    }
    return {};
  }

  const Library& botan_;
  Handle cipher_;
};

}  // namespace

void load_botan() noexcept { (void)library(); }

bool has_botan_cipher(std::uint8_t code) noexcept { return name_of(code) != nullptr && library() != nullptr; }

Result<std::unique_ptr<BotanCipher>> BotanCipher::make(std::uint8_t code, ByteView key) {
  const char* const name = name_of(code);
  if (name == nullptr) return Error{Code::kUnsupported, EOPNOTSUPP, "Botan is not used for this cipher"};
  const Library* const botan = library();
  if (botan == nullptr) {
    return Error{Code::kUnsupported, EOPNOTSUPP, std::string(ECFS_BOTAN_LIBRARY) + " is not installed"};
  }
  botan_block_cipher_t made = nullptr;
  const int status = botan->init(&made, name);
  Handle cipher(made);
  if (status == BOTAN_FFI_ERROR_NOT_IMPLEMENTED) {
    return Error{Code::kUnsupported, EOPNOTSUPP, std::string("this Botan lacks ") + name};
  }
  ECFS_TRY(checked(status));
  if (botan->block_size(made) != static_cast<int>(kBlockBytes)) {
    return Error{Code::kUnsupported, EOPNOTSUPP, std::string("another cipher than ") + name};
  }
  const int keyed = key.empty() ? BOTAN_FFI_ERROR_INVALID_KEY_LENGTH : botan->set_key(made, key.data(), key.size());
  if (keyed == BOTAN_FFI_ERROR_INVALID_KEY_LENGTH) return Error{Code::kInvalid, EINVAL, "a key of another length"};
  ECFS_TRY(checked(keyed));
  return std::unique_ptr<BotanCipher>(std::make_unique<Keyed>(*botan, std::move(cipher)));
}
#else
void load_botan() noexcept {}

bool has_botan_cipher(std::uint8_t) noexcept { return false; }

Result<std::unique_ptr<BotanCipher>> BotanCipher::make(std::uint8_t, ByteView) {
  return Error{Code::kUnsupported, EOPNOTSUPP, "ecfs was built without Botan"};
}
#endif

}  // namespace ecfs::fs
