// ecfs umount: end a mount.
#include <fcntl.h>
#include <unistd.h>

#include <memory>

#include "setup/command.h"
#include "setup/mounting.h"
#include "setup/recovered.h"
#include "setup/volume_ref.h"

namespace ecfs::setup {
namespace {

struct Options {
  std::string mountpoint;
  bool lazy = false;
};

Result<int> run(const Options& o) {
  ECFS_LET(const std::string path, absolute_path(o.mountpoint));
  ECFS_TRY(unmount_volume(o.mountpoint, o.lazy));
  remove_recovery_mountpoint(path);
  return 0;
}

}  // namespace

Command add_umount(CLI::App& parent) {
  auto o = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("umount", "Lock a volume: unmount it");
  app->add_option("MOUNTPOINT", o->mountpoint, "Where it is mounted")->required();
  app->add_flag("--lazy", o->lazy, "Detach it now although programs use it; they keep what they have open");
  app->footer(
      "Examples:\n"
      "  ecfs umount ~/vault\n"
      "  ecfs umount --lazy ~/vault");
  return {app, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
