#include "fs/fuse/sandbox.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string_view>

#include "wrap/base/fd.h"
#include "wrap/base/owned.h"
#include "wrap/mount.h"

namespace ecfs::fs {
namespace {

// ---- capabilities

// What root's server needs to work on files for others. SYS_ADMIN is for trusted.* attributes, SYS_RESOURCE for the
// blocks that a filesystem keeps for root, IPC_LOCK for keys without a limit.
constexpr std::array<unsigned, 12> kKept = {CAP_CHOWN,   CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,
                                            CAP_FSETID,  CAP_SETGID,       CAP_SETUID,          CAP_MKNOD,
                                            CAP_SETFCAP, CAP_SYS_ADMIN,    CAP_SYS_RESOURCE,    CAP_IPC_LOCK};

std::optional<std::string> drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (syscall(SYS_capget, &header, sets.data()) != 0) return "capabilities: " + system_error(errno, "capget").what;
  std::array<std::uint32_t, 2> keep{};
  for (const unsigned cap : kKept) keep[cap / 32] |= 1U << (cap % 32);
  for (std::size_t i = 0; i < sets.size(); ++i) {
    sets[i].permitted &= keep[i];
    sets[i].effective &= keep[i];
    sets[i].inheritable = 0;
  }
  if (syscall(SYS_capset, &header, sets.data()) != 0) return "capabilities: " + system_error(errno, "capset").what;
  return {};
}

// ---- Landlock: the numbers of include/uapi/linux/landlock.h, which the headers of the oldest system lack in part

struct LandlockRuleset {
  std::uint64_t fs = 0;
  std::uint64_t net = 0;     // ABI 4
  std::uint64_t scoped = 0;  // ABI 6
};
struct LandlockBelow {
  std::uint64_t allowed;
  std::int32_t parent_fd;
} __attribute__((packed));
constexpr unsigned kLandlockVersion = 1;
constexpr int kLandlockPathBeneath = 1;
constexpr std::uint64_t kExecute = 1U << 0;
constexpr std::uint64_t kReadFile = 1U << 2;
constexpr std::uint64_t kAllOfAbi1 = (1U << 13) - 1;
constexpr std::uint64_t kRefer = 1U << 13;     // ABI 2: move and link from one directory to another
constexpr std::uint64_t kTruncate = 1U << 14;  // ABI 3
constexpr std::uint64_t kIoctlDev = 1U << 15;  // ABI 5
constexpr std::uint64_t kBindAndConnectTcp = 3;
constexpr std::uint64_t kAbstractSocketsAndSignals = 3;

Status allow_below(int ruleset, int dir, std::uint64_t rights) {
  const LandlockBelow below{rights, dir};
  if (syscall(SYS_landlock_add_rule, ruleset, kLandlockPathBeneath, &below, 0) != 0) {
    return system_error(errno, "landlock_add_rule");
  }
  return {};
}

// With hidepid, /proc shows to a process what it might trace, or the members of a group; to one in a Landlock domain
// nothing but itself.
bool proc_is_hidden() {
  const auto proc = wrap::mount_at("/proc");
  return !proc || !*proc || (*proc)->options.find("hidepid=") != std::string::npos;
}

std::optional<std::string> restrict_files(const Confinement& what) {
  constexpr std::string_view kName = "Landlock: ";
  const long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, kLandlockVersion);
  if (abi < 0) return std::string(kName) + "not in this kernel, or switched off";
  if (abi < 2) return std::string(kName) + "too old in this kernel to let files be moved between directories";
  if (what.reads_groups && proc_is_hidden()) {
    return std::string(kName) +
           "not used: with hidepid on /proc the groups of other users' processes could not be read";
  }
  LandlockRuleset rules;
  rules.fs = kAllOfAbi1 | kRefer | (abi >= 3 ? kTruncate : 0) | (abi >= 5 ? kIoctlDev : 0);
  if (abi >= 4) rules.net = kBindAndConnectTcp;
  if (abi >= 6) rules.scoped = kAbstractSocketsAndSignals;
  const std::size_t size = abi >= 6 ? sizeof rules : abi >= 4 ? 2 * sizeof rules.fs : sizeof rules.fs;
  const Fd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &rules, size, 0)));
  if (!ruleset) return std::string(kName) + system_error(errno, "landlock_create_ruleset").what;
  const Status done = [&]() -> Status {
    ECFS_TRY(allow_below(ruleset.get(), what.lower_dir, rules.fs & ~(kExecute | kIoctlDev)));
    if (what.reads_groups) {
      const Fd proc(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!proc) return system_error(errno, "open /proc");
      ECFS_TRY(allow_below(ruleset.get(), proc.get(), kReadFile));
    }
    if (syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
      return system_error(errno, "landlock_restrict_self");
    return {};
  }();
  if (!done) return std::string(kName) + done.error().what;
  return {};
}

