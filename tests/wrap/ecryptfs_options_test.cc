#include "wrap/ecryptfs_options.h"

#include <fcntl.h>

#include "tests/wrap/testing.h"
#include "wrap/mount.h"

namespace ecfs::wrap {
namespace {

Result<MountOptions> parse(const std::string& text) { return parse_mount_options({text}); }

TEST(EcryptfsOptions, ComeBackAsTheyWent) {
  const auto parsed = parse(
      "ro,ecryptfs_sig=0123456789abcdef,ecryptfs_sig=fedcba9876543210,ecryptfs_fnek_sig=00112233445566AA,"
      "ecryptfs_cipher=aes,ecryptfs_key_bytes=32,ecryptfs_fn_cipher=blowfish,ecryptfs_fn_key_bytes=16,"
      "ecryptfs_passthrough,ecryptfs_xattr_metadata,ecryptfs_encrypted_view,ecryptfs_mount_auth_tok_only,"
      "ecryptfs_unlink_sigs,ecryptfs_check_dev_ruid");
  ASSERT_TRUE(parsed) << parsed.error().what;
  ASSERT_TRUE(parsed->ecryptfs);
  const EcryptfsOptions& o = *parsed->ecryptfs;
  ASSERT_EQ(o.signatures.size(), 2U);
  EXPECT_EQ(o.signatures[1][0], 0xfe);
  ASSERT_TRUE(o.name_signature);
  EXPECT_EQ((*o.name_signature)[7], 0xaa);
  EXPECT_EQ(o.cipher, "aes");
  EXPECT_EQ(o.key_bytes, 32);
  EXPECT_EQ(o.name_cipher, "blowfish");
  EXPECT_EQ(o.name_key_bytes, 16);
  EXPECT_EQ(o.passthrough, true);
  EXPECT_TRUE(o.xattr_metadata && o.encrypted_view && o.named_keys_only && o.unlink_keys && o.own_lower);
  const auto again = parse(build_mount_options(*parsed));
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, *parsed);
}

TEST(EcryptfsOptions, AreNoneWhereNoneIsSaid) {
  const auto parsed = parse("rw,noexec,user,comment=text");
  ASSERT_TRUE(parsed);
  EXPECT_FALSE(parsed->ecryptfs);
  EXPECT_TRUE(parsed->no_exec);
  EXPECT_EQ(build_mount_options(*parsed), "noexec");
}

TEST(EcryptfsOptions, SaidTwiceCountOnce) {
  const auto parsed = parse("sig=0123456789abcdef,ecryptfs_sig=0123456789ABCDEF,ecryptfs_passthrough=n");
  ASSERT_TRUE(parsed && parsed->ecryptfs);
  EXPECT_EQ(parsed->ecryptfs->signatures.size(), 1U);
  EXPECT_EQ(parsed->ecryptfs->passthrough, false);
}

TEST(EcryptfsOptions, ThatMakeNoSenseAreRefused) {
  std::string many;
  for (int i = 0; i < 17; ++i) many += "ecryptfs_sig=00000000000000" + std::to_string(10 + i) + ",";
  for (const std::string& text :
       {std::string("ecryptfs_sig="), std::string("ecryptfs_sig=0123456789abcde"),
        std::string("ecryptfs_fnek_sig=0123456789abcdeg"), std::string("ecryptfs_key_bytes=0"),
        std::string("ecryptfs_key_bytes=65"), std::string("ecryptfs_key_bytes=1x"), std::string("ecryptfs_cipher="),
        std::string("ecryptfs_cipher=AES!"), std::string("ecryptfs_passthrough=maybe"),
        std::string("ecryptfs_something=1"), many}) {
    const auto parsed = parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, Code::kInvalid) << text;
  }
}

TEST(EcryptfsOptions, NameOneLowerDirectory) {
  const Fd here(open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Fd there(open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto one = ecryptfs_mount_id(here.get());
  const auto other = ecryptfs_mount_id(there.get());
  ASSERT_TRUE(one && other);
  EXPECT_NE(*one, *other);
  EXPECT_EQ(*one, *ecryptfs_mount_id(here.get()));
}

}  // namespace
}  // namespace ecfs::wrap
