#include "fs/volume.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "fs/format/native_format.h"
#include "wrap/volume_header.h"

namespace ecfs::fs {
namespace {

namespace stdfs = std::filesystem;
constexpr std::uint64_t kRoot = InodeTable::kRootId;

class VolumeTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "ecfs-volume-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    base_ = path;
    lower_ = base_ / "lower";
    stdfs::create_directory(lower_);
    stdfs::permissions(lower_, stdfs::perms(0755));
    open_volume();
  }
  void TearDown() override {
    volume_.reset();
    stdfs::remove_all(base_);
  }

  Result<std::unique_ptr<Volume>> make_volume() {
    ECFS_LET(Secret key, Secret::of_size(wrap::kVolumeKeyBytes));
    NativeFormatOptions format;
    format.header.id.fill(7);
    ECFS_LET(auto made, make_native_format(format, key));
    return Volume::open(Fd(::open(lower_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), std::move(made), options_);
  }
  void open_volume() {
    volume_.reset();
    auto made = make_volume();
    ASSERT_TRUE(made) << made.error().what;
    volume_ = *std::move(made);
    volume_->start();
  }

  Volume& v() { return *volume_; }

  std::uint64_t lookup(std::uint64_t parent, std::string_view name) {
    Result<Entry> found = v().lookup(parent, name);
    EXPECT_TRUE(found) << name << ": " << (found ? "" : found.error().what);
    return found ? found->nodeid : 0;
  }
  int lookup_errno(std::uint64_t parent, std::string_view name) {
    const Result<Entry> found = v().lookup(parent, name);
    return found ? 0 : errno_of(found.error());
  }
  std::uint64_t mkdir(std::uint64_t parent, std::string_view name) {
    Result<Entry> made = v().mkdir(parent, name, 0755, Caller::self());
    EXPECT_TRUE(made) << (made ? "" : made.error().what);
    return made ? made->nodeid : 0;
  }
  std::uint64_t write_file(std::uint64_t parent, std::string_view name, std::string_view text) {
    auto made = v().create(parent, name, 0644, O_RDWR, Caller::self());
    EXPECT_TRUE(made) << (made ? "" : made.error().what);
    if (!made) return 0;
    const auto written = v().write(*made->file.handle, 0, as_bytes(text), true);
    EXPECT_TRUE(written && *written == text.size());
    v().release(std::move(made->file.handle));
    return made->entry.nodeid;
  }
  Result<std::string> read_node(std::uint64_t nodeid) {
    ECFS_LET(OpenedFile file, v().open_file(nodeid, O_RDONLY, Caller::self()));
    Bytes buffer(1 << 20);
    Result<std::size_t> len = v().read(*file.handle, 0, buffer);
    v().release(std::move(file.handle));
    if (!len) return std::move(len).error();
    return std::string(as_text(ByteView(buffer).first(*len)));
  }
  std::set<std::string> list(std::uint64_t nodeid) {
    std::set<std::string> names;
    auto dir = v().opendir(nodeid);
    EXPECT_TRUE(dir) << (dir ? "" : dir.error().what);
    if (!dir) return names;
    const Status done = v().readdir(**dir, 0, false, [&](const DirEntry& e) {
      if (e.name != "." && e.name != "..") names.emplace(e.name);
      return true;
    });
    EXPECT_TRUE(done) << (done ? "" : done.error().what);
    return names;
  }
  // The lower names below `dir`, our own file of the id left out.
  std::vector<std::string> lower_names(const stdfs::path& dir) {
    std::vector<std::string> names;
    for (const auto& e : stdfs::directory_iterator(dir)) names.push_back(e.path().filename());
    return names;
  }
  stdfs::path only_lower_dir(const stdfs::path& dir) {
    for (const auto& e : stdfs::directory_iterator(dir)) {
      if (e.is_directory() && !e.is_symlink()) return e.path();
    }
    ADD_FAILURE() << "no directory in " << dir;
    return {};
  }

  stdfs::path base_;
  stdfs::path lower_;
  VolumeOptions options_;
  std::unique_ptr<Volume> volume_;
};

int errno_in(const Status& status) { return status ? 0 : errno_of(status.error()); }
template <class T>
int errno_in(const Result<T>& result) {
  return result ? 0 : errno_of(result.error());
}

TEST_F(VolumeTest, NamesAndContentsComeBackAndDoNotShowBelow) {
  write_file(kRoot, "secret-name.txt", "secret contents");
  for (const std::string& name : lower_names(lower_)) EXPECT_EQ(name.find("secret"), std::string::npos);
  open_volume();
  EXPECT_EQ(list(kRoot), std::set<std::string>{"secret-name.txt"});
  const std::uint64_t node = lookup(kRoot, "secret-name.txt");
  EXPECT_EQ(*read_node(node), "secret contents");
  EXPECT_EQ(v().getattr(node)->st_size, 15);
  EXPECT_EQ(lookup_errno(kRoot, "other"), ENOENT);
}

TEST_F(VolumeTest, HardLinksAreOneNodeidOfOneSize) {
  const std::uint64_t node = write_file(kRoot, "one", "1");
  const std::uint64_t dir = mkdir(kRoot, "d");
  const Result<Entry> linked = v().link(node, dir, "two");
  ASSERT_TRUE(linked);
  EXPECT_EQ(linked->nodeid, node);
  EXPECT_EQ(linked->attr.st_nlink, 2U);
  EXPECT_EQ(lookup(kRoot, "one"), node);
  EXPECT_EQ(lookup(dir, "two"), node);
  auto file = v().open_file(node, O_RDWR, Caller::self());
  ASSERT_TRUE(file);
  ASSERT_TRUE(v().write(*file->handle, 0, as_bytes("longer"), true));
  EXPECT_EQ(v().lookup(kRoot, "one")->attr.st_size, 6);
  EXPECT_EQ(v().lookup(dir, "two")->attr.st_size, 6);
  v().release(std::move(file->handle));
  // The name known last goes; the inode is found again by a lookup of the other.
  ASSERT_TRUE(v().unlink(dir, "two"));
  EXPECT_EQ(lookup(kRoot, "one"), node);
  EXPECT_EQ(*read_node(node), "longer");
}

TEST_F(VolumeTest, ForgetEmptiesTheTable) {
  std::vector<std::uint64_t> nodes{mkdir(kRoot, "d")};
  for (int i = 0; i < 100; ++i) nodes.push_back(write_file(nodes[0], std::to_string(i), "x"));
  EXPECT_EQ(v().known_inodes(), 102U);
  for (const std::uint64_t node : nodes) v().forget(node, 1);  // the directory first: its children hold it
  // Files written lately are held until they are settled.
  for (int i = 0; i < 100 && v().known_inodes() > 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(v().known_inodes(), 1U);
}

TEST_F(VolumeTest, AKnownInodeCostsLittleMemory) {
  constexpr std::size_t kInodes = 100'000;
  constexpr std::size_t kNameBytes = 43;
  auto table = std::make_unique<InodeTable>();
  const InodeRef root = table->make_root({1, 1, 1}, {});
  const std::string name(kNameBytes, 'n');
  [[maybe_unused]] const struct mallinfo2 before = mallinfo2();
  for (std::size_t i = 2; i < kInodes + 2; ++i) {
    table->add_lookup(table->obtain({1, i, 1}, S_IFREG, {root, name, {}, false}).first);
  }
  [[maybe_unused]] const struct mallinfo2 after = mallinfo2();
  EXPECT_EQ(table->size(), kInodes + 1);
#ifndef ECFS_SANITIZED
  const std::size_t each = (after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / kInodes;
  RecordProperty("bytes_each", static_cast<int>(each));
  EXPECT_LE(each, 200 + kNameBytes + 21);  // a name's own allocation: its end and the allocator's rounding
#endif
  for (std::uint64_t id = 2; id < kInodes + 2; ++id) table->forget(id, 1);
  EXPECT_EQ(table->size(), 1U);
}

TEST_F(VolumeTest, ARenamedDirectoryKeepsItsNames) {
  const std::uint64_t a = mkdir(kRoot, "a");
  const std::uint64_t sub = mkdir(a, "sub");
  write_file(sub, "deep", "water");
  const std::uint64_t b = mkdir(kRoot, "b");
  const AttrChange old{{}, {}, {}, {}, {}, timespec{1000, 123456789}};
  ASSERT_TRUE(v().setattr(a, old));
  ASSERT_TRUE(v().rename(kRoot, "a", b, "moved", 0));
  EXPECT_EQ(v().getattr(a)->st_mtim.tv_sec, 1000);
  EXPECT_EQ(v().getattr(a)->st_mtim.tv_nsec, 123456789);
  EXPECT_EQ(lookup(b, "moved"), a);
  EXPECT_EQ(*read_node(lookup(lookup(a, "sub"), "deep")), "water");
  open_volume();
  const std::uint64_t moved = lookup(lookup(kRoot, "b"), "moved");
  EXPECT_EQ(list(moved), std::set<std::string>{"sub"});
  EXPECT_EQ(*read_node(lookup(lookup(moved, "sub"), "deep")), "water");
  EXPECT_EQ(lookup_errno(kRoot, "a"), ENOENT);
  // One made again at the old place has the derived id and does not disturb the other.
  const std::uint64_t again = mkdir(kRoot, "a");
  write_file(again, "new", "x");
  open_volume();
  EXPECT_EQ(list(lookup(kRoot, "a")), std::set<std::string>{"new"});
}

TEST_F(VolumeTest, TheDirectoryIdFileIsMadeForDirectoriesAlone) {
  write_file(kRoot, "f", "x");
  const std::uint64_t d = mkdir(kRoot, "d");
  ASSERT_TRUE(v().rename(kRoot, "f", d, "g", 0));
  const stdfs::path lower_d = only_lower_dir(lower_);
  EXPECT_FALSE(stdfs::exists(lower_d / ".ecfs-dir"));
  ASSERT_TRUE(v().rename(kRoot, "d", kRoot, "e", 0));
  const stdfs::path lower_e = only_lower_dir(lower_);
  EXPECT_EQ(stdfs::file_size(lower_e / ".ecfs-dir"), 40U);
  EXPECT_EQ(list(d), std::set<std::string>{"g"});
}

TEST_F(VolumeTest, AReadOnlyDirectoryCanBeRenamed) {
  const std::uint64_t d = mkdir(kRoot, "d");
  write_file(d, "f", "x");
  ASSERT_TRUE(v().setattr(d, {0555, {}, {}, {}, {}, {}}));
  ASSERT_TRUE(v().rename(kRoot, "d", kRoot, "e", 0));
  EXPECT_EQ(v().getattr(d)->st_mode & 07777U, 0555U);
  EXPECT_TRUE(stdfs::exists(only_lower_dir(lower_) / ".ecfs-dir"));
}

TEST_F(VolumeTest, ADamagedDirectoryIdIsAnError) {
  const std::uint64_t d = mkdir(kRoot, "d");
  write_file(d, "f", "x");
  ASSERT_TRUE(v().rename(kRoot, "d", kRoot, "e", 0));
  const stdfs::path id_file = only_lower_dir(lower_) / ".ecfs-dir";
  for (const char* damage : {"", "short", "ECD1\1\0\0\0ssssssssssssssssssssssssssssssss"}) {
    stdfs::permissions(id_file, stdfs::perms::owner_all);
    std::ofstream(id_file, std::ios::trunc) << damage;
    open_volume();
    const std::uint64_t e = lookup(kRoot, "e");
    EXPECT_EQ(lookup_errno(e, "f"), EIO);
    EXPECT_EQ(errno_in(v().mkdir(e, "new", 0755, Caller::self())), EIO);
  }
  stdfs::remove(id_file);
  stdfs::create_symlink("/etc/hostname", id_file);
  open_volume();
  EXPECT_EQ(lookup_errno(lookup(kRoot, "e"), "f"), EIO);
}

TEST_F(VolumeTest, NothingNewWhereTheIdIsLostAndAllIsWellWhenItComesBack) {
  const std::uint64_t d = mkdir(kRoot, "d");
  write_file(d, "f", "x");
  ASSERT_TRUE(v().rename(kRoot, "d", kRoot, "e", 0));
  const stdfs::path id_file = only_lower_dir(lower_) / ".ecfs-dir";
  stdfs::rename(id_file, base_ / "kept");
  open_volume();
  const std::uint64_t e = lookup(kRoot, "e");
  EXPECT_TRUE(list(e).empty());
  EXPECT_EQ(errno_in(v().mkdir(e, "new", 0755, Caller::self())), EIO);
  EXPECT_EQ(errno_in(v().create(e, "new", 0644, O_RDWR, Caller::self())), EIO);
  stdfs::copy(base_ / "kept", id_file);
  EXPECT_EQ(lookup_errno(e, "f"), 0);
  EXPECT_NE(mkdir(e, "new"), 0U);
}

TEST_F(VolumeTest, LongNames) {
  const std::string long_a(255, 'a');
  const std::string long_b(200, 'b');
  EXPECT_EQ(lookup_errno(kRoot, std::string(256, 'a')), ENAMETOOLONG);
  EXPECT_EQ(errno_in(v().mkdir(kRoot, std::string(256, 'a'), 0755, Caller::self())), ENAMETOOLONG);
  const std::uint64_t node = write_file(kRoot, long_a, "x");
  EXPECT_EQ(lower_names(lower_).size(), 2U);  // entry and side file
  EXPECT_EQ(list(kRoot), std::set<std::string>{long_a});
  ASSERT_TRUE(v().rename(kRoot, long_a, kRoot, long_b, 0));
  EXPECT_EQ(lower_names(lower_).size(), 2U);
  EXPECT_EQ(list(kRoot), std::set<std::string>{long_b});
  ASSERT_TRUE(v().link(node, kRoot, long_a));
  EXPECT_EQ(lower_names(lower_).size(), 4U);
  // Both are names of one inode: nothing happens, and both stay listed.
  ASSERT_TRUE(v().rename(kRoot, long_a, kRoot, long_b, 0));
  EXPECT_EQ(list(kRoot), (std::set<std::string>{long_a, long_b}));
  ASSERT_TRUE(v().unlink(kRoot, long_a));
  EXPECT_EQ(list(kRoot), std::set<std::string>{long_b});
  ASSERT_TRUE(v().rename(kRoot, long_b, kRoot, "short", 0));
  EXPECT_EQ(lower_names(lower_).size(), 1U);
  ASSERT_TRUE(v().mkdir(kRoot, long_b, 0755, Caller::self()));
  ASSERT_TRUE(v().rename(kRoot, long_b, kRoot, "short", RENAME_EXCHANGE));
  EXPECT_EQ(list(kRoot), (std::set<std::string>{long_b, "short"}));
  ASSERT_TRUE(v().rmdir(kRoot, "short"));
  ASSERT_TRUE(v().unlink(kRoot, long_b));
  EXPECT_TRUE(lower_names(lower_).empty());
}

TEST_F(VolumeTest, AMissingSideFileIsWrittenAgainByALookup) {
  const std::string long_name(255, 'x');
  write_file(kRoot, long_name, "x");
  for (const std::string& name : lower_names(lower_)) {
    if (name.ends_with(".n")) stdfs::remove(lower_ / name);
  }
  EXPECT_TRUE(list(kRoot).empty());
  lookup(kRoot, long_name);
  EXPECT_EQ(list(kRoot), std::set<std::string>{long_name});
}

TEST_F(VolumeTest, ForeignNamesAreHiddenOrShownAsConflicts) {
  write_file(kRoot, "notes", "mine");
  const std::string lower_name = lower_names(lower_).at(0);
  stdfs::copy(lower_ / lower_name, lower_ / (lower_name + " (conflicted copy)"));
  std::ofstream(lower_ / "README") << "foreign";
  EXPECT_EQ(list(kRoot), std::set<std::string>{"notes"});
  EXPECT_EQ(v().foreign_names(), 2U);
  options_.show_conflicts = true;
  open_volume();
  const std::set<std::string> names = list(kRoot);
  ASSERT_EQ(names.size(), 2U);
  const std::string shown = *names.rbegin();
  EXPECT_TRUE(shown.starts_with("notes.ecfs-conflict-")) << shown;
  const std::uint64_t node = lookup(kRoot, shown);
  EXPECT_EQ(*read_node(node), "mine");
  EXPECT_EQ(errno_in(v().open_file(node, O_RDWR, Caller::self())), EROFS);
  EXPECT_EQ(errno_in(v().setattr(node, {0600, {}, {}, {}, {}, {}})), EROFS);
  EXPECT_EQ(errno_in(v().unlink(kRoot, shown)), EROFS);
  EXPECT_EQ(errno_in(v().rename(kRoot, shown, kRoot, "x", 0)), EROFS);
  EXPECT_EQ(errno_in(v().create(kRoot, shown, 0644, O_RDWR, Caller::self())), EROFS);
}

// Whoever calls it meanwhile is told that there is no key; nothing is ever encrypted under an empty one.
TEST_F(VolumeTest, WithoutKeysNothingIsReadOrWritten) {
  const std::uint64_t d = mkdir(kRoot, "d");
  const std::uint64_t f = write_file(kRoot, "f", std::string(10000, 'x'));
  ASSERT_TRUE(v().symlink(kRoot, "l", "target", Caller::self()));
  const std::uint64_t l = lookup(kRoot, "l");
  const std::string long_name(250, 'n');
  const std::uint64_t closed = write_file(kRoot, long_name, "not open");
  auto open = v().open_file(f, O_RDWR, Caller::self());
  ASSERT_TRUE(open);
  FileHandle& file = *open->handle;
  ASSERT_TRUE(v().write(file, 10000, as_bytes("more"), false));
  const auto lower_before = lower_names(lower_);
  Bytes buffer(100);

  ASSERT_TRUE(v().drop_keys({&file}));
  EXPECT_EQ(errno_in(v().lookup(kRoot, "f")), ENOKEY);
  EXPECT_EQ(errno_in(v().lookup(kRoot, long_name)), ENOKEY);
  EXPECT_EQ(errno_in(v().lookup(d, "x")), ENOKEY);
  EXPECT_EQ(errno_in(v().read(file, 0, buffer)), ENOKEY);
  EXPECT_EQ(errno_in(v().write(file, 0, as_bytes("new"), false)), ENOKEY);
  EXPECT_EQ(errno_in(v().open_file(closed, O_RDONLY, Caller::self())), ENOKEY);
  EXPECT_EQ(errno_in(v().create(kRoot, "new", 0644, O_RDWR, Caller::self())), ENOKEY);
  EXPECT_EQ(errno_in(v().mkdir(kRoot, "new", 0755, Caller::self())), ENOKEY);
  EXPECT_EQ(errno_in(v().symlink(kRoot, "new", "x", Caller::self())), ENOKEY);
  EXPECT_EQ(errno_in(v().readlink(l)), ENOKEY);
  EXPECT_EQ(errno_in(v().setxattr(d, "user.x", as_bytes("v"), 0)), ENOKEY);
  EXPECT_EQ(errno_in(v().unlink(kRoot, "f")), ENOKEY);
  EXPECT_EQ(errno_in(v().rename(kRoot, "f", kRoot, "g", 0)), ENOKEY);
  EXPECT_EQ(lower_names(lower_), lower_before);

  Result<Secret> key = Secret::of_size(wrap::kVolumeKeyBytes);
  ASSERT_TRUE(key && v().restore_keys(*key));
  EXPECT_EQ(*read_node(f), std::string(10000, 'x') + "more");
  EXPECT_EQ(list(kRoot), (std::set<std::string>{"d", "f", "l", long_name}));
  EXPECT_EQ(*v().readlink(l), "target");
  v().release(std::move(open->handle));
}

TEST_F(VolumeTest, AConflictsDirectoryDecodes) {
  const std::uint64_t d = mkdir(kRoot, "d");
  write_file(d, "f", "inside");
  const std::string lower_name = lower_names(lower_).at(0);
  stdfs::copy(lower_ / lower_name, lower_ / (lower_name + ".sync-conflict-1"), stdfs::copy_options::recursive);
  options_.show_conflicts = true;
  open_volume();
  const std::uint64_t shown = lookup(kRoot, *list(kRoot).rbegin());
  EXPECT_EQ(*read_node(lookup(shown, "f")), "inside");
  EXPECT_EQ(errno_in(v().unlink(shown, "f")), EROFS);
  EXPECT_EQ(errno_in(v().open_file(lookup(shown, "f"), O_WRONLY, Caller::self())), EROFS);
}

TEST_F(VolumeTest, RmdirClearsWhatIsOursAndNothingElse) {
  const std::uint64_t d = mkdir(kRoot, "d");
  ASSERT_TRUE(v().rename(kRoot, "d", kRoot, "e", 0));
  const stdfs::path lower_d = only_lower_dir(lower_);
  std::ofstream(lower_d / ".ecfs-tmp-0123") << "left by a crash";
  std::ofstream(lower_d / ("~" + std::string(43, 'A') + ".n")) << "side file without an entry";
  std::ofstream(lower_d / "foreign") << "x";
  EXPECT_EQ(errno_in(v().rmdir(kRoot, "e")), ENOTEMPTY);
  EXPECT_EQ(lower_names(lower_d).size(), 4U);
  stdfs::remove(lower_d / "foreign");
  write_file(d, "f", "x");
  EXPECT_EQ(errno_in(v().rmdir(kRoot, "e")), ENOTEMPTY);
  ASSERT_TRUE(v().unlink(d, "f"));
  ASSERT_TRUE(v().rmdir(kRoot, "e"));
  EXPECT_TRUE(lower_names(lower_).empty());
  EXPECT_TRUE(v().getattr(d)) << "a removed working directory still answers";
  EXPECT_EQ(errno_in(v().mkdir(d, "x", 0755, Caller::self())), ENOENT);
}

TEST_F(VolumeTest, ADirectoryTakesTheDerivedIdWhenItsOwnWasCleared) {
  const std::uint64_t d = mkdir(kRoot, "d");
  ASSERT_TRUE(v().rename(kRoot, "d", kRoot, "e", 0));
  const std::uint64_t other = mkdir(kRoot, "other");
  const std::uint64_t inner = mkdir(other, "inner");
  // Moving a directory into its own subtree fails, after the target was cleared.
  EXPECT_EQ(errno_in(v().rename(kRoot, "other", inner, "x", 0)), EINVAL);
  ASSERT_TRUE(v().rename(kRoot, "other", kRoot, "e", 0));
  EXPECT_EQ(lookup(kRoot, "e"), other);
  EXPECT_EQ(list(other), std::set<std::string>{"inner"});
  EXPECT_TRUE(v().getattr(d));
}

TEST_F(VolumeTest, RenameFlags) {
  write_file(kRoot, "a", "1");
  write_file(kRoot, "b", "22");
  const std::uint64_t d = mkdir(kRoot, "d");
  write_file(d, "in-d", "x");
  const std::uint64_t e = mkdir(kRoot, "e");
  write_file(e, "in-e", "x");
  EXPECT_EQ(errno_in(v().rename(kRoot, "a", kRoot, "b", RENAME_NOREPLACE)), EEXIST);
  EXPECT_EQ(errno_in(v().rename(kRoot, "a", kRoot, "none", RENAME_EXCHANGE)), ENOENT);
  EXPECT_EQ(errno_in(v().rename(kRoot, "a", kRoot, "b", RENAME_WHITEOUT)), EINVAL);
  EXPECT_EQ(errno_in(v().rename(kRoot, "none", kRoot, "b", 0)), ENOENT);
  EXPECT_EQ(errno_in(v().rename(kRoot, "a", kRoot, "d", 0)), EISDIR);
  EXPECT_EQ(errno_in(v().rename(kRoot, "d", kRoot, "a", 0)), ENOTDIR);
  EXPECT_EQ(errno_in(v().rename(kRoot, "d", kRoot, "e", 0)), ENOTEMPTY);
  ASSERT_TRUE(v().rename(kRoot, "a", kRoot, "b", RENAME_EXCHANGE));
  EXPECT_EQ(*read_node(lookup(kRoot, "a")), "22");
  ASSERT_TRUE(v().rename(kRoot, "d", kRoot, "e", RENAME_EXCHANGE));
  EXPECT_EQ(list(lookup(kRoot, "d")), std::set<std::string>{"in-e"});
  ASSERT_TRUE(v().rename(kRoot, "a", kRoot, "d", RENAME_EXCHANGE));
  open_volume();
  EXPECT_EQ(list(lookup(kRoot, "a")), std::set<std::string>{"in-e"});
  EXPECT_EQ(list(lookup(kRoot, "e")), std::set<std::string>{"in-d"});
  EXPECT_EQ(*read_node(lookup(kRoot, "d")), "22");
}

TEST_F(VolumeTest, ASwappedDirectoryIsStale) {
  const std::uint64_t d = mkdir(kRoot, "d");
  const std::uint64_t f = write_file(d, "f", "x");
  const stdfs::path lower_d = only_lower_dir(lower_);
  options_ = {};
  stdfs::rename(lower_d, base_ / "away");
  stdfs::copy(base_ / "away", lower_d, stdfs::copy_options::recursive);
  const std::uint64_t now = lookup(kRoot, "d");
  EXPECT_NE(now, d);
  EXPECT_NE(lookup(now, "f"), f);
  stdfs::remove_all(base_ / "away");
  EXPECT_EQ(errno_in(v().getattr(f)), ESTALE);
  EXPECT_EQ(errno_in(v().open_file(f, O_RDONLY, Caller::self())), ESTALE);
}

TEST_F(VolumeTest, ALinkInPlaceOfALowerDirectoryIsNotFollowed) {
  const std::uint64_t d = mkdir(kRoot, "d");
  const std::uint64_t sub = mkdir(d, "sub");
  const std::uint64_t f = write_file(sub, "f", "x");
  const stdfs::path lower_d = only_lower_dir(lower_);
  open_volume();
  lookup(kRoot, "d");
  // The copy outside is the same to the name, and must not be reached through a link.
  stdfs::rename(lower_d, base_ / "outside");
  stdfs::create_directory_symlink(base_ / "outside", lower_d);
  const Result<Entry> link = v().lookup(kRoot, "d");
  ASSERT_TRUE(link);
  EXPECT_TRUE(S_ISLNK(link->attr.st_mode));
  EXPECT_EQ(errno_in(v().lookup(link->nodeid, "sub")), ENOTDIR);
  EXPECT_EQ(errno_in(v().readlink(link->nodeid)), EIO) << "a target that we did not encrypt";
  (void)sub;
  (void)f;
}

TEST_F(VolumeTest, AReopenedDirectoryIsNotReachedThroughALink) {
  // Enough directories to push the first one's descriptor out.
  const std::uint64_t d = mkdir(kRoot, "d");
  const std::uint64_t sub = mkdir(d, "sub");
  const std::uint64_t f = write_file(sub, "f", "x");
  const stdfs::path lower_d = only_lower_dir(lower_);
  for (int i = 0; i < 600; ++i) {
    const std::uint64_t other = mkdir(kRoot, "other" + std::to_string(i));
    EXPECT_EQ(lookup_errno(other, "x"), ENOENT);
  }
  stdfs::rename(lower_d, base_ / "outside");
  stdfs::create_directory_symlink(base_ / "outside", lower_d);
  EXPECT_EQ(errno_in(v().getattr(f)), ESTALE);
  EXPECT_EQ(errno_in(v().open_file(f, O_RDONLY, Caller::self())), ESTALE);
  EXPECT_EQ(errno_in(v().create(sub, "g", 0644, O_RDWR, Caller::self())), ESTALE);
}

TEST_F(VolumeTest, ALinkInPlaceOfAFileIsNotFollowed) {
  const std::uint64_t f = write_file(kRoot, "f", "x");
  const stdfs::path lower_f = lower_ / lower_names(lower_).at(0);
  stdfs::rename(lower_f, base_ / "outside");
  stdfs::create_symlink(base_ / "outside", lower_f);
  for (const int flags : {O_RDONLY, O_RDWR, O_RDWR | O_TRUNC}) {
    EXPECT_EQ(errno_in(v().open_file(f, flags, Caller::self())), ESTALE);
  }
  EXPECT_EQ(errno_in(v().setattr(f, {0777, {}, {}, 0, {}, {}})), ESTALE);
  EXPECT_EQ(stdfs::file_size(base_ / "outside"), 65U);
}

// In a process of its own: the limit is for good.
TEST_F(VolumeTest, AWalkNeedsFewDescriptors) {
  volume_.reset();
  const pid_t child = fork();
  if (child == 0) {
    const rlimit few{64, 64};
    setrlimit(RLIMIT_NOFILE, &few);
    open_volume();
    std::vector<std::uint64_t> dirs{kRoot};
    for (int i = 0; i < 400; ++i) {  // a deep chain and a broad level each
      dirs.push_back(mkdir(dirs.back(), "deep"));
      write_file(dirs.back(), "file" + std::to_string(i), "x");
    }
    int bad = 0;
    for (int round = 0; round < 3; ++round) {
      for (const std::uint64_t dir : dirs) bad += list(dir).empty() ? 1 : 0;
    }
    // 30 open files take what the cache of directories had; walking goes on.
    std::vector<OpenedFile> files;
    for (int i = 0; i < 30; ++i) {
      auto file = v().open_file(lookup(dirs[static_cast<std::size_t>(i) + 1], "file" + std::to_string(i)), O_RDONLY,
                                Caller::self());
      if (!file) ++bad;
      if (file) files.push_back(*std::move(file));
    }
    for (const std::uint64_t dir : dirs) bad += v().getattr(dir) ? 0 : 1;
    for (OpenedFile& file : files) v().release(std::move(file.handle));
    volume_.reset();
    _exit(bad == 0 && !HasFailure() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(VolumeTest, AnOpenFileOutlivesItsName) {
  const std::uint64_t node = write_file(kRoot, "f", "before");
  auto file = v().open_file(node, O_RDWR, Caller::self());
  ASSERT_TRUE(file);
  ASSERT_TRUE(v().unlink(kRoot, "f"));
  ASSERT_TRUE(v().write(*file->handle, 0, as_bytes("after!"), true));
  EXPECT_EQ(v().getattr(node)->st_nlink, 0U);
  Bytes buffer(16);
  ASSERT_EQ(*v().read(*file->handle, 0, buffer), 6U);
  EXPECT_EQ(as_text(ByteView(buffer).first(6)), "after!");
  EXPECT_NE(write_file(kRoot, "f", "new"), node);
  ASSERT_TRUE(v().setattr(node, {0600, {}, {}, 3, {}, {}}));
  EXPECT_EQ(v().getattr(node)->st_size, 3);
  v().release(std::move(file->handle));
  EXPECT_EQ(errno_in(v().open_file(node, O_RDONLY, Caller::self())), ESTALE);
  EXPECT_EQ(*read_node(lookup(kRoot, "f")), "new");
}

TEST_F(VolumeTest, AFileWhoseHeaderFailsCanBeEmptiedAndNothingElse) {
  const std::uint64_t node = write_file(kRoot, "f", "some contents");
  write_file(kRoot, "sibling", "well");
  stdfs::path lower_f;
  for (const std::string& name : lower_names(lower_)) {
    if (stdfs::file_size(lower_ / name) == 64 + 13) lower_f = lower_ / name;
  }
  {
    std::fstream raw(lower_f, std::ios::in | std::ios::out | std::ios::binary);
    raw.seekp(40);
    raw.put('\xff');
  }
  EXPECT_EQ(errno_in(v().open_file(node, O_RDONLY, Caller::self())), EIO);
  EXPECT_EQ(errno_in(v().open_file(node, O_WRONLY, Caller::self())), EIO);
  EXPECT_EQ(errno_in(v().setattr(node, {{}, {}, {}, 5, {}, {}})), EIO);
  EXPECT_EQ(*read_node(lookup(kRoot, "sibling")), "well");
  ASSERT_TRUE(v().rename(kRoot, "f", kRoot, "g", 0));
  auto file = v().open_file(node, O_WRONLY | O_TRUNC, Caller::self());
  ASSERT_TRUE(file) << file.error().what;
  ASSERT_TRUE(v().write(*file->handle, 0, as_bytes("again"), true));
  v().release(std::move(file->handle));
  EXPECT_EQ(*read_node(node), "again");
}

TEST_F(VolumeTest, TheAuthenticatedSizeReachesTheKernelByANewNodeid) {
  write_file(kRoot, "f", "twelve bytes");
  const stdfs::path lower_f = lower_ / lower_names(lower_).at(0);
  std::ofstream(lower_f, std::ios::app) << "leftover of a crash";
  open_volume();
  const Result<Entry> first = v().lookup(kRoot, "f");
  EXPECT_EQ(first->attr.st_size, 12 + 19) << "by arithmetic";
  EXPECT_EQ(errno_in(v().open_file(first->nodeid, O_RDONLY, Caller::self())), ESTALE);
  const Result<Entry> second = v().lookup(kRoot, "f");
  EXPECT_NE(second->nodeid, first->nodeid);
  EXPECT_EQ(second->attr.st_size, 12);
  EXPECT_EQ(*read_node(second->nodeid), "twelve bytes");
  EXPECT_EQ(v().lookup(kRoot, "f")->nodeid, second->nodeid);
}

TEST_F(VolumeTest, ModesThatDenyTheOwnerAndAttributes) {
  const std::uint64_t node = write_file(kRoot, "f", "x");
  ASSERT_TRUE(v().setattr(node, {0200, {}, {}, {}, {}, {}}));
  auto file = v().open_file(node, O_WRONLY, Caller::self());
  ASSERT_TRUE(file);
  ASSERT_TRUE(v().write(*file->handle, 1, as_bytes("yz"), true));
  v().release(std::move(file->handle));
  ASSERT_TRUE(v().setattr(node, {{}, {}, {}, 2, {}, {}}));
  EXPECT_EQ(v().getattr(node)->st_mode & 07777U, 0200U);
  EXPECT_EQ(*read_node(node), "xy");
  const timespec atime{-5, 999999999};
  const timespec mtime{4102444800, 1};
  const Result<struct stat> set = v().setattr(node, {{}, {}, {}, {}, atime, mtime});
  ASSERT_TRUE(set);
  EXPECT_EQ(set->st_atim.tv_sec, -5);
  EXPECT_EQ(set->st_mtim.tv_nsec, 1);
}

TEST_F(VolumeTest, ClosingDoesNotChangeTheTime) {
  auto made = v().create(kRoot, "f", 0644, O_RDWR, Caller::self());
  ASSERT_TRUE(made);
  const std::uint64_t node = made->entry.nodeid;
  const Bytes block(8192, 7);
  ASSERT_TRUE(v().write(*made->file.handle, 0, block, true));
  ASSERT_TRUE(v().write(*made->file.handle, 0, block, true));        // an overwrite: its hint is put off
  ASSERT_TRUE(v().write(*made->file.handle, 200'000, block, true));  // a gap: filled when it is settled
  ASSERT_TRUE(v().setattr(node, {{}, {}, {}, {}, {}, timespec{1'000'000'000, 42}}));
  ASSERT_TRUE(v().flush(*made->file.handle));
  v().release(std::move(made->file.handle));
  EXPECT_EQ(v().getattr(node)->st_mtim.tv_sec, 1'000'000'000);
  EXPECT_EQ(v().getattr(node)->st_mtim.tv_nsec, 42);
  EXPECT_EQ(v().getattr(node)->st_size, 208'192);
}

TEST_F(VolumeTest, ATimeThatIsSetWhileAFileIsClosedStays) {
  const Bytes block(8192, 7);
  for (int round = 0; round < 200; ++round) {
    auto made = v().create(kRoot, "f" + std::to_string(round), 0644, O_RDWR, Caller::self());
    ASSERT_TRUE(made);
    ASSERT_TRUE(v().write(*made->file.handle, 0, block, true));
    ASSERT_TRUE(v().write(*made->file.handle, 200'000, block, true));  // a gap: filled when it is settled
    std::atomic<bool> begun{false};
    std::thread closing([&] {
      begun = true;
      v().release(std::move(made->file.handle));
    });
    while (!begun) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(5 * (round % 20)));
    EXPECT_TRUE(v().setattr(made->entry.nodeid, {{}, {}, {}, {}, {}, timespec{1'000'000'000, 42}}));
    closing.join();
    ASSERT_EQ(v().getattr(made->entry.nodeid)->st_mtim.tv_sec, 1'000'000'000) << "round " << round;
  }
}

TEST_F(VolumeTest, WhoIsTooLateTwiceGetsAnAnswerAllTheSame) {
  const auto num_fds = [] {
    return std::distance(stdfs::directory_iterator("/proc/self/fd"), stdfs::directory_iterator());
  };
  const std::uint64_t first = write_file(kRoot, "f", "first");
  ASSERT_TRUE(v().unlink(kRoot, "f"));
  const auto before = num_fds();
  EXPECT_EQ(errno_in(v().open_file(first, O_RDONLY, Caller::self())), ESTALE);
  // The kernel looks the name up again, and is too late again.
  const std::uint64_t second = write_file(kRoot, "f", "second");
  ASSERT_TRUE(v().unlink(kRoot, "f"));
  EXPECT_EQ(*read_node(second), "second");
  auto file = v().open_file(second, O_RDWR, Caller::self());
  ASSERT_TRUE(file) << file.error().what;
  ASSERT_TRUE(v().write(*file->handle, 0, as_bytes("SEC"), true));
  EXPECT_EQ(*read_node(second), "SECond");
  v().release(std::move(file->handle));
  EXPECT_EQ(v().getattr(second)->st_nlink, 0U);
  // And where something else was renamed over it.
  const std::uint64_t third = write_file(kRoot, "f", "third");
  const std::uint64_t other = write_file(kRoot, "other", "other");
  ASSERT_TRUE(v().rename(kRoot, "other", kRoot, "f", 0));
  EXPECT_EQ(*read_node(third), "third");
  EXPECT_EQ(*read_node(other), "other");
  for (const std::uint64_t node : {first, second, third, other}) v().forget(node, 1);
  for (int i = 0; i < 600 && num_fds() != before; ++i) {  // who settles what was written still has them
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_EQ(num_fds(), before);
}

TEST_F(VolumeTest, AGapIsSettledInTime) {
  auto made = v().create(kRoot, "f", 0644, O_RDWR, Caller::self());
  ASSERT_TRUE(made);
  ASSERT_TRUE(v().write(*made->file.handle, 0, as_bytes(std::string(5000, 'a')), true));
  ASSERT_TRUE(v().write(*made->file.handle, 100'000, as_bytes("end"), true));
  const stdfs::path lower_f = lower_ / lower_names(lower_).at(0);
  std::this_thread::sleep_for(std::chrono::seconds(5));
  stdfs::copy(lower_f, base_ / "copy");
  v().release(std::move(made->file.handle));
  // What a crash would have left reads without an error.
  stdfs::rename(base_ / "copy", lower_f);
  open_volume();
  const Result<std::string> text = read_node(lookup(kRoot, "f"));
  ASSERT_TRUE(text) << text.error().what;
  EXPECT_EQ(text->size(), 100'003U);
  EXPECT_EQ(text->substr(5000, 95'000), std::string(95'000, '\0'));
}

TEST_F(VolumeTest, KeepsTheCacheOfAFileThatDidNotChange) {
  const std::uint64_t node = write_file(kRoot, "f", "x");
  EXPECT_EQ(*read_node(node), "x");
  auto file = v().open_file(node, O_RDONLY, Caller::self());
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->keep_cache);
  v().release(std::move(file->handle));
  stdfs::permissions(lower_ / lower_names(lower_).at(0), stdfs::perms::owner_all);
  file = v().open_file(node, O_RDONLY, Caller::self());
  ASSERT_TRUE(file);
  EXPECT_FALSE(file->keep_cache);
  v().release(std::move(file->handle));
}

TEST_F(VolumeTest, ListingGoesOnWhereItStopped) {
  std::set<std::string> all;
  for (int i = 0; i < 2000; ++i) {
    all.insert("name" + std::to_string(i));
    v().forget(write_file(kRoot, "name" + std::to_string(i), ""), 1);
  }
  for (const bool plus : {false, true}) {
    auto dir = v().opendir(kRoot);
    ASSERT_TRUE(dir);
    std::set<std::string> seen;
    std::map<off_t, std::string> after;
    off_t at = 0;
    for (bool more = true; more;) {
      int room = 7;
      more = false;
      ASSERT_TRUE(v().readdir(**dir, at, plus, [&](const DirEntry& e) {
        more = true;
        if (room-- == 0) return false;
        if (e.name != "." && e.name != "..") {
          EXPECT_TRUE(seen.emplace(e.name).second) << e.name;
        }
        if (e.entry != nullptr) v().forget(e.entry->nodeid, 1);
        after.emplace(at, std::string(e.name));
        at = e.next_pos;
        return true;
      }));
    }
    EXPECT_EQ(seen, all);
    // Any position can be come back to.
    const auto middle = std::next(after.begin(), 1000);
    std::string first;
    ASSERT_TRUE(v().readdir(**dir, middle->first, false, [&](const DirEntry& e) {
      first = e.name;
      return false;
    }));
    EXPECT_EQ(first, middle->second);
  }
}

TEST_F(VolumeTest, LinksSpecialFilesAndTargets) {
  const std::string target(3000, 't');
  const Result<Entry> link = v().symlink(kRoot, "link", target, Caller::self());
  ASSERT_TRUE(link);
  EXPECT_EQ(link->attr.st_size, 3000);
  EXPECT_EQ(*v().readlink(link->nodeid), target);
  EXPECT_EQ(errno_in(v().symlink(kRoot, "too-long", std::string(3100, 't'), Caller::self())), ENAMETOOLONG);
  const Result<Entry> second = v().link(link->nodeid, kRoot, "link2");
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_EQ(second->nodeid, link->nodeid);
  const Result<Entry> fifo = v().mknod(kRoot, "fifo", S_IFIFO | 0600, 0, Caller::self());
  ASSERT_TRUE(fifo);
  EXPECT_TRUE(S_ISFIFO(fifo->attr.st_mode));
  EXPECT_EQ(errno_in(v().open_file(fifo->nodeid, O_RDONLY, Caller::self())), EINVAL);
  ASSERT_TRUE(v().mknod(kRoot, "plain", S_IFREG | 0640, 0, Caller::self()));
  EXPECT_EQ(v().lookup(kRoot, "plain")->attr.st_mode & 07777U, 0640U);
}

TEST_F(VolumeTest, TheCallersUmaskAndIdentity) {
  Caller caller = Caller::self();
  caller.umask = 027;
  EXPECT_EQ(v().mkdir(kRoot, "d", 0777, caller)->attr.st_mode & 07777U, 0750U);
  caller.uid = caller.uid == 12345 ? 12346 : 12345;
  if (geteuid() != 0) {
    EXPECT_EQ(errno_in(v().mkdir(kRoot, "e", 0777, caller)), EPERM);
    return;
  }
  caller.gid = 23456;
  caller.groups = [] { return std::vector<gid_t>{34567}; };
  // As the caller: with the caller's rights in the lower directory too.
  EXPECT_EQ(errno_in(v().mkdir(kRoot, "e", 0777, caller)), EACCES);
  ASSERT_TRUE(v().setattr(kRoot, {0777, {}, {}, {}, {}, {}}));
  const Result<Entry> made = v().mkdir(kRoot, "e", 0777, caller);
  ASSERT_TRUE(made);
  EXPECT_EQ(made->attr.st_uid, 12345U);
  EXPECT_EQ(made->attr.st_gid, 23456U);
  // By a supplementary group alone.
  ASSERT_TRUE(v().setattr(kRoot, {0770, {}, 34567, {}, {}, {}}));
  EXPECT_TRUE(v().mkdir(kRoot, "f", 0777, caller));
  EXPECT_EQ(v().mkdir(kRoot, "g", 0777, Caller::self())->attr.st_uid, 0U) << "the thread is itself again";
}

TEST_F(VolumeTest, ExtendedAttributes) {
  const std::uint64_t node = write_file(kRoot, "f", "x");
  const auto text = [](const Bytes& b, std::size_t len) { return std::string(as_text(ByteView(b).first(len))); };
  Bytes buffer(4096);
  ASSERT_TRUE(v().setxattr(node, "user.colour", as_bytes("blue"), 0));
  ASSERT_TRUE(v().setxattr(node, "user.empty", {}, 0));
  EXPECT_EQ(*v().getxattr(node, "user.colour", {}), 4U);
  EXPECT_EQ(text(buffer, *v().getxattr(node, "user.colour", buffer)), "blue");
  EXPECT_EQ(*v().getxattr(node, "user.empty", buffer), 0U);
  EXPECT_EQ(errno_in(v().getxattr(node, "user.colour", MutableByteView(buffer).first(3))), ERANGE);
  EXPECT_EQ(errno_in(v().getxattr(node, "user.none", buffer)), ENODATA);
  EXPECT_EQ(errno_in(v().getxattr(node, "system.other", buffer)), EOPNOTSUPP);
  EXPECT_EQ(errno_in(v().setxattr(node, "user.colour", as_bytes("red"), 1 /* XATTR_CREATE */)), EEXIST);
  const std::string names = text(buffer, *v().listxattr(node, buffer));
  EXPECT_NE(names.find(std::string("user.colour\0", 12)), std::string::npos);
  EXPECT_EQ(*v().listxattr(node, {}), names.size());
  ASSERT_TRUE(v().removexattr(node, "user.colour"));
  EXPECT_EQ(errno_in(v().getxattr(node, "user.colour", buffer)), ENODATA);
}

TEST_F(VolumeTest, IsServedByOneProcessOnly) {
  const auto second = make_volume();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kBusy);
}

TEST_F(VolumeTest, IsWaitedForWhileItEnds) {
  std::thread ending([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    volume_.reset();
  });
  const auto next = make_volume();
  ending.join();
  EXPECT_TRUE(next) << next.error().what;
}

TEST_F(VolumeTest, ReadOnlyMeansReadOnly) {
  const std::uint64_t d = mkdir(kRoot, "d");
  write_file(d, "f", "x");
  options_.read_only = true;
  open_volume();
  const std::uint64_t dir = lookup(kRoot, "d");
  const std::uint64_t f = lookup(dir, "f");
  EXPECT_EQ(*read_node(f), "x");
  EXPECT_EQ(errno_in(v().open_file(f, O_RDWR, Caller::self())), EROFS);
  EXPECT_EQ(errno_in(v().create(dir, "g", 0644, O_RDWR, Caller::self())), EROFS);
  EXPECT_EQ(errno_in(v().unlink(dir, "f")), EROFS);
  EXPECT_EQ(errno_in(v().rmdir(kRoot, "d")), EROFS);
  EXPECT_EQ(errno_in(v().rename(kRoot, "d", kRoot, "e", 0)), EROFS);
  EXPECT_EQ(errno_in(v().link(f, kRoot, "g")), EROFS);
  EXPECT_EQ(errno_in(v().setattr(f, {0600, {}, {}, {}, {}, {}})), EROFS);
  EXPECT_EQ(errno_in(v().setxattr(f, "user.a", {}, 0)), EROFS);
  EXPECT_EQ(errno_in(v().removexattr(f, "user.a")), EROFS);
}

TEST_F(VolumeTest, CopiesInside) {
  std::string text;
  for (int i = 0; i < 300'000; ++i) text += static_cast<char>('a' + i % 23);
  const std::uint64_t a = write_file(kRoot, "a", text);
  auto from = v().open_file(a, O_RDONLY, Caller::self());
  auto to = v().create(kRoot, "b", 0644, O_RDWR, Caller::self());
  ASSERT_TRUE(from && to);
  EXPECT_EQ(*v().copy_range(*from->handle, 100, *to->file.handle, 7, 1 << 30), text.size() - 100);
  v().release(std::move(from->handle));
  v().release(std::move(to->file.handle));
  EXPECT_EQ(*read_node(to->entry.nodeid), std::string(7, '\0') + text.substr(100));
}

TEST_F(VolumeTest, AFileMadeBehindTheMountIsOpenedByCreate) {
  const std::uint64_t node = write_file(kRoot, "f", "there");
  EXPECT_EQ(errno_in(v().create(kRoot, "f", 0644, O_RDWR | O_EXCL, Caller::self())), EEXIST);
  auto made = v().create(kRoot, "f", 0644, O_RDWR, Caller::self());
  ASSERT_TRUE(made);
  EXPECT_EQ(made->entry.nodeid, node);
  v().release(std::move(made->file.handle));
  EXPECT_EQ(*read_node(node), "there");
}

TEST_F(VolumeTest, InodesStayReachableWhileDirectoriesMove) {
  const std::uint64_t a = mkdir(kRoot, "a");
  const std::uint64_t b = mkdir(kRoot, "b");
  const std::uint64_t moving = mkdir(a, "m");
  const std::uint64_t sub = mkdir(moving, "sub");
  std::vector<std::uint64_t> files;
  for (int i = 0; i < 8; ++i) files.push_back(write_file(sub, std::to_string(i), std::to_string(i)));
  std::vector<std::uint64_t> crowd;  // pushes descriptors out all the time
  for (int i = 0; i < 300; ++i) crowd.push_back(mkdir(kRoot, "c" + std::to_string(i)));
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    for (int i = 0; i < 300; ++i) {
      const bool there = i % 2 == 0;
      if (!v().rename(there ? a : b, "m", there ? b : a, "m", 0)) ++failures;
    }
    stop = true;
  });
  threads.emplace_back([&] {
    for (std::size_t i = 0; !stop; ++i) {
      if (!v().getattr(files[i % files.size()])) ++failures;
      if (!v().lookup(sub, std::to_string(i % 8))) ++failures;
    }
  });
  threads.emplace_back([&] {
    for (std::size_t i = 0; !stop; ++i) {
      const Result<std::string> text = read_node(files[i % files.size()]);
      if (!text || *text != std::to_string(i % files.size())) ++failures;
      (void)v().lookup(crowd[i % crowd.size()], "none");
    }
  });
  threads.emplace_back([&] {
    for (int i = 0; !stop; ++i) {
      const std::string name = "n" + std::to_string(i % 5);
      const Result<Entry> made = v().mkdir(sub, name, 0755, Caller::self());
      if (made) v().forget(made->nodeid, 1);
      if (made && !v().rmdir(sub, name)) ++failures;
    }
  });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(VolumeTest, ManyThreadsOnOneTree) {
  std::vector<std::thread> threads;
  std::atomic<int> unexpected{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const std::string name = "f" + std::to_string((i + t) % 7);
        auto made = v().create(kRoot, name, 0644, O_RDWR, Caller::self());
        if (made) {
          const std::string text(static_cast<std::size_t>(i) * 50, static_cast<char>('a' + t));
          if (!v().write(*made->file.handle, 0, as_bytes(text), true)) ++unexpected;
          v().release(std::move(made->file.handle));
          v().forget(made->entry.nodeid, 1);
        } else if (const int e = errno_of(made.error()); e != ENOENT && e != ESTALE) {
          ++unexpected;
        }
        if (i % 3 == 0) (void)v().rename(kRoot, name, kRoot, "f" + std::to_string(i % 7), 0);
        if (i % 5 == 0) (void)v().unlink(kRoot, name);
        (void)list(kRoot);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(unexpected, 0);
  for (const std::string& name : list(kRoot)) EXPECT_TRUE(read_node(lookup(kRoot, name))) << name;
}

}  // namespace
}  // namespace ecfs::fs
