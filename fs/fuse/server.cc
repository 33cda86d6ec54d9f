#include "fs/fuse/server.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fs/format/ecryptfs_format.h"
#include "fs/format/native_format.h"
#include "fs/fuse/idle.h"
#include "fs/fuse/kernel_io.h"
#include "fs/fuse/link.h"
#include "fs/fuse/loop.h"
#include "fs/fuse/ops.h"
#include "fs/fuse/sandbox.h"
#include "fs/fuse/suspension.h"
#include "fs/fuse/variant.h"
#include "fs/volume.h"
#include "wrap/base/file.h"
#include "wrap/base/locked_pages.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/base/process.h"
#include "wrap/base/secret.h"
#include "wrap/crypto.h"
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

std::atomic<fuse_session*> g_session{nullptr};
std::atomic<pid_t> g_supervisor{0};
std::atomic<int> g_link{-1};

// The supervisor is the one who can unmount: another's wish to stop goes to it, its own ends the session.
void on_stop_signal(int, siginfo_t* info, void*) {
  const int saved = errno;
  const pid_t supervisor = g_supervisor;
  if (info->si_pid != supervisor && getppid() == supervisor && say(g_link, Say::kStop, {})) {
    // It hears us.
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

// A confined server cannot reach the system log. A supervisor that is gone, or does not keep up, loses lines.
void log_to_supervisor(int priority, std::string_view line) {
  const std::string text = std::to_string(priority & LOG_PRIMASK) + std::string(line);
  (void)say(g_link, Say::kLog, text);
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

// check_can_mount finds the ordinary reasons why a mount will not work, each with what to do.
Status check_can_mount(const std::string& mountpoint) {
  if (wrap::is_dead(mountpoint)) {
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
    if (request.options.no_exec) add_option(args, "noexec");
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
  rlimit locked{};
  if (getrlimit(RLIMIT_MEMLOCK, &locked) == 0 && locked.rlim_cur != locked.rlim_max) {
    locked.rlim_cur = locked.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &locked);
  }
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

// From here on secrets are the server's alone. Before the first use of OpenSSL.
Status keep_secrets(bool may_hibernate) {
  SecretRules rules;
  rules.hidden = !may_hibernate;
  rules.past_limit = true;
  rules.not_for_children = true;
  set_secret_rules(rules);
  // The sanitizers watch over the ordinary heap alone.
  if (kPlainMemory || kSanitized) return {};
  return wrap::openssl_in_secret_heap();
}

// The request is read here and its key ends here: what is left afterwards are the format's derived keys.
struct Opened {
  wrap::MountRequest request;            // without its key
  std::optional<wrap::VolumeFile> file;  // none of an eCryptfs tree
  wrap::VolumeId id{};
  std::unique_ptr<Volume> volume;
  bool read_only = false;
};
Result<Opened> open_volume(const Fd& request_fd, Fd lower, bool foreground) {
  Opened out;
  raise_limits();
  ECFS_LET(out.request, wrap::receive_mount_request(request_fd.get()));
  wrap::MountRequest& request = out.request;
  ECFS_TRY(keep_secrets(request.options.hibernate));
  std::unique_ptr<Format> format;
  VolumeOptions options;
  options.read_only = request.options.read_only;
  if (const auto& ecryptfs = request.options.ecryptfs; ecryptfs) {
    // OpenSSL's legacy provider, a file, is loaded here, before the server is confined.
    ECFS_LET(const EcryptfsFormatOptions format_options, ecryptfs_format_options(*ecryptfs));
    ECFS_LET(format, make_ecryptfs_format(format_options, request.key));
    ECFS_LET(out.id, wrap::ecryptfs_mount_id(lower.get()));
    if (ecryptfs->encrypted_view) options.read_only = true;
  } else {
    ECFS_LET(out.file, wrap::parse_volume_file(request.volume_file));
    const wrap::VolumeHeader& header = out.file->header;
    ECFS_TRY(wrap::verify_volume_file(*out.file, request.key));
    ECFS_LET(format, make_native_format({header, request.options.unsealed_report}, request.key));
    out.id = header.id;
    if (header.must_be_read_only()) options.read_only = true;
  }
  request.key.clear();
  out.read_only = options.read_only;
  options.show_conflicts = request.options.show_conflicts;
  options.shared = request.options.shared;
  options.no_atime = request.options.no_atime;
  options.log_plain_names = foreground;
  ECFS_LET(out.volume, Volume::open(std::move(lower), std::move(format), options));
  return out;
}

// What this machine cannot do for us is said once a mount.
Status confine_server(const wrap::MountOptions& options, int lower_dir, bool rings) {
  if (const SecretPages pages = secret_pages(); !options.hibernate && pages.hidden == 0 && pages.unlocked == 0) {
    log_line(LOG_NOTICE, "keys: this kernel has no memfd_secret; they are in locked memory");
  }
  if (kSanitized) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return system_error(errno, "give up new privileges");
    log_line(LOG_WARNING, "built with a sanitizer: not confined, and keys may be dumped");
    return {};
  }
  Confinement confinement;
  confinement.lower_dir = lower_dir;
  confinement.reads_groups = options.allow_other && geteuid() == 0;
  confinement.rings = rings;
  confinement.strict = kTestCopy;
  ECFS_LET(const std::vector<std::string> missing, confine(confinement));
  for (const std::string& lack : missing) log_line(LOG_WARNING, "less confined than usual. " + lack);
  return {};
}

void say_no_rings(const Error& why) {
  log_line(LOG_NOTICE, "requests come over /dev/fuse, as io_uring cannot be used: " + why.what);
}

// However it ends, the rings' threads do so before what they work with.
class RingsEnd {
 public:
  explicit RingsEnd(Server& server) noexcept : server_(server) {}
  ~RingsEnd() {
    if (server_.rings) server_.rings->stop();
  }
  RingsEnd(const RingsEnd&) = delete;
  RingsEnd& operator=(const RingsEnd&) = delete;

 private:
  Server& server_;
};

Status run(ServerStart& start) {
  // Threads begin with every signal blocked, so that those to stop reach the thread that waits for them.
  const Fd lower_dir(fcntl(start.lower.get(), F_DUPFD_CLOEXEC, 3));
  if (!lower_dir) return system_error(errno, "copy a descriptor");
  ECFS_LET(Opened opened, open_volume(start.request, std::move(start.lower), start.foreground));
  start.request.reset();
  const wrap::MountOptions& options = opened.request.options;
  const std::string& mountpoint = opened.request.mountpoint;
  Server server;
  server.volume = opened.volume.get();
  server.shared = options.shared;
  const bool mounted = static_cast<bool>(start.fuse);
  if (!mounted) ECFS_TRY(check_can_mount(mountpoint));
  ECFS_LET(const Session session, make_session(opened.request, mounted, opened.read_only, server));
  opened.volume->set_cache_fill(
      [s = session.get()](std::uint64_t nodeid, ByteView contents) { return store_in_kernel(s, nodeid, contents); });
  if (!say(start.link.get(), Say::kMountpoint, mountpoint)) return system_error(errno, "tell the supervisor");
  ECFS_TRY(mount_session(session.get(), mounted ? "/dev/fd/" + std::to_string(start.fuse.get()) : mountpoint));
  (void)start.fuse.release();  // the session has it
  ECFS_TRY(use_kernel_io(session.get()));
  (void)say(start.link.get(), Say::kVolume, as_text(opened.id));
  std::vector<wrap::EcryptfsSignature> signatures;
  if (options.ecryptfs) {
    signatures = options.ecryptfs->signatures;
    if (options.ecryptfs->name_signature) signatures.push_back(*options.ecryptfs->name_signature);
  }
  ECFS_LET(auto suspension, Suspension::make({&server, std::move(opened.file), std::move(signatures), options.suspend,
                                              start.link.get()}));
  if (Rings::are_offered()) {
    if (auto rings = Rings::make(session.get()); rings) {
      server.rings = *std::move(rings);
    } else {
      say_no_rings(rings.error());
    }
  }
  const RingsEnd rings_end(server);
  ECFS_TRY(confine_server(options, lower_dir.get(), server.rings != nullptr));

  opened.volume->start();
  suspension->start();
  server.seeker = std::make_unique<Seeker>(*opened.volume, server.gate, session.get());
  if (server.rings) {
    if (const Status made = server.rings->make_threads(); !made) {
      say_no_rings(made.error());
      server.rings.reset();
    }
  }
  if (options.idle_s > 0) {
    server.idle = std::make_unique<Idle>(
        options.idle_s, [&] { return server.files.empty() && server.dirs.empty(); },
        [] { (void)say(g_link, Say::kIdle, {}); });
  }
  g_session = session.get();
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  ECFS_TRY(answer_init(session.get()));
  if (server.rings) server.rings->serve();
  ECFS_TRY(write_all(start.ready.get(), as_bytes("ok\n")));
  start.ready.reset();
  Status done = serve_requests(session.get(), kMaxThreads, server.rings != nullptr);
  g_session = nullptr;
  if (server.rings) server.rings->stop();
  suspension.reset();
  server.idle.reset();
  server.seeker.reset();
  server.gate.give_up();
  server.close_all();
  opened.volume.reset();
  return done;
}

}  // namespace

int serve(ServerStart start) {
  keep_stack_from_dumps();
  g_supervisor = start.supervisor;
  g_link = start.link.get();
  handle_stop_signals();
  if (!start.foreground) log_through(log_to_supervisor);
  if (!wrap::await_mount_request(start.request.get())) return 0;
  Status done;
  try {
    done = run(start);
  } catch (const std::exception& e) {
    done = Error{Code::kIo, 0, e.what()};
  }
  if (done) return 0;
  const Error& error = done.error();
  log_line(LOG_ERR, error.what);
  if (start.ready) {
    const std::string line = std::to_string(static_cast<int>(error.code)) + " " + std::to_string(error.sys_errno) +
                             " " + one_line(error.what) + "\n";
    (void)write_all(start.ready.get(), as_bytes(line));
  }
  return 1;
}

}  // namespace ecfs::fs
