// ecfs setup-boot: a directory of the system that opens at boot, by a key that the TPM keeps.
//
// Every failure, also Ctrl-C, takes back all that was made. What a kill leaves is taken up by the next run: a volume
// that is complete is used as it is, with the recovery key that was handed over before it was written; and where the
// file for the unit is there, only the unit is started.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "setup/boot_file.h"
#include "setup/command.h"
#include "setup/json.h"
#include "setup/mounting.h"
#include "setup/new_volume.h"
#include "setup/private_volume.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/process.h"
#include "wrap/profile.h"

namespace ecfs::setup {
namespace {

constexpr const char* kSystemctl = "/bin/systemctl";
constexpr const char* kSystemdRuns = "/run/systemd/system";  // sd_booted(3)
constexpr int kSystemctlMs = 150000;                         // longer than the unit's own limits together
constexpr int kServerMs = 60000;
constexpr int kBusyMs = 5000;
constexpr std::size_t kMaxBootFileBytes = 65536;
constexpr std::size_t kMaxUnitNameBytes = 255;

struct Options {
  std::string mountpoint;
  std::string lower;
  std::string pcrs = "7";
  std::string mount_options = "allow_other";
  bool undo = false;
  bool yes = false;
  bool json = false;
  UnlockOptions unlock;
  VolumeOptions volume;
  RecoveryOptions recovery;
};

struct Plan {
  BootFile file;
  std::string name;       // of the file and the unit's instance
  bool make_dir = false;  // the mountpoint is not there yet
  bool existing = false;  // LOWER is a volume already
  bool written = false;   // and the file for the unit is there, by an earlier run
};

std::string unit_of(const Plan& plan) { return "ecfs-mount@" + plan.name + ".service"; }

// Absolute, and without what would make one path two: "//", "/./", a slash at the end.
Result<std::string> tidy_path(const std::string& path, const char* what) {
  if (const std::string fault = wrap::fault_of_path(path); !fault.empty()) {
    return Error{Code::kInvalid, 0, std::string(what) + " " + printable(path) + " " + fault};
  }
  std::string tidy;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, end - at);
    at = end + 1;
    if (!part.empty() && part != ".") tidy += "/" + part;
  }
  if (tidy.empty()) return Error{Code::kInvalid, 0, std::string(what) + " cannot be /"};
  return tidy;
}

// What root opens, at boot too, must not be for others to exchange: nobody else may write in a directory on the way,
// and none is a link.
Status check_roots_alone(const std::string& directory) {
  for (std::string path = directory;; path = parent_of(path)) {
    struct stat st {};
    if (lstat(path.c_str(), &st) != 0) return system_error(errno, path);
    if (!S_ISDIR(st.st_mode)) return Error{Code::kInvalid, ENOTDIR, path + " is not a directory, or a symbolic link"};
    if (st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
      return Error{Code::kDenied, 0, path + " is not root's alone: others could put something else in the way"};
    }
    if (path == "/") return {};
  }
}

bool systemd_runs() {
  struct stat st {};
  return lstat(kSystemdRuns, &st) == 0 && S_ISDIR(st.st_mode);
}

Status systemctl(std::vector<std::string> words) {
  SpawnOptions options;
  options.argv = {kSystemctl, "--quiet", "--no-ask-password"};
  options.argv.insert(options.argv.end(), words.begin(), words.end());
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  ECFS_LET(Child child, spawn(options));
  ECFS_LET(const int status, child.wait(kSystemctlMs));
  if (status == 0) return {};
  std::string command = "systemctl";
  for (const std::string& word : words) command += " " + word;
  return Error{Code::kUnavailable, 0,
               command + " failed (status " + std::to_string(status) + "); the journal says why"};
}

Result<Fd> make_boot_files() {
  ECFS_LET(const Fd etc, open_directory(AT_FDCWD, "/etc"));
  ECFS_LET(const Fd ecfs, make_directory(etc.get(), "ecfs", 0755));
  return make_directory(ecfs.get(), "boot.d", 0755);
}

