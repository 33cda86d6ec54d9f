#include "wrap/kdf.h"

#include <argon2.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <ctime>
#include <string>

#include "wrap/base/file.h"

namespace ecfs::wrap {
namespace {

constexpr double kTargetSeconds = 0.7;
constexpr std::uint32_t kDefaultMemoryKib = 256 * 1024;
constexpr std::uint32_t kPlentyKib = 1024 * 1024;
constexpr std::uint32_t kLanes = 4;
constexpr std::uint32_t kFewestPasses = 3;
constexpr std::uint32_t kMostPasses = 16;

// libargon2 wipes the memory itself (clear_internal_memory) before it calls release_memory.
int take_memory(std::uint8_t** memory, std::size_t bytes) {
  void* mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return ARGON2_MEMORY_ALLOCATION_ERROR;
  (void)madvise(mapping, bytes, MADV_DONTDUMP);
  *memory = static_cast<std::uint8_t*>(mapping);
  return ARGON2_OK;
}

void release_memory(std::uint8_t* memory, std::size_t bytes) { munmap(memory, bytes); }

std::uint32_t usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<std::uint32_t>(std::max(1, CPU_COUNT(&set)));
}

double now_seconds() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Files of proc and cgroupfs say that they have no bytes, so read_file would believe it.
std::string read_small(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Bytes bytes(16384);
  if (!fd) return {};
  auto done = read_full(fd.get(), bytes);
  return done ? std::string(as_text(ByteView(bytes).first(*done))) : std::string();
}

std::uint64_t number_at(std::string_view text, std::uint64_t otherwise) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} ? value : otherwise;
}

// Memory that can be had without pushing others out: the system's, or what the control groups (v2) leave of it.
std::uint64_t available_kib() {
  std::uint64_t available = kPlentyKib;
  const std::string meminfo = read_small("/proc/meminfo");
  constexpr std::string_view kField = "MemAvailable:";
  if (const auto at = meminfo.find(kField); at != std::string::npos) {
    available = number_at(std::string_view(meminfo).substr(at + kField.size()), available);
  }
  const std::string groups = read_small("/proc/self/cgroup");
  const auto at = groups.rfind("0::/");
  if (at == std::string::npos) return available;
  for (std::string group = groups.substr(at + 3, groups.find('\n', at) - at - 3); !group.empty();
       group.resize(group.rfind('/'))) {
    const std::string dir = "/sys/fs/cgroup" + group;
    const std::uint64_t limit = number_at(read_small(dir + "/memory.max"), UINT64_MAX);  // "max": no limit
    const std::uint64_t used = number_at(read_small(dir + "/memory.current"), 0);
    if (limit != UINT64_MAX) available = std::min(available, (limit - std::min(limit, used)) / 1024);
  }
  return available;
}

Status run(const Secret& passphrase, ByteView salt, const Argon2Cost& cost, std::uint32_t threads, Secret& out) {
  argon2_context context{};
  context.out = out.reveal_mutable().data();
  context.outlen = static_cast<std::uint32_t>(out.size());
  // The library takes non-const pointers, but writes to neither without the flags that ask for it.
  context.pwd = const_cast<std::uint8_t*>(passphrase.reveal().data());  // NOLINT
  context.pwdlen = static_cast<std::uint32_t>(passphrase.size());
  context.salt = const_cast<std::uint8_t*>(salt.data());  // NOLINT
  context.saltlen = static_cast<std::uint32_t>(salt.size());
  context.t_cost = cost.passes;
  context.m_cost = cost.memory_kib;
  context.lanes = cost.lanes;
  context.threads = threads;
  context.version = ARGON2_VERSION_13;
  context.allocate_cbk = take_memory;
  context.free_cbk = release_memory;
  context.flags = ARGON2_DEFAULT_FLAGS;
  switch (const int rc = argon2id_ctx(&context)) {
    case ARGON2_OK: return {};
    case ARGON2_MEMORY_ALLOCATION_ERROR:
      return Error{Code::kNoMemory, 0,
                   "Argon2id: " + std::to_string(cost.memory_kib / 1024) + " MiB of memory are not to be had"};
    case ARGON2_THREAD_FAIL: return Error{Code::kUnavailable, 0, "Argon2id: no threads"};
    default: return Error{Code::kInvalid, 0, std::string("Argon2id: ") + argon2_error_message(rc)};
  }
}

}  // namespace

Status check_cost_readable(const Argon2Cost& cost) {
  const auto refuse = [](const char* why) {
    return Error{Code::kCorrupt, 0, std::string("the cost of the password's key derivation is ") + why};
  };
  if (cost.lanes == 0 || cost.passes == 0 || cost.memory_kib / 8 < cost.lanes) return refuse("too small to be one");
  if (cost.lanes > kCeilingLanes || cost.passes > kCeilingPasses || cost.memory_kib > kCeilingMemoryKib ||
      std::uint64_t{cost.memory_kib} * cost.passes > kCeilingWorkKib) {
    return refuse("larger than this program ever makes it");
  }
  return {};
}

Status check_cost_writable(const Argon2Cost& cost) {
  if (cost.memory_kib < kFloorMemoryKib || cost.passes < kFloorPasses) {
    return Error{Code::kInvalid, 0, "the key derivation needs at least 19 MiB of memory and 2 passes"};
  }
  if (auto readable = check_cost_readable(cost); !readable) {
    return Error{
        Code::kInvalid, 0,
        "the key derivation takes at most 1 GiB of memory, 64 passes, 16 lanes, and 16 GiB of memory times passes"};
  }
  return {};
}

Result<Argon2Cost> calibrate() {
  Argon2Cost cost{kDefaultMemoryKib, 1, kLanes};
  if (available_kib() < kPlentyKib) cost.memory_kib = kUnaskedMemoryKib;
  ECFS_LET(const Secret passphrase, Secret::random(16));
  ECFS_LET(const Secret salt, Secret::random(16));
  for (;;) {
    const double begin = now_seconds();
    ECFS_LET(const Secret unused, argon2id(passphrase, salt.reveal(), cost, 32));
    const double pass = std::max(now_seconds() - begin, 1e-6);
    if (pass > kTargetSeconds && cost.memory_kib > kUnaskedMemoryKib) {
      cost.memory_kib = kUnaskedMemoryKib;  // a slow machine: three such passes would make every login wait
      continue;
    }
    const auto passes = static_cast<std::uint32_t>(std::min(kTargetSeconds / pass, double{kMostPasses}));
    cost.passes = std::clamp(passes, kFewestPasses, kMostPasses);
    return cost;
  }
}

Result<Secret> argon2id(const Secret& passphrase, ByteView salt, const Argon2Cost& cost, std::size_t len) {
  ECFS_TRY(check_cost_readable(cost));
  ECFS_LET(Secret out, Secret::of_size(len));
  auto done = run(passphrase, salt, cost, std::min(cost.lanes, usable_cpus()), out);
  // A limit on the user's processes must not cost him his login; the result does not depend on the threads.
  if (!done && done.error().code == Code::kUnavailable) done = run(passphrase, salt, cost, 1, out);
  if (!done) return std::move(done).error();
  return out;
}

}  // namespace ecfs::wrap
