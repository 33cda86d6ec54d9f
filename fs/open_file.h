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
  OpenFile(Fd fd, bool writable) noexcept : file(std::move(fd), writable) {}

  void note_mode(mode_t mode) noexcept { set_id_mode = (mode & (S_ISUID | S_ISGID)) != 0 ? mode & 07777U : 0; }

  // Shared by every use of `file` and `contents`; alone while a descriptor is exchanged for a writable one.
  std::shared_mutex upgrade;
  LowerFile file;
  std::unique_ptr<Contents> contents;

  // Permission bits with suid or sgid among them, else 0. Lower writes by an unprivileged daemon take those two off,
  // which is for the kernel above to do: it changes the mode itself ahead of the write, not when it writes back.
  // Changed with `upgrade` alone.
  std::atomic<mode_t> set_id_mode{0};

  unsigned handles = 0;                 // guarded by Volume::opening_
  std::atomic<unsigned> writers{0};     // handles opened for writing
  std::atomic<bool> changed{false};     // by one of the handles, since the first was opened
  std::atomic<bool> unsettled{false};   // written since it was last settled
  std::atomic<bool> lost_write{false};  // a write failed: the kernel may believe in another size
};

}  // namespace ecfs::fs
