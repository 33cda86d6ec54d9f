#include "fs/format/native_contents.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "fs/format/block_set.h"
#include "wrap/base/log.h"

namespace ecfs::fs {
namespace {

constexpr std::uint64_t kChunkBytes = 1U << 20;    // of one lower request
constexpr std::uint64_t kHoleMinBytes = 1U << 20;  // a smaller gap is filled
constexpr std::size_t kMaxRemembered = 1024;       // gaps; more are settled at once
constexpr std::size_t kStateFrom = 24;             // bytes 24..63 of the header change with the state
constexpr std::uint64_t kMaxBlockBytes = 1ULL << kMaxBlockShift;

Error corrupt(std::string what) { return Error{Code::kCorrupt, EIO, std::move(what)}; }
Error corrupt_block(std::uint64_t block) { return corrupt("block " + std::to_string(block) + " does not verify"); }

// Zeros to encrypt.
ByteView zeros(std::uint64_t len) {
  static const std::array<std::uint8_t, kMaxBlockBytes> kZeros{};
  return ByteView(kZeros).first(len);
}

// scratch is a buffer of this thread, of at least `len` bytes and aligned to pages. It holds what a request moves, and
// stays for the next.
std::uint8_t* scratch(std::uint64_t len) {
  thread_local Bytes buffer;
  std::size_t space = len + kPageBytes;
  if (buffer.size() < space) {
    buffer = Bytes();  // nothing in it is worth copying
    buffer.resize(space);
  }
  space = buffer.size();
  void* at = buffer.data();
  return static_cast<std::uint8_t*>(std::align(kPageBytes, len, at, space));
}

// A range of bytes in lower order, as several buffers.
class Gather {
 public:
  explicit Gather(std::uint64_t offset) noexcept : offset_(offset) {}
  void add(const std::uint8_t* bytes, std::uint64_t len) {
    if (len == 0) return;
    if (!parts_.empty() && static_cast<std::uint8_t*>(parts_.back().iov_base) + parts_.back().iov_len == bytes) {
      parts_.back().iov_len += len;
    } else {
      parts_.push_back({const_cast<std::uint8_t*>(bytes), len});  // pwritev only reads
    }
    size_ += len;
  }
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<const iovec> parts() const noexcept { return parts_; }

 private:
  std::uint64_t offset_;
  std::uint64_t size_ = 0;
  std::vector<iovec> parts_;
};

enum class Shape {
  kUnreadable,  // the header fails: only truncation to 0
  kEmpty,
  kInline,
  kPaged,
};

// Which of a block's versions is in the file.
enum class Found { kCurrent, kPrevious, kHole };

class NativeContents final : public Contents {
 public:
  NativeContents(std::shared_ptr<const NativeVolume> volume, LowerFile& lower)
      : volume_(std::move(volume)), geo_(volume_->geometry), lower_(&lower), metas_(volume_->meta_budget) {}

  Status open();
  Status open_unread();

  Result<std::uint64_t> size() override;
  Result<std::size_t> read(std::uint64_t offset, MutableByteView out) override;
  Result<std::size_t> write(std::uint64_t offset, ByteView data) override;
  Status truncate(std::uint64_t new_size) override;
  Status allocate(int mode, std::uint64_t offset, std::uint64_t len) override;
  Result<std::uint64_t> next_data(std::uint64_t offset) override;
  Result<std::uint64_t> next_hole(std::uint64_t offset) override;
  bool puts_off() override;
  Status settle() override;
  Status sync(bool data_only) override;
  Status finish() override;
  void drop_keys() noexcept override {
    if (id_.cipher) id_.cipher->drop_keys();
  }

 private:
  // One block of a request that stores.
  struct Job {
    std::uint64_t block = 0;
    std::uint64_t len = 0;           // of the new version
    std::uint8_t* sealed = nullptr;  // its ciphertext
    bool existing = false;           // an overwrite: something is stored there now
    std::uint8_t* saved = nullptr;   // what is stored there now, if it was read
    std::uint64_t saved_len = 0;
    Entry before{};
    Entry after{};
  };
  // What makes the file this file. Growing from empty gives it a new one.
  struct Identity {
    FileFixed fixed{};
    FileState state;  // as in the header on disk
    std::shared_ptr<const FileCipher> cipher;
  };
  struct Change {
    std::uint64_t offset = 0;
    const std::uint8_t* data = nullptr;  // null: zeros
    std::uint64_t len = 0;
    std::uint64_t new_size = 0;
    bool shrinks = false;  // one block gets a shorter version; the size is the caller's
  };

  [[nodiscard]] std::uint64_t block_bytes() const noexcept { return geo_.block_bytes(); }
  [[nodiscard]] std::uint64_t block_of(std::uint64_t offset) const noexcept { return offset >> geo_.block_shift(); }
  [[nodiscard]] std::uint64_t start_of(std::uint64_t block) const noexcept { return block << geo_.block_shift(); }
  [[nodiscard]] std::uint64_t len_of(std::uint64_t block) const noexcept {
    return std::min(block_bytes(), size_ - start_of(block));
  }
  // A request of kChunkBytes goes to the lower file as one, wherever it begins; a longer one is cut at block borders.
  [[nodiscard]] std::uint64_t chunk_at(std::uint64_t offset) const noexcept {
    return kChunkBytes + block_bytes() - offset % block_bytes();
  }
  [[nodiscard]] std::uint64_t num_blocks() const noexcept {
    return shape_ == Shape::kPaged ? geo_.num_blocks(size_) : 0;
  }
  [[nodiscard]] bool keeps_header() const noexcept { return volume_->header.sealed_size(); }
  [[nodiscard]] std::uint64_t empty_lower_size() const noexcept { return keeps_header() ? kFileHeaderBytes : 0; }
  [[nodiscard]] std::uint64_t proper_lower_size() const noexcept;
  [[nodiscard]] std::string lower_path() const;
  [[nodiscard]] Status unreadable() const { return corrupt("the file's header does not verify"); }

  // Reading.
  Status open_paged(const RawHeader& raw, const MetaRef& page0);
  Status find_end();
  Result<MetaRef> meta_of(std::uint64_t group, bool writer);
  Status read_chunk(std::uint64_t offset, MutableByteView out);
  Result<Found> decode(FileCipher::Lease& opener, BlockAssociated& associated, CachedMeta& meta, std::uint64_t block,
                       MutableByteView bytes);

  // Writing. All of these are called with mutex_ held alone.
  Status cut_leftover();
  Status before_change(std::uint64_t new_size);
  Status draw(MutableByteView out, std::size_t nonces_from);
  Status begin_file(MutableByteView random);
  Status write_inline(ByteView contents);
  Status replace_inline(ByteView contents);
  Status zero(std::uint64_t from, std::uint64_t to);
  Result<std::size_t> store(const Change& change);
  Status compose(Job& job, const Change& change, FileCipher::Lease& opener, BlockAssociated& associated,
                 CachedMeta& meta);
  Result<MetaRef> meta_for_write(std::uint64_t group, bool& fresh);
  Status write_meta(CachedMeta& meta);
  Status fill(std::uint64_t from, std::uint64_t to);
  Result<std::size_t> store_chunk(std::uint64_t offset, const std::uint8_t* data, std::uint64_t len);
  Status write_state(const FileState& state);
  Status unseal();
  Status allow_holes();
  Status clear_stale_entries();
  Status begin_with_holes();
  Status empty_file();
  Status stay_empty();
  Status shrink(std::uint64_t new_size);
  Status grow(std::uint64_t new_size);
  Status reserve(std::uint64_t from, std::uint64_t to);
  Status punch(std::uint64_t offset, std::uint64_t len);
  Status punch_blocks(std::uint64_t from, std::uint64_t to);
  Status settle_locked(bool declare_if_full);
  Status seal_size();
  Status cut_lower(std::uint64_t size);
  void set_emptied();
  void forget_behind(std::uint64_t num);
  void holes_added(std::uint64_t from, std::uint64_t to);
  [[nodiscard]] bool holes_were_filled() const noexcept;

  std::shared_ptr<const NativeVolume> volume_;
  Geometry geo_;
  LowerFile* lower_;

