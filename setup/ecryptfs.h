// Mounting eCryptfs lower trees in the words of mount.ecryptfs(8): its options, its questions, its signature cache, and
// the keys of the user keyring.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/format/format.h"
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
  // Not among the options: what is there is opened as it was made. Nothing but a passphrase is asked for, and one whose
  // key neither the tree nor `expected` names is refused.
  bool as_it_is = false;
  std::vector<wrap::EcryptfsSignature> expected;  // as a Private.sig says
};

// take_ecryptfs_words takes them out of `items`, each of which is one option. kUnsupported: a kind of key that only
// eCryptfs' own modules have.
Result<EcryptfsWords> take_ecryptfs_words(std::vector<std::string>& items);

// is_ecryptfs_tree says whether LOWER is to be mounted as an eCryptfs tree: an option says so, or it has no header of
// ecfs and holds what eCryptfs makes. kInvalid: an option says so, and it is a volume of ecfs.
Result<bool> is_ecryptfs_tree(const VolumeRef& volume, bool said);

// not_ecryptfs is that kInvalid.
Error not_ecryptfs(const VolumeRef& volume);

// settle_ecryptfs comes by what opens the tree `job.volume`: options where none was given (from what is there, or by
// asking), and the keys. kWrongKey: the passphrase is that of no file there. Without a descriptor of LOWER there is
// nothing there yet.
struct SettledEcryptfs {
  wrap::EcryptfsOptions options;
  Secret keys;  // packed (fs/format/ecryptfs_keys.h)
};
Result<SettledEcryptfs> settle_ecryptfs(const MountJob& job, const EcryptfsWords& words,
                                        const UnlockOptions& unlock_options);

// reading_format gives the Format for a tree that is read only: a cipher that is not there is in the way of its own
// files alone.
Result<std::unique_ptr<fs::Format>> reading_format(const SettledEcryptfs& settled);

// mount_ecryptfs does it all: checks, keys, questions where options are missing and a terminal is there, and mounts.
Result<Child> mount_ecryptfs(const MountJob& job, const std::string& mountpoint, const EcryptfsWords& words,
                             const UnlockOptions& unlock_options);

// open_ecryptfs gives the Format that reads LOWER without mounting it, with every key of the keyring; those it needs
// and does not find there come from the passphrase that is given or asked for. With `ask` false it is kNoKey instead.
// kWrongKey: a passphrase whose key nothing there names.
Result<std::unique_ptr<fs::Format>> open_ecryptfs(const VolumeRef& volume, const UnlockOptions& unlock_options,
                                                  bool ask = true);

// resume_ecryptfs gives a suspended mount of LOWER its keys back; false if none is suspended.
Result<bool> resume_ecryptfs(const VolumeRef& volume, const EcryptfsWords& words, const UnlockOptions& unlock_options);

}  // namespace ecfs::setup
