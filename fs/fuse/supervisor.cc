#include "fs/fuse/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <future>
#include <string>
#include <thread>
#include <utility>

#include "fs/fuse/link.h"
#include "wrap/base/bytes.h"
#include "wrap/base/log.h"
#include "wrap/control.h"
#include "wrap/mount.h"

namespace ecfs::fs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kDrainSeconds = 5;  // for what a busy mount has to write, and, when it was detached, for its last users

class Supervisor {
 public:
  Supervisor(pid_t server, Fd link, Fd signals)
      : server_(server), link_(std::move(link)), signals_(std::move(signals)) {}

  int run() {
    int status = 0;
    while (waitpid(server_, &status, WNOHANG) != server_) {
      wait();
      listen();
      if (take_signals()) stop();
      if (Clock::now() >= deadline_) {
        deadline_ = Clock::time_point::max();
        kill(server_, SIGTERM);
      }
    }
    listen();
    clear_away(status);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  void wait() {
    int timeout_ms = -1;
    if (deadline_ != Clock::time_point::max()) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count() + 1;
      timeout_ms = static_cast<int>(std::clamp<long long>(left, 0, INT_MAX));
    }
    // poll passes over what is closed, whose descriptor is -1.
    std::array<pollfd, 3> all{{{signals_.get(), POLLIN, 0}, {link_.get(), POLLIN, 0}, {control_.get(), POLLIN, 0}}};
    if (poll(all.data(), all.size(), timeout_ms) > 0 && all[2].revents != 0) connect_control();
  }

  // True: one of them wishes the mount to end.
  bool take_signals() {
    bool wish = false;
    signalfd_siginfo info{};
    while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      wish = wish || info.ssi_signo != SIGCHLD;
    }
    return wish;
  }

  void listen() {
    while (link_) {
      Result<std::optional<Said>> said = hear(link_.get());
      if (!said) return link_.reset();
      if (!*said) return;
      const std::string& text = (*said)->text;
      switch ((*said)->what) {
        case Say::kMountpoint:
          if (mountpoint_.empty()) mountpoint_ = text;
          break;
        case Say::kLog:
          if (!text.empty() && text[0] >= '0' && text[0] <= '7')
            log_line(text[0] - '0', std::string_view(text).substr(1));
          break;
        case Say::kStop: stop(); break;
        case Say::kIdle: unmount_if_unused(); break;
        case Say::kVolume: open_control(as_bytes(text)); break;
      }
    }
  }

  // Without it the mount is served all the same.
  void open_control(ByteView bytes) {
    wrap::VolumeId id{};
    if (control_ || bytes.size() != id.size()) return;
    std::copy(bytes.begin(), bytes.end(), id.begin());
    Result<Fd> listener = wrap::listen_control(id);
    if (listener) {
      control_ = *std::move(listener);
    } else {
      log_line(LOG_WARNING, "the mount cannot be suspended: " + listener.error().what);
    }
  }
  void connect_control() {
    Result<Fd> connection = wrap::accept_control(control_.get());
    if (!connection) {
      log_line(LOG_WARNING, "the mount cannot be suspended any more: " + connection.error().what);
      return control_.reset();
    }
    if (*connection && link_) (void)hand_over(link_.get(), *connection);
  }

  [[nodiscard]] bool is_mounted() const {
    const auto entry = wrap::ecfs_mount_at(mountpoint_);
    return entry && entry->has_value();
  }

  // Unmounts: the server ends when the kernel is done with it. A busy mount is flushed and detached, so that nobody new
  // comes in, and its last users get kDrainSeconds.
  void stop() {
    if (std::exchange(stopping_, true)) return;
    if (mountpoint_.empty()) {  // it waits for its request, deaf to gentler signals
      kill(server_, SIGKILL);
      return;
    }
    if (!is_mounted()) {
      kill(server_, SIGTERM);
      return;
    }
    if (wrap::unmount(mountpoint_, false)) {
      deadline_ = Clock::now() + std::chrono::seconds(kDrainSeconds);
      return;
    }
    write_back();
    if (Status detached = wrap::unmount(mountpoint_, true); !detached) {
      log_line(LOG_ERR, "cannot unmount: " + detached.error().what);
      kill(server_, SIGTERM);
      return;
    }
    deadline_ = Clock::now() + std::chrono::seconds(kDrainSeconds);
    log_line(LOG_WARNING, "the mount was in use: it was detached, and open files have " +
                              std::to_string(kDrainSeconds) + " seconds to be closed");
  }

  // Not for longer than kDrainSeconds: what a suspended server is to write waits for the key.
  void write_back() {
    std::promise<void> done;
    std::future<void> written = done.get_future();
    std::thread([path = mountpoint_, done = std::move(done)]() mutable {
      const Fd root(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
      if (root) syncfs(root.get());
      done.set_value();
    }).detach();
    if (written.wait_for(std::chrono::seconds(kDrainSeconds)) != std::future_status::ready) {
      log_line(LOG_WARNING, "the mount does not write what the kernel has for it: that may be lost");
    }
  }

  // Whether somebody's working directory or root is inside, only the kernel knows: it refuses then, and the server says
  // the same again after another such time.
  void unmount_if_unused() {
    if (stopping_ || mountpoint_.empty() || !is_mounted()) return;
    const Status done = wrap::unmount(mountpoint_, false);
    if (done) {
      log_line(LOG_INFO, "nobody used the mount: it was unmounted");
    } else if (done.error().code != Code::kBusy) {
      log_line(LOG_WARNING, "cannot unmount, though nobody uses it: " + done.error().what);
    }
  }

  // A server that is gone and a mount that is not: whoever looks at it gets ENOTCONN until it is detached.
  void clear_away(int status) {
    if (mountpoint_.empty() || !is_mounted() || !wrap::is_dead(mountpoint_)) return;
    const Status detached = wrap::unmount(mountpoint_, true);
    std::string how = "ended with status " + std::to_string(WEXITSTATUS(status));
    if (WIFSIGNALED(status)) {
      how = "was ended by signal " + std::to_string(WTERMSIG(status));
      if (WTERMSIG(status) == SIGSYS) how += ", for a system call that it never has use for";
    }
    log_line(LOG_ERR, "the server " + how + "; its mount " +
                          (detached ? "was detached" : "could not be detached: " + detached.error().what));
  }

  const pid_t server_;
  Fd link_;
  const Fd signals_;
  Fd control_;
  std::string mountpoint_;
  bool stopping_ = false;
  Clock::time_point deadline_ = Clock::time_point::max();
};

}  // namespace

int supervise(pid_t server, Fd link, const sigset_t& signals) {
  Fd events(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!events) {
    log_line(LOG_ERR, system_error(errno, "watch the server").what);
    kill(server, SIGKILL);
  }
  return Supervisor(server, std::move(link), std::move(events)).run();
}

}  // namespace ecfs::fs
