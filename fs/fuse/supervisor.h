// The supervisor of a mount: it reads nothing of the volume, has no key, keeps the right to run fusermount3, and sees
// to it that the mount ends with its server. It is also the server's way to the system log.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "wrap/base/fd.h"

namespace ecfs::fs {

// supervise waits for the end of the process `server` and gives its exit status (128 + signal). `signals` are SIGTERM,
// SIGINT, SIGHUP and SIGCHLD, and blocked.
int supervise(pid_t server, Fd link, const sigset_t& signals);

}  // namespace ecfs::fs
