// ecfs-login's side of protocol.h: reading the secrets, answering the module. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::pam {

// A moment on the monotonic clock until which all must be done.
class Deadline {
 public:
  explicit Deadline(int from_now_ms) noexcept;
  [[nodiscard]] int remaining_ms() const noexcept;  // never negative
  // at_most_ms is remaining_ms, but no more than `limit_ms`.
  [[nodiscard]] int at_most_ms(int limit_ms) const noexcept;

 private:
  std::int64_t end_ms_;
};

// What the module asked for.
struct Request {
  std::string command;
  std::string user;
  std::string service;
  int time_limit_ms = 14000;
  Secret first;
  Secret second;
};

// Channel is the socket to the module. A module that is gone changes nothing about the work: answers are then lost.
class Channel {
 public:
  explicit Channel(Fd socket) : socket_(std::move(socket)) {}

  // receive_secret reads one secret; kCorrupt if it is malformed.
  Result<Secret> receive_secret();

  void tell(std::string_view line);  // one line for the user
  void mark(char tag);               // kTagAsk, kTagWrong, kTagStale
  void give_hold(const Fd& lock);    // the session's lock

 private:
  void send_text(std::string_view text, int fd);
  Fd socket_;
};

}  // namespace ecfs::pam
