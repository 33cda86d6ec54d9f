#include "setup/swap/options.h"

#include "setup/swap/plan.h"

namespace ecfs::swap {

setup::CommandLine declare(const setup::CommandLine& parent, Options& o) {
  const setup::CommandLine command =
      parent.add_command("setup-swap", "Encrypt this machine's swap with a new key at each boot");
  command.add_flag("--dry-run", o.dry_run, "Say what would be done, and do nothing");
  command.add_flag("--undo", o.undo, "Bring back the swap that was there before");
  command.add_option("--device", o.devices, "Only this one; may be repeated. Default: all")
      .value_name("DEV")
      .repeatable();
  command.add_option("--cipher", o.cipher, "Cipher of the kernel").show_default().one_of(ciphers());
  command.add_flag("--no-hibernation", o.no_hibernation, "Give hibernation up, where the machine has it");
  command.add_flag("--wipe", o.wipe, "Overwrite what was swapped out before, which takes as long as writing all of it");
  command.add_flag("--yes", o.yes, "Do not ask whether to go on");
  command.add_flag("--json", o.json, "Describe the swap, the plan and the outcome as JSON");
  command.set_footer(
      "Examples:\n"
      "  sudo ecfs setup-swap --dry-run\n"
      "  sudo ecfs setup-swap --wipe\n"
      "  sudo ecfs setup-swap --undo");
  return command;
}

std::vector<std::string> arguments(const Options& o) {
  std::vector<std::string> out;
  const auto flag = [&](bool is_set, const char* name) {
    if (is_set) out.emplace_back(name);
  };
  flag(o.dry_run, "--dry-run");
  flag(o.undo, "--undo");
  for (const std::string& device : o.devices) out.push_back("--device=" + device);
  out.push_back("--cipher=" + o.cipher);
  flag(o.no_hibernation, "--no-hibernation");
  flag(o.wipe, "--wipe");
  flag(o.yes, "--yes");
  flag(o.json, "--json");
  return out;
}

}  // namespace ecfs::swap