// ---- seccomp

// By names: what this libseccomp, or this machine, does not know is passed over.
constexpr auto kAllowed = std::to_array<const char*>(
    {// files by name
     "openat", "openat2", "open", "statx", "newfstatat", "fstatat64", "stat", "lstat", "stat64", "lstat64", "faccessat",
     "faccessat2", "access", "readlinkat", "readlink", "mkdirat", "mknodat", "unlinkat", "symlinkat", "linkat",
     "renameat", "renameat2", "fchmodat", "fchmodat2", "chmod", "fchownat", "lchown", "chown", "utimensat",
     "utimensat_time64", "statfs", "statfs64", "getxattr", "lgetxattr", "listxattr", "llistxattr", "setxattr",
     "lsetxattr", "removexattr", "lremovexattr", "getxattrat", "setxattrat", "listxattrat", "removexattrat", "getcwd",
     // open descriptors
     "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek",
     "_llseek", "close", "close_range", "dup", "dup3", "fcntl", "fcntl64", "fstat", "fstat64", "fstatfs", "fstatfs64",
     "ftruncate", "ftruncate64", "fallocate", "fsync", "fdatasync", "sync_file_range", "sync_file_range2", "syncfs",
     "fadvise64", "fadvise64_64", "arm_fadvise64_64", "readahead", "copy_file_range", "flock", "fchmod", "fchown",
     "fgetxattr", "flistxattr", "fsetxattr", "fremovexattr", "getdents64", "poll", "ppoll", "ppoll_time64", "eventfd2",
     "sendto", "sendmsg", "recvfrom", "recvmsg",
     // memory; mmap and mprotect below
     "munmap", "mremap", "brk", "madvise", "mlock", "mlock2", "munlock", "memfd_secret", "membarrier", "mincore",
     // threads; clone below
     "futex", "futex_time64", "futex_waitv", "futex_wait", "futex_wake", "set_robust_list", "rseq", "sched_yield",
     "sched_getaffinity", "exit", "exit_group", "gettid", "getpid", "getppid", "rt_sigaction", "rt_sigprocmask",
     "rt_sigreturn", "sigreturn", "sigaltstack", "rt_sigtimedwait", "rt_sigtimedwait_time64", "restart_syscall",
     "getcpu",
     // time and what the machine is
     "clock_gettime", "clock_gettime64", "clock_getres", "clock_nanosleep", "clock_nanosleep_time64", "nanosleep",
     "gettimeofday", "time", "getrandom", "getrlimit", "ugetrlimit", "getrusage", "sysinfo", "uname", "umask",
     // who we are, and for root, who we act for
     "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "getuid32", "geteuid32",
     "getgid32", "getegid32", "getgroups32", "setfsuid", "setfsgid", "setgroups", "setfsuid32", "setfsgid32",
     "setgroups32",
     // processors that keep their own caches
     "cacheflush", "riscv_flush_icache"});

