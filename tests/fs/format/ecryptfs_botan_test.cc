// Twofish and CAST-256: the numbers of their specifications, chaining, and where their keys lie in memory.
#include "fs/format/ecryptfs_botan.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <string>

#include "tests/fs/format/support.h"
#include "wrap/base/bytes.h"

namespace ecfs::fs::test {
namespace {

constexpr std::uint8_t kTwofish = 0x0a;
constexpr std::uint8_t kCast6 = 0x0b;

Bytes hex(const char* text) { return need(from_hex(text)); }

class Botan : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_botan_cipher(kTwofish)) GTEST_SKIP() << "built without Botan";
  }
};

TEST(BotanCiphers, OthersAreNotThere) {
  for (unsigned code = 0; code < 256; ++code) {
    const auto cipher = BotanCipher::make(static_cast<std::uint8_t>(code), Bytes(16));
    const bool expected = has_botan_cipher(kTwofish) && (code == kTwofish || code == kCast6);
    EXPECT_EQ(has_botan_cipher(static_cast<std::uint8_t>(code)), expected);
    EXPECT_EQ(cipher.has_value(), expected);
    if (!cipher) {
      EXPECT_EQ(cipher.error().code, Code::kUnsupported);
    }
  }
}

// The Twofish paper's appendix (tables of known answers) and RFC 2612, appendix A.
TEST_F(Botan, KnownAnswers) {
  struct Case {
    std::uint8_t code;
    const char* key;
    const char* plain;
    const char* sealed;
  };
  const Case cases[] = {
      {kTwofish, "00000000000000000000000000000000", "00000000000000000000000000000000",
       "9f589f5cf6122c32b6bfec2f2ae8c35a"},
      {kTwofish, "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff", "00000000000000000000000000000000",
       "37527be0052334b89f0cfccae87cfa20"},
      {kCast6, "2342bb9efa38542c0af75647f29f615d", "00000000000000000000000000000000",
       "c842a08972b43d20836c91d1b7530f6b"},
      {kCast6, "2342bb9efa38542cbed0ac83940ac2988d7c47ce264908461cc1b5137ae6b604", "00000000000000000000000000000000",
       "4f6a2038286897b9c9870136553317fa"},
  };
  for (const Case& c : cases) {
    const auto cipher = need(BotanCipher::make(c.code, hex(c.key)));
    Bytes out(16);
    ASSERT_TRUE(cipher->ecb(true, hex(c.plain), out.data()));
    EXPECT_EQ(to_hex(out), c.sealed);
    ASSERT_TRUE(cipher->ecb(false, out, out.data()));
    EXPECT_EQ(to_hex(out), c.plain);
  }
}

TEST_F(Botan, ChainsOfBlocks) {
  for (const std::uint8_t code : {kTwofish, kCast6}) {
    const auto cipher = need(BotanCipher::make(code, hex("000102030405060708090a0b0c0d0e0f")));
    const Bytes iv = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    Bytes plain(4096);
    for (std::size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    // By the definition of CBC, block by block.
    Bytes expected(plain.size());
    Bytes chain = iv;
    for (std::size_t at = 0; at < plain.size(); at += 16) {
      for (std::size_t i = 0; i < 16; ++i) chain[i] ^= plain[at + i];
      ASSERT_TRUE(cipher->ecb(true, chain, chain.data()));
      std::copy(chain.begin(), chain.end(), expected.begin() + static_cast<std::ptrdiff_t>(at));
    }
    Bytes sealed(plain.size());
    ASSERT_TRUE(cipher->cbc(true, iv, plain, sealed.data()));
    EXPECT_EQ(sealed, expected);
    Bytes in_place = plain;
    ASSERT_TRUE(cipher->cbc(true, iv, in_place, in_place.data()));
    EXPECT_EQ(in_place, expected);
    ASSERT_TRUE(cipher->cbc(false, iv, in_place, in_place.data()));
    EXPECT_EQ(in_place, plain);
    ASSERT_TRUE(cipher->cbc(false, iv, sealed, expected.data()));
    EXPECT_EQ(expected, plain);
    Bytes out(32);
    EXPECT_FALSE(cipher->cbc(true, iv, Bytes(17), out.data()));
    EXPECT_FALSE(cipher->cbc(true, Bytes(8), Bytes(16), out.data()));
    EXPECT_FALSE(cipher->ecb(true, Bytes(15), out.data()));
  }
}

TEST_F(Botan, KeysOfOtherLengthsAreRefused) {
  for (const std::uint8_t code : {kTwofish, kCast6}) {
    for (std::size_t len = 0; len <= 64; ++len) {
      const bool good =
          len == 16 || len == 24 || len == 32 || (code == kCast6 && len >= 4 && len <= 32 && len % 4 == 0);
      const auto cipher = BotanCipher::make(code, Bytes(len));
      EXPECT_EQ(cipher.has_value(), good) << int{code} << " " << len;
      if (!cipher) {
        EXPECT_EQ(cipher.error().code, Code::kInvalid);
      }
    }
  }
}

#ifndef ECFS_SANITIZED  // AddressSanitizer locks nothing
// Locked memory of this process, in KiB.
std::size_t locked_kib() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("VmLck:")) return std::stoul(line.substr(6));
  }
  return 0;
}

TEST_F(Botan, KeySchedulesLieInLockedMemory) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
  if (limit.rlim_cur < 1U << 20) GTEST_SKIP() << "this process may lock too little memory";
  const auto cipher = need(BotanCipher::make(kTwofish, Bytes(16)));
  EXPECT_GE(locked_kib(), 256U);  // nothing else here locks any
}
#endif

}  // namespace
}  // namespace ecfs::fs::test
