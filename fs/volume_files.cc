// Open files: handles, contents, and what is put off until they are flushed or closed.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "fs/volume.h"
#include "fs/volume_internal.h"
#include "wrap/base/log.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kCopyChunk = 1U << 20;
constexpr std::size_t kMaxCopy = 16U << 20;
constexpr std::size_t kSmallFile = 4096;         // a page of the kernel's
constexpr int kQuietly = O_NONBLOCK | O_NOCTTY;  // should something else stand in a file's place

bool wants_write(int flags) noexcept { return (flags & O_ACCMODE) != O_RDONLY; }

bool is_denied(const Error& error) noexcept {
  const int err = errno_of(error);
  return err == EACCES || err == EPERM || err == EROFS || err == ETXTBSY;
}

bool same_time(const timespec& a, const timespec& b) noexcept { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

// version_of tells one state of a lower file from another; never 0.
std::uint64_t version_of(const struct stat& st) noexcept {
  std::uint64_t v = 1469598103934665603U;
  for (const std::int64_t part :
       {st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_ctim.tv_sec, st.st_ctim.tv_nsec, std::int64_t{st.st_size}}) {
    v = (v ^ static_cast<std::uint64_t>(part)) * 0x9e3779b97f4a7c15U;
    v ^= v >> 29;
  }
  return v | 1U;
}

}  // namespace

