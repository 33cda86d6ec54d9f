// The six functions that libpam calls. None ever says PAM_SUCCESS: a stack that holds nothing but this module lets
// nobody in, and no failure here decides anything but chauthtok's preliminary check.
#include <security/pam_modules.h>

#include "pam/boundary.h"
#include "pam/options.h"
#include "pam/session.h"

namespace {

#define ECFS_PAM_HOOK extern "C" [[gnu::visibility("default")]] int

ecfs::pam::Options options_of(pam_handle_t* pamh, int argc, const char** argv) {
  ecfs::pam::Options options = ecfs::pam::parse_options({argv, static_cast<std::size_t>(argc)});
  for (const std::string& option : options.unknown) {
    pam_syslog(pamh, LOG_WARNING, "option not understood: %s", ecfs::printable(option).c_str());
  }
  return options;
}

bool has_flag(int flags, unsigned flag) { return (static_cast<unsigned>(flags) & flag) != 0; }

}  // namespace

ECFS_PAM_HOOK pam_sm_authenticate(pam_handle_t* pamh, int, int, const char**) {
  return ecfs::pam::run_hook(pamh, [&] { return ecfs::pam::stash_password(pamh); });
}

ECFS_PAM_HOOK pam_sm_setcred(pam_handle_t*, int, int, const char**) { return PAM_IGNORE; }

ECFS_PAM_HOOK pam_sm_acct_mgmt(pam_handle_t*, int, int, const char**) { return PAM_IGNORE; }

ECFS_PAM_HOOK pam_sm_open_session(pam_handle_t* pamh, int flags, int argc, const char** argv) {
  return ecfs::pam::run_hook(pamh, [&] {
    const ecfs::pam::Options options = options_of(pamh, argc, argv);
    return ecfs::pam::open_session(pamh, options, options.silent || has_flag(flags, PAM_SILENT));
  });
}

ECFS_PAM_HOOK pam_sm_close_session(pam_handle_t* pamh, int, int, const char**) {
  return ecfs::pam::run_hook(pamh, [&] { return ecfs::pam::close_session(pamh); });
}

ECFS_PAM_HOOK pam_sm_chauthtok(pam_handle_t* pamh, int flags, int argc, const char** argv) {
  return ecfs::pam::run_hook(pamh, [&]() -> ecfs::Result<int> {
    const ecfs::pam::Options options = options_of(pamh, argc, argv);
    const bool silent = options.silent || has_flag(flags, PAM_SILENT);
    if (has_flag(flags, PAM_PRELIM_CHECK)) return ecfs::pam::check_old_password(pamh, options, silent);
    if (has_flag(flags, PAM_UPDATE_AUTHTOK)) return ecfs::pam::change_password(pamh, options, silent);
    return PAM_IGNORE;
  });
}
