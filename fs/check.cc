#include "fs/check.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <ctime>
#include <functional>
#include <unordered_set>

#include "fs/lower/tree_walk.h"
#include "fs/lower_names.h"
#include "wrap/base/file.h"
#include "wrap/volume_store.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kMaxLinkedInodes = 1U << 18;
constexpr std::size_t kMaxAlternativeNames = 1000;  // names of a directory that another id is tried on
constexpr std::size_t kMaxSideFilesTried = 1000;
constexpr std::size_t kMaxSideFile = 512;
constexpr std::size_t kMaxTemporary = 512;  // side files and ids are written by way of temporary files
constexpr std::size_t kMaxLongConflicts = 1U << 12;
constexpr int kMaxKept = 1000;          // in one directory, of one name
constexpr std::size_t kMaxToldId = 64;  // a longer file was never a directory's id
constexpr std::string_view kKeptPrefix = ".ecfs-replaced-";
constexpr std::size_t kMaxXattrBytes = 65536;  // the kernel's own limits
constexpr std::size_t kShownLevels = 128;      // of a path; a deeper one is told by its ends
constexpr int kShortestWaitMs = 20;
constexpr int kLongestWaitMs = 500;
constexpr int kPatience = 3;  // times the quiet time, until what changes all the time is left unchecked

std::int64_t clock_ms(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1'000'000;
}

