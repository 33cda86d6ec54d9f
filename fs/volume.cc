#include "fs/volume.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/file.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "fs/volume_internal.h"
#include "wrap/base/log.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {
namespace {

// A chain of parents longer than this is a loop, made by moving lower directories behind the mount.
constexpr std::size_t kMaxDepth = 1U << 16;
constexpr std::size_t kMaxHints = 1U << 15;  // about 3 MiB

constexpr std::size_t kManyInodes = 50'000;

constexpr auto kSettleEvery = std::chrono::seconds(2);

// The server of a mount that has just ended may still be at work: that long is waited for it.
constexpr auto kLockWait = std::chrono::seconds(5);
constexpr auto kLockTryEvery = std::chrono::milliseconds(20);

Status take_lock(int dir, bool shared) {
  const auto deadline = std::chrono::steady_clock::now() + kLockWait;
  while (flock(dir, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) {
      // Some network filesystems lock no directories. Two mounts from two machines could not be told apart either.
      log_line(LOG_WARNING, "the lower directory cannot be locked: do not mount it twice");
      return {};
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return Error{Code::kBusy, EBUSY, "this volume is mounted already, or a program that checks it is running"};
    }
    std::this_thread::sleep_for(kLockTryEvery);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Volume>> Volume::open(Fd root, std::unique_ptr<Format> format, const VolumeOptions& options) {
  // A description of its own: the lock shall not be shared with whoever gave us the directory.
  ECFS_LET(Fd lock, open_at(root.get(), ".", O_RDONLY | O_DIRECTORY));
  ECFS_TRY(take_lock(lock.get(), options.read_only));
  ECFS_LET(Fd path, open_at(root.get(), ".", O_PATH | O_DIRECTORY));
  ECFS_LET(const LowerStat st, stat_at(path.get(), ""));
  ECFS_LET(const DirId id, format->root_id());
  std::unique_ptr<Volume> volume(new Volume(std::move(path), std::move(lock), std::move(format), options));
  std::array<std::uint8_t, 8> random{};
  ECFS_TRY(fill_random(random));
  volume->generation_ = load_le<std::uint64_t>(random.data());
  volume->root_dev_ = st.st.st_dev;
  volume->root_ = volume->table_.make_root(st.key(), id);
  return volume;
}

void Volume::start() {
  settler_ = std::thread([this] { settle_loop(); });
}

Volume::Volume(Fd root, Fd lock, std::unique_ptr<Format> format, const VolumeOptions& options)
    : format_(std::move(format)),
      options_(options),
      lock_(std::move(lock)),
      root_fd_(std::make_shared<const Fd>(std::move(root))) {}

Volume::~Volume() {
  {
    const std::lock_guard lock(unsettled_mutex_);
    stopping_ = true;
  }
  unsettled_wake_.notify_all();
  if (settler_.joinable()) settler_.join();
}

void Volume::settle_loop() {
  keep_stack_from_dumps();
  std::vector<InodeRef> due;
  std::size_t most_inodes = 0;
  for (bool last = false; !last;) {
    {
      std::unique_lock lock(unsettled_mutex_);
      unsettled_wake_.wait_for(lock, kSettleEvery, [&] { return stopping_; });
      last = stopping_;
      due.swap(unsettled_);
    }
    const std::lock_guard settling(settling_);
    for (const InodeRef& inode : due) {
      std::shared_ptr<OpenFile> open;
      {
        const std::lock_guard lock(opening(*inode));
        const std::lock_guard inode_lock(inode->mutex);
        open = inode->open;
        if (open) ++open->handles;
      }
      if (!open) continue;
      if (Status done = settle(*open); !done) (void)complain(*inode, std::move(done).error());
      let_go(inode, open);
    }
    due.clear();
    // After a walk over a large tree the kernel forgets it again; the allocator keeps such small pieces unless told.
    most_inodes = std::max(most_inodes, table_.take_most());
    if (most_inodes > kManyInodes && table_.size() < most_inodes / 2) {
      malloc_trim(0);
      most_inodes = table_.size();
    }
  }
}

Error gone() { return Error{Code::kNotFound, ESTALE, "the lower file is not where it was"}; }

Error Volume::lost() noexcept {
  lost_at_ = std::chrono::steady_clock::now();
  return gone();
}
bool Volume::lost_lately() const noexcept {
  return std::chrono::steady_clock::now() - lost_at_.load() < std::chrono::seconds(1);
}

bool is_gone(const Error& error) noexcept {
  const int err = errno_of(error);
  return err == ESTALE || err == ENOENT || err == ENOTDIR || err == ELOOP;
}

Status Volume::writable(const Inode& inode) const {
  if (options_.read_only || inode.read_only) return Error{Code::kDenied, EROFS, "read-only"};
  return {};
}

Result<InodeRef> Volume::find(std::uint64_t nodeid) const {
  InodeRef inode = table_.find(nodeid);
  if (!inode) return gone();
  return inode;
}

Result<Fd> Volume::open_lower(int dirfd, const char* name, int flags, mode_t mode) {
  // O_NOATIME is for the owner alone.
  if (options_.no_atime && (flags & O_PATH) == 0) {
    if (Result<Fd> quiet = open_at(dirfd, name, flags | O_NOATIME, mode); quiet) return quiet;
  }
  Result<Fd> fd = open_at(dirfd, name, flags, mode);
  if (fd || (fd.error().sys_errno != EMFILE && fd.error().sys_errno != ENFILE)) return fd;
  dir_fds_.clear();
  return open_at(dirfd, name, flags, mode);
}

Result<std::shared_ptr<const Fd>> Volume::dir_fd(const InodeRef& dir, bool moves_held) {
  if (dir.get() == root_.get()) return root_fd_;
  if (auto fd = dir_fds_.get(dir->id)) return fd;
  const auto walk = [&]() -> Result<std::shared_ptr<const Fd>> {
    std::shared_ptr<const Fd> fd;
    std::vector<InodeRef> way;
    for (InodeRef at = dir; !fd;) {
      if (at.get() == root_.get()) {
        fd = root_fd_;
      } else if (fd = dir_fds_.get(at->id); !fd) {
        if (way.size() >= kMaxDepth) return gone();
        way.push_back(at);
        InodeRef up;
        {
          const std::lock_guard lock(at->mutex);
          up = at->link.parent;
          fd = at->own_fd();
        }
        if (fd) {
          way.pop_back();
        } else {
          at = std::move(up);
        }
      }
    }
    for (; !way.empty(); way.pop_back()) {
      const InodeRef& at = way.back();
      std::string name;
      {
        const std::lock_guard lock(at->mutex);
        name = at->link.name.get();
      }
      ECFS_LET(Fd next, open_lower(fd->get(), name.c_str(), O_PATH | O_DIRECTORY));
      ECFS_LET(const LowerStat st, stat_at(next.get(), ""));
      if (!(st.key() == at->key)) return gone();
      fd = std::make_shared<const Fd>(std::move(next));
      dir_fds_.put(at->id, fd);
    }
    return fd;
  };
  Result<std::shared_ptr<const Fd>> fd = walk();
  if (!fd && is_gone(fd.error()) && !moves_held) {
    const std::shared_lock still(moves_);  // no rename is half noted now
    fd = walk();
  }
  if (!fd && is_gone(fd.error())) return gone();
  return fd;
}

Result<DirReader> Volume::list_lower(const Dir& dir) {
  if (options_.no_atime) {
    if (Result<DirReader> quiet = DirReader::open(dir.get(), O_NOATIME); quiet) return quiet;
  }
  Result<DirReader> reader = DirReader::open(dir.get());
  if (reader || errno_of(reader.error()) != EMFILE) return reader;
  dir_fds_.clear();
  return DirReader::open(dir.get());
}

Result<Volume::Dir> Volume::dir_at(std::uint64_t nodeid) {
  ECFS_LET(InodeRef inode, find(nodeid));
  return dir_of(inode);
}

Result<Volume::Dir> Volume::dir_of(const InodeRef& inode) {
  if (!inode->dir) return Error{Code::kNotFound, ENOTDIR, "not a directory"};
  ECFS_LET(auto fd, dir_fd(inode));
  return Dir{inode, std::move(fd)};
}

Result<LowerStat> Volume::look(const InodeRef& inode) {
  if (inode.get() == root_.get()) return stat_at(root_fd_->get(), "");
  std::shared_ptr<OpenFile> open;
  {
    const std::lock_guard lock(inode->mutex);
    open = inode->open;
  }
  if (open) {
    const std::shared_lock lock(open->upgrade);
    return stat_at(open->file.fd(), "");
  }
  return at_link(*inode, [&](int dirfd, const char* name) -> Result<LowerStat> {
    ECFS_LET(LowerStat st, stat_at(dirfd, name));
    if (!(st.key() == inode->key)) return gone();
    return st;
  });
}

// on_fd gives `use` a descriptor of the inode itself, which may be O_PATH. It takes no lock but the innermost.
template <class F>
auto Volume::on_fd(const InodeRef& inode, F&& use) -> decltype(use(0)) {
  if (inode->dir) {
    ECFS_LET(auto fd, dir_fd(inode));
    return use(fd->get());
  }
  std::shared_ptr<OpenFile> open;
  {
    const std::lock_guard lock(inode->mutex);
    open = inode->open;
  }
  if (open) {
    const std::shared_lock lock(open->upgrade);
    return use(open->file.fd());
  }
  return at_link(*inode, [&](int dirfd, const char* name) -> decltype(use(0)) {
    if (*name == '\0') return use(dirfd);
    ECFS_LET(const Fd fd, open_lower(dirfd, name, O_PATH));
    ECFS_LET(const LowerStat st, stat_at(fd.get(), ""));
    if (!(st.key() == inode->key)) return gone();
    return use(fd.get());
  });
}

Result<Fd> Volume::path_fd(const InodeRef& inode) {
  return on_fd(inode, [](int fd) -> Result<Fd> {
    Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!copy) return system_error(errno, "copy a descriptor");
    return copy;
  });
}

std::string Volume::describe(const Inode& inode) const {
  std::string lower;
  std::string plain;
  bool all_plain = options_.log_plain_names;
  const Inode* at = &inode;
  InodeRef hold;
  for (std::size_t depth = 0; at != root_.get() && depth < 1000; ++depth) {
    InodeRef parent;
    std::string name;
    DirId id{};
    bool loaded = false;
    {
      const std::lock_guard lock(at->mutex);
      parent = at->link.parent;
      if (parent) name = at->link.name.get();
    }
    if (!parent) break;
    {
      const std::lock_guard lock(parent->mutex);
      id = parent->dir->id;
      loaded = parent->dir->loaded;
    }
    if (all_plain) {
      const Result<std::string> shown = loaded && format_->kind_of(name) == LowerNameKind::kName
                                            ? format_->decode_name(id, name)
                                            : Result<std::string>(gone());
      all_plain = shown.has_value();
      if (shown) plain = "/" + *shown + plain;
    }
    lower = lower.empty() ? name : name + "/" + lower;
    hold = std::move(parent);
    at = hold.get();
  }
  // The system log is a file outside the volume: a plain name has no place in it.
  if (all_plain && !plain.empty()) return plain + " (lower file " + lower + ")";
  return "lower file " + (lower.empty() ? "." : lower);
}

Error Volume::complain(const Inode& inode, Error error, bool opening) {
  const int err = errno_of(error);
  // A key that is missing while the mount has keys is that of a file of somebody else's.
  const bool tell = error.code == Code::kCorrupt || error.code == Code::kNoKey ||
                    (opening && error.code == Code::kUnsupported);  // its cipher
  if ((tell || err == EIO) && !inode.complained.exchange(true)) {
    log_line(LOG_ERR, describe(inode) + ": " + error.what);
  }
  return error;
}

// ---- attributes

ino_t Volume::shown_ino(dev_t dev, ino_t ino) const noexcept {
  // Another filesystem mounted inside the lower tree has the same small numbers again.
  return dev == root_dev_ ? ino : ino ^ ((dev * 0x9e3779b97f4a7c15U) << 16);
}

std::optional<std::uint64_t> Volume::hinted_size(const LowerStat& lower) const {
  if (num_hints_.load(std::memory_order_relaxed) == 0) return std::nullopt;
  const std::lock_guard lock(hints_mutex_);
  const auto found = hints_.find(lower.key());
  if (found == hints_.end()) return std::nullopt;
  const SizeHint& h = found->second;
  const bool same = h.lower_size == lower.st.st_size && h.changed.tv_sec == lower.st.st_ctim.tv_sec &&
                    h.changed.tv_nsec == lower.st.st_ctim.tv_nsec;
  return same ? std::optional(h.plain_size) : std::nullopt;
}

void Volume::hint_size(const LowerStat& lower, std::uint64_t plain_size) {
  const std::lock_guard lock(hints_mutex_);
  if (hints_.size() >= kMaxHints) hints_.clear();  // they are found again
  hints_.insert_or_assign(lower.key(), SizeHint{lower.st.st_size, lower.st.st_ctim, plain_size});
  num_hints_ = hints_.size();
}

std::optional<std::uint64_t> Volume::stored_size(const InodeRef& inode) {
  const std::lock_guard lock(opening(*inode));
  std::shared_ptr<OpenFile> open;
  {
    const std::lock_guard inode_lock(inode->mutex);
    open = inode->open;
  }
  if (open) {
    const std::shared_lock still(open->upgrade);
    const Result<std::uint64_t> size = open->contents->size();
    return size ? std::optional(*size) : std::nullopt;
  }
  Result<LowerOpened> lower = open_regular(inode, Access::kLook);
  if (!lower) return std::nullopt;
  const LowerFile file(std::move(lower->fd), false);
  const Result<std::uint64_t> size = format_->stored_size(file);
  if (!size) return std::nullopt;
  if (const Result<LowerStat> now = stat_at(file.fd(), "")) hint_size(*now, *size);
  return *size;
}

Result<struct stat> Volume::attr_of(const InodeRef& inode, const LowerStat& lower) {
  struct stat st = lower.st;
  st.st_ino = shown_ino(st.st_dev, st.st_ino);
  if (const mode_t mode = inode->set_id_mode; mode != 0 && !options_.shared) st.st_mode = (st.st_mode & S_IFMT) | mode;
  const auto lower_size = static_cast<std::uint64_t>(st.st_size);
  if (S_ISLNK(st.st_mode)) {
    std::optional<std::uint64_t> size = format_->link_size(lower_size);
    if (!size) {
      ECFS_LET(const std::string stored, stored_target(*inode));
      if (const auto target = format_->decode_link(stored)) size = target->size();
    }
    st.st_size = static_cast<off_t>(size.value_or(lower_size));
  } else if (S_ISREG(st.st_mode)) {
    std::shared_ptr<OpenFile> open;
    {
      const std::lock_guard lock(inode->mutex);
      open = inode->open;
    }
    std::optional<std::uint64_t> size;
    if (open) {
      // The lower size lags behind what is written and not settled.
      const std::shared_lock lock(open->upgrade);
      ECFS_LET(size, open->contents->size());
    } else if (size = hinted_size(lower); !size) {
      size = format_->plain_size(lower_size);
    }
    if (!size) size = stored_size(inode);
    if (size) st.st_size = static_cast<off_t>(*size);
  }
  return st;
}

Result<struct stat> Volume::getattr(std::uint64_t nodeid) {
  ECFS_LET(InodeRef inode, find(nodeid));
  ECFS_LET(const LowerStat lower, look(inode));
  return attr_of(inode, lower);
}

// change_attributes changes what is asked for but the size. Owner, then mode, for a change of owner takes the suid and
// sgid bits off; the times last, for all before sets them.
Status Volume::change_attributes(int fd, const AttrChange& change) {
  constexpr int kHere = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
  if (change.uid || change.gid) {
    const uid_t uid = change.uid.value_or(static_cast<uid_t>(-1));
    const gid_t gid = change.gid.value_or(static_cast<gid_t>(-1));
    if (fchownat(fd, "", uid, gid, kHere) != 0) return system_error(errno, "change the owner");
  }
  if (change.mode && chmod(ProcPath(fd).c_str(), *change.mode & 07777) != 0) {
    return system_error(errno, "change the mode");
  }
  if (change.atime || change.mtime) {
    const timespec omit{0, UTIME_OMIT};
    const std::array<timespec, 2> times{change.atime.value_or(omit), change.mtime.value_or(omit)};
    // "Now" for both may be set by anyone with write permission, which a daemon's own call must not go beyond: the
    // kernel has checked it.
    if (utimensat(fd, "", times.data(), kHere) != 0) return system_error(errno, "change the times");
  }
  return {};
}

Result<struct stat> Volume::setattr(std::uint64_t nodeid, const AttrChange& change) {
  ECFS_LET(InodeRef inode, find(nodeid));
  ECFS_TRY(writable(*inode));
  if (change.size) {
    if (!S_ISREG(inode->type)) return Error{Code::kInvalid, inode->dir ? EISDIR : EINVAL, "truncate"};
    ECFS_TRY(truncate(inode, *change.size, change.caller));
  }
  if (change.uid || change.gid || change.mode || change.atime || change.mtime) {
    const auto change_on = [&](int fd) { return change_attributes(fd, change); };
    if (change.uid || change.gid || change.mode) {
      ECFS_LET(const Fd fd, path_fd(inode));
      ECFS_TRY(changing_mode(inode, [&] { return change_on(fd.get()); }));
    } else {
      ECFS_TRY(changing_times(inode, [&] { return on_fd(inode, change_on); }));
    }
  }
  ECFS_LET(const LowerStat lower, look(inode));
  return attr_of(inode, lower);
}

Result<std::string> Volume::stored_target(const Inode& inode) {
  return at_link(inode, [&](int dirfd, const char* name) -> Result<std::string> {
    ECFS_LET(const LowerStat st, stat_at(dirfd, name));
    if (!(st.key() == inode.key)) return gone();
    std::array<char, 4097> buffer{};
    const ssize_t n = readlinkat(dirfd, name, buffer.data(), buffer.size());
    if (n < 0) return system_error(errno, "read a symbolic link");
    return std::string(buffer.data(), static_cast<std::size_t>(n));
  });
}

Result<std::string> Volume::readlink(std::uint64_t nodeid) {
  ECFS_LET(InodeRef inode, find(nodeid));
  ECFS_LET(const std::string lower, stored_target(*inode));
  Result<std::string> target = format_->decode_link(lower);
  if (!target) return complain(*inode, std::move(target).error());
  return target;
}

Result<struct statvfs> Volume::statfs() {
  struct statvfs st {};
  if (fstatvfs(root_fd_->get(), &st) != 0) return system_error(errno, "statfs");
  st.f_namemax = format_->longest_plain_name();
  return st;
}

void Volume::forget(std::uint64_t nodeid, std::uint64_t num_lookups) { table_.forget(nodeid, num_lookups); }

bool Volume::lower_has_acls() const {
  return ::getxattr(ProcPath(root_fd_->get()).c_str(), "system.posix_acl_access", nullptr, 0) >= 0 || errno == ENODATA;
}

}  // namespace ecfs::fs
