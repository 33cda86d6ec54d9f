// The boundary between libpam and us: nothing thrown passes it, and what failed is logged here, once.
#pragma once

#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <syslog.h>

#include <concepts>
#include <utility>

#include "wrap/base/log.h"
#include "wrap/base/result.h"

namespace ecfs::pam {

// run_hook runs the body of one pam_sm_* function. The body gives the PAM code to return; an error becomes PAM_IGNORE
// and one line in the log, because no failure of ours may decide over a login.
template <std::invocable F>
int run_hook(pam_handle_t* pamh, F&& body) noexcept try {
  Result<int> done = std::forward<F>(body)();
  if (done) return *done;
  pam_syslog(pamh, LOG_ERR, "%s", printable(done.error().what).c_str());
  return PAM_IGNORE;
} catch (...) {
  pam_syslog(pamh, LOG_CRIT, "unexpected exception");
  return PAM_IGNORE;
}

}  // namespace ecfs::pam