bool same_time(const timespec& a, const timespec& b) noexcept { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

bool is_missing(const Error& error) noexcept {
  const int err = errno_of(error);
  return err == ENOENT || err == ESTALE;
}

// Of the check itself, and no fault of what is looked at.
bool is_ours(const Error& error) noexcept {
  const int err = errno_of(error);
  return error.code == Code::kNoMemory || err == EMFILE || err == ENFILE;
}

std::string plural(std::uint64_t n, const std::string& one, const std::string& many) {
  return std::to_string(n) + " " + (n == 1 ? one : many);
}

struct InodeHash {
  std::size_t operator()(const InodeKey& key) const noexcept {
    return (key.ino * 0x9e3779b97f4a7c15U) ^ (key.dev << 7) ^ static_cast<std::uint64_t>(key.birth_ns);
  }
};

Result<Fd> open_readable(int path_fd, int flags) {
  // Through a descriptor that is known to be a regular file or a directory: no device is ever opened. Its access time
  // stays, where the kernel lets us.
  Result<Fd> fd = open_at(path_fd, "", O_RDONLY | O_NOATIME | O_NOCTTY | O_NONBLOCK | flags);
  if (fd || fd.error().sys_errno != EPERM) return fd;
  return open_at(path_fd, "", O_RDONLY | O_NOCTTY | O_NONBLOCK | flags);
}

// Patience says whether what was found of an inode may count: if it was not changed while it was looked at, nor for
// some time before.
class Patience {
 public:
  Patience(const CheckOptions& options, CheckWatcher& watcher)
      : options_(options), watcher_(watcher), begun_ms_(clock_ms(CLOCK_MONOTONIC)) {}

  [[nodiscard]] bool counts(const LowerStat& before, const LowerStat& after) {
    const bool same = same_time(before.st.st_ctim, after.st.st_ctim) && before.st.st_size == after.st.st_size;
    const std::int64_t now_ms = clock_ms(CLOCK_MONOTONIC);
    if (!same || !same_time(after.st.st_ctim, seen_)) {
      seen_ = after.st.st_ctim;
      seen_since_ms_ = now_ms;
    }
    if (!same) return false;
    const int quiet_ms = watcher_.served() ? options_.quiet_served_ms : options_.quiet_ms;
    if (quiet_ms == 0 || now_ms - seen_since_ms_ >= quiet_ms) return true;
    const std::int64_t changed_ms =
        static_cast<std::int64_t>(before.st.st_ctim.tv_sec) * 1000 + before.st.st_ctim.tv_nsec / 1'000'000;
    return clock_ms(CLOCK_REALTIME) - changed_ms >= quiet_ms;
  }
  [[nodiscard]] bool over() const {
    const int quiet_ms = watcher_.served() ? options_.quiet_served_ms : options_.quiet_ms;
    return clock_ms(CLOCK_MONOTONIC) - begun_ms_ > static_cast<std::int64_t>(quiet_ms) * kPatience;
  }
  // wait lets some time pass, a little more with each call.
  Status wait() {
    const timespec pause{0, wait_ms_ * 1'000'000L};
    nanosleep(&pause, nullptr);
    wait_ms_ = std::min(wait_ms_ * 2, kLongestWaitMs);
    return watcher_.advanced(0, 0);
  }

 private:
  const CheckOptions& options_;
  CheckWatcher& watcher_;
  std::int64_t begun_ms_;
  timespec seen_{-1, 0};
  std::int64_t seen_since_ms_ = 0;
  int wait_ms_ = kShortestWaitMs;
};

enum class Settled { kFine, kStands, kRestless };

class Checker {
 public:
  Checker(const Format& format, const CheckOptions& options, CheckWatcher& watcher)
      : format_(format), options_(options), watcher_(watcher) {}

  Result<CheckTotals> run(const Fd& root);

 private:
  // A directory on the way.
  struct Dir {
    std::string lower;                 // its name
    std::optional<std::string> plain;  // "" of the root
    std::optional<DirId> id;           // none: its names are lost
    std::optional<DirId> derived;      // what its place gives
    bool restless = false;             // changes all the time: nothing is waited for in it
    // The long names of which it holds conflicting copies, once that was asked.
    std::optional<std::unordered_set<std::string>> long_conflicts;
  };
  struct Entry {
    std::string lower;
    Fd path_fd;
    LowerStat st;
    std::optional<std::string> plain;
    std::optional<std::string> id_from;  // the plain name that a directory's id is derived from
  };
  struct DirJudged {
    std::optional<DirId> id;
    const char* trouble = nullptr;
    bool any_names = false;
    bool authentic = false;  // the stored id verifies, whosever it is
  };

  // Telling.
  [[nodiscard]] std::string lower_path(const std::string* entry) const;
  [[nodiscard]] std::optional<std::string> plain_path(const std::optional<std::string>* entry) const;
  [[nodiscard]] std::vector<std::string> salvage_path(const Entry& entry) const;
  void tell(Finding finding, const Entry* entry);
  void tell(Trouble trouble, Severity severity, const Entry* entry, std::string what, bool repaired = false);
  void tell_unread(const Error& error, const Entry* entry, const std::string& what);

  // Settling.
  Result<Settled> settle(int fd, bool may_wait, const std::function<Result<bool>()>& looks_wrong);
  [[nodiscard]] std::int64_t age_s(const LowerStat& st) const;
  [[nodiscard]] bool is_quiet(const LowerStat& st);

  // Directories.
  Status enter(const Fd& path_fd, Entry* entry, std::optional<DirId> derived);
  Result<DirJudged> judge(int fd, const std::optional<DirId>& derived) const;
  Result<bool> any_name_fits(int fd, const DirId& id, std::size_t most, bool& any_names) const;
  Result<std::optional<DirId>> other_id(int fd, const Dir& dir, const DirJudged& judged) const;
  Status changing_dir(int fd, const std::function<Status()>& change) const;
  Result<std::string> replace_id(int fd, const DirId& id, bool keep_present) const;

  // Entries.
  Status look(std::string name);
  Status ours(Entry& entry);
  Result<bool> names_a_conflict(const std::string& long_name);
  Status foreign(Entry& entry);
  Status name(Entry& entry);
  void tell_odd_name(const Error& error, const Entry& entry);
  Status long_name(Entry& entry);
  struct SideSource {
    Bytes bytes;
    std::string from;  // the file that holds them; "": a name that somebody knows
  };
  Result<std::optional<SideSource>> derive_side_file(const std::string& lower) const;
  Status mend_side_file(const std::string& side, const SideSource& source, std::string& kept) const;
  Status by_type(Entry& entry);
  Status file(Entry& entry);
  Status tell_contents(const Entry& entry, int fd, ContentsCheck& check);
  Status link(const Entry& entry);
  Status xattrs(const Entry* entry, int fd);

  const Format& format_;
  const CheckOptions& options_;
  CheckWatcher& watcher_;
  TreeWalk walk_;
  std::vector<Dir> dirs_;
  std::vector<DirId> known_ids_;  // of directories at the known paths
  std::unordered_set<InodeKey, InodeHash> linked_;
  Bytes xattr_list_;
  Bytes xattr_value_;
  CheckTotals totals_;
};

// --- Telling -------------------------------------------------------------------------------------------------------

std::string Checker::lower_path(const std::string* entry) const {
  std::string path;
  const auto add = [&path](const std::string& name) { path += (path.empty() ? "" : "/") + name; };
  for (std::size_t i = 1; i < dirs_.size(); ++i) {
    if (dirs_.size() > kShownLevels && i == kShownLevels / 2) {
      add("...");
      i = dirs_.size() - kShownLevels / 2;
    }
    add(dirs_[i].lower);
  }
  if (entry != nullptr) add(*entry);
  return path.empty() ? "." : path;
}

std::optional<std::string> Checker::plain_path(const std::optional<std::string>* entry) const {
  std::string path;
  const auto add = [&path](const std::string& name) { path += (path.empty() ? "" : "/") + name; };
  for (std::size_t i = 1; i < dirs_.size(); ++i) {
    if (!dirs_[i].plain) return std::nullopt;
    if (dirs_.size() > kShownLevels && i >= kShownLevels / 2 && i < dirs_.size() - kShownLevels / 2) {
      if (i == kShownLevels / 2) add("...");
      continue;
    }
    add(*dirs_[i].plain);
  }
  if (entry != nullptr) {
    if (!*entry) return std::nullopt;
    add(**entry);
  }
  return path.empty() ? "." : path;
}

std::vector<std::string> Checker::salvage_path(const Entry& entry) const {
  std::vector<std::string> path;
  for (std::size_t i = 1; i < dirs_.size(); ++i) path.push_back(dirs_[i].plain.value_or(dirs_[i].lower));
  path.push_back(entry.plain.value_or(entry.lower));
  return path;
}

void Checker::tell(Finding finding, const Entry* entry) {
  finding.lower = lower_path(entry != nullptr ? &entry->lower : nullptr);
  finding.plain = plain_path(entry != nullptr ? &entry->plain : nullptr);
  ++totals_.of_trouble[static_cast<std::size_t>(finding.trouble)];
  if (finding.repaired) {
    ++totals_.num_repaired;
  } else if (finding.severity == Severity::kDamage) {
    ++totals_.num_damaged;
  } else if (finding.severity == Severity::kLeftover) {
    ++totals_.num_leftovers;
  } else if (finding.severity == Severity::kUnchecked) {
    ++totals_.num_unchecked;
  }
  watcher_.found(finding);
}

void Checker::tell(Trouble trouble, Severity severity, const Entry* entry, std::string what, bool repaired) {
  Finding finding;
  finding.trouble = trouble;
  finding.severity = severity;
  finding.what = std::move(what);
  finding.repaired = repaired;
  tell(std::move(finding), entry);
}

void Checker::tell_unread(const Error& error, const Entry* entry, const std::string& what) {
  switch (errno_of(error)) {
    case EACCES:
    case EPERM: tell(Trouble::kDenied, Severity::kUnchecked, entry, what + " may not be read by this user"); return;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ESTALE: tell(Trouble::kChanging, Severity::kUnchecked, entry, what + ": " + error.what); return;
    default: tell(Trouble::kDisk, Severity::kDamage, entry, what + " cannot be read: " + error.what);
  }
}

// --- Settling ------------------------------------------------------------------------------------------------------

// settle looks until what it sees is right, or counts, or the inode `fd` will not be left alone.
Result<Settled> Checker::settle(int fd, bool may_wait, const std::function<Result<bool>()>& looks_wrong) {
  Patience patience(options_, watcher_);
  for (;;) {
    ECFS_LET(const LowerStat before, stat_at(fd, ""));
    ECFS_LET(const bool wrong, looks_wrong());
    if (!wrong) return Settled::kFine;
    ECFS_LET(const LowerStat after, stat_at(fd, ""));
    if (patience.counts(before, after)) return Settled::kStands;
    if (!may_wait || patience.over()) return Settled::kRestless;
    ECFS_TRY(patience.wait());
  }
}

std::int64_t Checker::age_s(const LowerStat& st) const {
  return clock_ms(CLOCK_REALTIME) / 1000 - static_cast<std::int64_t>(st.st.st_ctim.tv_sec);
}

bool Checker::is_quiet(const LowerStat& st) {
  const int quiet_ms = watcher_.served() ? options_.quiet_served_ms : options_.quiet_ms;
  return quiet_ms == 0 || age_s(st) * 1000 > quiet_ms;
}

// --- Directories ---------------------------------------------------------------------------------------------------

// any_name_fits says whether one of the first `most` names that may be ours decodes under `id`.
Result<bool> Checker::any_name_fits(int fd, const DirId& id, std::size_t most, bool& any_names) const {
  ECFS_LET(DirReader reader, DirReader::open(fd));
  for (std::size_t looked_at = 0; looked_at < most;) {
    ECFS_LET(const std::optional<RawEntry> raw, reader.peek());
    if (!raw) break;
    const LowerNameKind kind = format_.kind_of(raw->name);
    if (kind == LowerNameKind::kName || kind == LowerNameKind::kLongName) {
      any_names = true;
      ++looked_at;
      const Result<std::string> plain = decode_entry(format_, fd, id, raw->name);
      if (plain) return true;
      if (is_ours(plain.error())) return plain.error();
    }
    reader.pop();
  }
  return false;
}

// judge finds the id that a mount takes for the directory, and whether it is one under which names decode.
Result<Checker::DirJudged> Checker::judge(int fd, const std::optional<DirId>& derived) const {
  DirJudged judged;
  if (format_.dir_id_file().empty()) {  // names do not depend on where they are
    ECFS_LET(judged.id, format_.root_id());
    return judged;
  }
  const Result<FoundDirId> found = find_dir_id(format_, fd, derived.value_or(DirId{}));
  if (!found && (found.error().code != Code::kCorrupt || is_ours(found.error()))) return found.error();
  if (!found) {
    judged.trouble = "the file with its id (.ecfs-dir) is damaged";
    ECFS_TRY(any_name_fits(fd, {}, 1, judged.any_names));
    return judged;
  }
  if (!found->stored && !derived) return judged;  // a part of what is lost above
  ECFS_LET(const bool fits, any_name_fits(fd, found->id, SIZE_MAX, judged.any_names));
  if (fits || !judged.any_names) {
    judged.id = found->id;
  } else {
    judged.authentic = found->stored;
    judged.trouble = found->stored ? "the id stored in it (.ecfs-dir) is not that of its names"
                                   : "the file with its id (.ecfs-dir) is missing, or what it holds was moved here by "
                                     "hand: no name in it decodes";
  }
  return judged;
}

// other_id looks for an id under which names do decode: what proves it right.
Result<std::optional<DirId>> Checker::other_id(int fd, const Dir& dir, const DirJudged& judged) const {
  std::vector<DirId> ids;
  if (dir.derived) ids.push_back(*dir.derived);
  if (!dirs_.empty() && dirs_.back().id) {
    for (const std::string& name : options_.known_names) {
      if (name.find('/') != std::string::npos) continue;
      ECFS_LET(const DirId id, format_.child_id(*dirs_.back().id, name));
      ids.push_back(id);
    }
  }
  ids.insert(ids.end(), known_ids_.begin(), known_ids_.end());
  if (!judged.any_names) return dir.derived;  // nothing depends on it yet
  for (const DirId& id : ids) {
    bool any = false;
    ECFS_LET(const bool fits, any_name_fits(fd, id, kMaxAlternativeNames, any));
    if (fits) return std::optional<DirId>(id);
  }
  return std::optional<DirId>();
}

// changing_dir makes a change in a directory, as its owner may, and puts its time back: nobody asked for it.
Status Checker::changing_dir(int fd, const std::function<Status()>& change) const {
  ECFS_LET(const LowerStat was, stat_at(fd, ""));
  {
    const OwnerAccess access(fd, was.st, S_IRWXU);
    ECFS_TRY(change());
    ECFS_TRY(sync_directory(fd));
  }
  const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, was.st.st_mtim};
  (void)futimens(fd, times.data());  // another's directory: its time shows that something was done in it
  return {};
}

