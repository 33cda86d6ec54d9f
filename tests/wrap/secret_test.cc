#include "wrap/base/secret.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cstring>

#include "tests/wrap/memory_flags.h"
#include "tests/wrap/testing.h"
#include "tests/wrap/tracing.h"

namespace ecfs {
namespace {

// Runs `what` in a child and gives the signal that ended it, 0 for none.
template <class F>
int signal_of(F&& what) {
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGSEGV, SIG_DFL);
    what();
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void touch(const std::uint8_t* at) {
  [[maybe_unused]] const std::uint8_t b = *const_cast<const volatile std::uint8_t*>(at);
}

TEST(Secret, PagesAreLockedAndLeftOutOfCores) {
  const Secret s = ok(Secret::of_size(100));
  const std::string flags = flags_of(s.reveal().data());
  EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;
#ifdef ECFS_SANITIZED
  GTEST_SKIP() << "the sanitizer turns mlock off";
#else
  EXPECT_NE(flags.find(" lo "), std::string::npos) << flags;
#endif
}

TEST(Secret, FencesOnBothSides) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (const std::size_t len : {std::size_t{1}, std::size_t{32}, page - 1, page, page + 1}) {
    const Secret s = ok(Secret::of_size(len));
    const std::uint8_t* begin = s.reveal().data();
    EXPECT_EQ(signal_of([&] { touch(begin); }), 0);
    EXPECT_EQ(signal_of([&] { touch(begin + len - 1); }), 0);
    EXPECT_EQ(signal_of([&] { touch(begin + len); }), SIGSEGV) << len;
    const std::size_t inner = (len + page - 1) / page * page;
    EXPECT_EQ(signal_of([&] { touch(begin + len - inner - 1); }), SIGSEGV) << len;
  }
}

TEST(Secret, IsWipedBeforeItsPagesGo) {
  constexpr std::string_view kCanary = "canary-canary-canary";
  // A child frees a secret and is looked at when it asks the kernel to unmap the pages.
  std::array<std::uint64_t, 2> told{};
  int unmapped = 0;
  const Traced end = trace(
      [&] {
        Secret s = ok(Secret::copy_of(as_bytes(kCanary)));
        const auto at = reinterpret_cast<std::uintptr_t>(s.reveal().data());
        syscall(SYS_getpriority, 4711, at);  // fails, and tells the tracer the address
        s.clear();
        return s.empty();
      },
      [&](const SystemCall& call) {
        if (call.number == SYS_getpriority && call.args[0] == 4711) {
          EXPECT_EQ(as_text(call.memory(call.args[1], kCanary.size())), kCanary);
          told = {call.args[1], call.args[1] + kCanary.size()};
        }
        if (call.number == SYS_munmap && told[0] > call.args[0] && told[1] <= call.args[0] + call.args[1]) {
          ++unmapped;
          EXPECT_EQ(call.memory(told[0], kCanary.size()), Bytes(kCanary.size(), 0));
        }
        return true;
      });
  EXPECT_EQ(end, Traced::kDone);
  EXPECT_EQ(unmapped, 1);
}

TEST(Secret, ShrinkingWipesTheRest) {
  Secret s = secret_of("0123456789abcdef");
  const std::uint8_t* begin = s.reveal().data();
  s.shrink(4);
  EXPECT_EQ(as_text(s.reveal()), "0123");
  EXPECT_TRUE(all_zero({begin + 4, 12}));
  std::array<std::uint8_t, 8> b = {1, 2, 3, 4, 5, 6, 7, 8};
  wipe(b);
  EXPECT_TRUE(all_zero(b));
}

TEST(Secret, MovesAndNeverCopies) {
  static_assert(!std::is_copy_constructible_v<Secret> && !std::is_copy_assignable_v<Secret>);
  Secret a = secret_of("abc");
  Secret b = std::move(a);
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): what is promised
  EXPECT_EQ(as_text(b.reveal()), "abc");
  Secret c = secret_of("other");
  c = std::move(b);
  EXPECT_EQ(as_text(c.reveal()), "abc");
  const Secret d = ok(c.clone());
  EXPECT_TRUE(d.equals(c));
  EXPECT_NE(d.reveal().data(), c.reveal().data());
  EXPECT_FALSE(d.equals(secret_of("abd")));
  EXPECT_FALSE(d.equals(Secret()));
}

TEST(Secret, SizesAtTheEdges) {
  EXPECT_TRUE(ok(Secret::of_size(0)).empty());
  EXPECT_EQ(code_of(Secret::of_size(SIZE_MAX)), Code::kInvalid);
  EXPECT_TRUE(all_zero(ok(Secret::of_size(5000)).reveal()));
  EXPECT_FALSE(all_zero(ok(Secret::random(32)).reveal()));
}

TEST(Secret, LimitOnLockedMemoryIsNamed) {
#ifdef ECFS_SANITIZED
  GTEST_SKIP() << "the sanitizer turns mlock off";
#else
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit none{0, 0};
    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0) _exit(2);
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(3);  // root is not limited
    const auto s = Secret::of_size(32);
    const bool told = !s && s.error().code == Code::kNoMemory && s.error().what.find("ulimit -l") != std::string::npos;
    _exit(told ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
#endif
}

TEST(Secret, NoCoreDumps) {
  const pid_t pid = fork();
  if (pid == 0) {
    rlimit limit{};
    const bool done = no_core_dumps().has_value() && getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0;
    _exit(done ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ecfs
