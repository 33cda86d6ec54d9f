#include "wrap/config.h"

#include <sys/stat.h>

#include "tests/wrap/testing.h"

namespace ecfs::wrap {
namespace {

TEST(Config, Settings) {
  const Config c =
      ok(parse_config(as_bytes("# policy\n"
                               "login_time_limit = 9   # short\r\n"
                               "\t unmount_busy=kill\n\n"
                               "unmount_wait = 0\n"
                               "ask_services = login, gdm-password\tsddm\n"
                               "tpm_tcti = device:/dev/tpm0\n"
                               "tpm_reseal = yes")));
  EXPECT_EQ(c.login_time_limit_s, 9);
  EXPECT_EQ(c.unmount_busy, BusyPolicy::kKill);
  EXPECT_EQ(c.unmount_wait_s, 0);
  EXPECT_EQ(c.ask_services, (std::vector<std::string>{"login", "gdm-password", "sddm"}));
  EXPECT_EQ(c.tpm_tcti, "device:/dev/tpm0");
  EXPECT_TRUE(c.tpm_reseal);
}

TEST(Config, NothingGivesTheDefaults) {
  for (const char* text : {"", "\n", "# only\n#words = 3", "   \t\r\n"}) {
    const Config c = ok(parse_config(as_bytes(text)));
    EXPECT_EQ(c.login_time_limit_s, 15);
    EXPECT_EQ(c.unmount_busy, BusyPolicy::kWait);
    EXPECT_EQ(c.unmount_wait_s, 10);
    EXPECT_EQ(c.ask_services.size(), 5U);
  }
  EXPECT_TRUE(ok(parse_config(as_bytes("ask_services ="))).ask_services.empty());
}

TEST(Config, WhatIsNotUnderstoodIsNamedByItsLine) {
  for (const char* bad :
       {"login_time_limit = 0", "login_time_limit = 16", "login_time_limit = 1x",
        "login_time_limit =", "login_time_limit = -1", "login_time_limit = 99999999999999999999", "unmount_wait = 601",
        "unmount_busy = Kill", "unmount_busy = ", "no_such = 1", "= 1", "word", "ask_services = a/b",
        "tpm_tcti = cmd:id", "tpm_tcti =", "tpm_reseal = maybe", "unmount_wait = 1\nunmount_wait = 1", "\x01 = 2"}) {
    const std::string text = std::string("# first\n") + bad;
    const Error e = failure_of(parse_config(as_bytes(text)));
    EXPECT_EQ(e.code, Code::kInvalid) << bad;
    EXPECT_EQ(e.what.find(text.find('\n', 9) == std::string::npos ? "line 2: " : "line 3: "), 0U) << e.what;
  }
  std::string many = "ask_services =";
  for (int i = 0; i < 33; ++i) many += " s";
  EXPECT_EQ(code_of(parse_config(as_bytes(many))), Code::kInvalid);
}

TEST(Config, FileIsRootsAlone) {
  const Scratch dir;
  EXPECT_EQ(ok(load_config(dir / "none")).login_time_limit_s, 15);
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  put(dir.fd(), "conf", "unmount_wait = 3\n", 0644);
  const std::string path = dir / "conf";
  EXPECT_EQ(ok(load_config(path)).unmount_wait_s, 3);
  ASSERT_EQ(chmod(path.c_str(), 0664), 0);
  EXPECT_EQ(code_of(load_config(path)), Code::kDenied);
  ASSERT_EQ(chmod(path.c_str(), 0646), 0);
  EXPECT_EQ(code_of(load_config(path)), Code::kDenied);
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  ASSERT_EQ(chown(path.c_str(), 1000, 0), 0);
  EXPECT_EQ(code_of(load_config(path)), Code::kDenied);
  ASSERT_EQ(chown(path.c_str(), 0, 0), 0);
  put(dir.fd(), "conf", "unmount_wait = x\n", 0644);
  const Error e = failure_of(load_config(path));
  EXPECT_EQ(e.what.find(path + ": line 1: "), 0U) << e.what;
  ASSERT_EQ(truncate(path.c_str(), 1 << 20), 0);
  EXPECT_EQ(code_of(load_config(path)), Code::kCorrupt);
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(mkfifo(path.c_str(), 0644), 0);
  EXPECT_EQ(code_of(load_config(path)), Code::kInvalid);
}

}  // namespace
}  // namespace ecfs::wrap
