// ecfs setup-private: the wizard that makes a directory which opens at login.
//
// Until the last step nothing of the user's is changed, and every failure, also Ctrl-C, takes back all that was made.
// What a kill leaves behind is found by the next run through a marker file (`setup-unfinished` beside the keys): either
// the originals are where they were, or the copy is complete, compared and in place.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "setup/command.h"
#include "setup/json.h"
#include "setup/mounting.h"
#include "setup/move.h"
#include "setup/new_volume.h"
#include "setup/private_volume.h"
#include "setup/setup_marker.h"
#include "setup/swap/areas.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "setup/whole_home.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"

namespace ecfs::setup {
namespace {

struct Options {
  std::string name{wrap::kDefaultVolumeName};
  std::string lower;
  std::string mountpoint;
  bool no_auto_mount = false;
  bool no_auto_unmount = false;
  bool no_recovery = false;
  bool slots_in_volume = false;
  bool yes = false;
  bool move_existing = false;
  bool no_move = false;
  bool allow_weak = false;
  bool json = false;
  bool tpm2 = false;
  bool no_tpm2 = false;
  std::string pcrs = "none";
  bool whole_home = false;
  bool remove_original = false;
  bool undo = false;
  std::string user;
  UnlockOptions unlock;  // its source: the login password
  VolumeOptions volume;
  CostOptions cost;
  RecoveryOptions recovery;
};

// What will be made, found out by checks alone.
struct Plan {
  Identity me;
  wrap::Profile profile;
  std::string aside;      // where what is in the mountpoint now goes
  bool has_data = false;  // the mountpoint holds files
  bool move = false;      // they are moved inside; else they stay in `aside`
  Survey survey;
  struct stat original {};  // of the mountpoint with the files
};

// ---- what a kill left behind

bool lstat_ok(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

// Removes ~/.ecfs/NAME of a setup that did not come to its end: the marker last, so that a kill in the middle of this
// leaves something that the next run understands.
Status remove_keys(int profiles_dir, const std::string& name) {
  auto dir = open_directory(profiles_dir, name);
  if (!dir) return std::move(dir).error();
  ECFS_LET(const std::vector<std::string> names, list_directory(dir->get()));
  for (const std::string& entry : names) {
    if (entry == kSetupMarkerName) continue;
    if (unlinkat(dir->get(), entry.c_str(), entry == kStagingName ? AT_REMOVEDIR : 0) != 0) {
      return system_error(errno, "remove " + entry);
    }
  }
  return remove_tree(profiles_dir, name);
}

bool is_inode(const std::string& path, std::uint64_t dev, std::uint64_t ino) {
  struct stat st {};
  return ino != 0 && lstat(path.c_str(), &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

// ---- checks

Result<std::vector<std::string>> users_entries(int dir) {
  ECFS_LET(std::vector<std::string> names, list_directory(dir));
  names.erase(std::remove(names.begin(), names.end(), std::string(wrap::kPlaceholderName)), names.end());
  return names;
}

Status check_existing(const Options& o, const Plan& plan, int profiles_dir) {
  if (profiles_dir >= 0) {
    auto dir = open_directory(profiles_dir, o.name);
    if (dir) {
      const std::vector<std::string> names = list_directory(dir->get()).value_or(std::vector<std::string>());
      if (std::find(names.begin(), names.end(), "profile.json") != names.end()) {
        return Error{
            Code::kBusy, EEXIST,
            "you have a volume '" + o.name + "' already (see `ecfs status`); another one needs another --name"};
      }
      if (!names.empty()) {
        return Error{
            Code::kBusy, EEXIST,
            "~/.ecfs/" + o.name + " is there already, without a profile that could be read; move it away first"};
      }
    }
  }
  struct stat st {};
  const std::string ecryptfs = plan.me.home + "/.ecryptfs";
  if (lstat(ecryptfs.c_str(), &st) == 0) {
    if (plan.profile.lower == plan.me.home + "/.Private" || plan.profile.mountpoint == plan.me.home + "/Private") {
      return Error{Code::kBusy, EEXIST,
                   "this home has an eCryptfs Private directory (" + ecryptfs +
                       "); it stays as it is. For a second, new one give --name, as in --name Vault"};
    }
    note("the eCryptfs Private directory of this home stays as it is");
  }
  return {};
}

// Is the home itself in an encrypted filesystem? Worth knowing, not wrong.
void tell_encrypted_home(const Plan& plan) {
  auto all = wrap::mounts();
  if (!all) return;
  const wrap::MountEntry* holder = nullptr;
  for (const wrap::MountEntry& mount : *all) {
    const bool around =
        mount.mountpoint == "/" || plan.me.home == mount.mountpoint || plan.me.home.starts_with(mount.mountpoint + "/");
    if (around && (holder == nullptr || mount.mountpoint.size() >= holder->mountpoint.size())) holder = &mount;
  }
  if (holder == nullptr) return;
  for (const char* type : {"ecryptfs", "fuse.ecfs", "fuse.gocryptfs", "fuse.encfs", "fuse.cryfs", "fuse.securefs"}) {
    if (holder->fstype == type)
      note("your home is encrypted already (" + holder->fstype + "); this adds a second layer");
  }
}

// The mountpoint as it is now: missing, empty, or with files that have to go somewhere.
Status check_place(Plan& plan, const Options& o) {
  const std::string& path = plan.profile.mountpoint;
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::mount_at(path));
  if (mounted) {
    return Error{Code::kBusy, EBUSY,
                 "something (" + mounted->fstype + ") is mounted at " + path + "; unmount it first"};
  }
  struct stat& st = plan.original;
  if (lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return system_error(errno, path);
  }
  if (S_ISLNK(st.st_mode))
    return Error{Code::kInvalid, ELOOP, path + " is a symbolic link; remove it, or choose another --mountpoint"};
  if (!S_ISDIR(st.st_mode))
    return Error{Code::kInvalid, ENOTDIR, path + " is not a directory; choose another --mountpoint"};
  if (st.st_uid != plan.me.uid) return Error{Code::kDenied, EPERM, path + " belongs to another user"};
  ECFS_LET(const Fd dir, open_directory(AT_FDCWD, path));
  ECFS_LET(const std::vector<std::string> names, users_entries(dir.get()));
  plan.has_data = !names.empty();
  if (!plan.has_data) return {};

  plan.aside = path + ".unencrypted";
  struct stat other {};
  if (lstat(plan.aside.c_str(), &other) == 0) {
    return Error{Code::kBusy, EEXIST,
                 plan.aside + " exists, which is where the files of " + path + " would be put; move it away first"};
  }
  plan.move = o.move_existing;
  if (!o.move_existing && !o.no_move) {
    if (!interactive()) {
      return Error{
          Code::kInvalid, ENOTEMPTY,
          path + " holds files: say --move-existing to move them inside, or --no-move to leave them, unencrypted, in " +
              plan.aside};
    }
    ECFS_LET(plan.move, ask_yes(printable(path) + " holds files. Move them inside, so that they are encrypted?", true));
  }
  const std::vector<wrap::Holder> users = users_of(path);
  if (!users.empty()) {
    return Error{Code::kBusy, EBUSY, "files in " + path + " are in use: close " + programs_text(users)};
  }
  if (!plan.move) return {};
  ECFS_LET(plan.survey, survey_tree(dir.get(), plan.me.uid));
  if (!plan.survey.obstacles.empty()) {
    note("the files in " + path + " cannot be moved as they are:");
    for (const std::string& sentence : plan.survey.obstacles) note_more(sentence);
    return Error{Code::kInvalid, 0, "nothing was changed; clear this up, or say --no-move"};
  }
  return {};
}

Result<Plan> make_plan(const Options& o) {
  Plan plan;
  ECFS_LET(plan.me, caller());
  if (plan.me.uid == 0) {
    return Error{Code::kInvalid, 0,
                 "run this as the user whose files are to be encrypted, not as root (for a whole home there is "
                 "--whole-home, for any other directory `ecfs init`)"};
  }
  if (!wrap::valid_profile_name(o.name))
    return Error{Code::kInvalid, 0, "'" + o.name + "' cannot be the name of a volume"};
  plan.profile.name = o.name;
  ECFS_LET(plan.profile.lower, absolute_path(o.lower.empty() ? plan.me.home + "/." + o.name : o.lower));
  ECFS_LET(plan.profile.mountpoint, absolute_path(o.mountpoint.empty() ? plan.me.home + "/" + o.name : o.mountpoint));
  plan.profile.auto_mount = !o.no_auto_mount;
  plan.profile.auto_unmount = !o.no_auto_unmount;
  plan.profile.slots_in_volume = o.slots_in_volume;
  ECFS_TRY(fill_random(plan.profile.volume_id));  // stands in for the one to come
  ECFS_TRY(wrap::build_profile(plan.profile));    // can these paths be written down at all?
  const std::string lower = plan.profile.lower + "/";
  const std::string mountpoint = plan.profile.mountpoint + "/";
  if (lower.starts_with(mountpoint) || mountpoint.starts_with(lower)) {
    return Error{Code::kInvalid, 0, "the encrypted directory and the mountpoint must not be inside one another"};
  }
  return plan;
}

// ---- making it

// Puts the new mountpoint in the place of the old directory, in one step where the filesystem can.
Status put_in_place(const Plan& plan) {
  const std::string& path = plan.profile.mountpoint;
  ECFS_LET(const Fd above, open_directory(AT_FDCWD, parent_of(path)));
  const std::string name = base_of(path);
  if (!plan.has_data) {
    ECFS_LET(const Fd dir, make_directory(above.get(), name, 0700));
    if (auto noted = place_note(dir.get(), plan.profile.name, plan.profile.lower); !noted) {
      unlinkat(dir.get(), std::string(wrap::kPlaceholderName).c_str(), 0);
      if (plan.original.st_ino != 0) {
        (void)fchmod(dir.get(), plan.original.st_mode & 07777);
      } else {
        unlinkat(above.get(), name.c_str(), AT_REMOVEDIR);
      }
      return noted;
    }
    return sync_directory(above.get());
  }
  const std::string aside = base_of(plan.aside);
  if (mkdirat(above.get(), aside.c_str(), 0700) != 0) return system_error(errno, "make " + plan.aside);
  Undo undo;
  undo.add([&] { (void)remove_tree(above.get(), aside); });
  {
    ECFS_LET(const Fd dir, open_directory(above.get(), aside));
    ECFS_TRY(place_note(dir.get(), plan.profile.name, plan.profile.lower));
  }
  if (!is_inode(path, plan.original.st_dev, plan.original.st_ino)) {
    return Error{Code::kBusy, 0, path + " was exchanged by another program"};
  }
  if (renameat2(above.get(), name.c_str(), above.get(), aside.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno != EINVAL && errno != ENOSYS) return system_error(errno, "put the mountpoint in place of " + path);
    const std::string fresh = aside + ".new";
    if (renameat(above.get(), aside.c_str(), above.get(), fresh.c_str()) != 0)
      return system_error(errno, "rename " + plan.aside);
    undo.forget();
    undo.add([&above, fresh] { (void)remove_tree(above.get(), fresh); });
    if (renameat(above.get(), name.c_str(), above.get(), aside.c_str()) != 0)
      return system_error(errno, "rename " + path);
    if (renameat(above.get(), fresh.c_str(), above.get(), name.c_str()) != 0) {
      const Error error = system_error(errno, "put the mountpoint at " + path);
      (void)renameat(above.get(), aside.c_str(), above.get(), name.c_str());
      return error;
    }
  }
  undo.forget();
  return sync_directory(above.get());
}

// Removes the originals that the volume holds. Gives the number of those that stay.
Result<std::uint64_t> remove_originals(const VolumeRef& volume, const Secret& key, const std::string& aside,
                                       timespec compared_at) {
  const std::vector<wrap::Holder> users = users_of(aside);
  if (!users.empty()) {
    return Error{Code::kBusy, EBUSY,
                 "the originals, now in " + aside + ", are in use by " + programs_text(users) +
                     " and were not removed. Close these programs and run `ecfs setup-private` again"};
  }
  ECFS_LET(const Fd originals, open_directory(AT_FDCWD, aside));
  ECFS_LET(Staging staging, Staging::mount(volume, key));
  ECFS_LET(const Removal removal, remove_copied(originals.get(), staging.root(), compared_at));
  ECFS_TRY(staging.end());
  for (const std::string& sentence : removal.kept) warn("stays in " + aside + ": " + sentence);
  if (removal.num_kept == 0) (void)rmdir(aside.c_str());
  return removal.num_kept;
}

void end_marker(const VolumeRef& volume) {
  unlinkat(volume.profile->dir.get(), kStagingName, AT_REMOVEDIR);
  unlinkat(volume.profile->dir.get(), kSetupMarkerName, 0);
  (void)sync_directory(volume.profile->dir.get());
}

void tell_swap() {
  const auto areas = swap::areas(swap::this_machine());
  const std::string plain = areas ? swap::not_encrypted(*areas) : "";
  if (!plain.empty()) {
    note("swap on " + plain +
         " is not encrypted and can hold pieces of open files: `sudo ecfs setup-swap` encrypts it, or tells what to do "
         "instead");
  }
}

void explain(const Plan& plan, const Options& o) {
  say("This makes a directory whose files are stored encrypted, and which opens when you log in:");
  say("  files        " + plan.profile.mountpoint + "   (visible while it is open)");
  say("  encrypted    " + plan.profile.lower + "   (back this one up)");
  say("  keys         your login password" + std::string(o.tpm2 ? " together with the TPM of this computer" : "") +
      (o.no_recovery ? "" : ", and a recovery key to write down"));
  if (o.tpm2) {
    say("With the TPM, who has the disk alone cannot even try passwords, and who has the computer too only a few at a "
        "time. On another");
    say("computer, or when the TPM was cleared, the recovery key is the only way to the files.");
    if (o.pcrs != "none") {
      say("Bound to PCR " + o.pcrs +
          ", it opens no more with the password after a change of what these measure (firmware, boot settings), until "
          "you");
      say("open it with the recovery key and run `ecfs key reseal`.");
    }
  }
  if (plan.move) {
    say(fmt::format("What {} holds now ({} entries, {}) is moved inside: copied, compared, and then removed.",
                    plan.profile.mountpoint, plan.survey.num_entries, size_text(plan.survey.data_bytes)));
  } else if (plan.has_data) {
    say("What " + plan.profile.mountpoint + " holds now stays unencrypted, in " + plan.aside + ".");
  }
}

void print_end(const Plan& plan, const Options& o) {
  const std::string suffix = o.name == wrap::kDefaultVolumeName ? "" : " " + o.name;
  say("");
  say("Done. " + plan.profile.mountpoint +
      (plan.profile.auto_mount ? " opens at your next login." : " is opened by hand."));
  say("  by hand      ecfs mount-private" + suffix + "      ecfs umount-private" + suffix);
  say("  encrypted    " + plan.profile.lower);
  if (!o.no_recovery) {
    say("Keep the recovery key safe: without it and without your password nobody can get the files back.");
    say("With it and a copy of " + plan.profile.lower + ":   ecfs recover-private");
  }
  if (plan.move) {
    say("What the moved files took up on the disk before can still be read there until it is written over (on an SSD "
        "or a");
    say("journaling filesystem nothing can force that).");
  } else if (plan.has_data) {
    say("Your former files are in " + plan.aside + ", unencrypted.");
  }
}

// Takes back what a killed run left behind before anything of the user's was touched.
Status clear_remains(int profiles_dir, const std::string& name, const SetupMarker& marker) {
  if (is_inode(marker.lower, marker.lower_dev, marker.lower_ino)) {
    ECFS_TRY(check_not_mounted(marker.lower));
    ECFS_LET(const Fd lower, open_directory(AT_FDCWD, marker.lower));
    // The server of a mount just detached may still put something down.
    Status cleared;
    for (int i = 0; i < 20; ++i) {
      cleared = remove_contents(lower.get());
      if (cleared && (!marker.lower_made || rmdir(marker.lower.c_str()) == 0)) break;
      poll(nullptr, 0, 100);
    }
    ECFS_TRY(cleared);
  }
  // The new mountpoint, made but not yet put in place: it holds our note alone, so nothing of the user's can go with
  // it.
  for (const std::string& fresh : {marker.aside, marker.aside + ".new"}) {
    if (marker.aside.empty()) break;
    auto left = open_directory(AT_FDCWD, fresh);
    if (!left) continue;
    (void)fchmod(left->get(), 0700);
    ECFS_LET(const std::vector<std::string> names, list_directory(left->get()));
    for (const std::string& entry : names) {
      if (entry.starts_with(wrap::kPlaceholderName)) unlinkat(left->get(), entry.c_str(), 0);
    }
    (void)rmdir(fresh.c_str());
  }
  return remove_keys(profiles_dir, name);
}

// What a killed run left: cleared away (false: start anew), or brought to its end (true).
Result<bool> resume(const Options& o, const Plan& plan, int profiles_dir) {
  auto dir = open_directory(profiles_dir, o.name);
  if (!dir) return false;
  auto marker = read_setup_marker(dir->get());
  if (!marker) {
    if (marker.error().code == Code::kNotFound) {
      // Killed before the marker was there: then nothing else is either.
      ECFS_LET(const std::vector<std::string> names, list_directory(dir->get()));
      const bool nothing = std::all_of(names.begin(), names.end(), [](const std::string& name) {
        return name == "lock" || name.starts_with(std::string(kSetupMarkerName) + ".tmp-");
      });
      if (nothing) ECFS_TRY(remove_keys(profiles_dir, o.name));
      return false;
    }
    return with_context(std::move(marker).error(), "~/.ecfs/" + o.name);
  }
  auto held = wrap::lock_volume(dir->get(), 0);
  if (!held) {
    if (held.error().code != Code::kBusy) return std::move(held).error();
    return Error{Code::kBusy, EBUSY, "another `ecfs setup-private` is at work on " + o.name};
  }
  ECFS_TRY(Staging::clear(dir->get()));
  const bool moved = is_inode(marker->aside, marker->original_dev, marker->original_ino);
  auto volume = find_profile(o.name);
  const bool placed =
      volume && (marker->original_ino == 0 ? lstat_ok(marker->mountpoint)
                                           : !is_inode(marker->mountpoint, marker->original_dev, marker->original_ino));
  if (!placed) {
    note("an earlier setup of " + o.name +
         " was interrupted; your files were not touched. Clearing up and starting anew.");
    ECFS_TRY(clear_remains(profiles_dir, o.name, *marker));
    return false;
  }
  if (marker->original_ino == 0 || !lstat_ok(marker->mountpoint)) {
    ECFS_LET(const Fd mountpoint, make_directory(AT_FDCWD, marker->mountpoint, 0700));
    ECFS_TRY(place_note(mountpoint.get(), o.name, marker->lower));
  }
  if (moved && marker->move) {
    note("an earlier setup of " + o.name +
         " was interrupted while it removed the originals. All files are in the volume;");
    note_more("what is left of the originals, in " + marker->aside + ", is compared with it and removed.");
    ECFS_LET(wrap::VolumeStore store, open_store(*volume));
    ECFS_LET(const wrap::Unlocked unlocked, unlock(store, o.unlock, o.name, Token::kTry));
    ECFS_LET(const std::uint64_t kept, remove_originals(*volume, unlocked.key, marker->aside, {0, 0}));
    if (kept > 0)
      warn(std::to_string(kept) + " originals differ from what the volume holds and stay in " + marker->aside);
  }
  end_marker(*volume);
  say(o.name + " is set up (" + plan.profile.mountpoint + ").");
  return true;
}

// How far make() came: what fails once the volume is complete and in place takes nothing back.
enum class Stage { kNothingMade, kMaking, kPlaced };

Result<int> make(const Options& o, Plan& plan, Stage& stage) {
  NewKeys keys;
  if (!o.unlock.source.given())
    note("the passphrase must be the password that you log in with: it opens the directory then");
  ECFS_LET(keys.passphrase, choose_passphrase(o.unlock.source, "Your login password: ", o.allow_weak));
  ECFS_LET(keys.cost, choose_cost(o.cost));
  if (o.tpm2) {
    ECFS_LET(wrap::Tpm2 tpm, start_tpm2(o.unlock.tcti));
    keys.tpm.emplace(std::move(tpm));
    ECFS_LET(keys.pcrs, wrap::parse_pcrs(o.pcrs));
  }

  // From here on things are made; `undo` and the owners below take them back, last made first.
  const bool first = !wrap::open_profiles_dir(plan.me);
  auto made_dir = wrap::make_profiles_dir(plan.me);
  if (!made_dir) return with_context(std::move(made_dir).error(), "the directory of the keys in " + plan.me.home);
  const Fd profiles_dir = *std::move(made_dir);
  stage = Stage::kMaking;
  Undo undo;
  if (first) undo.add([&] { (void)rmdir((plan.me.home + "/.ecfs").c_str()); });
  if (mkdirat(profiles_dir.get(), o.name.c_str(), 0700) != 0 && errno != EEXIST) {
    return system_error(errno, "make the directory of the keys, ~/.ecfs/" + o.name);
  }
  undo.add([&] { (void)remove_keys(profiles_dir.get(), o.name); });
  VolumeRef volume;
  volume.lower_path = plan.profile.lower;
  volume.profile.emplace();
  volume.profile->profile = plan.profile;
  ECFS_LET(volume.profile->dir, open_directory(profiles_dir.get(), o.name));
  ECFS_LET(const Fd held, wrap::lock_volume(volume.profile->dir.get(), 0));
  SetupMarker marker;
  marker.lower = plan.profile.lower;
  marker.mountpoint = plan.profile.mountpoint;
  marker.aside = plan.aside;
  marker.move = plan.move;
  if (plan.has_data) {
    marker.original_dev = plan.original.st_dev;
    marker.original_ino = plan.original.st_ino;
  }
  ECFS_TRY(write_setup_marker(volume.profile->dir.get(), marker));

  ECFS_LET(NewDirectory lower, NewDirectory::make(plan.profile.lower, 0700));
  struct stat st {};
  if (fstat(lower.fd(), &st) != 0) return system_error(errno, "stat " + plan.profile.lower);
  marker.lower_dev = st.st_dev;
  marker.lower_ino = st.st_ino;
  marker.lower_made = lower.made();
  ECFS_TRY(write_setup_marker(volume.profile->dir.get(), marker));
  ECFS_LET(volume.lower_dir, open_directory(AT_FDCWD, plan.profile.lower));
  warn_about_lower(volume.lower_dir.get(), plan.profile.lower);

  if (!o.no_recovery) {
    std::function<void()> take_back;
    ECFS_LET(wrap::RecoveryKey recovery, make_recovery_key(o.recovery, o.name, &take_back));
    undo.add(take_back);
    keys.recovery.emplace(std::move(recovery));
  }
  ECFS_LET(const Secret key, make_volume(volume, o.volume, keys));
  plan.profile.volume_id = volume.profile->profile.volume_id;
  timespec compared_at{};
  if (plan.move) {
    ECFS_LET(const Fd originals, open_directory(AT_FDCWD, plan.profile.mountpoint));
    ECFS_LET(compared_at, copy_inside(volume, key, originals.get(), plan.profile.mountpoint, plan.survey, {}));
  }
  ECFS_TRY(check_signals());
  ECFS_TRY(wrap::save_profile(volume.profile->dir.get(), plan.profile));
  ECFS_TRY(put_in_place(plan));
  undo.forget();
  lower.keep();
  stage = Stage::kPlaced;

  std::uint64_t kept = 0;
  if (plan.move) {
    ECFS_LET(kept, remove_originals(volume, key, plan.aside, compared_at));
  }
  end_marker(volume);
  if (o.json) {
    auto store = open_store(volume, false);
    print_json({{"name", o.name},
                {"lower", plan.profile.lower},
                {"mountpoint", plan.profile.mountpoint},
                {"volume_id", to_hex(plan.profile.volume_id)},
                {"moved", plan.move},
                {"originals_kept", kept},
                {"slots", store ? slots_json(store->area()) : nlohmann::json::array()}});
  } else {
    print_end(plan, o);
  }
  tell_swap();
  return kept == 0 ? 0 : 1;
}

// What stands against a key in the TPM, before anything is asked.
Status check_tpm2(const Options& o) {
  ECFS_LET(const wrap::PcrSet pcrs, wrap::parse_pcrs(o.pcrs));
  if (!o.tpm2) {
    if (pcrs != 0) return Error{Code::kInvalid, 0, "--pcrs is for --tpm2"};
    return {};
  }
  if (o.no_recovery) {
    return Error{Code::kInvalid, 0, "--tpm2 needs a recovery key: without it all is lost with the TPM"};
  }
  ECFS_LET(wrap::Tpm2 tpm, start_tpm2(o.unlock.tcti));
  ECFS_TRY(tpm.status({}));
  return {};
}

// Where nothing was said about it, and a person and a TPM that can be used are there: is it to take part?
Result<bool> ask_tpm2(const Options& o) {
  if (o.tpm2 || o.no_tpm2 || o.no_recovery || o.yes || o.json || !interactive()) return o.tpm2;
  auto tpm = start_tpm2(o.unlock.tcti);
  if (!tpm || !tpm->status({})) return false;
  say("This computer has a TPM. With it, who has the disk alone cannot try passwords; elsewhere only the recovery key");
  say("opens the files.");
  return ask_yes("Is the password to open them together with this TPM only?", false);
}

Result<int> run_whole_home(const Options& o) {
  if (o.no_auto_mount) return Error{Code::kInvalid, 0, "a whole home has to open at login"};
  if (o.tpm2) return Error{Code::kInvalid, 0, "a whole home gets its key in the TPM later: `ecfs key add tpm2 Home`"};
  if (o.remove_original) return remove_original(o.user);
  if (o.undo) return undo_home(o.user);
  WholeHomeOptions home;
  home.user = o.user;
  home.no_auto_unmount = o.no_auto_unmount;
  home.no_recovery = o.no_recovery;
  home.slots_in_volume = o.slots_in_volume;
  home.yes = o.yes;
  home.allow_weak = o.allow_weak;
  home.json = o.json;
  home.password = o.unlock.source;
  home.volume = o.volume;
  home.cost = o.cost;
  home.recovery = o.recovery;
  return encrypt_home(home);
}

Result<int> run(Options o) {
  if (o.whole_home) return run_whole_home(o);
  if (!o.user.empty() || o.remove_original || o.undo) {
    return Error{Code::kInvalid, 0, "--user, --remove-original and --undo go with --whole-home"};
  }
  const SignalGuard guard;
  ECFS_TRY(check_tpm2(o));
  ECFS_LET(Plan plan, make_plan(o));
  ECFS_TRY(check_fuse());
  {
    auto profiles_dir = wrap::open_profiles_dir(plan.me);
    if (!profiles_dir && profiles_dir.error().code != Code::kNotFound) return std::move(profiles_dir).error();
    if (profiles_dir) {
      ECFS_LET(const bool finished, resume(o, plan, profiles_dir->get()));
      if (finished) return 0;
    }
    ECFS_TRY(check_existing(o, plan, profiles_dir ? profiles_dir->get() : -1));
  }
  {  // made, looked at, and taken back at once: can LOWER be made there?
    ECFS_TRY(NewDirectory::make(plan.profile.lower, 0700));
  }
  ECFS_TRY(check_place(plan, o));
  ECFS_TRY(check_space(parent_of(plan.profile.lower), plan.move ? &plan.survey : nullptr));
  if (!o.no_recovery) ECFS_TRY(check_recovery_options(o.recovery));
  tell_encrypted_home(plan);
  ECFS_LET(o.tpm2, ask_tpm2(o));
  if (!o.json) explain(plan, o);
  if (!o.yes) {
    ECFS_LET(const bool go_on, ask_yes("Go on?", true));
    if (!go_on) return Error{Code::kInvalid, 0, "nothing was changed"};
  }
  Stage stage = Stage::kNothingMade;
  auto done = make(o, plan, stage);
  if (done) return done;
  if (caught_signal() != 0) {
    done.error().what = "interrupted";
    if (stage == Stage::kPlaced) {
      done.error().what += " while the originals in " + plan.aside +
                           " were removed. All files are in the volume; run `ecfs setup-private` again to finish";
    }
  }
  if (stage == Stage::kNothingMade) done.error().what += ". Nothing was changed";
  if (stage == Stage::kMaking) done.error().what += ". All that was made is removed again; your files are as they were";
  return done;
}

}  // namespace

Command add_setup_private(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command =
      parent.add_command("setup-private", "Make an encrypted directory that opens when you log in");
  const Option whole_home =
      command.add_flag("--whole-home", o->whole_home, "As root: encrypt the whole home of a user who is not logged in");
  command.add_option("--user", o->user, "Whose home").value_name("NAME");
  const Option remove =
      command.add_flag("--remove-original", o->remove_original, "Remove the unencrypted original of a whole home");
  command.add_flag("--undo", o->undo, "Put the original of a whole home back").excludes(remove);
  command.add_option("--name", o->name, "Name of the volume").show_default().excludes(whole_home);
  command.add_option("--lower", o->lower, "Directory for the encrypted files; default: ~/.NAME")
      .value_name("DIR")
      .excludes(whole_home);
  command.add_option("--mountpoint", o->mountpoint, "Where the files are seen; default: ~/NAME")
      .value_name("DIR")
      .excludes(whole_home);
  command.add_flag("--no-auto-mount", o->no_auto_mount, "Do not open it at login");
  command.add_flag("--no-auto-unmount", o->no_auto_unmount, "Do not lock it at the last logout");
  command.add_flag(
      "--slots-in-volume", o->slots_in_volume,
      "Keep the password slot in the encrypted directory, too: a backup then opens with the password, and a "
      "weak password exposes the backup");
  command.add_flag("--yes", o->yes, "Do not ask whether to go on");
  const Option move =
      command.add_flag("--move-existing", o->move_existing, "Move what the mountpoint holds now inside");
  command.add_flag("--no-move", o->no_move, "Leave it, unencrypted, beside the mountpoint").excludes(move);
  add_secret_options(command, o->unlock.source, "the login password");
  command.add_flag("--allow-weak-passphrase", o->allow_weak, "Take a weak password without asking");
  command.add_flag("--no-recovery", o->no_recovery, "No recovery key: with the password lost, all is lost");
  const Option tpm2 = command.add_flag("--tpm2", o->tpm2, "The login password together with the TPM of this computer");
  command.add_flag("--no-tpm2", o->no_tpm2, "Without it, and without being asked").excludes(tpm2);
  command.add_option("--pcrs", o->pcrs, "Registers of the TPM to bind to, too, as in 7 or 0,2,7").value_name("LIST");
  add_tcti_option(command, o->unlock.tcti);
  add_recovery_options(command, o->recovery);
  add_cost_options(command, o->cost);
  add_volume_options(command, o->volume);
  command.add_flag("--json", o->json, "Describe the new volume as JSON");
  command.set_footer(
      "Examples:\n"
      "  ecfs setup-private\n"
      "  ecfs setup-private --yes --move-existing --recovery-key-file key.txt --passphrase-fd 0 < password\n"
      "  ecfs setup-private --name Work --lower /data/alice/work.enc --mountpoint ~/Work\n"
      "  sudo ecfs setup-private --whole-home --user alice");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