// take_privileges takes suid and, where the group may execute, sgid off a file that `caller` changed, as the kernel
// does on filesystems of its own. The lower call takes them off only if this process has no privilege itself, and then
// put_mode_back has undone it.
void Volume::take_privileges(OpenFile& open, uid_t caller) {
  if (caller == 0 || open.inode.set_id_mode == 0) return;
  const std::unique_lock alone(open.upgrade);
  struct stat st {};
  if (fstat(open.file.fd(), &st) != 0) return;
  const bool set_group = (st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
  if ((st.st_mode & S_ISUID) == 0 && !set_group) return;
  const mode_t mode = st.st_mode & (set_group ? 01777U : 03777U);
  if (fchmod(open.file.fd(), mode) == 0) open.inode.note_mode(mode);
}

void Volume::drop_privileges(FileHandle& file, uid_t caller) { take_privileges(*file.open, caller); }

// open_regular opens the lower file for reading and writing, or, where that is denied and not asked for, for reading
// alone.
//
// The kernel has decided by mode and ACL that the caller may open it so. The lower call may still be denied: contents
// are written by reading first, and mode 0200 or 0100 denies an owner that. Then the owner's own bits are set for the
// time of the call, on the inode itself (not on a name, which may be exchanged).
Result<Volume::LowerOpened> Volume::open_regular(const InodeRef& inode, Access how) {
  const bool write = how == Access::kWrite;
  const auto checked = [&](Fd fd, bool writable) -> Result<LowerOpened> {
    ECFS_LET(const LowerStat st, stat_at(fd.get(), ""));
    if (!(st.key() == inode->key) || !S_ISREG(st.st.st_mode)) return gone();
    return LowerOpened{std::move(fd), st, writable};
  };
  const auto try_at = [&](int dirfd, const char* name) -> Result<LowerOpened> {
    if (how == Access::kLook) {
      if (Result<Fd> quiet = open_at(dirfd, name, O_RDONLY | O_NOATIME | kQuietly)) {
        return checked(*std::move(quiet), false);
      }
    }
    bool writable = how != Access::kLook && !options_.read_only && !inode->read_only;
    Result<Fd> fd =
        writable ? open_lower(dirfd, name, O_RDWR | kQuietly) : Result<Fd>(Error{Code::kDenied, EROFS, "read-only"});
    if (!fd && is_denied(fd.error()) && !write) {
      Result<Fd> readable = open_lower(dirfd, name, O_RDONLY | kQuietly);
      if (readable) writable = false;
      // Where nothing may be changed the owner's bits stay as they are, too.
      const bool may_widen = how == Access::kLook && !options_.read_only && !inode->read_only;
      if (readable || may_widen || errno_of(readable.error()) != EACCES) fd = std::move(readable);
    }
    if (fd) return checked(*std::move(fd), writable);
    return std::move(fd).error();
  };
  Result<LowerOpened> opened = at_link(*inode, try_at);
  if (opened || errno_of(opened.error()) != EACCES) return opened;
  ECFS_LET(const Fd path, path_fd(inode));
  ECFS_LET(const LowerStat st, stat_at(path.get(), ""));
  if (st.st.st_uid != geteuid() || !S_ISREG(st.st.st_mode)) return opened;
  const int no_atime = options_.no_atime ? O_NOATIME : 0;
  Result<Fd> fd = [&] {
    const OwnerAccess access(path.get(), st.st, write ? S_IRUSR | S_IWUSR : S_IRUSR);
    return open_at(path.get(), "", (write ? O_RDWR : O_RDONLY) | no_atime | kQuietly);
  }();
  if (!fd) return system_error(errno_of(fd.error()), "open a file of mode that denies its owner");
  return checked(*std::move(fd), write);
}

Result<std::shared_ptr<OpenFile>> Volume::acquire(const InodeRef& inode, Want want, bool* keep_cache) {
  if (keep_cache != nullptr) await_last_close(*inode);
  Result<std::shared_ptr<OpenFile>> open = [&] {
    const std::lock_guard lock(opening(*inode));
    return acquire_locked(inode, want, keep_cache);
  }();
  if (!open) return complain(*inode, std::move(open).error(), true);
  return open;
}

// After a lost write the kernel believes in a size that only the last close puts right (let_go), and it tells of a
// close some time after close(2) has returned. Who opens the file in between waits for that, unless the file really
// stays open.
void Volume::await_last_close(const Inode& inode) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  for (;;) {
    {
      const std::lock_guard lock(inode.mutex);
      if (!inode.open || !inode.open->lost_write) return;
    }
    if (std::chrono::steady_clock::now() >= deadline) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// fill_cache gives the kernel a small file's contents ahead of its first read. Nobody has the file open, and nobody can
// open it meanwhile, so that nothing the kernel has of it is newer than what is here. False: it has to ask.
bool Volume::fill_cache(const Inode& inode, Contents& contents) const {
  if (!cache_fill_ || options_.shared) return false;
  std::array<std::uint8_t, kSmallFile> bytes{};
  const Result<std::uint64_t> size = contents.size();
  if (!size || *size == 0 || *size > bytes.size()) return false;
  const MutableByteView all = MutableByteView(bytes).first(*size);
  const Result<std::size_t> got = contents.read(0, all);
  return got && *got == *size && cache_fill_(inode.id, all);
}

Result<std::shared_ptr<OpenFile>> Volume::acquire_locked(const InodeRef& inode, Want want, bool* keep_cache) {
  if (!S_ISREG(inode->type)) return Error{Code::kInvalid, inode->dir ? EISDIR : EINVAL, "not a regular file"};
  std::shared_ptr<OpenFile> open;
  {
    const std::lock_guard lock(inode->mutex);
    open = inode->open;
  }
  if (open) {
    if (want != Want::kRead && !open->file.writable()) {
      ECFS_LET(LowerOpened lower, open_regular(inode, Access::kWrite));
      const std::unique_lock alone(open->upgrade);
      open->file.upgrade(std::move(lower.fd));
    }
    ++open->handles;
    if (keep_cache != nullptr) *keep_cache = true;
    return open;
  }
  if (inode->stale) {
    const std::lock_guard lock(inode->mutex);
    if (!inode->own_fd()) return lost();
  }
  ECFS_LET(LowerOpened lower, open_regular(inode, want == Want::kRead ? Access::kRead : Access::kWrite));
  const LowerStat& st = lower.st;
  open = std::make_shared<OpenFile>(*inode, std::move(lower.fd), lower.writable);
  inode->note_mode(st.st.st_mode);
  if (want == Want::kTruncate) {
    ECFS_LET(open->contents, format_->open_contents_to_truncate(open->file));
  } else {
    ECFS_LET(open->contents, format_->open_contents(open->file));
    ECFS_LET(const std::uint64_t size, open->contents->size());
    // The authenticated size wins over arithmetic, and over what was remembered, from now on.
    std::optional<std::uint64_t> believed = hinted_size(st);
    if (!believed) believed = format_->plain_size(static_cast<std::uint64_t>(st.st.st_size));
    if (believed != size) hint_size(st, size);
    if (keep_cache != nullptr && !options_.shared) {
      const std::lock_guard lock(inode->mutex);
      if (inode->kernel_size != size) {
        // With the writeback cache the kernel holds to the size it was told first, and would pad a shorter file with
        // zeros or not show the end of a longer one. It takes the right size with a new nodeid only.
        table_.retire(*inode);
        return gone();
      }
    }
  }
  open->handles = 1;
  const std::uint64_t version = version_of(st.st);
  if (keep_cache != nullptr) {
    {
      const std::lock_guard lock(inode->mutex);
      *keep_cache = inode->version == version;
    }
    if (!*keep_cache && want == Want::kRead) *keep_cache = fill_cache(*inode, *open->contents);
  }
  const std::lock_guard lock(inode->mutex);
  inode->version = version;
  inode->open = open;
  return open;
}

void Volume::let_go(const InodeRef& inode, const std::shared_ptr<OpenFile>& open) {
  Status done;
  {
    const std::lock_guard lock(opening(*inode));
    if (--open->handles != 0) return;
    std::optional<Result<LowerStat>> st;  // only of a file that is not what it was when opened
    std::uint64_t size = ~std::uint64_t{0};
    if (open->changed) st = stat_at(open->file.fd(), "");
    if (!st || !*st || (*st)->st.st_nlink != 0) {  // nobody will see what is put off for a file without a name
      const bool stores = open->contents->puts_off();
      done = settle(*open);
      if (Status finished = keeping_mtime(*open, [&] { return open->contents->finish(); }); done) {
        done = std::move(finished);
      }
      if (const Result<std::uint64_t> found = open->contents->size()) size = *found;
      // The kernel may believe in bytes that never arrived; it learns the size with a new nodeid.
      if (open->lost_write && !options_.shared) table_.retire(*inode);
      if (stores) st = stat_at(open->file.fd(), "");
      // What is known of its size is of the time before.
      if (open->changed && st && *st && size != ~std::uint64_t{0} &&
          format_->plain_size(static_cast<std::uint64_t>((*st)->st.st_size)) != size) {
        hint_size(**st, size);
      }
    }
    const std::lock_guard inode_lock(inode->mutex);
    inode->kernel_size = size;
    if (st) inode->version = *st ? version_of((*st)->st) : 0;
    inode->open.reset();
    if (!inode->link.parent) table_.retire(*inode);  // the last name that was known has gone meanwhile
  }
  if (!done) (void)complain(*inode, std::move(done).error());
}

void Volume::put_mode_back(OpenFile& open) noexcept {
  const mode_t mode = open.inode.set_id_mode;
  struct stat st {};
  if (mode == 0 || fstat(open.file.fd(), &st) != 0 || (st.st_mode & 07777U) == mode) return;
  (void)fchmod(open.file.fd(), mode);
}

// What is put off is no change by anybody: the file's time stays what the last write or the kernel made it.
template <class F>
Status Volume::keeping_mtime(OpenFile& open, F&& work) {
  const std::unique_lock still(open.times);
  const std::shared_lock lock(open.upgrade);
  if (!open.file.writable() || !open.contents->puts_off()) return work();
  const Result<LowerStat> before = stat_at(open.file.fd(), "");
  Status done = work();
  put_mode_back(open);
  const Result<LowerStat> after = stat_at(open.file.fd(), "");
  if (before && after && !same_time(before->st.st_mtim, after->st.st_mtim)) {
    const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, before->st.st_mtim};
    (void)futimens(open.file.fd(), times.data());  // a file of another owner: then its time is that of the last write
  }
  return done;
}

Status Volume::settle(OpenFile& open) {
  if (!open.unsettled.exchange(false)) return {};
  Status done = keeping_mtime(open, [&] { return open.contents->settle(); });
  if (!done) open.unsettled = true;
  return done;
}

Status Volume::drop_keys(const std::vector<FileHandle*>& open) {
  const std::lock_guard settling(settling_);
  for (const FileHandle* file : open) ECFS_TRY(settle(*file->open));
  for (const FileHandle* file : open) file->open->contents->drop_keys();
  format_->drop_keys();
  return {};
}

void Volume::note_write(const InodeRef& inode, OpenFile& open) {
  open.changed = true;
  if (open.unsettled.exchange(true)) return;
  const std::lock_guard lock(unsettled_mutex_);
  unsettled_.push_back(inode);
}

// changing does what changes a file even where nothing changes below (a cut to the size it has, a hole in a hole). A
// kernel that keeps no times itself leaves that of such a change to us.
template <class F>
Status Volume::changing(OpenFile& open, F&& work) {
  const std::shared_lock still(open.times);
  const std::shared_lock lock(open.upgrade);
  open.changed = true;
  Result<LowerStat> before = gone();
  if (options_.shared) before = stat_at(open.file.fd(), "");
  Status done = work();
  put_mode_back(open);
  if (!done || !before) return done;
  const Result<LowerStat> after = stat_at(open.file.fd(), "");
  if (after && same_time(before->st.st_mtim, after->st.st_mtim)) {
    const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, timespec{0, UTIME_NOW}};
    (void)futimens(open.file.fd(), times.data());
  }
  return {};
}

