#include "setup/ecryptfs_private.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "setup/ui.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/control.h"
#include "wrap/ecryptfs_private.h"
#include "wrap/user_dir.h"
#include "wrap/wrapped_passphrase.h"

namespace ecfs::setup {
namespace {

constexpr int kTries = 3;

Error wrong(const std::string& shown, const char* what) {
  return {Code::kWrongKey, EKEYREJECTED, shown + ": wrong " + what};
}

Result<wrap::EcryptfsSalt> salt_of_caller() {
  ECFS_LET(const Identity me, caller());
  return wrap::salt_of_user(me);
}

// With the passphrase that was typed; kWrongKey.
Result<OpenedPrivate> try_typed(const VolumeRef& volume, const UnlockOptions& options, const wrap::EcryptfsSalt& salt,
                                Secret typed) {
  const wrap::OpenProfile& open = *volume.profile;
  OpenedPrivate opened;
  if (options.mount_passphrase) {
    auto keys = wrap::private_keys(open.profile, typed, salt);
    if (!keys && keys.error().code == Code::kInvalid) return wrong(volume.shown(), "mount passphrase");
    if (!keys) return std::move(keys).error();
    opened.mount_passphrase = std::move(typed);
    return opened;
  }
  auto passphrase = wrap::unwrap_private(open, typed, salt);
  if (!passphrase && passphrase.error().code == Code::kWrongKey) return wrong(volume.shown(), "passphrase");
  if (!passphrase) return with_context(std::move(passphrase).error(), volume.shown());
  opened.mount_passphrase = *std::move(passphrase);
  opened.wrapping = std::move(typed);
  return opened;
}

Result<OpenedPrivate> by_slots(const VolumeRef& volume, const UnlockOptions& options, Token token) {
  ECFS_LET(wrap::VolumeStore store, open_slots(volume));
  ECFS_LET(const wrap::Unlocked unlocked, unlock(store, options, volume.shown(), token));
  if (auto repaired = store.repair(unlocked.key); !repaired) {
    warn(volume.shown() + ": the damaged copy of the header stays as it is: " + repaired.error().what);
  }
  OpenedPrivate opened;
  ECFS_LET(opened.mount_passphrase, wrap::unpad_mount_passphrase(unlocked.key));
  return opened;
}

// The keys of the mount: those in the keyring, unless a passphrase was given.
Result<std::vector<wrap::EcryptfsKey>> keys_for(const VolumeRef& volume, const UnlockOptions& options,
                                                bool ask_always) {
  const wrap::Profile& profile = volume.profile->profile;
  if (!ask_always && !options.source.given() && !options.recovery && !options.mount_passphrase &&
      options.slot.empty()) {
    if (auto keys = wrap::private_keys_in_keyring(profile); keys) return keys;
  }
  ECFS_LET(const wrap::EcryptfsSalt salt, salt_of_caller());
  ECFS_LET(const OpenedPrivate opened, unlock_private(volume, options, ask_always ? Token::kIgnore : Token::kTry));
  return wrap::private_keys(profile, opened.mount_passphrase, salt);
}

// Where the profile of a whole home goes: beside it, where root has to have made the place.
Result<Fd> profiles_dir_for(const VolumeRef& volume, const Identity& me) {
  if (volume.profile->profile.mountpoint != me.home) return wrap::make_profiles_dir(me);
  const std::string parent = me.home.substr(0, me.home.rfind('/') + 1) + ".ecfs";
  auto found = wrap::open_user_dir(me, ".ecfs");
  if (found && found->beside_home) return std::move(found->dir);
  if (!found && found.error().code != Code::kNotFound) return std::move(found).error();
  return Error{Code::kUnavailable, ENOENT,
               "the keys of an encrypted home must be where they can be read while it is locked. Once, as root:   "
               "install -d -m 755 " +
                   parent + " && install -d -m 700 -o " + me.name + " " + parent + "/" + me.name + " " + parent + "/" +
                   me.name + "/.ecfs"};
}

// What an interrupted attempt left: a header of slots without a profile. Anything else is not touched.
Status clear_unfinished(int dir, const wrap::VolumeStore::Places& places) {
  const auto there = wrap::VolumeStore::open(places);
  if (!there && there.error().code == Code::kNotFound) return {};
  if (!there) return with_context(there.error(), "what is in the place of the new keys");
  const std::string name = wrap::kProfileVolumeName;
  for (const std::string& file : {name, name + ".bak"}) {
    if (unlinkat(dir, file.c_str(), 0) != 0 && errno != ENOENT) return system_error(errno, "remove " + file);
  }
  return sync_directory(dir);
}

}  // namespace

bool is_ecryptfs_volume(const VolumeRef& volume) {
  return volume.profile && volume.profile->profile.format == wrap::kEcryptfsFormat;
}

bool has_slots(const VolumeRef& volume) { return !volume.profile || !volume.profile->of_ecryptfs_utils; }

Result<OpenedPrivate> unlock_private(const VolumeRef& volume, const UnlockOptions& options, Token token) {
  if (has_slots(volume)) return by_slots(volume, options, token);
  const std::string shown = volume.shown();
  if (options.slot.starts_with("tpm2")) {
    return Error{Code::kInvalid, 0, shown + " has no key slots yet (`ecfs key add tpm2 " + shown + "` makes some)"};
  }
  if (options.recovery || options.slot == "recovery") {
    return Error{Code::kInvalid, 0,
                 shown + " has no recovery key yet (`ecfs key add recovery " + shown +
                     "` makes one); its mount passphrase is given with --mount-passphrase"};
  }
  ECFS_LET(const wrap::EcryptfsSalt salt, salt_of_caller());
  const char* const what = options.mount_passphrase                         ? "Mount"
                           : wrap::is_wrapping_independent(*volume.profile) ? "Wrapping"
                                                                            : "Login";
  const std::string prompt = std::string(what) + " passphrase of " + printable(shown) + ": ";
  for (int i = 1;; ++i) {
    auto typed = read_secret(options.source, prompt);
    const bool empty = !typed && typed.error().code == Code::kInvalid && !options.source.given() && interactive();
    if (!typed && !empty) return std::move(typed).error();
    auto opened =
        typed ? try_typed(volume, options, salt, *std::move(typed)) : Result<OpenedPrivate>(wrong(shown, "passphrase"));
    if (opened || opened.error().code != Code::kWrongKey || options.source.given() || i == kTries) return opened;
    note(opened.error().what);
  }
}

Result<Child> mount_ecryptfs_private(const MountJob& job, const UnlockOptions& options) {
  const VolumeRef& volume = *job.volume;
  const wrap::Profile& profile = volume.profile->profile;
  if (!volume.lower_dir) {
    return Error{Code::kNotFound, ENOENT,
                 volume.lower_path + ", where the encrypted files of " + volume.shown() +
                     " are, is not there (a disk not connected?)"};
  }
  ECFS_TRY(check_fuse());
  const auto check = [&]() -> Result<Mountpoint> {
    ECFS_TRY(check_no_kernel_mount(volume));
    ECFS_TRY(check_not_mounted(volume.lower_path));
    return check_mountpoint(profile.mountpoint, volume.lower_path);
  };
  ECFS_TRY(check());
  ECFS_LET(const std::vector<wrap::EcryptfsKey> keys, keys_for(volume, options, false));
  ECFS_LET(const Fd held, lock(volume));
  ECFS_LET(const Mountpoint at, check());
  wrap::MountRequest request;
  request.options = job.options;
  if (request.options.ecryptfs && request.options.ecryptfs->encrypted_view) request.options.read_only = true;
  ECFS_LET(request.key, wrap::pack_ecryptfs_keys(keys));
  return start_server(job, std::move(request), at);
}

Result<bool> resume_ecryptfs_private(const VolumeRef& volume, const UnlockOptions& options) {
  if (!volume.lower_dir) return false;
  ECFS_LET(const wrap::VolumeId id, wrap::ecryptfs_mount_id(volume.lower_dir.get()));
  const auto state = wrap::mount_state(id, geteuid());
  if (!state || !state->suspended) return false;
  ECFS_LET(const std::vector<wrap::EcryptfsKey> keys, keys_for(volume, options, true));
  ECFS_LET(const Secret packed, wrap::pack_ecryptfs_keys(keys));
  ECFS_TRY(wrap::resume_mounts(id, geteuid(), packed));
  return true;
}

Status check_no_kernel_mount(const VolumeRef& volume) {
  ECFS_LET(const auto mounted, wrap::kernel_mount_of(volume.profile->profile));
  if (!mounted) return {};
  return Error{Code::kBusy, EBUSY,
               volume.shown() + " is open at " + printable(mounted->mountpoint) +
                   " by the kernel's eCryptfs (umount.ecryptfs_private locks it)"};
}

Status rewrap_private(const VolumeRef& volume, const Secret& old_wrapping, const Secret& new_wrapping) {
  ECFS_LET(const wrap::EcryptfsSalt salt, salt_of_caller());
  ECFS_LET(const Fd held, lock(volume));
  ECFS_TRY(wrap::unwrap_private(*volume.profile, old_wrapping, salt));
  const int dir = volume.profile->dir.get();
  ECFS_TRY(wrap::rewrap_passphrase(dir, wrap::kWrappedPassphraseName, old_wrapping, new_wrapping, salt));
  return wrap::set_stale_mark(*volume.profile, false);
}

Result<NewVolume> begin_slots(const Secret& mount_passphrase) {
  NewVolume slots;
  slots.header.kind = wrap::VolumeKind::kEcryptfs;
  ECFS_TRY(fill_random(slots.header.id));
  ECFS_LET(slots.key, wrap::pad_mount_passphrase(mount_passphrase));
  return slots;
}

Status place_slots(const VolumeRef& volume, const NewVolume& slots) {
  ECFS_LET(const Identity me, caller());
  // Who else gives it slots waits here, and finds them.
  ECFS_LET(const Fd held, lock(volume));
  ECFS_LET(const VolumeRef now, find_user_volume(volume.profile->profile.name));
  if (has_slots(now)) return Error{Code::kBusy, EEXIST, volume.shown() + " was given key slots meanwhile"};
  wrap::Profile profile = now.profile->profile;
  profile.volume_id = slots.header.id;
  // A login password that does not open it now will not open it then.
  profile.auto_mount = profile.auto_mount && !wrap::is_wrapping_independent(*now.profile);
  ECFS_LET(const Fd profiles, profiles_dir_for(now, me));
  ECFS_LET(const Fd dir, make_directory(profiles.get(), profile.name, 0700));
  ECFS_LET(const Fd also_held, wrap::lock_volume(dir.get(), 0));
  wrap::VolumeStore::Places places;
  places.profile_dir = dir.get();
  places.kind = wrap::VolumeKind::kEcryptfs;
  ECFS_TRY(clear_unfinished(dir.get(), places));
  ECFS_TRY(wrap::VolumeStore::create(places, slots.header, slots.area, slots.key));
  ECFS_TRY(sync_directory(profiles.get()));
  // Until now nothing looks there; from here on the slots count, and they are complete.
  return wrap::save_profile(dir.get(), profile);
}

std::string upgrade_advice(const VolumeRef& volume) {
  if (has_slots(volume)) return "";
  return "its wrapped passphrase is quick to try passwords on; `ecfs key add recovery " + volume.shown() +
         "` gives it stronger keys and a recovery key";
}

}  // namespace ecfs::setup
