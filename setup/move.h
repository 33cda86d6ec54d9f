// Moving a tree of files into a volume: copy, compare, and only then remove what was copied. Works on two open
// directories; every step can be interrupted at any moment and either the originals or the copy are complete.
//
// Carried over: contents with their holes, modes, owners, times to the nanosecond, hard links, symbolic links, FIFOs,
// sockets, devices (root), user attributes and ACLs. Symbolic links are never followed. One thread.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <string>
#include <vector>

#include "setup/ui.h"
#include "wrap/base/result.h"

namespace ecfs::setup {

struct Survey {
  std::uint64_t num_entries = 0;
  std::uint64_t data_bytes = 0;        // what is allocated, every inode once
  std::vector<std::string> obstacles;  // why the tree cannot be moved, in sentences; the first 20
};
// survey_tree looks through a tree that `owner` wants to move.
Result<Survey> survey_tree(int dir, uid_t owner);

// copy_tree copies all that is in `from` into the empty directory `to`; the metadata of `to` itself stays.
Status copy_tree(int from, int to, Progress& progress);

// compare_trees reads both trees, byte by byte. kCorrupt and the name of the first difference.
Status compare_trees(int from, int to, Progress& progress);

struct Removal {
  std::uint64_t num_removed = 0;
  std::vector<std::string> kept;  // entries that are not (any more) what the copy holds, and why; the first 20
  std::uint64_t num_kept = 0;
};
// remove_copied removes from `from` what `to` holds. An entry whose status changed at `compared_at` or later is
// compared again, and kept if it differs; {0, 0} compares everything. `from` itself stays.
Result<Removal> remove_copied(int from, int to, timespec compared_at);

}  // namespace ecfs::setup
