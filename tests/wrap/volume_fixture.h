// A volume with its two places, for the tests of the volume store.
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>

#include "tests/wrap/testing.h"
#include "wrap/volume_store.h"

namespace ecfs::wrap {

inline constexpr Argon2Cost kCheapCost{kFloorMemoryKib, kFloorPasses, 1};

// Does any file below these directories hold these bytes?
inline bool anywhere(const std::vector<std::string>& dirs, ByteView needle) {
  for (const std::string& dir : dirs) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir)) {
      if (!entry.is_regular_file()) continue;
      const Bytes bytes = get(AT_FDCWD, entry.path());
      if (std::search(bytes.begin(), bytes.end(), needle.begin(), needle.end()) != bytes.end()) return true;
    }
  }
  return false;
}

inline std::set<std::string> names_in(const std::string& dir) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) names.insert(entry.path().filename());
  return names;
}

inline std::set<std::uint32_t> ids_of(const SlotArea& area) {
  std::set<std::uint32_t> ids;
  for (const Slot& s : area.slots) ids.insert(s.id);
  return ids;
}

// Slot 1: password, slot 2: recovery. Made once: Argon2 takes its time.
struct VolumeKit {
  VolumeKit() {
    header.id.fill(0x5a);
    area.slots.push_back(ok(make_password_slot(header.id, 1, "login", key, passphrase, kCheapCost)));
    area.slots.push_back(ok(make_recovery_slot(header.id, 2, "paper", key, recovery)));
    third = ok(make_recovery_slot(header.id, 3, "third", key, other_recovery));
    third_password = ok(make_password_slot(header.id, 3, "", key, other_passphrase, kCheapCost));
  }
  VolumeHeader header;
  Secret key = ok(Secret::random(32));
  Secret passphrase = secret_of("correct horse");
  Secret other_passphrase = secret_of("battery staple");
  RecoveryKey recovery = ok(RecoveryKey::generate());
  RecoveryKey other_recovery = ok(RecoveryKey::generate());
  SlotArea area;
  Slot third;
  Slot third_password;
};

inline const VolumeKit& kit() {
  static const VolumeKit kKit;
  return kKit;
}

// The part of a slot's record that no other has: its salt, nonce and wrapped secret.
inline Bytes essence(const Slot& slot) { return {slot.raw.end() - 92, slot.raw.end()}; }

}  // namespace ecfs::wrap