// keep gives what stands under `name` another name beside it, before its own is given to something else. Gives that
// name;
// "" if nothing is there.
Result<std::string> keep(int dir, const std::string& name) {
  for (int number = 1; number <= kMaxKept; ++number) {
    std::string kept(kKeptPrefix);
    kept += std::to_string(number) + "-" + name.substr(name.starts_with('.') ? 1 : 0);
    // A second name first: nothing is ever without one. Directories have no second, and some filesystems know of none.
    if (linkat(dir, name.c_str(), dir, kept.c_str(), 0) == 0) return kept;
    if (errno == ENOENT) return std::string();
    if (errno != EEXIST && renameat2(dir, name.c_str(), dir, kept.c_str(), RENAME_NOREPLACE) == 0) return kept;
    if (errno != EEXIST) return system_error(errno, "keep the present one as " + kept);
  }
  return Error{Code::kNoSpace, EEXIST, "too many others are kept in its directory (.ecfs-replaced-...)"};
}

// replace_id stores an id in a directory, and gives words for where that is which was there before.
Result<std::string> Checker::replace_id(int fd, const DirId& id, bool keep_present) const {
  const std::string file(format_.dir_id_file());
  ECFS_LET(const Bytes stored, format_.store_dir_id(id));
  const Result<Bytes> before = read_small_at(fd, file.c_str(), kMaxToldId);
  const bool is_missing_now = !before && errno_of(before.error()) == ENOENT;
  std::string kept;
  const Status done = changing_dir(fd, [&]() -> Status {
    // An id of another directory might be the last copy of it; and what is no id at all is not ours to throw away.
    if (keep_present || (!before && !is_missing_now)) {
      ECFS_LET(kept, keep(fd, file));
    }
    return write_new_at(fd, file, stored);
  });
  const std::string told = kept.empty() ? "" : " (what was there is kept beside it as " + kept + ")";
  if (!done) return with_context(done.error(), "write" + told);
  if (!kept.empty()) return told;
  if (before) return " (it held " + to_hex(*before) + ")";
  return std::string();
}

