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

// changing_mode does what may change the permission bits, and has an open file know them afterwards. Not while
// OwnerAccess has the mode widened: it would put the old one back over the new.
template <class F>
Status Volume::changing_mode(const InodeRef& inode, F&& work) {
  if (inode->dir) {
    const std::unique_lock lock(inode->dir->lock);
    return work();
  }
  const std::lock_guard lock(opening(*inode));
  std::shared_ptr<OpenFile> open;
  {
    const std::lock_guard inode_lock(inode->mutex);
    open = inode->open;
  }
  std::shared_lock<std::shared_mutex> times;
  std::unique_lock<std::shared_mutex> alone;
  if (open) {
    times = std::shared_lock(open->times);
    alone = std::unique_lock(open->upgrade);
  }
  Status done = work();
  if (alone) {
    struct stat st {};
    if (fstat(open->file.fd(), &st) == 0) inode->note_mode(st.st_mode);
  } else if (inode->set_id_mode != 0) {
    const Result<LowerStat> st = look(inode);
    inode->note_mode(st ? st->st.st_mode : 0);
  }
  return done;
}

// changing_times has `work` set the times of an inode. Of a file nothing put off is stored meanwhile, after which the
// times would be put back to what they were, nor is it opened or closed; and where its last name goes while it is being
// opened, that handle has it. (The kernel sends the times of a file that lost a name, and would have the close of that
// handle report an error.)
template <class F>
Status Volume::changing_times(const InodeRef& inode, F&& work) {
  if (!S_ISREG(inode->type)) return work();
  const std::lock_guard lock(opening(*inode));
  std::shared_ptr<OpenFile> open;
  {
    const std::lock_guard inode_lock(inode->mutex);
    open = inode->open;
  }
  std::shared_lock<std::shared_mutex> times;
  if (open) times = std::shared_lock(open->times);
  return work();
}

// at_link gives `use` a descriptor of the parent and the lower name of a link by which the inode is known, of each in
// turn until it is there, or the inode's own descriptor and an empty name where the last name is gone. If it is at none
// of them, a rename may have been half noted: it is tried again while none can be; then it is ESTALE.
template <class F>
auto Volume::at_link(const Inode& inode, F&& use) -> decltype(use(0, "")) {
  for (const bool again : {false, true}) {
    std::shared_lock still(moves_, std::defer_lock);
    if (again) still.lock();
    for (std::size_t i = 0; !inode.stale; ++i) {
      InodeRef parent;
      std::string name;
      {
        const std::lock_guard lock(inode.mutex);
        const std::size_t num_others = inode.others ? inode.others->links.size() : 0;
        if (i > num_others) break;
        const Link& link = i == 0 ? inode.link : inode.others->links[i - 1];
        if (!link.parent) break;
        parent = link.parent;
        name = link.name.get();
      }
      Result<std::shared_ptr<const Fd>> dir = dir_fd(parent, again);
      if (dir) {
        auto done = use((*dir)->get(), name.c_str());
        if (done || !is_gone(done.error())) return done;
      } else if (!is_gone(dir.error())) {
        return dir.error();
      }
    }
    // After the names: it is noted before one goes.
    std::shared_ptr<const Fd> own;
    {
      const std::lock_guard lock(inode.mutex);
      own = inode.own_fd();
    }
    if (own) {
      auto done = use(own->get(), "");
      if (done || !is_gone(done.error())) return done;
    }
  }
  return lost();
}

}  // namespace ecfs::fs
