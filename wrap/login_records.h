// What logins leave in /run/ecfs/UID (root's, 0700) for the watcher and for `ecfs status --all`: a record of each
// volume that is mounted for the user, and why one stayed locked. They go with the last session.
//
// `dir` is a descriptor of that directory. Written by ecfs-login alone, as root; one login at a time writes of a
// volume.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/keyslot.h"

namespace ecfs::wrap {

constexpr const char* kLoginsDir = "/run/ecfs";

// One volume that a login mounted: the file mount-NAME.
struct MountRecord {
  std::string name;           // of the profile
  pid_t server = 0;           // ecfs-mountd
  std::uint64_t started = 0;  // its start_time_of (wrap/base/process.h), because process ids are used again
  unsigned device_major = 0;
  unsigned device_minor = 0;
  bool auto_unmount = true;
  std::uint32_t slot_id = 0;  // which slot opened it; 0: no slot, but the wrapped-passphrase of ecryptfs-utils
  SlotType slot_type{};
};
Status save_record(int dir, const MountRecord& record);
std::vector<MountRecord> load_records(int dir);
void remove_record(int dir, const std::string& name);

// Why the last login did not open a volume: the file refused-NAME.
struct Refusal {
  std::string name;
  std::int64_t when = 0;  // seconds since the epoch
  std::string why;        // a sentence; it may hold anything that a user could bring into a path or a name
};
Status save_refusal(int dir, const std::string& name, const std::string& why);
std::vector<Refusal> load_refusals(int dir);
void remove_refusal(int dir, const std::string& name);

// remove_login_records removes all of both.
void remove_login_records(int dir);

}  // namespace ecfs::wrap
