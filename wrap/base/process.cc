#include "wrap/base/process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "wrap/base/file.h"

namespace ecfs {
namespace {

constexpr std::size_t kMaxReplyFds = 16;
constexpr std::uint32_t kMaxReplyBytes = 4U << 20;
constexpr int kKilledMs = 1000;  // to end after SIGKILL

std::int64_t now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
}

// Without the groups.
template <class Lookup>
Result<Identity> look_up_user(const std::string& whom, Lookup&& lookup) {
  std::vector<char> buffer(1024);
  passwd entry{};
  passwd* found = nullptr;
  for (;;) {
    const int err = lookup(&entry, buffer.data(), buffer.size(), &found);
    if (err == ERANGE && buffer.size() < (std::size_t{1} << 20)) {
      buffer.resize(buffer.size() * 2);
      continue;
    }
    if (err == EINTR) continue;
    if (found != nullptr) break;
    if (err != 0 && err != ENOENT && err != ESRCH) return system_error(err, "look up user " + whom);
    return Error{Code::kNotFound, 0, "there is no user " + whom};
  }
  Identity id;
  id.name = entry.pw_name;
  id.home = entry.pw_dir;
  id.uid = entry.pw_uid;
  id.gid = entry.pw_gid;
  return id;
}

template <class Lookup>
Result<Identity> look_up(const std::string& whom, Lookup&& lookup) {
  ECFS_LET(Identity id, look_up_user(whom, lookup));
  int count = 64;
  for (;;) {
    id.groups.resize(static_cast<std::size_t>(count));
    const int asked = count;
    if (getgrouplist(id.name.c_str(), id.gid, id.groups.data(), &count) >= 0) break;
    if (count <= asked) count = asked * 2;
    if (count > 65536) return Error{Code::kInvalid, 0, "user " + whom + " is in too many groups"};
  }
  id.groups.resize(static_cast<std::size_t>(count));
  return id;
}

// Only async-signal-safe calls from here on: the child of a fork in a process that may have threads.
struct Exec {
  std::vector<char*> argv;
  std::vector<char*> env;
  std::vector<std::pair<int, int>> fds;
  const Identity* run_as;
  bool new_session;
  int report;
};

[[noreturn]] void give_up(const Exec& e, int err) {
  [[maybe_unused]] const ssize_t n = write(e.report, &err, sizeof err);
  _exit(127);
}

bool became(const Identity& who) {
  return setgroups(who.groups.size(), who.groups.data()) == 0 && setresgid(who.gid, who.gid, who.gid) == 0 &&
         setresuid(who.uid, who.uid, who.uid) == 0;
}

[[noreturn]] void exec_child(Exec& e) {
  for (int s = 1; s < NSIG; ++s) signal(s, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // Move the sources out of the way of the targets first: a target number may be another one's source.
  int highest = 2;
  for (const auto& [from, to] : e.fds) highest = std::max(highest, to);
  const int report = fcntl(e.report, F_DUPFD_CLOEXEC, highest + 1);
  if (report < 0) give_up(e, errno);
  e.report = report;
  for (auto& [from, to] : e.fds) {
    const int moved = fcntl(from, F_DUPFD_CLOEXEC, highest + 1);
    if (moved < 0) give_up(e, errno);
    from = moved;
  }
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) give_up(e, errno);
  for (int standard = 0; standard <= 2; ++standard) {
    if (null != standard && dup2(null, standard) < 0) give_up(e, errno);
  }
  if (null <= 2) fcntl(null, F_SETFD, 0);
  for (const auto& [from, to] : e.fds) {
    if (dup2(from, to) < 0) give_up(e, errno);
  }
  // Everything else closes at exec, also what the host opened without O_CLOEXEC.
  std::array<bool, 256> named{};
  for (const auto& [from, to] : e.fds) {
    if (to >= 0 && static_cast<std::size_t>(to) < named.size()) named[static_cast<std::size_t>(to)] = true;
  }
  for (int fd = 3; fd <= highest; ++fd) {
    if (static_cast<std::size_t>(fd) < named.size() && !named[static_cast<std::size_t>(fd)])
      fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  if (syscall(SYS_close_range, static_cast<unsigned>(highest) + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    constexpr int kUsualLimit = 65536;  // a kernel or a filter without close_range(2)
    for (int fd = highest + 1; fd < kUsualLimit; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  if (e.new_session) setsid();
  if (e.run_as != nullptr && !became(*e.run_as)) give_up(e, errno);
  if (chdir("/") != 0) give_up(e, errno);
  execve(e.argv[0], e.argv.data(), e.env.data());
  give_up(e, errno);
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const auto& s : strings) out.push_back(const_cast<char*>(s.c_str()));  // NOLINT: execve's signature
  out.push_back(nullptr);
  return out;
}

// A reply travels as: u32 ok, u32 data length, u32 secret length, the fds, then data and secret; an Error as
// u32 code, i32 errno and the text in place of data.
struct ReplyHead {
  std::uint32_t ok;
  std::int32_t code;
  std::int32_t err;
  std::uint32_t data_len;
  std::uint32_t secret_len;
  std::uint32_t num_fds;
};

Status send_reply(int socket, const Result<Reply>& result) {
  ReplyHead head{};
  ByteView data;
  ByteView secret;
  std::array<int, kMaxReplyFds> fds{};
  if (result) {
    if (result->fds.size() > fds.size() || result->data.size() > kMaxReplyBytes ||
        result->secret.size() > kMaxReplyBytes) {
      return Error{Code::kInvalid, 0, "a reply that is too large"};
    }
    head.ok = 1;
    data = result->data;
    secret = result->secret.reveal();
    head.num_fds = static_cast<std::uint32_t>(result->fds.size());
    for (std::size_t i = 0; i < result->fds.size(); ++i) fds[i] = result->fds[i].get();
  } else {
    head.code = static_cast<std::int32_t>(result.error().code);
    head.err = result.error().sys_errno;
    data = as_bytes(result.error().what);
    if (data.size() > 65536) data = data.first(65536);
  }
  head.data_len = static_cast<std::uint32_t>(data.size());
  head.secret_len = static_cast<std::uint32_t>(secret.size());
  iovec iov{&head, sizeof head};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxReplyFds)> control{};
  if (head.num_fds > 0) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * head.num_fds);
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * head.num_fds);
    std::memcpy(CMSG_DATA(c), fds.data(), sizeof(int) * head.num_fds);
  }
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof head)) return system_error(errno, "send");
  ECFS_TRY(write_all(socket, data));
  return write_all(socket, secret);
}

