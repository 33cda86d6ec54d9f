// Names, conflicting copies, links and attributes beyond what the vectors show.
#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

NativeFormatOptions options_with(wrap::NameEncoding encoding, std::uint8_t longest = 0) {
  NativeFormatOptions options = options_of({});
  options.header.name_encoding = encoding;
  options.header.longest_name = longest;
  return options;
}

class Names : public testing::TestWithParam<std::tuple<wrap::NameEncoding, int>> {
 protected:
  const std::unique_ptr<Format> format_ = need(make_native_format(
      options_with(std::get<0>(GetParam()), static_cast<std::uint8_t>(std::get<1>(GetParam()))), test_key()));
  const std::size_t longest_ = std::get<1>(GetParam()) == 0 ? 255 : static_cast<std::size_t>(std::get<1>(GetParam()));
  const DirId dir_ = need(format_->root_id());
};
INSTANTIATE_TEST_SUITE_P(All, Names,
                         testing::Combine(testing::Values(wrap::NameEncoding::kBase64Url,
                                                          wrap::NameEncoding::kBase32Hex),
                                          testing::Values(0, 64, 143, 254)));

TEST_P(Names, EveryLengthComesBack) {
  std::mt19937_64 random(1);
  for (std::size_t len = 1; len <= 255; ++len) {
    std::string name(len, 'x');
    for (char& c : name) {
      do c = static_cast<char>(random());
      while (c == '/' || c == '\0');
    }
    if (name == "." || name == "..") continue;
    const LowerName lower = need(format_->encode_name(dir_, name));
    EXPECT_LE(lower.entry.size(), longest_);
    if (lower.side) {
      EXPECT_LE(lower.entry.size() + 2, longest_);
      EXPECT_LE(lower.side->size(), 272U);
      EXPECT_EQ(format_->kind_of(lower.entry), LowerNameKind::kLongName);
      EXPECT_EQ(format_->kind_of(lower.entry + ".n"), LowerNameKind::kOurs);
      EXPECT_EQ(need(format_->decode_long_name(dir_, lower.entry, *lower.side)), name);
      // The side file of another name, or for another entry.
      const LowerName other = need(format_->encode_name(dir_, std::string(len, 'y')));
      EXPECT_FALSE(format_->decode_long_name(dir_, other.entry, *lower.side));
      // A long name spelled out, longer than this volume's names, would be a second entry for it.
      EXPECT_FALSE(format_->decode_name(dir_, std::get<0>(GetParam()) == wrap::NameEncoding::kBase64Url
                                                  ? to_base64url(*lower.side)
                                                  : to_base32hex(*lower.side)));
    } else {
      EXPECT_EQ(format_->kind_of(lower.entry), LowerNameKind::kName);
      EXPECT_EQ(need(format_->decode_name(dir_, lower.entry)), name);
    }
    EXPECT_EQ(need(format_->encode_name(dir_, name)).entry, lower.entry) << "lookups need the same name each time";
  }
  EXPECT_EQ(format_->longest_plain_name(), 255U);
  EXPECT_EQ(errno_of(format_->encode_name(dir_, std::string(256, 'x')).error()), ENAMETOOLONG);
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("a\0b", 3)}) {
    EXPECT_EQ(errno_of(format_->encode_name(dir_, name).error()), EINVAL);
  }
}

TEST_P(Names, AnotherDirectoryDoesNotDecode) {
  const DirId other = need(format_->child_id(dir_, "d"));
  const LowerName lower = need(format_->encode_name(dir_, "name"));
  EXPECT_FALSE(format_->decode_name(other, lower.entry));
  EXPECT_NE(need(format_->encode_name(other, "name")).entry, lower.entry);
  EXPECT_NE(need(format_->child_id(other, "d")), other);
}

TEST_P(Names, ForeignOnesAreToldFromOurs) {
  for (const char* name : {".ecfs-volume", ".ecfs-volume.bak", ".ecfs-dir", ".ecfs-tmp-0123"}) {
    EXPECT_EQ(format_->kind_of(name), LowerNameKind::kOurs) << name;
  }
  const std::string lower = need(format_->encode_name(dir_, "name")).entry;
  for (const std::string& name :
       {std::string(), std::string("README.txt"), std::string("~x"), std::string("~x.n"), std::string("~"),
        std::string(".ecfs"), lower + " (conflicted copy)", lower + "=", lower.substr(1), lower + "A"}) {
    EXPECT_EQ(format_->kind_of(name), LowerNameKind::kForeign) << name;
  }
}

