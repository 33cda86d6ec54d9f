// The command line of `ecfs setup-swap`, which two programs read: `ecfs` itself, for its help, and ecfs-swap, which
// does the work.
#pragma once

#include <string>
#include <vector>

#include "setup/command_line.h"

namespace ecfs::swap {

struct Options {
  bool dry_run = false;
  bool undo = false;
  std::vector<std::string> devices;
  std::string cipher = "aes-xts-plain64";
  bool no_hibernation = false;
  bool yes = false;
  bool wipe = false;
  bool json = false;
};

// declare declares the command; `options` has to live as long as the Parser.
setup::CommandLine declare(const setup::CommandLine& parent, Options& options);

// arguments gives the options as another program's command line, without its name.
std::vector<std::string> arguments(const Options& options);

}  // namespace ecfs::swap
