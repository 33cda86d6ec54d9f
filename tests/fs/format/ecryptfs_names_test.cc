// Encrypted names and link targets of the eCryptfs format: against the names of a kernel, at every length, and changed.
#include "fs/format/ecryptfs_names.h"

#include "tests/fs/format/ecryptfs_vectors.h"

namespace ecfs::fs::test {
namespace {

const EcryptfsCiphers& ciphers() {
  static const EcryptfsCiphers kCiphers = need(EcryptfsCiphers::fetch());
  return kCiphers;
}

const EcryptfsKeys& keys() {
  static const EcryptfsKeys kKeys = [] {
    EcryptfsKeys all;
    for (const std::string_view text : {"one", "two"}) {
      all.all.push_back(need(EcryptfsKey::derive(need(Secret::copy_of(as_bytes(text))), kEcryptfsNameSalt)));
    }
    return all;
  }();
  return kKeys;
}

EcryptfsNames names(const char* cipher = "aes", std::size_t key_bytes = 16, std::size_t key = 0) {
  return need(EcryptfsNames::make(keys(), ciphers(), need(EcryptfsCipher::by_name(cipher, key_bytes)),
                                  keys().all[key].signature));
}

TEST(EcryptfsNames, AreThoseOfAKernel) {
  std::map<std::string, int> num;
  for (const EcryptfsCase& c : ecryptfs_cases()) {
    if (!c.manifest.contains("fnek_sig")) continue;
    SCOPED_TRACE(c.name);
    const EcryptfsKeys case_keys = c.keys();
    const EcryptfsCipher cipher = c.name_cipher();
    const auto made = EcryptfsNames::make(case_keys, ciphers(), cipher, c.signature("fnek_sig"));
    if (!c.supported()) {
      ASSERT_FALSE(made);
      EXPECT_EQ(made.error().code, Code::kUnsupported);
      ++num["refused"];
      continue;
    }
    ASSERT_TRUE(made) << why(made);
    for (const Json& entry : c.manifest.at("entries")) {
      std::string plain = EcryptfsCase::path_of(entry);
      plain = plain.substr(plain.rfind('/') + 1);
      SCOPED_TRACE(plain);
      bool found = false;
      for (const Json& text : entry.at("lower")) {  // the paths of all links to the file: one of them is this one
        const std::string path = EcryptfsCase::lower_of(text);
        const std::string lower = path.substr(path.rfind('/') + 1);
        const auto decoded = made->decode(lower);
        ASSERT_TRUE(decoded) << why(decoded);
        EXPECT_EQ(need(made->encode(*decoded)), lower);
        found = found || *decoded == plain;
      }
      EXPECT_TRUE(found);
      ++num[std::string(cipher.name()) + " names"];
      if (entry.at("type") != "symlink") continue;
      const TarEntry& link = c.lower.at(EcryptfsCase::lower_of(entry.at("lower").at(0)));
      EXPECT_EQ(need(made->decode_link(link.target)), entry.at("target"));
      EXPECT_EQ(need(made->encode_link(entry.at("target").get<std::string>())), link.target);
      ++num["links"];
    }
  }
  for (const auto& [kind, count] : num) std::printf("  %-16s %5d\n", kind.c_str(), count);
  const bool all = has_botan_cipher(0x0a);  // four or six ciphers, links, and what was refused
  EXPECT_EQ(num.size(), all ? 7U : 6U);
  EXPECT_EQ(num["refused"], all ? 0 : 2);
}

TEST(EcryptfsNames, EveryLength) {
  for (const auto& [cipher, len] : std::map<std::string, std::size_t>{{"aes", 32}, {"des3_ede", 24}, {"cast5", 16}}) {
    const EcryptfsNames all = names(cipher.c_str(), len);
    for (std::size_t n = 1; n <= kEcryptfsLongestName; ++n) {
      const std::string plain(n, 'n');
      const std::string lower = need(all.encode(plain));
      EXPECT_LE(lower.size(), 252U);
      EXPECT_EQ(need(all.decode(lower)), plain);
    }
    const auto longer = all.encode(std::string(kEcryptfsLongestName + 1, 'n'));
    ASSERT_FALSE(longer);
    EXPECT_EQ(errno_of(longer.error()), ENAMETOOLONG);
    EXPECT_FALSE(all.encode(""));
    const std::string target(cipher == "aes" ? 3007 : 3015, 't');
    const std::string lower = need(all.encode_link(target));
    EXPECT_LT(lower.size(), 4096U);
    EXPECT_EQ(need(all.decode_link(lower)), target);
    EXPECT_EQ(errno_of(all.encode_link(target + "t").error()), ENAMETOOLONG);
    EXPECT_EQ(errno_of(all.encode_link(std::string(100000, 't')).error()), ENAMETOOLONG);
  }
}

TEST(EcryptfsNames, WhatNoLookupWouldFindIsNoName) {
  const EcryptfsNames ours = names();
  const std::string lower = need(ours.encode("a name"));
  const auto refused = [&](const std::string& text) {
    const auto name = ours.decode(text);
    return !name && (name.error().code == Code::kCorrupt || name.error().code == Code::kNoKey);
  };
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused("plain"));
  EXPECT_TRUE(refused(std::string(kEcryptfsNamePrefix)));
  EXPECT_TRUE(refused(lower + "----"));
  EXPECT_TRUE(refused(lower.substr(0, lower.size() - 4)));
  for (std::size_t at = 0; at < lower.size(); ++at) {
    std::string text = lower;
    text[at] = text[at] == 'A' ? 'B' : 'A';
    EXPECT_TRUE(refused(text)) << at;
    text[at] = '/';
    EXPECT_TRUE(refused(text)) << at;
  }
  // Under another key or cipher of this mount: a link opens, a name does not.
  for (const EcryptfsNames& other : {names("aes", 16, 1), names("aes", 32), names("blowfish", 16)}) {
    const std::string text = need(other.encode("a name"));
    EXPECT_TRUE(refused(text));
    EXPECT_EQ(need(ours.decode_link(text)), "a name");
  }
  for (const char* bad : {".", "..", "a/b"}) EXPECT_TRUE(refused(need(ours.encode(bad)))) << bad;
  EXPECT_TRUE(refused(need(ours.encode(std::string("a\0b", 3)))));
}

TEST(EcryptfsNames, WithoutKeys) {
  EcryptfsNames all = names();
  const std::string lower = need(all.encode("x"));
  all.drop_keys();
  EXPECT_EQ(all.encode("x").error().code, Code::kNoKey);
  EXPECT_EQ(all.decode(lower).error().code, Code::kNoKey);
  EXPECT_EQ(all.decode_link(lower).error().code, Code::kNoKey);
  EcryptfsSignature other{};
  EXPECT_EQ(EcryptfsNames::make(keys(), ciphers(), {7, 16}, other).error().code, Code::kNoKey);
}

TEST(EcryptfsNames, TextOfBytes) {
  std::mt19937_64 random(1);
  for (std::size_t len = 0; len < 100; ++len) {
    const Bytes bytes = random_bytes(random, len);
    Bytes back = need(from_ecryptfs_text(to_ecryptfs_text(bytes)));
    EXPECT_EQ(back.size(), (len + 2) / 3 * 3);
    back.resize(len);
    EXPECT_EQ(back, bytes);
  }
  EXPECT_EQ(to_ecryptfs_text(Bytes{0xff, 0xff, 0xff, 0}), "zzzz----");
  EXPECT_FALSE(from_ecryptfs_text("abc"));
  EXPECT_FALSE(from_ecryptfs_text("ab=="));
}

}  // namespace
}  // namespace ecfs::fs::test
