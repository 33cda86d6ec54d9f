#include "wrap/profile.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <nlohmann/json.hpp>

#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/ecryptfs_private.h"
#include "wrap/user_dir.h"
#include "wrap/user_keyring.h"

namespace ecfs::wrap {
namespace {

using Json = nlohmann::ordered_json;
using DirStream = Owned<DIR, closedir>;

constexpr const char* kProfileFile = "profile.json";
constexpr const char* kLockFile = "lock";
constexpr const char* kStaleFile = "stale";
constexpr const char* kStaleKey = "ecfs:stale:";
constexpr const char* kOpenedFile = "opened";
constexpr int kVersion = 1;
constexpr std::uint64_t kMaxProfileBytes = 64 * 1024;
constexpr int kMaxDepth = 4;
constexpr std::size_t kMaxNameBytes = 64;
constexpr std::size_t kMaxPathBytes = 4095;
constexpr std::size_t kMaxFormatBytes = 32;
constexpr std::size_t kMaxOptions = 32;
constexpr std::size_t kMaxOptionBytes = 256;
constexpr std::size_t kMaxProfiles = 64;
constexpr int kMaxEntriesRead = 4096;
constexpr int kLockPollMs = 20;

// Why a text cannot stand in a profile; empty if it can.
std::string fault_of_text(std::string_view text, std::size_t most) {
  if (text.size() > most) return "is too long";
  if (printable(text) != text) return "has control characters or is not UTF-8";
  return {};
}

// What is wrong with a profile, whether read or about to be written; empty: nothing.
std::string fault_of(const Profile& p) {
  if (!valid_profile_name(p.name)) return "the name of the volume is not one of 1 to 64 letters, digits, . _ -";
  if (auto f = fault_of_path(p.lower); !f.empty()) return "the lower directory " + printable(p.lower) + " " + f;
  if (auto f = fault_of_path(p.mountpoint); !f.empty()) return "the mountpoint " + printable(p.mountpoint) + " " + f;
  const bool format_fits = !p.format.empty() && p.format.size() <= kMaxFormatBytes &&
                           std::all_of(p.format.begin(), p.format.end(), [](char c) {
                             return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
                           });
  if (!format_fits) return "the format has an impossible name";
  if (all_zero(p.volume_id)) return "the volume id is zero";
  if (p.options.size() > kMaxOptions) return "there are too many mount options";
  for (const std::string& option : p.options) {
    if (auto f = fault_of_text(option, kMaxOptionBytes); !f.empty()) return "a mount option " + f;
  }
  return {};
}

// Nothing below throws: types are looked at before values.
template <class T>
const T* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : found->get_ptr<const T*>();
}

Error malformed(const std::string& why) { return {Code::kCorrupt, 0, std::string(kProfileFile) + ": " + why}; }

bool read_text(const Json& object, const char* name, std::string& out) {
  const auto* text = member<Json::string_t>(object, name);
  if (text != nullptr) out = *text;
  return text != nullptr;
}

bool read_flag(const Json& object, const char* name, bool& out) {
  const auto* flag = member<Json::boolean_t>(object, name);
  if (flag != nullptr) out = *flag;
  return flag != nullptr;
}

bool read_options(const Json& object, std::vector<std::string>& out) {
  const auto* list = member<Json::array_t>(object, "options");
  if (list == nullptr || list->size() > kMaxOptions) return false;
  for (const Json& item : *list) {
    const auto* text = item.get_ptr<const Json::string_t*>();
    if (text == nullptr) return false;
    out.push_back(*text);
  }
  return true;
}

Result<struct stat> stat_of(int fd) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return system_error(errno, "stat");
  return st;
}

Result<Fd> take_lock(Fd fd, int timeout_ms) {
  for (int waited = 0;;) {
    if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return system_error(errno, "lock the volume");
    if (waited >= timeout_ms) return Error{Code::kBusy, EWOULDBLOCK, "another program is working with this volume"};
    const timespec pause{0, kLockPollMs * 1000000L};
    nanosleep(&pause, nullptr);
    waited += kLockPollMs;
  }
}

}  // namespace

