// Changed lower files: each byte of a small INLINE and of a three-block PAGED file in turn, blocks and entries zeroed
// or exchanged, the file cut at every length. The answer is EIO, or what the format says; never other plaintext.
#include <cstdio>
#include <set>

#include "fs/format/native_header.h"
#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

struct Stored {
  std::unique_ptr<Format> format;
  Bytes plain;
  Bytes image;
};

Stored store(const VolumeKind& kind, std::size_t len, bool overwritten = false) {
  Stored s;
  s.format = make_format(kind);
  std::mt19937_64 random(len + kind.shift);
  s.plain = random_bytes(random, len);
  Recorder lower;
  const auto contents = need(s.format->open_contents_to_truncate(lower));
  EXPECT_TRUE(contents->truncate(0));
  if (overwritten) {
    EXPECT_EQ(need(contents->write(0, Bytes(len, 0x11))), len);
  }
  EXPECT_EQ(need(contents->write(0, s.plain)), len);
  EXPECT_TRUE(contents->finish());
  s.image = contents_of(lower);
  return s;
}

enum class Answer { kRight, kEioFile, kEioBlocks, kShorter, kWrong };

// answer_of reads a changed image. kShorter: what is there is right, but the file ends earlier.
Answer answer_of(const Stored& s, const Bytes& image, std::uint64_t b, std::set<std::uint64_t>* bad = nullptr) {
  Recorder lower(image, false);
  const auto opened = s.format->open_contents(lower);
  if (!opened) return opened.error().code == Code::kCorrupt ? Answer::kEioFile : Answer::kWrong;
  const std::uint64_t size = need((*opened)->size());
  bool eio = false;
  for (std::uint64_t at = 0; at < size; at += b) {
    Bytes part(std::min(b, size - at));
    const auto got = (*opened)->read(at, part);
    if (!got) {
      if (errno_of(got.error()) != EIO) return Answer::kWrong;
      if (!all_zero(part)) return Answer::kWrong;  // nothing unverified leaves
      eio = true;
      if (bad != nullptr) bad->insert(at / b);
      continue;
    }
    if (at + *got > s.plain.size() ||
        !std::equal(part.begin(), part.end(), s.plain.begin() + static_cast<std::ptrdiff_t>(at))) {
      return Answer::kWrong;
    }
  }
  if (eio) return Answer::kEioBlocks;
  return size == s.plain.size() ? Answer::kRight : Answer::kShorter;
}

class Damage : public testing::TestWithParam<VolumeKind> {
 protected:
  const VolumeKind kind_ = GetParam();
  const Geometry g_{kind_.shift};
  const std::uint64_t b_ = g_.block_bytes();
};
INSTANTIATE_TEST_SUITE_P(All, Damage,
                         testing::Values(VolumeKind{wrap::Suite::kAes256Gcm, 12, false, false},
                                         VolumeKind{wrap::Suite::kChaCha20Poly1305, 12, false, false},
                                         VolumeKind{wrap::Suite::kAes256Gcm, 12, true, false},
                                         VolumeKind{wrap::Suite::kAes256Gcm, 13, false, false}));

TEST_P(Damage, NoFlippedByteOfAnInlineFileIsBelieved) {
  const Stored s = store(kind_, 300);
  int flips = 0;
  for (std::size_t at = 0; at < s.image.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      Bytes image = s.image;
      image[at] = static_cast<std::uint8_t>(image[at] ^ flip);
      ASSERT_EQ(answer_of(s, image, b_), Answer::kEioFile) << "byte " << at << " ^ " << flip;
      ++flips;
    }
  }
  std::printf("INLINE: %d flips, all EIO\n", flips);
}

