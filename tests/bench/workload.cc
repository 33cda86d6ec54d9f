// bench_workload: the reads and writes that tests/bench times, in one program for all filesystems.
//
//   bench_workload write     FILE JOBS BYTES            each job its own FILE.0, FILE.1, …; fsync inside the time
//   bench_workload read      FILE JOBS BYTES            the same files from front to back
//   bench_workload randread  FILE JOBS COUNT SECONDS    one file, 4 KiB each, no block twice; at most so many seconds
//   bench_workload randwrite FILE JOBS COUNT SECONDS    the same, written; fsync inside the time
//   bench_workload evict     FILE JOBS                  drops what the kernel caches of the files, not of what is below
//
// Prints `seconds N bytes N`. Every 4 KiB block begins with its own number and a check of it, and what is read is
// compared: a filesystem that is fast with wrong bytes has no result, but exit status 1.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kChunk = 128 * 1024;  // of one read or write of a stream
constexpr std::uint64_t kMark = 0x9e3779b97f4a7c15U;

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

// Bytes that no filesystem can compress, the same in every block but for its number.
std::vector<char> noise(std::size_t size) {
  std::vector<char> out(size);
  std::mt19937_64 random(4711);
  for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
    const std::uint64_t word = random();
    std::memcpy(&out[at], &word, sizeof word);
  }
  return out;
}

void number(char* block, std::uint64_t n) {
  const std::uint64_t words[2] = {n, n * kMark};
  std::memcpy(block, words, sizeof words);
}

void check(const char* block, std::uint64_t n) {
  std::uint64_t words[2];
  std::memcpy(words, block, sizeof words);
  if (words[0] == n && words[1] == n * kMark) return;
  std::fprintf(stderr, "block %llu holds other bytes than were written\n", static_cast<unsigned long long>(n));
  std::exit(1);
}

class File {
 public:
  File(const std::string& path, int flags) : path_(path), fd_(open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) fail(path);
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] int fd() const { return fd_; }
  void read_at(char* out, std::size_t size, std::uint64_t at) const {
    for (std::size_t done = 0; done < size;) {
      const ssize_t n = pread(fd_, out + done, size - done, static_cast<off_t>(at + done));
      if (n <= 0) fail("read " + path_);
      done += static_cast<std::size_t>(n);
    }
  }
  void write_at(const char* bytes, std::size_t size, std::uint64_t at) const {
    for (std::size_t done = 0; done < size;) {
      const ssize_t n = pwrite(fd_, bytes + done, size - done, static_cast<off_t>(at + done));
      if (n <= 0) fail("write " + path_);
      done += static_cast<std::size_t>(n);
    }
  }
  void sync() const {
    if (fsync(fd_) != 0) fail("fsync " + path_);
  }
  [[nodiscard]] std::uint64_t size() const {
    struct stat st {};
    if (fstat(fd_, &st) != 0) fail("stat " + path_);
    return static_cast<std::uint64_t>(st.st_size);
  }

 private:
  std::string path_;
  int fd_;
};

std::string name_of(const std::string& file, unsigned job) { return file + "." + std::to_string(job); }

void in_parallel(unsigned jobs, const std::function<void(unsigned)>& work) {
  if (jobs == 1) return work(0);
  std::vector<std::thread> threads;
  for (unsigned j = 0; j < jobs; ++j) threads.emplace_back(work, j);
  for (std::thread& t : threads) t.join();
}

std::uint64_t write_streams(const std::string& path, unsigned jobs, std::uint64_t size) {
  in_parallel(jobs, [&](unsigned job) {
    std::vector<char> buffer = noise(kChunk);
    const File file(name_of(path, job), O_WRONLY | O_CREAT | O_TRUNC);
    for (std::uint64_t at = 0; at < size; at += kChunk) {
      for (std::size_t b = 0; b < kChunk; b += kBlock) number(&buffer[b], (at + b) / kBlock);
      file.write_at(buffer.data(), std::min<std::uint64_t>(kChunk, size - at), at);
    }
    file.sync();
  });
  return size * jobs;
}

std::uint64_t read_streams(const std::string& path, unsigned jobs, std::uint64_t size) {
  in_parallel(jobs, [&](unsigned job) {
    std::vector<char> buffer(kChunk);
    const File file(name_of(path, job), O_RDONLY);
    for (std::uint64_t at = 0; at < size; at += kChunk) {
      const std::size_t len = std::min<std::uint64_t>(kChunk, size - at);
      file.read_at(buffer.data(), len, at);
      for (std::size_t b = 0; b < len; b += kBlock) check(&buffer[b], (at + b) / kBlock);
    }
  });
  return size * jobs;
}

std::uint64_t random_blocks(const std::string& path, unsigned jobs, std::uint64_t count, double seconds, bool writes) {
  std::uint64_t num_blocks = 0;
  {
    const File file(name_of(path, 0), O_RDONLY);
    num_blocks = file.size() / kBlock;
  }
  std::vector<std::uint32_t> order(num_blocks);
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(static_cast<std::uint64_t>(getpid())));
  order.resize(std::min(num_blocks, count));
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::atomic<std::uint64_t> done{0};
  in_parallel(jobs, [&](unsigned job) {
    std::vector<char> buffer = noise(kBlock);
    const File file(name_of(path, 0), writes ? O_WRONLY : O_RDONLY);
    std::uint64_t mine = 0;
    for (std::size_t i = job; i < order.size() && Clock::now() < deadline; i += jobs) {
      const std::uint64_t block = order[i];
      if (writes) {
        number(buffer.data(), block);
        file.write_at(buffer.data(), kBlock, block * kBlock);
      } else {
        file.read_at(buffer.data(), kBlock, block * kBlock);
        check(buffer.data(), block);
      }
      ++mine;
    }
    if (writes) file.sync();
    done += mine;
  });
  return done * kBlock;
}

void evict(const std::string& path, unsigned jobs) {
  for (unsigned job = 0; job < jobs; ++job) {
    const File file(name_of(path, job), O_RDONLY);
    file.sync();
    if (const int err = posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED); err != 0) {
      errno = err;
      fail("evict");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() < 3) {
    std::fputs("usage: bench_workload write|read|randread|randwrite|evict FILE JOBS [BYTES|COUNT [SECONDS]]\n", stderr);
    return 2;
  }
  const std::string& what = args[0];
  const std::string& path = args[1];
  const auto jobs = static_cast<unsigned>(std::stoul(args[2]));
  const std::uint64_t amount = args.size() > 3 ? std::stoull(args[3]) : 0;
  const double cap = args.size() > 4 ? std::stod(args[4]) : 3600;
  std::uint64_t bytes = 0;
  const auto begin = Clock::now();
  if (what == "write") {
    bytes = write_streams(path, jobs, amount);
  } else if (what == "read") {
    bytes = read_streams(path, jobs, amount);
  } else if (what == "randread" || what == "randwrite") {
    bytes = random_blocks(path, jobs, amount, cap, what == "randwrite");
  } else if (what == "evict") {
    evict(path, jobs);
  } else {
    return 2;
  }
  const std::chrono::duration<double> took = Clock::now() - begin;
  std::printf("seconds %.6f bytes %llu\n", took.count(), static_cast<unsigned long long>(bytes));
  return 0;
}
