#include "fs/fuse/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>

#include "wrap/base/fd.h"
#include "wrap/base/locked_pages.h"
#include "wrap/base/secret_heap.h"

namespace ecfs::fs {
namespace {

namespace stdfs = std::filesystem;

constexpr int kNotConfined = 100;  // exit status of a child that could not be confined in full

class Sandbox : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "ecfs-sandbox-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    base_ = path;
    lower_ = base_ + "/lower";
    stdfs::create_directories(lower_ + "/a");
    stdfs::create_directories(lower_ + "/b");
    std::ofstream(lower_ + "/file") << "inside";
    std::ofstream(base_ + "/outside") << "outside";
    lower_fd_.reset(open(lower_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    what_.lower_dir = lower_fd_.get();
  }
  void TearDown() override { stdfs::remove_all(base_); }

  // Runs `work` in a confined child; gives what it returned, or 1000 + the signal that ended it.
  int confined(const std::function<int()>& work) {
    const pid_t pid = fork();
    if (pid == 0) {
      const rlimit none{0, 0};
      setrlimit(RLIMIT_CORE, &none);
      const auto missing = confine(what_);
      if (!missing) _exit(101);
      for (const std::string& lack : *missing) fprintf(stderr, "%s\n", lack.c_str());  // NOLINT
      _exit(missing->empty() ? work() : kNotConfined);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  // The errno of a call that gives -1, else 0.
  template <class F>
  int errno_in(F&& call) {
    return confined([&] { return call() == -1 ? errno : 0; });
  }
  bool kills(const std::function<void()>& work) {
    return confined([&] {
             work();
             return 0;
           }) == 1000 + SIGSYS;
  }
  [[nodiscard]] int dir() const { return lower_fd_.get(); }

  std::string base_;
  std::string lower_;
  Fd lower_fd_;
  Confinement what_;
};

#define SKIP_WHERE_IT_CANNOT_BE()                                                    \
  if (confined([] { return 0; }) == kNotConfined) {                                  \
    GTEST_SKIP() << "this kernel cannot confine: what it lacks is named just above"; \
  }

TEST_F(Sandbox, OpensNothingButTheLowerTree) {
  SKIP_WHERE_IT_CANNOT_BE();
  EXPECT_EQ(errno_in([] { return open("/etc/passwd", O_RDONLY | O_CLOEXEC); }), EACCES);
  EXPECT_EQ(errno_in([] { return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC); }), EACCES);
  EXPECT_EQ(errno_in([] { return open("/proc/self/status", O_RDONLY | O_CLOEXEC); }), EACCES);
  EXPECT_EQ(errno_in([] { return open("/dev/null", O_RDWR | O_CLOEXEC); }), EACCES);
  EXPECT_EQ(errno_in([&] { return open((base_ + "/outside").c_str(), O_RDWR | O_CLOEXEC); }), EACCES);
  EXPECT_EQ(errno_in([&] { return openat(dir(), "../outside", O_RDONLY | O_CLOEXEC); }), EACCES);
  EXPECT_EQ(errno_in([&] { return mkdir((base_ + "/new").c_str(), 0700); }), ENOSYS);
  EXPECT_EQ(errno_in([&] { return mkdirat(AT_FDCWD, (base_ + "/new").c_str(), 0700); }), EACCES);
  EXPECT_EQ(errno_in([&] { return unlinkat(AT_FDCWD, (base_ + "/outside").c_str(), 0); }), EACCES);
  EXPECT_EQ(errno_in([&] { return renameat(dir(), "file", AT_FDCWD, (base_ + "/moved").c_str()); }), EACCES);
  EXPECT_EQ(errno_in([&] { return linkat(AT_FDCWD, (base_ + "/outside").c_str(), dir(), "in", 0); }), EXDEV);
}

TEST_F(Sandbox, DoesAllInsideTheLowerTree) {
  SKIP_WHERE_IT_CANNOT_BE();
  const int step = confined([&] {
    const Fd file(openat(dir(), "a/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file || pwrite(file.get(), "x", 1, 5) != 1 || ftruncate(file.get(), 3) != 0 || fsync(file.get()) != 0)
      return 1;
    if (fallocate(file.get(), 0, 0, 4096) != 0 || fchmod(file.get(), 0640) != 0) return 2;
    if (renameat(dir(), "a/new", dir(), "b/moved") != 0) return 3;
    if (linkat(dir(), "b/moved", dir(), "a/link", 0) != 0) return 4;
    if (symlinkat("target", dir(), "a/symlink") != 0 || mkfifoat(dir(), "a/fifo", 0600) != 0) return 5;
    if (mkdirat(dir(), "a/dir", 0700) != 0 || renameat2(dir(), "a/dir", dir(), "b", RENAME_EXCHANGE) != 0) return 6;
    if (unlinkat(dir(), "b", AT_REMOVEDIR) != 0 || unlinkat(dir(), "a/dir/moved", 0) != 0) return 7;
    const Fd path(openat(dir(), "a", O_PATH | O_DIRECTORY | O_CLOEXEC));
    const std::string by_proc = "/proc/self/fd/" + std::to_string(path.get());
    const Fd again(open(by_proc.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!again || chmod(by_proc.c_str(), 0711) != 0) return 8;
    std::array<char, 4096> buffer{};
    if (syscall(SYS_getdents64, again.get(), buffer.data(), buffer.size()) <= 0) return 9;
    struct stat st {};
    return fstatat(dir(), "a/link", &st, 0) == 0 && fstatat(AT_FDCWD, "/etc", &st, 0) == 0 ? 0 : 10;
  });
  EXPECT_EQ(step, 0);
}

TEST_F(Sandbox, ThreadsAndMemoryGoOn) {
  SKIP_WHERE_IT_CANNOT_BE();
  const int step = confined([] {
    int inner = 99;
    std::thread([&] {
      if (unshare(CLONE_FS) != 0) return void(inner = 1);
      umask(027);
      if (geteuid() == 0 && (setfsuid(65534), setfsuid(65534)) != 65534) return void(inner = 2);
      inner = 0;
    }).join();
    if (inner != 0) return inner;
    set_secret_rules({true, true, true});
    for (int i = 0; i < 100; ++i) {
      if (secret_alloc(20000) == nullptr) return 3;
    }
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return 4;
    return prctl(PR_SET_NAME, "name", 0, 0, 0) == 0 ? 0 : 5;
  });
  EXPECT_EQ(step, 0);
  EXPECT_EQ(confined([] {
              std::abort();
              return 0;
            }),
            1000 + SIGABRT);
}

TEST_F(Sandbox, AnAttackEndsTheProcess) {
  SKIP_WHERE_IT_CANNOT_BE();
  EXPECT_TRUE(kills([] { execl("/bin/true", "true", nullptr); }));
  EXPECT_TRUE(kills([] { (void)!fork(); }));
  EXPECT_TRUE(kills([] { (void)!syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr); }));
  EXPECT_TRUE(kills([] { (void)!socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
  EXPECT_TRUE(kills([] { (void)!socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); }));
  EXPECT_TRUE(kills([] { (void)!ptrace(PTRACE_ATTACH, getppid(), nullptr, nullptr); }));
  EXPECT_TRUE(kills([] { (void)!mount("none", "/", "tmpfs", 0, nullptr); }));
  EXPECT_TRUE(kills([] { (void)!umount2("/", MNT_DETACH); }));
  EXPECT_TRUE(kills([] { (void)!unshare(CLONE_NEWUSER); }));
  EXPECT_TRUE(kills([] { (void)!unshare(CLONE_FS | CLONE_NEWNS); }));
  EXPECT_TRUE(kills([] { (void)!kill(getppid(), 0); }));
  EXPECT_TRUE(kills([] { (void)!syscall(SYS_tgkill, getppid(), getppid(), 0); }));
  EXPECT_TRUE(kills([] { (void)!setuid(65534); }));
  EXPECT_TRUE(kills([] { (void)!chroot("/"); }));
  EXPECT_TRUE(kills([] { (void)!syscall(SYS_keyctl, 0, 0, 0, 0, 0); }));
  EXPECT_TRUE(kills([] { (void)!syscall(SYS_io_uring_setup, 1, nullptr); }));
  EXPECT_TRUE(kills([] { (void)!mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }));
  EXPECT_TRUE(kills([] {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)!mprotect(page, 4096, PROT_READ | PROT_EXEC);
  }));
}

TEST_F(Sandbox, WhatIsOnlyUnusualFailsAsOnAnOlderKernel) {
  SKIP_WHERE_IT_CANNOT_BE();
  const auto unusual = [] { return syscall(SYS_epoll_create1, 0); };
  EXPECT_EQ(errno_in(unusual), ENOSYS);
  EXPECT_EQ(errno_in([] { return syscall(SYS_clone3, nullptr, 0); }), ENOSYS);
  EXPECT_EQ(errno_in([] { return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }), ENOSYS);
  EXPECT_EQ(errno_in([] {
              const rlimit more{1, 1};
              return setrlimit(RLIMIT_CORE, &more);
            }),
            ENOSYS);
  what_.strict = true;
  EXPECT_TRUE(kills([&] { (void)!unusual(); }));
  EXPECT_EQ(errno_in([] { return syscall(SYS_clone3, nullptr, 0); }), ENOSYS);
}

TEST_F(Sandbox, GroupsOfOthersAreReadByRootAlone) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  what_.reads_groups = true;
  SKIP_WHERE_IT_CANNOT_BE();
  const std::string path = "/proc/" + std::to_string(getpid()) + "/status";
  EXPECT_EQ(errno_in([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC); }), 0);
  EXPECT_EQ(errno_in([] { return open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC); }), EACCES);
  const std::string memory = "/proc/" + std::to_string(getpid()) + "/mem";
  EXPECT_EQ(errno_in([&] { return open(memory.c_str(), O_RDONLY | O_CLOEXEC); }), EACCES);
}

TEST_F(Sandbox, RootKeepsWhatFilesNeed) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  SKIP_WHERE_IT_CANNOT_BE();
  ASSERT_EQ(chown((lower_ + "/file").c_str(), 65534, 65534), 0);
  const auto open_file = [&] { return openat(dir(), "file", O_RDWR | O_CLOEXEC); };
  EXPECT_EQ(errno_in([&] { return fchown(open_file(), 65533, 65533); }), 0);
  EXPECT_EQ(errno_in([&] { return setgroups(0, nullptr); }), 0);
  EXPECT_EQ(errno_in([&] { return mknodat(dir(), "null", S_IFCHR | 0600, 0x103); }), 0);
  // CAP_LEASE, which it has no use for, stands for the others.
  ASSERT_EQ(chown((lower_ + "/file").c_str(), 65534, 65534), 0);
  EXPECT_EQ(errno_in([&] { return fcntl(open_file(), F_SETLEASE, F_WRLCK); }), EACCES);
}

}  // namespace
}  // namespace ecfs::fs
