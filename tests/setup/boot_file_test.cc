#include "setup/boot_file.h"

#include <gtest/gtest.h>

#include <map>

namespace ecfs::setup {
namespace {

TEST(BootFile, NamesAreThoseOfSystemdEscape) {
  // `systemd-escape --path` of systemd 252.
  const std::map<std::string, std::string> known = {{"/secret", "secret"},
                                                    {"/srv/secret-1", "srv-secret\\x2d1"},
                                                    {"/.secret", "\\x2esecret"},
                                                    {"/a/.b", "a-.b"},
                                                    {"/with space", "with\\x20space"},
                                                    {"/ä", "\\xc3\\xa4"},
                                                    {"/a_b:c.d", "a_b:c.d"},
                                                    {"/", "-"}};
  for (const auto& [path, name] : known) EXPECT_EQ(unit_escape(path), name) << path;
}

TEST(BootFile, ComesBackAsItWas) {
  const BootFile file{"/srv/.with space", "/srv/with space", "allow_other,noatime"};
  const auto text = build_boot_file(file);
  ASSERT_TRUE(text);
  const auto again = parse_boot_file(*text);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->lower, file.lower);
  EXPECT_EQ(again->mountpoint, file.mountpoint);
  EXPECT_EQ(again->options, file.options);
}

TEST(BootFile, NothingCanLeaveItsValue) {
  for (const char* const bad :
       {"", "/a\"b", "/a\\b", "/a$b", "/a`b", "/a'b", "/a\nLOWER=\"/etc\"", "/a\x7f", "/a\tb"}) {
    EXPECT_FALSE(build_boot_file({bad, "/m", "ro"})) << bad;
    EXPECT_FALSE(build_boot_file({"/l", bad, "ro"})) << bad;
    EXPECT_FALSE(build_boot_file({"/l", "/m", bad})) << bad;
  }
}

TEST(BootFile, OthersAreDamaged) {
  for (const char* const bad :
       {"", "LOWER=\"/l\"\n", "MOUNTPOINT=\"/m\"\nLOWER=\"/l\"\nOPTIONS=\"ro\"\n",
        "LOWER=/l\nMOUNTPOINT=/m\nOPTIONS=ro\n", "LOWER=\"\nMOUNTPOINT=\"/m\"\nOPTIONS=\"ro\"\n",
        "LOWER=\"/l\"\nMOUNTPOINT=\"/m\"\nOPTIONS=\"ro\"\nMORE=\"x\"\n",
        "LOWER=\"/l\"x\"\nMOUNTPOINT=\"/m\"\nOPTIONS=\"ro\"\n"}) {
    EXPECT_FALSE(parse_boot_file(bad)) << bad;
  }
}

}  // namespace
}  // namespace ecfs::setup
