// The keys of one native volume, and the synthetic ids and nonces that are functions of them.
//
// Each key is HKDF-Expand of the volume's PRK under its own label, held in locked memory for the life of the mount; the
// volume key itself is not kept. Immutable after derive(), but for Format::drop_keys and restore_keys: safe from any
// thread. Source: fs/FORMAT.md §3 and §5.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "fs/format/format.h"
#include "wrap/base/secret.h"
#include "wrap/volume_header.h"

namespace ecfs::fs {

struct NativeKeys {
  Secret file;     // parent of the per-file keys
  Secret dir;      // directory ids
  Secret longs;    // hash of long names
  Secret name;     // SIV of names, 64 bytes as all that follow
  Secret dirid;    // SIV of stored directory ids
  Secret symlink;  // SIV of link targets
  Secret xname;    // SIV of the names of extended attributes
  Secret xvalue;   // SIV of their values

  static Result<NativeKeys> derive(const wrap::VolumeId& id, const Secret& volume_key);
};

// no_keys is the answer where a key is needed and was dropped.
Error no_keys();
// check_there says so of a key.
Status check_there(const Secret& key);

// root_dir_id and child_dir_id derive the id of a directory without a stored one.
Result<DirId> root_dir_id(const NativeKeys& keys);
Result<DirId> child_dir_id(const NativeKeys& keys, const DirId& parent, std::string_view plain_name);

}  // namespace ecfs::fs
