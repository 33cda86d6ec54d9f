// The server of a mount: it reads the request, mounts, gives up all that it does not need, and answers the kernel.
#pragma once

#include <sys/types.h>

#include "wrap/base/fd.h"

namespace ecfs::fs {

struct ServerStart {
  Fd request;  // a socket with the MountRequest
  Fd lower;    // the lower directory
  Fd ready;    // told when the mount answers, or why it does not (wrap/mount.h)
  Fd fuse;     // /dev/fuse with a mount; none: the server mounts by itself
  Fd link;     // to the supervisor
  pid_t supervisor = 0;
  bool foreground = false;  // log lines go to stderr
};

// serve runs until the mount has ended, or cannot begin; gives the exit status. The stop signals are blocked.
int serve(ServerStart start);

}  // namespace ecfs::fs
