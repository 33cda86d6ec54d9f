// eCryptfs keys and their tokens: against the payloads that ecryptfs-add-passphrase put into a kernel's keyring.
#include "wrap/ecryptfs_token.h"

#include <keyutils.h>

#include "tests/wrap/session.h"
#include "tests/wrap/vectors.h"

namespace ecfs::wrap {
namespace {

Bytes bytes_of(const Secret& secret) { return {secret.reveal().begin(), secret.reveal().end()}; }

TEST(EcryptfsToken, ByteForByteAsEcryptfsUtilsMakeThem) {
  int num = 0;
  const auto all = vectors("ecryptfs/keys.json");
  for (const auto& command : all.at("keyring")) {
    for (const auto& token : command.at("keys")) {
      SCOPED_TRACE(token.at("description").get<std::string>());
      const Bytes payload = hex_of(token.at("payload_hex"));
      EcryptfsSalt salt = token.at("role") == "content" ? kEcryptfsContentSalt : kEcryptfsNameSalt;
      if (token.at("role") == "content" && !command.at("rc_salt").is_null()) {
        const Bytes own = hex_of(command.at("rc_salt"));
        std::copy_n(own.begin(), salt.size(), salt.begin());
      }
      const EcryptfsKey key = ok(EcryptfsKey::derive(secret_of(command.at("passphrase").get<std::string>()), salt));
      EXPECT_EQ(to_hex(ok(encode_ecryptfs_token(key)).reveal()), to_hex(payload));
      const EcryptfsKey back = ok(decode_ecryptfs_token(payload));
      EXPECT_TRUE(back.key.equals(key.key));
      EXPECT_EQ(back.signature, key.signature);
      EXPECT_EQ(back.salt, key.salt);
      EXPECT_EQ(to_hex(back.signature), token.at("description"));
      ++num;
    }
  }
  EXPECT_GT(num, 5);
}

TEST(EcryptfsToken, WhatIsNoneIsRefused) {
  const EcryptfsKey key = ok(EcryptfsKey::derive(secret_of("a"), kEcryptfsContentSalt));
  const Bytes good = bytes_of(ok(encode_ecryptfs_token(key)));
  ASSERT_EQ(good.size(), 740U);
  for (std::size_t len = 0; len < good.size(); ++len) {
    EXPECT_EQ(code_of(decode_ecryptfs_token(ByteView(good).first(len))), Code::kCorrupt) << len;
  }
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_EQ(code_of(decode_ecryptfs_token(longer)), Code::kCorrupt);
  const auto changed = [&](std::size_t at, std::uint8_t value) {
    Bytes bytes = good;
    bytes[at] = value;
    return code_of(decode_ecryptfs_token(bytes));
  };
  EXPECT_EQ(changed(0, 5), Code::kCorrupt);                // version
  EXPECT_EQ(changed(2, 1), Code::kUnsupported);            // a private key
  EXPECT_EQ(changed(2, 2), Code::kCorrupt);                // neither
  EXPECT_EQ(changed(640, 16), Code::kCorrupt);             // another length
  EXPECT_EQ(changed(643, 1), Code::kCorrupt);              // a huge one
  EXPECT_EQ(changed(644, 1), Code::kCorrupt);              // no key
  EXPECT_EQ(changed(648, good[648] ^ 1), Code::kCorrupt);  // a key that the signature is not of
  EXPECT_EQ(changed(712, 'g'), Code::kCorrupt);            // no digit
  EXPECT_EQ(changed(727, good[727] == 'a' ? 'b' : 'a'), Code::kCorrupt);
  EXPECT_EQ(changed(728, '0'), Code::kCorrupt);  // no end
  // What only tells of how the key was made is not looked at.
  Bytes other = good;
  for (const std::size_t at : {4U, 8U, 12U, 16U, 20U, 532U, 596U, 628U, 632U, 636U, 737U}) other[at] = 0xff;
  EXPECT_TRUE(ok(decode_ecryptfs_token(other)).key.equals(key.key));
  EcryptfsKey half;
  half.key = ok(Secret::of_size(32));
  EXPECT_EQ(code_of(encode_ecryptfs_token(half)), Code::kInvalid);
}

TEST(EcryptfsToken, Signatures) {
  EXPECT_EQ(to_hex(ok(parse_ecryptfs_signature("A216278e6e397a04"))), "a216278e6e397a04");
  for (const char* text : {"", "a216278e6e397a0", "a216278e6e397a041", "a216278e6e397a04ff", "g216278e6e397a04"}) {
    EXPECT_EQ(code_of(parse_ecryptfs_signature(text)), Code::kInvalid) << text;
  }
}

class EcryptfsKeyring : public testing::Test {
 protected:
  EcryptfsKeyring()
      : key(ok(EcryptfsKey::derive(ok(Secret::copy_of(as_bytes(random_text()))), kEcryptfsContentSalt))) {}
  ~EcryptfsKeyring() override { (void)drop_ecryptfs_token(key.signature); }
  void SetUp() override {
    if (in_session(Session::kLinksUserKeyring, [] { return 0; }) != 0) GTEST_SKIP() << "no keyrings here";
  }
  static std::string random_text() {
    std::array<std::uint8_t, 16> bytes{};
    EXPECT_TRUE(fill_random(bytes));
    return to_hex(bytes);
  }
  EcryptfsKey key;  // one per test: parallel runs meet in the user keyring
};

TEST_F(EcryptfsKeyring, PutFindDrop) {
  for (const Session kind : {Session::kLinksUserKeyring, Session::kBare}) {
    EXPECT_EQ(in_session(kind,
                         [&] {
                           const auto none = find_ecryptfs_token(key.signature);
                           if (none || none.error().code != Code::kNotFound) return 1;
                           if (!drop_ecryptfs_token(key.signature)) return 2;
                           const auto first = put_ecryptfs_token(key);
                           if (!first || *first != TokenPut::kNew) return 3;
                           const auto second = put_ecryptfs_token(key);
                           if (!second || *second != TokenPut::kThere) return 4;
                           const auto found = find_ecryptfs_token(key.signature);
                           if (!found || !found->key.equals(key.key) || found->salt != key.salt) return 5;
                           if (!drop_ecryptfs_token(key.signature)) return 6;
                           return find_ecryptfs_token(key.signature) ? 7 : 0;
                         }),
              0);
  }
}

TEST_F(EcryptfsKeyring, IsListed) {
  for (const Session kind : {Session::kLinksUserKeyring, Session::kBare}) {
    EXPECT_EQ(in_session(kind,
                         [&] {
                           const auto listed = [&] {
                             const auto all = list_ecryptfs_tokens();
                             return all && std::find(all->begin(), all->end(), key.signature) != all->end();
                           };
                           if (listed()) return 1;
                           if (!put_ecryptfs_token(key)) return 2;
                           if (!listed()) return 3;
                           if (!drop_ecryptfs_token(key.signature)) return 4;
                           return listed() ? 5 : 0;
                         }),
              0);
  }
}

TEST_F(EcryptfsKeyring, AsTheKernelAndOtherToolsLookForIt) {
  EXPECT_EQ(in_session(Session::kLinksUserKeyring,
                       [&] {
                         if (!put_ecryptfs_token(key)) return 1;
                         const std::string name = to_hex(key.signature);
                         const key_serial_t serial = request_key("user", name.c_str(), nullptr, 0);
                         if (serial < 0) return 2;
                         char* description = nullptr;
                         if (keyctl_describe_alloc(serial, &description) < 0) return 3;
                         const bool fits = std::string(description).find(";3f010000;" + name) != std::string::npos;
                         free(description);
                         if (!fits) return 4;
                         std::array<char, 1024> payload{};
                         return keyctl_read(serial, payload.data(), payload.size()) == 740 ? 0 : 5;
                       }),
            0);
}

TEST_F(EcryptfsKeyring, ABrokenTokenIsReplacedAndAPrivateKeyIsNot) {
  EXPECT_EQ(in_session(Session::kBare,
                       [&] {
                         const std::string name = to_hex(key.signature);
                         Bytes payload = bytes_of(ok(encode_ecryptfs_token(key)));
                         payload[700] ^= 1;
                         if (add_key("user", name.c_str(), payload.data(), payload.size(), KEY_SPEC_USER_KEYRING) < 0)
                           return 1;
                         auto found = find_ecryptfs_token(key.signature);
                         if (found || found.error().code != Code::kCorrupt) return 2;
                         const auto put = put_ecryptfs_token(key);
                         if (!put || *put != TokenPut::kNew || !find_ecryptfs_token(key.signature)) return 3;
                         payload.assign(1500, 0);
                         payload[0] = 4;
                         payload[2] = 1;
                         if (add_key("user", name.c_str(), payload.data(), payload.size(), KEY_SPEC_USER_KEYRING) < 0)
                           return 4;
                         const auto kept = put_ecryptfs_token(key);
                         if (kept || kept.error().code != Code::kUnsupported) return 5;
                         return drop_ecryptfs_token(key.signature) ? 0 : 6;
                       }),
            0);
}

TEST_F(EcryptfsKeyring, ATokenUnderAnotherNameIsRefused) {
  EXPECT_EQ(in_session(Session::kBare,
                       [&] {
                         EcryptfsSignature other = key.signature;
                         other[0] ^= 1;
                         const Bytes payload = bytes_of(ok(encode_ecryptfs_token(key)));
                         if (add_key("user", to_hex(other).c_str(), payload.data(), payload.size(),
                                     KEY_SPEC_USER_KEYRING) < 0)
                           return 1;
                         const auto found = find_ecryptfs_token(other);
                         if (found || found.error().code != Code::kCorrupt) return 2;
                         return drop_ecryptfs_token(other) ? 0 : 3;
                       }),
            0);
}

}  // namespace
}  // namespace ecfs::wrap
