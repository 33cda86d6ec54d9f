// ecfs adduser-hook: what adduser(8) runs as /usr/local/sbin/adduser.local for a new account, whose home it encrypts
// from the start. Whatever goes wrong, the account is made: the exit code is 0.
#include <memory>

#include "setup/command.h"
#include "setup/messages.h"
#include "setup/ui.h"
#include "setup/whole_home.h"
#include "wrap/base/log.h"
#include "wrap/base/process.h"

namespace ecfs::setup {
namespace {

struct Options {
  std::string user;
  std::string uid;
  std::string gid;
  std::string home;
};

// What adduser says of the account has to be what the system says.
Status check_account(const Options& o) {
  auto who = identity_of(o.user);
  if (!who) return with_context(std::move(who).error(), "user " + printable(o.user));
  if (std::to_string(who->uid) == o.uid && std::to_string(who->gid) == o.gid && who->home == o.home) return {};
  return Error{Code::kInvalid, 0, "the account " + who->name + " has another uid, gid or home than was said"};
}

Result<int> run(const Options& o) {
  const auto who = identity_of(o.user);
  if (who && is_system_account(who->uid)) return 0;
  const std::string later = "sudo ecfs setup-private --whole-home --user " + printable(o.user);
  Status done = check_account(o);
  if (done && !interactive()) {
    note("the home of " + o.user + " is not encrypted; to do that: " + later);
    return 0;
  }
  if (done) {
    const auto wanted = ask_yes("Encrypt the home of " + o.user + ", so that it opens with the password?", true);
    if (!wanted || !*wanted) return 0;
    WholeHomeOptions home;
    home.user = o.user;
    home.keep_original = false;
    home.yes = true;
    auto made = encrypt_home(home);
    if (made) return 0;
    done = std::move(made).error();
  }
  report(done.error());
  note("the account stays; to encrypt its home later: " + later);
  return 0;
}

}  // namespace

Command add_adduser_hook(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command =
      parent.add_command("adduser-hook", "Encrypt the home of a new account (for adduser.local)");
  command.add_option("USERNAME", o->user, "The new account").required();
  command.add_option("UID", o->uid, "Its user id").required();
  command.add_option("GID", o->gid, "Its group id").required();
  command.add_option("HOME", o->home, "Its home").required();
  command.set_footer(
      "Example: encrypt the homes of all accounts that adduser makes from now on\n"
      "  ln -s /usr/bin/ecfs /usr/local/sbin/adduser.local");
  return {command, [o] { return run(*o); }, 0, 0};
}

}  // namespace ecfs::setup
