#include "fs/lower/lower_file.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "fs/lower/lower_dir.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kBatch = 64;  // iovecs handed to the kernel at once; well below IOV_MAX

Result<off_t> to_off(std::uint64_t v, std::string_view what) {
  if (v > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return system_error(EFBIG, what);
  return static_cast<off_t>(v);
}

// transfer moves all of `buffers` with `call` (preadv or pwritev), or until it gives 0 or fails. `done` counts bytes.
template <class Call>
Status transfer(std::uint64_t offset, std::span<const iovec> buffers, std::size_t& done, std::string_view what,
                Call call) {
  std::size_t index = 0;
  std::size_t skip = 0;  // bytes of buffers[index] already moved
  while (true) {
    while (index < buffers.size() && skip == buffers[index].iov_len) {
      ++index;
      skip = 0;
    }
    if (index == buffers.size()) return {};
    std::array<iovec, kBatch> batch{};
    const std::size_t num = std::min(kBatch, buffers.size() - index);
    std::copy_n(buffers.begin() + static_cast<std::ptrdiff_t>(index), num, batch.begin());
    batch[0].iov_base = static_cast<std::uint8_t*>(batch[0].iov_base) + skip;
    batch[0].iov_len -= skip;
    ECFS_LET(const off_t at, to_off(offset + done, what));
    const ssize_t moved = call(batch.data(), static_cast<int>(num), at);
    if (moved < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, what);
    }
    if (moved == 0) return {};
    done += static_cast<std::size_t>(moved);
    std::size_t rest = static_cast<std::size_t>(moved);
    while (rest > 0) {
      const std::size_t take = std::min(rest, buffers[index].iov_len - skip);
      skip += take;
      rest -= take;
      if (skip == buffers[index].iov_len) {
        ++index;
        skip = 0;
      }
    }
  }
}

std::size_t total(std::span<const iovec> buffers) noexcept {
  std::size_t sum = 0;
  for (const iovec& b : buffers) sum += b.iov_len;
  return sum;
}

template <class Call>
Status retry(std::string_view what, Call call) {
  while (call() != 0) {
    if (errno != EINTR) return system_error(errno, what);
  }
  return {};
}

}  // namespace

Result<std::size_t> LowerFile::read_at(std::uint64_t offset, MutableByteView out) const {
  const iovec one{out.data(), out.size()};
  return readv_at(offset, {&one, 1});
}

Result<std::size_t> LowerFile::readv_at(std::uint64_t offset, std::span<const iovec> buffers) const {
  std::size_t done = 0;
  ECFS_TRY(transfer(offset, buffers, done, "read lower file",
                    [this](const iovec* v, int num, off_t at) { return sys_preadv(v, num, at); }));
  return done;
}

Status LowerFile::write_at(std::uint64_t offset, ByteView bytes, std::size_t* written) {
  const iovec one{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};  // pwritev only reads it
  return writev_at(offset, {&one, 1}, written);
}

Status LowerFile::writev_at(std::uint64_t offset, std::span<const iovec> buffers, std::size_t* written) {
  std::size_t done = 0;
  Status status = transfer(offset, buffers, done, "write lower file",
                           [this](const iovec* v, int num, off_t at) { return sys_pwritev(v, num, at); });
  if (written != nullptr) *written = done;
  // A write that moves nothing and names no error would loop for ever; no local filesystem does it.
  if (status && done != total(buffers)) return system_error(EIO, "write lower file: nothing written");
  return status;
}

Result<std::uint64_t> LowerFile::size() const {
  struct stat st {};
  if (::fstat(fd_.get(), &st) != 0) return system_error(errno, "stat lower file");
  return static_cast<std::uint64_t>(st.st_size);
}

Status LowerFile::truncate(std::uint64_t size) {
  ECFS_LET(const off_t len, to_off(size, "truncate lower file"));
  return retry("truncate lower file", [&] { return sys_ftruncate(len); });
}

Status LowerFile::sync_data() {
  return retry("sync lower file", [&] { return sys_fdatasync(); });
}

