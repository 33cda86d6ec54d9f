// ecfs umount-private: lock a volume of a profile and forget its key.
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "setup/command.h"
#include "setup/ecryptfs_private.h"
#include "setup/mounting.h"
#include "setup/suspending.h"
#include "setup/ui.h"
#include "setup/volume_ref.h"
#include "wrap/ecryptfs_private.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/keyring.h"

namespace ecfs::setup {
namespace {

struct Options {
  std::string name;
  bool force = false;
  bool suspend = false;
};

Status drop_keys(const wrap::Profile& profile) {
  if (profile.format != wrap::kEcryptfsFormat) return wrap::drop_token(profile.volume_id);
  ECFS_LET(const auto signatures, wrap::private_signatures(profile));
  for (const wrap::EcryptfsSignature& signature : signatures) ECFS_TRY(wrap::drop_ecryptfs_token(signature));
  return {};
}

Result<int> run(Options o) {
  if (o.name.empty()) o.name = default_volume();
  ECFS_LET(const VolumeRef volume, find_user_volume(o.name));
  const wrap::Profile& profile = volume.profile->profile;
  if (chdir("/") != 0) return system_error(errno, "leave the directory");  // it may be in what is unmounted
  ECFS_LET(const Fd held, lock(volume));
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::ecfs_mount_at(profile.mountpoint));
  if (o.suspend && mounted) {
    ECFS_LET(const std::string said, suspend_volume(profile.mountpoint));
    say(said);
    return 0;
  }
  if (!mounted && is_ecryptfs_volume(volume)) ECFS_TRY(check_no_kernel_mount(volume));
  Status unmounted;
  if (mounted) unmounted = unmount_volume(profile.mountpoint, o.force);
  // The key goes even where programs keep the directory busy: nothing new is opened without a passphrase.
  if (auto dropped = drop_keys(profile); !dropped) warn(dropped.error().what);
  if (!unmounted) {
    Error error = std::move(unmounted).error();
    if (error.code == Code::kBusy) error.what += ". --force detaches it from them";
    return error;
  }
  say(o.name + (mounted ? " is locked" : " was not open"));
  return 0;
}

}  // namespace

Command add_umount_private(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("umount-private", "Lock your Private directory");
  command.add_option("NAME", o->name, "Name of the volume; default: Private, or Home, the whole home");
  const Option force =
      command.add_flag("--force", o->force, "Detach it now although programs use it; they keep what they have open");
  command.add_flag("--suspend", o->suspend, "Where programs use it, wipe its keys and let it wait for them")
      .excludes(force);
  command.set_footer(
      "Examples:\n"
      "  ecfs umount-private\n"
      "  ecfs umount-private --force Work");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
