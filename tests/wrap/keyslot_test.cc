#include "wrap/keyslot.h"

#include <chrono>

#include "tests/wrap/vectors.h"
#include "wrap/crypto.h"

namespace ecfs::wrap {
namespace {

constexpr Argon2Cost kCheap{kFloorMemoryKib, kFloorPasses, 1};
constexpr std::size_t kParametersAt = 32;  // of a slot without a label

VolumeId volume_id(std::uint8_t fill = 7) {
  VolumeId id;
  id.fill(fill);
  return id;
}

class Slots : public testing::Test {
 protected:
  Secret secret = ok(Secret::random(32));
  Secret passphrase = secret_of("correct horse");
  RecoveryKey recovery = ok(RecoveryKey::generate());
};

Slot with_raw(const Slot& slot, Bytes raw) {
  Slot other = slot;
  other.raw = std::move(raw);
  return other;
}

TEST_F(Slots, PasswordSlotOpensWithItsPassphraseOnly) {
  const Slot slot = ok(make_password_slot(volume_id(), 3, "login", secret, passphrase, kCheap));
  EXPECT_EQ(slot.id, 3U);
  EXPECT_EQ(slot.label, "login");
  EXPECT_EQ(slot.type, SlotType::kPassword);
  EXPECT_TRUE(slot.known());
  EXPECT_EQ(slot.raw.size(), 92U + 5 + 28 + 32);
  EXPECT_NEAR(static_cast<double>(slot.created), static_cast<double>(time(nullptr)), 5);
  EXPECT_EQ(ok(password_cost(slot)), kCheap);
  EXPECT_TRUE(ok(open_password_slot(volume_id(), slot, passphrase)).equals(secret));
  for (const char* wrong : {"correct horsf", "correct horse ", "Correct horse", "c"}) {
    EXPECT_EQ(code_of(open_password_slot(volume_id(), slot, secret_of(wrong))), Code::kWrongKey);
  }
  EXPECT_EQ(code_of(open_password_slot(volume_id(), slot, Secret())), Code::kWrongKey);
  EXPECT_EQ(code_of(open_password_slot(volume_id(8), slot, passphrase)), Code::kWrongKey);
  EXPECT_EQ(code_of(open_recovery_slot(volume_id(), slot, recovery)), Code::kInvalid);
}

TEST_F(Slots, RecoverySlotOpensWithItsKeyOnly) {
  const Slot slot = ok(make_recovery_slot(volume_id(), 1, "", secret, recovery));
  EXPECT_EQ(slot.raw.size(), 140U);
  EXPECT_TRUE(ok(open_recovery_slot(volume_id(), slot, recovery)).equals(secret));
  EXPECT_EQ(code_of(open_recovery_slot(volume_id(), slot, ok(RecoveryKey::generate()))), Code::kWrongKey);
  EXPECT_EQ(code_of(open_recovery_slot(volume_id(8), slot, recovery)), Code::kWrongKey);
  EXPECT_EQ(code_of(open_password_slot(volume_id(), slot, passphrase)), Code::kInvalid);
}

TEST_F(Slots, NoTwoAreAlike) {
  const Slot a = ok(make_password_slot(volume_id(), 1, "", secret, passphrase, kCheap));
  const Slot b = ok(make_password_slot(volume_id(), 1, "", secret, passphrase, kCheap));
  const auto part = [](const Slot& s, std::size_t at, std::size_t len) {
    return Bytes(s.raw.begin() + static_cast<std::ptrdiff_t>(at),
                 s.raw.begin() + static_cast<std::ptrdiff_t>(at + len));
  };
  EXPECT_NE(part(a, kParametersAt, 16), part(b, kParametersAt, 16));  // salt
  EXPECT_NE(part(a, 60, 12), part(b, 60, 12));                        // nonce
  EXPECT_NE(part(a, 72, 32), part(b, 72, 32));                        // wrapped secret
}

TEST_F(Slots, RequestsOutOfBounds) {
  const auto make = [&](std::uint32_t id, const std::string& label, const Secret& s, const Secret& p, Argon2Cost cost) {
    return code_of(make_password_slot(volume_id(), id, label, s, p, cost));
  };
  EXPECT_EQ(make(0, "", secret, passphrase, kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, std::string(65, 'x'), secret, passphrase, kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, "a\nb", secret, passphrase, kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, "\xff", secret, passphrase, kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, "", Secret(), passphrase, kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, "", ok(Secret::random(65)), passphrase, kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, "", secret, Secret(), kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, "", secret, ok(Secret::of_size(4097)), kCheap), Code::kInvalid);
  EXPECT_EQ(make(1, "", secret, passphrase, {64, 1, 1}), Code::kInvalid);
  EXPECT_TRUE(make_password_slot(volume_id(), UINT32_MAX, std::string(64, 'x'), ok(Secret::random(64)),
                                 ok(Secret::random(4096)), kCheap));
}

// Whatever byte of a record is changed, and however: never the secret, and never another one.
TEST_F(Slots, EveryBitOfARecoveryRecordCounts) {
  const Slot slot = ok(make_recovery_slot(volume_id(), 9, "label", secret, recovery));
  for (std::size_t bit = 0; bit < slot.raw.size() * 8; ++bit) {
    Bytes raw = slot.raw;
    raw[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    EXPECT_FALSE(open_recovery_slot(volume_id(), with_raw(slot, raw), recovery)) << bit / 8;
  }
  for (std::size_t len = 0; len < slot.raw.size(); ++len) {
    EXPECT_FALSE(open_recovery_slot(
        volume_id(), with_raw(slot, Bytes(slot.raw.begin(), slot.raw.begin() + static_cast<std::ptrdiff_t>(len))),
        recovery));
  }
}

TEST_F(Slots, EveryByteOfAPasswordRecordCounts) {
  const Slot slot = ok(make_password_slot(volume_id(), 9, "", secret, passphrase, kCheap));
  for (std::size_t at = 0; at < slot.raw.size(); ++at) {
    Bytes raw = slot.raw;
    // In the costs the lowest bit: what is still allowed shall be computed with and then refused.
    raw[at] ^= 1;
    EXPECT_FALSE(open_password_slot(volume_id(), with_raw(slot, raw), passphrase)) << at;
  }
}

TEST_F(Slots, ForgedWrappedKeyUnderARightCommitmentIsDamage) {
  const Slot slot = ok(make_recovery_slot(volume_id(), 9, "", secret, recovery));
  Bytes raw = slot.raw;
  raw[kParametersAt + 16 + 12] ^= 1;  // first byte of the ciphertext
  EXPECT_EQ(code_of(open_recovery_slot(volume_id(), with_raw(slot, raw), recovery)), Code::kCorrupt);
}

TEST_F(Slots, HostileCostsAreRefusedAtOnce) {
  const Slot slot = ok(make_password_slot(volume_id(), 1, "", secret, passphrase, kCheap));
  const std::array<std::uint32_t, 3> kCosts[] = {{UINT32_MAX, 1, 1}, {1 << 20, 64, 16}, {65536, UINT32_MAX, 1},
                                                 {65536, 1, 255},    {0, 0, 0},         {65536, 3, 0}};
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& cost : kCosts) {
    Bytes raw = slot.raw;
    for (std::size_t i = 0; i < 3; ++i) store_le(raw.data() + kParametersAt + 16 + 4 * i, cost[i]);
    EXPECT_EQ(code_of(open_password_slot(volume_id(), with_raw(slot, raw), passphrase)), Code::kCorrupt);
    EXPECT_EQ(code_of(password_cost(with_raw(slot, raw))), Code::kCorrupt);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));  // the costs would be minutes
}

TEST_F(Slots, ZeroSaltsAreRefused) {
  for (const bool password : {true, false}) {
    const Slot slot = password ? ok(make_password_slot(volume_id(), 1, "", secret, passphrase, kCheap))
                               : ok(make_recovery_slot(volume_id(), 1, "", secret, recovery));
    Bytes raw = slot.raw;
    std::fill_n(raw.begin() + kParametersAt, 16, std::uint8_t{0});
    EXPECT_EQ(code_of(password ? open_password_slot(volume_id(), with_raw(slot, raw), passphrase)
                               : open_recovery_slot(volume_id(), with_raw(slot, raw), recovery)),
              Code::kCorrupt);
  }
}

TEST(SlotNames, BothWays) {
  for (std::uint16_t n = 1; n <= 6; ++n) {
    const auto type = static_cast<SlotType>(n);
    EXPECT_EQ(slot_type_from_name(slot_type_name(type)), type);
  }
  EXPECT_EQ(slot_type_name(static_cast<SlotType>(0)), "unknown");
  EXPECT_EQ(slot_type_name(static_cast<SlotType>(7)), "unknown");
  EXPECT_FALSE(slot_type_from_name("unknown"));
  EXPECT_FALSE(slot_type_from_name(""));
}

// A record of which only what every version promises is sane.
Bytes foreign_record(std::uint16_t type, std::uint8_t version, std::uint32_t id, std::size_t len) {
  Bytes raw(len, 0xa5);
  store_le(raw.data(), static_cast<std::uint32_t>(len));
  store_le(raw.data() + 4, type);
  raw[6] = version;
  store_le(raw.data() + 8, id);
  return raw;
}

Bytes area_of(const std::vector<Bytes>& records, std::uint64_t generation = 1, std::uint32_t next_id = 100) {
  Bytes out;
  append_le(out, generation);
  append_le(out, next_id);
  append_le(out, static_cast<std::uint16_t>(records.size()));
  append_le(out, std::uint16_t{0});
  for (const Bytes& r : records) append(out, r);
  return out;
}

TEST_F(Slots, AreaGoesThereAndBack) {
  SlotArea area;
  area.generation = 0x1122334455667788;
  area.slots.push_back(ok(make_recovery_slot(volume_id(), 2, "paper", secret, recovery)));
  area.slots.push_back(ok(make_password_slot(volume_id(), 5, "", secret, passphrase, kCheap)));
  const Bytes bytes = build_slots(area);
  EXPECT_EQ(bytes.size(), 16U + 145 + 152);
  const SlotArea again = ok(parse_slots(bytes));
  EXPECT_EQ(again.generation, area.generation);
  ASSERT_EQ(again.slots.size(), 2U);
  EXPECT_EQ(again.slots[0].label, "paper");
  EXPECT_EQ(again.find(5)->type, SlotType::kPassword);
  EXPECT_EQ(again.find(4), nullptr);
  EXPECT_EQ(again.count(SlotType::kPassword), 1U);
  EXPECT_EQ(again.unused_id(), 6U);
  EXPECT_EQ(build_slots(again), bytes);
  EXPECT_TRUE(ok(open_recovery_slot(volume_id(), again.slots[0], recovery)).equals(secret));
}

TEST(SlotArea, UnknownTypesAndVersionsAreKeptBitForBit) {
  const Bytes bytes =
      area_of({foreign_record(5, 1, 4, 64), foreign_record(999, 1, 1, 65536), foreign_record(1, 2, 2, 70)});
  const SlotArea area = ok(parse_slots(bytes));
  ASSERT_EQ(area.slots.size(), 3U);
  for (const Slot& s : area.slots) EXPECT_FALSE(s.known());
  EXPECT_EQ(slot_type_name(area.slots[1].type), "unknown");
  EXPECT_EQ(build_slots(area), bytes);
  EXPECT_EQ(code_of(open_password_slot(volume_id(), area.slots[2], secret_of("x"))), Code::kUnsupported);
}

TEST(SlotArea, IdsNeverComeBack) {
  SlotArea area = ok(parse_slots(area_of({foreign_record(3, 1, 4, 64)}, 1, 100)));
  EXPECT_EQ(area.unused_id(), 100U);
  area.slots.clear();
  EXPECT_EQ(area.unused_id(), 100U);
  EXPECT_EQ(ok(parse_slots(build_slots(area))).unused_id(), 100U);
  area = ok(parse_slots(area_of({foreign_record(3, 1, 400, 64)}, 1, 100)));
  EXPECT_EQ(area.unused_id(), 401U) << "a counter that lies is not believed";
  area = ok(parse_slots(area_of({foreign_record(3, 1, UINT32_MAX, 64)})));
  EXPECT_EQ(area.unused_id(), 0U);
}

TEST(SlotArea, HostileAreasAreCorrupt) {
  const Bytes good = area_of({foreign_record(3, 1, 4, 64), foreign_record(9, 1, 5, 80)});
  ASSERT_TRUE(parse_slots(good));
  for (std::size_t len = 0; len < good.size(); ++len) {
    EXPECT_EQ(code_of(parse_slots(ByteView(good).first(len))), Code::kCorrupt) << len;
  }
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_EQ(code_of(parse_slots(longer)), Code::kCorrupt);
  const auto refused = [](const std::vector<Bytes>& records, std::uint64_t generation = 1) {
    EXPECT_EQ(code_of(parse_slots(area_of(records, generation))), Code::kCorrupt);
  };
  refused({}, 0);
  refused({foreign_record(0, 1, 4, 64)});
  refused({foreign_record(1, 1, 0, 64)});
  refused({foreign_record(1, 1, 4, 64), foreign_record(2, 1, 4, 64)});
  refused({foreign_record(1, 1, 4, 63)});
  refused({foreign_record(1, 1, 4, 65537)});
  Bytes lying = foreign_record(1, 1, 4, 64);
  store_le(lying.data(), UINT32_MAX);
  refused({lying});
  store_le(lying.data(), 0U);
  refused({lying});
  std::vector<Bytes> many;
  for (std::uint32_t i = 1; i <= kMaxSlots + 1; ++i) many.push_back(foreign_record(3, 1, i, 64));
  refused(many);
  many.pop_back();
  EXPECT_TRUE(parse_slots(area_of(many)));
  Bytes reserved = good;
  reserved[14] = 1;
  EXPECT_EQ(code_of(parse_slots(reserved)), Code::kCorrupt);
}

// Slots made by tests/vectors/slots/make.py, which shares no code with this program.
TEST(SlotVectors, OpenAndAreReadTheSame) {
  const auto v = vectors("slots/slots.json");
  const Bytes id_bytes = hex_of(v["volume_id"]);
  VolumeId id{};
  std::copy(id_bytes.begin(), id_bytes.end(), id.begin());
  const SlotArea area = ok(parse_slots(hex_of(v["area"])));
  EXPECT_EQ(area.generation, v["generation"].get<std::uint64_t>());
  EXPECT_EQ(area.unused_id(), v["next_id"].get<std::uint32_t>());
  EXPECT_EQ(build_slots(area), hex_of(v["area"]));
  const Secret volume_key = secret_hex(v["volume_key"]);
  const RecoveryKey key = ok(RecoveryKey::parse(as_bytes(v["recovery_text"].get<std::string>())));
  EXPECT_EQ(to_hex(key.bytes().reveal()), v["recovery_key"].get<std::string>());
  EXPECT_EQ(as_text(ok(key.text()).reveal()), v["recovery_text"].get<std::string>());
  std::size_t opened = 0;
  for (const auto& s : v["slots"]) {
    const Slot* slot = area.find(s["id"].get<std::uint32_t>());
    ASSERT_NE(slot, nullptr);
    EXPECT_EQ(slot_type_name(slot->type), s["type"].get<std::string>());
    EXPECT_EQ(slot->label, s["label"].get<std::string>());
    EXPECT_EQ(slot->created, s["created"].get<std::int64_t>());
    if (slot->type == SlotType::kPassword) {
      const Secret passphrase = secret_of(v["passphrase"].get<std::string>());
      EXPECT_TRUE(ok(open_password_slot(id, *slot, passphrase)).equals(volume_key));
    } else {
      EXPECT_TRUE(ok(open_recovery_slot(id, *slot, key)).equals(volume_key));
    }
    ++opened;
  }
  EXPECT_EQ(opened, 2U);
}

}  // namespace
}  // namespace ecfs::wrap