Status Checker::enter(const Fd& path_fd, Entry* entry, std::optional<DirId> derived) {
  if (entry != nullptr && walk_.holds(entry->st.key())) {
    tell(Trouble::kLoop, Severity::kNote, entry, "the directory holds itself, as with a bind mount: not entered again");
    return {};
  }
  Result<Fd> opened = open_readable(path_fd.get(), O_DIRECTORY);
  if (!opened) {
    if (is_missing(opened.error())) return {};
    tell_unread(opened.error(), entry, "the directory");
    return {};
  }
  Dir dir;
  if (entry != nullptr) dir.lower = entry->lower;
  dir.plain = entry != nullptr ? entry->plain : std::optional<std::string>("");
  dir.derived = derived;
  const int fd = opened->get();
  if (dirs_.empty()) dirs_.push_back(dir);  // the root: there is no directory above to tell about
  const bool is_root = entry == nullptr;
  std::optional<Error> unread;
  DirJudged judged;
  ECFS_LET(Settled settled, settle(fd, true, [&]() -> Result<bool> {
             Result<DirJudged> now = judge(fd, derived);
             unread.reset();
             if (!now && is_ours(now.error())) return now.error();
             if (!now) {
               unread = now.error();
               return false;
             }
             judged = *std::move(now);
             return judged.trouble != nullptr;
           }));
  if (unread) {
    if (is_root) dirs_.clear();
    tell_unread(*unread, entry, "the directory's id");
    return {};
  }
  if (settled == Settled::kRestless) {
    dir.restless = true;
    tell(Trouble::kChanging, Severity::kUnchecked, entry, "the directory changes all the time");
  } else if (settled == Settled::kStands) {
    const bool was_empty = !judged.any_names;
    ECFS_LET(judged.id, other_id(fd, dir, judged));
    bool repaired = false;
    std::string what = judged.trouble;
    if (judged.id && options_.repair) {
      const Result<std::string> done = replace_id(fd, *judged.id, judged.authentic);
      repaired = done.has_value();
      what += repaired ? "; it was written anew" + *done : "; it could not be written anew: " + done.error().what;
    } else if (judged.id) {
      what += was_empty ? "; the directory is empty, and --repair writes it anew"
                        : "; the right one was found, and --repair writes it";
    } else {
      what += "; if you know a name that the directory had before it was renamed, give it with --known-name";
    }
    tell(Trouble::kDirId, Severity::kDamage, entry, what, repaired);
  }
  dir.id = judged.id;
  ++totals_.num_dirs;
  if (is_root) {
    dirs_.back() = dir;
    ECFS_TRY(xattrs(nullptr, fd));
    return walk_.enter(*std::move(opened), "");
  }
  ECFS_TRY(xattrs(entry, fd));
  if (Status entered = walk_.enter(*std::move(opened), dir.lower); !entered) {
    if (is_ours(entered.error())) return entered;
    tell(Trouble::kLoop, Severity::kUnchecked, entry, "the directory is not entered: " + entered.error().what);
    --totals_.num_dirs;
    return {};
  }
  dirs_.push_back(std::move(dir));
  return {};
}

Result<CheckTotals> Checker::run(const Fd& root) {
  ECFS_LET(const DirId root_id, format_.root_id());
  for (const std::string& path : options_.known_names) {
    DirId id = root_id;
    std::string_view rest = path;
    while (!rest.empty()) {
      const std::string_view part = rest.substr(0, rest.find('/'));
      rest.remove_prefix(std::min(rest.size(), part.size() + 1));
      if (part.empty()) continue;
      ECFS_LET(id, format_.child_id(id, part));
    }
    known_ids_.push_back(id);
  }
  ECFS_TRY(enter(root, nullptr, root_id));
  while (!walk_.done()) {
    Result<std::optional<std::string>> name = walk_.next();
    if (!name) {
      if (is_ours(name.error())) return std::move(name).error();
      tell_unread(name.error(), nullptr, "the directory");
      continue;
    }
    if (!*name) {
      walk_.leave();
      dirs_.pop_back();
      continue;
    }
    ECFS_TRY(look(**std::move(name)));
  }
  return totals_;
}

// --- Entries -------------------------------------------------------------------------------------------------------

Status Checker::look(std::string name) {
  ECFS_TRY(watcher_.advanced(0, 1));
  Entry entry;
  entry.lower = std::move(name);
  Result<Fd> fd = open_at(walk_.fd(), entry.lower.c_str(), O_PATH);
  if (!fd) {
    if (is_missing(fd.error())) return {};
    if (is_ours(fd.error())) return std::move(fd).error();
    tell_unread(fd.error(), &entry, "it");
    return {};
  }
  entry.path_fd = *std::move(fd);
  ECFS_LET(entry.st, stat_at(entry.path_fd.get(), ""));
  switch (format_.kind_of(entry.lower)) {
    case LowerNameKind::kOurs: return ours(entry);
    case LowerNameKind::kForeign: return foreign(entry);
    case LowerNameKind::kName: return this->name(entry);
    case LowerNameKind::kLongName: return long_name(entry);
  }
  return {};
}

