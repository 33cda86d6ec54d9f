// ecfs-swap: what `ecfs setup-swap` runs, and, as `ecfs-swap start NAME` and `stop NAME`, the unit
// ecfs-swap@NAME.service.
//
// The work on devices is done by a child. When that is killed, the parent brings what it began to an end, so that swap
// is on again; were both killed, the next run does.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <functional>
#include <nlohmann/json.hpp>

#include "setup/json.h"
#include "setup/messages.h"
#include "setup/swap/options.h"
#include "setup/swap/plan.h"
#include "setup/swap/survey.h"
#include "setup/swap/work.h"
#include "setup/ui.h"
#include "wrap/base/log.h"
#include "wrap/base/secret.h"

namespace ecfs::swap {
namespace {

using nlohmann::json;
using setup::note;
using setup::say;

const char* action_name(Action action) {
  switch (action) {
    case Action::kNothing: return "nothing";
    case Action::kEncrypt: return "encrypt";
    case Action::kRefuse: return "refuse";
  }
  return "";
}

json to_json(const Plan& plan) {
  const Area& area = plan.facts.area;
  json out = {{"path", area.swap.path},
              {"kind", kind_name(area.kind)},
              {"size_bytes", area.swap.size_bytes},
              {"used_bytes", area.swap.used_bytes},
              {"priority", area.swap.priority},
              {"encrypted", area.encrypted},
              {"plan", action_name(plan.action)},
              {"reason", plan.reason}};
  if (plan.action == Action::kEncrypt) {
    out["name"] = plan.name;
    out["stable"] = plan.facts.stable;
    out["steps"] = plan.steps;
    out["ends_hibernation"] = plan.ends_hibernation;
  }
  return out;
}

json to_json(const std::vector<Plan>& plans, const Machine& machine) {
  json list = json::array();
  for (const Plan& plan : plans) list.push_back(to_json(plan));
  return {{"swap", list}, {"off", machine.off}};
}

void explain(const std::vector<Plan>& plans, const Machine& machine) {
  if (plans.empty()) say("No swap is on.");
  for (const Plan& plan : plans) {
    const Area& area = plan.facts.area;
    say(area.swap.path + ": " + kind_name(area.kind) + ", " + size_text(area.swap.size_bytes) + ", " +
        size_text(area.swap.used_bytes) + " in use, priority " + std::to_string(area.swap.priority) +
        (area.encrypted ? "" : ", NOT ENCRYPTED"));
    switch (plan.action) {
      case Action::kNothing: say("  stays as it is: " + plan.reason); break;
      case Action::kRefuse: say("  cannot be done: " + plan.reason); break;
      case Action::kEncrypt:
        for (const std::string& step : plan.steps) say("  - " + step);
        if (plan.ends_hibernation) {
          say("  The machine will no longer hibernate: `systemctl mask hibernate.target hybrid-sleep.target`, and "
              "take");
          say("  resume= out of the boot loader's configuration, if it is there.");
        }
        break;
    }
  }
  for (const std::string& spec : machine.off) {
    say(spec + ": in /etc/fstab, but off");
    say("  cannot be done: `swapon` it and run this again, or take it out of fstab; as it is, it may come on "
        "unencrypted");
  }
}

bool any(const std::vector<Plan>& plans, Action action) {
  return std::any_of(plans.begin(), plans.end(), [&](const Plan& plan) { return plan.action == action; });
}

// What was interrupted is brought to an end; gives the words of what was done.
Status recover_all(int dir) {
  ECFS_LET(std::vector<Journal> journals, load(dir));
  for (auto journal = journals.rbegin(); journal != journals.rend(); ++journal) {
    const auto done = recover(dir, *journal);
    if (!done && done.error().code != Code::kNotFound) return done.error();
    // A disk that is away keeps the others from nothing.
    const std::string words = done ? *done : done.error().what;
    if (!words.empty()) note(words);
  }
  return {};
}

// Does `work` in a child; if that is killed, what it began is brought to an end here.
Result<int> supervised(int dir, const std::function<Status()>& work) {
  (void)std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return system_error(errno, "fork");
  if (pid == 0) {
    int code = 1;
    try {
      const setup::SignalGuard guard;
      const auto done = work();
      if (!done) note(done.error().what);
      code = done ? 0 : setup::exit_code_of(done.error().code);
    } catch (const std::exception& failure) {
      note(std::string("out of memory or an internal error: ") + failure.what());
    }
    (void)std::fflush(nullptr);
    _exit(code);
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) signal(number, SIG_IGN);  // the child takes them
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return system_error(errno, "wait for the work");
  }
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  note("the work was ended by signal " + std::to_string(WTERMSIG(status)));
  ECFS_TRY(recover_all(dir));
  return 1;
}

Status consent(const Options& o) {
  if (o.yes) return {};
  if (!setup::interactive()) return Error{Code::kInvalid, 0, "nothing was changed. --yes goes on without a question"};
  ECFS_LET(const bool go_on, setup::ask_yes("Go on?", true));
  if (!go_on) return Error{Code::kInvalid, 0, "nothing was changed"};
  return {};
}

bool is_of(const Journal& j, const std::string& device) {
  return device == j.path || device == j.name || device == "/dev/mapper/" + j.name || device == j.stable ||
         std::find(j.names.begin(), j.names.end(), device) != j.names.end();
}

bool is_asked(const Options& o, const Journal& j) {
  return o.devices.empty() ||
         std::any_of(o.devices.begin(), o.devices.end(), [&](const std::string& device) { return is_of(j, device); });
}

// What was encrypted before, or is in work; none if nothing ever was.
Result<std::vector<Journal>> known_journals() {
  auto dir = open_journals(false);
  if (dir) return load(dir->get());
  if (dir.error().code == Code::kNotFound) return std::vector<Journal>();
  return std::move(dir).error();
}

Result<int> run_undo(const Options& o) {
  auto dir = open_journals(false);
  std::vector<Journal> journals;
  Fd lock;
  if (dir) {
    if (!o.dry_run) {
      ECFS_LET(lock, lock_work(dir->get()));
    }
    ECFS_LET(journals, load(dir->get()));
  } else if (dir.error().code != Code::kNotFound) {
    return std::move(dir).error();
  }
  std::erase_if(journals, [&](const Journal& j) { return !is_asked(o, j); });
  std::reverse(journals.begin(), journals.end());
  json list = json::array();
  for (const Journal& j : journals) {
    list.push_back({{"name", j.name}, {"path", j.path}, {"stable", j.stable}, {"phase", phase_name(j.phase)}});
    if (!o.json) say(j.path + " (" + j.stable + "): becomes the swap again that it was, not encrypted");
  }
  if (journals.empty() && !o.json) say("Nothing to undo.");
  int code = 0;
  if (!o.dry_run && !journals.empty()) {
    ECFS_TRY(consent(o));
    ECFS_LET(code, supervised(dir->get(), [&]() -> Status {
               Status all;
               for (Journal& j : journals) {
                 auto done = undo(dir->get(), j);
                 if (!done && !all) note(all.error().what);
                 if (!done) all = std::move(done);
               }
               return all;
             }));
  }
  if (o.json) setup::print_json({{"undo", list}, {"done", !o.dry_run && code == 0}});
  if (!o.json && !o.dry_run && code == 0 && !journals.empty()) say("Done. All is as it was before.");
  return code;
}

// What an earlier run left unfinished, which a dry run only tells.
void tell_unfinished(const std::vector<Journal>& journals) {
  for (const Journal& j : journals) {
    if (j.phase == Phase::kEncrypted) continue;
    say(j.path + ": an earlier run was interrupted (" + phase_name(j.phase) + ", " + j.step +
        "); it would be ended first");
  }
}

Result<int> run_setup(const Options& o) {
  Fd dir;
  Fd lock;
  if (!o.dry_run) {
    ECFS_LET(dir, open_journals(true));
    ECFS_LET(lock, lock_work(dir.get()));
    ECFS_LET(const int recovered, supervised(dir.get(), [&] { return recover_all(dir.get()); }));
    if (recovered != 0) return recovered;
  }
  ECFS_LET(const std::vector<Journal> journals, known_journals());
  if (o.dry_run && !o.json) tell_unfinished(journals);
  ECFS_LET(const Survey before, survey());
  Wishes wishes{o.devices, o.cipher, o.no_hibernation, o.wipe};
  std::vector<Plan> plans = make_plans(before.facts, before.machine, wishes);
  if (!wishes.no_hibernation && !o.yes && !o.dry_run && setup::interactive()) {
    wishes.no_hibernation = true;
    std::vector<Plan> without = make_plans(before.facts, before.machine, wishes);
    if (std::any_of(without.begin(), without.end(), [](const Plan& plan) { return plan.ends_hibernation; })) {
      ECFS_LET(const bool give_up,
               setup::ask_yes("This machine is set up to hibernate, which encrypted swap ends. Give it up?", false));
      if (give_up) plans = std::move(without);
    }
  }
  for (const std::string& device : o.devices) {
    const bool known = std::any_of(plans.begin(), plans.end(), [&](const Plan& plan) {
      return plan.facts.area.swap.path == device || means_device(plan.facts, device);
    });
    const bool done = std::any_of(journals.begin(), journals.end(), [&](const Journal& j) { return is_of(j, device); });
    if (!known && !done) return Error{Code::kNotFound, 0, "no swap is on at " + device};
  }
  if (!o.json) explain(plans, before.machine);
  const bool refused = any(plans, Action::kRefuse) || (o.devices.empty() && !before.machine.off.empty());
  const bool work = any(plans, Action::kEncrypt);
  if (o.dry_run || !work) {
    if (o.json) setup::print_json(to_json(plans, before.machine));
    if (!o.json && o.dry_run) say("Nothing was changed: this was a dry run.");
    return refused ? 1 : 0;
  }
  ECFS_TRY(consent(o));
  ECFS_LET(const int code, supervised(dir.get(), [&]() -> Status {
             for (const Plan& plan : plans) {
               if (plan.action != Action::kEncrypt) continue;
               ECFS_TRY(encrypt(dir.get(), plan, o.cipher, o.wipe, before.machine.boot));
             }
             return {};
           }));
  ECFS_LET(const Survey after, survey());
  if (o.json) {
    json document = to_json(plans, before.machine);
    json now = json::array();
    for (const Area& area : after.areas) {
      now.push_back({{"path", area.swap.path}, {"encrypted", area.encrypted}, {"priority", area.swap.priority}});
    }
    document["now"] = now;
    document["done"] = code == 0;
    setup::print_json(document);
  } else if (code == 0) {
    say("");
    say(refused ? "Done, but for what cannot be done (above)."
                : "Done. Swap is encrypted, with a new key at each boot.");
    if (!o.wipe) {
      say("What was swapped out before can still be read on the disk until it is written over; --wipe, after --undo,");
      say("writes over it at once.");
    }
    say("Back:   ecfs setup-swap --undo   (before the partition is used for something else, too)");
  }
  return code != 0 ? code : refused ? 1 : 0;
}

int run(const std::vector<std::string>& args) {
  setup::Parser parser("ecfs-swap", "Encrypts swap; run by `ecfs setup-swap` and ecfs-swap@.service.",
                       std::string("ecfs ") + ECFS_VERSION);
  const setup::CommandLine top = parser.top();
  Options options;
  std::string name;
  const setup::CommandLine set = declare(top, options);
  const setup::CommandLine start = top.add_command("start", "Make a mapping of /etc/crypttab, with a swap header");
  start.add_option("NAME", name, "Name of the mapping").required();
  const setup::CommandLine stop = top.add_command("stop", "Switch its swap off and take it away");
  stop.add_option("NAME", name, "Name of the mapping").required();
  const setup::Parsed parsed = parser.parse(args);
  if (parsed.text) {
    std::fputs(parsed.text->c_str(), stdout);
    return 0;
  }
  if (parsed.mistake) {
    note(*parsed.mistake);
    return setup::kExitUsage;
  }
  Result<int> done = 0;
  if (geteuid() != 0) {
    done = Error{Code::kDenied, 0, "swap is the machine's: root is needed (sudo ecfs setup-swap)"};
  } else if (parsed.command == set) {
    done = options.undo ? run_undo(options) : run_setup(options);
  } else {
    constexpr int kWaitMs = 30000;  // for a disk that the kernel has not found yet
    const Status ended = is_name(name) ? parsed.command == start ? set_up(name, kWaitMs) : take_down(name)
                                       : Status(Error{Code::kInvalid, 0, name + " is not a name of ours"});
    if (!ended) done = ended.error();
  }
  if (done) return *done;
  note(done.error().what);
  return setup::exit_code_of(done.error().code);
}

int run_program(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
#ifndef ECFS_SANITIZED  // the leak checker traces its own process
  if (auto done = no_core_dumps(); !done) {
    note(done.error().what);
    return 1;
  }
#endif
  try {
    return run(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
  } catch (const std::exception& failure) {
    note(std::string("out of memory or an internal error: ") + failure.what());
  }
  return 1;
}

}  // namespace
}  // namespace ecfs::swap

int main(int argc, char** argv) { return ecfs::swap::run_program(argc, argv); }
