#include "pam/options.h"

#include <gtest/gtest.h>

#include <array>

namespace ecfs::pam {
namespace {

TEST(Options, DefaultsAreTheInstalledHelperAndFifteenSeconds) {
  const Options options = parse_options({});
  EXPECT_TRUE(options.helper.ends_with("/ecfs/ecfs-login")) << options.helper;
  EXPECT_EQ(options.time_limit_s, 15);
  EXPECT_FALSE(options.silent);
  EXPECT_TRUE(options.unknown.empty());
}

TEST(Options, TakesWhatIsDocumented) {
  const std::array<const char*, 3> arguments = {"helper=/opt/ecfs-login", "time_limit=7", "silent"};
  const Options options = parse_options(arguments);
  EXPECT_EQ(options.helper, "/opt/ecfs-login");
  EXPECT_EQ(options.time_limit_s, 7);
  EXPECT_TRUE(options.silent);
  EXPECT_TRUE(options.unknown.empty());
}

TEST(Options, WhatItCannotUnderstandChangesNothingAndIsNamed) {
  const std::array<const char*, 9> arguments = {"helper=ecfs-login", "time_limit=0",  "time_limit=16",
                                                "time_limit=5s",     "time_limit=-3", "time_limit=99999999999",
                                                "silent=no",         "debug",         ""};
  const Options options = parse_options(arguments);
  EXPECT_TRUE(options.helper.starts_with('/'));
  EXPECT_EQ(options.time_limit_s, 15);
  EXPECT_FALSE(options.silent);
  EXPECT_EQ(options.unknown.size(), arguments.size());
}

}  // namespace
}  // namespace ecfs::pam
