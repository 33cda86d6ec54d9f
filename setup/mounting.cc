#include "setup/mounting.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

#include "setup/ecryptfs.h"
#include "setup/messages.h"
#include "setup/new_volume.h"
#include "setup/ui.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"

namespace ecfs::setup {
namespace {

constexpr int kEndMs = 10000;  // for a server to end after its mount

Result<std::string> first_foreign_entry(int dir) {
  ECFS_LET(const std::vector<std::string> names, list_directory(dir));
  for (const std::string& name : names) {
    if (!wrap::is_placeholder(dir, name)) return name;
  }
  return std::string();
}

Error mounted_error(const wrap::MountEntry& mount) {
  return {Code::kBusy, EBUSY, mount.source + " is mounted at " + mount.mountpoint + " already"};
}

}  // namespace

bool is_inside(const std::string& path, const std::string& directory) {
  if (path == directory || directory == "/") return true;
  return path.size() > directory.size() && path.compare(0, directory.size(), directory) == 0 &&
         path[directory.size()] == '/';
}

std::optional<pid_t> locker_of(int lower_dir) {
  struct stat st {};
  if (fstat(lower_dir, &st) != 0) return {};
  // The kernel lists locks (proc(5), /proc/locks).
  const std::string wanted = fmt::format("{:02x}:{:02x}:{}", major(st.st_dev), minor(st.st_dev), st.st_ino);
  std::ifstream locks("/proc/locks");
  std::string line;
  while (std::getline(locks, line)) {
    std::istringstream fields(line);
    std::string number;
    std::string type;
    std::string mode;
    std::string access;
    std::string inode;
    pid_t pid = 0;
    if (fields >> number >> type >> mode >> access >> pid >> inode && type == "FLOCK" && inode == wanted && pid > 0) {
      return pid;
    }
  }
  return {};
}

Status check_fuse() {
  const Fd fuse(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fuse) return fuse_error(errno);
  struct stat st {};
  if (stat("/usr/bin/fusermount3", &st) != 0) {
    return Error{Code::kUnavailable, errno,
                 "the program fusermount3 is missing, which makes the mount: install the package fuse3"};
  }
  if (geteuid() != 0 && (st.st_mode & S_ISUID) == 0) {
    return Error{
        Code::kUnavailable, 0,
        "/usr/bin/fusermount3 has lost its set-uid bit, so that only root can mount: reinstall the package fuse3"};
  }
  if (geteuid() != 0 && access("/etc/mtab", F_OK) != 0) {
    return Error{Code::kUnavailable, errno,
                 "/etc/mtab is missing, without which fusermount3 does not mount: as root, "
                 "ln -s ../proc/self/mounts /etc/mtab"};
  }
  return {};
}

bool allows_other() {
  std::ifstream conf("/etc/fuse.conf");
  std::string line;
  while (std::getline(conf, line)) {
    std::istringstream words(line);
    std::string word;
    if (words >> word && word == "user_allow_other" && !(words >> word)) return true;
  }
  return false;
}

Result<Mountpoint> check_mountpoint(const std::string& path, const std::string& lower_path) {
  Mountpoint at;
  auto absolute = absolute_path(path);
  if (!absolute) {
    if (absolute.error().code == Code::kNotFound) {
      return Error{Code::kNotFound, ENOENT, path + ": there is no such directory to mount on (make it with mkdir)"};
    }
    return std::move(absolute).error();
  }
  at.path = *std::move(absolute);
  if (wrap::is_dead(at.path)) {
    note("clearing a mount at " + at.path + " whose server has ended");
    ECFS_TRY(wrap::unmount(at.path, true));
  }
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::ecfs_mount_at(at.path));
  if (mounted) return mounted_error(*mounted);
  auto dir = open_directory(AT_FDCWD, at.path);
  if (!dir) {
    switch (dir.error().sys_errno) {
      case ENOENT:
        return Error{Code::kNotFound, ENOENT, path + ": there is no such directory to mount on (make it with mkdir)"};
      case ELOOP:
      case ENOTDIR: {
        struct stat st {};
        const bool link = lstat(at.path.c_str(), &st) == 0 && S_ISLNK(st.st_mode);
        return Error{Code::kInvalid, dir.error().sys_errno,
                     path + (link ? " is a symbolic link; a mountpoint must be a directory itself"
                                  : " is not a directory and cannot be mounted on")};
      }
      default: return std::move(dir).error();
    }
  }
  at.dir = *std::move(dir);
  struct stat st {};
  if (fstat(at.dir.get(), &st) != 0) return system_error(errno, "stat " + path);
  if (geteuid() != 0 && st.st_uid != geteuid()) {
    return Error{Code::kDenied, EPERM, path + " belongs to another user; a mountpoint must be your own directory"};
  }
  if (is_inside(at.path, lower_path)) {
    return Error{Code::kInvalid, 0, path + " is inside the lower directory " + lower_path + "; mount somewhere else"};
  }
  if (is_inside(lower_path, at.path)) {
    return Error{
        Code::kInvalid, 0,
        "the lower directory " + lower_path + " is inside " + path + ", which would be hidden; mount elsewhere"};
  }
  auto foreign = first_foreign_entry(at.dir.get());
  if (!foreign) return with_context(std::move(foreign).error(), path);
  if (!foreign->empty()) {
    return Error{Code::kInvalid, ENOTEMPTY,
                 path + " is not empty (it holds '" + *foreign +
                     "'), and a mount would hide what is in it; use an empty directory"};
  }
  return at;
}

