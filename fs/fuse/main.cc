// ecfs-mountd: serves one mount. Started by wrap::start_mountd with the descriptors named in wrap/mount.h, never by
// hand. Two processes: the supervisor and the server (fs/DESIGN.md, Processes).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/fuse/link.h"
#include "fs/fuse/server.h"
#include "fs/fuse/supervisor.h"
#include "fs/fuse/variant.h"
#include "wrap/base/log.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/mount.h"

namespace ecfs::fs {
namespace {

bool is_open(int fd) { return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0; }

// What stands on the command line.
struct Arguments {
  bool foreground = false;
  std::vector<wrap::EcryptfsSignature> unlink;  // keys that leave the keyring with the mount
};

Result<Arguments> parse(int argc, char** argv) {
  constexpr std::string_view kUnlink = "--unlink=";
  Arguments out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--foreground") {
      out.foreground = true;
    } else if (arg.starts_with(kUnlink)) {
      ECFS_LET(const auto signature, wrap::parse_ecryptfs_signature(arg.substr(kUnlink.size())));
      out.unlink.push_back(signature);
    } else {
      return Error{Code::kInvalid, EINVAL, "unknown argument"};
    }
  }
  return out;
}

int run(const Arguments& args) {
  if (!is_open(wrap::kMountdRequestFd) || !is_open(wrap::kMountdLowerFd) || !is_open(wrap::kMountdReadyFd)) {
    log_line(LOG_ERR, "this program is started by `ecfs mount` and at login, not by hand");
    return 2;
  }
  ServerStart start;
  start.request.reset(wrap::kMountdRequestFd);
  start.lower.reset(wrap::kMountdLowerFd);
  start.ready.reset(wrap::kMountdReadyFd);
  if (is_open(wrap::kMountdFuseFd)) start.fuse.reset(wrap::kMountdFuseFd);
  start.foreground = args.foreground;
  if (chdir("/") != 0) log_line(LOG_WARNING, "cannot go to /: the present directory stays busy");
  umask(0);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int sig : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&signals, sig);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Result<LinkEnds> link = make_link();
  if (!link) {
    log_line(LOG_ERR, link.error().what);
    return 1;
  }
  // The sanitizers look into their own process, and the search for keys into that of the test.
  if (Status done; !kTestCopy && !kSanitized && !(done = no_core_dumps())) {
    log_line(LOG_ERR, done.error().what);
    return 1;
  }
  start.supervisor = getpid();
  const pid_t server = fork();
  if (server < 0) {
    log_line(LOG_ERR, system_error(errno, "start the server").what);
    return 1;
  }
  if (server == 0) {
    link->supervisor.reset();
    start.link = std::move(link->server);
    return serve(std::move(start));
  }
  // Nothing of it stays here: the connection would outlive its server, and the reader of `ready` wait for us.
  for (Fd* fd : {&start.request, &start.lower, &start.ready, &start.fuse, &link->server}) fd->reset();
  const int status = supervise(server, std::move(link->supervisor), signals);
  for (const wrap::EcryptfsSignature& signature : args.unlink) {
    if (Status done = wrap::drop_ecryptfs_token(signature); !done) log_line(LOG_WARNING, done.error().what);
  }
  return status;
}

}  // namespace
}  // namespace ecfs::fs

int main(int argc, char** argv) {
  const auto args = ecfs::fs::parse(argc, argv);
  ecfs::log_open("ecfs-mountd", args && args->foreground ? ecfs::LogTo::kStderr : ecfs::LogTo::kSyslog);
  if (!args) {
    ecfs::log_line(LOG_ERR, args.error().what);
    return 2;
  }
  return ecfs::fs::run(*args);
}
