// ecfs recover-private: open a volume from its encrypted directory alone, with the recovery key; or a Private of
// eCryptfs, with its login or mount passphrase.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "fs/ecryptfs_tree.h"
#include "fs/lower/lower_dir.h"
#include "setup/command.h"
#include "setup/ecryptfs.h"
#include "setup/json.h"
#include "setup/mounting.h"
#include "setup/recovered.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/wrapped_passphrase.h"

namespace ecfs::setup {
namespace {

constexpr int kDeepest = 8;                 // levels of directories that are looked through
constexpr std::size_t kMaxLooked = 500000;  // directories
constexpr std::uint64_t kMaxEntries = 20'000'000;
constexpr std::size_t kMaxFound = 100;
constexpr std::string_view kPrivateName = ".Private";
constexpr const char* kWrappedName = "wrapped-passphrase";
constexpr std::size_t kMaxSigBytes = 4096;
constexpr int kTries = 3;

struct Options {
  std::string where;
  std::string path;
  std::string mountpoint;
  bool mount_passphrase = false;
  bool read_write = false;
  bool list = false;
  bool json = false;
  UnlockOptions unlock;
};

// An encrypted directory. What somebody else may change meanwhile is reached through its descriptors alone.
struct Found {
  std::string path;
  Fd dir;
  Fd above;  // the directory it is in
  bool ecryptfs = false;
};

struct AllFound {
  std::vector<Found> all;  // by path
  bool gave_up = false;    // there may be more
};

class Search {
 public:
  Search() : progress_("Searching ", 0) {
    // A search must not hang in somebody's dead network or FUSE mount, nor wander through the kernel's own trees.
    static const std::set<std::string> kKernels = {"proc",   "sysfs",    "cgroup",  "cgroup2",
                                                   "devpts", "devtmpfs", "debugfs", "tracefs"};
    if (auto all = wrap::mounts(); all) {
      for (const wrap::MountEntry& mount : *all) {
        if (mount.fstype.starts_with("fuse") || kKernels.count(mount.fstype) != 0) skip_.insert(mount.mountpoint);
      }
    }
  }

  Result<AllFound> below(const std::string& path) {
    auto dir = open_directory(AT_FDCWD, path);
    if (!dir) return AllFound();
    ECFS_LET(const Fd above, open_directory(dir->get(), ".."));
    ECFS_TRY(look(path, *std::move(dir), above.get(), kDeepest));
    std::sort(found_.begin(), found_.end(), [](const Found& a, const Found& b) { return a.path < b.path; });
    const bool more = gave_up();
    return AllFound{std::move(found_), more};
  }

 private:
  [[nodiscard]] bool gave_up() const noexcept {
    return looked_ >= kMaxLooked || entries_ >= kMaxEntries || found_.size() >= kMaxFound;
  }

  Status look(const std::string& path, Fd dir, int above, int depth) {
    if (gave_up()) return {};
    ++looked_;
    const std::optional<bool> ecryptfs = is_encrypted(dir.get(), path.substr(path.rfind('/') + 1) == kPrivateName);
    if (ecryptfs) {
      ECFS_LET(Fd held, open_directory(above, "."));
      found_.push_back({path, std::move(dir), std::move(held), *ecryptfs});
      return {};
    }
    if (depth == 0) return {};
    const int listed = openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const Owned<DIR, closedir> entries(listed < 0 ? nullptr : fdopendir(listed));
    if (!entries) {
      if (listed >= 0) close(listed);
      return {};
    }
    for (const dirent* entry = readdir(entries.get()); entry != nullptr; entry = readdir(entries.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (++entries_ >= kMaxEntries) break;
      progress_.advance(0, 1);
      if (entries_ % 256 == 0) ECFS_TRY(check_signals());
      if (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN) continue;
      const std::string below = (path == "/" ? "" : path) + "/" + name;
      if (skip_.count(below) != 0) continue;
      if (auto next = open_directory(dir.get(), name)) ECFS_TRY(look(below, *std::move(next), dir.get(), depth - 1));
    }
    return {};
  }

  // Nothing: it is neither; else whether it is of eCryptfs.
  static std::optional<bool> is_encrypted(int dir, bool is_private) {
    for (const char* name : {wrap::kVolumeFileName, ".ecfs-volume.bak"}) {
      struct stat st {};
      if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) return false;
    }
    // Where names are not encrypted, the files may lie deeper.
    const auto tree = is_private ? fs::look_at_ecryptfs_tree(dir) : fs::look_at_ecryptfs_tree(dir, fs::kGlance);
    if (tree && tree->seen()) return true;
    return std::nullopt;
  }

