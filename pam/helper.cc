#include "pam/helper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>

#include "pam/protocol.h"
#include "wrap/base/log.h"
#include "wrap/base/process.h"

namespace ecfs::pam {
namespace {

constexpr std::size_t kMaxLines = 16;
constexpr std::size_t kMaxLineBytes = 500;
constexpr std::size_t kMaxFdsAtOnce = 4;
constexpr int kReapMs = 1000;

Status send_secret(int socket, const Secret* secret) {
  const ByteView bytes = secret != nullptr ? secret->reveal() : ByteView();
  std::array<std::uint8_t, 4> len{};
  store_le<std::uint32_t>(len.data(), static_cast<std::uint32_t>(bytes.size()));
  for (ByteView part : {ByteView(len), bytes}) {
    // Both secrets fit into the socket's buffer, so this waits for nobody; a helper that is gone is EPIPE, no signal.
    const ssize_t n = send(socket, part.data(), part.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n != static_cast<ssize_t>(part.size()))
      return system_error(n < 0 ? errno : EIO, "hand a password to ecfs-login");
  }
  return {};
}

// Takes the descriptors out of a message; all but the first that ever came are closed.
void take_fds(msghdr& message, Fd& hold) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(c) + i * sizeof(int), sizeof number);
      Fd got(number);
      // Not 0, 1 or 2, even if the host has closed those: it may open them anew at any time.
      if (!hold) hold.reset(fcntl(got.get(), F_DUPFD_CLOEXEC, 3));
    }
  }
}

// Reads the answer until its end or the deadline; says whether it came to its end.
bool read_answer(int socket, long long deadline, std::string& text, Fd& hold) {
  for (;;) {
    pollfd p{socket, POLLIN, 0};
    const auto left = static_cast<int>(std::max(0LL, deadline - now_ms()));
    const int ready = poll(&p, 1, left);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    std::array<char, 2048> chunk{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxFdsAtOnce)> control{};
    iovec iov{chunk.data(), chunk.size()};
    msghdr message{};
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return true;
    take_fds(message, hold);
    const auto room = std::min(static_cast<std::size_t>(n), kMaxAnswerBytes - text.size());
    text.append(chunk.data(), room);
  }
}

void read_lines(std::string_view text, HelperAnswer& answer) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    if (!line.empty()) {
      switch (line.front()) {
        case kTagTell:
          if (answer.lines.size() < kMaxLines) answer.lines.push_back(printable(line.substr(1, kMaxLineBytes)));
          break;
        case kTagAsk: answer.ask = true; break;
        case kTagAskRecovery: answer.ask_recovery = true; break;
        case kTagWrong: answer.wrong = true; break;
        case kTagStale: answer.stale = true; break;
        default: break;
      }
    }
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

}  // namespace

long long now_ms() noexcept {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<long long>(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
}

Result<HelperAnswer> call_helper(const Options& options, const HelperCall& call) {
  const long long deadline = now_ms() + call.timeout_ms;
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return system_error(errno, "make a socket pair");
  }
  Fd ours(ends[0]);
  Fd theirs(ends[1]);
  SpawnOptions spawning;
  spawning.argv = {options.helper, call.command, "--user=" + call.user, "--service=" + call.service};
  spawning.argv.push_back("--time-limit-ms=" + std::to_string(call.timeout_ms));
  spawning.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
#ifdef ECFS_SANITIZED  // never in what is installed
  for (const char* name : {"ASAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (const char* value = secure_getenv(name); value != nullptr)
      spawning.env.push_back(std::string(name) + "=" + value);
  }
#endif
  spawning.fds = {{theirs.get(), kHelperSocketFd}};
  spawning.new_session = true;  // with a process group of its own, to be killed as a whole
  ECFS_LET(Child child, spawn(spawning));
  theirs.reset();

  HelperAnswer answer;
  std::string text;
  Status sent = send_secret(ours.get(), call.first);
  if (sent) sent = send_secret(ours.get(), call.second);
  shutdown(ours.get(), SHUT_WR);
  const bool ended = read_answer(ours.get(), deadline, text, answer.hold);
  read_lines(text, answer);
  if (!ended) {
    kill(-child.pid(), SIGKILL);
    (void)child.wait(kReapMs);
    answer.error =
        Error{Code::kUnavailable, ETIMEDOUT, "ecfs-login took too long for user " + call.user + " and was stopped"};
    return answer;
  }
  // It has said all; what it still does is to end. A host that ignores SIGCHLD, or reaps every child itself, leaves no
  // status (ECHILD): then the answer says enough.
  const Result<int> status = child.wait(kReapMs);
  if (status && *status != 0) {
    answer.error = Error{Code::kIo, 0,
                         "ecfs-login " + std::string(call.command) + " ended with status " + std::to_string(*status)};
  } else if (!sent) {
    answer.error = std::move(sent).error();
  }
  return answer;
}

}  // namespace ecfs::pam
