// Contents of the eCryptfs format: against a model, against what a kernel would leave, interrupted at every call, with
// failing calls, and on damaged files.
#include "fs/format/ecryptfs_contents.h"

#include <fcntl.h>

#include <cstdio>
#include <map>
#include <set>

#include "tests/fs/format/disk.h"
#include "tests/fs/format/ecryptfs_vectors.h"
#include "tests/fs/format/recorder.h"
#include "wrap/base/log.h"

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

Bytes plain_of(const std::shared_ptr<EcryptfsVolume>& volume, ByteView image) {
  LowerFile lower(memory_file(image), true);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  return need(read_all(*contents));
}

// What a kernel relies on: whole extents and nothing more, none a hole, zeros behind the end.
void expect_as_a_kernel_leaves_it(const std::shared_ptr<EcryptfsVolume>& volume, const Bytes& image) {
  const EcryptfsHeader header = need(parse_ecryptfs_header(image, EcryptfsPlace::kFile));
  const std::uint64_t num = (header.plain_size + 4095) / 4096;
  ASSERT_EQ(image.size(), 8192 + 4096 * num);
  const auto key = need(EcryptfsFileKey::open(volume->keys, volume->ciphers, header));
  auto lease = need(key->lease(false));
  for (std::uint64_t i = 0; i < num; ++i) {
    const ByteView extent = ByteView(image).subspan(8192 + 4096 * i, 4096);
    EXPECT_FALSE(all_zero(extent)) << i;
    Bytes plain(4096);
    EXPECT_TRUE(lease.crypt(i, extent, plain.data()));
    const std::uint64_t used = std::min<std::uint64_t>(4096, header.plain_size - 4096 * i);
    EXPECT_TRUE(all_zero(ByteView(plain).subspan(used))) << i;
  }
}

TEST(EcryptfsContents, DoWhatTheModelDoes) {
  for (const auto& [cipher, len] : std::map<std::string, std::size_t>{{"aes", 32}, {"cast5", 16}}) {
    SCOPED_TRACE(cipher);
    const auto volume = make_volume(cipher.c_str(), len);
    OperationMaker maker(7, 12, 3U << 20);
    LowerFile lower(memory_file(), true);
    auto contents = need(open_ecryptfs_contents(volume, lower));
    Bytes model;
    for (int i = 0; i < 400; ++i) {
      const Operation operation = maker.next(model.size(), false);
      SCOPED_TRACE(operation.text());
      const auto done = operation.run(*contents);
      ASSERT_TRUE(done) << why(done);
      if (operation.what == Operation::What::kWrite) {
        EXPECT_EQ(*done, operation.data.size());
      }
      operation.apply_to(model);
      if (operation.what == Operation::What::kReopen) contents = need(open_ecryptfs_contents(volume, lower));
      ASSERT_EQ(need(contents->size()), model.size());
      const std::uint64_t at = maker.below(model.size() + 1);
      Bytes part(maker.below(20000));
      const std::size_t got = need(contents->read(at, part));
      ASSERT_EQ(got, std::min<std::uint64_t>(part.size(), model.size() - at));
      ASSERT_TRUE(std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(got),
                             model.begin() + static_cast<std::ptrdiff_t>(at)));
      if (i % 20 == 0 && need(lower.size()) > 0) expect_as_a_kernel_leaves_it(volume, contents_of(lower));
    }
    EXPECT_EQ(need(read_all(*contents)), model);
    expect_as_a_kernel_leaves_it(volume, contents_of(lower));
  }
}

