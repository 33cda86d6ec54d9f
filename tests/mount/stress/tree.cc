// tree MIRROR MOUNT: the same random operations in two trees, one on the lower's own filesystem and one on the mount.
// Every call has to give the same result or errno in both, and in the end the trees have to be the same: names, types,
// modes, owners, links, sizes, contents, attributes, and times as far as they were set.
//
// --seed N, --seconds N or --ops N (of each worker), --threads N; --suspicious 1 looks at everything after each
// operation. With one thread and --ops a seed repeats exactly.
//
// Each worker has a subtree of its own, so that it knows what each call must give; names and whole directories wander
// between the subtrees under both workers' locks.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <dirent.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "tests/mount/stress/stress.h"

namespace ecfs::stress {
namespace {

enum Side : std::size_t { kMirror = 0, kMount = 1 };
constexpr std::array<Side, 2> kSides{kMirror, kMount};

constexpr std::uint64_t kUsualSize = 1'200'000;
constexpr std::uint64_t kRareSize = 30U << 20;
constexpr std::size_t kMaxDepth = 5;
constexpr std::size_t kUsualEntries = 120;
constexpr std::size_t kMaxHandles = 6;
constexpr std::size_t kMaxHistory = 150;
// Times that are set lie before this one, so a present time is told from one that was set.
constexpr time_t kSetBefore = 1'200'000'000;
constexpr time_t kPresentTolerance = 120;  // seconds, on a machine under load

struct Counts {
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> refused{0};  // with the same errno in both
  std::atomic<std::uint64_t> compared_bytes{0};
  std::atomic<std::uint64_t> compared_entries{0};
} counts;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

long sys(long result) { return result < 0 ? -long{errno} : result; }

struct Fds {
  std::array<int, 2> fd{-1, -1};
  void close_both() {
    for (int& f : fd) {
      if (f >= 0) close(f);
      f = -1;
    }
  }
};

bool is_below(const std::string& path, const std::string& dir) {
  return path.size() > dir.size() && path.compare(0, dir.size(), dir) == 0 && path[dir.size()] == '/';
}
std::string path_shown(const std::string& path) {
  std::string out;
  std::size_t at = 0;
  while (at <= path.size()) {
    const std::size_t slash = std::min(path.find('/', at), path.size());
    if (!out.empty()) out += '/';
    out += shown(path.substr(at, slash - at));
    at = slash + 1;
  }
  return out;
}

std::string time_text(const timespec& t) { return std::to_string(t.tv_sec) + "." + std::to_string(t.tv_nsec); }

// difference says how two stats differ, "" if they do not.
std::string difference(const struct stat& a, const struct stat& b, bool times) {
  const auto differ = [](const char* what, auto x, auto y) {
    return std::string(what) + ": mirror " + std::to_string(x) + ", mount " + std::to_string(y);
  };
  if (a.st_mode != b.st_mode) return differ("mode", a.st_mode, b.st_mode);
  if (a.st_nlink != b.st_nlink) return differ("links", a.st_nlink, b.st_nlink);
  if (a.st_uid != b.st_uid) return differ("owner", a.st_uid, b.st_uid);
  if (a.st_gid != b.st_gid) return differ("group", a.st_gid, b.st_gid);
  if (a.st_rdev != b.st_rdev) return differ("device", a.st_rdev, b.st_rdev);
  if (!S_ISDIR(a.st_mode) && a.st_size != b.st_size) return differ("size", a.st_size, b.st_size);
  if (!times) return "";
  const bool was_set = a.st_mtim.tv_sec < kSetBefore;
  const bool same = a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
  const bool near = std::abs(a.st_mtim.tv_sec - b.st_mtim.tv_sec) < kPresentTolerance;
  if (was_set ? !same : !near) return "mtime: mirror " + time_text(a.st_mtim) + ", mount " + time_text(b.st_mtim);
  return "";
}

// compare_contents gives "" or what differs.
std::string compare_contents(const Fds& files) {
  constexpr std::size_t kChunk = 256 * 1024;
  thread_local std::array<std::vector<char>, 2> buffers{std::vector<char>(kChunk), std::vector<char>(kChunk)};
  for (off_t at = 0;;) {
    std::array<ssize_t, 2> got{};
    for (const Side side : kSides) {
      got.at(side) = sys(pread(files.fd.at(side), buffers.at(side).data(), kChunk, at));
    }
    if (got[0] != got[1]) {
      return "read at " + std::to_string(at) + ": mirror " + error_name(got[0]) + ", mount " + error_name(got[1]);
    }
    if (got[0] <= 0) return "";
    if (std::memcmp(buffers[0].data(), buffers[1].data(), static_cast<std::size_t>(got[0])) != 0) {
      const auto miss = std::mismatch(buffers[0].begin(), buffers[0].begin() + got[0], buffers[1].begin());
      return "contents differ at " + std::to_string(at + (miss.first - buffers[0].begin()));
    }
    at += got[0];
    counts.compared_bytes += static_cast<std::uint64_t>(got[0]);
  }
}

std::set<std::string> names_in(int dirfd, const std::string& path, std::map<std::string, ino_t>* inos = nullptr) {
  const int fd = openat(dirfd, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno("list " + path_shown(path));
  DIR* dir = fdopendir(fd);
  if (dir == nullptr) fail_errno("look at the open directory " + path_shown(path));
  std::set<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(dir)) {  // NOLINT(concurrency-mt-unsafe): each has its own DIR
    const std::string name = entry->d_name;
    if (name != "." && name != ".." && !names.insert(name).second) fail("listed twice: " + shown(name));
    if (inos != nullptr) (*inos)[name] = entry->d_ino;
    errno = 0;
  }
  if (errno != 0) fail_errno("read the directory " + path_shown(path));
  closedir(dir);
  return names;
}

std::vector<std::string> split_list(const std::string& list) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at < list.size();) {
    names.push_back(list.substr(at, list.find('\0', at) - at));
    at += names.back().size() + 1;
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Roots {
  std::array<std::string, 2> path;
  [[nodiscard]] std::string full(Side side, const std::string& rel) const { return path.at(side) + "/" + rel; }
};

// compare_xattrs gives "" or what differs. On a path's last component itself.
std::string compare_xattrs(const Roots& roots, const std::string& rel) {
  std::array<std::map<std::string, std::string>, 2> all;
  for (const Side side : kSides) {
    const std::string path = roots.full(side, rel);
    std::string list(65536, '\0');
    const ssize_t len = llistxattr(path.c_str(), list.data(), list.size());
    if (len < 0) return "list the attributes: " + error_name(-errno);
    list.resize(static_cast<std::size_t>(len));
    for (const std::string& name : split_list(list)) {
      std::string value(65536, '\0');
      const ssize_t got = lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
      // An owner whom the mode denies it reads no value either, in both.
      if (got < 0 && errno != EACCES) return "read the attribute " + name + ": " + error_name(-errno);
      value.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
      all.at(side)[name] = got < 0 ? "denied" : value;
    }
  }
  if (all[0] == all[1]) return "";
  std::string text = "attributes differ:";
  for (const Side side : kSides) {
    text += side == kMirror ? " mirror" : ", mount";
    for (const auto& [name, value] : all.at(side)) text += " " + name + "(" + std::to_string(value.size()) + ")";
  }
  return text;
}

// TreeComparison walks both trees to the end, or to the first difference.
class TreeComparison {
 public:
  explicit TreeComparison(const Roots& roots) : roots_(roots) {
    for (const Side side : kSides) {
      fds_.fd.at(side) = open(roots.path.at(side).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (fds_.fd.at(side) < 0) fail_errno("open " + roots.path.at(side));
    }
  }
  ~TreeComparison() { fds_.close_both(); }
  TreeComparison(const TreeComparison&) = delete;
  TreeComparison& operator=(const TreeComparison&) = delete;

  void run() { directory(""); }

 private:
  [[noreturn]] static void bad(const std::string& path, const std::string& what) {
    fail("the trees differ at " + path_shown(path) + ": " + what);
  }

  void directory(const std::string& path) {
    std::map<std::string, ino_t> inos;
    const std::set<std::string> mirror = names_in(fds_.fd[kMirror], path);
    const std::set<std::string> mount = names_in(fds_.fd[kMount], path, &inos);
    for (const std::string& name : mirror) {
      if (mount.count(name) == 0) bad(path, "the mount lacks " + shown(name));
    }
    for (const std::string& name : mount) {
      if (mirror.count(name) == 0) bad(path, "the mount has, beyond the mirror, " + shown(name));
    }
    for (const std::string& name : mirror) entry(path.empty() ? name : path + "/" + name, inos[name]);
  }

  void entry(const std::string& path, ino_t listed) {
    ++counts.compared_entries;
    std::array<struct stat, 2> st{};
    for (const Side side : kSides) {
      if (fstatat(fds_.fd.at(side), path.c_str(), &st.at(side), AT_SYMLINK_NOFOLLOW) != 0) {
        bad(path, std::string("stat in the ") + (side == kMount ? "mount" : "mirror") + ": " + error_name(-errno));
      }
    }
    if (const std::string text = difference(st[0], st[1], true); !text.empty()) bad(path, text);
    if (listed != st[kMount].st_ino) bad(path, "the listing has another inode number");
    // One inode in the mirror is one in the mount.
    const auto known = inodes_.emplace(st[kMirror].st_ino, st[kMount].st_ino).first;
    const auto back = reverse_.emplace(st[kMount].st_ino, st[kMirror].st_ino).first;
    if (known->second != st[kMount].st_ino || back->second != st[kMirror].st_ino) bad(path, "hard links differ");
    if (const std::string text = compare_xattrs(roots_, path); !text.empty()) bad(path, text);
    if (S_ISDIR(st[0].st_mode)) {
      directory(path);
    } else if (S_ISLNK(st[0].st_mode)) {
      link(path);
    } else if (S_ISREG(st[0].st_mode)) {
      file(path, st[0].st_mode);
    }
  }

  void link(const std::string& path) {
    std::array<std::string, 2> target{std::string(4096, '\0'), std::string(4096, '\0')};
    for (const Side side : kSides) {
      const ssize_t len = readlinkat(fds_.fd.at(side), path.c_str(), target.at(side).data(), target.at(side).size());
      if (len < 0) bad(path, "readlink: " + error_name(-errno));
      target.at(side).resize(static_cast<std::size_t>(len));
    }
    if (target[0] != target[1]) bad(path, "targets differ");
  }

  void file(const std::string& path, mode_t mode) {
    const bool denies = geteuid() != 0 && (mode & S_IRUSR) == 0;
    Fds files;
    for (const Side side : kSides) {
      if (denies && fchmodat(fds_.fd.at(side), path.c_str(), S_IRUSR, 0) != 0)
        bad(path, "chmod: " + error_name(-errno));
      files.fd.at(side) = openat(fds_.fd.at(side), path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
      if (files.fd.at(side) < 0) bad(path, "open: " + error_name(-errno));
      if (denies && fchmod(files.fd.at(side), mode & 07777) != 0) bad(path, "chmod: " + error_name(-errno));
    }
    if (const std::string text = compare_contents(files); !text.empty()) bad(path, text);
    files.close_both();
  }

  const Roots& roots_;
  Fds fds_;
  std::map<ino_t, ino_t> inodes_;
  std::map<ino_t, ino_t> reverse_;
};

struct Handle {
  Fds files;
  int flags = 0;
  bool direct = false;
  ino_t ino = 0;  // in the mirror
  std::string label;
  [[nodiscard]] bool reads() const { return (flags & O_ACCMODE) != O_WRONLY; }
  [[nodiscard]] bool writes() const { return (flags & O_ACCMODE) != O_RDONLY; }
};

struct AlignedBuffer {  // for O_DIRECT
  explicit AlignedBuffer(std::size_t size)
      : data(static_cast<std::uint8_t*>(
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
        size_(size) {
    if (data == MAP_FAILED) fail_errno("mmap");
  }
  ~AlignedBuffer() { munmap(data, size_); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  std::uint8_t* data;

 private:
  std::size_t size_;
};
constexpr std::size_t kBufferBytes = 2U << 20;

class Worker {
 public:
  Worker(std::size_t number, std::uint64_t seed, const std::array<std::string, 2>& bases, bool suspicious)
      : number_(number), suspicious_(suspicious), order_(seed + 500), random_(seed) {
    const std::string name = "w" + std::to_string(number);
    for (const Side side : kSides) {
      roots_.path.at(side) = bases.at(side) + "/" + name;
      if (mkdir(roots_.path.at(side).c_str(), 0755) != 0 && errno != EEXIST)
        fail_errno("mkdir " + roots_.path.at(side));
      fds_.fd.at(side) = open(roots_.path.at(side).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (fds_.fd.at(side) < 0) fail_errno("open " + roots_.path.at(side));
    }
    make_names();
    scan("");
  }
  ~Worker() {
    for (Handle& h : handles_) h.files.close_both();
    fds_.close_both();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void run(const std::vector<std::unique_ptr<Worker>>& all, double until, std::uint64_t ops) {
    if (unshare(CLONE_FS) != 0) fail_errno("unshare");  // a umask of its own
    umask(022);
    for (std::uint64_t i = 0; i < ops && seconds_now() < until; ++i) {
      Worker& other = *all[order_.below(all.size())];
      if (order_.chance(4) && &other != this) {
        const std::scoped_lock both_locked(mutex_, other.mutex_);
        move_across(other);
      } else {
        const std::lock_guard lock(mutex_);
        step();
        if (suspicious_) compare_stats();
      }
    }
    const std::lock_guard lock(mutex_);
    while (!handles_.empty()) close_handle(0);
  }

 private:
  // ---- telling

  void note(std::string text) {
    history_.push_back(std::move(text));
    if (history_.size() > kMaxHistory) history_.pop_front();
    ++counts.calls;
  }
  [[noreturn]] void bad(const std::string& what) {
    std::string text = "worker " + std::to_string(number_) + ": " + what + "\n  before it:";
    for (const std::string& line : history_) text += "\n    " + line;
    fail(text);
  }
  // both makes the call in both trees and compares.
  template <class F>
  long both(const std::string& what, F&& call) {
    note(what);
    const long mirror = call(kMirror);
    const long mount = call(kMount);
    if (mirror != mount) bad(what + ": mirror " + error_name(mirror) + ", mount " + error_name(mount));
    if (mirror < 0) ++counts.refused;
    return mirror;
  }
  [[nodiscard]] int dir(Side side) const { return fds_.fd.at(side); }

  // ---- what there is

  void make_names() {
    for (char c = 'a'; c <= 'p'; ++c) names_.emplace_back(1, c);
    for (const std::size_t len : {std::size_t{255}, std::size_t{200}, std::size_t{177}, std::size_t{150}}) {
      names_.push_back(std::string(len - 3, 'L') + std::to_string(len));
    }
    std::string accents;
    while (accents.size() < 254) accents += "\xc3\xa9";
    names_.push_back(accents);
    for (std::string& name : names_) name.resize(std::min(name.size(), limits().longest_name));
    for (const char* odd : {"new\nline", " ", "-rf", "*", "\xff\xfe", ".hidden", "..."}) names_.emplace_back(odd);
  }
  void scan(const std::string& path) {
    for (const std::string& name : names_in(dir(kMirror), path)) {
      const std::string full = path.empty() ? name : path + "/" + name;
      struct stat st {};
      if (fstatat(dir(kMirror), full.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) fail_errno("stat " + path_shown(full));
      known_[full] = st.st_mode & S_IFMT;
      if (S_ISDIR(st.st_mode)) scan(full);
    }
  }
  std::string any_of_type(mode_t type) {
    std::vector<const std::string*> all;
    for (const auto& [path, is] : known_) {
      if (type == 0 || is == type) all.push_back(&path);
    }
    return all.empty() ? "" : *random_.one_of(all);
  }
  std::string any_directory() { return random_.chance(30) ? "" : any_of_type(S_IFDIR); }
  std::string new_path() {
    std::string in = any_directory();
    if (static_cast<std::size_t>(std::count(in.begin(), in.end(), '/')) + 2 > kMaxDepth) in.clear();
    return in.empty() ? random_.one_of(names_) : in + "/" + random_.one_of(names_);
  }
  std::string any_path(mode_t type = 0) {
    const std::string path = random_.chance(93) ? any_of_type(type) : new_path();
    return path.empty() ? random_.one_of(names_) : path;
  }
  std::optional<struct stat> mirror_stat(const std::string& path) {
    struct stat st {};
    if (fstatat(dir(kMirror), path.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
    return st;
  }
  void forget_below(const std::string& path) {
    known_.erase(path);
    for (auto it = known_.lower_bound(path + "/"); it != known_.end() && is_below(it->first, path);)
      it = known_.erase(it);
  }
  std::map<std::string, mode_t> take_below(const std::string& path) {  // keys: what follows `path`
    std::map<std::string, mode_t> out;
    if (const auto self = known_.find(path); self != known_.end()) out[""] = self->second;
    for (auto it = known_.lower_bound(path + "/"); it != known_.end() && is_below(it->first, path); ++it) {
      out[it->first.substr(path.size())] = it->second;
    }
    forget_below(path);
    return out;
  }
  void put_below(const std::string& path, const std::map<std::string, mode_t>& all) {
    for (const auto& [rest, type] : all) known_[path + rest] = type;
  }

  // compare_stats looks at everything after one operation, to find the one that is to blame.
  void compare_stats() {
    for (const auto& [path, type] : known_) {
      std::array<struct stat, 2> st{};
      for (const Side s : kSides) {
        if (fstatat(dir(s), path.c_str(), &st.at(s), AT_SYMLINK_NOFOLLOW) != 0) bad("stat " + path_shown(path));
      }
      if (const std::string text = difference(st[0], st[1], true); !text.empty()) bad(path_shown(path) + ": " + text);
    }
  }

  // ---- one operation

  void step() {
    const bool crowded = known_.size() > kUsualEntries;
    const std::uint64_t what = random_.below(crowded ? 100 : 130);
    if (what < 42) {
      handle_step();
    } else if (what < 50) {
      remove_step(crowded);
    } else if (what < 56) {
      rename_step();
    } else if (what < 62) {
      attribute_step();
    } else if (what < 66) {
      xattr_step();
    } else if (what < 72) {
      look_step();
    } else if (what < 82) {
      open_step();
    } else if (what < 86) {
      truncate_step();
    } else if (what < 90) {
      link_step();
    } else {
      make_step();
    }
  }

  void make_step() {
    const std::string path = new_path();
    const mode_t mask = random_.one_of<mode_t>({0, 022, 027, 077});
    const mode_t user = geteuid() == 0 ? 0 : S_IRWXU;
    const mode_t mode = static_cast<mode_t>(random_.below(01000)) | user;
    const std::string mode_text = " mode " + std::to_string(mode) + " mask " + std::to_string(mask);
    umask(mask & ~user);
    switch (random_.below(10)) {
      case 0:
      case 1:
      case 2:
        if (both("mkdir " + path_shown(path) + mode_text,
                 [&](Side s) { return sys(mkdirat(dir(s), path.c_str(), mode)); }) == 0) {
          known_[path] = S_IFDIR;
        }
        break;
      case 3: {
        std::string target = random_.one_of(names_);
        if (random_.chance(30)) target = "/nowhere/" + std::string(1 + random_.below(2500), 't');
        if (both("symlink " + path_shown(path),
                 [&](Side s) { return sys(symlinkat(target.c_str(), dir(s), path.c_str())); }) == 0) {
          known_[path] = S_IFLNK;
        }
        break;
      }
      case 4: {
        const bool device = geteuid() == 0 && random_.chance(50);
        const mode_t type = device ? S_IFCHR : random_.chance(50) ? S_IFIFO : S_IFSOCK;
        if (both("mknod " + path_shown(path) + mode_text, [&](Side s) {
              return sys(mknodat(dir(s), path.c_str(), type | mode, device ? makedev(7, 77) : 0));
            }) == 0) {
          known_[path] = type;
        }
        break;
      }
      case 5:
        if (both("mknod file " + path_shown(path) + mode_text,
                 [&](Side s) { return sys(mknodat(dir(s), path.c_str(), S_IFREG | mode, 0)); }) == 0) {
          known_[path] = S_IFREG;
        }
        break;
      default: {
        Handle h;
        h.flags = O_RDWR | O_CREAT | (random_.chance(50) ? O_EXCL : 0) | (random_.chance(10) ? O_APPEND : 0);
        if (open_both("create " + path_shown(path) + mode_text, path, h, mode)) {
          if (known_.count(path) == 0) known_[path] = S_IFREG;
          write_step(h);
          if (random_.chance(50)) {
            keep(std::move(h));
          } else {
            h.files.close_both();
          }
        }
      }
    }
    umask(022);
  }

  bool open_both(const std::string& what, const std::string& path, Handle& h, mode_t mode) {
    const long done = both(what, [&](Side s) -> long {
      const int flags = h.flags | O_CLOEXEC | O_NONBLOCK | (s == kMount && h.direct ? O_DIRECT : 0);
      h.files.fd.at(s) = openat(dir(s), path.c_str(), flags, mode);
      if (h.files.fd.at(s) >= 0) return 0;
      const int err = errno;
      struct stat st {};
      // A device of no driver here; there a mount that has no devices.
      if (fstatat(dir(s), path.c_str(), &st, 0) == 0 && S_ISCHR(st.st_mode)) return -long{ENXIO};
      return -long{err};
    });
    if (done < 0) return false;
    struct stat st {};
    if (fstat(h.files.fd[kMirror], &st) != 0) fail_errno("fstat");
    h.ino = st.st_ino;
    h.label = "#" + std::to_string(++num_opened_) + " ino " + std::to_string(st.st_ino) + " ";
    note("  is " + h.label);
    if (S_ISREG(st.st_mode)) return true;
    h.files.close_both();  // through a link, or a name of another type
    return false;
  }

  void keep(Handle h) {
    if (handles_.size() >= kMaxHandles) close_handle(random_.below(handles_.size()));
    handles_.push_back(std::move(h));
  }

  void close_handle(std::size_t index) {
    Handle h = std::move(handles_[index]);
    handles_.erase(handles_.begin() + static_cast<std::ptrdiff_t>(index));
    if (h.reads() && random_.chance(40)) check_contents(h);
    both(h.label + "close", [&](Side s) { return sys(close(h.files.fd.at(s))); });
  }

  void check_contents(const Handle& h) {
    note(h.label + "compare");
    if (const std::string text = compare_contents(h.files); !text.empty()) bad(text);
  }

  void open_step() {
    const std::string path = any_path(random_.chance(80) ? S_IFREG : 0);
    if (const auto known = known_.find(path); known != known_.end() && known->second == S_IFIFO) return;
    Handle h;
    h.flags = random_.one_of<int>({O_RDONLY, O_RDWR, O_RDWR, O_RDWR, O_WRONLY});
    if (h.flags != O_RDONLY && random_.chance(20)) h.flags |= O_TRUNC;
    if (random_.chance(15)) h.flags |= O_APPEND;
    if (random_.chance(10)) h.flags |= O_SYNC;
    if (random_.chance(10)) h.flags |= O_NOFOLLOW;
    h.direct = known_.count(path) != 0 && known_[path] == S_IFREG && random_.chance(15);
    const std::string what =
        "open " + path_shown(path) + " flags " + std::to_string(h.flags) + (h.direct ? " direct" : "");
    if (open_both(what, path, h, 0)) keep(std::move(h));
  }

  std::uint64_t size_of(const Handle& h) {
    struct stat st {};
    if (fstat(h.files.fd[kMirror], &st) != 0) fail_errno("fstat");
    return static_cast<std::uint64_t>(st.st_size);
  }
  std::uint64_t max_size() { return limits().holes && random_.chance(1) ? kRareSize : kUsualSize; }

  void write_step(const Handle& h) {
    const std::uint64_t max = max_size();
    std::uint64_t at = random_.place(size_of(h), max);
    std::uint64_t len = std::min<std::uint64_t>(random_.length(max - at + 1), kBufferBytes);
    if (random_.chance(2)) len = 0;
    if (h.direct && random_.chance(80)) {
      at = at / 4096 * 4096;
      len = (len + 4095) / 4096 * 4096;
    }
    if (random_.chance(10)) {
      std::memset(buffer_.data, 0, len);  // zeros are data too
    } else {
      random_.fill(buffer_.data, len);
    }
    both(h.label + "write " + std::to_string(at) + " +" + std::to_string(len) + " flags " + std::to_string(h.flags) +
             (h.direct ? " direct" : ""),
         [&](Side s) { return sys(pwrite(h.files.fd.at(s), buffer_.data, len, static_cast<off_t>(at))); });
  }

  void read_step(const Handle& h) {
    const std::uint64_t at = random_.place(size_of(h), max_size());
    std::uint64_t len = std::min<std::uint64_t>(random_.length(kUsualSize), kBufferBytes);
    long got = both(h.label + "read " + std::to_string(at) + " +" + std::to_string(len), [&](Side s) {
      return sys(pread(h.files.fd.at(s), s == kMirror ? buffer_.data : second_.data, len, static_cast<off_t>(at)));
    });
    if (got > 0 && std::memcmp(buffer_.data, second_.data, static_cast<std::size_t>(got)) != 0) {
      bad("read " + std::to_string(at) + " +" + std::to_string(len) + ": other bytes");
    }
  }

  void map_step(const Handle& h) {
    const std::uint64_t size = size_of(h);
    if (size == 0 || h.direct || !h.reads()) return;
    const bool shared = h.writes() && random_.chance(80);
    const std::uint64_t from = random_.below(size) / 4096 * 4096;
    const std::uint64_t span = std::min<std::uint64_t>(size - from, 1 + random_.below(400'000));
    const std::uint64_t at = random_.below(span);
    const std::uint64_t len = std::min<std::uint64_t>(span - at, 1 + random_.below(20'000));
    random_.fill(buffer_.data, len);
    const bool sync = random_.chance(30);
    both(h.label + "map " + std::to_string(from) + " +" + std::to_string(span) + (shared ? " write " : " read ") +
             std::to_string(at) + " +" + std::to_string(len) + (sync ? " msync" : ""),
         [&](Side s) -> long {
           void* const map = mmap(nullptr, span, PROT_READ | (shared ? PROT_WRITE : 0),
                                  shared ? MAP_SHARED : MAP_PRIVATE, h.files.fd.at(s), static_cast<off_t>(from));
           if (map == MAP_FAILED) return -long{errno};
           auto* const bytes = static_cast<std::uint8_t*>(map);
           if (shared) {
             std::memcpy(bytes + at, buffer_.data, len);
             if (sync && msync(map, span, MS_SYNC) != 0) return -long{errno};
           } else {
             std::memcpy((s == kMirror ? buffer_ : second_).data, bytes + at, len);
           }
           munmap(map, span);
           return 0;
         });
    if (!shared && std::memcmp(buffer_.data, second_.data, len) != 0) bad("a mapping shows other bytes");
  }

  void allocate_step(const Handle& h) {
    const int mode = random_.one_of<int>({0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                          FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                          FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE});
    if (!limits().holes && (mode & FALLOC_FL_PUNCH_HOLE) != 0) return;
    // A mirror in memory has no such call; a mount does it all the same.
    struct statfs fs {};
    if ((mode & FALLOC_FL_ZERO_RANGE) != 0 && fstatfs(h.files.fd.at(kMirror), &fs) == 0 && fs.f_type == TMPFS_MAGIC) {
      return;
    }
    const std::uint64_t max = max_size();
    const std::uint64_t at = random_.place(size_of(h), max);
    const std::uint64_t len = 1 + random_.below(std::min<std::uint64_t>(max - at + 1, 600'000));
    both(h.label + "fallocate " + std::to_string(mode) + " at " + std::to_string(at) + " +" + std::to_string(len),
         [&](Side s) {
           return sys(fallocate(h.files.fd.at(s), mode, static_cast<off_t>(at), static_cast<off_t>(len)));
         });
  }

  // Where a hole begins is for each filesystem to say; what it calls a hole has to be zeros.
  void seek_step(const Handle& h) {
    const std::uint64_t size = size_of(h);
    const std::uint64_t at = random_.place(size, kUsualSize);
    const int whence = random_.chance(50) ? SEEK_DATA : SEEK_HOLE;
    const std::string what = h.label + (whence == SEEK_DATA ? "seek data " : "seek hole ") + std::to_string(at);
    note(what);
    const long found = sys(lseek(h.files.fd[kMount], static_cast<off_t>(at), whence));
    const std::string told = what + " of " + std::to_string(size) + ": mount " + error_name(found);
    if (at >= size) {
      if (found != -ENXIO) bad(told);
      return;
    }
    if (whence == SEEK_HOLE) {
      if (found < static_cast<long>(at) || found > static_cast<long>(size)) bad(told);
      return;
    }
    if (found == -ENXIO ? false : found < static_cast<long>(at) || found >= static_cast<long>(size)) bad(told);
    const std::uint64_t zeros_to = found == -ENXIO ? size : static_cast<std::uint64_t>(found);
    if (!h.reads()) return;
    for (std::uint64_t pos = at; pos < zeros_to;) {
      const std::uint64_t want = std::min<std::uint64_t>(zeros_to - pos, kBufferBytes);
      const ssize_t got = pread(h.files.fd[kMirror], buffer_.data, want, static_cast<off_t>(pos));
      if (got <= 0) fail_errno("read the mirror");
      if (std::any_of(buffer_.data, buffer_.data + got, [](std::uint8_t b) { return b != 0; })) {
        bad(told + ": there is data before it");
      }
      pos += static_cast<std::uint64_t>(got);
    }
  }

  void copy_step(const Handle& from) {
    const Handle& to = random_.one_of(handles_);
    if (!from.reads() || !to.writes() || from.ino == to.ino || (to.flags & O_APPEND) != 0) return;
    const std::uint64_t size = size_of(from);
    const std::uint64_t at = random_.below(size + 1);
    const std::uint64_t target = random_.place(size_of(to), kUsualSize);
    const std::uint64_t len = std::min<std::uint64_t>(random_.length(kUsualSize), kBufferBytes);
    off64_t in = static_cast<off64_t>(at);
    off64_t out = static_cast<off64_t>(target);
    const std::string what = from.label + "copy " + std::to_string(at) + " +" + std::to_string(len) + " to " +
                             to.label + std::to_string(target);
    note(what);
    const long copied = sys(copy_file_range(from.files.fd[kMount], &in, to.files.fd[kMount], &out, len, 0));
    if (copied < 0 || (copied == 0 && at < size)) bad(what + ": " + error_name(copied));
    const ssize_t got =
        pread(from.files.fd[kMirror], buffer_.data, static_cast<std::size_t>(copied), static_cast<off_t>(at));
    if (got != copied) bad(what + ": more was copied than there is");
    if (pwrite(to.files.fd[kMirror], buffer_.data, static_cast<std::size_t>(got), static_cast<off_t>(target)) != got) {
      fail_errno("write the mirror");
    }
  }

  void handle_step() {
    if (handles_.empty()) return open_step();
    const std::size_t index = random_.below(handles_.size());
    const Handle& h = handles_[index];
    switch (random_.below(20)) {
      case 0:
      case 1: return close_handle(index);
      case 2: both(h.label + "fsync", [&](Side s) { return sys(fsync(h.files.fd.at(s))); }); return;
      case 3: both(h.label + "fdatasync", [&](Side s) { return sys(fdatasync(h.files.fd.at(s))); }); return;
      case 4: {
        const std::uint64_t size = random_.chance(15) ? 0 : random_.place(size_of(h), max_size());
        both(h.label + "ftruncate " + std::to_string(size),
             [&](Side s) { return sys(ftruncate(h.files.fd.at(s), static_cast<off_t>(size))); });
        return;
      }
      case 5:
      case 6: return allocate_step(h);
      case 7:
      case 8: return map_step(h);
      case 9: return seek_step(h);
      case 10: return copy_step(h);
      case 11: {
        std::array<struct stat, 2> st{};
        both(h.label + "fstat", [&](Side s) { return sys(fstat(h.files.fd.at(s), &st.at(s))); });
        if (const std::string text = difference(st[0], st[1], true); !text.empty()) bad("fstat: " + text);
        return;
      }
      case 12:
        if (h.reads()) check_contents(h);
        return;
      case 13: return times_step("", &h);
      case 14:
      case 15: return read_step(h);
      default: return write_step(h);
    }
  }

  void truncate_step() {
    const std::string path = any_path(S_IFREG);
    const std::uint64_t size = random_.place(0, max_size());
    struct stat st {};
    // Whether truncate(2) to the same size changes the time is for each filesystem to say.
    if (fstatat(dir(kMirror), path.c_str(), &st, 0) == 0 && static_cast<std::uint64_t>(st.st_size) == size) return;
    both("truncate " + path_shown(path) + " " + std::to_string(size),
         [&](Side s) { return sys(truncate(roots_.full(s, path).c_str(), static_cast<off_t>(size))); });
  }

  void link_step() {
    const std::string from = any_path(S_IFREG);
    const std::string to = new_path();
    if (both("link " + path_shown(from) + " " + path_shown(to),
             [&](Side s) { return sys(linkat(dir(s), from.c_str(), dir(s), to.c_str(), 0)); }) == 0) {
      known_[to] = known_[from];
    }
  }

  void remove_step(bool crowded) {
    if (random_.chance(crowded ? 10 : 1)) {  // a whole tree
      const std::string top = any_of_type(S_IFDIR);
      if (top.empty()) return;
      std::vector<std::pair<std::string, mode_t>> all;
      for (auto it = known_.lower_bound(top + "/"); it != known_.end() && is_below(it->first, top); ++it) {
        all.emplace_back(*it);
      }
      all.emplace_back(top, S_IFDIR);
      std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        return std::count(a.first.begin(), a.first.end(), '/') > std::count(b.first.begin(), b.first.end(), '/');
      });
      for (const auto& [path, type] : all) remove(path, type);
      return;
    }
    const std::string path = any_path();
    const auto known = known_.find(path);
    mode_t type = known == known_.end() ? S_IFREG : known->second;
    if (random_.chance(5)) type = type == S_IFDIR ? S_IFREG : S_IFDIR;  // the wrong call
    remove(path, type);
  }
  void remove(const std::string& path, mode_t type) {
    const int flag = type == S_IFDIR ? AT_REMOVEDIR : 0;
    if (both((flag != 0 ? "rmdir " : "unlink ") + path_shown(path),
             [&](Side s) { return sys(unlinkat(dir(s), path.c_str(), flag)); }) == 0) {
      known_.erase(path);
    }
  }

  void rename_step() {
    const std::string from = any_path();
    const std::string to = random_.chance(50) ? new_path() : any_path();
    if (static_cast<std::size_t>(std::count(to.begin(), to.end(), '/')) + 3 > 2 * kMaxDepth) return;
    const unsigned flags = random_.one_of<unsigned>({0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE});
    rename_both(*this, from, *this, to, flags);
  }

  static void rename_both(Worker& a, const std::string& from, Worker& b, const std::string& to, unsigned flags) {
    const auto source = a.mirror_stat(from);
    const auto target = b.mirror_stat(to);
    const bool one = source && target && source->st_ino == target->st_ino;
    const long done = a.both(
        "rename " + path_shown(from) + " to " + std::to_string(b.number_) + " " + path_shown(to) + " flags " +
            std::to_string(flags),
        [&](Side s) { return sys(syscall(SYS_renameat2, a.dir(s), from.c_str(), b.dir(s), to.c_str(), flags)); });
    if (done != 0 || one) return;
    const auto moved = a.take_below(from);
    const auto other = b.take_below(to);
    b.put_below(to, moved);
    if (flags == RENAME_EXCHANGE) a.put_below(from, other);
  }

  // loose: nothing at or below the path has another name or an open handle of ours, so it can go to another worker.
  bool loose(const std::string& path) {
    const auto check = [&](const std::string& p) {
      const auto st = mirror_stat(p);
      if (!st) return false;
      if (S_ISDIR(st->st_mode)) return true;
      return st->st_nlink == 1 &&
             std::none_of(handles_.begin(), handles_.end(), [&](const Handle& h) { return h.ino == st->st_ino; });
    };
    if (!check(path)) return false;
    for (auto it = known_.lower_bound(path + "/"); it != known_.end() && is_below(it->first, path); ++it) {
      if (!check(it->first)) return false;
    }
    return true;
  }

  void move_across(Worker& other) {
    const std::string from = any_of_type(random_.chance(60) ? S_IFDIR : 0);
    const std::string to = random_.chance(60) ? other.new_path() : other.any_of_type(0);
    if (from.empty() || to.empty() || !loose(from)) return;
    const unsigned flags = random_.one_of<unsigned>({0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE});
    if (flags == RENAME_EXCHANGE && !other.loose(to)) return;
    rename_both(*this, from, other, to, flags);
  }

  void times_step(const std::string& path, const Handle* h) {
    const auto one = [&]() -> timespec {
      const std::uint64_t what = random_.below(10);
      if (what == 0) return {0, UTIME_OMIT};
      if (what == 1) return {0, UTIME_NOW};
      return {static_cast<time_t>(1'000'000'000 + random_.below(100'000'000)),
              static_cast<long>(random_.below(1'000'000'000))};
    };
    std::array<timespec, 2> times{one(), one()};
    // Both left out: the kernel says yes without a look.
    if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) times[1].tv_nsec = UTIME_NOW;
    const std::string what =
        (h != nullptr ? h->label + "times" : "times " + path_shown(path)) + " " + time_text(times[1]);
    const long done = both(what, [&](Side s) {
      return sys(h != nullptr ? futimens(h->files.fd.at(s), times.data())
                              : utimensat(dir(s), path.c_str(), times.data(), AT_SYMLINK_NOFOLLOW));
    });
    if (done != 0) return;
    std::array<struct stat, 2> st{};
    for (const Side s : kSides) {
      if ((h != nullptr ? fstat(h->files.fd.at(s), &st.at(s))
                        : fstatat(dir(s), path.c_str(), &st.at(s), AT_SYMLINK_NOFOLLOW)) != 0) {
        bad(what + ", then stat: " + error_name(-errno));
      }
    }
    if (const std::string text = difference(st[0], st[1], true); !text.empty()) bad(what + ": " + text);
    if (times[0].tv_nsec < 1'000'000'000 &&
        (st[kMount].st_atim.tv_sec != times[0].tv_sec || st[kMount].st_atim.tv_nsec != times[0].tv_nsec)) {
      bad(what + ": atime is " + time_text(st[kMount].st_atim) + " for " + time_text(times[0]));
    }
  }

  void attribute_step() {
    const std::string path = any_path();
    const auto known = known_.find(path);
    const bool may_be_dir = known == known_.end() || known->second == S_IFDIR || known->second == S_IFLNK;
    switch (random_.below(4)) {
      case 0:
      case 1: {
        mode_t mode = static_cast<mode_t>(random_.below(010000));
        if (geteuid() != 0 && may_be_dir) mode |= S_IRWXU;  // who cannot search it could not compare
        both("chmod " + path_shown(path) + " " + std::to_string(mode),
             [&](Side s) { return sys(fchmodat(dir(s), path.c_str(), mode, 0)); });
        return;
      }
      case 2: {
        const auto id = [&] { return random_.one_of<uid_t>({static_cast<uid_t>(-1), getuid(), 0, 12345}); };
        const uid_t uid = id();
        const gid_t gid = id();
        both("chown " + path_shown(path) + " " + std::to_string(uid) + ":" + std::to_string(gid),
             [&](Side s) { return sys(fchownat(dir(s), path.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW)); });
        return;
      }
      default: return times_step(path, nullptr);
    }
  }

  static std::string acl_of(unsigned owner, unsigned user, unsigned group, unsigned mask, unsigned other) {
    std::string acl;
    const auto put = [&](std::uint32_t value, std::size_t len) {
      for (std::size_t i = 0; i < len; ++i) acl.push_back(static_cast<char>(value >> (8 * i)));
    };
    const auto entry = [&](unsigned tag, unsigned perm, std::uint32_t id) {
      put(tag, 2);
      put(perm, 2);
      put(id, 4);
    };
    put(2, 4);
    entry(0x01, owner, 0xffffffff);
    entry(0x02, user, 12345);
    entry(0x04, group, 0xffffffff);
    entry(0x10, mask, 0xffffffff);
    entry(0x20, other, 0xffffffff);
    return acl;
  }

  void xattr_step() {
    const std::string path = any_path();
    std::string name = random_.one_of<std::string>({"user.one", "user.two", "user.th\xc3\xa9 third", "trusted.four"});
    std::string value(random_.below(150), '\0');
    for (char& c : value) c = static_cast<char>(random_.next());
    if (random_.chance(20)) {
      name = random_.chance(50) ? "system.posix_acl_access" : "system.posix_acl_default";
      const auto bits = [&] { return static_cast<unsigned>(random_.below(8)); };
      const unsigned owner = geteuid() == 0 ? bits() : 7;
      value = acl_of(owner, bits(), bits(), bits(), bits());
    }
    const int flags = random_.one_of<int>({0, 0, XATTR_CREATE, XATTR_REPLACE});
    if (random_.chance(30)) {
      both("removexattr " + path_shown(path) + " " + shown(name),
           [&](Side s) { return sys(lremovexattr(roots_.full(s, path).c_str(), name.c_str())); });
    } else {
      both("setxattr " + path_shown(path) + " " + shown(name) + " flags " + std::to_string(flags), [&](Side s) {
        return sys(lsetxattr(roots_.full(s, path).c_str(), name.c_str(), value.data(), value.size(), flags));
      });
    }
    if (!mirror_stat(path)) return;
    if (const std::string text = compare_xattrs(roots_, path); !text.empty()) bad(path_shown(path) + ": " + text);
  }

  void look_step() {
    if (random_.chance(25)) {
      const std::string in = any_directory();
      note("list " + path_shown(in));
      if (names_in(dir(kMirror), in) != names_in(dir(kMount), in)) bad("the listings of " + path_shown(in) + " differ");
      return;
    }
    const std::string path = any_path();
    std::array<struct stat, 2> st{};
    if (both("stat " + path_shown(path),
             [&](Side s) { return sys(fstatat(dir(s), path.c_str(), &st.at(s), AT_SYMLINK_NOFOLLOW)); }) != 0) {
      return;
    }
    if (const std::string text = difference(st[0], st[1], true); !text.empty()) bad(path_shown(path) + ": " + text);
  }

  const std::size_t number_;
  const bool suspicious_;
  Random order_;      // of this worker's thread alone
  std::mutex mutex_;  // guards what follows
  Random random_;
  Roots roots_;
  Fds fds_;
  std::map<std::string, mode_t> known_;
  std::vector<Handle> handles_;
  unsigned num_opened_ = 0;
  std::deque<std::string> history_;
  std::vector<std::string> names_;
  AlignedBuffer buffer_{kBufferBytes + 4096};
  AlignedBuffer second_{kBufferBytes + 4096};
};

}  // namespace

int tree_part(const Arguments& args) {
  if (args.paths.size() != 2) fail("usage: tree MIRROR MOUNT");
  const std::uint64_t seed = args.number("seed", 1);
  const std::size_t threads = args.number("threads", 4);
  Roots roots;
  roots.path = {args.paths[0], args.paths[1]};
  std::printf("tree: seed %llu, %zu threads\n", static_cast<unsigned long long>(seed), threads);
  TreeComparison(roots).run();  // as the last run left them
  {
    std::vector<std::unique_ptr<Worker>> workers;
    for (std::size_t i = 0; i < threads; ++i) {
      workers.push_back(std::make_unique<Worker>(i, seed * 1000 + i, roots.path, args.number("suspicious", 0) != 0));
    }
    const double until = seconds_now() + static_cast<double>(args.number("seconds", 10));
    std::vector<std::thread> running;
    running.reserve(workers.size());
    for (auto& w : workers) {
      running.emplace_back([&workers, &w, until, &args] { w->run(workers, until, args.number("ops", ~0ULL)); });
    }
    for (std::thread& t : running) t.join();
  }
  TreeComparison(roots).run();
  std::printf("tree: %llu calls in both trees, %llu of them refused with one errno; compared %llu entries, %llu MiB\n",
              static_cast<unsigned long long>(counts.calls), static_cast<unsigned long long>(counts.refused),
              static_cast<unsigned long long>(counts.compared_entries),
              static_cast<unsigned long long>(counts.compared_bytes >> 20));
  return counts.calls > 0 || args.number("ops", 1) == 0 ? 0 : 1;
}

}  // namespace ecfs::stress
