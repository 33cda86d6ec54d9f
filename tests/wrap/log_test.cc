#include "wrap/base/log.h"

#include "tests/wrap/testing.h"

namespace ecfs {
namespace {

TEST(Log, PrintableKeepsUtf8AndDropsControl) {
  EXPECT_EQ(printable("plain ~ text"), "plain ~ text");
  EXPECT_EQ(printable("\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x91"), "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x91");
  EXPECT_EQ(printable("a\nb\tc\x1b[31m\x7f"), "a?b?c?[31m?");
  EXPECT_EQ(printable(std::string_view("\0x", 2)), "?x");
  EXPECT_EQ(printable("\xc2\x9b"), "??");            // C1: CSI
  EXPECT_EQ(printable("\xc0\xaf"), "??");            // overlong
  EXPECT_EQ(printable("\xed\xa0\x80"), "???");       // surrogate
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "????");  // above U+10FFFF
  EXPECT_EQ(printable("\xe2\x82"), "??");            // cut short
  EXPECT_EQ(printable("\xff\xfe"), "??");
}

TEST(Log, EscapedNamesAreToldApart) {
  EXPECT_EQ(escaped("plain \\ text \xc3\xa4"), "plain \\ text \xc3\xa4");
  EXPECT_EQ(escaped("a\n\x1b[31m\x7f"), "a\\x0a\\x1b[31m\\x7f");
  EXPECT_EQ(escaped("a\\x0a\n"), "a\\\\x0a\\x0a") << "a backslash beside them is doubled";
  EXPECT_EQ(escaped("\xff\xc2\x9b"), "\\xff\\xc2\\x9b");
}

TEST(Log, OneLineWhateverItHolds) {
  testing::internal::CaptureStderr();
  log_line(LOG_ERR, "one\ntwo");
  log_line(LOG_DEBUG, "not shown");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "ecfs: one?two\n");
}

TEST(Result, ErrnoAndCode) {
  EXPECT_EQ(code_of_errno(ENOSPC), Code::kNoSpace);
  EXPECT_EQ(code_of_errno(EDQUOT), Code::kNoSpace);
  EXPECT_EQ(code_of_errno(EROFS), Code::kDenied);
  EXPECT_EQ(code_of_errno(EUCLEAN), Code::kIo);
  EXPECT_EQ(errno_of(Error{Code::kWrongKey, 0, ""}), EACCES);
  EXPECT_EQ(errno_of(Error{Code::kCorrupt, 0, ""}), EIO);
  EXPECT_EQ(errno_of(system_error(EBUSY, "x")), EBUSY);
  EXPECT_EQ(with_context(system_error(ENOENT, "open x"), "volume").what, "volume: open x: No such file or directory");
}

TEST(ResultDeath, LookingAtTheMissingOneAborts) {
  const Result<int> bad = Error{};
  const Result<int> good = 1;
  EXPECT_DEATH((void)*bad, "");
  EXPECT_DEATH((void)good.error(), "");
}

}  // namespace
}  // namespace ecfs
