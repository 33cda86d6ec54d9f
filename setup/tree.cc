#include "setup/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>

#include "fs/lower/caller.h"
#include "fs/lower/inode_table.h"
#include "fs/lower/lower_dir.h"
#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

constexpr std::size_t kMaxAttributeBytes = 65536;  // the kernel's limit, of a value and of a list

std::vector<std::string> attribute_names(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const std::string_view name = list.substr(0, list.find('\0'));
    list.remove_prefix(std::min(list.size(), name.size() + 1));
    if (wanted_attribute(name)) names.emplace_back(name);
  }
  return names;
}

Error with_name(Error error, const std::string& attribute) {
  return with_context(std::move(error), "attribute " + attribute);
}

bool has_none(const Error& error) noexcept {
  const int err = errno_of(error);
  return err == EOPNOTSUPP || err == ENOSYS;
}

// ---- a directory of the machine

class PlainFile final : public OpenFile {
 public:
  explicit PlainFile(Fd fd) : fd_(std::move(fd)) {}
  Result<std::uint64_t> size() override {
    struct stat st {};
    if (fstat(fd_.get(), &st) != 0) return system_error(errno, "stat");
    return static_cast<std::uint64_t>(st.st_size);
  }
  Result<std::size_t> read(std::uint64_t offset, MutableByteView out) override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return system_error(errno, "read");
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }
  Status write(std::uint64_t offset, ByteView bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return system_error(errno, "write");
      offset += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }
  Status resize(std::uint64_t size) override {
    if (ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) return system_error(errno, "set the size");
    return {};
  }
  Result<std::uint64_t> next_data(std::uint64_t offset) override { return seek(offset, SEEK_DATA); }
  Result<std::uint64_t> next_hole(std::uint64_t offset) override { return seek(offset, SEEK_HOLE); }
  Status set_times(const struct stat& like) override {
    const std::array<timespec, 2> times = {like.st_atim, like.st_mtim};
    if (futimens(fd_.get(), times.data()) != 0) return system_error(errno, "set the times");
    return {};
  }
  Status sync() override { return sync_fd(fd_.get(), "sync"); }
  Status forget_cached() override {
    (void)posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED);
    return {};
  }
  Status close() override {
    if (::close(fd_.release()) != 0) return system_error(errno, "close");  // a full disk may show only here
    return {};
  }

 private:
  Result<std::uint64_t> seek(std::uint64_t offset, int whence) {
    const off_t found = lseek(fd_.get(), static_cast<off_t>(offset), whence);
    if (found >= 0) return static_cast<std::uint64_t>(found);
    if (errno == ENXIO) return system_error(ENXIO, "seek");
    return whence == SEEK_DATA ? Result<std::uint64_t>(offset) : size();  // a filesystem that knows no holes
  }
  Fd fd_;
};

class PlainNode final : public Node {
 public:
  explicit PlainNode(Fd fd) : fd_(std::move(fd)) {}

