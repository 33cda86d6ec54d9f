#include "setup/login_password.h"

#include <gtest/gtest.h>

namespace ecfs::setup {
namespace {

PasswordProof prove(std::string_view password, const std::string& hash) {
  const auto secret = Secret::copy_of(as_bytes(password));
  EXPECT_TRUE(secret);
  const auto proof = prove_password(*secret, hash);
  EXPECT_TRUE(proof) << proof.error().what;
  return proof ? *proof : PasswordProof::kCannotTell;
}

// Made by OpenSSL's own crypt: openssl passwd -6 -salt saltstring "Hello world!", and with -5.
constexpr const char* kSha512 =
    "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
constexpr const char* kSha256 = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5";

TEST(LoginPassword, IsProvenByTheHash) {
  for (const char* hash : {kSha512, kSha256}) {
    EXPECT_EQ(prove("Hello world!", hash), PasswordProof::kRight) << hash;
    EXPECT_EQ(prove("Hello world", hash), PasswordProof::kWrong) << hash;
    EXPECT_EQ(prove("hello world!", hash), PasswordProof::kWrong) << hash;
    EXPECT_EQ(prove("x", hash), PasswordProof::kWrong) << hash;
    std::string other = hash;
    other.back() = other.back() == '1' ? '2' : '1';
    EXPECT_EQ(prove("Hello world!", other), PasswordProof::kWrong) << hash;
  }
}

TEST(LoginPassword, CannotTellWithoutAHash) {
  for (const std::string hash :
       {"", "x", "!", "*", "!!", "!$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnI", "*NP*",
        "*LK*locked-account", "$no-such-method$salt$hash"}) {
    EXPECT_EQ(prove("Hello world!", hash), PasswordProof::kCannotTell) << hash;
  }
}

}  // namespace
}  // namespace ecfs::setup
