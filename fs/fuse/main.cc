// ecfs-mountd: serves one mount. Started by wrap::start_mountd with the descriptors named in wrap/mount.h, never by
// hand.
//
// Two processes. The supervisor has no key and no lower file, keeps the right to run fusermount3, and sees to it that
// the mount ends with the server: it unmounts when told to stop, and detaches a mount whose server died. The server
// reads the request, mounts, gives up the way to more privilege, and answers the kernel.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fs/format/native_format.h"
#include "fs/fuse/kernel_io.h"
#include "fs/fuse/loop.h"
#include "fs/fuse/ops.h"
#include "fs/volume.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/base/process.h"
#include "wrap/base/secret.h"
#include "wrap/mount.h"
#include "wrap/volume_header.h"

namespace ecfs::fs {
namespace {

using Session = Owned<fuse_session, fuse_session_destroy>;
struct FuseArgs : fuse_args {
  FuseArgs() noexcept : fuse_args FUSE_ARGS_INIT(0, nullptr) {}
  ~FuseArgs() { fuse_opt_free_args(this); }
  FuseArgs(const FuseArgs&) = delete;
  FuseArgs& operator=(const FuseArgs&) = delete;
};

constexpr unsigned kMaxThreads = 16;
constexpr int kDrainSeconds = 5;  // after a busy mount was detached, for its last users
constexpr std::size_t kMaxPathBytes = 4096;

// ---- the server

std::atomic<fuse_session*> g_session{nullptr};
std::atomic<pid_t> g_supervisor{0};

// The supervisor is the one who can unmount: another's wish to stop goes to it, its own ends the session.
void on_stop_signal(int, siginfo_t* info, void*) {
  const int saved = errno;
  const pid_t supervisor = g_supervisor;
  if (info->si_pid != supervisor && getppid() == supervisor) {
    kill(supervisor, SIGTERM);
  } else if (fuse_session* session = g_session; session != nullptr) {
    fuse_session_exit(session);
  } else {
    _exit(128 + SIGTERM);
  }
  errno = saved;
}

void handle_stop_signals() {
  struct sigaction action {};
  action.sa_sigaction = on_stop_signal;
  action.sa_flags = SA_SIGINFO;
  for (const int sig : {SIGTERM, SIGINT, SIGHUP}) sigaction(sig, &action, nullptr);
}

// What libfuse says while it mounts, kept for the error.
std::string& fuse_messages() {
  static std::string text;
  return text;
}
void keep_fuse_message(fuse_log_level level, const char* format, va_list args) {
  std::array<char, 512> line{};
  vsnprintf(line.data(), line.size(), format, args);  // NOLINT: libfuse's own interface
  if (g_session == nullptr) {
    fuse_messages() += line.data();
  } else if (level <= FUSE_LOG_WARNING) {
    log_line(static_cast<int>(level), line.data());
  }
}

// CaughtStderr collects what is written to descriptor 2 (by fusermount3) while it lives.
class CaughtStderr {
 public:
  CaughtStderr() {
    Result<Pipe> pipe = make_pipe();
    if (!pipe) return;
    saved_.reset(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
    dup2(pipe->write_end.get(), STDERR_FILENO);
    read_end_ = std::move(pipe->read_end);
    fcntl(read_end_.get(), F_SETFL, O_NONBLOCK);
  }
  ~CaughtStderr() { (void)text(); }
  CaughtStderr(const CaughtStderr&) = delete;
  CaughtStderr& operator=(const CaughtStderr&) = delete;

  // text puts descriptor 2 back.
  std::string text() {
    if (!read_end_) return {};
    if (saved_) {
      dup2(saved_.get(), STDERR_FILENO);
    } else {
      close(STDERR_FILENO);
    }
    std::array<char, 2048> buffer{};
    const ssize_t n = ::read(read_end_.get(), buffer.data(), buffer.size());
    read_end_.reset();
    return n > 0 ? std::string(buffer.data(), static_cast<std::size_t>(n)) : std::string();
  }

 private:
  Fd saved_;
  Fd read_end_;
};

std::string one_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ';');
  return printable(text);
}

// has_no_server says whether nobody answers for the mount any more. Asked with statvfs(3), which the kernel always
// passes on; attributes it may still have for a second.
bool has_no_server(const std::string& mountpoint) {
  struct statvfs st {};
  return statvfs(mountpoint.c_str(), &st) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

// check_can_mount finds the ordinary reasons why a mount will not work, each with what to do.
Status check_can_mount(const std::string& mountpoint) {
  if (has_no_server(mountpoint)) {
    // Left by a server that died where no supervisor was left either.
    Status cleared = wrap::unmount(mountpoint, true);
    if (!cleared) {
      return with_context(std::move(cleared).error(), "a dead mount is at " + mountpoint + " and cannot be detached");
    }
    log_line(LOG_WARNING, "a dead mount at the mountpoint was detached");
  }
  ECFS_LET(const std::optional<wrap::MountEntry> there, wrap::ecfs_mount_at(mountpoint));
  if (there) return Error{Code::kBusy, EBUSY, mountpoint + ": something is mounted there already"};
  struct stat st {};
  if (stat(mountpoint.c_str(), &st) != 0) return system_error(errno, "the mountpoint " + mountpoint);
  if (!S_ISDIR(st.st_mode)) return Error{Code::kInvalid, ENOTDIR, "the mountpoint " + mountpoint + " is no directory"};
  const Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device && (errno == EACCES || errno == EPERM)) {
    return Error{Code::kDenied, errno,
                 "/dev/fuse may not be opened: its mode should be 0666, as the udev rule of the package fuse3 sets it "
                 "(in a container the device has to be allowed)"};
  }
  if (!device) {
    return Error{Code::kUnavailable, errno,
                 "/dev/fuse is not there: load the kernel module (modprobe fuse), install the package fuse3, or in a "
                 "container pass the device in"};
  }
  if (geteuid() != 0 && access("/usr/bin/fusermount3", X_OK) != 0) {
    return Error{Code::kUnavailable, errno,
                 "fusermount3, which mounts for an ordinary user, is missing: install the package fuse3"};
  }
  return {};
}

Status mount_session(fuse_session* session, const std::string& mountpoint) {
  CaughtStderr caught;
  if (fuse_session_mount(session, mountpoint.c_str()) == 0) return {};
  const int err = errno;
  std::string said = one_line(caught.text() + fuse_messages());
  if (said.empty()) said = "the kernel refused the mount: " + system_error(err, "mount").what;
  if (said.find("user_allow_other") != std::string::npos) {
    said += " (an administrator adds that line, or leave out the option allow_other)";
  }
  return Error{Code::kUnavailable, err, "mount at " + mountpoint + ": " + said};
}

void add_option(fuse_args& args, const std::string& option) {
  fuse_opt_add_arg(&args, "-o");
  fuse_opt_add_arg(&args, option.c_str());
}

// A comma in a path would begin another option.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ',' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

Result<Session> make_session(const wrap::MountRequest& request, bool mounted, bool read_only, Server& server) {
  FuseArgs args;
  fuse_opt_add_arg(&args, "ecfs-mountd");
  if (!mounted) {
    add_option(args, "fsname=" + escaped(printable(request.lower_path)));
    add_option(args, "subtype=ecfs,default_permissions,nosuid,nodev");
    if (read_only) add_option(args, "ro");
    if (request.options.no_atime) add_option(args, "noatime");
    if (request.options.allow_other) add_option(args, "allow_other");
  }
  fuse_set_log_func(keep_fuse_message);
  Session session(fuse_session_new(&args, &operations(), sizeof(fuse_lowlevel_ops), &server));
  if (!session) return Error{Code::kIo, 0, "libfuse: " + one_line(fuse_messages())};
  return session;
}

void raise_limits() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  // The limit of whoever started the mount is no limit of the files in it.
  rlimit size{};
  if (getrlimit(RLIMIT_FSIZE, &size) == 0) {
    size.rlim_cur = size.rlim_max;
    setrlimit(RLIMIT_FSIZE, &size);
  }
}

