// What ecryptfs-utils leaves in ~/.ecryptfs: its files as hostile input, and the home that ecryptfs-setup-private made.
#include "wrap/ecryptfs_private.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/wrap/testing.h"
#include "wrap/wrapped_passphrase.h"

namespace ecfs::wrap {
namespace {

constexpr const char* kContents = "849d6b79848a0296";
constexpr const char* kNames = "9487d0e1beb5be83";
constexpr const char* kMountPassphrase = "0123456789abcdef0123456789abcdef";

TEST(EcryptfsPrivate, SignaturesAreOneOrTwoLines) {
  const auto both = ok(parse_private_sig(as_bytes("849d6b79848a0296\n9487d0e1beb5be83\n")));
  EXPECT_EQ(to_hex(both.contents), kContents);
  EXPECT_EQ(to_hex(both.names.value()), kNames);
  for (const char* one : {"849d6b79848a0296", "849d6b79848a0296\n", "849D6B79848A0296 \r\n\n"}) {
    const auto only = ok(parse_private_sig(as_bytes(one)));
    EXPECT_EQ(to_hex(only.contents), kContents);
    EXPECT_FALSE(only.names.has_value());
  }
  const std::string nul("849d6b79848a0296\0", 17);
  for (const std::string& none :
       {std::string(), std::string("\n"), std::string("849d6b79848a029"), std::string("849d6b79848a02966"),
        std::string("849d6b79848a029g\n"), std::string(" 849d6b79848a0296"),
        std::string("849d6b79848a0296 9487d0e1beb5be83"), nul,
        std::string("849d6b79848a0296\n9487d0e1beb5be83\n9487d0e1beb5be83\n"), std::string(257, '\n')}) {
    EXPECT_EQ(code_of(parse_private_sig(as_bytes(none))), Code::kCorrupt) << none;
  }
}

TEST(EcryptfsPrivate, TheMountpointIsOneAbsolutePath) {
  EXPECT_EQ(ok(parse_private_mnt(as_bytes("/home/a/Private\n"))), "/home/a/Private");
  EXPECT_EQ(ok(parse_private_mnt(as_bytes("/home/a b/Priv\xc3\xa4t//"))), "/home/a b/Priv\xc3\xa4t");
  for (const std::string& none : {std::string(), std::string("\n"), std::string("Private\n"),
                                  std::string("/home/../etc"), std::string("/a\n/b\n"), std::string("/a\x1b[2J"),
                                  "/" + std::string(4095, 'a'), std::string("/a\0b", 4), std::string("/\xff")}) {
    EXPECT_EQ(code_of(parse_private_mnt(as_bytes(none))), Code::kCorrupt) << none;
  }
}

// A home with ~/.ecryptfs, as of this process's user.
class EcryptfsHome : public testing::Test {
 protected:
  EcryptfsHome() {
    mkdir((home / "alice").c_str(), 0700);
    me.name = "alice";
    me.home = home / "alice";
    me.uid = geteuid();
    me.gid = getegid();
    make(me.home);
  }
  static void make(const std::string& above) {
    mkdir((above + "/.ecryptfs").c_str(), 0700);
    mkdir((above + "/.Private").c_str(), 0700);
    const Fd dir = ok(open_directory(AT_FDCWD, above + "/.ecryptfs"));
    put(dir.get(), "Private.sig", std::string(kContents) + "\n" + kNames + "\n");
    put(dir.get(), "auto-mount", "");
  }
  [[nodiscard]] Fd dir() const { return ok(open_directory(AT_FDCWD, me.home + "/.ecryptfs")); }
  void profile(const std::string& name, const std::string& lower, const std::string& mountpoint) const {
    const Fd profiles = ok(make_profiles_dir(me));
    const Fd made = ok(make_directory(profiles.get(), name, 0700));
    Profile p;
    p.name = name;
    p.lower = lower;
    p.mountpoint = mountpoint;
    p.volume_id.fill(7);
    ok(save_profile(made.get(), p));
  }
  Scratch home;
  Identity me;
};

TEST_F(EcryptfsHome, IsAProfileOfTheNamePrivate) {
  const OpenProfile open = ok(open_ecryptfs_private(me));
  EXPECT_TRUE(open.of_ecryptfs_utils);
  EXPECT_EQ(open.profile.name, "Private");
  EXPECT_EQ(open.profile.format, "ecryptfs");
  EXPECT_EQ(open.profile.lower, me.home + "/.Private");
  EXPECT_EQ(open.profile.mountpoint, me.home + "/Private");
  EXPECT_TRUE(open.profile.auto_mount);
  EXPECT_FALSE(open.profile.auto_unmount);
  EXPECT_FALSE(is_wrapping_independent(open));
  const MountOptions options = ok(parse_mount_options(open.profile.options));
  ASSERT_TRUE(options.ecryptfs.has_value());
  EXPECT_EQ(to_hex(options.ecryptfs->signatures.at(0)), kContents);
  EXPECT_EQ(to_hex(options.ecryptfs->name_signature.value()), kNames);
  EXPECT_EQ(options.ecryptfs->cipher, "aes");
  EXPECT_EQ(options.ecryptfs->key_bytes, 16);
  EXPECT_EQ(ok(private_signatures(open.profile)).size(), 2U);
  EXPECT_EQ(ok(list_user_volumes(me)), std::vector<std::string>{"Private"});
  EXPECT_TRUE(ok(open_user_volume(me, "Private")).of_ecryptfs_utils);
  EXPECT_EQ(code_of(open_user_volume(me, "Other")), Code::kNotFound);
}

TEST_F(EcryptfsHome, OfAWholeHomeStandsBesideIt) {
  mkdir((home / ".ecryptfs").c_str(), 0755);
  mkdir((home / ".ecryptfs/alice").c_str(), 0755);
  make(home / ".ecryptfs/alice");
  put(ok(open_directory(AT_FDCWD, home / ".ecryptfs/alice/.ecryptfs")).get(), "Private.mnt", me.home + "\n");
  const OpenProfile open = ok(open_ecryptfs_private(me));
  EXPECT_EQ(open.profile.mountpoint, me.home);
  EXPECT_EQ(open.profile.lower, home / ".ecryptfs/alice/.Private");
}

TEST_F(EcryptfsHome, ALinkToTheEncryptedFilesIsFollowedOnce) {
  mkdir((home / "disk").c_str(), 0700);
  rmdir((me.home + "/.Private").c_str());
  ASSERT_EQ(symlink((home / "disk").c_str(), (me.home + "/.Private").c_str()), 0);
  EXPECT_EQ(ok(open_ecryptfs_private(me)).profile.lower, home / "disk");
}

TEST_F(EcryptfsHome, WithoutItsFilesItIsNone) {
  const Fd d = dir();
  unlinkat(d.get(), "auto-mount", 0);
  unlinkat(d.get(), "Private.sig", 0);
  put(d.get(), "sig-cache.txt", "849d6b79848a0296\n");
  put(d.get(), "wrapped-passphrase", "something of a user's own");
  EXPECT_EQ(code_of(open_ecryptfs_private(me)), Code::kNotFound);
  EXPECT_TRUE(ok(list_user_volumes(me)).empty());
  put(d.get(), "auto-mount", "");
  const Error missing = failure_of(open_ecryptfs_private(me));
  EXPECT_EQ(missing.code, Code::kCorrupt);
  EXPECT_NE(missing.what.find("Private.sig is missing"), std::string::npos) << missing.what;
  EXPECT_EQ(ok(list_user_volumes(me)), std::vector<std::string>{"Private"});
}

TEST_F(EcryptfsHome, WhatOthersMayWriteIsNotBelieved) {
  ASSERT_EQ(chmod((me.home + "/.ecryptfs").c_str(), 0770), 0);
  EXPECT_EQ(code_of(open_ecryptfs_private(me)), Code::kDenied);
  ASSERT_EQ(chmod((me.home + "/.ecryptfs").c_str(), 0700), 0);
  const Fd d = dir();
  unlinkat(d.get(), "Private.sig", 0);
  put(home.fd(), "elsewhere", std::string(kContents) + "\n");
  ASSERT_EQ(symlinkat((home / "elsewhere").c_str(), d.get(), "Private.sig"), 0);
  EXPECT_EQ(code_of(open_ecryptfs_private(me)), Code::kInvalid);
}

TEST_F(EcryptfsHome, AProfileOfItsNameOrPlaceGoesBefore) {
  const std::string lower = home / "lower";
  mkdir(lower.c_str(), 0700);
  struct {
    std::string name, lower, mountpoint;
    bool before;
  } const cases[] = {{"Private", lower, home / "m", true},
                     {"Other", lower, me.home + "/Private", true},
                     {"Other", me.home + "/.Private", home / "m", true},
                     {"Other", me.home + "/../alice/.Private", home / "m", false},  // no profile at all
                     {"Other", lower, home / "m", false}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name + " " + c.lower + " " + c.mountpoint);
    if (c.lower.find("..") == std::string::npos) profile(c.name, c.lower, c.mountpoint);
    EXPECT_EQ(open_ecryptfs_private(me).has_value(), !c.before);
    unlink((me.home + "/.ecfs/" + c.name + "/profile.json").c_str());
  }
  profile("Private", lower, home / "m");
  EXPECT_FALSE(ok(open_user_volume(me, "Private")).of_ecryptfs_utils);
  // One that cannot be read is not passed over: what it was meant for is not known.
  put(ok(open_directory(AT_FDCWD, me.home + "/.ecfs/Private")).get(), "profile.json", "{");
  EXPECT_EQ(code_of(open_user_volume(me, "Private")), Code::kCorrupt);
}

TEST_F(EcryptfsHome, OnlyItsOwnMountPassphraseIsTaken) {
  const OpenProfile open = ok(open_ecryptfs_private(me));
  const Secret right = secret_of(kMountPassphrase);
  EXPECT_EQ(ok(private_keys(open.profile, right, kEcryptfsContentSalt)).size(), 2U);
  const Error wrong = failure_of(private_keys(open.profile, secret_of("0123456789abcdeF"), kEcryptfsContentSalt));
  EXPECT_EQ(wrong.code, Code::kWrongKey);
  EXPECT_NE(wrong.what.find(kContents), std::string::npos);
  EXPECT_EQ(code_of(private_keys(open.profile, secret_of(std::string(65, 'x')), kEcryptfsContentSalt)), Code::kInvalid);
  // A salt of ~/.ecryptfsrc that came later than the directory changes nothing.
  EXPECT_EQ(ok(private_keys(open.profile, right, EcryptfsSalt{1, 2, 3, 4, 5, 6, 7, 8})).size(), 2U);
}

TEST_F(EcryptfsHome, TheWrappedPassphraseHasToBeThisDirectorys) {
  const OpenProfile open = ok(open_ecryptfs_private(me));
  const Secret login = secret_of("login");
  EXPECT_EQ(code_of(unwrap_private(open, login, kEcryptfsContentSalt)), Code::kNotFound);
  ok(write_wrapped_passphrase(open.dir.get(), kWrappedPassphraseName, secret_of(kMountPassphrase), login));
  EXPECT_EQ(as_text(ok(unwrap_private(open, login, kEcryptfsContentSalt)).reveal()), kMountPassphrase);
  EXPECT_EQ(code_of(unwrap_private(open, secret_of("other"), kEcryptfsContentSalt)), Code::kWrongKey);
  EXPECT_EQ(code_of(unwrap_private(open, secret_of(std::string(65, 'x')), kEcryptfsContentSalt)), Code::kWrongKey);
  EXPECT_EQ(code_of(unwrap_private(open, Secret(), kEcryptfsContentSalt)), Code::kWrongKey);
  ok(write_wrapped_passphrase(open.dir.get(), kWrappedPassphraseName, secret_of("another"), login));
  EXPECT_EQ(code_of(unwrap_private(open, login, kEcryptfsContentSalt)), Code::kCorrupt);
}

TEST_F(EcryptfsHome, IsLockedWithoutAFileOfItsOwn) {
  const OpenProfile open = ok(open_ecryptfs_private(me));
  const Fd held = ok(lock_volume(open, 0));
  EXPECT_EQ(code_of(lock_volume(ok(open_ecryptfs_private(me)), 0)), Code::kBusy);
  EXPECT_EQ(ok(list_directory(open.dir.get())).size(), 2U);
}

TEST_F(EcryptfsHome, LinksOfAnEncryptedHomeArePlaceholders) {
  ASSERT_EQ(symlink("/x", (home / ".ecryptfs").c_str()), 0);
  put(home.fd(), ".Private", "");
  EXPECT_TRUE(is_placeholder(home.fd(), ".ecryptfs"));
  EXPECT_FALSE(is_placeholder(home.fd(), ".Private"));
  EXPECT_TRUE(is_placeholder(home.fd(), "README.txt"));
  EXPECT_FALSE(is_placeholder(home.fd(), "file"));
  // .ssh, as a locked home has it, and nothing more in it.
  EXPECT_FALSE(is_placeholder(home.fd(), ".ssh"));
  ASSERT_EQ(mkdirat(home.fd(), ".ssh", 0700), 0);
  EXPECT_TRUE(is_placeholder(home.fd(), ".ssh"));
  ASSERT_EQ(symlinkat("/nowhere", home.fd(), ".ssh/authorized_keys"), 0);
  EXPECT_TRUE(is_placeholder(home.fd(), ".ssh"));
  ASSERT_EQ(symlinkat("/nowhere", home.fd(), ".ssh/config"), 0);
  EXPECT_FALSE(is_placeholder(home.fd(), ".ssh"));
  ASSERT_EQ(unlinkat(home.fd(), ".ssh/authorized_keys", 0), 0);
  EXPECT_FALSE(is_placeholder(home.fd(), ".ssh"));
}

}  // namespace
}  // namespace ecfs::wrap
