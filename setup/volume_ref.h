// A volume as a person names it (a lower directory or the name of a profile), and the places its header is kept in.
#pragma once

#include <optional>
#include <string>

#include "wrap/base/fd.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/profile.h"
#include "wrap/volume_store.h"

namespace ecfs::setup {

struct VolumeRef {
  std::string lower_path;                    // absolute, without symbolic links where it exists
  Fd lower_dir;                              // none where LOWER is not there (a disk not connected)
  std::optional<wrap::OpenProfile> profile;  // the caller's profile for it, if there is one

  [[nodiscard]] wrap::VolumeStore::Places places() const;
  [[nodiscard]] std::string shown() const;  // what messages call it: the profile's name or the path
};

// caller gives the user who runs the tool.
Result<Identity> caller();

// absolute_path makes `path` absolute, resolving symbolic links in all but the last component; no slash at the end.
// kNotFound if the directory it stands in does not exist.
Result<std::string> absolute_path(const std::string& path);

// find_lower opens a lower directory and the caller's profile for it. Missing, not a directory: said in words.
Result<VolumeRef> find_lower(const std::string& path);
// find_profile opens one of the caller's profiles; LOWER may be missing.
Result<VolumeRef> find_profile(const std::string& name);
// find_user_volume opens one of the caller's profiles, or as "Private" what ecryptfs-utils set up
// (wrap/ecryptfs_private.h).
Result<VolumeRef> find_user_volume(const std::string& name);
// default_volume is the one that is meant where none is named: Private, or a whole home where there is only that.
std::string default_volume();
// find_volume takes either: what has a slash is a directory, else a volume of that name comes first.
Result<VolumeRef> find_volume(const std::string& arg);

// open_store reads the header of a native volume. What was wrong with its copies is noted on stderr if `tell`. kInvalid
// for an eCryptfs tree; open_slots opens the key slots of either, where it has some.
Result<wrap::VolumeStore> open_store(const VolumeRef& volume, bool tell = true);
Result<wrap::VolumeStore> open_slots(const VolumeRef& volume, bool tell = true);

// lock waits (10 s at most) for the lock of the volume's profile, which everybody holds who mounts it or changes its
// keys. A volume without a profile has none: VolumeStore locks the header itself while it changes it, and the server
// locks LOWER.
Result<Fd> lock(const VolumeRef& volume);

std::string time_text(std::int64_t seconds);  // "2026-01-31 12:00"; local time

}  // namespace ecfs::setup
