// The structures inside a lower file of the native format: file header, meta page, entries. Bytes in, bytes out; no
// file is touched here. Nothing is believed before its tag has been checked. Pure: safe from any thread.
// Source: fs/FORMAT.md §4.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "fs/format/geometry.h"
#include "fs/format/native_crypto.h"

namespace ecfs::fs {

using FileId = std::array<std::uint8_t, 16>;

// The state word of a file: encrypted in its header.
struct FileState {
  bool holes = false;                   // blocks may be holes
  std::optional<std::uint64_t> sealed;  // plain size, authenticated; nullopt: not sealed
  friend bool operator==(const FileState&, const FileState&) = default;
};

// One version of a block, as stored: all bytes, so that it has no padding and no alignment.
struct Version {
  Nonce nonce{};
  Tag tag{};
  std::array<std::uint8_t, 4> word{};

  static Version of(const Nonce& nonce, const Tag& tag, std::uint64_t len, bool pending) noexcept;
  [[nodiscard]] std::uint32_t length() const noexcept { return load_le<std::uint32_t>(word.data()) & ~kPending; }
  [[nodiscard]] bool pending() const noexcept { return (load_le<std::uint32_t>(word.data()) & kPending) != 0; }
  void clear_pending() noexcept { store_le(word.data(), length()); }
  [[nodiscard]] bool absent() const noexcept { return *this == Version{}; }
  // may_hold says whether this can be a version of which `available` bytes are in the file.
  [[nodiscard]] bool may_hold(std::uint64_t available) const noexcept { return length() != 0 && length() <= available; }
  friend bool operator==(const Version&, const Version&) = default;

 private:
  static constexpr std::uint32_t kPending = 1U << 31;
};

struct Entry {
  Version current;
  Version previous;
  [[nodiscard]] bool absent() const noexcept { return current.absent() && previous.absent(); }
};

struct MetaPage {
  std::array<std::uint8_t, kFileHeaderBytes>
      head{};  // group 0: the file's header; else `ECG1` and what names the group
  std::array<Entry, kBlocksPerGroup> entries{};
};
static_assert(sizeof(Version) == 32 && sizeof(Entry) == kEntryBytes && sizeof(MetaPage) == kPageBytes);

// fixed_header gives bytes 0..23 of the header of a new file.
FileFixed fixed_header(wrap::Suite suite, std::uint8_t block_shift, const FileId& id);

// A header that has been read but not yet verified.
struct RawHeader {
  FileFixed fixed{};
  std::uint32_t inline_len = 0;  // 0: PAGED
};

// parse_header looks at the open part of a header (at least 64 bytes): kCorrupt if no writer of this version in a
// volume of this block size makes it.
Result<RawHeader> parse_header(ByteView bytes, std::uint8_t block_shift);

// open_header verifies the header at the front of `bytes`, which hold the INLINE contents behind it, and decrypts those
// into `contents` (of inline_len bytes). kCorrupt if it fails.
Result<FileState> open_header(FileCipher::Lease& opener, const RawHeader& raw, ByteView bytes,
                              MutableByteView contents);

// seal_header writes 64 bytes of header and, INLINE, the encrypted contents behind it: 64 + contents.size() bytes.
Status seal_header(FileCipher::Lease& sealer, const FileFixed& fixed, const FileState& state, const Nonce& nonce,
                   ByteView contents, MutableByteView out);

// group_head gives the first 64 bytes of the meta page of group 1 and later.
std::array<std::uint8_t, kFileHeaderBytes> group_head(const FileFixed& fixed, std::uint64_t group);

// BlockAssociated is the associated data of blocks: the fixed header and the block's number.
class BlockAssociated {
 public:
  explicit BlockAssociated(const FileFixed& fixed) noexcept;
  ByteView of(std::uint64_t block) noexcept {
    store_le(bytes_.data() + kFileFixedBytes, block);
    return bytes_;
  }

 private:
  std::array<std::uint8_t, kFileFixedBytes + 8> bytes_{};
};

}  // namespace ecfs::fs