// What is written down for the unit; kNotFound: nothing.
Result<std::string> read_boot_file(const std::string& name) {
  ECFS_LET(const Fd files, open_directory(AT_FDCWD, kBootFiles));
  ECFS_LET(const Bytes bytes, read_file(files.get(), name, kMaxBootFileBytes, 0));
  return std::string(as_text(bytes));
}

bool has_entry(const VolumeRef& volume, const std::string& name) {
  struct stat st {};
  return fstatat(volume.lower_dir.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
}

// LOWER is a volume already: has it what is needed?
Status check_volume(const VolumeRef& volume, const Options& o) {
  ECFS_LET(const wrap::VolumeStore store, open_store(volume));
  if (store.area().count(wrap::SlotType::kTpm2) == 0) {
    return Error{Code::kInvalid, 0,
                 volume.lower_path + " has no key that the TPM opens by itself: ecfs key add tpm2 --pcrs " + o.pcrs +
                     " " + volume.lower_path};
  }
  // One that opens without the TPM is always there (VolumeStore); a passphrase can be forgotten.
  if (store.area().count(wrap::SlotType::kRecovery) == 0) {
    warn(volume.lower_path + " has no recovery key: without this TPM nothing but its passphrase opens it");
    note_more("ecfs key add recovery " + volume.lower_path);
  }
  return {};
}

Result<Plan> make_plan(const Options& o) {
  if (geteuid() != 0) return Error{Code::kDenied, EACCES, "a directory of the system is set up by root"};
  Plan plan;
  ECFS_LET(plan.file.mountpoint, tidy_path(o.mountpoint, "the directory"));
  plan.name = unit_escape(plan.file.mountpoint);
  if (unit_of(plan).size() > kMaxUnitNameBytes) {
    return Error{Code::kInvalid, ENAMETOOLONG, plan.file.mountpoint + " is too long for the name of a unit"};
  }
  plan.file.options = o.mount_options;
  if (o.undo) return plan;
  const std::string lower =
      !o.lower.empty() ? o.lower : parent_of(plan.file.mountpoint) + "/." + base_of(plan.file.mountpoint);
  ECFS_LET(plan.file.lower, tidy_path(lower, "the directory of the encrypted files"));
  if (is_inside(plan.file.lower, plan.file.mountpoint) || is_inside(plan.file.mountpoint, plan.file.lower)) {
    return Error{Code::kInvalid, 0, "the directory and that of the encrypted files must not be inside one another"};
  }
  ECFS_LET(const std::string text, build_boot_file(plan.file));
  ECFS_TRY(wrap::parse_mount_options({o.mount_options}));
  ECFS_TRY(check_roots_alone(parent_of(plan.file.mountpoint)));
  ECFS_TRY(check_roots_alone(parent_of(plan.file.lower)));
  auto written = read_boot_file(plan.name);
  if (!written && written.error().code != Code::kNotFound) return std::move(written).error();
  plan.written = written.has_value();
  if (plan.written && *written != text) {
    return Error{Code::kBusy, EEXIST,
                 plan.file.mountpoint + " opens at boot already, in another way (" + kBootFiles + "/" + plan.name +
                     "); --undo ends that"};
  }
  struct stat st {};
  plan.make_dir = lstat(plan.file.mountpoint.c_str(), &st) != 0 && errno == ENOENT;
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::ecfs_mount_at(plan.file.mountpoint));
  if (!plan.make_dir && !(plan.written && mounted)) {
    // Else others could put something into it while it is locked, and it would not open any more.
    ECFS_TRY(check_roots_alone(plan.file.mountpoint));
    auto place = check_mountpoint(plan.file.mountpoint, plan.file.lower);
    if (!place) {
      return with_context(std::move(place).error(),
                          "the directory has to be new or empty (files that are there go inside once it is open)");
    }
  }
  const auto volume = find_lower(plan.file.lower);
  // `.bak` comes first when a volume is made, and opens as well.
  const std::string header = wrap::kVolumeFileName;
  plan.existing = volume && (has_entry(*volume, header) || has_entry(*volume, header + ".bak"));
  if (plan.existing) ECFS_TRY(check_volume(*volume, o));
  if (plan.written && !plan.existing) {
    return Error{Code::kNotFound, 0,
                 plan.file.lower + " is no volume any more, and " + plan.file.mountpoint +
                     " is to open at boot; --undo ends that"};
  }
  return plan;
}

