// Suspending: a volume is locked though programs use it. Its keys are wiped; what was written waits; the rest is
// refused until the key is given again.
#pragma once

#include <string>

#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/result.h"

namespace ecfs::setup {

// suspend_volume unmounts what ecfs serves at `mountpoint`, or, where programs keep it busy, has its server wipe the
// keys; the key in the keyring goes in any case. Gives what there is to say.
Result<std::string> suspend_volume(const std::string& mountpoint);

// suspend_all does that with every mount that has the option suspend: the caller's, or for root everybody's, as those
// users. What fails is told on stderr; the number of failures is given.
Result<int> suspend_all();

// resume_if_suspended asks for the passphrase and resumes the mount of a volume, if it is mounted and suspended. Gives
// whether it was.
Result<bool> resume_if_suspended(const VolumeRef& volume, const UnlockOptions& options);

}  // namespace ecfs::setup
