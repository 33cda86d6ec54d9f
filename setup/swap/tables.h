// The tables that say what swap there is: /proc/swaps, /etc/fstab, /etc/crypttab; and initramfs-tools' file that names
// the place of a hibernation image. Changes of the latter three keep every other byte, and can be taken back.
//
// A change is marked by a comment in front of it, which holds the line that stood there before:
//
//     # ecfs setup-swap, ecfs_swap1, instead of: UUID=1c7e… none swap sw 0 0
//     /dev/mapper/ecfs_swap1 none swap sw,nofail,x-systemd.device-timeout=30s 0 0
//
// "without" instead of "instead of" has no line behind it, "added" has one that replaces nothing. So a file that was
// edited since by somebody else is put right again as well. Pure functions; the text is hostile; safe from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wrap/base/result.h"

namespace ecfs::swap {

constexpr std::size_t kMaxTableBytes = 1U << 20;  // of a file that is read; more is kCorrupt

// One line of /proc/swaps.
struct ActiveSwap {
  std::string path;              // as it was switched on; of a file that is gone with " (deleted)" behind it
  bool file = false;             // not a block device
  std::uint64_t size_bytes = 0;  // without the page of the header
  std::uint64_t used_bytes = 0;  //
  int priority = 0;              // negative: given by the kernel
};

// parse_proc_swaps: a line that it does not understand is kCorrupt.
Result<std::vector<ActiveSwap>> parse_proc_swaps(std::string_view text);

// unescape replaces \ooo (octal, of fstab, crypttab, /proc) by its byte.
std::string unescape(std::string_view field);

// One line of a table of fields: its text with the newline, and its fields, unescaped; a comment or an empty line has
// none.
struct Line {
  std::string text;
  std::vector<std::string> fields;
};
std::vector<Line> lines_of(std::string_view text);

// A line of fstab that is about swap.
struct FstabSwap {
  std::string spec;                                       // "UUID=…", "/dev/…"; without quotation marks
  std::string options;                                    // "sw,pri=5"
  [[nodiscard]] bool has(std::string_view option) const;  // "discard"; also as "discard=…"
};
std::vector<FstabSwap> fstab_swaps(std::string_view text);

// A line of crypttab: name, device, key, options.
struct CryptEntry {
  std::string name;
  std::string device;
  std::string key;
  std::string options;
  [[nodiscard]] std::string option(std::string_view name) const;  // the value of "name=value"; "" if it is not there
  [[nodiscard]] bool has(std::string_view option) const;
};
std::vector<CryptEntry> crypttab_entries(std::string_view text);

// Says of a spec of fstab whether it means the device in question.
using Means = std::function<bool(const std::string& spec)>;

// guard_fstab has a missing device not hold up a boot: lines about it get the options nofail and
// x-systemd.device-timeout=30s. No such line: the text is the same.
std::string guard_fstab(std::string_view text, const std::string& name, const Means& means);

// replace_fstab puts /dev/mapper/NAME in the place of the first line about the device, and takes the others out. Its
// options stay, but for discard, which would show on the disk what is in use; `priority` is added if it is not negative
// and none stands there. No such line: one is added.
std::string replace_fstab(std::string_view text, const std::string& name, const Means& means, int priority);

// add_crypttab adds `line` (without a newline).
std::string add_crypttab(std::string_view text, const std::string& name, const std::string& line);

// end_resume makes each RESUME= of conf.d/resume, or a new line, RESUME=none.
std::string end_resume(std::string_view text, const std::string& name);
// resume_of gives the value of the last RESUME= line; "" if there is none.
std::string resume_of(std::string_view text);

enum class Table { kFstab, kCrypttab, kResume };
// without_marks takes the changes marked with `name` back; of what is not marked every byte stays. (A last line without
// a newline, behind which something was added, keeps the newline.)
std::string without_marks(std::string_view text, Table table, const std::string& name);

}  // namespace ecfs::swap
