#include "setup/migration.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

namespace stdfs = std::filesystem;

// What a power cut would take from the new tree: names whose directory and files whose contents were not synced since.
struct Disk {
  std::set<std::string> names;
  std::set<std::string> files;
  std::vector<std::string> too_early;  // left the old tree while the new one could still lose it

  void sync_directory(const std::string& path) {
    for (auto at = names.begin(); at != names.end();)
      at = stdfs::path(*at).parent_path() == path ? names.erase(at) : ++at;
  }
  void removed_from_old(const std::string& path) {
    bool safe = files.count(path) == 0;
    for (stdfs::path at = path; !at.empty(); at = at.parent_path()) safe = safe && names.count(at) == 0;
    if (!safe) too_early.push_back(path);
  }
};

// A tree that stops to be there: after `left` changes every call fails, as if the process had been killed.
struct Fuse {
  std::size_t left = SIZE_MAX;
  std::size_t changes = 0;
  bool burnt = false;
  std::function<void()> at_sync;  // of a directory
  Disk* disk = nullptr;
  Status change() {
    if (burnt || left == 0) {
      burnt = true;
      return Error{Code::kIo, EIO, "killed"};
    }
    --left;
    ++changes;
    return {};
  }
  Status look() const {
    if (burnt) return Error{Code::kIo, EIO, "killed"};
    return {};
  }
};

class FusedFile final : public OpenFile {
 public:
  FusedFile(std::unique_ptr<OpenFile> inner, Fuse& fuse, Disk* disk, std::string path)
      : inner_(std::move(inner)), fuse_(fuse), disk_(disk), path_(std::move(path)) {}
  Result<std::uint64_t> size() override {
    ECFS_TRY(fuse_.look());
    return inner_->size();
  }
  Result<std::size_t> read(std::uint64_t offset, MutableByteView out) override {
    ECFS_TRY(fuse_.look());
    return inner_->read(offset, out);
  }
  Status write(std::uint64_t offset, ByteView bytes) override {
    ECFS_TRY(change());
    return inner_->write(offset, bytes);
  }
  Status resize(std::uint64_t size) override {
    ECFS_TRY(change());
    return inner_->resize(size);
  }
  Result<std::uint64_t> next_data(std::uint64_t offset) override { return inner_->next_data(offset); }
  Result<std::uint64_t> next_hole(std::uint64_t offset) override { return inner_->next_hole(offset); }
  Status set_times(const struct stat& like) override {
    ECFS_TRY(change());
    return inner_->set_times(like);
  }
  Status sync() override {  // who is killed loses nothing of what was written
    ECFS_TRY(fuse_.change());
    if (disk_ != nullptr) disk_->files.erase(path_);
    return {};
  }
  Status forget_cached() override { return inner_->forget_cached(); }
  Status close() override { return inner_->close(); }

 private:
  Status change() {
    if (disk_ != nullptr) disk_->files.insert(path_);
    return fuse_.change();
  }
  std::unique_ptr<OpenFile> inner_;
  Fuse& fuse_;
  Disk* disk_;  // of the new tree
  std::string path_;
};

