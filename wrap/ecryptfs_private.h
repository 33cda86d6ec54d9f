// The encrypted ~/Private, or whole home, that ecryptfs-utils set up: ~/.ecryptfs and ~/.Private, or both below
// /home/.ecryptfs/USER, read as they are and treated like a profile of the name "Private".
//
// In ~/.ecryptfs stand: Private.sig (the signatures of the keys for contents and, on a second line, for names),
// Private.mnt (the mountpoint; ~/Private without it), wrapped-passphrase, and as files whose presence counts
// auto-mount, auto-umount and wrapping-independent. Called as the user; all of it is hostile input, bounded. Nothing is
// written. What is damaged is kCorrupt with EBADMSG. Source: ecryptfs-setup-private(1), mount.ecryptfs_private(1),
// fs/ECRYPTFS-FORMAT.md §1 and §8.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_passphrase.h"
#include "wrap/mount.h"
#include "wrap/profile.h"
#include "wrap/user_dir.h"

namespace ecfs::wrap {

constexpr const char* kWrappedPassphraseName = "wrapped-passphrase";

// parse_private_sig: one or two lines of 16 hex digits. parse_private_mnt: one line, an absolute path without "..".
// Anything else is kCorrupt.
struct PrivateSignatures {
  EcryptfsSignature contents{};
  std::optional<EcryptfsSignature> names;  // none: names are not encrypted
};
Result<PrivateSignatures> parse_private_sig(ByteView text);
Result<std::string> parse_private_mnt(ByteView text);

// open_ecryptfs_dir opens the directory .ecryptfs of a user: that beside the home (/home/.ecryptfs/USER too, wherever
// the home is) before ~/.ecryptfs. kNotFound if there is neither.
Result<UserDir> open_ecryptfs_dir(const Identity& who);

// open_ecryptfs_private finds it: of_ecryptfs_utils is set, `options` has the signatures and the cipher that
// mount.ecryptfs_private uses. kNotFound if there is none, or if a profile of ~/.ecfs has its name, its mountpoint or
// its lower directory: that has taken its place.
Result<OpenProfile> open_ecryptfs_private(const Identity& who);

// open_user_volume opens the profile of that name, or else the Private of ecryptfs-utils. list_user_volumes gives all
// names; one for which there is trouble is among them, and open_user_volume says what it is.
Result<OpenProfile> open_user_volume(const Identity& who, const std::string& name);
Result<std::vector<std::string>> list_user_volumes(const Identity& who);

// is_wrapping_independent: the login password is not meant to open wrapped-passphrase.
bool is_wrapping_independent(const OpenProfile& volume);

// salt_of_user reads the salt of contents from the user's ~/.ecryptfsrc (read_ecryptfs_rc_salt).
Result<EcryptfsSalt> salt_of_user(const Identity& who);

// private_keys derives from a mount passphrase the keys that the options of an eCryptfs profile name. kWrongKey if it
// gives others: it is mistyped, or another directory's. `salt` is the user's.
Result<std::vector<EcryptfsKey>> private_keys(const Profile& profile, const Secret& passphrase,
                                              const EcryptfsSalt& salt);
// private_keys_in_keyring takes them from the user keyring; kNotFound if one is missing.
Result<std::vector<EcryptfsKey>> private_keys_in_keyring(const Profile& profile);
// private_signatures lists the keys that the options name.
Result<std::vector<EcryptfsSignature>> private_signatures(const Profile& profile);

// unwrap_private gives the mount passphrase out of wrapped-passphrase, proven by the signatures. kWrongKey: `wrapping`
// does not open it; kCorrupt: what comes out has other signatures than Private.sig says.
Result<Secret> unwrap_private(const OpenProfile& volume, const Secret& wrapping, const EcryptfsSalt& salt);

// kernel_mount_of finds the volume mounted by the kernel's eCryptfs, at its mountpoint or elsewhere.
Result<std::optional<MountEntry>> kernel_mount_of(const Profile& profile);

}  // namespace ecfs::wrap
