#include "wrap/tpm2_wire.h"

#include <bit>

#include "tests/wrap/testing.h"

namespace ecfs::wrap {
namespace {

Tpm2Sealed sample(PcrSet pcrs) {
  Tpm2Sealed sealed;
  sealed.pcrs = pcrs;
  sealed.needs_auth = true;
  sealed.parent.fill(2);
  sealed.chip.fill(3);
  sealed.pcr_values.resize(static_cast<std::size_t>(std::popcount(pcrs)));
  for (Sha256& value : sealed.pcr_values) value.fill(9);
  sealed.public_area = Bytes(80, 1);
  sealed.private_area = Bytes(kMaxTpm2PartBytes, 4);
  return sealed;
}

TEST(Tpm2Wire, SealedIsReadBackAndNothingElse) {
  for (const PcrSet pcrs : {0U, 1U, 0xffffffU}) {
    const Tpm2Sealed sealed = sample(pcrs);
    const Bytes packed = pack_sealed(sealed);
    EXPECT_EQ(packed.size(), 80 + 32 * sealed.pcr_values.size() + 80 + kMaxTpm2PartBytes);
    EXPECT_EQ(ok(parse_sealed(packed)), sealed);
    for (std::size_t len = 0; len < packed.size(); ++len) {
      EXPECT_EQ(code_of(parse_sealed(ByteView(packed).first(len))), Code::kCorrupt);
    }
    Bytes longer = packed;
    longer.push_back(0);
    EXPECT_EQ(code_of(parse_sealed(longer)), Code::kCorrupt);
  }
  Bytes packed = pack_sealed(sample(1));
  for (const std::size_t at : {3U, 5U, 6U, 7U}) {  // PCR 24 and above, unknown flags, fields not in use
    Bytes bad = packed;
    bad[at] = 0x02;
    EXPECT_EQ(code_of(parse_sealed(bad)), Code::kCorrupt) << at;
  }
  Tpm2Sealed nothing = sample(0);
  nothing.needs_auth = false;
  EXPECT_EQ(code_of(parse_sealed(pack_sealed(nothing))), Code::kCorrupt);
  Tpm2Sealed large = sample(0);
  large.private_area.push_back(0);
  EXPECT_EQ(code_of(parse_sealed(pack_sealed(large))), Code::kCorrupt);
  large.private_area.clear();
  EXPECT_EQ(code_of(parse_sealed(pack_sealed(large))), Code::kCorrupt);
}

TEST(Tpm2Wire, Lists) {
  const std::vector<Tpm2Sealed> most(kMaxTpm2Slots, sample(0xffffff));
  const Bytes packed = pack_sealed_list(most);
  EXPECT_LE(packed.size(), kMaxTpm2MessageBytes);
  EXPECT_EQ(ok(parse_sealed_list(packed)), most);
  EXPECT_EQ(code_of(parse_sealed_list(pack_sealed_list(std::vector<Tpm2Sealed>(kMaxTpm2Slots + 1, sample(0))))),
            Code::kCorrupt);
  EXPECT_TRUE(ok(parse_sealed_list(pack_sealed_list({}))).empty());
  EXPECT_EQ(code_of(parse_sealed_list({})), Code::kCorrupt);
}

TEST(Tpm2Wire, Status) {
  Tpm2Status status;
  status.manufacturer = "IBM";
  status.firmware = 0x20190011;
  status.locked = true;
  status.failed_tries = 3;
  status.max_tries = 4;
  status.try_back_s = 1000;
  status.pcrs_present = 0x81;
  status.pcr_values.resize(2);
  status.slots = {{Tpm2Opens::kBootStateChanged, 0x80}, {Tpm2Opens::kYes, 0}};
  const Bytes packed = pack_status(status);
  const Tpm2Status again = ok(parse_status(packed));
  EXPECT_EQ(pack_status(again), packed);
  EXPECT_EQ(again.slots[0].changed, 0x80U);
  EXPECT_TRUE(again.locked);
  for (std::size_t len = 0; len < packed.size(); ++len) {
    EXPECT_EQ(code_of(parse_status(ByteView(packed).first(len))), Code::kCorrupt);
  }
  Bytes bad = packed;
  bad[packed.size() - 5] = 9;  // no such state
  EXPECT_EQ(code_of(parse_status(bad)), Code::kCorrupt);
}

}  // namespace
}  // namespace ecfs::wrap