// No bug of ours calls these.
constexpr auto kAttacks = std::to_array<const char*>({"execve",
                                                      "execveat",
                                                      "fork",
                                                      "vfork",
                                                      "ptrace",
                                                      "process_vm_readv",
                                                      "process_vm_writev",
                                                      "process_madvise",
                                                      "pidfd_getfd",
                                                      "kcmp",
                                                      "socket",
                                                      "socketpair",
                                                      "connect",
                                                      "bind",
                                                      "listen",
                                                      "accept",
                                                      "accept4",
                                                      "socketcall",
                                                      "mount",
                                                      "umount",
                                                      "umount2",
                                                      "fsopen",
                                                      "fsmount",
                                                      "fsconfig",
                                                      "fspick",
                                                      "move_mount",
                                                      "open_tree",
                                                      "mount_setattr",
                                                      "pivot_root",
                                                      "chroot",
                                                      "setns",
                                                      "open_by_handle_at",
                                                      "name_to_handle_at",
                                                      "setuid",
                                                      "setgid",
                                                      "setreuid",
                                                      "setregid",
                                                      "setresuid",
                                                      "setresgid",
                                                      "setuid32",
                                                      "setgid32",
                                                      "setreuid32",
                                                      "setregid32",
                                                      "setresuid32",
                                                      "setresgid32",
                                                      "capset",
                                                      "keyctl",
                                                      "add_key",
                                                      "request_key",
                                                      "bpf",
                                                      "perf_event_open",
                                                      "userfaultfd",
                                                      "io_uring_setup",
                                                      "init_module",
                                                      "finit_module",
                                                      "delete_module",
                                                      "kexec_load",
                                                      "kexec_file_load",
                                                      "reboot",
                                                      "swapon",
                                                      "swapoff",
                                                      "acct",
                                                      "quotactl",
                                                      "iopl",
                                                      "ioperm",
                                                      "modify_ldt",
                                                      "personality",
                                                      "seccomp",
                                                      "sethostname",
                                                      "setdomainname",
                                                      "settimeofday",
                                                      "clock_settime",
                                                      "memfd_create",
                                                      "pkey_mprotect",
                                                      "kill",
                                                      "tkill",
                                                      "rt_sigqueueinfo",
                                                      "rt_tgsigqueueinfo",
                                                      "pidfd_send_signal",
                                                      "pidfd_open"});

using Filter = Owned<void, seccomp_release>;

class Rules {
 public:
  // What no rule says is answered with `otherwise`.
  Rules(Filter filter, std::uint32_t otherwise) : filter_(std::move(filter)), otherwise_(otherwise) {}

  template <class... Conditions>
  void add(std::uint32_t action, const char* name, Conditions... conditions) {
    const int number = seccomp_syscall_resolve_name(name);
    // The library takes no rule that says nothing new.
    if (number == __NR_SCMP_ERROR || error_ != 0 || action == otherwise_) return;
    const std::array<scmp_arg_cmp, sizeof...(conditions)> all{conditions...};
    error_ = seccomp_rule_add_array(filter_.get(), action, number, static_cast<unsigned>(all.size()), all.data());
  }
  // Both 0 or a negative errno.
  [[nodiscard]] int error() const noexcept { return error_; }
  int load() noexcept { return seccomp_load(filter_.get()); }

 private:
  Filter filter_;
  const std::uint32_t otherwise_;
  int error_ = 0;
};

constexpr scmp_arg_cmp masked(unsigned arg, std::uint64_t mask, std::uint64_t value) {
  return {arg, SCMP_CMP_MASKED_EQ, mask, value};
}
constexpr scmp_arg_cmp equals(unsigned arg, std::uint64_t value) { return {arg, SCMP_CMP_EQ, value, 0}; }
constexpr scmp_arg_cmp differs(unsigned arg, std::uint64_t value) { return {arg, SCMP_CMP_NE, value, 0}; }

