// What an interruption leaves: the calls that operations make on the lower file are cut off at every call and at every
// page inside it (a kill), or reach the disk as any mix of unsynced pages and sizes (a power cut). Every state is
// opened and compared with what the table in fs/FORMAT.md §4 allows.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>

#include "fs/format/block_set.h"
#include "tests/fs/format/disk.h"
#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

// Sanitizers make it slow, and look at other things than the outcome.
#ifdef ECFS_SANITIZED
constexpr int kFewer = 4;
#else
constexpr int kFewer = 2;
#endif

bool long_run() {
  const char* value = std::getenv("ECFS_LONG");
  return value != nullptr && *value != '\0';
}

ByteView block_of(const Bytes& plain, std::uint64_t block, std::uint64_t b) {
  const std::uint64_t from = std::min<std::uint64_t>(plain.size(), block * b);
  return ByteView(plain).subspan(from, std::min<std::uint64_t>(b, plain.size() - from));
}

// same says whether `got` is `want`, zero-extended or cut to its length.
bool same(ByteView got, ByteView want) {
  const std::size_t common = std::min(got.size(), want.size());
  return std::equal(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(common), want.begin()) &&
         all_zero(got.subspan(common));
}

// The blocks that were skipped by a write past the end and are not settled yet: only those may be lost by a kill.
struct Gaps {
  BlockSet blocks;
  void before(const Operation& op, std::uint64_t size, std::uint64_t b) {
    if (op.what == Operation::What::kWrite && op.offset > size) blocks.add((size + b - 1) / b, op.offset / b);
  }
  void after(const Operation& op) {
    using What = Operation::What;
    if (op.what == What::kSettle || op.what == What::kSync || op.what == What::kReopen) blocks.clear();
    if (op.what == What::kTruncate && op.offset == 0) blocks.clear();
  }
};

struct Counts {
  std::uint64_t states = 0;
  std::uint64_t twice = 0;
  std::uint64_t old_blocks = 0;
  std::uint64_t new_blocks = 0;
  std::uint64_t eio_blocks = 0;
  std::uint64_t eio_files = 0;
};

struct KillCase {
  VolumeKind kind;
  std::uint64_t seed;
};

class Kill : public testing::TestWithParam<KillCase> {
 protected:
  const VolumeKind kind_ = GetParam().kind;
  const std::unique_ptr<Format> format_ = make_format(kind_);
  const Geometry g_{kind_.shift};
  const std::uint64_t b_ = g_.block_bytes();
  Counts counts_;

  // check gives the plaintext of `image`, or nothing if some of it is (rightly) unreadable.
  std::optional<Bytes> check(const Bytes& image, const Bytes& before, const Bytes& after, const BlockSet& gaps,
                             std::optional<std::uint64_t> torn) {
    ++counts_.states;
    Recorder lower(image);
    const auto opened = format_->open_contents(lower);
    if (!opened) {
      ADD_FAILURE() << "a kill made the file unreadable: " << why(opened);
      return std::nullopt;
    }
    Contents& contents = **opened;
    const std::uint64_t size = need(contents.size());
    const std::uint64_t low = std::min(before.size(), after.size());
    const std::uint64_t high = std::max(before.size(), after.size());
    const bool at_border = (size % b_ == 0 || torn == size / b_) && low <= size && size <= high;
    if (size != before.size() && size != after.size() && !at_border) {
      ADD_FAILURE() << "size " << size << " is neither " << before.size() << " nor " << after.size() << " nor a border";
      return std::nullopt;
    }
    Bytes all(size);
    bool whole = true;
    for (std::uint64_t block = 0; block * b_ < size; ++block) {
      const MutableByteView part = MutableByteView(all).subspan(block * b_, std::min(b_, size - block * b_));
      const auto got = contents.read(block * b_, part);
      if (!got) {
        if (!gaps.contains(block) && torn != block) ADD_FAILURE() << "a kill lost block " << block << ": " << why(got);
        whole = false;
        ++counts_.eio_blocks;
        continue;
      }
      const bool is_old = same(part, block_of(before, block, b_));
      const bool is_new = same(part, block_of(after, block, b_));
      if (!is_old && !is_new && !(gaps.contains(block) && all_zero(part)))
        ADD_FAILURE() << "block " << block << " is neither old nor new";
      counts_.old_blocks += is_old && !is_new ? 1 : 0;
      counts_.new_blocks += is_new && !is_old ? 1 : 0;
    }
    if (!whole) return std::nullopt;
    return all;
  }

