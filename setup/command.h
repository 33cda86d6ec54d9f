// One command of the tool: it declares its options on a CLI11 subcommand and gives the work to do. One file per
// command; main.cc lists them. `ecfs-NAME` (a symbolic link) is `ecfs NAME`.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "setup/messages.h"
#include "wrap/base/result.h"

namespace ecfs::setup {

// Work runs after the command line was understood and gives the exit code (0 normally); an Error is printed once by
// main.cc with its hint (messages.cc) and becomes the exit code of its Code, or `failed` where a command has one.
using Work = std::function<Result<int>()>;

// Each add_* declares a command below `parent` and gives its Work.
struct Command {
  CLI::App* app = nullptr;
  Work work;
  std::optional<int> failed = {};
  int usage = kExitUsage;
};

Command add_init(CLI::App& parent);              // init.cc
Command add_mount(CLI::App& parent);             // mount.cc
Command add_umount(CLI::App& parent);            // umount.cc
Command add_setup_private(CLI::App& parent);     // setup_private.cc
Command add_mount_private(CLI::App& parent);     // mount_private.cc
Command add_umount_private(CLI::App& parent);    // umount_private.cc
Command add_status(CLI::App& parent);            // status.cc
Command add_recover_private(CLI::App& parent);   // recover_private.cc
Command add_bench(CLI::App& parent);             // bench.cc
Command add_fsck(CLI::App& parent);              // fsck.cc
Command add_stat(CLI::App& parent);              // stat.cc
Command add_find(CLI::App& parent);              // find.cc
std::vector<Command> add_key(CLI::App& parent);  // key.cc: key list | add | remove | change
// wrapped_passphrase.cc: wrap-passphrase | unwrap-passphrase | rewrap-passphrase | add-passphrase |
// insert-wrapped-passphrase-into-keyring
std::vector<Command> add_wrapped_passphrase(CLI::App& parent);

}  // namespace ecfs::setup