Status Checker::ours(Entry& entry) {
  const std::string& lower = entry.lower;
  const auto remove = [&] {
    return changing_dir(walk_.fd(), [&]() -> Status {
      if (unlinkat(walk_.fd(), lower.c_str(), 0) != 0) return system_error(errno, "remove it");
      return {};
    });
  };
  if (lower == format_.dir_id_file()) return {};
  if (dirs_.size() == 1 && lower.starts_with(wrap::kVolumeFileName)) return {};  // VolumeStore's
  const bool regular = S_ISREG(entry.st.st.st_mode);
  if (lower.starts_with(kKeptPrefix)) {
    if (options_.repair) return {};  // it may be of this very repair
    tell(Trouble::kKept, Severity::kNote, &entry,
         "what an earlier --repair put another file in the place of; remove it once nothing is missed");
    return {};
  }
  if (lower.starts_with(kTempPrefix) && regular && entry.st.st.st_size <= static_cast<off_t>(kMaxTemporary)) {
    if (age_s(entry.st) < options_.temporary_age_s) return {};
    const bool removed = options_.repair && remove();
    tell(Trouble::kTemporary, Severity::kLeftover, &entry,
         std::string("a temporary file, left by an interruption") + (removed ? "; removed" : ""), removed);
    return {};
  }
  if (!lower.starts_with('.') && lower.ends_with(kSideSuffix)) {
    const std::string of = lower.substr(0, lower.size() - kSideSuffix.size());
    if (stat_at(walk_.fd(), of.c_str())) return {};  // looked at with its entry
    ECFS_LET(const LowerStat dir, stat_at(walk_.fd(), ""));
    if (!is_quiet(dir) || !stat_at(walk_.fd(), lower.c_str())) return {};
    ECFS_LET(const bool of_conflict, names_a_conflict(of));
    if (of_conflict) return {};
    // Where the directory is synchronised, the side file comes before its entry: a young one is waited for.
    const bool old = age_s(entry.st) >= options_.orphan_age_s && regular;
    const bool removed = old && options_.repair && remove();
    tell(Trouble::kSideOrphan, old ? Severity::kLeftover : Severity::kNote, &entry,
         std::string("the side file of a long name whose entry is not there") + (removed ? "; removed" : ""), removed);
    return {};
  }
  tell(Trouble::kUnknownOurs, Severity::kNote, &entry, "a name that only ecfs uses, but not this version of it");
  return {};
}

// names_a_conflict says whether a conflicting copy in the directory has its name from the side file of `long_name`; of
// more copies than are remembered, each may.
Result<bool> Checker::names_a_conflict(const std::string& long_name) {
  Dir& dir = dirs_.back();
  if (!dir.long_conflicts) {
    dir.long_conflicts.emplace();
    ECFS_LET(DirReader reader, DirReader::open(walk_.fd()));
    while (dir.long_conflicts->size() < kMaxLongConflicts) {
      ECFS_LET(const std::optional<RawEntry> raw, reader.peek());
      if (!raw) break;
      const std::string_view base = format_.conflict_base(raw->name);
      if (!base.empty() && format_.kind_of(base) == LowerNameKind::kLongName &&
          format_.kind_of(raw->name) == LowerNameKind::kForeign) {
        dir.long_conflicts->emplace(base);
      }
      reader.pop();
    }
  }
  return dir.long_conflicts->size() >= kMaxLongConflicts || dir.long_conflicts->count(long_name) != 0;
}

Status Checker::foreign(Entry& entry) {
  Result<Format::ConflictName> conflict = Error{};
  if (dirs_.back().id) conflict = conflict_of(format_, walk_.fd(), *dirs_.back().id, entry.lower);
  if (!conflict) {
    tell(Trouble::kForeign, Severity::kNote, &entry, "not a name of this volume; a mount does not show it");
    return {};
  }
  entry.plain = std::move(conflict->shown);
  entry.id_from = std::move(conflict->plain);
  tell(Trouble::kConflict, Severity::kNote, &entry,
       "a conflicting copy, as synchronising programs make them; shown with the mount option show-conflicts");
  return by_type(entry);
}

Status Checker::name(Entry& entry) {
  const Dir& dir = dirs_.back();
  if (dir.id) {
    Result<std::string> plain = format_.decode_name(*dir.id, entry.lower);
    if (plain) {
      entry.plain = *plain;
      entry.id_from = *std::move(plain);
      return by_type(entry);
    }
    if (is_ours(plain.error())) return std::move(plain).error();
    if (format_.dir_id_file().empty()) {
      tell_odd_name(plain.error(), entry);
      return by_type(entry);
    }
    const bool under_derived = dir.derived && *dir.derived != *dir.id && format_.decode_name(*dir.derived, entry.lower);
    tell(Trouble::kName, Severity::kDamage, &entry,
         under_derived
             ? "its name does not decode: it is encrypted for the directory as it was before a rename (as when a "
               "synchronising program merges two directories)"
             : "its name does not decode: it is damaged, or was moved here by hand");
  }
  return by_type(entry);
}

// Of a format whose names tell which key they are encrypted with.
void Checker::tell_odd_name(const Error& error, const Entry& entry) {
  if (error.code == Code::kNoKey || error.code == Code::kUnsupported) {
    tell(Trouble::kKey, Severity::kUnchecked, &entry, "its name cannot be decrypted here: " + error.what);
    return;
  }
  tell(Trouble::kName, Severity::kDamage, &entry,
       "its name does not decode, and a mount does not show it: " + error.what);
}