class FusedNode final : public Node {
 public:
  FusedNode(NodePtr inner, Fuse& fuse, bool is_new, std::string path = "")
      : inner_(std::move(inner)),
        fuse_(fuse),
        disk_(is_new ? fuse.disk : nullptr),
        is_new_(is_new),
        path_(std::move(path)) {}
  Result<struct stat> stat() override {
    ECFS_TRY(fuse_.look());
    return inner_->stat();
  }
  Result<std::string> target() override { return inner_->target(); }
  Result<Attributes> attributes() override { return inner_->attributes(); }
  Result<std::unique_ptr<OpenFile>> open(bool for_writing) override {
    ECFS_TRY(fuse_.look());
    ECFS_LET(auto file, inner_->open(for_writing));
    return std::unique_ptr<OpenFile>(std::make_unique<FusedFile>(std::move(file), fuse_, disk_, path_));
  }
  Result<std::vector<std::string>> names() override {
    ECFS_TRY(fuse_.look());
    return inner_->names();
  }
  Result<NodePtr> child(const std::string& name) override {
    ECFS_TRY(fuse_.look());
    return wrapped(inner_->child(name), name);
  }
  Status remove(const std::string& name, bool directory) override {
    ECFS_TRY(fuse_.change());
    if (!is_new_ && fuse_.disk != nullptr) fuse_.disk->removed_from_old(below(path_, name));
    return inner_->remove(name, directory);
  }
  Result<NodePtr> make(const std::string& name, const struct stat& like, const std::string& target) override {
    ECFS_TRY(fuse_.change());
    if (disk_ != nullptr) disk_->names.insert(below(path_, name));
    return wrapped(inner_->make(name, like, target), name);
  }
  Status link(Node& node, const std::string& name) override {
    ECFS_TRY(fuse_.change());
    if (disk_ != nullptr) disk_->names.insert(below(path_, name));
    return inner_->link(*dynamic_cast<FusedNode&>(node).inner_, name);
  }
  Status rename(const std::string& name, const std::string& new_name) override {
    ECFS_TRY(fuse_.change());
    if (disk_ != nullptr) {
      disk_->names.erase(below(path_, name));
      disk_->names.insert(below(path_, new_name));
      if (disk_->files.erase(below(path_, name)) != 0) disk_->files.insert(below(path_, new_name));
    }
    return inner_->rename(name, new_name);
  }
  Status sync() override {
    ECFS_TRY(fuse_.change());
    if (disk_ != nullptr) disk_->sync_directory(path_);
    if (fuse_.at_sync) fuse_.at_sync();
    return {};
  }
  Status set_owner(uid_t uid, gid_t gid) override {
    ECFS_TRY(fuse_.change());
    return inner_->set_owner(uid, gid);
  }
  Status set_mode(mode_t mode) override {
    ECFS_TRY(fuse_.change());
    return inner_->set_mode(mode);
  }
  Status set_times(const struct stat& like) override {
    ECFS_TRY(fuse_.change());
    return inner_->set_times(like);
  }
  Status set_attribute(const std::string& name, ByteView value) override {
    ECFS_TRY(fuse_.change());
    return inner_->set_attribute(name, value);
  }
  Status remove_attribute(const std::string& name) override {
    ECFS_TRY(fuse_.change());
    return inner_->remove_attribute(name);
  }

 private:
  Result<NodePtr> wrapped(Result<NodePtr> node, const std::string& name) {
    if (!node) return node;
    return NodePtr(std::make_unique<FusedNode>(*std::move(node), fuse_, is_new_, below(path_, name)));
  }
  NodePtr inner_;
  Fuse& fuse_;
  Disk* disk_;  // of the new tree
  bool is_new_;
  std::string path_;
};

// What a tree holds, with everything that has to come over; by path.
using Facts = std::map<std::string, std::string>;
Facts facts_of(const std::string& top) {
  Facts facts;
  std::map<ino_t, std::string> first;
  std::vector<std::string> paths;
  for (const auto& entry : stdfs::recursive_directory_iterator(top)) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    struct stat st {};
    EXPECT_EQ(lstat(path.c_str(), &st), 0);
    const std::string name = path.substr(top.size() + 1);
    std::string text = std::to_string(st.st_mode) + " " + std::to_string(st.st_uid) + ":" + std::to_string(st.st_gid) +
                       " " + std::to_string(st.st_mtim.tv_sec) + "." + std::to_string(st.st_mtim.tv_nsec);
    if (!S_ISDIR(st.st_mode)) text += " is " + first.emplace(st.st_ino, name).first->second;
    if (S_ISLNK(st.st_mode)) text += " " + stdfs::read_symlink(path).string();
    if (S_ISREG(st.st_mode)) {
      std::ifstream file(path, std::ios::binary);
      text += " " + std::string(std::istreambuf_iterator<char>(file), {});
    }
    std::array<char, 256> value{};
    const ssize_t n = lgetxattr(path.c_str(), "user.note", value.data(), value.size());
    if (n >= 0) text += " note " + std::string(value.data(), static_cast<std::size_t>(n));
    facts.emplace(name, text);
  }
  return facts;
}

class MigrationTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(top_.data()), nullptr);
    make_trees();
  }
  void TearDown() override {
    std::error_code ignored;
    stdfs::remove_all(top_, ignored);
  }

  [[nodiscard]] std::string from() const { return top_ + "/from"; }
  [[nodiscard]] std::string to() const { return top_ + "/to"; }

  static void put(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
  static void set_time(const std::string& path, time_t when) {
    const std::array<timespec, 2> times = {timespec{when, 1}, timespec{when, 123456789}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times.data(), AT_SYMLINK_NOFOLLOW), 0);
  }

  void make_trees() {
    stdfs::remove_all(from());
    stdfs::remove_all(to());
    stdfs::create_directories(from() + "/a/deep");
    stdfs::create_directories(from() + "/empty");
    stdfs::create_directory(to());
    put(from() + "/a/before", "ahead of the directory");
    put(from() + "/a/one", "first");
    put(from() + "/a/two", std::string(200000, 'x'));
    put(from() + "/a/deep/three", "third");
    put(from() + "/z", "last");
    stdfs::create_hard_link(from() + "/a/one", from() + "/a/deep/linked");
    stdfs::create_hard_link(from() + "/a/one", from() + "/y");
    stdfs::create_symlink("/nowhere", from() + "/link");
    ASSERT_EQ(mkfifo((from() + "/fifo").c_str(), 0640), 0);
    ASSERT_EQ(setxattr((from() + "/a/two").c_str(), "user.note", "value", 5, 0), 0);
    ASSERT_EQ(chmod((from() + "/a/two").c_str(), 0400), 0);
    ASSERT_EQ(chmod((from() + "/a/deep").c_str(), 0750), 0);
    time_t when = 1000000000;
    for (const char* path :
         {"/a/before", "/a/one", "/a/two", "/a/deep/three", "/z", "/link", "/fifo", "/a/deep", "/a", "/empty", ""}) {
      set_time(from() + path, when += 1000);
    }
    before_ = facts_of(from());
  }

  struct Ran {
    Status status;
    MigrationOutcome outcome;
    std::vector<std::string> told;
  };
  // One run over the trees as they are, which ends after `fuse.left` changes.
  Ran run(MigrationRules rules, Fuse& fuse) {
    Ran ran;
    const Fd a = *open_directory(AT_FDCWD, from());
    const Fd b = *open_directory(AT_FDCWD, to());
    FusedNode source(*directory_tree(a.get()), fuse, false);
    FusedNode target(*directory_tree(b.get()), fuse, true);
    Migration migration(source, std::move(rules));
    const auto survey = migration.survey(&target);
    if (!survey) {
      ran.status = survey.error();
      return ran;
    }
    Progress progress("", 0);
    const auto outcome = migration.run(target, progress, [&](const std::string& path, const std::string& why) {
      ran.told.push_back(path + ": " + why);
    });
    if (outcome) {
      ran.outcome = *outcome;
    } else {
      ran.status = outcome.error();
    }
    return ran;
  }
  Ran run(MigrationRules rules) {
    Fuse fuse;
    return run(std::move(rules), fuse);
  }
  static MigrationRules removing() {
    MigrationRules rules;
    rules.remove_old = true;
    rules.removed_before = true;
    return rules;
  }
  MigrationSurvey survey(MigrationRules rules) {
    const Fd a = *open_directory(AT_FDCWD, from());
    const NodePtr source = *directory_tree(a.get());
    return *Migration(*source, std::move(rules)).survey(nullptr);
  }
  // Each entry is in one of the trees as it was: what a file is called in the new tree, it is.
  void expect_nothing_lost(const std::string& when) {
    // Without what tells that two names are one file.
    const auto plain = [](const std::string& text) {
      const std::size_t begin = text.find(" is ");
      const std::size_t end = std::min(text.find(' ', begin + 4), text.size());
      return text.substr(0, begin) + text.substr(end);
    };
    const Facts old_tree = facts_of(from());
    const Facts new_tree = facts_of(to());
    for (const auto& [name, text] : before_) {
      const auto here = old_tree.find(name);
      const auto there = new_tree.find(name);
      ASSERT_TRUE(here != old_tree.end() || there != new_tree.end()) << when << ": " << name << " is gone";
      if (text.find(" is ") == std::string::npos) continue;  // a directory: its time may be touched right now
      if (here != old_tree.end()) {
        EXPECT_EQ(plain(here->second), plain(text)) << when << ": " << name;
      }
      if (there != new_tree.end()) {
        EXPECT_EQ(plain(there->second), plain(text)) << when << ": " << name;
      }
    }
  }

  std::string top_ = "/tmp/ecfs-migration-XXXXXX";
  Facts before_;
};

