#include "tests/fs/volume/lower_calls.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>

namespace ecfs::fs::test {
namespace {

std::atomic<LowerCalls*> g_present{nullptr};

LowerCalls* recorder() {
  LowerCalls* const calls = LowerCalls::present();
  return calls != nullptr && calls->recording() ? calls : nullptr;
}

std::uint64_t number(LowerCalls& calls, int fd, bool made = false) {
  struct stat st {};
  return fstat(fd, &st) == 0 ? calls.number_of(st.st_dev, st.st_ino, made) : ~std::uint64_t{0};
}

// number_at gives the number of `name` in `dirfd`, and its mode.
std::uint64_t number_at(LowerCalls& calls, int dirfd, const char* name, bool made, mode_t* mode = nullptr) {
  struct stat st {};
  if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return ~std::uint64_t{0};
  if (mode != nullptr) *mode = st.st_mode;
  return calls.number_of(st.st_dev, st.st_ino, made);
}

void note_made(int dirfd, const char* name, const char* target = "") {
  LowerCalls* const calls = recorder();
  if (calls == nullptr) return;
  LowerCall call{LowerCall::Kind::kMake};
  call.dir = number(*calls, dirfd);
  call.name = name;
  call.target = target;
  call.inode = number_at(*calls, dirfd, name, true, &call.mode);
  calls->add(std::move(call));
}
void note_renamed(int from, const char* name, int to, const char* new_name, unsigned flags) {
  LowerCalls* const calls = recorder();
  if (calls == nullptr) return;
  LowerCall call{LowerCall::Kind::kRename};
  call.dir = number(*calls, from);
  call.name = name;
  call.other_dir = number(*calls, to);
  call.other_name = new_name;
  call.exchange = (flags & RENAME_EXCHANGE) != 0;
  calls->add(std::move(call));
}
void note_file(LowerCall::Kind kind, int fd, std::uint64_t offset, std::uint64_t len, Bytes data = {}) {
  LowerCalls* const calls = recorder();
  if (calls == nullptr) return;
  LowerCall call{kind};
  call.inode = number(*calls, fd);
  call.offset = offset;
  call.len = len;
  call.data = std::move(data);
  calls->add(std::move(call));
}

void note_sync(int fd, bool data_only) {
  LowerCalls* const calls = recorder();
  if (calls == nullptr) return;
  LowerCall call{LowerCall::Kind::kSync};
  call.inode = number(*calls, fd);
  call.data_only = data_only;
  calls->add(std::move(call));
}

// denied says that the present call is to fail, and sets errno.
bool denied(const char* what, bool changes) {
  LowerCalls* const calls = LowerCalls::present();
  if (calls == nullptr) return false;
  const int err = calls->verdict(what, changes);
  errno = err;
  return err != 0;
}

}  // namespace

LowerCalls::LowerCalls() { g_present = this; }
LowerCalls::~LowerCalls() { g_present = nullptr; }
LowerCalls* LowerCalls::present() { return g_present; }

void LowerCalls::record_below(int root) {
  (void)number(*this, root, true);
  recording_ = true;
}
std::vector<LowerCall> LowerCalls::take_recorded() {
  const std::lock_guard lock(mutex_);
  return std::exchange(calls_, {});
}
int LowerCalls::verdict(const char* what, bool changes) {
  if (!judge || judging_ || std::this_thread::get_id() != thread_) return 0;
  judging_ = true;  // what judge itself does is not judged
  const int err = judge(what, changes);
  judging_ = false;
  return err;
}
std::uint64_t LowerCalls::number_of(dev_t dev, ino_t ino, bool made) {
  const std::lock_guard lock(mutex_);
  const auto [found, is_new] = numbers_.try_emplace({dev, ino}, next_number_);
  if (is_new || made) found->second = next_number_++;  // a number of an inode may be used again
  return found->second;
}
void LowerCalls::add(LowerCall call) {
  const std::lock_guard lock(mutex_);
  calls_.push_back(std::move(call));
}

}  // namespace ecfs::fs::test

