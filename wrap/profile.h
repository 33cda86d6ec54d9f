// Which directories belong to a user: ~/.ecfs/NAME/profile.json and the directory around it.
//
// Everything here is called as the user (ecfs-login forks a child for it) and reads hostile input: bounded, regular
// files only, no symbolic links, owned by the user or root. Not synchronised; changes hold lock_volume.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "wrap/base/fd.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/volume_header.h"

namespace ecfs::wrap {

constexpr std::string_view kDefaultVolumeName = "Private";
constexpr std::string_view kWholeHomeName = "Home";  // whose mountpoint is the home itself

// Profile::format of a native volume, and of an eCryptfs tree: then `options` has its keys' signatures and its cipher.
constexpr std::string_view kNativeFormat = "native";
constexpr std::string_view kEcryptfsFormat = "ecryptfs";

// The note that an unmounted mountpoint holds.
constexpr std::string_view kPlaceholderName = "README.txt";
// is_placeholder says of an entry of an unmounted mountpoint whether a mount may cover it: that note; what
// ecryptfs-utils leaves there; the links .ecryptfs and .Private of a home that it encrypted; and, in a home, .ssh with
// nothing but the link authorized_keys. At most kMostPlaceholders.
constexpr std::size_t kMostPlaceholders = 5;
bool is_placeholder(int mountpoint_dir, const std::string& name);

struct Profile {
  std::string name;        // of the directory ~/.ecfs/NAME
  std::string lower;       // absolute path
  std::string mountpoint;  // absolute path
  std::string format{kNativeFormat};
  VolumeId volume_id{};  // pinned: another volume found at `lower` is not opened
  bool auto_mount = true;
  bool auto_unmount = true;
  bool slots_in_volume = false;
  std::vector<std::string> options;  // of the mount, as for `ecfs mount -o`
};

// valid_profile_name: 1..64 characters of A-Z a-z 0-9 . _ - and not beginning with '.' or '-'.
bool valid_profile_name(std::string_view name) noexcept;

// fault_of_path says why a text is no path for a profile ("is not an absolute path"); "" if it is one: absolute,
// without "..", at most 4095 bytes, UTF-8 without control characters.
std::string fault_of_path(std::string_view path);

// parse_profile and build_profile convert the JSON text. Unknown members are ignored when read (and lost when written);
// a missing or malformed one is kCorrupt.
Result<Profile> parse_profile(std::string_view name, ByteView json);
// A path or option that is not UTF-8, or has control characters, is kInvalid when built: JSON cannot carry it.
Result<std::string> build_profile(const Profile& profile);

// open_profiles_dir opens ~/.ecfs of `who` (or /home/.ecfs/USER/.ecfs where that exists: a whole home): kNotFound if
// there is none.
Result<Fd> open_profiles_dir(const Identity& who);
// make_profiles_dir makes ~/.ecfs (0700) if need be.
Result<Fd> make_profiles_dir(const Identity& who);

// list_profiles gives the names below, sorted; foreign entries are skipped. At most 64.
Result<std::vector<std::string>> list_profiles(int profiles_dir);

// OpenProfile is one profile with its directory.
struct OpenProfile {
  Profile profile;
  Fd dir;  // ~/.ecfs/NAME
  // A Private as ecryptfs-utils made it (ecryptfs_private.h): no profile.json, no volume id, no slots; `dir` is
  // ~/.ecryptfs.
  bool of_ecryptfs_utils = false;
};
Result<OpenProfile> open_profile(int profiles_dir, std::string_view name);
Status save_profile(int profile_dir, const Profile& profile);

// lock_volume takes the exclusive lock ~/.ecfs/NAME/lock that everybody holds who mounts the volume or changes its
// keys; waits `timeout_ms` at most (kBusy). The lock lives as long as the Fd.
Result<Fd> lock_volume(int profile_dir, int timeout_ms);
// The same of either kind of volume. In ~/.ecryptfs nothing is made for it: the directory itself is locked.
Result<Fd> lock_volume(const OpenProfile& volume, int timeout_ms);

// The stale mark: the login password was changed without us, so the password slot of the login, or the wrapped
// passphrase, no longer opens with it. A hint only. It is the file `stale`; nothing is written into ~/.ecryptfs, so of
// a Private of ecryptfs-utils it is a key in the user keyring, and the next login finds it out again if that is gone.
Status set_stale_mark(const OpenProfile& volume, bool stale);
bool has_stale_mark(const OpenProfile& volume);

// mark_opened leaves the file `opened` beside the keys of a whole home once somebody has opened it: until then its
// unencrypted original is not removed. was_opened looks for it.
Status mark_opened(int profile_dir);
bool was_opened(int profile_dir);

}  // namespace ecfs::wrap