Status check_not_mounted(const std::string& lower_path) {
  ECFS_LET(const std::vector<wrap::MountEntry> all, wrap::mounts());
  // The source is text that whoever mounted has chosen: only the caller's own mounts are believed.
  for (const wrap::MountEntry& mount : all) {
    if (mount.fstype != "fuse.ecfs" || mount.source != lower_path) continue;
    if (wrap::owner_of(mount) != geteuid()) continue;
    if (wrap::is_dead(mount.mountpoint)) continue;
    return mounted_error(mount);
  }
  return {};
}

namespace {

wrap::MountdStart mountd_start(const MountJob& job) {
  wrap::MountdStart start;
  start.lower_dir = job.volume->lower_dir.get();
  start.foreground = job.foreground;
  return start;
}

}  // namespace

Result<Child> start_server(const MountJob& job, wrap::MountRequest request, const Mountpoint& at,
                           std::optional<wrap::WaitingMountd> prepared) {
  request.lower_path = job.volume->lower_path;
  request.mountpoint = at.path;
  wrap::MountdStart start = mountd_start(job);
  start.request = &request;

  // fusermount3 mounts only where the user may write, and an unmounted Private may not be written. Through the
  // descriptor the directory below the mount gets its own mode back.
  struct stat st {};
  if (fstat(at.dir.get(), &st) != 0) return system_error(errno, "stat " + at.path);
  const mode_t mode = st.st_mode & 07777;
  const bool closed = geteuid() != 0 && (mode & S_IWUSR) == 0;
  if (closed && fchmod(at.dir.get(), mode | S_IWUSR) != 0) return system_error(errno, "open up " + at.path);
  auto child = prepared ? wrap::mount_with(*std::move(prepared), request, start.timeout_ms) : wrap::start_mountd(start);
  if (closed) (void)fchmod(at.dir.get(), mode);
  if (!child) return with_context(std::move(child).error(), "mount " + job.volume->shown());
  return child;
}

Result<Child> mount_volume(const MountJob& job, const wrap::VolumeStore& store, const Secret& key, const Mountpoint& at,
                           std::optional<wrap::WaitingMountd> prepared) {
  wrap::MountRequest request;
  request.options = job.options;
  if (store.header().must_be_read_only() && !request.options.read_only) {
    note(job.volume->shown() + " was written by a newer version of ecfs; it is mounted read-only");
    request.options.read_only = true;
  }
  request.volume_file = store.file().raw;
  ECFS_LET(request.key, key.clone());
  return start_server(job, std::move(request), at, std::move(prepared));
}

Result<Child> open_and_mount(const MountJob& job, const std::string& mountpoint, const UnlockOptions& unlock_options) {
  const VolumeRef& volume = *job.volume;
  if (job.options.ecryptfs) return not_ecryptfs(volume);
  ECFS_LET(wrap::VolumeStore store, open_store(volume));
  if (!volume.lower_dir) {
    return Error{Code::kNotFound, ENOENT,
                 volume.lower_path + ", where the encrypted files of " + volume.shown() +
                     " are, is not there (a disk not connected?)"};
  }
  ECFS_TRY(wrap::check_lower_present(volume.lower_dir.get(), volume.lower_path));
  ECFS_TRY(check_fuse());
  const auto check = [&]() -> Result<Mountpoint> {
    ECFS_TRY(check_not_mounted(volume.lower_path));
    return check_mountpoint(mountpoint, volume.lower_path);
  };
  ECFS_TRY(check());
  // It starts while the key is asked for and worked out. What hinders it is met again, and told, when it is needed. One
  // in the foreground would get the Ctrl-C of a question.
  std::optional<wrap::WaitingMountd> prepared;
  if (!job.foreground) {
    if (auto waiting = wrap::prepare_mountd(mountd_start(job))) prepared = *std::move(waiting);
  }
  ECFS_LET(const wrap::Unlocked unlocked, unlock(store, unlock_options, volume.shown(), Token::kTry));

  // Between the question and the answer somebody else may have mounted it or changed its keys: once more, under the
  // lock.
  ECFS_LET(const Fd held, lock(volume));
  ECFS_LET(const Mountpoint at, check());
  ECFS_LET(store, open_store(volume, false));
  ECFS_LET(Secret key, unlocked.key.clone());
  ECFS_TRY(store.unlock_with_key(std::move(key)));
  if (!job.options.read_only && !store.header().must_be_read_only()) {
    if (auto repaired = store.repair(unlocked.key); !repaired) {
      warn(volume.shown() + ": the damaged copy of the header stays as it is: " + repaired.error().what);
    }
  }
  return mount_volume(job, store, unlocked.key, at, std::move(prepared));
}

