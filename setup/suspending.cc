#include "setup/suspending.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "setup/mounting.h"
#include "setup/ui.h"
#include "wrap/base/log.h"
#include "wrap/base/process.h"
#include "wrap/control.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/keyring.h"
#include "wrap/mount.h"

namespace ecfs::setup {
namespace {

constexpr int kUserMs = 30000;  // for all mounts of one user, on the way to sleep

Result<wrap::VolumeId> id_of(const wrap::MountEntry& mount) {
  ECFS_LET(const VolumeRef volume, find_lower(mount.source));
  ECFS_LET(const wrap::VolumeId ecryptfs, wrap::ecryptfs_mount_id(volume.lower_dir.get()));
  if (const auto owner = wrap::owner_of(mount); owner && wrap::mount_state(ecryptfs, *owner)) return ecryptfs;
  ECFS_LET(const wrap::VolumeStore store, open_store(volume, false));
  return store.header().id;
}

// A server that does not answer shall hold nobody up.
void write_back(const std::string& mountpoint) {
  const Fd root(open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
  if (root) syncfs(root.get());
}

Result<std::string> suspend(const wrap::MountEntry& mount) {
  const std::string shown = printable(mount.mountpoint);
  ECFS_LET(const wrap::VolumeId id, id_of(mount));
  // First, so that nothing opens it again without a question.
  if (auto dropped = wrap::drop_token(id); !dropped) warn(dropped.error().what);
  if (const auto owner = wrap::owner_of(mount); owner) {
    const auto state = wrap::mount_state(id, *owner);
    for (const auto& signature : state ? state->signatures : std::vector<wrap::EcryptfsSignature>()) {
      if (auto dropped = wrap::drop_ecryptfs_token(signature); !dropped) warn(dropped.error().what);
    }
  }
  const Status unmounted = unmount_volume(mount.mountpoint, false);
  if (unmounted) return shown + " is locked";
  if (unmounted.error().code != Code::kBusy) return unmounted.error();
  const std::optional<uid_t> owner = wrap::owner_of(mount);
  if (!owner) return Error{Code::kUnsupported, 0, shown + ": it cannot be said whose mount it is"};
  write_back(mount.mountpoint);
  if (auto done = wrap::suspend_mounts(id, *owner); !done) return with_context(std::move(done).error(), shown);
  return shown +
         " is in use: its keys were wiped, and it refuses its programs until it is opened again:   ecfs mount " +
         printable(mount.source) + " " + shown;
}

Result<std::vector<wrap::MountEntry>> mounts_by(uid_t uid) {
  ECFS_LET(std::vector<wrap::MountEntry> all, wrap::mounts());
  std::erase_if(all, [&](const wrap::MountEntry& m) { return m.fstype != "fuse.ecfs" || wrap::owner_of(m) != uid; });
  return all;
}

// As the user whose mounts they are.
int suspend_wanted(uid_t uid, std::string& said) {
  int failures = 0;
  const auto all = mounts_by(uid);
  if (!all) return 1;
  for (const wrap::MountEntry& mount : *all) {
    const auto one = [&]() -> Result<std::string> {
      ECFS_LET(const wrap::VolumeId id, id_of(mount));
      const auto state = wrap::mount_state(id, uid, true);
      if (!state) return with_context(state.error(), printable(mount.mountpoint));
      return state->wants_suspend && !state->suspended ? suspend(mount) : Result<std::string>(std::string());
    }();
    if (one && one->empty()) continue;
    failures += one ? 0 : 1;
    said += (one ? *one : "failed: " + one.error().what) + "\n";
  }
  return failures;
}

}  // namespace

Result<std::string> suspend_volume(const std::string& mountpoint) {
  ECFS_LET(const std::string absolute, absolute_path(mountpoint));
  ECFS_LET(const std::optional<wrap::MountEntry> mount, wrap::ecfs_mount_at(absolute));
  if (!mount) return Error{Code::kNotFound, 0, "no ecfs volume is mounted at " + mountpoint};
  if (wrap::is_dead(absolute)) {
    ECFS_TRY(wrap::unmount(absolute, true));
    return absolute + " is locked";
  }
  return suspend(*mount);
}

Result<int> suspend_all() {
  std::vector<uid_t> users{geteuid()};
  if (geteuid() == 0) {
    ECFS_LET(const std::vector<wrap::MountEntry> all, wrap::mounts());
    for (const wrap::MountEntry& mount : all) {
      const auto owner = wrap::owner_of(mount);
      if (mount.fstype == "fuse.ecfs" && owner && std::find(users.begin(), users.end(), *owner) == users.end()) {
        users.push_back(*owner);
      }
    }
  }
  int failures = 0;
  for (const uid_t uid : users) {
    std::string said;
    if (uid == geteuid()) {
      failures += suspend_wanted(uid, said);
    } else {
      // What lies in a user's directories is looked at with that user's rights alone.
      const auto done = [&]() -> Result<Reply> {
        ECFS_LET(const Identity who, identity_of(uid));
        return run_as(who, kUserMs, [&]() -> Result<Reply> {
          Reply reply;
          std::string text;
          const int failed = suspend_wanted(uid, text);
          text.insert(text.begin(), failed > 0 ? '!' : ' ');
          reply.data.assign(text.begin(), text.end());
          return reply;
        });
      }();
      if (done && !done->data.empty()) {
        said = as_text(done->data).substr(1);
        failures += done->data[0] == '!' ? 1 : 0;
      } else {
        said = "user " + std::to_string(uid) + ": " + (done ? "no answer" : done.error().what) + "\n";
        ++failures;
      }
    }
    for (std::size_t begin = 0; begin < said.size();) {
      const std::size_t end = std::min(said.find('\n', begin), said.size());
      say(printable(std::string_view(said).substr(begin, end - begin)));
      begin = end + 1;
    }
  }
  return failures == 0 ? 0 : 1;
}

Result<bool> resume_if_suspended(const VolumeRef& volume, const UnlockOptions& options) {
  ECFS_LET(wrap::VolumeStore store, open_store(volume, false));
  const wrap::VolumeId id = store.header().id;
  const auto state = wrap::mount_state(id, geteuid());
  if (!state || !state->suspended) return false;
  ECFS_LET(const wrap::Unlocked unlocked, unlock(store, options, volume.shown(), Token::kIgnore));
  ECFS_TRY(wrap::resume_mounts(id, geteuid(), unlocked.key));
  return true;
}

}  // namespace ecfs::setup
