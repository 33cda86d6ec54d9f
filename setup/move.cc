#include "setup/move.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

constexpr std::size_t kChunk = 1U << 20;
constexpr std::size_t kHoleBytes = 1U << 16;  // what a run of zeros has to have to become a hole
constexpr std::size_t kMaxTold = 20;

Error differs(const std::string& what) {
  return {Code::kCorrupt, 0, "the copy differs from the original (" + what + ")"};
}

Error at(const std::string& path, Error error) { return with_context(std::move(error), path); }

bool same_time(const timespec& a, const timespec& b) noexcept { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

bool all_zeros(ByteView bytes) noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

class Copier {
 public:
  Copier(Node& to_top, Progress& progress) : to_top_(to_top), contents_(&progress) {}

  Status directory(Node& from, Node& to, const std::string& path) {
    auto names = from.names();
    if (!names) return at(path, std::move(names).error());
    for (const std::string& name : *names) {
      ECFS_TRY(check_signals());
      const std::string inner = below(path, name);
      ECFS_TRY(entry(from, to, name, inner));
    }
    return {};
  }

 private:
  Status entry(Node& from, Node& to, const std::string& name, const std::string& path) {
    auto source = from.child(name);
    if (!source) return at(path, std::move(source).error());
    auto st = (*source)->stat();
    if (!st) return at(path, std::move(st).error());
    if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
      if (const auto known = links_.find(key_of(*st)); known != links_.end()) {
        ECFS_LET(const NodePtr first, find_path(to_top_, known->second));
        if (Status done = to.link(*first, name); !done) return at(path, std::move(done).error());
        return {};
      }
      links_.emplace(key_of(*st), path);
    }
    const bool directory_itself = S_ISDIR(st->st_mode);
    auto copy = make(**source, to, name, *st);
    if (!copy) return at(path, std::move(copy).error());
    if (directory_itself) ECFS_TRY(directory(**source, **copy, path));
    Status done;
    if (S_ISREG(st->st_mode)) {
      done = file(**source, **copy, *st);
    } else {
      done = copy_metadata(**source, **copy, *st);
      if (done) done = (*copy)->set_times(*st);  // last: all else sets them anew
    }
    if (!done) return at(path, std::move(done).error());
    return {};
  }

  static Result<NodePtr> make(Node& source, Node& to, const std::string& name, const struct stat& st) {
    std::string target;
    if (S_ISLNK(st.st_mode)) {
      ECFS_LET(target, source.target());
    }
    return to.make(name, st, target);
  }

  Status file(Node& from, Node& to, const struct stat& st) {
    ECFS_LET(const auto source, from.open(false));
    ECFS_LET(const auto target, to.open(true));
    ECFS_TRY(contents_.copy(*source, *target, false));
    ECFS_TRY(copy_metadata(from, to, st));
    // Through the open file: by name it would race with what the filesystem does for the file when it is closed.
    ECFS_TRY(target->set_times(st));
    return target->close();
  }

  Node& to_top_;
  Contents contents_;
  std::map<InodeKey, std::string> links_;
};

class Comparer {
 public:
  explicit Comparer(Progress* progress) : contents_(progress) {}

  Status directory(Node& from, Node& to, const std::string& path) {
    auto names = from.names();
    if (!names) return at(path, std::move(names).error());
    auto copies = to.names();
    if (!copies) return at(path, std::move(copies).error());
    if (*names != *copies) return at(path.empty() ? "the directory itself" : path, differs("names in it"));
    for (const std::string& name : *names) {
      ECFS_TRY(check_signals());
      const std::string inner = below(path, name);
      auto source = from.child(name);
      if (!source) return at(inner, std::move(source).error());
      auto copy = to.child(name);
      if (!copy) return at(inner, std::move(copy).error());
      if (Status same = compare_metadata(**source, **copy); !same) return at(inner, std::move(same).error());
      ECFS_LET(const struct stat st, (*source)->stat());
      if (S_ISDIR(st.st_mode)) {
        ECFS_TRY(directory(**source, **copy, inner));
        continue;
      }
      ECFS_LET(const struct stat now, (*copy)->stat());
      if (st.st_nlink > 1) {
        const auto [known, fresh] = links_.emplace(key_of(st), now.st_ino);
        if (!fresh && known->second != now.st_ino) return at(inner, differs("hard link"));
      }
      if (Status same = held(**source, **copy, st); !same) return at(inner, std::move(same).error());
    }
    return {};
  }

