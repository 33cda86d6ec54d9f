// The commands of ecfs-login. Each gives the exit status; what a person should know goes through the channel, the rest
// to the log.
#pragma once

#include <sys/types.h>

#include <optional>
#include <vector>

#include "pam/login/channel.h"
#include "pam/login/volumes.h"
#include "wrap/base/result.h"
#include "wrap/config.h"
#include "wrap/tpm2.h"

namespace ecfs::pam {

// open: takes the session's hold, sees to it that a watcher runs, and opens every auto-mounted volume that is locked.
Result<int> run_open(const Request& request, const wrap::Config& config, Channel& channel);

// start_tpm2 starts what talks to the TPM, as root, if an auto-mounted volume has keys there: one for all volumes, so
// that one wrong password is tried at most. Half of the time stays for what opens without it.
std::optional<wrap::Tpm2> start_tpm2(const std::vector<VolumeInfo>& volumes, const wrap::Config& config,
                                     const Deadline& deadline);

// check: says kTagWrong if the old password opens nothing that it should open.
Result<int> run_check(const Request& request, Channel& channel);

// change: puts the new password in the place of the old. mark-stale: notes that the password changed without the old
// one.
Result<int> run_change(const Request& request, const wrap::Config& config, Channel& channel);
Result<int> run_mark_stale(const Request& request, Channel& channel);

// watch: waits for the last session to end, then unmounts and drops the keys. One per user; a second ends at once.
Result<int> run_watch(uid_t uid, const wrap::Config& config);

// own_path is the path of this program; program_beside the path of another one in its directory.
std::string own_path();
std::string program_beside(const std::string& name);

}  // namespace ecfs::pam
