#include "setup/locate.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "fs/ecryptfs_tree.h"
#include "fs/format/ecryptfs_contents.h"
#include "fs/format/ecryptfs_names.h"
#include "fs/format/native_format.h"
#include "setup/ecryptfs.h"
#include "setup/mounting.h"
#include "wrap/base/file.h"
#include "wrap/mount.h"

namespace ecfs::setup {
namespace {

constexpr std::string_view kKernelsType = "ecryptfs";
constexpr std::string_view kPrivateName = ".Private";

bool is_ours(const wrap::MountEntry& mount) { return mount.fstype == "fuse.ecfs" || mount.fstype == kKernelsType; }

// The source of a mount is text that whoever mounted has chosen.
bool is_own(const wrap::MountEntry& mount) {
  if (mount.fstype == kKernelsType) return true;  // the kernel itself followed it
  const auto owner = wrap::owner_of(mount);
  return owner == geteuid() || owner == uid_t{0};
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

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}
std::string_view name_of(const std::string& path) { return std::string_view(path).substr(path.rfind('/') + 1); }

// The lower directory of an eCryptfs tree that holds `absolute`, if it is one; "": nothing speaks for it.
std::string ecryptfs_root(const std::string& absolute, const std::vector<wrap::MountEntry>& mounts) {
  std::string root;
  for (const wrap::MountEntry& mount : mounts) {
    const bool holds = is_ours(mount) && is_own(mount) && is_inside(absolute, mount.source);
    if (holds && mount.source.size() > root.size()) root = mount.source;
  }
  if (!root.empty()) return root;
  bool encrypted = false;
  for (std::string path = absolute; path != "/"; path = parent_of(path)) {
    if (name_of(path) == kPrivateName) return path;
    const bool is_encrypted = name_of(path).starts_with(fs::kEcryptfsNamePrefix);
    if (encrypted && !is_encrypted) return path;
    encrypted = is_encrypted;
  }
  if (encrypted) return "/";
  Fd fd(open(absolute.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0) return "";
  if (S_ISDIR(st.st_mode)) {
    const auto tree = fs::look_at_ecryptfs_tree(fd.get(), fs::kGlance);
    return tree && tree->seen() ? absolute : "";
  }
  if (!S_ISREG(st.st_mode)) return "";
  const auto header = fs::find_ecryptfs_header(fs::LowerFile(std::move(fd), false));
  return header && *header ? parent_of(absolute) : "";
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
  if (innermost != nullptr && is_ours(*innermost)) {
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
    ECFS_LET(out.ecryptfs, is_ecryptfs_tree(out.volume, innermost->fstype == kKernelsType));
    return out;
  }
  for (std::string directory = absolute;;) {
    if (holds_volume(directory)) {
      ECFS_LET(out.volume, find_lower(directory));
      out.inside = below(absolute, directory);
      return out;
    }
    if (directory == "/") break;
    directory = parent_of(directory);
  }
  if (const std::string root = ecryptfs_root(absolute, mounts); !root.empty()) {
    ECFS_LET(out.volume, find_lower(root));
    ECFS_LET(out.ecryptfs, is_ecryptfs_tree(out.volume, false));
    out.inside = below(absolute, root);
    if (out.ecryptfs) return out;
  }
  return Error{Code::kNotFound, 0, path + " is neither in an open ecfs volume nor in an encrypted directory"};
}

std::string mountpoint_of(const std::string& lower_path) {
  const auto all = wrap::mounts();
  if (!all) return "";
  for (const wrap::MountEntry& mount : *all) {
    const bool here = is_ours(mount) && mount.source == lower_path && is_own(mount);
    if (here && (mount.fstype == kKernelsType || !wrap::is_dead(mount.mountpoint))) return mount.mountpoint;
  }
  return "";
}

Result<Located> of_root(const std::string& path) {
  if (path.find('/') == std::string::npos && wrap::valid_profile_name(path)) {
    auto profile = find_profile(path);
    if (profile) {
      Located out;
      out.volume = *std::move(profile);
      return out;
    }
    if (profile.error().code != Code::kNotFound) return std::move(profile).error();
  }
  // Whoever has it open may well name the place where it is open.
  if (auto located = locate(path); located && located->plain && located->inside.empty()) return located;
  Located out;
  ECFS_LET(out.volume, find_volume(path));
  ECFS_LET(out.ecryptfs, is_ecryptfs_tree(out.volume, false));
  return out;
}

Result<std::unique_ptr<fs::Format>> open_format(const Located& located, const UnlockOptions& options) {
  if (located.ecryptfs) return open_ecryptfs(located.volume, options);
  ECFS_LET(OpenedVolume opened, open_volume(located.volume, options));
  return std::move(opened.format);
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
