#include "fs/format/ecryptfs_contents.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <syslog.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>

#include "wrap/base/log.h"

namespace ecfs::fs {
namespace {

constexpr std::uint64_t kExtent = kEcryptfsExtentBytes;
constexpr std::uint64_t kChunkBytes = 1U << 20;  // of one lower request
constexpr std::uint64_t kLongGap = 64U << 20;

Error corrupt(std::string what) { return Error{Code::kCorrupt, EIO, std::move(what)}; }
Error too_large() { return system_error(EFBIG, "past the largest size of an eCryptfs file"); }

constexpr std::uint64_t round_down(std::uint64_t n) noexcept { return n / kExtent * kExtent; }
constexpr std::uint64_t round_up(std::uint64_t n) noexcept { return round_down(n + kExtent - 1); }

// scratch is a buffer of this thread, of at least `len` bytes. It holds what a request moves, and stays for the next.
MutableByteView scratch(std::uint64_t len) {
  thread_local Bytes buffer;
  if (buffer.size() < len) buffer.resize(len);
  return MutableByteView(buffer).first(len);
}

// What every Contents of this format has in common: nothing is put off, and there are no holes.
class Immediate : public Contents {
 public:
  explicit Immediate(LowerFile& lower) noexcept : lower_(&lower) {}
  Status allocate(int, std::uint64_t, std::uint64_t) override { return system_error(EOPNOTSUPP, "fallocate"); }
  Result<std::uint64_t> next_data(std::uint64_t offset) override { return seek(offset, false); }
  Result<std::uint64_t> next_hole(std::uint64_t offset) override { return seek(offset, true); }
  bool puts_off() override { return false; }
  Status settle() override { return {}; }
  Status sync(bool data_only) override { return data_only ? lower_->sync_data() : lower_->sync(); }
  Status finish() override { return {}; }
  void drop_keys() noexcept override {}

 protected:
  LowerFile* lower_;

 private:
  Result<std::uint64_t> seek(std::uint64_t offset, bool hole) {
    ECFS_LET(const std::uint64_t end, size());
    if (offset >= end) return system_error(ENXIO, "offset behind the end");
    return hole ? end : offset;
  }
};

// --- Files that are not encrypted, or shown as they lie -------------------------------------------------------------

class PlainContents final : public Immediate {
 public:
  using Immediate::Immediate;
  Result<std::uint64_t> size() override { return lower_->size(); }
  Result<std::size_t> read(std::uint64_t offset, MutableByteView out) override { return lower_->read_at(offset, out); }
  Result<std::size_t> write(std::uint64_t offset, ByteView data) override {
    std::size_t written = 0;
    Status status = lower_->write_at(offset, data, &written);
    if (!status && written == 0) return std::move(status).error();
    return written;
  }
  Status truncate(std::uint64_t new_size) override { return lower_->truncate(new_size); }
};

class ViewContents final : public Immediate {
 public:
  ViewContents(LowerFile& lower, Bytes header) : Immediate(lower), header_(std::move(header)) {}
  Result<std::uint64_t> size() override {
    ECFS_LET(const std::uint64_t lower_size, lower_->size());
    return header_.size() + lower_size;
  }
  Result<std::size_t> read(std::uint64_t offset, MutableByteView out) override {
    std::size_t done = 0;
    if (offset < header_.size()) {
      done = std::min<std::size_t>(out.size(), header_.size() - offset);
      std::copy_n(header_.begin() + static_cast<std::ptrdiff_t>(offset), done, out.begin());
    }
    if (done == out.size()) return done;
    ECFS_LET(const std::size_t got, lower_->read_at(offset + done - header_.size(), out.subspan(done)));
    return done + got;
  }
  Result<std::size_t> write(std::uint64_t, ByteView) override { return read_only(); }
  Status truncate(std::uint64_t) override { return read_only(); }
  Status allocate(int, std::uint64_t, std::uint64_t) override { return read_only(); }

