// ~/.ecryptfs/sig-cache.txt: the signatures of the keys that a person has mounted with before, as mount.ecryptfs keeps
// them. A passphrase with another one may be mistyped. Signatures are no secrets.
#pragma once

#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/ecryptfs_options.h"
#include "wrap/ecryptfs_token.h"

namespace ecfs::setup {

constexpr const char* kSignatureCacheName = ".ecryptfs/sig-cache.txt";  // below the home directory

// signature_is_cached: no file, or none that can be trusted (of another user, larger than 1 MiB), has none.
bool signature_is_cached(const Identity& who, const wrap::EcryptfsSignature& signature);
// cache_signature appends it, and makes the directory and the file if need be.
Status cache_signature(const Identity& who, const wrap::EcryptfsSignature& signature);

}  // namespace ecfs::setup
