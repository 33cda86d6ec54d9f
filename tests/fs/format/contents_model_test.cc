// Random operations on a file of the native format, against plain bytes in memory.
#include <cstdio>
#include <cstdlib>

#include "fs/format/native_header.h"
#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

struct Case {
  VolumeKind kind;
  std::uint64_t seed;
};

class ContentsModel : public testing::TestWithParam<Case> {};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const wrap::Suite suite : {wrap::Suite::kAes256Gcm, wrap::Suite::kChaCha20Poly1305}) {
    for (std::uint8_t shift = 12; shift <= 16; ++shift) {
      for (const bool sealed : {false, true})
        all.push_back({{suite, shift, sealed, false}, shift * 31U + (sealed ? 7U : 0U)});
    }
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, ContentsModel, testing::ValuesIn(cases()));

// A lower file that holds nothing, as Volume makes it.
std::unique_ptr<Contents> make_file(const Format& format, LowerFile& lower) {
  auto contents = need(format.open_contents_to_truncate(lower));
  EXPECT_TRUE(contents->truncate(0));
  return contents;
}

void expect_same(Contents& contents, const Bytes& plain, OperationMaker& maker) {
  ASSERT_EQ(need(contents.size()), plain.size());
  const std::size_t step = maker.below(3) == 0 ? 1 + maker.below(100000) + 5000 : std::size_t{1} << 20;
  const auto all = read_all(contents, step);
  ASSERT_TRUE(all) << why(all);
  ASSERT_TRUE(*all == plain);
}

TEST_P(ContentsModel, ReadsWhatWasWritten) {
  const VolumeKind kind = GetParam().kind;
  const auto format = make_format(kind);
  const Geometry g(kind.shift);
  const std::uint64_t max_size = std::clamp<std::uint64_t>(140 * g.block_bytes(), 3U << 20, 5U << 20);
  OperationMaker maker(GetParam().seed, kind.shift, max_size);
  const bool longer = std::getenv("ECFS_LONG") != nullptr && *std::getenv("ECFS_LONG") != '\0';
  const int num = (kind.shift == 12 ? 3000 : 600) * (longer ? 20 : 1);

  Recorder lower;
  auto contents = make_file(*format, lower);
  Bytes plain;
  int reopened = 0;
  for (int i = 0; i < num; ++i) {
    const Operation op = maker.next(plain.size());
    SCOPED_TRACE("operation " + std::to_string(i) + ": " + op.text());
    const auto done = op.run(*contents);
    ASSERT_TRUE(done) << why(done);
    if (op.what == Operation::What::kWrite) {
      ASSERT_EQ(*done, op.data.size());
    }
    op.apply_to(plain);
    if (op.what == Operation::What::kReopen) {
      contents = need(format->open_contents(lower));
      ++reopened;
      // What stat says, without opening it.
      if (plain.size() > kInlineMaxBytes) {
        ASSERT_EQ(format->plain_size(need(lower.size())), plain.size());
      }
    }
    if (i % 8 == 0) {
      ASSERT_NO_FATAL_FAILURE(expect_same(*contents, plain, maker));
    } else if (!plain.empty()) {
      const std::uint64_t at = maker.below(plain.size());
      Bytes part(std::min<std::uint64_t>(1 + maker.below(20000), plain.size() - at));
      const auto got = contents->read(at, part);
      ASSERT_TRUE(got) << why(got);
      ASSERT_EQ(*got, part.size());
      ASSERT_TRUE(std::equal(part.begin(), part.end(), plain.begin() + static_cast<std::ptrdiff_t>(at)));
    }
    lower.calls.clear();
  }
  EXPECT_TRUE(contents->finish());
  contents = need(format->open_contents(lower));
  expect_same(*contents, plain, maker);
  EXPECT_GT(reopened, 5);
}

// More groups than an open file keeps meta pages of, most of them not written down yet, and writes that begin and end
// inside a block and lie in several groups.
TEST(ContentsModelLarge, WritesAllOverAFile) {
  for (const VolumeKind& kind : {VolumeKind{}, VolumeKind{wrap::Suite::kChaCha20Poly1305, 13, true, false}}) {
    const auto format = make_format(kind);
    const std::uint64_t group = kBlocksPerGroup * Geometry(kind.shift).block_bytes();
    std::mt19937_64 random(kind.shift);
    const auto below = [&](std::uint64_t limit) { return random() % limit; };
    LowerFile lower(memory_file(), true);
    auto contents = make_file(*format, lower);
    Bytes plain(100 * group);
    ASSERT_TRUE(contents->truncate(plain.size()));
    for (int i = 0; i < 600; ++i) {
      const std::uint64_t at = below(plain.size() - 1);
      const std::uint64_t longest = below(4) == 0 ? 3 * group : 5000;
      const Bytes data = random_bytes(random, 1 + below(std::min(longest, plain.size() - at)));
      ASSERT_EQ(need(contents->write(at, data)), data.size());
      std::copy(data.begin(), data.end(), plain.begin() + static_cast<std::ptrdiff_t>(at));
      // Around it too.
      const std::uint64_t from = at - std::min<std::uint64_t>(at, 20000);
      Bytes seen(std::min(data.size() + 40000, plain.size() - from));
      ASSERT_EQ(need(contents->read(from, seen)), seen.size());
      ASSERT_TRUE(std::equal(seen.begin(), seen.end(), plain.begin() + static_cast<std::ptrdiff_t>(from))) << i;
      if (i % 150 == 149) {
        ASSERT_TRUE(contents->finish());
        contents = need(format->open_contents(lower));
      }
    }
    EXPECT_TRUE(need(read_all(*contents)) == plain);
    ASSERT_TRUE(contents->finish());
    contents = need(format->open_contents(lower));
    EXPECT_TRUE(need(read_all(*contents)) == plain);
  }
}

