// Lower calls that fail: every call of an operation in turn, for good or once, whole or after some pages. What was
// there before stays, the answer says how much is done, and the file goes on being used.
#include <cstdio>
#include <cstdlib>

#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

struct FailureCase {
  VolumeKind kind;
  std::uint64_t seed;
};
class Failure : public testing::TestWithParam<FailureCase> {};
INSTANTIATE_TEST_SUITE_P(All, Failure,
                         testing::Values(FailureCase{{wrap::Suite::kAes256Gcm, 12, false, false}, 1},
                                         FailureCase{{wrap::Suite::kChaCha20Poly1305, 12, false, false}, 2},
                                         FailureCase{{wrap::Suite::kAes256Gcm, 12, true, false}, 3},
                                         FailureCase{{wrap::Suite::kAes256Gcm, 16, false, false}, 4}));

TEST_P(Failure, KeepsTheOldContentsAndSaysHowMuchIsDone) {
  using What = Operation::What;
  const VolumeKind kind = GetParam().kind;
  const auto format = make_format(kind);
  const std::uint64_t b = Geometry(kind.shift).block_bytes();
  OperationMaker maker(GetParam().seed, kind.shift, 135 * b);
  const char* longer = std::getenv("ECFS_LONG");
  const int num = (b == kPageBytes ? 600 : 100) * (longer != nullptr && *longer != '\0' ? 10 : 1);
  int failed = 0;
  int shortened = 0;

  Bytes image;
  {
    Recorder lower;
    auto contents = need(format->open_contents_to_truncate(lower));
    ASSERT_TRUE(contents->truncate(0));
    image = contents_of(lower);
  }
  Bytes plain;
  for (int i = 0; i < num && !HasFailure(); ++i) {
    const Operation op = maker.next(plain.size());
    if (op.what == What::kReopen) continue;
    Bytes wanted = plain;
    op.apply_to(wanted);
    for (std::size_t k = 0;; ++k) {
      const int err = std::array{ENOSPC, EIO, EDQUOT, EFBIG}[maker.below(4)];
      const bool once = maker.below(2) == 0;
      const bool at_once = maker.below(3) == 0;
      SCOPED_TRACE("operation " + std::to_string(i) + ": " + op.text() + " in " + std::to_string(plain.size()) +
                   ", call " + std::to_string(k) + " fails " + (once ? "once" : "for good") +
                   (at_once ? " at once" : " after some pages"));
      Recorder lower(image);
      auto contents = need(format->open_contents(lower));
      bool hit = false;
      lower.judge = [&](const Call& call, std::size_t n, std::size_t& allow) {
        if (n < k) return 0;
        if (n == k) {
          hit = true;
          const std::uint64_t first_page = kPageBytes - call.offset % kPageBytes;
          allow = at_once ? 0 : first_page + maker.below(call.len / kPageBytes + 1) * kPageBytes;
          return err;
        }
        // For good: the disk is full, but what is there can be written again and cut.
        const bool needs_room = call.kind == CallKind::kWrite && call.offset + call.len > need(lower.size());
        return !once && needs_room ? err : 0;
      };
      const auto done = op.run(*contents);
      if (!hit) {
        ASSERT_TRUE(done) << why(done);
        ASSERT_EQ(need(read_all(*contents)), wanted);
        break;
      }
      lower.judge = nullptr;

      // What the file holds must be told exactly by the answer.
      Bytes expected = plain;
      bool exact = true;
      if (op.what == What::kWrite) {
        if (done) {
          Operation part = op;
          part.data.resize(*done);
          part.apply_to(expected);
          shortened += *done < op.data.size() ? 1 : 0;
          EXPECT_GT(*done, 0U);
          if (*done < op.data.size()) {
            EXPECT_EQ((op.offset + *done) % b, 0U) << "not whole blocks";
          }
        }
      } else if (done) {
        expected = wanted;
      } else {
        exact = op.what == What::kTruncate && op.offset > plain.size();
      }
      failed += done ? 0 : 1;
      if (!done) {
        EXPECT_NE(errno_of(done.error()), 0);
      }
      for (const bool reopened : {false, true}) {
        SCOPED_TRACE(reopened ? "after opening again" : "in the same open");
        if (reopened) {
          ASSERT_TRUE(contents->finish());
          contents = need(format->open_contents(lower));
        }
        const auto now = read_all(*contents);
        if (b == kPageBytes) {
          ASSERT_TRUE(now) << why(now);
          if (exact) {
            ASSERT_TRUE(*now == expected) << now->size() << " bytes for " << expected.size();
          }
          for (std::size_t at = 0; at < now->size(); at += b) {  // old or new, block by block
            const auto equals = [&](const Bytes& other) {
              for (std::size_t j = at; j < std::min<std::size_t>(now->size(), at + b); ++j) {
                if ((*now)[j] != (j < other.size() ? other[j] : 0)) return false;
              }
              return true;
            };
            ASSERT_TRUE(equals(plain) || equals(wanted)) << "block " << at / b;
          }
        }
      }
      // It works from here on.
      for (int more = 0; more < 3; ++more) {
        const std::uint64_t at = maker.place(plain.size());
        const Bytes data = random_bytes(maker.random(), std::min<std::uint64_t>(3 * b, 135 * b - at));
        const std::uint64_t from = at / b * b;  // whole blocks: one that failed can be overwritten
        Bytes blocks(at - from);
        append(blocks, data);
        blocks.resize((blocks.size() + b - 1) / b * b);
        const auto written = contents->write(from, blocks);
        ASSERT_TRUE(written) << why(written);
        Bytes back(blocks.size());
        ASSERT_EQ(need(contents->read(from, back)), blocks.size());
        ASSERT_TRUE(back == blocks);
      }
      ASSERT_TRUE(contents->truncate(0));
      ASSERT_TRUE(contents->finish());
      ASSERT_EQ(need(need(format->open_contents(lower))->size()), 0U);
    }
    Recorder lower(image);
    auto contents = need(format->open_contents(lower));
    ASSERT_TRUE(op.run(*contents));
    if (maker.below(2) == 0) {
      ASSERT_TRUE(contents->finish());
    }
    // A kill here would lose gaps that are not settled: go on only from what is whole.
    if (op.what == What::kWrite && op.offset > plain.size()) {
      ASSERT_TRUE(contents->settle());
    }
    image = contents_of(lower);
    plain = wanted;
  }
  std::printf("failures: %d operations, %d refused, %d shortened\n", num, failed, shortened);
  EXPECT_GT(failed, 50);
  EXPECT_GT(shortened, 0);
}

