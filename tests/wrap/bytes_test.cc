#include "wrap/base/bytes.h"

#include "tests/wrap/testing.h"

namespace ecfs {
namespace {

Bytes bytes_of(std::string_view text) { return {as_bytes(text).begin(), as_bytes(text).end()}; }

TEST(Bytes, LittleEndianBothWays) {
  const std::array<std::uint8_t, 8> b = {1, 2, 3, 4, 5, 6, 7, 0xff};
  EXPECT_EQ(load_le<std::uint16_t>(b.data()), 0x0201);
  EXPECT_EQ(load_le<std::uint32_t>(b.data()), 0x04030201U);
  EXPECT_EQ(load_le<std::uint64_t>(b.data()), 0xff07060504030201ULL);
  Bytes out;
  append_le(out, std::uint64_t{0xff07060504030201ULL});
  append_le(out, std::uint16_t{0x0201});
  EXPECT_EQ(to_hex(out), "01020304050607ff0102");
}

TEST(Bytes, HexIsStrict) {
  EXPECT_EQ(to_hex(Bytes{0x00, 0xff, 0x10}), "00ff10");
  EXPECT_EQ(ok(from_hex("00fF10")), (Bytes{0x00, 0xff, 0x10}));
  EXPECT_EQ(ok(from_hex("")), Bytes{});
  for (const char* bad : {"0", "0g", " 00", "00 ", "0x00", "00\n"}) {
    EXPECT_EQ(code_of(from_hex(bad)), Code::kInvalid) << bad;
  }
}

// RFC 4648 §10, in the url alphabet and without padding.
TEST(Bytes, Base64UrlKnownAnswers) {
  const std::pair<const char*, const char*> kAnswers[] = {
      {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},         {"foo", "Zm9v"},
      {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, text] : kAnswers) {
    EXPECT_EQ(to_base64url(as_bytes(plain)), text);
    EXPECT_EQ(ok(from_base64url(text)), bytes_of(plain));
  }
  EXPECT_EQ(to_base64url(Bytes{0xfb, 0xff, 0xbf}), "-_-_");
}

TEST(Bytes, Base32HexKnownAnswers) {
  const std::pair<const char*, const char*> kAnswers[] = {{"", ""},
                                                          {"f", "co"},
                                                          {"fo", "cpng"},
                                                          {"foo", "cpnmu"},
                                                          {"foob", "cpnmuog"},
                                                          {"fooba", "cpnmuoj1"},
                                                          {"foobar", "cpnmuoj1e8"}};
  for (const auto& [plain, text] : kAnswers) {
    EXPECT_EQ(to_base32hex(as_bytes(plain)), text);
    EXPECT_EQ(ok(from_base32hex(text)), bytes_of(plain));
  }
}

TEST(Bytes, DecodingTakesOneSpellingOnly) {
  for (const char* bad : {"A", "Zh", "Zm9", "Zg==", "Zm9v\n", "Zm+v", "Zm/v", "Zm 9v", "AAAAA"}) {
    EXPECT_EQ(code_of(from_base64url(bad)), Code::kInvalid) << bad;
  }
  for (const char* bad : {"c", "cp", "CO", "cq", "cpn", "cpnmuo", "co======", "cw", "c0 "}) {
    EXPECT_EQ(code_of(from_base32hex(bad)), Code::kInvalid) << bad;
  }
  // All texts of two characters: what decodes encodes to the same text.
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::size_t good = 0;
  for (const char a : alphabet) {
    for (const char b : alphabet) {
      const std::string two{a, b};
      if (auto d = from_base64url(two); d) {
        EXPECT_EQ(to_base64url(*d), two);
        ++good;
      }
      if (auto d = from_base32hex(two); d) {
        EXPECT_EQ(to_base32hex(*d), two);
      }
    }
  }
  EXPECT_EQ(good, 256U);  // each byte once
}

TEST(Bytes, RoundTripsOfAllLengths) {
  Bytes b;
  for (std::size_t len = 0; len < 300; ++len) {
    EXPECT_EQ(ok(from_hex(to_hex(b))), b);
    EXPECT_EQ(ok(from_base64url(to_base64url(b))), b);
    EXPECT_EQ(ok(from_base32hex(to_base32hex(b))), b);
    b.push_back(static_cast<std::uint8_t>(len * 37 + 11));
  }
}

TEST(Bytes, Comparing) {
  EXPECT_TRUE(equal_constant_time(Bytes{}, Bytes{}));
  EXPECT_TRUE(equal_constant_time(Bytes{1, 2}, Bytes{1, 2}));
  EXPECT_FALSE(equal_constant_time(Bytes{1, 2}, Bytes{1, 3}));
  EXPECT_FALSE(equal_constant_time(Bytes{1, 2}, Bytes{1, 2, 3}));
  EXPECT_TRUE(all_zero(Bytes{}));
  EXPECT_TRUE(all_zero(Bytes{0, 0}));
  EXPECT_FALSE(all_zero(Bytes{0, 1}));
}

TEST(ByteReader, StopsAtTheEnd) {
  const Bytes b = {1, 0, 0, 0, 9, 8};
  ByteReader reader(b);
  EXPECT_EQ(ok(reader.take_le<std::uint32_t>()), 1U);
  EXPECT_EQ(reader.remaining(), 2U);
  EXPECT_EQ(code_of(reader.take_le<std::uint32_t>()), Code::kCorrupt);
  EXPECT_EQ(code_of(reader.take(SIZE_MAX)), Code::kCorrupt);
  EXPECT_EQ(ok(reader.take(2)).size(), 2U);
  EXPECT_EQ(ok(reader.take(0)).size(), 0U);
  EXPECT_EQ(code_of(reader.take(1)), Code::kCorrupt);
}

}  // namespace
}  // namespace ecfs
