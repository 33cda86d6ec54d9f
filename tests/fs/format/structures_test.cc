// BlockSet against a plain set; what MetaCache keeps and lets go.
#include <random>
#include <set>

#include "fs/format/block_set.h"
#include "fs/format/meta_cache.h"
#include "tests/fs/format/support.h"

namespace ecfs::fs::test {
namespace {

TEST(BlockSet, IsASet) {
  std::mt19937_64 random(3);
  BlockSet ours;
  std::set<std::uint64_t> plain;
  for (int i = 0; i < 5000; ++i) {
    const std::uint64_t from = random() % 200;
    const std::uint64_t to = from + random() % 30;
    const bool adds = random() % 2 == 0;
    for (std::uint64_t block = from; block < to; ++block) adds ? void(plain.insert(block)) : void(plain.erase(block));
    adds ? ours.add(from, to) : ours.remove(from, to);
    for (std::uint64_t block = 0; block < 240; ++block) ASSERT_EQ(ours.contains(block), plain.contains(block));
    std::uint64_t last_end = 0;
    std::uint64_t num = 0;
    for (const auto& [begin, end] : ours.intervals()) {
      ASSERT_LT(begin, end);
      ASSERT_TRUE(num == 0 || begin > last_end) << "intervals touch";
      last_end = end;
      num += end - begin;
    }
    ASSERT_EQ(num, plain.size());
    ASSERT_EQ(ours.empty(), plain.empty());
  }
}

void keep_dirty(MetaCache& cache, std::uint64_t num) {
  for (std::uint64_t group = 0; group < num; ++group) {
    const MetaRef meta = cache.make(group);
    meta->touch_entry(3);
    EXPECT_TRUE(cache.keep(meta, true).empty());
  }
}

TEST(MetaCache, LetsTheLeastUsedCleanPageGo) {
  MetaBudget budget;
  MetaCache cache(budget);
  for (std::uint64_t group = 0; group < 64; ++group) EXPECT_TRUE(cache.keep(cache.make(group), false).empty());
  EXPECT_NE(cache.find(0), nullptr);  // used again
  EXPECT_TRUE(cache.keep(cache.make(64), false).empty());
  EXPECT_NE(cache.find(0), nullptr);
  EXPECT_EQ(cache.find(1), nullptr);
  cache.drop(10, 20);
  for (std::uint64_t group = 2; group < 65; ++group) EXPECT_EQ(cache.find(group) == nullptr, group >= 10 && group < 20);
}

TEST(MetaCache, HandsDirtyPagesToWritersOnly) {
  MetaBudget budget;
  MetaCache cache(budget);
  keep_dirty(cache, 64);
  EXPECT_EQ(cache.dirty().size(), 64U);
  EXPECT_TRUE(cache.keep(cache.make(64), false).empty());
  EXPECT_EQ(cache.find(64), nullptr) << "a reader's page is not kept in a dirty one's place";
  const auto leaving = cache.keep(cache.make(65), true);
  ASSERT_EQ(leaving.size(), 1U);
  EXPECT_EQ(leaving.front()->group, 0U);
  EXPECT_TRUE(leaving.front()->dirty());
  EXPECT_EQ(leaving.front()->dirty_from, kFileHeaderBytes + 3 * kEntryBytes);
  EXPECT_EQ(leaving.front()->dirty_to, kFileHeaderBytes + 4 * kEntryBytes);
}

TEST(MetaCache, KeepsWhatIsInUse) {
  MetaBudget budget;
  MetaCache cache(budget);
  keep_dirty(cache, 63);
  MetaRef clean = cache.make(63);
  EXPECT_TRUE(cache.keep(clean, true).empty());
  EXPECT_EQ(cache.keep(cache.make(64), true).size(), 1U) << "a dirty page, for the clean one is in use";
  EXPECT_EQ(cache.find(63), clean);
  std::vector<MetaRef> all;
  for (std::uint64_t group = 0; group < 65; ++group) {
    if (MetaRef meta = cache.find(group)) all.push_back(std::move(meta));
  }
  ASSERT_EQ(all.size(), 64U);
  EXPECT_TRUE(cache.keep(cache.make(65), true).empty());
  EXPECT_NE(cache.find(65), nullptr);
  all.clear();
  clean.reset();
  EXPECT_TRUE(cache.keep(cache.make(66), true).empty()) << "clean ones left for it";
  EXPECT_EQ(cache.find(63), nullptr);
}

TEST(MetaCache, GetsSmallerWhenAllFilesTogetherHoldTooMuch) {
  MetaBudget budget;
  MetaCache cache(budget);
  for (std::uint64_t group = 0; group < 40; ++group) EXPECT_TRUE(cache.keep(cache.make(group), false).empty());
  for (std::size_t i = 0; i < MetaBudget::kMaxPages; ++i) budget.take();
  EXPECT_TRUE(budget.exceeded());
  EXPECT_TRUE(cache.keep(cache.make(40), false).empty());
  std::size_t kept = 0;
  for (std::uint64_t group = 0; group < 41; ++group) kept += cache.find(group) != nullptr ? 1U : 0U;
  EXPECT_EQ(kept, 8U);
  EXPECT_NE(cache.find(40), nullptr);
  for (std::size_t i = 0; i < MetaBudget::kMaxPages; ++i) budget.give();
  EXPECT_FALSE(budget.exceeded());
}

}  // namespace
}  // namespace ecfs::fs::test
