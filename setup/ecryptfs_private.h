// An eCryptfs Private as a volume of the user's: opened with the passphrase that ecryptfs-utils wrapped, with key slots
// where it was given some, or with its mount passphrase; and giving it key slots.
#pragma once

#include <string>

#include "setup/mounting.h"
#include "setup/new_volume.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::setup {

// is_ecryptfs_volume: a profile of the format eCryptfs, with slots or without.
bool is_ecryptfs_volume(const VolumeRef& volume);
// has_slots: false for a Private as ecryptfs-utils made it.
bool has_slots(const VolumeRef& volume);

// What opened it.
struct OpenedPrivate {
  Secret mount_passphrase;  // proven by the signatures of its keys
  Secret wrapping;          // the passphrase that wrapped it; empty if something else opened
};
// unlock_private asks for the passphrase (three tries on a terminal), or takes it from the options' source. kWrongKey.
// With Token::kTry a slot that the TPM opens comes first, as in unlock().
Result<OpenedPrivate> unlock_private(const VolumeRef& volume, const UnlockOptions& options,
                                     Token token = Token::kIgnore);

// mount_ecryptfs_private does what open_and_mount does of a native volume. Keys that are in the keyring are taken
// without a question.
Result<Child> mount_ecryptfs_private(const MountJob& job, const UnlockOptions& options);

// resume_ecryptfs_private gives a suspended mount its keys back; false if it is not suspended.
Result<bool> resume_ecryptfs_private(const VolumeRef& volume, const UnlockOptions& options);

// check_no_kernel_mount is kBusy if the kernel's eCryptfs has it mounted.
Status check_no_kernel_mount(const VolumeRef& volume);

// rewrap_private changes the passphrase of wrapped-passphrase.
Status rewrap_private(const VolumeRef& volume, const Secret& old_wrapping, const Secret& new_wrapping);

// begin_slots begins a header of key slots for a mount passphrase; the slots are added to it. place_slots makes the
// profile ~/.ecfs/NAME with it, complete or not at all; nothing of ecryptfs-utils' changes. kBusy: there is one
// already.
Result<NewVolume> begin_slots(const Secret& mount_passphrase);
Status place_slots(const VolumeRef& volume, const NewVolume& slots);

// upgrade_advice says in one line what key slots are better at; "" where it has slots.
std::string upgrade_advice(const VolumeRef& volume);

}  // namespace ecfs::setup
