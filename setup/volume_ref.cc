#include "setup/volume_ref.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <ctime>

#include "setup/ui.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/ecryptfs_private.h"

namespace ecfs::setup {
namespace {

constexpr int kLockWaitMs = 10000;

Result<std::string> real_path(const std::string& path) {
  const Owned<char, free> resolved(realpath(path.c_str(), nullptr));
  if (!resolved) return system_error(errno, path);
  return std::string(resolved.get());
}

bool same_inode(int a, int b) {
  struct stat sa {};
  struct stat sb {};
  return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

// The caller's profile whose lower directory this is. Compared by inode: paths can be written in many ways.
std::optional<wrap::OpenProfile> profile_of(int lower_dir) {
  auto me = caller();
  if (!me) return {};
  auto dir = wrap::open_profiles_dir(*me);
  if (!dir) return {};
  auto names = wrap::list_profiles(dir->get());
  if (!names) return {};
  for (const std::string& name : *names) {
    auto profile = wrap::open_profile(dir->get(), name);
    if (!profile) continue;
    auto lower = open_directory(AT_FDCWD, profile->profile.lower);
    if (lower && same_inode(lower->get(), lower_dir)) return *std::move(profile);
  }
  return {};
}

Result<VolumeRef> find_named(const std::string& name,
                             Result<wrap::OpenProfile> (*open)(const Identity&, const std::string&)) {
  if (!wrap::valid_profile_name(name)) return Error{Code::kInvalid, 0, "'" + name + "' cannot be the name of a volume"};
  ECFS_LET(const Identity me, caller());
  auto profile = open(me, name);
  if (!profile) {
    if (profile.error().code != Code::kNotFound) return with_context(std::move(profile).error(), "volume " + name);
    return Error{
        Code::kNotFound, ENOENT,
        "user " + me.name + " has no volume '" + name + "' (see `ecfs status`; `ecfs setup-private` makes one)"};
  }
  VolumeRef volume;
  volume.lower_path = profile->profile.lower;
  volume.profile = *std::move(profile);
  auto lower = open_directory(AT_FDCWD, volume.lower_path);
  if (lower) {
    volume.lower_dir = *std::move(lower);
  } else if (lower.error().code != Code::kNotFound) {
    return with_context(std::move(lower).error(), "volume " + name);
  }
  return volume;
}

}  // namespace

wrap::VolumeStore::Places VolumeRef::places() const {
  wrap::VolumeStore::Places places;
  places.lower_dir = lower_dir.get();
  if (profile && profile->profile.format == wrap::kEcryptfsFormat) {
    places.kind = wrap::VolumeKind::kEcryptfs;
    places.lower_dir = -1;
  }
  if (profile) {
    places.profile_dir = profile->dir.get();
    places.slots_in_volume = profile->profile.slots_in_volume;
    places.pinned = profile->profile.volume_id;
  }
  return places;
}

std::string VolumeRef::shown() const { return profile ? profile->profile.name : lower_path; }

Result<Identity> caller() { return own_identity(); }

Result<std::string> absolute_path(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  if (trimmed.empty()) return Error{Code::kInvalid, 0, "an empty path"};
  const std::size_t slash = trimmed.rfind('/');
  const std::string name = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  if (name == "." || name == ".." || name.empty()) return real_path(trimmed);
  ECFS_LET(const std::string parent, real_path(slash == std::string::npos ? "." : trimmed.substr(0, slash + 1)));
  return parent + (parent.ends_with('/') ? "" : "/") + name;
}

Result<VolumeRef> find_lower(const std::string& path) {
  VolumeRef volume;
  auto resolved = real_path(path);
  if (!resolved) {
    if (resolved.error().code == Code::kNotFound) {
      return Error{Code::kNotFound, ENOENT,
                   path + ": there is no such directory (a new volume is made with `ecfs init`)"};
    }
    return std::move(resolved).error();
  }
  volume.lower_path = *std::move(resolved);
  auto dir = open_directory(AT_FDCWD, volume.lower_path);
  if (!dir) {
    if (dir.error().sys_errno == ENOTDIR) {
      return Error{Code::kInvalid, ENOTDIR, path + " is not a directory; a volume is named by its lower directory"};
    }
    return std::move(dir).error();
  }
  volume.lower_dir = *std::move(dir);
  volume.profile = profile_of(volume.lower_dir.get());
  return volume;
}

Result<VolumeRef> find_profile(const std::string& name) {
  return find_named(name, [](const Identity& me, const std::string& wanted) -> Result<wrap::OpenProfile> {
    ECFS_LET(const Fd dir, wrap::open_profiles_dir(me));
    return wrap::open_profile(dir.get(), wanted);
  });
}

Result<VolumeRef> find_user_volume(const std::string& name) { return find_named(name, wrap::open_user_volume); }

std::string default_volume() {
  const std::string name(wrap::kDefaultVolumeName);
  const std::string home(wrap::kWholeHomeName);
  const auto me = caller();
  const auto names = me ? wrap::list_user_volumes(*me) : Result<std::vector<std::string>>(me.error());
  if (!names || std::find(names->begin(), names->end(), name) != names->end()) return name;
  return std::find(names->begin(), names->end(), home) != names->end() ? home : name;
}

Result<VolumeRef> find_volume(const std::string& arg) {
  if (arg.find('/') == std::string::npos && wrap::valid_profile_name(arg)) {
    auto profile = find_user_volume(arg);
    if (profile || profile.error().code != Code::kNotFound) return profile;
    struct stat st {};
    if (stat(arg.c_str(), &st) != 0) {
      Error error = std::move(profile).error();
      error.what += ", nor is there a directory of that name";
      return error;
    }
  }
  return find_lower(arg);
}

Result<wrap::VolumeStore> open_store(const VolumeRef& volume, bool tell) {
  if (volume.places().kind == wrap::VolumeKind::kEcryptfs) {
    return Error{Code::kInvalid, 0, volume.shown() + " is an eCryptfs tree, no native volume of ecfs"};
  }
  return open_slots(volume, tell);
}

Result<wrap::VolumeStore> open_slots(const VolumeRef& volume, bool tell) {
  if (volume.profile && volume.profile->of_ecryptfs_utils) {
    return Error{Code::kInvalid, 0,
                 volume.shown() +
                     " has no key slots, but the wrapped passphrase of ecryptfs-utils (`ecfs key add recovery " +
                     volume.shown() + "` makes slots)"};
  }
  auto store = wrap::VolumeStore::open(volume.places());
  if (!store) {
    if (store.error().code == Code::kNotFound) {
      return Error{Code::kNotFound, 0,
                   volume.lower_path + " is not an ecfs volume: it holds no " + wrap::kVolumeFileName +
                       (volume.lower_dir ? "" : ", and the directory is not there (a disk not connected?)")};
    }
    return with_context(std::move(store).error(), volume.shown());
  }
  if (tell) {
    for (const std::string& sentence : store->notes()) note(volume.shown() + ": " + sentence);
  }
  return store;
}

Result<Fd> lock(const VolumeRef& volume) {
  if (!volume.profile) return Fd();
  return wrap::lock_volume(*volume.profile, kLockWaitMs);
}

std::string time_text(std::int64_t seconds) {
  const auto when = static_cast<time_t>(seconds);
  tm parts{};
  std::array<char, 32> text{};
  if (seconds <= 0 || localtime_r(&when, &parts) == nullptr ||
      strftime(text.data(), text.size(), "%Y-%m-%d %H:%M", &parts) == 0) {
    return "?";
  }
  return text.data();
}

}  // namespace ecfs::setup
