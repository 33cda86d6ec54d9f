// What the names in a lower tree mean, found from lower directories alone: ids of directories, plain names of entries,
// and the way from a plain path to a lower one and back. Volume, the check and `ecfs find` share it.
//
// Reads only; every step is one name below a directory descriptor, never through a symbolic link. Safe from any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fs/format/format.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

constexpr std::string_view kTempPrefix = ".ecfs-tmp-";
constexpr std::string_view kSideSuffix = ".n";

std::string side_name(std::string_view lower_entry);

// find_dir_id gives the id of the directory `dirfd`: the stored one, else `derived`. A file in the place of the stored
// id that does not verify, or is none, is kCorrupt (EIO): the derived id is never taken in its place.
struct FoundDirId {
  DirId id{};
  bool stored = false;
};
Result<FoundDirId> find_dir_id(const Format& format, int dirfd, const DirId& derived);

// decode_entry gives the plain name of an entry of the directory `dirfd`, whose id is `id`. A long name's side file is
// read: kNotFound if it is missing. kCorrupt: none of ours here.
Result<std::string> decode_entry(const Format& format, int dirfd, const DirId& id, std::string_view lower_name);

// conflict_of is Format::conflict_name with the side file that it may need.
Result<Format::ConflictName> conflict_of(const Format& format, int dirfd, const DirId& id, std::string_view lower_name);

// PathFound is one path of a volume, on both sides.
struct PathFound {
  std::string plain;      // relative to the volume's root; "" is the root
  std::string lower;      // relative to the lower directory
  std::string side_file;  // a long name's: the lower path of its side file; else ""
  bool exists = false;    // all of it is there
  bool sure = true;   // false: a directory on the way is not there, so that its id could only be derived from its name
  Fd parent;          // O_PATH of the lower directory that holds the entry; none if that is missing, or for the root
  std::string entry;  // its lower name there
};

// find_plain finds where a plain path is, or would be, stored. find_lower gives the plain path of a lower one; the name
// of a side file stands for its entry. kInvalid for a path with `..`, or that passes through something that is no
// directory; kCorrupt where an id or a name on the way does not decode.
Result<PathFound> find_plain(const Format& format, int root, std::string_view plain_path);
Result<PathFound> find_lower(const Format& format, int root, std::string_view lower_path);

}  // namespace ecfs::fs
