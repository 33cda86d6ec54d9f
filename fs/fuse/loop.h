// The threads that answer the kernel.
//
// libfuse's own loop has all of its threads wait for requests, and the kernel hands those out in turn: each wakes the
// thread that has slept longest, on whatever CPU it was, and waking a CPU that sleeps costs more than most requests. So
// one thread answers, and while requests come close upon each other it waits for the next awake, 50 microseconds at
// most (a third less time for small files, measured on two virtual CPUs). More threads are let in while it waits for
// something else than a CPU (a disk, a lock), or is long at one request, and stay aside again when that is over: looked
// at every millisecond, and not at all while nothing is to be done.
#pragma once

#include "wrap/base/result.h"

struct fuse_session;

namespace ecfs::fs {

// serve_requests answers until the session has ended: unmounted, or fuse_session_exit() called by a signal handler of
// the calling thread. Handled signals reach that thread alone; the threads made here block them. SIGUSR1 is used
// inside. At most `max_threads` at once. `beside_rings`: the others are served there (rings.h), and what is left, to
// forget inodes, has time and is taken many at once.
Status serve_requests(fuse_session* session, unsigned max_threads, bool beside_rings);

}  // namespace ecfs::fs
