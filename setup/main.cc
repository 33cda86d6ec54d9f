// The ecfs tool: takes the command line apart and runs one command.
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <string_view>

#include "setup/command.h"
#include "setup/messages.h"
#include "setup/ui.h"
#include "wrap/base/log.h"
#include "wrap/base/secret.h"

namespace ecfs::setup {
namespace {

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// mount(8) calls mount.ecfs SOURCE DIRECTORY [-sfnv] [-N namespace] [-o options] [-t type.subtype].
std::vector<std::string> from_mount_helper(const std::vector<std::string>& args) {
  std::vector<std::string> out = {"mount", "--quiet"};
  std::vector<std::string> places;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if ((arg == "-N" || arg == "-t") && i + 1 < args.size()) {
      ++i;
    } else if (arg == "-o" && i + 1 < args.size()) {
      out.push_back("--options=" + args[++i]);
    } else if (arg.size() > 1 && arg[0] == '-' && arg.find_first_not_of("sfnv", 1) == std::string::npos) {
      if (arg.find('f') != std::string::npos) out.emplace_back("--check-only");
    } else if (arg == "--help") {
      out.push_back(arg);
    } else {
      places.push_back(arg);
    }
  }
  out.emplace_back("--");
  out.insert(out.end(), places.begin(), places.end());
  return out;
}

// The command line without the program's name, as if it had been called as `ecfs COMMAND …`.
std::vector<std::string> arguments(const std::string& called_as, std::vector<std::string> args) {
  const std::string name = base_name(called_as);
  if (name == "mount.ecfs" || name == "mount.fuse.ecfs") return from_mount_helper(args);
  if (name == "adduser.local") args.insert(args.begin(), "adduser-hook");
  if (name.starts_with("ecfs-")) args.insert(args.begin(), name.substr(5));
  return args;
}

struct Listed {
  std::string_view name;
  void (*add)(const CommandLine& top, std::vector<Command>& to);
};
template <Command (*Add)(CommandLine)>
void add_one(const CommandLine& top, std::vector<Command>& to) {
  to.push_back(Add(top));
}
template <std::vector<Command> (*Add)(CommandLine)>
void add_several(const CommandLine& top, std::vector<Command>& to) {
  for (Command& command : Add(top)) to.push_back(std::move(command));
}
// In the order of the help text. Several that are declared together come last: none of their names is looked for.
constexpr std::array<Listed, 19> kCommands{{{"setup-private", add_one<add_setup_private>},
                                            {"mount-private", add_one<add_mount_private>},
                                            {"umount-private", add_one<add_umount_private>},
                                            {"status", add_one<add_status>},
                                            {"init", add_one<add_init>},
                                            {"mount", add_one<add_mount>},
                                            {"umount", add_one<add_umount>},
                                            {"key", add_several<add_key>},
                                            {"tpm", add_one<add_tpm_status>},
                                            {"recover-private", add_one<add_recover_private>},
                                            {"adduser-hook", add_one<add_adduser_hook>},
                                            {"migrate", add_one<add_migrate>},
                                            {"bench", add_one<add_bench>},
                                            {"fsck", add_one<add_fsck>},
                                            {"stat", add_one<add_stat>},
                                            {"find", add_one<add_find>},
                                            {"setup-boot", add_one<add_setup_boot>},
                                            {"setup-swap", add_one<add_setup_swap>},
                                            {"", add_several<add_wrapped_passphrase>}}};

int run(const std::vector<std::string>& args) {
  Parser parser("ecfs", "ecfs keeps private files encrypted on disk and opens them at login.",
                std::string("ecfs ") + ECFS_VERSION);
  const CommandLine top = parser.top();
  top.set_footer(
      "Begin with:      ecfs setup-private      an encrypted ~/Private that opens at login\n"
      "or with:         ecfs init DIRECTORY     any encrypted directory\n"
      "Each command has --help and a man page, as in `man ecfs-mount`.");
  // Declaring them all takes as long as the rest of a short command: only the one that is called, if it is known.
  std::vector<Command> commands;
  const auto is_called = [&](const Listed& c) { return !args.empty() && !args[0].empty() && c.name == args[0]; };
  const bool known = std::any_of(kCommands.begin(), kCommands.end(), is_called);
  for (const Listed& listed : kCommands) {
    if (!known || is_called(listed)) listed.add(top, commands);
  }

  const Parsed parsed = parser.parse(args);
  if (parsed.text) {
    std::fputs(parsed.text->c_str(), stdout);
    return 0;
  }
  const auto command =
      std::find_if(commands.begin(), commands.end(), [&](const Command& c) { return c.line == parsed.command; });
  if (parsed.mistake) {
    note(*parsed.mistake);
    note_more("See `" + parsed.name + " --help`.");
    return command == commands.end() ? kExitUsage : command->usage;
  }
  if (command == commands.end()) return kExitUsage;
  const Result<int> done = command->work();
  if (done) return *done;
  report(done.error());
  return command->failed.value_or(exit_code_of(done.error().code));
}

int run_program(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  // Passphrases pass through here: no core file, and no other program of the user may look in.
#ifndef ECFS_SANITIZED  // the leak checker traces its own process
  if (auto done = no_core_dumps(); !done) {
    report(done.error());
    return 1;
  }
#endif
  // A deep tree holds one descriptor a level.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  int code = 1;
  try {
    code =
        run(arguments(argc > 0 ? argv[0] : "ecfs", std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc)));
  } catch (const std::exception& failure) {
    report({Code::kNoMemory, 0, std::string("out of memory or an internal error: ") + failure.what()});
  }
  if (const int number = caught_signal(); number != 0 && code != 0) {
    // So that a shell sees that it was interrupted.
    signal(number, SIG_DFL);
    raise(number);
  }
  return code;
}

}  // namespace
}  // namespace ecfs::setup

int main(int argc, char** argv) { return ecfs::setup::run_program(argc, argv); }