TEST_P(Damage, NoFlippedByteOfAPagedFileIsBelieved) {
  for (const bool overwritten : {false, true}) {
    const Stored s = store(kind_, 2 * b_ + 290, overwritten);
    int flips = 0;
    int eio = 0;
    for (std::size_t at = 0; at < s.image.size(); ++at) {
      // What the mount does not look at: `previous` where `current` verifies, pending bits, entries behind the end.
      const std::uint64_t k = at < kPageBytes && at >= kFileHeaderBytes ? (at - kFileHeaderBytes) / kEntryBytes : 0;
      const std::uint64_t in_entry = at % kEntryBytes;
      const bool in_entries = at < kPageBytes && at >= kFileHeaderBytes;
      for (const int flip : {0x01, 0x80, 0x55}) {
        const bool unseen = in_entries && (k >= 3 || in_entry >= 32 || (in_entry == 31 && flip == 0x80));
        Bytes image = s.image;
        image[at] = static_cast<std::uint8_t>(image[at] ^ flip);
        const Answer answer = answer_of(s, image, b_);
        if (unseen) {
          ASSERT_EQ(answer, Answer::kRight) << "byte " << at << " ^ " << flip;
        } else {
          ASSERT_EQ(answer, at < kFileHeaderBytes ? Answer::kEioFile : Answer::kEioBlocks)
              << "byte " << at << " ^ " << flip;
          ++eio;
        }
        ++flips;
      }
    }
    std::printf("PAGED%s: %d flips, %d EIO, %d without effect as specified\n", overwritten ? ", overwritten" : "",
                flips, eio, flips - eio);
    EXPECT_GT(eio, static_cast<int>(2 * b_));
  }
}

TEST_P(Damage, OnlyTheBlocksConcernedAreLost) {
  const Stored s = store(kind_, 70 * b_ + 1234);
  const auto put = [&](Bytes& image, std::uint64_t to, std::uint64_t from, std::uint64_t len) {
    std::copy_n(s.image.begin() + static_cast<std::ptrdiff_t>(from), len,
                image.begin() + static_cast<std::ptrdiff_t>(to));
  };
  const auto zero = [](Bytes& image, std::uint64_t from, std::uint64_t len) {
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(from), len, std::uint8_t{0});
  };
  const auto expect_bad = [&](const Bytes& image, const std::set<std::uint64_t>& blocks) {
    std::set<std::uint64_t> bad;
    ASSERT_EQ(answer_of(s, image, b_, &bad), Answer::kEioBlocks);
    ASSERT_EQ(bad, blocks);
  };
  for (const std::uint64_t block : {0U, 1U, 62U, 63U, 69U}) {
    SCOPED_TRACE(block);
    Bytes image = s.image;
    zero(image, g_.data_offset(block), b_);
    ASSERT_NO_FATAL_FAILURE(expect_bad(image, {block}));
    zero(image, g_.entry_offset(block), kEntryBytes);
    ASSERT_NO_FATAL_FAILURE(expect_bad(image, {block}));
    image = s.image;
    zero(image, g_.entry_offset(block), kEntryBytes);
    ASSERT_NO_FATAL_FAILURE(expect_bad(image, {block}));
    for (const std::uint64_t other : {2U, 64U}) {
      SCOPED_TRACE(other);
      image = s.image;
      put(image, g_.data_offset(block), g_.data_offset(other), b_);
      put(image, g_.data_offset(other), g_.data_offset(block), b_);
      ASSERT_NO_FATAL_FAILURE(expect_bad(image, {block, other}));
      put(image, g_.entry_offset(block), g_.entry_offset(other), kEntryBytes);
      put(image, g_.entry_offset(other), g_.entry_offset(block), kEntryBytes);
      ASSERT_NO_FATAL_FAILURE(expect_bad(image, {block, other}));
      image = s.image;
      put(image, g_.entry_offset(block), g_.entry_offset(other), kEntryBytes);
      put(image, g_.entry_offset(other), g_.entry_offset(block), kEntryBytes);
      ASSERT_NO_FATAL_FAILURE(expect_bad(image, {block, other}));
    }
  }
  // The copy of F in a group's head may go: nothing is lost.
  Bytes image = s.image;
  zero(image, g_.meta_offset(1), kFileHeaderBytes);
  EXPECT_EQ(answer_of(s, image, b_), Answer::kRight);
  // A whole meta page takes its blocks and no other.
  zero(image, g_.meta_offset(1), kPageBytes);
  std::set<std::uint64_t> second_group;
  for (std::uint64_t block = 63; block <= 70; ++block) second_group.insert(block);
  expect_bad(image, second_group);
}