Status Volume::truncate(const InodeRef& inode, std::uint64_t size, uid_t caller) {
  ECFS_LET(const auto open, acquire(inode, size == 0 ? Want::kTruncate : Want::kWrite));
  Status done = changing(*open, [&] { return open->contents->truncate(size); });
  if (done) take_privileges(*open, caller);
  let_go(inode, open);
  if (!done) return complain(*inode, std::move(done).error());
  return {};
}

Result<OpenedFile> Volume::open_file(std::uint64_t nodeid, int flags, const Caller& caller) {
  ECFS_LET(const InodeRef inode, find(nodeid));
  const bool truncates = (flags & O_TRUNC) != 0;
  const bool writer = wants_write(flags) || truncates;
  if (writer) ECFS_TRY(writable(*inode));
  OpenedFile out;
  const Want want = truncates ? Want::kTruncate : writer ? Want::kWrite : Want::kRead;
  ECFS_LET(const auto open, acquire(inode, want, &out.keep_cache));
  if (truncates) {
    Status done = changing(*open, [&] { return open->contents->truncate(0); });
    if (done) take_privileges(*open, caller.uid);
    if (!done) {
      let_go(inode, open);
      return complain(*inode, std::move(done).error());
    }
  }
  if (writer) open->writers.fetch_add(1);
  out.handle = std::make_unique<FileHandle>(FileHandle{inode, open, writer});
  return out;
}

