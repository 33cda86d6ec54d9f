// What pam_ecfs does in each hook. Nothing here runs a KDF, starts a thread, or changes the host process; the work is
// done by ecfs-login. Each function gives the PAM code to return.
#pragma once

#include <security/pam_modules.h>

#include "pam/options.h"
#include "wrap/base/result.h"

namespace ecfs::pam {

// stash_password keeps a copy of the password just accepted for open_session, in locked memory. It looks nothing up.
Result<int> stash_password(pam_handle_t* pamh);

// open_session opens the user's volumes and holds them open for this session: a descriptor with a shared lock stays in
// the PAM data, and the kernel drops it when the process ends, however it ends.
Result<int> open_session(pam_handle_t* pamh, const Options& options, bool silent);

// close_session lets go of the hold. It never waits; the watcher does the rest.
Result<int> close_session(pam_handle_t* pamh);

// check_old_password is chauthtok's preliminary check, the one refusal (PAM_AUTHTOK_RECOVERY_ERR).
Result<int> check_old_password(pam_handle_t* pamh, const Options& options, bool silent);

// change_password takes the new password over into the slots, or marks them stale where the old one is not known.
Result<int> change_password(pam_handle_t* pamh, const Options& options, bool silent);

}  // namespace ecfs::pam
