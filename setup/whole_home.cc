#include "setup/whole_home.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utmpx.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "setup/json.h"
#include "setup/login_password.h"
#include "setup/mounting.h"
#include "setup/private_volume.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/profile.h"
#include "wrap/user_dir.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

constexpr const char* kAllName = ".ecfs";
constexpr const char* kLowerName = ".Private";
constexpr const char* kKeysFile = "authorized_keys";
constexpr const char* kSshName = ".ssh";
constexpr const char* kLockPath = "/run/ecfs-whole-home.lock";
constexpr std::uint64_t kMaxRecordBytes = 65536;
constexpr std::uint64_t kMaxKeysBytes = 1U << 20;
constexpr int kServersMs = 5000;

// ---- what there is

struct Home {
  Identity who;
  wrap::HomePlace place;
  std::string path;   // of the home
  std::string aside;  // the name of the original beside it
  std::string base;   // the path PARENT/.ecfs/USER
  Fd all;             // PARENT/.ecfs; none: it is not there
  [[nodiscard]] int parent() const noexcept { return place.parent.get(); }
  [[nodiscard]] std::string aside_path() const { return path + ".unencrypted"; }
};

enum class Phase { kMaking, kPlaced, kUndoing };

// What root writes down: PARENT/.ecfs/.USER.setup.
struct Record {
  Phase phase = Phase::kMaking;
  std::uint64_t original = 0;    // inode of the home as it was
  std::uint64_t mountpoint = 0;  // inode of the directory that takes its place; 0: not made yet
  timespec compared_at{};
  std::string kept;  // undoing: the name in PARENT/.ecfs that .ecfs/USER gets
};

std::string record_name(const Home& home) { return "." + home.who.name + ".setup"; }

Status write_record(const Home& home, const Record& record) {
  const char* const phase = record.phase == Phase::kMaking   ? "making"
                            : record.phase == Phase::kPlaced ? "placed"
                                                             : "undoing";
  const json text = {{"phase", phase},
                     {"original", record.original},
                     {"mountpoint", record.mountpoint},
                     {"compared_sec", record.compared_at.tv_sec},
                     {"compared_nsec", record.compared_at.tv_nsec},
                     {"kept", record.kept}};
  return replace_file(home.all.get(), record_name(home), as_bytes(text.dump(2) + "\n"), 0600);
}

Result<std::optional<Record>> read_record(const Home& home) {
  if (!home.all) return std::optional<Record>();
  const auto bytes = read_file(home.all.get(), record_name(home), kMaxRecordBytes, 0);
  if (!bytes) {
    if (bytes.error().code == Code::kNotFound) return std::optional<Record>();
    return with_context(bytes.error(), home.place.path + "/" + kAllName);
  }
  const json text = json::parse(bytes->begin(), bytes->end(), nullptr, false);
  const auto number = [&](const char* name, auto& out) {
    const auto at = text.find(name);
    if (at == text.end() || !at->is_number_integer()) return false;
    out = at->get<std::remove_reference_t<decltype(out)>>();
    return true;
  };
  const auto word = [&](const char* name, std::string& out) {
    const auto at = text.find(name);
    if (at == text.end() || !at->is_string()) return false;
    out = at->get<std::string>();
    return true;
  };
  Record record;
  std::string phase;
  const bool good = text.is_object() && word("phase", phase) && number("original", record.original) &&
                    number("mountpoint", record.mountpoint) && number("compared_sec", record.compared_at.tv_sec) &&
                    number("compared_nsec", record.compared_at.tv_nsec) && word("kept", record.kept) &&
                    (phase == "making" || phase == "placed" || phase == "undoing");
  if (!good) {
    return Error{Code::kCorrupt, EBADMSG, home.place.path + "/" + kAllName + "/" + record_name(home) + " is damaged"};
  }
  record.phase = phase == "making" ? Phase::kMaking : phase == "placed" ? Phase::kPlaced : Phase::kUndoing;
  return std::optional<Record>(std::move(record));
}

Status remove_record(const Home& home) {
  if (unlinkat(home.all.get(), record_name(home).c_str(), 0) != 0 && errno != ENOENT) {
    return system_error(errno, "remove " + record_name(home));
  }
  return sync_directory(home.all.get());
}