TEST(EcryptfsContents, AKilledProcessLeavesOldOrNew) {
  const auto volume = make_volume();
  OperationMaker maker(11, 12, 60000);
  Bytes before;  // image
  Bytes model;
  int states = 0;
  for (int i = 0; i < 120; ++i) {
    const Operation operation = maker.next(model.size(), false);
    SCOPED_TRACE(operation.text());
    Bytes after = model;
    operation.apply_to(after);
    Recorder lower(before);
    {
      const auto contents = need(open_ecryptfs_contents(volume, lower));
      ASSERT_TRUE(operation.run(*contents));
    }
    Bytes image = before;
    const auto check = [&](const Bytes& state) {
      const Bytes plain = plain_of(volume, state);
      ASSERT_TRUE(plain.size() == model.size() || plain.size() == after.size()) << plain.size();
      for (std::size_t at = 0; at < plain.size(); ++at) {
        const bool old = at < model.size() && plain[at] == model[at];
        ASSERT_TRUE(old || (at < after.size() && plain[at] == after[at])) << at;
      }
      ++states;
    };
    for (const Call& call : lower.calls) {
      const bool is_header = call.kind == CallKind::kWrite && call.offset == 0 && call.len > 8;
      if (!is_header) {  // half of a first header is no file yet, and nothing was stored
        for (const std::uint64_t cut : page_cuts(call)) {
          Bytes torn = image;
          apply(torn, call, cut);
          check(torn);
        }
      }
      apply(image, call);
      check(image);
    }
    ASSERT_EQ(image, contents_of(lower));
    before = image;
    model = after;
  }
  EXPECT_GT(states, 300);
}

// For each page that was written since the last sync the disk may have any version, and for the lower file any size.
TEST(EcryptfsContents, APowerCutKeepsWhatWasSyncedAndLeavesOldOrNew) {
  using What = Operation::What;
  constexpr std::uint64_t kBlock = 4096;
  log_through([](int, std::string_view) {});  // holes are expected, a thousand times
  const auto volume = make_volume();
  OperationMaker maker(17, 12, 60000);
  Recorder lower;
  auto contents = need(open_ecryptfs_contents(volume, lower));
  Disk disk;
  Bytes plain;
  std::map<std::uint64_t, std::vector<Bytes>> versions;  // of each block, since the last sync
  std::set<std::uint64_t> touched;                       // blocks, since then
  std::set<std::uint64_t> sizes{0};
  bool header_synced = false;
  int states = 0;
  int unreadable_files = 0;
  int unreadable_blocks = 0;
  int kept_blocks = 0;
  const auto block_of = [](const Bytes& bytes, std::uint64_t block) {
    const std::uint64_t from = std::min<std::uint64_t>(bytes.size(), kBlock * block);
    return ByteView(bytes).subspan(from, std::min(bytes.size() - from, std::size_t{kBlock}));
  };
  const auto remember = [&](const Bytes& bytes, std::uint64_t block) {
    const ByteView view = block_of(bytes, block);
    versions[block].emplace_back(view.begin(), view.end()).resize(kBlock);
  };
  for (int i = 0; i < 900; ++i) {
    Operation operation = maker.next(plain.size(), false);
    if (maker.below(10) == 0) operation = {What::kSync, 0, 0, {}};
    SCOPED_TRACE("operation " + std::to_string(i) + ": " + operation.text() + " in " + std::to_string(plain.size()));
    const Bytes before = plain;
    lower.calls.clear();
    ASSERT_TRUE(operation.run(*contents));
    operation.apply_to(plain);
    if (operation.what == What::kReopen) contents = need(open_ecryptfs_contents(volume, lower));
    for (const Call& call : lower.calls) disk.take(call);
    if (operation.what == What::kSync) {
      versions.clear();
      touched.clear();
      sizes = {plain.size()};
      header_synced = !disk.synced().empty();
      for (std::uint64_t block = 0; block * kBlock < plain.size(); ++block) remember(plain, block);
    }
    sizes.insert(plain.size());
    const std::uint64_t low = std::min(before.size(), plain.size());
    for (std::uint64_t block = 0; block * kBlock < std::max(before.size(), plain.size()); ++block) {
      const bool written = operation.what == What::kWrite && operation.offset < (block + 1) * kBlock &&
                           operation.offset + operation.len > block * kBlock;
      if (!written && (before.size() == plain.size() || (block + 1) * kBlock <= low)) continue;
      touched.insert(block);
      remember(before, block);
      remember(Bytes(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(low)), block);
      remember(plain, block);
    }

    if (maker.below(2) != 0 || !disk.unsynced()) continue;
    for (unsigned sample = 0; sample < 12 && !HasFailure(); ++sample) {
      SCOPED_TRACE("sample " + std::to_string(sample));
      ++states;
      LowerFile after(memory_file(disk.sample(maker.random(), sample % 9)), true);
      const auto opened = open_ecryptfs_contents(volume, after);
      if (!opened) {
        ASSERT_EQ(opened.error().code, Code::kCorrupt) << why(opened);
        ASSERT_FALSE(header_synced) << "a synced file is unreadable: " << why(opened);
        ++unreadable_files;
        continue;
      }
      const std::uint64_t size = need((*opened)->size());
      ASSERT_TRUE(sizes.contains(size)) << "it never had " << size << " bytes";
      for (std::uint64_t block = 0; block * kBlock < std::max<std::uint64_t>(size, plain.size()); ++block) {
        SCOPED_TRACE("block " + std::to_string(block));
        const bool must_stay = !touched.contains(block) && block * kBlock < plain.size();
        ASSERT_FALSE(must_stay && block * kBlock >= size) << "what was synced is cut off";
        if (block * kBlock >= size) continue;
        Bytes bytes(std::min(kBlock, size - block * kBlock));
        const auto read = (*opened)->read(block * kBlock, bytes);
        if (!read) {
          ASSERT_EQ(errno_of(read.error()), EIO) << why(read);
          ASSERT_FALSE(must_stay) << "what was synced is lost";
          ++unreadable_blocks;
          continue;
        }
        const ByteView want = block_of(plain, block);
        if (must_stay) {
          ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), want.begin(), want.end())) << "what was synced differs";
          ++kept_blocks;
        }
        const std::vector<Bytes>& known = versions[block];
        const bool is_known = std::any_of(known.begin(), known.end(), [&](const Bytes& version) {
          return std::equal(bytes.begin(), bytes.end(), version.begin());
        });
        ASSERT_TRUE(is_known || all_zero(bytes)) << "it was never stored";
      }
    }
  }
  std::printf("power cut: %d states, %d synced blocks kept, %d unsynced blocks EIO, %d unsynced files EIO\n", states,
              kept_blocks, unreadable_blocks, unreadable_files);
  EXPECT_GT(states, 1000);
  EXPECT_GT(kept_blocks, 1000);
  EXPECT_GT(unreadable_blocks, 10);
}

