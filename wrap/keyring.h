// A volume key in the kernel's keyrings, so that tools of the same login can mount again without asking.
//
// Type `user`, description "ecfs:" + the first 16 hex digits of the volume id, in the user keyring, linked into the
// session keyring, with rights for the possessor only. The mount itself never depends on it. Called as the user. Safe
// from any thread. Source: keyrings(7), user-session-keyring(7).
#pragma once

#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/volume_header.h"

namespace ecfs::wrap {

std::string token_description(const VolumeId& volume);

// put_token stores the key (replacing one of that name). find_token reads it back: kNotFound if there is none or it may
// not be read. drop_token removes it from the user and the session keyring; none there is success.
Status put_token(const VolumeId& volume, const Secret& key);
Result<Secret> find_token(const VolumeId& volume);
Status drop_token(const VolumeId& volume);

}  // namespace ecfs::wrap