  // What an entry holds: bytes or target; not its metadata.
  Status held(Node& from, Node& to, const struct stat& st) {
    if (S_ISLNK(st.st_mode)) {
      ECFS_LET(const std::string a, from.target());
      ECFS_LET(const std::string b, to.target());
      return a == b ? Status() : differs("link target");
    }
    if (!S_ISREG(st.st_mode)) return {};
    ECFS_LET(const auto source, from.open(false));
    ECFS_LET(const auto copy, to.open(false));
    return contents_.compare(*source, *copy);
  }

 private:
  Contents contents_;
  std::map<InodeKey, ino_t> links_;
};

Result<std::vector<std::string>> names_in(int dir, const std::string& path) {
  auto names = list_directory(dir);
  if (!names) return with_context(std::move(names).error(), "read directory " + path);
  std::sort(names->begin(), names->end());
  return names;
}

class Surveyor {
 public:
  Surveyor(dev_t device, uid_t owner) : device_(device), owner_(owner) {}

  Status directory(int dir, const std::string& path) {
    ECFS_LET(const std::vector<std::string> names, names_in(dir, path));
    for (const std::string& name : names) {
      ECFS_TRY(check_signals());
      const std::string inner = below(path, name);
      struct stat st {};
      if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return system_error(errno, inner);
      ++survey.num_entries;
      if (st.st_dev != device_) {
        obstacle(inner + " is a mountpoint of another filesystem; unmount it");
        continue;
      }
      if (st.st_uid != owner_) {
        obstacle(inner + " belongs to another user");
      } else if (!may_give(st.st_gid)) {
        obstacle(inner + " belongs to a group that its owner is not in (chgrp it)");
      }
      if ((S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)) && geteuid() != 0) obstacle(inner + " is a device");
      if (st.st_nlink < 2 || S_ISDIR(st.st_mode) || seen_.insert(key_of(st)).second) {
        survey.data_bytes += static_cast<std::uint64_t>(st.st_blocks) * 512;
      }
      const bool readable =
          S_ISLNK(st.st_mode) ||
          faccessat(dir, name.c_str(), S_ISDIR(st.st_mode) ? R_OK | W_OK | X_OK : R_OK, AT_EACCESS) == 0;
      if (!readable && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        obstacle(inner + (S_ISDIR(st.st_mode) ? " may not be read and changed (chmod u+rwx it)"
                                              : " may not be read (chmod u+r it)"));
        continue;
      }
      if (S_ISDIR(st.st_mode)) {
        ECFS_LET(const Fd sub, open_directory(dir, name));
        ECFS_TRY(directory(sub.get(), inner));
      }
    }
    return {};
  }

  Survey survey;

 private:
  // Only root, or a member, can give a file to a group.
  bool may_give(gid_t group) {
    if (geteuid() == 0 || group == getegid()) return true;
    if (groups_.empty()) {
      groups_.resize(static_cast<std::size_t>(std::max(0, getgroups(0, nullptr))));
      groups_.resize(
          static_cast<std::size_t>(std::max(0, getgroups(static_cast<int>(groups_.size()), groups_.data()))));
    }
    return std::find(groups_.begin(), groups_.end(), group) != groups_.end();
  }
  void obstacle(std::string text) {
    if (survey.obstacles.size() < kMaxTold) survey.obstacles.push_back(std::move(text));
  }
  dev_t device_;
  uid_t owner_;
  std::vector<gid_t> groups_;
  std::set<InodeKey> seen_;
};