 private:
  static Error read_only() { return system_error(EROFS, "the encrypted view"); }
  Bytes header_;  // that stands in an attribute, as it would stand in the file
};

Result<std::unique_ptr<Contents>> open_view(LowerFile& lower) {
  Bytes front;
  auto found = find_ecryptfs_header(lower);
  if (!found && found.error().code != Code::kCorrupt) return std::move(found).error();
  if (found && *found && (*found)->place == EcryptfsPlace::kXattr) {
    EcryptfsHeader header = std::move((*found)->header);
    header.header_extent_bytes = 4096;
    header.num_header_extents = 2;
    ECFS_LET(front, build_ecryptfs_header(header, EcryptfsPlace::kFile));
  }
  return std::unique_ptr<Contents>(std::make_unique<ViewContents>(lower, std::move(front)));
}

// --- Encrypted files -----------------------------------------------------------------------------------------------

class EcryptfsContents final : public Immediate {
 public:
  EcryptfsContents(std::shared_ptr<const EcryptfsVolume> volume, LowerFile& lower)
      : Immediate(lower), volume_(std::move(volume)) {}

  // open takes what find_ecryptfs_header found; nothing: an empty file without a header yet.
  Status open(std::optional<EcryptfsFound> found) {
    if (!found) return {};
    ECFS_LET(key_, EcryptfsFileKey::open(volume_->keys, volume_->ciphers, found->header));
    place_ = found->place;
    data_from_ = found->header.data_offset(place_);
    size_ = found->header.plain_size;
    return {};
  }
  void open_damaged() noexcept { damaged_ = true; }

  Result<std::uint64_t> size() override {
    const std::shared_lock lock(mutex_);
    if (damaged_) return damaged();
    return size_;
  }
  Result<std::size_t> read(std::uint64_t offset, MutableByteView out) override;
  Result<std::size_t> write(std::uint64_t offset, ByteView data) override;
  Status truncate(std::uint64_t new_size) override;
  Status allocate(int mode, std::uint64_t offset, std::uint64_t len) override;
  void drop_keys() noexcept override {
    if (key_) key_->drop_keys();
  }

 private:
  static Error damaged() { return corrupt("the header of an eCryptfs file is damaged"); }
  [[nodiscard]] std::uint64_t lower_size(std::uint64_t plain_size) const noexcept {
    return data_from_ + round_up(plain_size);
  }
  Status load(std::uint64_t from, MutableByteView out);
  Status store(std::uint64_t from, std::uint64_t len, const std::uint8_t* data, std::uint64_t& done);
  Status store_size(std::uint64_t plain_size);
  Status check_room(std::uint64_t new_size) const;
  Status check_whole() const;
  Status cut_leftover();
  Status begin();
  Status shrink(std::uint64_t new_size);
  Status grow(std::uint64_t new_size);

