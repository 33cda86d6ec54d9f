// Moving a tree of files into a volume: copy, compare, and only then remove what was copied. Works on two open
// directories; every step can be interrupted at any moment and either the originals or the copy are complete. And the
// parts of it, for whoever goes file by file (migration.h).
//
// Carried over: contents with their holes, modes, owners, times to the nanosecond, hard links, symbolic links, FIFOs,
// sockets, devices (root), attributes and ACLs (Node::attributes). Symbolic links are never followed. One thread.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "setup/tree.h"
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
// remove_untouched removes what was compared and whose status has not changed since: for a copy that has been in use
// and may differ by now. All else is kept.
Result<Removal> remove_untouched(int from, timespec compared_at);

// ---- the parts

using InodeKey = std::pair<dev_t, ino_t>;
inline InodeKey key_of(const struct stat& st) { return {st.st_dev, st.st_ino}; }

// below gives the path of `name` in the directory `path`, which is "" for the root.
std::string below(const std::string& path, const std::string& name);

// Contents copies and compares the bytes of files. An error is that of a read of `from`, or not: from_failed().
class Contents {
 public:
  explicit Contents(Progress* progress);  // null: none
  // copy writes what is data into the new file `to`. With `find_holes` zeros are data only where little of them stands
  // together: for a source that stores all its holes.
  Status copy(OpenFile& from, OpenFile& to, bool find_holes);
  // compare gives kCorrupt and what differs.
  Status compare(OpenFile& from, OpenFile& to);
  [[nodiscard]] bool from_failed() const noexcept { return from_failed_; }

 private:
  Status copy_stretch(OpenFile& from, OpenFile& to, std::uint64_t begin, std::uint64_t end, bool find_holes);
  Status failed_reading(Error error);
  Progress* progress_;
  Bytes a_;
  Bytes b_;
  bool from_failed_ = false;
};

// copy_metadata gives `to` the owner, the attributes and the mode of `from`, which has the status `st`.
Status copy_metadata(Node& from, Node& to, const struct stat& st);
// compare_metadata: kCorrupt and what differs. Times of access are not compared, nor sizes of directories.
Status compare_metadata(Node& from, Node& to);

}  // namespace ecfs::setup
