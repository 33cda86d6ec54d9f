#include "fs/format/native_check.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace ecfs::fs {
namespace {

constexpr std::size_t kMaxIds = 8;             // candidates for the id of a file whose header is lost
constexpr std::uint64_t kHeadsLookedAt = 256;  // groups that are asked for it
constexpr std::uint64_t kGroupsTried = 16;     // groups in which a candidate has to prove itself

Error corrupt(std::string what) { return Error{Code::kCorrupt, EIO, std::move(what)}; }

std::string_view name_of(std::uint8_t suite) noexcept {
  switch (suite) {
    case static_cast<std::uint8_t>(wrap::Suite::kAes256Gcm): return "aes-256-gcm";
    case static_cast<std::uint8_t>(wrap::Suite::kChaCha20Poly1305): return "chacha20-poly1305";
    default: return "";
  }
}

std::uint8_t* grown(Bytes& buffer, std::size_t len) {
  if (buffer.size() < len) {
    buffer = Bytes();  // nothing in it is worth copying
    buffer.resize(len);
  }
  return buffer.data();
}

enum class Found { kCurrent, kPrevious, kHole, kBad };
struct Block {
  Found found = Found::kBad;
  std::uint64_t len = 0;  // of the version found
};

// Reader is one pass over one lower file.
class Reader {
 public:
  Reader(const NativeVolume& volume, LowerFile& lower) : volume_(volume), geo_(volume.geometry), lower_(lower) {}

  Result<ContentsCheck> check(const CheckHow& how);
  Result<Salvaged> salvage(const PutPlain& put);

 private:
  [[nodiscard]] std::uint64_t start_of(std::uint64_t block) const noexcept { return block << geo_.block_shift(); }
  // What the lower file holds of a block, by arithmetic.
  [[nodiscard]] std::uint64_t there(std::uint64_t block) const noexcept {
    return std::min(geo_.block_bytes(), size_ - start_of(block));
  }
  [[nodiscard]] bool is_last(std::uint64_t block) const noexcept { return block + 1 == geo_.num_blocks(size_); }
  [[nodiscard]] bool keeps_header() const noexcept { return volume_.header.sealed_size(); }

  Result<bool> open(ContentsCheck& check, Bytes* inline_contents);
  Status use(const FileFixed& fixed);
  [[nodiscard]] std::uint64_t next_group_with_data(std::uint64_t group) const;
  Status load(std::uint64_t group);
  Result<Block> decode(std::uint64_t block, const Entry& entry, ByteView bytes);
  Result<bool> fits(std::uint64_t block, const Version& version, ByteView bytes, std::uint64_t len);

  Status check_blocks(const CheckHow& how, ContentsCheck& check);
  Status check_group(std::uint64_t group, const CheckHow& how, ContentsCheck& check);
  Status mend_entry(std::uint64_t block, const Entry& entry);

  Result<bool> guess(std::vector<FileFixed>& candidates);
  Result<bool> any_block_verifies();
  Result<std::uint64_t> inline_at_any_length(Bytes& contents);
  Status salvage_blocks(const PutPlain& put, Salvaged& out);
  Result<std::uint64_t> any_length(std::uint64_t block, const Entry& entry, ByteView bytes);

  const NativeVolume& volume_;
  Geometry geo_;
  LowerFile& lower_;
  std::uint64_t lower_size_ = 0;
  FileFixed fixed_{};
  FileState state_;
  bool exact_end_ = false;
  std::uint64_t size_ = 0;  // plain, by arithmetic; the authenticated end once it is known
  std::shared_ptr<const FileCipher> cipher_;
  std::optional<FileCipher::Lease> opener_;  // given back before `cipher_`

