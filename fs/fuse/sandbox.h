// What the server of a mount gives up once the mount is made: the way to more privilege, every file but those of the
// lower directory, every system call that it has no use for.
#pragma once

#include <string>
#include <vector>

#include "wrap/base/result.h"

namespace ecfs::fs {

struct Confinement {
  int lower_dir = -1;         // may be O_PATH
  bool reads_groups = false;  // root for several users: the caller's groups are read from /proc/PID/status
  bool rings = false;         // requests come over io_uring, and the rings are there (fs/fuse/rings.h)
  // What happens at a system call that is neither listed as needed nor as an attack: false: it fails with ENOSYS, as
  // with an older kernel. True, for tests: the process ends.
  bool strict = false;
};

// confine holds for this thread and all that it starts later, for good. Call before there are others.
//
//  - no_new_privs; of root's capabilities only those for files stay
//  - Landlock: files are opened, made, moved and removed below `lower_dir` alone; no TCP, no signals and abstract
//    sockets of others (as far as the kernel's Landlock goes). What is open already stays usable.
//  - seccomp: threads, memory without execution, and work on files and open descriptors. To start a program or a
//    process, to make a socket or a ring, to trace, to mount and the like ends the process at once (SIGSYS).
//
// Gives what this kernel could not do, a line each for the log; only the lack of no_new_privs is an error.
Result<std::vector<std::string>> confine(const Confinement& what);

}  // namespace ecfs::fs
