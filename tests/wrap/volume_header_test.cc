#include "wrap/volume_header.h"

#include "tests/wrap/vectors.h"
#include "wrap/crypto.h"

namespace ecfs::wrap {
namespace {

class NativeVectors : public testing::Test {
 protected:
  NativeVectors() : v(vectors("native/vectors.json")), key(secret_hex(v["volume_key"])) {
    const Bytes b = hex_of(v["volume_id"]);
    std::copy(b.begin(), b.end(), id.begin());
  }
  nlohmann::json v;
  Secret key;
  VolumeId id{};
};

TEST_F(NativeVectors, EveryKeyOfAVolume) {
  const Secret prk = ok(volume_prk(id, key));
  std::size_t seen = 0;
  for (const auto& [name, value] : v["keys"].items()) {
    const Bytes expected = hex_of(value);
    EXPECT_EQ(to_hex(ok(hkdf_expand(prk, "ecfs1 " + name, expected.size())).reveal()), to_hex(expected)) << name;
    ++seen;
  }
  EXPECT_EQ(seen, 10U);
}

TEST_F(NativeVectors, GoodHeadersAreReadAndMadeAgain) {
  ASSERT_GE(v["volume_headers"].size(), 4U);
  for (const auto& h : v["volume_headers"]) {
    const Bytes raw = hex_of(h["raw"]);
    const VolumeFile file = ok(parse_volume_file(raw));
    EXPECT_EQ(file.header.id, id);
    EXPECT_EQ(static_cast<int>(file.header.suite), h["suite"].get<int>());
    EXPECT_EQ(file.header.block_shift, h["shift"].get<int>());
    EXPECT_EQ(static_cast<int>(file.header.name_encoding), h["enc"].get<int>());
    EXPECT_EQ(file.header.longest_name, h.value("longest", 0));
    EXPECT_EQ(file.slots, hex_of(h["slots"]));
    EXPECT_EQ(file.raw, raw);
    EXPECT_TRUE(verify_volume_file(file, key));
    EXPECT_EQ(to_hex(ok(build_volume_file(file.header, file.slots, key))), to_hex(raw));
    EXPECT_EQ(code_of(verify_volume_file(file, ok(Secret::random(32)))), Code::kCorrupt);
  }
}

TEST_F(NativeVectors, BadHeadersAreRefused) {
  ASSERT_GE(v["volume_headers_bad"].size(), 11U);
  for (const auto& h : v["volume_headers_bad"]) {
    const auto file = parse_volume_file(hex_of(h["raw"]));
    if (file) {
      EXPECT_EQ(code_of(verify_volume_file(*file, key)), Code::kCorrupt) << h["why"];
    }
  }
}

VolumeHeader header_of(const VolumeId& id) {
  VolumeHeader h;
  h.id = id;
  return h;
}

TEST_F(NativeVectors, EveryBitOfAHeaderCounts) {
  const Bytes raw = ok(build_volume_file(header_of(id), Bytes(20, 0x78), key));
  for (std::size_t bit = 0; bit < raw.size() * 8; ++bit) {
    Bytes changed = raw;
    changed[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    const auto file = parse_volume_file(changed);
    EXPECT_FALSE(file && verify_volume_file(*file, key)) << bit;
  }
  for (std::size_t len = 0; len < raw.size(); ++len) {
    EXPECT_EQ(code_of(parse_volume_file(ByteView(raw).first(len))), Code::kCorrupt) << len;
  }
  Bytes longer = raw;
  longer.push_back(0);
  EXPECT_EQ(code_of(parse_volume_file(longer)), Code::kCorrupt);
}

TEST_F(NativeVectors, LaterVersionsAndFeaturesAreNamedAsSuch) {
  Bytes raw = ok(build_volume_file(header_of(id), {}, key));
  Bytes later = raw;
  later[12] = 2;
  EXPECT_EQ(code_of(parse_volume_file(later)), Code::kUnsupported);
  later = raw;
  later[44] = 2;  // an incompat bit that is not known
  EXPECT_EQ(code_of(parse_volume_file(later)), Code::kUnsupported);
  later = raw;
  later[7] = 'E';
  EXPECT_EQ(code_of(parse_volume_file(later)), Code::kUnsupported);
  VolumeHeader h = header_of(id);
  h.compat = 0x80000000U;
  h.ro_compat = 1;
  h.incompat = kIncompatSealedSize;
  h.minor_version = 9;
  raw = ok(build_volume_file(h, {}, key));
  const VolumeFile file = ok(parse_volume_file(raw));
  EXPECT_TRUE(file.header.must_be_read_only());
  EXPECT_TRUE(file.header.sealed_size());
  EXPECT_EQ(to_hex(ok(build_volume_file(file.header, {}, key))), to_hex(raw));
}

TEST_F(NativeVectors, HeadersOutOfBoundsAreNotMade) {
  const auto code_with = [&](auto&& change) {
    VolumeHeader h = header_of(id);
    change(h);
    return code_of(build_volume_file(h, {}, key));
  };
  EXPECT_EQ(code_with([](VolumeHeader& h) { h.suite = static_cast<Suite>(3); }), Code::kInvalid);
  EXPECT_EQ(code_with([](VolumeHeader& h) { h.block_shift = 11; }), Code::kInvalid);
  EXPECT_EQ(code_with([](VolumeHeader& h) { h.block_shift = 17; }), Code::kInvalid);
  EXPECT_EQ(code_with([](VolumeHeader& h) { h.name_encoding = static_cast<NameEncoding>(0); }), Code::kInvalid);
  EXPECT_EQ(code_with([](VolumeHeader& h) { h.longest_name = 63; }), Code::kInvalid);
  EXPECT_EQ(code_with([](VolumeHeader& h) { h.longest_name = 255; }), Code::kInvalid);
  EXPECT_EQ(code_of(build_volume_file(header_of(id), Bytes(1U << 20), key)), Code::kInvalid);
  const Bytes largest = ok(build_volume_file(header_of(id), Bytes((1U << 20) - 96), key));
  EXPECT_EQ(largest.size(), kMaxVolumeFileBytes);
  EXPECT_TRUE(parse_volume_file(largest));
  EXPECT_EQ(code_of(parse_volume_file(Bytes((1U << 20) + 1))), Code::kCorrupt);
}

TEST(EcryptfsHeader, ThereAndBack) {
  VolumeHeader header;
  header.kind = VolumeKind::kEcryptfs;
  header.id.fill(0x5a);
  const Secret key = ok(pad_mount_passphrase(secret_of("0123456789abcdef0123456789abcdef")));
  const Bytes slots{1, 2, 3};
  const Bytes raw = ok(build_volume_file(header, slots, key));
  EXPECT_EQ(as_text(ByteView(raw).first(8)), "ECFSVOLE");
  EXPECT_EQ(raw.size(), 64U + 3 + 32);
  EXPECT_TRUE(all_zero(ByteView(raw).subspan(32, 16)));
  const VolumeFile file = ok(parse_volume_file(raw, VolumeKind::kEcryptfs));
  EXPECT_EQ(file.header.id, header.id);
  EXPECT_EQ(file.header.kind, VolumeKind::kEcryptfs);
  EXPECT_EQ(file.slots, slots);
  ok(verify_volume_file(file, key));
  EXPECT_EQ(code_of(verify_volume_file(file, ok(pad_mount_passphrase(secret_of("another"))))), Code::kCorrupt);
  EXPECT_EQ(code_of(parse_volume_file(raw)), Code::kUnsupported);
  header.kind = VolumeKind::kNative;
  const Secret native_key = ok(Secret::random(kVolumeKeyBytes));
  EXPECT_EQ(code_of(parse_volume_file(ok(build_volume_file(header, slots, native_key)), VolumeKind::kEcryptfs)),
            Code::kUnsupported);
  for (std::size_t i = 0; i < raw.size(); ++i) {
    Bytes changed = raw;
    changed[i] ^= 0x40;
    const auto parsed = parse_volume_file(changed, VolumeKind::kEcryptfs);
    if (i % 16 != 5) {
      EXPECT_TRUE(!parsed || i == 14 || i == 15 || (i >= 16 && i < 32) || i >= 52) << i;
    } else if (parsed) {
      EXPECT_EQ(code_of(verify_volume_file(*parsed, key)), Code::kCorrupt) << i;
    }
  }
}

// The bytes of wrap/FORMAT.md §8, computed as it says and not as we do.
TEST(EcryptfsHeader, ItsKeyIsMadeOfTheContentsKey) {
  VolumeHeader header;
  header.kind = VolumeKind::kEcryptfs;
  header.id.fill(0x5a);
  const Bytes raw = ok(build_volume_file(header, {}, ok(pad_mount_passphrase(secret_of("a")))));
  EXPECT_EQ(to_hex(ByteView(raw).last(32)), "fada584622539497d08dc6b8fb1b3fb864120078479df094f29ee5c64e2df2ba");
}

TEST(MountPassphrase, IsPaddedSoThatItsLengthIsNotToBeSeen) {
  for (const std::size_t len : {1U, 32U, 64U}) {
    const Secret padded = ok(pad_mount_passphrase(secret_of(std::string(len, 'p'))));
    EXPECT_EQ(padded.size(), 64U);
    EXPECT_EQ(as_text(ok(unpad_mount_passphrase(padded)).reveal()), std::string(len, 'p'));
  }
  for (const std::string& none : {std::string(), std::string(65, 'x'), std::string("a\0b", 3)}) {
    EXPECT_EQ(code_of(pad_mount_passphrase(secret_of(none))), Code::kInvalid);
  }
  std::string hole(64, '\0');
  EXPECT_EQ(code_of(unpad_mount_passphrase(secret_of(hole))), Code::kCorrupt);
  hole[0] = 'a';
  hole[9] = 'b';
  EXPECT_EQ(code_of(unpad_mount_passphrase(secret_of(hole))), Code::kCorrupt);
  EXPECT_EQ(code_of(unpad_mount_passphrase(secret_of("short"))), Code::kCorrupt);
}

}  // namespace
}  // namespace ecfs::wrap
