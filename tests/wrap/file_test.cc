#include "wrap/base/file.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>

#include "tests/wrap/testing.h"

namespace ecfs {
namespace {

TEST(ReadFile, PlainFile) {
  const Scratch dir;
  put(dir.fd(), "f", "hello");
  EXPECT_EQ(as_text(ok(read_file(dir.fd(), "f", 5))), "hello");
  put(dir.fd(), "empty", "");
  EXPECT_TRUE(ok(read_file(dir.fd(), "empty", 0)).empty());
  EXPECT_EQ(code_of(read_file(dir.fd(), "none", 5)), Code::kNotFound);
}

TEST(ReadFile, LargerThanAllowedIsCorrupt) {
  const Scratch dir;
  put(dir.fd(), "f", "hello");
  EXPECT_EQ(code_of(read_file(dir.fd(), "f", 4)), Code::kCorrupt);
  put(dir.fd(), "sparse", "");
  ASSERT_EQ(truncate((dir / "sparse").c_str(), off_t{1} << 30), 0);
  EXPECT_EQ(code_of(read_file(dir.fd(), "sparse", 1 << 20)), Code::kCorrupt);
}

TEST(ReadFile, NothingButRegularFiles) {
  const Scratch dir;
  put(dir.fd(), "f", "hello");
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  ASSERT_EQ(mkdir((dir / "dir").c_str(), 0700), 0);
  ASSERT_EQ(symlink("f", (dir / "link").c_str()), 0);
  const Fd socket_fd(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (dir / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  for (const char* name : {"fifo", "dir", "link", "socket"}) {
    EXPECT_EQ(code_of(read_file(dir.fd(), name, 100)), Code::kInvalid) << name;
  }
  EXPECT_EQ(code_of(read_file(AT_FDCWD, "/dev/zero", 100)), Code::kInvalid);
}

TEST(ReadFile, ForeignOwnerIsDenied) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const Scratch dir;
  put(dir.fd(), "f", "hello");
  EXPECT_TRUE(read_file(dir.fd(), "f", 5, 1000)) << "root's files are believed";
  ASSERT_EQ(chown((dir / "f").c_str(), 1001, 1001), 0);
  EXPECT_EQ(code_of(read_file(dir.fd(), "f", 5, 1000)), Code::kDenied);
  EXPECT_TRUE(read_file(dir.fd(), "f", 5, 1001));
  EXPECT_TRUE(read_file(dir.fd(), "f", 5));
}

TEST(OpenDirectory, NotThroughALink) {
  const Scratch dir;
  ASSERT_EQ(mkdir((dir / "d").c_str(), 0700), 0);
  ASSERT_EQ(symlink("d", (dir / "link").c_str()), 0);
  EXPECT_TRUE(open_directory(dir.fd(), "d"));
  EXPECT_FALSE(open_directory(dir.fd(), "link"));
  EXPECT_EQ(code_of(open_directory(dir.fd(), "none")), Code::kNotFound);
}

TEST(MakeDirectory, ExactModeAndOwner) {
  const Scratch dir;
  const mode_t before = umask(0077);
  ok(make_directory(dir.fd(), "d", 0755));
  umask(before);
  struct stat st {};
  ASSERT_EQ(stat((dir / "d").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755U);
  ok(make_directory(dir.fd(), "d", 0700));
  ASSERT_EQ(symlink("d", (dir / "link").c_str()), 0);
  EXPECT_FALSE(make_directory(dir.fd(), "link", 0700));
  if (geteuid() == 0) {
    ASSERT_EQ(chown((dir / "d").c_str(), 1000, 1000), 0);
    EXPECT_EQ(code_of(make_directory(dir.fd(), "d", 0700)), Code::kDenied);
  }
}

TEST(ReplaceFile, OldOrNewAndTheModeAsked) {
  const Scratch dir;
  const mode_t before = umask(0777);
  ok(replace_file(dir.fd(), "f", as_bytes("one"), 0640));
  umask(before);
  struct stat st {};
  ASSERT_EQ(stat((dir / "f").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0640U);
  EXPECT_EQ(as_text(get(dir.fd(), "f")), "one");
  ok(replace_file(dir.fd(), "f", as_bytes("two"), 0600, KeepPrevious::kYes));
  EXPECT_EQ(as_text(get(dir.fd(), "f")), "two");
  EXPECT_EQ(as_text(get(dir.fd(), "f.bak")), "one");
  ok(replace_file(dir.fd(), "g", as_bytes("first"), 0600, KeepPrevious::kYes));
  EXPECT_EQ(code_of(read_file(dir.fd(), "g.bak", 100)), Code::kNotFound);
}

TEST(ReplaceFile, ReplacesALinkAndNotItsTarget) {
  const Scratch dir;
  put(dir.fd(), "target", "keep");
  ASSERT_EQ(symlink("target", (dir / "f").c_str()), 0);
  ok(replace_file(dir.fd(), "f", as_bytes("new"), 0600));
  EXPECT_EQ(as_text(get(dir.fd(), "target")), "keep");
  EXPECT_EQ(as_text(get(dir.fd(), "f")), "new");
}

TEST(ReplaceFile, AFullDiskLeavesTheOldFile) {
  const TinyFilesystem disk(64 * 1024);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount";
  const std::string old(8192, 'o');
  put(disk.fd(), "f", old);
  const Bytes filler(64 * 1024, 'x');
  const Fd fill(openat(disk.fd(), "filler", O_WRONLY | O_CREAT, 0600));
  EXPECT_EQ(code_of(write_all(fill.get(), filler)), Code::kNoSpace);
  for (const KeepPrevious keep : {KeepPrevious::kNo, KeepPrevious::kYes}) {
    EXPECT_EQ(code_of(replace_file(disk.fd(), "f", Bytes(8192, 'n'), 0600, keep)), Code::kNoSpace);
    EXPECT_EQ(as_text(get(disk.fd(), "f")), old);
  }
  const auto left = std::filesystem::directory_iterator(disk.path());
  EXPECT_EQ(std::distance(begin(left), end(left)), 2) << "a temporary file was left";
}

TEST(ReadSecretLine, OneLineAndNothingBehindIt) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const Fd in(ends[0]);
  Fd out(ends[1]);
  ok(write_all(out.get(), as_bytes("first\n\nlast")));
  out.reset();
  EXPECT_EQ(as_text(ok(read_secret_line(in.get())).reveal()), "first");
  EXPECT_EQ(as_text(ok(read_secret_line(in.get())).reveal()), "");
  EXPECT_EQ(as_text(ok(read_secret_line(in.get())).reveal()), "last");
  EXPECT_EQ(code_of(read_secret_line(in.get())), Code::kNotFound);
}

TEST(ReadSecretLine, LimitIsExact) {
  for (const std::size_t len : {std::size_t{8}, std::size_t{9}}) {
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe(ends.data()), 0);
    const Fd in(ends[0]);
    const Fd out(ends[1]);
    ok(write_all(out.get(), as_bytes(std::string(len, 'a') + "\n")));
    const auto line = read_secret_line(in.get(), 8);
    if (len == 8) {
      EXPECT_EQ(ok(line->clone()).size(), 8U);
    } else {
      EXPECT_EQ(code_of(line), Code::kInvalid);
    }
  }
}

}  // namespace
}  // namespace ecfs