bool is_before(const timespec& a, const timespec& b) noexcept {
  return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

class Remover {
 public:
  explicit Remover(timespec compared_at) : compared_at_(compared_at), comparer_(nullptr) {}

  // Without a copy to compare with.
  Status untouched(Node& from, const std::string& path) {
    auto names = from.names();
    if (!names) return at(path, std::move(names).error());
    for (const std::string& name : *names) {
      ECFS_TRY(check_signals());
      const std::string inner = below(path, name);
      auto source = from.child(name);
      if (!source) return at(inner, std::move(source).error());
      ECFS_LET(const struct stat st, (*source)->stat());
      if (S_ISDIR(st.st_mode)) {
        ECFS_TRY(untouched(**source, inner));
        remove_emptied(from, name, inner);
        continue;
      }
      // The first of several links that goes changes the status of the others.
      const bool old = is_before(st.st_ctim, compared_at_) || old_links_.count(key_of(st)) > 0;
      if (!old) {
        keep(inner, "it has changed since it was copied");
        continue;
      }
      if (st.st_nlink > 1) old_links_.insert(key_of(st));
      if (from.remove(name, false)) {
        ++removal.num_removed;
      } else {
        keep(inner, "it could not be removed");
      }
    }
    return {};
  }

  Status directory(Node& from, Node& to, const std::string& path) {
    auto names = from.names();
    if (!names) return at(path, std::move(names).error());
    for (const std::string& name : *names) {
      ECFS_TRY(check_signals());
      const std::string inner = below(path, name);
      auto source = from.child(name);
      if (!source) return at(inner, std::move(source).error());
      ECFS_LET(const struct stat a, (*source)->stat());
      auto copy = to.child(name);
      const auto b = copy ? (*copy)->stat() : Result<struct stat>(copy.error());
      if (!b) {
        keep(inner, "the copy does not hold it");
      } else if ((a.st_mode & S_IFMT) != (b->st_mode & S_IFMT)) {
        keep(inner, "the copy holds something else");
      } else if (S_ISDIR(a.st_mode)) {
        ECFS_TRY(directory(**source, **copy, inner));
        remove_emptied(from, name, inner);
      } else {
        ECFS_TRY(file(from, name, **source, **copy, a, inner));
      }
    }
    return {};
  }

  Removal removal;

 private:
  Status file(Node& from, const std::string& name, Node& source, Node& copy, const struct stat& st,
              const std::string& path) {
    if (!is_before(st.st_ctim, compared_at_)) {
      if (auto same = comparer_.held(source, copy, st); !same) {
        if (caught_signal() != 0) return same;
        keep(path, "it is not what the copy holds");
        return {};
      }
    }
    if (!from.remove(name, false)) {
      keep(path, "it could not be removed");
    } else {
      ++removal.num_removed;
    }
    return {};
  }

  void remove_emptied(Node& from, const std::string& name, const std::string& path) {
    if (Status done = from.remove(name, true); done) {
      ++removal.num_removed;
    } else if (const int err = errno_of(done.error()); err != ENOTEMPTY && err != EEXIST) {
      keep(path, "it could not be removed");
    }
  }

  void keep(const std::string& path, const char* why) {
    ++removal.num_kept;
    if (removal.kept.size() < kMaxTold) removal.kept.push_back(path + ": " + why);
  }

  timespec compared_at_;
  Comparer comparer_;
  std::set<InodeKey> old_links_;
};

// The next data at or behind `offset`, or `size`.
Result<std::uint64_t> next_data(OpenFile& file, std::uint64_t offset, std::uint64_t size) {
  auto found = file.next_data(offset);
  if (!found && errno_of(found.error()) == ENXIO) return size;
  if (!found) return found;
  return std::min(*found, size);
}

}  // namespace

std::string below(const std::string& path, const std::string& name) { return path.empty() ? name : path + "/" + name; }

Contents::Contents(Progress* progress) : progress_(progress), a_(kChunk), b_(kChunk) {}

Status Contents::failed_reading(Error error) {
  from_failed_ = true;
  return error;
}

Status Contents::copy(OpenFile& from, OpenFile& to, bool find_holes) {
  from_failed_ = false;
  auto size = from.size();
  if (!size) return failed_reading(std::move(size).error());
  for (std::uint64_t begin = 0; begin < *size;) {
    const auto data = next_data(from, begin, *size);
    if (!data) return failed_reading(data.error());
    if (*data >= *size) break;
    const auto hole = from.next_hole(*data);
    if (!hole) return failed_reading(hole.error());
    const std::uint64_t end = std::min(*hole, *size);
    ECFS_TRY(copy_stretch(from, to, *data, end, find_holes));
    begin = end;
  }
  return to.resize(*size);
}

Status Contents::copy_stretch(OpenFile& from, OpenFile& to, std::uint64_t begin, std::uint64_t end, bool find_holes) {
  for (std::uint64_t offset = begin; offset < end;) {
    ECFS_TRY(check_signals());
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(end - offset, a_.size()));
    const auto got = from.read(offset, MutableByteView(a_).first(want));
    if (!got) return failed_reading(got.error());
    if (*got < want) return failed_reading({Code::kBusy, 0, "it became shorter while it was copied"});
    for (ByteView rest = ByteView(a_).first(want); !rest.empty();) {
      // Up to a boundary of what may be a hole, and on while it stays as it is: data or zeros.
      std::size_t len = 0;
      bool zeros = false;
      while (len < rest.size()) {
        const std::uint64_t here = offset + len;
        const std::size_t step = std::min<std::size_t>(kHoleBytes - here % kHoleBytes, rest.size() - len);
        const bool hole = find_holes && all_zeros(rest.subspan(len, step));
        if (len != 0 && hole != zeros) break;
        zeros = hole;
        len += step;
      }
      if (!zeros) ECFS_TRY(to.write(offset, rest.first(len)));
      if (progress_ != nullptr) progress_->advance(len);
      offset += len;
      rest = rest.subspan(len);
    }
  }
  return {};
}