Status Checker::long_name(Entry& entry) {
  Dir& dir = dirs_.back();
  if (!dir.id) return by_type(entry);
  const std::string side = side_name(entry.lower);
  std::optional<Error> why;
  ECFS_LET(const Settled settled, settle(walk_.fd(), !dir.restless, [&]() -> Result<bool> {
             why.reset();
             Result<std::string> plain = decode_entry(format_, walk_.fd(), *dir.id, entry.lower);
             if (plain) {
               entry.plain = *plain;
               entry.id_from = *std::move(plain);
               return false;
             }
             if (is_ours(plain.error())) return plain.error();
             why = plain.error();
             // An entry that is gone by now needs no side file.
             return stat_at(walk_.fd(), entry.lower.c_str()).has_value();
           }));
  if (settled == Settled::kFine) return entry.plain ? by_type(entry) : Status();
  if (settled == Settled::kRestless) {
    dir.restless = true;
    tell(Trouble::kChanging, Severity::kUnchecked, &entry, "the directory changes all the time");
    return by_type(entry);
  }
  const bool missing = errno_of(*why) == ENOENT;
  if (!missing && why->code != Code::kCorrupt) {
    tell_unread(*why, &entry, "the side file of its long name (" + side + ")");
    return by_type(entry);
  }
  std::string what = missing ? "the side file of its long name (" + side + ") is missing: listings do not show it"
                             : "the side file of its long name (" + side + ") is not its own: listings do not show it";
  bool repaired = false;
  ECFS_LET(const std::optional<SideSource> source, derive_side_file(entry.lower));
  if (source) {
    if (Result<std::string> plain = format_.decode_long_name(*dir.id, entry.lower, source->bytes)) {
      entry.plain = *plain;
      entry.id_from = *std::move(plain);
    }
    if (options_.repair) {
      std::string kept;
      const Status done = changing_dir(walk_.fd(), [&] { return mend_side_file(side, *source, kept); });
      repaired = done.has_value();
      what += repaired ? "; put right" : "; it could not be put right: " + done.error().what;
      if (!kept.empty()) what += " (what was there is kept beside it as " + kept + ")";
    } else {
      what += "; what it has to hold was found, and --repair puts it right";
    }
  } else {
    what += "; opening the entry by its name, or --known-name, brings it back";
  }
  tell(Trouble::kSideFile, Severity::kDamage, &entry, what, repaired);
  return by_type(entry);
}

// derive_side_file finds what the side file of `lower` has to hold: in another side file of the directory (they were
// exchanged, or a synchronising program kept a copy), or from a name that somebody knows. Only the right one fits.
Result<std::optional<Checker::SideSource>> Checker::derive_side_file(const std::string& lower) const {
  const DirId& id = *dirs_.back().id;
  ECFS_LET(DirReader reader, DirReader::open(walk_.fd()));
  for (std::size_t tried = 0; tried < kMaxSideFilesTried;) {
    Result<std::optional<RawEntry>> raw = reader.peek();
    if (!raw || !*raw) break;
    std::string other((*raw)->name);
    reader.pop();
    const bool may_be = other.front() == lower.front() || other.starts_with(kKeptPrefix);
    if (!may_be || other.find(kSideSuffix) == std::string::npos) continue;
    ++tried;
    Result<Bytes> side = read_small_at(walk_.fd(), other.c_str(), kMaxSideFile);
    if (side && format_.decode_long_name(id, lower, *side)) {
      return std::optional<SideSource>({*std::move(side), std::move(other)});
    }
  }
  for (const std::string& path : options_.known_names) {
    Result<LowerName> name = format_.encode_name(id, std::string_view(path).substr(path.rfind('/') + 1));
    if (name && name->side && name->entry == lower) return std::optional<SideSource>({*std::move(name->side), ""});
  }
  return std::optional<SideSource>();
}

// mend_side_file puts the right contents under the name `side`. What is there now may be another entry's only side
// file: it changes places with the right one, or is kept under a name beside it, which `kept` gets.
Status Checker::mend_side_file(const std::string& side, const SideSource& source, std::string& kept) const {
  const int dir = walk_.fd();
  if (stat_at(dir, side.c_str())) {
    if (!source.from.empty() && renameat2(dir, source.from.c_str(), dir, side.c_str(), RENAME_EXCHANGE) == 0) {
      kept = source.from;
      return {};
    }
    ECFS_LET(kept, keep(dir, side));
  }
  return write_new_at(dir, side, source.bytes);
}

Status Checker::by_type(Entry& entry) {
  const mode_t mode = entry.st.st.st_mode;
  if (S_ISDIR(mode)) {
    std::optional<DirId> derived;
    if (dirs_.back().id && entry.id_from) {
      ECFS_LET(derived, format_.child_id(*dirs_.back().id, *entry.id_from));
    }
    const Fd path_fd = std::move(entry.path_fd);
    return enter(path_fd, &entry, derived);
  }
  if (entry.st.st.st_nlink > 1) {
    if (linked_.count(entry.st.key()) != 0) {
      ++totals_.num_more_names;
      return {};
    }
    if (linked_.size() < kMaxLinkedInodes) linked_.insert(entry.st.key());
  }
  if (S_ISLNK(mode)) return link(entry);
  if (S_ISREG(mode)) return file(entry);
  ++totals_.num_special;
  return {};
}

Status Checker::link(const Entry& entry) {
  ++totals_.num_links;
  std::array<char, PATH_MAX> lower{};
  const ssize_t n = readlinkat(entry.path_fd.get(), "", lower.data(), lower.size());
  if (n < 0) {
    tell_unread(system_error(errno, "read link"), &entry, "the link's target");
    return {};
  }
  const Result<std::string> target = format_.decode_link({lower.data(), static_cast<std::size_t>(n)});
  if (!target) {
    if (is_ours(target.error())) return target.error();
    if (target.error().code == Code::kNoKey || target.error().code == Code::kUnsupported) {
      tell(Trouble::kKey, Severity::kUnchecked, &entry, "its target cannot be decrypted here: " + target.error().what);
      return {};
    }
    tell(Trouble::kLink, Severity::kDamage, &entry, "the link's target does not decode");
    return {};
  }
  if (!entry.plain && options_.salvage != nullptr) {
    ECFS_TRY(options_.salvage->link(salvage_path(entry), *target));
    ++totals_.num_salvaged;
  }
  return {};
}

// --- Contents ------------------------------------------------------------------------------------------------------

