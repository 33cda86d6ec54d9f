// What swap is on, and whether it is encrypted: from /proc/swaps and sysfs alone, so any user may ask. No library.
// One thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "setup/swap/tables.h"

namespace ecfs::swap {

enum class Kind { kPartition, kDevice, kMapped, kFile, kZram };
const char* kind_name(Kind kind) noexcept;  // "partition", "device", "device-mapper", "file", "zram"

struct Area {
  ActiveSwap swap;
  Kind kind = Kind::kDevice;
  std::string device;       // MAJOR:MINOR; "" of a file
  std::string mapper_name;  // of kMapped: its name and UUID in device-mapper
  std::string mapper_uuid;
  bool encrypted = false;  // whatever is written there goes through dm-crypt. zram: it is memory, or its writeback
                           // device is encrypted
  std::string writeback;   // zram: the device on which it puts pages; "" if none
};

// Where to look. device_of gives MAJOR:MINOR of a path to a block device.
struct Places {
  std::string proc = "/proc";
  std::string sys = "/sys";
  std::function<std::optional<std::string>(const std::string& path)> device_of;
  std::function<std::optional<std::string>(const std::string& path)> device_below;  // of the filesystem of a file
};
Places this_machine();

// areas gives all swap that is on. A machine without swap, or a kernel without it, has none.
Result<std::vector<Area>> areas(const Places& places);

// encrypted_below says whether a block device (MAJOR:MINOR) is dm-crypt, or stands on nothing but dm-crypt.
bool encrypted_below(const Places& places, const std::string& device);

// read_line gives the first line of a small file of sysfs; "" if it cannot be read.
std::string read_line(const std::string& path);

// not_encrypted names the swap that is on and not encrypted, "/dev/sda2, /swapfile"; "" if there is none.
std::string not_encrypted(const std::vector<Area>& areas);

}  // namespace ecfs::swap
