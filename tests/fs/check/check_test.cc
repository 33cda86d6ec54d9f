// The check of a whole lower tree: a clean one gives nothing, each kind of damage is made for real, found, named, and
// put right where that loses nothing. The trees are made by Volume, as a mount makes them.
#include "fs/check.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "fs/format/geometry.h"
#include "fs/format/native_format.h"
#include "fs/lower_names.h"
#include "fs/volume.h"

namespace ecfs::fs {
namespace {

namespace stdfs = std::filesystem;
constexpr std::uint64_t kRoot = InodeTable::kRootId;

struct Told {
  Trouble trouble;
  Severity severity;
  bool repaired;
  std::string lower;
  std::string plain;  // "?" if it is not known
  std::string what;
  std::vector<Ranges::Range> bad;
};

class Watcher final : public CheckWatcher {
 public:
  std::vector<Told> told;
  std::uint64_t bytes = 0;
  std::uint64_t entries = 0;
  std::function<Status()> at_advance;
  bool is_served = false;
  bool served() override { return is_served; }

  void found(const Finding& f) override {
    told.push_back({f.trouble, f.severity, f.repaired, f.lower, f.plain.value_or("?"), f.what,
                    f.bad != nullptr ? f.bad->list() : std::vector<Ranges::Range>()});
  }
  Status advanced(std::uint64_t lower_bytes, std::uint64_t num_entries) override {
    bytes += lower_bytes;
    entries += num_entries;
    return at_advance ? at_advance() : Status();
  }
};

std::ostream& operator<<(std::ostream& out, const std::vector<Told>& told) {
  for (const Told& t : told) {
    out << "\n  " << name_of(t.severity) << " " << name_of(t.trouble) << " " << t.plain << " (" << t.lower
        << "): " << t.what << (t.repaired ? " [repaired]" : "");
  }
  return out;
}

class CheckTree : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "ecfs-check-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    base_ = path;
    lower_ = base_ / "lower";
    stdfs::create_directory(lower_);
    options_.quiet_ms = options_.quiet_served_ms = 0;
    options_.temporary_age_s = 0;
    options_.orphan_age_s = 0;
    format_ = make_format();
  }
  void TearDown() override {
    volume_.reset();
    EXPECT_EQ(std::system(("chmod -R u+rwx '" + base_.string() + "'; rm -rf '" + base_.string() + "'").c_str()), 0);
  }

