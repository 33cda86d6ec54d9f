// scale DIR --part N: what a mount has to bear in numbers. Prints figures; fails where something is wrong, not slow.
//
//   1  --dirs N --files N --threads N   makes N directories of N files; every tenth holds 100 bytes
//   2  --files N                        as many files open at once that have no name any more
//   3  --threads N --seconds N          as many threads at work, each checking what it wrote
//   4  --gib N --seed N [--verify 1]    a sparse file with data here and there; --verify: as a run before left it
//   5                                   lists DIR and looks at each entry
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>

#include "tests/mount/stress/stress.h"

namespace ecfs::stress {
namespace {

std::string numbered(const char* name, std::uint64_t n) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%s-%06llu", name, static_cast<unsigned long long>(n));
  return text.data();
}

void write_exactly(int fd, const void* data, std::size_t len, off_t at, const std::string& what) {
  if (pwrite(fd, data, len, at) != static_cast<ssize_t>(len)) fail_errno("write " + what);
}
void read_exactly(int fd, void* data, std::size_t len, off_t at, const std::string& what) {
  if (pread(fd, data, len, at) != static_cast<ssize_t>(len)) fail_errno("read " + what);
}

void make_many(const std::string& top, const Arguments& args) {
  const std::uint64_t dirs = args.number("dirs", 60);
  const std::uint64_t files = args.number("files", 1000);
  const std::uint64_t threads = args.number("threads", 4);
  const double begin = seconds_now();
  std::atomic<std::uint64_t> next{0};
  std::vector<std::thread> running;
  for (std::uint64_t t = 0; t < threads; ++t) {
    running.emplace_back([&] {
      const std::string text(100, 'x');
      for (std::uint64_t d = next++; d < dirs; d = next++) {
        const std::string dir = top + "/" + numbered("directory", d);
        if (mkdir(dir.c_str(), 0755) != 0) fail_errno("mkdir " + dir);
        const int dirfd = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0) fail_errno("open " + dir);
        for (std::uint64_t f = 0; f < files; ++f) {
          const std::string name = numbered("file", f);
          const int fd = openat(dirfd, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
          if (fd < 0) fail_errno("create " + dir + "/" + name);
          if (f % 10 == 0) write_exactly(fd, text.data(), text.size(), 0, name);
          if (close(fd) != 0) fail_errno("close " + name);
        }
        close(dirfd);
      }
    });
  }
  for (std::thread& t : running) t.join();
  const double took = seconds_now() - begin;
  std::printf("scale: made %llu files in %llu directories in %.1f s, %.0f a second\n",
              static_cast<unsigned long long>(dirs * files), static_cast<unsigned long long>(dirs), took,
              static_cast<double>(dirs * files) / took);
}

void hold_unlinked(const std::string& top, const Arguments& args) {
  const std::uint64_t num = args.number("files", 10'000);
  const rlimit limit{num + 100, num + 100};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) fail_errno("raise the limit on open files");
  const double begin = seconds_now();
  std::vector<int> fds;
  for (std::uint64_t i = 0; i < num; ++i) {
    const std::string path = top + "/" + numbered("unlinked", i);
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) fail_errno("create " + path);
    write_exactly(fd, path.data(), path.size(), 0, path);
    if (unlink(path.c_str()) != 0) fail_errno("unlink " + path);
    fds.push_back(fd);
  }
  for (std::uint64_t i = 0; i < num; ++i) {
    const std::string path = top + "/" + numbered("unlinked", i);
    std::string got(path.size(), '\0');
    read_exactly(fds[i], got.data(), got.size(), 0, path);
    struct stat st {};
    if (fstat(fds[i], &st) != 0) fail_errno("fstat " + path);
    if (got != path || st.st_nlink != 0 || st.st_size != static_cast<off_t>(path.size()))
      fail(path + " is not as it was");
    write_exactly(fds[i], path.data(), path.size(), 5000, path);
    read_exactly(fds[i], got.data(), got.size(), 5000, path);
    if (got != path) fail(path + " is not as it was written last");
  }
  for (const int fd : fds) {
    if (close(fd) != 0) fail_errno("close");
  }
  std::printf("scale: %llu files without a name open at once, written and read, %.1f s\n",
              static_cast<unsigned long long>(num), seconds_now() - begin);
}

