#include "setup/move.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

// Two directories on an ordinary filesystem; what the moved files look like inside a volume is tested by
// tests/cli/t_move.sh.
class Move : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(path_.data()), nullptr);
    for (const char* name : {"from", "to"}) ASSERT_EQ(mkdir((path_ + "/" + name).c_str(), 0700), 0);
    auto a = open_directory(AT_FDCWD, path_ + "/from");
    auto b = open_directory(AT_FDCWD, path_ + "/to");
    ASSERT_TRUE(a && b);
    from_ = *std::move(a);
    to_ = *std::move(b);
    put(from_, "file", "contents");
    ASSERT_EQ(mkdirat(from_.get(), "sub", 0750), 0);
    put(from_, "sub/inner", std::string(3000000, 'x'));
    ASSERT_EQ(linkat(from_.get(), "file", from_.get(), "sub/link", 0), 0);
    ASSERT_EQ(symlinkat("/nowhere", from_.get(), "dangling"), 0);
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  static void put(const Fd& dir, const std::string& name, const std::string& text) {
    const Fd fd(openat(dir.get(), name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    ASSERT_TRUE(write_all(fd.get(), as_bytes(text)));
  }
  static bool exists(const Fd& dir, const std::string& name) {
    return faccessat(dir.get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  }
  static struct stat of(const Fd& dir, const std::string& name) {
    struct stat st {};
    EXPECT_EQ(fstatat(dir.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW), 0) << name;
    return st;
  }
  Status copy() {
    Progress progress("", 0);
    return copy_tree(from_.get(), to_.get(), progress);
  }
  Status compare() {
    Progress progress("", 0);
    return compare_trees(from_.get(), to_.get(), progress);
  }
  // Everything was changed before this moment.
  static timespec later() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    ++now.tv_sec;
    return now;
  }

  std::string path_ = "/tmp/ecfs-move-XXXXXX";
  Fd from_;
  Fd to_;
};

TEST_F(Move, ACopyComparesEqual) {
  ASSERT_TRUE(copy());
  EXPECT_TRUE(compare());
  EXPECT_EQ(of(to_, "file").st_ino, of(to_, "sub/link").st_ino);
  EXPECT_EQ(of(to_, "sub").st_mode, of(from_, "sub").st_mode);
}

TEST_F(Move, EveryKindOfDifferenceIsFoundAndNamed) {
  struct Case {
    const char* what;
    std::function<void()> change;
  };
  const auto at = [&](const char* name) { return path_ + "/to/" + name; };
  const auto keep_time = [&](const char* name, const std::function<void()>& change) {
    const struct stat st = of(to_, name);
    change();
    const std::array<timespec, 2> times = {st.st_atim, st.st_mtim};
    utimensat(to_.get(), name, times.data(), AT_SYMLINK_NOFOLLOW);
  };
  const std::vector<Case> cases = {
      {"contents", [&] { keep_time("file", [&] { put(to_, "file", "Contents"); }); }},
      {"size", [&] { keep_time("file", [&] { put(to_, "file", "contents, and more"); }); }},
      {"type or mode", [&] { chmod(at("file").c_str(), 0600); }},
      {"time of change", [&] { put(to_, "sub/inner", std::string(3000000, 'x')); }},
      {"names in it", [&] { put(to_, "added", ""); }},
      {"names in it", [&] { unlink(at("dangling").c_str()); }},
      {"attributes", [&] { setxattr(at("sub/inner").c_str(), "user.x", "y", 1, 0); }},
      {"hard link",
       [&] {
         keep_time("sub/link", [&] {
           unlink(at("sub/link").c_str());
           put(to_, "sub/link", "contents");
           chmod(at("sub/link").c_str(), of(from_, "file").st_mode & 07777);
         });
         const struct stat st = of(from_, "file");
         const std::array<timespec, 2> times = {st.st_atim, st.st_mtim};
         utimensat(to_.get(), "sub/link", times.data(), 0);
         const struct stat dir = of(from_, "sub");
         const std::array<timespec, 2> dir_times = {dir.st_atim, dir.st_mtim};
         utimensat(to_.get(), "sub", dir_times.data(), 0);
       }},
  };
  for (const Case& c : cases) {
    for (const auto& entry : std::filesystem::directory_iterator(path_ + "/to"))
      std::filesystem::remove_all(entry.path());
    ASSERT_TRUE(copy());
    ASSERT_TRUE(compare());
    c.change();
    const Status done = compare();
    ASSERT_FALSE(done) << c.what;
    EXPECT_EQ(done.error().code, Code::kCorrupt);
    EXPECT_NE(done.error().what.find(c.what), std::string::npos) << done.error().what;
  }
}

TEST_F(Move, HolesStayHolesAndReadAsZeros) {
  {
    const Fd fd(openat(from_.get(), "holes", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(pwrite(fd.get(), "a", 1, 100 << 20), 1);
    ASSERT_EQ(ftruncate(fd.get(), 200 << 20), 0);
  }
  ASSERT_TRUE(copy());
  EXPECT_TRUE(compare());
  EXPECT_EQ(of(to_, "holes").st_size, 200 << 20);
  EXPECT_LT(of(to_, "holes").st_blocks, 1000);
}

TEST_F(Move, RemovesWhatWasCopiedAndNothingElse) {
  ASSERT_TRUE(copy());
  put(from_, "came later", "text");
  const auto removal = remove_copied(from_.get(), to_.get(), later());
  ASSERT_TRUE(removal);
  EXPECT_EQ(removal->num_kept, 1U);
  EXPECT_TRUE(exists(from_, "came later"));
  for (const char* name : {"file", "sub", "dangling"}) EXPECT_FALSE(exists(from_, name)) << name;
  EXPECT_TRUE(exists(to_, "sub/inner"));
}

TEST_F(Move, WhatChangedSinceTheComparisonIsComparedAgainAndKept) {
  ASSERT_TRUE(copy());
  put(from_, "sub/inner", "changed meanwhile");
  const auto removal = remove_copied(from_.get(), to_.get(), {0, 0});
  ASSERT_TRUE(removal);
  ASSERT_EQ(removal->kept.size(), 1U);
  EXPECT_NE(removal->kept[0].find("sub/inner"), std::string::npos);
  EXPECT_TRUE(exists(from_, "sub/inner"));
  EXPECT_FALSE(exists(from_, "file"));
}

TEST_F(Move, AFileThatIsADirectoryInTheCopyIsKept) {
  ASSERT_TRUE(copy());
  ASSERT_EQ(unlinkat(to_.get(), "file", 0), 0);
  ASSERT_EQ(mkdirat(to_.get(), "file", 0700), 0);
  const auto removal = remove_copied(from_.get(), to_.get(), later());
  ASSERT_TRUE(removal);
  EXPECT_EQ(removal->num_kept, 1U);
  EXPECT_TRUE(exists(from_, "file"));
}

TEST_F(Move, SymbolicLinksAreNeverFollowed) {
  const std::string outside = path_ + "/outside";
  ASSERT_EQ(mkdir(outside.c_str(), 0700), 0);
  const Fd dir = *open_directory(AT_FDCWD, outside);
  put(dir, "precious", "text");
  ASSERT_EQ(symlinkat(outside.c_str(), from_.get(), "way out"), 0);
  ASSERT_TRUE(copy());
  ASSERT_TRUE(remove_copied(from_.get(), to_.get(), later()));
  EXPECT_FALSE(exists(from_, "way out"));
  EXPECT_TRUE(exists(dir, "precious"));
  EXPECT_TRUE(S_ISLNK(of(to_, "way out").st_mode));
}

TEST_F(Move, TheSurveyCountsAndNamesObstacles) {
  auto survey = survey_tree(from_.get(), geteuid());
  ASSERT_TRUE(survey);
  EXPECT_EQ(survey->num_entries, 5U);
  EXPECT_GE(survey->data_bytes, 3000000U);
  EXPECT_LT(survey->data_bytes, 3200000U);
  EXPECT_TRUE(survey->obstacles.empty());
  survey = survey_tree(from_.get(), geteuid() + 1);
  ASSERT_TRUE(survey);
  EXPECT_EQ(survey->obstacles.size(), 5U);
}

TEST_F(Move, WhatHasNotChangedGoesWithoutALookAtTheCopy) {
  // All links of a file, although the first that goes changes the status of the others.
  const auto removal = remove_untouched(from_.get(), later());
  ASSERT_TRUE(removal) << removal.error().what;
  EXPECT_EQ(removal->num_kept, 0U);
  EXPECT_TRUE(list_directory(from_.get())->empty());
}

TEST_F(Move, WhatHasChangedSinceStays) {
  usleep(50000);  // the clock of the filesystem may be coarse
  put(from_, "clock", "");
  const timespec compared_at = of(from_, "clock").st_ctim;
  ASSERT_EQ(unlinkat(from_.get(), "clock", 0), 0);
  usleep(50000);
  put(from_, "sub/inner", "changed");
  put(from_, "sub/new", "later");
  const auto removal = remove_untouched(from_.get(), compared_at);
  ASSERT_TRUE(removal) << removal.error().what;
  EXPECT_EQ(removal->num_kept, 2U);
  EXPECT_EQ(removal->kept, (std::vector<std::string>{"sub/inner: it has changed since it was copied",
                                                     "sub/new: it has changed since it was copied"}));
  EXPECT_FALSE(exists(from_, "file"));
  EXPECT_FALSE(exists(from_, "sub/link"));
  EXPECT_TRUE(exists(from_, "sub/inner"));
}

TEST_F(Move, NothingGoesWhereTheMomentIsNotKnown) {
  const auto removal = remove_untouched(from_.get(), {0, 0});
  ASSERT_TRUE(removal) << removal.error().what;
  EXPECT_EQ(removal->num_removed, 0U);
  EXPECT_TRUE(exists(from_, "file") && exists(from_, "sub/inner") && exists(from_, "dangling"));
}

}  // namespace
}  // namespace ecfs::setup
