// Talking to the servers of a volume's mounts while they run: to suspend them, which wipes the keys though programs use
// the mount, and to resume them with the key.
//
// Each ecfs-mountd listens at an abstract socket whose name holds the user and the volume; it answers that user and
// root alone, and the caller makes sure that the user is on the other end before a key is sent. A volume mounted
// several times (read-only) has several; all are meant. Safe from any thread.
#pragma once

#include <sys/types.h>

#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_options.h"
#include "wrap/volume_header.h"

namespace ecfs::wrap {

// What the servers of a volume said: at least one of them is so.
struct MountState {
  bool suspended = false;
  bool wants_suspend = false;                      // mounted with the option suspend
  std::vector<EcryptfsSignature> signatures = {};  // of the keys that an eCryptfs mount was made with
};

// `owner` is the user that serves the mounts. kNotFound: no server answers. `is_mounted`: there is a mount, whose
// server may begin to listen only in a moment; that is waited for (1 s at most).
Result<MountState> mount_state(const VolumeId& id, uid_t owner, bool is_mounted = false);
// suspend_mounts wipes the keys. kBusy: a request does not end.
Status suspend_mounts(const VolumeId& id, uid_t owner);
// resume_mounts: kWrongKey if the key is another volume's, or one that an eCryptfs mount needs is missing.
Status resume_mounts(const VolumeId& id, uid_t owner, const Secret& key);

// The other end.
enum class Command : char { kState = '?', kSuspend = 's', kResume = 'r' };
struct ControlRequest {
  Command command = Command::kState;
  Secret key;  // of kResume
};
// listen_control listens for the volume at a name that is free: kBusy if there are that many mounts of it (4).
Result<Fd> listen_control(const VolumeId& id);
// accept_control takes the next connection if it comes from this process's user or root; none: nobody is there, or
// somebody else. What is read from it and written to it waits 5 seconds at most.
Result<Fd> accept_control(int listener);
Result<ControlRequest> receive_control(int connection);
void answer_control(int connection, const Result<MountState>& answer);

}  // namespace ecfs::wrap
