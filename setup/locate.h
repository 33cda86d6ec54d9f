// From any path to the volume that it belongs to: a plain file below a mountpoint, or a lower file below a lower
// directory. And a volume with its key and Format, for commands that read it without mounting it. Volumes are native
// ones or eCryptfs trees, and mounts of the latter a kernel's, too.
#pragma once

#include <memory>
#include <string>

#include "fs/format/format.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::setup {

struct Located {
  VolumeRef volume;
  bool ecryptfs = false;   // the volume is an eCryptfs tree
  bool plain = false;      // the path is one of the plain side
  std::string inside;      // path below the mountpoint or the lower directory; "" is that itself
  std::string mountpoint;  // of a plain path
};

// locate finds the volume of `path`, which need not exist itself (the directory that it stands in does). Only mounts
// that the caller made, or root, are believed. kNotFound: neither in a mount of ecfs nor in a lower directory. The top
// of an eCryptfs tree has no mark: it is what is mounted; else a directory .Private; else where encrypted names begin;
// else the directory of the file.
Result<Located> locate(const std::string& path);

// mountpoint_of says where the caller has a lower directory mounted; "" if nowhere.
std::string mountpoint_of(const std::string& lower_path);

struct OpenedVolume {
  wrap::VolumeStore store;
  Secret key;
  std::unique_ptr<fs::Format> format;
};
// of_root gives the volume whose lower directory, or place where it is open, is `path`: kNotFound if it is neither.
Result<Located> of_root(const std::string& path);

// open_volume reads the header of a native volume and unlocks it: with a key of the keyring, or by asking. What is
// wrong with copies of the header is noted on stderr if `tell`.
Result<OpenedVolume> open_volume(const VolumeRef& volume, const UnlockOptions& options, bool tell = true);
// ends_command says whether a failure with one of several paths is one with all: no key, the question broken off.
bool ends_command(const Error& error) noexcept;
// open_format does so for a volume of either format.
Result<std::unique_ptr<fs::Format>> open_format(const Located& located, const UnlockOptions& options);
// format_of makes the Format of an unlocked volume.
Result<std::unique_ptr<fs::Format>> format_of(const wrap::VolumeStore& store, const Secret& key);

}  // namespace ecfs::setup
