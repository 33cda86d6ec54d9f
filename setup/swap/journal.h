// The journal of one area: what was there before anything was changed, and how far the change is. It is written and
// synced before each step, so that whatever is interrupted can be brought to its end or taken back; it stays as long as
// the area is encrypted. One file NAME.json in /var/lib/ecfs/swap, for root alone; it holds no page of swap and no key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"

namespace ecfs::swap {

enum class Phase { kEncrypting, kEncrypted, kUndoing };
const char* phase_name(Phase phase) noexcept;

// A file as it was.
struct Original {
  bool existed = false;
  Bytes bytes;
};

struct Journal {
  std::string name;  // "ecfs_swap1"
  Phase phase = Phase::kEncrypting;
  std::string step;    // the last one begun
  std::string path;    // of the device then
  std::string stable;  // its name that stays
  std::vector<std::string> names;
  std::uint64_t size_bytes = 0;
  Bytes header;  // its first page
  int priority = -1;
  bool discard = false;
  std::string cipher;
  unsigned sector_bytes = 512;
  bool wipe = false;
  bool unit = false;     // ecfs-swap@.service was enabled
  bool no_auto = false;  // the GPT attribute was not set, and is
  bool resume = false;   // initramfs-tools' file was changed
  Original fstab;
  Original crypttab;
  Original resume_file;
};

// to_text and parse_journal: JSON. Not what it could have written: kCorrupt.
std::string to_text(const Journal& journal);
Result<Journal> parse_journal(std::string_view text);

// is_name says whether `name` is one that we give ("ecfs_swap" and a number).
bool is_name(std::string_view name);

// The directory of the journals. open_journals makes it (`make`), or is kNotFound.
Result<Fd> open_journals(bool make);
Status save(int dir, const Journal& journal);
Status remove(int dir, const Journal& journal);
// load gives all, by number. One that cannot be read is an error: it may be all that is known of an area.
Result<std::vector<Journal>> load(int dir);

}  // namespace ecfs::swap
