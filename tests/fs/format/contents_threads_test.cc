// Readers and a writer of one file at once; for ThreadSanitizer too.
#include <atomic>
#include <thread>

#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

class Threads : public testing::TestWithParam<VolumeKind> {};
INSTANTIATE_TEST_SUITE_P(All, Threads,
                         testing::Values(VolumeKind{wrap::Suite::kAes256Gcm, 12, false, false},
                                         VolumeKind{wrap::Suite::kChaCha20Poly1305, 13, true, false}));

// Every block holds one byte value throughout, so that a reader sees at once if it gets half a block.
TEST_P(Threads, ReadersSeeWholeBlocks) {
  const auto format = make_format(GetParam());
  const std::uint64_t b = Geometry(GetParam().shift).block_bytes();
  constexpr std::uint64_t kBlocks = 5000;  // more groups than the cache of meta pages holds
  LowerFile lower(memory_file(), true);
  const auto contents = need(format->open_contents_to_truncate(lower));
  ASSERT_TRUE(contents->truncate(0));
  for (std::uint64_t block = 0; block < kBlocks; block += 200) {
    ASSERT_TRUE(contents->write(block * b, Bytes(200 * b, 1)));
  }
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> reads{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      while (!stop) {
        const std::uint64_t from = random() % kBlocks;
        Bytes bytes((1 + random() % 8) * b);
        const auto got = contents->read(from * b, bytes);
        if (!got) {
          ++wrong;
          continue;
        }
        for (std::size_t at = 0; at < *got; at += b) {
          const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
          const auto end = bytes.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(*got, at + b));
          if (std::any_of(begin, end, [&](std::uint8_t c) { return c != *begin; })) ++wrong;
        }
        (void)contents->size();
        (void)contents->next_data(from * b);
        ++reads;
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop) {
      EXPECT_TRUE(contents->settle());
      EXPECT_TRUE(contents->sync(true));
    }
  });
  std::mt19937_64 random(99);
  for (int i = 0; i < 1500; ++i) {
    const std::uint64_t from = random() % kBlocks;
    const std::uint64_t num = 1 + random() % 6;
    switch (random() % 12) {
      case 0: ASSERT_TRUE(contents->truncate((kBlocks - random() % 50) * b)); break;
      case 1: ASSERT_TRUE(contents->allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from * b, num * b)); break;
      default: ASSERT_TRUE(contents->write(from * b, Bytes(num * b, static_cast<std::uint8_t>(i)))); break;
    }
  }
  while (reads < 200) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  ASSERT_TRUE(contents->finish());
}

// Files of one mount share its keys and its page budget.
TEST(Threads, ManyFilesAtOnce) {
  const auto format = make_format({});
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&format, t] {
      std::mt19937_64 random(t);
      const DirId dir = need(format->root_id());
      for (int i = 0; i < 60; ++i) {
        LowerFile lower(memory_file(), true);
        const Bytes data = random_bytes(random, random() % 300000 + 1);
        {
          const auto contents = need(format->open_contents(lower));
          EXPECT_TRUE(contents->write(0, data));
          EXPECT_TRUE(contents->finish());
        }
        EXPECT_EQ(need(read_all(*need(format->open_contents(lower)))), data);
        const std::string name = "file " + std::to_string(i) + std::string(static_cast<std::size_t>(i) * 3, 'x');
        const LowerName encoded = need(format->encode_name(dir, name));
        EXPECT_EQ(encoded.side ? need(format->decode_long_name(dir, encoded.entry, *encoded.side))
                               : need(format->decode_name(dir, encoded.entry)),
                  name);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ecfs::fs::test