  Progress progress_;
  std::set<std::string> skip_;
  std::vector<Found> found_;
  std::size_t looked_ = 0;
  std::uint64_t entries_ = 0;
};

// Where the search begins: a directory, or the filesystem of a device or an image, which is mounted while this lives,
// and stays so if it is kept.
class Place {
 public:
  static Result<Place> open(const std::string& where);
  Place(Place&& other) noexcept
      : path_(std::move(other.path_)), device_(std::exchange(other.device_, "")), kept_(other.kept_) {}
  Place& operator=(Place&&) = delete;
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() {
    if (device_.empty() || kept_) return;
    (void)umount2(path_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    remove_recovery_mountpoint(path_);
  }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] bool is_device() const noexcept { return !device_.empty(); }
  [[nodiscard]] std::string shown() const { return is_device() ? device_ : path_; }
  // Of a device the place of its mount says nothing.
  [[nodiscard]] std::string shown(const Found& found) const {
    if (!is_device()) return found.path;
    return found.path == path_ ? "." : found.path.substr(path_.size() + 1);
  }
  void keep() {
    if (!is_device()) return;
    kept_ = true;
    note(device_ + " is mounted read-only at " + path_ + "; when you are done: umount " + path_ + " && rmdir " + path_);
  }

 private:
  Place(std::string path, std::string device) : path_(std::move(path)), device_(std::move(device)) {}
  static Result<Place> mount(const std::string& device, const std::string& absolute, bool image);

