// ecfs umount: end a mount.
#include <fcntl.h>
#include <unistd.h>

#include <memory>

#include "setup/command.h"
#include "setup/messages.h"
#include "setup/mounting.h"
#include "setup/recovered.h"
#include "setup/suspending.h"
#include "setup/ui.h"
#include "setup/volume_ref.h"

namespace ecfs::setup {
namespace {

struct Options {
  std::string mountpoint;
  bool lazy = false;
  bool suspend = false;
};

Result<int> run(const Options& o) {
  if (o.suspend) {
    if (o.mountpoint.empty()) return suspend_all();
    ECFS_LET(const std::string said, suspend_volume(o.mountpoint));
    say(said);
    return 0;
  }
  if (o.mountpoint.empty()) {
    note("MOUNTPOINT is required");
    note_more("See `ecfs umount --help`.");
    return kExitUsage;
  }
  ECFS_LET(const std::string path, absolute_path(o.mountpoint));
  ECFS_TRY(unmount_volume(o.mountpoint, o.lazy));
  remove_recovery_mountpoint(path);
  return 0;
}

}  // namespace

Command add_umount(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("umount", "Lock a volume: unmount it");
  command.add_option("MOUNTPOINT", o->mountpoint, "Where it is mounted");
  const Option lazy =
      command.add_flag("--lazy", o->lazy, "Detach it now although programs use it; they keep what they have open");
  command
      .add_flag("--suspend", o->suspend,
                "Where programs use it, wipe its keys and let it wait for them; without MOUNTPOINT: all mounts "
                "with the option suspend, which is for a machine that goes to sleep")
      .excludes(lazy);
  command.set_footer(
      "Examples:\n"
      "  ecfs umount ~/vault\n"
      "  ecfs umount --lazy ~/vault\n"
      "  ecfs umount --suspend ~/vault");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