  // The block that is being copied when a write is cut at lower offset `at`.
  std::optional<std::uint64_t> torn_block(std::uint64_t at) const {
    const std::uint64_t inside = at % g_.group_bytes();
    if (b_ == kPageBytes || inside <= kPageBytes || (inside - kPageBytes) % b_ == 0) return std::nullopt;
    return at / g_.group_bytes() * kBlocksPerGroup + (inside - kPageBytes) / b_;
  }

  // each_cut calls `f` with the state after every number of calls, and after every page inside the one that follows.
  template <class F>
  void each_cut(const Bytes& start, const std::vector<Call>& calls, F f) {
    Bytes image = start;
    f(image, std::optional<std::uint64_t>());
    for (const Call& call : calls) {
      for (const std::uint64_t cut : page_cuts(call)) {
        Bytes part = image;
        apply(part, call, cut);
        f(part, torn_block(call.offset + cut));
        if (testing::Test::HasFailure()) return;
      }
      apply(image, call);
      f(image, std::optional<std::uint64_t>());
      if (testing::Test::HasFailure()) return;
    }
  }
};

std::vector<KillCase> kill_cases() {
  std::vector<KillCase> all;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) all.push_back({{wrap::Suite::kAes256Gcm, 12, false, false}, seed});
  all.push_back({{wrap::Suite::kChaCha20Poly1305, 12, false, false}, 4});
  all.push_back({{wrap::Suite::kAes256Gcm, 12, true, false}, 5});
  all.push_back({{wrap::Suite::kChaCha20Poly1305, 12, true, false}, 6});
  all.push_back({{wrap::Suite::kAes256Gcm, 13, false, false}, 7});
  all.push_back({{wrap::Suite::kAes256Gcm, 14, true, false}, 8});
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, Kill, testing::ValuesIn(kill_cases()));

TEST_P(Kill, LeavesOldOrNew) {
  OperationMaker maker(GetParam().seed, kind_.shift, 135 * b_);
  const int num = (b_ == kPageBytes ? 400 : 120) / kFewer * (long_run() ? 20 : 1);
  Recorder lower;
  auto contents = need(format_->open_contents_to_truncate(lower));
  ASSERT_TRUE(contents->truncate(0));
  Bytes plain;
  Gaps gaps;
  for (int i = 0; i < num && !HasFailure(); ++i) {
    const Operation op = maker.next(plain.size());
    SCOPED_TRACE("operation " + std::to_string(i) + ": " + op.text() + " in " + std::to_string(plain.size()));
    const Bytes image = contents_of(lower);
    const Bytes before = plain;
    gaps.before(op, plain.size(), b_);
    lower.calls.clear();
    const auto done = op.run(*contents);
    ASSERT_TRUE(done) << why(done);
    op.apply_to(plain);
    if (op.what == Operation::What::kReopen) contents = need(format_->open_contents(lower));

    std::size_t number = 0;
    each_cut(image, lower.calls, [&](const Bytes& state, std::optional<std::uint64_t> torn) {
      SCOPED_TRACE("state " + std::to_string(number++) + " of " + std::to_string(lower.calls.size()) + " calls");
      const auto recovered = check(state, before, plain, gaps.blocks, torn);
      if (HasFailure() || !recovered || recovered->empty() || maker.below(12) != 0) return;

      // And a second kill, in an overwrite of what the first one left.
      Recorder second(state);
      const auto again = need(format_->open_contents(second));
      Bytes rewritten = *recovered;
      const std::uint64_t at = maker.below(rewritten.size());
      const Operation over{
          Operation::What::kWrite, at, 0,
          random_bytes(maker.random(), std::min<std::uint64_t>(1 + maker.below(3 * b_), rewritten.size() - at))};
      const auto overwritten = over.run(*again);
      ASSERT_TRUE(overwritten) << why(overwritten);
      over.apply_to(rewritten);
      each_cut(state, second.calls, [&](const Bytes& state2, std::optional<std::uint64_t> torn2) {
        SCOPED_TRACE("killed again in " + over.text());
        check(state2, *recovered, rewritten, BlockSet(), torn2);
        ++counts_.twice;
      });
    });
    gaps.after(op);
  }
  std::printf("kill: %d operations, %llu states (%llu after a second kill), blocks: %llu old, %llu new, %llu EIO\n",
              num, static_cast<unsigned long long>(counts_.states), static_cast<unsigned long long>(counts_.twice),
              static_cast<unsigned long long>(counts_.old_blocks), static_cast<unsigned long long>(counts_.new_blocks),
              static_cast<unsigned long long>(counts_.eio_blocks));
  EXPECT_GT(counts_.old_blocks, 50U);
  EXPECT_GT(counts_.new_blocks, 50U);
}

