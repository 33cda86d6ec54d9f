// Operations on a Volume, drawn at random or listed, and the same on a model in memory.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fs/format/native_format.h"
#include "fs/volume.h"
#include "tests/fs/format/support.h"

namespace ecfs::fs::test {

constexpr std::size_t kBlockBytes = 4096;

// Node is a file, directory or link of the model, or one that was found in a volume.
struct Node {
  mode_t type = S_IFREG;
  Bytes data{};
  std::string target{};
  std::map<std::string, std::shared_ptr<Node>> entries{};
  std::set<std::size_t> bad_blocks{};  // found: EIO
  bool unreadable = false;             // found: opening it is EIO
};
using NodePtr = std::shared_ptr<Node>;

struct Step {
  enum class What {
    kCreate,
    kWrite,
    kTruncate,
    kSync,
    kSyncDir,
    kMkdir,
    kSymlink,
    kLink,
    kUnlink,
    kRmdir,
    kRename,
    kPunch  // zeros for data.size() bytes
  } what;
  std::string a{};
  std::string b{};
  std::uint64_t offset = 0;
  Bytes data{};
  unsigned flags = 0;

  [[nodiscard]] std::string text() const {
    static constexpr std::array<const char*, 12> kNames{"create",         "write", "truncate", "sync",
                                                        "sync directory", "mkdir", "symlink",  "link",
                                                        "unlink",         "rmdir", "rename",   "punch"};
    return std::string(kNames.at(static_cast<std::size_t>(what))) + " " + a + " " + b + " " + std::to_string(offset) +
           " +" + std::to_string(data.size()) + " " + std::to_string(flags);
  }
};

class Model {
 public:
  Model() : root_(std::make_shared<Node>()) { root_->type = S_IFDIR; }
  explicit Model(NodePtr root) : root_(std::move(root)) {}
  [[nodiscard]] const NodePtr& root() const { return root_; }

  // copy gives another tree, in which one file of several names is one file again.
  [[nodiscard]] Model copy() const {
    std::map<const Node*, NodePtr> done;
    return Model(copy_of(root_, done));
  }

  [[nodiscard]] NodePtr find(const std::string& path) const {
    NodePtr at = root_;
    for (const std::string& name : split(path)) {
      const auto found = at->entries.find(name);
      if (found == at->entries.end()) return nullptr;
      at = found->second;
    }
    return at;
  }

  // apply gives the errno that the step must give, and does it if that is 0.
  int apply(const Step& step) {
    using What = Step::What;
    const NodePtr node = find(step.a);
    if (step.what == What::kCreate || step.what == What::kMkdir || step.what == What::kSymlink) {
      const NodePtr in = find(parent_of(step.a));
      if (!in) return ENOENT;
      if (node) return EEXIST;
      auto made = std::make_shared<Node>();
      made->type = step.what == What::kMkdir ? S_IFDIR : step.what == What::kSymlink ? S_IFLNK : S_IFREG;
      made->data = step.data;
      made->target = step.b;
      in->entries[name_of(step.a)] = std::move(made);
      return 0;
    }
    if (!node) return ENOENT;
    switch (step.what) {
      case What::kWrite:
        if (node->data.size() < step.offset + step.data.size()) node->data.resize(step.offset + step.data.size());
        std::copy(step.data.begin(), step.data.end(), node->data.begin() + static_cast<std::ptrdiff_t>(step.offset));
        return 0;
      case What::kTruncate: node->data.resize(step.offset); return 0;
      case What::kPunch:
        for (std::size_t i = step.offset; i < std::min(node->data.size(), step.offset + step.data.size()); ++i)
          node->data[i] = 0;
        return 0;
      case What::kUnlink: find(parent_of(step.a))->entries.erase(name_of(step.a)); return 0;
      case What::kRmdir:
        if (!node->entries.empty()) return ENOTEMPTY;
        find(parent_of(step.a))->entries.erase(name_of(step.a));
        return 0;
      case What::kLink: {
        const NodePtr in = find(parent_of(step.b));
        if (!in) return ENOENT;
        if (find(step.b)) return EEXIST;
        in->entries[name_of(step.b)] = node;
        return 0;
      }
      case What::kRename: return rename(step, node);
      default: return 0;
    }
  }