// The linker sends the libraries' calls of NAME to __wrap_NAME, and __real_NAME is the one of the C library.
using namespace ecfs;            // NOLINT(google-build-using-namespace)
using namespace ecfs::fs::test;  // NOLINT(google-build-using-namespace)
using Kind = LowerCall::Kind;

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming,cert-dcl37-c,cert-dcl51-cpp,cert-dcl50-cpp)
extern "C" {

long __real_syscall(long number, ...);
// Takes six arguments whatever the caller gave, as the C library's own does.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  std::array<long, 6> a{};
  for (long& arg : a) arg = va_arg(list, long);
  va_end(list);
  const auto text = [&](std::size_t i) { return reinterpret_cast<const char*>(a.at(i)); };
  const auto go = [&] { return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]); };
  if (number == SYS_openat2) {
    const auto* how = reinterpret_cast<const open_how*>(a[2]);
    const bool makes = (how->flags & O_CREAT) != 0;
    if (denied("openat2", makes)) return -1;
    const long fd = go();
    if (fd >= 0 && makes) note_made(static_cast<int>(a[0]), text(1));
    return fd;
  }
  if (number == SYS_renameat2) {
    if (denied("renameat2", true)) return -1;
    const long done = go();
    if (done == 0) {
      note_renamed(static_cast<int>(a[0]), text(1), static_cast<int>(a[2]), text(3), static_cast<unsigned>(a[4]));
    }
    return done;
  }
  if (number == SYS_getdents64 && denied("getdents64", false)) return -1;
  return go();
}

int __real_statx(int dirfd, const char* path, int flags, unsigned mask, struct statx* out);
int __wrap_statx(int dirfd, const char* path, int flags, unsigned mask, struct statx* out) {
  return denied("statx", false) ? -1 : __real_statx(dirfd, path, flags, mask, out);
}
int __real_open64(const char* path, int flags, ...);
int __wrap_open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
  va_end(list);
  return denied("open", false) ? -1 : __real_open64(path, flags, mode);
}
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  const long argument = va_arg(list, long);
  va_end(list);
  if (command == F_DUPFD_CLOEXEC && denied("dup", false)) return -1;
  return __real_fcntl64(fd, command, argument);
}
ssize_t __real_read(int fd, void* out, size_t len);
ssize_t __wrap_read(int fd, void* out, size_t len) { return denied("read", false) ? -1 : __real_read(fd, out, len); }
ssize_t __real_readlinkat(int dirfd, const char* path, char* out, size_t len);
ssize_t __wrap_readlinkat(int dirfd, const char* path, char* out, size_t len) {
  return denied("readlinkat", false) ? -1 : __real_readlinkat(dirfd, path, out, len);
}
ssize_t __real_preadv64(int fd, const iovec* buffers, int num, off_t offset);
ssize_t __wrap_preadv64(int fd, const iovec* buffers, int num, off_t offset) {
  return denied("preadv", false) ? -1 : __real_preadv64(fd, buffers, num, offset);
}

ssize_t __real_pwritev64(int fd, const iovec* buffers, int num, off_t offset);
ssize_t __wrap_pwritev64(int fd, const iovec* buffers, int num, off_t offset) {
  if (denied("pwritev", true)) return -1;
  const ssize_t done = __real_pwritev64(fd, buffers, num, offset);
  if (done > 0 && recorder() != nullptr) {
    Bytes data;
    for (int i = 0; i < num; ++i) {
      append(data, ByteView(static_cast<const std::uint8_t*>(buffers[i].iov_base), buffers[i].iov_len));
    }
    data.resize(static_cast<std::size_t>(done));
    note_file(Kind::kWrite, fd, static_cast<std::uint64_t>(offset), data.size(), data);
  }
  return done;
}
ssize_t __real_write(int fd, const void* data, size_t len);
ssize_t __wrap_write(int fd, const void* data, size_t len) {
  if (denied("write", true)) return -1;
  const ssize_t done = __real_write(fd, data, len);
  if (done > 0 && recorder() != nullptr) {
    const off_t end = lseek(fd, 0, SEEK_CUR);
    const ByteView bytes(static_cast<const std::uint8_t*>(data), static_cast<std::size_t>(done));
    note_file(Kind::kWrite, fd, static_cast<std::uint64_t>(end - done), bytes.size(),
              Bytes(bytes.begin(), bytes.end()));
  }
  return done;
}
int __real_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size) {
  if (denied("ftruncate", true)) return -1;
  const int done = __real_ftruncate64(fd, size);
  if (done == 0) note_file(Kind::kTruncate, fd, static_cast<std::uint64_t>(size), 0);
  return done;
}
int __real_fallocate64(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len) {
  if (denied("fallocate", true)) return -1;
  const int done = __real_fallocate64(fd, mode, offset, len);
  if (done == 0 && (mode & FALLOC_FL_PUNCH_HOLE) != 0) {
    note_file(Kind::kPunch, fd, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(len));
  }
  return done;
}
int __real_fsync(int fd);
int __wrap_fsync(int fd) {
  if (denied("fsync", true)) return -1;
  const int done = __real_fsync(fd);
  if (done == 0) note_sync(fd, false);
  return done;
}
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd) {
  if (denied("fdatasync", true)) return -1;
  const int done = __real_fdatasync(fd);
  if (done == 0) note_sync(fd, true);
  return done;
}

