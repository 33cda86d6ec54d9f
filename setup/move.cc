#include "setup/move.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <map>
#include <set>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/file.h"
#include "wrap/base/owned.h"

namespace ecfs::setup {
namespace {

constexpr std::size_t kChunk = 1U << 20;
constexpr std::size_t kMaxTold = 20;
constexpr std::size_t kMaxAttributeBytes = 65536;

using InodeKey = std::pair<dev_t, ino_t>;
InodeKey key_of(const struct stat& st) { return {st.st_dev, st.st_ino}; }

std::string below(const std::string& path, const std::string& name) { return path.empty() ? name : path + "/" + name; }

Result<std::vector<std::string>> names_in(int dir, const std::string& path) {
  const int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return system_error(errno, "read directory " + path);
  const Owned<DIR, closedir> stream(fdopendir(copy));
  if (!stream) {
    const int err = errno;
    close(copy);
    return system_error(err, "read directory " + path);
  }
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) {
      if (errno != 0) return system_error(errno, "read directory " + path);
      break;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<struct stat> stat_entry(int dir, const std::string& name, const std::string& path) {
  struct stat st {};
  if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return system_error(errno, path);
  return st;
}

// The access time of what is read stays, where the kernel lets us.
Result<Fd> open_to_read(int dir, const std::string& name, const std::string& path) {
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  Fd fd(openat(dir, name.c_str(), kFlags | O_NOATIME));
  if (!fd && errno == EPERM) fd.reset(openat(dir, name.c_str(), kFlags));
  if (!fd) return system_error(errno, "open " + path);
  return fd;
}

Result<std::string> link_target(int dir, const std::string& name, const std::string& path) {
  std::array<char, PATH_MAX> target{};
  const ssize_t n = readlinkat(dir, name.c_str(), target.data(), target.size());
  if (n < 0) return system_error(errno, "read link " + path);
  return std::string(target.data(), static_cast<std::size_t>(n));
}

// Attributes are reached by a path through the directory's descriptor: the one way that works for every type of entry.
std::string through(int dir, const std::string& name) { return "/proc/self/fd/" + std::to_string(dir) + "/" + name; }

using Attributes = std::map<std::string, Bytes>;

// The attributes that belong to the user: the security and system classes are the machine's, but for ACLs.
Result<Attributes> attributes_of(int dir, const std::string& name, const std::string& path) {
  const std::string place = through(dir, name);
  std::vector<char> list(kMaxAttributeBytes);
  const ssize_t n = llistxattr(place.c_str(), list.data(), list.size());
  if (n < 0) {
    if (errno == EOPNOTSUPP || errno == ENOSYS) return Attributes();
    return system_error(errno, "list the attributes of " + path);
  }
  Attributes found;
  for (auto at = list.begin(); at < list.begin() + n;) {
    const std::string attribute(&*at);
    at += static_cast<std::ptrdiff_t>(attribute.size()) + 1;
    if (!attribute.starts_with("user.") && !attribute.starts_with("system.posix_acl_")) continue;
    Bytes value(kMaxAttributeBytes);
    const ssize_t len = lgetxattr(place.c_str(), attribute.c_str(), value.data(), value.size());
    if (len < 0) return system_error(errno, "read attribute " + attribute + " of " + path);
    value.resize(static_cast<std::size_t>(len));
    found.emplace(attribute, std::move(value));
  }
  return found;
}

// Owner, attributes and mode, in the order in which none undoes another.
Status copy_metadata(int from, int to, const std::string& name, const struct stat& st, const std::string& path) {
  struct stat now {};
  if (fstatat(to, name.c_str(), &now, AT_SYMLINK_NOFOLLOW) != 0) return system_error(errno, path);
  if ((now.st_uid != st.st_uid || now.st_gid != st.st_gid) &&
      fchownat(to, name.c_str(), st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return system_error(errno, "set the owner of the copy of " + path);
  }
  ECFS_LET(const Attributes attributes, attributes_of(from, name, path));
  for (const auto& [attribute, value] : attributes) {
    if (lsetxattr(through(to, name).c_str(), attribute.c_str(), value.data(), value.size(), 0) != 0) {
      return system_error(errno, "copy attribute " + attribute + " of " + path);
    }
  }
  if (!S_ISLNK(st.st_mode) && fchmodat(to, name.c_str(), st.st_mode & 07777, 0) != 0) {
    return system_error(errno, "set the mode of the copy of " + path);
  }
  return {};
}

Status copy_times(int to, const std::string& name, const struct stat& st, const std::string& path) {
  const std::array<timespec, 2> times = {st.st_atim, st.st_mtim};
  if (utimensat(to, name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0) {
    return system_error(errno, "set the times of the copy of " + path);
  }
  return {};
}

// [begin, end) of the next stretch of data at or behind `offset`; begin == size: none.
struct Stretch {
  off_t begin;
  off_t end;
};
Stretch next_data(int fd, off_t offset, off_t size) {
  const off_t begin = lseek(fd, offset, SEEK_DATA);
  if (begin < 0) return errno == ENXIO ? Stretch{size, size} : Stretch{offset, size};
  const off_t end = lseek(fd, begin, SEEK_HOLE);
  return {std::min(begin, size), end < 0 ? size : std::min(end, size)};
}

Result<std::size_t> read_at(int fd, off_t offset, MutableByteView out, const std::string& path) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = pread(fd, out.data() + done, out.size() - done, offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(errno, "read " + path);
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Status write_at(int fd, off_t offset, ByteView bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(errno, "write the copy of " + path);
    offset += n;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Error differs(const std::string& path, const char* what) {
  return {Code::kCorrupt, 0, path + ": the copy differs from the original (" + what + ")"};
}

class Copier {
 public:
  Copier(int to_top, Progress& progress) : to_top_(to_top), progress_(progress), chunk_(kChunk) {}

  Status directory(int from, int to, const std::string& path) {
    ECFS_LET(const std::vector<std::string> names, names_in(from, path));
    for (const std::string& name : names) ECFS_TRY(entry(from, to, name, below(path, name)));
    return {};
  }

 private:
  Status entry(int from, int to, const std::string& name, const std::string& path) {
    ECFS_TRY(check_signals());
    ECFS_LET(const struct stat st, stat_entry(from, name, path));
    if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
      if (const auto known = links_.find(key_of(st)); known != links_.end()) {
        if (linkat(to_top_, known->second.c_str(), to, name.c_str(), 0) != 0)
          return system_error(errno, "link the copy of " + path);
        return {};
      }
      links_.emplace(key_of(st), path);
    }
    switch (st.st_mode & S_IFMT) {
      case S_IFDIR: {
        ECFS_LET(const Fd source, open_directory(from, name));
        if (mkdirat(to, name.c_str(), 0700) != 0) return system_error(errno, "make the copy of " + path);
        ECFS_LET(const Fd target, open_directory(to, name));
        ECFS_TRY(directory(source.get(), target.get(), path));
        break;
      }
      case S_IFREG: return file(from, to, name, st, path);
      case S_IFLNK: {
        ECFS_LET(const std::string target, link_target(from, name, path));
        if (symlinkat(target.c_str(), to, name.c_str()) != 0) return system_error(errno, "make the copy of " + path);
        break;
      }
      default:
        if (mknodat(to, name.c_str(), (st.st_mode & S_IFMT) | 0600, st.st_rdev) != 0) {
          return system_error(errno, "make the copy of " + path);
        }
    }
    ECFS_TRY(copy_metadata(from, to, name, st, path));
    return copy_times(to, name, st, path);  // last: all else sets them anew
  }

  Status file(int from, int to, const std::string& name, const struct stat& found, const std::string& path) {
    ECFS_LET(const Fd source, open_to_read(from, name, path));
    Fd target(openat(to, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!target) return system_error(errno, "make the copy of " + path);
    struct stat st {};
    if (fstat(source.get(), &st) != 0) return system_error(errno, path);
    for (Stretch data = next_data(source.get(), 0, st.st_size); data.begin < st.st_size;
         data = next_data(source.get(), data.end, st.st_size)) {
      for (off_t at = data.begin; at < data.end;) {
        ECFS_TRY(check_signals());
        const auto want = static_cast<std::size_t>(std::min<off_t>(data.end - at, static_cast<off_t>(chunk_.size())));
        ECFS_LET(const std::size_t got, read_at(source.get(), at, MutableByteView(chunk_).first(want), path));
        ECFS_TRY(write_at(target.get(), at, ByteView(chunk_).first(got), path));
        progress_.advance(got);
        at += static_cast<off_t>(got);
        if (got < want) return Error{Code::kBusy, 0, path + " became shorter while it was copied"};
      }
    }
    if (ftruncate(target.get(), st.st_size) != 0) return system_error(errno, "set the size of the copy of " + path);
    ECFS_TRY(copy_metadata(from, to, name, found, path));
    // Through the open file: by name it would race with what the filesystem does for the file when it is closed.
    const std::array<timespec, 2> times = {found.st_atim, found.st_mtim};
    if (futimens(target.get(), times.data()) != 0) return system_error(errno, "set the times of the copy of " + path);
    // A full disk may show only here.
    if (close(target.release()) != 0) return system_error(errno, "write the copy of " + path);
    return {};
  }

  int to_top_;
  Progress& progress_;
  Bytes chunk_;
  std::map<InodeKey, std::string> links_;
};

class Comparer {
 public:
  explicit Comparer(Progress* progress) : progress_(progress), a_(kChunk), b_(kChunk) {}

  Status directory(int from, int to, const std::string& path) {
    ECFS_LET(const std::vector<std::string> names, names_in(from, path));
    ECFS_LET(const std::vector<std::string> copies, names_in(to, path));
    if (names != copies) return differs(path.empty() ? "the directory itself" : path, "names in it");
    for (const std::string& name : names) {
      const std::string inner = below(path, name);
      ECFS_TRY(check_signals());
      ECFS_LET(const struct stat a, stat_entry(from, name, inner));
      ECFS_LET(const struct stat b, stat_entry(to, name, inner));
      ECFS_TRY(metadata(a, b, inner));
      ECFS_LET(const Attributes of_a, attributes_of(from, name, inner));
      ECFS_LET(const Attributes of_b, attributes_of(to, name, inner));
      if (of_a != of_b) return differs(inner, "attributes");
      if (S_ISDIR(a.st_mode)) {
        ECFS_LET(const Fd source, open_directory(from, name));
        ECFS_LET(const Fd target, open_directory(to, name));
        ECFS_TRY(directory(source.get(), target.get(), inner));
      } else {
        ECFS_TRY(links(a, b, inner));
        ECFS_TRY(contents(from, to, name, a, inner));
      }
    }
    return {};
  }

  // What an entry holds: type, and bytes or target; not its metadata.
  Status contents(int from, int to, const std::string& name, const struct stat& st, const std::string& path) {
    if (S_ISLNK(st.st_mode)) {
      ECFS_LET(const std::string a, link_target(from, name, path));
      ECFS_LET(const std::string b, link_target(to, name, path));
      return a == b ? Status() : differs(path, "link target");
    }
    if (!S_ISREG(st.st_mode)) return {};
    ECFS_LET(const Fd source, open_to_read(from, name, path));
    ECFS_LET(const Fd target, open_to_read(to, name, path));
    struct stat a {};
    struct stat b {};
    if (fstat(source.get(), &a) != 0 || fstat(target.get(), &b) != 0) return system_error(errno, path);
    if (!S_ISREG(b.st_mode) || a.st_size != b.st_size) return differs(path, "size");
    for (off_t at = 0; at < a.st_size;) {
      ECFS_TRY(check_signals());
      // Where neither has data until further on, both read as zeros.
      const off_t data =
          std::min(next_data(source.get(), at, a.st_size).begin, next_data(target.get(), at, a.st_size).begin);
      if (data > at) {
        at = data;
        continue;
      }
      const auto want = static_cast<std::size_t>(std::min<off_t>(a.st_size - at, static_cast<off_t>(a_.size())));
      ECFS_LET(const std::size_t got_a, read_at(source.get(), at, MutableByteView(a_).first(want), path));
      auto got_b = read_at(target.get(), at, MutableByteView(b_).first(want), path);
      if (!got_b) return with_context(std::move(got_b).error(), "the copy");
      if (got_a != want || *got_b != want ||
          !std::equal(a_.begin(), a_.begin() + static_cast<std::ptrdiff_t>(want), b_.begin())) {
        return differs(path, "contents");
      }
      at += static_cast<off_t>(want);
      if (progress_ != nullptr) progress_->advance(want);
    }
    return {};
  }

 private:
  static Status metadata(const struct stat& a, const struct stat& b, const std::string& path) {
    if (a.st_mode != b.st_mode) return differs(path, "type or mode");
    if (a.st_uid != b.st_uid || a.st_gid != b.st_gid) return differs(path, "owner");
    if (a.st_mtim.tv_sec != b.st_mtim.tv_sec || a.st_mtim.tv_nsec != b.st_mtim.tv_nsec)
      return differs(path, "time of change");
    if ((S_ISBLK(a.st_mode) || S_ISCHR(a.st_mode)) && a.st_rdev != b.st_rdev) return differs(path, "device number");
    return {};
  }

  Status links(const struct stat& a, const struct stat& b, const std::string& path) {
    if (a.st_nlink < 2) return {};
    const auto [known, fresh] = links_.emplace(key_of(a), b.st_ino);
    return fresh || known->second == b.st_ino ? Status() : differs(path, "hard link");
  }

  Progress* progress_;
  Bytes a_;
  Bytes b_;
  std::map<InodeKey, ino_t> links_;
};

class Surveyor {
 public:
  Surveyor(dev_t device, uid_t owner) : device_(device), owner_(owner) {}

  Status directory(int dir, const std::string& path) {
    ECFS_LET(const std::vector<std::string> names, names_in(dir, path));
    for (const std::string& name : names) {
      ECFS_TRY(check_signals());
      const std::string inner = below(path, name);
      ECFS_LET(const struct stat st, stat_entry(dir, name, inner));
      ++survey.num_entries;
      if (st.st_dev != device_) {
        obstacle(inner + " is a mountpoint of another filesystem; unmount it");
        continue;
      }
      if (st.st_uid != owner_) obstacle(inner + " belongs to another user");
      if ((S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)) && geteuid() != 0) obstacle(inner + " is a device");
      if (st.st_nlink < 2 || S_ISDIR(st.st_mode) || seen_.insert(key_of(st)).second) {
        survey.data_bytes += static_cast<std::uint64_t>(st.st_blocks) * 512;
      }
      const bool readable =
          S_ISLNK(st.st_mode) ||
          faccessat(dir, name.c_str(), S_ISDIR(st.st_mode) ? R_OK | W_OK | X_OK : R_OK, AT_EACCESS) == 0;
      if (!readable && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        obstacle(inner + (S_ISDIR(st.st_mode) ? " may not be read and changed (chmod u+rwx it)"
                                              : " may not be read (chmod u+r it)"));
        continue;
      }
      if (S_ISDIR(st.st_mode)) {
        ECFS_LET(const Fd sub, open_directory(dir, name));
        ECFS_TRY(directory(sub.get(), inner));
      }
    }
    return {};
  }

  Survey survey;

 private:
  void obstacle(std::string text) {
    if (survey.obstacles.size() < kMaxTold) survey.obstacles.push_back(std::move(text));
  }
  dev_t device_;
  uid_t owner_;
  std::set<InodeKey> seen_;
};

class Remover {
 public:
  explicit Remover(timespec compared_at) : compared_at_(compared_at), comparer_(nullptr) {}

  Status directory(int from, int to, const std::string& path) {
    ECFS_LET(const std::vector<std::string> names, names_in(from, path));
    for (const std::string& name : names) {
      ECFS_TRY(check_signals());
      const std::string inner = below(path, name);
      ECFS_LET(const struct stat a, stat_entry(from, name, inner));
      const auto b = stat_entry(to, name, inner);
      if (!b) {
        keep(inner, "the copy does not hold it");
      } else if ((a.st_mode & S_IFMT) != (b->st_mode & S_IFMT)) {
        keep(inner, "the copy holds something else");
      } else if (S_ISDIR(a.st_mode)) {
        ECFS_LET(const Fd source, open_directory(from, name));
        ECFS_LET(const Fd target, open_directory(to, name));
        ECFS_TRY(directory(source.get(), target.get(), inner));
        if (unlinkat(from, name.c_str(), AT_REMOVEDIR) == 0) {
          ++removal.num_removed;
        } else if (errno != ENOTEMPTY && errno != EEXIST) {
          keep(inner, "it could not be removed");
        }
      } else {
        ECFS_TRY(file(from, to, name, a, inner));
      }
    }
    return {};
  }

  Removal removal;

 private:
  Status file(int from, int to, const std::string& name, const struct stat& st, const std::string& path) {
    const bool untouched = st.st_ctim.tv_sec < compared_at_.tv_sec ||
                           (st.st_ctim.tv_sec == compared_at_.tv_sec && st.st_ctim.tv_nsec < compared_at_.tv_nsec);
    if (!untouched) {
      if (auto same = comparer_.contents(from, to, name, st, path); !same) {
        if (caught_signal() != 0) return same;
        keep(path, "it is not what the copy holds");
        return {};
      }
    }
    if (unlinkat(from, name.c_str(), 0) != 0) {
      keep(path, "it could not be removed");
    } else {
      ++removal.num_removed;
    }
    return {};
  }

  void keep(const std::string& path, const char* why) {
    ++removal.num_kept;
    if (removal.kept.size() < kMaxTold) removal.kept.push_back(path + ": " + why);
  }

  timespec compared_at_;
  Comparer comparer_;
};

}  // namespace

Result<Survey> survey_tree(int dir, uid_t owner) {
  struct stat st {};
  if (fstat(dir, &st) != 0) return system_error(errno, "stat the directory");
  Surveyor surveyor(st.st_dev, owner);
  ECFS_TRY(surveyor.directory(dir, ""));
  return std::move(surveyor.survey);
}

Status copy_tree(int from, int to, Progress& progress) { return Copier(to, progress).directory(from, to, ""); }

Status compare_trees(int from, int to, Progress& progress) { return Comparer(&progress).directory(from, to, ""); }

Result<Removal> remove_copied(int from, int to, timespec compared_at) {
  Remover remover(compared_at);
  ECFS_TRY(remover.directory(from, to, ""));
  ECFS_TRY(sync_directory(from));
  return std::move(remover.removal);
}

}  // namespace ecfs::setup
