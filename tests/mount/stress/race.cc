// race DIR [LIST]: several processes work at once on the same few names, without any order among them. What each call
// gives cannot be foretold, but no call may give an errno that no order of events explains, every block that is read
// must be one that was written at that place, and in the end every name must lead to something that can be read.
//
// --seed N --seconds N --workers N; --verify 1 only looks. Prints a digest of the tree, for comparison after a remount;
// what it consists of goes to LIST.
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <set>

#include "tests/mount/stress/stress.h"

namespace ecfs::stress {
namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kMaxBlocks = 150;  // three groups
using Block = std::array<std::uint64_t, kBlock / 8>;

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9U;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

// A block says where it belongs, and all of it follows from its first two words.
void make_block(Block& block, std::uint64_t number, std::uint64_t stamp) {
  block[0] = number;
  block[1] = stamp;
  for (std::size_t i = 2; i < block.size(); ++i) block[i] = mix(stamp + i * 0x9e3779b97f4a7c15U + number);
}
bool is_good(const Block& block, std::uint64_t number) {
  if (std::all_of(block.begin(), block.end(), [](std::uint64_t w) { return w == 0; })) return true;  // a hole
  Block want;
  make_block(want, number, block[1]);
  return block == want;
}

class Racer {
 public:
  Racer(int root, std::uint64_t seed) : root_(root), random_(seed) {
    for (const char* name : {"a", "b", "c"}) dirs_.emplace_back(name);
    dirs_.push_back(std::string(limits().longest_name - 15, 'D'));
    for (int i = 0; i < 6; ++i) files_.push_back("f" + std::to_string(i));
    files_.push_back(std::string(limits().longest_name, 'F'));
    files_.push_back(std::string(std::min(std::size_t{180}, limits().longest_name - 15), 'G'));
  }

  void run(double until) {
    while (seconds_now() < until) {
      step();
      ++num_calls_;
    }
    for (int fd : open_) close(fd);
    std::printf("race: %llu calls, %llu of them refused, %llu blocks read\n",
                static_cast<unsigned long long>(num_calls_), static_cast<unsigned long long>(num_refused_),
                static_cast<unsigned long long>(num_blocks_));
  }

 private:
  // expect ends the test if the call failed with anything but the named errors.
  void expect(long result, const std::string& what, std::initializer_list<int> allowed) {
    if (result >= 0) return;
    const int err = errno;
    ++num_refused_;
    if (std::find(allowed.begin(), allowed.end(), err) == allowed.end()) {
      fail(what + ": " + error_name(-err));
    }
  }

  std::string directory() {
    std::string path = ".";
    for (std::uint64_t depth = random_.below(4); depth > 0; --depth) path += "/" + random_.one_of(dirs_);
    return path;
  }
  std::string file() { return directory() + "/" + random_.one_of(files_); }
  std::string either() { return random_.chance(30) ? directory() + "/" + random_.one_of(dirs_) : file(); }

