// Geometry answers where things lie in a lower file of the native format, and how large its two sides are.
//
// All sizes, offsets and lengths are in bytes. "plain" is what the mount shows, "lower" what is stored. Pure
// arithmetic: safe from any thread, never fails. Source: fs/FORMAT.md §4. Checked by tests/fs/format/geometry_test.cc
// and the vectors `sizes`, `sizes_torn` and `places`.
#pragma once

#include <cstdint>

namespace ecfs::fs {

constexpr std::uint64_t kPageBytes = 4096;        // headers, meta pages and blocks are aligned to it
constexpr std::uint64_t kFileHeaderBytes = 64;    // at the start of page 0
constexpr std::uint64_t kEntryBytes = 64;         // of one block, in its group's meta page
constexpr std::uint64_t kBlocksPerGroup = 63;     // behind one meta page
constexpr std::uint64_t kInlineMaxBytes = 4032;   // largest plain size stored behind the header itself
constexpr std::uint64_t kMaxBlocks = 1ULL << 31;  // of one file
constexpr std::uint8_t kMinBlockShift = 12;
constexpr std::uint8_t kMaxBlockShift = 16;

class Geometry {
 public:
  // `block_shift` is the volume's, 12..16.
  explicit constexpr Geometry(std::uint8_t block_shift) noexcept : shift_(block_shift) {}

  [[nodiscard]] constexpr std::uint8_t block_shift() const noexcept { return shift_; }
  [[nodiscard]] constexpr std::uint64_t block_bytes() const noexcept { return 1ULL << shift_; }
  [[nodiscard]] constexpr std::uint64_t group_bytes() const noexcept {
    return kPageBytes + kBlocksPerGroup * block_bytes();
  }
  [[nodiscard]] constexpr std::uint64_t max_plain_size() const noexcept { return kMaxBlocks << shift_; }

  // lower_size and plain_size convert as `stat` does, without looking into the file. Every size has an answer; a meta
  // page that is cut off counts as nothing. The authenticated length in the file wins when the file is opened.
  [[nodiscard]] std::uint64_t lower_size(std::uint64_t plain_size) const noexcept;
  [[nodiscard]] std::uint64_t plain_size(std::uint64_t lower_size) const noexcept;

  // paged_lower_size and paged_plain_size are the same for a file known to be PAGED, which may be shorter than 4033
  // bytes. A lower size of up to one page is 0.
  [[nodiscard]] std::uint64_t paged_lower_size(std::uint64_t plain_size) const noexcept;
  [[nodiscard]] std::uint64_t paged_plain_size(std::uint64_t lower_size) const noexcept;

  // num_blocks is how many blocks hold `plain_size` bytes.
  [[nodiscard]] constexpr std::uint64_t num_blocks(std::uint64_t plain_size) const noexcept {
    return (plain_size >> shift_) + ((plain_size & (block_bytes() - 1)) != 0 ? 1 : 0);
  }

  // Lower offsets.
  [[nodiscard]] constexpr std::uint64_t meta_offset(std::uint64_t group) const noexcept {
    return group * group_bytes();
  }
  [[nodiscard]] constexpr std::uint64_t entry_offset(std::uint64_t block) const noexcept {
    return meta_offset(block / kBlocksPerGroup) + kFileHeaderBytes + kEntryBytes * (block % kBlocksPerGroup);
  }
  [[nodiscard]] constexpr std::uint64_t data_offset(std::uint64_t block) const noexcept {
    return meta_offset(block / kBlocksPerGroup) + kPageBytes + ((block % kBlocksPerGroup) << shift_);
  }

 private:
  std::uint8_t shift_;
};

}  // namespace ecfs::fs