TEST_P(Damage, AFileOfAnotherIdIsNoPartOfThisOne) {
  const Stored s = store(kind_, 3 * b_);
  const Stored other = store(kind_, 3 * b_);  // an id of its own
  Bytes image = s.image;
  std::copy_n(other.image.begin(), kFileHeaderBytes, image.begin());
  std::set<std::uint64_t> bad;
  EXPECT_EQ(answer_of(s, image, b_, &bad), Answer::kEioBlocks);
  EXPECT_EQ(bad.size(), 3U);
  image = s.image;
  std::copy_n(other.image.begin() + kPageBytes, b_, image.begin() + kPageBytes);
  std::copy_n(other.image.begin() + kFileHeaderBytes, kEntryBytes, image.begin() + kFileHeaderBytes);
  bad.clear();
  EXPECT_EQ(answer_of(s, image, b_, &bad), Answer::kEioBlocks);
  EXPECT_EQ(bad, std::set<std::uint64_t>{0});
}

TEST_P(Damage, CutAtEveryLength) {
  const Stored s = store(kind_, 3 * b_ + 77);
  int whole = 0;
  for (std::uint64_t len = 0; len <= kPageBytes + b_ + 100; ++len) {
    const Bytes image(s.image.begin(), s.image.begin() + static_cast<std::ptrdiff_t>(len));
    std::set<std::uint64_t> bad;
    const Answer answer = answer_of(s, image, b_, &bad);
    if (kind_.sealed) {
      ASSERT_EQ(answer, Answer::kEioFile) << len;
    } else if (len <= kFileHeaderBytes || len == kPageBytes) {
      ASSERT_EQ(answer, Answer::kShorter) << len;  // an empty file
    } else if (len < kPageBytes) {
      ASSERT_EQ(answer, Answer::kEioFile) << len;
    } else if (len == kPageBytes + b_) {
      ASSERT_EQ(answer, Answer::kShorter) << len;  // not seen without a sealed size
      ++whole;
    } else {
      ASSERT_EQ(answer, Answer::kEioBlocks) << len;
      ASSERT_EQ(bad, std::set<std::uint64_t>{(len - kPageBytes) / b_}) << len;
    }
  }
  EXPECT_EQ(whole, kind_.sealed ? 0 : 1);
  const Stored small = store(kind_, 3000);
  for (std::uint64_t len = 0; len < small.image.size(); ++len) {
    const Bytes image(small.image.begin(), small.image.begin() + static_cast<std::ptrdiff_t>(len));
    const bool empty = len <= kFileHeaderBytes && !kind_.sealed;
    ASSERT_EQ(answer_of(small, image, b_), empty ? Answer::kShorter : Answer::kEioFile) << len;
  }
}

TEST_P(Damage, AShortBlockInsideAHoledFileReadsAsZerosBehindItsEnd) {
  // Holes allowed: then, and only then, zeros stand for blocks that are not there.
  const auto format = make_format(kind_);
  Recorder lower;
  auto contents = need(format->open_contents_to_truncate(lower));
  ASSERT_TRUE(contents->truncate(0));
  std::mt19937_64 random(5);
  const Bytes data = random_bytes(random, 4 * b_);
  ASSERT_TRUE(contents->write(0, data));
  ASSERT_TRUE(contents->truncate(4 * b_ + (2U << 20)));
  ASSERT_TRUE(contents->finish());
  const Bytes image = contents_of(lower);
  Bytes changed = image;
  std::fill_n(changed.begin() + static_cast<std::ptrdiff_t>(g_.data_offset(1)), b_, std::uint8_t{0});
  std::fill_n(changed.begin() + static_cast<std::ptrdiff_t>(g_.entry_offset(2)), kEntryBytes, std::uint8_t{0});
  changed[g_.data_offset(3)] ^= 1;
  Recorder damaged(changed, false);
  contents = need(format->open_contents(damaged));
  Bytes block(b_);
  EXPECT_EQ(need(contents->read(b_, block)), b_);
  EXPECT_TRUE(all_zero(block)) << "data taken away: a hole, as documented";
  EXPECT_EQ(need(contents->read(2 * b_, block)), b_);
  EXPECT_TRUE(all_zero(block)) << "entry taken away: a hole, as documented";
  EXPECT_FALSE(contents->read(3 * b_, block)) << "but a changed block is not";
  EXPECT_EQ(need(contents->read(0, block)), b_);
  EXPECT_TRUE(std::equal(block.begin(), block.end(), data.begin()));
}

}  // namespace
}  // namespace ecfs::fs::test
