#include "setup/messages.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace ecfs::setup {
namespace {

TEST(Messages, ExitCodesAreTheDocumentedOnes) {
  EXPECT_EQ(exit_code_of(Code::kNoKey), 3);
  EXPECT_EQ(exit_code_of(Code::kWrongKey), 4);
  EXPECT_EQ(exit_code_of(Code::kCorrupt), 5);
  EXPECT_EQ(exit_code_of(Code::kDenied), 6);
  EXPECT_EQ(exit_code_of(Code::kNoMemory), 7);
  for (const Code rest : {Code::kNotFound, Code::kInvalid, Code::kUnsupported, Code::kBusy, Code::kNoSpace,
                          Code::kUnavailable, Code::kIo}) {
    EXPECT_EQ(exit_code_of(rest), 1);
  }
  EXPECT_EQ(kExitUsage, 2);
}

TEST(Messages, EveryCodeWithAnExitCodeOfItsOwnHasAHint) {
  EXPECT_NE(hint_of({Code::kNoKey, 0, ""}).find("ecfs mount-private"), std::string::npos);
  EXPECT_NE(hint_of({Code::kWrongKey, 0, ""}).find("recovery key"), std::string::npos);
  EXPECT_NE(hint_of({Code::kCorrupt, 0, ""}).find("backup"), std::string::npos);
  EXPECT_NE(hint_of({Code::kDenied, EACCES, ""}).find("owner"), std::string::npos);
  EXPECT_NE(hint_of({Code::kNoMemory, 0, ""}).find("ulimit -l"), std::string::npos);
  EXPECT_EQ(hint_of({Code::kInvalid, 0, ""}), "");
}

TEST(Messages, FuseErrorsNameTheRemedy) {
  for (const int err : {ENOENT, ENODEV, ENXIO})
    EXPECT_NE(fuse_error(err).what.find("modprobe fuse"), std::string::npos);
  EXPECT_NE(fuse_error(EACCES).what.find("chmod 0666 /dev/fuse"), std::string::npos);
  EXPECT_NE(fuse_error(EPERM).what.find("container"), std::string::npos);
  EXPECT_EQ(fuse_error(ENOENT).code, Code::kUnavailable);
  EXPECT_EQ(fuse_error(EMFILE).sys_errno, EMFILE);
}

TEST(Messages, WithoutATerminalTheOptionsAreNamed) {
  const Error error = no_terminal_error("a passphrase", "--new-passphrase");
  EXPECT_NE(error.what.find("--new-passphrase-fd"), std::string::npos);
  EXPECT_NE(error.what.find("--new-passphrase-file"), std::string::npos);
}

TEST(Messages, ControlCharactersDoNotReachTheTerminal) {
  testing::internal::CaptureStderr();
  report({Code::kCorrupt, 0, "a\x1b[31mb\nc"});
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(said.find('\x1b'), std::string::npos);
  EXPECT_EQ(said.rfind("ecfs: a?[31mb?c\n", 0), 0U);
}

}  // namespace
}  // namespace ecfs::setup