std::optional<std::string> restrict_calls(const Confinement& what) {
  constexpr std::string_view kName = "seccomp: ";
  const std::uint32_t refuse = what.strict ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(ENOSYS);
  Filter filter(seccomp_init(refuse));
  if (!filter) return std::string(kName) + "no memory for a filter";
  (void)seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  // Kernels before 5.16 slow down whoever has a filter, in case it runs foreign code. This process has only its own.
  (void)seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_SSB, 1);
  (void)seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  Rules rules(std::move(filter), refuse);
  for (const char* name : kAllowed) rules.add(SCMP_ACT_ALLOW, name);
  for (const char* name : kAttacks) rules.add(SCMP_ACT_KILL_PROCESS, name);

  for (const char* name : {"mmap", "mmap2", "mprotect"}) {
    rules.add(SCMP_ACT_ALLOW, name, masked(2, PROT_EXEC, 0));
    rules.add(SCMP_ACT_KILL_PROCESS, name, masked(2, PROT_EXEC, PROT_EXEC));
  }
#ifdef __s390__
  constexpr unsigned kCloneFlags = 1;
#else
  constexpr unsigned kCloneFlags = 0;
#endif
  constexpr std::uint64_t kNamespaces =
      CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  rules.add(SCMP_ACT_ALLOW, "clone", masked(kCloneFlags, CLONE_THREAD | kNamespaces, CLONE_THREAD));
  rules.add(SCMP_ACT_KILL_PROCESS, "clone", masked(kCloneFlags, CLONE_THREAD, 0));
  // Its flags stand in memory, where no filter looks: the library takes clone instead.
  rules.add(SCMP_ACT_ERRNO(ENOSYS), "clone3");
  rules.add(SCMP_ACT_ALLOW, "unshare", equals(0, CLONE_FS));  // a thread's own umask
  rules.add(SCMP_ACT_KILL_PROCESS, "unshare", differs(0, CLONE_FS));
  rules.add(SCMP_ACT_ALLOW, "tgkill", equals(0, static_cast<std::uint64_t>(getpid())));  // abort(3)
  rules.add(SCMP_ACT_KILL_PROCESS, "tgkill", differs(0, static_cast<std::uint64_t>(getpid())));
  rules.add(SCMP_ACT_ALLOW, "prlimit64", equals(2, 0));  // to ask
  rules.add(SCMP_ACT_ALLOW, "prctl", equals(0, PR_SET_NAME));
  // What goes through a ring is restricted by the ring itself, where it is made.
  if (what.rings) {
    rules.add(SCMP_ACT_ALLOW, "io_uring_enter");
    rules.add(SCMP_ACT_ALLOW, "io_uring_register", equals(1, IORING_REGISTER_ENABLE_RINGS));
    rules.add(SCMP_ACT_KILL_PROCESS, "io_uring_register", differs(1, IORING_REGISTER_ENABLE_RINGS));
    rules.add(SCMP_ACT_ALLOW, "sched_setaffinity", equals(0, 0));  // of the thread itself
  } else {
    rules.add(SCMP_ACT_KILL_PROCESS, "io_uring_enter");
    rules.add(SCMP_ACT_KILL_PROCESS, "io_uring_register");
  }
  if (rules.error() != 0) return std::string(kName) + system_error(-rules.error(), "make a filter").what;
  if (const int err = rules.load(); err != 0) return std::string(kName) + system_error(-err, "load a filter").what;
  return {};
}

}  // namespace

Result<std::vector<std::string>> confine(const Confinement& what) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return system_error(errno, "give up new privileges");
  std::vector<std::string> missing;
  const auto note = [&](std::optional<std::string> lack) {
    if (lack) missing.push_back(*std::move(lack));
  };
  if (geteuid() == 0) note(drop_capabilities());
  note(restrict_files(what));
  note(restrict_calls(what));
  return missing;
}

}  // namespace ecfs::fs