TEST_F(MigrationTest, BringsEverythingOverAndLeavesTheOldTreeAsItIs) {
  const Ran ran = run({});
  ASSERT_TRUE(ran.status) << ran.status.error().what;
  EXPECT_TRUE(ran.told.empty());
  EXPECT_EQ(ran.outcome.num_copied, before_.size());
  EXPECT_EQ(facts_of(to()), before_);
  EXPECT_EQ(facts_of(from()), before_);
  const Ran again = run({});
  ASSERT_TRUE(again.status);
  EXPECT_EQ(again.outcome.num_copied, 0U);
  EXPECT_EQ(again.outcome.num_there, before_.size());
  EXPECT_EQ(facts_of(to()), before_);
}

TEST_F(MigrationTest, RemovesTheOldTree) {
  const Ran ran = run(removing());
  ASSERT_TRUE(ran.status);
  EXPECT_EQ(facts_of(to()), before_);
  EXPECT_TRUE(stdfs::is_empty(from()));
  EXPECT_EQ(ran.outcome.num_removed, before_.size());
}

// Killed after each single change, with the old tree kept and removed; then run again.
TEST_F(MigrationTest, BrokenOffAnywhereItGoesOnAndLosesNothing) {
  for (const bool remove : {false, true}) {
    Fuse whole;
    make_trees();
    ASSERT_TRUE(run(remove ? removing() : MigrationRules(), whole).status);
    ASSERT_GT(whole.changes, 40U);
    for (std::size_t at = 0; at < whole.changes; ++at) {
      make_trees();
      Fuse fuse;
      fuse.left = at;
      const std::string when = std::string(remove ? "removing" : "keeping") + ", killed after " + std::to_string(at);
      const Ran killed = run(remove ? removing() : MigrationRules(), fuse);
      ASSERT_TRUE(fuse.burnt) << when;
      expect_nothing_lost(when);
      if (!remove) {
        ASSERT_EQ(facts_of(from()), before_) << when;
      }
      // Once more, killed soon again.
      Fuse second;
      second.left = at % 7;
      (void)run(remove ? removing() : MigrationRules(), second);
      expect_nothing_lost(when + " and again");
      const Ran ran = run(remove ? removing() : MigrationRules());
      ASSERT_TRUE(ran.status) << when << ": " << ran.status.error().what;
      ASSERT_TRUE(ran.told.empty()) << when << ": " << ran.told.front();
      ASSERT_EQ(facts_of(to()), before_) << when;
      if (remove) {
        ASSERT_TRUE(stdfs::is_empty(from())) << when;
      }
    }
  }
}