  // The group that was loaded last.
  std::uint8_t* bytes_ = nullptr;  // from its meta page on
  std::uint64_t num_read_ = 0;
  bool meta_unread_ = false;
  std::uint64_t unread_ = 0;  // bit k: the disk could not read block k of it
  std::uint8_t* plain_ = nullptr;
};

Status Reader::use(const FileFixed& fixed) {
  opener_.reset();
  fixed_ = fixed;
  ECFS_LET(cipher_, FileCipher::make(volume_.keys, volume_.ciphers, fixed_));
  ECFS_LET(auto opener, cipher_->opener());
  opener_.emplace(std::move(opener));
  return {};
}

// open does what a mount does when it opens the file, and says so in `check`. It gives whether there are blocks to look
// at. Short of a refusal `cipher_` and `state_` are the file's afterwards, if it has a header.
Result<bool> Reader::open(ContentsCheck& check, Bytes* inline_contents) {
  ECFS_LET(lower_size_, lower_.size());
  FileFacts& facts = check.facts;
  facts.lower_size = lower_size_;
  facts.block_bytes = geo_.block_bytes();
  facts.shape = FileShape::kEmpty;
  const auto refuse = [&check](Error why) {
    check.refused = std::move(why);
    return false;
  };
  if (lower_size_ <= kFileHeaderBytes && !keeps_header()) {
    facts.authentic = true;
    check.cut_creation = lower_size_ != 0;
    return false;
  }
  std::array<std::uint8_t, kPageBytes> page{};
  const MutableByteView bytes = MutableByteView(page).first(std::min(lower_size_, kPageBytes));
  const Result<std::size_t> got = lower_.read_at(0, bytes);
  if (!got) {
    check.disk_error = true;
    return refuse(got.error());
  }
  if (*got != bytes.size()) return refuse(corrupt("the lower file became shorter while it was read"));
  facts = native_open_facts(volume_.header, bytes, lower_size_);
  const Result<RawHeader> raw = parse_header(bytes, geo_.block_shift());
  if (!raw) return refuse(raw.error());
  if (Status used = use(raw->fixed); !used) {
    if (used.error().code != Code::kCorrupt) return std::move(used).error();
    return refuse(used.error());
  }
  Bytes contents(raw->inline_len);
  const Result<FileState> state = open_header(*opener_, *raw, bytes, contents);
  if (!state) {
    if (state.error().code != Code::kCorrupt) return state.error();
    return refuse(state.error());
  }
  state_ = *state;
  facts.holes = state_.holes;
  facts.sealed_size = state_.sealed;
  facts.authentic = true;
  if (raw->inline_len != 0) {
    facts.plain_size = raw->inline_len;
    check.leftover_bytes = lower_size_ - kFileHeaderBytes - raw->inline_len;
    if (inline_contents != nullptr) *inline_contents = std::move(contents);
    return false;
  }
  if (lower_size_ > kFileHeaderBytes && lower_size_ < kPageBytes) {
    return refuse(corrupt("the lower file is cut inside its first page"));
  }
  size_ = facts.plain_size = geo_.paged_plain_size(lower_size_);
  facts.num_blocks = geo_.num_blocks(size_);
  exact_end_ = state_.sealed && *state_.sealed == size_ && lower_size_ != kPageBytes;
  if (state_.sealed && !exact_end_) {
    return refuse(corrupt("sealed with " + std::to_string(*state_.sealed) + " bytes, but " + std::to_string(size_) +
                          " are there"));
  }
  if (size_ == 0) {
    facts.shape = FileShape::kEmpty;
    check.leftover_bytes = lower_size_ > kFileHeaderBytes ? lower_size_ - (keeps_header() ? kFileHeaderBytes : 0) : 0;
    return false;
  }
  return true;
}

std::uint64_t Reader::next_group_with_data(std::uint64_t group) const {
  const Result<std::uint64_t> at = lower_.next_data(geo_.meta_offset(group));
  if (!at) return errno_of(at.error()) == ENXIO ? geo_.num_blocks(size_) / kBlocksPerGroup + 1 : group;
  return std::max(group, *at / geo_.group_bytes());
}

// load reads a group with one request, or, where the disk cannot read all of it, piece by piece.
Status Reader::load(std::uint64_t group) {
  thread_local Bytes lower_bytes;
  thread_local Bytes plain_bytes;
  const std::uint64_t offset = geo_.meta_offset(group);
  const std::uint64_t len = std::min(geo_.group_bytes(), lower_size_ - offset);
  bytes_ = grown(lower_bytes, geo_.group_bytes());
  plain_ = grown(plain_bytes, geo_.block_bytes());
  meta_unread_ = false;
  unread_ = 0;
  const Result<std::size_t> got = lower_.read_at(offset, {bytes_, len});
  num_read_ = got ? *got : len;
  if (!got) {
    if (got.error().code == Code::kNoMemory) return got.error();
    meta_unread_ = !lower_.read_at(offset, {bytes_, std::min(len, kPageBytes)});
    for (std::uint64_t k = 0; k < kBlocksPerGroup; ++k) {
      const std::uint64_t at = kPageBytes + (k << geo_.block_shift());
      if (at >= len) break;
      const MutableByteView part(bytes_ + at, std::min(geo_.block_bytes(), len - at));
      if (!lower_.read_at(offset + at, part)) unread_ |= 1ULL << k;
    }
  }
  // Where the file became shorter meanwhile stands what no version fits.
  std::fill(bytes_ + num_read_, bytes_ + len, std::uint8_t{0xff});
  return {};
}

Result<bool> Reader::fits(std::uint64_t block, const Version& version, ByteView bytes, std::uint64_t len) {
  BlockAssociated associated(fixed_);
  return opener_->open(version.nonce, version.tag, associated.of(block), bytes.first(len), plain_);
}

// decode finds the version of a block that is in `bytes` and leaves its plaintext in `plain_`.
Result<Block> Reader::decode(std::uint64_t block, const Entry& entry, ByteView bytes) {
  const Block hole{Found::kHole, bytes.size()};
  if (entry.absent()) return state_.holes ? hole : Block{};
  for (const Found found : {Found::kCurrent, Found::kPrevious}) {
    const Version& version = found == Found::kCurrent ? entry.current : entry.previous;
    if (!version.may_hold(bytes.size())) continue;
    ECFS_LET(const bool fit, fits(block, version, bytes, version.length()));
    if (fit) return Block{found, version.length()};
  }
  return state_.holes && all_zero(bytes) ? hole : Block{};
}

Result<ContentsCheck> Reader::check(const CheckHow& how) {
  ContentsCheck check;
  ECFS_LET(const bool paged, open(check, nullptr));
  if (check.refused) return check;
  if (paged && !how.quick) {
    // What is found in a block has to be on the disk before its entry says that it is.
    if (how.repair && lower_.writable()) ECFS_TRY(lower_.sync_data());
    ECFS_TRY(check_blocks(how, check));
  } else if (how.advance) {
    ECFS_TRY(how.advance(how.quick ? 0 : lower_size_));
  }
  if (!how.repair || !lower_.writable() || !check.leftovers()) return check;
  if (check.leftover_bytes != 0) {
    // The order of FORMAT.md: what gives up bytes comes after what stands in for them is on the disk.
    ECFS_TRY(lower_.sync_data());
    ECFS_TRY(lower_.truncate(lower_size_ - check.leftover_bytes));
  }
  ECFS_TRY(lower_.sync_data());
  check.repaired = true;
  return check;
}

Status Reader::check_blocks(const CheckHow& how, ContentsCheck& check) {
  // The number of blocks is right even where the end is not: only the last one may be shorter than it seems.
  const std::uint64_t num = geo_.num_blocks(size_);
  std::uint64_t advanced = 0;
  const auto advance_to = [&](std::uint64_t lower_offset) -> Status {
    lower_offset = std::min(lower_offset, lower_size_);
    if (how.advance && lower_offset > advanced) ECFS_TRY(how.advance(lower_offset - advanced));
    advanced = std::max(advanced, lower_offset);
    return {};
  };
  for (std::uint64_t group = 0; group * kBlocksPerGroup < num;) {
    const std::uint64_t next = next_group_with_data(group);
    if (next > group) {  // nothing is stored there: holes, or lost
      const std::uint64_t to = std::min(size_, start_of(next * kBlocksPerGroup));
      if (!state_.holes) check.bad.add(start_of(group * kBlocksPerGroup), to);
      group = next;
      ECFS_TRY(advance_to(geo_.meta_offset(group)));
      continue;
    }
    const std::uint64_t begin = start_of(group * kBlocksPerGroup);
    const std::uint64_t end = std::min(size_, begin + start_of(kBlocksPerGroup));
    if (how.only == nullptr || how.only->touches(begin, end) || group == (num - 1) / kBlocksPerGroup) {
      ECFS_TRY(check_group(group, how, check));
    }
    ++group;
    ECFS_TRY(advance_to(geo_.meta_offset(group)));
  }
  check.facts.plain_size = size_;
  return advance_to(lower_size_);
}

Status Reader::check_group(std::uint64_t group, const CheckHow& how, ContentsCheck& check) {
  ECFS_TRY(load(group));
  const bool mends = how.repair && lower_.writable();
  const std::uint64_t first = group * kBlocksPerGroup;
  const std::uint64_t count = std::min(kBlocksPerGroup, geo_.num_blocks(size_) - first);
  if (meta_unread_) {
    check.disk_error = true;
    check.bad.add(start_of(first), std::min(size_, start_of(first + count)));
    return {};
  }
  MetaPage page;
  std::copy_n(bytes_, sizeof page, reinterpret_cast<std::uint8_t*>(&page));  // NOLINT: all members are arrays of bytes
  bool proven = false;
  for (std::uint64_t k = 0; k < count; ++k) {
    const std::uint64_t block = first + k;
    const std::uint64_t len = there(block);
    const bool last = is_last(block);
    if (how.only != nullptr && !last && !how.only->touches(start_of(block), start_of(block) + len)) continue;
    if ((unread_ >> k & 1) != 0) {
      check.disk_error = true;
      check.bad.add(start_of(block), start_of(block) + len);
      continue;
    }
    const Entry& entry = page.entries[k];
    const ByteView bytes(bytes_ + kPageBytes + (k << geo_.block_shift()), len);
    ECFS_LET(const Block found, decode(block, entry, bytes));
    const bool is_short = found.len < len;
    proven = proven || found.found == Found::kCurrent || found.found == Found::kPrevious;
    if (found.found == Found::kBad || (is_short && (last ? exact_end_ : !state_.holes))) {
      check.bad.add(start_of(block), start_of(block) + len);
      continue;
    }
    const bool marked = found.found == Found::kCurrent && entry.current.pending();
    if (marked || found.found == Found::kPrevious) {
      ++(marked ? check.num_marked : check.num_previous);
      Entry mended;
      mended.current = found.found == Found::kCurrent ? entry.current : entry.previous;
      mended.current.clear_pending();
      if (found.found == Found::kCurrent) mended.previous = entry.previous;
      if (mends) ECFS_TRY(mend_entry(block, mended));
    }
    if (last && is_short) {
      size_ = start_of(block) + found.len;
      check.leftover_bytes = len - found.len;
    }
  }
  // Only with a block that verifies is the group known to be this file's. Else its head may tell, as the last thing
  // that does, whose it is; or it is a group of holes, which has none.
  if (group != 0 && proven && page.head != group_head(fixed_, group)) {
    ++check.num_bad_heads;
    if (mends) ECFS_TRY(lower_.write_at(geo_.meta_offset(group), group_head(fixed_, group)));
  }
  return {};
}

Status Reader::mend_entry(std::uint64_t block, const Entry& entry) {
  std::array<std::uint8_t, sizeof entry> bytes{};
  std::copy_n(reinterpret_cast<const std::uint8_t*>(&entry), sizeof entry, bytes.begin());  // NOLINT: bytes, as above
  return lower_.write_at(geo_.entry_offset(block), bytes);
}

// --- Salvage -------------------------------------------------------------------------------------------------------

Result<Salvaged> Reader::salvage(const PutPlain& put) {
  Salvaged out;
  ContentsCheck check;
  Bytes contents;
  ECFS_LET(const bool paged, open(check, &contents));
  const bool header_lost = !check.facts.authentic;
  if (!check.refused && !paged) {
    out.plain_size = out.good_bytes = contents.size();
    if (!contents.empty()) ECFS_TRY(put(0, contents));
    return out;
  }
  if (lower_size_ > kPageBytes) {
    size_ = geo_.paged_plain_size(lower_size_);
    bool known = !header_lost;
    if (header_lost) {
      std::vector<FileFixed> candidates;
      ECFS_LET(known, guess(candidates));
    }
    if (known) {
      // A seal that does not fit forbids the mount to show anything; here what is there is wanted.
      exact_end_ = false;
      ECFS_TRY(salvage_blocks(put, out));
      return out;
    }
  }
  if (header_lost) {
    ECFS_LET(const std::uint64_t len, inline_at_any_length(contents));
    if (len != 0) {
      out.plain_size = out.good_bytes = len;
      ECFS_TRY(put(0, contents));
      return out;
    }
  }
  out.plain_size = check.facts.plain_size;
  out.lost.add(0, out.plain_size);
  return out;
}

// guess finds the id (and with it the key) of a file whose header is lost: from what is left of the header, and from
// the heads of the groups, which name the file. The one under which a block verifies is it.
Result<bool> Reader::guess(std::vector<FileFixed>& candidates) {
  const auto add = [&](ByteView from_magic) {
    FileId id{};
    std::copy_n(from_magic.begin() + 8, id.size(), id.begin());
    for (const wrap::Suite suite : {volume_.header.suite, wrap::Suite::kAes256Gcm, wrap::Suite::kChaCha20Poly1305}) {
      const FileFixed fixed = fixed_header(suite, geo_.block_shift(), id);
      const bool known = std::find(candidates.begin(), candidates.end(), fixed) != candidates.end();
      if (!known && candidates.size() < kMaxIds * 2) candidates.push_back(fixed);
    }
  };
  std::array<std::uint8_t, kFileHeaderBytes> head{};
  if (const Result<std::size_t> got = lower_.read_at(0, head); got && *got == head.size()) add(head);
  const std::uint64_t num_groups = (geo_.num_blocks(size_) + kBlocksPerGroup - 1) / kBlocksPerGroup;
  std::uint64_t looked_at = 0;
  for (std::uint64_t group = 1; group < num_groups && looked_at < kHeadsLookedAt; ++looked_at) {
    const std::uint64_t next = next_group_with_data(group);
    if (next >= num_groups) break;
    const Result<std::size_t> got = lower_.read_at(geo_.meta_offset(next), head);
    if (got && *got == head.size()) {
      FileFixed fixed{};
      std::copy_n(head.begin(), fixed.size(), fixed.begin());
      if (group_head(fixed, next) == head) add(head);
    }
    group = next + 1;
  }
  for (const FileFixed& fixed : candidates) {
    ECFS_TRY(use(fixed));
    ECFS_LET(const bool right, any_block_verifies());
    if (right) return true;
  }
  return false;
}

Result<bool> Reader::any_block_verifies() {
  const std::uint64_t num = geo_.num_blocks(size_);
  std::uint64_t tried = 0;
  for (std::uint64_t group = 0; group * kBlocksPerGroup < num && tried < kGroupsTried; ++group, ++tried) {
    group = next_group_with_data(group);
    if (group * kBlocksPerGroup >= num) break;
    ECFS_TRY(load(group));
    for (std::uint64_t k = 0; k < kBlocksPerGroup && group * kBlocksPerGroup + k < num; ++k) {
      const std::uint64_t block = group * kBlocksPerGroup + k;
      Entry entry;
      std::copy_n(bytes_ + kFileHeaderBytes + k * kEntryBytes, sizeof entry,
                  reinterpret_cast<std::uint8_t*>(&entry));  // NOLINT: all members are arrays of bytes
      const ByteView bytes(bytes_ + kPageBytes + (k << geo_.block_shift()), there(block));
      ECFS_LET(const Block found, decode(block, entry, bytes));
      if (found.found == Found::kCurrent || found.found == Found::kPrevious) return true;
    }
  }
  return false;
}

// inline_at_any_length tries an INLINE file whose open header bytes are damaged: the id may be right, and the length
// one of at most 4032. It gives the length, 0 if nothing fits.
Result<std::uint64_t> Reader::inline_at_any_length(Bytes& contents) {
  std::array<std::uint8_t, kPageBytes> page{};
  const MutableByteView bytes = MutableByteView(page).first(std::min(lower_size_, kPageBytes));
  const Result<std::size_t> got = lower_.read_at(0, bytes);
  if (!got || *got != bytes.size() || bytes.size() <= kFileHeaderBytes) return std::uint64_t{0};
  FileId id{};
  std::copy_n(bytes.begin() + 8, id.size(), id.begin());
  for (const wrap::Suite suite : {wrap::Suite::kAes256Gcm, wrap::Suite::kChaCha20Poly1305}) {
    RawHeader raw;
    raw.fixed = fixed_header(suite, geo_.block_shift(), id);
    ECFS_TRY(use(raw.fixed));
    for (std::uint64_t len = bytes.size() - kFileHeaderBytes; len > 0; --len) {
      raw.inline_len = static_cast<std::uint32_t>(len);
      contents.resize(len);
      const Result<FileState> state = open_header(*opener_, raw, bytes, contents);
      if (state) return len;
      if (state.error().code != Code::kCorrupt) return state.error();
    }
  }
  return std::uint64_t{0};
}

// any_length tries a failed last block at every length: that in its entry may be the damage.
Result<std::uint64_t> Reader::any_length(std::uint64_t block, const Entry& entry, ByteView bytes) {
  for (const Version* version : {&entry.current, &entry.previous}) {
    if (all_zero(version->nonce)) continue;
    for (std::uint64_t len = bytes.size(); len > 0; --len) {
      ECFS_LET(const bool fit, fits(block, *version, bytes, len));
      if (fit) return len;
    }
  }
  return std::uint64_t{0};
}

Status Reader::salvage_blocks(const PutPlain& put, Salvaged& out) {
  const std::uint64_t num = geo_.num_blocks(size_);
  const auto lost = [&](std::uint64_t from, std::uint64_t to) { out.lost.add(from, to); };
  for (std::uint64_t group = 0; group * kBlocksPerGroup < num; ++group) {
    const std::uint64_t next = next_group_with_data(group);
    if (next > group) {
      if (!state_.holes) lost(start_of(group * kBlocksPerGroup), std::min(size_, start_of(next * kBlocksPerGroup)));
      group = next;
      if (group * kBlocksPerGroup >= num) break;
    }
    ECFS_TRY(load(group));
    for (std::uint64_t k = 0; k < kBlocksPerGroup && group * kBlocksPerGroup + k < num; ++k) {
      const std::uint64_t block = group * kBlocksPerGroup + k;
      const std::uint64_t len = there(block);
      const ByteView bytes(bytes_ + kPageBytes + (k << geo_.block_shift()), len);
      Block found;
      if (!meta_unread_ && (unread_ >> k & 1) == 0) {
        Entry entry;
        std::copy_n(bytes_ + kFileHeaderBytes + k * kEntryBytes, sizeof entry,
                    reinterpret_cast<std::uint8_t*>(&entry));  // NOLINT: all members are arrays of bytes
        ECFS_LET(found, decode(block, entry, bytes));
        if (found.found == Found::kBad && is_last(block)) {
          ECFS_LET(found.len, any_length(block, entry, bytes));
          if (found.len != 0) found.found = Found::kCurrent;
        }
      }
      if (found.found == Found::kBad) {
        lost(start_of(block), start_of(block) + len);
        continue;
      }
      if (found.found != Found::kHole) {
        ECFS_TRY(put(start_of(block), ByteView(plain_, found.len)));
        out.good_bytes += found.len;
      }
      if (found.len == len) continue;
      if (is_last(block)) {
        size_ = start_of(block) + found.len;
      } else if (!state_.holes) {
        lost(start_of(block) + found.len, start_of(block) + len);
      }
    }
  }
  out.plain_size = size_;
  return {};
}

}  // namespace