// Waits until there is something to read, at most until `end` (of now_ms(); negative: for ever).
Status wait_readable(int socket, std::int64_t end) {
  for (;;) {
    pollfd p{socket, POLLIN, 0};
    const std::int64_t left = end < 0 ? -1 : std::max<std::int64_t>(0, end - now_ms());
    const int n = poll(&p, 1, static_cast<int>(left));
    if (n > 0) return {};
    if (n == 0) return Error{Code::kUnavailable, ETIMEDOUT, "the worker process did not answer in time"};
    if (errno != EINTR) return system_error(errno, "wait for the worker process");
  }
}

// The limit is one for the whole answer: the user could stop (SIGSTOP) a child of his own uid after every byte.
Status receive_full(int socket, MutableByteView out, std::int64_t end) {
  while (!out.empty()) {
    ECFS_TRY(wait_readable(socket, end));
    const ssize_t n = recv(socket, out.data(), out.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return system_error(errno, "read the worker process's answer");
    if (n == 0) return Error{Code::kIo, 0, "the worker process ended in the middle of its answer"};
    out = out.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<Reply> receive_reply(int socket, std::int64_t end) {
  ReplyHead head{};
  iovec iov{&head, sizeof head};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxReplyFds)> control{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    ECFS_TRY(wait_readable(socket, end));
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (n < 0 && (errno == EINTR || errno == EAGAIN));
  Reply reply;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); n >= 0 && c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      reply.fds.emplace_back(fd);
    }
  }
  if (n != static_cast<ssize_t>(sizeof head)) return Error{Code::kIo, 0, "the worker process ended without an answer"};
  if (head.data_len > kMaxReplyBytes || head.secret_len > kMaxReplyBytes || head.num_fds != reply.fds.size()) {
    return Error{Code::kCorrupt, 0, "the worker process gave a malformed answer"};
  }
  reply.data.resize(head.data_len);
  ECFS_TRY(receive_full(socket, reply.data, end));
  ECFS_LET(reply.secret, Secret::of_size(head.secret_len));
  ECFS_TRY(receive_full(socket, reply.secret.reveal_mutable(), end));
  if (head.ok != 1) {
    // The child runs as the user and may be under that user's control: its code is a number from outside.
    const bool known = head.code >= 0 && head.code <= static_cast<std::int32_t>(Code::kIo);
    return Error{known ? static_cast<Code>(head.code) : Code::kIo, head.err, std::string(as_text(reply.data))};
  }
  return reply;
}

}  // namespace