Status protect_process() {
#ifndef ECFS_SANITIZED  // the sanitizers look into their own process
  ECFS_TRY(no_core_dumps());
#endif
  return {};
}

// answer_init serves the first message of the kernel, so that "ready" is said of a mount that answers.
Status answer_init(fuse_session* session) {
  fuse_buf buffer{};
  int got = 0;
  do {
    got = fuse_session_receive_buf(session, &buffer);
  } while (got == -EINTR && fuse_session_exited(session) == 0);
  if (got > 0) fuse_session_process_buf(session, &buffer);
  free(buffer.mem);  // NOLINT: libfuse allocates it so
  if (got <= 0) return system_error(got == 0 ? ENODEV : -got, "the first message of the kernel");
  return {};
}

// The request is read here and its key ends here: what is left afterwards are the format's derived keys.
struct Opened {
  wrap::MountRequest request;  // without its key
  std::unique_ptr<Volume> volume;
  bool read_only = false;
};
Result<Opened> open_volume(Fd request_fd, Fd lower, bool foreground) {
  Opened out;
  ECFS_LET(out.request, wrap::receive_mount_request(request_fd.get()));
  wrap::MountRequest& request = out.request;
  ECFS_LET(const wrap::VolumeFile file, wrap::parse_volume_file(request.volume_file));
  ECFS_TRY(wrap::verify_volume_file(file, request.key));
  ECFS_LET(auto format, make_native_format({file.header, request.options.unsealed_report}, request.key));
  request.key.clear();
  VolumeOptions options;
  out.read_only = options.read_only = request.options.read_only || file.header.must_be_read_only();
  options.show_conflicts = request.options.show_conflicts;
  options.shared = request.options.shared;
  options.log_plain_names = foreground;
  raise_limits();
  ECFS_LET(out.volume, Volume::open(std::move(lower), std::move(format), options));
  return out;
}

