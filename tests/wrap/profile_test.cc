#include "wrap/profile.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>

#include "tests/wrap/testing.h"

namespace ecfs::wrap {
namespace {

Profile sample() {
  Profile p;
  p.name = "Private";
  p.lower = "/home/alice/.Private";
  p.mountpoint = "/home/alice/Private \xc3\xa4\"\\";
  p.volume_id.fill(0xab);
  p.auto_unmount = false;
  p.options = {"noatime", "ro,show-conflicts"};
  return p;
}

Result<Profile> parse(std::string_view json) { return parse_profile("Private", as_bytes(json)); }

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  const auto at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), with);
}

TEST(Profile, ThereAndBack) {
  const Profile p = sample();
  const std::string json = ok(build_profile(p));
  const Profile q = ok(parse(json));
  EXPECT_EQ(q.name, p.name);
  EXPECT_EQ(q.lower, p.lower);
  EXPECT_EQ(q.mountpoint, p.mountpoint);
  EXPECT_EQ(q.format, "native");
  EXPECT_EQ(q.volume_id, p.volume_id);
  EXPECT_TRUE(q.auto_mount);
  EXPECT_FALSE(q.auto_unmount);
  EXPECT_FALSE(q.slots_in_volume);
  EXPECT_EQ(q.options, p.options);
  EXPECT_EQ(ok(build_profile(q)), json);
}

TEST(Profile, UnknownMembersAreIgnored) {
  const std::string json = ok(build_profile(sample()));
  EXPECT_TRUE(parse(replaced(json, "\"version\"", "\"later\": {\"deep\": [1, [2, {}]]}, \"version\"")));
}

TEST(Profile, HostileTextsAreRefused) {
  const std::string good = ok(build_profile(sample()));
  const std::pair<const char*, const char*> kChanges[] = {
      {"\"version\": 1", "\"version\": \"1\""},
      {"\"version\": 1", "\"version\": -1"},
      {"\"version\": 1", "\"version\": 1.0"},
      {"\"version\": 1,", ""},
      {"\"lower\": \"/home/alice/.Private\"", "\"lower\": 5"},
      {"\"lower\": \"/home", "\"lower\": \"home"},
      {"\"lower\": \"/home/alice", "\"lower\": \"/home/../alice"},
      {"/.Private\"", "/..\""},
      {"/.Private\"", "/a\\u0000b\""},
      {"/.Private\"", "/a\\nb\""},
      {"/.Private\"", "/a\xff\""},
      {"/.Private\"", "/a\\ud800\""},
      {"\"lower\": \"/home/alice/.Private\",", ""},
      {"\"mountpoint\": \"/", "\"mountpoint\": \""},
      {"\"format\": \"native\"", "\"format\": \"\""},
      {"\"format\": \"native\"", "\"format\": \"a/b\""},
      {"\"format\": \"native\"", "\"format\": null"},
      {"abababab", "ababab"},
      {"abababab", "abababag"},
      {"\"auto_mount\": true", "\"auto_mount\": 1"},
      {"\"auto_unmount\": false", "\"auto_unmount\": \"false\""},
      {"\"slots_in_volume\": false", "\"slots_in_volume\": []"},
      {"\"noatime\"", "7"},
      {"\"noatime\"", "\"a\\u001b\""},
      {"\"options\"", "\"option\""},
      {"{", "[{"},
      {"}", "} x"},
      {"}", ""},
  };
  for (const auto& [from, to] : kChanges) {
    EXPECT_EQ(code_of(parse(replaced(good, from, to))), Code::kCorrupt) << from << " -> " << to;
  }
  EXPECT_EQ(code_of(parse(replaced(good, "\"version\": 1", "\"version\": 2"))), Code::kUnsupported);
  EXPECT_EQ(code_of(parse(replaced(good, to_hex(sample().volume_id), std::string(32, '0')))), Code::kCorrupt);
  for (const char* bad : {"", "null", "[]", "5", "\"x\"", "{}", "{\"version\":1}"}) {
    EXPECT_EQ(code_of(parse(bad)), Code::kCorrupt) << bad;
  }
  EXPECT_EQ(code_of(parse(std::string(65000, '['))), Code::kCorrupt);
  std::string deep = "{\"a\":";
  for (int i = 0; i < 10000; ++i) deep += "{\"a\":";
  EXPECT_EQ(code_of(parse(deep)), Code::kCorrupt);
  EXPECT_EQ(code_of(parse(good + std::string(65536, ' '))), Code::kCorrupt);
  std::string options;
  for (int i = 0; i < 33; ++i) options += "\"ro\", ";
  EXPECT_EQ(code_of(parse(replaced(good, "\"noatime\"", options + "\"ro\""))), Code::kCorrupt);
}

