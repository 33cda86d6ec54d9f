// Running ecfs-login from inside a login process: with a time limit, no thread, and nothing of the process changed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pam/options.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::pam {

struct HelperCall {
  const char* command = nullptr;  // kCommand... of protocol.h
  std::string user;
  std::string service;             // the PAM service, which ecfs.conf may allow to ask
  const Secret* first = nullptr;   // open: the login password; check, change: the old one
  const Secret* second = nullptr;  // open: an old password or recovery key; change: the new password
  int timeout_ms = 0;
};

struct HelperAnswer {
  std::vector<std::string> lines;  // for the user: printable, at most 16 of at most 500 bytes
  bool ask = false;
  bool ask_recovery = false;
  bool wrong = false;
  bool stale = false;
  Fd hold;  // close-on-exec, above the standard descriptors
  std::optional<Error>
      error;  // it crashed, or was stopped at the limit (sys_errno ETIMEDOUT): what it said still counts
};

// call_helper runs ecfs-login and brings its answer. It and all it started in its process group have ended when this
// returns, after at most `timeout_ms` and the moment it takes to kill them. An error means that it could not be
// started.
Result<HelperAnswer> call_helper(const Options& options, const HelperCall& call);

// now_ms reads the monotonic clock.
long long now_ms() noexcept;

}  // namespace ecfs::pam
