// What looking through one lower file tells, for `ecfs fsck` and `ecfs stat`: facts about it, what a mount could not
// read, and what an interruption left behind. Part of the Format interface (format.h).
//
// Sizes, offsets and lengths are in bytes; "plain" is what a mount shows. Plain values: no thread rule.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

// Ranges are byte ranges in ascending order; neighbours are joined. The first kMost are kept, num_bytes() counts all.
class Ranges {
 public:
  static constexpr std::size_t kMost = 4096;
  struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;  // one past the last
    friend bool operator==(const Range&, const Range&) = default;
  };

  // add takes a range that begins at or behind the end of all before.
  void add(std::uint64_t begin, std::uint64_t end);
  [[nodiscard]] const std::vector<Range>& list() const noexcept { return list_; }
  [[nodiscard]] std::uint64_t num_bytes() const noexcept { return num_bytes_; }
  [[nodiscard]] bool empty() const noexcept { return num_bytes_ == 0; }
  [[nodiscard]] bool complete() const noexcept { return complete_; }  // list() has all of them
  // touches says whether [begin, end) and one of the ranges have a byte in common.
  [[nodiscard]] bool touches(std::uint64_t begin, std::uint64_t end) const noexcept;
  friend bool operator==(const Ranges&, const Ranges&) = default;

 private:
  std::vector<Range> list_;
  std::uint64_t num_bytes_ = 0;
  bool complete_ = true;
};

enum class FileShape {
  kEmpty,    // nothing, or a header alone
  kInline,   // contents behind the header, under one tag
  kPaged,    // blocks, each under its own
  kExtents,  // of eCryptfs: as many bytes as in the plain file, filled up to whole extents
  kOther,    // of a format that does not tell
};

// FileFacts is what a lower regular file is. Only with `authentic` has anybody vouched for it; else it is what the open
// part of the header says, and arithmetic.
struct FileFacts {
  FileShape shape = FileShape::kOther;
  unsigned version = 0;           // of its header; 0: it has none
  std::string_view suite;         // "aes-256-gcm", of eCryptfs "aes"; "" where it has none
  std::uint64_t block_bytes = 0;  // 0: the format has no blocks
  std::uint64_t num_blocks = 0;
  std::uint64_t plain_size = 0;
  std::uint64_t lower_size = 0;
  bool authentic = false;
  bool holes = false;  // blocks may be holes
  std::optional<std::uint64_t> sealed_size;
  // Of eCryptfs.
  unsigned key_bytes = 0;
  std::uint64_t header_bytes = 0;       // in front of the contents; 0: the header stands in an attribute
  std::vector<std::string> signatures;  // of the keys that the header names, in hex
};

// ContentsCheck is how one lower file is.
struct ContentsCheck {
  FileFacts facts;
  // Why a mount does not open it at all. kNoKey and kUnsupported (a cipher) say nothing against the file.
  std::optional<Error> refused;
  Ranges bad;    // plain bytes that a mount answers with EIO
  Ranges holes;  // plain bytes that read as zeros, where the lower file has a hole and the format makes none: lost
  bool disk_error = false;  // ... because the disk could not read (some of) them

  // What an interruption may leave. A mount reads the file all the same; `repaired` has been put right.
  std::uint64_t leftover_bytes = 0;  // behind the end: never shown, cut off by the next write
  std::uint64_t num_marked = 0;      // blocks marked as being written; a mount that has the file open sets such marks
  std::uint64_t num_previous = 0;    // blocks that are read as they were before a write that never arrived
  std::uint64_t num_bad_heads = 0;   // groups that do not name their file, as they should for salvage
  std::uint64_t extra_bytes = 0;     // behind the end, of which nobody can say whether they were meant: they stay
  bool cut_creation = false;         // a header without contents, or nothing where one should be: an empty file
  bool repaired = false;

  [[nodiscard]] bool locked() const noexcept {
    return refused && (refused->code == Code::kNoKey || refused->code == Code::kUnsupported);
  }
  [[nodiscard]] bool damaged() const noexcept { return (refused && !locked()) || !bad.empty() || !holes.empty(); }
  [[nodiscard]] bool leftovers() const noexcept {
    return leftover_bytes != 0 || num_marked != 0 || num_previous != 0 || num_bad_heads != 0;
  }
};

struct CheckHow {
  bool quick = false;            // headers and sizes only
  const Ranges* only = nullptr;  // of the blocks, those that touch these
  bool repair = false;           // put leftovers right; nobody else has the file open for writing
  // Called with lower bytes as they are done; an error stops the check and is its result. May be empty.
  std::function<Status(std::uint64_t)> advance;
};

// Salvaged is what could be taken out of a damaged file.
struct Salvaged {
  std::uint64_t plain_size = 0;  // as far as it is known
  std::uint64_t good_bytes = 0;
  Ranges lost;  // read as zeros in the copy
};
// PutPlain takes verified plaintext, in ascending order.
using PutPlain = std::function<Status(std::uint64_t offset, ByteView plain)>;

}  // namespace ecfs::fs
