#include "wrap/recovery_key.h"

#include <algorithm>
#include <set>

#include "tests/wrap/testing.h"

namespace ecfs::wrap {
namespace {

constexpr std::string_view kAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

std::string text_of(const RecoveryKey& key) { return std::string(as_text(ok(key.text()).reveal())); }
Result<RecoveryKey> parse(std::string_view text) { return RecoveryKey::parse(as_bytes(text)); }

bool is_this(const Result<RecoveryKey>& parsed, const RecoveryKey& key) {
  return parsed && parsed->bytes().equals(key.bytes());
}

TEST(RecoveryKey, TextHasTheShapeOfTheManual) {
  const RecoveryKey key = ok(RecoveryKey::generate());
  const std::string text = text_of(key);
  ASSERT_EQ(text.size(), 77U);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i % 6 == 5) {
      EXPECT_EQ(text[i], '-');
    } else {
      EXPECT_NE(kAlphabet.find(text[i]), std::string_view::npos);
    }
  }
  EXPECT_TRUE(is_this(parse(text), key));
  EXPECT_FALSE(is_this(parse(text), ok(RecoveryKey::generate())));
}

TEST(RecoveryKey, ReadingIsForgiving) {
  for (int i = 0; i < 200; ++i) {
    const RecoveryKey key = ok(RecoveryKey::generate());
    std::string text = text_of(key);
    std::string loose;
    for (char c : text) {
      if (c == '0') c = i % 2 == 0 ? 'O' : 'o';
      if (c == '1') c = i % 3 == 0 ? 'I' : i % 3 == 1 ? 'l' : 'L';
      if (c == '-') c = i % 2 == 0 ? ' ' : '-';
      loose.push_back(i % 5 == 0 ? static_cast<char>(tolower(c)) : c);
    }
    EXPECT_TRUE(is_this(parse("  " + loose + "\r\n"), key)) << loose;
    text.erase(std::remove(text.begin(), text.end(), '-'), text.end());
    EXPECT_TRUE(is_this(parse(text), key));
  }
}

TEST(RecoveryKey, EverySingleWrongCharacterIsCaughtAndItsGroupNamed) {
  for (int round = 0; round < 20; ++round) {
    const std::string text = text_of(ok(RecoveryKey::generate()));
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (text[at] == '-') continue;
      for (const char c : kAlphabet) {
        if (c == text[at]) continue;
        std::string wrong = text;
        wrong[at] = c;
        const auto parsed = parse(wrong);
        ASSERT_FALSE(parsed) << text << ' ' << wrong;
        ASSERT_NE(parsed.error().what.find("group " + std::to_string(at / 6 + 1) + " "), std::string::npos)
            << parsed.error().what;
      }
    }
  }
}

TEST(RecoveryKey, EveryExchangeOfTwoCharactersIsCaught) {
  for (int round = 0; round < 20; ++round) {
    const std::string text = text_of(ok(RecoveryKey::generate()));
    for (std::size_t a = 0; a < text.size(); ++a) {
      for (std::size_t b = a + 1; b < text.size(); ++b) {
        if (text[a] == text[b] || text[a] == '-' || text[b] == '-') continue;
        std::string wrong = text;
        std::swap(wrong[a], wrong[b]);
        ASSERT_FALSE(parse(wrong)) << text << ' ' << wrong;
      }
    }
  }
}

TEST(RecoveryKey, GroupsInAnotherOrderAreCaught) {
  const std::string text = text_of(ok(RecoveryKey::generate()));
  for (std::size_t a = 0; a < 13; ++a) {
    for (std::size_t b = a + 1; b < 13; ++b) {
      std::string wrong = text;
      std::swap_ranges(wrong.begin() + static_cast<std::ptrdiff_t>(a * 6),
                       wrong.begin() + static_cast<std::ptrdiff_t>(a * 6 + 5),
                       wrong.begin() + static_cast<std::ptrdiff_t>(b * 6));
      if (wrong != text) {
        EXPECT_FALSE(parse(wrong)) << a << ' ' << b;
      }
    }
  }
}

TEST(RecoveryKey, MistakesAreExplained) {
  const std::string text = text_of(ok(RecoveryKey::generate()));
  EXPECT_EQ(failure_of(parse(text.substr(0, 53))).what, "9 groups of 13: the recovery key is not complete");
  EXPECT_EQ(failure_of(parse("")).what, "0 groups of 13: the recovery key is not complete");
  EXPECT_EQ(failure_of(parse("%" + text)).what, "'%' is not a character of a recovery key");
  EXPECT_EQ(failure_of(parse("U" + text)).what, "'U' is not a character of a recovery key");
  EXPECT_EQ(failure_of(parse("\xe2\x80\x93" + text)).code, Code::kInvalid);
  EXPECT_EQ(failure_of(parse(text + "2")).code, Code::kInvalid);
  EXPECT_EQ(failure_of(parse(std::string(100000, '7'))).code, Code::kInvalid);
  // A character left out in the third group is found there, or behind it by chance.
  std::string shorter = text;
  shorter.erase(13, 1);
  const std::string what = failure_of(parse(shorter)).what;
  EXPECT_TRUE(what.find("group ") == 0 || what.find("characters") != std::string::npos) << what;
}

