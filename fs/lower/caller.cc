#include "fs/lower/caller.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "fs/lower/lower_dir.h"

namespace ecfs::fs {
namespace {

// The system call, not the library's function, which changes all threads.
int set_thread_groups(const std::vector<gid_t>& groups) {
#ifdef SYS_setgroups32
  return static_cast<int>(syscall(SYS_setgroups32, groups.size(), groups.data()));
#else
  return static_cast<int>(syscall(SYS_setgroups, groups.size(), groups.data()));
#endif
}

const std::vector<gid_t>& own_groups() {
  static const std::vector<gid_t> kGroups = [] {
    std::vector<gid_t> groups(NGROUPS_MAX);
    const int n = getgroups(static_cast<int>(groups.size()), groups.data());
    groups.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return groups;
  }();
  return kGroups;
}

// The umask belongs to the process unless a thread parts from it. With the caller's own in force the lower filesystem
// does all that is to be done about umask and default ACLs.
void set_thread_umask(mode_t mask) {
  thread_local const bool kParted = unshare(CLONE_FS) == 0;
  thread_local mode_t present = ~mode_t{0};
  if (!kParted || present == mask) return;
  umask(mask);
  present = mask;
}

bool fs_ids_are(uid_t uid, gid_t gid) {
  // An impossible id changes nothing and tells the present one.
  return setfsuid(static_cast<uid_t>(-1)) == static_cast<int>(uid) &&
         setfsgid(static_cast<gid_t>(-1)) == static_cast<int>(gid);
}

}  // namespace

Caller Caller::self() {
  return {geteuid(), getegid(), 0, [] { return own_groups(); }};
}

Result<AsCaller> AsCaller::begin(const Caller& caller) {
  set_thread_umask(caller.umask);
  if (geteuid() != 0) {
    if (caller.uid != geteuid())
      return Error{Code::kDenied, EPERM, "only the owner of this mount can make files in it"};
    return AsCaller(false);
  }
  if (caller.uid == 0 && caller.gid == getegid()) return AsCaller(false);
  (void)own_groups();
  if (set_thread_groups(caller.groups ? caller.groups() : std::vector<gid_t>()) != 0) {
    return system_error(errno, "take the caller's groups");
  }
  AsCaller as(true);
  setfsgid(caller.gid);
  setfsuid(caller.uid);
  if (!fs_ids_are(caller.uid, caller.gid)) return Error{Code::kDenied, EPERM, "take the caller's identity"};
  return as;
}

void AsCaller::end() noexcept {
  if (!switched_) return;
  switched_ = false;
  setfsuid(geteuid());
  setfsgid(getegid());
  if (!fs_ids_are(geteuid(), getegid()) || set_thread_groups(own_groups()) != 0) std::abort();
}

void give_group(int fd, const Caller& caller, mode_t dir_mode) {
  if (geteuid() == 0 || caller.gid == getegid() || (dir_mode & S_ISGID) != 0) return;
  const Result<LowerStat> made = stat_at(fd, "");
  if (!made || fchownat(fd, "", static_cast<uid_t>(-1), caller.gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return;
  // The change of group took these bits off again.
  if (!S_ISLNK(made->st.st_mode) && (made->st.st_mode & (S_ISUID | S_ISGID)) != 0) {
    (void)chmod(ProcPath(fd).c_str(), made->st.st_mode & 07777);
  }
}

}  // namespace ecfs::fs
