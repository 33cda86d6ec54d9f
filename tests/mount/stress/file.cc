// file PATH MODEL: operations on single files, by write, mapping, direct and second handles, against a copy in memory.
//
// --seed N, --seconds N or --ops N (of each file), --files N (PATH0, PATH1, ... each in a thread of its own). The
// copies are left in MODEL0, ...; a run that finds them there begins by comparing, so that a mount in between is tested
// too. What kinds of operations a file meets, and how large it grows, is drawn from the seed.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>

#include "tests/mount/stress/stress.h"

namespace ecfs::stress {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kBufferBytes = 3U << 20;

std::atomic<std::uint64_t> num_ops{0};       // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
std::atomic<std::uint64_t> num_compared{0};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

class OneFile {
 public:
  OneFile(std::string path, std::string model_path, std::uint64_t seed)
      : path_(std::move(path)), model_path_(std::move(model_path)), random_(seed) {
    max_size_ = random_.one_of<std::uint64_t>({5000, 60'000, 300'000, 1'300'000, 2'500'000});
    aligned_ = random_.chance(15);
    maps_ = random_.chance(75);
    holes_ = random_.chance(75);
    direct_ = random_.chance(40);
    truncates_ = random_.chance(80);
    buffer_ = static_cast<std::uint8_t*>(
        mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (buffer_ == MAP_FAILED) fail_errno("mmap");
    load();
    reopen();
    compare();
  }
  ~OneFile() {
    close_all();
    munmap(buffer_, kBufferBytes);
  }
  OneFile(const OneFile&) = delete;
  OneFile& operator=(const OneFile&) = delete;

  void run(double until, std::uint64_t ops) {
    for (std::uint64_t i = 0; i < ops && seconds_now() < until; ++i) {
      step();
      ++num_ops;
    }
    compare();
    close_all();
    store();
  }

 private:
  void load() {
    const int fd = open(model_path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    model_.resize(kBufferBytes);
    const ssize_t got = read(fd, model_.data(), model_.size());
    close(fd);
    if (got < 0) fail_errno("read " + model_path_);
    model_.resize(static_cast<std::size_t>(got));
  }
  void store() const {
    const int fd = open(model_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, model_.data(), model_.size()) != static_cast<ssize_t>(model_.size())) {
      fail_errno("write " + model_path_);
    }
    close(fd);
  }
  void reopen() {
    close_all();
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd_ < 0) fail_errno("open " + path_);
    if (direct_) {
      direct_fd_ = open(path_.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
      if (direct_fd_ < 0) fail_errno("open O_DIRECT " + path_);
    }
  }
  void close_all() {
    for (int* fd : {&fd_, &direct_fd_}) {
      if (*fd >= 0 && close(*fd) != 0) bad("close: " + error_name(-errno));
      *fd = -1;
    }
  }
  [[noreturn]] void bad(const std::string& what) const {
    std::string text = path_ + ", " + std::to_string(model_.size()) + " bytes: " + what + "\n  before it:";
    for (const std::string& line : history_) text += "\n    " + line;
    fail(text);
  }
  void note(std::string text) {
    history_.push_back(std::move(text));
    if (history_.size() > 60) history_.pop_front();
  }
  void must(bool good, const std::string& what) const {
    if (!good) bad(what + ": " + error_name(-errno));
  }
  void check(const std::uint8_t* got, std::uint64_t at, std::uint64_t len, const std::string& how) const {
    if (len == 0) return;
    const auto miss = std::mismatch(got, got + len, model_.begin() + static_cast<std::ptrdiff_t>(at));
    if (miss.first == got + len) {
      num_compared += len;
      return;
    }
    const std::uint64_t where = at + static_cast<std::uint64_t>(miss.first - got);
    bad(how + " gives another byte at " + std::to_string(where) + " (block " + std::to_string(where / kPage) +
        "): " + std::to_string(*miss.first) + " for " + std::to_string(*miss.second));
  }
  void compare() {
    struct stat st {};
    must(fstat(fd_, &st) == 0, "fstat");
    if (static_cast<std::uint64_t>(st.st_size) != model_.size()) bad("size is " + std::to_string(st.st_size));
    for (std::uint64_t at = 0; at < model_.size();) {
      const ssize_t got = pread(fd_, buffer_, kBufferBytes, static_cast<off_t>(at));
      must(got > 0, "read at " + std::to_string(at));
      check(buffer_, at, static_cast<std::uint64_t>(got), "reading all");
      at += static_cast<std::uint64_t>(got);
    }
  }

  std::uint64_t place() {
    const std::uint64_t at = random_.place(model_.size(), max_size_ - 1);
    return aligned_ ? at / kPage * kPage : at;
  }
  std::uint64_t length(std::uint64_t at) {
    std::uint64_t len = std::min(random_.length(max_size_), max_size_ - at);
    if (aligned_) len = std::max(len / kPage, std::uint64_t{1}) * kPage;
    return len;
  }
  void put(std::uint64_t at, std::uint64_t len) {  // from buffer_
    if (len == 0) return;
    if (model_.size() < at + len) model_.resize(at + len);
    std::copy_n(buffer_, len, model_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  static std::string range(const char* what, std::uint64_t at, std::uint64_t len) {
    return std::string(what) + " " + std::to_string(at) + " +" + std::to_string(len);
  }

  void step() {
    switch (random_.below(20)) {
      case 0: note("reopen"); return reopen();
      case 1: note("fsync"); return must((random_.chance(50) ? fsync(fd_) : fdatasync(fd_)) == 0, "fsync");
      case 2:
        note("drop pages");
        must(fsync(fd_) == 0, "fsync");
        posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
        return;
      case 3:
      case 4: return truncates_ ? truncate_step() : write_step();
      case 5:
      case 6: return holes_ ? allocate_step() : write_step();
      case 7:
      case 8:
      case 9: return maps_ ? map_step() : read_step();
      case 10:
      case 11:
      case 12:
      case 13: return read_step();
      default: return write_step();
    }
  }
  void truncate_step() {
    const std::uint64_t size = random_.chance(10) ? 0 : place();
    note("truncate " + std::to_string(size));
    must(ftruncate(fd_, static_cast<off_t>(size)) == 0, "truncate");
    model_.resize(size);
  }
  void allocate_step() {
    const std::uint64_t at = place();
    const std::uint64_t len = length(at);
    const bool punch = random_.chance(50);
    const bool keep = punch || random_.chance(50);
    const bool zero = punch || random_.chance(50);
    const int mode = (punch  ? FALLOC_FL_PUNCH_HOLE
                      : zero ? FALLOC_FL_ZERO_RANGE
                             : 0) |
                     (keep ? FALLOC_FL_KEEP_SIZE : 0);
    note(range(punch ? "punch" : zero ? "zero" : "allocate", at, len) + (keep ? " keep" : ""));
    must(fallocate(fd_, mode, static_cast<off_t>(at), static_cast<off_t>(len)) == 0, history_.back());
    if (!keep && model_.size() < at + len) model_.resize(at + len);
    const std::uint64_t end = std::min<std::uint64_t>(model_.size(), at + len);
    for (std::uint64_t i = at; zero && i < end; ++i) model_[i] = 0;
  }
  void write_step() {
    const bool direct = direct_fd_ >= 0 && random_.chance(30);
    std::uint64_t at = place();
    std::uint64_t len = length(at);
    if (direct) {
      at = at / kPage * kPage;
      len = std::max(len / kPage, std::uint64_t{1}) * kPage;
    }
    random_.fill(buffer_, len);
    note(range(direct ? "direct write" : "write", at, len));
    const ssize_t done = pwrite(direct ? direct_fd_ : fd_, buffer_, len, static_cast<off_t>(at));
    must(done == static_cast<ssize_t>(len), history_.back() + " gives " + std::to_string(done));
    put(at, len);
  }
  void read_step() {
    const bool direct = direct_fd_ >= 0 && random_.chance(30);
    std::uint64_t at = place();
    std::uint64_t len = length(at);
    if (direct) {
      at = at / kPage * kPage;
      len = std::max(len / kPage, std::uint64_t{1}) * kPage;
    }
    note(range(direct ? "direct read" : "read", at, len));
    const std::uint64_t there = at < model_.size() ? std::min<std::uint64_t>(len, model_.size() - at) : 0;
    const ssize_t got = pread(direct ? direct_fd_ : fd_, buffer_, len, static_cast<off_t>(at));
    must(got == static_cast<ssize_t>(there), history_.back() + " gives " + std::to_string(got));
    check(buffer_, at, there, history_.back());
  }
  void map_step() {
    if (model_.empty()) return;
    const std::uint64_t from = random_.below(model_.size()) / kPage * kPage;
    const std::uint64_t span = std::min<std::uint64_t>(model_.size() - from, 1 + random_.below(500'000));
    const std::uint64_t at = random_.below(span);
    const std::uint64_t len = std::min<std::uint64_t>(span - at, 1 + random_.below(30'000));
    const bool writes = random_.chance(60);
    const bool sync = random_.chance(30);
    note(range(writes ? "mapped write" : "mapped read", from + at, len) + (sync ? " msync" : ""));
    auto* const map = static_cast<std::uint8_t*>(
        mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, static_cast<off_t>(from)));
    must(map != MAP_FAILED, "mmap");
    if (writes) {
      random_.fill(buffer_, len);
      std::memcpy(map + at, buffer_, len);
      put(from + at, len);
      if (sync) must(msync(map, span, MS_SYNC) == 0, "msync");
    }
    check(map + at, from + at, len, history_.back());
    munmap(map, span);
  }

  const std::string path_;
  const std::string model_path_;
  Random random_;
  std::uint64_t max_size_ = 0;
  bool aligned_ = false;
  bool maps_ = false;
  bool holes_ = false;
  bool direct_ = false;
  bool truncates_ = false;
  int fd_ = -1;
  int direct_fd_ = -1;
  std::vector<std::uint8_t> model_;
  std::uint8_t* buffer_;
  std::deque<std::string> history_;
};

}  // namespace

int file_part(const Arguments& args) {
  if (args.paths.size() != 2) fail("usage: file PATH MODEL");
  const std::uint64_t seed = args.number("seed", 1);
  const std::uint64_t files = args.number("files", 4);
  std::printf("file: seed %llu, %llu files\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(files));
  const double until = seconds_now() + static_cast<double>(args.number("seconds", 10));
  std::vector<std::thread> running;
  for (std::uint64_t i = 0; i < files; ++i) {
    running.emplace_back([&args, i, seed, until] {
      OneFile file(args.paths[0] + std::to_string(i), args.paths[1] + std::to_string(i), seed * 1000 + i);
      file.run(until, args.number("ops", ~0ULL));
    });
  }
  for (std::thread& t : running) t.join();
  std::printf("file: %llu operations, %llu MiB compared\n", static_cast<unsigned long long>(num_ops),
              static_cast<unsigned long long>(num_compared >> 20));
  return num_ops > 0 ? 0 : 1;
}

}  // namespace ecfs::stress
