#include "fs/fuse/link.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace ecfs::fs {
namespace {

constexpr std::size_t kMaxText = 8192;

}  // namespace

Result<LinkEnds> make_link() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return system_error(errno, "make a socket pair");
  }
  return LinkEnds{Fd(ends[0]), Fd(ends[1])};
}

bool say(int link, Say what, std::string_view text) noexcept {
  char kind = static_cast<char>(what);
  std::array<iovec, 2> parts{};
  parts[0] = {&kind, 1};
  parts[1] = {const_cast<char*>(text.data()), std::min(text.size(), kMaxText)};  // NOLINT: sendmsg only reads it
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  ssize_t sent = 0;
  do {
    sent = sendmsg(link, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent > 0;
}

Result<std::optional<Said>> hear(int link) {
  std::array<char, 1 + kMaxText> buffer{};
  ssize_t got = 0;
  do {
    got = recv(link, buffer.data(), buffer.size(), MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::optional<Said>();
  if (got < 0) return system_error(errno, "read what the server says");
  if (got == 0) return Error{Code::kNotFound, 0, "the server has closed its end"};
  return std::optional(Said{static_cast<Say>(buffer[0]), std::string(&buffer[1], static_cast<std::size_t>(got) - 1)});
}

bool hand_over(int link, const Fd& connection) noexcept {
  char none = 0;
  iovec part{&none, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = connection.get();
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(link, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

Result<Fd> take_connection(int link) {
  char none = 0;
  iovec part{&none, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return Fd();
  if (got < 0) return system_error(errno, "read what the supervisor says");
  if (got == 0) return Error{Code::kNotFound, 0, "the supervisor has closed its end"};
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return Fd();
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Fd(fd);
}

}  // namespace ecfs::fs