TEST(EcryptfsContents, FailingCallsLoseNothing) {
  const auto volume = make_volume();
  OperationMaker maker(13, 12, 60000);
  Bytes before;
  Bytes model;
  int failures = 0;
  for (int i = 0; i < 60; ++i) {
    const Operation operation = maker.next(model.size(), false);
    SCOPED_TRACE(operation.text());
    Bytes after = model;
    operation.apply_to(after);
    for (std::size_t failing = 0;; ++failing) {
      Recorder lower(before);
      const auto contents = need(open_ecryptfs_contents(volume, lower));
      bool failed = false;
      lower.judge = [&](const Call& call, std::size_t n, std::size_t& allow) {
        if (n != failing || call.kind == CallKind::kSync) return 0;
        failed = true;
        allow = call.len / 2 / 4096 * 4096;  // a full disk takes whole pages
        return ENOSPC;
      };
      const auto done = operation.run(*contents);
      lower.judge = nullptr;
      const Bytes plain = need(read_all(*contents));
      EXPECT_EQ(plain, plain_of(volume, contents_of(lower)));
      if (!failed) {
        EXPECT_TRUE(done);
        EXPECT_EQ(plain, after);
        before = contents_of(lower);
        break;
      }
      ++failures;
      ASSERT_GE(plain.size(), std::min(model.size(), after.size()));
      for (std::size_t at = 0; at < plain.size(); ++at) {
        const bool old = at < model.size() && plain[at] == model[at];
        ASSERT_TRUE(old || (at < after.size() && plain[at] == after[at])) << at;
      }
    }
    model = after;
  }
  EXPECT_GT(failures, 60);
}

