// `ecfs status --all`: what is mounted for whom, for an administrator.
#pragma once

#include <cstdint>

#include "wrap/base/result.h"

namespace ecfs::setup {

// print_machine_status lists every mount of ecfs and every refusal that logins noted. Root's: others cannot read the
// records (kDenied).
Result<int> print_machine_status(bool as_json);

// epoch_of_ticks converts clock ticks since the boot (start_time_of) to seconds since the epoch; 0 if that is not
// known.
std::int64_t epoch_of_ticks(std::uint64_t ticks);

}  // namespace ecfs::setup
