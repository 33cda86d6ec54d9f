#include <gtest/gtest.h>

#include <random>

#include "fs/format/geometry.h"

namespace ecfs::fs {
namespace {

class GeometryTest : public testing::TestWithParam<int> {
 protected:
  Geometry g_{static_cast<std::uint8_t>(GetParam())};
  std::mt19937_64 random_{20240229};
};
INSTANTIATE_TEST_SUITE_P(AllBlockSizes, GeometryTest, testing::Values(12, 13, 14, 15, 16));

TEST(Geometry, WorkedSizesOfTheManual) {
  const Geometry g(12);
  EXPECT_EQ(g.lower_size(0), 0U);
  EXPECT_EQ(g.lower_size(1), 65U);
  EXPECT_EQ(g.lower_size(5000), 9096U);
  EXPECT_EQ(g.group_bytes(), 262144U);
  EXPECT_EQ(Geometry(16).lower_size(5000), 9096U);
}

TEST_P(GeometryTest, PlainSizeUndoesLowerSize) {
  for (int i = 0; i < 200000; ++i) {
    const std::uint64_t plain = (random_() >> (random_() % 60)) % (g_.max_plain_size() + 1);
    ASSERT_EQ(g_.plain_size(g_.lower_size(plain)), plain);
    ASSERT_EQ(g_.paged_plain_size(g_.paged_lower_size(plain)), plain);
  }
}

TEST_P(GeometryTest, BothGrowOnly) {
  std::uint64_t last_lower = 0;
  for (std::uint64_t plain = 0; plain < 3 * kBlocksPerGroup * g_.block_bytes(); plain += 1 + random_() % 500) {
    const std::uint64_t lower = g_.lower_size(plain);
    ASSERT_GE(lower, last_lower);
    last_lower = lower;
  }
  // The one step back is where a creation is cut off: one page alone is an empty file once its header is read.
  std::uint64_t last_plain = 0;
  for (std::uint64_t lower = kPageBytes + 1; lower < 3 * g_.group_bytes(); lower += 1 + random_() % 500) {
    const std::uint64_t plain = g_.plain_size(lower);
    ASSERT_GE(plain, last_plain);
    last_plain = plain;
  }
}

TEST_P(GeometryTest, ACutMetaPageCountsAsNothing) {
  for (std::uint64_t group = 1; group < 5; ++group) {
    const std::uint64_t full = group * kBlocksPerGroup * g_.block_bytes();
    for (const std::uint64_t more : {0U, 1U, 64U, 65U, 4095U, 4096U}) {
      EXPECT_EQ(g_.plain_size(g_.meta_offset(group) + more), full);
    }
    EXPECT_EQ(g_.plain_size(g_.meta_offset(group) + 4097), full + 1);
  }
}

TEST_P(GeometryTest, NothingOverlaps) {
  for (int i = 0; i < 100000; ++i) {
    const std::uint64_t block = random_() % kMaxBlocks;
    const std::uint64_t group = block / kBlocksPerGroup;
    ASSERT_GE(g_.entry_offset(block), g_.meta_offset(group) + kFileHeaderBytes);
    ASSERT_LE(g_.entry_offset(block) + kEntryBytes, g_.meta_offset(group) + kPageBytes);
    ASSERT_EQ(g_.entry_offset(block) / 512, (g_.entry_offset(block) + kEntryBytes - 1) / 512) << "straddles a sector";
    ASSERT_GE(g_.data_offset(block), g_.meta_offset(group) + kPageBytes);
    ASSERT_LE(g_.data_offset(block) + g_.block_bytes(), g_.meta_offset(group + 1));
    ASSERT_EQ(g_.data_offset(block) % kPageBytes, 0U);
    // The end of a file whose last block this is.
    const std::uint64_t len = 1 + random_() % g_.block_bytes();
    const std::uint64_t plain = block * g_.block_bytes() + len;
    ASSERT_EQ(g_.paged_lower_size(plain), g_.data_offset(block) + len);
    ASSERT_EQ(g_.num_blocks(plain), block + 1);
  }
}

TEST_P(GeometryTest, EverySizeHasAnAnswer) {
  for (int i = 0; i < 100000; ++i) {
    const std::uint64_t lower = random_() >> (1 + random_() % 62);
    ASSERT_LE(g_.plain_size(lower), lower);
  }
  EXPECT_GT(g_.plain_size(~std::uint64_t{0} >> 1), 0U);
}

}  // namespace
}  // namespace ecfs::fs