Bytes file_of(const std::shared_ptr<EcryptfsVolume>& volume, ByteView plain) {
  LowerFile lower(memory_file(), true);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  EXPECT_EQ(need(contents->write(0, plain)), plain.size());
  return contents_of(lower);
}

TEST(EcryptfsContents, DamagedFiles) {
  const auto volume = make_volume();
  std::mt19937_64 random(3);
  const Bytes plain = random_bytes(random, 20000);
  const Bytes good = file_of(volume, plain);

  Bytes cut = good;  // in the fourth extent
  cut.resize(8192 + 3 * 4096 + 100);
  LowerFile lower(memory_file(cut), true);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  Bytes part(3 * 4096);
  EXPECT_EQ(need(contents->read(0, part)), part.size());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), plain.begin()));
  EXPECT_EQ(contents->read(3 * 4096, part).error().code, Code::kCorrupt);
  EXPECT_EQ(contents->write(20000, part).error().code, Code::kCorrupt);
  EXPECT_EQ(contents->truncate(30000).error().code, Code::kCorrupt);
  EXPECT_EQ(contents_of(lower), cut);
  EXPECT_TRUE(contents->truncate(8000));
  expect_as_a_kernel_leaves_it(volume, contents_of(lower));

  Bytes hole = good;
  std::fill(hole.begin() + 8192 + 4096, hole.begin() + 8192 + 8192, std::uint8_t{0});
  Bytes expected = plain;
  std::fill(expected.begin() + 4096, expected.begin() + 8192, std::uint8_t{0});
  EXPECT_EQ(plain_of(volume, hole), expected);

  Bytes torn = good;
  torn[8] = static_cast<std::uint8_t>(torn[8] ^ 1);
  LowerFile bad(memory_file(torn), true);
  EXPECT_EQ(open_ecryptfs_contents(volume, bad).error().code, Code::kCorrupt);
  const auto fresh = need(open_ecryptfs_to_truncate(volume, bad));
  EXPECT_EQ(fresh->read(0, part).error().code, Code::kCorrupt);
  EXPECT_EQ(fresh->write(0, part).error().code, Code::kCorrupt);
  EXPECT_EQ(fresh->truncate(1).error().code, Code::kCorrupt);
  EXPECT_EQ(contents_of(bad), torn);
  EXPECT_TRUE(fresh->truncate(0));
  expect_as_a_kernel_leaves_it(volume, contents_of(bad));

  // A file under a key that is not there is not thrown away by O_TRUNC.
  const auto other = make_volume();
  other->keys.all.clear();
  LowerFile locked(memory_file(good), true);
  EXPECT_EQ(open_ecryptfs_contents(other, locked).error().code, Code::kNoKey);
  EXPECT_EQ(open_ecryptfs_to_truncate(other, locked).error().code, Code::kNoKey);
}

TEST(EcryptfsContents, EmptyFilesAndLimits) {
  const auto volume = make_volume();
  LowerFile lower(memory_file(), true);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  EXPECT_EQ(need(contents->size()), 0U);
  Bytes byte(1);
  EXPECT_EQ(need(contents->read(0, byte)), 0U);
  EXPECT_EQ(need(lower.size()), 0U) << "reading makes no header";
  EXPECT_EQ(errno_of(contents->truncate(kEcryptfsMaxPlainSize + 1).error()), EFBIG);
  EXPECT_EQ(errno_of(contents->write(kEcryptfsMaxPlainSize, byte).error()), EFBIG);
  EXPECT_EQ(errno_of(contents->allocate(0, kEcryptfsMaxPlainSize, 10).error()), EFBIG);
  EXPECT_EQ(need(lower.size()), 0U);
  EXPECT_TRUE(contents->truncate(0));
  EXPECT_EQ(need(lower.size()), 8192U);
  EXPECT_TRUE(contents->truncate(5000));
  EXPECT_EQ(need(contents->next_data(10)), 10U);
  EXPECT_EQ(need(contents->next_hole(10)), 5000U);
  EXPECT_EQ(errno_of(contents->next_data(5000).error()), ENXIO);
  volume->keys.all.clear();
  contents->drop_keys();
  EXPECT_EQ(contents->read(0, byte).error().code, Code::kNoKey);
  EXPECT_EQ(contents->write(0, byte).error().code, Code::kNoKey);
}

