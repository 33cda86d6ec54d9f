#include "wrap/crypto.h"

#include "tests/wrap/vectors.h"

namespace ecfs::wrap {
namespace {

Bytes hex(std::string_view text) { return ok(from_hex(text)); }

TEST(Crypto, Sha256AndHmacOfParts) {
  EXPECT_EQ(to_hex(ok(sha256({}))), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(ok(sha256({as_bytes("a"), {}, as_bytes("bc")}))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // RFC 4231, test cases 2 and 3.
  EXPECT_EQ(to_hex(ok(hmac_sha256(as_bytes("Jefe"), {as_bytes("what do ya want "), as_bytes("for nothing?")}))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(to_hex(ok(hmac_sha256(Bytes(20, 0xaa), {Bytes(50, 0xdd)}))),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  EXPECT_EQ(to_hex(ok(hmac_sha256({}, {}))), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

// RFC 5869, appendix A.
TEST(Crypto, HkdfKnownAnswers) {
  const Secret prk1 = ok(hkdf_extract(hex("000102030405060708090a0b0c"), Bytes(22, 0x0b)));
  EXPECT_EQ(to_hex(prk1.reveal()), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
  const Bytes info = hex("f0f1f2f3f4f5f6f7f8f9");
  EXPECT_EQ(to_hex(ok(hkdf_expand(prk1, as_text(info), 42)).reveal()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
  const Secret prk3 = ok(hkdf_extract({}, Bytes(22, 0x0b)));  // no salt, no info
  EXPECT_EQ(to_hex(prk3.reveal()), "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04");
  EXPECT_EQ(to_hex(ok(hkdf_expand(prk3, "", 42)).reveal()),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
  EXPECT_EQ(code_of(hkdf_expand(prk3, "", 8161)), Code::kInvalid);
  EXPECT_EQ(ok(hkdf_expand(prk3, "", 8160)).size(), 8160U);
}

// NIST's GCM specification, AES-256 test cases 14 and 16.
TEST(Crypto, GcmKnownAnswers) {
  const Secret zero = ok(Secret::of_size(32));
  EXPECT_EQ(to_hex(ok(gcm_seal(zero, Bytes(12, 0), {}, ok(Secret::of_size(16))))),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
  const Secret key = ok(Secret::copy_of(hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")));
  const Secret plain =
      ok(Secret::copy_of(hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e244"
                             "9a6b525b16aedf5aa0de657ba637b39")));
  EXPECT_EQ(to_hex(ok(gcm_seal(key, hex("cafebabefacedbaddecaf888"), hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
                               plain))),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393"
            "ba7a0abcc9f662"
            "76fc6ece0f4e1768cddf8853bb2d551b");
}

TEST(Crypto, GcmRefusesEveryChange) {
  const Secret key = ok(Secret::random(32));
  const Bytes nonce(12, 1);
  const Bytes associated = {1, 2, 3};
  const Secret plain = secret_of("the volume key");
  const Bytes sealed = ok(gcm_seal(key, nonce, associated, plain));
  EXPECT_TRUE(ok(gcm_open(key, nonce, associated, sealed)).equals(plain));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Bytes changed = sealed;
    changed[i] ^= 0x10;
    EXPECT_EQ(code_of(gcm_open(key, nonce, associated, changed)), Code::kWrongKey);
  }
  EXPECT_EQ(code_of(gcm_open(key, nonce, Bytes{1, 2}, sealed)), Code::kWrongKey);
  EXPECT_EQ(code_of(gcm_open(key, Bytes(12, 2), associated, sealed)), Code::kWrongKey);
  EXPECT_EQ(code_of(gcm_open(ok(Secret::random(32)), nonce, associated, sealed)), Code::kWrongKey);
  EXPECT_EQ(code_of(gcm_open(key, nonce, associated, Bytes(15))), Code::kInvalid);
  EXPECT_EQ(code_of(gcm_open(ok(Secret::random(16)), nonce, associated, sealed)), Code::kInvalid);
  EXPECT_EQ(code_of(gcm_seal(key, Bytes(11), associated, plain)), Code::kInvalid);
  const Bytes empty = ok(gcm_seal(key, nonce, associated, Secret()));
  EXPECT_TRUE(ok(gcm_open(key, nonce, associated, empty)).empty());
}

}  // namespace
}  // namespace ecfs::wrap