// The order of syncs, whatever was killed when: nothing leaves the old tree that a power cut could take from the new.
TEST_F(MigrationTest, NothingIsRemovedBeforeItsCopyIsOnTheDisk) {
  const auto make = [this] {
    make_trees();
    stdfs::create_directory(from() + "/only");  // what is in it goes at the very end
    stdfs::create_hard_link(from() + "/z", from() + "/only/z");
  };
  make();
  Fuse whole;
  ASSERT_TRUE(run(removing(), whole).status);
  for (std::size_t at = 0; at <= whole.changes; ++at) {
    make();
    Disk disk;
    MigrationRules rules = removing();
    rules.sync_new = [&disk]() -> Status {
      disk.names.clear();
      disk.files.clear();
      return {};
    };
    Fuse killed;
    killed.left = at;
    killed.disk = &disk;
    (void)run(rules, killed);
    Fuse fuse;
    fuse.disk = &disk;
    ASSERT_TRUE(run(rules, fuse).status);
    ASSERT_TRUE(disk.too_early.empty()) << "killed after " << at << ": " << disk.too_early.front();
    ASSERT_TRUE(stdfs::is_empty(from()));
  }
}

TEST_F(MigrationTest, WhatDiffersInBothTreesIsLeftInBoth) {
  ASSERT_TRUE(run({}).status);
  put(to() + "/z", "edited in the new tree");
  put(from() + "/a/deep/three", "edited in the old one");
  const Facts new_tree = facts_of(to());
  const Ran ran = run(removing());
  ASSERT_TRUE(ran.status);
  ASSERT_EQ(ran.told.size(), 2U);
  EXPECT_NE(ran.told[0].find("a/deep/three: both trees have it, and they differ"), std::string::npos) << ran.told[0];
  EXPECT_TRUE(stdfs::exists(from() + "/a/deep/three"));
  EXPECT_TRUE(stdfs::exists(from() + "/z"));
  EXPECT_FALSE(stdfs::exists(from() + "/a/two"));
  EXPECT_EQ(facts_of(to()).at("z"), new_tree.at("z"));
}

// The same size, time and mode: only reading tells.
TEST_F(MigrationTest, NothingIsRemovedThatTheNewTreeHasWithOtherBytes) {
  ASSERT_TRUE(run({}).status);
  put(to() + "/z", "tsal");
  set_time(to() + "/z", 1000005000);
  const Ran ran = run(removing());
  ASSERT_TRUE(ran.status);
  ASSERT_EQ(ran.told.size(), 1U);
  EXPECT_TRUE(stdfs::exists(from() + "/z"));
}

TEST_F(MigrationTest, AnotherKindOfEntryInTheNewTreeIsNotTouched) {
  stdfs::create_directory(to() + "/z");
  put(to() + "/a", "a file where the old tree has a directory");
  put(to() + "/empty", "and here it is an empty one");
  const Ran ran = run(removing());
  ASSERT_TRUE(ran.status);
  EXPECT_EQ(ran.told.size(), 3U);
  EXPECT_TRUE(stdfs::is_directory(from() + "/empty"));
  EXPECT_TRUE(stdfs::exists(from() + "/z"));
  EXPECT_TRUE(stdfs::exists(from() + "/a/deep/three"));
  EXPECT_TRUE(stdfs::is_directory(to() + "/z"));
}

// The new tree's other name of a file is what it will be a link to: it is compared before.
TEST_F(MigrationTest, NothingBecomesALinkToOtherBytes) {
  ASSERT_TRUE(run({}).status);
  stdfs::remove(to() + "/a/deep/linked");
  const Facts old_tree = facts_of(from());
  put(to() + "/y", "tsrif");  // three names of one file
  set_time(to() + "/y", 1000002000);
  const Ran ran = run(removing());
  ASSERT_TRUE(ran.status);
  EXPECT_EQ(ran.told.size(), 3U);
  for (const char* name : {"a/one", "a/deep/linked", "y"}) EXPECT_EQ(facts_of(from()).at(name), old_tree.at(name));
  EXPECT_FALSE(stdfs::exists(to() + "/a/deep/linked"));
}

