// Starting ecfs-mountd, the program that serves one mount, and finding out what is mounted.
//
// The request travels over a pipe: options, the volume file and the key; never argv or environment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_options.h"
#include "wrap/volume_header.h"

namespace ecfs::wrap {

// Options of a mount, as in `ecfs mount -o ro,noatime`.
struct MountOptions {
  bool read_only = false;        // ro
  bool no_atime = false;         // noatime
  bool no_exec = false;          // noexec
  bool allow_other = false;      // allow_other (root, or user_allow_other in /etc/fuse.conf)
  bool show_conflicts = false;   // show-conflicts: foreign names that sync programs made are shown
  bool shared = false;           // shared: the lower tree is changed behind the mount
  bool unsealed_report = false;  // unsealed=report: a sealed size that differs is logged, not refused
  bool suspend = false;          // suspend: locked, or its keys wiped, when the machine goes to sleep
  bool hibernate = false;        // hibernate: keys may be written into a hibernation image; else it is not possible
  std::uint32_t idle_s = 0;      // idle=MIN, or idle=N with s, m or h: unmount when unused for so long; 0: never
  std::optional<EcryptfsOptions> ecryptfs;  // set: LOWER is an eCryptfs tree
  friend bool operator==(const MountOptions&, const MountOptions&) = default;
};
// The longest time of the option idle: 365 days.
constexpr std::uint32_t kMaxIdleSeconds = 365 * 24 * 3600;
// parse_mount_options takes items that may hold commas ("ro,noatime"); what mount(8) and fstab have besides
// (rw, nosuid, defaults, noauto, user, nofail, x-…) is taken and means nothing here; an unknown one is kInvalid and
// named.
Result<MountOptions> parse_mount_options(const std::vector<std::string>& items);
std::string build_mount_options(const MountOptions& options);

struct MountRequest {
  MountOptions options;
  std::string lower_path;  // shown as the source of the mount; not used to open anything
  std::string mountpoint;  // absolute; where the mount is (to be) seen
  Bytes volume_file;       // the bytes of the header that was verified; none for an eCryptfs tree
  Secret key;              // the volume key, or the keys of an eCryptfs tree (fs/format/ecryptfs_keys.h, pack)
};
constexpr std::size_t kMaxMountKeyBytes = 64 * 72;

// ecryptfs_mount_id stands for the id that an eCryptfs tree does not have: it names its lower directory (by device and
// inode number) where the server of its mount is looked for.
Result<VolumeId> ecryptfs_mount_id(int lower_dir);
// `fd` is one end of a connected socket pair; a peer that is gone is an error, not a SIGPIPE.
Status send_mount_request(int fd, const MountRequest& request);
Result<MountRequest> receive_mount_request(int fd);
// await_mount_request waits for one to begin; false: the other end was closed without.
bool await_mount_request(int fd);

// Descriptor numbers that ecfs-mountd is started with.
constexpr int kMountdRequestFd = 3;  // a socket with the MountRequest
constexpr int kMountdLowerFd = 4;    // the lower directory
constexpr int kMountdReadyFd = 5;  // write end: "ok\n" once the mount answers, else "<Code as number> <errno> <text>\n"
constexpr int kMountdFuseFd =
    6;  // /dev/fuse with the mount made already (ecfs-login); absent: it mounts through fusermount3

struct MountdStart {
  const MountRequest* request = nullptr;
  int lower_dir = -1;
  int fuse_fd = -1;                // -1: ecfs-mountd mounts by itself
  std::optional<Identity> run_as;  // ecfs-login: the user
  std::string program;             // path of ecfs-mountd; empty: helper_path("ecfs-mountd")
  bool foreground = false;         // `ecfs mount -f`: the caller waits for the Child; logs go to stderr
  int timeout_ms = 10000;
};
// start_mountd starts $ECFS_LIBEXEC/ecfs-mountd (only without privilege; else the installed path) and returns when the
// mount answers.
Result<Child> start_mountd(const MountdStart& start);

// The same in two steps: while somebody is asked for a passphrase, or it is worked on, the program gets ready. One that
// is dropped without a request ends by itself, and says nothing.
struct WaitingMountd {
  Child child;
  Fd request;
  Fd ready;
};
// prepare_mountd takes `start` without a request, of a volume that is no eCryptfs tree.
Result<WaitingMountd> prepare_mountd(const MountdStart& start);
Result<Child> mount_with(WaitingMountd mountd, const MountRequest& request, int timeout_ms);

// helper_path gives the path of an installed helper program, or in $ECFS_LIBEXEC
// unless this process gained privileges when it was started (secure_getenv).
std::string helper_path(const std::string& name);
// helper_environment gives what such a program gets for an environment: next to nothing.
std::vector<std::string> helper_environment();

struct MountEntry {
  std::string mountpoint;
  std::string fstype;
  std::string source;
  std::string options;  // of the mount and of the filesystem, joined by ','
  unsigned device_major = 0;
  unsigned device_minor = 0;
};
// mounts lists this process's mounts (/proc/self/mountinfo), oldest first. mount_at gives the uppermost one exactly at
// `path`, if any.
Result<std::vector<MountEntry>> mounts();
Result<std::optional<MountEntry>> mount_at(const std::string& path);
// ecfs_mount_at is mount_at where the type is fuse.ecfs.
Result<std::optional<MountEntry>> ecfs_mount_at(const std::string& path);
// owner_of gives the user that a FUSE mount is for: user_id= of its options, which is the kernel's word.
std::optional<uid_t> owner_of(const MountEntry& mount);
// is_dead says whether the server of a mount is gone (ENOTCONN). Only the mount's own user can tell: others get EACCES
// either way.
bool is_dead(const std::string& mountpoint);

// unmount unmounts what is at `mountpoint`: as root by umount2(2), else through fusermount3. Busy: kBusy. `lazy`
// detaches it at once.
Status unmount(const std::string& mountpoint, bool lazy);

struct Holder {
  pid_t pid = 0;
  std::string name;
};
// holders_of lists the processes that keep a mount busy (cwd, root, open files, mappings), as far as the caller may
// see.
std::vector<Holder> holders_of(const MountEntry& mount);

}  // namespace ecfs::wrap
