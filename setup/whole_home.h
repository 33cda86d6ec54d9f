// ecfs setup-private --whole-home: the home of another user, as root, moved into a volume of that user's.
//
// Beside the home, in a directory that is root's, stand afterwards: .ecfs/USER (the user's, 0700) with the keys in
// .ecfs/Home, the encrypted files in .Private and authorized_keys; and the original as HOME.unencrypted. The home
// itself is then the mountpoint. Whatever reads, copies or removes a file of the user's is done in a child that is that
// user; root makes and exchanges entries of the two directories that are its own, by descriptors
// (wrap::open_home_place).
//
// What is at work stands in .ecfs/.USER.setup, root's, before anything is made, and until the original is removed or
// put back. A kill at any moment leaves the old home in place, untouched, or the new one, complete; the next run sees
// which.
#pragma once

#include <string>

#include "setup/new_volume.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "wrap/base/result.h"

namespace ecfs::setup {

struct WholeHomeOptions {
  std::string user;
  bool keep_original = true;  // false: what was in the home, a skeleton, goes once it was compared
  bool no_auto_unmount = false;
  bool no_recovery = false;
  bool slots_in_volume = false;
  bool yes = false;
  bool allow_weak = false;
  bool json = false;
  SecretSource password;
  VolumeOptions volume;
  CostOptions cost;
  RecoveryOptions recovery;
};

// encrypt_home does it all, for a user who is not logged in. Gives the exit code.
Result<int> encrypt_home(const WholeHomeOptions& options);
// remove_original removes HOME.unencrypted once somebody has opened the new home; what changed there since it was
// compared stays (exit code 1).
Result<int> remove_original(const std::string& user);
// undo_home puts the original back. The encrypted files are renamed and stay.
Result<int> undo_home(const std::string& user);

// is_system_account: none of a person's, by the lowest user id in login.defs(5).
bool is_system_account(uid_t uid);

}  // namespace ecfs::setup
