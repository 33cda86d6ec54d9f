// What the parts of Volume share; included by fs/volume*.cc alone.
#pragma once

#include <cerrno>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "fs/volume.h"

namespace ecfs::fs {

// gone is ESTALE: what the table says about an inode's place is not so (any more).
Error gone();
// is_gone says whether a failed step may be due to such a place.
bool is_gone(const Error& error) noexcept;

// at_link gives `use` a descriptor of the parent and the lower name by which the inode is known. If that fails because
// it is not there, a rename may have been half noted: it is tried again while none can be; then it is ESTALE.
template <class F>
auto Volume::at_link(const Inode& inode, F&& use) -> decltype(use(0, "")) {
  for (const bool again : {false, true}) {
    std::shared_lock still(moves_, std::defer_lock);
    if (again) still.lock();
    if (inode.stale) break;
    InodeRef parent;
    std::string name;
    {
      const std::lock_guard lock(inode.mutex);
      parent = inode.parent;
      name = inode.name.get();
    }
    if (!parent) break;
    Result<std::shared_ptr<const Fd>> dir = dir_fd(parent, again);
    if (dir) {
      auto done = use((*dir)->get(), name.c_str());
      if (done || !is_gone(done.error())) return done;
    } else if (!is_gone(dir.error())) {
      return dir.error();
    }
  }
  return gone();
}

}  // namespace ecfs::fs