  std::unique_ptr<Format> make_format() const {
    auto key = Secret::of_size(wrap::kVolumeKeyBytes);
    NativeFormatOptions options;
    options.header.id.fill(7);
    options.header.incompat = sealed_ ? wrap::kIncompatSealedSize : 0;
    auto made = make_native_format(options, *key);
    EXPECT_TRUE(made);
    return *std::move(made);
  }
  Volume& v() {
    if (!volume_) {
      auto made =
          Volume::open(Fd(::open(lower_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), make_format(), VolumeOptions{});
      EXPECT_TRUE(made) << made.error().what;
      volume_ = *std::move(made);
    }
    return *volume_;
  }
  void close_volume() { volume_.reset(); }

  // Plain paths, as in a mount.
  std::uint64_t node(const std::string& path) {
    std::uint64_t at = kRoot;
    for (const auto& part : stdfs::path(path)) {
      auto found = v().lookup(at, part.string());
      if (!found) return 0;
      at = found->nodeid;
    }
    return at;
  }
  std::uint64_t parent(const std::string& path) {
    const stdfs::path above = stdfs::path(path).parent_path();
    return above.empty() ? kRoot : node(above.string());
  }
  static std::string last(const std::string& path) { return stdfs::path(path).filename().string(); }
  std::uint64_t mkdir(const std::string& path) {
    auto made = v().mkdir(parent(path), last(path), 0755, Caller::self());
    EXPECT_TRUE(made) << path;
    return made ? made->nodeid : 0;
  }
  static Bytes data_of(std::size_t len) {
    std::mt19937 random(static_cast<unsigned>(len));
    Bytes data(len);
    for (auto& byte : data) byte = static_cast<std::uint8_t>(random());
    return data;
  }
  void write(const std::string& path, std::size_t len, std::uint64_t offset = 0) {
    auto made = v().create(parent(path), last(path), 0644, O_RDWR, Caller::self());
    ASSERT_TRUE(made) << path << ": " << made.error().what;
    const Bytes data = data_of(len);
    const auto written = v().write(*made->file.handle, offset, data, true);
    EXPECT_TRUE(written && *written == len);
    v().release(std::move(made->file.handle));
  }
  void rename(const std::string& from, const std::string& to) {
    const Status done = v().rename(parent(from), last(from), parent(to), last(to), 0);
    EXPECT_TRUE(done) << from << ": " << (done ? "" : done.error().what);
  }
  std::set<std::string> list(const std::string& path) {
    std::set<std::string> names;
    auto dir = v().opendir(path.empty() ? kRoot : node(path));
    if (!dir) return names;
    (void)v().readdir(**dir, 0, false, [&](const DirEntry& e) {
      if (e.name != "." && e.name != "..") names.emplace(e.name);
      return true;
    });
    return names;
  }

  PathFound found(const std::string& plain) const {
    const Fd root(::open(lower_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    auto place = find_plain(*format_, root.get(), plain);
    EXPECT_TRUE(place) << plain << ": " << (place ? "" : place.error().what);
    return place ? *std::move(place) : PathFound{};
  }
  // The lower path of a plain one.
  stdfs::path at(const std::string& plain) const { return lower_ / found(plain).lower; }
  static void flip(const stdfs::path& path, std::uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(file) << path;
    file.seekg(static_cast<std::streamoff>(offset));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 0x20));
  }

  CheckTotals check() {
    close_volume();
    watcher_ = Watcher();
    watcher_.is_served = served_;
    const Fd root(::open(lower_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto totals = check_tree(root, *format_, options_, watcher_);
    EXPECT_TRUE(totals) << (totals ? "" : totals.error().what);
    return totals ? *totals : CheckTotals{};
  }
  CheckTotals repair() {
    options_.repair = true;
    const CheckTotals totals = check();
    options_.repair = false;
    return totals;
  }
  // The one finding there is.
  Told only(Trouble trouble, const std::string& plain) {
    EXPECT_EQ(watcher_.told.size(), 1U) << watcher_.told;
    if (watcher_.told.size() != 1) return {};
    EXPECT_EQ(name_of(watcher_.told[0].trouble), name_of(trouble)) << watcher_.told;
    EXPECT_EQ(watcher_.told[0].plain, plain);
    return watcher_.told[0];
  }
  void expect_clean() {
    const CheckTotals totals = check();
    EXPECT_TRUE(watcher_.told.empty()) << watcher_.told;
    EXPECT_EQ(totals.num_damaged + totals.num_leftovers + totals.num_unchecked, 0U);
  }
  // All that lies below, with contents: that nothing was changed.
  std::map<std::string, std::string> image() const {
    std::map<std::string, std::string> out;
    for (const auto& entry : stdfs::recursive_directory_iterator(lower_)) {
      const std::string name = stdfs::relative(entry.path(), lower_).string();
      struct stat st {};
      EXPECT_EQ(lstat(entry.path().c_str(), &st), 0);
      out[name] = std::to_string(st.st_mode) + " " + std::to_string(st.st_size) + " " +
                  std::to_string(st.st_mtim.tv_sec) + "." + std::to_string(st.st_mtim.tv_nsec);
      if (S_ISREG(st.st_mode)) {
        std::ifstream file(entry.path(), std::ios::binary);
        out[name] += std::string(std::istreambuf_iterator<char>(file), {});
      }
    }
    return out;
  }

  // A tree with one of each.
  void make_tree() {
    mkdir("Documents");
    mkdir("Documents/old");
    mkdir("Documents/old/deeper");
    rename("Documents/old", "Documents/renamed");
    mkdir("empty");
    write("Documents/tax.pdf", 300'000);
    write("Documents/small", 100);
    write("Documents/renamed/deeper/inside", 5000);
    write("nothing", 0);
    write(long_, 70'000);
    ASSERT_NE(mkdir(std::string(190, 'd')), 0U);
    write(std::string(190, 'd') + "/in a long one", 10);
    write("sparse", 1000, 5 << 20);
    ASSERT_TRUE(v().symlink(kRoot, "link", "Documents/tax.pdf", Caller::self()));
    ASSERT_TRUE(v().mknod(kRoot, "fifo", S_IFIFO | 0644, 0, Caller::self()));
    // A check tells the name that it meets first: so of a file that no test damages.
    ASSERT_TRUE(v().link(node("sparse"), kRoot, "second name"));
    ASSERT_TRUE(v().setxattr(node("Documents/small"), "user.note", as_bytes("value"), 0));
    ASSERT_TRUE(v().setxattr(node("empty"), "user.of a directory", as_bytes("value"), 0));
    close_volume();
  }

  const std::string long_ = std::string(200, 'l');
  stdfs::path base_;
  stdfs::path lower_;
  bool sealed_ = false;
  bool served_ = false;
  std::unique_ptr<Format> format_;
  std::unique_ptr<Volume> volume_;
  CheckOptions options_;
  Watcher watcher_;
};

TEST_F(CheckTree, ACleanTreeGivesNothingAndIsCounted) {
  make_tree();
  const auto before = image();
  const CheckTotals totals = check();
  EXPECT_TRUE(watcher_.told.empty()) << watcher_.told;
  EXPECT_EQ(totals.num_dirs, 6U);
  EXPECT_EQ(totals.num_files, 7U);
  EXPECT_EQ(totals.num_links, 1U);
  EXPECT_EQ(totals.num_special, 1U);
  EXPECT_EQ(totals.num_more_names, 1U);
  EXPECT_EQ(totals.num_sparse, 1U);
  EXPECT_EQ(totals.plain_bytes, 300'000U + 100 + 5000 + 70'000 + 10 + 1000 + (5U << 20));
  EXPECT_EQ(totals.lost_bytes, 0U);
  const Fd root(::open(lower_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto size = count_tree(root);
  ASSERT_TRUE(size);
  EXPECT_EQ(watcher_.entries, size->num_entries);
  EXPECT_GE(size->lower_bytes, watcher_.bytes);
  options_.quick = true;
  expect_clean();
  options_.quick = false;
  EXPECT_EQ(repair().num_repaired, 0U);
  EXPECT_EQ(image(), before) << "nothing to repair, nothing changed";
}

TEST_F(CheckTree, ASealedVolumeIsClean) {
  sealed_ = true;
  format_ = make_format();
  make_tree();
  expect_clean();
  stdfs::resize_file(at("Documents/tax.pdf"), Geometry(12).lower_size(262144));
  check();
  EXPECT_NE(only(Trouble::kFile, "Documents/tax.pdf").what.find("sealed with 300000 bytes"), std::string::npos);
  stdfs::resize_file(at("nothing"), 0);
  EXPECT_EQ(check().num_damaged, 2U);
}

TEST_F(CheckTree, BadBlocksAreNamedWithTheirRanges) {
  make_tree();
  const Geometry g(12);
  flip(at("Documents/tax.pdf"), g.data_offset(2) + 7);
  flip(at("Documents/tax.pdf"), g.data_offset(3));
  flip(at("Documents/tax.pdf"), g.data_offset(64) + 100);
  const auto before = image();
  const CheckTotals totals = check();
  const Told told = only(Trouble::kBlocks, "Documents/tax.pdf");
  EXPECT_EQ(told.severity, Severity::kDamage);
  EXPECT_EQ(told.bad, (std::vector<Ranges::Range>{{8192, 16384}, {64 * 4096, 65 * 4096}}));
  EXPECT_EQ(told.lower, stdfs::relative(at("Documents/tax.pdf"), lower_));
  EXPECT_EQ(totals.num_damaged, 1U);
  EXPECT_EQ(totals.lost_bytes, 3 * 4096U);
  EXPECT_EQ(repair().num_damaged, 1U) << "contents are never thrown away";
  EXPECT_EQ(image(), before);
  options_.quick = true;
  expect_clean();  // as quick says: no block is read
}

TEST_F(CheckTree, ADamagedHeaderIsNamed) {
  make_tree();
  flip(at("Documents/small"), 40);
  options_.quick = true;
  check();
  only(Trouble::kFile, "Documents/small");
  options_.quick = false;
  EXPECT_EQ(check().lost_bytes, 100U);
  only(Trouble::kFile, "Documents/small");
}

TEST_F(CheckTree, FilesOfOddSizes) {
  make_tree();
  stdfs::resize_file(at("Documents/small"), 100);  // inside its contents
  check();
  only(Trouble::kFile, "Documents/small");
  stdfs::resize_file(at("Documents/small"), 40);
  check();
  EXPECT_EQ(only(Trouble::kEmptyRemains, "Documents/small").severity, Severity::kNote);
  stdfs::remove(at("Documents/small"));
  stdfs::resize_file(at("Documents/tax.pdf"), 3000);  // inside its first page
  check();
  only(Trouble::kFile, "Documents/tax.pdf");
  stdfs::resize_file(at(long_), 50'000);
  check();
  EXPECT_EQ(watcher_.told.size(), 2U) << watcher_.told;
}

TEST_F(CheckTree, LeftoversOfInterruptionsArePutRight) {
  make_tree();
  const Geometry g(12);
  const stdfs::path small = at("Documents/small");
  const stdfs::path tax = at("Documents/tax.pdf");
  stdfs::resize_file(small, 9000);  // as when it was about to become PAGED
  flip(tax, g.meta_offset(1) + 30);
  flip(tax, g.entry_offset(1) + 31);  // the pending bit is bit 7 there; 0x20 makes the length wrong
  flip(tax, g.entry_offset(1) + 31);
  {
    std::fstream file(tax, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(g.entry_offset(1) + 31));
    file.put(static_cast<char>(0x80));
  }
  // Block 5: what is on the disk is the version before.
  {
    std::fstream file(tax, std::ios::in | std::ios::out | std::ios::binary);
    std::array<char, 32> version{};
    file.seekg(static_cast<std::streamoff>(g.entry_offset(5)));
    file.read(version.data(), version.size());
    file.seekp(static_cast<std::streamoff>(g.entry_offset(5) + 32));
    file.write(version.data(), version.size());
    version[3] = static_cast<char>(version[3] ^ 0x55);
    file.seekp(static_cast<std::streamoff>(g.entry_offset(5)));
    file.write(version.data(), version.size());
  }
  struct stat was {};
  ASSERT_EQ(lstat(tax.c_str(), &was), 0);
  CheckTotals totals = check();
  EXPECT_EQ(totals.num_leftovers, 2U) << watcher_.told;
  EXPECT_EQ(totals.num_damaged, 0U);
  served_ = true;  // somebody may have it open: marks are right then
  check();
  for (const Told& told : watcher_.told) EXPECT_EQ(told.what.find("marked"), std::string::npos);
  served_ = false;
  totals = repair();
  EXPECT_EQ(totals.num_repaired, 2U) << watcher_.told;
  EXPECT_EQ(totals.num_leftovers, 0U);
  struct stat is {};
  ASSERT_EQ(lstat(tax.c_str(), &is), 0);
  EXPECT_EQ(is.st_mtim.tv_sec, was.st_mtim.tv_sec);
  EXPECT_EQ(is.st_mtim.tv_nsec, was.st_mtim.tv_nsec) << "no change by anybody";
  EXPECT_EQ(stdfs::file_size(small), 164U);
  expect_clean();
}

TEST_F(CheckTree, NamesThatDoNotDecode) {
  make_tree();
  // Moved by hand, in the lower tree.
  stdfs::rename(at("Documents/small"), at("empty") / at("Documents/small").filename());
  stdfs::rename(at("Documents/tax.pdf"), at("Documents/renamed") / at("Documents/tax.pdf").filename());
  const CheckTotals totals = check();
  EXPECT_EQ(totals.num_damaged, 2U) << watcher_.told;
  for (const Told& told : watcher_.told) {
    const bool in_empty = told.plain == "empty";
    // In a directory of nothing else it cannot be told from a lost id.
    EXPECT_EQ(told.trouble, in_empty ? Trouble::kDirId : Trouble::kName) << watcher_.told;
    EXPECT_EQ(told.plain, in_empty ? "empty" : "?");
  }
  const auto before = image();
  EXPECT_EQ(repair().num_repaired, 0U);
  EXPECT_EQ(image(), before);
}

TEST_F(CheckTree, AMissingSideFile) {
  make_tree();
  const PathFound place = found(long_);
  stdfs::remove(lower_ / place.side_file);
  EXPECT_EQ(list("").count(long_), 0U);
  const CheckTotals totals = check();
  const Told told = only(Trouble::kSideFile, "?");
  EXPECT_EQ(told.lower, place.lower);
  EXPECT_EQ(told.severity, Severity::kDamage);
  EXPECT_NE(told.what.find("missing"), std::string::npos);
  EXPECT_EQ(totals.num_damaged, 1U);
  EXPECT_EQ(repair().num_damaged, 1U) << "a hash does not give the name back";
  options_.known_names = {"wrong", "some/path/" + long_};
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  EXPECT_EQ(watcher_.told[0].plain, long_);
  EXPECT_EQ(list("").count(long_), 1U);
  expect_clean();
}

TEST_F(CheckTree, SideFilesThatWereExchanged) {
  make_tree();
  const PathFound a = found(long_);
  const PathFound b = found(std::string(190, 'd'));
  stdfs::rename(lower_ / a.side_file, lower_ / "x");
  stdfs::rename(lower_ / b.side_file, lower_ / a.side_file);
  stdfs::rename(lower_ / "x", lower_ / b.side_file);
  EXPECT_EQ(check().num_damaged, 2U) << watcher_.told;
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told << "\none put right by exchanging it with the other";
  expect_clean();
}

TEST_F(CheckTree, AWrongSideFileIsKept) {
  make_tree();
  const PathFound a = found(long_);
  const PathFound b = found(std::string(190, 'd'));
  stdfs::rename(lower_ / b.side_file, lower_ / a.side_file);  // a's is lost, b's is in its place
  EXPECT_EQ(check().num_damaged, 2U) << watcher_.told;
  options_.known_names = {long_};
  const CheckTotals totals = repair();
  EXPECT_EQ(totals.num_repaired, 2U) << watcher_.told;
  EXPECT_EQ(list("").count(long_) + list("").count(std::string(190, 'd')), 2U);
}

TEST_F(CheckTree, ASideFileFromAConflictingCopy) {
  make_tree();
  const PathFound a = found(long_);
  stdfs::rename(lower_ / a.side_file, (lower_ / a.side_file).string() + " (conflicted copy)");
  EXPECT_EQ(check().num_damaged, 1U) << watcher_.told;
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  EXPECT_EQ(list("").count(long_), 1U);
}

TEST_F(CheckTree, ADamagedSideFile) {
  make_tree();
  const PathFound place = found(long_);
  stdfs::permissions(lower_ / place.side_file, stdfs::perms(0644));
  flip(lower_ / place.side_file, 20);
  check();
  EXPECT_NE(only(Trouble::kSideFile, "?").what.find("not its own"), std::string::npos);
  // Something else in its place is kept, too.
  stdfs::remove(lower_ / place.side_file);
  stdfs::create_directory(lower_ / place.side_file);
  std::ofstream(lower_ / place.side_file / "precious") << "x";
  EXPECT_EQ(check().num_damaged, 1U) << watcher_.told;
  EXPECT_EQ(repair().num_damaged, 1U) << watcher_.told;
  options_.known_names = {long_};
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  EXPECT_TRUE(stdfs::exists(lower_ / (".ecfs-replaced-1-" + place.side_file) / "precious"));
  stdfs::remove(lower_ / place.side_file);
  ASSERT_EQ(mkfifo((lower_ / place.side_file).c_str(), 0644), 0);
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  EXPECT_TRUE(stdfs::is_fifo(lower_ / (".ecfs-replaced-2-" + place.side_file)));
  EXPECT_EQ(list("").count(long_), 1U);
  EXPECT_EQ(check().num_damaged, 0U) << watcher_.told;
}

TEST_F(CheckTree, AnOrphanedSideFile) {
  make_tree();
  const PathFound place = found(long_);
  stdfs::remove(lower_ / place.lower);
  options_.orphan_age_s = 86'400;
  check();
  EXPECT_EQ(only(Trouble::kSideOrphan, "?").severity, Severity::kNote) << "its entry may still come";
  EXPECT_EQ(repair().num_repaired, 0U);
  EXPECT_TRUE(stdfs::exists(lower_ / place.side_file));
  options_.orphan_age_s = 0;
  check();
  EXPECT_EQ(only(Trouble::kSideOrphan, "?").severity, Severity::kLeftover);
  EXPECT_EQ(repair().num_repaired, 1U);
  EXPECT_FALSE(stdfs::exists(lower_ / place.side_file));
  expect_clean();
}

TEST_F(CheckTree, ASideFileThatAConflictingCopyNeeds) {
  make_tree();
  const PathFound place = found(long_);
  stdfs::rename(lower_ / place.lower, lower_ / (place.lower + " (conflicted copy)"));
  EXPECT_EQ(repair().num_repaired, 0U) << watcher_.told;
  const Told told = watcher_.told.at(0);
  EXPECT_EQ(watcher_.told.size(), 1U) << watcher_.told;
  EXPECT_EQ(told.trouble, Trouble::kConflict);
  EXPECT_TRUE(told.plain.starts_with(long_));
  EXPECT_TRUE(stdfs::exists(lower_ / place.side_file)) << "nothing else holds the copy's name";
}

TEST_F(CheckTree, ADirectoryIdThatIsDamaged) {
  make_tree();
  // Of a directory in its old place: the derived id is the right one, as its names prove.
  rename("Documents", "D");
  rename("D", "Documents");
  const stdfs::path file = at("Documents") / ".ecfs-dir";
  const auto good = image();
  stdfs::permissions(file, stdfs::perms(0644));
  flip(file, 20);
  CheckTotals totals = check();
  Told told = only(Trouble::kDirId, "Documents");
  EXPECT_NE(told.what.find("damaged"), std::string::npos);
  EXPECT_NE(told.what.find("right one was found"), std::string::npos);
  EXPECT_EQ(totals.num_files, 7U) << "and looked further under it";
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  expect_clean();
  const auto now = image();
  EXPECT_EQ(now.size(), good.size());
  EXPECT_EQ(list("Documents"), (std::set<std::string>{"tax.pdf", "small", "renamed"}));
}

TEST_F(CheckTree, ADirectoryIdThatIsLost) {
  make_tree();
  const stdfs::path dir = at("Documents/renamed");
  stdfs::remove(dir / ".ecfs-dir");
  const auto before = image();
  CheckTotals totals = check();
  Told told = only(Trouble::kDirId, "Documents/renamed");
  EXPECT_NE(told.what.find("missing"), std::string::npos);
  EXPECT_EQ(totals.num_files, 7U) << "contents need no names";
  EXPECT_EQ(repair().num_damaged, 1U);
  EXPECT_EQ(image(), before);
  options_.known_names = {"other", "Documents/old"};
  totals = check();
  EXPECT_NE(only(Trouble::kDirId, "Documents/renamed").what.find("right one was found"), std::string::npos);
  options_.known_names = {"old"};  // the name alone, in the same directory
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  options_.known_names.clear();
  expect_clean();
  EXPECT_EQ(list("Documents/renamed"), std::set<std::string>{"deeper"});
}

TEST_F(CheckTree, ADirectoryIdOfAnotherDirectory) {
  make_tree();
  mkdir("other");
  rename("other", "another");
  write("another/file", 10);
  stdfs::copy_file(at("another") / ".ecfs-dir", at("empty") / ".ecfs-dir");
  expect_clean();  // no name in it yet: it says what to take
  stdfs::copy_file(at("another") / ".ecfs-dir", at("Documents") / ".ecfs-dir");
  EXPECT_TRUE(list("Documents").empty());
  check();
  EXPECT_NE(only(Trouble::kDirId, "Documents").what.find("not that of its names"), std::string::npos);
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  EXPECT_EQ(list("Documents"), (std::set<std::string>{"tax.pdf", "small", "renamed"}));
  EXPECT_EQ(check().num_damaged, 0U);
  EXPECT_EQ(only(Trouble::kKept, "?").severity, Severity::kNote) << "it might have been the last copy of that id";
  stdfs::rename(at("Documents") / ".ecfs-replaced-1-ecfs-dir", base_ / "kept");
  std::ifstream kept(base_ / "kept");
  std::ifstream other(at("another") / ".ecfs-dir");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(kept), {}),
            std::string(std::istreambuf_iterator<char>(other), {}));
  expect_clean();
}

TEST_F(CheckTree, WhatIsInThePlaceOfAnIdIsKept) {
  make_tree();
  for (const std::string what : {"a link", "a directory", "a large file"}) {
    SCOPED_TRACE(what);
    const stdfs::path file = at("Documents") / ".ecfs-dir";
    const stdfs::path kept = at("Documents") / ".ecfs-replaced-1-ecfs-dir";
    if (what == "a link") {
      stdfs::create_symlink("/etc/passwd", file);
    } else if (what == "a directory") {
      stdfs::create_directory(file);
      std::ofstream(file / "precious") << "x";
    } else {
      std::ofstream(file) << std::string(1000, 'x');
    }
    EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
    EXPECT_NE(only(Trouble::kDirId, "Documents").what.find("kept beside it as .ecfs-replaced-1-ecfs-dir"),
              std::string::npos);
    EXPECT_TRUE(stdfs::is_regular_file(stdfs::symlink_status(file)));
    EXPECT_EQ(list("Documents"), (std::set<std::string>{"tax.pdf", "small", "renamed"}));
    if (what == "a link") {
      EXPECT_EQ(stdfs::read_symlink(kept), "/etc/passwd");
    } else {
      EXPECT_TRUE(what == "a directory" ? stdfs::exists(kept / "precious") : stdfs::file_size(kept) == 1000);
    }
    stdfs::remove_all(kept);
    expect_clean();
    stdfs::remove(file);
  }
}

TEST_F(CheckTree, ADirectoryOfTwoIds) {
  make_tree();
  mkdir("other");
  rename("other", "another");
  write("another/file", 10);
  // A program that synchronises put the contents of two directories into one.
  stdfs::copy_file(at("another/file"), at("Documents") / at("another/file").filename());
  stdfs::copy_file(at("another") / ".ecfs-dir", at("Documents") / ".ecfs-dir");
  const CheckTotals totals = check();
  EXPECT_EQ(totals.num_damaged, 3U) << watcher_.told;
  for (const Told& told : watcher_.told) {
    EXPECT_NE(told.what.find("merges two directories"), std::string::npos) << told.what;
  }
}

TEST_F(CheckTree, AnEmptyDirectoryWithADamagedId) {
  make_tree();
  std::ofstream(at("empty") / ".ecfs-dir") << "rubbish";
  check();
  EXPECT_NE(only(Trouble::kDirId, "empty").what.find("empty"), std::string::npos);
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;
  expect_clean();
  write("empty/file", 3);
  expect_clean();
}

TEST_F(CheckTree, TemporaryFiles) {
  make_tree();
  std::ofstream(at("Documents") / ".ecfs-tmp-0123456789abcdef") << "x";
  std::ofstream(lower_ / ".ecfs-tmp-1") << "y";
  stdfs::create_directory(lower_ / ".ecfs-tmp-dir");
  std::ofstream(lower_ / ".ecfs-tmp-large") << std::string(1000, 'z');  // not one of ours
  std::ofstream(lower_ / ".ecfs-new") << "y";
  std::ofstream(lower_ / ".ecfs-volume") << "not looked at here";
  options_.temporary_age_s = 600;
  EXPECT_EQ(check().num_leftovers, 0U) << "they may be in use";
  options_.temporary_age_s = 0;
  CheckTotals totals = check();
  EXPECT_EQ(totals.num_leftovers, 2U) << watcher_.told;
  EXPECT_EQ(totals.of_trouble[static_cast<std::size_t>(Trouble::kUnknownOurs)], 3U);
  EXPECT_EQ(repair().num_repaired, 2U);
  EXPECT_FALSE(stdfs::exists(lower_ / ".ecfs-tmp-1"));
  EXPECT_TRUE(stdfs::exists(lower_ / ".ecfs-tmp-dir"));
  EXPECT_TRUE(stdfs::exists(lower_ / ".ecfs-tmp-large"));
  EXPECT_TRUE(stdfs::exists(lower_ / ".ecfs-new"));
  EXPECT_EQ(check().num_leftovers, 0U);
}

TEST_F(CheckTree, ForeignNamesAndConflictingCopies) {
  make_tree();
  std::ofstream(lower_ / ".DS_Store") << "x";
  stdfs::create_directory(lower_ / ".stfolder");
  std::ofstream(lower_ / ".stfolder" / "not entered") << "x";
  const stdfs::path tax = at("Documents/tax.pdf");
  stdfs::copy_file(tax, tax.string() + " (conflicted copy 2024-01-01)");
  const stdfs::path long_one = at(long_);
  stdfs::copy_file(long_one, long_one.string() + ".sync-conflict-1");
  CheckTotals totals = check();
  EXPECT_EQ(totals.num_damaged, 0U) << watcher_.told;
  EXPECT_EQ(totals.of_trouble[static_cast<std::size_t>(Trouble::kForeign)], 2U) << watcher_.told;
  EXPECT_EQ(totals.of_trouble[static_cast<std::size_t>(Trouble::kConflict)], 2U) << watcher_.told;
  // They may be somebody's only copy: their contents are looked at too.
  flip(tax.string() + " (conflicted copy 2024-01-01)", 5000);
  totals = check();
  EXPECT_EQ(totals.num_damaged, 1U) << watcher_.told;
}

TEST_F(CheckTree, LinksAndAttributesThatDoNotDecode) {
  make_tree();
  const stdfs::path link = at("link");
  std::string target = stdfs::read_symlink(link).string();
  target[10] = target[10] == 'A' ? 'B' : 'A';
  stdfs::remove(link);
  stdfs::create_symlink(target, link);
  check();
  only(Trouble::kLink, "link");
  stdfs::remove(link);
  for (const std::string& plain : {std::string("Documents/small"), std::string("empty")}) {
    const stdfs::path path = at(plain);
    std::array<char, 1024> names{};
    ASSERT_GT(listxattr(path.c_str(), names.data(), names.size()), 0);
    std::array<char, 1024> value{};
    const ssize_t len = getxattr(path.c_str(), names.data(), value.data(), value.size());
    ASSERT_GT(len, 0);
    value[static_cast<std::size_t>(len) - 1] ^= 1;
    ASSERT_EQ(setxattr(path.c_str(), names.data(), value.data(), static_cast<std::size_t>(len), 0), 0);
    check();
    EXPECT_NE(only(Trouble::kXattr, plain).what.find("value"), std::string::npos);
    ASSERT_EQ(removexattr(path.c_str(), names.data()), 0);
    ASSERT_EQ(setxattr(path.c_str(), "user.ecfs.AAAA", "x", 1, 0), 0);
    ASSERT_EQ(setxattr(path.c_str(), "user.of.somebody.else", "x", 1, 0), 0);
    check();
    EXPECT_NE(only(Trouble::kXattr, plain).what.find("name"), std::string::npos);
    ASSERT_EQ(removexattr(path.c_str(), "user.ecfs.AAAA"), 0);
  }
  expect_clean();
}

// Every byte of a few small lower files, flipped in turn: each is reported, or is where the format says that it has no
// effect.
TEST_F(CheckTree, EveryFlippedByteOfSmallFilesIsReported) {
  write("inline", 50);
  write("paged", 4100);
  mkdir("dir");
  rename("dir", "moved");
  write("moved/file", 1);
  write(long_, 0);
  close_volume();
  expect_clean();
  int reported = 0;
  int without = 0;
  const std::vector<std::pair<stdfs::path, std::uint64_t>> files = {
      {at("inline"), 114},
      {at("paged"), 4096 + 4100},
      {at("moved") / ".ecfs-dir", 40},
      {lower_ / found(long_).side_file, stdfs::file_size(lower_ / found(long_).side_file)}};
  for (const auto& [path, size] : files) {
    ASSERT_EQ(stdfs::file_size(path), size);
    stdfs::permissions(path, stdfs::perms(0644));
    for (std::uint64_t offset = 0; offset < size; offset += offset < 4200 ? 1 : 41) {
      flip(path, offset);
      const CheckTotals totals = check();
      flip(path, offset);
      const bool unseen = size > 4096 && offset >= kFileHeaderBytes && offset < kPageBytes &&
                          ((offset - 64) / 64 >= 2 || offset % 64 >= 32);
      ASSERT_EQ(totals.num_damaged, unseen ? 0U : 1U) << path << " " << offset << watcher_.told;
      ++(unseen ? without : reported);
    }
  }
  std::printf("%d flips reported, %d without effect as specified\n", reported, without);
  expect_clean();
}

TEST_F(CheckTree, WhatMayNotBeReadIsNotCalledDamaged) {
  if (geteuid() == 0) {
    make_tree();
    stdfs::permissions(at("Documents/small"), stdfs::perms(0));
    stdfs::permissions(at("Documents/renamed"), stdfs::perms(0));
    stdfs::permissions(at("empty"), stdfs::perms(0444));
    std::ofstream(at("empty") / ".ecfs-dir") << "seen by root alone";
    close_volume();
    const CheckTotals as_root = check();
    EXPECT_EQ(as_root.num_damaged, 1U);
    ASSERT_EQ(std::system(("chown -R 65534:65534 '" + base_.string() + "'").c_str()), 0);
    ASSERT_EQ(seteuid(65534), 0);
    const CheckTotals totals = check();
    ASSERT_EQ(seteuid(0), 0);
    EXPECT_EQ(totals.num_damaged, 0U) << watcher_.told;
    EXPECT_EQ(totals.num_unchecked, 3U) << watcher_.told;
  } else {
    GTEST_SKIP() << "SKIPPED: needs root, to be somebody else";
  }
}

TEST_F(CheckTree, ALowerTreeOfHostileThings) {
  make_tree();
  const stdfs::path dir = at("Documents");
  // Under names that decode, and under others.
  const stdfs::path in_the_way = at("Documents/small");
  stdfs::remove(in_the_way);
  ASSERT_EQ(mkfifo(in_the_way.c_str(), 0644), 0);
  for (int i = 0; i < 50; ++i) ASSERT_EQ(mkfifo((lower_ / ("fifo" + std::to_string(i))).c_str(), 0644), 0);
  const stdfs::path long_place = lower_ / found(long_).side_file;
  stdfs::remove(long_place);
  stdfs::create_symlink("/dev/zero", long_place);
  stdfs::create_symlink("/dev/zero", dir / ".ecfs-dir");
  stdfs::create_symlink("/", lower_ / "way-out");
  if (geteuid() == 0) {
    EXPECT_EQ(mknod((lower_ / "zero").c_str(), S_IFCHR | 0666, makedev(1, 5)), 0);
    EXPECT_EQ(mknod((dir / "dev").c_str(), S_IFBLK | 0666, makedev(7, 0)), 0);
  }
  const auto begun = std::chrono::steady_clock::now();
  const CheckTotals totals = check();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(20));
  EXPECT_EQ(totals.num_damaged, 2U) << watcher_.told;     // the side file, and the id of Documents
  EXPECT_EQ(repair().num_repaired, 1U) << watcher_.told;  // the id: the link in its place is replaced, not followed
  EXPECT_EQ(totals.num_special, 2U);
}

TEST_F(CheckTree, ADeepTreeAndAWideOne) {
  std::uint64_t at_node = kRoot;
  for (int i = 0; i < 150; ++i) {
    auto made = v().mkdir(at_node, "deeper and deeper", 0755, Caller::self());
    ASSERT_TRUE(made);
    at_node = made->nodeid;
  }
  for (int i = 0; i < 1000; ++i) {
    auto made = v().mknod(at_node, "file " + std::to_string(i), S_IFREG | 0644, 0, Caller::self());
    ASSERT_TRUE(made);
  }
  close_volume();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{64, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const CheckTotals totals = check();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(totals.num_dirs, 151U);
  EXPECT_EQ(totals.num_files, 1000U);
  EXPECT_TRUE(watcher_.told.empty()) << watcher_.told;
}

TEST_F(CheckTree, StopsWhenItsWatcherSays) {
  make_tree();
  close_volume();
  int left = 5;
  watcher_.at_advance = [&] { return --left > 0 ? Status() : Status(Error{Code::kIo, EINTR, "interrupted"}); };
  const Fd root(::open(lower_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto totals = check_tree(root, *format_, options_, watcher_);
  ASSERT_FALSE(totals);
  EXPECT_EQ(totals.error().what, "interrupted");
}

// --- Salvage

TEST_F(CheckTree, SalvageTakesWhatVerifies) {
  make_tree();
  const Geometry g(12);
  flip(at("Documents/tax.pdf"), g.data_offset(2) + 7);
  flip(at(long_), 30);               // the header: every block is there
  flip(at("Documents/small"), 100);  // INLINE: all is lost
  stdfs::remove(at("Documents/renamed") / ".ecfs-dir");
  const auto before = image();
  const stdfs::path to = base_ / "salvaged";
  stdfs::create_directory(to);
  auto salvage = Salvage::open(Fd(::open(to.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  ASSERT_TRUE(salvage);
  options_.salvage = &*salvage;
  const CheckTotals totals = check();
  EXPECT_EQ(image(), before);
  EXPECT_EQ(totals.num_salvaged, 3U) << watcher_.told;
  const auto read = [](const stdfs::path& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file) << path;
    const std::string text(std::istreambuf_iterator<char>(file), {});
    return Bytes(text.begin(), text.end());
  };
  Bytes tax = data_of(300'000);
  std::fill(tax.begin() + 8192, tax.begin() + 12288, std::uint8_t{0});
  EXPECT_EQ(read(to / "files/Documents/tax.pdf"), tax);
  EXPECT_EQ(read(to / "files" / long_), data_of(70'000));
  EXPECT_FALSE(stdfs::exists(to / "files/Documents/small"));
  // Names lost, contents not.
  std::vector<stdfs::path> nameless;
  for (const auto& e : stdfs::recursive_directory_iterator(to / "files/Documents/renamed")) {
    if (e.is_regular_file()) nameless.push_back(e.path());
  }
  ASSERT_EQ(nameless.size(), 1U);
  EXPECT_EQ(read(nameless[0]), data_of(5000));
  std::ifstream list(to / "list.txt");
  const std::string text(std::istreambuf_iterator<char>(list), {});
  EXPECT_NE(text.find("Documents/tax.pdf: 4096 of 300000 bytes are lost and read as zeros: 8192-12287\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("Documents/small: nothing of it verifies\n"), std::string::npos) << text;
  EXPECT_FALSE(Salvage::open(Fd(::open(to.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)))) << "not into a used one";
}

TEST_F(CheckTree, ZerosIntoWhatDoesNotVerify) {
  make_tree();
  const Geometry g(12);
  const stdfs::path tax = at("Documents/tax.pdf");
  for (const std::uint64_t block : {0U, 1U, 40U, 73U})
    flip(tax, g.data_offset(block) + 1);  // 73: the last, a short one
  LowerFile lower(Fd(::open(tax.c_str(), O_RDWR | O_CLOEXEC)), true);
  const auto zeroed = zero_bad(*format_, lower);
  ASSERT_TRUE(zeroed) << zeroed.error().what;
  const std::vector<Ranges::Range> want = {{0, 8192}, {40 * 4096, 41 * 4096}, {73 * 4096, 300'000}};
  EXPECT_EQ(zeroed->list(), want);
  expect_clean();
  Bytes now(300'000);
  const auto contents = format_->open_contents(lower);
  ASSERT_TRUE(contents);
  EXPECT_TRUE((*contents)->read(0, now));
  Bytes expected = data_of(300'000);
  for (const Ranges::Range& r : want) {
    std::fill(expected.begin() + static_cast<std::ptrdiff_t>(r.begin),
              expected.begin() + static_cast<std::ptrdiff_t>(r.end), std::uint8_t{0});
  }
  EXPECT_EQ(now, expected);
  EXPECT_TRUE(zero_bad(*format_, lower)->empty());
  flip(tax, 30);
  LowerFile again(Fd(::open(tax.c_str(), O_RDWR | O_CLOEXEC)), true);
  EXPECT_FALSE(zero_bad(*format_, again)) << "without its header nothing can be written either";
}

// --- While it is mounted

TEST_F(CheckTree, WhatIsBeingWrittenIsLookedAtAgain) {
  make_tree();
  const stdfs::path tax = at("Documents/tax.pdf");
  flip(tax, 5000);
  options_.quiet_ms = 1500;  // longer than a busy machine leaves the threads below alone
  // Somebody puts it right before it has been left alone for long enough.
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    flip(tax, 5000);
  });
  const CheckTotals totals = check();
  writer.join();
  EXPECT_EQ(totals.num_damaged, 0U) << watcher_.told;
  // And what stays damaged is told, after that time.
  flip(tax, 5000);
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(check().num_damaged, 1U);
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(300));
  // What changes all the time is said to, and not called damaged.
  std::atomic<bool> stop{false};
  std::atomic<int> changes{0};
  std::thread restless([&] {
    for (; !stop; ++changes) {
      chmod(tax.c_str(), 0644);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  while (changes == 0) std::this_thread::yield();
  const CheckTotals unsure = check();
  stop = true;
  restless.join();
  EXPECT_EQ(unsure.num_damaged, 0U) << watcher_.told;
  EXPECT_EQ(unsure.num_unchecked, 1U) << watcher_.told;
}

TEST_F(CheckTree, NoFalseAlarmWhileTheVolumeIsWritten) {
  make_tree();
  Volume& volume = v();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> operations{0};
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w) {
    writers.emplace_back([&, w] {
      std::mt19937 random(static_cast<unsigned>(w));
      const auto below = [&](std::uint64_t n) { return random() % n; };
      const std::uint64_t dir = volume.mkdir(kRoot, "busy" + std::to_string(w), 0755, Caller::self())->nodeid;
      Bytes data(200'000, 0x31);
      while (!stop) {
        const std::string name = std::string(below(2) == 0 ? 1 : 180, 'n') + std::to_string(below(6));
        const std::string other = std::string(below(2) == 0 ? 1 : 180, 'o') + std::to_string(below(6));
        switch (below(8)) {
          case 0: (void)volume.rename(dir, name, dir, other, 0); break;
          case 1: (void)volume.unlink(dir, other); break;
          case 2:
            (void)volume.mkdir(dir, "d" + name, 0755, Caller::self());
            (void)volume.rename(dir, "d" + name, dir, "d" + other, 0);
            (void)volume.rmdir(dir, "d" + other);
            break;
          default: {
            auto made = volume.create(dir, name, 0644, O_RDWR, Caller::self());
            std::unique_ptr<FileHandle> handle;
            if (made) {
              handle = std::move(made->file.handle);
            } else if (auto found = volume.lookup(dir, name)) {
              if (auto opened = volume.open_file(found->nodeid, O_RDWR, Caller::self()))
                handle = std::move(opened->handle);
            }
            if (!handle) break;
            for (int i = 0; i < 10; ++i) {
              (void)volume.write(*handle, below(600'000), ByteView(data).first(1 + below(data.size())), true);
            }
            if (below(3) == 0) {
              AttrChange change;
              change.size = below(300'000);
              (void)volume.setattr(handle->inode->id, change);
            }
            volume.release(std::move(handle));
          }
        }
        ++operations;
      }
    });
  }
  options_.quiet_served_ms = 10'000;
  options_.temporary_age_s = 600;
  options_.orphan_age_s = 86'400;
  const Fd root(::open(lower_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(6);
  int rounds = 0;
  do {
    Watcher watcher;
    watcher.is_served = true;
    const auto totals = check_tree(root, *format_, options_, watcher);
    ASSERT_TRUE(totals) << totals.error().what;
    EXPECT_EQ(totals->num_damaged, 0U) << watcher.told;
    EXPECT_EQ(totals->num_leftovers, 0U) << watcher.told;
    ++rounds;
  } while (std::chrono::steady_clock::now() < until && !HasFailure());
  stop = true;
  for (std::thread& writer : writers) writer.join();
  std::printf("%d checks during %llu operations\n", rounds, static_cast<unsigned long long>(operations.load()));
  EXPECT_GT(operations, 50U);
  options_ = {};
  options_.quiet_ms = 0;
  expect_clean();
}

// --- Names both ways

TEST_F(CheckTree, PathsAreFoundBothWays) {
  make_tree();
  const Fd root(::open(lower_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const std::string& plain :
       {std::string("Documents/tax.pdf"), std::string("Documents/renamed/deeper/inside"), long_,
        std::string(190, 'd') + "/in a long one", std::string("link"), std::string("empty")}) {
    const PathFound there = found(plain);
    EXPECT_TRUE(there.exists && there.sure) << plain;
    const auto back = find_lower(*format_, root.get(), there.lower);
    ASSERT_TRUE(back) << back.error().what;
    EXPECT_EQ(back->plain, plain);
    EXPECT_TRUE(back->exists);
  }
  EXPECT_EQ(found(long_).side_file, found(long_).lower + ".n");
  EXPECT_EQ(find_lower(*format_, root.get(), found(long_).side_file)->plain, long_);
  // What is not there (any more) has a name too.
  const PathFound gone = found("Documents/renamed/gone");
  EXPECT_FALSE(gone.exists);
  EXPECT_TRUE(gone.sure);
  write("Documents/renamed/gone", 1);
  close_volume();
  EXPECT_TRUE(stdfs::exists(lower_ / gone.lower));
  const PathFound unsure = found("no such/directory/file");
  EXPECT_FALSE(unsure.exists || unsure.sure);
  EXPECT_EQ(found("").lower, "");
  EXPECT_EQ(found("./Documents//small/").lower, found("Documents/small").lower);
  EXPECT_FALSE(find_plain(*format_, root.get(), "Documents/../x"));
  EXPECT_FALSE(find_plain(*format_, root.get(), "Documents/small/below a file"));
  EXPECT_FALSE(find_lower(*format_, root.get(), "not-of-this-volume"));
  EXPECT_FALSE(find_lower(*format_, root.get(), ".ecfs-volume"));
  EXPECT_FALSE(find_lower(*format_, root.get(), found("empty").lower + "/" + found("Documents/small").entry));
  // A conflicting copy, as show-conflicts names it.
  const stdfs::path tax = at("Documents/tax.pdf");
  stdfs::copy_file(tax, tax.string() + " (conflicted copy)");
  const auto shown =
      find_lower(*format_, root.get(), stdfs::relative(tax.string() + " (conflicted copy)", lower_).string());
  ASSERT_TRUE(shown) << shown.error().what;
  EXPECT_TRUE(shown->plain.starts_with("Documents/tax.pdf.ecfs-conflict-")) << shown->plain;
  EXPECT_EQ(lower_ / found(shown->plain).lower, tax.string() + " (conflicted copy)");
}

}  // namespace
}  // namespace ecfs::fs