  void write_blocks(int fd) {
    const std::uint64_t first = random_.below(kMaxBlocks);
    const std::uint64_t num = 1 + random_.below(std::min<std::uint64_t>(8, kMaxBlocks - first));
    std::vector<Block> blocks(num);
    for (std::uint64_t i = 0; i < num; ++i) make_block(blocks[i], first + i, random_.next());
    const ssize_t done = pwrite(fd, blocks.data(), num * kBlock, static_cast<off_t>(first * kBlock));
    expect(done, "write", {});
    if (static_cast<std::size_t>(done) != num * kBlock) fail("a short write: " + std::to_string(done));
  }
  void check_blocks(int fd) {
    const std::uint64_t first = random_.below(kMaxBlocks);
    std::array<Block, 8> blocks{};
    // A read beside a write may see some of each; again, it sees the write alone.
    for (int tries = 0;; ++tries) {
      const ssize_t got = pread(fd, blocks.data(), sizeof blocks, static_cast<off_t>(first * kBlock));
      expect(got, "read", {});
      const std::size_t num = static_cast<std::size_t>(got) / kBlock;
      std::size_t good = 0;
      while (good < num && is_good(blocks.at(good), first + good)) ++good;
      num_blocks_ += good;
      if (good == num) return;
      if (tries == 50) {
        fail("block " + std::to_string(first + good) + " holds what was never written there: first words " +
             std::to_string(blocks.at(good)[0]) + " " + std::to_string(blocks.at(good)[1]));
      }
      usleep(1000);
    }
  }
  void map_blocks(int fd) {
    // Nobody cuts files that are mapped here: a page behind the end would be a signal. So only the first block, which
    // no truncation takes away, once it is there; for the kernel too, which without the writeback cache learns a size
    // from the answer to a write, when fstat may have told it.
    std::array<char, kBlock> first{};
    const ssize_t got = pread(fd, first.data(), first.size(), 0);
    expect(got, "read", {});
    if (got < static_cast<ssize_t>(kBlock)) return;
    void* const map = mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) fail_errno("mmap");
    Block block;
    make_block(block, 0, random_.next());
    std::memcpy(map, block.data(), kBlock);
    if (random_.chance(30)) expect(msync(map, kBlock, MS_SYNC), "msync", {});
    munmap(map, kBlock);
  }

