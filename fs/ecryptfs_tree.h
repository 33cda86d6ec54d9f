// What the entries of an eCryptfs lower tree say about how it has been mounted: the signatures of its keys, its cipher,
// whether names are encrypted. Needs no key. Nothing of it is proven: whoever can write there can say anything.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "fs/format/ecryptfs_keys.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

struct EcryptfsTree {
  std::vector<EcryptfsSignature> signatures;        // that files name, the most frequent first
  std::optional<EcryptfsCipher> cipher;             // of most files
  bool in_xattr = false;                            // most headers stand in attributes
  std::optional<EcryptfsSignature> name_signature;  // that most encrypted names name; none: no encrypted name was seen
  std::optional<std::uint8_t> name_cipher_code;     // theirs
  // seen says whether anything was found that only eCryptfs makes.
  [[nodiscard]] bool seen() const noexcept { return !signatures.empty() || name_signature.has_value(); }
};

// look_at_ecryptfs_tree looks into some directories and files below `lower_dir` (readable), no links. What may not be
// read is passed over, and so is a directory .Private, which is a tree of its own.
struct EcryptfsLook {
  std::size_t most_directories = 64;
  std::size_t most_entries = 4096;
  std::size_t most_files = 64;
};
constexpr EcryptfsLook kGlance{1, 256, 4};  // at the entries of the directory itself
Result<EcryptfsTree> look_at_ecryptfs_tree(int lower_dir, const EcryptfsLook& look = {});

}  // namespace ecfs::fs
