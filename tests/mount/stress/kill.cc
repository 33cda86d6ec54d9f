// kill MOUNT: writers that know what the server has answered, while it is killed, round after round.
//
// A line on stdin begins each half of a round: "go" starts the writers, which work until the server is gone ("down" is
// printed then); "check" compares everything with what it must be (after the caller has mounted again) and prints
// counts; the end of stdin ends the program, with a sum. --seed N; --mode 0: O_DIRECT, each write is answered by the
// server; 1: the writeback cache, where fsync alone says that something is there; 2: `-o shared`, answered again.
//
// Contents: what was answered (or synced) reads back; of what was under way each 4 KiB block is old or new, or the size
// is one of those between (native-format.md §4's table); nothing is EIO, but for blocks that nobody had written yet:
// the gap before a write past the end, until it is settled. Names: the tree is the one before
// or the one after the call that was under way.
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "tests/mount/stress/stress.h"

namespace ecfs::stress {
namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kMaxBytes = 150 * kBlock;  // three groups
using Bytes = std::vector<std::uint8_t>;

enum class Mode { kDirect, kSynced, kShared };

struct Counts {
  std::uint64_t answered = 0;
  std::uint64_t blocks = 0;
  std::uint64_t in_question = 0;  // blocks that could be old or new
  std::uint64_t newer = 0;        // of them: not the oldest one allowed
  std::uint64_t gaps_lost = 0;    // EIO where nobody had written yet
  std::uint64_t entries = 0;
  std::uint64_t name_before = 0;
  std::uint64_t name_after = 0;
};

// lost says whether a call failed (errno) because the server of `fd` is gone.
bool lost(int fd) {
  const int err = errno;
  // ECANCELED: on the way over io_uring.
  const auto is_gone = [](int e) { return e == ENOTCONN || e == ECONNABORTED || e == ECANCELED; };
  bool gone = is_gone(err);
  // EIO may be either (so EINTR, of a server that ended while it was given the request over io_uring): whether anybody
  // answers is asked with statfs, which the kernel always passes on.
  for (int tries = 0; !gone && (err == EIO || err == ENODEV || err == EINTR) && tries < 200; ++tries) {
    struct statvfs fs {};
    gone = fstatvfs(fd, &fs) != 0 && is_gone(errno);
    if (!gone) usleep(10'000);
  }
  errno = err;
  return gone;
}

// File is one file, and all that each of its blocks may be. `versions` holds the contents since the last time when all
// was certain, oldest first.
class File {
 public:
  File(std::string name, std::size_t max_bytes, Mode mode, std::uint64_t seed)
      : name_(std::move(name)), max_bytes_(max_bytes), mode_(mode), random_(seed) {
    buffer_ = static_cast<std::uint8_t*>(
        mmap(nullptr, kMaxBytes + kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (buffer_ == MAP_FAILED) fail_errno("mmap");
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // work does a few operations in one open; false: the server is gone.
  bool work(int root) {
    const int fd =
        openat(root, name_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (mode_ == Mode::kDirect ? O_DIRECT : 0), 0600);
    if (fd < 0) {
      if (lost(root)) return false;
      fail_errno("open " + name_);
    }
    may_be_absent_ = false;
    bool there = true;
    for (std::uint64_t i = 1 + random_.below(12); there && i > 0; --i) there = operation(fd);
    const bool closed = close(fd) == 0;
    if (!closed && !lost(root)) fail_errno("close " + name_);
    if (there && closed) certain(Bytes(newest()));  // the kernel has written everything, and had it settled
    return there;
  }

  void check(int root, Counts& counts) {
    const int fd = openat(root, name_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      if (errno != ENOENT || !may_be_absent_) fail_errno("open " + name_ + " after the kill");
      return;
    }
    may_be_absent_ = false;
    if (versions_.empty()) versions_.emplace_back();  // made, though nobody was told
    struct stat st {};
    if (fstat(fd, &st) != 0) fail_errno("fstat");
    // Opening may find another size than arithmetic gave: then the kernel looks again, which fstat now shows.
    Bytes now(static_cast<std::size_t>(st.st_size));
    check_size(now.size());
    for (std::size_t at = 0; at < now.size(); at += kBlock) {
      const std::size_t len = std::min(kBlock, now.size() - at);
      const ssize_t got = pread(fd, now.data() + at, len, static_cast<off_t>(at));
      ++counts.blocks;
      if (got < 0 && errno == EIO && (gap_blocks_.count(at / kBlock) != 0 || bad_blocks_.count(at / kBlock) != 0)) {
        ++counts.gaps_lost;
        bad_blocks_.insert(at / kBlock);
        continue;
      }
      if (got != static_cast<ssize_t>(len)) {
        fail(name_ + ": block " + std::to_string(at / kBlock) + " of " + std::to_string(now.size()) +
             " bytes reads as " + error_name(got < 0 ? -errno : got) + "; " + story());
      }
      check_block(now, at, counts);
    }
    close(fd);
    counts.answered += std::exchange(answered_, 0);
    certain(std::move(now));
  }

 private:
  [[nodiscard]] std::string story() const {
    std::string text = "under way: " + last_ + "; sizes";
    for (const Bytes& v : versions_) text += " " + std::to_string(v.size());
    return text;
  }
  void certain(Bytes now) {
    versions_.clear();
    versions_.push_back(std::move(now));
    gap_blocks_.clear();
  }
  [[nodiscard]] const Bytes& newest() const { return versions_.back(); }

  void check_size(std::size_t size) const {
    std::size_t low = ~std::size_t{0};
    std::size_t high = 0;
    for (const Bytes& v : versions_) {
      if (v.size() == size) return;
      low = std::min(low, v.size());
      high = std::max(high, v.size());
    }
    if (low < size && size < high && size % kBlock == 0) return;
    // A shrink inside a block ends for a moment where that block ends.
    fail(name_ + " has " + std::to_string(size) + " bytes; " + story());
  }
  void check_block(const Bytes& now, std::size_t at, Counts& counts) const {
    const std::size_t len = std::min(kBlock, now.size() - at);
    bool differ = false;
    for (std::size_t i = 0; i < versions_.size(); ++i) {
      // Zeros follow where a version ends: the same block, grown.
      const Bytes& v = versions_[i];
      const std::size_t has = at < v.size() ? std::min(len, v.size() - at) : 0;
      const auto from = now.begin() + static_cast<std::ptrdiff_t>(at);
      if (std::equal(from, from + static_cast<std::ptrdiff_t>(has),
                     v.begin() + static_cast<std::ptrdiff_t>(has == 0 ? 0 : at)) &&
          std::all_of(from + static_cast<std::ptrdiff_t>(has), from + static_cast<std::ptrdiff_t>(len),
                      [](std::uint8_t b) { return b == 0; })) {
        counts.in_question += versions_.size() > 1 ? 1 : 0;
        counts.newer += i > 0 ? 1 : 0;
        return;
      }
      differ = true;
    }
    if (differ) fail(name_ + ": block " + std::to_string(at / kBlock) + " is neither old nor new; " + story());
  }

  bool operation(int fd) {
    if (versions_.empty()) versions_.emplace_back();
    Bytes next = newest();
    const std::uint64_t size = next.size();
    const std::uint64_t what = random_.below(20);
    long done = 0;
    bool sync = false;
    if (!bad_blocks_.empty()) {  // a whole block can always be written again
      const std::uint64_t block = *bad_blocks_.begin();
      if (block * kBlock >= size) {
        bad_blocks_.erase(block);
        return true;
      }
      const std::uint64_t len = std::min<std::uint64_t>(kBlock, size - block * kBlock);
      random_.fill(buffer_, kBlock);
      std::copy_n(buffer_, len, next.begin() + static_cast<std::ptrdiff_t>(block * kBlock));
      last_ = "rewrite of a lost gap";
      begin(std::move(next));
      done = pwrite(fd, buffer_, len, static_cast<off_t>(block * kBlock));
      if (done >= 0 && fsync(fd) != 0) done = -1;
      if (done >= 0) bad_blocks_.erase(block);
    } else if (what < 12) {
      std::uint64_t at = random_.place(size, max_bytes_ - 1);
      if (!random_.chance(10)) at = std::min(at, size);  // a gap now and then
      // Long ones often: a kill shall meet them on their way.
      std::uint64_t len = random_.chance(50) ? 1 + random_.below(kMaxBytes) : random_.length(kMaxBytes);
      len = std::min(len, max_bytes_ - at);
      if (mode_ == Mode::kDirect && random_.chance(50)) {
        at = at / kBlock * kBlock;
        len = std::min<std::uint64_t>((len + kBlock - 1) / kBlock * kBlock, kMaxBytes - at);
      }
      random_.fill(buffer_, len);
      last_ = "write " + std::to_string(at) + " +" + std::to_string(len);
      note_gap(size, at, at + len);
      if (next.size() < at + len) next.resize(at + len);
      std::copy_n(buffer_, len, next.begin() + static_cast<std::ptrdiff_t>(at));
      begin(std::move(next));
      done = pwrite(fd, buffer_, len, static_cast<off_t>(at));
      if (done >= 0 && static_cast<std::uint64_t>(done) < len) {
        // The kernel has sent it in parts, and one of them met the end of the server.
        errno = EIO;
        if (!lost(fd)) fail("a short write to " + name_);
        part_done(at, static_cast<std::uint64_t>(done));
        return false;
      }
    } else if (what < 16) {
      const std::uint64_t to = random_.chance(20) ? 0 : random_.place(size, max_bytes_ - 1);
      last_ = "truncate " + std::to_string(to);
      next.resize(to);
      begin(std::move(next));
      done = ftruncate(fd, static_cast<off_t>(to));
    } else if (what < 17) {
      const std::uint64_t at = random_.place(size, max_bytes_ - 1);
      const std::uint64_t len = std::min(random_.length(kMaxBytes), max_bytes_ - at);
      last_ = "punch " + std::to_string(at) + " +" + std::to_string(len);
      for (std::uint64_t i = at; i < std::min<std::uint64_t>(size, at + len); ++i) next[i] = 0;
      begin(std::move(next));
      done = fallocate(fd, limits().clear_mode(), static_cast<off_t>(at), static_cast<off_t>(len));
    } else {
      last_ = "fsync";
      sync = true;
      done = fsync(fd);
    }
    if (done < 0) {
      if (lost(fd)) return false;
      fail_errno(name_ + ": " + last_);
    }
    if (sync || mode_ != Mode::kSynced) {
      ++answered_;
      Bytes now = newest();
      std::set<std::uint64_t> gaps = sync ? std::set<std::uint64_t>() : std::move(gap_blocks_);
      certain(std::move(now));
      gap_blocks_ = std::move(gaps);
    }
    return true;
  }
  // part_done notes that `len` bytes of the write under way were answered (with the writeback cache that says nothing).
  void part_done(std::uint64_t at, std::uint64_t len) {
    if (mode_ == Mode::kSynced || len == 0) return;
    Bytes next = std::move(versions_.back());
    Bytes part = std::move(versions_[versions_.size() - 2]);
    part.resize(std::max<std::size_t>(part.size(), at + len));
    std::copy_n(buffer_, len, part.begin() + static_cast<std::ptrdiff_t>(at));
    versions_.clear();
    versions_.push_back(std::move(part));
    versions_.push_back(std::move(next));
  }
  void begin(Bytes next) { versions_.push_back(std::move(next)); }

  // Blocks that a write past the end skips are settled by a sync or a close; with the writeback cache a later part of a
  // write may also overtake an earlier one, so that all that is new and not synced is a gap for a while.
  void note_gap(std::uint64_t size, std::uint64_t at, std::uint64_t end) {
    const std::uint64_t to = mode_ == Mode::kSynced ? end : at;
    for (std::uint64_t b = (size + kBlock - 1) / kBlock; b * kBlock < to; ++b) gap_blocks_.insert(b);
  }

  const std::string name_;
  const std::size_t max_bytes_;
  const Mode mode_;
  Random random_;
  std::uint8_t* buffer_;
  bool may_be_absent_ = true;
  std::vector<Bytes> versions_;
  std::set<std::uint64_t> gap_blocks_;
  std::set<std::uint64_t> bad_blocks_;
  std::uint64_t answered_ = 0;
  std::string last_ = "nothing";
};

// Names makes, moves and removes names in a directory of its own.
class Names {
 public:
  struct Node {
    mode_t type = 0;
    ino_t ino = 0;  // 0: any that is new
    bool operator==(const Node& other) const {
      return type == other.type && (ino == other.ino || ino == 0 || other.ino == 0);
    }
  };
  using Tree = std::map<std::string, Node>;

  Names(std::string top, std::uint64_t seed) : top_(std::move(top)), random_(seed) {
    for (char c = 'a'; c <= 'f'; ++c) names_.emplace_back(1, c);
    for (const std::size_t len : {std::size_t{255}, std::size_t{190}, std::size_t{160}}) {
      names_.push_back(std::string(std::min(len, limits().longest_name) - 3, 'n') + std::to_string(len));
    }
  }

  void prepare(int root) {
    if (mkdirat(root, top_.c_str(), 0755) != 0 && errno != EEXIST) fail_errno("mkdir " + top_);
  }
  bool work(int root) {
    const int dir = openat(root, top_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
      if (lost(root)) return false;
      fail_errno("open " + top_);
    }
    bool there = true;
    for (int i = 0; there && i < 50; ++i) there = operation(dir);
    close(dir);
    return there;
  }
  void check(int root, Counts& counts) {
    const int dir = openat(root, top_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) fail_errno("open " + top_ + " after the kill");
    Tree found;
    scan(dir, "", found);
    close(dir);
    counts.entries += found.size();
    counts.answered += std::exchange(answered_, 0);
    if (after_ && found == *after_) {
      ++counts.name_after;
    } else if (found == tree_) {
      counts.name_before += after_ ? 1 : 0;
    } else {
      std::string text = top_ + " is neither as before nor as after the call that was under way (" + last_ + ")";
      for (const auto& [path, node] : tree_) {
        const auto there = found.find(path);
        if (there == found.end())
          text += "\n  lost: " + shown(path);
        else if (!(there->second == node))
          text += "\n  another: " + shown(path);
      }
      for (const auto& [path, node] : found) {
        if (tree_.count(path) == 0) text += "\n  new: " + shown(path);
      }
      fail(text);
    }
    tree_ = std::move(found);
    after_.reset();
  }

 private:
  static void scan(int dirfd, const std::string& path, Tree& out) {
    const int fd = openat(dirfd, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fail_errno("open " + shown(path) + " after the kill");
    DIR* dir = fdopendir(fd);
    if (dir == nullptr) fail_errno("look at the open directory " + shown(path));
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(dir)) {  // NOLINT(concurrency-mt-unsafe)
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
      errno = 0;
    }
    if (errno != 0) fail_errno("list " + shown(path) + " after the kill");
    closedir(dir);
    for (const std::string& name : names) {
      const std::string full = path.empty() ? name : path + "/" + name;
      struct stat st {};
      if (fstatat(dirfd, full.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
        fail_errno("stat " + shown(full) + " after the kill");
      if (!out.emplace(full, Node{st.st_mode & S_IFMT, st.st_ino}).second) fail("listed twice: " + shown(full));
      if (S_ISDIR(st.st_mode)) scan(dirfd, full, out);
      if (S_ISLNK(st.st_mode)) {
        std::array<char, 300> target{};
        if (readlinkat(dirfd, full.c_str(), target.data(), target.size()) != 100) fail("the target of " + shown(full));
      }
      if (S_ISREG(st.st_mode)) {
        const int file = openat(dirfd, full.c_str(), O_RDONLY | O_CLOEXEC);
        char byte = 0;
        if (file < 0 || read(file, &byte, 1) != 0) fail_errno("read " + shown(full) + " after the kill");
        close(file);
      }
    }
  }

  static bool is_below(const std::string& path, const std::string& dir) {
    return path.size() > dir.size() && path.compare(0, dir.size(), dir) == 0 && path[dir.size()] == '/';
  }
  static Tree taken(Tree& from, const std::string& path) {
    Tree out;
    for (auto it = from.lower_bound(path); it != from.end() && (it->first == path || is_below(it->first, path) ||
                                                                it->first.compare(0, path.size(), path) == 0);) {
      if (it->first != path && !is_below(it->first, path)) {
        ++it;
        continue;
      }
      out.emplace(it->first.substr(path.size()), it->second);
      it = from.erase(it);
    }
    return out;
  }
  static void put(Tree& to, const std::string& path, const Tree& all) {
    for (const auto& [rest, node] : all) to[path + rest] = node;
  }

  std::string known(mode_t type) {
    std::vector<const std::string*> all;
    for (const auto& [path, node] : tree_) {
      if (type == 0 || node.type == type) all.push_back(&path);
    }
    return all.empty() ? "" : *random_.one_of(all);
  }
  std::string fresh() {
    std::string in = random_.chance(40) ? "" : known(S_IFDIR);
    if (std::count(in.begin(), in.end(), '/') >= 2) in.clear();
    return in.empty() ? random_.one_of(names_) : in + "/" + random_.one_of(names_);
  }

  bool operation(int dir) {
    Tree next = tree_;
    std::string made;
    long done = 0;
    const bool crowded = tree_.size() > 60;
    switch (random_.below(crowded ? 6 : 12)) {
      case 0:
      case 1: {
        const std::string path = known(0);
        if (path.empty()) return true;
        const bool is_dir = tree_[path].type == S_IFDIR;
        last_ = "remove " + shown(path);
        next.erase(path);
        after_ = next;
        done = unlinkat(dir, path.c_str(), is_dir ? AT_REMOVEDIR : 0);
        break;
      }
      case 2:
      case 3:
      case 4:
      case 5: {
        const std::string from = known(random_.chance(50) ? S_IFDIR : 0);
        const std::string to = random_.chance(50) ? fresh() : known(0);
        if (from.empty() || to.empty() || from == to || is_below(to, from) || is_below(from, to)) return true;
        const auto target = next.find(to);
        if (target != next.end() && target->second.ino == tree_[from].ino) return true;  // two names of one file
        const unsigned flags = random_.one_of<unsigned>({0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE});
        last_ = "rename " + shown(from) + " to " + shown(to) + " flags " + std::to_string(flags);
        const Tree moved = taken(next, from);
        const Tree other = taken(next, to);
        put(next, to, moved);
        if (flags == RENAME_EXCHANGE) put(next, from, other);
        after_ = next;
        done = syscall(SYS_renameat2, dir, from.c_str(), dir, to.c_str(), flags);
        break;
      }
      case 6:
      case 7: {
        made = fresh();
        last_ = "mkdir " + shown(made);
        next[made] = {S_IFDIR, 0};
        after_ = next;
        done = mkdirat(dir, made.c_str(), 0755);
        break;
      }
      case 8: {
        made = fresh();
        last_ = "symlink " + shown(made);
        next[made] = {S_IFLNK, 0};
        after_ = next;
        done = symlinkat(std::string(100, 't').c_str(), dir, made.c_str());
        break;
      }
      case 9: {
        const std::string from = known(S_IFREG);
        if (from.empty()) return true;
        made = fresh();
        last_ = "link " + shown(made);
        next[made] = tree_[from];
        after_ = next;
        done = linkat(dir, from.c_str(), dir, made.c_str(), 0);
        break;
      }
      default: {
        made = fresh();
        last_ = "create " + shown(made);
        next[made] = {S_IFREG, 0};
        after_ = next;
        done = openat(dir, made.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (done >= 0) close(static_cast<int>(done));
      }
    }
    if (done < 0) {
      if (lost(dir)) return false;
      after_.reset();  // refused: nothing has happened
      static const std::set<int> kRefusals{ENOENT, EEXIST, ENOTEMPTY, ENOTDIR, EISDIR, EINVAL};
      if (kRefusals.count(errno) == 0) fail_errno(top_ + ": " + last_);
      return true;
    }
    ++answered_;
    tree_ = std::move(next);
    if (!made.empty() && tree_[made].ino == 0) {
      struct stat st {};
      if (fstatat(dir, made.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
        tree_[made].ino = st.st_ino;
      } else if (!lost(dir)) {
        fail_errno("stat " + shown(made));
      }
    }
    after_.reset();
    return true;
  }

  const std::string top_;
  Random random_;
  std::vector<std::string> names_;
  Tree tree_;
  std::optional<Tree> after_;  // while a call is under way
  std::uint64_t answered_ = 0;
  std::string last_ = "nothing";
};

}  // namespace

int kill_part(const Arguments& args) {
  const Mode mode = static_cast<Mode>(args.number("mode", 0));
  const std::uint64_t seed = args.number("seed", 1);
  std::printf("kill: seed %llu, mode %d\n", static_cast<unsigned long long>(seed), static_cast<int>(mode));
  std::vector<std::vector<std::unique_ptr<File>>> files(2);
  for (std::size_t w = 0; w < files.size(); ++w) {
    for (const std::size_t max : {std::size_t{6000}, std::size_t{60'000}, kMaxBytes}) {
      const std::string name = "data" + std::to_string(w) + "-" + std::to_string(max);
      files[w].push_back(std::make_unique<File>(name, max, mode, seed * 100 + w * 10 + files[w].size()));
    }
  }
  std::vector<std::unique_ptr<Names>> names;
  for (std::size_t w = 0; w < 2; ++w) {
    names.push_back(std::make_unique<Names>("names" + std::to_string(w), seed * 100 + 50 + w));
  }
  Counts sum;
  std::uint64_t rounds = 0;
  bool prepared = false;
  for (std::string word; std::getline(std::cin, word);) {
    const int root = open(args.paths[0].c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) fail_errno("open " + args.paths[0]);
    if (word == "go") {
      if (!prepared) {
        for (auto& n : names) n->prepare(root);
        prepared = true;
      }
      std::vector<std::thread> running;
      for (std::size_t w = 0; w < files.size(); ++w) {
        running.emplace_back([&, w] {
          Random which(seed + w + rounds * 7);
          while (files[w][which.below(files[w].size())]->work(root)) continue;
        });
      }
      for (auto& n : names) {
        running.emplace_back([&] {
          while (n->work(root)) continue;
        });
      }
      std::printf("running\n");
      for (std::thread& t : running) t.join();
      std::printf("down\n");
      ++rounds;
    } else if (word == "check") {
      Counts now;
      for (auto& all : files) {
        for (auto& f : all) f->check(root, now);
      }
      for (auto& n : names) n->check(root, now);
      sum.answered += now.answered;
      sum.blocks += now.blocks;
      sum.in_question += now.in_question;
      sum.newer += now.newer;
      sum.gaps_lost += now.gaps_lost;
      sum.entries += now.entries;
      sum.name_before += now.name_before;
      sum.name_after += now.name_after;
      std::printf("checked\n");
    }
    close(root);
  }
  const auto number = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf(
      "kill: %llu rounds, %llu calls answered; %llu blocks read, %llu in question (%llu newer), %llu unsynced gaps "
      "lost; %llu names, calls under way %llu undone and %llu done\n",
      number(rounds), number(sum.answered), number(sum.blocks), number(sum.in_question), number(sum.newer),
      number(sum.gaps_lost), number(sum.entries), number(sum.name_before), number(sum.name_after));
  return rounds > 0 && sum.answered > 0 ? 0 : 1;
}

}  // namespace ecfs::stress
