// ecfs init: a new volume in a new or empty directory.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>

#include "setup/command.h"
#include "setup/json.h"
#include "setup/new_volume.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"

namespace ecfs::setup {
namespace {

struct Options {
  std::string lower;
  VolumeOptions volume;
  SecretSource passphrase;
  bool allow_weak = false;
  bool no_password = false;
  bool no_recovery = false;
  CostOptions cost;
  RecoveryOptions recovery;
  bool json = false;
};

Result<int> run(const Options& o) {
  const SignalGuard guard;
  ECFS_LET(NewDirectory dir, NewDirectory::make(o.lower, 0700));
  if (!o.no_recovery) ECFS_TRY(check_recovery_options(o.recovery));

  ECFS_LET(NewVolume volume, begin_volume(o.volume, dir.fd()));
  if (!o.no_password) {
    ECFS_LET(const Secret passphrase, choose_passphrase(o.passphrase, "New passphrase: ", o.allow_weak));
    ECFS_LET(const wrap::Argon2Cost cost, choose_cost(o.cost));
    ECFS_TRY(volume.add_password("", passphrase, cost));
  }
  if (!o.no_recovery) {
    ECFS_LET(const wrap::RecoveryKey key, make_recovery_key(o.recovery, dir.path()));
    ECFS_TRY(volume.add_recovery("", key));
  }
  ECFS_TRY(check_signals());
  wrap::VolumeStore::Places places;
  places.lower_dir = dir.fd();
  auto store = wrap::VolumeStore::create(places, volume.header, std::move(volume.area), volume.key);
  if (!store) return with_context(std::move(store).error(), "make the volume in " + dir.path());
  ECFS_TRY(check_signals());
  dir.keep();

  if (o.json) {
    print_json(
        {{"lower", dir.path()}, {"volume_id", to_hex(store->header().id)}, {"slots", slots_json(store->area())}});
  } else {
    say("Made the volume " + dir.path() + ".");
    say("Open it:   ecfs mount " + o.lower + " MOUNTPOINT");
  }
  return 0;
}

}  // namespace

Command add_init(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("init", "Make a new encrypted volume in an empty directory");
  command.add_option("LOWER", o->lower, "Directory for the encrypted files: new, or empty").required();
  add_volume_options(command, o->volume);
  add_secret_options(command, o->passphrase, "the new passphrase");
  command.add_flag("--allow-weak-passphrase", o->allow_weak, "Take a weak passphrase without asking");
  add_cost_options(command, o->cost);
  const Option no_password =
      command.add_flag("--no-password", o->no_password, "No passphrase: the recovery key alone opens it");
  command.add_flag("--no-recovery", o->no_recovery, "No recovery key: with the passphrase lost, all is lost")
      .excludes(no_password);
  add_recovery_options(command, o->recovery);
  command.add_flag("--json", o->json, "Describe the new volume as JSON");
  command.set_footer(
      "Examples:\n"
      "  ecfs init ~/vault.enc\n"
      "  ecfs init --passphrase-fd 0 --recovery-key-file key.txt backup.enc < passphrase\n"
      "  ecfs init --block-size 64k --name-encoding base32hex /media/stick/vault");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