  // all gives the paths of one type, or of any (0).
  [[nodiscard]] std::vector<std::string> all(mode_t type) const {
    std::vector<std::string> paths;
    collect(*root_, "", type, paths);
    return paths;
  }

  static std::vector<std::string> split(const std::string& path) {
    std::vector<std::string> names;
    for (std::size_t at = 0; at < path.size();) {
      const std::size_t end = std::min(path.find('/', at), path.size());
      names.push_back(path.substr(at, end - at));
      at = end + 1;
    }
    return names;
  }
  static std::string parent_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash);
  }
  static std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

 private:
  static NodePtr copy_of(const NodePtr& node, std::map<const Node*, NodePtr>& done) {
    NodePtr& out = done[node.get()];
    if (out) return out;
    out = std::make_shared<Node>(*node);
    const NodePtr result = out;
    for (auto& [name, child] : result->entries) child = copy_of(child, done);
    return result;
  }
  static void collect(const Node& dir, const std::string& path, mode_t type, std::vector<std::string>& out) {
    for (const auto& [name, node] : dir.entries) {
      const std::string full = path.empty() ? name : path + "/" + name;
      if (type == 0 || node->type == type) out.push_back(full);
      if (node->type == S_IFDIR) collect(*node, full, type, out);
    }
  }
  int rename(const Step& step, const NodePtr& node) {
    const NodePtr from = find(parent_of(step.a));
    const NodePtr to = find(parent_of(step.b));
    if (!to) return ENOENT;
    const NodePtr target = find(step.b);
    if (step.flags == RENAME_EXCHANGE) {
      if (!target) return ENOENT;
      std::swap(from->entries[name_of(step.a)], to->entries[name_of(step.b)]);
      return 0;
    }
    if (step.flags == RENAME_NOREPLACE && target) return EEXIST;
    if (target == node) return 0;
    if (target && node->type == S_IFDIR && target->type != S_IFDIR) return ENOTDIR;
    if (target && node->type != S_IFDIR && target->type == S_IFDIR) return EISDIR;
    if (target && !target->entries.empty()) return ENOTEMPTY;
    to->entries[name_of(step.b)] = node;
    from->entries.erase(name_of(step.a));
    return 0;
  }

  NodePtr root_;
};

