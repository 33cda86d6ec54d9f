// Power cuts, at the level of names and files: the lower calls of a workload are written down, and every state that a
// lower filesystem with a journal may come back with is built anew and looked at through a fresh Volume.
//
// The lower filesystem (ext4 and XFS do no worse): changes of names reach the disk in their order, up to some point.
// That point is not before the last change of an inode, or of the names in a directory, that fsync was called for
// later; for fdatasync, not before the file was made. Of what was written to a file since it was last synced each page
// may be there in each of its versions, and so may each size, whatever the names are. Targets of links come with the
// link.
//
// Other ones (f2fs, and btrfs at times) keep the order of names between two checkpoints only, and let an fsync of a
// file bring over the file and its own name alone: then, too, no name may be hidden.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string_view>
#include <unordered_set>

#include "tests/fs/format/disk.h"
#include "tests/fs/volume/lower_calls.h"
#include "tests/fs/volume/workload.h"
#include "wrap/base/log.h"

namespace ecfs::fs::test {
namespace {

namespace stdfs = std::filesystem;
using What = Step::What;
using Kind = LowerCall::Kind;

constexpr std::uint64_t kInlineMax = 4032;

// ---- what was done

using Names = std::map<std::pair<const Node*, std::string>, const Node*>;  // (directory, name): what has it

// Shape is the volume as it was after a step. The Nodes are those of the model that lives on.
struct Shape {
  NodePtr root;  // a copy
  std::map<std::string, const Node*> paths;
  Names names;
};

// Version is what a file held after a step, and which part of it that step wrote.
struct Version {
  std::size_t step = 0;
  Bytes data{};
  std::uint64_t from = 0;
  std::uint64_t to = 0;
};

struct History {
  std::vector<Version> versions{Version{}};  // the first: not made yet
  std::vector<std::size_t> syncs;            // steps
  std::size_t first_punch = ~std::size_t{0};
};

// Promise is a name, or that a name is free, as an fsync found it: kept until a step changes it.
struct Promise {
  std::pair<const Node*, std::string> name;
  const Node* node = nullptr;
  std::size_t step = 0;
  std::size_t until_step = 0;
};

// Steps count from 1.
struct Done {
  std::vector<LowerCall> calls;
  std::vector<std::size_t> step_of{};         // each call
  std::vector<std::size_t> end{0};            // calls made when a step was done
  std::vector<std::size_t> turn{0};           // the call that changes the names that are seen, and 1; 0 if none does
  std::vector<std::string> texts{"nothing"};  // of the steps
  std::vector<Shape> shapes;
  std::map<const Node*, History> files;
  std::vector<Promise> promises;
  std::set<NodePtr> kept;  // all that there ever was, so that no address comes back

