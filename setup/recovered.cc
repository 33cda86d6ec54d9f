#include "setup/recovered.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "setup/volume_ref.h"

namespace ecfs::setup {
namespace {

constexpr std::string_view kPrefix = "ecfs-recovered-";

// Of the caller, and nobody else may enter or write.
bool is_private(const std::string& dir) {
  struct stat st {};
  return lstat(dir.c_str(), &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 022) == 0;
}

}  // namespace

Result<std::string> make_recovery_mountpoint() {
  ECFS_LET(const Identity me, caller());
  std::vector<std::string> places;
  if (const char* runtime = secure_getenv("XDG_RUNTIME_DIR"); runtime != nullptr && runtime[0] == '/') {
    places.emplace_back(runtime);
  }
  if (me.uid == 0) places.emplace_back("/run");
  places.push_back(me.home);
  for (const std::string& place : places) {
    if (!is_private(place)) continue;
    std::string path = place + "/" + std::string(kPrefix) + "XXXXXX";
    if (mkdtemp(path.data()) != nullptr) return path;  // 0700
  }
  return Error{Code::kUnavailable, 0,
               "no place for the recovered files: neither $XDG_RUNTIME_DIR nor your home can be used; name an empty "
               "directory of yours "
               "with --mountpoint"};
}

void remove_recovery_mountpoint(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos || path.compare(slash + 1, kPrefix.size(), kPrefix) != 0) return;
  (void)rmdir(path.c_str());  // fails, as it should, where something is in it
}

}  // namespace ecfs::setup