Result<Fd> Volume::make_with_header(int dirfd, const char* lower, mode_t mode) {
  Result<Fd> fd = open_at(dirfd, ".", O_RDWR | O_TMPFILE, mode);
  if (!fd) {
    const int err = errno_of(fd.error());
    if (err != EOPNOTSUPP && err != EISDIR && err != EINVAL && err != ENOENT) return fd;
    return open_at(dirfd, lower, O_RDWR | O_CREAT | O_EXCL, mode);  // this filesystem has no files without a name
  }
  const int copy = fcntl(fd->get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return system_error(errno, "make a file");
  LowerFile file{Fd(copy), true};
  ECFS_LET(const auto contents, format_->open_contents_to_truncate(file));
  ECFS_TRY(contents->truncate(0));
  if (linkat(AT_FDCWD, ProcPath(fd->get()).c_str(), dirfd, lower, AT_SYMLINK_FOLLOW) != 0) {
    return system_error(errno, lower);
  }
  return fd;
}

Result<Volume::Created> Volume::create(std::uint64_t parent, std::string_view name, mode_t mode, int flags,
                                       const Caller& caller) {
  Fd fd;
  Result<Entry> entry = make_node(parent, name, caller, [&](int dirfd, const char* lower) -> Status {
    if (format_->empty_files_have_header()) {  // no name without it
      ECFS_LET(fd, make_with_header(dirfd, lower, mode & 07777));
    } else {
      ECFS_LET(fd, open_at(dirfd, lower, O_RDWR | O_CREAT | O_EXCL, mode & 07777));
    }
    return {};
  });
  if (!entry) {
    // Made behind the mount since the kernel looked: an ordinary open then, unless the caller wants a new one.
    if ((flags & O_EXCL) != 0 || errno_of(entry.error()) != EEXIST) return std::move(entry).error();
    Created found;
    ECFS_LET(found.entry, lookup(parent, name));
    Result<OpenedFile> opened = open_file(found.entry.nodeid, flags, caller);
    if (!opened) {
      forget(found.entry.nodeid, 1);
      return std::move(opened).error();
    }
    found.file = *std::move(opened);
    return found;
  }
  Created made;
  made.entry = *entry;
  Result<InodeRef> inode = find(entry->nodeid);
  if (inode) (*inode)->has_no_caps();  // it is new
  Result<std::shared_ptr<OpenFile>> open = [&]() -> Result<std::shared_ptr<OpenFile>> {
    if (!inode) return std::move(inode).error();
    const std::lock_guard lock(opening(**inode));
    {
      const std::lock_guard inode_lock((*inode)->mutex);
      if ((*inode)->open) {  // opened by another name already, and made by us for certain: the same file
        ++(*inode)->open->handles;
        return (*inode)->open;
      }
    }
    auto fresh = std::make_shared<OpenFile>(**inode, std::move(fd), true);
    ECFS_LET(const LowerStat st, stat_at(fresh->file.fd(), ""));
    (*inode)->note_mode(st.st.st_mode);
    if (st.st.st_size == 0) {
      ECFS_LET(fresh->contents, format_->open_contents_to_truncate(fresh->file));
      ECFS_TRY(fresh->contents->truncate(0));  // a volume that seals sizes wants its header at once
    } else {                                   // somebody was quicker with another handle
      ECFS_LET(fresh->contents, format_->open_contents(fresh->file));
    }
    fresh->handles = 1;
    fresh->changed = true;
    const std::lock_guard inode_lock((*inode)->mutex);
    (*inode)->open = fresh;
    return fresh;
  }();
  if (!open) {
    forget(entry->nodeid, 1);
    (void)unlink(parent, name);
    return std::move(open).error();
  }
  const bool writer = wants_write(flags);
  if (writer) (*open)->writers.fetch_add(1);
  made.file.handle = std::make_unique<FileHandle>(FileHandle{*inode, *open, writer});
  return made;
}

Result<std::size_t> Volume::read(FileHandle& file, std::uint64_t offset, MutableByteView out) {
  const std::shared_lock lock(file.open->upgrade);
  Result<std::size_t> done = file.open->contents->read(offset, out);
  if (!done) return complain(*file.inode, std::move(done).error());
  return done;
}

Result<std::size_t> Volume::write(FileHandle& file, std::uint64_t offset, ByteView data, bool all_or_error) {
  ECFS_TRY(writable(*file.inode));
  const std::shared_lock still(file.open->times);
  const std::shared_lock lock(file.open->upgrade);
  note_write(file.inode, *file.open);
  std::size_t written = 0;
  while (written < data.size()) {
    Result<std::size_t> done = file.open->contents->write(offset + written, data.subspan(written));
    if (!done) {
      file.open->lost_write = true;
      put_mode_back(*file.open);
      return complain(*file.inode, std::move(done).error());
    }
    written += *done;
    if (!all_or_error || *done == 0) break;
  }
  put_mode_back(*file.open);
  return written;
}

Status Volume::flush(FileHandle& file) {
  if (!file.writer) return {};
  Status done = settle(*file.open);
  if (!done) return complain(*file.inode, std::move(done).error());
  return {};
}

Status Volume::fsync(FileHandle& file, bool data_only) {
  OpenFile& open = *file.open;
  const bool unsettled = open.unsettled.exchange(false);
  Status done = keeping_mtime(open, [&] { return open.contents->sync(data_only); });
  if (done) return {};
  if (unsettled) open.unsettled = true;
  return complain(*file.inode, std::move(done).error());
}

void Volume::release(std::unique_ptr<FileHandle> file) {
  if (file->writer) file->open->writers.fetch_sub(1);
  let_go(file->inode, file->open);
}

Status Volume::fallocate(FileHandle& file, int mode, std::uint64_t offset, std::uint64_t len) {
  ECFS_TRY(writable(*file.inode));
  note_write(file.inode, *file.open);
  Status done = changing(*file.open, [&] { return file.open->contents->allocate(mode, offset, len); });
  if (!done) return complain(*file.inode, std::move(done).error());
  return {};
}

Result<std::uint64_t> Volume::seek(FileHandle& file, std::uint64_t offset, int whence) {
  const std::shared_lock lock(file.open->upgrade);
  if (whence == SEEK_DATA) return file.open->contents->next_data(offset);
  if (whence == SEEK_HOLE) return file.open->contents->next_hole(offset);
  return Error{Code::kInvalid, EINVAL, "seek"};
}

Result<std::size_t> Volume::copy_range(FileHandle& from, std::uint64_t from_offset, FileHandle& to,
                                       std::uint64_t to_offset, std::size_t len) {
  ECFS_TRY(writable(*to.inode));
  len = std::min(len, kMaxCopy);
  thread_local Bytes buffer(kCopyChunk);
  std::size_t copied = 0;
  while (copied < len) {
    const std::size_t want = std::min(len - copied, kCopyChunk);
    Result<std::size_t> got = read(from, from_offset + copied, MutableByteView(buffer).first(want));
    if (got && *got == 0) break;
    Result<std::size_t> put =
        got ? write(to, to_offset + copied, ByteView(buffer).first(*got), false) : Result<std::size_t>(got.error());
    if (!put && copied > 0) break;  // what was copied counts; the next call meets the error again
    if (!put) return put;
    copied += *put;
    if (*put < *got) break;
  }
  return copied;
}

}  // namespace ecfs::fs
