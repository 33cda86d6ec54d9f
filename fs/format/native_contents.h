// NativeContents is the plaintext of one open lower file of the native format: reading, writing and the order in which
// changes reach the lower file, so that an interruption leaves what the table in fs/FORMAT.md §4 says.
//
// Thread rule: as Contents says. One lock per file: reads share it, everything else holds it alone; it is taken before
// those of MetaCache and FileCipher. Source: fs/FORMAT.md §4.
#pragma once

#include <memory>

#include "fs/format/format.h"
#include "fs/format/meta_cache.h"
#include "fs/format/native_crypto.h"
#include "fs/format/native_header.h"
#include "fs/format/native_keys.h"

namespace ecfs::fs {

// What all open files of a mount share.
struct NativeVolume {
  wrap::VolumeHeader header;
  Geometry geometry{kMinBlockShift};
  NativeKeys keys;
  Ciphers ciphers;
  std::shared_ptr<NonceSource> nonces;
  bool unsealed_report = false;
  mutable MetaBudget meta_budget;
};

// open_native_contents reads and checks the header and finds the authenticated end. `lower` outlives the result.
Result<std::unique_ptr<Contents>> open_native_contents(std::shared_ptr<const NativeVolume> volume, LowerFile& lower);

// open_native_to_truncate gives a file that can be truncated to 0, whatever it holds; until then everything else is
// kCorrupt if its header is.
Result<std::unique_ptr<Contents>> open_native_to_truncate(std::shared_ptr<const NativeVolume> volume, LowerFile& lower);

}  // namespace ecfs::fs