TEST_P(ContentsModel, SeekFindsEveryByteThatIsNotZero) {
  const VolumeKind kind = GetParam().kind;
  const auto format = make_format(kind);
  const std::uint64_t b = Geometry(kind.shift).block_bytes();
  OperationMaker maker(GetParam().seed + 1, kind.shift, 300 * b);
  Recorder lower;
  auto contents = make_file(*format, lower);
  Bytes plain(300 * b + 77);
  ASSERT_TRUE(contents->truncate(plain.size()));
  for (int i = 0; i < 12; ++i) {
    const std::uint64_t at = maker.below(plain.size() - 1);
    const Operation op{Operation::What::kWrite, at, 0,
                       random_bytes(maker.random(), std::min(3 * b, plain.size() - at))};
    ASSERT_TRUE(op.run(*contents));
    op.apply_to(plain);
  }
  std::uint64_t holes = 0;
  for (std::uint64_t at = 0; at < plain.size();) {
    const auto data = contents->next_data(at);
    const std::uint64_t end = data ? *data : plain.size();
    if (!data) {
      ASSERT_EQ(errno_of(data.error()), ENXIO);
    }
    for (std::uint64_t i = at; i < end; ++i) ASSERT_EQ(plain[i], 0) << "a byte at " << i << " lies in a hole";
    holes += end - at;
    if (!data) break;
    const std::uint64_t hole = need(contents->next_hole(end));
    ASSERT_GT(hole, end);
    at = hole;
  }
  EXPECT_GT(holes, 10 * b);
  EXPECT_EQ(errno_of(contents->next_data(plain.size()).error()), ENXIO);
  EXPECT_EQ(errno_of(contents->next_hole(plain.size()).error()), ENXIO);
  // Once every block is written, no hole is allowed any more after the last close.
  for (std::uint64_t at = 0; at < plain.size(); at += 10 * b) {
    Bytes part(std::min(10 * b, plain.size() - at), 0x5a);
    ASSERT_TRUE(contents->write(at, part));
  }
  ASSERT_TRUE(contents->finish());
  contents = need(format->open_contents(lower));
  EXPECT_EQ(need(contents->next_hole(0)), plain.size());
  Bytes image = contents_of(lower);
  const Geometry g(kind.shift);
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(g.entry_offset(3)), kEntryBytes, std::uint8_t{0});
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(g.data_offset(3)), b, std::uint8_t{0});
  Recorder damaged(image);
  std::array<std::uint8_t, 1> one{};
  EXPECT_FALSE(need(format->open_contents(damaged))->read(3 * b, one)) << "a block taken away passes for a hole";
}

// The state word of an INLINE file may be its size, as other writers make it. It grows into a PAGED one like any other.
TEST(ContentsInline, ASizeInTheStateIsNotCarriedOn) {
  for (const bool sealed : {false, true}) {
    for (const std::uint64_t grown : {std::uint64_t{200}, std::uint64_t{5000}, std::uint64_t{2} << 20}) {
      const VolumeKind kind{wrap::Suite::kAes256Gcm, 12, sealed, false};
      const auto format = make_format(kind);
      const NativeKeys keys = need(NativeKeys::derive(options_of(kind).header.id, test_key()));
      const Ciphers ciphers = need(Ciphers::fetch());
      const FileFixed fixed = fixed_header(kind.suite, kind.shift, FileId{1, 2, 3});
      const auto cipher = need(FileCipher::make(keys, ciphers, fixed));
      Bytes plain(100, 0x61);
      Bytes image(kFileHeaderBytes + plain.size());
      FileState state;
      state.sealed = plain.size();
      {
        auto sealer = need(cipher->sealer());
        ASSERT_TRUE(seal_header(sealer, fixed, state, Nonce{9}, plain, image));
      }
      Recorder lower(image);
      auto contents = need(format->open_contents(lower));
      ASSERT_EQ(need(read_all(*contents)), plain);
      const Bytes more(50, 0x62);
      ASSERT_TRUE(contents->write(grown, more)) << grown;
      ASSERT_TRUE(contents->finish());
      plain.resize(grown);
      append(plain, more);
      contents = need(format->open_contents(lower));
      EXPECT_TRUE(need(read_all(*contents)) == plain) << grown;
    }
  }
}

}  // namespace
}  // namespace ecfs::fs::test
