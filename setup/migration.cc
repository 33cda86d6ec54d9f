#include "setup/migration.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>
#include <utility>

#include "wrap/base/log.h"

namespace ecfs::setup {
namespace {

constexpr std::uint64_t kBatchBytes = 16U << 20;  // what is removed from the old tree at one sync of a directory
constexpr std::size_t kBatchNames = 256;
constexpr std::size_t kMaxTold = 100;
constexpr unsigned kMaxDepth = 1000;  // directories inside each other; each has its frames on the stack

bool is_absent(const Error& error) noexcept { return errno_of(error) == ENOENT; }

bool is_older(const timespec& a, const timespec& b) noexcept {
  return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

// A device of another type or a file that is none would be opened else.
bool is_regular(const struct stat& st) noexcept { return S_ISREG(st.st_mode); }

// Of the new tree's own failures those that concern one file alone: too large, an attribute that does not fit.
bool is_of_one_file(const Error& error) noexcept {
  const int err = errno_of(error);
  return err == EFBIG || err == ERANGE || err == E2BIG || err == ENAMETOOLONG;
}

// Not by the time of status change: to read a file without the permission for it its volume changes that.
bool unchanged(const struct stat& a, const struct stat& b) noexcept {
  return a.st_ino == b.st_ino && a.st_size == b.st_size && a.st_mode == b.st_mode && a.st_uid == b.st_uid &&
         a.st_gid == b.st_gid && !is_older(a.st_mtim, b.st_mtim) && !is_older(b.st_mtim, a.st_mtim);
}

constexpr const char* kChanged = "it was changed while it was copied: somebody works in the old tree";

std::string shown(const std::string& path) { return path.empty() ? "the tree's root" : escaped(path); }

}  // namespace

// ---- looking through it

void Migration::obstacle(std::string text) {
  ++survey_.num_obstacles;
  if (survey_.obstacles.size() < kMaxTold) survey_.obstacles.push_back(std::move(text));
}

Result<MigrationSurvey> Migration::survey(Node* to) {
  survey_ = {};
  links_.clear();
  surveyed_.clear();
  ECFS_LET(const struct stat st, from_.stat());
  device_ = st.st_dev;
  ECFS_TRY(survey_directory(from_, to, "", 0));
  surveyed_.clear();
  return survey_;
}

Status Migration::survey_directory(Node& from, Node* to, const std::string& path, unsigned depth) {
  if (depth > kMaxDepth) {
    obstacle(fmt::format("{}... is in more than {} directories one inside the other; move it up",
                         shown(path.substr(0, 64)), kMaxDepth));
    return {};
  }
  const auto names = from.names();
  if (!names) return {};  // the run tells of it
  for (const std::string& name : *names) {
    ECFS_TRY(check_signals());
    ECFS_TRY(survey_entry(from, to, name, below(path, name), depth));
  }
  return {};
}

Status Migration::survey_entry(Node& from, Node* to, const std::string& name, const std::string& path, unsigned depth) {
  ++survey_.num_entries;
  if (name == kMigrationTempName) obstacle(shown(path) + ": its name is needed for the migration itself; rename it");
  if (!rules_.reserved.empty() && path == rules_.reserved) {
    obstacle(shown(path) + ": its name is needed for the migration itself; rename it");
  }
  if (name.size() > rules_.longest_name) {
    obstacle(shown(path) + ": its name has " + std::to_string(name.size()) + " bytes, and " +
             std::to_string(rules_.longest_name) + " are the most in the new tree; shorten it");
  }
  const auto node = from.child(name);
  const auto st = node ? (*node)->stat() : Result<struct stat>(node.error());
  if (!st) return {};
  if (st->st_dev != device_) {
    obstacle(shown(path) + " is a mountpoint of another filesystem; unmount it");
    return {};
  }
  if (S_ISLNK(st->st_mode) && rules_.check_target) {
    const auto target = (*node)->target();
    if (target && !rules_.check_target(*target)) {
      obstacle(shown(path) + ": what this link points to has " + std::to_string(target->size()) +
               " bytes, more than the new tree can hold; replace it by a shorter one");
    }
  }
  if (geteuid() != 0) {
    if (st->st_uid != geteuid()) obstacle(shown(path) + " belongs to another user; let root migrate the tree");
    if (S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode)) {
      obstacle(shown(path) + " is a device, which only root can make; let root migrate the tree");
    }
  }
  NodePtr there;
  if (to != nullptr) {
    auto found = to->child(name);
    if (found) there = *std::move(found);
  }
  if (there) ++survey_.num_there;
  if (S_ISDIR(st->st_mode)) {
    const bool both = there && (*there).stat() && S_ISDIR((*there).stat()->st_mode);
    return survey_directory(**node, both ? there.get() : nullptr, path, depth + 1);
  }
  const bool several = st->st_nlink > 1;
  if (several && there) {
    if (auto now = there->stat(); now && (now->st_mode & S_IFMT) == (st->st_mode & S_IFMT)) {
      // Another run's copy of this name, or one of the user's: it is taken for the copy only if it is equal.
      if (compare_metadata(**node, *there)) links_.emplace(key_of(*st), Link{path});
    }
  }
  if (!is_regular(*st)) return {};
  if (several && !surveyed_.emplace(key_of(*st), true).second) return {};
  const auto size = static_cast<std::uint64_t>(st->st_size);
  const std::uint64_t bytes =
      rules_.stores_holes ? size : std::min(size, static_cast<std::uint64_t>(st->st_blocks) * 512);
  if (!there) {
    survey_.data_bytes += bytes;
    survey_.largest_bytes = std::max(survey_.largest_bytes, bytes);
  }
  if (several) survey_.linked_bytes += bytes;
  return {};
}

// ---- bringing it over

void Migration::leave(const std::string& path, const std::string& why) {
  ++outcome_.num_left;
  left_.insert(path);
  progress_->hide();
  tell_(shown(path), why);
}

// A failure with one entry of the old tree: told, and the run goes on. An interruption is none.
bool Migration::left(const std::string& path, const Error& error) {
  if (caught_signal() != 0) return false;
  leave(path, error.what);
  return true;
}

Result<MigrationOutcome> Migration::run(Node& to, Progress& progress, const Tell& tell) {
  Contents contents(&progress);
  to_ = &to;
  contents_ = &contents;
  progress_ = &progress;
  tell_ = tell;
  outcome_ = {};
  linked_names_.clear();
  left_.clear();
  // An earlier run may have been killed before it synced what it made.
  if (rules_.remove_old && rules_.sync_new && survey_.num_there != 0) ECFS_TRY(rules_.sync_new());
  ECFS_LET(const struct stat st, from_.stat());
  ECFS_TRY(directory(from_, to, "", st, false));
  if (rules_.sync_new) ECFS_TRY(rules_.sync_new());
  if (rules_.remove_old) {
    ECFS_TRY(remove_linked());
    ECFS_TRY(remove_directories(from_, to, ""));
    ECFS_TRY(from_.sync());
  }
  return outcome_;
}

Status Migration::directory(Node& from, Node& to, const std::string& path, const struct stat& st, bool made) {
  struct stat times = st;
  ECFS_LET(const struct stat there, to.stat());
  if (!made && (rules_.remove_old || rules_.removed_before)) {
    // The root of the new tree is older than any of this only if a run has set its time.
    if (is_older(there.st_mtim, times.st_mtim)) times.st_mtim = there.st_mtim;
    if (rules_.remove_old && is_older(times.st_mtim, st.st_mtim)) ECFS_TRY(from.set_times(times));
  }
  const auto names = from.names();
  if (!names) return left(path, names.error()) ? Status() : names.error();
  if (!made) {
    // Its own mode comes last, from the old tree.
    if (geteuid() != 0 && (there.st_mode & S_IRWXU) != S_IRWXU) ECFS_TRY(to.set_mode(there.st_mode | S_IRWXU));
    Status cleared = to.remove(kMigrationTempName, false);
    if (!cleared && !is_absent(cleared.error())) return cleared;
  }
  Batch batch;
  for (const std::string& name : *names) {
    ECFS_TRY(check_signals());
    ECFS_TRY(entry(from, to, name, below(path, name), times, batch));
    if (batch.bytes >= kBatchBytes || batch.entries.size() >= kBatchNames) {
      ECFS_TRY(remove_batch(from, to, times, batch));
    }
  }
  ECFS_TRY(remove_batch(from, to, times, batch));
  Status done = copy_metadata(from, to, st);
  if (done) done = to.set_times(times);
  if (!done) return left(path, done.error()) ? Status() : done;
  return {};
}

Status Migration::entry(Node& from, Node& to, const std::string& name, const std::string& path,
                        const struct stat& times, Batch& batch) {
  const auto node = from.child(name);
  const auto st = node ? (*node)->stat() : Result<struct stat>(node.error());
  progress_->advance(0, 1);
  if (!st) return left(path, st.error()) ? Status() : st.error();
  NodePtr there;
  auto found = to.child(name);
  if (found) {
    there = *std::move(found);
  } else if (!is_absent(found.error())) {
    return with_context(std::move(found).error(), shown(path) + " in the new tree");
  }
  if (S_ISDIR(st->st_mode)) {
    ECFS_TRY(remove_batch(from, to, times, batch));
    return inner_directory(**node, to, std::move(there), name, path, *st);
  }
  ECFS_LET(const bool whole, file(**node, to, std::move(there), name, path, *st));
  if (!whole || !rules_.remove_old) return {};
  if (st->st_nlink > 1) {
    linked_names_[key_of(*st)].push_back({path, *st});
  } else {
    batch.entries.push_back({path, *st});
    batch.bytes += static_cast<std::uint64_t>(st->st_blocks) * 512;
  }
  return {};
}

Status Migration::inner_directory(Node& node, Node& to, NodePtr there, const std::string& name, const std::string& path,
                                  const struct stat& st) {
  const bool made = !there;
  if (made) {
    auto fresh = to.make(name, st, "");
    if (!fresh) return with_context(std::move(fresh).error(), "make " + shown(path));
    there = *std::move(fresh);
    if (rules_.remove_old) ECFS_TRY(to.sync());
    ++outcome_.num_copied;
  } else {
    ECFS_LET(const struct stat now, there->stat());
    if (!S_ISDIR(now.st_mode)) {
      leave(path, "the new tree has something else of this name");
      return {};
    }
    ++outcome_.num_there;
  }
  return directory(node, *there, path, st, made);
}

// True: the new tree has it, whole.
Result<bool> Migration::file(Node& node, Node& to, NodePtr there, const std::string& name, const std::string& path,
                             const struct stat& st) {
  const auto known = st.st_nlink > 1 ? links_.find(key_of(st)) : links_.end();
  if (there) {
    ECFS_LET(const bool equal, is_there(node, *there, path, st));
    if (!equal) return false;
    if (known != links_.end() && known->second.path != path) {
      ECFS_LET(const NodePtr first, find_path(*to_, known->second.path));
      ECFS_LET(const struct stat a, first->stat());
      ECFS_LET(const struct stat b, there->stat());
      if (key_of(a) != key_of(b)) {
        leave(path,
              "in the new tree it is not the same file as " + shown(known->second.path) + ", as it is in the old one");
        return false;
      }
    }
    ++outcome_.num_there;
  } else if (known != links_.end()) {
    ECFS_LET(const NodePtr first, find_path(*to_, known->second.path));
    if (!known->second.compared) {
      ECFS_LET(const bool equal, is_there(node, *first, path, st));
      if (!equal) return false;
    }
    if (Status done = to.link(*first, name); !done) return with_context(std::move(done).error(), shown(path));
    ++outcome_.num_copied;
  } else {
    ECFS_LET(const bool copied, copy(node, to, name, path, st));
    if (!copied) return false;
    ++outcome_.num_copied;
  }
  if (st.st_nlink > 1) links_.insert_or_assign(key_of(st), Link{path, true});
  return true;
}

// An entry that both trees have. Of an earlier run it is whole; but in between somebody may have changed one of them.
Result<bool> Migration::is_there(Node& node, Node& there, const std::string& path, const struct stat& st) {
  const std::string kDiffers = "both trees have it, and they differ; remove the one that you do not want: ";
  Status same = compare_metadata(node, there);
  if (same && S_ISLNK(st.st_mode)) {
    const auto a = node.target();
    const auto b = there.target();
    if (!a) return left(path, a.error()) ? Result<bool>(false) : a.error();
    if (!b) return b.error();
    if (*a != *b) same = Error{Code::kCorrupt, 0, "the copy differs from the original (link target)"};
  }
  if (same && is_regular(st)) {
    ECFS_LET(const struct stat now, there.stat());
    if (now.st_size != st.st_size) {
      same = Error{Code::kCorrupt, 0, "the copy differs from the original (size)"};
    } else if (rules_.remove_old) {
      const auto source = node.open(false);
      if (!source) return left(path, source.error()) ? Result<bool>(false) : source.error();
      ECFS_LET(const auto copy, there.open(false));
      ECFS_TRY(copy->forget_cached());
      Contents compared(nullptr);
      same = compared.compare(**source, *copy);
      if (!same && compared.from_failed()) return left(path, same.error()) ? Result<bool>(false) : same.error();
    }
  }
  if (same) return true;
  if (caught_signal() != 0 || same.error().code != Code::kCorrupt) return same.error();
  leave(path, kDiffers + same.error().what);
  return false;
}

Result<bool> Migration::copy(Node& node, Node& to, const std::string& name, const std::string& path,
                             const struct stat& st) {
  std::string target;
  if (S_ISLNK(st.st_mode)) {
    auto found = node.target();
    if (!found) return left(path, found.error()) ? Result<bool>(false) : found.error();
    target = *std::move(found);
  }
  auto made = to.make(kMigrationTempName, st, target);
  if (!made) return with_context(std::move(made).error(), "make " + shown(path));
  auto whole = fill(node, **made, path, st);
  if (whole && *whole) whole = verify(node, **made, path, st);
  made->reset();
  if (whole && *whole) {
    if (Status named = to.rename(kMigrationTempName, name); !named) whole = std::move(named).error();
  }
  if (whole && *whole) return true;
  (void)to.remove(kMigrationTempName, false);  // the next run would, too
  if (!whole) return with_context(std::move(whole).error(), shown(path));
  return false;
}

// False: left, and told.
Result<bool> Migration::fill(Node& node, Node& copy, const std::string& path, const struct stat& st) {
  const auto leave_or_end = [&](Error error) -> Result<bool> {
    if (left(path, error)) return false;
    return error;
  };
  if (!is_regular(st)) {
    Status done = copy_metadata(node, copy, st);
    if (done) done = copy.set_times(st);
    if (!done) return leave_or_end(std::move(done).error());
    return true;
  }
  const auto source = node.open(false);
  if (!source) return leave_or_end(source.error());
  ECFS_LET(const auto target, copy.open(true));
  if (Status done = contents_->copy(**source, *target, rules_.find_holes); !done) {
    if (contents_->from_failed() || is_of_one_file(done.error())) return leave_or_end(std::move(done).error());
    return std::move(done).error();
  }
  if (Status done = copy_metadata(node, copy, st); !done) return leave_or_end(std::move(done).error());
  // Through the open file: it is what the last write and the close leave.
  ECFS_TRY(target->set_times(st));
  ECFS_TRY(target->sync());
  ECFS_TRY(target->close());
  return true;
}

Result<bool> Migration::verify(Node& node, Node& copy, const std::string& path, const struct stat& st) {
  const auto failed = [&](Error error) -> Result<bool> {
    if (caught_signal() != 0) return error;
    if (const auto now = node.stat(); !now || !unchanged(*now, st)) {
      leave(path, kChanged);
      return false;
    }
    error.what = "it does not read back as it was written (" + error.what + "); nothing of it was removed";
    return error;
  };
  if (Status same = compare_metadata(node, copy); !same) return failed(std::move(same).error());
  if (S_ISLNK(st.st_mode)) {
    const auto a = node.target();
    const auto b = copy.target();
    if (!a || !b || *a != *b) return failed({Code::kCorrupt, 0, "link target"});
  }
  if (!is_regular(st)) return true;
  const auto source = node.open(false);
  if (!source) return left(path, source.error()) ? Result<bool>(false) : source.error();
  ECFS_LET(const auto again, copy.open(false));
  ECFS_TRY(again->forget_cached());
  Contents compared(nullptr);
  if (Status same = compared.compare(**source, *again); !same) {
    if (compared.from_failed()) return left(path, same.error()) ? Result<bool>(false) : same.error();
    return failed(std::move(same).error());
  }
  const auto now = node.stat();
  if (now && unchanged(*now, st)) return true;
  leave(path, kChanged);
  return false;
}

// ---- removing what was brought over

Status Migration::remove_batch(Node& from, Node& to, const struct stat& times, Batch& batch) {
  if (batch.entries.empty()) return {};
  // First the new directory is as it has to be, on disk; then the old one is touched.
  ECFS_TRY(to.set_times(times));
  ECFS_TRY(to.sync());
  ECFS_TRY(remove_names(from, batch.entries));
  (void)from.set_times(times);
  batch = {};
  return {};
}

// What is no more as it was when it was compared stays: who writes below our feet loses nothing.
Status Migration::remove_names(Node& parent, const std::vector<Removable>& entries) {
  for (const auto& [path, st] : entries) {
    ECFS_TRY(check_signals());
    const std::string name = path.substr(path.rfind('/') + 1);
    const auto node = parent.child(name);
    const auto now = node ? (*node)->stat() : Result<struct stat>(node.error());
    if (!now || !unchanged(*now, st)) {
      leave(path, kChanged);
    } else if (Status done = parent.remove(name, false); !done) {
      leave(path, "it was copied, and could not be removed: " + done.error().what);
    } else {
      ++outcome_.num_removed;
    }
  }
  return {};
}

// All names of a file go together, once all are in the new tree: what the old tree still has tells that they are one.
Status Migration::remove_linked() {
  for (const auto& [key, names] : linked_names_) {
    for (const Removable& entry : names) {
      const std::string& path = entry.path;
      const std::size_t slash = path.rfind('/');
      NodePtr above;
      if (slash != std::string::npos) {
        ECFS_LET(above, find_path(from_, path.substr(0, slash)));
      }
      Node& parent = above ? *above : from_;
      ECFS_LET(const struct stat times, parent.stat());
      ECFS_TRY(remove_names(parent, {entry}));
      (void)parent.set_times(times);
    }
  }
  return {};
}

Status Migration::remove_directories(Node& from, Node& to, const std::string& path) {
  const auto names = from.names();
  if (!names) return {};
  const auto times = from.stat();
  bool changed = false;
  for (const std::string& name : *names) {
    ECFS_TRY(check_signals());
    const auto node = from.child(name);
    const auto st = node ? (*node)->stat() : Result<struct stat>(node.error());
    if (!st || !S_ISDIR(st->st_mode)) continue;
    const std::string inner = below(path, name);
    if (left_.count(inner) != 0) continue;
    const auto there = to.child(name);
    if (!there) continue;
    ECFS_TRY(remove_directories(**node, **there, inner));
    if (Status done = from.remove(name, true); done) {
      ++outcome_.num_removed;
      changed = true;
    } else if (const int err = errno_of(done.error()); err != ENOTEMPTY && err != EEXIST) {
      leave(inner, "it was copied, and could not be removed: " + done.error().what);
    }
  }
  if (changed && times) (void)from.set_times(*times);
  return {};
}

}  // namespace ecfs::setup
