#include "wrap/control.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>

#include "wrap/ecryptfs_token.h"
#include "wrap/mount.h"

namespace ecfs::wrap {
namespace {

constexpr int kMostMounts = 4;
constexpr int kMostPending = 8;
constexpr std::size_t kMaxAnswerBytes = 1024;
constexpr int kTries = 10;
constexpr int kServerSeconds = 5;   // for a peer that says nothing
constexpr int kClientSeconds = 20;  // a suspension waits for requests, and writes what was put off

struct Address {
  sockaddr_un name{};
  socklen_t len = 0;
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&name); }
};

// Abstract: nothing is left of it when its process ends.
Address address_of(const VolumeId& id, uid_t owner, int number) {
  const std::string text = "ecfs-mountd/" + std::to_string(owner) + "/" + to_hex(id) + "/" + std::to_string(number);
  Address address;
  address.name.sun_family = AF_UNIX;
  static_assert(sizeof(address.name.sun_path) > 80);
  std::copy(text.begin(), text.end(), &address.name.sun_path[1]);
  address.len = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  return address;
}

Fd new_socket() { return Fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)); }

void limit_waiting(int fd, int seconds) {
  const timeval limit{seconds, 0};
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

Result<uid_t> peer_of(int fd) {
  ucred peer{};
  socklen_t len = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0) return system_error(errno, "ask who is at a socket");
  return peer.uid;
}

template <class Call>
ssize_t retried(Call&& call) {
  ssize_t n = 0;
  do {
    n = call();
  } while (n < 0 && errno == EINTR);
  return n;
}

Status send_message(int fd, ByteView message) {
  if (retried([&] { return send(fd, message.data(), message.size(), MSG_NOSIGNAL); }) < 0) {
    return system_error(errno, "speak to the server of a mount");
  }
  return {};
}

Result<std::size_t> receive_message(int fd, MutableByteView buffer) {
  const ssize_t n = retried([&] { return recv(fd, buffer.data(), buffer.size(), 0); });
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return Error{Code::kUnavailable, ETIMEDOUT, "the server of a mount does not answer"};
  }
  if (n < 0) return system_error(errno, "hear from the server of a mount");
  if (n == 0) return Error{Code::kIo, 0, "the connection of a mount's server was closed"};
  return static_cast<std::size_t>(n);
}

// "+", what is so, and signatures, each behind a space; or "CODE ERRNO TEXT".
Result<MountState> parse_answer(std::string_view text) {
  if (text.starts_with('+')) {
    MountState state;
    std::size_t space = std::min(text.find(' '), text.size());
    const std::string_view words = text.substr(0, space);
    state.suspended = words.find('s') != std::string_view::npos;
    state.wants_suspend = words.find('w') != std::string_view::npos;
    while (space < text.size() && state.signatures.size() <= kMaxEcryptfsSignatures) {
      const std::size_t end = std::min(text.find(' ', space + 1), text.size());
      ECFS_LET(const EcryptfsSignature signature, parse_ecryptfs_signature(text.substr(space + 1, end - space - 1)));
      state.signatures.push_back(signature);
      space = end;
    }
    return state;
  }
  int code = -1;
  int err = 0;
  const char* const end = text.data() + text.size();
  auto at = std::from_chars(text.data(), end, code);
  if (at.ec == std::errc{} && at.ptr != end && *at.ptr == ' ') {
    at = std::from_chars(at.ptr + 1, end, err);
    if (at.ec == std::errc{} && at.ptr != end && *at.ptr == ' ' && code >= 0 && code <= static_cast<int>(Code::kIo)) {
      return Error{static_cast<Code>(code), err, std::string(at.ptr + 1, end)};
    }
  }
  return Error{Code::kCorrupt, 0, "a malformed answer of a mount's server"};
}

Result<MountState> ask_one(int fd, uid_t owner, ByteView message) {
  ECFS_LET(const uid_t peer, peer_of(fd));
  // Anybody may listen at a name that is free.
  if (peer != owner) return Error{Code::kNotFound, 0, "somebody else is at the place of a mount's server"};
  limit_waiting(fd, kClientSeconds);
  ECFS_TRY(send_message(fd, message));
  Bytes buffer(kMaxAnswerBytes);
  ECFS_LET(const std::size_t len, receive_message(fd, buffer));
  return parse_answer(as_text(ByteView(buffer).first(len)));
}