// --- Power cuts ----------------------------------------------------------------------------------------------------

class PowerCut : public testing::TestWithParam<KillCase> {};
INSTANTIATE_TEST_SUITE_P(All, PowerCut, testing::ValuesIn(kill_cases()));

TEST_P(PowerCut, NeverGivesWrongPlaintextAndKeepsWhatWasSynced) {
  const VolumeKind kind = GetParam().kind;
  const auto format = make_format(kind);
  const std::uint64_t b = Geometry(kind.shift).block_bytes();
  OperationMaker maker(GetParam().seed + 100, kind.shift, 135 * b);
  const int num = (b == kPageBytes ? 500 : 150) / kFewer * (long_run() ? 20 : 1);
  Counts counts;

  Recorder lower;
  auto contents = need(format->open_contents_to_truncate(lower));
  ASSERT_TRUE(contents->truncate(0));
  Disk disk(contents_of(lower));
  Bytes plain;
  std::map<std::uint64_t, std::vector<Bytes>> history;  // all that each block held since the last sync
  bool holes = false;                                   // were ever allowed
  std::set<std::uint64_t> touched;                      // blocks, since the last sync of the lower file
  bool all_touched = true;                              // the file was not PAGED at some time since
  BlockSet gaps;
  const auto remember = [&](std::uint64_t block, ByteView bytes) {
    history[block].emplace_back(bytes.begin(), bytes.end());
  };

  for (int i = 0; i < num && !HasFailure(); ++i) {
    using What = Operation::What;
    Operation op = maker.next(plain.size(), maker.below(3) == 0);
    if (maker.below(12) == 0) op = {What::kSync, 0, 0, {}};
    SCOPED_TRACE("operation " + std::to_string(i) + ": " + op.text() + " in " + std::to_string(plain.size()));
    const Bytes before = plain;
    lower.calls.clear();
    const auto done = op.run(*contents);
    ASSERT_TRUE(done) << why(done);
    op.apply_to(plain);
    if (op.what == What::kReopen) contents = need(format->open_contents(lower));
    holes = holes || op.what == What::kPunch || op.what == What::kZeroRange || op.what == What::kAllocate ||
            plain.size() > before.size() + (1U << 19);

    // What the operation touches: the blocks it names, both old and new tail, and what it settles.
    std::set<std::uint64_t> touches;
    const auto touch = [&](std::uint64_t from, std::uint64_t to) {
      for (std::uint64_t block = from / b; block * b < to; ++block) touches.insert(block);
    };
    if (op.what == What::kWrite) touch(op.offset, op.offset + op.data.size());
    if (op.what == What::kPunch || op.what == What::kZeroRange || op.what == What::kAllocate)
      touch(op.offset, op.offset + op.len);
    if (before.size() != plain.size()) {
      const std::uint64_t low = std::min(before.size(), plain.size());
      touch(low == 0 ? 0 : low - 1, std::max(before.size(), plain.size()));
    }
    if (op.what == What::kWrite && op.offset > before.size()) gaps.add((before.size() + b - 1) / b, op.offset / b);
    for (const auto& [from, to] : gaps.intervals()) touch(from * b, to * b);
    if (op.what == What::kSettle || op.what == What::kSync || op.what == What::kReopen) gaps.clear();
    bool synced = false;
    for (const Call& call : lower.calls) {
      disk.take(call);
      if (call.kind == CallKind::kSync) synced = true;
    }
    const bool paged = before.size() > kInlineMaxBytes && plain.size() > kInlineMaxBytes && plain.size() / b > 0;
    if (synced) {  // what lies further back is on no page any more
      history.clear();
      for (std::uint64_t block = 0; block * b < before.size(); ++block) remember(block, block_of(before, block, b));
      touched.clear();
      all_touched = false;
    }
    for (const std::uint64_t block : touches) {
      const ByteView was = block_of(before, block, b);
      const ByteView is = block_of(plain, block, b);
      remember(block, is);
      remember(block, is.first(std::min(is.size(), was.size())));
      Bytes longer(was.begin(), was.end());
      longer.resize(is.size());
      remember(block, longer);
      longer.resize(b);
      remember(block, longer);
    }
    if (!(synced && op.what == What::kSync)) touched.insert(touches.begin(), touches.end());
    all_touched = all_touched || !paged;

    if (maker.below(2) != 0 || !disk.unsynced()) continue;
    for (unsigned sample = 0; sample < 12 && !HasFailure(); ++sample) {
      SCOPED_TRACE("sample " + std::to_string(sample));
      ++counts.states;
      Recorder after(disk.sample(maker.random(), sample % 8));
      const auto opened = format->open_contents(after);
      if (!opened) {
        ASSERT_EQ(opened.error().code, Code::kCorrupt) << why(opened);
        ASSERT_TRUE(all_touched) << "synced data lost with the whole file: " << why(opened);
        ++counts.eio_files;
        continue;
      }
      Contents& got = **opened;
      const std::uint64_t size = need(got.size());
      for (std::uint64_t block = 0; block * b < std::max<std::uint64_t>(size, plain.size()); ++block) {
        const bool must_be = !all_touched && !touched.contains(block) && block * b < plain.size();
        const ByteView want = block_of(plain, block, b);
        if (block * b >= size) {
          ASSERT_FALSE(must_be) << "synced block " << block << " is cut off";
          continue;
        }
        Bytes bytes(std::min(b, size - block * b));
        const auto read = got.read(block * b, bytes);
        if (!read) {
          ASSERT_EQ(errno_of(read.error()), EIO) << why(read);
          ASSERT_FALSE(must_be) << "synced block " << block << " is lost";
          ++counts.eio_blocks;
          continue;
        }
        if (must_be) {
          ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), want.begin(), want.end()))
              << "synced block " << block << " differs";
        }
        const std::vector<Bytes>& known = history[block];
        const bool is_known = std::any_of(known.begin(), known.end(), [&](const Bytes& version) {
          return version == bytes || (holes && same(bytes, version));
        });
        ASSERT_TRUE(is_known || (holes && all_zero(bytes)))
            << "block " << block << " of " << bytes.size() << " bytes was never stored";
        ++(is_known ? counts.old_blocks : counts.new_blocks);
      }
    }
  }
  std::printf("power cut: %d operations, %llu states, %llu blocks right, %llu blocks EIO, %llu files EIO\n", num,
              static_cast<unsigned long long>(counts.states), static_cast<unsigned long long>(counts.old_blocks),
              static_cast<unsigned long long>(counts.eio_blocks), static_cast<unsigned long long>(counts.eio_files));
  EXPECT_GT(counts.states, 100U);
  EXPECT_GT(counts.old_blocks, 1000U);
}

}  // namespace
}  // namespace ecfs::fs::test
