#include "pam/login/volumes.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "pam/login/wire.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/control.h"
#include "wrap/keyring.h"
#include "wrap/keyslot.h"
#include "wrap/profile.h"
#include "wrap/recovery_key.h"
#include "wrap/volume_store.h"

namespace ecfs::pam {
namespace {

constexpr int kLockMs = 5000;  // as long as another login may take to open the volume
constexpr int kDeadCheckMs = 1000;

// ---- in the user's child ----

// device_of_ecfs_mount tells whether `dir` is the root of an ecfs mount, by its device number: the kernel answers
// without asking the server, and symbolic links on the way to it do not matter.
Result<std::optional<std::pair<unsigned, unsigned>>> device_of_ecfs_mount(int dir) {
  struct statx st {};
  if (statx(dir, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) != 0)
    return system_error(errno, "stat the mountpoint");
  ECFS_LET(const auto entries, wrap::mounts());
  for (const wrap::MountEntry& entry : entries) {
    if (entry.fstype == "fuse.ecfs" && entry.device_major == st.stx_dev_major &&
        entry.device_minor == st.stx_dev_minor) {
      return std::optional(std::pair(entry.device_major, entry.device_minor));
    }
  }
  return std::optional<std::pair<unsigned, unsigned>>();
}

Result<Fd> open_mountpoint(const std::string& path) {
  Fd fd(open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd) return fd;
  if (errno == ELOOP || errno == ENOTDIR) {
    return Error{Code::kInvalid, errno, "the mountpoint " + path + " is not a directory"};
  }
  return system_error(errno, "open the mountpoint " + path);
}

// A mountpoint may hold what tells the user that it is locked, and nothing else: files under a mount cannot be seen.
Status check_only_placeholders(int mountpoint, const std::string& path) {
  static constexpr std::array<std::string_view, 2> kAllowed = {wrap::kPlaceholderName,
                                                               "Access-Your-Private-Data.desktop"};
  auto names = list_directory(mountpoint, kAllowed.size() + 1);
  if (!names) return with_context(std::move(names).error(), "the mountpoint " + path);
  for (const std::string& name : *names) {
    if (std::find(kAllowed.begin(), kAllowed.end(), name) == kAllowed.end()) {
      return Error{Code::kBusy, ENOTEMPTY, path + " holds files of its own (" + name + "); move them away first"};
    }
  }
  return {};
}

bool no_password_fits(const Error& error) { return error.code == Code::kWrongKey || error.code == Code::kNotFound; }

wrap::VolumeStore::Places places_of(const wrap::OpenProfile& open, int lower_dir) {
  wrap::VolumeStore::Places places;
  places.lower_dir = lower_dir;
  places.profile_dir = open.dir.get();
  places.slots_in_volume = open.profile.slots_in_volume;
  places.pinned = open.profile.volume_id;
  return places;
}

// The login's password slot made anew, at the costs of the old one.
Status rewrap(wrap::VolumeStore& store, const Secret& key, const wrap::Slot* old_slot, const Secret& new_password) {
  wrap::Argon2Cost cost;
  auto old_cost = old_slot != nullptr ? wrap::password_cost(*old_slot) : Result<wrap::Argon2Cost>(cost);
  if (old_slot != nullptr && old_cost && wrap::check_cost_writable(*old_cost)) {
    cost = *old_cost;
  } else {
    ECFS_LET(cost, wrap::calibrate());
  }
  const std::string label = old_slot != nullptr ? old_slot->label : "login";
  ECFS_LET(wrap::Slot slot,
           wrap::make_password_slot(store.header().id, store.area().unused_id(), label, key, new_password, cost));
  if (old_slot == nullptr) return store.add_slot(key, std::move(slot));
  const std::uint32_t old_id = old_slot->id;
  return store.replace_slot(key, old_id, std::move(slot));
}

// The slot to wrap anew when a recovery key opened the volume: the only password slot; where there are several we
// cannot know which was the login's, and add one.
const wrap::Slot* only_password_slot(const wrap::SlotArea& area) {
  const wrap::Slot* found = nullptr;
  for (const wrap::Slot& slot : area.slots) {
    if (slot.type != wrap::SlotType::kPassword) continue;
    if (found != nullptr) return nullptr;
    found = &slot;
  }
  return found;
}

// Opens with what the user typed besides the login password, and wraps the login's slot anew.
Result<wrap::Unlocked> unlock_and_rewrap(wrap::VolumeStore& store, const Secret& login, const Secret& other) {
  const bool is_recovery = wrap::RecoveryKey::looks_like_one(other.reveal());
  auto unlocked = [&]() -> Result<wrap::Unlocked> {
    if (!is_recovery) return store.unlock_with_passphrase(other);
    ECFS_LET(const wrap::RecoveryKey key, wrap::RecoveryKey::parse(other.reveal()));
    return store.unlock_with_recovery(key);
  }();
  // A password may look like a recovery key.
  if (!unlocked && is_recovery) {
    if (auto second = store.unlock_with_passphrase(other)) unlocked = std::move(second);
  }
  if (!unlocked) return unlocked;
  const wrap::Slot* opened = store.area().find(unlocked->slot_id);
  const bool by_password = opened != nullptr && opened->type == wrap::SlotType::kPassword;
  ECFS_TRY(rewrap(store, unlocked->key, by_password ? opened : only_password_slot(store.area()), login));
  return unlocked;
}

// A mount whose keys were wiped while it was in use gets them back with the login password. Best effort: a login finds
// a mount, and goes on.
void resume_if_suspended(const wrap::OpenProfile& open, const Secret& login, std::vector<std::string>& log) {
  const wrap::VolumeId& id = open.profile.volume_id;
  if (login.empty()) return;
  const auto state = wrap::mount_state(id, geteuid());
  if (!state || !state->suspended) return;
  const Status done = [&]() -> Status {
    const auto lower = open_directory(AT_FDCWD, open.profile.lower);
    ECFS_LET(wrap::VolumeStore store, wrap::VolumeStore::open(places_of(open, lower ? lower->get() : -1)));
    ECFS_LET(const wrap::Unlocked unlocked, store.unlock_with_passphrase(login));
    ECFS_TRY(wrap::resume_mounts(id, geteuid(), unlocked.key));
    return wrap::put_token(id, unlocked.key);
  }();
  log.push_back(done ? "open again" : "it stays suspended: " + done.error().what);
}

Result<Reply> open_as_user(const Identity& who, const std::string& name, const Secret& login, const Secret& other,
                           int lock_ms) {
  ECFS_LET(const Fd profiles, wrap::open_profiles_dir(who));
  ECFS_LET(const wrap::OpenProfile open, wrap::open_profile(profiles.get(), name));
  const wrap::Profile& profile = open.profile;
  ECFS_LET(Fd lock, wrap::lock_volume(open.dir.get(), lock_ms));
  ECFS_LET(Fd mountpoint, open_mountpoint(profile.mountpoint));
  ECFS_LET(const auto device, device_of_ecfs_mount(mountpoint.get()));
  OpenVolume opened;
  opened.mounted_already = device.has_value();
  opened.lower = profile.lower;
  opened.mountpoint = profile.mountpoint;
  opened.options = profile.options;
  if (opened.mounted_already) {
    resume_if_suspended(open, login, opened.log);
    return wire::pack(std::move(opened));
  }

  if (login.empty()) return Error{Code::kNoKey, 0, "there is no login password to open it with"};
  if (profile.format != "native") {
    return Error{Code::kUnsupported, 0, "its format '" + profile.format + "' is not known"};
  }
  ECFS_TRY(check_mountpoint(mountpoint.get(), who.uid));
  ECFS_TRY(check_only_placeholders(mountpoint.get(), profile.mountpoint));
  auto lower = open_directory(AT_FDCWD, profile.lower);
  if (!lower) return with_context(std::move(lower).error(), "the encrypted directory");
  ECFS_TRY(check_lower(lower->get(), who.uid));
  ECFS_TRY(wrap::check_lower_present(lower->get(), profile.lower));
  ECFS_LET(wrap::VolumeStore store, wrap::VolumeStore::open(places_of(open, lower->get())));
  opened.notes = store.notes();

  auto unlocked = store.unlock_with_passphrase(login);
  if (unlocked) {
    if (wrap::has_stale_mark(open.dir.get())) (void)wrap::set_stale_mark(open.dir.get(), false);
  } else if (unlocked.error().code == Code::kWrongKey) {
    if (!other.empty()) unlocked = unlock_and_rewrap(store, login, other);
    if (!unlocked) {
      if (no_password_fits(unlocked.error())) (void)wrap::set_stale_mark(open.dir.get(), true);
      return std::move(unlocked).error();
    }
    opened.rewrapped = true;
    (void)wrap::set_stale_mark(open.dir.get(), false);
  } else if (unlocked.error().code == Code::kNotFound) {
    return Error{Code::kNoKey, 0, "it has no key slot for a password"};
  } else {
    return std::move(unlocked).error();
  }
  if (auto repaired = store.repair(unlocked->key); !repaired) opened.log.push_back(repaired.error().what);
  if (auto put = wrap::put_token(store.header().id, unlocked->key); !put) opened.log.push_back(put.error().what);
  opened.volume_file = store.file().raw;
  opened.key = std::move(unlocked->key);
  opened.lock = std::move(lock);
  opened.lower_dir = *std::move(lower);
  opened.mountpoint_dir = std::move(mountpoint);
  return wire::pack(std::move(opened));
}

Result<Reply> survey_as_user(const Identity& who) {
  std::vector<VolumeInfo> volumes;
  auto profiles = wrap::open_profiles_dir(who);
  if (!profiles) {
    if (profiles.error().code == Code::kNotFound) return wire::pack(volumes);
    return std::move(profiles).error();
  }
  ECFS_LET(const auto names, wrap::list_profiles(profiles->get()));
  for (const std::string& name : names) {
    VolumeInfo info;
    info.name = name;
    if (auto open = wrap::open_profile(profiles->get(), name)) {
      info.id = open->profile.volume_id;
      info.auto_mount = open->profile.auto_mount;
      info.auto_unmount = open->profile.auto_unmount;
      if (auto mountpoint = open_mountpoint(open->profile.mountpoint)) {
        if (auto device = device_of_ecfs_mount(mountpoint->get())) info.device = *device;
      }
    } else {
      info.error = open.error().what;
    }
    volumes.push_back(std::move(info));
  }
  return wire::pack(volumes);
}

// each_login_volume runs `work` on every auto-mounted volume of the user that has a password slot, with its lock held.
// A failure of one does not stop the others; `failed` takes it.
template <class Work, class Failed>
Status each_login_volume(const Identity& who, int lock_ms, Work&& work, Failed&& failed) {
  auto profiles = wrap::open_profiles_dir(who);
  if (!profiles && profiles.error().code == Code::kNotFound) return {};
  if (!profiles) return std::move(profiles).error();
  ECFS_LET(const auto names, wrap::list_profiles(profiles->get()));
  for (const std::string& name : names) {
    auto open = wrap::open_profile(profiles->get(), name);
    if (!open) {
      failed(name, open.error(), -1);
      continue;
    }
    if (!open->profile.auto_mount) continue;
    const Status done = [&]() -> Status {
      ECFS_LET(const Fd lock, wrap::lock_volume(open->dir.get(), lock_ms));
      // Without LOWER (a disk that is not there) the profile's copy is enough.
      auto lower = open_directory(AT_FDCWD, open->profile.lower);
      ECFS_LET(wrap::VolumeStore store, wrap::VolumeStore::open(places_of(*open, lower ? lower->get() : -1)));
      if (store.area().count(wrap::SlotType::kPassword) == 0) return {};
      return work(name, *open, store);
    }();
    if (!done) failed(name, done.error(), open->dir.get());
  }
  return {};
}

Status check_kind(int dir, uid_t uid, const char* what) {
  struct stat st {};
  if (fstat(dir, &st) != 0) return system_error(errno, std::string("stat ") + what);
  if (!S_ISDIR(st.st_mode)) return Error{Code::kInvalid, ENOTDIR, std::string(what) + " is not a directory"};
  if (st.st_uid != uid) return Error{Code::kDenied, EPERM, std::string(what) + " belongs to somebody else"};
  return {};
}

}  // namespace

Status check_mountpoint(int dir, uid_t uid) {
  // Mounting over a directory of /proc, /sys or another filesystem made by the kernel would change what programs learn
  // from it. Filesystems that a user serves (FUSE) are left out too: they can hang whoever looks.
  static constexpr std::array<std::uint32_t, 20> kAllowed = {
      EXT4_SUPER_MAGIC,       0x58465342U /* XFS */,   BTRFS_SUPER_MAGIC,          TMPFS_MAGIC,
      F2FS_SUPER_MAGIC,       0x2fc12fc1U /* ZFS */,   0xca451a4eU /* bcachefs */, OVERLAYFS_SUPER_MAGIC,
      NFS_SUPER_MAGIC,        0x3153464aU /* JFS */,   REISERFS_SUPER_MAGIC,       NILFS_SUPER_MAGIC,
      CIFS_SUPER_MAGIC,       SMB2_SUPER_MAGIC,        CEPH_SUPER_MAGIC,           OCFS2_SUPER_MAGIC,
      0x01161970U /* GFS2 */, 0x24051905U /* UBIFS */, ECRYPTFS_SUPER_MAGIC,       RAMFS_MAGIC};
  struct statfs fs {};
  if (fstatfs(dir, &fs) != 0) return system_error(errno, "look at the mountpoint's filesystem");
  const auto type = static_cast<std::uint32_t>(fs.f_type);
  if (std::find(kAllowed.begin(), kAllowed.end(), type) == kAllowed.end()) {
    return Error{Code::kDenied, EPERM, "the mountpoint is on a filesystem that nothing may be mounted on"};
  }
  return check_kind(dir, uid, "the mountpoint");
}

Status check_lower(int dir, uid_t uid) { return check_kind(dir, uid, "the encrypted directory"); }

Result<std::vector<VolumeInfo>> survey_volumes(const Identity& who, const Deadline& deadline) {
  ECFS_LET(const Reply reply, run_as(who, deadline.remaining_ms(), [&] { return survey_as_user(who); }));
  return wire::unpack_survey(reply);
}

Result<OpenVolume> open_volume(const Identity& who, const std::string& name, const Secret& login, const Secret& other,
                               const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  ECFS_LET(Reply reply,
           run_as(who, deadline.remaining_ms(), [&] { return open_as_user(who, name, login, other, lock_ms); }));
  return wire::unpack_open(std::move(reply));
}

Result<bool> opens_nothing(const Identity& who, const Secret& password, const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  const auto work = [&]() -> Result<Reply> {
    bool one_refused = false;
    bool one_opened = false;
    const auto look = [&](const std::string&, const wrap::OpenProfile& open, wrap::VolumeStore& store) -> Status {
      if (one_opened || wrap::has_stale_mark(open.dir.get())) return {};
      const auto unlocked = store.unlock_with_passphrase(password);
      one_opened = unlocked.has_value();
      one_refused = one_refused || (!unlocked && unlocked.error().code == Code::kWrongKey);
      return {};
    };
    ECFS_TRY(each_login_volume(who, lock_ms, look, [](const std::string&, const Error&, int) {}));
    Reply answer;
    answer.data = {static_cast<std::uint8_t>(one_refused && !one_opened ? 1 : 0)};
    return answer;
  };
  ECFS_LET(const Reply reply, run_as(who, deadline.remaining_ms(), work));
  return reply.data.size() == 1 && reply.data[0] == 1;
}

Result<ChangeReport> change_password(const Identity& who, const Secret& old_password, const Secret& new_password,
                                     const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  const auto work = [&]() -> Result<Reply> {
    ChangeReport report;
    const auto change = [&](const std::string& name, const wrap::OpenProfile& open,
                            wrap::VolumeStore& store) -> Status {
      auto unlocked = store.unlock_with_passphrase(old_password);
      if (unlocked) {
        ECFS_TRY(rewrap(store, unlocked->key, store.area().find(unlocked->slot_id), new_password));
      } else if (unlocked.error().code != Code::kWrongKey || !store.unlock_with_passphrase(new_password)) {
        return std::move(unlocked).error();
      }
      report.changed.push_back(name);
      return wrap::set_stale_mark(open.dir.get(), false);
    };
    const auto failed = [&](const std::string& name, const Error& error, int profile_dir) {
      if (profile_dir >= 0) (void)wrap::set_stale_mark(profile_dir, true);
      report.stale.push_back(name);
      report.log.push_back(name + ": " + error.what);
    };
    ECFS_TRY(each_login_volume(who, lock_ms, change, failed));
    return wire::pack(report);
  };
  ECFS_LET(const Reply reply, run_as(who, deadline.remaining_ms(), work));
  return wire::unpack_change(reply);
}

Result<ChangeReport> mark_all_stale(const Identity& who, const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  const auto work = [&]() -> Result<Reply> {
    ChangeReport report;
    const auto mark = [&](const std::string& name, const wrap::OpenProfile& open, wrap::VolumeStore&) -> Status {
      report.stale.push_back(name);
      return wrap::set_stale_mark(open.dir.get(), true);
    };
    const auto failed = [&](const std::string& name, const Error& error, int) {
      report.log.push_back(name + ": " + error.what);
    };
    ECFS_TRY(each_login_volume(who, lock_ms, mark, failed));
    return wire::pack(report);
  };
  ECFS_LET(const Reply reply, run_as(who, deadline.remaining_ms(), work));
  return wire::unpack_change(reply);
}

Status drop_tokens(const Identity& who, const std::vector<wrap::VolumeId>& volumes, const Deadline& deadline) {
  const auto work = [&]() -> Result<Reply> {
    for (const wrap::VolumeId& volume : volumes) ECFS_TRY(wrap::drop_token(volume));
    return Reply();
  };
  ECFS_TRY(run_as(who, deadline.remaining_ms(), work));
  return {};
}

bool mount_is_dead(const Identity& who, const std::string& mountpoint) {
  const auto reply = run_as(who, kDeadCheckMs, [&]() -> Result<Reply> {
    Reply answer;
    answer.data = {static_cast<std::uint8_t>(wrap::is_dead(mountpoint) ? 1 : 0)};
    return answer;
  });
  return reply && reply->data.size() == 1 && reply->data[0] == 1;
}

}  // namespace ecfs::pam
