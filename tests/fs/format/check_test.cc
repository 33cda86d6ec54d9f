// The check of one lower file against the reader of a mount, which shares no code with it above the header: each byte
// flipped, every state that a kill or a lost page leaves, disks that cannot read. Then repairing, which must change
// nothing that a mount shows, and salvage.
#include <cstdio>
#include <map>
#include <set>

#include "fs/format/native_header.h"
#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

#ifdef ECFS_SANITIZED
constexpr int kFewer = 4;
#else
constexpr int kFewer = 1;
#endif

struct Stored {
  Bytes plain;
  Bytes image;
};

Stored store(const Format& format, std::size_t len, bool overwritten = false) {
  Stored s;
  std::mt19937_64 random(len);
  s.plain = random_bytes(random, len);
  Recorder lower;
  const auto contents = need(format.open_contents_to_truncate(lower));
  EXPECT_TRUE(contents->truncate(0));
  if (overwritten) {
    EXPECT_EQ(need(contents->write(0, Bytes(len, 0x11))), len);
  }
  EXPECT_EQ(need(contents->write(0, s.plain)), len);
  EXPECT_TRUE(contents->finish());
  s.image = contents_of(lower);
  return s;
}

// reader_says is the check made of what a mount's reader answers.
ContentsCheck reader_says(const Format& format, const Bytes& image) {
  Recorder lower(image, false);
  return need(format.Format::check_contents(lower, {}));
}

// checked is the check itself, held against the reader.
ContentsCheck checked(const Format& format, const Bytes& image) {
  Recorder lower(image, false);
  std::uint64_t advanced = 0;
  CheckHow how;
  how.advance = [&](std::uint64_t bytes) {
    advanced += bytes;
    return Status();
  };
  ContentsCheck check = need(format.check_contents(lower, how));
  EXPECT_TRUE(lower.calls.empty()) << "a check writes nothing";
  const ContentsCheck reader = reader_says(format, image);
  EXPECT_EQ(check.refused.has_value(), reader.refused.has_value());
  EXPECT_EQ(check.bad, reader.bad);
  if (!check.refused) {
    EXPECT_EQ(check.facts.plain_size, reader.facts.plain_size);
    EXPECT_EQ(advanced, image.size()) << "progress ends at the whole";
    EXPECT_TRUE(check.facts.authentic);
  }
  return check;
}

// What a mount shows: a block each, those that fail marked.
std::vector<std::pair<bool, Bytes>> shown(const Format& format, const Bytes& image, std::uint64_t b) {
  std::vector<std::pair<bool, Bytes>> out;
  Recorder lower(image, false);
  const auto contents = format.open_contents(lower);
  if (!contents) return {{false, {}}};
  const std::uint64_t size = need((*contents)->size());
  for (std::uint64_t at = 0; at < size; at += b) {
    Bytes part(std::min(b, size - at));
    const bool fine = (*contents)->read(at, part).has_value();
    if (!fine) part.assign(part.size(), 0);
    out.emplace_back(fine, std::move(part));
  }
  return out;
}

// repaired repairs a copy and gives it; what a mount shows must be the same, and nothing be left to repair.
Bytes repaired(const Format& format, const Bytes& image, std::uint64_t b) {
  Recorder lower(image);
  CheckHow how;
  how.repair = true;
  const ContentsCheck check = need(format.check_contents(lower, how));
  Bytes after = contents_of(lower);
  EXPECT_EQ(check.repaired, check.leftovers() && !check.refused);
  if (!check.repaired) {
    EXPECT_EQ(after, image);
  }
  EXPECT_EQ(shown(format, after, b), shown(format, image, b));
  const ContentsCheck again = checked(format, after);
  EXPECT_EQ(again.bad, check.bad);
  if (!again.refused) {
    EXPECT_FALSE(again.leftovers()) << "leftover " << again.leftover_bytes << ", marked " << again.num_marked
                                    << ", previous " << again.num_previous << ", heads " << again.num_bad_heads;
  }
  return after;
}

