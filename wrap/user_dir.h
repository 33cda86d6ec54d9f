// Directories of a user's that tell how the home is to be opened: ~/.ecfs, ~/.ecryptfs, or the same beside an encrypted
// home, where they can be read while it is locked.
//
// Called as the user. Nobody but the user and root may have a say in what is found there: other owners, and rights to
// write for others, are kDenied. Links are followed only on the way to the home, which is root's choice.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "wrap/base/fd.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"

namespace ecfs::wrap {

struct UserDir {
  Fd dir;
  std::string path;
  bool beside_home = false;
};

// open_user_dir opens PARENT/NAME/USER/NAME, where PARENT is the directory that the home stands in, or where there is
// none HOME/NAME. It belongs to the user. kNotFound if there is neither.
Result<UserDir> open_user_dir(const Identity& who, const std::string& name);
// open_beside_home opens PARENT/NAME/USER/NAME for a PARENT that ends with a slash.
Result<UserDir> open_beside_home(const Identity& who, const std::string& parent, const std::string& name);

// Where a home stands, for root to change something there.
struct HomePlace {
  Fd parent;         // O_PATH; the directory around the home
  std::string path;  // of it, without links; "" for the root directory
  std::string name;  // of the home in it
  [[nodiscard]] std::string home() const { return path + "/" + name; }
};
// open_home_place opens it from the root directory downwards, following no link. kDenied unless all directories above
// the home are root's and writable by nobody else (those above the last one may be sticky, as /tmp is).
Result<HomePlace> open_home_place(const Identity& who);

// open_trusted_dir opens a directory whose path is root's choice.
Result<Fd> open_trusted_dir(const std::string& path);
// open_private_dir opens a directory of `owner` or root; check_private_dir checks one. `shown` is for messages.
Result<Fd> open_private_dir(int parent, const std::string& name, uid_t owner, const std::string& shown);
Status check_private_dir(int dir, uid_t owner, const std::string& shown);

}  // namespace ecfs::wrap
