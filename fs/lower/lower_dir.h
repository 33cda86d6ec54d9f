// The lower tree, one directory at a time: every access is a single name below a directory descriptor, never through a
// symbolic link, and what was found is told apart by what it is (device, inode, birth time), not by what it is called.
// Free functions are safe from any thread; a DirReader belongs to one thread at a time; DirFds takes its own locks.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

// InodeKey is who a lower inode is. An inode number alone is used again as soon as its file is gone; the birth time (0
// where the filesystem has none) tells the new one from the old.
struct InodeKey {
  dev_t dev = 0;
  ino_t ino = 0;
  std::int64_t birth_ns = 0;
  friend bool operator==(const InodeKey&, const InodeKey&) = default;
};

// LowerStat is one look at a lower inode: struct stat and the birth time, by one statx(2).
struct LowerStat {
  struct stat st {};
  std::int64_t birth_ns = 0;
  [[nodiscard]] InodeKey key() const noexcept { return {st.st_dev, st.st_ino, birth_ns}; }
};

// stat_at looks at `name` in `dirfd`, or at `dirfd` itself (which may be O_PATH) if `name` is "". Follows no link.
Result<LowerStat> stat_at(int dirfd, const char* name);

// open_at opens one name in `dirfd` by openat2(2), O_CLOEXEC and O_NOFOLLOW added, confined to the directory.
// `mode` is for O_CREAT and O_TMPFILE. A symbolic link in its place is ELOOP. If `name` is "" it opens what `dirfd`
// (which may be O_PATH) refers to, whatever became of its name.
Result<Fd> open_at(int dirfd, const char* name, int flags, mode_t mode = 0);

// read_small_at reads all of the regular file `name`: kNotFound, or kCorrupt if it is longer than `max_len` or is
// anything but a regular file.
Result<Bytes> read_small_at(int dirfd, const char* name, std::size_t max_len);

// write_new_at makes `name` hold `bytes` with mode 0444, whole or not at all, after a crash too: a temporary file
// `.ecfs-tmp-<random>`, fsync, rename. Not the directory's fsync. As root the file gets the directory's owner.
Status write_new_at(int dirfd, const std::string& name, ByteView bytes);

// ProcPath is the path by which system calls that take no O_PATH descriptor reach what `fd` refers to.
class ProcPath {
 public:
  explicit ProcPath(int fd) noexcept;
  ProcPath(int fd, std::string_view name_below);
  [[nodiscard]] const char* c_str() const noexcept { return path_.c_str(); }

 private:
  std::string path_;
};

// OwnerAccess gives the owner of what `fd` refers to the permission bits `want` (of S_IRWXU) for as long as it lives,
// if it is ours and lacks them; the group's and others' bits are never touched. POSIX lets an owner rename a directory
// or open a file in ways for which the lower calls need more. A crash in between leaves the owner's bits set.
class OwnerAccess {
 public:
  OwnerAccess(int fd, const struct stat& st, mode_t want) noexcept;
  ~OwnerAccess();
  OwnerAccess(const OwnerAccess&) = delete;
  OwnerAccess& operator=(const OwnerAccess&) = delete;

 private:
  int fd_;
  mode_t mode_;
  bool changed_ = false;
};

struct RawEntry {
  std::string_view name;  // until the next call of the reader
  ino_t ino = 0;
  mode_t type = 0;     // S_IFMT bits; 0: the filesystem does not say
  off_t next_pos = 0;  // position behind this entry
};

// DirReader lists a lower directory by getdents64(2), "." and ".." included, in the lower filesystem's order and with
// its positions, which stay valid while entries come and go.
class DirReader {
 public:
  explicit DirReader(Fd readable) noexcept : fd_(std::move(readable)) {}
  // open lists the directory that `dirfd` (O_PATH will do) refers to; `flags` for open(2) are added (O_NOATIME).
  static Result<DirReader> open(int dirfd, int flags = 0);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] off_t position() const noexcept { return position_; }
  Status seek(off_t position);
  // peek gives the entry at the position, nullopt at the end; pop goes behind it.
  Result<std::optional<RawEntry>> peek();
  void pop() noexcept;

 private:
  Fd fd_;
  std::vector<char> buffer_;
  std::size_t at_ = 0;
  std::size_t end_ = 0;
  off_t position_ = 0;
};

// DirFds keeps O_PATH descriptors of the directories used last, by nodeid: at most 256, or a quarter of the limit on
// open files. A descriptor in use stays open when it is dropped here.
class DirFds {
 public:
  DirFds();
  std::shared_ptr<const Fd> get(std::uint64_t nodeid);
  void put(std::uint64_t nodeid, std::shared_ptr<const Fd> fd);
  void drop(std::uint64_t nodeid);
  void clear();  // out of descriptors: give back what can be

 private:
  using Item = std::pair<std::uint64_t, std::shared_ptr<const Fd>>;
  struct alignas(64) Shard {
    std::mutex mutex;
    std::list<Item> by_use;  // last used first
    std::unordered_map<std::uint64_t, std::list<Item>::iterator> by_id;
  };
  Shard& shard(std::uint64_t nodeid) noexcept { return shards_[nodeid % shards_.size()]; }
  std::size_t shard_capacity_;
  std::array<Shard, 4> shards_;
};

}  // namespace ecfs::fs
