// Wrapped-passphrase files: against those of ecryptfs-wrap-passphrase, and as hostile input.
#include "wrap/wrapped_passphrase.h"

#include <sys/stat.h>

#include "tests/wrap/vectors.h"

namespace ecfs::wrap {
namespace {

EcryptfsSalt salt_of(const nlohmann::json& text) {
  EcryptfsSalt salt = kEcryptfsContentSalt;
  if (text.is_null()) return salt;
  const Bytes bytes = hex_of(text);
  std::copy_n(bytes.begin(), salt.size(), salt.begin());
  return salt;
}

TEST(WrappedPassphrase, FilesOfEcryptfsUtilsOpen) {
  const auto all = vectors("ecryptfs/keys.json");
  int of_version[3] = {};
  for (const auto& v : all.at("wrapped")) {
    SCOPED_TRACE(v.at("file").get<std::string>());
    const Bytes file = get(AT_FDCWD, std::string(ECFS_TEST_VECTORS) + "/ecryptfs/" + v.at("file").get<std::string>());
    const EcryptfsSalt salt = salt_of(v.at("rc_salt"));
    const Secret wrapping = secret_of(v.at("wrapping_passphrase").get<std::string>());
    EXPECT_EQ(as_text(ok(unwrap_passphrase(file, wrapping, salt)).reveal()), v.at("passphrase").get<std::string>());
    EXPECT_EQ(code_of(unwrap_passphrase(file, secret_of("another"), salt)), Code::kWrongKey);
    // A salt of one's own is for version 1 alone.
    EcryptfsSalt other = salt;
    other[0] ^= 1;
    EXPECT_EQ(unwrap_passphrase(file, wrapping, other).has_value(), v.at("version") == 2);
    ++of_version[v.at("version").get<int>()];
  }
  EXPECT_EQ(of_version[1], 6);
  EXPECT_EQ(of_version[2], 24);
}

TEST(WrappedPassphrase, WhatIsWrappedOpens) {
  const Secret wrapping = secret_of("login");
  for (const std::size_t len : {1U, 15U, 16U, 17U, 31U, 32U, 63U, 64U}) {
    const std::string text(len, 'x');
    const Bytes file = ok(wrap_passphrase(secret_of(text), wrapping));
    EXPECT_EQ(file.size(), 26 + (len + 15) / 16 * 16);
    EXPECT_EQ(as_text(ByteView(file).first(2)), ":\x02");
    EXPECT_EQ(as_text(ok(unwrap_passphrase(file, wrapping, kEcryptfsContentSalt)).reveal()), text);
    EXPECT_NE(ok(wrap_passphrase(secret_of(text), wrapping)), file);  // another salt
  }
  for (const std::string& none : {std::string(), std::string(65, 'x'), std::string("a\0b", 3)}) {
    EXPECT_EQ(code_of(wrap_passphrase(secret_of(none), wrapping)), Code::kInvalid);
    EXPECT_EQ(code_of(wrap_passphrase(wrapping, secret_of(none))), Code::kInvalid);
  }
}

TEST(WrappedPassphrase, WhatIsNoneIsRefused) {
  const Secret wrapping = secret_of("login");
  const Bytes good = ok(wrap_passphrase(secret_of("0123456789abcdef0123456789abcdef"), wrapping));
  for (std::size_t len = 0; len < good.size(); ++len) {
    const auto opened = unwrap_passphrase(ByteView(good).first(len), wrapping, kEcryptfsContentSalt);
    if (len == good.size() - 16) {  // nothing says how long the passphrase was
      EXPECT_EQ(as_text(ok(unwrap_passphrase(ByteView(good).first(len), wrapping, kEcryptfsContentSalt)).reveal()),
                "0123456789abcdef");
    } else {
      EXPECT_EQ(code_of(opened), Code::kCorrupt) << len;
    }
  }
  Bytes longer = good;
  longer.resize(26 + 80);
  EXPECT_EQ(code_of(unwrap_passphrase(longer, wrapping, kEcryptfsContentSalt)), Code::kCorrupt);
  Bytes changed = good;
  changed[1] = 3;
  EXPECT_EQ(code_of(unwrap_passphrase(changed, wrapping, kEcryptfsContentSalt)), Code::kUnsupported);
  changed = good;
  changed[12] = 'g';
  EXPECT_EQ(code_of(unwrap_passphrase(changed, wrapping, kEcryptfsContentSalt)), Code::kCorrupt);
  for (const std::size_t at : {5U, 12U}) {
    changed = good;
    changed[at] = changed[at] == '0' ? '1' : '0';
    EXPECT_EQ(code_of(unwrap_passphrase(changed, wrapping, kEcryptfsContentSalt)), Code::kWrongKey);
  }
  EXPECT_EQ(code_of(unwrap_passphrase(as_bytes("0123456789abcde"), wrapping, kEcryptfsContentSalt)), Code::kCorrupt);
  EXPECT_EQ(code_of(unwrap_passphrase(as_bytes("0123456789abcdef"), wrapping, kEcryptfsContentSalt)), Code::kCorrupt);
}

TEST(WrappedPassphrase, WritingKeepsTheFileThereWas) {
  const Scratch dir;
  const Secret one = secret_of("login");
  const Secret two = secret_of("another");
  EXPECT_EQ(code_of(read_wrapped_passphrase(dir.fd(), "w", one, kEcryptfsContentSalt)), Code::kNotFound);
  ok(write_wrapped_passphrase(dir.fd(), "w", secret_of("first"), one));
  EXPECT_EQ(access((dir / "w.bak").c_str(), F_OK), -1);
  const Bytes first = get(dir.fd(), "w");
  struct stat st {};
  ASSERT_EQ(stat((dir / "w").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600U);
  ok(write_wrapped_passphrase(dir.fd(), "w", secret_of("second"), two));
  EXPECT_EQ(get(dir.fd(), "w.bak"), first);
  EXPECT_EQ(as_text(ok(read_wrapped_passphrase(dir.fd(), "w", two, kEcryptfsContentSalt)).reveal()), "second");
  EXPECT_EQ(ok(list_directory(dir.fd())).size(), 2U);
}

TEST(WrappedPassphrase, RewrappingLeavesNothingToTheOldPassphrase) {
  const Scratch dir;
  const Secret one = secret_of("login");
  const Secret two = secret_of("another");
  const auto all = vectors("ecryptfs/keys.json");
  for (const auto& v : all.at("wrapped")) {  // version 1 becomes version 2
    SCOPED_TRACE(v.at("file").get<std::string>());
    const EcryptfsSalt salt = salt_of(v.at("rc_salt"));
    put(dir.fd(), "w", hex_of(v.at("hex")));
    const Secret old = secret_of(v.at("wrapping_passphrase").get<std::string>());
    EXPECT_EQ(code_of(rewrap_passphrase(dir.fd(), "w", two, one, salt)), Code::kWrongKey);
    EXPECT_EQ(get(dir.fd(), "w"), hex_of(v.at("hex")));
    ok(rewrap_passphrase(dir.fd(), "w", old, two, salt));
    for (const char* name : {"w", "w.bak"}) {
      EXPECT_EQ(as_text(ok(read_wrapped_passphrase(dir.fd(), name, two, salt)).reveal()),
                v.at("passphrase").get<std::string>());
      EXPECT_EQ(code_of(read_wrapped_passphrase(dir.fd(), name, old, salt)), Code::kWrongKey);
    }
  }
  EXPECT_EQ(ok(list_directory(dir.fd())).size(), 2U);
}

TEST(WrappedPassphrase, LinksAndOtherThingsAreNotFollowed) {
  const Scratch dir;
  const Secret one = secret_of("login");
  ok(write_wrapped_passphrase(dir.fd(), "w", secret_of("first"), one));
  ASSERT_EQ(symlinkat("w", dir.fd(), "link"), 0);
  EXPECT_EQ(code_of(read_wrapped_passphrase(dir.fd(), "link", one, kEcryptfsContentSalt)), Code::kInvalid);
  EXPECT_FALSE(write_wrapped_passphrase(dir.fd(), "link", secret_of("second"), one));
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(code_of(read_wrapped_passphrase(dir.fd(), "fifo", one, kEcryptfsContentSalt)), Code::kInvalid);
  put(dir.fd(), "large", Bytes(91, ':'));
  EXPECT_EQ(code_of(read_wrapped_passphrase(dir.fd(), "large", one, kEcryptfsContentSalt)), Code::kCorrupt);
  EXPECT_EQ(as_text(ok(read_wrapped_passphrase(dir.fd(), "w", one, kEcryptfsContentSalt)).reveal()), "first");
}

TEST(WrappedPassphrase, AFullDiskLosesNothing) {
  const TinyFilesystem disk(16384);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount";
  const Secret one = secret_of("login");
  const Secret two = secret_of("another");
  ok(write_wrapped_passphrase(disk.fd(), "w", secret_of("first"), one));
  const Fd fill(openat(disk.fd(), "fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const Bytes page(4096, 1);
  while (write(fill.get(), page.data(), page.size()) > 0) {
  }
  const auto failed = rewrap_passphrase(disk.fd(), "w", one, two, kEcryptfsContentSalt);
  EXPECT_EQ(code_of(failed), Code::kNoSpace);
  EXPECT_EQ(as_text(ok(read_wrapped_passphrase(disk.fd(), "w", one, kEcryptfsContentSalt)).reveal()), "first");
}

// Found by trying ecryptfs-add-passphrase 111 with each of these files.
TEST(EcryptfsRc, TheSaltIsWhereTheOriginalFindsIt) {
  const auto salt = [](std::string_view rc) { return to_hex(ok(ecryptfs_rc_salt(as_bytes(rc)))); };
  constexpr const char* kOwn = "8899aabbccddeeff";
  const std::string standard = to_hex(kEcryptfsContentSalt);
  for (const char* rc :
       {"salt=8899aabbccddeeff", "salt=8899aabbccddeeff\n", "salt=8899AABBCCDDEEFF\n",
        "\nverbose=1\nsalt=8899aabbccddeeff\nkey=passphrase\n", "# c\nsalt=8899aabbccddeeff\nsalt=0000000000000001\n",
        "verbose,salt=8899aabbccddeeff\n", "# foo,salt=8899aabbccddeeff\n", "salt=,salt=8899aabbccddeeff\n",
        "salt=88,x\nsalt=8899aabbccddeeff\n", "a=b=c\nsalt=8899aabbccddeeff\n"}) {
    EXPECT_EQ(salt(rc), kOwn) << rc;
  }
  for (const char* rc :
       {"", " salt = 8899aabbccddeeff \n", "salt= 8899aabbccddeeff\n", "salt=8899aabbccddeeff \n", "salt=8899aabb\n",
        "salt=8899aabbccddeeff00\n", "salt=\n", "#salt=8899aabbccddeeff\n", "xsalt=8899aabbccddeeff\n",
        "\tsalt=8899aabbccddeeff\n", "\r\nsalt=8899aabbccddeeff\r\n", "verbose salt=8899aabbccddeeff\n", ",", "\n"}) {
    EXPECT_EQ(salt(rc), standard) << rc;
  }
  EXPECT_EQ(code_of(ecryptfs_rc_salt(as_bytes("salt=zz99aabbccddeeff\n"))), Code::kInvalid);
  const Scratch home;
  EXPECT_EQ(ok(read_ecryptfs_rc_salt(home.fd(), getuid())), kEcryptfsContentSalt);
  put(home.fd(), ".ecryptfsrc", "salt=8899aabbccddeeff\n");
  EXPECT_EQ(to_hex(ok(read_ecryptfs_rc_salt(home.fd(), getuid()))), kOwn);
}

}  // namespace
}  // namespace ecfs::wrap