TEST(Limits, NothingIsWrittenPastTheLargestSize) {
  for (std::uint8_t shift = 12; shift <= 16; ++shift) {
    const auto format = make_format({wrap::Suite::kAes256Gcm, shift, false, false});
    const std::uint64_t max = Geometry(shift).max_plain_size();
    Recorder lower;
    const auto contents = need(format->open_contents(lower));
    const Bytes data(4096, 1);
    const auto expect_efbig = [&](const Status& status) { EXPECT_TRUE(!status && errno_of(status.error()) == EFBIG); };
    for (const std::uint64_t at : {max - 4095, max, max + 1, ~std::uint64_t{0} - 4096, ~std::uint64_t{0}}) {
      const auto written = contents->write(at, data);
      EXPECT_TRUE(!written && errno_of(written.error()) == EFBIG);
      if (at > max) expect_efbig(contents->truncate(at));
      expect_efbig(contents->allocate(0, at, 4096));
      expect_efbig(contents->allocate(FALLOC_FL_ZERO_RANGE, at, 4096));
      EXPECT_TRUE(contents->allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 4096));
    }
    EXPECT_TRUE(lower.calls.empty()) << "the lower file was changed";
    EXPECT_EQ(need(contents->size()), 0U);
    EXPECT_EQ(errno_of(contents->allocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4096).error()), EOPNOTSUPP);
    EXPECT_EQ(errno_of(contents->allocate(FALLOC_FL_PUNCH_HOLE, 0, 4096).error()), EOPNOTSUPP);
  }
}

// The largest file there can be, as a hole with bytes at its end.
TEST(Limits, TheLastByteOfTheLargestFile) {
  const auto format = make_format({});
  const std::uint64_t max = Geometry(12).max_plain_size();
  Recorder lower;
  auto contents = need(format->open_contents(lower));
  const Bytes end{'e', 'n', 'd'};
  ASSERT_TRUE(contents->write(0, end));
  const auto written = contents->write(max - 3, end);
  ASSERT_TRUE(written) << why(written);
  EXPECT_EQ(need(contents->size()), max);
  ASSERT_TRUE(contents->sync(true));
  ASSERT_TRUE(contents->finish());
  EXPECT_EQ(format->plain_size(need(lower.size())), max);
  contents = need(format->open_contents(lower));
  Bytes back(3);
  EXPECT_EQ(need(contents->read(max - 3, back)), 3U);
  EXPECT_EQ(back, end);
  EXPECT_EQ(need(contents->read(max / 2, back)), 3U);
  EXPECT_EQ(back, Bytes(3));
  EXPECT_EQ(need(contents->next_data(4096)), max - 4096);
  EXPECT_EQ(need(contents->next_hole(0)), 4096U);
  ASSERT_TRUE(contents->truncate(1));
  EXPECT_EQ(need(lower.size()), kPageBytes + 1);
}

