// One command of the tool: it declares its options and gives the work to do. One file per
// command; main.cc lists them. `ecfs-NAME` (a symbolic link) is `ecfs NAME`.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "setup/command_line.h"
#include "setup/messages.h"
#include "wrap/base/result.h"

namespace ecfs::setup {

// Work runs after the command line was understood and gives the exit code (0 normally); an Error is printed once by
// main.cc with its hint (messages.cc) and becomes the exit code of its Code, or `failed` where a command has one.
using Work = std::function<Result<int>()>;

// Each add_* declares a command below `parent` and gives its Work.
struct Command {
  CommandLine line;
  Work work;
  std::optional<int> failed = {};
  int usage = kExitUsage;
};

Command add_init(CommandLine parent);              // init.cc
Command add_mount(CommandLine parent);             // mount.cc
Command add_umount(CommandLine parent);            // umount.cc
Command add_setup_private(CommandLine parent);     // setup_private.cc
Command add_mount_private(CommandLine parent);     // mount_private.cc
Command add_umount_private(CommandLine parent);    // umount_private.cc
Command add_status(CommandLine parent);            // status.cc
Command add_recover_private(CommandLine parent);   // recover_private.cc
Command add_adduser_hook(CommandLine parent);      // adduser_hook.cc
Command add_migrate(CommandLine parent);           // migrate.cc
Command add_bench(CommandLine parent);             // bench.cc
Command add_fsck(CommandLine parent);              // fsck.cc
Command add_stat(CommandLine parent);              // stat.cc
Command add_find(CommandLine parent);              // find.cc
Command add_tpm_status(CommandLine parent);        // tpm.cc: tpm status
std::vector<Command> add_key(CommandLine parent);  // key.cc: key list | add | remove | change | reseal
Command add_setup_boot(CommandLine parent);        // setup_boot.cc
Command add_setup_swap(CommandLine parent);        // setup_swap.cc
// wrapped_passphrase.cc: wrap-passphrase | unwrap-passphrase | rewrap-passphrase | add-passphrase |
// insert-wrapped-passphrase-into-keyring
std::vector<Command> add_wrapped_passphrase(CommandLine parent);

}  // namespace ecfs::setup