TEST(EcryptfsContents, RoomIsMadeOfZeros) {
  const auto volume = make_volume();
  LowerFile lower(memory_file(), true);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  std::mt19937_64 random(6);
  Bytes plain = random_bytes(random, 10000);
  EXPECT_EQ(need(contents->write(0, plain)), plain.size());
  const auto zero = [&](std::size_t from, std::size_t to) {
    std::fill(plain.data() + from, plain.data() + to, std::uint8_t{0});
  };
  constexpr int kKeep = FALLOC_FL_KEEP_SIZE;
  for (const int mode : {FALLOC_FL_PUNCH_HOLE | kKeep, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE}) {
    EXPECT_EQ(errno_of(contents->allocate(mode, 0, 4096).error()), EOPNOTSUPP);
  }
  EXPECT_TRUE(contents->allocate(FALLOC_FL_ZERO_RANGE | kKeep, 3000, 5000));
  zero(3000, 8000);
  EXPECT_EQ(need(read_all(*contents)), plain);
  EXPECT_TRUE(contents->allocate(FALLOC_FL_ZERO_RANGE | kKeep, 9999, 100000));
  zero(9999, 10000);
  EXPECT_EQ(need(read_all(*contents)), plain);
  EXPECT_TRUE(contents->allocate(kKeep, 5000, 100000));
  EXPECT_EQ(need(read_all(*contents)), plain);
  EXPECT_TRUE(contents->allocate(0, 9000, 11000));
  plain.resize(20000);
  EXPECT_EQ(need(read_all(*contents)), plain);
  EXPECT_TRUE(contents->allocate(FALLOC_FL_ZERO_RANGE, 15000, 10000));
  plain.resize(25000);
  EXPECT_EQ(need(read_all(*contents)), plain);
  EXPECT_EQ(need(lower.size()), 8192U + 7 * 4096);
  EXPECT_EQ(need(read_all(*need(open_ecryptfs_contents(volume, lower)))), plain);
}

TEST(EcryptfsContents, WhatCannotBeFilledIsRefusedAtOnce) {
  const auto volume = make_volume();
  LowerFile lower(Fd(::open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)), true);  // a disk has an end
  ASSERT_GE(lower.fd(), 0);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  EXPECT_EQ(need(contents->write(0, as_bytes("text"))), 4U);
  const auto is_refusal = [](const Error& error) { return errno_of(error) == EFBIG || errno_of(error) == ENOSPC; };
  EXPECT_TRUE(is_refusal(contents->truncate(std::uint64_t{1} << 60).error()));
  EXPECT_TRUE(is_refusal(contents->write(std::uint64_t{1} << 60, as_bytes("x")).error()));
  EXPECT_TRUE(is_refusal(contents->allocate(0, 0, std::uint64_t{1} << 60).error()));
  EXPECT_EQ(need(lower.size()), 8192U + 4096);
  EXPECT_EQ(as_text(need(read_all(*contents))), "text");
}

