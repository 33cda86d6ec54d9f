// Encrypted names and link targets of the eCryptfs format: a Tag 70 packet in text. The same name always becomes the
// same text, which is how it is looked up.
//
// Safe from any thread. Source: fs/ECRYPTFS-FORMAT.md §4.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "fs/format/ecryptfs_keys.h"

namespace ecfs::fs {

constexpr std::string_view kEcryptfsNamePrefix = "ECRYPTFS_FNEK_ENCRYPTED.";
constexpr std::size_t kEcryptfsLongestName = 143;  // plain bytes, whatever the cipher
constexpr std::size_t kEcryptfsLongestLowerName = 255;
constexpr std::size_t kEcryptfsLongestLowerLink = 4095;

// Base64 of a sort: whole groups of four characters, the last filled up with zero bits. decode gives the bytes of all
// groups (up to two zero bytes too many); kCorrupt: another character or a length that is none.
std::string to_ecryptfs_text(ByteView bytes);
Result<Bytes> from_ecryptfs_text(std::string_view text);

class EcryptfsNames {
 public:
  // Names under the key that `signature` names: kNoKey if it is not among `keys`, which like `ciphers` outlive it.
  static Result<EcryptfsNames> make(const EcryptfsKeys& keys, const EcryptfsCiphers& ciphers,
                                    const EcryptfsCipher& cipher, const EcryptfsSignature& signature);

  // encode: ENAMETOOLONG over 143 bytes. decode: kCorrupt if looking up the result would not lead back to `lower`,
  // which leaves out names under other keys and ciphers, and everything that is no name of a file.
  [[nodiscard]] Result<std::string> encode(std::string_view plain) const;
  [[nodiscard]] Result<std::string> decode(std::string_view lower) const;
  // encode_link: ENAMETOOLONG if the result has more than 4095 bytes. decode_link takes any key of the mount.
  [[nodiscard]] Result<std::string> encode_link(std::string_view target) const;
  [[nodiscard]] Result<std::string> decode_link(std::string_view lower) const;

  // drop_keys: from then on everything is kNoKey.
  void drop_keys() noexcept { prefix_.clear(); }

 private:
  EcryptfsNames(const EcryptfsKeys& keys, const EcryptfsCiphers& ciphers, const EcryptfsCipher& cipher,
                const EcryptfsSignature& signature, Secret prefix) noexcept
      : keys_(&keys), ciphers_(&ciphers), cipher_(cipher), signature_(signature), prefix_(std::move(prefix)) {}
  [[nodiscard]] Result<std::string> seal(std::string_view plain, std::size_t longest_lower) const;
  [[nodiscard]] Result<std::string> open(std::string_view lower) const;

  const EcryptfsKeys* keys_;
  const EcryptfsCiphers* ciphers_;
  EcryptfsCipher cipher_;
  EcryptfsSignature signature_;
  Secret prefix_;  // hashes of the key, which stand in front of each name; 32 bytes
};

}  // namespace ecfs::fs