  std::shared_ptr<const EcryptfsVolume> volume_;
  std::shared_mutex mutex_;                     // guards all below
  std::shared_ptr<const EcryptfsFileKey> key_;  // null: no header yet, so an empty file
  EcryptfsPlace place_ = EcryptfsPlace::kFile;
  std::uint64_t data_from_ = 0;
  std::uint64_t size_ = 0;  // plain
  bool damaged_ = false;    // only truncation to 0
  std::atomic<bool> hole_said_{false};
};

// load decrypts whole extents, all of which have to be there.
Status EcryptfsContents::load(std::uint64_t from, MutableByteView out) {
  ECFS_LET(const std::size_t got, lower_->read_at(data_from_ + from, out));
  if (got != out.size()) return corrupt("extent " + std::to_string((from + got) / kExtent) + " is not there");
  ECFS_LET(auto lease, key_->lease(false));
  for (std::uint64_t at = 0; at < out.size(); at += kExtent) {
    const MutableByteView extent = out.subspan(at, kExtent);
    if (!all_zero(extent)) {
      ECFS_TRY(lease.crypt((from + at) / kExtent, extent, extent.data()));
    } else if (!hole_said_.exchange(true)) {
      // No ciphertext is all zero: a sparse copy or a lost write left this, and it says nothing of what was there.
      log_line(LOG_WARNING, "an eCryptfs file has a hole below, which reads as zeros");
    }
  }
  return {};
}

Result<std::size_t> EcryptfsContents::read(std::uint64_t offset, MutableByteView out) {
  const std::shared_lock lock(mutex_);
  if (damaged_) return damaged();
  if (offset >= size_) return std::size_t{0};
  const std::uint64_t end = offset + std::min<std::uint64_t>(out.size(), size_ - offset);
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t from = round_down(at);
    const std::uint64_t to = std::min(from + kChunkBytes, round_up(end));
    const MutableByteView chunk = scratch(to - from);
    ECFS_TRY(load(from, chunk));
    const std::uint64_t len = std::min(to, end) - at;
    std::copy_n(chunk.begin() + static_cast<std::ptrdiff_t>(at - from), len,
                out.begin() + static_cast<std::ptrdiff_t>(at - offset));
    at += len;
  }
  return static_cast<std::size_t>(end - offset);
}

// store writes [from, from + len), which begins at or before size_; `data` null: zeros. The extents that it touches
// keep what else is in them, up to size_, and are zero behind that. `done` counts the bytes in extents that were wholly
// written.
Status EcryptfsContents::store(std::uint64_t from, std::uint64_t len, const std::uint8_t* data, std::uint64_t& done) {
  done = 0;
  ECFS_LET(auto lease, key_->lease(true));
  for (const std::uint64_t end = from + len; done < len;) {
    const std::uint64_t at = from + done;
    const std::uint64_t chunk_from = round_down(at);
    const std::uint64_t chunk_to = std::min(chunk_from + kChunkBytes, round_up(end));
    const std::uint64_t stop = std::min(chunk_to, end);
    const MutableByteView chunk = scratch(chunk_to - chunk_from);
    const auto keep = [&](std::uint64_t extent) -> Status {  // what is in the extent already
      const MutableByteView bytes = chunk.subspan(extent - chunk_from, kExtent);
      const std::uint64_t valid = extent < size_ ? std::min(kExtent, size_ - extent) : 0;
      if (valid > 0) ECFS_TRY(load(extent, bytes));
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(valid), bytes.end(), std::uint8_t{0});
      return {};
    };
    if (at != chunk_from) ECFS_TRY(keep(chunk_from));
    if (stop != chunk_to && (at == chunk_from || chunk_to - kExtent != chunk_from)) ECFS_TRY(keep(chunk_to - kExtent));
    const MutableByteView middle = chunk.subspan(at - chunk_from, stop - at);
    if (data != nullptr) {
      std::copy_n(data + done, middle.size(), middle.begin());
    } else {
      std::fill(middle.begin(), middle.end(), std::uint8_t{0});
    }
    for (std::uint64_t i = 0; i < chunk.size(); i += kExtent) {
      ECFS_TRY(lease.crypt((chunk_from + i) / kExtent, chunk.subspan(i, kExtent), chunk.data() + i));
    }
    std::size_t written = 0;
    Status status = lower_->write_at(data_from_ + chunk_from, chunk, &written);
    if (!status) {
      const std::uint64_t reached = std::min(chunk_from + round_down(written), stop);
      done += reached > at ? reached - at : 0;
      return status;
    }
    done += stop - at;
  }
  return {};
}

Status EcryptfsContents::store_size(std::uint64_t plain_size) {
  const auto field = ecryptfs_size_field(plain_size);
  if (place_ == EcryptfsPlace::kFile) return lower_->write_at(0, field);
  ECFS_LET(std::optional<Bytes> value, lower_->read_xattr(kEcryptfsXattr.data()));
  if (!value || value->size() < field.size()) return corrupt("the header of an eCryptfs file is gone");
  std::copy(field.begin(), field.end(), value->begin());
  return lower_->write_xattr(kEcryptfsXattr.data(), *value);
}

// check_room says at once that the lower filesystem has no files so large, or no room, where filling the gap with zeros
// would take long to find out. There are no holes.
Status EcryptfsContents::check_room(std::uint64_t new_size) const {
  if (new_size <= size_ || new_size - size_ < kLongGap) return {};
  // Only trying tells the largest size. What a killed process leaves behind the last extent is ignored.
  ECFS_LET(const std::uint64_t there, lower_->size());
  if (lower_size(new_size) > there) {
    ECFS_TRY(lower_->truncate(lower_size(new_size)));
    ECFS_TRY(lower_->truncate(there));
  }
  struct statvfs st {};
  if (fstatvfs(lower_->fd(), &st) != 0 || st.f_blocks == 0) return {};  // it is not said
  if ((new_size - size_) / std::max<std::uint64_t>(st.f_frsize, 1) <= st.f_bavail) return {};
  return system_error(ENOSPC, "an eCryptfs file has no holes: there is not that much room");
}

// check_whole has to pass before the file grows: what is missing at its end must not become a hole, which reads as
// zeros.
Status EcryptfsContents::check_whole() const {
  ECFS_LET(const std::uint64_t there, lower_->size());
  if (there < lower_size(size_)) return corrupt("the end of an eCryptfs file is missing");
  return {};
}