  // shape_at gives the number of the shape that the first `num` calls make.
  [[nodiscard]] std::size_t shape_at(std::size_t num) const {
    const std::size_t step = num == 0 ? 0 : step_of[num - 1];
    return step == 0 || turn[step] == 0 || turn[step] <= num ? step : step - 1;
  }
};

bool is_ours(const std::string& lower_name) { return lower_name.starts_with('.') || lower_name.ends_with(".n"); }

Shape shape_of(const Model& model, std::set<NodePtr>& kept) {
  Shape shape;
  shape.root = model.copy().root();
  for (const std::string& path : model.all(0)) {
    const NodePtr node = model.find(path);
    kept.insert(node);
    shape.paths[path] = node.get();
    shape.names[{model.find(Model::parent_of(path)).get(), Model::name_of(path)}] = node.get();
  }
  return shape;
}

// Names of all kinds and all that is done with them, with and without fsync.
std::vector<Step> script() {
  std::mt19937_64 random(1);
  const std::string l1(255, 'L');
  const std::string l2(200, 'M');
  const std::string l3(180, 'N');
  const auto bytes = [&](std::size_t n) { return random_bytes(random, n); };
  return {
      {What::kMkdir, "d"},
      {What::kMkdir, l1},
      {What::kCreate, "d/" + l2, "", 0, bytes(300), 0},
      {What::kCreate, l1 + "/" + l1, "", 0, bytes(20000), 0},
      {What::kSync, l1 + "/" + l1},
      {What::kCreate, "d/a", "", 0, bytes(9000), 0},
      {What::kSyncDir, "d"},
      {What::kRename, "d", "e"},                          // its id is kept
      {What::kCreate, "e/" + l3, "", 0, bytes(5000), 0},  // a name under that id
      {What::kMkdir, "d"},                                // the same id derived once more
      {What::kCreate, "d/" + l2, "", 0, bytes(70), 0},    // and the same lower name
      {What::kRename, "d", "e", 0, {}, RENAME_EXCHANGE},  // two directories
      {What::kSyncDir, "e"},
      {What::kRename, l1, l2},  // a directory of a long name to a long name
      {What::kSymlink, "e/" + l1, std::string(150, 't')},
      {What::kLink, l2 + "/" + l1, "e/" + l3},
      {What::kSync, "e/" + l3},
      {What::kUnlink, l2 + "/" + l1},
      {What::kWrite, "e/" + l3, "", 4000, bytes(9000), 0},
      {What::kRename, "e/" + l3, "d/a", 0, {}, RENAME_EXCHANGE},  // long with short, across directories
      {What::kMkdir, l2 + "/sub"},
      {What::kCreate, l2 + "/sub/" + l2, "", 0, bytes(100), 0},
      {What::kSyncDir, l2 + "/sub"},
      {What::kRename, l2 + "/sub", "e/sub"},  // out of a directory that was itself renamed
      {What::kRename, l2, "e/" + l2},         // over a file of a long name: refused
      {What::kMkdir, "empty"},
      {What::kRename, "empty", "gone"},
      {What::kRename, "e/sub", "gone"},  // over an empty directory that holds an id
      {What::kSync, "gone/" + l2},
      {What::kRename, l2, "gone/" + l1, 0, {}, RENAME_NOREPLACE},
      {What::kRename, "gone/" + l1, "e/a", 0, {}, RENAME_EXCHANGE},  // a directory with a file, or nothing
      {What::kRename, "gone", "e", 0, {}, RENAME_EXCHANGE},
      {What::kUnlink, "e/" + l2},
      {What::kRmdir, "e/" + l1},
      {What::kRmdir, "e"},
      {What::kMkdir, "x"},
      {What::kMkdir, l3},
      {What::kCreate, "x/" + l1, "", 0, bytes(10), 0},
      {What::kCreate, l3 + "/a", "", 0, bytes(10), 0},
      {What::kRename, "x", l3, 0, {}, RENAME_EXCHANGE},  // two directories whose ids were not kept before
      {What::kMkdir, "x/y"},
      {What::kSymlink, "x/y/" + l2, "target"},
      {What::kRename, "x/a", "x/y", 0, {}, RENAME_EXCHANGE},  // a file and a directory
      {What::kSync, "x/y"},
      {What::kCreate, "i", "", 0, bytes(3000), 0},
      {What::kSync, "i"},
      {What::kWrite, "i", "", 2000, bytes(9000), 0},  // INLINE to PAGED
      {What::kCreate, "j", "", 0, bytes(3000), 0},
      {What::kSync, "j"},
      {What::kTruncate, "j", "", 1000, {}, 0},
      {What::kTruncate, "d/a", "", 5000, {}, 0},
      {What::kSync, "d/a"},
      {What::kPunch, "d/a", "", 0, Bytes(4096), 0},
      {What::kWrite, "d/a", "", 20000, bytes(4096), 0},
      {What::kSync, "d/a"},
      {What::kPunch, "d/a", "", 8192, Bytes(8192), 0},
      {What::kWrite, "d/a", "", 10000, bytes(100), 0},
      {What::kRename, "d/a", "d/" + l1},
      {What::kRename, "d/" + l1, "d/" + l3},  // long to long
      {What::kSyncDir, "d"},
      {What::kUnlink, "d/" + l3},
  };
}

// Made states and what was found in them.
struct Counts {
  std::size_t cuts = 0;
  std::size_t kills = 0;       // nothing is lost
  std::size_t names_lost = 0;  // states that lack changes of names
  std::size_t states = 0;
  std::size_t twice = 0;  // drawn again: not looked at
  std::size_t names = 0;
  std::size_t long_names = 0;
  std::size_t kept_ids = 0;
  std::size_t promised_names = 0;
  std::size_t promised_blocks = 0;
  std::size_t blocks = 0;
  std::size_t bad_blocks = 0;
  std::size_t bad_files = 0;
  std::size_t small_files = 0;
  std::size_t used = 0;
};

using Tree = std::map<std::uint64_t, std::map<std::string, std::uint64_t>>;  // directory: name: inode
using Images = std::map<std::uint64_t, Bytes>;

class VolumePower : public testing::TestWithParam<std::uint64_t> {
 protected:
  void SetUp() override {
    base_ = make_base("ecfs-power");
    log_through([](int, std::string_view) {});  // EIO is expected, a thousand times
  }
  void TearDown() override { stdfs::remove_all(base_); }
  static void TearDownTestSuite() { std::printf("power: %zu states in all\n", total_); }

