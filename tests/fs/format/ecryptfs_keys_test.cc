// Keys and ciphers of the eCryptfs format: against the tokens that ecryptfs-utils puts into the keyring, and against
// the files of a kernel, extent by extent.
#include "fs/format/ecryptfs_keys.h"

#include <set>

#include "tests/fs/format/ecryptfs_vectors.h"

namespace ecfs::fs::test {
namespace {

Secret secret(std::string_view text) { return need(Secret::copy_of(as_bytes(text))); }

const EcryptfsCiphers& ciphers() {
  static const EcryptfsCiphers kCiphers = need(EcryptfsCiphers::fetch());
  return kCiphers;
}

EcryptfsHeader header_of(const TarEntry& entry) {
  return entry.attribute ? need(parse_ecryptfs_header(*entry.attribute, EcryptfsPlace::kXattr))
                         : need(parse_ecryptfs_header(entry.data, EcryptfsPlace::kFile));
}

TEST(EcryptfsKeys, AreThoseOfTheKeyring) {
  int num = 0;
  const Json all = Json::parse(ecryptfs_file("keys.json"));
  for (const Json& command : all.at("keyring")) {
    for (const Json& token : command.at("keys")) {
      SCOPED_TRACE(token.at("description").get<std::string>());
      const Bytes payload = need(from_hex(token.at("payload_hex").get<std::string>()));
      ASSERT_EQ(payload.size(), 740U);
      const auto salt = hex_array<8>(to_hex(ByteView(payload).subspan(729, 8)));
      if (token.at("role") == "content" && command.at("rc_salt").is_null()) {
        EXPECT_EQ(salt, kEcryptfsContentSalt);
      }
      if (token.at("role") != "content") {
        EXPECT_EQ(salt, kEcryptfsNameSalt);
      }
      const EcryptfsKey key = need(EcryptfsKey::derive(secret(command.at("passphrase").get<std::string>()), salt));
      EXPECT_EQ(to_hex(key.key.reveal()), to_hex(ByteView(payload).subspan(648, 64)));
      EXPECT_EQ(to_hex(key.signature), token.at("description"));
      EXPECT_EQ(key.salt, salt);
      ++num;
    }
  }
  EXPECT_GT(num, 5);
}

TEST(EcryptfsKeys, PassphrasesThatAreNone) {
  for (const std::string& text : {std::string(), std::string(65, 'x'), std::string("a\0b", 3)}) {
    const auto key = EcryptfsKey::derive(secret(text), kEcryptfsContentSalt);
    ASSERT_FALSE(key);
    EXPECT_EQ(key.error().code, Code::kInvalid);
  }
}

TEST(EcryptfsKeys, EveryExtentOfAKernelOpensAndIsMadeAgain) {
  std::map<std::string, int> extents;
  std::set<std::string> refused;
  for (const EcryptfsCase& c : ecryptfs_cases()) {
    SCOPED_TRACE(c.name);
    const EcryptfsKeys keys = c.keys();
    EXPECT_TRUE(keys.find(c.signature("sig")));
    if (c.manifest.contains("fnek_sig")) {
      EXPECT_TRUE(keys.find(c.signature("fnek_sig")));
    }
    if (c.manifest.contains("sig2")) {
      EXPECT_TRUE(keys.find(c.signature("sig2")));
    }
    for (const Json& entry : c.manifest.at("entries")) {
      const TarEntry& lower = c.lower.at(EcryptfsCase::lower_of(entry.at("lower").at(0)));
      if (entry.at("type") != "file" || (c.manifest.value("foreign", false) && !lower.attribute &&
                                         !parse_ecryptfs_header(lower.data, EcryptfsPlace::kFile))) {
        continue;
      }
      SCOPED_TRACE(EcryptfsCase::path_of(entry));
      const EcryptfsHeader header = header_of(lower);
      EXPECT_EQ(header.plain_size, entry.at("size"));
      const auto key = EcryptfsFileKey::open(keys, ciphers(), header);
      if (!c.supported()) {
        ASSERT_FALSE(key);
        EXPECT_EQ(key.error().code, Code::kUnsupported);
        EXPECT_NE(key.error().what.find(c.manifest.at("cipher").get<std::string>()), std::string::npos);
        refused.insert(c.manifest.at("cipher"));
        continue;
      }
      ASSERT_TRUE(key) << why(key);
      EXPECT_EQ((*key)->cipher().name(), c.manifest.at("cipher"));
      EXPECT_EQ((*key)->cipher().key_bytes, c.manifest.at("key_bytes"));
      const std::size_t from = header.data_offset(lower.attribute ? EcryptfsPlace::kXattr : EcryptfsPlace::kFile);
      const ByteView sealed = ByteView(lower.data).subspan(from);
      Bytes plain(sealed.size());
      auto opener = need((*key)->lease(false));
      auto sealer = need((*key)->lease(true));
      for (std::size_t at = 0; at < sealed.size(); at += kEcryptfsExtentBytes) {
        const ByteView extent = sealed.subspan(at, kEcryptfsExtentBytes);
        ASSERT_TRUE(opener.crypt(at / kEcryptfsExtentBytes, extent, plain.data() + at));
        Bytes again(kEcryptfsExtentBytes);
        ASSERT_TRUE(sealer.crypt(at / kEcryptfsExtentBytes, ByteView(plain).subspan(at, again.size()), again.data()));
        EXPECT_TRUE(std::equal(again.begin(), again.end(), extent.begin()));
        ++extents[c.manifest.at("cipher").get<std::string>() + " " + c.manifest.at("key_bytes").dump()];
      }
      ASSERT_GE(plain.size(), header.plain_size);
      plain.resize(header.plain_size);
      EXPECT_EQ(to_hex(need(wrap::sha256({plain}))), entry.at("sha256"));
    }
  }
  for (const auto& [cipher, num] : extents) std::printf("  %-16s %5d extents\n", cipher.c_str(), num);
  const bool all = has_botan_cipher(0x0a);
  EXPECT_EQ(extents.size(), all ? 13U : 9U);
  EXPECT_EQ(refused, all ? std::set<std::string>{} : (std::set<std::string>{"twofish", "cast6"}));
}

TEST(EcryptfsKeys, CiphersByNameAndLength) {
  const std::map<std::string, std::vector<std::size_t>> all{
      {"aes", {16, 24, 32}}, {"des3_ede", {24}},    {"blowfish", {8, 16, 24, 32, 40, 48, 56}},
      {"cast5", {8, 16}},    {"twofish", {16, 32}}, {"cast6", {16, 32}}};
  for (const auto& [name, lengths] : all) {
    for (std::size_t len = 0; len <= 80; ++len) {
      const auto cipher = EcryptfsCipher::by_name(name, len);
      const bool good = std::find(lengths.begin(), lengths.end(), len) != lengths.end();
      EXPECT_EQ(cipher.has_value(), good) << name << " " << len;
      if (!cipher) {
        EXPECT_EQ(cipher.error().code, Code::kInvalid);
        continue;
      }
      EXPECT_EQ(cipher->name(), name);
      EXPECT_EQ(need(EcryptfsCipher::of_packet(cipher->code, cipher->encrypted_key_bytes())), *cipher);
      EXPECT_EQ(need(EcryptfsCipher::of_name(cipher->code, len)), *cipher);
      EXPECT_EQ(cipher->encrypted_key_bytes() % cipher->block_bytes(), 0U);
    }
  }
  EXPECT_FALSE(EcryptfsCipher::by_name("serpent", 16));
  for (unsigned code = 0; code < 256; ++code) {
    for (std::size_t len = 0; len <= kEcryptfsMaxKeyBytes; ++len) {
      const auto cipher = EcryptfsCipher::of_packet(static_cast<std::uint8_t>(code), len);
      if (cipher) {
        EXPECT_EQ(need(EcryptfsCipher::by_name(cipher->name(), cipher->key_bytes)), *cipher);
      }
    }
  }
  EXPECT_FALSE(EcryptfsCipher::of_packet(8, 24));
  EXPECT_FALSE(EcryptfsCipher::of_packet(7, 32));
  EXPECT_FALSE(EcryptfsCipher::of_name(0x0c, 16));
  EXPECT_FALSE(EcryptfsCipher::of_name(0x03, 24));
}

TEST(EcryptfsKeys, FileKeysWeMake) {
  EcryptfsKeys keys;
  keys.all.push_back(need(EcryptfsKey::derive(secret("one"), kEcryptfsContentSalt)));
  keys.all.push_back(need(EcryptfsKey::derive(secret("two"), kEcryptfsContentSalt)));
  const std::vector<EcryptfsSignature> both{keys.all[0].signature, keys.all[1].signature};
  for (const auto& [name, len] :
       std::map<std::string, std::size_t>{{"aes", 24}, {"des3_ede", 24}, {"blowfish", 40}, {"cast5", 8}}) {
    SCOPED_TRACE(name);
    const EcryptfsCipher cipher = need(EcryptfsCipher::by_name(name, len));
    EcryptfsHeader header;
    header.keys = need(make_ecryptfs_file_key(keys, ciphers(), cipher, both));
    ASSERT_EQ(header.keys.size(), 2U);
    EXPECT_NE(header.keys[0].encrypted_key, header.keys[1].encrypted_key);
    EXPECT_NE(header.keys, need(make_ecryptfs_file_key(keys, ciphers(), cipher, both)));
    const Bytes plain(kEcryptfsExtentBytes, 0x5a);
    Bytes sealed(plain.size());
    EXPECT_TRUE(need(need(EcryptfsFileKey::open(keys, ciphers(), header))->lease(true)).crypt(7, plain, sealed.data()));
    // Either key alone opens the file; with none of them it stays shut.
    for (std::size_t i = 0; i < 2; ++i) {
      EcryptfsKeys one;
      one.all.push_back({need(keys.all[i].key.clone()), keys.all[i].salt, keys.all[i].signature});
      const auto key = need(EcryptfsFileKey::open(one, ciphers(), header));
      Bytes opened(plain.size());
      EXPECT_TRUE(need(key->lease(false)).crypt(7, sealed, opened.data()));
      EXPECT_EQ(opened, plain);
      one.all.clear();
      EXPECT_TRUE(key->lease(false)) << "an idle context is left";
      key->drop_keys();
      const auto shut = key->lease(false);
      ASSERT_FALSE(shut);
      EXPECT_EQ(shut.error().code, Code::kNoKey);
    }
    const auto none = EcryptfsFileKey::open({}, ciphers(), header);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Code::kNoKey);
    EXPECT_NE(none.error().what.find(to_hex(both[1])), std::string::npos);
  }
  EcryptfsHeader odd;
  odd.keys.push_back({7, {}, Bytes(32), both[0]});
  const auto refused = EcryptfsFileKey::open(keys, ciphers(), odd);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace ecfs::fs::test
