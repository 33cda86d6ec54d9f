#include "fs/lower/lower_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "wrap/base/file.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kDirBufferBytes = 32768;

// The kernel's record of getdents64; its name follows.
struct KernelDirent {
  std::uint64_t ino;
  std::int64_t next_pos;
  std::uint16_t record_len;
  std::uint8_t type;
};
constexpr std::size_t kDirentNameAt = 19;

std::string random_suffix() {
  std::array<std::uint8_t, 8> bytes{};
  if (!fill_random(bytes)) return {};
  return to_hex(bytes);
}

}  // namespace

Result<LowerStat> stat_at(int dirfd, const char* name) {
  struct statx sx {};
  const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name == '\0' ? AT_EMPTY_PATH : 0);
  if (statx(dirfd, name, flags, STATX_BASIC_STATS | STATX_BTIME, &sx) != 0) return system_error(errno, name);
  LowerStat out;
  out.st.st_dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
  out.st.st_ino = sx.stx_ino;
  out.st.st_mode = sx.stx_mode;
  out.st.st_nlink = sx.stx_nlink;
  out.st.st_uid = sx.stx_uid;
  out.st.st_gid = sx.stx_gid;
  out.st.st_rdev = makedev(sx.stx_rdev_major, sx.stx_rdev_minor);
  out.st.st_size = static_cast<off_t>(sx.stx_size);
  out.st.st_blksize = static_cast<blksize_t>(sx.stx_blksize);
  out.st.st_blocks = static_cast<blkcnt_t>(sx.stx_blocks);
  out.st.st_atim = {sx.stx_atime.tv_sec, sx.stx_atime.tv_nsec};
  out.st.st_mtim = {sx.stx_mtime.tv_sec, sx.stx_mtime.tv_nsec};
  out.st.st_ctim = {sx.stx_ctime.tv_sec, sx.stx_ctime.tv_nsec};
  if ((sx.stx_mask & STATX_BTIME) != 0) out.birth_ns = sx.stx_btime.tv_sec * 1'000'000'000 + sx.stx_btime.tv_nsec;
  return out;
}