Status run_server(Fd request_fd, Fd lower, Fd& ready, Fd fuse, Fd to_supervisor, bool foreground) {
  ECFS_TRY(protect_process());
  // Threads begin with every signal blocked, so that those to stop reach the thread that waits for them.
  ECFS_LET(Opened opened, open_volume(std::move(request_fd), std::move(lower), foreground));
  const std::string& mountpoint = opened.request.mountpoint;
  Server server;
  server.volume = opened.volume.get();
  server.shared = opened.request.options.shared;
  if (!fuse) ECFS_TRY(check_can_mount(mountpoint));
  ECFS_LET(const Session session, make_session(opened.request, static_cast<bool>(fuse), opened.read_only, server));
  opened.volume->set_cache_fill(
      [s = session.get()](std::uint64_t nodeid, ByteView contents) { return store_in_kernel(s, nodeid, contents); });
  server.seeker = std::make_unique<Seeker>(*opened.volume, session.get());
  ECFS_TRY(write_all(to_supervisor.get(), as_bytes(mountpoint)));
  to_supervisor.reset();
  const std::string at = fuse ? "/dev/fd/" + std::to_string(fuse.get()) : mountpoint;
  ECFS_TRY(mount_session(session.get(), at));
  ECFS_TRY(use_kernel_io(session.get()));
  (void)fuse.release();  // the session has it
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return system_error(errno, "give up new privileges");
  g_session = session.get();
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  ECFS_TRY(answer_init(session.get()));
  ECFS_TRY(write_all(ready.get(), as_bytes("ok\n")));
  ready.reset();
  Status done = serve_requests(session.get(), kMaxThreads);
  g_session = nullptr;
  server.seeker.reset();
  server.close_all();
  opened.volume.reset();
  return done;
}

int server_main(Fd request_fd, Fd lower, Fd ready, Fd fuse, Fd to_supervisor, bool foreground) {
  Status done;
  try {
    done = run_server(std::move(request_fd), std::move(lower), ready, std::move(fuse), std::move(to_supervisor),
                      foreground);
  } catch (const std::exception& e) {
    done = Error{Code::kIo, 0, e.what()};
  }
  if (done) return 0;
  const Error& error = done.error();
  log_line(LOG_ERR, error.what);
  if (ready) {
    const std::string line = std::to_string(static_cast<int>(error.code)) + " " + std::to_string(error.sys_errno) +
                             " " + one_line(error.what) + "\n";
    (void)write_all(ready.get(), as_bytes(line));
  }
  return 1;
}

// ---- the supervisor

bool is_our_mount(const std::string& mountpoint) {
  const auto entry = wrap::ecfs_mount_at(mountpoint);
  return entry && entry->has_value();
}

