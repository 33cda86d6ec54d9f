// mount_stress PART PATH... [--NAME NUMBER]...
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/mount/stress/stress.h"

namespace ecfs::stress {

void Random::fill(std::uint8_t* out, std::size_t len) {
  std::size_t i = 0;
  for (; i + 8 <= len; i += 8) {
    const std::uint64_t v = engine_();
    std::memcpy(out + i, &v, 8);
  }
  for (; i < len; ++i) out[i] = static_cast<std::uint8_t>(engine_());
}

std::vector<std::uint8_t> Random::bytes(std::size_t len) {
  std::vector<std::uint8_t> out(len);
  fill(out.data(), len);
  return out;
}

std::uint64_t Random::place(std::uint64_t size, std::uint64_t max) {
  constexpr std::uint64_t kBlock = 4096;
  constexpr std::uint64_t kGroup = 63 * kBlock;
  std::uint64_t at = 0;
  switch (below(8)) {
    case 0: at = size; break;
    case 1: at = below(max / kBlock + 1) * kBlock; break;
    case 2: at = below(max / kGroup + 1) * kGroup; break;
    case 3: at = below(5000); break;
    case 4: at = below(max); break;
    case 5: at = size - (size < 3 * kBlock ? below(size) : below(3 * kBlock)); break;
    default: at = below(size + 1); break;
  }
  if (chance(25)) at += below(200);
  return at < max ? at : max;
}

std::uint64_t Random::length(std::uint64_t max) {
  std::uint64_t len = 0;
  switch (below(6)) {
    case 0: len = 1 + below(200); break;
    case 1: len = 4096 * (1 + below(6)); break;
    case 2: len = 1 + below(300'000); break;
    default: len = 1 + below(20'000); break;
  }
  return len < max ? len : max;
}

Limits& limits() noexcept {
  static Limits all;
  return all;
}

void fail(const std::string& what) {
  std::fprintf(stderr, "mount_stress: %s\n", what.c_str());
  std::fflush(stdout);
  std::_Exit(1);
}

void fail_errno(const std::string& what) {
  const int err = errno;
  fail(what + ": " + error_name(-err));
}

std::string shown(const std::string& name) {
  std::string out;
  for (const char c : name) out.push_back(c >= ' ' && c <= '~' ? c : '?');
  return out.size() > 60 ? out.substr(0, 20) + "...(" + std::to_string(name.size()) + ")" : out;
}

std::string error_name(long result) {
  if (result >= 0) return "ok " + std::to_string(result);
  const char* name = strerrorname_np(static_cast<int>(-result));
  return name != nullptr ? name : std::to_string(result);
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace ecfs::stress

int main(int argc, char** argv) {
  using namespace ecfs::stress;  // NOLINT: a test program
  static const std::map<std::string, int (*)(const Arguments&)> kParts{
      {"tree", tree_part}, {"race", race_part}, {"file", file_part}, {"kill", kill_part}, {"scale", scale_part}};
  const auto part = argc > 1 ? kParts.find(argv[1]) : kParts.end();
  Arguments args;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    if (!word.starts_with("--")) {
      args.paths.push_back(word);
    } else if (i + 1 < argc) {
      args.numbers[word.substr(2)] = std::strtoull(argv[++i], nullptr, 10);
    }
  }
  if (part == kParts.end() || args.paths.empty()) {
    std::fprintf(stderr, "usage: mount_stress tree|race|file|kill|scale PATH... [--NAME NUMBER]...\n");
    return 2;
  }
  limits().holes = args.number("holes", 1) != 0;
  limits().longest_name = args.number("longest-name", limits().longest_name);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return part->second(args);
}