Status Checker::file(Entry& entry) {
  ++totals_.num_files;
  Result<Fd> fd = open_readable(entry.path_fd.get(), 0);
  if (!fd) {
    if (is_ours(fd.error())) return std::move(fd).error();
    if (!is_missing(fd.error())) tell_unread(fd.error(), &entry, "its contents");
    return {};
  }
  const int raw_fd = fd->get();
  LowerFile lower(*std::move(fd), false);
  Settled settled = Settled::kFine;
  ContentsCheck check;
  {
    Patience patience(options_, watcher_);
    Ranges only;
    for (bool first = true;; first = false) {
      ECFS_LET(const LowerStat before, stat_at(raw_fd, ""));
      CheckHow how;
      how.quick = options_.quick;
      // What verified once was right then: only the rest is read again.
      if (!first && !check.refused && check.holes.empty() && only.complete()) how.only = &only;
      how.advance = [&](std::uint64_t bytes) { return watcher_.advanced(first ? bytes : 0, 0); };
      ECFS_LET(check, format_.check_contents(lower, how));
      ECFS_LET(const LowerStat after, stat_at(raw_fd, ""));
      if (after.st.st_nlink == 0) return {};
      // Nothing to tell, or by now it is right: the first look told of everything else.
      const bool wrong = check.damaged() || check.locked();
      const bool more = check.leftovers() || check.cut_creation || check.extra_bytes != 0;
      if (!wrong && (how.only != nullptr || !more)) break;
      if (patience.counts(before, after)) {
        settled = Settled::kStands;
        break;
      }
      if (!wrong) break;  // what an interruption leaves looks like what is being done
      if (patience.over()) {
        settled = Settled::kRestless;
        break;
      }
      only = check.bad;
      ECFS_TRY(patience.wait());
    }
  }
  totals_.plain_bytes += check.facts.plain_size;
  totals_.lower_bytes += check.facts.lower_size;
  if (check.facts.holes) ++totals_.num_sparse;
  if (settled == Settled::kRestless) {
    tell(Trouble::kChanging, Severity::kUnchecked, &entry, "it is being written all the time");
  } else if (settled == Settled::kStands) {
    ECFS_TRY(tell_contents(entry, raw_fd, check));
  }
  ECFS_TRY(xattrs(&entry, raw_fd));
  const bool lost = settled == Settled::kStands && check.damaged();
  if ((lost || !entry.plain) && options_.salvage != nullptr) {
    ECFS_LET(const bool some, options_.salvage->file(salvage_path(entry), lower, entry.st.st, format_,
                                                     [&] { return watcher_.advanced(0, 0); }));
    if (some) ++totals_.num_salvaged;
  }
  return {};
}

const char* why_bad(const ContentsCheck& check) noexcept {
  if (check.facts.shape != FileShape::kExtents) {
    return check.disk_error ? "cannot be read from the disk, or do not verify" : "do not verify";
  }
  return check.disk_error ? "cannot be read from the disk, or are not there"
                          : "are not there: its lower file is too short for the size in its header";
}

Status Checker::tell_contents(const Entry& entry, int fd, ContentsCheck& check) {
  if (check.locked()) {
    tell(Trouble::kKey, Severity::kUnchecked, &entry, "it cannot be decrypted here: " + check.refused->what);
  } else if (check.refused) {
    totals_.lost_bytes += check.facts.plain_size;
    tell(check.disk_error ? Trouble::kDisk : Trouble::kFile, Severity::kDamage, &entry,
         (check.disk_error ? "its first page cannot be read: " : "it cannot be opened: ") + check.refused->what);
    return {};
  }
  if (!check.bad.empty()) {
    totals_.lost_bytes += check.bad.num_bytes();
    Finding finding;
    finding.trouble = Trouble::kBlocks;
    finding.severity = Severity::kDamage;
    finding.what = std::to_string(check.bad.num_bytes()) + " of " + std::to_string(check.facts.plain_size) + " bytes " +
                   why_bad(check);
    finding.bad = &check.bad;
    tell(std::move(finding), &entry);
  }
  if (!check.holes.empty()) {
    totals_.lost_bytes += check.holes.num_bytes();
    Finding finding;
    finding.trouble = Trouble::kHoles;
    finding.severity = Severity::kDamage;
    finding.what = std::to_string(check.holes.num_bytes()) + " of " + std::to_string(check.facts.plain_size) +
                   " bytes are holes in its lower file, as a crash or a sparse copy makes them; they read as zeros";
    finding.bad = &check.holes;
    tell(std::move(finding), &entry);
  }
  if (check.extra_bytes != 0) {
    tell(Trouble::kExtra, Severity::kNote, &entry,
         plural(check.extra_bytes, "byte", "bytes") + " behind its end, which its header gives as " +
             std::to_string(check.facts.plain_size) + ": of a write that did not arrive, or the size was lost");
  }
  if (check.cut_creation) {
    tell(Trouble::kEmptyRemains, Severity::kNote, &entry,
         check.facts.lower_size == 0 ? "its lower file has no bytes: empty, or what it held was lost in a crash"
                                     : "the beginning of a file that was never written: empty");
  }
  // A mount that has the file open leaves marks in it for as long; a checker that may repair knows that there is none.
  if (check.num_marked != 0 && watcher_.served()) check.num_marked = 0;
  if (!check.leftovers()) return {};
  std::string what;
  const auto also = [&what](const std::string& text) { what += (what.empty() ? "" : ", ") + text; };
  if (check.leftover_bytes != 0) also(plural(check.leftover_bytes, "byte", "bytes") + " behind its end");
  if (check.num_previous != 0) {
    also(plural(check.num_previous, "block", "blocks") + " as before a write that did not arrive");
  }
  if (check.num_marked != 0) also(plural(check.num_marked, "block", "blocks") + " marked as being written");
  if (check.num_bad_heads != 0) {
    also(plural(check.num_bad_heads, "group of blocks that does", "groups of blocks that do") + " not name the file");
  }
  bool repaired = false;
  if (options_.repair) {
    // The name may lead elsewhere by now; the descriptor does not.
    Fd writable(::open(ProcPath(fd).c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    Status done = writable ? Status() : Status(system_error(errno, "open it for writing"));
    if (done) {
      const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, entry.st.st.st_mtim};
      LowerFile lower(std::move(writable), true);
      CheckHow how;
      how.repair = true;
      how.advance = [&](std::uint64_t) { return watcher_.advanced(0, 0); };
      Result<ContentsCheck> again = format_.check_contents(lower, how);
      if (!again) done = again.error();
      repaired = again && again->repaired;
      (void)futimens(lower.fd(), times.data());
      if (!again && is_ours(again.error())) return again.error();
    }
    what += repaired ? "; put right" : done ? "" : "; could not be put right: " + done.error().what;
  }
  tell(Trouble::kInterrupted, Severity::kLeftover, &entry, "an interrupted write left " + what, repaired);
  return {};
}

Status Checker::xattrs(const Entry* entry, int fd) {
  if (options_.quick) return {};
  if (xattr_list_.empty()) {
    xattr_list_.resize(kMaxXattrBytes);
    xattr_value_.resize(kMaxXattrBytes);
  }
  std::string what;
  std::optional<Error> unread;
  ECFS_LET(const Settled settled, settle(fd, true, [&]() -> Result<bool> {
             what.clear();
             unread.reset();
             const ssize_t n = flistxattr(fd, reinterpret_cast<char*>(xattr_list_.data()),  // NOLINT: the call's type
                                          xattr_list_.size());
             if (n < 0 && errno != EOPNOTSUPP) unread = system_error(errno, "list the attributes");
             if (n <= 0) return unread.has_value();
             std::string_view rest = as_text(ByteView(xattr_list_).first(static_cast<std::size_t>(n)));
             while (!rest.empty()) {
               const std::string lower(rest.substr(0, rest.find('\0')));
               rest.remove_prefix(std::min(rest.size(), lower.size() + 1));
               if (!lower.starts_with(kXattrPrefix)) continue;
               const std::optional<std::string> name = format_.decode_xattr_name(lower);
               if (!name) {
                 what = "the name of an attribute (" + lower + ") does not decode";
                 return true;
               }
               const ssize_t len = fgetxattr(fd, lower.c_str(), xattr_value_.data(), xattr_value_.size());
               if (len < 0 && errno == ENODATA) continue;
               if (len < 0) {
                 unread = system_error(errno, "read an attribute");
                 return true;
               }
               const Result<Bytes> value =
                   format_.decode_xattr_value(*name, ByteView(xattr_value_).first(static_cast<std::size_t>(len)));
               if (!value && is_ours(value.error())) return value.error();
               if (!value) {
                 what = "the value of an attribute (" + lower + ") does not decode";
                 return true;
               }
             }
             return false;
           }));
  if (settled != Settled::kStands) return {};
  if (unread) {
    tell_unread(*unread, entry, "an attribute");
  } else {
    tell(Trouble::kXattr, Severity::kDamage, entry, what);
  }
  return {};
}

}  // namespace

