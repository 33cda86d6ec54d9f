#include "fs/lower/tree_walk.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace ecfs::fs {

bool TreeWalk::holds(const InodeKey& directory) const noexcept {
  return std::any_of(levels_.begin(), levels_.end(), [&](const Level& l) { return l.key == directory; });
}

Status TreeWalk::enter(Fd dir, std::string lower_name) {
  ECFS_LET(const LowerStat st, stat_at(dir.get(), ""));
  const InodeKey key = st.key();
  if (holds(key)) {
    return Error{Code::kInvalid, ELOOP, "the directory holds itself"};
  }
  if (levels_.size() >= kMaxDepth) return Error{Code::kInvalid, ENAMETOOLONG, "the tree is too deep"};
  if (levels_.size() > kOpenLevels) {  // never the root
    Level& far = levels_[levels_.size() - kOpenLevels];
    if (far.reader) far.position = far.reader->position();
    far.reader.reset();
  }
  Level level;
  level.reader.emplace(std::move(dir));
  level.key = key;
  level.name = std::move(lower_name);
  levels_.push_back(std::move(level));
  return {};
}

Result<std::optional<std::string>> TreeWalk::next() {
  Level& level = levels_.back();
  const std::optional<std::string> end;
  if (level.failed) {
    level.ended = true;
    Error why = *std::move(level.failed);
    level.failed.reset();
    return why;
  }
  while (!level.ended) {
    Result<std::optional<RawEntry>> raw = level.reader->peek();
    if (!raw) {
      level.ended = true;
      return std::move(raw).error();
    }
    if (!*raw) {
      level.ended = true;
      break;
    }
    std::string name((*raw)->name);
    level.reader->pop();
    if (name != "." && name != "..") return std::optional<std::string>(std::move(name));
  }
  return end;
}

Status TreeWalk::rewind() {
  Level& level = levels_.back();
  level.ended = false;
  return level.reader->seek(0);
}

void TreeWalk::leave() {
  const Level below = std::move(levels_.back());
  levels_.pop_back();
  if (levels_.empty() || levels_.back().reader) return;
  Level& level = levels_.back();
  if (level.failed) return;
  Fd fd;
  if (below.reader) {
    // One step, where names from the root would be as many as the tree is deep. What it leads to is checked.
    fd.reset(::openat(below.reader->fd(), "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    const Result<LowerStat> st = fd ? stat_at(fd.get(), "") : Result<LowerStat>(Error{});
    if (!st || !(st->key() == level.key)) fd.reset();
  }
  if (!fd) {
    if (Result<Fd> found = find_by_name()) fd = *std::move(found);
  }
  if (fd) {
    DirReader reader(std::move(fd));
    if (Status sought = reader.seek(level.position); !sought) {
      level.failed = sought.error();
      return;
    }
    level.reader.emplace(std::move(reader));
    return;
  }
  level.failed = Error{Code::kNotFound, ESTALE, "the directory was moved or removed while it was looked at"};
}

// find_by_name goes down from the root to the present directory.
Result<Fd> TreeWalk::find_by_name() const {
  Fd at;
  for (std::size_t i = 1; i < levels_.size(); ++i) {
    const int above = i == 1 ? levels_.front().reader->fd() : at.get();
    ECFS_LET(Fd next, open_at(above, levels_[i].name.c_str(), O_RDONLY | O_DIRECTORY));
    ECFS_LET(const LowerStat st, stat_at(next.get(), ""));
    if (!(st.key() == levels_[i].key)) return Error{Code::kNotFound, ESTALE, "another directory is there now"};
    at = std::move(next);
  }
  return at;
}

}  // namespace ecfs::fs
