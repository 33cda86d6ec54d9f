// What this mount agrees with the kernel beyond what libfuse 3.14 knows.
//
// HANDLE_KILLPRIV_V2: without it the kernel asks for security.capability ahead of every write(2), which is a request
// and its answer for each. With it suid, sgid and capabilities of a file are ours to take away where somebody else
// writes to it (drop_privileges in fs/volume_files.cc); the kernel remembers that a file has none.
//
// OVER_IO_URING: where the server has rings (rings.h) and the kernel takes them.
#pragma once

#include "wrap/base/result.h"

struct fuse_session;

namespace ecfs::fs {

// use_kernel_io puts the calls that read and write /dev/fuse under the session: after it is mounted, before its first
// message. The session's userdata is a Server.
Status use_kernel_io(fuse_session* session);

}  // namespace ecfs::fs
