#include "pam/login/unit.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "pam/login/runtime_dir.h"
#include "wrap/base/file.h"
#include "wrap/base/process.h"

namespace ecfs::pam {
namespace {

constexpr const char* kSystemdRuns = "/run/systemd/system";  // sd_booted(3)
constexpr const char* kSystemctl = "/bin/systemctl";
constexpr const char* kSlice = "/sys/fs/cgroup/system.slice/";  // the unit's Slice=; cgroups of version 2
constexpr int kStartMs = 4000;
constexpr int kTurnMs = 5000;

Status start_unit(const std::string& unit, const Deadline& deadline) {
  SpawnOptions options;
  options.argv = {kSystemctl, "--quiet", "--no-ask-password", "start", unit};
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  ECFS_LET(Child systemctl, spawn(options));
  ECFS_LET(const int status, systemctl.wait(deadline.at_most_ms(kStartMs)));
  if (status == 0) return {};
  return Error{Code::kUnavailable, 0, "systemctl start " + unit + ": status " + std::to_string(status)};
}

}  // namespace

Status enter_user_unit(int dir, uid_t uid, const Deadline& deadline) {
  struct stat st {};
  if (lstat(kSystemdRuns, &st) != 0 || !S_ISDIR(st.st_mode)) return Error{Code::kNotFound, 0, "systemd does not run"};
  const std::string unit = "ecfs-user@" + std::to_string(uid) + ".service";
  {
    // systemd is asked once, however many logins come at the same instant: the others find the watcher.
    ECFS_LET(const Fd turn, take_turn(dir, Deadline(deadline.at_most_ms(kTurnMs))));
    if (!watcher_runs(dir)) ECFS_TRY(start_unit(unit, deadline));
  }
  const std::string path = kSlice + unit + "/cgroup.procs";
  const Fd procs(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!procs) return system_error(errno, "open " + path);
  return write_all(procs.get(), as_bytes(std::string_view("0")));  // the writer
}

void report_ready() {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) return;
  const std::size_t len = std::strlen(path);
  std::memcpy(address.sun_path, path, len);
  if (path[0] == '@') address.sun_path[0] = '\0';
  const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  constexpr std::string_view kReady = "READY=1";
  if (!socket) return;
  (void)sendto(socket.get(), kReady.data(), kReady.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
               static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + len));
}

}  // namespace ecfs::pam
