// EcryptfsContents is the plaintext of one open lower file of the eCryptfs format. What it leaves on disk is what a
// kernel would: no holes, zeros behind the end, the size in the header.
//
// Interruptions: data is written before the size that takes it in, and a smaller size before the data it leaves out is
// cut. So a killed process leaves the old size or the new one; overwritten extents are old, new, or torn at a border
// of what the disk writes at once, since the format has nothing to tell by. Nothing is authenticated: changed bytes
// read as rubbish, not as an error.
//
// Thread rule: as Contents says. One lock per file: reads share it, everything else holds it alone; it is taken before
// that of EcryptfsFileKey. Source: fs/ECRYPTFS-FORMAT.md §3, §5, §7.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "fs/format/ecryptfs_keys.h"
#include "fs/format/format.h"

namespace ecfs::fs {

// What all open files of a mount share.
struct EcryptfsVolume {
  EcryptfsKeys keys;
  EcryptfsCiphers ciphers;
  // Of files that are made; others carry their own.
  EcryptfsCipher cipher;
  std::vector<EcryptfsSignature> signatures;  // at least one
  bool encrypted_names = false;               // only a flag in the header
  EcryptfsPlace place = EcryptfsPlace::kFile;

  bool passthrough = false;     // files without a header are plain ones
  bool encrypted_view = false;  // read only, the lower bytes; a header in an attribute is put in front
};

// find_ecryptfs_header looks for the header in the file, then in the attribute: nothing for a file of no bytes without
// one. kCorrupt: there is none, or one that no reader may accept.
struct EcryptfsFound {
  EcryptfsHeader header;
  EcryptfsPlace place = EcryptfsPlace::kFile;
};
Result<std::optional<EcryptfsFound>> find_ecryptfs_header(const LowerFile& lower);

// open_ecryptfs_contents reads and checks the header. `lower` outlives the result. A lower file of no bytes is an empty
// file. kNoKey and kUnsupported: the header is good, its key or cipher is not there.
Result<std::unique_ptr<Contents>> open_ecryptfs_contents(std::shared_ptr<const EcryptfsVolume> volume,
                                                         LowerFile& lower);

// open_ecryptfs_to_truncate gives a file that can be truncated to 0, also if its header is damaged; until then
// everything else is kCorrupt.
Result<std::unique_ptr<Contents>> open_ecryptfs_to_truncate(std::shared_ptr<const EcryptfsVolume> volume,
                                                            LowerFile& lower);

// ecryptfs_stored_size gives the size that the open file would have. It needs no key. kCorrupt: there is no header.
Result<std::uint64_t> ecryptfs_stored_size(const EcryptfsVolume& volume, const LowerFile& lower);

}  // namespace ecfs::fs
