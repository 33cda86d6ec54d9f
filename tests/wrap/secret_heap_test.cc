#include "wrap/base/secret_heap.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/wrap/memory_flags.h"
#include "tests/wrap/testing.h"
#include "wrap/base/fd.h"
#include "wrap/base/locked_pages.h"

namespace ecfs {
namespace {

// Runs `what` in a child; gives its exit status, or 128 + the signal that ended it.
template <class F>
int status_of(F&& what) {
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGABRT, SIG_DFL);
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    _exit(what());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::uint8_t* bytes(void* piece) { return static_cast<std::uint8_t*>(piece); }

TEST(SecretHeap, PiecesAreAlignedApartAndNotDumped) {
  std::map<std::uint8_t*, std::size_t> pieces;
  for (std::size_t len = 0; len < 70000; len = len * 9 / 8 + 1) {
    void* piece = secret_alloc(len);
    ASSERT_NE(piece, nullptr) << len;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(piece) % 16, 0U);
    std::memset(piece, static_cast<int>(len & 0xff), len);
    pieces.emplace(bytes(piece), len);
  }
  const std::uint8_t* end = nullptr;
  for (const auto& [piece, len] : pieces) {
    EXPECT_GE(piece, end);
    end = piece + len;
    EXPECT_NE(flags_of(piece).find(" dd "), std::string::npos) << len;
    EXPECT_TRUE(std::all_of(piece, piece + len, [fill = len & 0xff](std::uint8_t b) { return b == fill; })) << len;
  }
  for (const auto& [piece, len] : pieces) secret_free(piece);
}

TEST(SecretHeap, FreeingWipes) {
  for (const std::size_t len : {std::size_t{16}, std::size_t{100}, std::size_t{1024}, std::size_t{30000}}) {
    auto* piece = bytes(secret_alloc(len));
    std::memset(piece, 0x5a, len);
    secret_free(piece);
    EXPECT_TRUE(all_zero({piece, len})) << len;  // NOLINT(clang-analyzer-*): the pages stay with the process
  }
}

TEST(SecretHeap, MovingKeepsTheBytesAndWipesTheOldPlace) {
  auto* piece = bytes(secret_alloc(8));
  std::memcpy(piece, "12345678", 8);
  for (const std::size_t len :
       {std::size_t{20}, std::size_t{3000}, std::size_t{40000}, std::size_t{90000}, std::size_t{8}}) {
    const std::uint8_t* const before = piece;
    const bool stays_mapped = len <= 40000;
    piece = bytes(secret_realloc(piece, len));
    ASSERT_NE(piece, nullptr);
    EXPECT_EQ(as_text({piece, 8}), "12345678");
    if (stays_mapped && len > 8) {
      EXPECT_TRUE(all_zero({before, 8})) << len;
    }
  }
  secret_free(piece);
  secret_free(secret_realloc(nullptr, 5));
  EXPECT_EQ(secret_alloc(SIZE_MAX), nullptr);
  secret_free(nullptr);
}

TEST(SecretHeap, AnOrdinaryPieceBecomesSecretWhenItMoves) {
  auto* piece = bytes(ordinary_alloc(100));
  ASSERT_NE(piece, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(piece) % 16, 0U);
  EXPECT_EQ(flags_of(piece).find(" dd "), std::string::npos);
  std::memset(piece, 0x5a, 100);
  piece = bytes(secret_realloc(piece, 5000));
  ASSERT_NE(piece, nullptr);
  EXPECT_NE(flags_of(piece).find(" dd "), std::string::npos);
  EXPECT_TRUE(std::all_of(piece, piece + 100, [](std::uint8_t b) { return b == 0x5a; }));
  secret_free(piece);
  EXPECT_EQ(ordinary_alloc(SIZE_MAX), nullptr);
  for (const std::size_t len : {std::size_t{0}, std::size_t{40}, std::size_t{1} << 20})
    secret_free(ordinary_alloc(len));
}

TEST(SecretHeap, MemoryIsUsedAgain) {
  std::set<void*> seen;
  for (int i = 0; i < 10000; ++i) {
    void* piece = secret_alloc(1100);
    seen.insert(piece);
    secret_free(piece);
  }
  EXPECT_LT(seen.size(), 10U);
}

TEST(SecretHeap, MisuseEndsTheProcess) {
  EXPECT_EQ(status_of([] {
              void* piece = secret_alloc(64);
              secret_free(piece);
              secret_free(piece);  // NOLINT: the point of it
              return 0;
            }),
            128 + SIGABRT);
  EXPECT_EQ(status_of([] {
              std::array<std::uint8_t, 64> foreign{};
              secret_free(&foreign[32]);
              return 0;
            }),
            128 + SIGABRT);
}

// Pieces wander between threads; each holds a pattern that nobody else may write to.
TEST(SecretHeap, ThreadsShareIt) {
  constexpr int kThreads = 8;
  constexpr int kRounds = 20000;
  struct Piece {
    std::uint8_t* at = nullptr;
    std::size_t len = 0;
    std::uint8_t mark = 0;
  };
  std::mutex mutex;
  std::vector<Piece> shared;
  std::atomic<int> broken{0};
  const auto work = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < kRounds; ++i) {
      Piece piece;
      piece.len = random() % (i % 64 == 0 ? 40000 : 600) + 1;
      piece.at = bytes(secret_alloc(piece.len));
      piece.mark = static_cast<std::uint8_t>(random());
      std::memset(piece.at, piece.mark, piece.len);
      {
        const std::lock_guard lock(mutex);
        shared.push_back(piece);
        if (shared.size() < 64) continue;
        std::swap(shared[random() % shared.size()], shared.back());
        piece = shared.back();
        shared.pop_back();
      }
      if (!std::all_of(piece.at, piece.at + piece.len, [&](std::uint8_t b) { return b == piece.mark; })) ++broken;
      secret_free(piece.at);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& t : threads) t.join();
  for (const Piece& piece : shared) secret_free(piece.at);
  EXPECT_EQ(broken, 0);
}

