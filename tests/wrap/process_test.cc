#include "wrap/base/process.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <stdexcept>

#include "tests/wrap/testing.h"

namespace ecfs {
namespace {

// Runs a shell script and gives what it writes to descriptor 1.
std::string output_of(SpawnOptions options, const std::string& script, int* status = nullptr) {
  Pipe pipe = ok(make_pipe());
  options.argv = {"/bin/sh", "-c", script};
  options.fds.emplace_back(pipe.write_end.get(), 1);
  Child child = ok(spawn(options));
  pipe.write_end.reset();
  Bytes out(65536);
  out.resize(ok(read_full(pipe.read_end.get(), out)));
  const int ended = ok(child.wait());
  if (status != nullptr) *status = ended;
  return std::string(as_text(out));
}

Identity nobody() { return ok(identity_of("nobody")); }

TEST(Spawn, CleanEnvironmentAndDescriptors) {
  setenv("ECFS_TEST_CANARY", "1", 1);
  std::vector<Fd> leaked;  // opened without O_CLOEXEC, as hosts do
  for (int i = 0; i < 8; ++i) leaked.emplace_back(open("/dev/null", O_RDONLY));
  const Fd high(fcntl(leaked[0].get(), F_DUPFD, 300));
  const Fd given(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  SpawnOptions options;
  options.env = {"A=b"};
  options.fds = {{given.get(), 5}};
  EXPECT_EQ(output_of(options,
                      "echo $A$ECFS_TEST_CANARY; cd /proc/self/fd && for f in *; do [ -e $f ] && echo $f; done; "
                      "pwd >/dev/null; readlink /proc/$$/fd/5 /proc/$$/fd/0"),
            "b\n0\n1\n2\n5\n/etc/passwd\n/dev/null\n");
}

TEST(Spawn, DescriptorsThatCross) {
  const Scratch dir;
  put(dir.fd(), "a", "A");
  put(dir.fd(), "b", "B");
  // Source numbers are each other's targets.
  const Fd a(fcntl(ok(open_regular(dir.fd(), "a", 10)).get(), F_DUPFD_CLOEXEC, 20));
  const Fd b(fcntl(ok(open_regular(dir.fd(), "b", 10)).get(), F_DUPFD_CLOEXEC, 21));
  SpawnOptions options;
  options.fds = {{a.get(), b.get()}, {b.get(), a.get()}};
  EXPECT_EQ(
      output_of(options, "readlink /proc/$$/fd/" + std::to_string(a.get()) + " /proc/$$/fd/" + std::to_string(b.get())),
      dir / "b\n" + (dir / "a\n"));
}

TEST(Spawn, SignalsAsIfFresh) {
  signal(SIGUSR1, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  const std::string status = output_of({}, "grep -E '^Sig(Blk|Ign)' /proc/self/status");
  sigprocmask(SIG_UNBLOCK, &blocked, nullptr);
  signal(SIGUSR1, SIG_DFL);
  EXPECT_EQ(status, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST(Spawn, FailureToExecuteIsAnErrorHere) {
  SpawnOptions options;
  options.argv = {"/nonexistent/program"};
  const Error e = failure_of(spawn(options));
  EXPECT_EQ(e.code, Code::kNotFound);
  EXPECT_NE(e.what.find("/nonexistent/program"), std::string::npos);
  EXPECT_EQ(code_of(spawn({})), Code::kInvalid);
}

TEST(Spawn, RunsAsTheUserWithItsGroups) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  SpawnOptions options;
  options.run_as = nobody();
  const std::string ids = output_of(options, "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s ' \\t' ' '");
  const std::string uid = std::to_string(options.run_as->uid);
  const std::string gid = std::to_string(options.run_as->gid);
  EXPECT_NE(ids.find("Uid: " + uid + " " + uid + " " + uid + " " + uid + "\n"), std::string::npos) << ids;
  EXPECT_NE(ids.find("Gid: " + gid + " " + gid + " " + gid + " " + gid + "\n"), std::string::npos) << ids;
  EXPECT_EQ(ids.find("Groups: 0"), std::string::npos) << ids;
}

TEST(Spawn, NewSessionAndStatus) {
  SpawnOptions options;
  options.new_session = true;
  int status = -1;
  EXPECT_EQ(output_of(options, "[ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo leader; exit 7", &status), "leader\n");
  EXPECT_EQ(status, 7);
  output_of({}, "kill -9 $$", &status);
  EXPECT_EQ(status, 128 + SIGKILL);
}

TEST(Child, WaitHasALimit) {
  SpawnOptions options;
  options.argv = {"/bin/sleep", "60"};
  Child child = ok(spawn(options));
  const auto begin = std::chrono::steady_clock::now();
  const Error e = failure_of(child.wait(100));
  EXPECT_EQ(e.code, Code::kUnavailable);
  EXPECT_EQ(e.sys_errno, ETIMEDOUT);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  EXPECT_EQ(kill(child.pid(), 0), -1) << "it was stopped and collected";
}

TEST(Child, HostThatIgnoresSigchld) {
  signal(SIGCHLD, SIG_IGN);
  SpawnOptions options;
  options.argv = {"/bin/true"};
  Child child = ok(spawn(options));
  const auto ended = child.wait(5000);
  signal(SIGCHLD, SIG_DFL);
  EXPECT_EQ(failure_of(ended).sys_errno, ECHILD);
}

TEST(RunAs, GivesBackDataSecretsAndDescriptors) {
  const Identity me = ok(identity_of(geteuid()));
  const Scratch dir;
  put(dir.fd(), "f", "contents");
  Reply reply = ok(run_as(me, 5000, [&]() -> Result<Reply> {
    Reply r;
    r.data.assign(300000, 7);
    ECFS_LET(r.secret, Secret::copy_of(as_bytes("secret")));
    ECFS_LET(Fd fd, open_regular(dir.fd(), "f", 100));
    r.fds.push_back(std::move(fd));
    return r;
  }));
  EXPECT_EQ(reply.data, Bytes(300000, 7));
  EXPECT_EQ(as_text(reply.secret.reveal()), "secret");
  ASSERT_EQ(reply.fds.size(), 1U);
  Bytes contents(8);
  EXPECT_EQ(ok(read_full(reply.fds[0].get(), contents)), 8U);
  EXPECT_EQ(as_text(contents), "contents");
  EXPECT_NE(fcntl(reply.fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(RunAs, IsThatUserForGood) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const Identity who = nobody();
  const Reply reply = ok(run_as(who, 5000, [&]() -> Result<Reply> {
    Reply r;
    const bool back = setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0;
    const bool dumpable = prctl(PR_GET_DUMPABLE) != 0;
    r.data = {static_cast<std::uint8_t>(!back && getuid() == who.uid && geteuid() == who.uid && getgid() == who.gid),
              static_cast<std::uint8_t>(!dumpable), static_cast<std::uint8_t>(access("/root", R_OK) != 0)};
    return r;
  }));
  EXPECT_EQ(reply.data, (Bytes{1, 1, 1}));
  EXPECT_EQ(geteuid(), 0U);
}

TEST(RunAs, ErrorsComeBackWhole) {
  const Identity me = ok(identity_of(geteuid()));
  const Error e = failure_of(run_as(me, 5000, []() -> Result<Reply> { return Error{Code::kBusy, EBUSY, "busy: x"}; }));
  EXPECT_EQ(e.code, Code::kBusy);
  EXPECT_EQ(e.sys_errno, EBUSY);
  EXPECT_EQ(e.what, "busy: x");
}

TEST(RunAs, ADyingOrThrowingWorkerIsAnError) {
  const Identity me = ok(identity_of(geteuid()));
  const pid_t here = getpid();
  EXPECT_EQ(code_of(run_as(me, 5000, []() -> Result<Reply> { _exit(0); })), Code::kIo);
  EXPECT_EQ(code_of(run_as(me, 5000, []() -> Result<Reply> { throw std::runtime_error("x"); })), Code::kIo);
  EXPECT_EQ(getpid(), here) << "the worker must not come back here";
}

TEST(RunAs, ASilentWorkerIsGivenUp) {
  const auto begin = std::chrono::steady_clock::now();
  const auto reply = run_as(ok(identity_of(geteuid())), 300, []() -> Result<Reply> {
    pause();
    return Reply{};
  });
  EXPECT_EQ(code_of(reply), Code::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

// A worker in its user's hands (stopped and continued, say) that begins its answer and gives a byte now and then.
TEST(RunAs, TimeLimitHoldsForTheWholeAnswer) {
  const auto begin = std::chrono::steady_clock::now();
  const auto reply = run_as(ok(identity_of(geteuid())), 300, []() -> Result<Reply> {
    int answer = -1;
    for (int fd = 3; fd < 1024; ++fd) {
      struct stat st {};
      if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) answer = fd;
    }
    const std::array<std::uint32_t, 6> head = {1, 0, 0, 1000, 0, 0};  // all is well, 1000 bytes follow
    if (write(answer, head.data(), sizeof head) != sizeof head) _exit(1);
    for (int i = 0; i < 100; ++i) {
      usleep(50000);
      if (write(answer, "x", 1) != 1) _exit(1);
    }
    _exit(0);
  });
  EXPECT_EQ(code_of(reply), Code::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));  // it would be 5
}

TEST(Identity, Lookups) {
  const Identity root = ok(identity_of("root"));
  EXPECT_EQ(root.uid, 0U);
  EXPECT_EQ(root.home, "/root");
  EXPECT_EQ(ok(identity_of(uid_t{0})).name, "root");
  EXPECT_EQ(code_of(identity_of("no-such-user-here")), Code::kNotFound);
  EXPECT_EQ(code_of(identity_of(uid_t{3999999999U})), Code::kNotFound);
  const Identity me = ok(own_identity());
  EXPECT_EQ(me.uid, geteuid());
  EXPECT_EQ(me.home, ok(identity_of(geteuid())).home);
  std::vector<gid_t> groups(64);
  groups.resize(static_cast<std::size_t>(getgroups(64, groups.data())));
  EXPECT_EQ(me.groups, groups);
}

}  // namespace
}  // namespace ecfs