Result<ContentsCheck> check_native_contents(const NativeVolume& volume, LowerFile& lower, const CheckHow& how) {
  return Reader(volume, lower).check(how);
}

Result<Salvaged> salvage_native_contents(const NativeVolume& volume, LowerFile& lower, const PutPlain& put) {
  return Reader(volume, lower).salvage(put);
}

FileFacts native_open_facts(const wrap::VolumeHeader& volume, ByteView first, std::uint64_t lower_size) {
  FileFacts facts;
  const Geometry geo(volume.block_shift);
  facts.shape = FileShape::kEmpty;
  facts.lower_size = lower_size;
  facts.block_bytes = geo.block_bytes();
  if (lower_size <= kFileHeaderBytes && !volume.sealed_size()) return facts;
  facts.plain_size = geo.plain_size(lower_size);
  const Result<RawHeader> raw = parse_header(first, volume.block_shift);
  if (!raw) {
    facts.shape = FileShape::kOther;
    return facts;
  }
  facts.version = raw->fixed[4];
  facts.suite = name_of(raw->fixed[5]);
  if (raw->inline_len != 0) {
    facts.shape = FileShape::kInline;
    facts.plain_size = raw->inline_len;
    return facts;
  }
  facts.plain_size = geo.paged_plain_size(lower_size);
  facts.num_blocks = geo.num_blocks(facts.plain_size);
  facts.shape = facts.plain_size == 0 ? FileShape::kEmpty : FileShape::kPaged;
  return facts;
}

}  // namespace ecfs::fs
