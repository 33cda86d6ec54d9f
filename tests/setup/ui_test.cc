#include "setup/ui.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "wrap/base/file.h"
#include "wrap/base/process.h"

namespace ecfs::setup {
namespace {

std::string text_of(const Secret& secret) { return std::string(as_text(secret.reveal())); }

class TempDir : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(path_.data()), nullptr); }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name, const std::string& contents, mode_t mode = 0600) {
    std::string path = path_ + "/" + name;
    const Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    EXPECT_TRUE(write_all(fd.get(), as_bytes(contents)));
    EXPECT_EQ(fchmod(fd.get(), mode), 0);
    return path;
  }
  std::string path_ = "/tmp/ecfs-ui-XXXXXX";
};
using ReadSecret = TempDir;

SecretSource from_file(const std::string& path) {
  SecretSource source;
  source.file = path;
  return source;
}

TEST_F(ReadSecret, TakesTheFirstLineOfAFile) {
  auto secret = read_secret(from_file(file("f", "  the line \nanother\n")), "");
  ASSERT_TRUE(secret);
  EXPECT_EQ(text_of(*secret), "  the line ");
  secret = read_secret(from_file(file("f", "no newline")), "");
  ASSERT_TRUE(secret);
  EXPECT_EQ(text_of(*secret), "no newline");
}

TEST_F(ReadSecret, RefusesWhatIsNoSecret) {
  EXPECT_EQ(read_secret(from_file(file("f", "\n")), "").error().code, Code::kInvalid);
  EXPECT_EQ(read_secret(from_file(file("f", "")), "").error().code, Code::kNotFound);
  EXPECT_EQ(read_secret(from_file(file("f", std::string("a\0b\n", 4))), "").error().code, Code::kInvalid);
  EXPECT_EQ(read_secret(from_file(file("f", std::string(5000, 'x'))), "").error().code, Code::kInvalid);
  EXPECT_EQ(read_secret(from_file(file("f", std::string(70000, '\n'))), "").error().code, Code::kCorrupt);
  EXPECT_EQ(read_secret(from_file(path_ + "/none"), "").error().code, Code::kNotFound);
}

TEST_F(ReadSecret, RefusesWhatIsNoRegularFile) {
  const std::string fifo = path_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(read_secret(from_file(fifo), "").error().code, Code::kInvalid);
  EXPECT_EQ(read_secret(from_file(path_), "").error().code, Code::kInvalid);
  EXPECT_EQ(read_secret(from_file("/dev/zero"), "").error().code, Code::kInvalid);
  const std::string link = path_ + "/link";
  ASSERT_EQ(symlink(file("f", "text\n").c_str(), link.c_str()), 0);
  EXPECT_EQ(read_secret(from_file(link), "").error().code, Code::kInvalid);
}

TEST_F(ReadSecret, WarnsWhenOthersCanReadTheFile) {
  testing::internal::CaptureStderr();
  EXPECT_TRUE(read_secret(from_file(file("closed", "text\n", 0600)), ""));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  for (const mode_t mode : {0640U, 0604U, 0620U}) {
    testing::internal::CaptureStderr();
    EXPECT_TRUE(read_secret(from_file(file("open", "text\n", mode)), ""));
    EXPECT_NE(testing::internal::GetCapturedStderr().find("can be read by others"), std::string::npos) << mode;
  }
}

TEST(ReadSecretFd, TwoSecretsComeFromOneDescriptorInTurn) {
  auto pipe = make_pipe();
  ASSERT_TRUE(pipe);
  ASSERT_TRUE(write_all(pipe->write_end.get(), as_bytes("old\nnew\n")));
  SecretSource source;
  source.fd = pipe->read_end.get();
  auto first = read_secret(source, "");
  auto second = read_new_secret(source, "");
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  EXPECT_EQ(text_of(*first), "old");
  EXPECT_EQ(text_of(*second), "new");
}

TEST(ReadSecretFd, ABadDescriptorIsNamed) {
  SecretSource source;
  source.fd = 1000;
  source.option = "--new-passphrase";
  const auto secret = read_secret(source, "");
  ASSERT_FALSE(secret);
  EXPECT_NE(secret.error().what.find("--new-passphrase-fd 1000"), std::string::npos);
}

TEST(WeakPassphrase, ShortAndUserNamesAreWeakLongOnesAreNot) {
  const auto weak = [](std::string_view text) {
    auto secret = Secret::copy_of(as_bytes(text));
    return secret ? weak_passphrase(*secret, "somebody") : "no secret";
  };
  EXPECT_NE(weak("abc"), "");
  EXPECT_NE(weak("somebody"), "");
  EXPECT_EQ(weak("correct horse 4711 battery"), "");
}

TEST(SignalGuard, NotesASignalAndPutsTheOldHandlerBack) {
  struct sigaction before {};
  sigaction(SIGTERM, nullptr, &before);
  {
    const SignalGuard guard;
    EXPECT_TRUE(check_signals());
    raise(SIGTERM);
    EXPECT_EQ(caught_signal(), SIGTERM);
    const Status done = check_signals();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().sys_errno, EINTR);
  }
  struct sigaction after {};
  sigaction(SIGTERM, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

}  // namespace
}  // namespace ecfs::setup
