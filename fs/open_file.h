// OpenFile is what all handles of one open regular file share: the lower file and its plaintext. Header, size and
// caches live with the inode, not with the handle, so that every handle sees one file.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>

#include "fs/format/format.h"
#include "fs/lower/lower_file.h"

namespace ecfs::fs {

struct OpenFile {
  OpenFile(Inode& of, Fd fd, bool writable) noexcept : inode(of), file(std::move(fd), writable) {}

  Inode& inode;
  // Shared by what sets the file's times: whoever writes, and utimens; alone while what was put off is stored, which is
  // to leave them as they are.
  std::shared_mutex times;
  // Shared by every use of `file` and `contents`; alone while a descriptor is exchanged for a writable one.
  std::shared_mutex upgrade;
  LowerFile file;
  std::unique_ptr<Contents> contents;

  unsigned handles = 0;                 // guarded by Volume::opening_
  std::atomic<unsigned> writers{0};     // handles opened for writing
  std::atomic<bool> changed{false};     // by one of the handles, since the first was opened
  std::atomic<bool> unsettled{false};   // written since it was last settled
  std::atomic<bool> lost_write{false};  // a write failed: the kernel may believe in another size
};

}  // namespace ecfs::fs
