#include "wrap/ecryptfs_private.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/wrapped_passphrase.h"

namespace ecfs::wrap {
namespace {

constexpr const char* kDirName = ".ecryptfs";
constexpr const char* kLowerName = ".Private";
constexpr const char* kSignatures = "Private.sig";
constexpr const char* kMountpoint = "Private.mnt";
constexpr const char* kAutoMount = "auto-mount";
constexpr const char* kAutoUnmount = "auto-umount";
constexpr const char* kIndependent = "wrapping-independent";
constexpr std::uint64_t kMaxSigBytes = 256;
constexpr std::uint64_t kMaxMntBytes = 4096;
// mount.ecryptfs_private(1) mounts in this way and in no other.
constexpr const char* kCipher = "aes";
constexpr std::uint8_t kKeyBytes = 16;

bool exists(int dir, const char* name) {
  struct stat st {};
  return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

// EBADMSG: callers tell damage to these files from damage to a volume of ecfs.
Error corrupt(std::string what) { return Error{Code::kCorrupt, EBADMSG, std::move(what)}; }

// ~/.Private may be a link to where the files really are; it is followed as the user, and stays where it leads now.
std::string resolved(const std::string& path) {
  const Owned<char, std::free> real(realpath(path.c_str(), nullptr));
  return real ? std::string(real.get()) : path;
}

bool same_directory(const std::string& a, const std::string& b) {
  if (a == b) return true;
  struct stat sa {};
  struct stat sb {};
  return stat(a.c_str(), &sa) == 0 && stat(b.c_str(), &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

// Has a profile taken its place? A profile of its name that cannot be read counts, too.
Result<bool> replaced(const Identity& who, const Profile& profile) {
  const auto profiles = open_profiles_dir(who);
  if (!profiles && profiles.error().code == Code::kNotFound) return false;
  if (!profiles) return profiles.error();
  ECFS_LET(const std::vector<std::string> names, list_profiles(profiles->get()));
  for (const std::string& name : names) {
    if (name == profile.name) return true;
    const auto other = open_profile(profiles->get(), name);
    if (!other) continue;
    // The mountpoint by its text alone: looking at a mount can hang.
    if (other->profile.mountpoint == profile.mountpoint || same_directory(other->profile.lower, profile.lower)) {
      return true;
    }
  }
  return false;
}

Result<EcryptfsOptions> options_of(const Profile& profile) {
  ECFS_LET(const MountOptions options, parse_mount_options(profile.options));
  if (!options.ecryptfs || options.ecryptfs->signatures.empty()) {
    return corrupt("the mount options of " + profile.name + " name no eCryptfs key (ecryptfs_sig=)");
  }
  return *options.ecryptfs;
}

}  // namespace

Result<PrivateSignatures> parse_private_sig(ByteView text) {
  if (text.size() > kMaxSigBytes) return corrupt(std::string(kSignatures) + " is larger than it can be");
  std::vector<EcryptfsSignature> found;
  for (std::string_view rest = as_text(text); !rest.empty();) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty()) continue;
    const auto signature = parse_ecryptfs_signature(line);
    if (!signature || found.size() == 2) {
      return corrupt(std::string(kSignatures) + " does not hold one or two lines of 16 hexadecimal digits");
    }
    found.push_back(*signature);
  }
  if (found.empty()) return corrupt(std::string(kSignatures) + " is empty");
  PrivateSignatures signatures;
  signatures.contents = found[0];
  if (found.size() == 2) signatures.names = found[1];
  return signatures;
}

Result<std::string> parse_private_mnt(ByteView text) {
  std::string_view line = as_text(text);
  if (!line.empty() && line.back() == '\n') line.remove_suffix(1);
  while (line.size() > 1 && line.back() == '/') line.remove_suffix(1);
  if (const std::string fault = fault_of_path(line); !fault.empty()) {
    return corrupt("the mountpoint in " + std::string(kMountpoint) + " " + fault);
  }
  return std::string(line);
}

// ecryptfs-utils has the place of encrypted homes written into it, wherever homes are.
Result<UserDir> open_ecryptfs_dir(const Identity& who) {
  auto found = open_user_dir(who, kDirName);
  if (found && found->beside_home) return found;
  auto usual = open_beside_home(who, "/home/", kDirName);
  if (usual || usual.error().code != Code::kNotFound) return usual;
  return found;
}

Result<OpenProfile> open_ecryptfs_private(const Identity& who) {
  ECFS_LET(UserDir found, open_ecryptfs_dir(who));
  const int dir = found.dir.get();
  if (!exists(dir, kSignatures) && !exists(dir, kMountpoint) && !exists(dir, kAutoMount)) {
    return Error{Code::kNotFound, ENOENT, found.path + " is not of an encrypted directory"};
  }
  OpenProfile open;
  open.of_ecryptfs_utils = true;
  Profile& profile = open.profile;
  profile.name = kDefaultVolumeName;
  profile.format = kEcryptfsFormat;
  profile.auto_mount = exists(dir, kAutoMount);
  profile.auto_unmount = exists(dir, kAutoUnmount);
  profile.mountpoint = who.home + "/Private";
  const std::string around = found.path.substr(0, found.path.rfind('/') + 1);
  profile.lower = resolved(around + kLowerName);
  auto mnt = read_file(dir, kMountpoint, kMaxMntBytes, who.uid);
  if (mnt) {
    auto path = parse_private_mnt(*mnt);
    if (!path) return with_context(std::move(path).error(), found.path);
    profile.mountpoint = *std::move(path);
  } else if (mnt.error().code != Code::kNotFound) {
    return with_context(std::move(mnt).error(), found.path);
  }
  ECFS_LET(const bool gone, replaced(who, profile));
  if (gone) return Error{Code::kNotFound, ENOENT, "a volume of ecfs has taken the place of " + found.path};
  const auto sig = read_file(dir, kSignatures, kMaxSigBytes, who.uid);
  if (!sig && sig.error().code == Code::kNotFound) {
    return corrupt(found.path + "/" + kSignatures + " is missing, which says with which keys the files are encrypted");
  }
  const auto signatures = sig ? parse_private_sig(*sig) : Result<PrivateSignatures>(sig.error());
  if (!signatures) return with_context(signatures.error(), found.path);
  EcryptfsOptions options;
  options.signatures = {signatures->contents};
  options.name_signature = signatures->names;
  options.cipher = kCipher;
  options.key_bytes = kKeyBytes;
  profile.options = {build_ecryptfs_options(options)};
  open.dir = std::move(found.dir);
  return open;
}

Result<OpenProfile> open_user_volume(const Identity& who, const std::string& name) {
  auto profiles = open_profiles_dir(who);
  auto open = profiles ? open_profile(profiles->get(), name) : Result<OpenProfile>(std::move(profiles).error());
  if (open || open.error().code != Code::kNotFound || name != kDefaultVolumeName) return open;
  auto made = open_ecryptfs_private(who);
  if (!made && made.error().code == Code::kNotFound) return open;
  return made;
}

Result<std::vector<std::string>> list_user_volumes(const Identity& who) {
  std::vector<std::string> names;
  const auto profiles = open_profiles_dir(who);
  if (profiles) {
    ECFS_LET(names, list_profiles(profiles->get()));
  } else if (profiles.error().code != Code::kNotFound) {
    return profiles.error();
  }
  const std::string name(kDefaultVolumeName);
  if (std::find(names.begin(), names.end(), name) != names.end()) return names;
  const auto made = open_ecryptfs_private(who);
  if (made || made.error().code != Code::kNotFound) names.push_back(name);
  return names;
}

bool is_wrapping_independent(const OpenProfile& volume) {
  return volume.of_ecryptfs_utils && exists(volume.dir.get(), kIndependent);
}

Result<EcryptfsSalt> salt_of_user(const Identity& who) {
  const auto home = open_trusted_dir(who.home);
  if (!home) return kEcryptfsContentSalt;
  return read_ecryptfs_rc_salt(home->get(), who.uid);
}

Result<std::vector<EcryptfsSignature>> private_signatures(const Profile& profile) {
  ECFS_LET(const EcryptfsOptions options, options_of(profile));
  std::vector<EcryptfsSignature> all = options.signatures;
  const auto& names = options.name_signature;
  if (names && std::find(all.begin(), all.end(), *names) == all.end()) all.push_back(*names);
  return all;
}

Result<std::vector<EcryptfsKey>> private_keys(const Profile& profile, const Secret& passphrase,
                                              const EcryptfsSalt& salt) {
  ECFS_LET(const std::vector<EcryptfsSignature> wanted, private_signatures(profile));
  std::vector<EcryptfsKey> keys;
  std::vector<EcryptfsSalt> tried;
  std::string other;
  for (const EcryptfsSalt& one : {salt, kEcryptfsNameSalt, kEcryptfsContentSalt}) {
    if (keys.size() == wanted.size() || std::find(tried.begin(), tried.end(), one) != tried.end()) continue;
    tried.push_back(one);
    ECFS_LET(EcryptfsKey key, EcryptfsKey::derive(passphrase, one));
    if (other.empty()) other = to_hex(key.signature);
    if (std::find(wanted.begin(), wanted.end(), key.signature) != wanted.end()) keys.push_back(std::move(key));
  }
  for (const EcryptfsSignature& signature : wanted) {
    const auto has = [&](const EcryptfsKey& key) { return key.signature == signature; };
    if (std::any_of(keys.begin(), keys.end(), has)) continue;
    return Error{Code::kWrongKey, EKEYREJECTED,
                 "this mount passphrase is not that of " + profile.name + ": its key is " + other +
                     ", and the files have " + to_hex(signature)};
  }
  return keys;
}

Result<std::vector<EcryptfsKey>> private_keys_in_keyring(const Profile& profile) {
  ECFS_LET(const std::vector<EcryptfsSignature> wanted, private_signatures(profile));
  std::vector<EcryptfsKey> keys;
  for (const EcryptfsSignature& signature : wanted) {
    ECFS_LET(EcryptfsKey key, find_ecryptfs_token(signature));
    keys.push_back(std::move(key));
  }
  return keys;
}

Result<Secret> unwrap_private(const OpenProfile& volume, const Secret& wrapping, const EcryptfsSalt& salt) {
  // What cannot be a wrapping passphrase opens nothing.
  const ByteView text = wrapping.reveal();
  if (text.empty() || text.size() > kEcryptfsMaxPassphraseBytes) {
    return Error{Code::kWrongKey, 0, "the passphrase does not fit"};
  }
  auto passphrase = read_wrapped_passphrase(volume.dir.get(), kWrappedPassphraseName, wrapping, salt);
  if (!passphrase) {
    if (passphrase.error().code == Code::kCorrupt) return corrupt(passphrase.error().what);
    if (passphrase.error().code != Code::kNotFound) return passphrase;
    return Error{Code::kNotFound, ENOENT,
                 "there is no wrapped-passphrase: only the mount passphrase itself opens it (`ecfs mount-private "
                 "--mount-passphrase`)"};
  }
  auto keys = private_keys(volume.profile, *passphrase, salt);
  if (!keys) {
    if (keys.error().code != Code::kWrongKey) return std::move(keys).error();
    return corrupt("wrapped-passphrase is damaged, or another directory's: " + keys.error().what);
  }
  return passphrase;
}

Result<std::optional<MountEntry>> kernel_mount_of(const Profile& profile) {
  ECFS_LET(std::vector<MountEntry> entries, mounts());
  std::optional<MountEntry> found;
  for (MountEntry& entry : entries) {
    if (entry.fstype != "ecryptfs") continue;
    if (entry.source == profile.lower || entry.mountpoint == profile.mountpoint) found = std::move(entry);
  }
  return found;
}

}  // namespace ecfs::wrap
