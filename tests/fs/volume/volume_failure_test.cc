// Lower calls that fail, at the level of names and files: every call of a workload in turn, and what then is there.
#include <cstdio>

#include "tests/fs/volume/lower_calls.h"
#include "tests/fs/volume/workload.h"

namespace ecfs::fs::test {
namespace {

namespace stdfs = std::filesystem;

struct Counts {
  std::size_t runs = 0;
  std::size_t failed = 0;     // steps that told of it
  std::size_t tolerated = 0;  // steps that were done all the same
  std::size_t half_told = 0;  // done, though they told of a failure
  std::size_t rewritten = 0;  // blocks of a gap that could not be filled
};

class VolumeFailure : public testing::TestWithParam<std::uint64_t> {
 protected:
  void SetUp() override { base_ = make_base("ecfs-failure"); }
  void TearDown() override { stdfs::remove_all(base_); }

  // check_contents: each block of each file is as before or after the step, and can be read but for `gap` of `path`.
  static void check_contents(const Node& found, const Node& want, const Model& before, const Model& after,
                             const std::string& path, const Step& step) {
    for (const auto& [name, node] : found.entries) {
      const std::string full = path.empty() ? name : path + "/" + name;
      if (node->type == S_IFDIR) check_contents(*node, *want.entries.at(name), before, after, full, step);
      if (node->type != S_IFREG) continue;
      ASSERT_FALSE(node->unreadable) << full;
      // A renamed file is at one path before and at another after.
      std::vector<Bytes> versions{want.entries.at(name)->data};
      for (const Model* model : {&before, &after}) {
        const NodePtr there = model->find(full);
        if (there && there->type == S_IFREG) versions.push_back(there->data);
      }
      if (const NodePtr a = before.find(step.a); a && a->type == S_IFREG) versions.push_back(a->data);
      if (const NodePtr b = before.find(step.b); b && b->type == S_IFREG) versions.push_back(b->data);
      const std::uint64_t old_size = before.find(full) ? before.find(full)->data.size() : 0;
      for (std::size_t block = 0; block * kBlockBytes < node->data.size(); ++block) {
        const bool in_gap = step.what == Step::What::kWrite && block * kBlockBytes < step.offset &&
                            (block + 1) * kBlockBytes > old_size;
        if (node->bad_blocks.count(block) != 0) {
          ASSERT_TRUE(in_gap) << full << ": block " << block << " is EIO";
          continue;
        }
        ASSERT_TRUE(std::any_of(versions.begin(), versions.end(),
                                [&data = node->data, block](const Bytes& v) { return block_is(data, block, v); }))
            << full << ": block " << block << " is neither old nor new";
      }
    }
  }

  // rewrite_lost: what a failure left unreadable can be written whole, and is well again.
  void rewrite_lost(Mounted& mounted, const Model& model) {
    for (const std::string& path : model.all(S_IFREG)) {
      const NodePtr node = model.find(path);
      for (const std::size_t block : std::exchange(node->bad_blocks, {})) {
        const std::size_t from = block * kBlockBytes;
        const Step step{Step::What::kWrite, path, "", from, Bytes(std::min(kBlockBytes, node->data.size() - from)), 0};
        const Status done = mounted.run(step);
        ASSERT_TRUE(done) << path << ": block " << block << ": " << done.error().what;
        ++counts_.rewritten;
      }
    }
  }

