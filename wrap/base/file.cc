#include "wrap/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <string_view>

#include "wrap/base/owned.h"

namespace ecfs {
namespace {

std::string random_suffix() {
  std::array<std::uint8_t, 8> bytes{};
  if (!fill_random(bytes)) store_le<std::uint64_t>(bytes.data(), static_cast<std::uint64_t>(getpid()));
  return to_hex(bytes);
}

// Removes a temporary file unless it was renamed away.
class Unlinker {
 public:
  Unlinker(int dirfd, std::string name) : dirfd_(dirfd), name_(std::move(name)) {}
  Unlinker(const Unlinker&) = delete;
  Unlinker& operator=(const Unlinker&) = delete;
  ~Unlinker() {
    if (!name_.empty()) unlinkat(dirfd_, name_.c_str(), 0);
  }
  void keep() noexcept { name_.clear(); }

 private:
  int dirfd_;
  std::string name_;
};

Status write_and_rename(int dirfd, const std::string& name, ByteView bytes, mode_t mode) {
  const std::string temporary = name + ".tmp-" + random_suffix();
  Fd fd(openat(dirfd, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0777));
  if (!fd) return system_error(errno, "create " + temporary);
  Unlinker unlinker(dirfd, temporary);
  if (fchmod(fd.get(), mode) != 0) return system_error(errno, "set the mode of " + temporary);  // whatever the umask
  if (auto done = write_all(fd.get(), bytes); !done) return with_context(std::move(done).error(), "write " + temporary);
  ECFS_TRY(sync_fd(fd.get(), temporary));
  if (renameat(dirfd, temporary.c_str(), dirfd, name.c_str()) != 0) return system_error(errno, "rename to " + name);
  unlinker.keep();
  return sync_directory(dirfd);
}

}  // namespace

Result<Fd> open_directory(int dirfd, const std::string& name) {
  Fd fd(openat(dirfd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return system_error(errno, "open directory " + name);
  return fd;
}

Result<Fd> open_regular(int dirfd, const std::string& name, std::uint64_t max_bytes, std::optional<uid_t> owner) {
  // O_NONBLOCK: a FIFO put in the place of the file must not hold us up.
  Fd fd(openat(dirfd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) {
    if (errno == ELOOP) return Error{Code::kInvalid, ELOOP, name + " is a symbolic link"};
    if (errno == ENXIO) return Error{Code::kInvalid, ENXIO, name + " is not a regular file"};
    return system_error(errno, "open " + name);
  }
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return system_error(errno, "stat " + name);
  if (!S_ISREG(st.st_mode)) return Error{Code::kInvalid, 0, name + " is not a regular file"};
  if (owner && st.st_uid != *owner && st.st_uid != 0) {
    return Error{Code::kDenied, 0, name + " belongs to another user"};
  }
  if (static_cast<std::uint64_t>(st.st_size) > max_bytes) {
    return Error{Code::kCorrupt, 0, name + " is larger than it can be"};
  }
  return fd;
}

Result<Bytes> read_file(int dirfd, const std::string& name, std::uint64_t max_bytes, std::optional<uid_t> owner) {
  ECFS_LET(const Fd fd, open_regular(dirfd, name, max_bytes, owner));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return system_error(errno, "stat " + name);
  Bytes bytes(static_cast<std::size_t>(std::min<std::uint64_t>(static_cast<std::uint64_t>(st.st_size), max_bytes)));
  auto done = read_full(fd.get(), bytes);
  if (!done) return with_context(std::move(done).error(), "read " + name);
  bytes.resize(*done);
  return bytes;
}

Result<std::size_t> read_full(int fd, MutableByteView out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = read(fd, out.data() + done, out.size() - done);
    if (n < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, "read");
    }
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Status write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, "write");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<Secret> read_secret_line(int fd, std::size_t max_len) {
  ECFS_LET(Secret line, Secret::of_size(max_len + 1));
  std::size_t len = 0;
  for (;;) {
    const ssize_t n = read(fd, line.reveal_mutable().data() + len, 1);
    if (n < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, "read a secret");
    }
    if (n == 0) {
      if (len == 0) return Error{Code::kNotFound, 0, "no passphrase was given"};
      break;
    }
    if (line.reveal()[len] == '\n') break;
    if (++len > max_len) return Error{Code::kInvalid, 0, "the passphrase is too long"};
  }
  line.shrink(len);
  return line;
}

Status sync_fd(int fd, const std::string& what) {
  if (fsync(fd) != 0) return system_error(errno, "sync " + what);
  return {};
}

Status sync_directory(int dirfd) {
  // Some filesystems (FUSE, some network ones) have no fsync of directories: there is nothing more one can do there.
  if (fsync(dirfd) != 0 && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) {
    return system_error(errno, "sync the directory");
  }
  return {};
}

Status replace_file(int dirfd, const std::string& name, ByteView bytes, mode_t mode, KeepPrevious keep) {
  if (keep == KeepPrevious::kYes) {
    constexpr std::uint64_t kLargestKept = 16U << 20;
    auto present = read_file(dirfd, name, kLargestKept);
    if (present) {
      ECFS_TRY(write_and_rename(dirfd, name + ".bak", *present, mode));
    } else if (present.error().code != Code::kNotFound) {
      return std::move(present).error();
    }
  }
  return write_and_rename(dirfd, name, bytes, mode);
}

Result<Fd> make_directory(int dirfd, const std::string& name, mode_t mode) {
  const bool made = mkdirat(dirfd, name.c_str(), mode) == 0;
  if (!made && errno != EEXIST) return system_error(errno, "make directory " + name);
  ECFS_LET(Fd fd, open_directory(dirfd, name));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return system_error(errno, "stat " + name);
  if (st.st_uid != geteuid()) return Error{Code::kDenied, 0, name + " belongs to another user"};
  if (made && fchmod(fd.get(), mode) != 0) return system_error(errno, "set the mode of " + name);
  return fd;
}

Result<std::string> path_of_directory(int dir) {
  std::array<char, PATH_MAX> path{};
  const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(dir)).c_str(), path.data(), path.size());
  if (n <= 0 || static_cast<std::size_t>(n) >= path.size()) return system_error(n < 0 ? errno : ENAMETOOLONG, "/proc");
  return std::string(path.data(), static_cast<std::size_t>(n));
}

Result<std::vector<std::string>> list_directory(int dir, std::size_t most) {
  const int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return system_error(errno, "read a directory");
  const Owned<DIR, closedir> stream(fdopendir(copy));
  if (!stream) {
    const int err = errno;
    close(copy);
    return system_error(err, "read a directory");
  }
  std::vector<std::string> names;
  while (names.size() < most) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) {
      if (errno != 0) return system_error(errno, "read a directory");
      break;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  return names;
}

}  // namespace ecfs
