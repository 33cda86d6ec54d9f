// The eCryptfs format (fs/ECRYPTFS-FORMAT.md) behind the Format interface. Directories have no ids, attributes of users
// stay as they are, sizes stand in the files.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "fs/format/ecryptfs_keys.h"
#include "fs/format/format.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_options.h"

namespace ecfs::fs {

struct EcryptfsFormatOptions {
  std::vector<EcryptfsSignature> signatures;        // of the keys that files are made with; at least one
  std::optional<EcryptfsSignature> name_signature;  // of the key of names; none: names stand as they are
  EcryptfsCipher cipher{7, 16};                     // of files that are made
  std::optional<EcryptfsCipher> name_cipher;        // if it is another
  EcryptfsPlace place = EcryptfsPlace::kFile;
  bool named_keys_only = false;  // other keys are not used
  bool passthrough = false;
  bool encrypted_view = false;  // names and contents as they lie below, read only
};

// ecryptfs_format_options takes what a mount's options say: kInvalid for a cipher that there is not.
Result<EcryptfsFormatOptions> ecryptfs_format_options(const wrap::EcryptfsOptions& options);

// make_ecryptfs_format takes the keys as EcryptfsKeys::pack gives them: those that the options name (kNoKey if one is
// missing), and others, with which files are read that name them. Format::restore_keys takes the same, and is kWrongKey
// if one that the options name is missing. kUnsupported: a cipher that is not there.
Result<std::unique_ptr<Format>> make_ecryptfs_format(const EcryptfsFormatOptions& options, const Secret& packed_keys);

}  // namespace ecfs::fs
