#include "wrap/kdf.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/wrap/testing.h"

namespace ecfs::wrap {
namespace {

// The answers that the reference implementation's own test suite publishes (phc-winner-argon2, version 0x13).
TEST(Argon2id, KnownAnswers) {
  const Secret password = secret_of("password");
  const auto hash = [&](std::uint32_t memory, std::uint32_t passes, std::uint32_t lanes, std::string_view salt) {
    return to_hex(ok(argon2id(password, as_bytes(salt), {memory, passes, lanes}, 32)).reveal());
  };
  EXPECT_EQ(hash(65536, 2, 1, "somesalt"), "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
  EXPECT_EQ(hash(256, 2, 1, "somesalt"), "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
  EXPECT_EQ(hash(256, 2, 2, "somesalt"), "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037");
  EXPECT_EQ(hash(65536, 1, 1, "somesalt"), "f6a5adc1ba723dddef9b5ac1d464e180fcd9dffc9d1cbf76cca2fed795d9ca98");
  EXPECT_EQ(hash(65536, 2, 1, "diffsalt"), "bdf32b05ccc42eb15d58fd19b1f856b113da1e9a5874fdcc544308565aa8141c");
}

TEST(Argon2id, RefusesWhatNobodyWouldWrite) {
  const Secret password = secret_of("password");
  const Argon2Cost kBad[] = {{0, 1, 1},
                             {7, 1, 1},
                             {15, 1, 2},
                             {65536, 0, 1},
                             {65536, 1, 0},
                             {1048577, 1, 1},
                             {65536, 65, 1},
                             {65536, 1, 17},
                             {UINT32_MAX, 1, 1},
                             {1048576, 17, 1},
                             {1048576, 64, 16},
                             {65536, UINT32_MAX, 1},
                             {65536, 1, UINT32_MAX}};
  for (const Argon2Cost& cost : kBad) {
    EXPECT_EQ(code_of(check_cost_readable(cost)), Code::kCorrupt)
        << cost.memory_kib << ' ' << cost.passes << ' ' << cost.lanes;
    EXPECT_EQ(code_of(check_cost_writable(cost)), Code::kInvalid);
    EXPECT_EQ(code_of(argon2id(password, as_bytes("somesaltsomesalt"), cost, 32)), Code::kCorrupt);
  }
  EXPECT_TRUE(check_cost_readable({8, 1, 1}));
  EXPECT_TRUE(check_cost_readable({1048576, 16, 16}));
}

TEST(Argon2id, NewSlotsHaveAFloor) {
  EXPECT_TRUE(check_cost_writable({19 * 1024, 2, 1}));
  EXPECT_EQ(code_of(check_cost_writable({19 * 1024 - 1, 2, 1})), Code::kInvalid);
  EXPECT_EQ(code_of(check_cost_writable({64 * 1024, 1, 1})), Code::kInvalid);
}

TEST(Argon2id, MemoryThatCannotBeHadIsSaid) {
#ifdef ECFS_SANITIZED
  GTEST_SKIP() << "the sanitizer needs address space of its own";
#else
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit little{256U << 20, 256U << 20};
    if (setrlimit(RLIMIT_AS, &little) != 0) _exit(2);
    const auto r = argon2id(ok(Secret::copy_of(as_bytes("p"))), as_bytes("somesaltsomesalt"), {512 * 1024, 1, 1}, 32);
    _exit(!r && r.error().code == Code::kNoMemory ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
#endif
}

TEST(Argon2id, WorksWithoutTheRightToThreads) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become a user with a limit";
  const Secret password = secret_of("password");
  const Secret expected = ok(argon2id(password, as_bytes("somesalt"), {256, 2, 2}, 32));
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit one{0, 0};
    if (setrlimit(RLIMIT_NPROC, &one) != 0 || setresuid(65533, 65533, 65533) != 0) _exit(2);
    const auto r = argon2id(password, as_bytes("somesalt"), {256, 2, 2}, 32);
    _exit(r && r->equals(expected) ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

// The one test with the real default.
TEST(Argon2id, CalibratedCostIsOneThatMayBeWritten) {
  const Argon2Cost cost = ok(calibrate());
  EXPECT_TRUE(check_cost_writable(cost));
  EXPECT_GE(cost.memory_kib, kUnaskedMemoryKib);
  EXPECT_GE(cost.passes, 3U);
  EXPECT_LE(cost.passes, 16U);
  EXPECT_EQ(cost.lanes, 4U);
  EXPECT_EQ(ok(argon2id(secret_of("p"), as_bytes("somesaltsomesalt"), cost, 32)).size(), 32U);
}

}  // namespace
}  // namespace ecfs::wrap
