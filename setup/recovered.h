// The mountpoint of a recovered volume: a fresh directory that only the caller can enter, never one with a name that
// somebody else could have prepared.
#pragma once

#include <string>

#include "wrap/base/result.h"

namespace ecfs::setup {

// make_recovery_mountpoint makes a new directory (0700) in $XDG_RUNTIME_DIR if that is the caller's alone, in /run for
// root, else in the caller's home.
Result<std::string> make_recovery_mountpoint();

// remove_recovery_mountpoint removes such a directory once nothing is mounted there; any other path stays as it is.
void remove_recovery_mountpoint(const std::string& path);

}  // namespace ecfs::setup
