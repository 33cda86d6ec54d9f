// LowerFile is one open lower regular file: the only way that contents reach the disk. It retries EINTR and short
// counts, and turns failures into Results with errno. Positions are absolute; O_APPEND is never used. Safe from any
// thread, except upgrade().
#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

class LowerFile {
 public:
  // Takes a descriptor opened O_RDWR, or O_RDONLY with `writable` false.
  LowerFile(Fd fd, bool writable) noexcept : fd_(std::move(fd)), writable_(writable) {}
  virtual ~LowerFile() = default;
  LowerFile(LowerFile&&) noexcept = default;
  LowerFile& operator=(LowerFile&&) noexcept = default;
  LowerFile(const LowerFile&) = delete;
  LowerFile& operator=(const LowerFile&) = delete;

  [[nodiscard]] bool writable() const noexcept { return writable_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // upgrade exchanges a read-only descriptor for one of the same file open for writing. No other call may be under way.
  void upgrade(Fd fd) noexcept {
    fd_ = std::move(fd);
    writable_ = true;
  }

  // read_at and readv_at read until the buffers are full or the file ends; they give the number of bytes read.
  Result<std::size_t> read_at(std::uint64_t offset, MutableByteView out) const;
  Result<std::size_t> readv_at(std::uint64_t offset, std::span<const iovec> buffers) const;

  // write_at and writev_at write all, in as few system calls as the kernel allows (normally one). On failure some of it
  // may be there: `written` (if not null) then says how many bytes are known to be.
  Status write_at(std::uint64_t offset, ByteView bytes, std::size_t* written = nullptr);
  Status writev_at(std::uint64_t offset, std::span<const iovec> buffers, std::size_t* written = nullptr);

  [[nodiscard]] Result<std::uint64_t> size() const;
  Status truncate(std::uint64_t size);
  Status sync_data();                                     // fdatasync
  Status sync();                                          // fsync
  Status punch(std::uint64_t offset, std::uint64_t len);  // fallocate PUNCH_HOLE|KEEP_SIZE
  // reserve has the disk keep room for this range (fallocate KEEP_SIZE); nothing else changes.
  Status reserve(std::uint64_t offset, std::uint64_t len);
  // next_data and next_hole are lseek SEEK_DATA and SEEK_HOLE; past the end: ENXIO.
  [[nodiscard]] Result<std::uint64_t> next_data(std::uint64_t offset) const;
  [[nodiscard]] Result<std::uint64_t> next_hole(std::uint64_t offset) const;
  // read_xattr gives an extended attribute, or nothing if the file or its filesystem has none such; write_xattr makes
  // or replaces it whole. Where the file's mode denies its owner that, it is widened for the time of the call: nobody
  // else may change it meanwhile.
  [[nodiscard]] Result<std::optional<Bytes>> read_xattr(const char* name) const;
  Status write_xattr(const char* name, ByteView value);
  // advise_willneed asks the kernel to read ahead.
  void advise_willneed(std::uint64_t offset, std::uint64_t len) const noexcept;

 protected:
  // The system calls one by one, results and errno as theirs. Tests record them and make them fail here.
  virtual ssize_t sys_preadv(const iovec* buffers, int num, off_t offset) const;
  virtual ssize_t sys_pwritev(const iovec* buffers, int num, off_t offset);
  virtual int sys_ftruncate(off_t size);
  virtual int sys_fdatasync();
  virtual int sys_fsync();
  virtual int sys_fallocate(int mode, off_t offset, off_t len);
  virtual int sys_fsetxattr(const char* name, ByteView value);

 private:
  template <class Call>
  void with_owner_access(mode_t want, Call&& call) const;

  Fd fd_;
  bool writable_;
};

}  // namespace ecfs::fs