// cut_leftover cuts what is behind the last extent, and never makes the lower file longer.
Status EcryptfsContents::cut_leftover() {
  ECFS_LET(const std::uint64_t there, lower_->size());
  if (there <= lower_size(size_)) return {};
  return lower_->truncate(lower_size(size_));
}

// begin makes the lower file an empty one with a new key.
Status EcryptfsContents::begin() {
  EcryptfsFound fresh;
  fresh.place = volume_->place;
  fresh.header.flags |= volume_->encrypted_names ? EcryptfsHeader::kEncryptedNames : 0U;
  ECFS_LET(fresh.header.keys,
           make_ecryptfs_file_key(volume_->keys, volume_->ciphers, volume_->cipher, volume_->signatures));
  std::array<std::uint8_t, sizeof(fresh.header.marker)> marker{};
  ECFS_TRY(fill_random(marker));
  fresh.header.marker = load_le<std::uint32_t>(marker.data());
  ECFS_LET(const Bytes bytes, build_ecryptfs_header(fresh.header, fresh.place));
  ECFS_TRY(lower_->truncate(0));
  if (fresh.place == EcryptfsPlace::kXattr) {
    ECFS_TRY(lower_->write_xattr(kEcryptfsXattr.data(), bytes));
  } else if (Status status = lower_->write_at(0, bytes); !status) {
    (void)lower_->truncate(0);  // part of a header is none, no bytes at all are an empty file
    return status;
  }
  damaged_ = false;
  return open(std::move(fresh));
}

Result<std::size_t> EcryptfsContents::write(std::uint64_t offset, ByteView data) {
  const std::unique_lock lock(mutex_);
  if (damaged_) return damaged();
  if (offset > kEcryptfsMaxPlainSize || data.size() > kEcryptfsMaxPlainSize - offset) return too_large();
  if (data.empty()) return std::size_t{0};
  if (!key_) ECFS_TRY(begin());
  const std::uint64_t old_size = size_;
  if (offset + data.size() > old_size) {
    ECFS_TRY(check_whole());
    ECFS_TRY(check_room(offset + data.size()));
  }
  std::uint64_t done = 0;
  Status status;
  if (offset > size_) {
    status = store(size_, offset - size_, nullptr, done);
    if (status) size_ = offset;
    done = 0;
  }
  if (status) status = store(offset, data.size(), data.data(), done);
  const std::uint64_t new_size = done == 0 ? old_size : std::max(old_size, offset + done);
  size_ = old_size;
  if (new_size != old_size) {
    Status sized = store_size(new_size);
    if (sized) {
      size_ = new_size;
    } else {
      done = 0;
      status = std::move(sized);
    }
  }
  if (!status) (void)cut_leftover();  // it only takes room
  if (done == 0) return std::move(status).error();
  return static_cast<std::size_t>(done);
}

Status EcryptfsContents::shrink(std::uint64_t new_size) {
  ECFS_TRY(store_size(new_size));
  size_ = new_size;
  std::uint64_t done = 0;
  // From here on the file has its new size, whatever happens; a kernel expects zeros behind it.
  if (const std::uint64_t tail = round_up(new_size) - new_size; tail > 0) {
    ECFS_TRY(store(new_size, tail, nullptr, done));
  }
  return cut_leftover();
}

Status EcryptfsContents::truncate(std::uint64_t new_size) {
  const std::unique_lock lock(mutex_);
  if (new_size > kEcryptfsMaxPlainSize) return too_large();
  if (damaged_ && new_size != 0) return damaged();
  if (!key_) {
    ECFS_TRY(begin());
    if (new_size == 0) return {};
  }
  if (new_size == size_) return {};
  return new_size < size_ ? shrink(new_size) : grow(new_size);
}

Status EcryptfsContents::grow(std::uint64_t new_size) {
  ECFS_TRY(check_whole());
  ECFS_TRY(check_room(new_size));
  std::uint64_t done = 0;
  Status status = store(size_, new_size - size_, nullptr, done);
  if (status) status = store_size(new_size);
  if (!status) {
    (void)cut_leftover();
    return status;
  }
  size_ = new_size;
  return {};
}

