// The translation between libfuse's low-level interface and Volume. This folder is the only place that includes
// libfuse.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include "fs/volume.h"

namespace ecfs::fs {

// Server is what every request is given (the userdata of the session).
struct Server {
  Volume* volume = nullptr;
  // A tree that changes behind the mount: no writeback cache, nothing trusted without asking.
  bool shared = false;
  fuse_session* session = nullptr;
};

// operations gives the table of requests that are answered. Locks of files are not among them: the kernel keeps them by
// itself, which is right for a filesystem that one machine mounts.
const fuse_lowlevel_ops& operations() noexcept;

}  // namespace ecfs::fs
