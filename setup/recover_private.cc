// ecfs recover-private: open a volume from its encrypted directory alone, with the recovery key.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "setup/command.h"
#include "setup/mounting.h"
#include "setup/recovered.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"

namespace ecfs::setup {
namespace {

constexpr int kDeepest = 8;                 // levels of directories that are looked through
constexpr std::size_t kMaxLooked = 500000;  // directories

struct Options {
  std::string where;
  std::string mountpoint;
  bool read_write = false;
  bool list = false;
  bool json = false;
  UnlockOptions unlock;
};

class Search {
 public:
  Search() {
    // A search must not hang in somebody's dead network or FUSE mount, nor wander through the kernel's own trees.
    static const std::set<std::string> kKernels = {"proc",   "sysfs",    "cgroup",  "cgroup2",
                                                   "devpts", "devtmpfs", "debugfs", "tracefs"};
    if (auto all = wrap::mounts(); all) {
      for (const wrap::MountEntry& mount : *all) {
        if (mount.fstype.starts_with("fuse") || kKernels.count(mount.fstype) != 0) skip_.insert(mount.mountpoint);
      }
    }
  }

  void look(const std::string& path, int depth) {
    if (looked_ >= kMaxLooked || found_.size() >= 100) return;
    ++looked_;
    auto dir = open_directory(AT_FDCWD, path);
    if (!dir) return;
    for (const char* name : {wrap::kVolumeFileName, ".ecfs-volume.bak"}) {
      struct stat st {};
      if (fstatat(dir->get(), name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
        found_.push_back(path);
        return;
      }
    }
    if (depth == 0) return;
    const Owned<DIR, closedir> entries(fdopendir(dir->get()));
    if (!entries) return;
    (void)dir->release();  // closed with `entries`
    for (const dirent* entry = readdir(entries.get()); entry != nullptr; entry = readdir(entries.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == ".." || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)) continue;
      const std::string below = (path == "/" ? "" : path) + "/" + name;
      if (skip_.count(below) == 0) look(below, depth - 1);
    }
  }

  [[nodiscard]] std::vector<std::string> found() const {
    std::vector<std::string> sorted = found_;
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }
  [[nodiscard]] bool gave_up() const noexcept { return looked_ >= kMaxLooked; }

 private:
  std::set<std::string> skip_;
  std::vector<std::string> found_;
  std::size_t looked_ = 0;
};

// Makes a directory for the files of a disk, and mounts it there: read-only, nothing on it may act as a program or
// device.
Result<std::string> mount_device(const std::string& device) {
  if (geteuid() != 0) {
    return Error{Code::kDenied, EPERM,
                 device + " is a device: mount it first (as root, or with udisksctl mount -b " + device +
                     "), then give the directory to `ecfs recover-private`"};
  }
  ECFS_LET(const std::string dir, make_recovery_mountpoint());
  SpawnOptions options;
  options.argv = {"/usr/bin/mount", "-o", "ro,nosuid,nodev,noexec", "--", device, dir};
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"};
  options.fds = {{STDERR_FILENO, STDERR_FILENO}};
  ECFS_LET(Child child, spawn(options));
  ECFS_LET(const int status, child.wait());
  if (status != 0) {
    remove_recovery_mountpoint(dir);
    return Error{Code::kIo, 0,
                 "mount could not read " + device + " (an encrypted disk must be opened first: cryptsetup open)"};
  }
  note(device + " is mounted read-only at " + dir + "; when you are done: umount " + dir + " && rmdir " + dir);
  return dir;
}

Result<std::string> starting_place(const Options& o) {
  if (o.where.empty()) {
    ECFS_LET(const Identity me, caller());
    return me.uid == 0 ? std::string("/home") : me.home;
  }
  struct stat st {};
  if (stat(o.where.c_str(), &st) != 0) return system_error(errno, o.where);
  if (S_ISBLK(st.st_mode)) return mount_device(o.where);
  const Owned<char, free> resolved(realpath(o.where.c_str(), nullptr));
  if (!resolved) return system_error(errno, o.where);
  return std::string(resolved.get());
}

Result<std::string> choose(const std::vector<std::string>& found) {
  if (found.size() == 1) return found.front();
  note("these directories hold encrypted volumes:");
  for (std::size_t i = 0; i < found.size(); ++i) note_more(fmt::format("{:>3}  {}", i + 1, found[i]));
  ECFS_LET(const std::string answer, ask_line("Which one (number)? ", ""));
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (answer == std::to_string(i + 1)) return found[i];
  }
  return Error{
      Code::kInvalid, 0,
      "several volumes were found: name the directory of one, as in `ecfs recover-private " + found.front() + "`"};
}

Result<int> run(Options& o) {
  ECFS_LET(const std::string start, starting_place(o));
  Search search;
  search.look(start, kDeepest);
  const std::vector<std::string> found = search.found();
  if (o.list) {
    if (o.json) {
      print_json({{"volumes", found}});
    } else {
      for (const std::string& path : found) say(path);
    }
    return found.empty() ? 1 : 0;
  }
  if (found.empty()) {
    return Error{Code::kNotFound, 0,
                 "no encrypted volume was found in " + start + " (looked for " + wrap::kVolumeFileName + ", " +
                     std::to_string(kDeepest) + " levels deep" +
                     (search.gave_up() ? ", and gave up: too many directories" : "") + ")"};
  }
  ECFS_LET(const std::string lower, choose(found));

  // LOWER alone: what a profile of the caller may say about it is left aside.
  VolumeRef volume;
  volume.lower_path = lower;
  ECFS_LET(volume.lower_dir, open_directory(AT_FDCWD, lower));
  MountJob job;
  job.volume = &volume;
  job.options.read_only = !o.read_write;
  std::string mountpoint = o.mountpoint;
  if (mountpoint.empty()) {
    ECFS_LET(mountpoint, make_recovery_mountpoint());
  }
  const SignalGuard guard;
  auto server = open_and_mount(job, mountpoint, o.unlock);
  if (!server) {
    remove_recovery_mountpoint(mountpoint);
    return std::move(server).error();
  }
  if (o.json) {
    print_json({{"lower", lower}, {"mountpoint", mountpoint}, {"read_only", job.options.read_only}});
    return 0;
  }
  say("The files of " + lower + " are at " + mountpoint + (job.options.read_only ? " (read-only)." : "."));
  say("Copy what you need to a safe place, then:   ecfs umount " + mountpoint);
  return 0;
}

}  // namespace

Command add_recover_private(CLI::App& parent) {
  auto o = std::make_shared<Options>();
  CLI::App* app =
      parent.add_subcommand("recover-private", "Open a volume from its encrypted directory and the recovery key alone");
  app->add_option("DIR", o->where,
                  "An encrypted directory, a directory to search for one, or a block device; default: your home");
  app->add_option("--mountpoint", o->mountpoint,
                  "Where to show the files; default: a fresh directory that only you can enter")
      ->type_name("DIR");
  app->add_flag("--read-write", o->read_write, "Allow changes");
  app->add_flag("--list", o->list, "Only say which volumes there are");
  app->add_flag("--json", o->json, "Say what was found or done as JSON");
  add_unlock_options(*app, o->unlock);
  app->footer(
      "Examples:\n"
      "  ecfs recover-private /media/backup/.Private\n"
      "  ecfs recover-private --list /media\n"
      "  sudo ecfs recover-private /dev/sdb1");
  return {app, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