// No holes are made: FALLOC_FL_PUNCH_HOLE, which shall give room back, is not supported.
Status EcryptfsContents::allocate(int mode, std::uint64_t offset, std::uint64_t len) {
  const std::unique_lock lock(mutex_);
  if (damaged_) return damaged();
  if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE)) != 0) return system_error(EOPNOTSUPP, "fallocate");
  if (offset > kEcryptfsMaxPlainSize || len > kEcryptfsMaxPlainSize - offset) return too_large();
  if (!key_) ECFS_TRY(begin());
  const std::uint64_t end = offset + len;
  if ((mode & FALLOC_FL_ZERO_RANGE) != 0 && offset < size_) {
    std::uint64_t done = 0;
    ECFS_TRY(store(offset, std::min(end, size_) - offset, nullptr, done));
  }
  if (end <= size_) return {};
  if ((mode & FALLOC_FL_KEEP_SIZE) != 0) {
    const std::uint64_t from = lower_size(size_);
    return lower_size(end) > from ? lower_->reserve(from, lower_size(end) - from) : Status{};
  }
  return grow(end);
}

Result<std::unique_ptr<Contents>> open_found(std::shared_ptr<const EcryptfsVolume> volume, LowerFile& lower,
                                             std::optional<EcryptfsFound> found) {
  auto contents = std::make_unique<EcryptfsContents>(std::move(volume), lower);
  ECFS_TRY(contents->open(std::move(found)));
  return std::unique_ptr<Contents>(std::move(contents));
}

}  // namespace

Result<std::optional<EcryptfsFound>> find_ecryptfs_header(const LowerFile& lower) {
  Bytes front(kEcryptfsProbeBytes);
  ECFS_LET(const std::size_t got, lower.read_at(0, front));
  front.resize(got);
  auto in_file = parse_ecryptfs_header(front, EcryptfsPlace::kFile);
  if (in_file) return std::optional<EcryptfsFound>({*std::move(in_file), EcryptfsPlace::kFile});
  ECFS_LET(const std::optional<Bytes> attribute, lower.read_xattr(kEcryptfsXattr.data()));
  if (attribute) {
    ECFS_LET(EcryptfsHeader header, parse_ecryptfs_header(*attribute, EcryptfsPlace::kXattr));
    return std::optional<EcryptfsFound>({std::move(header), EcryptfsPlace::kXattr});
  }
  if (got == 0) return std::optional<EcryptfsFound>();
  return std::move(in_file).error();
}

Result<std::unique_ptr<Contents>> open_ecryptfs_contents(std::shared_ptr<const EcryptfsVolume> volume,
                                                         LowerFile& lower) {
  if (volume->encrypted_view) return open_view(lower);
  auto found = find_ecryptfs_header(lower);
  const bool plain = found ? !*found : found.error().code == Code::kCorrupt;
  if (plain && volume->passthrough) return std::unique_ptr<Contents>(std::make_unique<PlainContents>(lower));
  if (!found) return std::move(found).error();
  return open_found(std::move(volume), lower, *std::move(found));
}

Result<std::uint64_t> ecryptfs_stored_size(const EcryptfsVolume& volume, const LowerFile& lower) {
  const auto found = find_ecryptfs_header(lower);
  if (!found && found.error().code != Code::kCorrupt) return found.error();
  const bool has_header = found && *found;
  if (volume.encrypted_view) {
    ECFS_LET(const std::uint64_t lower_size, lower.size());
    return lower_size + (has_header && (*found)->place == EcryptfsPlace::kXattr ? kEcryptfsMinHeaderBytes : 0);
  }
  if (has_header) return (*found)->header.plain_size;
  if (found || volume.passthrough) return lower.size();
  return found.error();
}

Result<std::unique_ptr<Contents>> open_ecryptfs_to_truncate(std::shared_ptr<const EcryptfsVolume> volume,
                                                            LowerFile& lower) {
  if (volume->encrypted_view) return open_view(lower);
  auto found = find_ecryptfs_header(lower);
  if (found) return open_found(std::move(volume), lower, *std::move(found));
  if (found.error().code != Code::kCorrupt) return std::move(found).error();
  if (volume->passthrough) return std::unique_ptr<Contents>(std::make_unique<PlainContents>(lower));
  auto contents = std::make_unique<EcryptfsContents>(std::move(volume), lower);
  contents->open_damaged();
  return std::unique_ptr<Contents>(std::move(contents));
}

}  // namespace ecfs::fs