  std::string path_;
  std::string device_;  // "": a directory
  bool kept_ = false;
};

// Makes a directory for the files of a disk, and mounts it there: read-only, nothing on it may act as a program or
// device.
Result<Place> Place::mount(const std::string& device, const std::string& absolute, bool image) {
  if (geteuid() != 0) {
    return Error{Code::kDenied, EPERM,
                 device + (image ? " is no directory; if it is the image of a disk" : " is a device") +
                     ": mount it first (as root, or with udisksctl " +
                     (image ? "loop-setup -r -f " + device + " and mount" : "mount -b " + device) +
                     "), then give the directory to `ecfs recover-private`"};
  }
  ECFS_LET(const std::string dir, make_recovery_mountpoint());
  SpawnOptions options;
  options.argv = {"/usr/bin/mount", "-o", image ? "ro,loop,nosuid,nodev,noexec" : "ro,nosuid,nodev,noexec", "--",
                  absolute,         dir};
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"};
  options.fds = {{STDERR_FILENO, STDERR_FILENO}};
  auto child = spawn(options);
  auto status = child ? child->wait() : Result<int>(std::move(child).error());
  if (!status || *status != 0) {
    remove_recovery_mountpoint(dir);
    if (!status) return std::move(status).error();
    return Error{Code::kIo, 0,
                 "mount could not read " + device + " (an encrypted disk must be opened first: cryptsetup open)"};
  }
  return Place(dir, device);
}

Result<Place> Place::open(const std::string& where) {
  if (where.empty()) {
    ECFS_LET(const Identity me, caller());
    return Place(me.uid == 0 ? "/home" : me.home, "");
  }
  struct stat st {};
  if (stat(where.c_str(), &st) != 0) return system_error(errno, where);
  const Owned<char, free> resolved(realpath(where.c_str(), nullptr));
  if (!resolved) return system_error(errno, where);
  if (S_ISBLK(st.st_mode) || S_ISREG(st.st_mode)) return mount(where, resolved.get(), S_ISREG(st.st_mode));
  return Place(resolved.get(), "");
}

Result<Found> choose(std::vector<Found>& found, const Place& place) {
  if (found.size() == 1) return std::move(found.front());
  note("these directories hold encrypted volumes:");
  for (std::size_t i = 0; i < found.size(); ++i) {
    note_more(fmt::format("{:>3}  {}{}", i + 1, place.shown(found[i]), found[i].ecryptfs ? "  (eCryptfs)" : ""));
  }
  ECFS_LET(const std::string answer, ask_line("Which one (number)? ", ""));
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (answer == std::to_string(i + 1)) return std::move(found[i]);
  }
  const std::string one = place.shown(found.front());
  return Error{Code::kInvalid, 0,
               "several volumes were found: name the directory of one, as in `ecfs recover-private " +
                   (place.is_device() ? "--path " + one + " " + place.shown() : one) + "`"};
}

// The one that --path names.
Result<Found> named(const Options& o, const Place& place) {
  ECFS_LET(const Fd start, open_directory(AT_FDCWD, place.path()));
  std::string inside = o.path.substr(std::min(o.path.find_first_not_of('/'), o.path.size()));
  while (inside.ends_with('/')) inside.pop_back();
  if (inside.empty()) inside = ".";
  auto dir = fs::open_at(start.get(), inside.c_str(), O_RDONLY | O_DIRECTORY);
  if (!dir && (dir.error().sys_errno == EXDEV || dir.error().sys_errno == ELOOP)) {
    return Error{Code::kInvalid, EINVAL, "--path " + o.path + " leads through '..' or a symbolic link"};
  }
  if (!dir) return with_context(std::move(dir).error(), place.shown());
  Found found;
  found.path = inside == "." ? place.path() : (place.path() == "/" ? "" : place.path()) + "/" + inside;
  ECFS_LET(found.above, open_directory(dir->get(), ".."));
  found.dir = *std::move(dir);
  struct stat st {};
  const bool native = fstatat(found.dir.get(), wrap::kVolumeFileName, &st, AT_SYMLINK_NOFOLLOW) == 0 ||
                      fstatat(found.dir.get(), ".ecfs-volume.bak", &st, AT_SYMLINK_NOFOLLOW) == 0;
  ECFS_LET(const fs::EcryptfsTree tree, fs::look_at_ecryptfs_tree(found.dir.get()));
  found.ecryptfs = !native && tree.seen();
  if (!native && !found.ecryptfs) {
    return Error{Code::kNotFound, 0, place.shown(found) + " is neither a volume of ecfs nor an eCryptfs tree"};
  }
  return found;
}

Result<Found> find(const Place& place) {
  ECFS_LET(AllFound found, Search().below(place.path()));
  if (!found.all.empty()) return choose(found.all, place);
  return Error{Code::kNotFound, 0,
               "no encrypted volume was found in " + place.shown() + " (looked for " + wrap::kVolumeFileName +
                   " and files of eCryptfs, " + std::to_string(kDeepest) + " levels deep" +
                   (found.gave_up ? ", and gave up: too many entries" : "") + ")"};
}

Result<int> list(const Options& o, const Place& place) {
  ECFS_LET(const AllFound found, Search().below(place.path()));
  nlohmann::json all = nlohmann::json::array();
  nlohmann::json ecryptfs = nlohmann::json::array();
  for (const Found& one : found.all) {
    all.push_back(place.shown(one));
    if (one.ecryptfs) ecryptfs.push_back(place.shown(one));
    if (!o.json) say(place.shown(one));
  }
  if (o.json) print_json({{"volumes", all}, {"ecryptfs", ecryptfs}});
  if (found.gave_up) warn("too many entries: not all of " + place.shown() + " was searched");
  return found.all.empty() ? 1 : 0;
}

// --- eCryptfs ------------------------------------------------------------------------------------------------------

// What stands beside a .Private, in .ecryptfs.
struct Beside {
  Fd dir;                // none: there is none
  bool wrapped = false;  // it has a wrapped-passphrase
  std::vector<wrap::EcryptfsSignature> signatures;
  wrap::EcryptfsSalt salt = wrap::kEcryptfsContentSalt;
};

Beside look_beside(const Found& found) {
  Beside out;
  auto dir = open_directory(found.above.get(), ".ecryptfs");
  struct stat st {};
  if (fstat(found.above.get(), &st) == 0) {
    const auto salt = wrap::read_ecryptfs_rc_salt(found.above.get(), st.st_uid);
    if (salt) out.salt = *salt;
  }
  if (!dir) return out;
  out.dir = *std::move(dir);
  out.wrapped = fstatat(out.dir.get(), kWrappedName, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
  if (const auto text = read_file(out.dir.get(), "Private.sig", kMaxSigBytes)) {
    const std::string_view line = as_text(*text).substr(0, as_text(*text).find('\n'));
    if (const auto signature = wrap::parse_ecryptfs_signature(line)) out.signatures.push_back(*signature);
  }
  return out;
}

Result<Secret> unwrap(const Options& o, const std::string& shown, const Beside& beside) {
  for (int i = 1;; ++i) {
    const bool again = !o.unlock.source.given() && interactive() && i < kTries;
    auto typed = read_secret(o.unlock.source, "Login passphrase of " + printable(shown) + ": ");
    if (!typed && (typed.error().code != Code::kInvalid || !again)) return typed;
    Error wrong{Code::kWrongKey, EKEYREJECTED,
                shown + ": wrong login passphrase (the mount passphrase is given with --mount-passphrase)"};
    if (typed) {
      auto passphrase = wrap::read_wrapped_passphrase(beside.dir.get(), kWrappedName, *typed, beside.salt);
      if (passphrase) return passphrase;
      if (passphrase.error().code != Code::kWrongKey) {
        return Error{Code::kUnavailable, 0,
                     shown + ": " + passphrase.error().what + "; give the mount passphrase with --mount-passphrase"};
      }
    }
    if (!again) return wrong;
    note(wrong.what);
  }
}

Result<Child> recover_ecryptfs(const Options& o, const MountJob& job, const Found& found,
                               const std::string& mountpoint) {
  const std::string& shown = job.volume->lower_path;
  if (o.unlock.recovery) {
    return Error{Code::kInvalid, 0, shown + " is an eCryptfs tree: it has no recovery key but its mount passphrase"};
  }
  const Beside beside = look_beside(found);
  EcryptfsWords words;
  words.as_it_is = true;
  words.expected = beside.signatures;
  words.salt = beside.salt;
  if (beside.wrapped && !o.mount_passphrase) {
    ECFS_LET(words.passphrase, unwrap(o, shown, beside));
  }
  return mount_ecryptfs(job, mountpoint, words, o.unlock);
}

Result<int> run(const Options& o) {
  const SignalGuard guard;
  ECFS_LET(Place place, Place::open(o.where));
  if (place.is_device() && o.read_write) {
    return Error{Code::kInvalid, 0,
                 place.shown() + " is only read: to change it, mount it yourself, and give the directory"};
  }
  if (o.list) return list(o, place);
  ECFS_LET(Found found, o.path.empty() ? find(place) : named(o, place));

  // LOWER alone: what a profile of the caller may say about it is left aside.
  VolumeRef volume;
  volume.lower_path = found.path;
  volume.lower_dir = std::move(found.dir);
  MountJob job;
  job.volume = &volume;
  job.options.read_only = !o.read_write;
  std::string mountpoint = o.mountpoint;
  if (mountpoint.empty()) {
    ECFS_LET(mountpoint, make_recovery_mountpoint());
  }
  auto server =
      found.ecryptfs ? recover_ecryptfs(o, job, found, mountpoint) : open_and_mount(job, mountpoint, o.unlock);
  if (!server) {
    remove_recovery_mountpoint(mountpoint);
    return std::move(server).error();
  }
  place.keep();
  if (o.json) {
    print_json({{"lower", volume.lower_path},
                {"mountpoint", mountpoint},
                {"read_only", job.options.read_only},
                {"format", found.ecryptfs ? "ecryptfs" : "native"}});
    return 0;
  }
  say("The files of " + volume.lower_path + " are at " + mountpoint + (job.options.read_only ? " (read-only)." : "."));
  say("Copy what you need to a safe place, then:   ecfs umount " + mountpoint);
  return 0;
}

}  // namespace

Command add_recover_private(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command(
      "recover-private", "Open a volume, or a Private of eCryptfs, from its encrypted directory alone");
  command.add_option(
      "DIR", o->where,
      "An encrypted directory, a directory to search for one, a block device, or the image of a disk; default: "
      "your home");
  const Option path =
      command.add_option("--path", o->path, "The encrypted directory, below DIR; nothing is searched for")
          .value_name("INSIDE");
  command
      .add_option("--mountpoint", o->mountpoint,
                  "Where to show the files; default: a fresh directory that only you can enter")
      .value_name("DIR");
  command.add_flag("--mount-passphrase", o->mount_passphrase,
                   "Ask for the mount passphrase of eCryptfs, not for that of the login");
  command.add_flag("--read-write,--writable", o->read_write, "Allow changes");
  command.add_flag("--list", o->list, "Only say which volumes there are").excludes(path);
  command.add_flag("--json", o->json, "Say what was found or done as JSON");
  add_unlock_options(command, o->unlock);
  command.set_footer(
      "Examples:\n"
      "  ecfs recover-private /media/backup/.Private\n"
      "  ecfs recover-private --list /media\n"
      "  sudo ecfs recover-private /dev/sdb1\n"
      "  sudo ecfs recover-private --path home/.ecryptfs/alice/.Private old-disk.img");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