TEST_P(Names, ConflictingCopiesShowTheNameTheyBeginWith) {
  for (const std::size_t len : {std::size_t{4}, std::size_t{200}}) {
    const std::string plain(len, 'p');
    const LowerName lower = need(format_->encode_name(dir_, plain));
    const ByteView side = lower.side ? ByteView(*lower.side) : ByteView();
    for (const std::string rest :
         {" (conflicted copy 2024)", ".sync-conflict-20240101-120000-ABCDEFG", "~HEAD", ".orig"}) {
      const std::string foreign = lower.entry + rest;
      EXPECT_EQ(format_->conflict_base(foreign), lower.entry);
      const auto name = format_->conflict_name(dir_, foreign, side);
      ASSERT_TRUE(name) << foreign << ": " << why(name);
      EXPECT_EQ(name->plain, plain);
      EXPECT_EQ(name->shown,
                plain + ".ecfs-conflict-" + to_hex(ByteView(need(wrap::sha256({as_bytes(rest)}))).first(4)));
      if (lower.side) {
        EXPECT_FALSE(format_->conflict_name(dir_, foreign)) << "without its side file";
        EXPECT_FALSE(format_->conflict_name(dir_, foreign + ".n", side)) << "the copy of a side file is no entry";
      }
    }
    EXPECT_FALSE(format_->conflict_name(dir_, lower.entry, side));
    EXPECT_FALSE(format_->conflict_name(dir_, lower.entry + ".n", side) && lower.side) << "a side file";
  }
  EXPECT_EQ(format_->conflict_name(dir_, "README.txt").error().code, Code::kNotFound);
  EXPECT_EQ(format_->conflict_name(dir_, "").error().code, Code::kNotFound);
  EXPECT_EQ(format_->conflict_name(dir_, "~").error().code, Code::kNotFound);
  const LowerName longest = need(format_->encode_name(dir_, std::string(255, 'q')));
  EXPECT_EQ(errno_of(format_->conflict_name(dir_, longest.entry + ".x", *longest.side).error()), ENAMETOOLONG);
}

TEST(Links, SizesAndLimits) {
  const auto format = make_format({});
  for (std::size_t len = 1; len <= 3039; len += len < 64 ? 1 : 61) {
    const std::string target(len, 't');
    const std::string lower = need(format->encode_link(target));
    EXPECT_EQ(format->link_size(lower.size()), len);
    EXPECT_EQ(need(format->decode_link(lower)), target);
    EXPECT_NE(need(format->encode_link(target)), lower) << "a nonce of its own each time";
  }
  EXPECT_EQ(need(format->encode_link(std::string(3039, 't'))).size(), 4095U);
  EXPECT_EQ(errno_of(format->encode_link(std::string(3040, 't')).error()), ENAMETOOLONG);
  EXPECT_FALSE(format->encode_link(""));
  const std::string lower = need(format->encode_link("target"));
  for (std::size_t i = 0; i < lower.size(); ++i) {
    std::string changed = lower;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_EQ(format->decode_link(changed).error().code, Code::kCorrupt);
    EXPECT_EQ(format->decode_link(lower.substr(0, i)).error().code, Code::kCorrupt);
  }
  for (std::uint64_t len = 0; len < 100; ++len) EXPECT_LE(format->link_size(len), len);
}

TEST(Xattrs, BoundToTheirNames) {
  const auto format = make_format({});
  const std::string longest = "user." + std::string(162, 'n');
  for (const std::string& name : {std::string("user.a"), std::string("user.ecfs.x"), longest}) {
    const std::string lower = need(format->encode_xattr_name(name));
    EXPECT_LE(lower.size(), 255U);
    EXPECT_EQ(format->decode_xattr_name(lower), name);
    EXPECT_EQ(need(format->encode_xattr_name(name)), lower);
  }
  EXPECT_EQ(errno_of(format->encode_xattr_name(longest + "n").error()), ERANGE);
  for (const char* name : {"security.selinux", "trusted.x", "user.", "user", ""})
    EXPECT_FALSE(format->encode_xattr_name(name));
  for (const char* name : {"user.comment", "user.ecfs.", "user.ecfs.AAAA", "security.selinux", ""}) {
    EXPECT_FALSE(format->decode_xattr_name(name)) << name;
  }
  const Bytes value{1, 2, 3};
  const Bytes lower = need(format->encode_xattr_value("user.a", value));
  EXPECT_EQ(need(format->decode_xattr_value("user.a", lower)), value);
  EXPECT_FALSE(format->decode_xattr_value("user.b", lower)) << "a value carried to another name";
  for (std::size_t i = 0; i < lower.size(); ++i) {
    Bytes changed = lower;
    changed[i] ^= 4;
    EXPECT_FALSE(format->decode_xattr_value("user.a", changed));
    EXPECT_FALSE(format->decode_xattr_value("user.a", ByteView(lower).first(i)));
  }
  EXPECT_EQ(format->xattr_value_size(33), 0U);
  EXPECT_FALSE(format->xattr_value_size(32));
}

TEST(Siv, TakesNothingEmpty) {
  const Ciphers ciphers = need(Ciphers::fetch());
  const Secret key = need(Secret::random(64));
  const Siv siv = need(Siv::make(ciphers, key));
  const Bytes some{1};
  EXPECT_FALSE(siv.seal({}, some));
  EXPECT_FALSE(siv.seal(some, {}));
  const Bytes sealed = need(siv.seal(some, some));
  EXPECT_FALSE(siv.open({}, sealed));
  EXPECT_FALSE(siv.open(some, ByteView(sealed).first(16)));
  EXPECT_EQ(need(siv.open(some, sealed)), some);
  EXPECT_FALSE(Siv::make(ciphers, need(Secret::random(32))));
}

// All zeros would stand for an absent version: such a nonce is drawn again.
TEST(Nonces, AreNeverAllZero) {
  Bytes script(16, 7);           // file id
  append(script, Bytes(12, 0));  // the header's nonce: refused
  append(script, Bytes(12, 9));  // drawn again
  const auto nonces = std::make_shared<Scripted>(script);
  const auto format = need(make_native_format(options_of({}), test_key(), nonces));
  LowerFile lower(memory_file(), true);
  const auto contents = need(format->open_contents(lower));
  EXPECT_EQ(need(contents->write(0, Bytes{1})), 1U);
  EXPECT_TRUE(nonces->used_up());
  EXPECT_EQ(contents_of(lower)[24], 9);
}

}  // namespace
}  // namespace ecfs::fs::test
