// Keys and ciphers of the eCryptfs format: the keys of a mount, the key of a file that one of them encrypts, and the
// ciphers over OpenSSL and Botan. There is no check value anywhere: a key is the right one because its signature says
// so.
//
// Thread rules are said at each class. A failure of OpenSSL itself is kIo. Source: fs/ECRYPTFS-FORMAT.md §1, §2.2, §3.
#pragma once

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "fs/format/ecryptfs_botan.h"
#include "fs/format/ecryptfs_header.h"
#include "fs/format/native_crypto.h"
#include "wrap/base/owned.h"
#include "wrap/base/secret.h"
#include "wrap/base/secret_heap.h"
#include "wrap/ecryptfs_passphrase.h"

namespace ecfs::fs {

using wrap::EcryptfsKey;
using wrap::kEcryptfsContentSalt;
using wrap::kEcryptfsMaxPassphraseBytes;
using wrap::kEcryptfsNameSalt;

// EcryptfsKeys are all keys of a mount. find: kNoKey, naming the signature, if it is not among them.
struct EcryptfsKeys {
  std::vector<EcryptfsKey> all;
  [[nodiscard]] Result<const EcryptfsKey*> find(const EcryptfsSignature& signature) const;

  // pack and parse: how they travel to the server of a mount, each as its salt and its 64 bytes; at most 64 keys
  // (kInvalid). Signatures do not travel: they follow from the keys.
  [[nodiscard]] Result<Secret> pack() const;
  static Result<EcryptfsKeys> parse(const Secret& packed);
};
constexpr std::size_t kEcryptfsMaxKeys = wrap::kMaxPackedEcryptfsKeys;

// EcryptfsCipher is a cipher with its key length, as files and names say it.
struct EcryptfsCipher {
  std::uint8_t code = 0;
  std::uint8_t key_bytes = 0;
  bool operator==(const EcryptfsCipher&) const = default;

  // by_name is for the mount options: kInvalid if there is none such, or not with keys of this length.
  static Result<EcryptfsCipher> by_name(std::string_view name, std::size_t key_bytes);
  // of_packet is for a Tag 3 packet, of_name for a Tag 70 packet on a mount whose names have `key_bytes`: kCorrupt.
  static Result<EcryptfsCipher> of_packet(std::uint8_t code, std::size_t encrypted_key_bytes);
  static Result<EcryptfsCipher> of_name(std::uint8_t code, std::size_t key_bytes);

  [[nodiscard]] std::string_view name() const noexcept;
  [[nodiscard]] std::size_t block_bytes() const noexcept;  // 8 or 16
  // encrypted_key_bytes is the length of an encrypted file key: 32 for aes with 24 bytes, which is padded.
  [[nodiscard]] std::size_t encrypted_key_bytes() const noexcept { return code == 8 ? 32 : key_bytes; }
};

// EcryptfsContext is a cipher with its key set, for one direction, of OpenSSL or of Botan. One thread at a time.
class EcryptfsContext {
 public:
  explicit EcryptfsContext(CipherCtx openssl) noexcept : openssl_(std::move(openssl)) {}
  EcryptfsContext(std::unique_ptr<BotanCipher> botan, bool encrypts) noexcept
      : botan_(std::move(botan)), encrypts_(encrypts) {}
  // cbc handles whole blocks from `in` to `out` (may be the same place). `iv` has a block at least.
  Status cbc(ByteView iv, ByteView in, std::uint8_t* out);

 private:
  friend class EcryptfsCiphers;
  Status ecb(ByteView in, std::uint8_t* out);
  Status openssl(const std::uint8_t* iv, ByteView in, std::uint8_t* out);

  CipherCtx openssl_;  // null: it is Botan's
  std::unique_ptr<BotanCipher> botan_;
  bool encrypts_ = false;
};

// EcryptfsCiphers are the algorithms, fetched once for a mount from a library context of its own, which alone has
// OpenSSL's legacy provider (Blowfish, CAST5). Safe from any thread.
class EcryptfsCiphers {
 public:
  static Result<EcryptfsCiphers> fetch();