  void file_step() {
    if (open_.size() > 4 || (!open_.empty() && random_.chance(20))) {
      const std::size_t i = random_.below(open_.size());
      expect(close(open_[i]), "close", {});
      open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
    if (open_.empty() || random_.chance(40)) {
      const std::string path = file();
      const int flags = random_.one_of<int>({O_RDWR, O_RDWR | O_CREAT, O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_EXCL});
      const int fd = openat(root_, path.c_str(), flags | O_CLOEXEC, 0644);
      expect(fd, "open " + shown(path), {ENOENT, EEXIST, EISDIR, ENOTDIR, ELOOP});
      if (fd < 0) return;
      open_.push_back(fd);
      struct stat st {};
      expect(fstat(fd, &st), "fstat", {});
      if (st.st_size < static_cast<off_t>(kBlock)) {  // so that the first block is there
        Block block;
        make_block(block, 0, random_.next());
        expect(pwrite(fd, block.data(), kBlock, 0), "write", {});
      }
    }
    const int fd = random_.one_of(open_);
    switch (random_.below(10)) {
      case 0: return map_blocks(fd);
      case 1: return expect(fsync(fd), "fsync", {});
      case 2:
        return expect(ftruncate(fd, static_cast<off_t>((1 + random_.below(kMaxBlocks)) * kBlock)), "ftruncate", {});
      case 3:
        return expect(fallocate(fd, limits().clear_mode(), static_cast<off_t>((1 + random_.below(kMaxBlocks)) * kBlock),
                                static_cast<off_t>((1 + random_.below(20)) * kBlock)),
                      "punch", {});
      case 4:
      case 5:
      case 6: return check_blocks(fd);
      default: return write_blocks(fd);
    }
  }

  void list_step() {
    const std::string path = directory();
    const int fd = openat(root_, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    expect(fd, "open directory", {ENOENT, ENOTDIR, ELOOP});
    if (fd < 0) return;
    DIR* dir = fdopendir(fd);
    if (dir == nullptr) fail_errno("look at an open directory");
    errno = 0;
    while (const dirent* entry = readdir(dir)) {  // NOLINT(concurrency-mt-unsafe)
      struct stat st {};
      expect(fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW), "stat in a listing", {ENOENT});
      errno = 0;
    }
    if (errno != 0) fail_errno("read a directory");
    closedir(dir);
  }

  void step() {
    const std::uint64_t what = random_.below(100);
    if (what < 45) return file_step();
    const std::string a = either();
    const std::string b = either();
    struct stat st {};
    switch (what) {
      case 45:
      case 46:
      case 47:
      case 48:
      case 49:
      case 50:
      case 51:
      case 52:
      case 53:
      case 54: {
        const std::string path = directory() + "/" + random_.one_of(dirs_);
        return expect(mkdirat(root_, path.c_str(), 0755), "mkdir", {EEXIST, ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG});
      }
      case 55:
      case 56:
      case 57:
      case 58:
      case 59:
      case 60: return expect(unlinkat(root_, a.c_str(), 0), "unlink", {ENOENT, EISDIR, ENOTDIR, ELOOP});
      case 61:
      case 62:
      case 63:
        return expect(unlinkat(root_, a.c_str(), AT_REMOVEDIR), "rmdir",
                      {ENOENT, ENOTDIR, ENOTEMPTY, EEXIST, ELOOP, EINVAL});
      case 64:
      case 65:
      case 66:
      case 67:
      case 68:
      case 69:
      case 70:
      case 71: {
        const unsigned flags = random_.one_of<unsigned>({0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE});
        return expect(syscall(SYS_renameat2, root_, a.c_str(), root_, b.c_str(), flags), "rename",
                      {ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, ELOOP, EBUSY});
      }
      case 72:
      case 73:
      case 74:
      case 75:
        return expect(linkat(root_, a.c_str(), root_, b.c_str(), 0), "link", {ENOENT, EEXIST, EPERM, ENOTDIR, ELOOP});
      case 76:
      case 77:
        return expect(symlinkat(random_.one_of(files_).c_str(), root_, b.c_str()), "symlink",
                      {ENOENT, EEXIST, ENOTDIR, ELOOP});
      case 78:
      case 79:
      case 80:
      case 81:
      case 82:
        return expect(fstatat(root_, a.c_str(), &st, random_.chance(50) ? AT_SYMLINK_NOFOLLOW : 0), "stat",
                      {ENOENT, ENOTDIR, ELOOP});
      case 83:
      case 84: {
        std::array<char, 4096> target{};
        return expect(readlinkat(root_, a.c_str(), target.data(), target.size()), "readlink",
                      {ENOENT, EINVAL, ENOTDIR, ELOOP});
      }
      case 85:
      case 86:
        return expect(fchmodat(root_, a.c_str(), random_.chance(50) ? 0755 : 0711, 0), "chmod",
                      {ENOENT, ENOTDIR, ELOOP});
      case 87:
      case 88: return expect(utimensat(root_, a.c_str(), nullptr, 0), "utimens", {ENOENT, ENOTDIR, ELOOP});
      case 89:
      case 90: {
        const int fd = openat(root_, a.c_str(), O_RDONLY | O_CLOEXEC);
        expect(fd, "open", {ENOENT, ENOTDIR, ELOOP});
        if (fd < 0) return;
        expect(fsetxattr(fd, "user.race", "value", 5, 0), "setxattr", {});
        std::array<char, 64> value{};
        expect(fgetxattr(fd, "user.race", value.data(), value.size()), "getxattr", {});
        expect(fsync(fd), "fsync of what was opened", {});
        close(fd);
        return;
      }
      case 91: {
        struct statvfs fs {};
        return expect(fstatvfs(root_, &fs), "statfs", {});
      }
      default: return list_step();
    }
  }

  int root_;
  Random random_;
  std::vector<std::string> dirs_;
  std::vector<std::string> files_;
  std::vector<int> open_;
  std::uint64_t num_calls_ = 0;
  std::uint64_t num_refused_ = 0;
  std::uint64_t num_blocks_ = 0;
};

// digest reads all below `path` and gives a number that stands for it. A line of each entry goes to `list`, if there is
// one.
std::uint64_t digest(int dirfd, const std::string& path, std::uint64_t& num, std::FILE* list) {
  const int fd = openat(dirfd, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno("open " + shown(path));
  DIR* dir = fdopendir(fd);
  if (dir == nullptr) fail_errno("look at the open directory " + shown(path));
  std::set<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(dir)) {  // NOLINT(concurrency-mt-unsafe)
    const std::string name = entry->d_name;
    if (name != "." && name != ".." && !names.insert(name).second) fail("listed twice: " + shown(name));
    errno = 0;
  }
  if (errno != 0) fail_errno("read the directory " + shown(path));
  std::uint64_t sum = 1;
  for (const std::string& name : names) {
    ++num;
    for (const char c : name) sum = mix(sum + static_cast<unsigned char>(c));
    struct stat st {};
    if (fstatat(fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) fail_errno("stat " + shown(name));
    sum = mix(sum + st.st_mode + (S_ISDIR(st.st_mode) ? 0 : static_cast<std::uint64_t>(st.st_size)));
    sum = mix(sum + st.st_ino + (st.st_nlink << 32));
    std::uint64_t contents = 1;
    if (S_ISDIR(st.st_mode)) {
      contents = digest(fd, name, num, list);
    } else if (S_ISLNK(st.st_mode)) {
      std::array<char, 4096> target{};
      const ssize_t len = readlinkat(fd, name.c_str(), target.data(), target.size());
      if (len < 0) fail_errno("readlink " + shown(name));
      for (ssize_t i = 0; i < len; ++i)
        contents = mix(contents + static_cast<unsigned char>(target.at(static_cast<std::size_t>(i))));
    } else {
      const int file = openat(fd, name.c_str(), O_RDONLY | O_CLOEXEC);
      if (file < 0) fail_errno("open " + shown(name));
      Block block;
      for (std::uint64_t number = 0;; ++number) {
        const ssize_t got = read(file, block.data(), kBlock);
        if (got < 0) fail_errno("read " + shown(name) + " block " + std::to_string(number));
        if (got == 0) break;
        if (got != kBlock || !is_good(block, number)) {
          fail(shown(name) + " holds what was never written there, block " + std::to_string(number));
        }
        contents = mix(contents + block[1]);
      }
      close(file);
    }
    sum = mix(sum + contents);
    if (list != nullptr) {
      std::fprintf(list, "%s: inode %llu mode %o links %llu size %lld contents %016llx\n",
                   shown(path + "/" + name).c_str(), static_cast<unsigned long long>(st.st_ino), st.st_mode,
                   static_cast<unsigned long long>(st.st_nlink), static_cast<long long>(st.st_size),
                   static_cast<unsigned long long>(contents));
    }
  }
  closedir(dir);
  return sum;
}

}  // namespace

int race_part(const Arguments& args) {
  const int root = open(args.paths[0].c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) fail_errno("open " + args.paths[0]);
  const std::uint64_t seed = args.number("seed", 1);
  if (args.number("verify", 0) == 0) {
    const std::uint64_t workers = args.number("workers", 6);
    std::printf("race: seed %llu, %llu processes\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(workers));
    const double until = seconds_now() + static_cast<double>(args.number("seconds", 10));
    std::vector<pid_t> children;
    for (std::uint64_t i = 0; i < workers; ++i) {
      const pid_t pid = fork();
      if (pid < 0) fail_errno("fork");
      if (pid == 0) {
        Racer(root, seed * 1000 + i).run(until);
        std::fflush(stdout);
        std::_Exit(0);
      }
      children.push_back(pid);
    }
    bool all_good = true;
    for (const pid_t pid : children) {
      int status = 0;
      if (waitpid(pid, &status, 0) != pid || status != 0) all_good = false;
      if (WIFSIGNALED(status)) std::fprintf(stderr, "a process was ended by signal %d\n", WTERMSIG(status));
    }
    if (!all_good) return 1;
    // The kernel may hold to a directory's number of links that was overtaken, until it asks again.
    sleep(2);
  }
  std::FILE* list = args.paths.size() > 1 ? std::fopen(args.paths[1].c_str(), "we") : nullptr;
  std::uint64_t num = 0;
  const std::uint64_t sum = digest(root, ".", num, list);
  if (list != nullptr) std::fclose(list);
  std::printf("digest: %llu entries %016llx\n", static_cast<unsigned long long>(num),
              static_cast<unsigned long long>(sum));
  return 0;
}

}  // namespace ecfs::stress
