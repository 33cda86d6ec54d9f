// check_tree looks through the lower directory of a volume, as `ecfs fsck` does: names, ids of directories, side files,
// contents, links and attributes; it says what a mount cannot read or does not show, and puts right what can be put
// right without losing anything.
//
// It may run while the volume is mounted and written: nothing counts as damage before the lower file or directory has
// been left alone for a while and still looks so. Memory is bounded, whatever the tree: by its depth (a name a level,
// at most 65536), and by 2^18 inodes with several names that are remembered. What the tree holds is hostile: nothing is
// opened but directories and regular files, and never through a symbolic link. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/format/format.h"
#include "fs/salvage.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

enum class Severity {
  kNote,       // nothing of the volume is concerned
  kLeftover,   // of an interruption: harmless; --repair takes it away
  kUnchecked,  // could not be looked at
  kDamage,     // a mount cannot read it, or does not show it
};

enum class Trouble {
  kFile,          // a file that a mount does not open: its header is damaged, or its size impossible
  kBlocks,        // blocks that do not verify
  kName,          // a name that does not decode
  kSideFile,      // a long name's side file is missing or wrong: listings do not show the entry
  kDirId,         // a directory's id is damaged, wrong or missing: its names do not decode
  kLink,          // a link target that does not decode
  kXattr,         // an attribute that does not decode
  kDisk,          // a directory, link or attribute that the disk cannot read
  kInterrupted,   // what an interrupted write left in a file, or behind its end
  kTemporary,     // a temporary file
  kSideOrphan,    // a side file without its entry
  kForeign,       // a name that is not ours
  kConflict,      // a conflicting copy, made by a program that synchronises
  kUnknownOurs,   // a name kept for ecfs that this version does not know
  kEmptyRemains,  // a header without contents: an empty file
  kDenied,        // may not be read
  kChanging,      // changes all the time
  kLoop,          // a directory that holds itself, or is too deep
  kKept,          // what an earlier repair put something else in the place of
  kKey,           // eCryptfs: encrypted with a key or a cipher that is not there
  kHoles,         // eCryptfs: holes in the lower file, which nothing but a loss makes
  kExtra,         // eCryptfs: more contents than the size in the header takes in
};
constexpr std::size_t kNumTroubles = static_cast<std::size_t>(Trouble::kExtra) + 1;
std::string_view name_of(Trouble trouble) noexcept;  // as `--json` shows it: "blocks"
std::string_view name_of(Severity severity) noexcept;

struct Finding {
  Trouble trouble = Trouble::kForeign;
  Severity severity = Severity::kNote;
  bool repaired = false;
  std::string lower;                 // path below the lower directory; "." is that itself
  std::optional<std::string> plain;  // path in the volume, where all of it is known
  std::string what;                  // "its header does not verify"; names no path
  const Ranges* bad = nullptr;       // of kBlocks and kHoles: plain bytes; until the call returns
};

struct CheckTotals {
  std::uint64_t num_dirs = 0;   // the root included
  std::uint64_t num_files = 0;  // regular ones, each inode once
  std::uint64_t num_links = 0;
  std::uint64_t num_special = 0;     // FIFOs, sockets, devices
  std::uint64_t num_more_names = 0;  // further hard links
  std::uint64_t num_sparse = 0;      // files in which holes are allowed
  std::uint64_t plain_bytes = 0;
  std::uint64_t lower_bytes = 0;
  std::uint64_t lost_bytes = 0;                          // plain bytes that do not verify, where that can be told
  std::array<std::uint64_t, kNumTroubles> of_trouble{};  // findings
  std::uint64_t num_damaged = 0;                         // findings of damage that is left
  std::uint64_t num_repaired = 0;                        // findings that were put right
  std::uint64_t num_leftovers = 0;                       // left
  std::uint64_t num_unchecked = 0;
  std::uint64_t num_salvaged = 0;  // files of which something was taken out
};

struct CheckOptions {
  bool quick = false;   // names, headers and sizes; no block is read, no attribute
  bool repair = false;  // the caller holds the volume's lock
  // Names (or paths in the volume) that entries once had: tried where a name or an id is lost.
  std::vector<std::string> known_names;
  // How long something has to be left alone, by its lower times or before our eyes, before it counts: at any time, and
  // while the volume is served (a mount puts off for 5 s at most).
  int quiet_ms = 1'000;
  int quiet_served_ms = 10'000;
  // Temporary files and side files without entries are leftovers once they are as old as this, in seconds.
  std::int64_t temporary_age_s = 600;
  std::int64_t orphan_age_s = 86'400;
  Salvage* salvage = nullptr;  // takes what verifies of damaged files
};

class CheckWatcher {
 public:
  virtual ~CheckWatcher() = default;
  virtual void found(const Finding& finding) = 0;
  // served says whether somebody has the volume mounted just now. Asked only where something looks wrong.
  virtual bool served() { return false; }
  // advanced is called often; an error stops the check and is its result.
  virtual Status advanced(std::uint64_t lower_bytes, std::uint64_t num_entries) = 0;
};

// check_tree checks all below `root` (readable). An error is one of the check itself.
Result<CheckTotals> check_tree(const Fd& root, const Format& format, const CheckOptions& options,
                               CheckWatcher& watcher);

// count_tree counts what check_tree will call `advanced` with, about.
struct TreeSize {
  std::uint64_t lower_bytes = 0;
  std::uint64_t num_entries = 0;
};
Result<TreeSize> count_tree(const Fd& root);

// zero_bad writes encrypted zeros into the blocks of a file that do not verify, and gives their ranges: for programs
// that mend a file themselves if only they can read it (databases with a journal). What these blocks held is given up.
// kCorrupt if the file cannot be opened at all. `lower` is open for writing, and nobody else has it open.
Result<Ranges> zero_bad(const Format& format, LowerFile& lower);

}  // namespace ecfs::fs