// Between the last look at a file and its removal somebody writes to it, by a way that no lock stops.
TEST_F(MigrationTest, WhatIsChangedMeanwhileIsNotRemoved) {
  Fuse fuse;
  fuse.at_sync = [this] {
    put(from() + "/a/two", "newer than the copy");
    put(from() + "/y", "so is this, which has three names");
  };
  const Ran ran = run(removing(), fuse);
  ASSERT_TRUE(ran.status) << ran.status.error().what;
  EXPECT_FALSE(ran.told.empty());
  EXPECT_FALSE(stdfs::exists(from() + "/z"));
  for (const char* name : {"/a/two", "/a/one", "/y"}) EXPECT_TRUE(stdfs::exists(from() + name)) << name;
  std::ifstream file(from() + "/a/two");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "newer than the copy");
}

#ifndef ECFS_SANITIZED  // whose frames are larger than the stack is for
TEST_F(MigrationTest, AnEndlessTreeIsRefused) {
  Fd dir = *open_directory(AT_FDCWD, from());
  for (int i = 0; i < 1100; ++i) {
    ASSERT_EQ(mkdirat(dir.get(), "d", 0700), 0);
    dir = *open_directory(dir.get(), "d");
  }
  const MigrationSurvey seen = survey({});
  ASSERT_EQ(seen.num_obstacles, 1U);
  EXPECT_NE(seen.obstacles.front().find("more than 1000 directories"), std::string::npos) << seen.obstacles.front();
}
#endif

// A further name of a file that is over, before all others in the order of the walk.
TEST_F(MigrationTest, ANewNameOfAFileBecomesALink) {
  ASSERT_TRUE(run({}).status);
  stdfs::create_hard_link(from() + "/y", from() + "/Another");
  const Ran ran = run({});
  ASSERT_TRUE(ran.status);
  EXPECT_EQ(ran.outcome.num_copied, 1U);
  EXPECT_EQ(facts_of(to()), facts_of(from()));
}

TEST_F(MigrationTest, HolesStayHolesAndAreFoundWhereTheSourceStoresThem) {
  put(from() + "/zeros", std::string(3 << 20, '\0') + "end");
  MigrationRules rules;
  rules.find_holes = true;
  ASSERT_TRUE(run(rules).status);
  struct stat st {};
  ASSERT_EQ(lstat((to() + "/zeros").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, (3 << 20) + 3);
  EXPECT_LT(st.st_blocks, 200);
  EXPECT_EQ(facts_of(to()).at("zeros"), facts_of(from()).at("zeros"));
}

TEST_F(MigrationTest, WhatDoesNotFitIsSaidBefore) {
  put(from() + "/" + std::string(150, 'n'), "");
  stdfs::create_symlink(std::string(3000, 't'), from() + "/a/far");
  put(from() + "/a/" + kMigrationTempName, "");
  MigrationRules rules;
  rules.longest_name = 143;
  rules.check_target = [](std::string_view target) -> Status {
    if (target.size() > 2000) return system_error(ENAMETOOLONG, "a link");
    return {};
  };
  const MigrationSurvey found = survey(rules);
  ASSERT_EQ(found.num_obstacles, 3U);
  EXPECT_NE(found.obstacles[0].find(".ecfs-migrating: its name is needed"), std::string::npos) << found.obstacles[0];
  EXPECT_NE(found.obstacles[1].find("a/far: what this link points to has 3000 bytes"), std::string::npos);
  EXPECT_NE(found.obstacles[2].find("its name has 150 bytes, and 143 are the most"), std::string::npos);
  EXPECT_EQ(found.num_entries, before_.size() + 3);
}

TEST_F(MigrationTest, TheSurveyCountsEveryFileOnce) {
  const MigrationSurvey found = survey({});
  EXPECT_EQ(found.num_entries, before_.size());
  EXPECT_EQ(found.num_there, 0U);
  EXPECT_EQ(found.data_bytes, 200000U + 22 + 5 + 5 + 4);
  EXPECT_EQ(found.largest_bytes, 200000U);
  EXPECT_EQ(found.linked_bytes, 5U);
}

}  // namespace
}  // namespace ecfs::setup
