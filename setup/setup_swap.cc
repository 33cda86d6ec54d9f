// ecfs setup-swap: the command line of it. The work is done by libexec/ecfs/ecfs-swap, which is another program so that
// no other command loads the libraries for disks.
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "setup/command.h"
#include "setup/swap/options.h"
#include "wrap/mount.h"

namespace ecfs::setup {

Command add_setup_swap(CommandLine parent) {
  auto o = std::make_shared<swap::Options>();
  const CommandLine command = swap::declare(parent, *o);
  return {command, [o]() -> Result<int> {
            const std::string path = wrap::helper_path("ecfs-swap");
            std::vector<std::string> words = swap::arguments(*o);
            words.insert(words.begin(), {path, "setup-swap"});
            std::vector<char*> argv;
            argv.reserve(words.size() + 1);
            for (std::string& word : words) argv.push_back(word.data());
            argv.push_back(nullptr);
            execv(path.c_str(), argv.data());
            return system_error(errno, "run " + path);
          }};
}

}  // namespace ecfs::setup
