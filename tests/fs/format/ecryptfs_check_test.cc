// The check of one eCryptfs file: what it says agrees with what a mount reads, at every length that a lower file may be
// cut to and with every bit of a header flipped; holes and cut extents are found, and what is left is salvaged.
#include "fs/format/ecryptfs_check.h"

#include <fcntl.h>

#include <chrono>

#include "fs/format/ecryptfs_format.h"
#include "tests/fs/format/ecryptfs_vectors.h"
#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

std::shared_ptr<EcryptfsVolume> make_volume(const char* cipher = "aes", std::size_t key_bytes = 16) {
  EcryptfsKeys keys;
  keys.all.push_back(need(EcryptfsKey::derive(need(Secret::copy_of(as_bytes("a passphrase"))), kEcryptfsContentSalt)));
  const EcryptfsSignature signature = keys.all[0].signature;
  return std::make_shared<EcryptfsVolume>(EcryptfsVolume{.keys = std::move(keys),
                                                         .ciphers = need(EcryptfsCiphers::fetch()),
                                                         .cipher = need(EcryptfsCipher::by_name(cipher, key_bytes)),
                                                         .signatures = {signature}});
}

Bytes plain_bytes(std::size_t size) {
  Bytes plain(size);
  for (std::size_t i = 0; i < size; ++i) plain[i] = static_cast<std::uint8_t>(i * 7 + i / 251);
  return plain;
}

Bytes image_of(const std::shared_ptr<EcryptfsVolume>& volume, ByteView plain) {
  LowerFile lower(memory_file(), true);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  if (plain.empty()) {
    EXPECT_TRUE(contents->truncate(0));
  } else {
    EXPECT_EQ(need(contents->write(0, plain)), plain.size());
  }
  return contents_of(lower);
}

ContentsCheck check_of(const EcryptfsVolume& volume, ByteView image, bool quick = false) {
  const LowerFile lower(memory_file(image), false);
  CheckHow how;
  how.quick = quick;
  return need(check_ecryptfs_contents(volume, lower, how));
}

struct Taken {
  Salvaged salvaged;
  Bytes plain;
};
Taken salvage(const std::shared_ptr<EcryptfsVolume>& volume, ByteView image) {
  LowerFile lower(memory_file(image), false);
  Taken out;
  out.salvaged = need(salvage_ecryptfs_contents(volume, lower, [&](std::uint64_t at, ByteView bytes) -> Status {
    EXPECT_GE(at, out.plain.size());
    out.plain.resize(at);
    append(out.plain, bytes);
    return {};
  }));
  out.plain.resize(out.salvaged.plain_size);
  return out;
}

// The bytes that a mount gives, each by itself.
std::uint64_t readable(const std::shared_ptr<EcryptfsVolume>& volume, ByteView image, std::uint64_t step) {
  LowerFile lower(memory_file(image), false);
  const auto contents = open_ecryptfs_contents(volume, lower);
  if (!contents) return 0;
  const std::uint64_t size = need((*contents)->size());
  std::uint64_t sum = 0;
  Bytes part(step);
  for (std::uint64_t at = 0; at < size; at += step) sum += (*contents)->read(at, part).value_or(0);
  return sum;
}

TEST(EcryptfsCheck, WholeFilesAreFine) {
  const auto volume = make_volume();
  for (const std::size_t size : {0U, 1U, 4095U, 4096U, 4097U, 3U << 20}) {
    SCOPED_TRACE(size);
    const Bytes plain = plain_bytes(size);
    const Bytes image = image_of(volume, plain);
    for (const bool quick : {false, true}) {
      const ContentsCheck check = check_of(*volume, image, quick);
      EXPECT_FALSE(check.damaged() || check.locked() || check.leftovers() || check.cut_creation);
      EXPECT_EQ(check.extra_bytes, 0U);
      EXPECT_EQ(check.facts.plain_size, size);
      EXPECT_EQ(check.facts.lower_size, image.size());
      EXPECT_EQ(check.facts.suite, "aes");
      EXPECT_EQ(check.facts.key_bytes, 16U);
      EXPECT_EQ(check.facts.header_bytes, 8192U);
      EXPECT_EQ(check.facts.signatures.size(), 1U);
      EXPECT_FALSE(check.facts.authentic);
    }
    const Taken taken = salvage(volume, image);
    EXPECT_TRUE(taken.salvaged.lost.empty());
    EXPECT_EQ(taken.salvaged.good_bytes, size);
    EXPECT_EQ(taken.plain, plain);
  }
}