  stdfs::path base_;
  Counts counts_;
};

std::vector<std::uint64_t> seeds() {
  std::vector<std::uint64_t> all{1, 2};
  for (std::uint64_t seed = 3; long_run() && seed <= 20; ++seed) all.push_back(seed);
  return all;
}
INSTANTIATE_TEST_SUITE_P(Seeds, VolumeFailure, testing::ValuesIn(seeds()));

TEST_P(VolumeFailure, AtEveryLowerCallLeavesTheOldOrTheNew) {
  constexpr std::size_t kSteps = 60;
  const std::array<int, 4> errors{EIO, ENOSPC, EDQUOT, EMFILE};
  const std::size_t descriptors = open_descriptors();
  const std::size_t stride = kFewer;
  for (std::size_t k = 0; !HasFailure(); k += stride) {
    for (std::size_t e = 0; e < errors.size() && !HasFailure(); ++e) {
      if (!long_run() && e != k / stride % errors.size()) continue;
      const bool for_good =
          (k / stride / errors.size()) % 2 == 1;  // every call that changes something, to the step's end
      SCOPED_TRACE("call " + std::to_string(k) + " fails with " + std::to_string(errors.at(e)) +
                   (for_good ? " and all that follow in its step" : ""));
      const stdfs::path lower = base_ / "lower";
      stdfs::create_directory(lower);
      bool hit = false;
      {
        Mounted mounted(lower);
        StepMaker maker(GetParam());
        Model model;
        LowerCalls calls;
        std::size_t num_calls = 0;
        for (std::size_t i = 0; i < kSteps && !HasFailure(); ++i) {
          const Step step = maker.next(model);
          SCOPED_TRACE("step " + std::to_string(i) + ": " + step.text().substr(0, 300));
          Model after = model.copy();
          const int expected = after.apply(step);
          bool hit_here = false;
          calls.judge = [&](const char*, bool changes) {
            const bool now = num_calls++ == k;
            hit_here = hit_here || now;
            return now || (for_good && hit_here && changes) ? errors.at(e) : 0;
          };
          const Status done = mounted.run(step);
          calls.judge = nullptr;
          hit = hit || hit_here;
          if (!hit_here) {
            ASSERT_EQ(done ? 0 : errno_of(done.error()), expected) << (done ? "" : done.error().what);
            if (expected == 0) model = std::move(after);
            continue;
          }
          counts_.failed += done ? 0 : 1;
          counts_.tolerated += done ? 1 : 0;
          if (done) {
            ASSERT_EQ(expected, 0) << "it should have been refused";
          }
          const auto found = mounted.found();
          ASSERT_TRUE(found) << found.error().what;
          const std::string not_new = names_differ(**found, after);
          const std::string not_old = names_differ(**found, model);
          if (done) {
            ASSERT_EQ(not_new, "");
          }
          ASSERT_TRUE(not_new.empty() || not_old.empty()) << not_new << " / " << not_old;
          counts_.half_told += !done && not_new.empty() && !not_old.empty() ? 1 : 0;
          const Model& shape = not_new.empty() ? after : model;
          check_contents(**found, *shape.root(), model, after, "", step);
          if (done && step.what != Step::What::kSyncDir) {
            const NodePtr there = Model(*found).find(step.what == Step::What::kRename ? step.b : step.a);
            const NodePtr want = after.find(step.what == Step::What::kRename ? step.b : step.a);
            if (there && want && there->type == S_IFREG) {
              ASSERT_EQ(there->data, want->data) << "told to be done";
            }
          }
          model = Model(*found).copy();
          rewrite_lost(mounted, model);
        }
        if (!HasFailure()) {
          const auto found = mounted.found();
          ASSERT_TRUE(found) << found.error().what;
          ASSERT_EQ(names_differ(**found, model), "");
          for (int wait = 0; !hit && wait < 100 && mounted.volume().known_inodes() > 1; ++wait) {
            std::this_thread::sleep_for(
                std::chrono::milliseconds(100));  // what was written is held until it is settled
          }
          if (!hit) {
            ASSERT_EQ(mounted.volume().known_inodes(), 1U) << "references are left";
          }
        }
        // What a fault left below, a fresh start reads in the same way.
        const auto last = mounted.found();
        ASSERT_TRUE(last);
        model = Model(*last);
        mounted.~Mounted();
        new (&mounted) Mounted(lower);
        const auto again = mounted.found();
        ASSERT_TRUE(again) << again.error().what;
        ASSERT_EQ(names_differ(**again, model), "");
        ASSERT_EQ(mounted.volume().foreign_names(), 0U) << "names below that do not decode";
        check_contents(**again, *model.root(), model, model, "", {Step::What::kSync});
      }
      ++counts_.runs;
      stdfs::remove_all(lower);
      ASSERT_EQ(open_descriptors(), descriptors) << "descriptors are left open";
      if (!hit) {
        std::printf(
            "failure: seed %llu, %zu lower calls of %zu steps, %zu runs: %zu steps failed (%zu of them done), "
            "%zu were done all the same\n",
            static_cast<unsigned long long>(GetParam()), k, kSteps, counts_.runs, counts_.failed, counts_.half_told,
            counts_.tolerated);
        EXPECT_GT(counts_.failed, 100U / kFewer);
        return;
      }
    }
  }
}

}  // namespace
}  // namespace ecfs::fs::test