  // ecb encrypts or decrypts whole blocks into `out` (may be the same place) under the first bytes of `key`. kInvalid:
  // not whole blocks, or a key that is too short. kUnsupported: a cipher that this OpenSSL does not have.
  Status ecb(const EcryptfsCipher& cipher, ByteView key, bool encrypt, ByteView in, std::uint8_t* out) const;
  // cbc gives a context with the key set; kInvalid and kUnsupported as above.
  [[nodiscard]] Result<EcryptfsContext> cbc(const EcryptfsCipher& cipher, ByteView key, bool encrypt) const;
  [[nodiscard]] const EVP_MD* md5() const noexcept { return md5_.get(); }

 private:
  using LibCtx = Owned<OSSL_LIB_CTX, OSSL_LIB_CTX_free>;
  using Provider = Owned<OSSL_PROVIDER, OSSL_PROVIDER_unload>;
  using Digest = Owned<EVP_MD, EVP_MD_free>;
  struct Modes {
    Cipher ecb;
    Cipher cbc;
  };
  EcryptfsCiphers() = default;
  [[nodiscard]] Result<EcryptfsContext> keyed(const EcryptfsCipher& cipher, ByteView key, bool encrypt,
                                              bool chained) const;

  LibCtx library_;  // outlives what was fetched from it
  Provider default_;
  Provider legacy_;                        // null: this system has none
  std::map<std::uint8_t, Modes> ciphers_;  // by code
  Digest md5_;
};

// make_ecryptfs_file_key makes a random file key and encrypts it under each of the keys that `signatures` names.
Result<std::vector<EcryptfsKeyPacket>> make_ecryptfs_file_key(const EcryptfsKeys& keys, const EcryptfsCiphers& ciphers,
                                                              const EcryptfsCipher& cipher,
                                                              std::span<const EcryptfsSignature> signatures);

// EcryptfsFileKey is one file's key. It holds idle contexts and nothing else: the key itself is decrypted again
// whenever a context more is needed, so that no open file needs locked memory of its own. Safe from any thread.
class EcryptfsFileKey {
 public:
  // Takes the first packet whose key is among `keys`, which like `ciphers` outlive it: kNoKey if none is, kCorrupt if
  // that packet makes no sense, kUnsupported if its cipher is not there.
  static Result<std::shared_ptr<const EcryptfsFileKey>> open(const EcryptfsKeys& keys, const EcryptfsCiphers& ciphers,
                                                             const EcryptfsHeader& header);

  // Lease is a context for one thread and one direction, for as many extents as wanted.
  class Lease {
   public:
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&&) noexcept = delete;
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease();
    // crypt encrypts or decrypts the 4096 bytes of extent `number` into `out` (may be the same place).
    Status crypt(std::uint64_t number, ByteView in, std::uint8_t* out);

   private:
    friend class EcryptfsFileKey;
    struct State {
      EcryptfsContext ctx;
      std::unique_ptr<SecretBytes<32>> iv_input;  // MD5 of the file key, then the extent's number
    };
    Lease(const EcryptfsFileKey& owner, State state, bool encrypts) noexcept
        : owner_(&owner), state_(std::move(state)), encrypts_(encrypts) {}
    const EcryptfsFileKey* owner_;
    State state_;
    bool encrypts_;
  };
  [[nodiscard]] Result<Lease> lease(bool encrypts) const;
  [[nodiscard]] const EcryptfsCipher& cipher() const noexcept { return cipher_; }
  // drop_keys forgets the idle contexts; there is no other. While the mount has no keys new ones are kNoKey.
  void drop_keys() const noexcept;

 private:
  EcryptfsFileKey(const EcryptfsKeys& keys, const EcryptfsCiphers& ciphers, EcryptfsCipher cipher,
                  EcryptfsKeyPacket packet)
      : keys_(&keys), ciphers_(&ciphers), cipher_(cipher), packet_(std::move(packet)) {}
  [[nodiscard]] Result<Lease::State> new_state(bool encrypts) const;

  const EcryptfsKeys* keys_;
  const EcryptfsCiphers* ciphers_;
  EcryptfsCipher cipher_;
  EcryptfsKeyPacket packet_;
  mutable std::mutex mutex_;  // guards idle_; innermost
  mutable std::array<std::vector<Lease::State>, 2> idle_;
};

}  // namespace ecfs::fs
