// /run/ecfs/<uid>: which sessions hold a user's volumes open, who watches them, and what was mounted for them.
//
// Root's alone (0700), so nobody else can plant or lock anything there. The rules, so that no login is lost between the
// last logout and the watcher's end:
//   session.lock  every session holds it shared. Whoever has it exclusively knows that there is no session.
//   watch.lock    the one watcher holds it from its start to its end, and ends only while it has session.lock
//                 exclusively. A login starts a watcher only while it holds session.lock shared. So a login either
//                 finds a watcher that will still see it, or none. The file says which process it is.
//   The watcher removes watch.lock before session.lock. Whoever takes a lock checks afterwards that the file is still
//   the one at its name, and tries again with the new one if not.
//   mount-NAME    one volume that a login mounted, and refused-NAME, one that stayed locked: wrap/login_records.h.
// Locks are flock's: they belong to the open file, go with its last descriptor, and so end with a killed session.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pam/login/channel.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::pam {

// make_runtime_dir makes (or finds) /run/ecfs/<uid>; open_runtime_dir only finds it: kNotFound.
Result<Fd> make_runtime_dir(uid_t uid);
Result<Fd> open_runtime_dir(uid_t uid);

// hold_session takes the shared lock: kBusy if the watcher did not let go of it within the deadline.
Result<Fd> hold_session(uid_t uid, const Deadline& deadline);

// try_watch_lock makes this process the watcher, at once: kBusy if there is one already. watcher_runs says whether
// there is one; it may be about to end.
Result<Fd> try_watch_lock(int dir);
bool watcher_runs(int dir);

// take_turn waits for its turn in what one login at a time does; the turn ends with the descriptor. kBusy if others
// took longer than the deadline.
Result<Fd> take_turn(int dir, const Deadline& deadline);

// open_session_lock opens the lock of the present sessions, for the watcher; is_current says whether the file is still
// the one at that name.
Result<Fd> open_session_lock(int dir);
bool is_current_session_lock(int dir, const Fd& lock);

// remove_runtime_dir removes all that this program makes there, in the order of the rules; called with session.lock
// held exclusively.
void remove_runtime_dir(int dir, uid_t uid);

}  // namespace ecfs::pam
