#include "wrap/user_dir.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"

namespace ecfs::wrap {
namespace {

// The directory that the home stands in, with a slash at its end; "" for one that is none.
std::string parent_of(const std::string& home) {
  const std::size_t last = home.find_last_not_of('/');
  const std::size_t slash = last == std::string::npos ? last : home.rfind('/', last);
  return slash == std::string::npos ? "" : home.substr(0, slash + 1);
}

Result<UserDir> belongs(UserDir found, const Identity& who) {
  struct stat st {};
  if (fstat(found.dir.get(), &st) != 0) return system_error(errno, "stat " + found.path);
  if (st.st_uid != who.uid) {
    return Error{Code::kDenied, 0, "the directory " + found.path + " does not belong to " + who.name};
  }
  return found;
}

}  // namespace

Status check_private_dir(int dir, uid_t owner, const std::string& shown) {
  struct stat st {};
  if (fstat(dir, &st) != 0) return system_error(errno, "stat " + shown);
  if (st.st_uid != owner && st.st_uid != 0) return Error{Code::kDenied, 0, shown + " belongs to another user"};
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Error{Code::kDenied, 0, shown + " may be written by others: take that right away (chmod go-w)"};
  }
  return {};
}

Result<Fd> open_trusted_dir(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return system_error(errno, "open directory " + path);
  return fd;
}

Result<Fd> open_private_dir(int parent, const std::string& name, uid_t owner, const std::string& shown) {
  auto dir = open_directory(parent, name);
  if (!dir) {
    if (dir.error().code == Code::kNotFound) return Error{Code::kNotFound, ENOENT, "there is no directory " + shown};
    return Error{dir.error().code, dir.error().sys_errno, shown + " is not a directory that can be read"};
  }
  ECFS_TRY(check_private_dir(dir->get(), owner, shown));
  return dir;
}

Result<UserDir> open_beside_home(const Identity& who, const std::string& parent, const std::string& name) {
  if (parent.empty() || who.name.empty() || who.name.front() == '.' || who.name.find('/') != std::string::npos) {
    return Error{Code::kNotFound, ENOENT, "there is no home"};
  }
  UserDir found;
  found.beside_home = true;
  ECFS_LET(const Fd homes, open_trusted_dir(parent));
  ECFS_LET(const Fd all, open_private_dir(homes.get(), name, 0, parent + name));
  found.path = parent + name + "/" + who.name;
  ECFS_LET(const Fd his, open_private_dir(all.get(), who.name, who.uid, found.path));
  found.path += "/" + name;
  ECFS_LET(found.dir, open_private_dir(his.get(), name, who.uid, found.path));
  return belongs(std::move(found), who);
}

Result<UserDir> open_user_dir(const Identity& who, const std::string& name) {
  auto beside = open_beside_home(who, parent_of(who.home), name);
  if (beside || beside.error().code != Code::kNotFound) return beside;
  UserDir found;
  ECFS_LET(const Fd home, open_trusted_dir(who.home));
  found.path = who.home + "/" + name;
  ECFS_LET(found.dir, open_private_dir(home.get(), name, who.uid, found.path));
  return belongs(std::move(found), who);
}

Result<HomePlace> open_home_place(const Identity& who) {
  HomePlace place;
  std::string home = who.home;
  while (home.size() > 1 && home.back() == '/') home.pop_back();
  const std::size_t slash = home.rfind('/');
  place.name = slash == std::string::npos ? "" : home.substr(slash + 1);
  if (home.empty() || home.front() != '/' || place.name.empty() || place.name == "." || place.name == "..") {
    return Error{Code::kInvalid, 0, "the home of " + who.name + " is no absolute path (" + printable(who.home) + ")"};
  }
  const std::string parent = slash == 0 ? "/" : home.substr(0, slash);
  const Owned<char, std::free> real(realpath(parent.c_str(), nullptr));
  if (!real) return system_error(errno, "the directory around the home, " + parent);
  place.path = real.get();
  if (place.path == "/") place.path.clear();
  Fd dir(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (std::size_t at = 0;;) {
    struct stat st {};
    if (!dir || fstat(dir.get(), &st) != 0) return system_error(errno, "the directory around the home, " + place.path);
    const bool last = at == place.path.size();
    const bool closed = (st.st_mode & (S_IWGRP | S_IWOTH)) == 0 || (!last && (st.st_mode & S_ISVTX) != 0);
    if (st.st_uid != 0 || !closed) {
      return Error{Code::kDenied, 0,
                   (at == 0 ? "/" : place.path.substr(0, at)) + ", above the home of " + who.name +
                       ", is not root's alone: others could exchange the home while root works on it"};
    }
    if (last) break;
    const std::size_t end = std::min(place.path.find('/', at + 1), place.path.size());
    const std::string name = place.path.substr(at + 1, end - at - 1);
    dir.reset(openat(dir.get(), name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    at = end;
  }
  place.parent = std::move(dir);
  return place;
}

}  // namespace ecfs::wrap
