#include "pam/login/volumes.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "pam/login/login_key.h"
#include "pam/login/wire.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/control.h"
#include "wrap/ecryptfs_private.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/keyring.h"
#include "wrap/profile.h"
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
  // A directory inside a whole home has its device number, too.
  const bool told = (st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0;
  if (told && (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) return std::optional<std::pair<unsigned, unsigned>>();
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
  auto names = list_directory(mountpoint, wrap::kMostPlaceholders + 1);
  if (!names) return with_context(std::move(names).error(), "the mountpoint " + path);
  for (const std::string& name : *names) {
    if (!wrap::is_placeholder(mountpoint, name)) {
      return Error{Code::kBusy, ENOTEMPTY, path + " holds files of its own (" + name + "); move them away first"};
    }
  }
  return {};
}

bool no_password_fits(const Error& error) { return error.code == Code::kWrongKey || error.code == Code::kNotFound; }

// The id by which the server of a volume's mount is found.
Result<wrap::VolumeId> mount_id_of(const wrap::Profile& profile, int lower_dir) {
  if (profile.format == wrap::kEcryptfsFormat) return wrap::ecryptfs_mount_id(lower_dir);
  return profile.volume_id;
}

// A mount whose keys were wiped while it was in use gets them back with the login password. Best effort: a login finds
// a mount, and goes on.
void resume_if_suspended(const Identity& who, const wrap::OpenProfile& open, const Secret& login,
                         std::vector<std::string>& log) {
  if (login.empty()) return;
  const auto lower = open_directory(AT_FDCWD, open.profile.lower);
  const auto id = mount_id_of(open.profile, lower ? lower->get() : -1);
  if (!id) return;
  const auto state = wrap::mount_state(*id, geteuid());
  if (!state || !state->suspended) return;
  const Status done = [&]() -> Status {
    ECFS_LET(LoginKey key, LoginKey::of(who, open, lower ? lower->get() : -1));
    ECFS_LET(const Secret secret, key.open(login));
    return key.resume(secret, *id);
  }();
  log.push_back(done ? "open again" : "it stays suspended: " + done.error().what);
}

// The secret of a locked volume, by the login password or by what was typed besides it. Marks it stale, or no longer
// so.
Result<Secret> open_locked(LoginKey& key, const wrap::OpenProfile& volume, const Secret& login, const Secret& other,
                           bool& rewrapped) {
  const bool stale = wrap::has_stale_mark(volume);
  auto secret = key.open(login, stale);
  if (secret) {
    // What the TPM opened by itself says nothing about the password.
    if (stale && key.opened_by_password()) (void)wrap::set_stale_mark(volume, false);
    return secret;
  }
  if (secret.error().code == Code::kNotFound) return Error{Code::kNoKey, 0, "it has no key slot for a password"};
  // Of what the user typed besides, a recovery key opens whatever the TPM has against the login password.
  const bool wrong = secret.error().code == Code::kWrongKey;
  if (!wrong && other.empty()) return secret;
  if (!other.empty()) {
    const bool only_tpm = secret.error().sys_errno == kOnlyTpmTried;
    secret = only_tpm ? key.open_by_recovery(other) : key.open_otherwise(other, login, rewrapped);
  }
  if (!secret) {
    if (wrong && no_password_fits(secret.error())) (void)wrap::set_stale_mark(volume, true);
    return secret;
  }
  if (rewrapped) (void)wrap::set_stale_mark(volume, false);
  return secret;
}

Result<Reply> open_as_user(const Identity& who, const std::string& name, const Secret& login, const Secret& other,
                           LoginTpm tpm, int lock_ms) {
  ECFS_LET(const wrap::OpenProfile open, wrap::open_user_volume(who, name));
  const wrap::Profile& profile = open.profile;
  const bool native = profile.format == wrap::kNativeFormat;
  ECFS_LET(Fd lock, wrap::lock_volume(open, lock_ms));
  ECFS_LET(Fd mountpoint, open_mountpoint(profile.mountpoint));
  ECFS_LET(const auto device, device_of_ecfs_mount(mountpoint.get()));
  OpenVolume opened;
  opened.mounted_already = device.has_value();
  opened.lower = profile.lower;
  opened.mountpoint = profile.mountpoint;
  opened.options = profile.options;
  if (opened.mounted_already) {
    resume_if_suspended(who, open, login, opened.log);
    return wire::pack(std::move(opened));
  }
  if (profile.format == wrap::kEcryptfsFormat) {
    ECFS_LET(const auto kernels, wrap::kernel_mount_of(profile));
    opened.mounted_already = kernels.has_value();  // it is open, and two that write there would be one too many
    if (opened.mounted_already) return wire::pack(std::move(opened));
  }

  if (login.empty() && tpm.tpm == nullptr) return Error{Code::kNoKey, 0, "there is no login password to open it with"};
  if (wrap::is_wrapping_independent(open)) return Error{Code::kNoKey, 0, "the login password does not open it"};
  ECFS_TRY(check_mountpoint(mountpoint.get(), who.uid));
  ECFS_TRY(check_only_placeholders(mountpoint.get(), profile.mountpoint));
  auto lower = open_directory(AT_FDCWD, profile.lower);
  if (!lower) return with_context(std::move(lower).error(), "the encrypted directory");
  ECFS_TRY(check_lower(lower->get(), who.uid));
  // A new eCryptfs tree is empty.
  if (native) ECFS_TRY(wrap::check_lower_present(lower->get(), profile.lower));
  ECFS_LET(LoginKey key, LoginKey::of(who, open, lower->get(), tpm));
  ECFS_LET(Secret secret, open_locked(key, open, login, other, opened.rewrapped));
  ECFS_TRY(key.finish(std::move(secret), opened));
  opened.lock = std::move(lock);
  opened.lower_dir = *std::move(lower);
  opened.mountpoint_dir = std::move(mountpoint);
  return wire::pack(std::move(opened));
}

Result<Reply> survey_as_user(const Identity& who) {
  std::vector<VolumeInfo> volumes;
  ECFS_LET(const auto names, wrap::list_user_volumes(who));
  for (const std::string& name : names) {
    VolumeInfo info;
    info.name = name;
    if (auto open = wrap::open_user_volume(who, name)) {
      info.id = open->profile.volume_id;
      info.auto_mount = open->profile.auto_mount;
      info.auto_unmount = open->profile.auto_unmount;
      if (open->profile.format == wrap::kEcryptfsFormat) {
        if (auto signatures = wrap::private_signatures(open->profile)) info.signatures = *std::move(signatures);
      }
      info.tpm2 = LoginKey::uses_tpm2(*open);
      if (auto mountpoint = open_mountpoint(open->profile.mountpoint)) {
        if (auto device = device_of_ecfs_mount(mountpoint->get())) info.device = *device;
      }
    } else {
      info.error = open.error().what;
    }
    volumes.push_back(std::move(info));
  }
  std::stable_partition(volumes.begin(), volumes.end(),
                        [](const VolumeInfo& volume) { return volume.name == wrap::kWholeHomeName; });
  return wire::pack(volumes);
}

// each_login_volume runs `work` on every auto-mounted volume of the user that a login password is meant to open, with
// its lock held. A failure of one does not stop the others; `failed` takes it, with no volume where none could be read.
template <class Work, class Failed>
Status each_login_volume(const Identity& who, int lock_ms, wrap::Tpm2* tpm, Work&& work, Failed&& failed) {
  ECFS_LET(const auto names, wrap::list_user_volumes(who));
  for (const std::string& name : names) {
    auto open = wrap::open_user_volume(who, name);
    if (!open) {
      failed(name, open.error(), nullptr);
      continue;
    }
    if (!open->profile.auto_mount) continue;
    const Status done = [&]() -> Status {
      ECFS_LET(const Fd lock, wrap::lock_volume(*open, lock_ms));
      const bool stale = wrap::has_stale_mark(*open);  // its password is another one: not a try of the TPM's for it
      // Without LOWER (a disk that is not there) the profile's copy is enough.
      auto lower = open_directory(AT_FDCWD, open->profile.lower);
      ECFS_LET(LoginKey key, LoginKey::of(who, *open, lower ? lower->get() : -1, {stale ? nullptr : tpm, false}));
      if (!key.present()) return {};
      return work(name, *open, key);
    }();
    if (!done) failed(name, done.error(), &*open);
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
                               LoginTpm tpm, const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  ECFS_LET(Reply reply,
           run_as(who, deadline.remaining_ms(), [&] { return open_as_user(who, name, login, other, tpm, lock_ms); }));
  return wire::unpack_open(std::move(reply));
}

Result<bool> opens_nothing(const Identity& who, const Secret& password, const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  const auto work = [&]() -> Result<Reply> {
    bool one_refused = false;
    bool one_opened = false;
    const auto look = [&](const std::string&, const wrap::OpenProfile& open, LoginKey& key) -> Status {
      if (one_opened || wrap::has_stale_mark(open)) return {};
      const auto secret = key.open(password);
      one_opened = secret.has_value();
      one_refused = one_refused || (!secret && secret.error().code == Code::kWrongKey);
      return {};
    };
    ECFS_TRY(each_login_volume(who, lock_ms, nullptr, look,
                               [](const std::string&, const Error&, const wrap::OpenProfile*) {}));
    Reply answer;
    answer.data = {static_cast<std::uint8_t>(one_refused && !one_opened ? 1 : 0)};
    return answer;
  };
  ECFS_LET(const Reply reply, run_as(who, deadline.remaining_ms(), work));
  return reply.data.size() == 1 && reply.data[0] == 1;
}

Result<ChangeReport> change_password(const Identity& who, const Secret& old_password, const Secret& new_password,
                                     wrap::Tpm2* tpm, const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  const auto work = [&]() -> Result<Reply> {
    ChangeReport report;
    const auto change = [&](const std::string& name, const wrap::OpenProfile& open, LoginKey& key) -> Status {
      ECFS_TRY(key.change(old_password, new_password));
      report.changed.push_back(name);
      return wrap::set_stale_mark(open, false);
    };
    const auto failed = [&](const std::string& name, const Error& error, const wrap::OpenProfile* volume) {
      if (volume != nullptr) (void)wrap::set_stale_mark(*volume, true);
      report.stale.push_back(name);
      report.log.push_back(name + ": " + error.what);
    };
    ECFS_TRY(each_login_volume(who, lock_ms, tpm, change, failed));
    return wire::pack(report);
  };
  ECFS_LET(const Reply reply, run_as(who, deadline.remaining_ms(), work));
  return wire::unpack_change(reply);
}

Result<ChangeReport> mark_all_stale(const Identity& who, const Deadline& deadline) {
  const int lock_ms = deadline.at_most_ms(kLockMs);
  const auto work = [&]() -> Result<Reply> {
    ChangeReport report;
    const auto mark = [&](const std::string& name, const wrap::OpenProfile& open, const LoginKey&) -> Status {
      report.stale.push_back(name);
      return wrap::set_stale_mark(open, true);
    };
    const auto failed = [&](const std::string& name, const Error& error, const wrap::OpenProfile*) {
      report.log.push_back(name + ": " + error.what);
    };
    ECFS_TRY(each_login_volume(who, lock_ms, nullptr, mark, failed));
    return wire::pack(report);
  };
  ECFS_LET(const Reply reply, run_as(who, deadline.remaining_ms(), work));
  return wire::unpack_change(reply);
}

Status drop_tokens(const Identity& who, const std::vector<VolumeInfo>& volumes, const Deadline& deadline) {
  const auto work = [&]() -> Result<Reply> {
    for (const VolumeInfo& volume : volumes) {
      if (!all_zero(volume.id)) ECFS_TRY(wrap::drop_token(volume.id));
      for (const wrap::EcryptfsSignature& signature : volume.signatures) ECFS_TRY(wrap::drop_ecryptfs_token(signature));
    }
    return Reply();
  };
  ECFS_TRY(run_as(who, deadline.remaining_ms(), work));
  return {};
}

Status mark_opened(const Identity& who, const std::string& name, const Deadline& deadline) {
  const auto work = [&]() -> Result<Reply> {
    ECFS_LET(const wrap::OpenProfile open, wrap::open_user_volume(who, name));
    if (!open.of_ecryptfs_utils) ECFS_TRY(wrap::mark_opened(open.dir.get()));
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