// StepMaker draws steps that the kernel would pass on: no directory moved into itself, no file in the place of a path.
class StepMaker {
 public:
  explicit StepMaker(std::uint64_t seed) : random_(seed) {
    names_ = {"a", "b", "c", "d", std::string(255, 'L'), std::string(180, 'M')};
  }
  std::mt19937_64& random() { return random_; }
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : random_() % n; }

  Step next(const Model& model) {
    using What = Step::What;
    for (;;) {
      const std::string file = any(model.all(S_IFREG));
      switch (below(20)) {
        case 0:
        case 1:
        case 2:
          return {
              What::kCreate, fresh(model), "", 0, random_bytes(random_, below(2) == 0 ? below(3000) : below(30000)), 0};
        case 3:
        case 4: return {What::kMkdir, fresh(model), "", 0, {}, 0};
        case 5: return {What::kSymlink, fresh(model), std::string(1 + below(200), 't'), 0, {}, 0};
        case 6:
          if (file.empty()) continue;
          return {What::kLink, file, fresh(model), 0, {}, 0};
        case 7: {
          const std::string path = any(model.all(0));
          if (path.empty()) continue;
          return {model.find(path)->type == S_IFDIR ? What::kRmdir : What::kUnlink, path, "", 0, {}, 0};
        }
        case 8:
        case 9:
        case 10:
        case 11: {
          const std::string from = any(model.all(below(2) == 0 ? S_IFDIR : 0));
          const std::string to = below(2) == 0 ? fresh(model) : any(model.all(0));
          const auto inside = [](const std::string& path, const std::string& dir) {
            return path == dir || path.rfind(dir + "/", 0) == 0;
          };
          if (from.empty() || to.empty() || inside(to, from) || inside(from, to)) continue;
          const unsigned flags = std::array<unsigned, 4>{0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE}.at(below(4));
          return {What::kRename, from, to, 0, {}, flags};
        }
        case 12: return {What::kSyncDir, any(model.all(S_IFDIR)), "", 0, {}, 0};
        case 13:
        case 14:
          if (file.empty()) continue;
          return {What::kSync, file, "", 0, {}, 0};
        case 15:
          if (file.empty()) continue;
          return {What::kTruncate, file, "", below(3) == 0 ? 0 : below(40000), {}, 0};
        default: {
          if (file.empty()) continue;
          const std::uint64_t size = model.find(file)->data.size();
          const std::uint64_t at = below(8) == 0 ? below(60000) : below(size + 1);
          return {What::kWrite, file, "", at, random_bytes(random_, 1 + below(below(2) == 0 ? 300 : 20000)), 0};
        }
      }
    }
  }

 private:
  std::string any(const std::vector<std::string>& all) { return all.empty() ? "" : all[below(all.size())]; }
  std::string fresh(const Model& model) {
    std::vector<std::string> dirs = model.all(S_IFDIR);
    std::erase_if(dirs, [](const std::string& d) { return std::count(d.begin(), d.end(), '/') >= 2; });
    dirs.emplace_back();
    const std::string dir = dirs[below(dirs.size())];
    const std::string& name = names_[below(names_.size())];
    return dir.empty() ? name : dir + "/" + name;
  }
  std::mt19937_64 random_;
  std::vector<std::string> names_;
};

