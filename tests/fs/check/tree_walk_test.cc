// Walking through trees that were made to hurt: deep ones, wide ones, ones that change under the walk.
#include "fs/lower/tree_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <map>
#include <set>

namespace ecfs::fs {
namespace {

class Walk : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "ecfs-walk-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    base_ = path;
    root_ = open_dir(AT_FDCWD, base_);
  }
  // Deeper than paths can be long: rm goes by descriptors.
  void TearDown() override { EXPECT_EQ(std::system(("rm -rf '" + base_ + "'").c_str()), 0); }

  static Fd open_dir(int at, const std::string& name) {
    Fd fd(openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    EXPECT_TRUE(fd) << name << ": " << errno;
    return fd;
  }
  Fd make(const Fd& at, const std::string& name) {
    EXPECT_EQ(mkdirat(at.get(), name.c_str(), 0755), 0);
    return open_dir(at.get(), name);
  }
  void touch(const Fd& at, const std::string& name) {
    const Fd fd(openat(at.get(), name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    EXPECT_TRUE(fd);
  }

  struct Seen {
    std::multiset<std::string> names;
    std::size_t deepest = 0;
    std::vector<int> errors;
  };
  Seen walk(const std::function<void(const TreeWalk&, const std::string&)>& at_each = {}) {
    Seen seen;
    TreeWalk walk;
    EXPECT_TRUE(walk.enter(open_dir(root_.get(), "."), ""));
    while (!walk.done()) {
      const Result<std::optional<std::string>> name = walk.next();
      if (!name) {
        seen.errors.push_back(errno_of(name.error()));
        continue;
      }
      if (!*name) {
        walk.leave();
        continue;
      }
      seen.names.insert(**name);
      if (at_each) at_each(walk, **name);
      Result<Fd> dir = open_at(walk.fd(), (*name)->c_str(), O_RDONLY | O_DIRECTORY);
      if (!dir) continue;
      if (Status entered = walk.enter(*std::move(dir), **name); !entered)
        seen.errors.push_back(errno_of(entered.error()));
      seen.deepest = std::max(seen.deepest, walk.depth());
    }
    return seen;
  }

  std::string base_;
  Fd root_;
};

std::size_t open_files() {
  std::size_t num = 0;
  DIR* dir = opendir("/proc/self/fd");
  while (readdir(dir) != nullptr) ++num;
  closedir(dir);
  return num;
}

TEST_F(Walk, FindsEveryEntryOnce) {
  std::multiset<std::string> want;
  for (int d = 0; d < 5; ++d) {
    const std::string name = "d" + std::to_string(d);
    const Fd dir = make(root_, name);
    want.insert(name);
    for (int f = 0; f < 800; ++f) {  // more than one buffer of getdents
      want.insert(name + "-" + std::to_string(f));
      touch(dir, name + "-" + std::to_string(f));
    }
  }
  touch(root_, "behind");
  want.insert("behind");
  EXPECT_EQ(walk().names, want);
}

TEST_F(Walk, ADeepTreeTakesFewDescriptors) {
  constexpr int kDeep = 1000;
  std::multiset<std::string> want;
  Fd at = open_dir(root_.get(), ".");
  for (int i = 0; i < kDeep; ++i) {
    // Entries before and behind the one that leads down: the listing has to go on where it was.
    for (const char* prefix : {"a", "z"}) {
      const std::string name = prefix + std::to_string(i);
      touch(at, name);
      want.insert(name);
    }
    const std::string down = "down-" + std::to_string(i);
    want.insert(down);
    at = make(at, down);
  }
  at.reset();
  std::size_t most = 0;
  const std::size_t before = open_files();
  const Seen seen = walk([&](const TreeWalk& walk, const std::string&) {
    if (walk.depth() % 64 == 0) most = std::max(most, open_files());
  });
  EXPECT_EQ(seen.names, want);
  EXPECT_EQ(seen.deepest, std::size_t{kDeep} + 1);
  EXPECT_TRUE(seen.errors.empty());
  EXPECT_LE(most, before + TreeWalk::kOpenLevels + 4);
}

TEST_F(Walk, ADirectoryMovedAwayEndsItsListingAlone) {
  // 50 levels, so that the upper ones are closed; one of them is moved out of the tree, another within it.
  Fd at = open_dir(root_.get(), ".");
  std::vector<Fd> levels;
  for (int i = 0; i < 50; ++i) {
    touch(at, "file-" + std::to_string(i));
    Fd next = make(at, "down-" + std::to_string(i));
    levels.push_back(std::move(at));
    at = std::move(next);
  }
  const std::string outside = base_ + "-outside";
  const Seen seen = walk([&](const TreeWalk& walk, const std::string&) {
    if (walk.depth() != 50) return;
    // The parent of level 5 becomes another: level 4, where `..` of 5 no longer leads, is found by its name.
    (void)renameat(levels[4].get(), "down-4", AT_FDCWD, outside.c_str());
    (void)renameat(levels[1].get(), "down-1", levels[0].get(), "elsewhere");
  });
  EXPECT_GE(seen.names.count("file-40"), 1U);
  EXPECT_GE(seen.names.count("down-49"), 1U);
  for (const int err : seen.errors) EXPECT_EQ(err, ESTALE);
  EXPECT_LE(seen.errors.size(), 4U);
  EXPECT_EQ(std::system(("rm -rf '" + outside + "'").c_str()), 0);
}

TEST_F(Walk, ALinkToADirectoryIsNotEntered) {
  const Fd dir = make(root_, "dir");
  touch(dir, "inside");
  ASSERT_EQ(symlinkat(".", dir.get(), "loop"), 0);
  ASSERT_EQ(symlinkat("/", dir.get(), "out"), 0);
  EXPECT_EQ(walk().names, (std::multiset<std::string>{"dir", "inside", "loop", "out"}));
}

TEST_F(Walk, ADirectoryInsideItselfIsRefused) {
  TreeWalk walk;
  ASSERT_TRUE(walk.enter(open_dir(root_.get(), "."), ""));
  const Fd dir = make(root_, "dir");
  ASSERT_TRUE(walk.enter(open_dir(dir.get(), "."), "dir"));
  const Status again = walk.enter(open_dir(root_.get(), "."), "itself");
  ASSERT_FALSE(again);
  EXPECT_EQ(errno_of(again.error()), ELOOP);
  EXPECT_EQ(walk.depth(), 2U);
}

}  // namespace
}  // namespace ecfs::fs