Result<MountState> ask_all(const VolumeId& id, uid_t owner, ByteView message) {
  MountState all;
  bool any = false;
  for (int number = 0; number < kMostMounts; ++number) {
    const Fd fd = new_socket();
    if (!fd) return system_error(errno, "make a socket");
    limit_waiting(fd.get(), kServerSeconds);
    const Address address = address_of(id, owner, number);
    if (connect(fd.get(), address.get(), address.len) != 0) continue;
    Result<MountState> one = ask_one(fd.get(), owner, message);
    if (!one && one.error().code == Code::kNotFound) continue;
    if (!one) return std::move(one).error();
    any = true;
    all.suspended = all.suspended || one->suspended;
    all.wants_suspend = all.wants_suspend || one->wants_suspend;
    for (const EcryptfsSignature& signature : one->signatures) {
      if (std::find(all.signatures.begin(), all.signatures.end(), signature) == all.signatures.end()) {
        all.signatures.push_back(signature);
      }
    }
  }
  if (!any) return Error{Code::kNotFound, 0, "no server of a mount answers"};
  return all;
}

Result<MountState> ask_all(const VolumeId& id, uid_t owner, Command command) {
  const std::array<std::uint8_t, 1> message{static_cast<std::uint8_t>(command)};
  return ask_all(id, owner, message);
}

// ask_mounted asks servers of mounts that are there: they listen a moment later.
Result<MountState> ask_mounted(const VolumeId& id, uid_t owner, Command command) {
  for (int tries = 0;; ++tries) {
    Result<MountState> done = ask_all(id, owner, command);
    if (done || done.error().code != Code::kNotFound || tries == kTries) return done;
    const timespec pause{0, 100'000'000};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace

Result<MountState> mount_state(const VolumeId& id, uid_t owner, bool is_mounted) {
  return is_mounted ? ask_mounted(id, owner, Command::kState) : ask_all(id, owner, Command::kState);
}

Status suspend_mounts(const VolumeId& id, uid_t owner) {
  ECFS_TRY(ask_mounted(id, owner, Command::kSuspend));
  return {};
}

Status resume_mounts(const VolumeId& id, uid_t owner, const Secret& key) {
  ECFS_LET(Secret message, Secret::of_size(1 + key.size()));
  message.reveal_mutable()[0] = static_cast<std::uint8_t>(Command::kResume);
  std::copy(key.reveal().begin(), key.reveal().end(), message.reveal_mutable().begin() + 1);
  ECFS_TRY(ask_all(id, owner, message.reveal()));
  return {};
}

Result<Fd> listen_control(const VolumeId& id) {
  for (int number = 0; number < kMostMounts; ++number) {
    Fd fd = new_socket();
    if (!fd) return system_error(errno, "make a socket");
    const Address address = address_of(id, geteuid(), number);
    if (bind(fd.get(), address.get(), address.len) != 0) {
      if (errno == EADDRINUSE) continue;
      return system_error(errno, "bind a socket");
    }
    if (listen(fd.get(), kMostPending) != 0) return system_error(errno, "listen at a socket");
    return fd;
  }
  return Error{Code::kBusy, EADDRINUSE, "all names for a socket are taken"};
}

Result<Fd> accept_control(int listener) {
  Fd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) return system_error(errno, "accept a connection");
  ECFS_LET(const uid_t peer, peer_of(fd.get()));
  if (peer != geteuid() && peer != 0) return Fd();
  limit_waiting(fd.get(), kServerSeconds);
  return fd;
}

Result<ControlRequest> receive_control(int connection) {
  ECFS_LET(Secret message, Secret::of_size(1 + kMaxMountKeyBytes));
  ECFS_LET(const std::size_t len, receive_message(connection, message.reveal_mutable()));
  ControlRequest request;
  request.command = static_cast<Command>(message.reveal()[0]);
  switch (request.command) {
    case Command::kState:
    case Command::kSuspend: return request;
    case Command::kResume: ECFS_LET(request.key, Secret::copy_of(message.reveal().subspan(1, len - 1))); return request;
  }
  return Error{Code::kInvalid, EINVAL, "an unknown command"};
}

void answer_control(int connection, const Result<MountState>& answer) {
  std::string text;
  if (answer) {
    text = std::string("+") + (answer->suspended ? "s" : "") + (answer->wants_suspend ? "w" : "");
    for (const EcryptfsSignature& signature : answer->signatures) text += " " + to_hex(signature);
  } else {
    const Error& error = answer.error();
    text = std::to_string(static_cast<int>(error.code)) + " " + std::to_string(error.sys_errno) + " " + error.what;
    text.resize(std::min(text.size(), kMaxAnswerBytes));
  }
  (void)send_message(connection, as_bytes(text));
}

}  // namespace ecfs::wrap
