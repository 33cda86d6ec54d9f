// ecfs mount-private: open a volume of a profile by hand, as a login does.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "setup/command.h"
#include "setup/ecryptfs_private.h"
#include "setup/mounting.h"
#include "setup/setup_marker.h"
#include "setup/suspending.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

struct Options {
  std::string name;
  std::vector<std::string> mount_options;
  UnlockOptions unlock;
};

// A mountpoint that somebody removed is made again.
Status have_mountpoint(const wrap::Profile& profile) {
  struct stat st {};
  if (lstat(profile.mountpoint.c_str(), &st) == 0 || errno != ENOENT) return {};
  auto dir = make_directory(AT_FDCWD, profile.mountpoint, 0700);
  if (!dir) return with_context(std::move(dir).error(), "the mountpoint " + profile.mountpoint + " is missing");
  if (profile.format == wrap::kEcryptfsFormat) return {};
  return place_note(dir->get(), profile.name, profile.lower);
}

// The caller's whole home, as setup-private made it.
bool is_whole_home(const wrap::Profile& profile) {
  const auto me = caller();
  const auto home = me ? absolute_path(me->home) : Result<std::string>(me.error());
  return home && *home == profile.mountpoint;
}

Result<int> run(Options o) {
  if (o.name.empty()) o.name = default_volume();
  ECFS_LET(const VolumeRef volume, find_user_volume(o.name));
  const wrap::Profile& profile = volume.profile->profile;
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::ecfs_mount_at(profile.mountpoint));
  const bool ecryptfs = is_ecryptfs_volume(volume);
  if (o.unlock.mount_passphrase && !ecryptfs) {
    return Error{Code::kInvalid, 0, o.name + " is no eCryptfs tree: it has no mount passphrase"};
  }
  if (mounted && !wrap::is_dead(profile.mountpoint)) {
    ECFS_LET(const bool resumed,
             ecryptfs ? resume_ecryptfs_private(volume, o.unlock) : resume_if_suspended(volume, o.unlock));
    say(o.name + " is open at " + profile.mountpoint + (resumed ? " again" : " already"));
    return 0;
  }
  if (has_slots(volume) && faccessat(volume.profile->dir.get(), kSetupMarkerName, F_OK, 0) == 0) {
    note("the setup of " + o.name + " was interrupted; `ecfs setup-private --name " + o.name +
         "` brings it to its end");
  }
  ECFS_TRY(have_mountpoint(profile));
  MountJob job;
  job.volume = &volume;
  std::vector<std::string> items = profile.options;
  items.insert(items.end(), o.mount_options.begin(), o.mount_options.end());
  ECFS_LET(job.options, wrap::parse_mount_options(items));
  const bool whole_home = !ecryptfs && is_whole_home(profile);
  if (whole_home) job.options.allow_other = job.options.allow_other || allows_other();
  if (ecryptfs) {
    ECFS_TRY(mount_ecryptfs_private(job, o.unlock));
  } else {
    ECFS_TRY(open_and_mount(job, profile.mountpoint, o.unlock));
  }
  if (whole_home) ECFS_TRY(wrap::mark_opened(volume.profile->dir.get()));
  if (whole_home && !job.options.allow_other) {
    note(
        "other users and root do not see into this home (no user_allow_other in /etc/fuse.conf); opened by a login "
        "with "
        "the password they do");
  }
  say(o.name + " is open at " + profile.mountpoint + (whole_home ? "; `cd` leads into it" : ""));
  if (const std::string advice = upgrade_advice(volume); !advice.empty()) note(o.name + ": " + advice);
  return 0;
}

}  // namespace

Command add_mount_private(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("mount-private", "Open your Private directory");
  command.add_option("NAME", o->name, "Name of the volume; default: Private, or Home, the whole home");
  command.add_option("-o,--options", o->mount_options, "Mount options, added to those of the profile")
      .value_name("OPTIONS")
      .repeatable();
  add_unlock_options(command, o->unlock);
  add_slot_option(command, o->unlock);
  add_tcti_option(command, o->unlock.tcti);
  add_mount_passphrase_option(command, o->unlock);
  command.set_footer(
      "Examples:\n"
      "  ecfs mount-private\n"
      "  ecfs mount-private --recovery\n"
      "  ecfs mount-private -o ro Work");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
