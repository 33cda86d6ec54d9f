// The ecfs tool: takes the command line apart and runs one command.
#include <signal.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

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
  if (name.starts_with("ecfs-")) args.insert(args.begin(), name.substr(5));
  return args;
}

// The innermost command named, and the names before it.
std::pair<const CLI::App*, std::string> deepest(const CLI::App& app) {
  const CLI::App* asked = &app;
  std::string above;
  while (!asked->get_subcommands().empty()) {
    above += (above.empty() ? "" : " ") + asked->get_name();
    asked = asked->get_subcommands().front();
  }
  return {asked, above};
}

int run(const std::vector<std::string>& args) {
  CLI::App app("ecfs keeps private files encrypted on disk and opens them at login.", "ecfs");
  app.set_version_flag("--version", std::string("ecfs ") + ECFS_VERSION);
  app.set_help_all_flag("--help-all", "Describe all commands");
  app.require_subcommand(1);
  app.footer(
      "Begin with:      ecfs setup-private      an encrypted ~/Private that opens at login\n"
      "or with:         ecfs init DIRECTORY     any encrypted directory\n"
      "Each command has --help and a man page, as in `man ecfs-mount`.");
  std::vector<Command> commands = {add_setup_private(app), add_mount_private(app), add_umount_private(app),
                                   add_status(app),        add_init(app),          add_mount(app),
                                   add_umount(app)};
  for (Command& command : add_key(app)) commands.push_back(std::move(command));
  commands.push_back(add_recover_private(app));
  commands.push_back(add_bench(app));
  commands.push_back(add_fsck(app));
  commands.push_back(add_stat(app));
  commands.push_back(add_find(app));
  for (Command& command : add_wrapped_passphrase(app)) commands.push_back(std::move(command));
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::CallForHelp&) {
    // Deepest command named: its help.
    const auto [asked, above] = deepest(app);
    std::fputs((asked->help(above) + "\n").c_str(), stdout);
    return 0;
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& wrong) {
    const auto [asked, above] = deepest(app);
    const std::string name = (above.empty() ? "" : above + " ") + asked->get_name();
    if (const std::vector<std::string> rest = asked->remaining();
        asked->get_require_subcommand_min() > 0 && !rest.empty()) {
      note("there is no command '" + name + " " + rest.front() + "'");
    } else {
      note(wrong.what());
    }
    note_more("See `" + name + " --help`.");
    for (const Command& command : commands) {
      if (command.app == asked) return command.usage;
    }
    return kExitUsage;
  }
  for (const Command& command : commands) {
    if (!command.app->parsed()) continue;
    const Result<int> done = command.work();
    if (done) return *done;
    report(done.error());
    return command.failed.value_or(exit_code_of(done.error().code));
  }
  return kExitUsage;
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