int __real_mkdirat(int dirfd, const char* name, mode_t mode);
int __wrap_mkdirat(int dirfd, const char* name, mode_t mode) {
  if (denied("mkdirat", true)) return -1;
  const int done = __real_mkdirat(dirfd, name, mode);
  if (done == 0) note_made(dirfd, name);
  return done;
}
int __real_mknodat(int dirfd, const char* name, mode_t mode, dev_t dev);
int __wrap_mknodat(int dirfd, const char* name, mode_t mode, dev_t dev) {
  if (denied("mknodat", true)) return -1;
  const int done = __real_mknodat(dirfd, name, mode, dev);
  if (done == 0) note_made(dirfd, name);
  return done;
}
int __real_symlinkat(const char* target, int dirfd, const char* name);
int __wrap_symlinkat(const char* target, int dirfd, const char* name) {
  if (denied("symlinkat", true)) return -1;
  const int done = __real_symlinkat(target, dirfd, name);
  if (done == 0) note_made(dirfd, name, target);
  return done;
}
int __real_linkat(int from, const char* name, int to, const char* new_name, int flags);
int __wrap_linkat(int from, const char* name, int to, const char* new_name, int flags) {
  if (denied("linkat", true)) return -1;
  const int done = __real_linkat(from, name, to, new_name, flags);
  if (LowerCalls* const calls = recorder(); done == 0 && calls != nullptr) {
    LowerCall call{Kind::kLink};
    call.dir = number(*calls, to);
    call.name = new_name;
    call.inode = number_at(*calls, to, new_name, false);
    calls->add(std::move(call));
  }
  return done;
}
int __real_unlinkat(int dirfd, const char* name, int flags);
int __wrap_unlinkat(int dirfd, const char* name, int flags) {
  if (denied("unlinkat", true)) return -1;
  const int done = __real_unlinkat(dirfd, name, flags);
  if (LowerCalls* const calls = recorder(); done == 0 && calls != nullptr) {
    LowerCall call{Kind::kUnlink};
    call.dir = number(*calls, dirfd);
    call.name = name;
    calls->add(std::move(call));
  }
  return done;
}
int __real_renameat(int from, const char* name, int to, const char* new_name);
int __wrap_renameat(int from, const char* name, int to, const char* new_name) {
  if (denied("renameat", true)) return -1;
  const int done = __real_renameat(from, name, to, new_name);
  if (done == 0) note_renamed(from, name, to, new_name, 0);
  return done;
}

int __real_fchmod(int fd, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode) { return denied("fchmod", true) ? -1 : __real_fchmod(fd, mode); }
int __real_chmod(const char* path, mode_t mode);
int __wrap_chmod(const char* path, mode_t mode) { return denied("chmod", true) ? -1 : __real_chmod(path, mode); }
int __real_fchown(int fd, uid_t uid, gid_t gid);
int __wrap_fchown(int fd, uid_t uid, gid_t gid) { return denied("fchown", true) ? -1 : __real_fchown(fd, uid, gid); }
int __real_fchownat(int dirfd, const char* path, uid_t uid, gid_t gid, int flags);
int __wrap_fchownat(int dirfd, const char* path, uid_t uid, gid_t gid, int flags) {
  return denied("fchownat", true) ? -1 : __real_fchownat(dirfd, path, uid, gid, flags);
}
int __real_utimensat(int dirfd, const char* path, const timespec* times, int flags);
int __wrap_utimensat(int dirfd, const char* path, const timespec* times, int flags) {
  return denied("utimensat", true) ? -1 : __real_utimensat(dirfd, path, times, flags);
}
int __real_futimens(int fd, const timespec* times);
int __wrap_futimens(int fd, const timespec* times) {
  return denied("futimens", true) ? -1 : __real_futimens(fd, times);
}
int __real_setxattr(const char* path, const char* name, const void* value, size_t len, int flags);
int __wrap_setxattr(const char* path, const char* name, const void* value, size_t len, int flags) {
  return denied("setxattr", true) ? -1 : __real_setxattr(path, name, value, len, flags);
}
ssize_t __real_getxattr(const char* path, const char* name, void* value, size_t len);
ssize_t __wrap_getxattr(const char* path, const char* name, void* value, size_t len) {
  return denied("getxattr", false) ? -1 : __real_getxattr(path, name, value, len);
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming,cert-dcl37-c,cert-dcl51-cpp,cert-dcl50-cpp)