TEST(Profile, WhatJsonCannotCarryIsNotBuilt) {
  Profile p = sample();
  p.lower = "/home/\xe4lice";  // Latin-1
  const Error e = failure_of(build_profile(p));
  EXPECT_EQ(e.code, Code::kInvalid);
  EXPECT_NE(e.what.find("not UTF-8"), std::string::npos) << e.what;
  p = sample();
  p.mountpoint = "relative";
  EXPECT_EQ(code_of(build_profile(p)), Code::kInvalid);
  p.mountpoint = "/" + std::string(4095, 'x');
  EXPECT_EQ(code_of(build_profile(p)), Code::kInvalid);
  p.mountpoint = "/" + std::string(4094, 'x');
  EXPECT_TRUE(build_profile(p));
  p.name = "../x";
  EXPECT_EQ(code_of(build_profile(p)), Code::kInvalid);
}

TEST(Profile, Names) {
  for (const char* good : {"Private", "a", "A.b_c-9", "0", "_x"}) EXPECT_TRUE(valid_profile_name(good)) << good;
  for (const char* bad : {"", ".", "..", ".hidden", "-x", "a/b", "a b", "\xc3\xa4", "a\n"}) {
    EXPECT_FALSE(valid_profile_name(bad)) << bad;
  }
  EXPECT_TRUE(valid_profile_name(std::string(64, 'x')));
  EXPECT_FALSE(valid_profile_name(std::string(65, 'x')));
  EXPECT_FALSE(valid_profile_name(std::string_view("a\0b", 3)));
}

class ProfileDirs : public testing::Test {
 protected:
  ProfileDirs() {
    who = ok(identity_of(geteuid()));
    who.home = home / "alice";
    who.name = "alice";
    EXPECT_EQ(mkdir(who.home.c_str(), 0755), 0);
  }
  Scratch home;
  Identity who;
};