// Programs that look into every new mount for a moment are waited for.
Status close_again(const std::string& mountpoint) {
  Status done;
  for (int waited_ms = 0;; waited_ms += 100) {
    done = unmount_volume(mountpoint, false);
    if (done || done.error().code != Code::kBusy || waited_ms >= kBusyMs) break;
    poll(nullptr, 0, 100);
  }
  if (!done && done.error().code == Code::kBusy) (void)unmount_volume(mountpoint, true);
  return done;
}

// Opens it as the unit will, and locks it again.
Status prove(const Plan& plan, const Options& o) {
  ECFS_LET(const VolumeRef volume, find_lower(plan.file.lower));
  MountJob job;
  job.volume = &volume;
  ECFS_LET(job.options, wrap::parse_mount_options({plan.file.options}));
  UnlockOptions by_tpm = o.unlock;
  by_tpm.slot = "tpm2";
  auto server = open_and_mount(job, plan.file.mountpoint, by_tpm);
  if (!server) return with_context(std::move(server).error(), "opened as at boot");
  const Status closed = close_again(plan.file.mountpoint);
  ECFS_LET(const int status, server->wait(kServerMs));
  ECFS_TRY(closed);
  if (status != 0) return Error{Code::kIo, 0, "ecfs-mountd reported a failure at the unmount"};
  return {};
}

// A run that was killed while it wrote the header leaves nothing else in LOWER, and nothing that opens.
Status clear_unfinished(const std::string& lower) {
  auto dir = open_directory(AT_FDCWD, lower);
  if (!dir) return {};  // what stands against it is said by NewDirectory
  ECFS_LET(const std::vector<std::string> names, list_directory(dir->get()));
  const auto unfinished = [](const std::string& name) {
    return name == std::string(wrap::kVolumeFileName) + ".tmp" ||
           name == std::string(wrap::kVolumeFileName) + ".bak.tmp";
  };
  if (!std::all_of(names.begin(), names.end(), unfinished)) return {};
  for (const std::string& name : names) {
    if (unlinkat(dir->get(), name.c_str(), 0) != 0) return system_error(errno, "remove " + lower + "/" + name);
  }
  return {};
}

// `undo` takes back the file of the recovery key.
Status make_volume_here(const NewDirectory& lower, const Options& o, const std::string& shown, Undo& undo) {
  ECFS_LET(const wrap::PcrSet pcrs, wrap::parse_pcrs(o.pcrs));
  ECFS_LET(wrap::Tpm2 tpm, start_tpm2(o.unlock.tcti));
  ECFS_LET(NewVolume fresh, begin_volume(o.volume, lower.fd()));
  // The TPM first: what it cannot do is found out before a recovery key is written down.
  ECFS_TRY(fresh.add_tpm2("boot", {&tpm, pcrs, nullptr, {}}));
  std::function<void()> take_back;
  ECFS_LET(const wrap::RecoveryKey key, make_recovery_key(o.recovery, shown, &take_back));
  undo.add(take_back);
  ECFS_TRY(fresh.add_recovery("", key));
  ECFS_TRY(check_signals());
  wrap::VolumeStore::Places places;
  places.lower_dir = lower.fd();
  ECFS_TRY(wrap::VolumeStore::create(places, fresh.header, std::move(fresh.area), fresh.key));
  // The TPM is proven by opening it as at boot.
  ECFS_LET(wrap::VolumeStore made, wrap::VolumeStore::open(places));
  ECFS_LET(const wrap::Unlocked opened, made.unlock_with_recovery(key));
  if (!opened.key.equals(fresh.key)) return Error{Code::kIo, 0, "the recovery key does not open the new volume"};
  return {};
}

// Has the unit open it, now and from the next boot on.
Status start(const Plan& plan) {
  ECFS_TRY(systemctl({"enable", unit_of(plan)}));
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::ecfs_mount_at(plan.file.mountpoint));
  if (mounted) return {};
  // It may be active, if somebody unmounted the directory by hand.
  return systemctl({"restart", unit_of(plan)});
}