// The rules are the process's own: each in a child, and with pages of its own.
TEST(LockedPages, PastTheLimitTheyAreStillNotDumped) {
#ifdef ECFS_SANITIZED
  GTEST_SKIP() << "the sanitizer turns mlock off";
#else
  EXPECT_EQ(status_of([] {
              constexpr std::size_t kOverTheLimit = 256 << 10;
              const rlimit small{65536, 65536};
              if (setrlimit(RLIMIT_MEMLOCK, &small) != 0) return 2;
              if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 3;  // root is not limited
              if (code_of(LockedPages::map(kOverTheLimit)) != Code::kNoMemory) return 4;
              for (const bool hidden : {false, true}) {
                set_secret_rules({hidden, true, false});
                const auto pages = LockedPages::map(kOverTheLimit);
                if (!pages || secret_pages().unlocked == 0) return 5;
                const std::string flags = flags_of(pages->bytes().data());
                if (flags.find(" dd ") == std::string::npos || flags.find(" lo ") != std::string::npos) return 6;
                const auto little = LockedPages::map(100);
                if (!little || flags_of(little->bytes().data()).find(" lo ") == std::string::npos) return 7;
              }
              return 0;
            }),
            0);
#endif
}

TEST(LockedPages, ChildrenFindNothing) {
  for (const bool hidden : {false, true}) {
    EXPECT_EQ(status_of([&] {
                set_secret_rules({hidden, true, true});
                const LockedPages pages = ok(LockedPages::map(100));
                std::memset(pages.bytes().data(), 'k', pages.bytes().size());
                const bool is_hidden = secret_pages().hidden > 0;
                const int child = status_of([&] {
                  signal(SIGSEGV, SIG_DFL);
                  return all_zero(pages.bytes()) ? 0 : 1;
                });
                // The hidden pages are not in the child at all.
                if (child != (is_hidden ? 128 + SIGSEGV : 0)) return 1;
                return pages.bytes()[99] == 'k' ? 0 : 2;
              }),
              0)
        << hidden;
  }
}

TEST(LockedPages, HiddenOnesCannotBeReadFromOutside) {
  const int status = status_of([] {
    set_secret_rules({true, false, true});
    const LockedPages pages = ok(LockedPages::map(100));
    if (secret_pages().hidden == 0) return 77;
    std::memset(pages.bytes().data(), 'k', 100);
    const std::string flags = flags_of(pages.bytes().data());
    if (flags.find(" lo ") == std::string::npos || flags.find(" dd ") == std::string::npos) return 1;
    // By the way that a debugger or root would take, even for the process itself.
    const Fd memory(open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
    std::array<std::uint8_t, 100> got{};
    const std::array<std::uint8_t, 4> control{'s', 'e', 'e', 'n'};
    const auto read_at = [&](const void* at) {
      return pread(memory.get(), got.data(), 4, static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at)));
    };
    if (read_at(control.data()) != 4 || got[0] != 's') return 2;
    return read_at(pages.bytes().data()) < 0 ? 0 : 3;
  });
  if (status == 77) GTEST_SKIP() << "this kernel has no memfd_secret(2)";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ecfs
