// Mounting and unmounting by hand: the checks before, the start of ecfs-mountd, and words for what stands in the way.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/mount.h"
#include "wrap/volume_store.h"

namespace ecfs::setup {

// check_fuse: can this user mount at all? kUnavailable with the remedy.
Status check_fuse();

// A directory that may be mounted on; `dir` keeps hold of it while it is mounted over.
struct Mountpoint {
  std::string path;  // absolute
  Fd dir;
};

// check_mountpoint: there, a directory and no symbolic link, the caller's own (root: anybody's), empty but for the note
// that ecfs or eCryptfs leaves in an unmounted directory, not inside `lower_path` nor around it, nothing mounted there.
// A dead mount there is cleared away.
Result<Mountpoint> check_mountpoint(const std::string& path, const std::string& lower_path);

// allows_other: may an ordinary user mount with allow_other (fuse.conf(5))?
bool allows_other();

// check_not_mounted: is the lower directory served at some mountpoint already? kBusy, and where.
Status check_not_mounted(const std::string& lower_path);

// locker_of gives the process that holds the lock on a lower directory, which its server does; as far as the kernel
// tells.
std::optional<pid_t> locker_of(int lower_dir);

// is_inside says whether `path` is `directory` or below it; both absolute and resolved.
bool is_inside(const std::string& path, const std::string& directory);

struct MountJob {
  const VolumeRef* volume = nullptr;
  wrap::MountOptions options;
  bool foreground = false;
};
// start_server starts ecfs-mountd (none: `prepared`, which is waiting for it) with a request that has options and keys,
// and returns when the mount answers.
Result<Child> start_server(const MountJob& job, wrap::MountRequest request, const Mountpoint& at,
                           std::optional<wrap::WaitingMountd> prepared = {});
// mount_volume does so for a volume with a proven key. Read-only where the header asks for it.
Result<Child> mount_volume(const MountJob& job, const wrap::VolumeStore& store, const Secret& key, const Mountpoint& at,
                           std::optional<wrap::WaitingMountd> prepared = {});

// open_and_mount does it all: checks, then asks for the passphrase, then checks again under the volume's lock, brings
// damaged copies of the header up to date, and mounts.
Result<Child> open_and_mount(const MountJob& job, const std::string& mountpoint, const UnlockOptions& unlock_options);

// unmount_volume unmounts what ecfs serves at `path`: kNotFound if nothing is mounted there, kBusy with the programs
// that keep it busy. A dead mount is detached. It returns when the server has brought all of it to the lower directory
// and ended (10 s at most, then it warns), but for `lazy`.
Status unmount_volume(const std::string& path, bool lazy);

// programs_text lists processes for a message: "bash (4711), less (4712)", with "and N more" after the first ten.
std::string programs_text(const std::vector<wrap::Holder>& holders);

// place_note writes the read-only note into an unmounted mountpoint, and takes its write permission away.
Status place_note(int mountpoint_dir, const std::string& name, const std::string& lower);

}  // namespace ecfs::setup