void take_back_unit(const Plan& plan) {
  (void)systemctl({"stop", unit_of(plan)});
  (void)systemctl({"disable", unit_of(plan)});
  (void)systemctl({"reset-failed", unit_of(plan)});
  (void)close_again(plan.file.mountpoint);  // a start that failed late may have left it open
}

Result<int> make(const Options& o, const Plan& plan) {
  Undo undo_directory;
  if (plan.make_dir) {
    ECFS_LET(const Fd above, open_directory(AT_FDCWD, parent_of(plan.file.mountpoint)));
    ECFS_TRY(make_directory(above.get(), base_of(plan.file.mountpoint), 0755));
    undo_directory.add([&plan] { (void)rmdir(plan.file.mountpoint.c_str()); });
    ECFS_TRY(sync_directory(above.get()));
  }
  std::optional<NewDirectory> lower;
  Undo undo;
  if (!plan.existing) {
    ECFS_TRY(clear_unfinished(plan.file.lower));
    // The mode is that of the directory when it is open; who may read the files is for their modes to say.
    ECFS_LET(NewDirectory made, NewDirectory::make(plan.file.lower, 0755));
    lower.emplace(std::move(made));
    ECFS_TRY(make_volume_here(*lower, o, plan.file.lower, undo));
  }
  ECFS_LET(const std::optional<wrap::MountEntry> open_already, wrap::ecfs_mount_at(plan.file.mountpoint));
  if (!open_already) ECFS_TRY(prove(plan, o));
  ECFS_TRY(check_signals());
  if (!plan.written) {
    ECFS_LET(const std::string text, build_boot_file(plan.file));
    ECFS_LET(const Fd files, make_boot_files());
    undo.add([] { (void)rmdir(kBootFiles); });
    ECFS_TRY(replace_file(files.get(), plan.name, as_bytes(text), 0644));
    undo.add([&plan] { unlink((std::string(kBootFiles) + "/" + plan.name).c_str()); });
  }
  const bool running = systemd_runs();
  if (running) {
    if (!plan.written) undo.add([&plan] { take_back_unit(plan); });
    ECFS_TRY(start(plan));
  }
  undo.forget();
  undo_directory.forget();
  if (lower) lower->keep();
  if (o.json) {
    print_json(
        {{"mountpoint", plan.file.mountpoint}, {"lower", plan.file.lower}, {"unit", unit_of(plan)}, {"open", running}});
    return 0;
  }
  say("Done. " + plan.file.mountpoint + " opens when this computer starts, by the key in its TPM.");
  say("  encrypted    " + plan.file.lower + "   (back this one up)");
  say("  unit         " + unit_of(plan) + (running ? ", which has it open now" : ""));
  if (!running) say("systemd does not run here. Where it does: systemctl enable --now '" + unit_of(plan) + "'");
  say("Keep the recovery key safe: when the TPM does not give its key any more, it opens the directory by hand,");
  say("  ecfs mount -o " + plan.file.options + " " + shell_word(plan.file.lower) + " " +
      shell_word(plan.file.mountpoint));
  say("and binds the key anew when firmware or boot were changed:   ecfs key reseal --slot tpm2 " +
      shell_word(plan.file.lower));
  return 0;
}

Result<int> undo(const Plan& plan) {
  auto text = read_boot_file(plan.name);
  if (!text && text.error().code == Code::kNotFound) {
    return Error{Code::kNotFound, 0, plan.file.mountpoint + " does not open at boot"};
  }
  const auto file = text ? parse_boot_file(*text) : Result<BootFile>(text.error());
  const bool running = systemd_runs();
  // What needs the directory is stopped with the unit, so that it is not busy with that.
  if (running) ECFS_TRY(systemctl({"stop", unit_of(plan)}));
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::ecfs_mount_at(plan.file.mountpoint));
  if (mounted) {
    if (auto done = unmount_volume(plan.file.mountpoint, false); !done) {
      return with_context(std::move(done).error(), "it opens at boot still, and --undo has to be said again");
    }
  }
  if (running) {
    ECFS_TRY(systemctl({"disable", unit_of(plan)}));
    (void)systemctl({"reset-failed", unit_of(plan)});  // fails where it has not failed
  }
  ECFS_LET(const Fd files, open_directory(AT_FDCWD, kBootFiles));
  if (unlinkat(files.get(), plan.name.c_str(), 0) != 0) return system_error(errno, "remove " + plan.name);
  ECFS_TRY(sync_directory(files.get()));
  (void)rmdir(kBootFiles);  // if it was the last
  say(plan.file.mountpoint + " does not open at boot any more. Its files stay, encrypted" +
      (file ? ", in " + file->lower + ": ecfs mount " + shell_word(file->lower) + " " + shell_word(file->mountpoint)
            : std::string()));
  return 0;
}