Status LowerFile::sync() {
  return retry("sync lower file", [&] { return sys_fsync(); });
}

Status LowerFile::punch(std::uint64_t offset, std::uint64_t len) {
  ECFS_LET(const off_t at, to_off(offset, "punch lower file"));
  ECFS_LET(const off_t bytes, to_off(len, "punch lower file"));
  return retry("punch lower file",
               [&] { return sys_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes); });
}

Status LowerFile::reserve(std::uint64_t offset, std::uint64_t len) {
  ECFS_LET(const off_t at, to_off(offset, "reserve room in lower file"));
  ECFS_LET(const off_t bytes, to_off(len, "reserve room in lower file"));
  return retry("reserve room in lower file", [&] { return sys_fallocate(FALLOC_FL_KEEP_SIZE, at, bytes); });
}

Result<std::uint64_t> LowerFile::next_data(std::uint64_t offset) const {
  ECFS_LET(const off_t from, to_off(offset, "seek in lower file"));
  const off_t at = ::lseek(fd_.get(), from, SEEK_DATA);
  if (at < 0) return system_error(errno, "seek in lower file");
  return static_cast<std::uint64_t>(at);
}

Result<std::uint64_t> LowerFile::next_hole(std::uint64_t offset) const {
  ECFS_LET(const off_t from, to_off(offset, "seek in lower file"));
  const off_t at = ::lseek(fd_.get(), from, SEEK_HOLE);
  if (at < 0) return system_error(errno, "seek in lower file");
  return static_cast<std::uint64_t>(at);
}

// Attributes are allowed by the file's mode as it is, not by how the file was opened.
template <class Call>
void LowerFile::with_owner_access(mode_t want, Call&& call) const {
  struct stat st {};
  if (fstat(fd_.get(), &st) != 0) return;
  const OwnerAccess access(fd_.get(), st, want);
  call();
}

Result<std::optional<Bytes>> LowerFile::read_xattr(const char* name) const {
  Bytes value(XATTR_SIZE_MAX);
  int err = 0;
  ssize_t len = -1;
  const auto read = [&] {
    len = ::fgetxattr(fd_.get(), name, value.data(), value.size());
    err = len < 0 ? errno : 0;
  };
  read();
  if (err == EACCES) with_owner_access(S_IRUSR, read);
  if (err == ENODATA || err == EOPNOTSUPP) return std::optional<Bytes>();
  if (err != 0) return system_error(err, "read an attribute of lower file");
  value.resize(static_cast<std::size_t>(len));
  return std::optional<Bytes>(std::move(value));
}

Status LowerFile::write_xattr(const char* name, ByteView value) {
  Status done;
  const auto write = [&] {
    done = retry("write an attribute of lower file", [&] { return sys_fsetxattr(name, value); });
  };
  write();
  if (!done && done.error().sys_errno == EACCES) with_owner_access(S_IWUSR, write);
  return done;
}

void LowerFile::advise_willneed(std::uint64_t offset, std::uint64_t len) const noexcept {
  // Only advice: whatever it answers, the read that follows tells.
  (void)::posix_fadvise(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(len), POSIX_FADV_WILLNEED);
}

ssize_t LowerFile::sys_preadv(const iovec* buffers, int num, off_t offset) const {
  return ::preadv(fd_.get(), buffers, num, offset);
}
ssize_t LowerFile::sys_pwritev(const iovec* buffers, int num, off_t offset) {
  return ::pwritev(fd_.get(), buffers, num, offset);
}
int LowerFile::sys_ftruncate(off_t size) { return ::ftruncate(fd_.get(), size); }
int LowerFile::sys_fdatasync() { return ::fdatasync(fd_.get()); }
int LowerFile::sys_fsync() { return ::fsync(fd_.get()); }
int LowerFile::sys_fallocate(int mode, off_t offset, off_t len) { return ::fallocate(fd_.get(), mode, offset, len); }
int LowerFile::sys_fsetxattr(const char* name, ByteView value) {
  return ::fsetxattr(fd_.get(), name, value.data(), value.size(), 0);
}

}  // namespace ecfs::fs