class Check : public testing::TestWithParam<VolumeKind> {
 protected:
  const VolumeKind kind_ = GetParam();
  const std::unique_ptr<Format> format_ = make_format(kind_);
  const Geometry g_{kind_.shift};
  const std::uint64_t b_ = g_.block_bytes();
};
INSTANTIATE_TEST_SUITE_P(All, Check,
                         testing::Values(VolumeKind{wrap::Suite::kAes256Gcm, 12, false, false},
                                         VolumeKind{wrap::Suite::kChaCha20Poly1305, 12, false, false},
                                         VolumeKind{wrap::Suite::kAes256Gcm, 12, true, false},
                                         VolumeKind{wrap::Suite::kAes256Gcm, 14, false, false}));

TEST_P(Check, AGoodFileGivesNothing) {
  for (const std::uint64_t len : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4032}, std::uint64_t{4033}, b_,
                                  b_ + 1, 3 * b_ + 5, kBlocksPerGroup * b_, kBlocksPerGroup * b_ + 1, 130 * b_ + 77}) {
    SCOPED_TRACE(len);
    for (const bool overwritten : {false, true}) {
      const Stored s = store(*format_, len, overwritten && len != 0);
      const ContentsCheck check = checked(*format_, s.image);
      EXPECT_FALSE(check.damaged());
      EXPECT_FALSE(check.leftovers());
      EXPECT_FALSE(check.cut_creation);
      EXPECT_EQ(check.facts.plain_size, len);
      EXPECT_EQ(check.facts.shape, len == 0 ? FileShape::kEmpty : len <= 4032 ? FileShape::kInline : FileShape::kPaged);
      EXPECT_EQ(check.facts.holes, false);
      EXPECT_EQ(check.facts.sealed_size.has_value(), kind_.sealed && len > 4032);
      EXPECT_EQ(check.facts.num_blocks, len <= 4032 ? 0 : g_.num_blocks(len));
      if (len != 0) {
        EXPECT_EQ(check.facts.version, 1U);
        EXPECT_EQ(check.facts.suite, kind_.suite == wrap::Suite::kAes256Gcm ? "aes-256-gcm" : "chacha20-poly1305");
      }
      EXPECT_EQ(repaired(*format_, s.image, b_), s.image);
    }
  }
}

TEST_P(Check, EveryFlippedByteIsReported) {
  int reported = 0;
  int without_effect = 0;
  for (const std::size_t len : {std::size_t{0}, std::size_t{300}, static_cast<std::size_t>(2 * b_ + 290)}) {
    for (const bool overwritten : {false, true}) {
      const Stored s = store(*format_, len, overwritten && len != 0);
      for (std::size_t at = 0; at < s.image.size(); at += at < kPageBytes + 512 ? 1 : kFewer * b_ / 512) {
        for (const int flip : {0x01, 0x80, 0x55}) {
          // What a mount does not look at: `previous` where `current` verifies, and entries behind the end.
          const bool in_entries = len > 4032 && at >= kFileHeaderBytes && at < kPageBytes;
          const bool unseen = in_entries && ((at - kFileHeaderBytes) / kEntryBytes >= 3 || at % kEntryBytes >= 32);
          Bytes image = s.image;
          image[at] = static_cast<std::uint8_t>(image[at] ^ flip);
          const ContentsCheck check = checked(*format_, image);
          ASSERT_FALSE(HasFailure()) << "byte " << at << " ^ " << flip << " of " << len;
          ASSERT_EQ(check.damaged() || check.leftovers(), !unseen) << "byte " << at << " ^ " << flip << " of " << len;
          if (at % 61 == 0) repaired(*format_, image, b_);
          ++(unseen ? without_effect : reported);
        }
      }
    }
  }
  std::printf("%d flips reported, %d without effect as specified\n", reported, without_effect);
  EXPECT_GT(reported, 3000);
}

TEST_P(Check, AGroupThatDoesNotNameItsFileIsPutRight) {
  const Stored s = store(*format_, 130 * b_);
  for (std::size_t at = 0; at < kFileHeaderBytes; ++at) {
    Bytes image = s.image;
    image[g_.meta_offset(2) + at] ^= 0x10;
    const ContentsCheck check = checked(*format_, image);
    ASSERT_FALSE(check.damaged());
    ASSERT_EQ(check.num_bad_heads, 1U);
    ASSERT_EQ(repaired(*format_, image, b_), s.image);
  }
}

