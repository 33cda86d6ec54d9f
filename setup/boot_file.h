// What is written down for a directory that opens at boot: /etc/ecfs/boot.d/NAME, which the shell of the unit
// ecfs-mount@NAME.service reads, where NAME is the directory's path as systemd writes it in names of units.
#pragma once

#include <string>
#include <string_view>

#include "wrap/base/result.h"

namespace ecfs::setup {

constexpr const char* kBootFiles = "/etc/ecfs/boot.d";

struct BootFile {
  std::string lower;  // absolute, as the mountpoint
  std::string mountpoint;
  std::string options;  // of the mount, with commas; not empty
};

// unit_escape writes an absolute path as systemd.unit(5) has it in a unit's name: "/srv/secret-1" is "srv-secret\x2d1".
std::string unit_escape(std::string_view path);

// build_boot_file gives lines NAME="value". kInvalid: a value with characters that mean something else there, to a
// shell or to systemd: quotes, backslashes, '$', '`' and control characters.
Result<std::string> build_boot_file(const BootFile& file);
// parse_boot_file reads such lines; kCorrupt for anything that build_boot_file does not write.
Result<BootFile> parse_boot_file(std::string_view text);

}  // namespace ecfs::setup
