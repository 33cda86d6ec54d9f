// Pages that can be recognised, for the test of encrypted swap.
//
//     swap_pages hold MIB WORD FILE    fills MIB of memory with lines of WORD, has the kernel swap them out, prints
//     "out", and
//                                      when FILE is there reads them back: "intact", or status 1
//     swap_pages count WORD DEVICE     how many such lines are on a device, past what the kernel remembers of it
//     swap_pages nonzero DEVICE        how many bytes there are not zero
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kLine = 64;

// The line has its number, so that pages in another order are noticed.
std::array<char, kLine> line_of(const std::string& word, std::size_t number) {
  std::array<char, kLine> out{};
  std::snprintf(out.data(), out.size(), "CANARY %s %zu", word.c_str(), number);
  return out;
}

// The kB in a line "NAME:  123 kB" of a file in /proc; nothing else looks like it there.
std::size_t kb_of(const char* file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name + ":")) return std::strtoul(line.c_str() + name.size() + 1, nullptr, 10);
  }
  return 0;
}

// Swapped out, and written by the device below.
bool is_out(std::size_t len) {
  return kb_of("/proc/self/smaps_rollup", "Swap") * 1024 >= len && kb_of("/proc/meminfo", "Writeback") == 0;
}

int hold(std::size_t mib, const std::string& word, const char* file) {
  const std::size_t len = mib << 20;
  void* const memory = mmap(nullptr, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  char* const bytes = static_cast<char*>(memory);
  for (std::size_t i = 0; i < len / kLine; ++i) std::memcpy(bytes + i * kLine, line_of(word, i).data(), kLine);
  // A machine without a processor of its own takes a while.
  for (int i = 0; i < 300 && !is_out(len); ++i) {
    if (madvise(memory, len, MADV_PAGEOUT) != 0) return 1;
    usleep(100000);
  }
  std::puts("out");
  std::fflush(stdout);
  while (access(file, F_OK) != 0) usleep(50000);
  for (std::size_t i = 0; i < len / kLine; ++i) {
    if (std::memcmp(bytes + i * kLine, line_of(word, i).data(), kLine) != 0) return 1;
  }
  std::puts("intact");
  return 0;
}

template <class Each>
int scan(const char* device, Each&& each) {
  const int fd = open(device, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 1;
  (void)ioctl(fd, BLKFLSBUF, 0);
  std::vector<char> buffer(1U << 20);
  ssize_t n = 0;
  while ((n = read(fd, buffer.data(), buffer.size())) > 0) each(buffer.data(), static_cast<std::size_t>(n));
  close(fd);
  return n < 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  std::uint64_t count = 0;
  int status = 2;
  if (args.size() == 4 && args[0] == "hold") {
    return hold(std::strtoul(args[1].c_str(), nullptr, 10), args[2], args[3].c_str());
  }
  if (args.size() == 3 && args[0] == "count") {
    const std::string start = "CANARY " + args[1] + " ";
    status = scan(args[2].c_str(), [&](const char* bytes, std::size_t len) {
      for (std::size_t i = 0; i + kLine <= len; i += kLine) {
        if (std::memcmp(bytes + i, start.data(), start.size()) == 0) ++count;
      }
    });
  } else if (args.size() == 2 && args[0] == "nonzero") {
    status = scan(args[1].c_str(), [&](const char* bytes, std::size_t len) {
      for (std::size_t i = 0; i < len; ++i) count += bytes[i] != 0 ? 1 : 0;
    });
  }
  if (status == 0) std::printf("%llu\n", static_cast<unsigned long long>(count));
  return status;
}