// A disk that wrote to the wrong place: the head may be all that tells whose the group is.
TEST_P(Check, AGroupOfAnotherFileIsLeftAsItIs) {
  const Stored s = store(*format_, 130 * b_);
  const Stored other = store(*format_, 129 * b_);
  Bytes image = s.image;
  const auto begin = static_cast<std::ptrdiff_t>(g_.meta_offset(1));
  const auto end = static_cast<std::ptrdiff_t>(g_.meta_offset(2));
  std::copy(other.image.begin() + begin, other.image.begin() + end, image.begin() + begin);
  EXPECT_TRUE(checked(*format_, image).damaged());
  EXPECT_EQ(repaired(*format_, image, b_), image);
}

TEST_P(Check, BadRangesAreThoseOfTheBlocks) {
  const Stored s = store(*format_, 140 * b_ + 10);
  Bytes image = s.image;
  for (const std::uint64_t block : {3U, 4U, 62U, 63U, 64U, 100U, 140U}) image[g_.data_offset(block) + 5] ^= 1;
  const ContentsCheck check = checked(*format_, image);
  const std::vector<Ranges::Range> want = {
      {3 * b_, 5 * b_}, {62 * b_, 65 * b_}, {100 * b_, 101 * b_}, {140 * b_, 140 * b_ + 10}};
  EXPECT_EQ(check.bad.list(), want);
  EXPECT_EQ(check.bad.num_bytes(), 6 * b_ + 10);
  // Looked at again, of these alone: what is right by now is not named any more.
  image[g_.data_offset(4) + 5] ^= 1;
  image[g_.data_offset(100) + 5] ^= 1;
  image[g_.data_offset(7) + 5] ^= 1;  // and this is not looked at
  Recorder lower(image, false);
  CheckHow how;
  how.only = &check.bad;
  const std::vector<Ranges::Range> left = {{3 * b_, 4 * b_}, {62 * b_, 65 * b_}, {140 * b_, 140 * b_ + 10}};
  EXPECT_EQ(need(format_->check_contents(lower, how)).bad.list(), left);
}

TEST_P(Check, QuickReadsNoBlock) {
  const Stored s = store(*format_, 5 * b_);
  Bytes image = s.image;
  std::fill(image.begin() + static_cast<std::ptrdiff_t>(kFileHeaderBytes), image.end(), std::uint8_t{0});
  Recorder lower(image, false);
  CheckHow how;
  how.quick = true;
  const ContentsCheck check = need(format_->check_contents(lower, how));
  EXPECT_FALSE(check.damaged());
  EXPECT_EQ(check.facts.plain_size, 5 * b_);
  image[30] ^= 1;
  Recorder damaged(image, false);
  EXPECT_TRUE(need(format_->check_contents(damaged, how)).refused);
}

TEST_P(Check, CutAtEveryLength) {
  const Stored s = store(*format_, 3 * b_ + 77);
  for (std::uint64_t len = 0; len <= kPageBytes + b_ + 100; len += len < 5000 || len % b_ > b_ - 50 ? 1 : 97) {
    const Bytes image(s.image.begin(), s.image.begin() + static_cast<std::ptrdiff_t>(len));
    const ContentsCheck check = checked(*format_, image);
    ASSERT_FALSE(HasFailure()) << len;
    ASSERT_EQ(check.cut_creation, !kind_.sealed && len != 0 && len <= kFileHeaderBytes) << len;
    if (len % 13 == 0) repaired(*format_, image, b_);
    ASSERT_FALSE(HasFailure()) << len;
  }
}

