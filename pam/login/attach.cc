#include "pam/login/attach.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "wrap/base/log.h"
#include "wrap/user_dir.h"

namespace ecfs::pam {
namespace {

constexpr const char* kFuseDevice = "/dev/fuse";

std::string octal(mode_t mode) {
  std::array<char, 16> text{};
  (void)std::snprintf(text.data(), text.size(), "%o", mode);
  return text.data();
}

Status set_option(const Fd& context, const char* name, const std::string& value) {
  if (fsconfig(context.get(), FSCONFIG_SET_STRING, name, value.c_str(), 0) == 0) return {};
  return system_error(errno, std::string("set the mount option ") + name);
}

Status set_flag(const Fd& context, const char* name) {
  if (fsconfig(context.get(), FSCONFIG_SET_FLAG, name, nullptr, 0) == 0) return {};
  return system_error(errno, std::string("set the mount option ") + name);
}

// Decided by what only root can have made.
bool is_whole_home(const Identity& who, int mountpoint_dir) {
  const auto place = wrap::open_home_place(who);
  struct stat home {};
  struct stat at {};
  if (!place || fstatat(place->parent.get(), place->name.c_str(), &home, AT_SYMLINK_NOFOLLOW) != 0 ||
      fstat(mountpoint_dir, &at) != 0 || home.st_dev != at.st_dev || home.st_ino != at.st_ino) {
    return false;
  }
  const auto all = wrap::open_private_dir(place->parent.get(), ".ecfs", 0, place->path + "/.ecfs");
  struct stat his {};
  return all && fstatat(all->get(), who.name.c_str(), &his, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(his.st_mode) &&
         his.st_uid == who.uid;
}

// The mount itself, not yet anywhere in the tree.
Result<Fd> make_mount(const Identity& who, const OpenVolume& volume, const wrap::MountOptions& options,
                      const Fd& fuse) {
  struct stat st {};
  if (fstat(volume.mountpoint_dir.get(), &st) != 0) return system_error(errno, "stat the mountpoint");
  const Fd context(fsopen("fuse", FSOPEN_CLOEXEC));
  if (!context) return system_error(errno, "open the fuse filesystem");
  ECFS_TRY(set_option(context, "source", volume.lower));
  ECFS_TRY(set_option(context, "subtype", "ecfs"));
  ECFS_TRY(set_option(context, "fd", std::to_string(fuse.get())));
  ECFS_TRY(set_option(context, "rootmode", octal(st.st_mode & S_IFMT)));
  ECFS_TRY(set_option(context, "user_id", std::to_string(who.uid)));
  ECFS_TRY(set_option(context, "group_id", std::to_string(who.gid)));
  ECFS_TRY(set_flag(context, "default_permissions"));
  if (options.allow_other) ECFS_TRY(set_flag(context, "allow_other"));
  if (options.read_only) ECFS_TRY(set_flag(context, "ro"));
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return system_error(errno, "make the mount");
  const unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (options.read_only ? MOUNT_ATTR_RDONLY : 0U) |
                              (options.no_atime ? MOUNT_ATTR_NOATIME : 0U);
  Fd mount(fsmount(context.get(), FSMOUNT_CLOEXEC, attributes));
  if (!mount) return system_error(errno, "make the mount");
  return mount;
}

}  // namespace

Result<Attached> attach_volume(const Identity& who, OpenVolume volume, const std::string& mountd,
                               const Deadline& deadline) {
  // The child of the user's checked these; the descriptors came from it, so root looks again.
  ECFS_TRY(check_mountpoint(volume.mountpoint_dir.get(), who.uid));
  ECFS_TRY(check_lower(volume.lower_dir.get(), who.uid));
  ECFS_LET(wrap::MountOptions options, wrap::parse_mount_options(volume.options));
  const bool whole_home = is_whole_home(who, volume.mountpoint_dir.get());
  if (options.allow_other && !whole_home) {
    log_line(LOG_NOTICE, "user " + who.name + ": allow_other is not for mounts of a login and was left out");
  }
  options.allow_other = whole_home;
  const Fd fuse(open(kFuseDevice, O_RDWR | O_CLOEXEC));
  if (!fuse) return system_error(errno, std::string("open ") + kFuseDevice);
  ECFS_LET(const Fd mount, make_mount(who, volume, options, fuse));
  struct statx st {};
  // Asked for nothing but the device number, the kernel answers even those whom the mount is not for.
  if (statx(mount.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) != 0)
    return system_error(errno, "stat the mount");

  wrap::MountRequest request;
  request.options = options;
  request.lower_path = volume.lower;
  request.mountpoint = volume.mountpoint;
  request.volume_file = std::move(volume.volume_file);
  request.key = std::move(volume.key);
  wrap::MountdStart start;
  start.request = &request;
  start.lower_dir = volume.lower_dir.get();
  start.fuse_fd = fuse.get();
  start.run_as = who;
  start.program = mountd;
  start.timeout_ms = deadline.remaining_ms();
  ECFS_LET(const Child server, wrap::start_mountd(start));
  if (move_mount(mount.get(), "", volume.mountpoint_dir.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) !=
      0) {
    return system_error(errno, "mount on " + volume.mountpoint);  // the mount ends with its descriptor, its server too
  }
  return Attached{server.pid(), st.stx_dev_major, st.stx_dev_minor, whole_home};
}

bool is_mount_of(const wrap::MountEntry& entry, uid_t uid) {
  return entry.fstype == "fuse.ecfs" && wrap::owner_of(entry) == uid;
}

Status detach_mount(const wrap::MountEntry& entry, bool lazy) {
  const std::size_t slash = entry.mountpoint.rfind('/');
  if (slash == std::string::npos || slash + 1 == entry.mountpoint.size()) {
    return Error{Code::kInvalid, 0, "no mountpoint of ours: " + entry.mountpoint};
  }
  // By the directory around it: a descriptor of the mount itself would keep it busy. The user may exchange directories
  // on the way for symbolic links at any time, so it is the device number that says whether this is the mount. From
  // then on its name in that directory is fixed: the kernel renames and removes no directory that is a mountpoint.
  const std::string parent = slash == 0 ? "/" : entry.mountpoint.substr(0, slash);
  const Fd dir(open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return system_error(errno, "open " + parent);
  const std::string name = entry.mountpoint.substr(slash + 1);
  struct statx st {};
  if (statx(dir.get(), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) != 0) {
    return system_error(errno, "stat " + entry.mountpoint);
  }
  if (st.stx_dev_major != entry.device_major || st.stx_dev_minor != entry.device_minor) {
    return Error{Code::kNotFound, 0, entry.mountpoint + " leads elsewhere by now"};
  }
  const std::string path = "/proc/self/fd/" + std::to_string(dir.get()) + "/" + name;
  if (umount2(path.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) != 0) {
    return system_error(errno, "unmount " + entry.mountpoint);
  }
  return {};
}

}  // namespace ecfs::pam
