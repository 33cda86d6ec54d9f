#include "pam/login/runtime_dir.h"

#include <dirent.h>
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
#include "wrap/base/owned.h"

namespace ecfs::pam {
namespace {

constexpr const char* kRun = "/run";
constexpr const char* kRoot = "ecfs";
constexpr const char* kSessionLock = "session.lock";
constexpr const char* kWatchLock = "watch.lock";
constexpr std::string_view kRecordPrefix = "mount-";
constexpr std::uint64_t kMaxRecordBytes = 256;
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

std::vector<std::string> record_files(int dir) {
  std::vector<std::string> files;
  // A descriptor of its own, because a directory stream moves the position of the one it is given.
  Fd again(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Owned<DIR, closedir> stream(again ? fdopendir(again.get()) : nullptr);
  if (!stream) return files;
  (void)again.release();
  while (const dirent* entry = readdir(stream.get())) {
    if (std::string_view(entry->d_name).starts_with(kRecordPrefix)) files.emplace_back(entry->d_name);
  }
  return files;
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
    if (is_current(dir, kWatchLock, lock)) return lock;
  }
  return Error{Code::kBusy, EBUSY, "the watcher's lock does not hold"};
}

Result<Fd> open_session_lock(int dir) { return open_lock(dir, kSessionLock, 0); }

bool is_current_session_lock(int dir, const Fd& lock) { return is_current(dir, kSessionLock, lock); }

Status save_record(int dir, const MountRecord& record) {
  const std::string text = std::to_string(record.server) + " " + std::to_string(record.started) + " " +
                           std::to_string(record.device_major) + " " + std::to_string(record.device_minor) + " " +
                           (record.auto_unmount ? "1" : "0") + "\n";
  return replace_file(dir, std::string(kRecordPrefix) + record.name, as_bytes(text), 0600);
}

std::vector<MountRecord> load_records(int dir) {
  std::vector<MountRecord> records;
  for (const std::string& file : record_files(dir)) {
    MountRecord record;
    record.name = file.substr(kRecordPrefix.size());
    const auto bytes = read_file(dir, file, kMaxRecordBytes, 0);
    if (!bytes) continue;
    const std::string text(as_text(*bytes));
    int auto_unmount = 1;
    if (std::sscanf(text.c_str(), "%d %" SCNu64 " %u %u %d", &record.server, &record.started, &record.device_major,
                    &record.device_minor, &auto_unmount) != 5) {
      continue;
    }
    record.auto_unmount = auto_unmount != 0;
    records.push_back(std::move(record));
  }
  return records;
}

void remove_record(int dir, const std::string& name) { unlinkat(dir, (std::string(kRecordPrefix) + name).c_str(), 0); }

std::optional<std::uint64_t> start_time_of(pid_t pid) {
  const Fd fd(open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return {};
  Bytes bytes(4096);
  auto len = read_full(fd.get(), bytes);
  if (!len) return {};
  std::string text(as_text(ByteView(bytes).first(*len)));
  // The second field is the program's name in parentheses, which may hold anything: count from the last ')'.
  const std::size_t end = text.rfind(')');
  if (end == std::string::npos) return {};
  char state = 0;
  std::uint64_t started = 0;
  // Fields 3 to 22 of proc(5).
  if (std::sscanf(text.c_str() + end + 1,
                  " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64, &state,
                  &started) != 2 ||
      state == 'Z' || state == 'X') {
    return {};
  }
  return started;
}

void remove_runtime_dir(int dir, uid_t uid) {
  for (const std::string& file : record_files(dir)) unlinkat(dir, file.c_str(), 0);
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
