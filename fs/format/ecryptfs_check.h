// How one lower file of the eCryptfs format is. Nothing in the format is authenticated: what can be seen is a header
// that makes no sense, a key or cipher that is not there, contents that end too early or too late, and holes, which no
// ciphertext has. Changed contents cannot be seen, and so nothing is ever repaired.
//
// Stateless; safe from any thread. Source: fs/ECRYPTFS-FORMAT.md §2, §3, §7.
#pragma once

#include <memory>

#include "fs/format/check.h"
#include "fs/format/ecryptfs_contents.h"

namespace ecfs::fs {

// check_ecryptfs_contents: Format::check_contents of this format. `how.repair` changes nothing.
Result<ContentsCheck> check_ecryptfs_contents(const EcryptfsVolume& volume, const LowerFile& lower,
                                              const CheckHow& how);

// salvage_ecryptfs_contents: Format::salvage_contents. Of an extent that is cut off, whole cipher blocks are taken.
Result<Salvaged> salvage_ecryptfs_contents(std::shared_ptr<const EcryptfsVolume> volume, LowerFile& lower,
                                           const PutPlain& put);

// ecryptfs_facts tells what the header says; without one only the lower size is known. Needs no key.
Result<FileFacts> ecryptfs_facts(const LowerFile& lower);

}  // namespace ecfs::fs
