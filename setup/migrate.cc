// ecfs migrate: brings what an eCryptfs tree holds into a new native volume, or the other way, file by file. Without a
// mount; setup/migration.h does the work, a marker in the new tree says that it is not complete, and of what.
//
// A volume that is given by its name opens from the new tree afterwards. Its new keys and profile are made in
// ~/.ecfs/.NAME.new, which is no volume's name; one rename puts it in place, and the former one to ~/.ecfs/.NAME.bak.
// The marker goes last.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "fs/ecryptfs_tree.h"
#include "fs/format/ecryptfs_format.h"
#include "fs/format/native_format.h"
#include "fs/volume.h"
#include "setup/command.h"
#include "setup/ecryptfs.h"
#include "setup/ecryptfs_private.h"
#include "setup/json.h"
#include "setup/locate.h"
#include "setup/migration.h"
#include "setup/mounting.h"
#include "setup/new_volume.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/ecryptfs_private.h"

namespace ecfs::setup {
namespace {

constexpr const char* kMarkerName = ".ecfs-migrate";
constexpr std::uint64_t kMaxMarkerBytes = 65536;
constexpr std::uint64_t kSpareBytes = 16U << 20;
constexpr std::uint64_t kEntryBytes = 12288;  // what an entry may cost: a header, the end of its last block, a name
constexpr int kExitLeft = 5;                  // as of kCorrupt: entries were left

struct Options {
  std::string from;
  std::string to;
  std::string format;
  std::vector<std::string> mount_options;
  bool remove_old = false;
  bool leave_unreadable = false;
  bool yes = false;
  bool json = false;
  UnlockOptions unlock;  // of FROM
  SecretSource new_passphrase{-1, "", "--new-passphrase"};
  bool allow_weak = false;
  bool no_password = false;
  bool no_recovery = false;
  VolumeOptions volume;
  CostOptions cost;
  RecoveryOptions recovery;
};

// ---- the marker

struct Marker {
  std::string from;            // path, for messages
  std::uint64_t from_ino = 0;  // of its lower directory
  std::string from_id;         // of a native volume
  std::string options;         // of the new tree, if it is an eCryptfs tree
  bool removes = false;        // a run had --remove-old
};

Status write_marker(int dir, const Marker& m) {
  const nlohmann::json text = {{"from", m.from},
                               {"from_ino", m.from_ino},
                               {"from_id", m.from_id},
                               {"options", m.options},
                               {"removes", m.removes}};
  return replace_file(dir, kMarkerName,
                      as_bytes(text.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"), 0600);
}

// kNotFound if there is none.
Result<Marker> read_marker(int dir) {
  ECFS_LET(const Bytes bytes, read_file(dir, kMarkerName, kMaxMarkerBytes, geteuid()));
  const nlohmann::json text = nlohmann::json::parse(bytes.begin(), bytes.end(), nullptr, false);
  Marker m;
  const auto word = [&](const char* name, std::string& out) {
    const auto at = text.find(name);
    if (at == text.end() || !at->is_string()) return false;
    out = at->get<std::string>();
    return true;
  };
  const bool whole = text.is_object() && word("from", m.from) && word("from_id", m.from_id) &&
                     word("options", m.options) && text.contains("from_ino") && text["from_ino"].is_number_unsigned() &&
                     text.contains("removes") && text["removes"].is_boolean();
  if (!whole) return Error{Code::kCorrupt, 0, std::string(kMarkerName) + " is damaged"};
  m.from_ino = text["from_ino"].get<std::uint64_t>();
  m.removes = text["removes"].get<bool>();
  return m;
}

// ---- the two trees

struct Tree {
  VolumeRef ref;
  Fd held;       // the lock of the profile
  Secret login;  // the password that opened the wrapped passphrase of a Private of eCryptfs
  bool ecryptfs = false;
  bool made = false;  // by this run
  std::optional<wrap::EcryptfsOptions> options;
  std::string id;  // of a native volume, in hex
  std::unique_ptr<fs::Format> format;
  std::unique_ptr<fs::Volume> volume;
  NodePtr root;
};

Status check_unused(const std::string& lower) {
  ECFS_TRY(check_not_mounted(lower));
  ECFS_LET(const std::vector<wrap::MountEntry> all, wrap::mounts());
  for (const wrap::MountEntry& mount : all) {
    if (mount.fstype == "ecryptfs" && mount.source == lower) {
      return Error{Code::kBusy, EBUSY, lower + " is mounted at " + mount.mountpoint + " by the kernel; unmount it"};
    }
  }
  return {};
}

// The lines of Volume that tell of single files are told by the migration.
void log_sink(int priority, std::string_view line) {
  if (priority > LOG_ERR) note(line);
}

Status open_volume_of(Tree& tree, bool read_only) {
  fs::VolumeOptions options;
  options.read_only = read_only;
  options.no_atime = true;
  Fd lower(fcntl(tree.ref.lower_dir.get(), F_DUPFD_CLOEXEC, 3));
  if (!lower) return system_error(errno, tree.ref.lower_path);
  auto volume = fs::Volume::open(std::move(lower), std::move(tree.format), options);
  if (!volume) return with_context(std::move(volume).error(), tree.ref.shown());
  tree.volume = *std::move(volume);
  tree.volume->start();
  ECFS_LET(tree.root, volume_tree(*tree.volume));
  return {};
}

// What is not said of an eCryptfs tree that is there is not asked for, but taken from it; if it is empty there is
// nothing by which to know its key.
Status take_from_tree(int lower, EcryptfsWords& words, wrap::EcryptfsOptions& options) {
  ECFS_LET(const fs::EcryptfsTree seen, fs::look_at_ecryptfs_tree(lower));
  words.as_it_is = seen.seen();
  if (words.as_it_is) return {};
  words.no_sig_cache = true;
  if (!words.encrypt_names) words.encrypt_names = options.name_signature.has_value();
  if (!options.passthrough) options.passthrough = false;
  if (options.cipher.empty()) options.cipher = "aes";
  if (options.key_bytes == 0) options.key_bytes = options.cipher == "des3_ede" ? 24 : 16;
  return {};
}

// `login`, if it is not null, is tried before anything is asked for.
Status open_native(Tree& tree, const UnlockOptions& unlock_options, bool writes, const Secret* login = nullptr) {
  ECFS_LET(wrap::VolumeStore store, open_store(tree.ref));
  auto unlocked = login == nullptr ? Result<wrap::Unlocked>(Error{}) : store.unlock_with_passphrase(*login);
  if (!unlocked) unlocked = unlock(store, unlock_options, tree.ref.shown(), Token::kTry);
  if (!unlocked) return std::move(unlocked).error();
  tree.id = to_hex(store.header().id);
  if (writes && store.header().must_be_read_only()) {
    return Error{Code::kUnsupported, 0,
                 tree.ref.shown() + " was written by a newer version of ecfs: it may be read only"};
  }
  if (writes) {  // a run may have been killed between the two names of the header
    if (auto repaired = store.repair(unlocked->key); !repaired) {
      warn(tree.ref.shown() + ": the damaged copy of the header stays as it is: " + repaired.error().what);
    }
  }
  ECFS_LET(tree.format, format_of(store, unlocked->key));
  return {};
}

// A Private opens with what opens it at login; any other tree with its passphrase.
Status open_ecryptfs_tree(Tree& tree, EcryptfsWords& words, const UnlockOptions& unlock_options, bool writes) {
  MountJob job;
  job.volume = &tree.ref;
  if (is_ecryptfs_volume(tree.ref) && !words.any) {
    ECFS_LET(const wrap::MountOptions options, wrap::parse_mount_options(tree.ref.profile->profile.options));
    if (!tree.options) tree.options = options.ecryptfs;
    ECFS_LET(OpenedPrivate opened, unlock_private(tree.ref, unlock_options));
    words.passphrase = std::move(opened.mount_passphrase);
    tree.login = std::move(opened.wrapping);
    ECFS_LET(const Identity me, caller());
    ECFS_LET(words.salt, wrap::salt_of_user(me));
  }
  job.options.ecryptfs = tree.options.value_or(wrap::EcryptfsOptions());
  if (job.options.ecryptfs->encrypted_view) {
    return Error{Code::kInvalid, EINVAL, "mount option 'ecryptfs_encrypted_view': nothing is to be migrated encrypted"};
  }
  ECFS_TRY(take_from_tree(tree.ref.lower_dir.get(), words, *job.options.ecryptfs));
  ECFS_LET(const SettledEcryptfs settled, settle_ecryptfs(job, words, unlock_options));
  tree.options = settled.options;
  if (writes) {
    ECFS_LET(const fs::EcryptfsFormatOptions options, fs::ecryptfs_format_options(settled.options));
    ECFS_LET(tree.format, fs::make_ecryptfs_format(options, settled.keys));
  } else {
    ECFS_LET(tree.format, reading_format(settled));
  }
  return {};
}

// ---- the new tree

// What a run leaves that is killed before there is a header.
bool is_unfinished_file(const std::string& name) {
  const std::string header = wrap::kVolumeFileName;
  return name == kMarkerName || name.starts_with(std::string(kMarkerName) + ".tmp-") || name == header + ".tmp" ||
         name == header + ".bak.tmp";
}

enum class Found { kNew, kBegun };

// find_target finds TO, which need not be there, and makes sure that neither tree is inside the other.
Status find_target(const Options& o, const Tree& from, Tree& to) {
  struct stat st {};
  auto absolute = absolute_path(o.to);
  if (!absolute) {
    if (absolute.error().code != Code::kNotFound) return std::move(absolute).error();
    return Error{Code::kNotFound, ENOENT, o.to + ": the directory it is to be made in does not exist"};
  }
  to.ref.lower_path = *absolute;
  const bool exists = lstat(absolute->c_str(), &st) == 0;
  if (exists) {
    ECFS_LET(to.ref, find_lower(o.to));
  }
  // Paths of profiles may lead through symbolic links.
  ECFS_LET(const std::string real, path_of_directory(from.ref.lower_dir.get()));
  if (is_inside(to.ref.lower_path, real) || is_inside(real, to.ref.lower_path)) {
    return Error{Code::kInvalid, EINVAL,
                 to.ref.lower_path == real ? real + " cannot be migrated to itself"
                                           : "of " + real + " and " + to.ref.lower_path + " one is inside the other"};
  }
  return exists ? check_unused(to.ref.lower_path) : Status();
}

// What there is in TO: nothing yet, or what a migration of `from` began. Anything else is refused.
Result<Found> look_at_target(const Options& o, const Tree& from, const Tree& to, Marker& marker) {
  if (!to.ref.lower_dir) return Found::kNew;
  auto found = read_marker(to.ref.lower_dir.get());
  if (!found && found.error().code != Code::kNotFound) return with_context(std::move(found).error(), o.to);
  ECFS_LET(const std::vector<std::string> names, list_directory(to.ref.lower_dir.get()));
  const bool empty = std::all_of(names.begin(), names.end(), is_unfinished_file);
  if (!found) {
    if (empty) return Found::kNew;
    struct stat st {};
    const bool volume = fstatat(to.ref.lower_dir.get(), wrap::kVolumeFileName, &st, AT_SYMLINK_NOFOLLOW) == 0;
    return Error{Code::kBusy, ENOTEMPTY,
                 o.to + (volume ? " is a volume already, and none that a migration began and did not end"
                                : " is not empty; the new tree is made in a new or empty directory")};
  }
  marker = *std::move(found);
  struct stat lower {};
  if (fstat(from.ref.lower_dir.get(), &lower) != 0) return system_error(errno, from.ref.lower_path);
  const bool same =
      from.ecryptfs ? marker.from_id.empty() && marker.from_ino == lower.st_ino : marker.from_id == from.id;
  if (!same) {
    return Error{Code::kBusy, EEXIST, o.to + " is the unfinished migration of another tree: " + marker.from};
  }
  if (!to.ecryptfs && empty) return Found::kNew;  // it ended before there was a header
  if (to.ecryptfs != !marker.options.empty()) {
    return Error{Code::kInvalid, EINVAL, o.to + " was begun in the other format: give the same --format as then"};
  }
  return Found::kBegun;
}

// ---- a volume with a name

std::string staged_name(const std::string& name) { return "." + name + ".new"; }
std::string former_name(const std::string& name) { return "." + name + ".bak"; }

bool is_name(const Options& o) { return o.from.find('/') == std::string::npos && wrap::valid_profile_name(o.from); }

// Keys and profile of the new volume are made, or found again, beside those in force.
Status stage(const Options& o, const wrap::Profile& former, Tree& to, Found found) {
  ECFS_LET(const Identity me, caller());
  if (former.mountpoint == me.home) {
    return Error{Code::kUnsupported, 0,
                 "the whole home is encrypted: give the directories themselves, while that home is locked"};
  }
  ECFS_LET(const Fd profiles, wrap::make_profiles_dir(me));
  struct stat st {};
  if (fstatat(profiles.get(), former_name(o.from).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
    return Error{Code::kBusy, EEXIST,
                 "~/.ecfs/" + former_name(o.from) + ", kept by an earlier migration, is in the way: remove it first"};
  }
  ECFS_LET(Fd dir, make_directory(profiles.get(), staged_name(o.from), 0700));
  const auto text = read_file(dir.get(), "profile.json", kMaxMarkerBytes, me.uid);
  auto staged = text ? wrap::parse_profile(o.from, *text) : Result<wrap::Profile>(text.error());
  if (found == Found::kBegun) {
    if (!staged || staged->lower != to.ref.lower_path) {
      return Error{
          Code::kInvalid, EINVAL,
          to.ref.lower_path + " was not begun for the name " + o.from + ": give the directory of the old tree"};
    }
    to.ref.profile.emplace();
    to.ref.profile->profile = *std::move(staged);
    to.ref.profile->dir = std::move(dir);
    return {};
  }
  if (staged && staged->lower != to.ref.lower_path && open_directory(AT_FDCWD, staged->lower)) {
    return Error{Code::kBusy, EEXIST,
                 "a migration of " + o.from + " to " + staged->lower + " was begun: give that as TO"};
  }
  ECFS_TRY(remove_contents(dir.get()));
  wrap::Profile fresh;
  fresh.name = o.from;
  fresh.lower = to.ref.lower_path;
  fresh.mountpoint = former.mountpoint;
  fresh.auto_mount = former.auto_mount;
  fresh.auto_unmount = former.auto_unmount;
  if (former.format == wrap::kNativeFormat) fresh.options = former.options;
  to.ref.profile.emplace();
  to.ref.profile->profile = std::move(fresh);
  to.ref.profile->dir = std::move(dir);
  return {};
}

Status rename_below(int dir, const std::string& from, const std::string& to, unsigned flags) {
  if (renameat2(dir, from.c_str(), dir, to.c_str(), flags) != 0) return system_error(errno, "rename ~/.ecfs/" + from);
  return sync_directory(dir);
}

// The new profile takes the place of the former, if there is one, which is kept.
Status put_in_place(const std::string& name) {
  ECFS_LET(const Identity me, caller());
  ECFS_LET(const Fd profiles, wrap::make_profiles_dir(me));
  if (rename_below(profiles.get(), staged_name(name), name, RENAME_NOREPLACE)) return {};
  ECFS_TRY(rename_below(profiles.get(), staged_name(name), name, RENAME_EXCHANGE));
  return rename_below(profiles.get(), staged_name(name), former_name(name), RENAME_NOREPLACE);
}

// Nothing was made: what was staged goes again, and ~/.ecfs if there is nothing else in it.
void unstage(const std::string& name) {
  const auto me = caller();
  const auto profiles = me ? wrap::open_profiles_dir(*me) : Result<Fd>(me.error());
  if (profiles) (void)remove_tree(profiles->get(), staged_name(name));
  if (me) (void)rmdir((me->home + "/.ecfs").c_str());
}

void tell_switched(const std::string& name, bool removed) {
  say(name + " opens from the new tree now" + (removed ? "." : ". To have the old one back (while it is locked):"));
  if (removed) return;
  const auto me = caller();
  const auto profiles = me ? wrap::open_profiles_dir(*me) : Result<Fd>(me.error());
  struct stat st {};
  const bool former = profiles && fstatat(profiles->get(), former_name(name).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  const std::string here = "~/.ecfs/" + name;
  say("  mv " + here + " ~/.ecfs/." + name + ".undone" +
      (former ? " && mv ~/.ecfs/" + former_name(name) + " " + here : ""));
}

// A new tree that is not on disk yet, but has its keys.
struct Fresh {
  NewVolume volume;         // native
  SettledEcryptfs settled;  // eCryptfs
};

Status prepare_ecryptfs(const Options& o, Tree& to, EcryptfsWords& words, Fresh& fresh) {
  ECFS_LET(words.passphrase, read_new_secret(o.new_passphrase, "Passphrase of the new tree: "));
  words.no_sig_cache = true;  // typed twice, and in use nowhere yet
  if (!words.encrypt_names) words.encrypt_names = true;
  MountJob job;
  VolumeRef empty;
  empty.lower_path = to.ref.lower_path;
  job.volume = &empty;
  job.options.ecryptfs = to.options.value_or(wrap::EcryptfsOptions());
  wrap::EcryptfsOptions& options = *job.options.ecryptfs;
  if (options.cipher.empty()) options.cipher = "aes";
  if (options.key_bytes == 0) options.key_bytes = options.cipher == "des3_ede" ? 24 : 16;
  if (!options.passthrough) options.passthrough = false;
  ECFS_LET(fresh.settled, settle_ecryptfs(job, words, {}));
  to.options = fresh.settled.options;
  ECFS_LET(const fs::EcryptfsFormatOptions format, fs::ecryptfs_format_options(*to.options));
  ECFS_LET(to.format, fs::make_ecryptfs_format(format, fresh.settled.keys));
  return {};
}

// The directory that TO is to be made in, or TO itself, for what its filesystem can do and has room for.
Result<Fd> place_of(const Tree& to) {
  if (to.ref.lower_dir) return open_directory(AT_FDCWD, to.ref.lower_path);
  const std::size_t slash = to.ref.lower_path.rfind('/');
  return open_directory(AT_FDCWD, slash == 0 ? "/" : to.ref.lower_path.substr(0, slash));
}

Status prepare(const Options& o, Tree& to, EcryptfsWords& words, Fresh& fresh) {
  if (to.ecryptfs) return prepare_ecryptfs(o, to, words, fresh);
  ECFS_LET(const Fd place, place_of(to));
  ECFS_LET(fresh.volume, begin_volume(o.volume, place.get()));
  to.id = to_hex(fresh.volume.header.id);
  ECFS_LET(to.format, fs::make_native_format({fresh.volume.header, false}, fresh.volume.key));
  return {};
}

Result<Fd> lock_new(int dir, const std::string& shown) {
  ECFS_LET(Fd fd, open_directory(dir, "."));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return Error{Code::kBusy, EBUSY, shown + ": another migration works there"};
  }
  return fd;
}

Status make(const Options& o, const Tree& from, Tree& to, Fresh& fresh, Marker& marker) {
  // Two that begin at once: who has the volume's lock of the directory makes the tree. Volume::open takes it again.
  Fd held;
  if (to.ref.lower_dir) {  // what a run that was killed at once left
    ECFS_LET(held, lock_new(to.ref.lower_dir.get(), o.to));
    ECFS_LET(const std::vector<std::string> names, list_directory(held.get()));
    if (std::all_of(names.begin(), names.end(), is_unfinished_file)) {
      for (const std::string& name : names) unlinkat(held.get(), name.c_str(), 0);
    }
  }
  ECFS_LET(NewDirectory dir, NewDirectory::make(to.ref.lower_path, 0700));
  if (!held) {
    auto locked = lock_new(dir.fd(), o.to);
    const auto names = locked ? list_directory(dir.fd()) : Result<std::vector<std::string>>(locked.error());
    if (!names || !names->empty()) {
      dir.keep();  // it is the other's
      return locked ? Error{Code::kBusy, EBUSY, o.to + ": another migration works there"} : locked.error();
    }
    held = *std::move(locked);
  }
  if (!to.ecryptfs) {
    if (!o.no_password) {
      Secret passphrase;
      if (!from.login.empty() && !o.new_passphrase.given()) {
        ECFS_LET(passphrase, from.login.clone());
      } else {
        ECFS_LET(passphrase, choose_passphrase(o.new_passphrase, "Passphrase of the new volume: ", o.allow_weak));
      }
      ECFS_LET(const wrap::Argon2Cost cost, choose_cost(o.cost));
      ECFS_TRY(fresh.volume.add_password(to.ref.profile ? "login" : "", passphrase, cost));
    }
    if (!o.no_recovery) {
      ECFS_LET(const wrap::RecoveryKey key, make_recovery_key(o.recovery, dir.path()));
      ECFS_TRY(fresh.volume.add_recovery("", key));
    }
  }
  ECFS_TRY(check_signals());
  struct stat lower {};
  if (fstat(from.ref.lower_dir.get(), &lower) != 0) return system_error(errno, from.ref.lower_path);
  marker.from = from.ref.lower_path;
  marker.from_ino = lower.st_ino;
  marker.from_id = from.id;
  if (to.options) marker.options = wrap::build_ecryptfs_options(*to.options);
  marker.removes = o.remove_old;
  ECFS_TRY(write_marker(dir.fd(), marker));
  if (!to.ecryptfs) {
    if (to.ref.profile) {
      to.ref.profile->profile.volume_id = fresh.volume.header.id;
      ECFS_TRY(wrap::save_profile(to.ref.profile->dir.get(), to.ref.profile->profile));
    }
    wrap::VolumeStore::Places places = to.ref.places();
    places.lower_dir = dir.fd();
    auto store = wrap::VolumeStore::create(places, fresh.volume.header, std::move(fresh.volume.area), fresh.volume.key);
    if (!store) return with_context(std::move(store).error(), "make the volume in " + dir.path());
  }
  dir.keep();
  to.made = true;
  // Not by its path again: it is the directory that was made.
  to.ref.lower_dir.reset(fcntl(dir.fd(), F_DUPFD_CLOEXEC, 3));
  if (!to.ref.lower_dir) return system_error(errno, to.ref.lower_path);
  return {};
}

// ---- room

std::uint64_t with_overhead(std::uint64_t bytes) { return bytes + bytes / 64; }

Status check_space(const Options& o, const Tree& from, const Tree& to, const MigrationSurvey& survey) {
  ECFS_LET(const Fd place, place_of(to));
  struct stat here {};
  struct stat there {};
  struct statvfs room {};
  if (fstat(from.ref.lower_dir.get(), &here) != 0) return system_error(errno, from.ref.lower_path);
  if (fstat(place.get(), &there) != 0 || fstatvfs(place.get(), &room) != 0) {
    return system_error(errno, to.ref.lower_path);
  }
  const std::uint64_t entries = (survey.num_entries - survey.num_there) * kEntryBytes;
  // Each file that is over makes room for the next, unless it has several names: those go at the end.
  const bool in_turn = o.remove_old && here.st_dev == there.st_dev;
  const std::uint64_t data = in_turn
                                 ? std::min(survey.data_bytes, survey.largest_bytes + survey.linked_bytes + kSpareBytes)
                                 : survey.data_bytes;
  const std::uint64_t wanted = with_overhead(data) + (in_turn ? std::min(entries, kSpareBytes) : entries);
  const std::uint64_t free = static_cast<std::uint64_t>(room.f_bavail) * room.f_frsize;
  if (free >= wanted + kSpareBytes) return {};
  std::string what = "too little room for " + to.ref.lower_path + ": " + size_text(free) + " are free, and " +
                     size_text(wanted + kSpareBytes) + " are needed";
  if (!o.remove_old && here.st_dev == there.st_dev) what += " while the old tree stays; --remove-old needs less";
  return Error{Code::kNoSpace, ENOSPC, what};
}

// ---- the work

MigrationRules rules_of(const Options& o, const Tree& from, Tree& to, const Marker& marker, const fs::Format& format) {
  MigrationRules rules;
  rules.remove_old = o.remove_old;
  rules.removed_before = marker.removes;
  rules.find_holes = from.ecryptfs;
  rules.stores_holes = to.ecryptfs;
  rules.longest_name = format.longest_plain_name();
  rules.check_target = [&format](std::string_view target) -> Status {
    ECFS_TRY(format.encode_link(target));
    return {};
  };
  if (to.ecryptfs && to.options && !to.options->name_signature) rules.reserved = kMarkerName;
  rules.sync_new = [&to]() -> Status {
    if (syncfs(to.ref.lower_dir.get()) != 0) return system_error(errno, "sync " + to.ref.lower_path);
    return {};
  };
  return rules;
}

Status refuse(const MigrationSurvey& survey) {
  for (const std::string& sentence : survey.obstacles) note(sentence);
  if (survey.num_obstacles > survey.obstacles.size()) {
    note(fmt::format("and {} more", survey.num_obstacles - survey.obstacles.size()));
  }
  return Error{Code::kInvalid, 0, "this tree cannot be migrated as it is. Nothing was changed"};
}

Status explain_and_ask(const Options& o, const Tree& from, const Tree& to, Found found, const MigrationSurvey& survey) {
  if (!o.json) {
    say(fmt::format(
        "{} ({}) to {} ({}): {} entries, {}{}", from.ref.lower_path, from.ecryptfs ? "eCryptfs" : "native",
        to.ref.lower_path, to.ecryptfs ? "eCryptfs" : "native", survey.num_entries, size_text(survey.data_bytes),
        survey.num_there == 0 ? "" : fmt::format(" to copy; {} entries are there already", survey.num_there)));
    say(o.remove_old ? "Each file is copied, read back, compared, and then removed from the old tree."
                     : "Each file is copied, read back and compared. The old tree stays as it is.");
  }
  if (o.yes || (found == Found::kBegun && !o.remove_old)) return {};
  ECFS_LET(const bool go_on, ask_yes("Go on?", true));
  if (!go_on) return Error{Code::kInvalid, 0, "nothing was changed"};
  return {};
}

Status end(const Options& o, Tree& from, Tree& to) {
  ECFS_LET(const struct stat st, from.root->stat());
  ECFS_LET(const struct stat there, to.root->stat());
  // Root makes a header of its own; the volume is that of who has the files.
  for (const char* name : {wrap::kVolumeFileName, ".ecfs-volume.bak"}) {
    if (fchownat(to.ref.lower_dir.get(), name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) != 0 && errno != ENOENT) {
      return system_error(errno, name);
    }
  }
  if (syncfs(to.ref.lower_dir.get()) != 0) return system_error(errno, "sync " + to.ref.lower_path);
  if (to.ref.profile) ECFS_TRY(put_in_place(o.from));
  if (unlinkat(to.ref.lower_dir.get(), kMarkerName, 0) != 0) return system_error(errno, kMarkerName);
  struct stat times = there;
  times.st_atim = st.st_atim;
  ECFS_TRY(to.root->set_times(times));
  return sync_directory(to.ref.lower_dir.get());
}

Result<int> report(const Options& o, const Tree& from, const Tree& to, const MigrationOutcome& outcome,
                   std::uint64_t num_foreign, bool removes, bool ended) {
  const std::uint64_t num_left = outcome.num_left + num_foreign;
  if (num_foreign != 0) {
    note(fmt::format("names in {} that are not of this tree: {}; what they name was left", from.ref.lower_path,
                     num_foreign));
  }
  if (o.json) {
    print_json({{"from", from.ref.lower_path},
                {"to", to.ref.lower_path},
                {"copied", outcome.num_copied},
                {"there_already", outcome.num_there},
                {"removed", outcome.num_removed},
                {"left", num_left},
                {"complete", ended}});
    return num_left == 0 ? 0 : kExitLeft;
  }
  say(fmt::format("{} entries copied, {} were there already{}.", outcome.num_copied, outcome.num_there,
                  o.remove_old ? fmt::format(", {} removed from the old tree", outcome.num_removed) : ""));
  if (num_left != 0) {
    say(fmt::format("{} stay in {} alone, for the reasons above.", num_left, from.ref.lower_path));
    if (!ended) {
      say("The migration is not at its end: put that right and run the same command again, or give "
          "--leave-unreadable.");
    }
  }
  if (ended) {
    if (to.ref.profile) {
      tell_switched(o.from, removes);
    } else {
      say("Open it:   ecfs mount " + shell_word(o.to) + " MOUNTPOINT");
    }
    // Never where the old tree has what the new one has not.
    if (!removes && num_left == 0) {
      say("The old tree is whole. Once you have looked at the new one:   rm -r " + shell_word(from.ref.lower_path));
    }
  }
  return num_left == 0 ? 0 : kExitLeft;
}

Result<int> migrate(const Options& o, Tree& from, Tree& to, EcryptfsWords& words, Found found, Marker& marker) {
  Fresh fresh;
  UnlockOptions of_new;
  of_new.source = o.new_passphrase;
  if (found == Found::kNew) {
    if (!to.ecryptfs && !o.no_recovery) ECFS_TRY(check_recovery_options(o.recovery));
    ECFS_TRY(prepare(o, to, words, fresh));
  } else if (to.ecryptfs) {
    ECFS_LET(const wrap::MountOptions parsed, wrap::parse_mount_options({marker.options}));
    to.options = parsed.ecryptfs;
    ECFS_TRY(open_ecryptfs_tree(to, words, of_new, true));
  } else {
    ECFS_TRY(open_native(to, of_new, true, from.login.empty() || of_new.source.given() ? nullptr : &from.login));
  }
  const fs::Format& format = *to.format;  // lives on in the volume
  if (found == Found::kBegun) {
    ECFS_TRY(open_volume_of(to, false));
    if (o.remove_old && !marker.removes) {
      marker.removes = true;
      ECFS_TRY(write_marker(to.ref.lower_dir.get(), marker));
    }
  }
  Migration migration(*from.root, rules_of(o, from, to, marker, format));
  ECFS_LET(const MigrationSurvey survey, migration.survey(to.root.get()));
  const std::uint64_t num_foreign = from.volume->foreign_names();
  if (survey.num_obstacles != 0) ECFS_TRY(refuse(survey));
  ECFS_TRY(check_space(o, from, to, survey));
  ECFS_TRY(explain_and_ask(o, from, to, found, survey));
  ECFS_TRY(check_unused(from.ref.lower_path));  // the kernel's eCryptfs knows no lock of ours
  if (found == Found::kNew) {
    ECFS_TRY(make(o, from, to, fresh, marker));
    ECFS_TRY(open_volume_of(to, false));
  }
  MigrationOutcome outcome;
  {
    Progress progress("Migrating", survey.data_bytes, survey.num_entries);
    ECFS_LET(outcome, migration.run(*to.root, progress,
                                    [](const std::string& path, const std::string& why) { note(path + ": " + why); }));
  }
  const bool complete = outcome.num_left == 0 && num_foreign == 0;
  if (complete || o.leave_unreadable) ECFS_TRY(end(o, from, to));
  return report(o, from, to, outcome, num_foreign, marker.removes, complete || o.leave_unreadable);
}

// Between the two last steps of a named migration: the name is that of the new tree already.
Result<std::optional<int>> finish_named(const Options& o, const Tree& from) {
  auto marker = read_marker(from.ref.lower_dir.get());
  if (!marker) {
    if (marker.error().code == Code::kNotFound) return std::optional<int>();
    return with_context(std::move(marker).error(), from.ref.lower_path);
  }
  if (!is_name(o) || !from.ref.profile) {
    return Error{Code::kBusy, EBUSY, from.ref.lower_path + " is itself the unfinished migration of " + marker->from};
  }
  ECFS_LET(const Identity me, caller());
  ECFS_LET(const Fd profiles, wrap::make_profiles_dir(me));
  struct stat st {};
  if (fstatat(profiles.get(), staged_name(o.from).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
    ECFS_TRY(rename_below(profiles.get(), staged_name(o.from), former_name(o.from), RENAME_NOREPLACE));
  }
  if (unlinkat(from.ref.lower_dir.get(), kMarkerName, 0) != 0) return system_error(errno, kMarkerName);
  ECFS_TRY(sync_directory(from.ref.lower_dir.get()));
  say("The migration of " + o.from + " was complete but for its last step, which is done now.");
  tell_switched(o.from, marker->removes);
  return std::optional<int>(0);
}

// A tree that a migration emptied shows no more what it was; what the migration began tells.
bool was_ecryptfs(const Options& o, const Tree& from) {
  const auto dir = o.to.empty() ? Result<Fd>(Error{}) : open_directory(AT_FDCWD, o.to);
  const auto marker = dir ? read_marker(dir->get()) : Result<Marker>(dir.error());
  struct stat lower {};
  return marker && marker->from_id.empty() && fstat(from.ref.lower_dir.get(), &lower) == 0 &&
         marker->from_ino == lower.st_ino;
}

Status settle_formats(const Options& o, bool said, Tree& from, Tree& to) {
  bool native = !is_ecryptfs_volume(from.ref);
  if (native) {
    const auto store = open_store(from.ref, false);
    native = store || store.error().code != Code::kNotFound;
  }
  if (!native) {
    const bool sure = is_ecryptfs_volume(from.ref) || (said && o.format != "ecryptfs") || was_ecryptfs(o, from);
    ECFS_LET(from.ecryptfs, is_ecryptfs_tree(from.ref, sure));
    if (!from.ecryptfs) {
      return Error{Code::kInvalid, EINVAL,
                   o.from +
                       " is neither a volume of ecfs nor does it hold what eCryptfs makes (-o ecryptfs says that it "
                       "does)"};
    }
  }
  to.ecryptfs = o.format.empty() ? !from.ecryptfs : o.format == "ecryptfs";
  if (from.ecryptfs && to.ecryptfs) {
    return Error{Code::kUnsupported, 0,
                 "nothing is migrated from eCryptfs to eCryptfs: copy the files between two mounts"};
  }
  if (said && !from.ecryptfs && !to.ecryptfs) {
    return Error{Code::kInvalid, EINVAL, "neither tree is one of eCryptfs: its mount options do not fit"};
  }
  return {};
}

Result<int> run(Options& o) {
  const SignalGuard guard;
  log_through(log_sink);
  ECFS_LET(EcryptfsWords words, take_ecryptfs_words(o.mount_options));
  ECFS_LET(const wrap::MountOptions options, wrap::parse_mount_options(o.mount_options));
  Tree from;
  Tree to;
  ECFS_LET(from.ref, find_volume(o.from));
  if (!from.ref.lower_dir) {
    return Error{Code::kNotFound, ENOENT, from.ref.lower_path + " is not there (a disk not connected?)"};
  }
  ECFS_LET(const std::optional<int> finished, finish_named(o, from));
  if (finished) return *finished;
  ECFS_TRY(settle_formats(o, words.any || options.ecryptfs, from, to));
  (from.ecryptfs ? from : to).options = options.ecryptfs;
  const bool named = is_name(o) && from.ref.profile && from.ref.profile->profile.name == o.from;
  if (o.to.empty()) {
    if (!named) return Error{Code::kInvalid, EINVAL, "give TO, the directory for the new tree"};
    o.to = from.ref.lower_path + ".ecfs";
  }
  if (named && to.ecryptfs) {
    return Error{Code::kUnsupported, 0,
                 "a volume with a name stays in the native format: give the directory " + from.ref.lower_path +
                     " for an eCryptfs tree beside it"};
  }
  ECFS_TRY(check_unused(from.ref.lower_path));
  if (is_ecryptfs_volume(from.ref)) ECFS_TRY(check_no_kernel_mount(from.ref));
  ECFS_TRY(find_target(o, from, to));
  ECFS_LET(from.held, lock(from.ref));
  if (from.ecryptfs) {
    ECFS_TRY(open_ecryptfs_tree(from, words, o.unlock, false));
  } else {
    ECFS_TRY(open_native(from, o.unlock, o.remove_old));
  }
  ECFS_TRY(open_volume_of(from, !o.remove_old));
  Marker marker;
  ECFS_LET(const Found found, look_at_target(o, from, to, marker));
  if (named) ECFS_TRY(stage(o, from.ref.profile->profile, to, found));
  auto done = migrate(o, from, to, words, found, marker);
  if (done) return done;
  const bool begun = found == Found::kBegun || to.made;
  if (named && !begun) unstage(o.from);
  if (caught_signal() != 0) done.error().what = "interrupted";
  if (begun) done.error().what += ". What was done is kept: the same command goes on";
  return done;
}

}  // namespace

Command add_migrate(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("migrate", "Bring an eCryptfs tree into a new native volume, or back");
  command.add_option("FROM", o->from, "The tree there is: a lower directory, or a volume's name").required();
  command.add_option("TO", o->to,
                     "Directory for the new tree: new or empty, or what an interrupted migration began; default, of a "
                     "volume's name: its directory with .ecfs behind");
  command
      .add_option("--format", o->format, "Format of the new tree: native, ecryptfs; default: the one that FROM has not")
      .one_of({"native", "ecryptfs"});
  command.add_option("-o,--options", o->mount_options, "Mount options of the eCryptfs tree, as for ecfs mount")
      .value_name("OPTIONS")
      .repeatable();
  command.add_flag("--remove-old", o->remove_old,
                   "Remove each file of FROM once it is in TO; default: FROM stays whole");
  command.add_flag("--leave-unreadable", o->leave_unreadable,
                   "Come to the end although some files cannot be brought over");
  command.add_flag("--yes", o->yes, "Do not ask whether to go on");
  add_unlock_options(command, o->unlock);
  add_mount_passphrase_option(command, o->unlock);
  add_secret_options(command, o->new_passphrase, "the passphrase of the new tree");
  command.add_flag("--allow-weak-passphrase", o->allow_weak, "Take a weak one without asking");
  add_cost_options(command, o->cost);
  const Option no_password =
      command.add_flag("--no-password", o->no_password, "No passphrase: the recovery key alone opens it");
  command.add_flag("--no-recovery", o->no_recovery, "No recovery key: with the passphrase lost, all is lost")
      .excludes(no_password);
  add_recovery_options(command, o->recovery);
  add_volume_options(command, o->volume);
  command.add_flag("--json", o->json, "Tell the outcome as JSON");
  command.set_footer(
      "Examples:\n"
      "  ecfs migrate Private\n"
      "  ecfs migrate /media/old/.Private ~/vault.enc\n"
      "  ecfs migrate --remove-old /data/old-ecryptfs /data/vault.enc\n"
      "  ecfs migrate --format ecryptfs ~/vault.enc ~/for-the-kernel");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