namespace {

// The process that serves the mount, as pidfd_open(2) gives it; none if it cannot be told. One that only reads has
// nothing to bring to an end.
Fd server_of(const wrap::MountEntry& mount) {
  const Fd lower(open(mount.source.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const std::optional<pid_t> pid = lower ? locker_of(lower.get()) : std::nullopt;
  const bool writes = ("," + mount.options + ",").find(",ro,") == std::string::npos;
  return pid && writes ? Fd(static_cast<int>(syscall(SYS_pidfd_open, *pid, 0))) : Fd();
}

// The kernel is done with a mount before its server is, which may have sizes to write. One that is mounted elsewhere,
// too (a bind mount), goes on.
void wait_for_end(const Fd& server, const wrap::MountEntry& mount) {
  if (!server) return;
  const auto all = wrap::mounts();
  if (!all || std::any_of(all->begin(), all->end(), [&](const wrap::MountEntry& other) {
        return other.device_major == mount.device_major && other.device_minor == mount.device_minor;
      })) {
    return;
  }
  pollfd end{server.get(), POLLIN, 0};
  if (poll(&end, 1, kEndMs) == 0) {
    warn(printable(mount.mountpoint) + " is unmounted, but its server is still at work in " + printable(mount.source) +
         ": there is much to write, or a container has the mount");
  }
}

}  // namespace

std::string programs_text(const std::vector<wrap::Holder>& holders) {
  constexpr std::size_t kShown = 10;
  std::string text;
  for (std::size_t i = 0; i < holders.size() && i < kShown; ++i) {
    text += (i == 0 ? "" : ", ") + holders[i].name + " (" + std::to_string(holders[i].pid) + ")";
  }
  if (holders.size() > kShown) text += " and " + std::to_string(holders.size() - kShown) + " more";
  return text;
}

Status unmount_volume(const std::string& path, bool lazy) {
  ECFS_LET(const std::string absolute, absolute_path(path));
  auto mount = wrap::ecfs_mount_at(absolute);
  if (!mount) return std::move(mount).error();
  if (!*mount) return Error{Code::kNotFound, 0, "no ecfs volume is mounted at " + path};
  if (wrap::is_dead(absolute)) return wrap::unmount(absolute, true);
  const Fd server = lazy ? Fd() : server_of(**mount);
  Status done = wrap::unmount(absolute, lazy);
  if (done) wait_for_end(server, **mount);
  if (done || done.error().code != Code::kBusy) return done;
  const std::vector<wrap::Holder> holders = wrap::holders_of(**mount);
  std::string what = path + " is busy";
  if (!holders.empty()) {
    what += ": close " + programs_text(holders);
  } else {
    what += "; which program keeps it so cannot be seen by this user";
  }
  return Error{Code::kBusy, EBUSY, what};
}

Status place_note(int mountpoint_dir, const std::string& name, const std::string& lower) {
  const std::string text =
      "This directory is locked: its files are stored, encrypted, in " + printable(lower) +
      ".\n\nTo open it:   ecfs mount-private " + name + (name == wrap::kWholeHomeName ? "; cd" : "") +
      "\n\nIt opens by itself when you log in with your password. With a lost password, use the recovery key:\n"
      "give it where the command above asks for the passphrase, or see `man ecfs-recover-private`.\n";
  if (fchmod(mountpoint_dir, 0700) != 0) return system_error(errno, "set the mode of the mountpoint");
  // What a kill in the middle of the next line left: nobody could mount over it.
  const std::string unfinished = std::string(wrap::kPlaceholderName) + ".tmp-";
  ECFS_LET(const std::vector<std::string> names, list_directory(mountpoint_dir));
  for (const std::string& entry : names) {
    if (entry.starts_with(unfinished)) unlinkat(mountpoint_dir, entry.c_str(), 0);
  }
  ECFS_TRY(replace_file(mountpoint_dir, std::string(wrap::kPlaceholderName), as_bytes(text), 0400));
  if (fchmod(mountpoint_dir, 0500) != 0) return system_error(errno, "set the mode of the mountpoint");
  return {};
}

}  // namespace ecfs::setup