TEST(EcryptfsContents, SizesNeedNoKey) {
  const auto volume = make_volume();
  LowerFile lower(memory_file(), true);
  const auto size = [&] { return ecryptfs_stored_size(*volume, lower); };
  EXPECT_EQ(need(size()), 0U);
  {
    const auto contents = need(open_ecryptfs_contents(volume, lower));
    EXPECT_EQ(need(contents->write(0, Bytes(5000))), 5000U);
  }
  volume->keys.all.clear();
  EXPECT_EQ(need(size()), 5000U);
  volume->encrypted_view = true;
  EXPECT_EQ(need(size()), 8192U + 2 * 4096);
  volume->encrypted_view = false;
  LowerFile plain(memory_file(as_bytes("no header at all, but longer than 26 bytes")), true);
  EXPECT_EQ(ecryptfs_stored_size(*volume, plain).error().code, Code::kCorrupt);
  volume->passthrough = true;
  EXPECT_EQ(need(ecryptfs_stored_size(*volume, plain)), 42U);
}

TEST(EcryptfsContents, MetadataInAnAttribute) {
  const auto volume = make_volume();
  volume->place = EcryptfsPlace::kXattr;
  // On the disk that the test runs on: files in memory keep no attributes of users.
  const auto make_file = [] { return Fd(::open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)); };
  LowerFile lower(make_file(), true);
  ASSERT_GE(lower.fd(), 0);
  ASSERT_TRUE(lower.write_xattr("user.probe", as_bytes("x"))) << "run this where files keep attributes of users";
  auto contents = need(open_ecryptfs_contents(volume, lower));
  std::mt19937_64 random(5);
  const Bytes plain = random_bytes(random, 5000);
  EXPECT_EQ(need(contents->write(0, plain)), plain.size());
  EXPECT_EQ(need(lower.size()), 8192U);
  const Bytes value = *need(lower.read_xattr("user.ecryptfs"));
  EXPECT_EQ(value.size(), 81U);
  const EcryptfsHeader header = need(parse_ecryptfs_header(value, EcryptfsPlace::kXattr));
  EXPECT_EQ(header.plain_size, 5000U);
  EXPECT_EQ(header.flags, 6U);
  volume->place = EcryptfsPlace::kFile;  // a file stays what it was made as
  contents = need(open_ecryptfs_contents(volume, lower));
  EXPECT_TRUE(contents->truncate(100));
  EXPECT_EQ(need(lower.size()), 4096U);
  EXPECT_EQ(need(read_all(*contents)), Bytes(plain.begin(), plain.begin() + 100));

  // The encrypted view puts the header in front: a file that needs no attribute.
  const auto view_volume = make_volume();
  view_volume->encrypted_view = true;
  const auto view = need(open_ecryptfs_contents(view_volume, lower));
  EXPECT_EQ(need(view->size()), 8192U + 4096U);
  const Bytes shown = need(read_all(*view, 1000));
  EXPECT_EQ(plain_of(volume, shown), Bytes(plain.begin(), plain.begin() + 100));
  expect_as_a_kernel_leaves_it(volume, shown);
  EXPECT_EQ(errno_of(view->write(0, plain).error()), EROFS);
  EXPECT_EQ(errno_of(view->truncate(0).error()), EROFS);
}

TEST(EcryptfsContents, PlainFilesPassThroughWhereAskedFor) {
  const auto volume = make_volume();
  const Bytes text(10000, 'x');
  LowerFile lower(memory_file(text), true);
  EXPECT_EQ(open_ecryptfs_contents(volume, lower).error().code, Code::kCorrupt);
  volume->passthrough = true;
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  EXPECT_EQ(need(read_all(*contents)), text);
  EXPECT_EQ(need(contents->write(10000, Bytes(5, 'y'))), 5U);
  EXPECT_TRUE(contents->truncate(10003));
  EXPECT_EQ(need(lower.size()), 10003U);
  LowerFile fresh(memory_file(), true);
  EXPECT_TRUE(need(open_ecryptfs_to_truncate(volume, fresh))->truncate(0));
  EXPECT_EQ(need(fresh.size()), 8192U) << "new files are encrypted";
}

}  // namespace
}  // namespace ecfs::fs::test