// stop_server unmounts: the server ends when the kernel is done with it. A busy mount is flushed and detached, so that
// nobody new comes in; `true` means that its last users get kDrainSeconds.
bool stop_server(const std::string& mountpoint, pid_t server) {
  if (mountpoint.empty()) {  // it waits for its request, deaf to gentler signals
    kill(server, SIGKILL);
    return false;
  }
  if (!is_our_mount(mountpoint)) {
    kill(server, SIGTERM);
    return false;
  }
  const Status clean = wrap::unmount(mountpoint, false);
  if (clean) return true;
  {
    const Fd root(::open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
    if (root) syncfs(root.get());
  }
  if (Status detached = wrap::unmount(mountpoint, true); !detached) {
    log_line(LOG_ERR, "cannot unmount: " + detached.error().what);
    kill(server, SIGTERM);
    return false;
  }
  log_line(LOG_WARNING, "the mount was in use: it was detached, and open files have " + std::to_string(kDrainSeconds) +
                            " seconds to be closed");
  return true;
}

void read_mountpoint(Fd& from_server, std::string& mountpoint) {
  std::array<char, kMaxPathBytes> chunk{};
  while (from_server && mountpoint.size() < kMaxPathBytes) {
    const ssize_t n = ::read(from_server.get(), chunk.data(), chunk.size());
    if (n < 0) break;  // nothing yet
    if (n == 0) {
      from_server.reset();
      break;
    }
    mountpoint.append(chunk.data(), static_cast<std::size_t>(n));
  }
}

int supervise(pid_t server, Fd from_server, const sigset_t& signals) {
  using Clock = std::chrono::steady_clock;
  std::string mountpoint;
  fcntl(from_server.get(), F_SETFL, O_NONBLOCK);
  bool stopping = false;
  Clock::time_point deadline = Clock::time_point::max();
  int status = 0;
  for (;;) {
    if (waitpid(server, &status, WNOHANG) == server) break;
    timespec wait{3600, 0};
    if (stopping) wait = {0, 200'000'000};
    const int sig = sigtimedwait(&signals, nullptr, &wait);
    read_mountpoint(from_server, mountpoint);
    if ((sig == SIGTERM || sig == SIGINT || sig == SIGHUP) && !stopping) {
      stopping = true;
      if (stop_server(mountpoint, server)) deadline = Clock::now() + std::chrono::seconds(kDrainSeconds);
    }
    if (Clock::now() >= deadline) {
      deadline = Clock::time_point::max();
      kill(server, SIGTERM);
    }
  }
  read_mountpoint(from_server, mountpoint);
  // A server that is gone and a mount that is not: whoever looks at it gets ENOTCONN until it is detached.
  if (!mountpoint.empty() && is_our_mount(mountpoint) && has_no_server(mountpoint)) {
    const Status detached = wrap::unmount(mountpoint, true);
    const std::string how = WIFSIGNALED(status) ? "was ended by signal " + std::to_string(WTERMSIG(status))
                                                : "ended with status " + std::to_string(WEXITSTATUS(status));
    log_line(LOG_ERR, "the server " + how + "; its mount " +
                          (detached ? "was detached" : "could not be detached: " + detached.error().what));
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

bool is_open(int fd) { return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0; }

int run(bool foreground) {
  if (!is_open(wrap::kMountdRequestFd) || !is_open(wrap::kMountdLowerFd) || !is_open(wrap::kMountdReadyFd)) {
    log_line(LOG_ERR, "this program is started by `ecfs mount` and at login, not by hand");
    return 2;
  }
  Fd request(wrap::kMountdRequestFd);
  Fd lower(wrap::kMountdLowerFd);
  Fd ready(wrap::kMountdReadyFd);
  Fd fuse(is_open(wrap::kMountdFuseFd) ? wrap::kMountdFuseFd : -1);
  if (chdir("/") != 0) log_line(LOG_WARNING, "cannot go to /: the present directory stays busy");
  umask(0);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int sig : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&signals, sig);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Result<Pipe> pipe = make_pipe();
  if (!pipe) {
    log_line(LOG_ERR, pipe.error().what);
    return 1;
  }
  g_supervisor = getpid();
  const pid_t server = fork();
  if (server < 0) {
    log_line(LOG_ERR, system_error(errno, "start the server").what);
    return 1;
  }
  if (server == 0) {
    pipe->read_end.reset();
    handle_stop_signals();
    return server_main(std::move(request), std::move(lower), std::move(ready), std::move(fuse),
                       std::move(pipe->write_end), foreground);
  }
  // Nothing of it stays here: the connection would outlive its server, and the reader of `ready` wait for us.
  for (Fd* fd : {&request, &lower, &ready, &fuse, &pipe->write_end}) fd->reset();
  (void)protect_process();
  return supervise(server, std::move(pipe->read_end), signals);
}

}  // namespace
}  // namespace ecfs::fs

int main(int argc, char** argv) {
  const bool foreground = argc == 2 && std::string_view(argv[1]) == "--foreground";
  ecfs::log_open("ecfs-mountd", foreground ? ecfs::LogTo::kStderr : ecfs::LogTo::kSyslog);
  if (argc > 1 && !foreground) {
    ecfs::log_line(LOG_ERR, "unknown argument");
    return 2;
  }
  return ecfs::fs::run(foreground);
}