void many_threads(const std::string& top, const Arguments& args) {
  const std::uint64_t num = args.number("threads", 64);
  const double until = seconds_now() + static_cast<double>(args.number("seconds", 5));
  std::atomic<std::uint64_t> rounds{0};
  std::vector<std::thread> running;
  for (std::uint64_t t = 0; t < num; ++t) {
    running.emplace_back([&, t] {
      Random random(t);
      const std::string path = top + "/" + numbered("thread", t);
      for (; seconds_now() < until; ++rounds) {
        const std::vector<std::uint8_t> data = random.bytes(1 + random.below(200'000));
        int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0) fail_errno("create " + path);
        write_exactly(fd, data.data(), data.size(), 0, path);
        if (random.chance(10) && fsync(fd) != 0) fail_errno("fsync " + path);
        if (close(fd) != 0) fail_errno("close " + path);
        const std::string moved = path + (random.chance(50) ? "-moved" : std::string(200, 'm'));
        if (rename(path.c_str(), moved.c_str()) != 0) fail_errno("rename " + path);
        fd = open(moved.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0) fail_errno("open " + moved);
        std::vector<std::uint8_t> got(data.size());
        read_exactly(fd, got.data(), got.size(), 0, moved);
        if (got != data) fail(moved + " reads otherwise than it was written");
        close(fd);
        if (unlink(moved.c_str()) != 0) fail_errno("unlink " + moved);
      }
    });
  }
  for (std::thread& t : running) t.join();
  std::printf("scale: %llu threads at once, %llu files written, moved, read and removed\n",
              static_cast<unsigned long long>(num), static_cast<unsigned long long>(rounds));
}

void sparse_file(const std::string& top, const Arguments& args) {
  constexpr std::size_t kPieces = 200;
  const std::uint64_t size = args.number("gib", 100) << 30;
  Random random(args.number("seed", 1));
  std::map<std::uint64_t, std::vector<std::uint8_t>> pieces;  // apart from each other
  for (std::size_t i = 0; i < kPieces; ++i) {
    const std::uint64_t slot = size / kPieces;
    const std::uint64_t at = i * slot + random.below(slot - 100'000);
    pieces[at] = random.bytes(1 + random.below(50'000));
  }
  const std::string path = top + "/sparse";
  const bool verify = args.number("verify", 0) != 0;
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | (verify ? 0 : O_CREAT | O_EXCL), 0600);
  if (fd < 0) fail_errno("open " + path);
  const double begin = seconds_now();
  if (!verify) {
    if (ftruncate(fd, static_cast<off_t>(size)) != 0) fail_errno("truncate " + path);
    for (const auto& [at, data] : pieces) {
      write_exactly(fd, data.data(), data.size(), static_cast<off_t>(at), path);
    }
    if (fsync(fd) != 0) fail_errno("fsync " + path);
  }
  std::vector<std::uint8_t> got;
  for (const auto& [at, data] : pieces) {
    got.assign(data.size() + 2, 1);
    read_exactly(fd, got.data(), got.size(), static_cast<off_t>(at - 1), path);
    if (got.front() != 0 || got.back() != 0 || !std::equal(data.begin(), data.end(), got.begin() + 1)) {
      fail(path + " reads otherwise than it was written at " + std::to_string(at));
    }
  }
  // Every piece lies in what is said to be data, and that is little.
  std::uint64_t data_bytes = 0;
  auto piece = pieces.begin();
  for (off_t from = 0;;) {
    const off_t data = lseek(fd, from, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    const off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    if (hole < 0) fail_errno("seek in " + path);
    if (piece != pieces.end() && piece->first < static_cast<std::uint64_t>(data))
      fail("data in what is said to be a hole");
    while (piece != pieces.end() && piece->first + piece->second.size() <= static_cast<std::uint64_t>(hole)) ++piece;
    data_bytes += static_cast<std::uint64_t>(hole - data);
    from = hole;
  }
  if (piece != pieces.end()) fail("data in what is said to be a hole");
  struct stat st {};
  if (fstat(fd, &st) != 0) fail_errno("fstat " + path);
  if (static_cast<std::uint64_t>(st.st_size) != size) fail(path + " has " + std::to_string(st.st_size) + " bytes");
  close(fd);
  std::printf("scale: a sparse file of %llu GiB, %zu pieces%s: %llu MiB on disk, %llu MiB said to be data, %.1f s\n",
              static_cast<unsigned long long>(size >> 30), kPieces, verify ? ", after a remount" : "",
              static_cast<unsigned long long>(st.st_blocks) >> 11, static_cast<unsigned long long>(data_bytes >> 20),
              seconds_now() - begin);
  if (data_bytes > 200U << 20) fail("most of a sparse file is said to be data");
}

void list(const std::string& top) {
  const double begin = seconds_now();
  DIR* dir = opendir(top.c_str());
  if (dir == nullptr) fail_errno("open " + top);
  std::uint64_t num = 0;
  errno = 0;
  while (const dirent* entry = readdir(dir)) {  // NOLINT(concurrency-mt-unsafe)
    struct stat st {};
    if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) fail_errno(entry->d_name);
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) ++num;
    errno = 0;
  }
  if (errno != 0) fail_errno("read " + top);
  closedir(dir);
  std::printf("%llu %.4f\n", static_cast<unsigned long long>(num), seconds_now() - begin);
}

}  // namespace

int scale_part(const Arguments& args) {
  const std::string& top = args.paths[0];
  switch (args.number("part", 0)) {
    case 1: make_many(top, args); return 0;
    case 2: hold_unlinked(top, args); return 0;
    case 3: many_threads(top, args); return 0;
    case 4: sparse_file(top, args); return 0;
    case 5: list(top); return 0;
    default: fail("scale: --part 1 to 5");
  }
}

}  // namespace ecfs::stress
