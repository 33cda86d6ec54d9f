// ecfs-login: run by pam_ecfs.so as root, for one command; see protocol.h. Not for people: ecfs-login(8).
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>

#include "pam/login/commands.h"
#include "pam/protocol.h"
#include "wrap/base/log.h"

namespace ecfs::pam {
namespace {

struct Invocation {
  Request request;
  uid_t uid = 0;  // of `watch`
};

template <class T>
bool take_number(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

Result<Invocation> parse(int argc, char** argv) {
  Invocation in;
  if (argc < 2) return Error{Code::kInvalid, 0, "no command"};
  in.request.command = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string_view text = argv[i];
    const std::size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const std::string value(equals == std::string_view::npos ? std::string_view() : text.substr(equals + 1));
    bool understood = true;
    if (name == "--user") {
      in.request.user = value;
    } else if (name == "--service") {
      in.request.service = value;
    } else if (name == "--time-limit-ms") {
      understood = take_number(value, in.request.time_limit_ms);
    } else if (name == "--uid") {
      understood = take_number(value, in.uid);
    } else {
      understood = false;
    }
    if (!understood) return Error{Code::kInvalid, 0, "cannot understand " + std::string(text)};
  }
  return in;
}

// Raises a limit to at least `wanted`, as far as this process may.
void raise_limit(__rlimit_resource resource, rlim_t wanted) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur >= wanted) return;
  const rlimit raised{wanted, std::max(wanted, limit.rlim_max)};
  if (setrlimit(resource, &raised) == 0) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);  // root without CAP_SYS_RESOURCE, in a container
  setrlimit(resource, &limit);
}

// The login may have set limits for the user's programs already (pam_limits): small sizes of files, memory, locked
// memory. They are not meant for this work, nor for the server of the mount, which inherits ours.
void raise_limits() {
  constexpr rlim_t kLockedBytes = 64U << 20;
  constexpr rlim_t kOpenFiles = 65536;
  for (const auto resource : {RLIMIT_FSIZE, RLIMIT_AS, RLIMIT_DATA, RLIMIT_CPU, RLIMIT_NPROC}) {
    raise_limit(resource, RLIM_INFINITY);
  }
  raise_limit(RLIMIT_MEMLOCK, kLockedBytes);
  raise_limit(RLIMIT_NOFILE, kOpenFiles);
}

wrap::Config machine_config() {
  auto config = wrap::load_config();
  if (config) return *std::move(config);
  log_line(LOG_ERR, config.error().what + "; the defaults hold");
  return {};
}

Result<int> run(Invocation in) {
  if (in.request.command == kCommandWatch) return run_watch(in.uid, machine_config());
  Channel channel{Fd(kHelperSocketFd)};
  ECFS_LET(in.request.first, channel.receive_secret());
  ECFS_LET(in.request.second, channel.receive_secret());
  if (in.request.command == kCommandOpen) return run_open(in.request, machine_config(), channel);
  if (in.request.command == kCommandCheck) return run_check(in.request, channel);
  if (in.request.command == kCommandChange) return run_change(in.request, machine_config(), channel);
  if (in.request.command == kCommandMarkStale) return run_mark_stale(in.request, channel);
  return Error{Code::kInvalid, 0, "no such command: " + in.request.command};
}

}  // namespace

std::string own_path() {
  std::array<char, 4096> target{};
  const ssize_t n = readlink("/proc/self/exe", target.data(), target.size());
  return n > 0 ? std::string(target.data(), static_cast<std::size_t>(n)) : std::string();
}

std::string program_beside(const std::string& name) {
  const std::string own = own_path();
  return own.substr(0, own.rfind('/') + 1) + name;
}

}  // namespace ecfs::pam

int main(int argc, char** argv) {
  if (geteuid() != 0) {
    ecfs::log_line(LOG_ERR, "this program is for pam_ecfs and needs root; to open files by hand: ecfs mount-private");
    return 1;
  }
  ecfs::log_open("ecfs-login", ecfs::LogTo::kSyslog);
  umask(077);
  ecfs::pam::raise_limits();
  auto in = ecfs::pam::parse(argc, argv);
  if (!in) {
    ecfs::log_line(LOG_ERR, in.error().what);
    return 2;
  }
  const ecfs::Status no_dumps = ecfs::no_core_dumps();
  const ecfs::Result<int> done = no_dumps ? ecfs::pam::run(*std::move(in)) : ecfs::Result<int>(no_dumps.error());
  if (done) return *done;
  ecfs::log_line(LOG_ERR, done.error().what);
  return 1;
}