namespace {

bool is_link(int dir, const char* name) {
  struct stat st {};
  return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

// Without it a locked home would know no ssh keys.
bool holds_linked_keys_only(int mountpoint_dir, const std::string& name) {
  const auto dir = open_directory(mountpoint_dir, name);
  const auto names = dir ? list_directory(dir->get(), 2) : Result<std::vector<std::string>>(dir.error());
  if (!names) return false;
  return names->empty() ||
         (names->size() == 1 && names->front() == "authorized_keys" && is_link(dir->get(), "authorized_keys"));
}

}  // namespace

bool is_placeholder(int mountpoint_dir, const std::string& name) {
  if (name == kPlaceholderName || name == "Access-Your-Private-Data.desktop") return true;
  if (name == ".ssh") return holds_linked_keys_only(mountpoint_dir, name);
  return (name == ".ecryptfs" || name == ".Private") && is_link(mountpoint_dir, name.c_str());
}

bool valid_profile_name(std::string_view name) noexcept {
  if (name.empty() || name.size() > kMaxNameBytes || name.front() == '.' || name.front() == '-') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

std::string fault_of_path(std::string_view path) {
  if (path.empty() || path.front() != '/') return "is not an absolute path";
  for (std::string_view rest = path; !rest.empty();) {
    rest.remove_prefix(1);
    const std::string_view component = rest.substr(0, rest.find('/'));
    if (component == "..") return "contains \"..\"";
    rest.remove_prefix(component.size());
  }
  return fault_of_text(path, kMaxPathBytes);
}

Result<Profile> parse_profile(std::string_view name, ByteView json) {
  if (json.size() > kMaxProfileBytes) return malformed("larger than it can be");
  const auto shallow = [](int depth, Json::parse_event_t, const Json&) { return depth <= kMaxDepth; };
  const Json root = Json::parse(json.begin(), json.end(), shallow, false);
  if (!root.is_object()) return malformed("not a JSON object");
  const auto* version = member<Json::number_unsigned_t>(root, "version");
  if (version == nullptr) return malformed("no \"version\"");
  if (*version != kVersion) {
    return Error{Code::kUnsupported, 0, std::string(kProfileFile) + " was written by a later version of ecfs"};
  }
  Profile p;
  p.name = name;
  std::string id;
  if (!read_text(root, "lower", p.lower)) return malformed("no path \"lower\"");
  if (!read_text(root, "mountpoint", p.mountpoint)) return malformed("no path \"mountpoint\"");
  if (!read_text(root, "format", p.format)) return malformed("no text \"format\"");
  if (!read_text(root, "volume_id", id)) return malformed("no text \"volume_id\"");
  if (!read_flag(root, "auto_mount", p.auto_mount)) return malformed("\"auto_mount\" is neither true nor false");
  if (!read_flag(root, "auto_unmount", p.auto_unmount)) return malformed("\"auto_unmount\" is neither true nor false");
  if (!read_flag(root, "slots_in_volume", p.slots_in_volume)) {
    return malformed("\"slots_in_volume\" is neither true nor false");
  }
  if (!read_options(root, p.options)) return malformed("\"options\" is not a list of at most 32 texts");
  auto bytes = from_hex(id);
  if (!bytes || bytes->size() != p.volume_id.size()) return malformed("\"volume_id\" is not 32 hexadecimal digits");
  std::copy(bytes->begin(), bytes->end(), p.volume_id.begin());
  if (const std::string fault = fault_of(p); !fault.empty()) return malformed(fault);
  return p;
}

Result<std::string> build_profile(const Profile& profile) {
  if (const std::string fault = fault_of(profile); !fault.empty()) return Error{Code::kInvalid, 0, fault};
  Json root = Json::object();
  root["version"] = kVersion;
  root["lower"] = profile.lower;
  root["mountpoint"] = profile.mountpoint;
  root["format"] = profile.format;
  root["volume_id"] = to_hex(profile.volume_id);
  root["auto_mount"] = profile.auto_mount;
  root["auto_unmount"] = profile.auto_unmount;
  root["slots_in_volume"] = profile.slots_in_volume;
  root["options"] = profile.options;
  return root.dump(2) + "\n";
}

Result<Fd> open_profiles_dir(const Identity& who) {
  ECFS_LET(UserDir found, open_user_dir(who, ".ecfs"));
  return std::move(found.dir);
}

Result<Fd> make_profiles_dir(const Identity& who) {
  auto present = open_profiles_dir(who);
  if (present || present.error().code != Code::kNotFound) return present;
  ECFS_LET(const Fd home, open_trusted_dir(who.home));
  ECFS_LET(Fd made, make_directory(home.get(), ".ecfs", 0700));
  ECFS_TRY(check_private_dir(made.get(), who.uid, who.home + "/.ecfs"));
  ECFS_TRY(sync_directory(home.get()));
  return made;
}

Result<std::vector<std::string>> list_profiles(int profiles_dir) {
  ECFS_LET(Fd again, open_directory(profiles_dir, "."));  // a position of our own in the directory
  const DirStream stream(fdopendir(again.get()));
  if (!stream) return system_error(errno, "list the volumes");
  (void)again.release();  // the stream closes it
  std::vector<std::string> names;
  for (int i = 0; i < kMaxEntriesRead; ++i) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) {
      if (errno != 0) return system_error(errno, "list the volumes");
      break;
    }
    const std::string name(entry->d_name);
    if (!valid_profile_name(name)) continue;
    const auto dir = open_directory(profiles_dir, name);
    struct stat st {};
    if (dir && fstatat(dir->get(), kProfileFile, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  if (names.size() > kMaxProfiles) names.resize(kMaxProfiles);
  return names;
}

Result<OpenProfile> open_profile(int profiles_dir, std::string_view name) {
  if (!valid_profile_name(name)) {
    return Error{Code::kInvalid, 0, "\"" + printable(name) + "\" cannot be the name of a volume"};
  }
  ECFS_LET(const struct stat st, stat_of(profiles_dir));
  const std::string dir_name(name);
  OpenProfile open;
  ECFS_LET(open.dir, open_private_dir(profiles_dir, dir_name, st.st_uid, ".ecfs/" + dir_name));
  auto bytes = read_file(open.dir.get(), kProfileFile, kMaxProfileBytes, st.st_uid);
  if (!bytes) return with_context(std::move(bytes).error(), "volume " + dir_name);
  auto profile = parse_profile(name, *bytes);
  if (!profile) return with_context(std::move(profile).error(), "volume " + dir_name);
  open.profile = *std::move(profile);
  return open;
}

Status save_profile(int profile_dir, const Profile& profile) {
  ECFS_LET(const std::string json, build_profile(profile));
  return replace_file(profile_dir, kProfileFile, as_bytes(json), 0600);
}

Result<Fd> lock_volume(int profile_dir, int timeout_ms) {
  Fd fd(openat(profile_dir, kLockFile, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600));
  if (!fd) return system_error(errno, "open the lock of the volume");
  ECFS_LET(const struct stat st, stat_of(fd.get()));
  ECFS_LET(const struct stat parent, stat_of(profile_dir));
  if (!S_ISREG(st.st_mode)) return Error{Code::kInvalid, 0, "the lock of the volume is not a regular file"};
  if (st.st_uid != parent.st_uid && st.st_uid != 0 && st.st_uid != geteuid()) {
    return Error{Code::kDenied, 0, "the lock of the volume belongs to another user"};
  }
  return take_lock(std::move(fd), timeout_ms);
}

Result<Fd> lock_volume(const OpenProfile& volume, int timeout_ms) {
  if (!volume.of_ecryptfs_utils) return lock_volume(volume.dir.get(), timeout_ms);
  ECFS_LET(Fd dir, open_directory(volume.dir.get(), "."));
  return take_lock(std::move(dir), timeout_ms);
}

namespace {

constexpr std::size_t kMaxPrintBytes = 128;

// Tells one wrapped-passphrase from the next: the mark is of the one that was tried.
std::string print_of_wrapped_passphrase(const OpenProfile& volume) {
  struct stat st {};
  if (fstatat(volume.dir.get(), kWrappedPassphraseName, &st, AT_SYMLINK_NOFOLLOW) != 0) return "none";
  return std::to_string(st.st_dev) + " " + std::to_string(st.st_ino) + " " + std::to_string(st.st_mtim.tv_sec) + "." +
         std::to_string(st.st_mtim.tv_nsec);
}

}  // namespace

Status set_stale_mark(const OpenProfile& volume, bool stale) {
  if (volume.of_ecryptfs_utils) {
    UserKeyring keyring;
    const std::string name = kStaleKey + volume.profile.name;
    const std::string text = print_of_wrapped_passphrase(volume);
    if (!stale) {
      const auto key = keyring.find(name);
      return key ? keyring.invalidate(*key) : Status{};
    }
    if (auto added = keyring.add(name, as_bytes(text)); !added) return std::move(added).error();
    return {};
  }
  const int profile_dir = volume.dir.get();
  const std::string text = std::to_string(time(nullptr)) + "\n";
  if (stale) return replace_file(profile_dir, kStaleFile, as_bytes(text), 0600);
  if (unlinkat(profile_dir, kStaleFile, 0) != 0 && errno != ENOENT) {
    return system_error(errno, "remove the mark of a changed password");
  }
  return {};
}

bool has_stale_mark(const OpenProfile& volume) {
  if (volume.of_ecryptfs_utils) {
    const UserKeyring keyring;
    const auto key = keyring.find(kStaleKey + volume.profile.name);
    const auto text = key ? keyring.read(*key, kMaxPrintBytes) : Result<Secret>(key.error());
    return text && as_text(text->reveal()) == print_of_wrapped_passphrase(volume);
  }
  struct stat st {};
  return fstatat(volume.dir.get(), kStaleFile, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

Status mark_opened(int profile_dir) {
  if (was_opened(profile_dir)) return {};
  const std::string text = std::to_string(time(nullptr)) + "\n";
  return replace_file(profile_dir, kOpenedFile, as_bytes(text), 0600);
}

bool was_opened(int profile_dir) {
  struct stat st {};
  return fstatat(profile_dir, kOpenedFile, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

}  // namespace ecfs::wrap
