// What the parts of mount_stress share. The program does to a mount what takes too long in a script: random operations
// beside a mirror, races, a single file, writers whose server is killed, many files. Every part ends the process with
// status 1 and an explanation when something is wrong.
#pragma once

#include <linux/falloc.h>

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace ecfs::stress {

// Arguments is the command line behind the part's name: paths, and --name value.
struct Arguments {
  std::vector<std::string> paths;
  std::map<std::string, std::uint64_t> numbers;
  [[nodiscard]] std::uint64_t number(const std::string& name, std::uint64_t otherwise) const {
    const auto found = numbers.find(name);
    return found == numbers.end() ? otherwise : found->second;
  }
};

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t next() { return engine_(); }
  // below gives 0..n-1, and 0 for n = 0.
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : engine_() % n; }
  bool chance(unsigned percent) { return below(100) < percent; }
  template <class T>
  const T& one_of(const std::vector<T>& all) {
    return all[below(all.size())];
  }
  void fill(std::uint8_t* out, std::size_t len);
  std::vector<std::uint8_t> bytes(std::size_t len);
  // place gives an offset as programs use them: at borders of blocks and groups, near the end, anywhere below `max`.
  std::uint64_t place(std::uint64_t size, std::uint64_t max);
  std::uint64_t length(std::uint64_t max);

 private:
  std::mt19937_64 engine_;
};

// What the filesystem under test is able to do: --holes 0 and --longest-name N, of every part.
struct Limits {
  bool holes = true;
  std::size_t longest_name = 255;
  // clear_mode is the mode of fallocate(2) that makes zeros of a part of a file.
  [[nodiscard]] int clear_mode() const noexcept {
    return (holes ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
  }
};
Limits& limits() noexcept;

// fail prints and ends the process at once.
[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail_errno(const std::string& what);
std::string shown(const std::string& name);  // printable
std::string error_name(long result);         // of a negative errno, "ok" else
double seconds_now();

int tree_part(const Arguments& args);
int race_part(const Arguments& args);
int file_part(const Arguments& args);
int kill_part(const Arguments& args);
int scale_part(const Arguments& args);

}  // namespace ecfs::stress
