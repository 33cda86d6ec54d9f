// A user's volumes, as ecfs-login sees them. Whatever reads or writes a file of the user's happens in a child that is
// that user (run_as), with a limit; what such a child answers is data from that user.
#pragma once

#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include "pam/login/channel.h"
#include "wrap/base/fd.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_passphrase.h"
#include "wrap/keyslot.h"
#include "wrap/mount.h"
#include "wrap/tpm2.h"
#include "wrap/volume_header.h"

namespace ecfs::pam {

// One profile of a user, or the Private of ecryptfs-utils. One that cannot be read has its name and an `error`, and is
// neither mounted nor unmounted.
struct VolumeInfo {
  std::string name;
  std::string error;
  wrap::VolumeId id{};                              // all zero: ecryptfs-utils made it
  std::vector<wrap::EcryptfsSignature> signatures;  // of the keys of an eCryptfs tree
  bool auto_mount = false;
  bool auto_unmount = false;
  bool tpm2 = false;  // it has keys that a TPM sealed
  // Where it is mounted now, if it is: a device number names a mount whatever happens to the paths.
  std::optional<std::pair<unsigned, unsigned>> device;
};

// survey_volumes lists a user's volumes; none for a user without ecfs. A whole home comes first: others may be in it.
Result<std::vector<VolumeInfo>> survey_volumes(const Identity& who, const Deadline& deadline);

struct OpenVolume {
  bool mounted_already = false;  // then the rest is empty
  bool rewrapped = false;        // the login password opens it from now on
  std::uint32_t slot_id = 0;     // which slot opened it; 0: the wrapped-passphrase of ecryptfs-utils
  wrap::SlotType slot_type{};
  std::string lower;
  std::string mountpoint;
  std::vector<std::string> options;
  std::vector<std::string> notes;  // for the user: what was wrong and has been repaired
  std::vector<std::string> log;    // for the log: what did not work and does not matter now
  Bytes volume_file;
  Secret key;
  Fd lock;  // held until the mount is there: another login, or the user's own ecfs, waits for it
  Fd lower_dir;
  Fd mountpoint_dir;  // O_PATH
};

// How a login uses the TPM.
struct LoginTpm {
  wrap::Tpm2* tpm = nullptr;  // what root started to talk to it; null: not at all
  bool reseal = false;        // slots that it would not open any more are bound anew, once the volume is open
};

// sys_errno of open_volume: what was tried is keys in the TPM alone, which it did not give, and there is a recovery
// key.
constexpr int kOnlyTpmTried = EKEYREVOKED;

// open_volume opens one volume and checks that it can be mounted. `other` (may be empty) is an old password or a
// recovery key; where the login password does not open the volume and `other` does, the slot is wrapped anew. Where it
// was the TPM that refused, the recovery key opens it this once: binding it anew is what LoginTpm::reseal says. kNoKey:
// there is no login password. kWrongKey: it opens nothing (and the volume is marked stale).
Result<OpenVolume> open_volume(const Identity& who, const std::string& name, const Secret& login, const Secret& other,
                               LoginTpm tpm, const Deadline& deadline);

// check_mountpoint: a directory of the user's, on a filesystem that one mounts things on (never /proc and the like).
Status check_mountpoint(int dir, uid_t uid);
// check_lower: a directory of the user's.
Status check_lower(int dir, uid_t uid);

// opens_nothing says that the password fits no password slot (nor wrapped passphrase) of any auto-mounted volume which
// is not marked stale, and that there is such a one.
Result<bool> opens_nothing(const Identity& who, const Secret& password, const Deadline& deadline);

// What became of the volumes when a password changed.
struct ChangeReport {
  std::vector<std::string> changed;  // names
  std::vector<std::string> stale;    // names: marked stale
  std::vector<std::string> log;
};

// change_password puts the new password in the place of the old one; where that fails the volume is marked stale.
// mark_all_stale marks what has a slot for a password.
Result<ChangeReport> change_password(const Identity& who, const Secret& old_password, const Secret& new_password,
                                     wrap::Tpm2* tpm, const Deadline& deadline);
Result<ChangeReport> mark_all_stale(const Identity& who, const Deadline& deadline);

// drop_tokens removes the volumes' keys from the user's keyring.
Status drop_tokens(const Identity& who, const std::vector<VolumeInfo>& volumes, const Deadline& deadline);

// mark_opened notes beside the keys of a whole home that it was opened (wrap/profile.h).
Status mark_opened(const Identity& who, const std::string& name, const Deadline& deadline);

// mount_is_dead asks, as the user, whether the server of a mount is gone. No answer within a second is "no".
bool mount_is_dead(const Identity& who, const std::string& mountpoint);

}  // namespace ecfs::pam
