// The translation between libfuse's low-level interface and Volume. This folder is the only place that includes
// libfuse.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "fs/fuse/idle.h"
#include "fs/fuse/key_gate.h"
#include "fs/fuse/rings.h"
#include "fs/volume.h"

namespace ecfs::fs {

constexpr std::size_t kMaxRequestBytes = 1U << 20;  // of contents, read or written

// Seeker answers SEEK_DATA and SEEK_HOLE on files that somebody has open for writing. The kernel does not write its
// dirty pages back before it asks (seen with Linux 6.18), so a file just written would look empty, and a copy of it by
// its holes would be. The way to have them written is to invalidate the file's cache; that call waits for our own
// answers to the writes, so it has a thread of its own, which serves nothing else.
class Seeker {
 public:
  Seeker(Volume& volume, KeyGate& gate, fuse_session* session);
  ~Seeker();
  Seeker(const Seeker&) = delete;
  Seeker& operator=(const Seeker&) = delete;

  struct Question {
    fuse_req_t req;
    fuse_ino_t ino;
    std::uint64_t offset;
    int whence;
    FileHandle* file;  // open until the answer: the kernel waits with the file in hand
  };
  void ask(const Question& question);

 private:
  void answer_all();
  Volume& volume_;
  KeyGate& gate_;
  fuse_session* const session_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<Question> questions_;
  bool stopping_ = false;
  std::thread thread_;
};

// Handles are the open files or directories that the kernel has numbers of. Those of a mount that was detached and then
// ended under its last users are never given back by the kernel, but are closed like the others. Safe from any thread.
template <class Handle>
class Handles {
 public:
  std::uint64_t give(std::unique_ptr<Handle> handle) {
    const std::lock_guard lock(mutex_);
    handles_.insert(handle.get());
    return number_of(handle.release());
  }
  // get is for a number that was given and not taken: the kernel holds the file while it asks.
  static Handle& get(std::uint64_t number) noexcept { return *reinterpret_cast<Handle*>(number); }  // NOLINT
  std::unique_ptr<Handle> take(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    handles_.erase(&get(number));
    return std::unique_ptr<Handle>(&get(number));
  }
  [[nodiscard]] bool empty() {
    const std::lock_guard lock(mutex_);
    return handles_.empty();
  }
  // all gives those there are; good for as long as no request is under way.
  [[nodiscard]] std::vector<Handle*> all() {
    const std::lock_guard lock(mutex_);
    return {handles_.begin(), handles_.end()};
  }
  std::unique_ptr<Handle> take_any() {
    const std::lock_guard lock(mutex_);
    if (handles_.empty()) return nullptr;
    return std::unique_ptr<Handle>(handles_.extract(handles_.begin()).value());
  }

 private:
  static std::uint64_t number_of(Handle* handle) noexcept { return reinterpret_cast<std::uint64_t>(handle); }  // NOLINT
  std::mutex mutex_;
  std::unordered_set<Handle*> handles_;
};

// Server is what every request is given (the userdata of the session).
struct Server {
  Volume* volume = nullptr;
  // A tree that changes behind the mount: no writeback cache, nothing trusted without asking.
  bool shared = false;
  // kernel_io.cc, while the first message is answered.
  bool kernel_offers_killpriv = false;
  bool kernel_offers_rings = false;
  bool kernel_agreed = false;
  std::unique_ptr<Rings> rings;  // none: all requests come over /dev/fuse
  std::unique_ptr<Seeker> seeker;
  std::unique_ptr<Idle> idle;  // none: the mount stays, used or not
  KeyGate gate;
  Handles<FileHandle> files;
  Handles<DirHandle> dirs;

  // close_all is for the end: no request is under way any more.
  void close_all();
};

// store_in_kernel puts all of a file's contents into the kernel's cache; for Volume::set_cache_fill.
bool store_in_kernel(fuse_session* session, std::uint64_t nodeid, ByteView contents) noexcept;

// operations gives the table of requests that are answered. Locks of files are not among them: the kernel keeps them by
// itself, which is right for a filesystem that one machine mounts.
const fuse_lowlevel_ops& operations() noexcept;

}  // namespace ecfs::fs