std::string_view name_of(Trouble trouble) noexcept {
  switch (trouble) {
    case Trouble::kFile: return "file";
    case Trouble::kBlocks: return "blocks";
    case Trouble::kName: return "name";
    case Trouble::kSideFile: return "side-file";
    case Trouble::kDirId: return "directory-id";
    case Trouble::kLink: return "link";
    case Trouble::kXattr: return "attribute";
    case Trouble::kDisk: return "disk";
    case Trouble::kInterrupted: return "interrupted";
    case Trouble::kTemporary: return "temporary";
    case Trouble::kSideOrphan: return "side-orphan";
    case Trouble::kForeign: return "foreign";
    case Trouble::kConflict: return "conflict";
    case Trouble::kUnknownOurs: return "unknown";
    case Trouble::kEmptyRemains: return "empty-remains";
    case Trouble::kDenied: return "denied";
    case Trouble::kChanging: return "changing";
    case Trouble::kLoop: return "loop";
    case Trouble::kKept: return "kept";
    case Trouble::kKey: return "key";
    case Trouble::kHoles: return "holes";
    case Trouble::kExtra: return "extra";
  }
  return "";
}

std::string_view name_of(Severity severity) noexcept {
  switch (severity) {
    case Severity::kNote: return "note";
    case Severity::kLeftover: return "leftover";
    case Severity::kUnchecked: return "unchecked";
    case Severity::kDamage: return "damage";
  }
  return "";
}

Result<CheckTotals> check_tree(const Fd& root, const Format& format, const CheckOptions& options,
                               CheckWatcher& watcher) {
  return Checker(format, options, watcher).run(root);
}

Result<Ranges> zero_bad(const Format& format, LowerFile& lower) {
  constexpr std::uint64_t kPieceBytes = 1U << 20;
  const Bytes zeros(kPieceBytes);
  ECFS_LET(const ContentsCheck check, format.check_contents(lower, {}));
  if (check.refused) return *check.refused;
  if (check.bad.empty()) return check.bad;
  if (!check.bad.complete()) return Error{Code::kUnsupported, 0, "it has too many bad blocks: salvage it instead"};
  ECFS_LET(const auto contents, format.open_contents(lower));
  for (const Ranges::Range& range : check.bad.list()) {
    for (std::uint64_t at = range.begin; at < range.end;) {
      ECFS_LET(const std::size_t done,
               contents->write(at, ByteView(zeros).first(std::min(range.end - at, kPieceBytes))));
      at += done;
    }
  }
  ECFS_TRY(contents->sync(false));
  ECFS_TRY(contents->finish());
  return check.bad;
}

Result<TreeSize> count_tree(const Fd& root) {
  TreeSize size;
  TreeWalk walk;
  ECFS_LET(Fd readable, open_readable(root.get(), O_DIRECTORY));
  ECFS_TRY(walk.enter(std::move(readable), ""));
  while (!walk.done()) {
    // What cannot be read is told by the check itself.
    const Result<std::optional<std::string>> name = walk.next();
    if (!name) continue;
    if (!*name) {
      walk.leave();
      continue;
    }
    ++size.num_entries;
    const Result<LowerStat> st = stat_at(walk.fd(), (*name)->c_str());
    if (st && S_ISREG(st->st.st_mode)) size.lower_bytes += static_cast<std::uint64_t>(st->st.st_size);
    if (!st || !S_ISDIR(st->st.st_mode)) continue;
    if (Result<Fd> dir = open_at(walk.fd(), (*name)->c_str(), O_RDONLY | O_DIRECTORY)) {
      (void)walk.enter(*std::move(dir), **name);
    }
  }
  return size;
}

}  // namespace ecfs::fs
