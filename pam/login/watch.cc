#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "pam/login/attach.h"
#include "pam/login/commands.h"
#include "pam/login/runtime_dir.h"
#include "pam/login/unit.h"
#include "pam/login/volumes.h"
#include "wrap/base/log.h"
#include "wrap/login_records.h"

namespace ecfs::pam {
namespace {

constexpr int kTickS = 5;            // how often mounts whose server crashed are looked for
constexpr int kRetryMs = 200;        // between clean tries while the mount is in use
constexpr int kSlowRetryMs = 3000;   // the same after the waiting time, with policy wait
constexpr int kTermToKillMs = 2000;  // policy kill: time to end by oneself
constexpr int kServersMs = 2000;     // for servers to end after their mounts
constexpr int kServerRetryMs = 10;
constexpr int kSurveyMs = 5000;
constexpr int kTokensMs = 5000;
constexpr std::size_t kMostHoldersLogged = 8;

volatile sig_atomic_t g_told_to_end = 0;  // SIGTERM: the machine goes down, or an administrator stops the unit

void sleep_ms(int ms) {
  timespec left{ms / 1000, (ms % 1000) * 1000000L};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

class Watcher {
 public:
  Watcher(Identity who, const wrap::Config& config, Fd dir, Fd session)
      : who_(std::move(who)), config_(config), dir_(std::move(dir)), session_(std::move(session)) {}

  // Returns when all is unmounted. True: the session lock is held exclusively, so that no login is in between. False:
  // it was told to end, and there are sessions.
  Result<bool> run() {
    for (;;) {
      ECFS_LET(const bool alone, wait_for_last_logout());
      log_line(LOG_INFO, "user " + who_.name + (alone ? ": the last session has ended" : ": told to end"));
      what_to_unmount();
      if (clean_up()) return flock(session_.get(), LOCK_EX | LOCK_NB) == 0;
    }
  }

 private:
  // Blocks until no session is left (true), or the watcher is told to end (false); every few seconds the kernel
  // interrupts it for a look at the servers.
  Result<bool> wait_for_last_logout() {
    itimerval every{{kTickS, 0}, {kTickS, 0}};
    setitimer(ITIMER_REAL, &every, nullptr);
    int locked = -1;
    int err = EINTR;
    while (g_told_to_end == 0 && locked != 0 && err == EINTR) {
      locked = flock(session_.get(), LOCK_EX);
      err = locked != 0 ? errno : 0;
      if (err == EINTR) clear_dead_mounts();
    }
    every = {};
    setitimer(ITIMER_REAL, &every, nullptr);
    if (locked != 0 && err != EINTR) return system_error(err, "wait for the last logout");
    return locked == 0;
  }

  // By process and device number only: nothing here looks into the user's files, which could hang.
  void clear_dead_mounts() {
    for (const wrap::MountRecord& record : wrap::load_records(dir_.get())) {
      const auto started = start_time_of(record.server);
      if (started && *started == record.started) continue;
      if (const auto entry = find(record.device_major, record.device_minor)) {
        log_line(LOG_ERR,
                 "user " + who_.name + ": the server of " + record.name + " has ended unexpectedly; unmounting");
        (void)detach_mount(*entry, true);
      }
      wrap::remove_record(dir_.get(), record.name);
    }
  }

  std::optional<wrap::MountEntry> find(unsigned major, unsigned minor) const {
    const auto entries = wrap::mounts();
    if (!entries) return {};
    for (const wrap::MountEntry& entry : *entries) {
      if (entry.device_major == major && entry.device_minor == minor && is_mount_of(entry, who_.uid)) return entry;
    }
    return {};
  }

  // What logins mounted, and what the user mounted by hand where the profile says that it ends with the last session.
  void what_to_unmount() {
    devices_.clear();
    for (const wrap::MountRecord& record : wrap::load_records(dir_.get())) {
      if (record.auto_unmount) devices_.emplace_back(record.device_major, record.device_minor);
    }
    const auto volumes = survey_volumes(who_, Deadline(kSurveyMs));
    if (!volumes) {
      log_line(LOG_WARNING, "user " + who_.name + ": " + volumes.error().what);
      return;
    }
    locking_.clear();
    for (const VolumeInfo& volume : *volumes) {
      if (!volume.auto_unmount) continue;
      locking_.push_back(volume);
      if (volume.device) devices_.push_back(*volume.device);
    }
    std::sort(devices_.begin(), devices_.end());
    devices_.erase(std::unique(devices_.begin(), devices_.end()), devices_.end());
  }

  // One try at everything; gives what is still there.
  std::vector<wrap::MountEntry> unmount_all(bool lazy) {
    std::vector<wrap::MountEntry> busy;
    for (const auto& [major, minor] : devices_) {
      const auto entry = find(major, minor);
      if (!entry) continue;
      const Status done = detach_mount(*entry, lazy);
      if (done) {
        log_line(LOG_INFO, "user " + who_.name + ": " + entry->mountpoint + " is locked" + (lazy ? " (detached)" : ""));
      } else {
        busy.push_back(*entry);
      }
    }
    return busy;
  }

  // Begins with the session lock held, unless it was told to end. True: all is done, and a lock that was held is held.
  // False: a session has come meanwhile.
  bool clean_up() {
    (void)drop_tokens(who_, locking_, Deadline(kTokensMs));
    const Deadline clean_tries(config_.unmount_wait_s * 1000);
    bool told = false;
    bool policy_applied = false;
    for (;;) {
      const std::vector<wrap::MountEntry> busy = unmount_all(false);
      if (busy.empty()) {
        wait_for_servers();
        return true;
      }
      int pause_ms = kRetryMs;
      if (clean_tries.remaining_ms() == 0) {
        // Who uses it may be seen only later: a process that is just being started shows no files.
        if (!policy_applied) policy_applied = apply_policy(busy, !told);
        told = true;
        const bool detach = config_.unmount_busy == wrap::BusyPolicy::kLazy || g_told_to_end != 0;
        if (detach && unmount_all(true).empty()) return true;
        if (g_told_to_end != 0) return true;  // there is no later
        pause_ms = kSlowRetryMs;
      }
      // A login that comes now finds everything mounted still, and need not wait for us.
      flock(session_.get(), LOCK_UN);
      sleep_ms(pause_ms);
      if (flock(session_.get(), LOCK_EX | LOCK_NB) != 0 && g_told_to_end == 0) return false;
    }
  }

  // They end by themselves, and should have when this process ends: until then there are keys in their memory.
  void wait_for_servers() const {
    const Deadline end(kServersMs);
    for (const wrap::MountRecord& record : wrap::load_records(dir_.get())) {
      while (record.auto_unmount && start_time_of(record.server) == record.started && end.remaining_ms() > 0) {
        sleep_ms(kServerRetryMs);
      }
    }
  }

  // apply_policy says who uses each of the mounts (nothing, if nobody is seen and it is not the first time), and ends
  // them where that is the policy. False if nobody was seen at one of them.
  bool apply_policy(const std::vector<wrap::MountEntry>& busy, bool first) const {
    bool all_seen = true;
    for (const wrap::MountEntry& entry : busy) {
      const std::vector<wrap::Holder> holders = wrap::holders_of(entry);
      all_seen = all_seen && !holders.empty();
      if (holders.empty() && !first) continue;
      std::string text;
      for (std::size_t i = 0; i < holders.size() && i < kMostHoldersLogged; ++i) {
        text += (text.empty() ? "" : ", ") + holders[i].name + " (" + std::to_string(holders[i].pid) + ")";
      }
      log_line(LOG_WARNING, "user " + who_.name + ": " + entry.mountpoint +
                                " stays open after the last logout, in use by " +
                                (text.empty() ? "something not visible" : text));
      if (config_.unmount_busy == wrap::BusyPolicy::kKill) end_processes(holders);
    }
    return all_seen;
  }

  // Only processes of this user: root's, or another user's, are not ours to end.
  void end_processes(const std::vector<wrap::Holder>& holders) const {
    std::vector<Fd> handles;
    for (const wrap::Holder& holder : holders) {
      Fd handle(static_cast<int>(syscall(SYS_pidfd_open, holder.pid, 0)));
      struct stat st {};
      if (!handle || stat(("/proc/" + std::to_string(holder.pid)).c_str(), &st) != 0 || st.st_uid != who_.uid) continue;
      syscall(SYS_pidfd_send_signal, handle.get(), SIGTERM, nullptr, 0);
      handles.push_back(std::move(handle));
    }
    if (handles.empty()) return;
    sleep_ms(kTermToKillMs);
    for (const Fd& handle : handles) syscall(SYS_pidfd_send_signal, handle.get(), SIGKILL, nullptr, 0);
  }

  Identity who_;
  const wrap::Config& config_;
  Fd dir_;
  Fd session_;
  std::vector<std::pair<unsigned, unsigned>> devices_;
  std::vector<VolumeInfo> locking_;  // whose keys go
};

void on_alarm(int) {}
void on_end(int) {
  g_told_to_end = 1;
  alarm(1);  // had it come just before flock, nothing would interrupt that until the next tick
}

}  // namespace

Result<int> run_watch(uid_t uid, const wrap::Config& config) {
  ECFS_LET(Identity who, identity_of(uid));
  auto dir = open_runtime_dir(uid);
  if (!dir) return dir.error().code == Code::kNotFound ? Result<int>(0) : Result<int>(std::move(dir).error());
  const auto watching = try_watch_lock(dir->get());
  if (!watching) {
    if (watching.error().code != Code::kBusy) return watching.error();
    report_ready();
    return 0;
  }
  ECFS_LET(Fd session, open_session_lock(dir->get()));
  if (!is_current_session_lock(dir->get(), session)) return 0;

  struct sigaction action {};
  action.sa_handler = on_alarm;  // only so that it interrupts flock
  sigaction(SIGALRM, &action, nullptr);
  action.sa_handler = on_end;
  sigaction(SIGTERM, &action, nullptr);
  report_ready();
  const int for_removal = fcntl(dir->get(), F_DUPFD_CLOEXEC, 3);
  const Fd removal_dir(for_removal);
  Watcher watcher(std::move(who), config, *std::move(dir), std::move(session));
  ECFS_LET(const bool alone, watcher.run());
  if (alone) remove_runtime_dir(removal_dir.get(), uid);
  return 0;
}

}  // namespace ecfs::pam