TEST_F(ProfileDirs, MadeFoundAndListed) {
  EXPECT_EQ(code_of(open_profiles_dir(who)), Code::kNotFound);
  const Fd dir = ok(make_profiles_dir(who));
  struct stat st {};
  ASSERT_EQ(fstat(dir.get(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700U);
  EXPECT_TRUE(ok(list_profiles(dir.get())).empty());
  for (const char* name : {"b", "Private", "-bad", "empty"}) ASSERT_EQ(mkdirat(dir.get(), name, 0700), 0);
  for (const char* name : {"b", "Private", "-bad"}) {
    const Fd sub = ok(open_directory(dir.get(), name));
    ok(save_profile(sub.get(), sample()));
  }
  put(dir.get(), "file", "x");
  ASSERT_EQ(symlinkat("b", dir.get(), "link"), 0);
  EXPECT_EQ(ok(list_profiles(dir.get())), (std::vector<std::string>{"Private", "b"}));
  EXPECT_EQ(ok(list_profiles(dir.get())).size(), 2U) << "listing twice";
  const OpenProfile open = ok(open_profile(ok(open_profiles_dir(who)).get(), "b"));
  EXPECT_EQ(open.profile.name, "b");
  EXPECT_EQ(open.profile.lower, sample().lower);
  EXPECT_FALSE(open_profile(dir.get(), "link"));
  EXPECT_EQ(code_of(open_profile(dir.get(), "none")), Code::kNotFound);
  EXPECT_EQ(code_of(open_profile(dir.get(), "empty")), Code::kNotFound);
  EXPECT_EQ(code_of(open_profile(dir.get(), "../alice")), Code::kInvalid);
}

TEST_F(ProfileDirs, NotThroughALinkNorAnothersHands) {
  ASSERT_EQ(mkdir((home / "elsewhere").c_str(), 0700), 0);
  ASSERT_EQ(symlink((home / "elsewhere").c_str(), (who.home + "/.ecfs").c_str()), 0);
  EXPECT_FALSE(open_profiles_dir(who));
  EXPECT_FALSE(make_profiles_dir(who));
  ASSERT_EQ(unlink((who.home + "/.ecfs").c_str()), 0);
  const Fd dir = ok(make_profiles_dir(who));
  for (const mode_t mode : {0770U, 0707U, 0720U, 0702U}) {
    ASSERT_EQ(fchmod(dir.get(), mode), 0);
    EXPECT_EQ(code_of(open_profiles_dir(who)), Code::kDenied) << mode;
  }
  ASSERT_EQ(fchmod(dir.get(), 0755), 0);
  EXPECT_TRUE(open_profiles_dir(who));
  ASSERT_EQ(mkdirat(dir.get(), "Private", 0700), 0);
  const Fd sub = ok(open_directory(dir.get(), "Private"));
  ok(save_profile(sub.get(), sample()));
  ASSERT_EQ(fchmod(sub.get(), 0777), 0);
  EXPECT_EQ(code_of(open_profile(dir.get(), "Private")), Code::kDenied);
  if (geteuid() != 0) return;
  ASSERT_EQ(fchmod(sub.get(), 0700), 0);
  ASSERT_EQ(fchown(sub.get(), 1001, 1001), 0);
  EXPECT_EQ(code_of(open_profile(dir.get(), "Private")), Code::kDenied);
  ASSERT_EQ(fchown(dir.get(), 1001, 1001), 0);
  EXPECT_EQ(code_of(open_profiles_dir(who)), Code::kDenied);
}

TEST_F(ProfileDirs, HostileProfileFiles) {
  const Fd dir = ok(make_profiles_dir(who));
  ASSERT_EQ(mkdirat(dir.get(), "Private", 0700), 0);
  const Fd sub = ok(open_directory(dir.get(), "Private"));
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(mkfifoat(sub.get(), "profile.json", 0600), 0);
  EXPECT_EQ(code_of(open_profile(dir.get(), "Private")), Code::kInvalid);
  ASSERT_EQ(unlinkat(sub.get(), "profile.json", 0), 0);
  ASSERT_EQ(symlinkat("/etc/passwd", sub.get(), "profile.json"), 0);
  EXPECT_EQ(code_of(open_profile(dir.get(), "Private")), Code::kInvalid);
  EXPECT_TRUE(ok(list_profiles(dir.get())).empty());
  ASSERT_EQ(unlinkat(sub.get(), "profile.json", 0), 0);
  put(sub.get(), "profile.json", "");
  ASSERT_EQ(truncate((who.home + "/.ecfs/Private/profile.json").c_str(), off_t{1} << 30), 0);
  EXPECT_EQ(code_of(open_profile(dir.get(), "Private")), Code::kCorrupt);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(ProfileDirs, AWholeHomeIsLookedForFirst) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root: what is beside the homes is root's";
  const Fd inner = ok(make_profiles_dir(who));
  ASSERT_EQ(mkdir((home / ".ecfs").c_str(), 0755), 0);
  struct stat a {};
  struct stat b {};
  ASSERT_EQ(fstat(inner.get(), &a), 0);
  ASSERT_EQ(fstat(ok(open_profiles_dir(who)).get(), &b), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
  ASSERT_EQ(mkdir((home / ".ecfs/alice").c_str(), 0755), 0);
  ASSERT_EQ(mkdir((home / ".ecfs/alice/.ecfs").c_str(), 0700), 0);
  ASSERT_EQ(stat((home / ".ecfs/alice/.ecfs").c_str(), &a), 0);
  ASSERT_EQ(fstat(ok(open_profiles_dir(who)).get(), &b), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
  ASSERT_EQ(chmod((home / ".ecfs").c_str(), 0777), 0);
  EXPECT_EQ(code_of(open_profiles_dir(who)), Code::kDenied);
}

TEST(VolumeLock, OneAtATimeAndWithALimit) {
  const Scratch dir;
  Fd first = ok(lock_volume(dir.fd(), 0));
  struct stat st {};
  ASSERT_EQ(stat((dir / "lock").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600U);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(code_of(lock_volume(dir.fd(), 200)), Code::kBusy);
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(took, std::chrono::milliseconds(150));
  EXPECT_LT(took, std::chrono::seconds(3));
  const pid_t pid = fork();  // a holder that dies lets go
  if (pid == 0) {
    first.reset();
    _exit(0);
  }
  first.reset();
  waitpid(pid, nullptr, 0);
  EXPECT_TRUE(lock_volume(dir.fd(), 0));
}

TEST(VolumeLock, NotThroughALinkOrFifo) {
  const Scratch dir;
  put(dir.fd(), "target", "");
  ASSERT_EQ(symlink("target", (dir / "lock").c_str()), 0);
  EXPECT_FALSE(lock_volume(dir.fd(), 0));
  ASSERT_EQ(unlink((dir / "lock").c_str()), 0);
  ASSERT_EQ(mkfifo((dir / "lock").c_str(), 0600), 0);
  EXPECT_EQ(code_of(lock_volume(dir.fd(), 0)), Code::kInvalid);
}

TEST(StaleMark, SetAndTakenAway) {
  const Scratch dir;
  OpenProfile volume;
  volume.profile.name = "stale-mark-test";
  for (const bool of_ecryptfs_utils : {false, true}) {
    SCOPED_TRACE(of_ecryptfs_utils);
    volume.dir = ok(open_directory(dir.fd(), "."));
    volume.of_ecryptfs_utils = of_ecryptfs_utils;
    EXPECT_FALSE(has_stale_mark(volume));
    ok(set_stale_mark(volume, false));
    ok(set_stale_mark(volume, true));
    EXPECT_TRUE(has_stale_mark(volume));
    EXPECT_EQ(ok(list_directory(dir.fd(), 9)).empty(), of_ecryptfs_utils);
    ok(set_stale_mark(volume, true));
    ok(set_stale_mark(volume, false));
    EXPECT_FALSE(has_stale_mark(volume));
  }
  ok(set_stale_mark(volume, true));
  ok(replace_file(dir.fd(), "wrapped-passphrase", as_bytes("another"), 0600));
  EXPECT_FALSE(has_stale_mark(volume));
  ok(set_stale_mark(volume, true));
  EXPECT_TRUE(has_stale_mark(volume));
  ok(set_stale_mark(volume, false));
}

}  // namespace
}  // namespace ecfs::wrap
