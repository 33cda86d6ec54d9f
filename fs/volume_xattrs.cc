// Extended attributes: those of the user class are encrypted, ACLs and labels, which kernels enforce, pass through.
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>

#include "fs/volume.h"
#include "fs/volume_internal.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kMaxValue = 65536;  // the kernel's own limits
constexpr std::size_t kMaxListBytes = 65536;
constexpr std::string_view kUserClass = "user.";
constexpr std::string_view kCapabilities = "security.capability";

bool passes_through(std::string_view name) noexcept {
  return name.starts_with("security.") || name.starts_with("trusted.") || name == "system.posix_acl_access" ||
         name == "system.posix_acl_default";
}

Error no_such_class() { return Error{Code::kUnsupported, EOPNOTSUPP, "attributes of this class"}; }

Result<std::size_t> result_of(ssize_t n, const char* what) {
  if (n < 0) return system_error(errno, what);
  return static_cast<std::size_t>(n);
}

}  // namespace

// on_xattrs gives `use` a path for the xattr calls: a descriptor's magic link, which the plain calls follow. For a
// symbolic link it is its name behind its directory, for the l*xattr calls.
template <class F>
auto Volume::on_xattrs(const InodeRef& inode, F&& use) -> decltype(use("")) {
  if (S_ISLNK(inode->type)) {
    return at_link(*inode, [&](int dirfd, const char* name) -> decltype(use("")) {
      ECFS_LET(const LowerStat st, stat_at(dirfd, name));
      if (!(st.key() == inode->key)) return gone();
      return use(ProcPath(dirfd, name).c_str());
    });
  }
  ECFS_LET(const Fd fd, path_fd(inode));
  return use(ProcPath(fd.get()).c_str());
}

Result<std::size_t> Volume::getxattr(std::uint64_t nodeid, std::string_view name, MutableByteView out) {
  ECFS_LET(const InodeRef inode, find(nodeid));
  const bool user = name.starts_with(kUserClass);
  if (!user && !passes_through(name)) return no_such_class();
  const bool caps = name == kCapabilities && !options_.shared;
  if (caps && inode->caps == Inode::Caps::kNone) return system_error(ENODATA, "read an attribute");
  std::string lower_name(name);
  if (user) {
    ECFS_LET(lower_name, format_->encode_xattr_name(name));
  }
  const auto get = [&](const char* path, void* value, std::size_t size) {
    return S_ISLNK(inode->type) ? ::lgetxattr(path, lower_name.c_str(), value, size)
                                : ::getxattr(path, lower_name.c_str(), value, size);
  };
  return on_xattrs(inode, [&](const char* path) -> Result<std::size_t> {
    if (!user) {
      Result<std::size_t> found = result_of(get(path, out.data(), out.size()), "read an attribute");
      if (caps && !found && errno_of(found.error()) == ENODATA) inode->has_no_caps();
      return found;
    }
    if (out.empty()) {
      ECFS_LET(const std::size_t lower_len, result_of(get(path, nullptr, 0), "read an attribute"));
      const std::optional<std::size_t> size = format_->xattr_value_size(lower_len);
      if (!size) return complain(*inode, Error{Code::kCorrupt, EIO, "an attribute of impossible length"});
      return *size;
    }
    Bytes lower(kMaxValue);
    ECFS_LET(const std::size_t lower_len, result_of(get(path, lower.data(), lower.size()), "read an attribute"));
    const Result<Bytes> value = format_->decode_xattr_value(name, ByteView(lower).first(lower_len));
    if (!value) return complain(*inode, value.error());
    if (value->size() > out.size()) return Error{Code::kInvalid, ERANGE, "the buffer is too small"};
    std::copy(value->begin(), value->end(), out.begin());
    return value->size();
  });
}

Result<std::size_t> Volume::listxattr(std::uint64_t nodeid, MutableByteView out) {
  ECFS_LET(const InodeRef inode, find(nodeid));
  std::string lower(kMaxListBytes, '\0');
  ECFS_LET(const std::size_t lower_len, on_xattrs(inode, [&](const char* path) {
             return result_of(S_ISLNK(inode->type) ? ::llistxattr(path, lower.data(), lower.size())
                                                   : ::listxattr(path, lower.data(), lower.size()),
                              "list the attributes");
           }));
  std::string names;  // each with its NUL
  std::string_view rest = std::string_view(lower).substr(0, lower_len);
  while (!rest.empty()) {
    const std::string_view name = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    if (passes_through(name)) {
      (names += name) += '\0';
    } else if (const std::optional<std::string> plain = format_->decode_xattr_name(name)) {
      (names += *plain) += '\0';
    }
  }
  if (out.empty()) return names.size();
  if (names.size() > out.size()) return Error{Code::kInvalid, ERANGE, "the buffer is too small"};
  std::copy(names.begin(), names.end(), out.begin());
  return names.size();
}

Status Volume::setxattr(std::uint64_t nodeid, std::string_view name, ByteView value, int flags) {
  ECFS_LET(const InodeRef inode, find(nodeid));
  ECFS_TRY(writable(*inode));
  const bool user = name.starts_with(kUserClass);
  if (!user && !passes_through(name)) return no_such_class();
  std::string lower_name(name);
  Bytes encoded;
  if (user) {
    ECFS_LET(lower_name, format_->encode_xattr_name(name));
    ECFS_LET(encoded, format_->encode_xattr_value(name, value));
    value = encoded;
  }
  if (name == kCapabilities) inode->caps = Inode::Caps::kSet;
  const auto set = [&](const char* path) -> Status {
    const int done = S_ISLNK(inode->type) ? ::lsetxattr(path, lower_name.c_str(), value.data(), value.size(), flags)
                                          : ::setxattr(path, lower_name.c_str(), value.data(), value.size(), flags);
    if (done != 0) return system_error(errno, "set an attribute");
    return {};
  };
  if (user || S_ISLNK(inode->type)) return on_xattrs(inode, set);
  return on_xattrs(inode, [&](const char* path) { return changing_mode(inode, [&] { return set(path); }); });
}

Status Volume::removexattr(std::uint64_t nodeid, std::string_view name) {
  ECFS_LET(const InodeRef inode, find(nodeid));
  ECFS_TRY(writable(*inode));
  const bool user = name.starts_with(kUserClass);
  if (!user && !passes_through(name)) return no_such_class();
  std::string lower_name(name);
  if (user) {
    ECFS_LET(lower_name, format_->encode_xattr_name(name));
  }
  return on_xattrs(inode, [&](const char* path) -> Status {
    const int done =
        S_ISLNK(inode->type) ? ::lremovexattr(path, lower_name.c_str()) : ::removexattr(path, lower_name.c_str());
    if (done != 0) return system_error(errno, "remove an attribute");
    return {};
  });
}

}  // namespace ecfs::fs
