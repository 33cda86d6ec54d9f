#include "wrap/mount.h"

#include "tests/wrap/testing.h"

namespace ecfs::wrap {
namespace {

TEST(MountOptions, ComeBackAsTheyWere) {
  EXPECT_EQ(build_mount_options({}), "");
  MountOptions all;
  all.read_only = all.no_atime = all.allow_other = all.show_conflicts = all.shared = true;
  all.unsealed_report = all.suspend = all.hibernate = true;
  all.idle_s = 90;
  EXPECT_EQ(ok(parse_mount_options({build_mount_options(all)})), all);
  EXPECT_EQ(ok(parse_mount_options({"rw,noauto", "user", "x-gvfs-hide", ""})), MountOptions());
  EXPECT_EQ(code_of(parse_mount_options({"ro,nonsense"})), Code::kInvalid);
}

TEST(MountOptions, IdleIsInMinutesUnlessItSaysOtherwise) {
  const auto idle = [](std::string_view text) { return parse_mount_options({"idle=" + std::string(text)}); };
  EXPECT_EQ(ok(idle("10")).idle_s, 600U);
  EXPECT_EQ(ok(idle("10m")).idle_s, 600U);
  EXPECT_EQ(ok(idle("3s")).idle_s, 3U);
  EXPECT_EQ(ok(idle("2h")).idle_s, 7200U);
  EXPECT_EQ(ok(idle("8760h")).idle_s, kMaxIdleSeconds);
  for (const char* bad :
       {"", "s", "0", "0s", "-1", "+1", "1.5", "1d", " 1", "1 ", "8761h", "4294967295", "99999999999"}) {
    EXPECT_EQ(code_of(idle(bad)), Code::kInvalid) << bad;
  }
}

}  // namespace
}  // namespace ecfs::wrap