  Step next(StepMaker& maker, const Model& model) const {
    const std::vector<std::string> files = model.all(S_IFREG);
    if (!files.empty() && maker.below(15) == 0) {
      const std::string& path = files[maker.below(files.size())];
      const std::uint64_t at = maker.below(model.find(path)->data.size() + 1);
      return {What::kPunch, path, "", at, Bytes(1 + maker.below(20000)), 0};
    }
    return maker.next(model);
  }

  // work runs the steps on a volume, and on the model.
  void work() {
    const stdfs::path lower = base_ / "lower";
    stdfs::create_directory(lower);
    const std::vector<Step> listed = GetParam() == 0 ? script() : std::vector<Step>();
    const std::size_t num_steps = listed.empty() ? 90 : listed.size();
    StepMaker maker(GetParam());
    Model model;
    done_.kept.insert(model.root());
    done_.shapes.push_back(shape_of(model, done_.kept));
    LowerCalls recorder;
    const Fd root(::open(lower.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    recorder.record_below(root.get());
    const auto take = [&](std::size_t step) {
      for (LowerCall& call : recorder.take_recorded()) {
        done_.calls.push_back(std::move(call));
        done_.step_of.push_back(step);
      }
    };
    {
      Mounted mounted(lower);
      for (std::size_t i = 1; i <= num_steps; ++i) {
        const Step step = listed.empty() ? next(maker, model) : listed[i - 1];
        SCOPED_TRACE("step " + std::to_string(i) + ": " + step.text().substr(0, 300));
        const Status result = mounted.run(step);
        const int expected = model.apply(step);
        ASSERT_EQ(result ? 0 : errno_of(result.error()), expected) << (result ? "" : result.error().what);
        take(i);
        done_.end.push_back(done_.calls.size());
        done_.texts.push_back(step.text().substr(0, 300));
        done_.shapes.push_back(shape_of(model, done_.kept));
        if (expected == 0) note(step, i, model);
      }
    }
    take(num_steps);
    done_.end.back() = done_.calls.size();
    stdfs::remove_all(lower);
    find_turns();
    keep_promises_short();
  }

  void note(const Step& step, std::size_t i, const Model& model) {
    for (const auto& [path, node] : done_.shapes[i].paths) {
      if (node->type != S_IFREG) continue;
      History& history = done_.files[node];
      if (history.versions.back().step != 0 && history.versions.back().data == node->data) continue;
      history.versions.push_back({i, node->data, 0, 0});
    }
    const NodePtr node = model.find(step.a);
    if (step.what == What::kWrite || step.what == What::kPunch) {
      History& history = done_.files[node.get()];
      if (history.versions.back().step != i) history.versions.push_back({i, node->data, 0, 0});
      history.versions.back().from = step.offset;
      history.versions.back().to = step.offset + step.data.size();
      if (step.what == What::kPunch) history.first_punch = std::min(history.first_punch, i);
    }
    if (step.what == What::kSync) done_.files[node.get()].syncs.push_back(i);
    if (step.what != What::kSync && step.what != What::kSyncDir) return;
    // What this fsync promises of names: those of the file, or all in the directory, and which are free there.
    for (const auto& [name, has] : done_.shapes[i].names) {
      if (step.what == What::kSync ? has == node.get() : name.first == node.get()) {
        done_.promises.push_back({name, has, i, 0});
      }
    }
    if (step.what == What::kSync) return;
    for (std::size_t before = 0; before < i; ++before) {
      for (const auto& [name, had] : done_.shapes[before].names) {
        if (name.first == node.get() && done_.shapes[i].names.count(name) == 0) {
          done_.promises.push_back({name, nullptr, i, 0});
        }
      }
    }
  }

  static const Node* at(const Names& names, const std::pair<const Node*, std::string>& name) {
    const auto found = names.find(name);
    return found == names.end() ? nullptr : found->second;
  }
  void keep_promises_short() {
    for (Promise& promise : done_.promises) {
      std::size_t step = promise.step;
      while (step + 1 < done_.shapes.size() && at(done_.shapes[step + 1].names, promise.name) == promise.node) ++step;
      promise.until_step = step;
    }
  }

  // find_turns: each step that changes what is seen does it by exactly one call.
  void find_turns() {
    done_.turn.assign(done_.shapes.size(), 0);
    for (std::size_t k = 0; k < done_.calls.size(); ++k) {
      const LowerCall& call = done_.calls[k];
      const bool of_names = call.kind == Kind::kMake || call.kind == Kind::kLink || call.kind == Kind::kUnlink ||
                            call.kind == Kind::kRename;
      if (!of_names || is_ours(call.name)) continue;
      std::size_t& turn = done_.turn[done_.step_of[k]];
      ASSERT_EQ(turn, 0U) << done_.texts[done_.step_of[k]] << ": changes names twice";
      turn = k + 1;
    }
    for (std::size_t step = 1; step < done_.shapes.size(); ++step) {
      ASSERT_EQ(done_.turn[step] != 0, done_.shapes[step].names != done_.shapes[step - 1].names)
          << step << ": " << done_.texts[step];
    }
  }

  // ---- the lower filesystem

  // replay finds the tree after every number of calls, and up to where names are on the disk for certain after each.
  void replay() {
    Tree tree{{0, {}}};
    std::map<std::uint64_t, std::size_t> changed;  // inode: calls until its last change
    std::map<std::uint64_t, std::size_t> made;
    std::size_t forced = 0;
    trees_.push_back(tree);
    forced_.push_back(forced);
    for (std::size_t k = 0; k < done_.calls.size(); ++k) {
      const LowerCall& call = done_.calls[k];
      const auto touch = [&](std::uint64_t inode) { changed[inode] = k + 1; };
      auto& dir = tree[call.dir];
      switch (call.kind) {
        case Kind::kMake:
        case Kind::kLink:
          ASSERT_TRUE(dir.emplace(call.name, call.inode).second) << call.name;
          if (call.kind == Kind::kMake) {
            made[call.inode] = k + 1;
            makers_[call.inode] = k;
            if (S_ISDIR(call.mode)) tree[call.inode];
          }
          touch(call.inode);
          touch(call.dir);
          break;
        case Kind::kUnlink:
          ASSERT_EQ(dir.count(call.name), 1U) << call.name;
          touch(dir.at(call.name));
          touch(call.dir);
          dir.erase(call.name);
          break;
        case Kind::kRename: {
          auto& to = tree[call.other_dir];
          ASSERT_EQ(dir.count(call.name), 1U) << call.name;
          const std::uint64_t inode = dir.at(call.name);
          touch(inode);
          touch(call.dir);
          touch(call.other_dir);
          if (const auto target = to.find(call.other_name); target != to.end()) touch(target->second);
          if (call.exchange) {
            std::swap(dir.at(call.name), to.at(call.other_name));
          } else {
            dir.erase(call.name);
            to[call.other_name] = inode;
          }
          break;
        }
        case Kind::kSync: forced = std::max(forced, call.data_only ? made[call.inode] : changed[call.inode]); break;
        default: touch(call.inode); break;
      }
      trees_.push_back(tree);
      forced_.push_back(forced);
    }
  }

  // Apart is what stands beside a checkpoint: an inode that was synced after it, with the name it had then.
  struct Apart {
    std::size_t num = 0;  // calls made by then
    std::uint64_t inode = 0;
    std::uint64_t dir = 0;
    std::string name;
  };

  // replay_apart finds these, and before which call no checkpoint can be the last: fsync makes one for a directory, and
  // for a file that got another name or whose directory is newer.
  void replay_apart() {
    std::map<std::uint64_t, Apart> own;  // of the files that are only known by the name they were made with
    std::size_t checkpoint = 0;
    checkpoints_.push_back(checkpoint);
    for (std::size_t k = 0; k < done_.calls.size(); ++k) {
      const LowerCall& call = done_.calls[k];
      const Tree& before = trees_[k];
      if (call.kind == Kind::kMake && S_ISREG(call.mode)) own[call.inode] = {0, call.inode, call.dir, call.name};
      if (call.kind == Kind::kLink) own.erase(call.inode);
      if (call.kind == Kind::kRename) {
        own.erase(before.at(call.dir).at(call.name));
        if (call.exchange) own.erase(before.at(call.other_dir).at(call.other_name));
      }
      if (call.kind == Kind::kSync) {
        const auto found = own.find(call.inode);
        if (found == own.end() || trees_[checkpoint].count(found->second.dir) == 0) {
          checkpoint = k + 1;
        } else {
          apart_.push_back(found->second);
          apart_.back().num = k + 1;
        }
      }
      checkpoints_.push_back(checkpoint);
    }
  }

  // apart_tree is what is left of `num` calls if the last checkpoint came after `checkpoint` of them.
  [[nodiscard]] Tree apart_tree(std::size_t num, std::size_t checkpoint) const {
    Tree tree = trees_[checkpoint];
    std::set<std::uint64_t> there;
    for (const auto& [dir, entries] : tree) {
      for (const auto& [name, inode] : entries) there.insert(inode);
    }
    for (const Apart& apart : apart_) {
      if (apart.num <= checkpoint || apart.num > num || there.count(apart.inode) != 0) continue;
      if (const auto dir = tree.find(apart.dir); dir != tree.end()) dir->second[apart.name] = apart.inode;
    }
    return tree;
  }

  void take(std::map<std::uint64_t, Disk>& disks, const LowerCall& call) const {
    if (call.kind == Kind::kMake && S_ISREG(call.mode)) disks.try_emplace(call.inode);
    const auto disk = disks.find(call.inode);
    if (disk == disks.end()) return;
    switch (call.kind) {
      case Kind::kWrite: disk->second.take({CallKind::kWrite, call.offset, call.data.size(), call.data}); return;
      case Kind::kTruncate: disk->second.take({CallKind::kTruncate, call.offset, 0, {}}); return;
      case Kind::kPunch: disk->second.take({CallKind::kPunch, call.offset, call.len, {}}); return;
      case Kind::kSync: disk->second.take({CallKind::kSync, 0, 0, {}}); return;
      default: return;
    }
  }

  void build(const Tree& tree, std::uint64_t dir, const stdfs::path& at, const Images& images,
             std::map<std::uint64_t, stdfs::path>& built) const {
    ASSERT_EQ(::mkdir(at.c_str(), 0755), 0) << at;
    for (const auto& [name, inode] : tree.at(dir)) {
      const stdfs::path path = at / name;
      const LowerCall& made = done_.calls[makers_.at(inode)];
      if (S_ISDIR(made.mode)) {
        build(tree, inode, path, images, built);
        continue;
      }
      const auto [first, is_first] = built.emplace(inode, path);
      if (!is_first) {
        ASSERT_EQ(::link(first->second.c_str(), path.c_str()), 0) << path;
      } else if (S_ISLNK(made.mode)) {
        ASSERT_EQ(::symlink(made.target.c_str(), path.c_str()), 0) << path;
      } else {
        const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
        ASSERT_TRUE(fd) << path;
        const Bytes& image = images.at(inode);
        ASSERT_EQ(::write(fd.get(), image.data(), image.size()), static_cast<ssize_t>(image.size())) << path;
      }
    }
  }

  // print tells one state from another.
  static std::size_t print(const Tree& tree, std::uint64_t dir, const Images& images) {
    std::size_t sum = 7;
    const auto add = [&](std::size_t value) { sum = (sum ^ value) * 0x9e3779b97f4a7c15U, sum ^= sum >> 29; };
    for (const auto& [name, inode] : tree.at(dir)) {
      add(std::hash<std::string>()(name));
      add(inode);
      if (tree.count(inode) != 0) add(print(tree, inode, images));
      if (const auto image = images.find(inode); image != images.end()) {
        const auto* data = reinterpret_cast<const char*>(image->second.data());
        add(image->second.size());
        add(std::hash<std::string_view>()({data, image->second.size()}));
      }
    }
    return sum;
  }

  // ---- what is there again

  // cut looks at one state: of `num` calls the first `names` that are about names, and the files as in `images`.
  // Not one that was looked at before.
  void cut(std::size_t num, std::size_t names, const Images& images, bool kill) {
    if (!seen_.insert(print(trees_[names], 0, images)).second) {
      ++counts_.twice;
      return;
    }
    ++counts_.states;
    counts_.kills += kill ? 1 : 0;
    counts_.names_lost += done_.shape_at(names) != done_.shape_at(num) ? 1 : 0;
    const stdfs::path lower = base_ / "state";
    std::map<std::uint64_t, stdfs::path> built;
    ASSERT_NO_FATAL_FAILURE(build(trees_[names], 0, lower, images, built));
    {
      Mounted mounted(lower);
      const auto found = mounted.found();
      ASSERT_TRUE(found) << found.error().what;
      const std::size_t now = num == 0 ? 0 : done_.step_of[num - 1];
      const Shape& shape = done_.shapes[done_.shape_at(names)];
      ASSERT_EQ(names_differ(**found, Model(shape.root)), "");
      ASSERT_EQ(mounted.volume().foreign_names(), 0U) << "names below that do not decode";
      for (const auto& [dir, entries] : trees_[names]) counts_.kept_ids += entries.count(".ecfs-dir");
      for (const auto& [path, node] : shape.paths) counts_.long_names += Model::name_of(path).size() > 160 ? 1 : 0;
      counts_.names += shape.paths.size();
      for (const Promise& promise : done_.promises) {
        if (done_.end[promise.step] > num || now > promise.until_step) continue;
        ASSERT_EQ(at(shape.names, promise.name), promise.node)
            << promise.name.second << " was synced in step " << promise.step;
        ++counts_.promised_names;
      }
      for (const std::string& path : Model(*found).all(S_IFREG)) {
        SCOPED_TRACE(path);
        const Node* const node = shape.paths.at(path);
        check_contents(*Model(*found).find(path), done_.files.at(node), num, now, kill);
        if (HasFatalFailure()) return;
      }
      if (counts_.states % 8 == 0) use(mounted, *found);
    }
    stdfs::remove_all(lower);
  }

  static std::size_t num_shown(const Tree& tree, std::uint64_t dir) {
    std::size_t num = 0;
    for (const auto& [name, inode] : tree.at(dir)) {
      if (is_ours(name)) continue;
      num += 1 + (tree.count(inode) != 0 ? num_shown(tree, inode) : 0);
    }
    return num;
  }

  // cut_apart looks at one state of such a filesystem: what is below is shown.
  void cut_apart(const Tree& tree, const Images& images) {
    if (!seen_.insert(print(tree, 0, images)).second) return;
    ++counts_.states;
    const stdfs::path lower = base_ / "state";
    std::map<std::uint64_t, stdfs::path> built;
    ASSERT_NO_FATAL_FAILURE(build(tree, 0, lower, images, built));
    {
      Mounted mounted(lower);
      const auto found = mounted.found();
      ASSERT_TRUE(found) << found.error().what;
      const std::vector<std::string> shown = Model(*found).all(0);
      ASSERT_EQ(mounted.volume().foreign_names(), 0U) << "names below that do not decode";
      ASSERT_EQ(shown.size(), num_shown(tree, 0)) << "names below that are not shown";
      for (const std::string& path : shown) counts_.long_names += Model::name_of(path).size() > 160 ? 1 : 0;
      counts_.names += shown.size();
    }
    stdfs::remove_all(lower);
  }

  // leaves_inline: a small file that was synced was then changed once, to a large one or to a smaller one.
  static bool leaves_inline(const History& history, const std::vector<const Version*>& window) {
    if (window.size() != 2 || window[0]->data.empty()) return false;
    const Version& old = *window[0];
    const Version& fresh = *window[1];
    for (const Version& version : history.versions) {
      if (version.step <= old.step && version.data.size() > kInlineMax) return false;
    }
    const bool grows = fresh.data.size() > kInlineMax && fresh.from < fresh.to && fresh.from <= old.data.size();
    return grows || fresh.data.size() < old.data.size();
  }

  void check_contents(const Node& found, const History& history, std::size_t num, std::size_t now, bool kill) {
    std::size_t synced = 0;
    for (const std::size_t step : history.syncs) {
      if (done_.end[step] <= num) synced = std::max(synced, step);
    }
    std::vector<const Version*> window;  // all that the file was since it was synced, that first
    for (const Version& version : history.versions) {
      if (version.step <= synced) window.clear();
      if (version.step <= now) window.push_back(&version);
    }
    const bool all_touched =
        synced == 0 || (window.size() > 1 && std::any_of(window.begin(), window.end(), [](const Version* v) {
                          return v->data.size() <= kInlineMax;
                        }));
    // After a kill all is there but what the step under way has not done.
    const bool under_way = num < done_.end[now];
    if (leaves_inline(history, window)) {  // old or new, as a whole
      ASSERT_TRUE(!found.unreadable && found.bad_blocks.empty()) << "a small file was lost by growing or shrinking";
      ASSERT_TRUE(found.data == window[0]->data || found.data == window[1]->data);
      ++counts_.small_files;
    }
    if (found.unreadable) {
      ASSERT_TRUE(all_touched && !kill) << "the file is EIO";
      ++counts_.bad_files;
      return;
    }
    if (kill && !under_way) {
      ASSERT_EQ(found.data.size(), window.back()->data.size()) << "a kill changed the size";
    }
    std::size_t largest = 0;
    for (const Version* version : window) largest = std::max(largest, version->data.size());
    ASSERT_LE(found.data.size(), largest) << "it was never so large";

    const Bytes& old = window.front()->data;
    const auto slice = [](const Bytes& data, std::size_t block) {
      const std::size_t from = std::min(data.size(), block * kBlockBytes);
      return ByteView(data).subspan(from, std::min(kBlockBytes, data.size() - from));
    };
    const auto equal = [](ByteView a, ByteView b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); };
    const std::size_t end = std::max(old.size(), found.data.size());
    for (std::size_t block = 0; block * kBlockBytes < end; ++block) {
      bool touched = all_touched;
      for (std::size_t i = 1; i < window.size(); ++i) {
        const Version& version = *window[i];
        touched = touched || (version.from < (block + 1) * kBlockBytes && version.to > block * kBlockBytes) ||
                  !equal(slice(version.data, block), slice(window[i - 1]->data, block));
      }
      if (block * kBlockBytes >= found.data.size()) {
        ASSERT_TRUE(touched) << "synced block " << block << " is cut off";
        continue;
      }
      if (found.bad_blocks.count(block) != 0) {
        const Version& last = *window.back();
        const bool in_gap = under_way && last.step == now && window.size() > 1 && block * kBlockBytes < last.from &&
                            (block + 1) * kBlockBytes > window[window.size() - 2]->data.size();
        ASSERT_TRUE(touched) << "synced block " << block << " is EIO";
        ASSERT_TRUE(!kill || in_gap) << "a kill made block " << block << " EIO";
        ++counts_.bad_blocks;
        continue;
      }
      if (!touched || (kill && !under_way)) {
        ASSERT_TRUE(equal(slice(found.data, block), slice(window.back()->data, block)))
            << "block " << block << " is not as it was synced";
        counts_.promised_blocks += touched ? 0 : 1;
      }
      const ByteView got = slice(found.data, block);
      const bool known = std::any_of(window.begin(), window.end(),
                                     [&](const Version* v) { return block_is(found.data, block, v->data); });
      const bool hole =
          now >= history.first_punch && std::all_of(got.begin(), got.end(), [](auto b) { return b == 0; });
      ASSERT_TRUE(known || hole) << "block " << block << " of " << got.size() << " bytes is neither old nor new";
      ++counts_.blocks;
    }
  }

  // use: what came back can be used. What cannot be read can be written whole, each directory takes names and can be
  // moved, and all can be removed.
  void use(Mounted& mounted, const NodePtr& found) {
    ++counts_.used;
    Model model = Model(found).copy();
    const auto run = [&](const Step& step) {
      const int expected = model.apply(step);
      const Status result = mounted.run(step);
      ASSERT_EQ(result ? 0 : errno_of(result.error()), expected)
          << step.text().substr(0, 300) << (result ? "" : result.error().what);
    };
    for (const std::string& path : model.all(S_IFREG)) {
      const NodePtr node = model.find(path);
      if (std::exchange(node->unreadable, false)) run({What::kTruncate, path});
      for (const std::size_t block : std::exchange(node->bad_blocks, {})) {
        const std::size_t from = block * kBlockBytes;
        run({What::kWrite, path, "", from, Bytes(std::min(kBlockBytes, node->data.size() - from), 'w'), 0});
      }
    }
    std::size_t number = 0;
    for (const std::string& dir : model.all(S_IFDIR)) {
      run({What::kCreate, dir + "/" + std::string(230, 'Z'), "", 0, Bytes(5000, 'z'), 0});
    }
    for (const std::string& dir : model.all(S_IFDIR)) {
      if (dir.find('/') == std::string::npos) run({What::kRename, dir, "moved" + std::to_string(++number)});
    }
    const auto after = mounted.found();
    ASSERT_TRUE(after) << after.error().what;
    ASSERT_EQ(names_differ(**after, model), "");
    for (const std::string& path : Model(*after).all(S_IFREG)) {
      const NodePtr node = Model(*after).find(path);
      ASSERT_FALSE(node->unreadable) << path;
      ASSERT_TRUE(node->bad_blocks.empty()) << path;
      ASSERT_EQ(node->data, model.find(path)->data) << path;
    }
    std::vector<std::string> paths = model.all(0);
    std::reverse(paths.begin(), paths.end());  // what is inside comes first
    for (const std::string& path : paths) {
      run({model.find(path)->type == S_IFDIR ? What::kRmdir : What::kUnlink, path});
    }
    const auto nothing = mounted.found();
    ASSERT_TRUE(nothing) << nothing.error().what;
    ASSERT_TRUE((*nothing)->entries.empty());
  }

  stdfs::path base_;
  Done done_;
  std::vector<Tree> trees_;
  std::vector<std::size_t> forced_;
  std::vector<Apart> apart_;
  std::vector<std::size_t> checkpoints_;
  std::map<std::uint64_t, std::size_t> makers_;  // inode: the call that made it
  std::unordered_set<std::size_t> seen_;
  Counts counts_;
  static inline std::size_t total_ = 0;
};

// 0 is the script.
std::vector<std::uint64_t> seeds() {
  std::vector<std::uint64_t> all{0};
  for (std::uint64_t seed = 1; seed <= (long_run() ? 40 : 7); ++seed) all.push_back(seed);
  return all;
}
INSTANTIATE_TEST_SUITE_P(Seeds, VolumePower, testing::ValuesIn(seeds()));

TEST_P(VolumePower, LosesNothingThatWasSyncedAndNoName) {
  ASSERT_NO_FATAL_FAILURE(work());
  ASSERT_NO_FATAL_FAILURE(replay());
  std::mt19937_64 random(GetParam() + 1000);
  const std::size_t num_samples = 8 / kFewer;
  std::map<std::uint64_t, Disk> disks;
  for (std::size_t num = 0; num <= done_.calls.size() && !HasFailure(); ++num) {
    if (num > 0) take(disks, done_.calls[num - 1]);
    ++counts_.cuts;
    const std::size_t step = num == 0 ? 0 : done_.step_of[num - 1];
    SCOPED_TRACE("after " + std::to_string(num) + " calls, in step " + std::to_string(step) + ": " + done_.texts[step]);
    const auto images_of = [&](auto image_of) {
      Images images;
      for (const auto& [inode, disk] : disks) images[inode] = image_of(disk);
      return images;
    };
    const Images newest = images_of([](const Disk& disk) { return disk.newest(); });
    const auto look = [&](std::size_t names, const Images& images, bool kill) {
      SCOPED_TRACE("names of " + std::to_string(names) + " calls");
      cut(num, names, images, kill);
    };
    const std::size_t least = forced_[num];
    look(num, newest, true);
    if (HasFailure()) break;
    look(least, images_of([](const Disk& disk) { return disk.synced(); }), false);
    if (HasFailure()) break;
    look(least, newest, false);
    const std::size_t enough = counts_.states + num_samples;
    for (std::size_t i = 0; i < 3 * num_samples && counts_.states < enough && !HasFailure(); ++i) {
      const std::size_t names = i % 3 == 0 ? num : least + random() % (num - least + 1);
      const auto bias = static_cast<unsigned>(random() % 9);
      look(names, images_of([&](const Disk& disk) { return disk.sample(random, bias); }), false);
    }
  }
  std::printf(
      "power: seed %llu, %zu steps, %zu lower calls: %zu states (%zu kills, %zu without the last names, %zu drawn "
      "twice), %zu names (%zu long), %zu kept ids, %zu promised names, %zu blocks (%zu promised), %zu blocks EIO, "
      "%zu files EIO, %zu small files old or new, %zu states used on\n",
      static_cast<unsigned long long>(GetParam()), done_.shapes.size() - 1, done_.calls.size(), counts_.states,
      counts_.kills, counts_.names_lost, counts_.twice, counts_.names, counts_.long_names, counts_.kept_ids,
      counts_.promised_names, counts_.blocks, counts_.promised_blocks, counts_.bad_blocks, counts_.bad_files,
      counts_.small_files, counts_.used);
  EXPECT_GT(counts_.states, 800U / kFewer);
  EXPECT_GT(counts_.names_lost, 100U / kFewer);
  EXPECT_GT(counts_.long_names, 500U / kFewer);
  EXPECT_GT(counts_.promised_names, 1000U / kFewer);
  EXPECT_GT(counts_.promised_blocks, 500U / kFewer);
  if (GetParam() == 0) {
    EXPECT_GT(counts_.kept_ids, 1000U / kFewer);
    EXPECT_GT(counts_.small_files, 20U / kFewer);
  }
  total_ += counts_.states;
}

TEST_P(VolumePower, WhereAnFsyncKeepsOneFileAloneNoNameIsHidden) {
  ASSERT_NO_FATAL_FAILURE(work());
  ASSERT_NO_FATAL_FAILURE(replay());
  ASSERT_NO_FATAL_FAILURE(replay_apart());
  std::mt19937_64 random(GetParam() + 2000);
  std::map<std::uint64_t, Disk> disks;
  std::size_t num_apart = 0;
  for (std::size_t num = 0; num <= done_.calls.size() && !HasFailure(); ++num) {
    if (num > 0) take(disks, done_.calls[num - 1]);
    const std::size_t step = num == 0 ? 0 : done_.step_of[num - 1];
    SCOPED_TRACE("after " + std::to_string(num) + " calls, in step " + std::to_string(step) + ": " + done_.texts[step]);
    Images newest;
    for (const auto& [inode, disk] : disks) newest[inode] = disk.newest();
    for (std::size_t i = 0; i < 6 / kFewer && !HasFailure(); ++i) {
      const std::size_t least = checkpoints_[num];
      const std::size_t checkpoint = i == 0 ? least : least + random() % (num - least + 1);
      SCOPED_TRACE("checkpoint after " + std::to_string(checkpoint) + " calls");
      const Tree tree = apart_tree(num, checkpoint);
      num_apart += tree != trees_[checkpoint] ? 1 : 0;
      cut_apart(tree, newest);
    }
  }
  std::printf(
      "power, no order of names: seed %llu, %zu states, %zu names (%zu long), %zu with files of a later fsync\n",
      static_cast<unsigned long long>(GetParam()), counts_.states, counts_.names, counts_.long_names, num_apart);
  EXPECT_GT(num_apart, 10U / kFewer);
  total_ += counts_.states;
}

}  // namespace
}  // namespace ecfs::fs::test