// Mounted is a Volume over a lower directory, used by path.
class Mounted {
 public:
  explicit Mounted(const std::filesystem::path& lower) {
    Secret key = need(Secret::of_size(wrap::kVolumeKeyBytes));
    NativeFormatOptions options;
    options.header.id.fill(7);
    Fd root(::open(lower.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    volume_ = need(Volume::open(std::move(root), need(make_native_format(options, key)), VolumeOptions()));
    volume_->start();
  }
  // `volume` is not started yet.
  explicit Mounted(std::unique_ptr<Volume> volume) : volume_(std::move(volume)) { volume_->start(); }
  Volume& volume() { return *volume_; }

  // run does the step; upon ESTALE it looks the names up again and tries once more, as the kernel does.
  Status run(const Step& step) {
    Status done = run_once(step);
    if (done || errno_of(done.error()) != ESTALE) return done;
    return run_once(step);
  }

  // found gives all that is there. What cannot be read is marked; anything else that fails is an error.
  Result<NodePtr> found() {
    std::map<std::uint64_t, NodePtr> known;
    Looks looks(*volume_);
    auto root = std::make_shared<Node>();
    root->type = S_IFDIR;
    ECFS_TRY(fill(InodeTable::kRootId, *root, looks, known));
    return root;
  }

 private:
  Status run_once(const Step& step) {
    using What = Step::What;
    Looks looks(*volume_);
    ECFS_LET(const std::uint64_t in, looks.at(Model::parent_of(step.a)));
    const std::string name = Model::name_of(step.a);
    const Caller self = Caller::self();
    switch (step.what) {
      case What::kCreate: {
        ECFS_LET(Volume::Created made, volume_->create(in, name, 0644, O_RDWR | O_EXCL, self));
        looks.keep(made.entry.nodeid);
        return used(std::move(made.file), step, true);
      }
      case What::kMkdir: return looks.kept(volume_->mkdir(in, name, 0755, self));
      case What::kSymlink: return looks.kept(volume_->symlink(in, name, step.b, self));
      case What::kUnlink: return volume_->unlink(in, name);
      case What::kRmdir: return volume_->rmdir(in, name);
      default: break;
    }
    ECFS_LET(const std::uint64_t node, looks.at(step.a));
    switch (step.what) {
      case What::kPunch: {
        ECFS_LET(OpenedFile file, volume_->open_file(node, O_RDWR, self));
        Status done =
            volume_->fallocate(*file.handle, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, step.offset, step.data.size());
        volume_->release(std::move(file.handle));
        return done;
      }
      case What::kWrite:
      case What::kSync: {
        ECFS_LET(OpenedFile file, volume_->open_file(node, O_RDWR, self));
        return used(std::move(file), step, step.what == What::kWrite);
      }
      case What::kTruncate: {
        AttrChange change;
        change.size = step.offset;
        const auto done = volume_->setattr(node, change);
        return done ? Status() : Status(done.error());
      }
      case What::kSyncDir: {
        ECFS_LET(const auto dir, volume_->opendir(node));
        return volume_->fsyncdir(*dir, false);
      }
      case What::kLink: {
        ECFS_LET(const std::uint64_t to, looks.at(Model::parent_of(step.b)));
        return looks.kept(volume_->link(node, to, Model::name_of(step.b)));
      }
      default: {
        ECFS_LET(const std::uint64_t to, looks.at(Model::parent_of(step.b)));
        return volume_->rename(in, name, to, Model::name_of(step.b), step.flags);
      }
    }
  }

  // Looks counts the lookups made, and has them forgotten at its end.
  class Looks {
   public:
    explicit Looks(Volume& volume) : volume_(volume) {}
    ~Looks() {
      for (const std::uint64_t node : kept_) volume_.forget(node, 1);
    }
    Looks(const Looks&) = delete;
    Looks& operator=(const Looks&) = delete;
    void keep(std::uint64_t node) { kept_.push_back(node); }
    Status kept(Result<Entry> made) {
      if (!made) return std::move(made).error();
      keep(made->nodeid);
      return {};
    }
    Result<Entry> look(std::uint64_t in, const std::string& name) {
      Result<Entry> entry = volume_.lookup(in, name);
      if (entry) keep(entry->nodeid);
      return entry;
    }
    Result<std::uint64_t> at(const std::string& path) {
      std::uint64_t node = InodeTable::kRootId;
      for (const std::string& name : Model::split(path)) {
        ECFS_LET(const Entry entry, look(node, name));
        node = entry.nodeid;
      }
      return node;
    }

   private:
    Volume& volume_;
    std::vector<std::uint64_t> kept_;
  };

  Status used(OpenedFile file, const Step& step, bool write) {
    Status done;
    std::size_t written = 0;
    while (write && done && written < step.data.size()) {
      const auto put = volume_->write(*file.handle, step.offset + written, ByteView(step.data).subspan(written), true);
      if (put) written += *put;
      if (!put) done = put.error();
    }
    if (done && !write) done = volume_->fsync(*file.handle, false);
    if (Status flushed = volume_->flush(*file.handle); done) done = std::move(flushed);
    volume_->release(std::move(file.handle));
    return done;
  }

  Status fill(std::uint64_t nodeid, Node& dir, Looks& looks, std::map<std::uint64_t, NodePtr>& known) {
    ECFS_LET(const auto handle, volume_->opendir(nodeid));
    std::vector<std::string> names;
    ECFS_TRY(volume_->readdir(*handle, 0, false, [&](const DirEntry& e) {
      if (e.name != "." && e.name != "..") names.emplace_back(e.name);
      return true;
    }));
    for (const std::string& name : names) {
      ECFS_LET(const Entry entry, looks.look(nodeid, name));
      NodePtr& node = known[entry.nodeid];
      if (!node) {
        node = std::make_shared<Node>();
        node->type = entry.attr.st_mode & S_IFMT;
        if (node->type == S_IFDIR) {
          ECFS_TRY(fill(entry.nodeid, *node, looks, known));
        } else if (node->type == S_IFLNK) {
          ECFS_LET(node->target, volume_->readlink(entry.nodeid));
        } else {
          ECFS_LET(const std::uint64_t read_as, read(nodeid, name, entry.nodeid, *node, looks));
          known.emplace(read_as, known[entry.nodeid]);  // by its other names it is found so
        }
      }
      dir.entries[name] = known[entry.nodeid];
    }
    return {};
  }
  // read gives the nodeid that the file has then: another one if its size is not what arithmetic gave.
  Result<std::uint64_t> read(std::uint64_t in, const std::string& name, std::uint64_t nodeid, Node& node,
                             Looks& looks) {
    Result<OpenedFile> file = volume_->open_file(nodeid, O_RDONLY, Caller::self());
    if (!file && errno_of(file.error()) == ESTALE) {  // looked up again, as the kernel does
      ECFS_LET(const Entry again, looks.look(in, name));
      nodeid = again.nodeid;
      file = volume_->open_file(nodeid, O_RDONLY, Caller::self());
    }
    if (!file && errno_of(file.error()) == EIO) {
      node.unreadable = true;
      return nodeid;
    }
    if (!file) return std::move(file).error();
    Status done;
    const auto size = file->handle->open->contents->size();
    if (!size) done = size.error();
    if (size) node.data.resize(*size);
    for (std::size_t at = 0; done && at < node.data.size(); at += kBlockBytes) {
      const std::size_t len = std::min(kBlockBytes, node.data.size() - at);
      const auto got = volume_->read(*file->handle, at, MutableByteView(node.data).subspan(at, len));
      if (!got && errno_of(got.error()) == EIO) {
        node.bad_blocks.insert(at / kBlockBytes);
      } else if (!got) {
        done = got.error();
      } else if (*got != len) {
        done = Error{Code::kIo, EIO, "a short read"};
      }
    }
    volume_->release(std::move(file->handle));
    if (!done) return std::move(done).error();
    return nodeid;
  }

  std::unique_ptr<Volume> volume_;
};

// names_differ says where the shape of two trees differs, "" if nowhere.
inline std::string names_differ(const Node& found, const Node& want, const std::string& path,
                                std::map<const Node*, const Node*>& same) {
  for (const auto& [name, node] : want.entries) {
    if (found.entries.count(name) == 0) return "lost: " + path + "/" + name;
  }
  for (const auto& [name, node] : found.entries) {
    const auto wanted = want.entries.find(name);
    if (wanted == want.entries.end()) return "not wanted: " + path + "/" + name;
    const Node& other = *wanted->second;
    if (node->type != other.type || node->target != other.target) return "another: " + path + "/" + name;
    if (same.emplace(node.get(), &other).first->second != &other) return "another file: " + path + "/" + name;
    if (node->type == S_IFDIR) {
      if (std::string text = names_differ(*node, other, path + "/" + name, same); !text.empty()) return text;
    }
  }
  return "";
}
inline std::string names_differ(const Node& found, const Model& want) {
  std::map<const Node*, const Node*> same;
  return names_differ(found, *want.root(), "", same);
}

// block_is says whether a block of `found` is what `want` has there, cut or followed by zeros.
inline bool block_is(const Bytes& found, std::size_t block, const Bytes& want) {
  const std::size_t from = block * kBlockBytes;
  const std::size_t to = std::min(found.size(), from + kBlockBytes);
  for (std::size_t i = from; i < to; ++i) {
    if (found[i] != (i < want.size() ? want[i] : 0)) return false;
  }
  return true;
}

// A directory in memory, if there is one: what is on a disk is not the question here.
inline std::filesystem::path make_base(const std::string& name) {
  std::string path = (access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : testing::TempDir()) + name + "-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) {
    ADD_FAILURE() << "mkdtemp " << path;
    std::abort();
  }
  return path;
}

inline std::size_t open_descriptors() {
  std::size_t num = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++num;
  return num;
}

inline bool long_run() {
  const char* value = std::getenv("ECFS_LONG");
  return value != nullptr && *value != '\0';
}

// Sanitizers make it slow, and look at other things than the outcome.
#ifdef ECFS_SANITIZED
constexpr std::size_t kFewer = 4;
#else
constexpr std::size_t kFewer = 1;
#endif

}  // namespace ecfs::fs::test
