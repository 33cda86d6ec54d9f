// Mounting an opened volume for a user, and unmounting it: as root, on descriptors, never on a path checked earlier.
#pragma once

#include <sys/types.h>
#include <string>

#include "pam/login/channel.h"
#include "pam/login/volumes.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/mount.h"

namespace ecfs::pam {

struct Attached {
  pid_t server = 0;  // ecfs-mountd
  unsigned device_major = 0;
  unsigned device_minor = 0;
  bool whole_home = false;
};

// attach_volume makes the mount (nosuid, nodev, for this user alone), has ecfs-mountd answer for it, and only then puts
// it onto the mountpoint that was checked. Whatever fails before, nothing of it was ever to be seen.
// `mountd` is the path of ecfs-mountd. A whole home others may look into as its modes allow, like any home: one that
// root has set up, with its keys in PARENT/.ecfs/USER, whose mountpoint is the home of the user account in a directory
// of root's.
Result<Attached> attach_volume(const Identity& who, OpenVolume volume, const std::string& mountd,
                               const Deadline& deadline);

// is_mount_of says whether a mount is of type fuse.ecfs and was made for this user.
bool is_mount_of(const wrap::MountEntry& entry, uid_t uid);

// detach_mount unmounts exactly this mount: if its path leads elsewhere by now, kNotFound. In use: kBusy, unless
// `lazy`.
Status detach_mount(const wrap::MountEntry& entry, bool lazy);

}  // namespace ecfs::pam
