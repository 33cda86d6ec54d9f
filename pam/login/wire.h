// How the answers of a user's child travel to root (Reply::data): fields one after the other, texts and bytes with a
// u32 length in front. Unpacking treats them as hostile: bounded, every length checked.
#pragma once

#include <vector>

#include "pam/login/volumes.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"

namespace ecfs::pam::wire {

Reply pack(const std::vector<VolumeInfo>& volumes);
Result<std::vector<VolumeInfo>> unpack_survey(const Reply& reply);

Reply pack(OpenVolume opened);
Result<OpenVolume> unpack_open(Reply reply);

Reply pack(const ChangeReport& report);
Result<ChangeReport> unpack_change(const Reply& reply);

}  // namespace ecfs::pam::wire