// Where the order on disk matters there is a sync, and nowhere else.
TEST(Syncs, OnlyWhereTheFormatWantsThem) {
  const auto format = make_format({});
  std::mt19937_64 random(7);
  const Bytes small = random_bytes(random, 3000);
  const Bytes large = random_bytes(random, 1U << 20);
  const auto kinds = [](const Recorder& lower) {
    std::string text;
    for (const Call& call : lower.calls) text += "wtspr"[static_cast<std::size_t>(call.kind)];
    return text;
  };
  Recorder lower;
  auto contents = need(format->open_contents(lower));
  const auto expect_calls = [&](const std::string& calls, const std::string& what) {
    EXPECT_EQ(kinds(lower), calls) << what;
    lower.calls.clear();
  };
  const auto grown = [&](std::uint64_t at, ByteView data) { ASSERT_EQ(need(contents->write(at, data)), data.size()); };
  grown(0, small);
  expect_calls("w", "first write, INLINE: one call");
  grown(3000, small);
  expect_calls("ww", "INLINE to PAGED in one go: data, page 0");
  grown(6000, large);
  expect_calls("ww", "append: entries, then everything");
  grown(8192, ByteView(large).first(65536));
  expect_calls("ww", "overwrite: entries, then data");
  ASSERT_TRUE(contents->truncate(500000));
  expect_calls("twwt", "shrink of a file made in one go");
  ASSERT_TRUE(contents->truncate(409600));
  expect_calls("t", "shrink to a border");
  ASSERT_TRUE(contents->sync(false));
  expect_calls("s", "fsync");
  ASSERT_TRUE(contents->truncate(409000));
  expect_calls("wwst", "shrink of what is on the disk");
  ASSERT_TRUE(contents->truncate(409000 + (4U << 20)));
  expect_calls("wwwwst", "the first hole: tail, what stood behind the end, state and its sync, size");
  ASSERT_TRUE(contents->truncate(409000 + (8U << 20)));
  expect_calls("wwt", "another hole");
  ASSERT_TRUE(contents->finish());
  expect_calls("ww", "pending bits of two groups go down with the last close");

  ASSERT_TRUE(contents->truncate(0));
  expect_calls("t", "to nothing: one call");
  grown(0, large);
  expect_calls("w", "first write, PAGED: one call");
  contents = need(format->open_contents(lower));
  ASSERT_TRUE(contents->truncate(0));
  grown(0, small);
  lower.calls.clear();
  ASSERT_TRUE(contents->finish());
  contents = need(format->open_contents(lower));
  ASSERT_TRUE(contents->truncate(2000));
  expect_calls("wst", "INLINE shrinks: page 0, sync, size");
  grown(2000, large);
  expect_calls("wsw", "INLINE to PAGED of what is on the disk");
  grown(3U << 20, small);
  expect_calls("wwww", "past the end: the tail and its entry, a new meta page, data");
  ASSERT_TRUE(contents->settle());
  lower.calls.clear();
  ASSERT_TRUE(contents->finish());
  expect_calls("w", "pending bits");
}

TEST(Syncs, SealedSizesTakeTheirOrder) {
  const auto format = make_format({wrap::Suite::kAes256Gcm, 12, true, false});
  std::mt19937_64 random(8);
  const Bytes large = random_bytes(random, 300000);
  Recorder lower;
  auto contents = need(format->open_contents_to_truncate(lower));
  ASSERT_TRUE(contents->truncate(0));
  EXPECT_EQ(need(lower.size()), kFileHeaderBytes);
  ASSERT_TRUE(contents->write(0, large));
  lower.calls.clear();
  ASSERT_TRUE(contents->sync(true));
  ASSERT_EQ(lower.calls.size(), 3U) << "data, state, state on disk";
  EXPECT_EQ(lower.calls[0].kind, CallKind::kSync);
  EXPECT_EQ(lower.calls[1].offset, 24U);
  EXPECT_EQ(lower.calls[1].len, 40U);
  EXPECT_EQ(lower.calls[2].kind, CallKind::kSync);
  lower.calls.clear();
  ASSERT_TRUE(contents->write(0, ByteView(large).first(4096)));
  EXPECT_EQ(lower.calls.size(), 2U) << "no change of size: still sealed";
  lower.calls.clear();
  ASSERT_TRUE(contents->write(300000, large));
  ASSERT_GE(lower.calls.size(), 3U);
  EXPECT_EQ(lower.calls[0].offset, 24U) << "unsealed first";
  EXPECT_EQ(lower.calls[1].kind, CallKind::kSync);
  ASSERT_TRUE(contents->finish());
  EXPECT_EQ(lower.calls.back().offset, 24U) << "sealed at the last close";

  // Cut at a block border: refused, or read as far as it goes if the mount says so.
  Bytes image = contents_of(lower);
  image.resize(Geometry(12).lower_size(40960));
  Recorder cut(image);
  const auto refused = format->open_contents(cut);
  EXPECT_TRUE(!refused && refused.error().code == Code::kCorrupt);
  const auto reporting = make_format({wrap::Suite::kAes256Gcm, 12, true, true});
  contents = need(reporting->open_contents(cut));
  EXPECT_EQ(need(read_all(*contents)), Bytes(large.begin(), large.begin() + 40960));
  ASSERT_TRUE(contents->write(40960, ByteView(large).first(100)));
  ASSERT_TRUE(contents->finish());
  EXPECT_EQ(need(need(format->open_contents(cut))->size()), 41060U);
}

}  // namespace
}  // namespace ecfs::fs::test
