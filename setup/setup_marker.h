// What setup-private writes down while it is at work: `setup-unfinished` in ~/.ecfs/NAME, by which the next run
// understands what a kill left behind.
#pragma once

#include <cstdint>
#include <string>

#include "wrap/base/result.h"

namespace ecfs::setup {

constexpr const char* kSetupMarkerName = "setup-unfinished";

struct SetupMarker {
  std::string lower;
  std::uint64_t lower_dev = 0;
  std::uint64_t lower_ino = 0;  // 0: LOWER was not made yet
  bool lower_made = false;      // by us; else it was there, empty
  std::string mountpoint;
  std::string aside;
  std::uint64_t original_dev = 0;
  std::uint64_t original_ino = 0;  // 0: there were no files to move or set aside
  bool move = false;
};

// write_setup_marker makes or replaces the file in `dir`. read_setup_marker: kNotFound if there is none, kCorrupt.
Status write_setup_marker(int dir, const SetupMarker& marker);
Result<SetupMarker> read_setup_marker(int dir);

}  // namespace ecfs::setup