Result<Fd> open_at(int dirfd, const char* name, int flags, mode_t mode) {
  if (*name == '\0') {
    Fd fd(::open(ProcPath(dirfd).c_str(), flags | O_CLOEXEC, mode));
    if (!fd) return system_error(errno, "open");
    return fd;
  }
  flags |= O_CLOEXEC | O_NOFOLLOW;
  struct open_how how {};
  how.flags = static_cast<std::uint64_t>(flags);
  how.mode = (flags & (O_CREAT | O_TMPFILE)) == O_TMPFILE || (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  for (int tries = 0;; ++tries) {
    const long fd = syscall(SYS_openat2, dirfd, name, &how, sizeof how);
    if (fd >= 0) return Fd(static_cast<int>(fd));
    // EAGAIN: something was renamed just then, and the kernel could not be sure that the name stays below; or, with
    // O_NONBLOCK, somebody holds a lease.
    if (errno == EINTR || (errno == EAGAIN && tries < 100)) continue;
    return system_error(errno, name);
  }
}

Result<Bytes> read_small_at(int dirfd, const char* name, std::size_t max_len) {
  ECFS_LET(Fd fd, open_at(dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  ECFS_LET(const LowerStat st, stat_at(fd.get(), ""));
  if (!S_ISREG(st.st.st_mode) || static_cast<std::uint64_t>(st.st.st_size) > max_len) {
    return Error{Code::kCorrupt, 0, std::string(name) + ": not a file of ours"};
  }
  Bytes out(static_cast<std::size_t>(st.st.st_size));
  ECFS_LET(const std::size_t len, read_full(fd.get(), out));
  out.resize(len);
  return out;
}

Status write_new_at(int dirfd, const std::string& name, ByteView bytes) {
  ECFS_LET(const LowerStat dir, stat_at(dirfd, ""));
  const std::string temp = ".ecfs-tmp-" + random_suffix();
  ECFS_LET(Fd fd, open_at(dirfd, temp.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600));
  Status done = write_all(fd.get(), bytes);
  if (done && geteuid() == 0 && fchown(fd.get(), dir.st.st_uid, dir.st.st_gid) != 0) done = system_error(errno, temp);
  if (done && fchmod(fd.get(), 0444) != 0) done = system_error(errno, temp);
  if (done) done = sync_fd(fd.get(), temp);
  if (done && renameat(dirfd, temp.c_str(), dirfd, name.c_str()) != 0) done = system_error(errno, name);
  if (!done) (void)unlinkat(dirfd, temp.c_str(), 0);
  return done;
}

ProcPath::ProcPath(int fd) noexcept : path_("/proc/self/fd/" + std::to_string(fd)) {}
ProcPath::ProcPath(int fd, std::string_view name_below) : ProcPath(fd) { (path_ += '/') += name_below; }

OwnerAccess::OwnerAccess(int fd, const struct stat& st, mode_t want) noexcept : fd_(fd), mode_(st.st_mode & 07777) {
  want &= S_IRWXU;
  if ((mode_ & want) == want || st.st_uid != geteuid()) return;
  changed_ = chmod(ProcPath(fd_).c_str(), mode_ | want) == 0;
}
OwnerAccess::~OwnerAccess() {
  if (changed_) (void)chmod(ProcPath(fd_).c_str(), mode_);
}

Result<DirReader> DirReader::open(int dirfd, int flags) {
  // Not by the name ".": that wants the right to search, and a listing only the right to read.
  Fd fd(::open(ProcPath(dirfd).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags));
  if (!fd) return system_error(errno, "open a directory");
  return DirReader(std::move(fd));
}

Status DirReader::seek(off_t position) {
  if (lseek(fd_.get(), position, SEEK_SET) < 0) return system_error(errno, "seek in a directory");
  at_ = end_ = 0;
  position_ = position;
  return {};
}

Result<std::optional<RawEntry>> DirReader::peek() {
  if (at_ == end_) {
    if (buffer_.empty()) buffer_.resize(kDirBufferBytes);
    const long n = syscall(SYS_getdents64, fd_.get(), buffer_.data(), buffer_.size());
    if (n < 0) return system_error(errno, "read a directory");
    at_ = 0;
    end_ = static_cast<std::size_t>(n);
    if (n == 0) return std::optional<RawEntry>();
  }
  KernelDirent d{};
  std::memcpy(&d, &buffer_[at_], kDirentNameAt);
  const char* name = &buffer_[at_ + kDirentNameAt];
  RawEntry entry;
  entry.name = {name, strnlen(name, d.record_len - kDirentNameAt)};
  entry.ino = d.ino;
  entry.type = mode_t{d.type} << 12;  // as DTTOIF(3)
  entry.next_pos = d.next_pos;
  return std::optional<RawEntry>(entry);
}

void DirReader::pop() noexcept {
  if (at_ == end_) return;
  KernelDirent d{};
  std::memcpy(&d, &buffer_[at_], kDirentNameAt);
  at_ += d.record_len;
  position_ = d.next_pos;
}

DirFds::DirFds() {
  rlimit limit{};
  std::uint64_t files = 1024;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) files = limit.rlim_cur;
  const std::uint64_t all = std::min<std::uint64_t>(256, files / 4);
  shard_capacity_ = std::max<std::size_t>(2, static_cast<std::size_t>(all) / shards_.size());
}

std::shared_ptr<const Fd> DirFds::get(std::uint64_t nodeid) {
  Shard& s = shard(nodeid);
  const std::lock_guard lock(s.mutex);
  const auto found = s.by_id.find(nodeid);
  if (found == s.by_id.end()) return nullptr;
  s.by_use.splice(s.by_use.begin(), s.by_use, found->second);
  return found->second->second;
}

void DirFds::put(std::uint64_t nodeid, std::shared_ptr<const Fd> fd) {
  std::shared_ptr<const Fd> dropped;  // closed after the lock
  Shard& s = shard(nodeid);
  const std::lock_guard lock(s.mutex);
  const auto found = s.by_id.find(nodeid);
  if (found != s.by_id.end()) {
    dropped = std::exchange(found->second->second, std::move(fd));
    s.by_use.splice(s.by_use.begin(), s.by_use, found->second);
    return;
  }
  if (s.by_use.size() >= shard_capacity_) {
    dropped = std::move(s.by_use.back().second);
    s.by_id.erase(s.by_use.back().first);
    s.by_use.pop_back();
  }
  s.by_use.emplace_front(nodeid, std::move(fd));
  s.by_id.emplace(nodeid, s.by_use.begin());
}

void DirFds::drop(std::uint64_t nodeid) {
  std::shared_ptr<const Fd> dropped;
  Shard& s = shard(nodeid);
  const std::lock_guard lock(s.mutex);
  const auto found = s.by_id.find(nodeid);
  if (found == s.by_id.end()) return;
  dropped = std::move(found->second->second);
  s.by_use.erase(found->second);
  s.by_id.erase(found);
}

void DirFds::clear() {
  for (Shard& s : shards_) {
    const std::lock_guard lock(s.mutex);
    s.by_id.clear();
    s.by_use.clear();
  }
}

}  // namespace ecfs::fs
