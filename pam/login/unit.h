// The user's own unit, ecfs-user@UID.service, where systemd runs: what outlives a login belongs to it. In the cgroup
// that a login runs in, a getty's or a session's, watcher and servers would be ended with that one login.
#pragma once

#include <sys/types.h>

#include "pam/login/channel.h"
#include "wrap/base/result.h"

namespace ecfs::pam {

// enter_user_unit starts the unit, if the user has no watcher, and moves this process into it: what it starts from then
// on is there as well. `dir` is the user's runtime directory. kNotFound where systemd does not run. After any error
// this process is where it was.
Status enter_user_unit(int dir, uid_t uid, const Deadline& deadline);

// report_ready tells systemd that this process, a unit's, has begun its work; without systemd it does nothing.
void report_ready();

}  // namespace ecfs::pam