// The inode of a directory in PARENT, on the same filesystem; 0: there is none.
std::uint64_t inode_of(const Home& home, const std::string& name) {
  struct stat around {};
  struct stat st {};
  if (fstat(home.parent(), &around) != 0 || fstatat(home.parent(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 ||
      !S_ISDIR(st.st_mode) || st.st_dev != around.st_dev) {
    return 0;
  }
  return st.st_ino;
}

bool exists(int dir, const std::string& name) {
  struct stat st {};
  return dir >= 0 && fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
}

Status sync_parent(const Home& home) {
  ECFS_LET(const Fd parent, open_directory(home.parent(), "."));
  return sync_directory(parent.get());
}

// ---- who and where

Result<Home> find_home(const std::string& user) {
  if (geteuid() != 0) {
    return Error{Code::kDenied, 0,
                 "a whole home is encrypted by root, for a user who is not logged in: sudo ecfs setup-private "
                 "--whole-home --user NAME"};
  }
  if (user.empty()) return Error{Code::kInvalid, 0, "say whose home: --user NAME"};
  Home home;
  auto who = identity_of(user);
  if (!who) {
    if (who.error().code != Code::kNotFound) return std::move(who).error();
    return Error{Code::kNotFound, 0, "there is no user " + printable(user)};
  }
  home.who = *std::move(who);
  if (home.who.uid == 0) return Error{Code::kInvalid, 0, "root's home is not encrypted: nobody could repair anything"};
  if (is_system_account(home.who.uid)) {
    return Error{Code::kInvalid, 0, home.who.name + " is a system account, which nobody logs in to"};
  }
  ECFS_LET(home.place, wrap::open_home_place(home.who));
  home.path = home.place.home();
  home.aside = home.place.name + ".unencrypted";
  home.base = home.place.path + "/" + kAllName + "/" + home.who.name;
  if (exists(home.parent(), kAllName)) {
    ECFS_LET(home.all, wrap::open_private_dir(home.parent(), kAllName, 0, home.place.path + "/" + kAllName));
  }
  return home;
}

// One at a time on a machine.
Result<Fd> take_lock() {
  Fd fd(open(kLockPath, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return system_error(errno, std::string("open ") + kLockPath);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  return Error{Code::kBusy, EBUSY, "another `ecfs setup-private --whole-home` is at work"};
}

// The processes that are the user's in any of the four ways.
std::vector<wrap::Holder> processes_of(uid_t uid) {
  std::vector<wrap::Holder> found;
  const Owned<DIR, closedir> proc(opendir("/proc"));
  while (proc) {
    const dirent* entry = readdir(proc.get());
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    const auto [end, fault] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (fault != std::errc{} || end != name.data() + name.size()) continue;
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    std::string line;
    wrap::Holder holder{pid, "?"};
    while (std::getline(status, line)) {
      if (line.starts_with("Name:\t")) holder.name = printable(line.substr(6));
      if (!line.starts_with("Uid:\t")) continue;
      std::istringstream ids(line.substr(5));
      for (uid_t id = 0; ids >> id;) {
        if (id != uid) continue;
        found.push_back(holder);
        break;
      }
      break;
    }
  }
  return found;
}

bool has_session(const Identity& who) {
  struct stat st {};
  if (lstat(("/run/systemd/users/" + std::to_string(who.uid)).c_str(), &st) == 0) return true;
  bool found = false;
  setutxent();
  while (const utmpx* entry = getutxent()) {
    const std::string name(entry->ut_user, strnlen(entry->ut_user, sizeof entry->ut_user));
    found = found || (entry->ut_type == USER_PROCESS && name == who.name &&
                      (kill(entry->ut_pid, 0) == 0 || errno == EPERM));  // entries outlive their sessions
  }
  endutxent();
  return found;
}

Status check_not_in_use(const Home& home) {
  const std::string how = " The user has to be logged out, everywhere, until this is done";
  std::vector<wrap::Holder> processes = processes_of(home.who.uid);
  // Servers of our own mounts end by themselves.
  const auto ours = [](const wrap::Holder& h) { return h.name == "ecfs-mountd" || h.name == "fusermount3"; };
  for (int waited = 0; waited < kServersMs && !processes.empty(); waited += 100) {
    if (!std::all_of(processes.begin(), processes.end(), ours)) break;
    poll(nullptr, 0, 100);
    processes = processes_of(home.who.uid);
  }
  if (!processes.empty()) {
    return Error{Code::kBusy, EBUSY,
                 home.who.name + " is using this machine: close " + programs_text(processes) + "." + how +
                     " (a lingering systemd: loginctl disable-linger " + home.who.name + ")"};
  }
  if (has_session(home.who)) return Error{Code::kBusy, EBUSY, home.who.name + " is logged in." + how};
  const std::vector<wrap::Holder> users = users_of(home.path);
  if (!users.empty()) {
    return Error{Code::kBusy, EBUSY, "files in " + home.path + " are in use: close " + programs_text(users)};
  }
  return {};
}

Status check_not_mounted_at(const Home& home) {
  ECFS_LET(const std::vector<wrap::MountEntry> all, wrap::mounts());
  for (const wrap::MountEntry& mount : all) {
    if (mount.mountpoint != home.path) continue;
    if (mount.fstype == "fuse.ecfs") {
      return Error{Code::kBusy, EBUSY,
                   "the home of " + home.who.name + " is encrypted, and open: " + home.who.name +
                       " has to log out first (or `ecfs umount-private " + std::string(wrap::kWholeHomeName) + "`)"};
    }
    return Error{Code::kBusy, EBUSY,
                 home.path + " is a mountpoint (" + mount.fstype +
                     "): only a home that is a directory like others can be moved"};
  }
  return {};
}

Status check_not_encrypted(const Home& home) {
  if (home.all && exists(home.all.get(), home.who.name)) {
    return Error{Code::kBusy, EEXIST, "the home of " + home.who.name + " is encrypted already: " + home.base};
  }
  for (const std::string& path :
       {home.place.path + "/.ecryptfs/" + home.who.name, "/home/.ecryptfs/" + home.who.name}) {
    struct stat st {};
    if (lstat(path.c_str(), &st) != 0) continue;
    return Error{Code::kBusy, EEXIST,
                 "the home of " + home.who.name + " is encrypted by eCryptfs already (" + path +
                     "). It opens at login as it is; its files can be copied into a new one by hand only"};
  }
  if (exists(home.parent(), home.aside)) {
    return Error{Code::kBusy, EEXIST,
                 home.aside_path() + " exists, which is where the original home would be put; move it away first"};
  }
  return {};
}

// The home as it is now.
Result<Fd> open_original(const Home& home) {
  auto dir = open_directory(home.parent(), home.place.name);
  if (!dir) {
    if (dir.error().code == Code::kNotFound) return Error{Code::kNotFound, ENOENT, "there is no home " + home.path};
    return Error{Code::kInvalid, dir.error().sys_errno, home.path + " is no directory, or a symbolic link"};
  }
  struct stat st {};
  if (fstat(dir->get(), &st) != 0) return system_error(errno, "stat " + home.path);
  if (st.st_uid != home.who.uid) {
    return Error{Code::kDenied, 0, home.path + " does not belong to " + home.who.name + " (chown it first)"};
  }
  if (inode_of(home, home.place.name) != st.st_ino) {
    return Error{Code::kInvalid, EXDEV,
                 home.path + " is a filesystem of its own: only a home that is a directory like others can be moved"};
  }
  return dir;
}

// ---- in a child that is the user

void put_number(Bytes& out, std::uint64_t number) { append_le<std::uint64_t>(out, number); }

Result<std::uint64_t> take_number(ByteReader& in) { return in.take_le<std::uint64_t>(); }

// Volumes of his own in the home would not be found any more: their keys would have to stand beside it.
Status check_no_volumes(int home_dir, const Home& home) {
  if (exists(home_dir, ".ecryptfs")) {
    return Error{Code::kBusy, EEXIST,
                 home.path + "/.ecryptfs is there, a Private directory of eCryptfs: as " + home.who.name +
                     ", bring its files over first (`ecfs migrate`, or copy them out of it), and move .ecryptfs away"};
  }
  const auto dir = open_directory(home_dir, kAllName);
  if (!dir) return {};
  ECFS_LET(const std::vector<std::string> names, wrap::list_profiles(dir->get()));
  if (names.empty()) return {};
  return Error{Code::kBusy, EEXIST,
               home.path + "/.ecfs has the volume " + names.front() + ": as " + home.who.name +
                   ", open it, move its files out of it, lock it, and remove " + home.path + "/.ecfs/" + names.front()};
}

Result<Survey> survey_original(const Home& home, int original) {
  const auto work = [&]() -> Result<Reply> {
    ECFS_TRY(check_no_volumes(original, home));
    ECFS_TRY(check_fuse());
    ECFS_LET(const Survey survey, survey_tree(original, home.who.uid));
    if (!survey.obstacles.empty()) {
      note("the files in " + home.path + " cannot be moved as they are:");
      for (const std::string& sentence : survey.obstacles) note_more(sentence);
      return Error{Code::kInvalid, 0, "nothing was changed; clear this up first"};
    }
    Reply reply;
    put_number(reply.data, survey.num_entries);
    put_number(reply.data, survey.data_bytes);
    return reply;
  };
  ECFS_LET(const Reply reply, run_as(home.who, -1, work));
  ByteReader in(reply.data);
  Survey survey;
  ECFS_LET(survey.num_entries, take_number(in));
  ECFS_LET(survey.data_bytes, take_number(in));
  return survey;
}

// sshd has to find the same keys whether the home is open or locked: they stand beside it, and both homes link there.
Status link_ssh_keys(int original, int new_home, int base, const Home& home) {
  Bytes keys;
  if (exists(original, kSshName)) {
    const auto ssh = open_directory(original, kSshName);
    struct stat st {};
    const bool there = ssh && fstatat(ssh->get(), kKeysFile, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!ssh || (there && (!S_ISREG(st.st_mode) || st.st_size > static_cast<off_t>(kMaxKeysBytes)))) {
      note("~/.ssh/authorized_keys of " + home.who.name +
           " is a link, or no file of keys, and stays as it is: a login by key finds it only while the home is open");
      return {};
    }
    if (there) {
      ECFS_LET(keys, read_file(ssh->get(), kKeysFile, kMaxKeysBytes, home.who.uid));
    }
  }
  ECFS_TRY(replace_file(base, kKeysFile, keys, 0600));
  ECFS_LET(const Fd ssh, make_directory(new_home, kSshName, 0700));
  struct stat before {};
  if (fstat(ssh.get(), &before) != 0) return system_error(errno, "stat ~/.ssh");
  constexpr const char* kFresh = "authorized_keys.ecfs-new";
  if (symlinkat((home.base + "/" + kKeysFile).c_str(), ssh.get(), kFresh) != 0 ||
      renameat(ssh.get(), kFresh, ssh.get(), kKeysFile) != 0) {
    return system_error(errno, "link ~/.ssh/authorized_keys");
  }
  const std::array<timespec, 2> times = {before.st_atim, before.st_mtim};
  if (futimens(ssh.get(), times.data()) != 0) return system_error(errno, "set the times of ~/.ssh");
  return {};
}

// What the copy of the files leaves out: the home's own owner, mode, attributes and times.
Status finish_root(int original, int new_home) {
  ECFS_LET(const NodePtr from, directory_tree(original));
  ECFS_LET(const NodePtr to, directory_tree(new_home));
  ECFS_LET(const struct stat st, from->stat());
  ECFS_TRY(copy_metadata(*from, *to, st));
  ECFS_TRY(to->set_times(st));
  return compare_metadata(*from, *to);
}

struct Made {
  timespec compared_at{};
  wrap::VolumeId id{};
};

// The volume with all files, in the user's PARENT/.ecfs/USER.
Result<Made> make_inside(const Home& home, int original, const WholeHomeOptions& o, NewKeys& keys,
                         const Survey& survey) {
  const auto work = [&]() -> Result<Reply> {
    ECFS_LET(const Fd base, open_directory(home.all.get(), home.who.name));
    const std::string name(wrap::kWholeHomeName);
    VolumeRef volume;
    volume.lower_path = home.base + "/" + kLowerName;
    ECFS_LET(volume.lower_dir, make_directory(base.get(), kLowerName, 0700));
    ECFS_LET(const Fd profiles_dir, make_directory(base.get(), kAllName, 0700));
    volume.profile.emplace();
    ECFS_LET(volume.profile->dir, make_directory(profiles_dir.get(), name, 0700));
    wrap::Profile& profile = volume.profile->profile;
    profile.name = name;
    profile.lower = volume.lower_path;
    profile.mountpoint = home.path;
    profile.auto_unmount = !o.no_auto_unmount;
    profile.slots_in_volume = o.slots_in_volume;
    ECFS_LET(const Fd held, wrap::lock_volume(volume.profile->dir.get(), 0));
    warn_about_lower(volume.lower_dir.get(), volume.lower_path);
    ECFS_LET(const Secret key, make_volume(volume, o.volume, keys));
    const auto finish = [&](int root) -> Status {
      ECFS_TRY(link_ssh_keys(original, root, base.get(), home));
      return finish_root(original, root);
    };
    ECFS_LET(const timespec compared_at, copy_inside(volume, key, original, home.path, survey, finish));
    if (unlinkat(volume.profile->dir.get(), kStagingName, AT_REMOVEDIR) != 0) return system_error(errno, kStagingName);
    ECFS_TRY(check_signals());
    ECFS_TRY(wrap::save_profile(volume.profile->dir.get(), profile));
    if (syncfs(base.get()) != 0) return system_error(errno, "bring the copy to the disk");
    Reply reply;
    put_number(reply.data, static_cast<std::uint64_t>(compared_at.tv_sec));
    put_number(reply.data, static_cast<std::uint64_t>(compared_at.tv_nsec));
    append(reply.data, profile.volume_id);
    return reply;
  };
  ECFS_LET(const Reply reply, run_as(home.who, -1, work));
  ByteReader in(reply.data);
  Made made;
  ECFS_LET(const std::uint64_t sec, take_number(in));
  ECFS_LET(const std::uint64_t nsec, take_number(in));
  made.compared_at = {static_cast<time_t>(sec), static_cast<long>(nsec)};
  ECFS_LET(const ByteView id, in.take(made.id.size()));
  std::copy(id.begin(), id.end(), made.id.begin());
  return made;
}

// The directory of the keys, below one that was opened in PARENT/.ecfs.
Result<Fd> open_keys(int base) {
  ECFS_LET(const Fd profiles_dir, open_directory(base, kAllName));
  return open_directory(profiles_dir.get(), std::string(wrap::kWholeHomeName));
}

// Empties PARENT/.ecfs/USER of a setup that did not come to its end.
Status clear_inside(const Home& home, int base) {
  const auto work = [&]() -> Result<Reply> {
    if (const auto keys = open_keys(base)) {
      ECFS_TRY(Staging::clear(keys->get()));
      if (wrap::was_opened(keys->get())) {
        return Error{Code::kBusy, EBUSY,
                     home.base +
                         " is of a setup that was interrupted, but a login has opened it since. Nothing of it is "
                         "removed: look into it (`ecfs recover-private " +
                         home.base + "/" + kLowerName + "`), then move it away"};
      }
    }
    // The server of a mount just detached may still put something down.
    Status cleared;
    for (int i = 0; i < 50; ++i) {
      cleared = remove_contents(base);
      if (cleared && list_directory(base, 1).value_or(std::vector<std::string>{""}).empty()) break;
      poll(nullptr, 0, 100);
    }
    ECFS_TRY(cleared);
    return Reply();
  };
  ECFS_TRY(run_as(home.who, -1, work));
  return {};
}

// Empties a mountpoint of ours: of what we put there, and of nothing else.
Status clear_mountpoint(const Home& home, int dir) {
  const auto work = [&]() -> Result<Reply> {
    if (fchmod(dir, 0700) != 0) return system_error(errno, "open up the mountpoint");
    ECFS_LET(const std::vector<std::string> names, list_directory(dir));
    for (const std::string& name : names) {
      if (name.starts_with(wrap::kPlaceholderName)) unlinkat(dir, name.c_str(), 0);
    }
    if (const auto ssh = open_directory(dir, kSshName)) {
      unlinkat(ssh->get(), kKeysFile, 0);
      unlinkat(dir, kSshName, AT_REMOVEDIR);
    }
    return Reply();
  };
  struct stat st {};
  if (fstat(dir, &st) != 0) return system_error(errno, "stat the mountpoint");
  if (st.st_uid == 0) {  // killed before it was given to the user, so only we have been in there
    ECFS_TRY(work());
    return {};
  }
  ECFS_TRY(run_as(home.who, -1, work));
  return {};
}

// ---- as root, in PARENT and PARENT/.ecfs

Status remove_mountpoint(const Home& home) {
  auto dir = open_directory(home.parent(), home.aside);
  if (!dir) return dir.error().code == Code::kNotFound ? Status() : Status(std::move(dir).error());
  ECFS_TRY(clear_mountpoint(home, dir->get()));
  if (unlinkat(home.parent(), home.aside.c_str(), AT_REMOVEDIR) != 0) {
    return system_error(errno, "remove the mountpoint " + home.aside_path() + ", which holds more than ecfs put there");
  }
  return sync_parent(home);
}

// Takes back a setup that did not come to its end: the home is as it was.
Status take_back(const Home& home, const Record& record) {
  if (inode_of(home, home.place.name) != record.original) {
    return Error{Code::kBusy, EBUSY, home.path + " is not the original home any more, so nothing is removed"};
  }
  if (const std::uint64_t aside = inode_of(home, home.aside); aside != 0 && aside != record.original) {
    ECFS_TRY(remove_mountpoint(home));
  }
  if (auto base = open_directory(home.all.get(), home.who.name)) {
    struct stat st {};
    if (fstat(base->get(), &st) != 0) return system_error(errno, "stat " + home.base);
    if (st.st_uid != 0) ECFS_TRY(clear_inside(home, base->get()));
    if (unlinkat(home.all.get(), home.who.name.c_str(), AT_REMOVEDIR) != 0) {
      return system_error(errno, "remove " + home.base);
    }
  }
  return remove_record(home);
}

// The new mountpoint, complete, under the name that the original is to have.
Result<std::uint64_t> make_mountpoint(const Home& home) {
  if (mkdirat(home.parent(), home.aside.c_str(), 0700) != 0) return system_error(errno, "make " + home.aside_path());
  ECFS_LET(const Fd dir, open_directory(home.parent(), home.aside));
  ECFS_TRY(place_note(dir.get(), std::string(wrap::kWholeHomeName), home.base + "/" + kLowerName));
  ECFS_LET(const Fd ssh, make_directory(dir.get(), kSshName, 0700));
  if (symlinkat((home.base + "/" + kKeysFile).c_str(), ssh.get(), kKeysFile) != 0) {
    return system_error(errno, "link .ssh/authorized_keys");
  }
  const uid_t uid = home.who.uid;
  const gid_t gid = home.who.gid;
  struct stat st {};
  // Nobody but root can be in there until the last of these.
  if (fchownat(ssh.get(), kKeysFile, uid, gid, AT_SYMLINK_NOFOLLOW) != 0 || fchown(ssh.get(), uid, gid) != 0 ||
      fsync(ssh.get()) != 0 ||
      fchownat(dir.get(), std::string(wrap::kPlaceholderName).c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0 ||
      fchown(dir.get(), uid, gid) != 0 || fsync(dir.get()) != 0 || fstat(dir.get(), &st) != 0) {
    return system_error(errno, "give the mountpoint to " + home.who.name);
  }
  ECFS_TRY(sync_parent(home));
  return static_cast<std::uint64_t>(st.st_ino);
}

Status exchange(const Home& home) {
  if (renameat2(home.parent(), home.place.name.c_str(), home.parent(), home.aside.c_str(), RENAME_EXCHANGE) != 0) {
    return system_error(errno, "exchange " + home.path + " and " + home.aside_path());
  }
  return sync_parent(home);
}

// Said before anything is copied.
Status check_can_exchange(const Home& home) {
  const std::array<std::string, 2> names = {"." + home.who.name + ".a", "." + home.who.name + ".b"};
  for (const std::string& name : names) ECFS_TRY(make_directory(home.all.get(), name, 0700));
  const bool can = renameat2(home.all.get(), names[0].c_str(), home.all.get(), names[1].c_str(), RENAME_EXCHANGE) == 0;
  const int err = errno;
  for (const std::string& name : names) unlinkat(home.all.get(), name.c_str(), AT_REMOVEDIR);
  if (can) return {};
  return Error{Code::kUnsupported, err,
               "the filesystem of " + home.place.path +
                   " cannot exchange two directories in one step, so the home "
                   "would be missing for a moment: it is left as it is"};
}

Status begin_inside(Home& home) {
  if (!home.all) {
    ECFS_LET(home.all, make_directory(home.parent(), kAllName, 0755));
    ECFS_TRY(sync_parent(home));
  }
  struct stat around {};
  struct stat st {};
  if (fstat(home.parent(), &around) != 0 || fstat(home.all.get(), &st) != 0) return system_error(errno, kAllName);
  if (st.st_dev != around.st_dev) {
    return Error{Code::kUnsupported, EXDEV, home.place.path + "/" + kAllName + " is a filesystem of its own"};
  }
  return check_can_exchange(home);
}

Status give_base(const Home& home) {
  if (mkdirat(home.all.get(), home.who.name.c_str(), 0700) != 0) return system_error(errno, "make " + home.base);
  ECFS_LET(const Fd base, open_directory(home.all.get(), home.who.name));
  if (fchown(base.get(), home.who.uid, home.who.gid) != 0) return system_error(errno, "give " + home.base);
  return sync_directory(home.all.get());
}

// ---- the original afterwards

// Removes what was compared and is as it was. Gives the number of entries that stay.
Result<std::uint64_t> remove_compared(const Home& home, const Record& record) {
  ECFS_LET(const Fd original, open_directory(home.parent(), home.aside));
  struct stat st {};
  if (fstat(original.get(), &st) != 0 || st.st_ino != record.original) {
    return Error{Code::kInvalid, 0, home.aside_path() + " is not the original home: it was exchanged"};
  }
  const auto work = [&]() -> Result<Reply> {
    ECFS_LET(const Removal removal, remove_untouched(original.get(), record.compared_at));
    for (const std::string& sentence : removal.kept) warn("stays in " + home.aside_path() + ": " + sentence);
    Reply reply;
    put_number(reply.data, removal.num_kept);
    return reply;
  };
  ECFS_LET(const Reply reply, run_as(home.who, -1, work));
  ByteReader in(reply.data);
  ECFS_LET(const std::uint64_t kept, take_number(in));
  if (kept > 0) return kept;
  if (unlinkat(home.parent(), home.aside.c_str(), AT_REMOVEDIR) != 0) {
    return system_error(errno, "remove " + home.aside_path());
  }
  ECFS_TRY(sync_parent(home));
  return kept;
}

// Both names of the home, when nothing is mounted there.
bool is_placed(const Home& home, const Record& record) {
  return record.mountpoint != 0 && inode_of(home, home.place.name) == record.mountpoint;
}

void tell_original(const Home& home) {
  say("  original     " + home.aside_path() + "   (as it was, unencrypted)");
  say("Once " + home.who.name + " has logged in and found everything, remove it:");
  say("  ecfs setup-private --whole-home --user " + home.who.name + " --remove-original");
  say("Or put it back:");
  say("  ecfs setup-private --whole-home --user " + home.who.name + " --undo");
}

// Brings an interrupted --undo to its end.
Status finish_undo(const Home& home, const Record& record) {
  if (!exists(home.all.get(), record.kept) && exists(home.all.get(), home.who.name)) {
    if (renameat2(home.all.get(), home.who.name.c_str(), home.all.get(), record.kept.c_str(), RENAME_NOREPLACE) != 0) {
      return system_error(errno, "rename " + home.base);
    }
    ECFS_TRY(sync_directory(home.all.get()));
  }
  if (is_placed(home, record)) ECFS_TRY(exchange(home));
  if (inode_of(home, home.place.name) != record.original) {
    return Error{Code::kInvalid, 0, home.path + " is neither the original home nor the mountpoint"};
  }
  if (const std::uint64_t aside = inode_of(home, home.aside); aside != 0) ECFS_TRY(remove_mountpoint(home));
  ECFS_TRY(remove_record(home));
  const std::string kept = home.place.path + "/" + kAllName + "/" + record.kept;
  say("The home of " + home.who.name + " is as it was before it was encrypted.");
  say("What was changed since then is in the encrypted files, which stay: " + kept);
  say("  to look      ecfs recover-private " + kept + "/" + kLowerName + "     (with the recovery key)");
  say("  by password  cp " + kept + "/" + kAllName + "/" + std::string(wrap::kWholeHomeName) + "/volume " + kept + "/" +
      kLowerName + "/" + wrap::kVolumeFileName + "     (first)");
  say("  to end it    rm -r " + kept);
  return {};
}

// What an earlier run left: taken back (false: start anew), or brought to its end (true).
Result<bool> resume(const Home& home, Record record) {
  if (record.phase == Phase::kUndoing) {
    note("an earlier --undo was interrupted; it is brought to its end");
    ECFS_TRY(finish_undo(home, record));
    return true;
  }
  if (is_placed(home, record)) {
    if (record.phase == Phase::kPlaced) {
      return Error{Code::kBusy, EEXIST,
                   "the home of " + home.who.name + " is encrypted already. Its original is " + home.aside_path() +
                       " (--remove-original, --undo)"};
    }
    record.phase = Phase::kPlaced;
    ECFS_TRY(write_record(home, record));
    note("an earlier setup was interrupted at its very end");
    say("The home of " + home.who.name + " is encrypted.");
    tell_original(home);
    return true;
  }
  if (record.phase != Phase::kMaking || inode_of(home, home.place.name) != record.original) {
    return Error{Code::kInvalid, 0,
                 home.path +
                     " is neither the original home nor the mountpoint that took its place; what is known of it "
                     "stands in " +
                     home.place.path + "/" + kAllName + "/" + record_name(home)};
  }
  note("an earlier setup was interrupted; the home of " + home.who.name +
       " was not touched. Clearing up and starting anew.");
  ECFS_TRY(take_back(home, record));
  return false;
}

void explain(const Home& home, const Survey& survey, const WholeHomeOptions& o) {
  say("This encrypts the whole home of " + home.who.name + ", which then opens when " + home.who.name + " logs in:");
  say("  files        " + home.path + "   (visible while it is open)");
  say("  encrypted    " + home.base + "/" + kLowerName + "   (back this one up)");
  say("  keys         the login password" + std::string(o.no_recovery ? "" : ", and a recovery key to write down"));
  say(fmt::format("What {} holds now ({} entries, {}) is copied and compared; the original {}.", home.path,
                  survey.num_entries, size_text(survey.data_bytes),
                  o.keep_original ? "stays, unencrypted, in " + home.aside_path() : "is then removed"));
}

void print_end(const Home& home, const WholeHomeOptions& o) {
  say("");
  say("Done. The home of " + home.who.name + " opens at the next login with the password.");
  say("  by hand      ecfs mount-private      ecfs umount-private     (as " + home.who.name + ")");
  say("  encrypted    " + home.base + "/" + kLowerName);
  if (!o.no_recovery) {
    say("Keep the recovery key safe: without it and without the password nobody can get the files back.");
  }
  if (o.keep_original) tell_original(home);
}

// Everything from the moment on when something is made.
Result<int> make(Home& home, int original, const WholeHomeOptions& o, NewKeys keys, const Survey& survey) {
  Undo undo;
  undo.add([&] { unlinkat(home.parent(), kAllName, AT_REMOVEDIR); });  // stays if there is anything in it
  ECFS_TRY(begin_inside(home));
  Record record;
  record.original = inode_of(home, home.place.name);
  ECFS_TRY(write_record(home, record));
  undo.add([&] {
    if (auto back = take_back(home, record); !back) warn(back.error().what);
  });
  if (!o.no_recovery) {
    std::function<void()> take_back;
    ECFS_LET(wrap::RecoveryKey recovery, make_recovery_key(o.recovery, "the home of " + home.who.name, &take_back));
    undo.add(take_back);
    keys.recovery.emplace(std::move(recovery));
  }
  ECFS_TRY(give_base(home));
  ECFS_LET(const Made made, make_inside(home, original, o, keys, survey));
  record.compared_at = made.compared_at;
  ECFS_TRY(check_signals());
  ECFS_LET(record.mountpoint, make_mountpoint(home));
  ECFS_TRY(write_record(home, record));
  // The copying may have taken hours.
  ECFS_TRY(check_not_mounted_at(home));
  ECFS_TRY(check_not_in_use(home));
  if (inode_of(home, home.place.name) != record.original) {
    return Error{Code::kBusy, 0, home.path + " was exchanged by another program"};
  }
  ECFS_TRY(exchange(home));
  undo.forget();
  record.phase = Phase::kPlaced;
  ECFS_TRY(write_record(home, record));
  std::uint64_t kept = 0;
  if (!o.keep_original) {
    ECFS_LET(kept, remove_compared(home, record));
    if (kept == 0) ECFS_TRY(remove_record(home));
  }
  if (o.json) {
    print_json({{"name", wrap::kWholeHomeName},
                {"user", home.who.name},
                {"lower", home.base + "/" + kLowerName},
                {"mountpoint", home.path},
                {"volume_id", to_hex(made.id)},
                {"original", o.keep_original || kept > 0 ? json(home.aside_path()) : json()}});
  } else {
    print_end(home, o);
  }
  return kept == 0 ? 0 : 1;
}

}  // namespace

bool is_system_account(uid_t uid) {
  std::uint64_t lowest = 1000;
  std::ifstream defs("/etc/login.defs");
  std::string line;
  while (std::getline(defs, line)) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t number = 0;
    if (words >> name >> number && name == "UID_MIN") lowest = number;
  }
  constexpr uid_t kNobody = 65534;
  return uid < lowest || uid == kNobody;
}

Result<int> encrypt_home(const WholeHomeOptions& o) {
  const SignalGuard guard;
  ECFS_LET(Home home, find_home(o.user));
  ECFS_LET(const Fd held, take_lock());
  ECFS_TRY(check_not_mounted_at(home));
  ECFS_LET(std::optional<Record> record, read_record(home));
  if (record) {
    ECFS_LET(const bool finished, resume(home, *std::move(record)));
    if (finished) return 0;
  }
  ECFS_TRY(check_not_encrypted(home));
  ECFS_LET(const Fd original, open_original(home));
  ECFS_TRY(check_not_in_use(home));
  ECFS_LET(const Survey survey, survey_original(home, original.get()));
  ECFS_TRY(check_space(home.place.path.empty() ? "/" : home.place.path, &survey));
  if (!o.no_recovery) ECFS_TRY(check_recovery_options(o.recovery));
  if (!o.json) explain(home, survey, o);
  if (!o.yes) {
    ECFS_LET(const bool go_on, ask_yes("Go on?", true));
    if (!go_on) return Error{Code::kInvalid, 0, "nothing was changed"};
  }
  NewKeys keys;
  ECFS_LET(keys.passphrase, login_password(home.who, o.password, o.allow_weak));
  ECFS_LET(keys.cost, choose_cost(o.cost));
  auto done = make(home, original.get(), o, std::move(keys), survey);
  if (done) return done;
  if (caught_signal() != 0) done.error().what = "interrupted";
  record = read_record(home).value_or(std::optional<Record>());
  if (!record) done.error().what += ". All that was made is removed again; the home is as it was";
  return done;
}

Result<int> remove_original(const std::string& user) {
  const SignalGuard guard;
  ECFS_LET(const Home home, find_home(user));
  ECFS_LET(const Fd held, take_lock());
  ECFS_LET(const std::optional<Record> record, read_record(home));
  if (!record || record->phase != Phase::kPlaced) {
    return Error{Code::kNotFound, 0, "there is no original of the home of " + home.who.name + " to remove"};
  }
  if (!exists(home.parent(), home.aside)) {  // by hand, or by a run that was killed behind it
    ECFS_TRY(remove_record(home));
    say("The original of the home of " + home.who.name + " is removed.");
    return 0;
  }
  const auto opened = [&]() -> Result<Reply> {
    ECFS_LET(const Fd base, open_directory(home.all.get(), home.who.name));
    ECFS_LET(const Fd keys, open_keys(base.get()));
    if (wrap::was_opened(keys.get())) return Reply();
    return Error{Code::kBusy, 0,
                 home.who.name + " has not opened the encrypted home yet: log in as " + home.who.name +
                     " first, and see that everything is there"};
  };
  ECFS_TRY(run_as(home.who, -1, opened));
  if (const std::vector<wrap::Holder> users = users_of(home.aside_path()); !users.empty()) {
    return Error{Code::kBusy, EBUSY, "files in " + home.aside_path() + " are in use: close " + programs_text(users)};
  }
  ECFS_LET(const std::uint64_t kept, remove_compared(home, *record));
  if (kept > 0) {
    note(std::to_string(kept) + " entries of the original have changed since they were copied and stay in " +
         home.aside_path() + ". Look at them, take what is needed, and remove that directory by hand");
    return 1;
  }
  ECFS_TRY(remove_record(home));
  say("The original of the home of " + home.who.name + " is removed.");
  say("What it took up on the disk can still be read there until it is written over (on an SSD or a journaling");
  say("filesystem nothing can force that).");
  return 0;
}

Result<int> undo_home(const std::string& user) {
  const SignalGuard guard;
  ECFS_LET(const Home home, find_home(user));
  ECFS_LET(const Fd held, take_lock());
  ECFS_LET(std::optional<Record> record, read_record(home));
  if (!record || record->phase == Phase::kMaking) {
    return Error{Code::kNotFound, 0,
                 "there is no original of the home of " + home.who.name + " to put back" +
                     (record ? " (a setup was interrupted: run it again)" : "")};
  }
  ECFS_TRY(check_not_mounted_at(home));
  if (record->phase == Phase::kPlaced) {
    if (!is_placed(home, *record) || inode_of(home, home.aside) != record->original) {
      return Error{Code::kInvalid, 0, home.aside_path() + " is not there, or not the original home"};
    }
    ECFS_TRY(check_not_in_use(home));
    record->phase = Phase::kUndoing;
    for (int i = 1; record->kept.empty(); ++i) {
      const std::string name = home.who.name + ".undone" + (i == 1 ? "" : "-" + std::to_string(i));
      if (!exists(home.all.get(), name)) record->kept = name;
    }
    ECFS_TRY(write_record(home, *record));
  }
  ECFS_TRY(finish_undo(home, *record));
  return 0;
}

}  // namespace ecfs::setup