Result<Identity> identity_of(const std::string& user) {
  return look_up(user,
                 [&](passwd* e, char* b, std::size_t n, passwd** f) { return getpwnam_r(user.c_str(), e, b, n, f); });
}

Result<Identity> identity_of(uid_t uid) {
  return look_up(std::to_string(uid),
                 [&](passwd* e, char* b, std::size_t n, passwd** f) { return getpwuid_r(uid, e, b, n, f); });
}

Result<Identity> own_identity() {
  const uid_t uid = geteuid();
  ECFS_LET(Identity id, look_up_user(std::to_string(uid), [&](passwd* e, char* b, std::size_t n, passwd** f) {
             return getpwuid_r(uid, e, b, n, f);
           }));
  const int count = getgroups(0, nullptr);
  if (count < 0) return system_error(errno, "ask for one's groups");
  id.groups.resize(static_cast<std::size_t>(count));
  if (getgroups(count, id.groups.data()) != count) return system_error(errno, "ask for one's groups");
  return id;
}

Status become(const Identity& who) {
  uid_t r = 0;
  uid_t e = 0;
  uid_t s = 0;
  if (getresuid(&r, &e, &s) != 0) return system_error(errno, "getresuid");
  if (r == who.uid && e == who.uid && s == who.uid && who.uid != 0) return {};
  if (!became(who)) return system_error(errno, "become user " + who.name);
  if (getresuid(&r, &e, &s) != 0 || r != who.uid || e != who.uid || s != who.uid || (who.uid != 0 && setuid(0) == 0)) {
    return Error{Code::kDenied, 0, "stepping down to user " + who.name + " did not hold"};
  }
  return {};
}

Result<int> Child::wait(int timeout_ms) {
  const std::int64_t end = now_ms() + timeout_ms;
  if (timeout_ms >= 0) {
    const Fd handle(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    if (handle) {
      for (;;) {
        pollfd p{handle.get(), POLLIN, 0};
        const std::int64_t left = std::max<std::int64_t>(0, end - now_ms());
        const int n = poll(&p, 1, static_cast<int>(left));
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) {
          kill(pid_, SIGKILL);
          // One that waits for a dead network server, or for a stopped FUSE server, cannot even be killed: leave it.
          p.revents = 0;
          while (poll(&p, 1, kKilledMs) < 0 && errno == EINTR) {
          }
          waitpid(pid_, nullptr, WNOHANG);
          return Error{Code::kUnavailable, ETIMEDOUT, "a helper program took too long and was stopped"};
        }
        break;
      }
    }
  }
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0) {
    if (errno != EINTR) return system_error(errno, "wait for a helper program");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return system_error(errno, "make a pipe");
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

Result<Child> spawn(const SpawnOptions& options) {
  if (options.argv.empty()) return Error{Code::kInvalid, 0, "no program to start"};
  ECFS_LET(Pipe report, make_pipe());
  Exec e{pointers(options.argv), pointers(options.env), options.fds, options.run_as ? &*options.run_as : nullptr,
         options.new_session,    report.write_end.get()};
  // All signals wait while the child still shares the host's handlers.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  const int fork_errno = errno;
  if (pid == 0) exec_child(e);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return system_error(fork_errno, "start " + options.argv[0]);
  report.write_end.reset();
  int err = 0;
  ssize_t n = 0;
  do {
    n = read(report.read_end.get(), &err, sizeof err);
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(sizeof err)) {
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return system_error(err, "start " + options.argv[0]);
  }
  return Child(pid);
}

Result<Reply> run_as(const Identity& who, int timeout_ms, const std::function<Result<Reply>()>& work) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return system_error(errno, "make a socket pair");
  Fd ours(ends[0]);
  Fd theirs(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return system_error(errno, "fork");
  if (pid == 0) {
    ours.reset();
    // Nothing may unwind past here: the stack below is the parent's.
    Result<Reply> result = [&]() noexcept -> Result<Reply> {
      ECFS_TRY(become(who));
      ECFS_TRY(no_core_dumps());
      prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);  // a change of ids would have cleared it
      if (getppid() != parent) _exit(1);          // it had died before
      if (chdir("/") != 0) return system_error(errno, "chdir /");
      return work();
    }();
    const bool sent = static_cast<bool>(send_reply(theirs.get(), result));
    _exit(sent ? 0 : 1);
  }
  theirs.reset();
  Child child(pid);
  Result<Reply> reply = receive_reply(ours.get(), timeout_ms < 0 ? -1 : now_ms() + timeout_ms);
  (void)child.wait(0);  // it has nothing left to do; this also ends one that was stopped
  return reply;
}

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

}  // namespace ecfs