void explain(const Plan& plan, const Options& o) {
  say("This makes a directory that opens when this computer starts:");
  const auto options = wrap::parse_mount_options({plan.file.options});
  const bool for_all = options && options->allow_other;
  say("  files        " + plan.file.mountpoint + (for_all ? "   (for all users, as modes allow)" : "   (for root)"));
  say("  encrypted    " + plan.file.lower + (plan.existing ? "   (the volume that is there)" : ""));
  if (plan.existing) return;
  say("  keys         the TPM of this computer" +
      (o.pcrs == "none" ? std::string() : ", started as it is now (PCR " + o.pcrs + ")") + ", and a recovery key");
  say("Who takes the disk alone cannot read it. Who takes the whole computer can start it, and then it opens: keep "
      "from it");
  say("what only a person should be able to open (that is what `ecfs setup-private` is for).");
}

// Where root writes the new recovery key, and removes it if all fails.
Status check_recovery_place(Options& o) {
  ECFS_TRY(check_recovery_options(o.recovery));
  if (o.recovery.file.empty()) return {};
  ECFS_LET(o.recovery.file, absolute_path(o.recovery.file));
  return check_roots_alone(parent_of(o.recovery.file));
}

Result<int> run(Options o) {
  const SignalGuard guard;
  ECFS_LET(const Plan plan, make_plan(o));
  if (o.undo) return undo(plan);
  ECFS_TRY(check_fuse());
  if (!plan.existing) {
    ECFS_TRY(wrap::parse_pcrs(o.pcrs));
    ECFS_TRY(check_recovery_place(o));
    ECFS_LET(wrap::Tpm2 tpm, start_tpm2(o.unlock.tcti));
    ECFS_TRY(tpm.status({}));
  }
  if (!o.json) explain(plan, o);
  if (!o.yes) {
    ECFS_LET(const bool go_on, ask_yes("Go on?", true));
    if (!go_on) return Error{Code::kInvalid, 0, "nothing was changed"};
  }
  auto done = make(o, plan);
  if (!done) {
    if (caught_signal() != 0) done.error().what = "interrupted";
    if (!plan.written) done.error().what += ". All that was made is removed again";
  }
  return done;
}

}  // namespace

Command add_setup_boot(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command =
      parent.add_command("setup-boot", "Make a directory of the system that opens at boot, by the TPM (root)");
  command.add_option("DIR", o->mountpoint, "Where the files are seen: new, or empty").required();
  command.add_option("--lower", o->lower, "Directory for the encrypted files, or a volume; default: .DIR beside it")
      .value_name("DIR");
  command.add_option("--pcrs", o->pcrs, "Registers of the TPM that have to be as they are now, or none")
      .value_name("LIST")
      .show_default();
  command.add_option("-o,--options", o->mount_options, "Mount options").value_name("OPTIONS").show_default();
  const Option yes = command.add_flag("--yes", o->yes, "Do not ask whether to go on");
  command.add_flag("--undo", o->undo, "Let it open at boot no more; the files stay").excludes(yes);
  add_tcti_option(command, o->unlock.tcti);
  add_recovery_options(command, o->recovery);
  add_volume_options(command, o->volume);
  command.add_flag("--json", o->json, "Describe it as JSON");
  command.set_footer(
      "Examples:\n"
      "  sudo ecfs setup-boot /secret\n"
      "  sudo ecfs setup-boot --pcrs 0,2,7 --recovery-key-file /root/secret.key --yes /srv/secret\n"
      "  sudo ecfs setup-boot --undo /secret");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
