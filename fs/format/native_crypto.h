// The ciphers of the native format over OpenSSL, made for many small pieces: contexts keep their key schedule and are
// used again, one piece costs one new nonce.
//
// Thread rules are said at each class. A failure of OpenSSL itself is kIo; a piece that does not verify is a plain
// `false` for contents (the caller has a second version to try) and kCorrupt for names. Source: fs/FORMAT.md §3, §4.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "fs/format/native_keys.h"
#include "wrap/base/bytes.h"
#include "wrap/base/owned.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

using CipherCtx = Owned<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;
using Cipher = Owned<EVP_CIPHER, EVP_CIPHER_free>;

constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kSivBytes = 16;           // what SIV adds to a plaintext
constexpr std::size_t kFileFixedBytes = 24;     // bytes 0..23 of a file header, which name the file's key
constexpr std::size_t kRandomPrefixBytes = 16;  // N of links and xattr values

using Nonce = std::array<std::uint8_t, kNonceBytes>;
using Tag = std::array<std::uint8_t, kTagBytes>;
using FileFixed = std::array<std::uint8_t, kFileFixedBytes>;

// NonceSource gives file ids, nonces and prefixes: the bytes of one request in one call. The mount's is getrandom(2);
// a test gives those of a vector, so that encoding is tested through the code that runs.
class NonceSource {
 public:
  virtual ~NonceSource() = default;
  virtual Status fill(MutableByteView out) = 0;
};
std::shared_ptr<NonceSource> random_nonces();

// Ciphers are the algorithms, fetched once for a mount. Safe from any thread.
struct Ciphers {
  Cipher aes_gcm;
  Cipher chacha_poly;
  Cipher aes_siv;

  static Result<Ciphers> fetch();
};

// Siv is AES-256-SIV (RFC 5297) under one 64-byte key, with exactly one associated-data string. Neither that nor the
// plaintext may be empty: kInvalid (OpenSSL before 3.0.10 passed over an empty one, CVE-2023-2975). Safe from any
// thread.
class Siv {
 public:
  // Without a key: all is kNoKey.
  Siv() noexcept = default;
  static Result<Siv> make(const Ciphers& ciphers, const Secret& key);
  // seal gives the synthetic IV and the ciphertext: 16 bytes more than `plain`. open is the reverse: kCorrupt if it
  // does not verify.
  [[nodiscard]] Result<Bytes> seal(ByteView associated, ByteView plain) const;
  [[nodiscard]] Result<Bytes> open(ByteView associated, ByteView sealed) const;

 private:
  Siv(CipherCtx seal, CipherCtx open) noexcept : seal_(std::move(seal)), open_(std::move(open)) {}
  CipherCtx seal_;  // keyed; copied for each use, never used itself
  CipherCtx open_;
};

// FileCipher is one file's key. It holds idle contexts and nothing else: the key itself is derived again whenever a
// context more is needed, so that no open file needs locked memory of its own. Safe from any thread.
class FileCipher {
 public:
  // `keys` and `ciphers` outlive it. The suite is byte 5 of `fixed`, 1 or 2 (else kCorrupt).
  static Result<std::shared_ptr<const FileCipher>> make(const NativeKeys& keys, const Ciphers& ciphers,
                                                        const FileFixed& fixed);

  // Lease is a context for one thread and one direction, for as many pieces as wanted.
  class Lease {
   public:
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&&) noexcept = delete;
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease();
    // seal encrypts `plain` into `out` (of the same length; may be the same place).
    Status seal(const Nonce& nonce, ByteView associated, ByteView plain, std::uint8_t* out, Tag& tag);
    // open decrypts into `out` (may be the same place) and says whether the tag fits. If not, `out` holds rubbish that
    // nobody may see.
    Result<bool> open(const Nonce& nonce, const Tag& tag, ByteView associated, ByteView sealed, std::uint8_t* out);

   private:
    friend class FileCipher;
    Lease(const FileCipher& owner, CipherCtx ctx, bool seals) noexcept
        : owner_(&owner), ctx_(std::move(ctx)), seals_(seals) {}
    const FileCipher* owner_;
    CipherCtx ctx_;
    bool seals_;
  };
  [[nodiscard]] Result<Lease> sealer() const { return lease(true); }
  [[nodiscard]] Result<Lease> opener() const { return lease(false); }
  // drop_keys forgets the idle contexts; there is no other. While the volume has no keys new ones are kNoKey.
  void drop_keys() const noexcept;

 private:
  FileCipher(const NativeKeys& keys, const EVP_CIPHER* cipher, const FileFixed& fixed) noexcept
      : keys_(&keys), cipher_(cipher), fixed_(fixed) {}
  [[nodiscard]] Result<Lease> lease(bool seals) const;
  [[nodiscard]] Result<CipherCtx> new_context(bool seals) const;

  const NativeKeys* keys_;
  const EVP_CIPHER* cipher_;
  FileFixed fixed_;
  mutable std::mutex mutex_;  // guards idle_; innermost
  mutable std::array<std::vector<CipherCtx>, 2> idle_;
};

}  // namespace ecfs::fs
