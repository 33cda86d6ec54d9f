// TreeWalk goes through a lower tree that somebody else made, with few descriptors and no memory for what it has left:
// however deep it is, however many entries a directory has, and whatever is renamed meanwhile.
//
// It stands in one directory at a time and holds the way to it. Descriptors of the root and of the last kOpenLevels
// levels are open; others are closed with their position noted, and opened again on the way back, where they must be
// the directories they were. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/lower/lower_dir.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

class TreeWalk {
 public:
  static constexpr std::size_t kOpenLevels = 32;
  static constexpr std::size_t kMaxDepth = 1U << 16;  // as the mount

  // enter goes into the directory `dir` (readable), which stands under `lower_name` in the present one. A directory
  // that holds itself (a bind mount) is kInvalid with ELOOP; too deep: kInvalid with ENAMETOOLONG.
  Status enter(Fd dir, std::string lower_name);
  // next gives the next name in the present directory ("." and ".." left out), nullopt at its end. An error ends the
  // listing: the call after it gives nullopt.
  Result<std::optional<std::string>> next();
  // rewind begins the listing anew.
  Status rewind();
  // leave goes back to the directory above. If that cannot be found again (it was moved or removed), its listing is
  // over and next() says so once.
  void leave();

  // holds says whether the walk stands in this directory, or below it.
  [[nodiscard]] bool holds(const InodeKey& directory) const noexcept;
  [[nodiscard]] bool done() const noexcept { return levels_.empty(); }
  [[nodiscard]] std::size_t depth() const noexcept { return levels_.size(); }
  // fd is a descriptor of the present directory; -1 if it could not be found again.
  [[nodiscard]] int fd() const noexcept { return levels_.back().reader ? levels_.back().reader->fd() : -1; }

 private:
  struct Level {
    std::optional<DirReader> reader;
    InodeKey key;
    std::string name;
    off_t position = 0;
    bool ended = false;
    std::optional<Error> failed;
  };
  Result<Fd> find_by_name() const;

  std::vector<Level> levels_;
};

}  // namespace ecfs::fs
