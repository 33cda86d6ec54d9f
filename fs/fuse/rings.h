// Requests over io_uring, which Linux 6.15 and later offer beside /dev/fuse where the administrator has switched it on
// (/sys/module/fuse/parameters/enable_uring).
//
// The kernel has a queue of requests for each CPU, filled by the programs that run there. A few threads stand at each
// queue, bound to its CPU: who asks goes to sleep, the thread wakes in its place, and no other CPU has to be woken for
// the request, which is what most small ones cost. Only for long reads and writes, while the program goes on, may a
// thread be anywhere. A thread takes one request at a time; the kernel gives the next one to whoever
// began to wait last, and keeps it in the queue where nobody does.
//
// Over /dev/fuse there still come INIT, FORGET and INTERRUPT, and notifications go there.
//
// Source: include/uapi/linux/fuse.h and Documentation/filesystems/fuse/fuse-io-uring.rst of Linux.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"

struct fuse_session;

namespace ecfs::fs {

class Ring;

class Rings {
 public:
  // are_offered tells whether this kernel is set to take requests over io_uring.
  static bool are_offered();

  // make prepares the rings of a session that is mounted; they are able to serve it, and to do nothing else. Before the
  // process is confined. An error: requests come over /dev/fuse.
  static Result<std::unique_ptr<Rings>> make(fuse_session* session);
  ~Rings();
  Rings(const Rings&) = delete;
  Rings& operator=(const Rings&) = delete;

  // make_threads prepares to serve. Before INIT is answered, so that it can be said there whether they do; while the
  // stop signals are blocked, as the threads go on to do. An error: as above.
  Status make_threads();
  // serve has them begin. Once INIT was answered with OVER_IO_URING (kernel_io.cc) the kernel holds all requests back
  // until then.
  void serve();
  // stop ends that: what a thread is at is answered, and no more is taken. While there is the session.
  void stop();

  // answer takes what libfuse answers (a fuse_out_header, and what follows it), if that is to a request which came over
  // a ring. From any thread.
  bool answer(const iovec* parts, int num);

 private:
  explicit Rings(fuse_session* session);
  fuse_session* const session_;
  std::size_t num_queues_ = 0;
  std::vector<std::unique_ptr<Ring>> rings_;  // one of each queue first, then the second of each, …
};

// answer_buffer is where the contents of an answer can be put without a copy later, by the thread that serves a request
// from a ring and looks at nothing of it any more; else empty.
MutableByteView answer_buffer(std::size_t size) noexcept;

}  // namespace ecfs::fs
