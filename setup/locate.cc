#include "setup/locate.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "fs/format/native_format.h"
#include "setup/mounting.h"
#include "wrap/base/file.h"
#include "wrap/mount.h"

namespace ecfs::setup {
namespace {

// The source of a mount is text that whoever mounted has chosen.
bool is_own(const wrap::MountEntry& mount) {
  const std::string options = mount.options + ",";
  return options.find("user_id=" + std::to_string(geteuid()) + ",") != std::string::npos ||
         options.find("user_id=0,") != std::string::npos;
}

bool holds_volume(const std::string& directory) {
  for (const char* name : {"", ".bak"}) {
    struct stat st {};
    if (lstat((directory + "/" + wrap::kVolumeFileName + name).c_str(), &st) == 0 && S_ISREG(st.st_mode)) return true;
  }
  return false;
}

std::string below(const std::string& path, const std::string& directory) {
  const std::string rest = path.substr(directory == "/" ? 0 : directory.size());
  return rest.empty() ? rest : rest.substr(1);
}

}  // namespace

Result<Located> locate(const std::string& path) {
  ECFS_LET(const std::string absolute, absolute_path(path));
  Located out;
  ECFS_LET(const std::vector<wrap::MountEntry> mounts, wrap::mounts());
  const wrap::MountEntry* innermost = nullptr;
  for (const wrap::MountEntry& mount : mounts) {  // the last one at a place covers the others
    if (!is_inside(absolute, mount.mountpoint)) continue;
    if (innermost == nullptr || mount.mountpoint.size() >= innermost->mountpoint.size()) innermost = &mount;
  }
  if (innermost != nullptr && innermost->fstype == "fuse.ecfs") {
    if (!is_own(*innermost)) {
      return Error{Code::kDenied, EPERM, innermost->mountpoint + " was mounted by another user"};
    }
    auto volume = find_lower(innermost->source);
    if (!volume) {
      return with_context(std::move(volume).error(), "the lower directory of " + innermost->mountpoint);
    }
    out.volume = *std::move(volume);
    out.plain = true;
    out.mountpoint = innermost->mountpoint;
    out.inside = below(absolute, innermost->mountpoint);
    return out;
  }
  for (std::string directory = absolute;;) {
    if (holds_volume(directory)) {
      ECFS_LET(out.volume, find_lower(directory));
      out.inside = below(absolute, directory);
      return out;
    }
    if (directory == "/") break;
    const std::size_t slash = directory.rfind('/');
    directory = slash == 0 ? "/" : directory.substr(0, slash);
  }
  return Error{Code::kNotFound, 0, path + " is neither in an open ecfs volume nor in an encrypted directory"};
}

std::string mountpoint_of(const std::string& lower_path) {
  const auto all = wrap::mounts();
  if (!all) return "";
  for (const wrap::MountEntry& mount : *all) {
    if (mount.fstype == "fuse.ecfs" && mount.source == lower_path && is_own(mount) &&
        !wrap::is_dead(mount.mountpoint)) {
      return mount.mountpoint;
    }
  }
  return "";
}

Result<std::unique_ptr<fs::Format>> format_of(const wrap::VolumeStore& store, const Secret& key) {
  fs::NativeFormatOptions options;
  options.header = store.header();
  return fs::make_native_format(options, key);
}

bool ends_command(const Error& error) noexcept {
  return error.code == Code::kNoKey || error.code == Code::kWrongKey || error.code == Code::kNoMemory ||
         error.sys_errno == EINTR;
}

Result<OpenedVolume> open_volume(const VolumeRef& volume, const UnlockOptions& options, bool tell) {
  ECFS_LET(wrap::VolumeStore store, open_store(volume, tell));
  ECFS_LET(wrap::Unlocked unlocked, unlock(store, options, volume.shown(), Token::kTry, tell));
  ECFS_LET(auto format, format_of(store, unlocked.key));
  return OpenedVolume{std::move(store), std::move(unlocked.key), std::move(format)};
}

}  // namespace ecfs::setup
