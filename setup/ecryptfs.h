// Mounting eCryptfs lower trees in the words of mount.ecryptfs(8): its options, its questions, its signature cache, and
// the keys of the user keyring.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "setup/mounting.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_passphrase.h"

namespace ecfs::setup {

// What of the mount options concerns the tool alone.
struct EcryptfsWords {
  bool any = false;                        // one of them was there
  SecretSource source;                     // key=passphrase:passphrase_passwd_file=F or _fd=N
  Secret passphrase;                       // key=passphrase:passphrase_passwd=…
  std::optional<wrap::EcryptfsSalt> salt;  // key=passphrase:passphrase_salt=…
  std::optional<bool> encrypt_names;       // ecryptfs_enable_filename_crypto
  bool no_sig_cache = false;
  bool verbose = false;
};

// take_ecryptfs_words takes them out of `items`, each of which is one option. kUnsupported: a kind of key that only
// eCryptfs' own modules have.
Result<EcryptfsWords> take_ecryptfs_words(std::vector<std::string>& items);

// is_ecryptfs_tree says whether LOWER is to be mounted as an eCryptfs tree: an option says so, or it has no header of
// ecfs and holds what eCryptfs makes. kInvalid: an option says so, and it is a volume of ecfs.
Result<bool> is_ecryptfs_tree(const VolumeRef& volume, bool said);

// not_ecryptfs is that kInvalid.
Error not_ecryptfs(const VolumeRef& volume);

// mount_ecryptfs does it all: checks, keys, questions where options are missing and a terminal is there, and mounts.
Result<Child> mount_ecryptfs(const MountJob& job, const std::string& mountpoint, const EcryptfsWords& words,
                             const UnlockOptions& unlock_options);

// resume_ecryptfs gives a suspended mount of LOWER its keys back; false if none is suspended.
Result<bool> resume_ecryptfs(const VolumeRef& volume, const EcryptfsWords& words, const UnlockOptions& unlock_options);

}  // namespace ecfs::setup