TEST_P(Check, AHoledFileOfManyTerabytesTakesNoTime) {
  Recorder lower;
  const auto contents = need(format_->open_contents_to_truncate(lower));
  ASSERT_TRUE(contents->truncate(0));
  const Bytes data(1000, 0x42);
  ASSERT_TRUE(contents->write(5 << 20, data));
  ASSERT_TRUE(contents->truncate(3ULL << 40));
  ASSERT_TRUE(contents->write((2ULL << 40) + 12345, data));
  ASSERT_TRUE(contents->finish());
  const auto begun = std::chrono::steady_clock::now();
  const ContentsCheck check = need(format_->check_contents(lower, {}));
  EXPECT_FALSE(check.damaged()) << check.bad.num_bytes();
  EXPECT_FALSE(check.leftovers());
  EXPECT_TRUE(check.facts.holes);
  EXPECT_EQ(check.facts.plain_size, 3ULL << 40);
  // And one without holes allowed, that somebody made long: nothing of it was ever stored.
  Recorder fake(store(*format_, 3 * b_).image);
  ASSERT_TRUE(fake.truncate(g_.paged_lower_size(3ULL << 40)));
  const ContentsCheck lost = need(format_->check_contents(fake, {}));
  if (kind_.sealed) {
    EXPECT_TRUE(lost.refused);
  } else {
    EXPECT_EQ(lost.bad.list(), (std::vector<Ranges::Range>{{3 * b_, 3ULL << 40}}));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
}

// Every state that a kill or a power cut leaves of random operations: the check agrees with the reader, and repairing
// takes all leftovers away and changes nothing that is shown.
TEST_P(Check, WhatInterruptionsLeaveIsToldAndPutRight) {
  int states = 0;
  int with_leftovers = 0;
  int damaged = 0;
  for (std::uint64_t seed = 1; seed <= 12 / kFewer; ++seed) {
    OperationMaker maker(seed, kind_.shift, 70 * b_);
    Recorder lower;
    auto contents = need(format_->open_contents_to_truncate(lower));
    ASSERT_TRUE(contents->truncate(0));
    Bytes plain;
    for (int i = 0; i < 12; ++i) {
      const Bytes before = contents_of(lower);
      lower.calls.clear();
      const Operation op = maker.next(plain.size());
      ASSERT_TRUE(op.run(*contents)) << op.text();
      op.apply_to(plain);
      if (op.what == Operation::What::kReopen) contents = need(format_->open_contents(lower));
      // A kill after each call; and, as power cuts do, each call lost but the later ones there.
      for (std::size_t n = 0; n <= lower.calls.size(); ++n) {
        for (const bool lost : {false, true}) {
          Bytes image = before;
          for (std::size_t c = 0; c < lower.calls.size(); ++c) {
            if (lost ? c != n : c < n) test::apply(image, lower.calls[c]);
          }
          if (lost && n == lower.calls.size()) continue;
          const ContentsCheck check = checked(*format_, image);
          repaired(*format_, image, b_);
          ASSERT_FALSE(HasFailure()) << "seed " << seed << ", " << op.text() << ", call " << n << (lost ? " lost" : "");
          ++states;
          with_leftovers += check.leftovers() ? 1 : 0;
          damaged += check.damaged() ? 1 : 0;
        }
      }
    }
  }
  std::printf("%d states, %d with leftovers, %d damaged\n", states, with_leftovers, damaged);
  EXPECT_GT(with_leftovers, 20);
}

// A disk that cannot read some places.
class BadDisk final : public LowerFile {
 public:
  BadDisk(const Bytes& image, std::uint64_t begin, std::uint64_t end)
      : LowerFile(memory_file(image), false), begin_(static_cast<off_t>(begin)), end_(static_cast<off_t>(end)) {}

 private:
  ssize_t sys_preadv(const iovec* buffers, int num, off_t offset) const override {
    std::size_t len = 0;
    for (int i = 0; i < num; ++i) len += buffers[i].iov_len;
    if (offset < end_ && offset + static_cast<off_t>(len) > begin_) {
      errno = EIO;
      return -1;
    }
    return LowerFile::sys_preadv(buffers, num, offset);
  }
  off_t begin_;
  off_t end_;
};

TEST_P(Check, WhatTheDiskCannotReadIsTold) {
  const Stored s = store(*format_, 130 * b_);
  struct Case {
    std::uint64_t begin, end;
    std::vector<Ranges::Range> lost;
  };
  for (const Case& c : {Case{g_.data_offset(70), g_.data_offset(70) + 512, {{70 * b_, 71 * b_}}},
                        Case{g_.data_offset(5) + b_ - 1, g_.data_offset(7), {{5 * b_, 7 * b_}}},
                        Case{g_.meta_offset(1), g_.meta_offset(1) + 1, {{63 * b_, 126 * b_}}}}) {
    BadDisk disk(s.image, c.begin, c.end);
    const ContentsCheck check = need(format_->check_contents(disk, {}));
    EXPECT_FALSE(check.refused);
    EXPECT_TRUE(check.disk_error);
    EXPECT_EQ(check.bad.list(), c.lost);
    Bytes copy(s.plain.size());
    const Salvaged salvaged = need(format_->salvage_contents(disk, [&](std::uint64_t at, ByteView plain) {
      std::copy(plain.begin(), plain.end(), copy.begin() + static_cast<std::ptrdiff_t>(at));
      return Status();
    }));
    EXPECT_EQ(salvaged.lost.list(), c.lost);
    Bytes want = s.plain;
    for (const Ranges::Range& r : c.lost) {
      std::fill(want.begin() + static_cast<std::ptrdiff_t>(r.begin), want.begin() + static_cast<std::ptrdiff_t>(r.end),
                std::uint8_t{0});
    }
    EXPECT_EQ(copy, want);
  }
  BadDisk disk(s.image, 0, 1);
  const ContentsCheck check = need(format_->check_contents(disk, {}));
  EXPECT_TRUE(check.refused);
  EXPECT_TRUE(check.disk_error);
}

// --- Salvage -------------------------------------------------------------------------------------------------------

struct Out {
  Salvaged salvaged;
  Bytes copy;
};
Out salvage(const Format& format, const Bytes& image, std::size_t len) {
  Out out;
  out.copy.resize(len);
  Recorder lower(image, false);
  std::uint64_t behind = 0;
  out.salvaged = need(format.salvage_contents(lower, [&](std::uint64_t at, ByteView plain) {
    EXPECT_GE(at, behind) << "in ascending order";
    behind = at + plain.size();
    EXPECT_LE(behind, len);
    if (behind <= len) std::copy(plain.begin(), plain.end(), out.copy.begin() + static_cast<std::ptrdiff_t>(at));
    return Status();
  }));
  EXPECT_TRUE(lower.calls.empty());
  return out;
}

TEST_P(Check, SalvageOfAGoodFileIsTheFile) {
  for (const std::uint64_t len : {std::uint64_t{1}, std::uint64_t{4032}, std::uint64_t{4033}, 130 * b_ + 5}) {
    const Stored s = store(*format_, len);
    const Out out = salvage(*format_, s.image, len);
    EXPECT_EQ(out.copy, s.plain);
    EXPECT_EQ(out.salvaged.plain_size, len);
    EXPECT_EQ(out.salvaged.good_bytes, len);
    EXPECT_TRUE(out.salvaged.lost.empty());
  }
}

TEST_P(Check, SalvageWithoutAHeader) {
  const Stored s = store(*format_, 130 * b_ + 5);
  const auto expect_lost = [&](const Bytes& image, std::uint64_t lost_to) {
    const Out out = salvage(*format_, image, s.plain.size());
    Bytes want = s.plain;
    std::fill_n(want.begin(), lost_to, std::uint8_t{0});
    EXPECT_EQ(out.copy, want);
    EXPECT_EQ(out.salvaged.lost.num_bytes(), lost_to);
    EXPECT_EQ(out.salvaged.good_bytes, s.plain.size() - lost_to);
  };
  // Any one byte of the header: all blocks are there.
  for (std::size_t at = 0; at < kFileHeaderBytes; ++at) {
    SCOPED_TRACE(at);
    Bytes image = s.image;
    image[at] ^= 0x11;
    EXPECT_TRUE(checked(*format_, image).refused);
    expect_lost(image, 0);
  }
  // The whole header; the id is in the other groups.
  Bytes image = s.image;
  std::fill_n(image.begin(), kFileHeaderBytes, std::uint8_t{0xee});
  expect_lost(image, 0);
  // The whole page: its blocks go with it.
  std::fill_n(image.begin(), kPageBytes, std::uint8_t{0});
  expect_lost(image, 63 * b_);
  // Nothing names the file any more.
  for (const std::uint64_t group : {1U, 2U}) {
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(g_.meta_offset(group)), kFileHeaderBytes, std::uint8_t{0});
  }
  const Out none = salvage(*format_, image, s.plain.size());
  EXPECT_EQ(none.salvaged.good_bytes, 0U);
}