TEST(RecoveryKey, SpareBitsMustBeZero) {
  // Data digits of the last group end in four spare bits; a text with one set and a right check digit is still refused.
  const std::string text = text_of(ok(RecoveryKey::generate()));
  std::size_t refused = 0;
  for (const char d : kAlphabet) {
    for (const char c : kAlphabet) {
      std::string other = text;
      other[75] = d;
      other[76] = c;
      if (other == text) continue;
      const auto parsed = parse(other);
      if (!parsed) {
        ++refused;
      } else {
        EXPECT_TRUE(d == '0' || d == 'G') << other;  // the two digits whose low four bits are zero
      }
    }
  }
  EXPECT_EQ(refused, 32U * 32U - 2U);  // all but the key itself and the one whose last bit differs
}

TEST(RecoveryKey, KnownText) {
  // The check digits by hand from wrap/FORMAT.md: of all-zero digits, group g's is g itself.
  std::string zero;
  for (std::size_t g = 1; g <= 13; ++g) zero += (g > 1 ? "-0000" : "0000") + std::string(1, kAlphabet[g]);
  EXPECT_EQ(zero, "00001-00002-00003-00004-00005-00006-00007-00008-00009-0000A-0000B-0000C-0000D");
  EXPECT_TRUE(all_zero(ok(parse(zero)).bytes().reveal()));
  EXPECT_EQ(text_of(ok(parse(zero))), zero);
}

TEST(RecoveryKey, LooksLikeOne) {
  const std::string text =
      text_of(ok(parse("00001-00002-00003-00004-00005-00006-00007-00008-00009-0000A-0000B-0000C-0000D")));
  const auto looks = [](std::string_view t) { return RecoveryKey::looks_like_one(as_bytes(t)); };
  EXPECT_TRUE(looks(text));
  EXPECT_TRUE(looks(text.substr(0, 70))) << "with a part left out it still has the hyphens of one";
  EXPECT_FALSE(looks("correct horse battery staple"));
  EXPECT_FALSE(looks(""));
  EXPECT_FALSE(looks("a-b-c-d-e-f-g-h-i-j-k-m-n"));
  EXPECT_FALSE(looks(text + "!"));
}

TEST(RecoveryKey, QrCodeHasQuietBorderAndIsSquare) {
  const RecoveryKey key = ok(RecoveryKey::generate());
  const std::string drawn(as_text(ok(key.qr_text()).reveal()));
  // Each glyph is one column of two rows; the first two lines are the border of four light rows.
  const std::size_t line = drawn.find('\n');
  std::size_t columns = 0;
  for (std::size_t i = 0; i < line;) {
    ASSERT_EQ(drawn.substr(i, 3), "\u2588");
    i += 3;
    ++columns;
  }
  EXPECT_EQ((columns - 8 - 17) % 4, 0U) << "no version of a QR code has this size";
  EXPECT_EQ(static_cast<std::size_t>(std::count(drawn.begin(), drawn.end(), '\n')), (columns + 1) / 2);
}

// An independent reader (zbarimg of zbar-tools) gets the text back from what a terminal would show.
TEST(RecoveryKey, QrCodeReadsBack) {
  if (access("/usr/bin/zbarimg", X_OK) != 0) GTEST_SKIP() << "zbarimg (package zbar-tools) is not installed";
  const RecoveryKey key = ok(RecoveryKey::generate());
  const std::string drawn(as_text(ok(key.qr_text()).reveal()));
  std::vector<std::vector<bool>> rows;  // true: light
  std::size_t y = 0;
  rows.resize(2);
  for (std::size_t i = 0; i < drawn.size();) {
    if (drawn[i] == '\n') {
      y += 2;
      rows.resize(y + 2);
      ++i;
      continue;
    }
    const std::string glyph = drawn.substr(i, drawn[i] == ' ' ? 1 : 3);
    i += glyph.size();
    rows[y].push_back(glyph == "\u2588" || glyph == "\u2580");
    rows[y + 1].push_back(glyph == "\u2588" || glyph == "\u2584");
  }
  rows.resize(y);
  constexpr std::size_t kScale = 4;
  const std::size_t width = rows[0].size();
  std::string image = "P5 " + std::to_string(width * kScale) + " " + std::to_string(rows.size() * kScale) + " 255\n";
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), width);
    for (std::size_t again = 0; again < kScale; ++again) {
      for (const bool light : row) image.append(kScale, light ? '\xff' : '\0');
    }
  }
  const Scratch dir;
  put(dir.fd(), "qr.pgm", image);
  ASSERT_EQ(std::system(("zbarimg -q --raw " + (dir / "qr.pgm") + " > " + (dir / "text") + " 2>/dev/null").c_str()), 0);
  EXPECT_EQ(std::string(as_text(get(dir.fd(), "text"))), text_of(key) + "\n");
}

}  // namespace
}  // namespace ecfs::wrap
