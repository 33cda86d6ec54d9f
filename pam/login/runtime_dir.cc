#include "pam/login/runtime_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <ctime>

#include "wrap/base/bytes.h"
#include "wrap/base/file.h"
#include "wrap/base/process.h"
#include "wrap/login_records.h"

namespace ecfs::pam {
namespace {

constexpr const char* kRun = "/run";
constexpr const char* kRoot = "ecfs";
constexpr const char* kSessionLock = "session.lock";
constexpr const char* kWatchLock = "watch.lock";
constexpr std::uint64_t kMaxLockBytes = 256;
constexpr int kRetryMs = 10;
constexpr int kMaxRounds = 1000;

Result<Fd> open_lock(int dir, const char* name, int flags) {
  Fd fd(openat(dir, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, 0600));
  if (!fd) return system_error(errno, std::string("open ") + name);
  return fd;
}

bool is_current(int dir, const char* name, const Fd& lock) {
  struct stat held {};
  struct stat named {};
  return fstat(lock.get(), &held) == 0 && fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

void sleep_ms(int ms) {
  const timespec t{ms / 1000, (ms % 1000) * 1000000L};
  nanosleep(&t, nullptr);
}

}  // namespace

Result<Fd> make_runtime_dir(uid_t uid) {
  ECFS_LET(const Fd run, open_directory(AT_FDCWD, kRun));
  ECFS_LET(const Fd root, make_directory(run.get(), kRoot, 0700));
  return make_directory(root.get(), std::to_string(uid), 0700);
}

Result<Fd> open_runtime_dir(uid_t uid) {
  ECFS_LET(const Fd run, open_directory(AT_FDCWD, kRun));
  ECFS_LET(const Fd root, open_directory(run.get(), kRoot));
  return open_directory(root.get(), std::to_string(uid));
}

Result<Fd> hold_session(uid_t uid, const Deadline& deadline) {
  for (;;) {
    ECFS_LET(const Fd dir, make_runtime_dir(uid));
    auto lock = open_lock(dir.get(), kSessionLock, O_CREAT);
    if (lock) {
      if (flock(lock->get(), LOCK_SH | LOCK_NB) == 0) {
        if (is_current(dir.get(), kSessionLock, *lock)) return lock;
      } else if (errno != EWOULDBLOCK) {
        return system_error(errno, "lock the session");
      }
    } else if (lock.error().code != Code::kNotFound) {  // a watcher that ends has removed the directory under us
      return std::move(lock).error();
    }
    if (deadline.remaining_ms() == 0) return Error{Code::kBusy, EBUSY, "the last logout is still being worked on"};
    sleep_ms(kRetryMs);
  }
}

Result<Fd> try_watch_lock(int dir) {
  for (int round = 0; round < kMaxRounds; ++round) {
    ECFS_LET(Fd lock, open_lock(dir, kWatchLock, O_CREAT));
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return system_error(errno, "lock the watcher");
    if (!is_current(dir, kWatchLock, lock)) continue;
    const std::string process =
        std::to_string(getpid()) + " " + std::to_string(start_time_of(getpid()).value_or(0)) + "\n";
    if (ftruncate(lock.get(), 0) != 0) return system_error(errno, "write the watcher's lock");
    ECFS_TRY(write_all(lock.get(), as_bytes(process)));
    return lock;
  }
  return Error{Code::kBusy, EBUSY, "the watcher's lock does not hold"};
}

bool watcher_runs(int dir) {
  const auto bytes = read_file(dir, kWatchLock, kMaxLockBytes, 0);
  if (!bytes) return false;
  const std::string text(as_text(*bytes));
  pid_t process = 0;
  std::uint64_t started = 0;
  return std::sscanf(text.c_str(), "%d %" SCNu64, &process, &started) == 2 && start_time_of(process) == started;
}

Result<Fd> take_turn(int dir, const Deadline& deadline) {
  Fd turn(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!turn) return system_error(errno, "open the runtime directory");
  while (flock(turn.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return system_error(errno, "lock the runtime directory");
    if (deadline.remaining_ms() == 0) return Error{Code::kBusy, EBUSY, "other logins take too long"};
    sleep_ms(kRetryMs);
  }
  return turn;
}

Result<Fd> open_session_lock(int dir) { return open_lock(dir, kSessionLock, 0); }

bool is_current_session_lock(int dir, const Fd& lock) { return is_current(dir, kSessionLock, lock); }

void remove_runtime_dir(int dir, uid_t uid) {
  wrap::remove_login_records(dir);
  unlinkat(dir, kWatchLock, 0);
  unlinkat(dir, kSessionLock, 0);
  // A login that came in this moment has a session.lock of its own there: then both stay.
  auto run = open_directory(AT_FDCWD, kRun);
  if (!run) return;
  auto root = open_directory(run->get(), kRoot);
  if (!root) return;
  unlinkat(root->get(), std::to_string(uid).c_str(), AT_REMOVEDIR);
}

}  // namespace ecfs::pam