TEST_P(Check, SalvageOfASmallFileWithADamagedHeader) {
  const Stored s = store(*format_, 777);
  // The fields that are known otherwise: magic, version, suite, block size, and the length.
  for (const std::size_t at : {0U, 3U, 4U, 5U, 6U, 7U, 52U, 53U}) {
    SCOPED_TRACE(at);
    Bytes image = s.image;
    image[at] ^= 0x01;
    EXPECT_TRUE(checked(*format_, image).refused);
    EXPECT_EQ(salvage(*format_, image, 777).copy, s.plain);
  }
  // What the tag needs is gone: nothing may be handed over.
  for (const std::size_t at : {8U, 24U, 36U, 56U, 64U, 800U}) {
    Bytes image = s.image;
    image[at] ^= 0x01;
    const Out out = salvage(*format_, image, 777);
    EXPECT_EQ(out.salvaged.good_bytes, 0U);
    EXPECT_TRUE(all_zero(out.copy));
  }
}

TEST_P(Check, SalvageTakesALastBlockWhoseLengthIsDamaged) {
  const Stored s = store(*format_, 2 * b_ + 290);
  Bytes image = s.image;
  image[g_.entry_offset(2) + 28] ^= 0x04;  // shorter, or longer than what is there
  EXPECT_EQ(checked(*format_, image).bad.num_bytes(), 290U);
  const Out out = salvage(*format_, image, s.plain.size());
  EXPECT_EQ(out.copy, s.plain);
  EXPECT_TRUE(out.salvaged.lost.empty());
}