TEST(EcryptfsCheck, OfEveryCutTheMissingBytesAreNamed) {
  for (const auto& [cipher, len] : {std::pair("aes", 16), std::pair("blowfish", 16)}) {
    SCOPED_TRACE(cipher);
    const auto volume = make_volume(cipher, static_cast<std::size_t>(len));
    const std::size_t block = volume->cipher.block_bytes();
    const Bytes plain = plain_bytes(10000);
    const Bytes image = image_of(volume, plain);
    for (std::size_t cut = 0; cut < image.size(); cut += cut < 200 ? 1 : 61) {
      SCOPED_TRACE(cut);
      const ByteView part = ByteView(image).first(cut);
      const ContentsCheck check = check_of(*volume, part);
      const ContentsCheck quick = check_of(*volume, part, true);
      EXPECT_EQ(check.refused.has_value(), quick.refused.has_value());
      EXPECT_EQ(check.bad, quick.bad);
      EXPECT_TRUE(check.holes.empty());
      if (cut == 0) {
        EXPECT_TRUE(check.cut_creation && !check.damaged());
        continue;
      }
      ASSERT_TRUE(check.damaged());
      if (check.refused) {
        EXPECT_EQ(readable(volume, part, 4096), 0U);
        EXPECT_LT(cut, 200U);
        continue;
      }
      EXPECT_EQ(check.facts.plain_size - check.bad.num_bytes(), readable(volume, part, 4096));
      const Taken taken = salvage(volume, part);
      const std::size_t there = cut > 8192 ? (cut - 8192) / 4096 * 4096 + (cut - 8192) % 4096 / block * block : 0;
      EXPECT_EQ(taken.salvaged.good_bytes, std::min<std::size_t>(there, 10000));
      EXPECT_TRUE(std::equal(taken.plain.begin(),
                             taken.plain.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(there, 10000)),
                             plain.begin()));
    }
  }
}

TEST(EcryptfsCheck, WhatIsBehindTheEndIsCounted) {
  const auto volume = make_volume();
  Bytes image = image_of(volume, plain_bytes(5000));
  image.resize(image.size() + 1234, 0x55);
  const ContentsCheck check = check_of(*volume, image);
  EXPECT_FALSE(check.damaged() || check.leftovers());
  EXPECT_EQ(check.extra_bytes, 1234U);
}

TEST(EcryptfsCheck, HolesAreFound) {
  const auto volume = make_volume();
  const Bytes plain = plain_bytes(6 * 4096 + 100);
  const Bytes image = image_of(volume, plain);
  // As zeros that are stored, and as a hole of the lower file.
  for (const bool stored : {true, false}) {
    SCOPED_TRACE(stored);
    LowerFile lower(memory_file(image), true);
    for (const std::uint64_t extent : {1U, 2U, 6U}) {
      const Bytes zeros(4096);
      if (stored) {
        ASSERT_TRUE(lower.write_at(8192 + extent * 4096, zeros));
      } else {
        ASSERT_TRUE(lower.punch(8192 + extent * 4096, 4096));
      }
    }
    const ContentsCheck check = need(check_ecryptfs_contents(*volume, lower, {}));
    EXPECT_TRUE(check.damaged() && check.bad.empty());
    EXPECT_EQ(check.holes.list(), (std::vector<Ranges::Range>{{4096, 3 * 4096}, {6 * 4096, 6 * 4096 + 100}}));
    const Taken taken = salvage(volume, contents_of(lower));
    EXPECT_EQ(taken.salvaged.lost, check.holes);
    Bytes expected = plain;
    std::fill(expected.begin() + 4096, expected.begin() + 3 * 4096, std::uint8_t{0});
    std::fill(expected.begin() + 6 * 4096, expected.end(), std::uint8_t{0});
    EXPECT_EQ(taken.plain, expected);
  }
}

// A header can say any size, and a lower file can have any: neither takes time.
TEST(EcryptfsCheck, HugeSparseFilesTakeNoTime) {
  const auto volume = make_volume();
  const Bytes image = image_of(volume, plain_bytes(100));
  LowerFile lower(memory_file(image), true);
  ASSERT_TRUE(lower.truncate(std::uint64_t{1} << 50));
  ASSERT_TRUE(lower.write_at(0, ecryptfs_size_field(kEcryptfsMaxPlainSize)));
  const auto begun = std::chrono::steady_clock::now();
  const ContentsCheck check = need(check_ecryptfs_contents(*volume, lower, {}));
  EXPECT_EQ(check.bad.num_bytes(), kEcryptfsMaxPlainSize - ((std::uint64_t{1} << 50) - 8192));
  EXPECT_EQ(check.holes.num_bytes(), (std::uint64_t{1} << 50) - 8192 - 4096);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(20));
}

TEST(EcryptfsCheck, FlippedHeadersAreToldAsAMountTellsThem) {
  const auto volume = make_volume();
  const Bytes image = image_of(volume, plain_bytes(5000));
  int refused = 0;
  int locked = 0;
  for (std::size_t at = 0; at < 128; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes flipped = image;
      flipped[at] ^= static_cast<std::uint8_t>(1U << bit);
      LowerFile lower(memory_file(flipped), false);
      const ContentsCheck check = need(check_ecryptfs_contents(*volume, lower, {}));
      const auto contents = open_ecryptfs_contents(volume, lower);
      ASSERT_EQ(check.refused.has_value(), !contents) << at << "." << bit;
      if (!contents) {
        EXPECT_EQ(check.refused->code, contents.error().code);
        ++(check.locked() ? locked : refused);
        EXPECT_EQ(check.damaged(), !check.locked() || !check.bad.empty());
      }
      (void)need(salvage_ecryptfs_contents(volume, lower, [](std::uint64_t, ByteView) { return Status(); }));
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_GE(locked, 64);  // the signature at least
}

TEST(EcryptfsCheck, OtherFilesAreNoHeader) {
  const auto volume = make_volume();
  EXPECT_NE(check_of(*volume, Bytes(12288)).refused->what.find("all zeros"), std::string::npos);
  EXPECT_NE(check_of(*volume, as_bytes("just a text, which nobody encrypted")).refused->what.find("not encrypted"),
            std::string::npos);
}

}  // namespace
}  // namespace ecfs::fs::test
