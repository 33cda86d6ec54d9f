// ecfs mount: serve a volume at a mountpoint. Also mount.ecfs, for mount(8) and fstab.
#include <signal.h>
#include <unistd.h>

#include <memory>

#include "setup/command.h"
#include "setup/ecryptfs.h"
#include "setup/mounting.h"
#include "setup/suspending.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"

namespace ecfs::setup {
namespace {

constexpr std::string_view kPassphraseFileOption = "passphrase-file=";

struct Options {
  std::string lower;
  std::string mountpoint;
  std::vector<std::string> mount_options;
  bool foreground = false;
  bool quiet = false;
  bool fake = false;
  UnlockOptions unlock;
};

volatile sig_atomic_t g_server = 0;
void pass_on(int number) { kill(static_cast<pid_t>(g_server), number); }

// The server got the terminal's signals itself; those sent to this process alone are passed on.
Result<int> stay(Child& server) {
  g_server = static_cast<sig_atomic_t>(server.pid());
  for (const int number : {SIGTERM, SIGHUP}) {
    struct sigaction action {};
    action.sa_handler = pass_on;
    action.sa_flags = SA_RESTART;
    sigaction(number, &action, nullptr);
  }
  signal(SIGINT, SIG_IGN);
  ECFS_LET(const int status, server.wait());
  return status == 0 ? 0 : 1;
}

// Takes passphrase-file=F, which is meant for us and not for the server, out of the options (fstab has no other place),
// and splits the others into one each.
void take_passphrase_file(Options& o) {
  std::vector<std::string> rest;
  for (const std::string& list : o.mount_options) {
    std::size_t begin = 0;
    while (begin <= list.size()) {
      const std::size_t end = std::min(list.find(',', begin), list.size());
      const std::string item = list.substr(begin, end - begin);
      if (item.starts_with(kPassphraseFileOption)) {
        if (!o.unlock.source.given()) o.unlock.source.file = item.substr(kPassphraseFileOption.size());
      } else if (!item.empty()) {
        rest.push_back(item);
      }
      begin = end + 1;
    }
  }
  o.mount_options = std::move(rest);
}

Result<int> done(const Options& o, const VolumeRef& volume, Child& server) {
  if (!o.quiet) say(volume.shown() + " is open at " + o.mountpoint + (o.foreground ? "; Ctrl-C unmounts it" : ""));
  if (o.foreground) return stay(server);
  return 0;
}

Result<int> run_ecryptfs(const Options& o, MountJob job, const EcryptfsWords& words) {
  const VolumeRef& volume = *job.volume;
  if (o.unlock.recovery) {
    return Error{Code::kInvalid, 0, volume.shown() + " is an eCryptfs tree: it has no recovery key but its passphrase"};
  }
  if (!o.unlock.slot.empty()) {
    return Error{Code::kInvalid, 0,
                 volume.shown() + " is an eCryptfs tree: key slots are those of a Private (`ecfs mount-private`)"};
  }
  if (o.fake) {
    ECFS_TRY(check_fuse());
    ECFS_TRY(check_not_mounted(volume.lower_path));
    ECFS_TRY(check_mountpoint(o.mountpoint, volume.lower_path));
    return 0;
  }
  if (!check_not_mounted(volume.lower_path)) {
    ECFS_LET(const bool resumed, resume_ecryptfs(volume, words, o.unlock));
    if (resumed) {
      if (!o.quiet) say(volume.shown() + " is open again");
      return 0;
    }
  }
  ECFS_LET(Child server, mount_ecryptfs(job, o.mountpoint, words, o.unlock));
  return done(o, volume, server);
}

Result<int> run(Options& o) {
  take_passphrase_file(o);
  ECFS_LET(const EcryptfsWords words, take_ecryptfs_words(o.mount_options));
  ECFS_LET(const VolumeRef volume, find_lower(o.lower));
  MountJob job;
  job.volume = &volume;
  job.foreground = o.foreground;
  std::vector<std::string> items = volume.profile ? volume.profile->profile.options : std::vector<std::string>();
  items.insert(items.end(), o.mount_options.begin(), o.mount_options.end());
  ECFS_LET(job.options, wrap::parse_mount_options(items));
  ECFS_LET(const bool ecryptfs, is_ecryptfs_tree(volume, words.any || job.options.ecryptfs.has_value()));
  if (ecryptfs) return run_ecryptfs(o, std::move(job), words);
  if (o.fake) {
    ECFS_TRY(open_store(volume));
    ECFS_TRY(check_fuse());
    ECFS_TRY(check_not_mounted(volume.lower_path));
    ECFS_TRY(check_mountpoint(o.mountpoint, volume.lower_path));
    return 0;
  }
  if (!check_not_mounted(volume.lower_path)) {
    ECFS_LET(const bool resumed, resume_if_suspended(volume, o.unlock));
    if (resumed) {
      if (!o.quiet) say(volume.shown() + " is open again");
      return 0;
    }
  }
  ECFS_LET(Child server, open_and_mount(job, o.mountpoint, o.unlock));
  return done(o, volume, server);
}

}  // namespace

Command add_mount(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("mount", "Open a volume: mount its lower directory");
  command.add_option("LOWER", o->lower, "The encrypted directory").required();
  command.add_option("MOUNTPOINT", o->mountpoint, "An empty directory of yours").required();
  command
      .add_option("-o,--options", o->mount_options,
                  "Mount options: ro, noatime, allow_other, show-conflicts, shared, idle=MINUTES, suspend, hibernate, "
                  "unsealed=report, passphrase-file=FILE; of eCryptfs trees those of mount.ecryptfs(8): "
                  "ecryptfs_sig=SIGNATURE, "
                  "ecryptfs_fnek_sig=SIGNATURE, ecryptfs_cipher=NAME, ecryptfs_key_bytes=N, ecryptfs_passthrough, ...")
      .value_name("OPTIONS")
      .repeatable();
  command.add_flag("-f,--foreground", o->foreground,
                   "Stay in the foreground, messages on stderr, until it is unmounted");
  command.add_flag("-q,--quiet", o->quiet, "Say nothing when all went well");
  command.add_flag("--check-only", o->fake, "Do all checks that need no passphrase, and mount nothing");
  add_unlock_options(command, o->unlock);
  add_slot_option(command, o->unlock);
  add_tcti_option(command, o->unlock.tcti);
  command.set_footer(
      "Examples:\n"
      "  ecfs mount ~/vault.enc ~/vault\n"
      "  ecfs mount --slot tpm2 ~/vault.enc ~/vault\n"
      "  ecfs mount -o ro --recovery /media/backup/.Private ~/restore\n"
      "  ecfs mount --passphrase-fd 0 vault.enc vault < passphrase\n"
      "  ecfs mount ~/.Private ~/Private        (an eCryptfs tree: asks for what it cannot see)");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