  mutable std::shared_mutex mutex_;  // guards all that follows (metas_ has a lock of its own besides)
  Shape shape_ = Shape::kUnreadable;
  Identity id_;
  bool exact_end_ = false;        // sealed, and the size agreed: no shorter last block is believed
  std::uint64_t lower_size_ = 0;  // as it is on disk, leftover included
  std::uint64_t size_ = 0;        // plain
  Bytes inline_;                  // INLINE: the plaintext
  BlockSet gaps_;                 // blocks before the end that were never written: they read as zeros until settled
  std::optional<BlockSet> undone_holes_;  // of a file that had no hole when opened: declared and not yet written
  bool older_on_disk_ = false;            // what is stored may be on the disk: order matters to a power cut
  bool changed_ = false;                  // since the open
  bool changed_since_sync_ = false;
  bool synced_since_empty_ = false;
  MetaCache metas_;
};

// --- Opening -------------------------------------------------------------------------------------------------------

std::string NativeContents::lower_path() const {
  std::array<char, 4096> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(lower_->fd());
  const ssize_t len = ::readlink(link.c_str(), path.data(), path.size());
  return len > 0 ? printable({path.data(), static_cast<std::size_t>(len)}) : "a lower file";
}

Status NativeContents::open() {
  ECFS_LET(lower_size_, lower_->size());
  older_on_disk_ = lower_size_ > kFileHeaderBytes;
  if (lower_size_ <= kFileHeaderBytes && !keeps_header()) {
    shape_ = Shape::kEmpty;
    undone_holes_.emplace();
    return {};
  }
  const MetaRef page0 = metas_.make(0);
  const std::size_t want = std::min(lower_size_, kPageBytes);
  ECFS_LET(const std::size_t got, lower_->read_at(0, page0->bytes().first(want)));
  if (got != want) return corrupt("the lower file became shorter while it was opened");
  const ByteView bytes = page0->bytes().first(want);
  ECFS_LET(const RawHeader raw, parse_header(bytes, geo_.block_shift()));
  id_.fixed = raw.fixed;
  ECFS_LET(id_.cipher, FileCipher::make(volume_->keys, volume_->ciphers, id_.fixed));
  if (raw.inline_len == 0) return open_paged(raw, page0);
  inline_.resize(raw.inline_len);
  ECFS_LET(auto opener, id_.cipher->opener());
  // Some writers put the size into the state too. It says no more than the length does, which the tag covers; and it
  // must not be carried into a PAGED file.
  ECFS_TRY(open_header(opener, raw, bytes, inline_));
  id_.state = FileState{};
  shape_ = Shape::kInline;
  size_ = raw.inline_len;
  undone_holes_.emplace();
  return {};
}

Status NativeContents::open_paged(const RawHeader& raw, const MetaRef& page0) {
  {
    ECFS_LET(auto opener, id_.cipher->opener());
    ECFS_LET(id_.state, open_header(opener, raw, ByteView(page0->bytes()).first(kFileHeaderBytes), {}));
  }
  if (lower_size_ > kFileHeaderBytes && lower_size_ < kPageBytes)
    return corrupt("the lower file is cut inside its first page");
  size_ = geo_.paged_plain_size(lower_size_);
  // A file cut off behind its first page would pass for one of 4032 bytes by arithmetic: it never has its sealed size.
  const bool agrees = id_.state.sealed && *id_.state.sealed == size_ && lower_size_ != kPageBytes;
  if (id_.state.sealed && !agrees) {
    const std::string what =
        "sealed with " + std::to_string(*id_.state.sealed) + " bytes, but " + std::to_string(size_) + " are there";
    if (!volume_->unsealed_report) return corrupt(what);
    log_line(LOG_WARNING, lower_path() + ": " + what);
  }
  exact_end_ = agrees;
  if (size_ == 0) {
    shape_ = Shape::kEmpty;
    undone_holes_.emplace();
    older_on_disk_ = false;
    return {};
  }
  shape_ = Shape::kPaged;
  if (!id_.state.holes) undone_holes_.emplace();
  (void)metas_.keep(page0, false);
  return exact_end_ ? Status{} : find_end();
}

// The file ends where the version that verifies ends, which an interrupted change of size leaves before the lower end.
Status NativeContents::find_end() {
  const std::uint64_t last = geo_.num_blocks(size_) - 1;
  const std::uint64_t there = len_of(last);
  ECFS_LET(const MetaRef meta, meta_of(last / kBlocksPerGroup, false));
  const Entry& entry = meta->page.entries[last % kBlocksPerGroup];
  const auto shorter = [there](const Version& v) { return v.may_hold(there) && v.length() < there; };
  if (!shorter(entry.current) && !shorter(entry.previous)) return {};
  std::uint8_t* const sealed = scratch(2 * block_bytes());
  std::uint8_t* const plain = sealed + block_bytes();
  ECFS_LET(const std::size_t got, lower_->read_at(geo_.data_offset(last), {sealed, there}));
  if (got != there) return corrupt("the lower file became shorter while it was opened");
  ECFS_LET(auto opener, id_.cipher->opener());
  BlockAssociated associated(id_.fixed);
  for (const Version* v : {&entry.current, &entry.previous}) {
    if (!v->may_hold(there)) continue;
    ECFS_LET(const bool fits, opener.open(v->nonce, v->tag, associated.of(last), {sealed, v->length()}, plain));
    if (!fits) continue;
    if (v == &entry.previous) meta->at_previous |= 1ULL << (last % kBlocksPerGroup);
    size_ = start_of(last) + v->length();
    break;
  }
  return {};
}

Status NativeContents::open_unread() {
  // A file whose end is guarded is emptied by a header; only one that is readable can be so in one step.
  if (keeps_header()) {
    Status opened = open();
    if (opened || opened.error().code != Code::kCorrupt) return opened;
    shape_ = Shape::kUnreadable;
    return {};
  }
  ECFS_LET(lower_size_, lower_->size());
  older_on_disk_ = lower_size_ > 0;
  if (lower_size_ == 0) {
    shape_ = Shape::kEmpty;
    undone_holes_.emplace();
  }
  return {};
}

// --- Reading -------------------------------------------------------------------------------------------------------

Result<std::uint64_t> NativeContents::size() {
  const std::shared_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return unreadable().error();
  return size_;
}

Result<MetaRef> NativeContents::meta_of(std::uint64_t group, bool writer) {
  if (MetaRef meta = metas_.find(group)) return meta;
  MetaRef meta = metas_.make(group);
  ECFS_LET(const std::size_t got, lower_->read_at(geo_.meta_offset(group), meta->bytes()));
  if (got != kPageBytes) return corrupt("the lower file ends before meta page " + std::to_string(group));
  for (const MetaRef& leaving : metas_.keep(meta, writer)) ECFS_TRY(write_meta(*leaving));
  return meta;
}

// decode turns the ciphertext in `bytes` (all that belongs to the block) into plaintext in place.
Result<Found> NativeContents::decode(FileCipher::Lease& opener, BlockAssociated& associated, CachedMeta& meta,
                                     std::uint64_t block, MutableByteView bytes) {
  const std::size_t k = block % kBlocksPerGroup;
  const Entry& entry = meta.page.entries[k];
  if (entry.absent()) {
    std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
    if (!id_.state.holes) return corrupt_block(block);
    return Found::kHole;
  }
  bool spoiled = false;  // decrypting in place under the wrong version leaves rubbish
  const auto reload = [&]() -> Status {
    if (!spoiled) return {};
    spoiled = false;
    ECFS_LET(const std::size_t got, lower_->read_at(geo_.data_offset(block), bytes));
    if (got != bytes.size()) return corrupt_block(block);
    return {};
  };
  for (const Found found : {Found::kCurrent, Found::kPrevious}) {
    const Version& v = found == Found::kCurrent ? entry.current : entry.previous;
    if (!v.may_hold(bytes.size())) continue;
    ECFS_TRY(reload());
    ECFS_LET(const bool fits, opener.open(v.nonce, v.tag, associated.of(block), bytes.first(v.length()), bytes.data()));
    if (!fits) {
      spoiled = true;
      continue;
    }
    if (found == Found::kPrevious) meta.at_previous.fetch_or(1ULL << k, std::memory_order_relaxed);
    if (v.length() < bytes.size()) {
      const MutableByteView rest = bytes.subspan(v.length());
      std::fill(rest.begin(), rest.end(), std::uint8_t{0});
      const bool last = block + 1 == num_blocks();
      if (last || !id_.state.holes) {
        std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
        return corrupt_block(block);
      }
    }
    return found;
  }
  ECFS_TRY(reload());
  if (id_.state.holes && all_zero(bytes)) return Found::kHole;
  std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
  return corrupt_block(block);
}

Result<std::size_t> NativeContents::read(std::uint64_t offset, MutableByteView out) {
  const std::shared_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return unreadable().error();
  if (offset >= size_) return std::size_t{0};
  const std::size_t len = std::min<std::uint64_t>(out.size(), size_ - offset);
  if (shape_ == Shape::kInline) {
    std::copy_n(inline_.begin() + static_cast<std::ptrdiff_t>(offset), len, out.begin());
    return len;
  }
  std::size_t done = 0;
  while (done < len) {
    const std::uint64_t at = offset + done;
    const std::size_t take = std::min(len - done, chunk_at(at));
    const MutableByteView part = out.subspan(done, take);
    if (Status status = read_chunk(at, part); !status) {
      std::fill(part.begin(), part.end(), std::uint8_t{0});  // nobody may see what does not verify
      return std::move(status).error();
    }
    done += take;
  }
  return len;
}

Status NativeContents::read_chunk(std::uint64_t offset, MutableByteView out) {
  const std::uint64_t end = offset + out.size();
  const std::uint64_t first = block_of(offset);
  const std::uint64_t last = block_of(end - 1);
  const std::uint64_t first_group = first / kBlocksPerGroup;
  const std::uint64_t last_group = last / kBlocksPerGroup;

  // Blocks that are wanted whole are read and decrypted where they are wanted; at most two others in `edge`.
  std::uint8_t* const edge = scratch(2 * block_bytes() + kPageBytes);
  std::uint8_t* const unused_page = edge + 2 * block_bytes();
  const auto is_whole = [&](std::uint64_t block) {
    return start_of(block) >= offset && start_of(block) + len_of(block) <= end;
  };
  const auto place_of = [&](std::uint64_t block) {
    if (is_whole(block)) return out.data() + (start_of(block) - offset);
    return edge + (block == first ? 0 : block_bytes());
  };

  // One request for the run, meta pages between included; the first one too where it stands right before.
  std::vector<MetaRef> metas(last_group - first_group + 1);
  std::vector<bool> is_new(metas.size());
  for (std::size_t i = 0; i < metas.size(); ++i) {
    metas[i] = metas_.find(first_group + i);
    if (metas[i]) continue;
    metas[i] = metas_.make(first_group + i);
    is_new[i] = true;
  }
  const bool from_meta = is_new[0] && first % kBlocksPerGroup == 0;
  Gather run(from_meta ? geo_.meta_offset(first_group) : geo_.data_offset(first));
  if (from_meta) run.add(metas[0]->bytes().data(), kPageBytes);
  for (std::uint64_t block = first; block <= last; ++block) {
    if (block != first && block % kBlocksPerGroup == 0) {
      const std::size_t i = block / kBlocksPerGroup - first_group;
      run.add(is_new[i] ? metas[i]->bytes().data() : unused_page, kPageBytes);
    }
    run.add(place_of(block), len_of(block));
  }
  const bool meta_apart = is_new[0] && !from_meta;
  if (meta_apart) lower_->advise_willneed(geo_.meta_offset(first_group), kPageBytes);
  ECFS_LET(const std::size_t got, lower_->readv_at(run.offset(), run.parts()));
  if (got != run.size()) return corrupt("the lower file became shorter while it was open");
  if (meta_apart) {
    ECFS_LET(const std::size_t page, lower_->read_at(geo_.meta_offset(first_group), metas[0]->bytes()));
    if (page != kPageBytes) return corrupt("the lower file became shorter while it was open");
  }
  for (std::size_t i = 0; i < metas.size(); ++i) {
    if (is_new[i]) (void)metas_.keep(metas[i], false);
  }

  ECFS_LET(auto opener, id_.cipher->opener());
  BlockAssociated associated(id_.fixed);
  for (std::uint64_t block = first; block <= last; ++block) {
    const MutableByteView bytes(place_of(block), len_of(block));
    if (gaps_.contains(block)) {
      std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
      continue;
    }
    ECFS_TRY(decode(opener, associated, *metas[block / kBlocksPerGroup - first_group], block, bytes));
  }
  for (const std::uint64_t block : {first, last}) {
    if (is_whole(block)) continue;
    const std::uint8_t* const from = place_of(block);
    const std::uint64_t wanted_from = std::max(offset, start_of(block));
    const std::uint64_t wanted_to = std::min(end, start_of(block) + len_of(block));
    std::copy_n(from + (wanted_from - start_of(block)), wanted_to - wanted_from, out.data() + (wanted_from - offset));
  }
  return {};
}

// --- Small steps of writing ----------------------------------------------------------------------------------------

std::uint64_t NativeContents::proper_lower_size() const noexcept {
  switch (shape_) {
    case Shape::kInline: return kFileHeaderBytes + size_;
    case Shape::kPaged: return geo_.paged_lower_size(size_);
    default: return empty_lower_size();
  }
}

// draw fills `out` with random bytes in one call; from `nonces_from` on they are nonces, which are never all zero.
Status NativeContents::draw(MutableByteView out, std::size_t nonces_from) {
  ECFS_TRY(volume_->nonces->fill(out));
  for (std::size_t at = nonces_from; at < out.size(); at += kNonceBytes) {
    const MutableByteView nonce = out.subspan(at, kNonceBytes);
    while (all_zero(nonce)) ECFS_TRY(volume_->nonces->fill(nonce));
  }
  return {};
}

Status NativeContents::cut_lower(std::uint64_t size) {
  Status status = lower_->truncate(size);
  if (status) {
    lower_size_ = size;
  } else if (const Result<std::uint64_t> there = lower_->size()) {
    lower_size_ = *there;  // the rest is a leftover: the next change cuts it off
  }
  return status;
}

void NativeContents::forget_behind(std::uint64_t num) {
  gaps_.remove(num, std::numeric_limits<std::uint64_t>::max());
  if (undone_holes_) undone_holes_->remove(num, std::numeric_limits<std::uint64_t>::max());
  metas_.drop((num + kBlocksPerGroup - 1) / kBlocksPerGroup);
}

void NativeContents::set_emptied() {
  shape_ = Shape::kEmpty;
  size_ = 0;
  inline_.clear();
  gaps_.clear();
  metas_.drop(0);
  exact_end_ = false;
  older_on_disk_ = false;
  synced_since_empty_ = false;
  undone_holes_.emplace();
}

void NativeContents::holes_added(std::uint64_t from, std::uint64_t to) {
  if (!undone_holes_) return;
  undone_holes_->add(from, to);
  if (undone_holes_->num_intervals() > kMaxRemembered) undone_holes_.reset();
}

Status NativeContents::cut_leftover() {
  if (lower_size_ <= proper_lower_size() || lower_size_ <= kFileHeaderBytes) return {};
  // A shrink was interrupted before its last step, which a sync precedes: what the file now ends with may be newer than
  // what is on the disk.
  if (shape_ != Shape::kEmpty) ECFS_TRY(lower_->sync_data());
  ECFS_TRY(cut_lower(proper_lower_size()));
  if (lower_size_ == 0) id_.state = FileState{};
  return {};
}

// before_change comes before whatever changes the file to `new_size`: it cuts a leftover off and breaks the seal.
Status NativeContents::before_change(std::uint64_t new_size) {
  changed_ = true;
  changed_since_sync_ = true;
  ECFS_TRY(cut_leftover());
  return new_size != size_ ? unseal() : Status{};
}

Status NativeContents::write_state(const FileState& state) {
  std::array<std::uint8_t, kFileHeaderBytes> header{};
  Nonce nonce{};
  ECFS_TRY(draw(nonce, 0));
  {
    ECFS_LET(auto sealer, id_.cipher->sealer());
    ECFS_TRY(seal_header(sealer, id_.fixed, state, nonce, {}, header));
  }
  ECFS_TRY(lower_->write_at(kStateFrom, ByteView(header).subspan(kStateFrom)));
  id_.state = state;
  if (const MetaRef page0 = metas_.find(0)) page0->page.head = header;
  return {};
}

Status NativeContents::unseal() {
  exact_end_ = false;
  if (!id_.state.sealed) return {};
  FileState open = id_.state;
  open.sealed.reset();
  ECFS_TRY(write_state(open));
  ECFS_TRY(lower_->sync_data());
  older_on_disk_ = true;
  return {};
}

Status NativeContents::allow_holes() {
  if (id_.state.holes) return {};
  FileState open = id_.state;
  open.holes = true;
  ECFS_TRY(write_state(open));
  ECFS_TRY(lower_->sync_data());
  older_on_disk_ = true;
  return {};
}

Status NativeContents::write_meta(CachedMeta& meta) {
  if (!meta.dirty()) return {};
  const std::size_t from = meta.dirty_from;
  const std::size_t to = meta.dirty_to;
  ECFS_TRY(lower_->write_at(geo_.meta_offset(meta.group) + from, ByteView(meta.bytes()).subspan(from, to - from)));
  meta.set_clean();
  return {};
}

// begin_file makes the id and key of a file that grows from empty. `random` begins with the id.
Status NativeContents::begin_file(MutableByteView random) {
  FileId id{};
  std::copy_n(random.begin(), id.size(), id.begin());
  id_.fixed = fixed_header(volume_->header.suite, geo_.block_shift(), id);
  id_.state = FileState{};
  ECFS_LET(id_.cipher, FileCipher::make(volume_->keys, volume_->ciphers, id_.fixed));
  return {};
}

// INLINE is always written whole. What is there now stays valid if nothing of it is written.
Status NativeContents::write_inline(ByteView contents) {
  const bool begins = shape_ == Shape::kEmpty;
  std::array<std::uint8_t, sizeof(FileId) + kNonceBytes> random{};
  const MutableByteView wanted = begins ? MutableByteView(random) : MutableByteView(random).subspan(sizeof(FileId));
  ECFS_TRY(draw(wanted, begins ? sizeof(FileId) : 0));
  if (begins) ECFS_TRY(begin_file(random));
  Nonce nonce{};
  std::copy_n(random.begin() + sizeof(FileId), nonce.size(), nonce.begin());
  std::array<std::uint8_t, kPageBytes> page{};
  const MutableByteView bytes = MutableByteView(page).first(kFileHeaderBytes + contents.size());
  {
    ECFS_LET(auto sealer, id_.cipher->sealer());
    ECFS_TRY(seal_header(sealer, id_.fixed, FileState{}, nonce, contents, bytes));
  }
  std::size_t written = 0;
  Status status = lower_->write_at(0, bytes, &written);
  lower_size_ = std::max<std::uint64_t>(lower_size_, written);
  if (!status) return status;
  id_.state = FileState{};
  shape_ = Shape::kInline;
  inline_.assign(contents.begin(), contents.end());
  size_ = contents.size();
  return {};
}

// --- Storing blocks ------------------------------------------------------------------------------------------------

// meta_for_write gives the meta page that the entries of `group` go into. `fresh`: it is not in the lower file yet.
Result<MetaRef> NativeContents::meta_for_write(std::uint64_t group, bool& fresh) {
  fresh = group * kBlocksPerGroup >= num_blocks();
  if (!fresh) {
    ECFS_LET(MetaRef meta, meta_of(group, true));
    if (group != 0 && all_zero(meta->page.head)) {  // in a gap or a hole
      meta->page.head = group_head(id_.fixed, group);
      meta->touch(0, kFileHeaderBytes);
    }
    return meta;
  }
  MetaRef meta = metas_.make(group);
  if (group != 0) meta->page.head = group_head(id_.fixed, group);
  return meta;
}

// compose makes the plaintext of a block that the request covers in part, at the place where it is encrypted.
Status NativeContents::compose(Job& job, const Change& change, FileCipher::Lease& opener, BlockAssociated& associated,
                               CachedMeta& meta) {
  const std::uint64_t start = start_of(job.block);
  std::uint64_t old_len = 0;
  if (shape_ == Shape::kInline && job.block == 0) {
    old_len = size_;
    std::copy(inline_.begin(), inline_.end(), job.sealed);
  } else if (job.existing) {
    old_len = job.saved_len;
    const std::size_t k = job.block % kBlocksPerGroup;
    std::copy_n(job.saved, old_len, job.sealed);
    ECFS_LET(const Found found, decode(opener, associated, meta, job.block, {job.sealed, old_len}));
    const Entry& entry = meta.page.entries[k];
    job.after.previous = found == Found::kCurrent    ? entry.current
                         : found == Found::kPrevious ? entry.previous
                                                     : Version{};
  }
  if (old_len < job.len) std::fill_n(job.sealed + old_len, job.len - old_len, std::uint8_t{0});
  const std::uint64_t from = std::max(change.offset, start);
  const std::uint64_t to = std::min(change.offset + change.len, start + job.len);
  if (from < to) {
    if (change.data != nullptr) {
      std::copy_n(change.data + (from - change.offset), to - from, job.sealed + (from - start));
    } else {
      std::fill_n(job.sealed + (from - start), to - from, std::uint8_t{0});
    }
  }
  return {};
}

// store makes one change of at most kChunkBytes in a PAGED file, or in one that becomes PAGED by it. It gives the bytes
// of `change` that are stored: all, or whole blocks from the front if the lower file took no more.
Result<std::size_t> NativeContents::store(const Change& change) {
  const std::uint64_t b = block_bytes();
  const bool from_empty = shape_ == Shape::kEmpty;
  const bool from_inline = shape_ == Shape::kInline;
  const std::uint64_t old_size = size_;
  const std::uint64_t old_lower_size = lower_size_;
  const std::uint64_t old_blocks = geo_.num_blocks(old_size);
  const std::uint64_t first = block_of(change.offset);
  const std::uint64_t last = change.len == 0 ? first : block_of(change.offset + change.len - 1);
  const bool leaves_gap = first > old_blocks;
  const bool fills_tail = old_size % b != 0 && first >= old_blocks && !gaps_.contains(old_blocks - 1);
  if (leaves_gap && shape_ == Shape::kPaged) ECFS_TRY(clear_stale_entries());

  // What is to be written: the old tail, if it now is inside the file, and the run.
  const std::size_t run_len = last - first + 1;
  const std::size_t num_jobs = run_len + (fills_tail ? 1 : 0);
  std::uint8_t* const sealed = scratch(num_jobs * b + 4 * b);
  std::uint8_t* next_saved = sealed + num_jobs * b;
  std::uint8_t* const probe = next_saved + 3 * b;
  std::vector<Job> jobs(num_jobs);
  struct Group {
    MetaRef meta;
    bool fresh = false;
    bool with_run = false;  // goes down with the run, right before its first block
  };
  std::vector<Group> groups;
  const auto group_of = [&groups](std::uint64_t block) -> Group& {
    return *std::find_if(groups.begin(), groups.end(),
                         [block](const Group& g) { return g.meta->group == block / kBlocksPerGroup; });
  };
  const auto need_group = [&](std::uint64_t group) -> Status {
    if (!groups.empty() && groups.back().meta->group == group) return {};
    Group g;
    ECFS_LET(g.meta, meta_for_write(group, g.fresh));
    g.with_run = g.fresh && group * kBlocksPerGroup >= first;
    groups.push_back(std::move(g));
    return {};
  };
  if (from_empty || from_inline) ECFS_TRY(need_group(0));
  for (std::size_t j = 0; j < num_jobs; ++j) {  // the tail comes first in the file, and last in the buffer
    Job& job = jobs[j];
    const bool is_tail = fills_tail && j == 0;
    job.block = is_tail ? old_blocks - 1 : first + (j - (fills_tail ? 1 : 0));
    job.sealed = sealed + (is_tail ? run_len : job.block - first) * b;
    job.len = std::min(b, change.new_size - start_of(job.block));
    job.existing = job.block < num_blocks() && !gaps_.contains(job.block);
    ECFS_TRY(need_group(job.block / kBlocksPerGroup));
  }

  // Nonces, in one call.
  const std::size_t id_len = from_empty ? sizeof(FileId) : 0;
  const std::size_t header_len = from_empty || from_inline ? kNonceBytes : 0;
  Bytes random(id_len + header_len + num_jobs * kNonceBytes);
  ECFS_TRY(draw(random, id_len));
  const Identity old_id = id_;
  if (from_empty) ECFS_TRY(begin_file(random));
  for (Group& g : groups) {  // their heads name the file
    if (g.fresh && g.meta->group != 0) g.meta->page.head = group_head(id_.fixed, g.meta->group);
  }

  // Encrypt everything before anything is written.
  const auto prepare = [&]() -> Status {
    ECFS_LET(auto sealer, id_.cipher->sealer());
    std::optional<FileCipher::Lease> opener;
    BlockAssociated associated(id_.fixed);
    if (header_len != 0) {
      Nonce nonce{};
      std::copy_n(random.begin() + static_cast<std::ptrdiff_t>(id_len), kNonceBytes, nonce.begin());
      ECFS_TRY(seal_header(sealer, id_.fixed, FileState{}, nonce, {}, groups.front().meta->page.head));
    }
    std::size_t nonce_at = id_len + header_len;
    for (Job& job : jobs) {
      const std::uint64_t start = start_of(job.block);
      const bool whole = change.offset <= start && change.offset + change.len >= start + job.len;
      const Group& group = group_of(job.block);
      const std::size_t k = job.block % kBlocksPerGroup;
      job.before = group.meta->page.entries[k];
      const bool grows = job.existing && len_of(job.block) < job.len;
      const bool in_doubt = job.existing && (job.before.current.pending() ||
                                             (group.meta->at_previous.load(std::memory_order_relaxed) >> k & 1) != 0);
      if (job.existing && (!whole || (grows && b > kPageBytes))) {
        job.saved = next_saved;
        job.saved_len = len_of(job.block);
        next_saved += b;
        ECFS_LET(const std::size_t got, lower_->read_at(geo_.data_offset(job.block), {job.saved, job.saved_len}));
        if (got != job.saved_len) return corrupt("the lower file became shorter while it was open");
      }
      if (job.existing) job.after.previous = job.before.current;
      if ((!whole || in_doubt) && !opener) {
        ECFS_LET(auto lease, id_.cipher->opener());
        opener.emplace(std::move(lease));
      }
      if (!whole) {
        ECFS_TRY(compose(job, change, *opener, associated, *group.meta));
      } else if (in_doubt) {
        // Which of the two is on the disk? That one is kept. If neither, there is nothing to keep.
        const MutableByteView bytes(probe, len_of(job.block));
        const Result<std::size_t> got = lower_->read_at(geo_.data_offset(job.block), bytes);
        job.after.previous = Version{};
        if (got && *got == bytes.size()) {
          const Result<Found> found = decode(*opener, associated, *group.meta, job.block, bytes);
          if (found && *found == Found::kCurrent) job.after.previous = job.before.current;
          if (found && *found == Found::kPrevious) job.after.previous = job.before.previous;
        }
      }
      job.after.previous.clear_pending();
      const ByteView plain = !whole                   ? ByteView(job.sealed, job.len)
                             : change.data == nullptr ? zeros(job.len)
                                                      : ByteView(change.data + (start - change.offset), job.len);
      Nonce nonce{};
      Tag tag{};
      std::copy_n(random.begin() + static_cast<std::ptrdiff_t>(nonce_at), kNonceBytes, nonce.begin());
      nonce_at += kNonceBytes;
      ECFS_TRY(sealer.seal(nonce, associated.of(job.block), plain, job.sealed, tag));
      job.after.current = Version::of(nonce, tag, job.len, job.existing);
    }
    return {};
  };
  if (Status status = prepare(); !status) {
    id_ = old_id;
    return std::move(status).error();
  }

  // Entries, in memory.
  for (const Job& job : jobs) {
    Group& group = group_of(job.block);
    const std::size_t k = job.block % kBlocksPerGroup;
    group.meta->page.entries[k] = job.after;
    group.meta->at_previous &= ~(1ULL << k);
    if (!group.fresh) group.meta->touch_entry(k);
  }

  // On disk: entries of what is there already, or a new page 0; then the data, and new meta pages on its way.
  std::size_t reached = 0;  // jobs whose data is written
  const auto write_run = [&](std::size_t from_job, std::size_t to_job) -> Status {
    const std::uint64_t from_block = jobs[from_job].block;
    const Group& first_group = group_of(from_block);
    const bool from_meta =
        first_group.with_run && from_block % kBlocksPerGroup == 0 && !(from_inline && from_block == 0);
    Gather run(from_meta ? geo_.meta_offset(from_block / kBlocksPerGroup) : geo_.data_offset(from_block));
    for (std::size_t j = from_job; j < to_job; ++j) {
      const Job& job = jobs[j];
      if (job.block % kBlocksPerGroup == 0 && (j != from_job || from_meta)) {
        run.add(group_of(job.block).meta->bytes().data(), kPageBytes);
      }
      run.add(job.sealed, job.len);
    }
    std::size_t written = 0;
    Status status = lower_->writev_at(run.offset(), run.parts(), &written);
    if (status) {
      reached = to_job;
      return status;
    }
    while (reached < to_job && geo_.data_offset(jobs[reached].block) + jobs[reached].len <= run.offset() + written)
      ++reached;
    return status;
  };
  const auto write_all = [&]() -> Status {
    for (Group& g : groups) {
      if (!g.fresh) ECFS_TRY(write_meta(*g.meta));
    }
    // The tail is full before the file becomes any longer: a short block inside a file is none.
    if (fills_tail) ECFS_TRY(write_run(0, 1));
    for (Group& g : groups) {
      if (!g.fresh || g.with_run || (from_inline && g.meta->group == 0)) continue;
      g.meta->touch(0, kPageBytes);
      ECFS_TRY(write_meta(*g.meta));
    }
    ECFS_TRY(write_run(fills_tail ? 1 : 0, num_jobs));
    if (from_inline) {
      if (older_on_disk_) ECFS_TRY(lower_->sync_data());
      ECFS_TRY(lower_->write_at(0, groups.front().meta->bytes()));
    }
    return {};
  };
  Status status = write_all();

  const std::size_t tail_jobs = fills_tail ? 1 : 0;
  const bool all_or_nothing = from_inline || change.shrinks;
  std::size_t done = reached > tail_jobs ? reached - tail_jobs : 0;
  if (!status && (all_or_nothing || done == 0)) {
    // Nothing of it shall remain: first what the disk holds, then what memory does.
    if (from_empty || from_inline) {
      metas_.drop(0);
      id_ = old_id;
      if (from_empty) {
        (void)stay_empty();
      } else {
        if (reached == num_jobs) (void)write_inline(Bytes(inline_));  // page 0 may be half written
        (void)cut_lower(old_lower_size);
      }
      return std::move(status).error();
    }
    done = 0;
  }
  std::uint64_t new_size = change.new_size;
  if (!status) {
    for (std::size_t j = done == 0 ? 0 : done + tail_jobs; j < num_jobs; ++j) {
      const Job& job = jobs[j];
      Group& group = group_of(job.block);
      // An old tail, or a block written in part, is put back as it was. If that cannot be, the new entry stays: it is
      // pending and has the old version beside it.
      if (job.saved != nullptr && !lower_->write_at(geo_.data_offset(job.block), {job.saved, job.saved_len})) continue;
      group.meta->page.entries[job.block % kBlocksPerGroup] = job.before;
      if (!group.fresh) group.meta->touch_entry(job.block % kBlocksPerGroup);
    }
    for (Group& g : groups) {
      if (!g.fresh) (void)write_meta(*g.meta);
    }
    new_size = done == 0 ? old_size : std::max(old_size, std::min(change.new_size, start_of(first + done)));
  }

  // What memory holds, now that it is known what the disk does.
  const std::size_t kept_jobs = done == 0 ? 0 : done + tail_jobs;
  if (!change.shrinks) {
    shape_ = Shape::kPaged;
    inline_.clear();
    size_ = new_size;
    const std::uint64_t proper = geo_.paged_lower_size(new_size);
    if (!status) {
      (void)cut_lower(proper);
    } else {
      lower_size_ = proper;
    }
  }
  for (Group& g : groups) {
    if (g.fresh && g.meta->group * kBlocksPerGroup < num_blocks()) {
      g.meta->set_clean();
      if (!status) g.meta->touch(0, kPageBytes);  // entries were taken back in memory only
      for (const MetaRef& leaving : metas_.keep(g.meta, true)) (void)write_meta(*leaving);
    }
  }
  for (std::size_t j = 0; j < kept_jobs; ++j) {
    const Job& job = jobs[j];
    gaps_.remove(job.block, job.block + 1);
    if (!job.existing) continue;
    Group& group = group_of(job.block);
    const std::size_t k = job.block % kBlocksPerGroup;
    group.meta->page.entries[k].current.clear_pending();
    group.meta->touch_entry(k);
  }
  if (undone_holes_ && !undone_holes_->empty() && kept_jobs > 0) {
    if (fills_tail) undone_holes_->remove(jobs[0].block, jobs[0].block + 1);
    undone_holes_->remove(first, first + done);
  }
  if (leaves_gap && kept_jobs > 0) gaps_.add(old_blocks, first);
  if (kept_jobs == 0) return std::move(status).error();
  return std::min<std::size_t>(change.len, start_of(first + done) - change.offset);
}

// --- Changes that a caller asks for --------------------------------------------------------------------------------

Result<std::size_t> NativeContents::store_chunk(std::uint64_t offset, const std::uint8_t* data, std::uint64_t len) {
  Change change;
  change.offset = offset;
  change.data = data;
  change.len = std::min(len, chunk_at(offset));
  change.new_size = std::max(size_, offset + change.len);
  return store(change);
}

// fill stores zeros in [from, to).
Status NativeContents::fill(std::uint64_t from, std::uint64_t to) {
  while (from < to) {
    ECFS_LET(const std::size_t done, store_chunk(from, nullptr, to - from));
    from += done;
  }
  return {};
}

// replace_inline makes `contents` the file's contents, or leaves the old ones.
Status NativeContents::replace_inline(ByteView contents) {
  const bool was_empty = shape_ == Shape::kEmpty;
  const Identity old_id = id_;
  const std::uint64_t old_lower_size = lower_size_;
  if (Status status = write_inline(contents); !status) {
    if (was_empty) {
      id_ = old_id;
      (void)stay_empty();
    } else {
      (void)write_inline(Bytes(inline_));
      (void)cut_lower(old_lower_size);
    }
    return status;
  }
  if (lower_size_ == proper_lower_size()) return {};
  if (older_on_disk_) ECFS_TRY(lower_->sync_data());
  return cut_lower(proper_lower_size());
}

Result<std::size_t> NativeContents::write(std::uint64_t offset, ByteView data) {
  if (data.empty()) return std::size_t{0};
  const std::unique_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return unreadable().error();
  if (offset > geo_.max_plain_size() || data.size() > geo_.max_plain_size() - offset) {
    return system_error(EFBIG, "write past the largest size of a file");
  }
  const std::uint64_t new_size = std::max(size_, offset + data.size());
  ECFS_TRY(before_change(new_size));
  if (shape_ != Shape::kPaged && new_size <= kInlineMaxBytes) {
    Bytes contents = inline_;
    contents.resize(new_size);
    std::copy(data.begin(), data.end(), contents.begin() + static_cast<std::ptrdiff_t>(offset));
    ECFS_TRY(replace_inline(contents));
    return data.size();
  }
  std::size_t done = 0;
  while (done < data.size()) {
    const Result<std::size_t> stored = store_chunk(offset + done, data.data() + done, data.size() - done);
    if (!stored && done == 0) return stored.error();
    if (!stored) break;
    done += *stored;
  }
  // Gaps are settled later, but they shall not pile up without limit. Should it fail, the data is stored all the same,
  // and the next settle() says so.
  if (gaps_.num_intervals() > kMaxRemembered) (void)settle_locked(false);
  return done;
}

Status NativeContents::truncate(std::uint64_t new_size) {
  const std::unique_lock lock(mutex_);
  if (new_size == 0) {
    changed_ = true;
    changed_since_sync_ = true;
    return empty_file();
  }
  if (shape_ == Shape::kUnreadable) return unreadable();
  if (new_size > geo_.max_plain_size()) return system_error(EFBIG, "truncate past the largest size of a file");
  if (new_size == size_) return {};
  ECFS_TRY(before_change(new_size));
  return new_size < size_ ? shrink(new_size) : grow(new_size);
}

Status NativeContents::empty_file() {
  if (!keeps_header()) {
    if (lower_size_ != 0) ECFS_TRY(cut_lower(0));
    id_.state = FileState{};
    set_emptied();
    return {};
  }
  // The header stays, or a new one comes, so that nobody can pass off a file for an empty one by cutting it.
  const bool has_header =
      shape_ == Shape::kPaged || (shape_ == Shape::kEmpty && lower_size_ >= kFileHeaderBytes && id_.cipher);
  if (has_header) {
    ECFS_TRY(unseal());
    if (lower_size_ != kFileHeaderBytes) ECFS_TRY(cut_lower(kFileHeaderBytes));
    set_emptied();
    return {};
  }
  std::array<std::uint8_t, sizeof(FileId) + kNonceBytes> random{};
  ECFS_TRY(draw(random, sizeof(FileId)));
  ECFS_TRY(begin_file(random));
  Nonce nonce{};
  std::copy_n(random.begin() + sizeof(FileId), nonce.size(), nonce.begin());
  std::array<std::uint8_t, kPageBytes> page{};
  {
    ECFS_LET(auto sealer, id_.cipher->sealer());
    ECFS_TRY(seal_header(sealer, id_.fixed, id_.state, nonce, {}, MutableByteView(page).first(kFileHeaderBytes)));
  }
  if (shape_ == Shape::kInline) {
    // A PAGED header and one whole page is an empty file: the old contents go in the same step.
    ECFS_TRY(lower_->write_at(0, page));
    lower_size_ = kPageBytes;
  } else {
    if (lower_size_ != 0) ECFS_TRY(cut_lower(0));
    ECFS_TRY(lower_->write_at(0, ByteView(page).first(kFileHeaderBytes)));
    lower_size_ = kFileHeaderBytes;
  }
  const bool older = older_on_disk_;
  set_emptied();
  if (lower_size_ == kFileHeaderBytes) return {};
  // Cut before the page has reached the disk, the old header would miss its contents after a power cut.
  if (older) ECFS_TRY(lower_->sync_data());
  return cut_lower(kFileHeaderBytes);
}

// stay_empty takes back what was written to a file that did not manage to grow from empty.
Status NativeContents::stay_empty() {
  if (keeps_header()) {
    std::array<std::uint8_t, kFileHeaderBytes> header{};
    Nonce nonce{};
    ECFS_TRY(draw(nonce, 0));
    {
      ECFS_LET(auto sealer, id_.cipher->sealer());
      ECFS_TRY(seal_header(sealer, id_.fixed, id_.state, nonce, {}, header));
    }
    ECFS_TRY(lower_->write_at(0, header));
  }
  return cut_lower(empty_lower_size());
}

Status NativeContents::shrink(std::uint64_t new_size) {
  if (shape_ == Shape::kInline)
    return replace_inline(Bytes(inline_.begin(), inline_.begin() + static_cast<std::ptrdiff_t>(new_size)));
  const std::uint64_t block = block_of(new_size);
  const std::uint64_t border = new_size == start_of(block) ? new_size : start_of(block + 1);
  if (border < size_) {
    ECFS_TRY(cut_lower(geo_.paged_lower_size(border)));
    size_ = border;
    forget_behind(geo_.num_blocks(border));
  }
  if (border == new_size) return {};
  ECFS_LET(const MetaRef meta, meta_of(block / kBlocksPerGroup, true));
  const bool stored =
      !gaps_.contains(block) && !(id_.state.holes && meta->page.entries[block % kBlocksPerGroup].absent());
  if (stored) {
    Change change;
    change.offset = new_size;
    change.new_size = new_size;
    change.shrinks = true;
    ECFS_TRY(store(change));
    size_ = new_size;
    if (older_on_disk_) ECFS_TRY(lower_->sync_data());
  }
  size_ = new_size;
  return cut_lower(geo_.paged_lower_size(new_size));
}

// begin_with_holes makes page 0 of a file that grows from empty by a hole.
Status NativeContents::begin_with_holes() {
  const Identity old_id = id_;
  std::array<std::uint8_t, sizeof(FileId) + kNonceBytes> random{};
  ECFS_TRY(draw(random, sizeof(FileId)));
  ECFS_TRY(begin_file(random));
  Nonce nonce{};
  std::copy_n(random.begin() + sizeof(FileId), nonce.size(), nonce.begin());
  FileState state;
  state.holes = true;
  const MetaRef page0 = metas_.make(0);
  {
    ECFS_LET(auto sealer, id_.cipher->sealer());
    ECFS_TRY(seal_header(sealer, id_.fixed, state, nonce, {}, page0->page.head));
  }
  Status status = lower_->write_at(0, page0->bytes());
  lower_size_ = kPageBytes;
  if (status) status = lower_->sync_data();
  if (!status) {
    id_ = old_id;
    (void)stay_empty();
    return status;
  }
  id_.state = state;
  shape_ = Shape::kPaged;
  older_on_disk_ = true;
  (void)metas_.keep(page0, true);
  return {};
}

// clear_stale_entries zeroes what an earlier, longer life of the file left behind the last block of its group, before
// those entries come to stand inside the file without being written.
Status NativeContents::clear_stale_entries() {
  const std::uint64_t num = num_blocks();
  if (num % kBlocksPerGroup == 0) return {};
  ECFS_LET(const MetaRef meta, meta_of(num / kBlocksPerGroup, true));
  bool stale = false;
  for (std::size_t k = num % kBlocksPerGroup; k < kBlocksPerGroup; ++k) {
    Entry& entry = meta->page.entries[k];
    if (entry.absent()) continue;
    entry = Entry{};
    meta->touch_entry(k);
    stale = true;
  }
  return stale ? write_meta(*meta) : Status{};
}

Status NativeContents::grow(std::uint64_t new_size) {
  if (shape_ != Shape::kPaged && new_size <= kInlineMaxBytes) {
    Bytes contents = inline_;
    contents.resize(new_size);
    return replace_inline(contents);
  }
  const std::uint64_t old_size = size_;
  const std::uint64_t border = start_of(geo_.num_blocks(old_size));
  const auto by_filling = [&](std::uint64_t to) -> Status {
    Status status = fill(old_size, to);
    if (!status && size_ > old_size && old_size > 0) (void)shrink(old_size);
    if (!status && size_ > old_size && old_size == 0) (void)empty_file();
    return status;
  };
  if (new_size <= border || new_size - border < kHoleMinBytes) return by_filling(new_size);

  if (shape_ == Shape::kEmpty) {
    ECFS_TRY(begin_with_holes());
  } else {
    const bool ends_in_gap = old_size != border && gaps_.contains(block_of(old_size));
    if (!ends_in_gap && old_size != border) ECFS_TRY(by_filling(border));
    ECFS_TRY(clear_stale_entries());
    ECFS_TRY(allow_holes());
  }
  if (Status status = cut_lower(geo_.paged_lower_size(new_size)); !status) {
    if (old_size == 0) {
      (void)empty_file();
    } else if (size_ > old_size) {
      (void)shrink(old_size);
    }
    return status;
  }
  size_ = new_size;
  holes_added(geo_.num_blocks(border), geo_.num_blocks(new_size));
  return {};
}

// zero makes [from, to), which lies inside the file, read as zeros by storing them.
Status NativeContents::zero(std::uint64_t from, std::uint64_t to) {
  if (from >= to) return {};
  if (shape_ == Shape::kPaged) return fill(from, to);
  Bytes contents = inline_;
  std::fill(contents.begin() + static_cast<std::ptrdiff_t>(from), contents.begin() + static_cast<std::ptrdiff_t>(to),
            std::uint8_t{0});
  return replace_inline(contents);
}

Status NativeContents::punch(std::uint64_t offset, std::uint64_t len) {
  const std::uint64_t end = std::min(size_, offset + len);
  if (offset >= end) return {};
  const std::uint64_t from = geo_.num_blocks(offset);  // first block that is wholly inside
  const std::uint64_t to = end == size_ ? num_blocks() : block_of(end);
  if (shape_ != Shape::kPaged || from >= to) return zero(offset, end);
  if (!id_.state.holes) {
    // Ask before the file is changed whether the lower filesystem can punch at all: behind the end it changes nothing.
    ECFS_TRY(lower_->punch((lower_size_ / kPageBytes + 1) * kPageBytes, kPageBytes));
    ECFS_TRY(allow_holes());
  }
  ECFS_TRY(zero(offset, start_of(from)));
  ECFS_TRY(zero(start_of(to), end));
  return punch_blocks(from, to);
}

Status NativeContents::punch_blocks(std::uint64_t from, std::uint64_t to) {
  // Groups that go with their meta page; page 0 never does.
  const auto goes_whole = [&](std::uint64_t group) {
    const std::uint64_t begin = group * kBlocksPerGroup;
    return group != 0 && from <= begin && std::min(begin + kBlocksPerGroup, num_blocks()) <= to;
  };
  const std::uint64_t first_group = from / kBlocksPerGroup;
  const std::uint64_t last_group = (to - 1) / kBlocksPerGroup;
  const std::uint64_t lower_from = goes_whole(first_group) ? geo_.meta_offset(first_group) : geo_.data_offset(from);
  const std::uint64_t lower_to = geo_.data_offset(to - 1) + block_bytes();
  // Remembered first: half a punch leaves holes too.
  gaps_.remove(from, to);
  holes_added(from, to);
  if (last_group == first_group || goes_whole(last_group)) {
    ECFS_TRY(lower_->punch(lower_from, lower_to - lower_from));
  } else {
    const std::uint64_t border = geo_.meta_offset(last_group);
    ECFS_TRY(lower_->punch(lower_from, border - lower_from));
    ECFS_TRY(lower_->punch(border + kPageBytes, lower_to - border - kPageBytes));
  }
  const std::uint64_t whole_from = goes_whole(first_group) ? first_group : first_group + 1;
  const std::uint64_t whole_to = goes_whole(last_group) ? last_group + 1 : last_group;
  if (whole_from < whole_to) metas_.drop(whole_from, whole_to);
  const auto clear_entries = [&](std::uint64_t group) -> Status {
    ECFS_LET(const MetaRef meta, meta_of(group, true));
    const std::uint64_t begin = group * kBlocksPerGroup;
    for (std::uint64_t block = std::max(from, begin); block < std::min(to, begin + kBlocksPerGroup); ++block) {
      Entry& entry = meta->page.entries[block - begin];
      if (entry.absent()) continue;
      entry = Entry{};
      meta->touch_entry(block - begin);
    }
    return write_meta(*meta);
  };
  if (!goes_whole(first_group)) ECFS_TRY(clear_entries(first_group));
  if (last_group != first_group && !goes_whole(last_group)) ECFS_TRY(clear_entries(last_group));
  return {};
}

// reserve has the lower filesystem keep room for what [from, to) will take.
Status NativeContents::reserve(std::uint64_t from, std::uint64_t to) {
  const std::uint64_t lower_from = geo_.data_offset(block_of(from));
  const std::uint64_t lower_to = geo_.data_offset(block_of(to - 1)) + block_bytes();
  return lower_->reserve(lower_from, lower_to - lower_from);
}

Status NativeContents::allocate(int mode, std::uint64_t offset, std::uint64_t len) {
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int what = mode & ~FALLOC_FL_KEEP_SIZE;
  const bool punches = what == FALLOC_FL_PUNCH_HOLE && keep_size;
  const bool zeroes = what == FALLOC_FL_ZERO_RANGE;
  if (!punches && !zeroes && what != 0) return system_error(EOPNOTSUPP, "fallocate");
  if (len == 0) return system_error(EINVAL, "fallocate");
  const std::unique_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return unreadable();
  if (offset > geo_.max_plain_size() || len > geo_.max_plain_size() - offset) {
    if (!punches) return system_error(EFBIG, "allocate past the largest size of a file");
    if (offset >= size_) return {};
    len = size_ - offset;
  }
  const std::uint64_t end = offset + len;
  const std::uint64_t new_size = keep_size ? size_ : std::max(size_, end);
  if (punches || (zeroes && new_size == size_ && offset >= size_)) {
    if (offset >= size_) return {};
    ECFS_TRY(before_change(size_));
    return punch(offset, len);
  }
  const bool stays_inline = shape_ != Shape::kPaged && std::max(new_size, end) <= kInlineMaxBytes;
  if (!zeroes && !stays_inline) ECFS_TRY(reserve(offset, end));
  ECFS_TRY(before_change(new_size));
  if (zeroes && offset < size_) {
    const std::uint64_t zero_end = std::min(end, size_);
    Status status = system_error(EOPNOTSUPP, "punch");
    if (zero_end - offset >= kHoleMinBytes) status = punch(offset, zero_end - offset);
    if (!status && errno_of(status.error()) == EOPNOTSUPP) status = zero(offset, zero_end);
    ECFS_TRY(std::move(status));
  }
  return new_size > size_ ? grow(new_size) : Status{};
}

// --- Holes, settling, syncing --------------------------------------------------------------------------------------

Result<std::uint64_t> NativeContents::next_data(std::uint64_t offset) {
  const std::shared_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return unreadable().error();
  const auto past_end = [] { return system_error(ENXIO, "no data behind this offset"); };
  if (offset >= size_) return past_end();
  if (shape_ != Shape::kPaged || !id_.state.holes) return offset;
  for (std::uint64_t block = block_of(offset); block < num_blocks();) {
    const Result<std::uint64_t> at = lower_->next_data(geo_.data_offset(block));
    if (!at && errno_of(at.error()) == ENXIO) return past_end();
    if (!at) return offset;  // the lower filesystem does not tell: all of it is data
    const std::uint64_t group = *at / geo_.group_bytes();
    const std::uint64_t inside = *at % geo_.group_bytes();
    if (inside >= kPageBytes) {
      const std::uint64_t found = group * kBlocksPerGroup + block_of(inside - kPageBytes);
      if (found >= num_blocks()) return past_end();
      return std::max(offset, start_of(found));
    }
    block = group * kBlocksPerGroup;  // a meta page is none of the file's data: look behind it
  }
  return past_end();
}

Result<std::uint64_t> NativeContents::next_hole(std::uint64_t offset) {
  const std::shared_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return unreadable().error();
  if (offset >= size_) return system_error(ENXIO, "offset behind the end");
  if (shape_ != Shape::kPaged || !id_.state.holes) return size_;
  for (std::uint64_t block = block_of(offset); block < num_blocks();) {
    const Result<std::uint64_t> at = lower_->next_hole(geo_.data_offset(block));
    if (!at || *at >= lower_size_) return size_;
    // A hole in the lower file is one of ours if it takes in a whole block.
    const std::uint64_t group = *at / geo_.group_bytes();
    const std::uint64_t inside = *at % geo_.group_bytes();
    const std::uint64_t candidate = std::max(
        block, group * kBlocksPerGroup + (inside > kPageBytes ? block_of(inside - kPageBytes + block_bytes() - 1) : 0));
    if (candidate >= num_blocks()) return size_;
    const Result<std::uint64_t> data = lower_->next_data(geo_.data_offset(candidate));
    const bool to_the_end = !data && errno_of(data.error()) == ENXIO;
    if (to_the_end || (data && *data >= geo_.data_offset(candidate) + len_of(candidate))) {
      return std::max(offset, start_of(candidate));
    }
    if (!data) return size_;
    block = candidate + 1;
  }
  return size_;
}

Status NativeContents::settle_locked(bool declare_if_full) {
  const std::map<std::uint64_t, std::uint64_t> gaps = gaps_.intervals();
  for (const auto& [from, to] : gaps) {
    const std::uint64_t begin = start_of(from);
    const std::uint64_t end = std::min(size_, start_of(to));
    if (end - begin < kHoleMinBytes) {
      Status status = fill(begin, end);
      if (status) continue;
      // Nobody hears of an error after the last close, and a hole is better than a block that does not verify.
      if (!declare_if_full || status.error().code != Code::kNoSpace) return status;
    }
    ECFS_TRY(allow_holes());
    gaps_.remove(from, to);
    holes_added(from, to);
  }
  return {};
}

// No hole is left: then none shall be allowed. Not if that could reach the disk before data that an fsync called
// durable as a hole.
bool NativeContents::holes_were_filled() const noexcept {
  return shape_ == Shape::kPaged && id_.state.holes && undone_holes_ && undone_holes_->empty() &&
         (!synced_since_empty_ || !changed_since_sync_);
}

bool NativeContents::puts_off() {
  const std::shared_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return false;
  return !gaps_.empty() || (changed_ && (holes_were_filled() || metas_.any_dirty() ||
                                         (keeps_header() && shape_ == Shape::kPaged && id_.state.sealed != size_)));
}

Status NativeContents::settle() {
  const std::unique_lock lock(mutex_);
  if (shape_ == Shape::kUnreadable) return unreadable();
  return settle_locked(false);
}

Status NativeContents::seal_size() {
  if (!keeps_header() || shape_ != Shape::kPaged || id_.state.sealed == size_) return {};
  FileState sealed = id_.state;
  sealed.sealed = size_;
  return write_state(sealed);
}

Status NativeContents::sync(bool data_only) {
  const auto sync_lower = [&] { return data_only ? lower_->sync_data() : lower_->sync(); };
  {
    const std::unique_lock lock(mutex_);
    if (shape_ == Shape::kUnreadable) return unreadable();
    ECFS_TRY(settle_locked(false));
    older_on_disk_ = shape_ == Shape::kInline || shape_ == Shape::kPaged;
    synced_since_empty_ = true;
    if (keeps_header() && shape_ == Shape::kPaged && changed_) {
      // Nothing may come between the data that is on the disk and the seal over its size.
      ECFS_TRY(cut_leftover());
      ECFS_TRY(sync_lower());
      ECFS_TRY(seal_size());
      ECFS_TRY(sync_lower());
      changed_since_sync_ = false;
      return {};
    }
    changed_since_sync_ = false;
  }
  Status status = sync_lower();
  if (!status) {
    const std::unique_lock lock(mutex_);
    changed_since_sync_ = true;
  }
  return status;
}

Status NativeContents::finish() {
  const std::unique_lock lock(mutex_);
  if (!changed_ || shape_ == Shape::kUnreadable) return {};
  Status first = settle_locked(true);
  const auto also = [&first](Status status) {
    if (first) first = std::move(status);
  };
  if (first && holes_were_filled()) {
    FileState strict = id_.state;
    strict.holes = false;
    also(write_state(strict));
  }
  for (const MetaRef& meta : metas_.dirty()) also(write_meta(*meta));
  if (first && keeps_header() && shape_ == Shape::kPaged && id_.state.sealed != size_) {
    also(cut_leftover());
    if (first) also(lower_->sync());
    if (first) also(seal_size());
  }
  changed_ = false;
  return first;
}

}  // namespace

Result<std::unique_ptr<Contents>> open_native_contents(std::shared_ptr<const NativeVolume> volume, LowerFile& lower) {
  auto contents = std::make_unique<NativeContents>(std::move(volume), lower);
  ECFS_TRY(contents->open());
  return std::unique_ptr<Contents>(std::move(contents));
}

Result<std::unique_ptr<Contents>> open_native_to_truncate(std::shared_ptr<const NativeVolume> volume,
                                                          LowerFile& lower) {
  auto contents = std::make_unique<NativeContents>(std::move(volume), lower);
  ECFS_TRY(contents->open_unread());
  return std::unique_ptr<Contents>(std::move(contents));
}

}  // namespace ecfs::fs