  Result<struct stat> stat() override {
    struct stat st {};
    if (fstat(fd_.get(), &st) != 0) return system_error(errno, "stat");
    return st;
  }
  Result<std::string> target() override {
    std::array<char, PATH_MAX> target{};
    const ssize_t n = readlinkat(fd_.get(), "", target.data(), target.size());
    if (n < 0) return system_error(errno, "read the link");
    return std::string(target.data(), static_cast<std::size_t>(n));
  }
  Result<Attributes> attributes() override {
    const fs::ProcPath path(fd_.get());
    std::string list(kMaxAttributeBytes, '\0');
    const ssize_t n = listxattr(path.c_str(), list.data(), list.size());
    if (n < 0) {
      if (errno == EOPNOTSUPP || errno == ENOSYS) return Attributes();
      return system_error(errno, "list the attributes");
    }
    Attributes found;
    for (const std::string& name : attribute_names(std::string_view(list).substr(0, static_cast<std::size_t>(n)))) {
      Bytes value(kMaxAttributeBytes);
      const ssize_t len = getxattr(path.c_str(), name.c_str(), value.data(), value.size());
      if (len < 0) return with_name(system_error(errno, "read"), name);
      value.resize(static_cast<std::size_t>(len));
      found.emplace(name, std::move(value));
    }
    return found;
  }
  // The access time of what is read stays, where the kernel lets us.
  Result<std::unique_ptr<OpenFile>> open(bool for_writing) override {
    const fs::ProcPath path(fd_.get());
    ECFS_LET(const struct stat st, stat());
    if (!S_ISREG(st.st_mode)) return Error{Code::kInvalid, EINVAL, "not a regular file"};
    const int flags = (for_writing ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC;
    Fd fd(::open(path.c_str(), flags | O_NOATIME));  // NOLINT(cppcoreguidelines-pro-type-vararg)
    if (!fd && errno == EPERM) fd.reset(::open(path.c_str(), flags));
    if (!fd) return system_error(errno, "open");
    return std::unique_ptr<OpenFile>(std::make_unique<PlainFile>(std::move(fd)));
  }

  Result<std::vector<std::string>> names() override {
    ECFS_LET(const Fd readable, fs::open_at(fd_.get(), ".", O_RDONLY | O_DIRECTORY));
    ECFS_LET(std::vector<std::string> names, list_directory(readable.get()));
    std::sort(names.begin(), names.end());
    return names;
  }
  Result<NodePtr> child(const std::string& name) override {
    Fd fd(openat(fd_.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return system_error(errno, "open");
    return NodePtr(std::make_unique<PlainNode>(std::move(fd)));
  }
  Status remove(const std::string& name, bool directory) override {
    if (unlinkat(fd_.get(), name.c_str(), directory ? AT_REMOVEDIR : 0) != 0) return system_error(errno, "remove");
    return {};
  }
  Result<NodePtr> make(const std::string& name, const struct stat& like, const std::string& target) override {
    int done = 0;
    switch (like.st_mode & S_IFMT) {
      case S_IFDIR: done = mkdirat(fd_.get(), name.c_str(), 0700); break;
      case S_IFLNK: done = symlinkat(target.c_str(), fd_.get(), name.c_str()); break;
      default: done = mknodat(fd_.get(), name.c_str(), (like.st_mode & S_IFMT) | 0600, like.st_rdev); break;
    }
    if (done != 0) return system_error(errno, "make");
    return child(name);
  }
  Status link(Node& node, const std::string& name) override {
    const auto& other = static_cast<PlainNode&>(node);  // NOLINT: nodes of two kinds are never linked
    if (linkat(AT_FDCWD, fs::ProcPath(other.fd_.get()).c_str(), fd_.get(), name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      return system_error(errno, "link");
    }
    return {};
  }
  Status rename(const std::string& name, const std::string& new_name) override {
    if (renameat2(fd_.get(), name.c_str(), fd_.get(), new_name.c_str(), RENAME_NOREPLACE) != 0) {
      return system_error(errno, "rename");
    }
    return {};
  }
  Status sync() override {
    ECFS_LET(const Fd readable, fs::open_at(fd_.get(), ".", O_RDONLY | O_DIRECTORY));
    return sync_directory(readable.get());
  }

  Status set_owner(uid_t uid, gid_t gid) override {
    if (fchownat(fd_.get(), "", uid, gid, kHere) != 0) return system_error(errno, "set the owner");
    return {};
  }
  Status set_mode(mode_t mode) override {
    if (chmod(fs::ProcPath(fd_.get()).c_str(), mode & 07777) != 0) return system_error(errno, "set the mode");
    return {};
  }
  Status set_times(const struct stat& like) override {
    const std::array<timespec, 2> times = {like.st_atim, like.st_mtim};
    if (utimensat(fd_.get(), "", times.data(), kHere) != 0) return system_error(errno, "set the times");
    return {};
  }
  Status set_attribute(const std::string& name, ByteView value) override {
    if (setxattr(fs::ProcPath(fd_.get()).c_str(), name.c_str(), value.data(), value.size(), 0) != 0) {
      return with_name(system_error(errno, "set"), name);
    }
    return {};
  }
  Status remove_attribute(const std::string& name) override {
    if (removexattr(fs::ProcPath(fd_.get()).c_str(), name.c_str()) != 0) {
      return with_name(system_error(errno, "remove"), name);
    }
    return {};
  }

 private:
  static constexpr int kHere = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
  Fd fd_;  // O_PATH
};

// ---- a volume

class VolumeFile final : public OpenFile {
 public:
  VolumeFile(fs::Volume& volume, std::unique_ptr<fs::FileHandle> handle, std::uint64_t nodeid)
      : volume_(volume), handle_(std::move(handle)), nodeid_(nodeid) {}
  VolumeFile(const VolumeFile&) = delete;
  VolumeFile& operator=(const VolumeFile&) = delete;
  ~VolumeFile() override {
    if (handle_) volume_.release(std::move(handle_));
  }
  Result<std::uint64_t> size() override {
    ECFS_LET(const struct stat st, volume_.getattr(nodeid_));
    return static_cast<std::uint64_t>(st.st_size);
  }
  Result<std::size_t> read(std::uint64_t offset, MutableByteView out) override {
    return volume_.read(*handle_, offset, out);
  }
  Status write(std::uint64_t offset, ByteView bytes) override {
    ECFS_TRY(volume_.write(*handle_, offset, bytes, true));
    return {};
  }
  Status resize(std::uint64_t size) override {
    fs::AttrChange change;
    change.size = size;
    ECFS_TRY(volume_.setattr(nodeid_, change));
    return {};
  }
  Result<std::uint64_t> next_data(std::uint64_t offset) override { return volume_.seek(*handle_, offset, SEEK_DATA); }
  Result<std::uint64_t> next_hole(std::uint64_t offset) override { return volume_.seek(*handle_, offset, SEEK_HOLE); }
  Status set_times(const struct stat& like) override {
    fs::AttrChange change;
    change.atime = like.st_atim;
    change.mtime = like.st_mtim;
    ECFS_TRY(volume_.setattr(nodeid_, change));
    return {};
  }
  Status sync() override { return volume_.fsync(*handle_, false); }
  Status forget_cached() override {
    // What the last close put down is synced, too: pages that are not clean stay.
    const int fd = handle_->open->file.fd();
    ECFS_TRY(sync_fd(fd, "sync"));
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return {};
  }
  Status close() override {
    Status done = volume_.flush(*handle_);
    volume_.release(std::move(handle_));
    return done;
  }

 private:
  fs::Volume& volume_;
  std::unique_ptr<fs::FileHandle> handle_;
  std::uint64_t nodeid_;
};

class VolumeNode final : public Node {
 public:
  VolumeNode(fs::Volume& volume, std::uint64_t nodeid, bool counted)
      : volume_(volume), nodeid_(nodeid), counted_(counted) {}
  VolumeNode(const VolumeNode&) = delete;
  VolumeNode& operator=(const VolumeNode&) = delete;
  ~VolumeNode() override {
    if (counted_) volume_.forget(nodeid_, 1);
  }

  Result<struct stat> stat() override { return volume_.getattr(nodeid_); }
  Result<std::string> target() override { return volume_.readlink(nodeid_); }
  Result<Attributes> attributes() override {
    Bytes list(kMaxAttributeBytes);
    auto n = volume_.listxattr(nodeid_, list);
    if (!n) {
      if (has_none(n.error())) return Attributes();
      return with_context(std::move(n).error(), "list the attributes");
    }
    Attributes found;
    for (const std::string& name : attribute_names(as_text(ByteView(list).first(*n)))) {
      Bytes value(kMaxAttributeBytes);
      auto len = volume_.getxattr(nodeid_, name, value);
      if (!len) return with_name(std::move(len).error(), name);
      value.resize(*len);
      found.emplace(name, std::move(value));
    }
    return found;
  }
  Result<std::unique_ptr<OpenFile>> open(bool for_writing) override {
    ECFS_LET(fs::OpenedFile file, volume_.open_file(nodeid_, for_writing ? O_RDWR : O_RDONLY, fs::Caller::self()));
    return std::unique_ptr<OpenFile>(std::make_unique<VolumeFile>(volume_, std::move(file.handle), nodeid_));
  }

  Result<std::vector<std::string>> names() override {
    ECFS_LET(const auto dir, volume_.opendir(nodeid_));
    std::vector<std::string> names;
    ECFS_TRY(volume_.readdir(*dir, 0, false, [&](const fs::DirEntry& entry) {
      if (entry.name != "." && entry.name != "..") names.emplace_back(entry.name);
      return true;
    }));
    std::sort(names.begin(), names.end());
    return names;
  }
  Result<NodePtr> child(const std::string& name) override {
    ECFS_LET(const fs::Entry entry, volume_.lookup(nodeid_, name));
    return node_of(entry);
  }
  Status remove(const std::string& name, bool directory) override {
    return directory ? volume_.rmdir(nodeid_, name) : volume_.unlink(nodeid_, name);
  }
  Result<NodePtr> make(const std::string& name, const struct stat& like, const std::string& target) override {
    const fs::Caller self = fs::Caller::self();
    switch (like.st_mode & S_IFMT) {
      case S_IFDIR: {
        ECFS_LET(const fs::Entry entry, volume_.mkdir(nodeid_, name, 0700, self));
        return node_of(entry);
      }
      case S_IFLNK: {
        ECFS_LET(const fs::Entry entry, volume_.symlink(nodeid_, name, target, self));
        return node_of(entry);
      }
      default: {
        ECFS_LET(const fs::Entry entry,
                 volume_.mknod(nodeid_, name, (like.st_mode & S_IFMT) | 0600, like.st_rdev, self));
        return node_of(entry);
      }
    }
  }
  Status link(Node& node, const std::string& name) override {
    const auto& other = static_cast<VolumeNode&>(node);  // NOLINT: nodes of two kinds are never linked
    ECFS_LET(const fs::Entry entry, volume_.link(other.nodeid_, nodeid_, name));
    volume_.forget(entry.nodeid, 1);
    return {};
  }
  Status rename(const std::string& name, const std::string& new_name) override {
    return volume_.rename(nodeid_, name, nodeid_, new_name, RENAME_NOREPLACE);
  }
  Status sync() override {
    ECFS_LET(const auto dir, volume_.opendir(nodeid_));
    return volume_.fsyncdir(*dir, false);
  }

  Status set_owner(uid_t uid, gid_t gid) override {
    fs::AttrChange change;
    change.uid = uid;
    change.gid = gid;
    return set(change);
  }
  Status set_mode(mode_t mode) override {
    fs::AttrChange change;
    change.mode = mode & 07777;
    return set(change);
  }
  Status set_times(const struct stat& like) override {
    fs::AttrChange change;
    change.atime = like.st_atim;
    change.mtime = like.st_mtim;
    return set(change);
  }
  Status set_attribute(const std::string& name, ByteView value) override {
    if (Status done = volume_.setxattr(nodeid_, name, value, 0); !done) {
      return with_name(std::move(done).error(), name);
    }
    return {};
  }
  Status remove_attribute(const std::string& name) override {
    if (Status done = volume_.removexattr(nodeid_, name); !done) return with_name(std::move(done).error(), name);
    return {};
  }

 private:
  NodePtr node_of(const fs::Entry& entry) const { return std::make_unique<VolumeNode>(volume_, entry.nodeid, true); }
  Status set(const fs::AttrChange& change) {
    ECFS_TRY(volume_.setattr(nodeid_, change));
    return {};
  }

  fs::Volume& volume_;
  std::uint64_t nodeid_;
  bool counted_;  // the volume was asked for it by name
};

}  // namespace

bool wanted_attribute(std::string_view name) {
  if (name.starts_with("user.") || name.starts_with("system.posix_acl_")) return true;
  return geteuid() == 0 && (name == "security.capability" || name.starts_with("trusted."));
}

Result<NodePtr> find_path(Node& root, const std::string& path) {
  NodePtr node;
  Node* here = &root;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    ECFS_LET(NodePtr next, here->child(path.substr(begin, end - begin)));
    node = std::move(next);
    here = node.get();
    begin = end + 1;
  }
  return node;
}

Result<NodePtr> directory_tree(int dir) {
  ECFS_LET(Fd path, fs::open_at(dir, ".", O_PATH | O_DIRECTORY));
  return NodePtr(std::make_unique<PlainNode>(std::move(path)));
}

Result<NodePtr> volume_tree(fs::Volume& volume) {
  return NodePtr(std::make_unique<VolumeNode>(volume, fs::InodeTable::kRootId, false));
}

}  // namespace ecfs::setup
