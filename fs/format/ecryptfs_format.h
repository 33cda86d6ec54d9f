// The eCryptfs format (fs/ECRYPTFS-FORMAT.md) behind the Format interface. Directories have no ids, attributes of users
// stay as they are, sizes stand in the files.
#pragma once

#include <memory>
#include <optional>

#include "fs/format/ecryptfs_keys.h"
#include "fs/format/format.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {

enum class EcryptfsNameKey {
  kNone,         // names stand as they are
  kOwn,          // the passphrase with the salt for names
  kContentsKey,  // the key of the contents
};

struct EcryptfsFormatOptions {
  EcryptfsSalt salt = kEcryptfsContentSalt;
  EcryptfsCipher cipher{7, 16};  // of files that are made
  EcryptfsNameKey names = EcryptfsNameKey::kOwn;
  std::optional<EcryptfsCipher> name_cipher;  // if it is another
  EcryptfsPlace place = EcryptfsPlace::kFile;
  bool passthrough = false;
  bool encrypted_view = false;  // names and contents as they lie below, read only
};

// make_ecryptfs_format derives the keys from the mount passphrase, which is not kept. There is nothing to check them by
// but the files: Format::restore_keys is kWrongKey for a passphrase with other signatures. kUnsupported: a cipher that
// is not there.
Result<std::unique_ptr<Format>> make_ecryptfs_format(const EcryptfsFormatOptions& options, const Secret& passphrase);

}  // namespace ecfs::fs