TEST_P(Check, SalvageGoesAroundBadBlocks) {
  const Stored s = store(*format_, 140 * b_ + 10);
  Bytes image = s.image;
  Bytes want = s.plain;
  for (const std::uint64_t block : {3U, 63U, 100U, 140U}) {
    image[g_.data_offset(block) + 5] ^= 1;
    const std::uint64_t end = std::min<std::uint64_t>((block + 1) * b_, want.size());
    std::fill(want.begin() + static_cast<std::ptrdiff_t>(block * b_), want.begin() + static_cast<std::ptrdiff_t>(end),
              std::uint8_t{0});
  }
  const Out out = salvage(*format_, image, s.plain.size());
  EXPECT_EQ(out.copy, want);
  EXPECT_EQ(out.salvaged.lost, checked(*format_, image).bad);
  // Cut off in the middle, which a sealed volume refuses to open: what is there is handed over all the same.
  image = Bytes(s.image.begin(), s.image.begin() + static_cast<std::ptrdiff_t>(g_.data_offset(70)));
  const Out front = salvage(*format_, image, s.plain.size());
  EXPECT_EQ(front.salvaged.good_bytes, 70 * b_);
  EXPECT_TRUE(std::equal(s.plain.begin(), s.plain.begin() + static_cast<std::ptrdiff_t>(70 * b_), front.copy.begin()));
}

TEST(Ranges, AreJoinedAndBounded) {
  Ranges ranges;
  ranges.add(0, 10);
  ranges.add(10, 20);
  ranges.add(30, 40);
  EXPECT_EQ(ranges.list(), (std::vector<Ranges::Range>{{0, 20}, {30, 40}}));
  EXPECT_TRUE(ranges.touches(19, 30));
  EXPECT_FALSE(ranges.touches(20, 30));
  EXPECT_TRUE(ranges.touches(39, 100));
  EXPECT_FALSE(ranges.touches(40, 100));
  for (std::uint64_t i = 0; i < 2 * Ranges::kMost; ++i) ranges.add(100 + 2 * i, 101 + 2 * i);
  EXPECT_EQ(ranges.list().size(), Ranges::kMost);
  EXPECT_FALSE(ranges.complete());
  EXPECT_EQ(ranges.num_bytes(), 30 + 2 * Ranges::kMost);
}

}  // namespace
}  // namespace ecfs::fs::test