Status Contents::compare(OpenFile& from, OpenFile& to) {
  from_failed_ = false;
  auto size = from.size();
  if (!size) return failed_reading(std::move(size).error());
  ECFS_LET(const std::uint64_t copied, to.size());
  if (copied != *size) return differs("size");
  for (std::uint64_t offset = 0; offset < *size;) {
    ECFS_TRY(check_signals());
    // Where neither has data until further on, both read as zeros.
    const auto in_from = next_data(from, offset, *size);
    if (!in_from) return failed_reading(in_from.error());
    ECFS_LET(const std::uint64_t in_to, next_data(to, offset, *size));
    if (const std::uint64_t data = std::min(*in_from, in_to); data > offset) {
      offset = data;
      continue;
    }
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(*size - offset, a_.size()));
    const auto got = from.read(offset, MutableByteView(a_).first(want));
    if (!got) return failed_reading(got.error());
    ECFS_LET(const std::size_t again, to.read(offset, MutableByteView(b_).first(want)));
    if (*got != want || again != want ||
        !std::equal(a_.begin(), a_.begin() + static_cast<std::ptrdiff_t>(want), b_.begin()))
      return differs("contents");
    if (progress_ != nullptr) progress_->advance(want);
    offset += want;
  }
  return {};
}

// Owner, attributes and mode, in the order in which none undoes another.
Status copy_metadata(Node& from, Node& to, const struct stat& st) {
  ECFS_LET(const struct stat now, to.stat());
  if (now.st_uid != st.st_uid || now.st_gid != st.st_gid) ECFS_TRY(to.set_owner(st.st_uid, st.st_gid));
  ECFS_LET(const Attributes wanted, from.attributes());
  ECFS_LET(const Attributes there, to.attributes());
  for (const auto& [name, value] : there) {  // what a directory's default ACL gave
    if (wanted.count(name) == 0) ECFS_TRY(to.remove_attribute(name));
  }
  for (const auto& [name, value] : wanted) {
    const auto same = there.find(name);
    if (same == there.end() || same->second != value) ECFS_TRY(to.set_attribute(name, value));
  }
  if (!S_ISLNK(st.st_mode)) ECFS_TRY(to.set_mode(st.st_mode & 07777));
  return {};
}

Status compare_metadata(Node& from, Node& to) {
  ECFS_LET(const struct stat a, from.stat());
  ECFS_LET(const struct stat b, to.stat());
  if (a.st_mode != b.st_mode) return differs("type or mode");
  if (a.st_uid != b.st_uid || a.st_gid != b.st_gid) return differs("owner");
  if ((S_ISBLK(a.st_mode) || S_ISCHR(a.st_mode)) && a.st_rdev != b.st_rdev) return differs("device number");
  if (!same_time(a.st_mtim, b.st_mtim)) return differs("time of change");
  ECFS_LET(const Attributes of_a, from.attributes());
  ECFS_LET(const Attributes of_b, to.attributes());
  return of_a == of_b ? Status() : differs("attributes");
}

Result<Survey> survey_tree(int dir, uid_t owner) {
  struct stat st {};
  if (fstat(dir, &st) != 0) return system_error(errno, "stat the directory");
  Surveyor surveyor(st.st_dev, owner);
  ECFS_TRY(surveyor.directory(dir, ""));
  return std::move(surveyor.survey);
}

Status copy_tree(int from, int to, Progress& progress) {
  ECFS_LET(const NodePtr source, directory_tree(from));
  ECFS_LET(const NodePtr target, directory_tree(to));
  return Copier(*target, progress).directory(*source, *target, "");
}

Status compare_trees(int from, int to, Progress& progress) {
  ECFS_LET(const NodePtr source, directory_tree(from));
  ECFS_LET(const NodePtr target, directory_tree(to));
  return Comparer(&progress).directory(*source, *target, "");
}

Result<Removal> remove_copied(int from, int to, timespec compared_at) {
  ECFS_LET(const NodePtr source, directory_tree(from));
  ECFS_LET(const NodePtr target, directory_tree(to));
  Remover remover(compared_at);
  ECFS_TRY(remover.directory(*source, *target, ""));
  ECFS_TRY(sync_directory(from));
  return std::move(remover.removal);
}

Result<Removal> remove_untouched(int from, timespec compared_at) {
  ECFS_LET(const NodePtr source, directory_tree(from));
  Remover remover(compared_at);
  ECFS_TRY(remover.untouched(*source, ""));
  ECFS_TRY(sync_directory(from));
  return std::move(remover.removal);
}

}  // namespace ecfs::setup
