#include "pam/login/channel.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "pam/protocol.h"
#include "wrap/base/bytes.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"

namespace ecfs::pam {
namespace {

std::int64_t now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
}

}  // namespace

Deadline::Deadline(int from_now_ms) noexcept : end_ms_(now_ms() + from_now_ms) {}

int Deadline::remaining_ms() const noexcept { return static_cast<int>(std::max<std::int64_t>(0, end_ms_ - now_ms())); }

int Deadline::at_most_ms(int limit_ms) const noexcept { return std::min(limit_ms, remaining_ms()); }

Result<Secret> Channel::receive_secret() {
  std::array<std::uint8_t, 4> head{};
  ECFS_LET(const std::size_t got, read_full(socket_.get(), head));
  const auto len = load_le<std::uint32_t>(head.data());
  if (got != head.size() || len > kMaxSecretBytes) return Error{Code::kCorrupt, 0, "a malformed request"};
  ECFS_LET(Secret secret, Secret::of_size(len));
  ECFS_LET(const std::size_t body, read_full(socket_.get(), secret.reveal_mutable()));
  if (body != len) return Error{Code::kCorrupt, 0, "a request that is cut short"};
  return secret;
}

void Channel::send_text(std::string_view text, int fd) {
  iovec iov{const_cast<char*>(text.data()), text.size()};  // NOLINT: sendmsg's signature
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  // Answers are few and short, so the socket's buffer takes them whole.
  if (sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) log_line(LOG_DEBUG, "the login is gone");
}

void Channel::tell(std::string_view line) { send_text(kTagTell + printable(line) + '\n', -1); }

void Channel::mark(char tag) { send_text(std::string{tag, '\n'}, -1); }

void Channel::give_hold(const Fd& lock) { send_text(std::string{kTagHold, '\n'}, lock.get()); }

}  // namespace ecfs::pam
