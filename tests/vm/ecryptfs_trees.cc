// Makes, changes and compares trees of files in two ways: through Volume with the eCryptfs format, and through the
// system calls of a kernel that has the same lower directory mounted. Both sides know what must be there from the same
// steps, done on a model in memory.
//
// vm_ecryptfs_trees list
//     the variants that there are ciphers for: name, passphrase, salt (hexadecimal), options for mount(8), separated by
//     tabs
// vm_ecryptfs_trees volume LOWER VARIANT PAST NOW
// vm_ecryptfs_trees mount DIRECTORY VARIANT PAST NOW
//     PAST and NOW are lists of make/NAME and change/NAME, separated by commas, or "-". The tree has to be what PAST
//     gives, and a lower one without a fault for `ecfs fsck`; then NOW is done to it, and it has to be what both give.
//     Prints, for each of the two, the number of files, bytes and symbolic links and a digest of all that was read.
//     Exit status: 0, or 1 with the first difference on stderr.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fs/check.h"
#include "fs/format/ecryptfs_format.h"
#include "fs/format/ecryptfs_names.h"
#include "tests/fs/volume/workload.h"
#include "wrap/crypto.h"

namespace ecfs::fs::test {
namespace {

namespace stdfs = std::filesystem;

enum class NameKey { kNone, kOwn, kContents };

struct Variant {
  std::string name;
  std::string passphrase = "the passphrase of a tree";
  wrap::EcryptfsSalt salt = kEcryptfsContentSalt;
  NameKey name_key = NameKey::kOwn;
  EcryptfsFormatOptions options;  // but for the signatures, which follow from the above

  [[nodiscard]] bool encrypted_names() const { return name_key != NameKey::kNone; }
  [[nodiscard]] EcryptfsKeys keys() const {
    const Secret secret = need(Secret::copy_of(as_bytes(passphrase)));
    EcryptfsKeys keys;
    keys.all.push_back(need(EcryptfsKey::derive(secret, salt)));
    if (name_key == NameKey::kOwn) keys.all.push_back(need(EcryptfsKey::derive(secret, kEcryptfsNameSalt)));
    return keys;
  }
  [[nodiscard]] std::size_t longest_name() const { return encrypted_names() ? kEcryptfsLongestName : 255; }
  [[nodiscard]] std::size_t longest_link() const {
    if (!encrypted_names()) return kEcryptfsLongestLowerLink;
    return options.name_cipher.value_or(options.cipher).block_bytes() == 8 ? 3015 : 3007;
  }
};

EcryptfsCipher cipher(const char* name, std::size_t key_bytes) {
  return need(EcryptfsCipher::by_name(name, key_bytes));
}

// Whether this program has the cipher itself; the kernel's side of it needs none.
bool available(const EcryptfsCipher& c) {
  const bool of_botan = c.name() == "twofish" || c.name() == "cast6";
  return !of_botan || has_botan_cipher(c.code);
}

std::vector<Variant> all_variants() {
  std::vector<Variant> all;
  std::vector<EcryptfsCipher> ciphers;
  for (const char* name : {"aes", "des3_ede", "cast5", "blowfish", "twofish", "cast6"}) {
    for (std::size_t key_bytes = 1; key_bytes <= kEcryptfsMaxKeyBytes; ++key_bytes) {
      if (const auto c = EcryptfsCipher::by_name(name, key_bytes)) ciphers.push_back(*c);
    }
  }
  std::string_view last;  // the first key length of a cipher in every way, the others as ecryptfs-utils makes them
  for (const EcryptfsCipher& c : ciphers) {
    const bool every_way = c.name() != last;
    last = c.name();
    for (const NameKey names : {NameKey::kNone, NameKey::kOwn}) {
      for (const EcryptfsPlace place : {EcryptfsPlace::kFile, EcryptfsPlace::kXattr}) {
        if (!every_way && (names == NameKey::kNone || place == EcryptfsPlace::kXattr)) continue;
        Variant v;
        v.name = std::string(c.name()) + "-" + std::to_string(c.key_bytes) +
                 (names == NameKey::kNone ? "-plain" : "-names") + (place == EcryptfsPlace::kFile ? "" : "-xattr");
        v.options.cipher = c;
        v.name_key = names;
        v.options.place = place;
        all.push_back(v);
      }
    }
  }
  Variant v;
  v.name = "aes-16-one-key";
  v.name_key = NameKey::kContents;
  all.push_back(v);
  v = {};
  v.name = "aes-16-names-aes-32";
  v.options.name_cipher = cipher("aes", 32);
  all.push_back(v);
  v = {};
  v.name = "aes-32-names-blowfish-16";
  v.options.cipher = cipher("aes", 32);
  v.options.name_cipher = cipher("blowfish", 16);
  all.push_back(v);
  v = {};
  v.name = "aes-16-other-salt";
  v.salt = {0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10};
  v.passphrase = "ein längerer Satz, so lang wie er nur sein darf: 64 Byte, Ende";
  all.push_back(v);
  v = {};
  v.name = "private";  // what ecryptfs-setup-private makes
  v.passphrase = "8d1f0c3e5b7a69482716f5e4d3c2b1a0";
  all.push_back(v);
  return all;
}

std::string mount_options(const Variant& v) {
  const EcryptfsKeys keys = v.keys();
  const EcryptfsCipher& c = v.options.cipher;
  std::string text = "ecryptfs_sig=" + to_hex(keys.all.front().signature) +
                     ",ecryptfs_cipher=" + std::string(c.name()) + ",ecryptfs_key_bytes=" + std::to_string(c.key_bytes);
  if (v.encrypted_names()) text += ",ecryptfs_fnek_sig=" + to_hex(keys.all.back().signature);
  if (v.options.name_cipher) {
    text += ",ecryptfs_fn_cipher=" + std::string(v.options.name_cipher->name()) +
            ",ecryptfs_fn_key_bytes=" + std::to_string(v.options.name_cipher->key_bytes);
  }
  if (v.options.place == EcryptfsPlace::kXattr) text += ",ecryptfs_xattr_metadata";
  return text;
}

// Steps below one directory, whose contents depend on nothing but their paths and places.
class Steps {
 public:
  Steps(const Variant& variant, std::string top) : variant_(variant), top_(std::move(top)) {}

  std::vector<Step> make() {
    add(What::kMkdir, "");
    for (const std::size_t size :
         std::initializer_list<std::size_t>{0, 1, 15, 16, 4095, 4096, 4097, 8192, 12289, 102400}) {
      create("size-" + std::to_string(size), size);
    }
    create("appended", 4000);
    write("appended", 4000, 200);
    write("appended", 4200, 4096);
    create("overwritten", 20000);
    write("overwritten", 4090, 20);
    write("overwritten", 8192, 4096);
    write("overwritten", 19990, 10);
    create("sparse", 0);
    write("sparse", 50000, 1);
    create("extended", 100);
    truncate("extended", 20001);
    create("cut", 102400);
    truncate("cut", 5000);
    create("cut-and-extended", 9000);
    truncate("cut-and-extended", 4100);
    truncate("cut-and-extended", 9000);
    create("emptied", 5000);
    truncate("emptied", 0);
    create("emptied-and-written", 5000);
    truncate("emptied-and-written", 0);
    write("emptied-and-written", 10, 4096);
    create("random", 30000);
    change_at_random("random", 1);

    add(What::kMkdir, "names");
    for (const std::size_t len :
         std::initializer_list<std::size_t>{1, 2, 13, 14, 15, 16, 17, 30, 31, 32, 33, 63, 64, 142}) {
      add(What::kMkdir, "names/" + std::string(len, 'd'));
    }
    add(What::kMkdir, "names/" + longest('d'));
    create("names/" + longest('f'), 100);
    create("names/Übergrößenträger – 猫 🐈", 33);
    create("names/ blanks  and\nlines \\ and \"quotes\" $x *", 1);
    create("names/.hidden", 1);
    create("names/-rf", 1);
    create("names/\xff\xfe\x01\x7f", 1);
    create("names/ECRYPTFS_FNEK_ENCRYPTED", 1);
    std::string umlauts;
    while (umlauts.size() + 2 <= variant_.longest_name()) umlauts += "ü";
    add(What::kMkdir, "names/" + umlauts);

    add(What::kMkdir, "links");
    add(What::kSymlink, "links/short", "x");
    add(What::kSymlink, "links/relative", "../size-4097");
    add(What::kSymlink, "links/absolute", "/etc/passwd");
    add(What::kSymlink, "links/ünï", "../names/Übergrößenträger – 猫 🐈");
    add(What::kSymlink, "links/" + longest('l'), std::string(300, 't'));
    for (const std::size_t len : std::initializer_list<std::size_t>{15, 16, 17, 59, 60, 61, 143, 144, 255, 256}) {
      add(What::kSymlink, "links/" + std::to_string(len), std::string(len, 't'));
    }
    add(What::kSymlink, "links/longest", std::string(variant_.longest_link(), 't'));

    add(What::kLink, "size-4097", path("names/hard"));
    add(What::kLink, "size-4097", path("names/harder"));
    add(What::kMkdir, "one");
    add(What::kMkdir, "one/two");
    add(What::kMkdir, "one/two/three");
    create("one/two/three/file", 5000);
    add(What::kRename, "one/two", path("moved"));
    create("passing", 10);
    add(What::kRename, "passing", path("one/passed"));
    create("replaced", 30);
    create("replacing", 40);
    add(What::kRename, "replacing", path("replaced"));
    create("removed", 50);
    add(What::kUnlink, "removed");
    return std::move(steps_);
  }

  std::vector<Step> change() {
    write("size-0", 0, 5000);
    truncate("size-1", 0);
    write("size-15", 7, 1);
    write("size-16", 16, 1);
    write("size-4095", 4095, 1);
    write("size-4095", 4096, 4096);
    write("size-4096", 4000, 96);
    truncate("size-8192", 4097);
    write("size-12289", 12288, 1);
    truncate("size-12289", 100000);
    write("size-102400", 50000, 10000);
    write("size-102400", 0, 1);
    write("sparse", 20000, 100);
    truncate("extended", 3);
    write("cut", 5000, 5000);
    truncate("cut-and-extended", 8999);
    write("emptied", 8192, 4096);
    change_at_random("random", 2);
    add(What::kUnlink, "size-4097");
    write("names/hard", 4000, 4096);
    add(What::kLink, "names/harder", path("links/hardest"));
    add(What::kRename, "moved", path("one/moved again"));
    add(What::kRename, "replaced", path("appended"));
    add(What::kRename, "names/" + longest('f'), path("names/" + longest('g')));
    add(What::kUnlink, "links/short");
    add(What::kSymlink, "links/short", "another");
    add(What::kUnlink, "names/-rf");
    add(What::kRmdir, "names/" + longest('d'));
    add(What::kMkdir, "new");
    create("new/file", 30000);
    add(What::kLink, "overwritten", path("new/second"));
    add(What::kMkdir, "new/" + longest('n'));
    create("new/" + longest('n') + "/" + longest('m'), 4096);
    return std::move(steps_);
  }

 private:
  using What = Step::What;
  [[nodiscard]] std::string path(const std::string& below) const { return below.empty() ? top_ : top_ + "/" + below; }
  [[nodiscard]] std::string longest(char c) const { return std::string(variant_.longest_name(), c); }
  void add(What what, const std::string& below, std::string other = "", std::uint64_t offset = 0, Bytes data = {}) {
    steps_.push_back({what, path(below), std::move(other), offset, std::move(data), 0});
  }
  Bytes data(const std::string& below, std::size_t offset, std::size_t len) const {
    std::uint64_t seed = offset + 1;
    for (const char c : path(below)) seed = seed * 1099511628211U + static_cast<unsigned char>(c);
    std::mt19937_64 random(seed);
    return random_bytes(random, len);
  }
  void create(const std::string& below, std::size_t size) { add(What::kCreate, below, "", 0, data(below, 0, size)); }
  void write(const std::string& below, std::size_t offset, std::size_t len) {
    add(What::kWrite, below, "", offset, data(below, offset, len));
  }
  void change_at_random(const std::string& below, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 20; ++i) {
      const std::size_t offset = random() % 40000;
      if (random() % 3 == 0) {
        truncate(below, offset);
      } else {
        write(below, offset, 1 + random() % 9000);
      }
    }
  }
  void truncate(const std::string& below, std::size_t size) { add(What::kTruncate, below, "", size); }

  const Variant& variant_;
  std::string top_;
  std::vector<Step> steps_;
};

Result<std::vector<Step>> steps_of(const Variant& variant, const std::string& list) {
  std::vector<Step> all;
  if (list == "-") return all;
  for (std::size_t at = 0; at < list.size();) {
    const std::string word = list.substr(at, list.find(',', at) - at);
    at += word.size() + 1;
    const std::string kind = word.substr(0, word.find('/'));
    if (kind == word || (kind != "make" && kind != "change")) return Error{Code::kInvalid, EINVAL, "no steps: " + word};
    Steps steps(variant, word.substr(kind.size() + 1));
    for (Step& step : kind == "make" ? steps.make() : steps.change()) all.push_back(std::move(step));
  }
  return all;
}

// Tree is one of the two ways.
class Tree {
 public:
  virtual ~Tree() = default;
  virtual Status run(const Step& step) = 0;
  virtual Result<NodePtr> found() = 0;
  virtual Result<std::uint64_t> size_of(const std::string& path) = 0;  // as stat gives it
  virtual bool sizes_are_known_at_once() = 0;
};

class VolumeTree final : public Tree {
 public:
  explicit VolumeTree(std::unique_ptr<Volume> volume) : mounted_(std::move(volume)) {}
  Status run(const Step& step) override { return mounted_.run(step); }
  Result<NodePtr> found() override { return mounted_.found(); }
  Result<std::uint64_t> size_of(const std::string& path) override {
    std::uint64_t node = InodeTable::kRootId;
    std::uint64_t size = 0;
    for (const std::string& name : Model::split(path)) {
      ECFS_LET(const Entry entry, mounted_.volume().lookup(node, name));
      if (node != InodeTable::kRootId) mounted_.volume().forget(node, 1);
      node = entry.nodeid;
      size = static_cast<std::uint64_t>(entry.attr.st_size);
    }
    mounted_.volume().forget(node, 1);
    return size;
  }
  bool sizes_are_known_at_once() override { return true; }

 private:
  Mounted mounted_;
};

class MountTree final : public Tree {
 public:
  MountTree(stdfs::path top, bool sizes_are_known) : top_(std::move(top)), sizes_are_known_(sizes_are_known) {}

  Status run(const Step& step) override {
    using What = Step::What;
    const std::string a = top_ / step.a;
    const std::string b = top_ / step.b;
    int done = -1;
    switch (step.what) {
      case What::kCreate: return write(step, O_CREAT | O_EXCL);
      case What::kWrite: return write(step, 0);
      case What::kTruncate: done = ::truncate(a.c_str(), static_cast<off_t>(step.offset)); break;
      case What::kMkdir: done = ::mkdir(a.c_str(), 0755); break;
      case What::kSymlink: done = ::symlink(step.b.c_str(), a.c_str()); break;
      case What::kLink: done = ::link(a.c_str(), b.c_str()); break;
      case What::kUnlink: done = ::unlink(a.c_str()); break;
      case What::kRmdir: done = ::rmdir(a.c_str()); break;
      case What::kRename: done = ::rename(a.c_str(), b.c_str()); break;
      default: return Error{Code::kUnsupported, ENOTSUP, "no such step"};
    }
    return done == 0 ? Status() : Status(failed(step.a));
  }

  Result<NodePtr> found() override {
    auto root = std::make_shared<Node>();
    root->type = S_IFDIR;
    std::map<ino_t, NodePtr> known;
    ECFS_TRY(fill("", *root, known));
    return root;
  }

  Result<std::uint64_t> size_of(const std::string& path) override {
    ECFS_LET(const struct stat st, look(path));
    return static_cast<std::uint64_t>(st.st_size);
  }
  bool sizes_are_known_at_once() override { return sizes_are_known_; }

 private:
  static Error failed(const std::string& path) { return Error{Code::kIo, errno, path + ": " + std::strerror(errno)}; }
  [[nodiscard]] Result<struct stat> look(const std::string& path) const {
    struct stat st {};
    if (::lstat((top_ / path).c_str(), &st) != 0) return failed(path);
    return st;
  }
  Status write(const Step& step, int flags) const {
    const Fd fd(::open((top_ / step.a).c_str(), O_RDWR | O_CLOEXEC | flags, 0644));
    if (!fd) return failed(step.a);
    for (std::size_t at = 0; at < step.data.size();) {
      const ssize_t put =
          ::pwrite(fd.get(), step.data.data() + at, step.data.size() - at, static_cast<off_t>(step.offset + at));
      if (put <= 0) return failed(step.a);
      at += static_cast<std::size_t>(put);
    }
    return {};
  }
  Status fill(const std::string& dir, Node& node, std::map<ino_t, NodePtr>& known) {
    std::error_code error;
    for (const auto& entry : stdfs::directory_iterator(top_ / dir, error)) {
      const std::string name = entry.path().filename();
      const std::string path = dir.empty() ? name : dir + "/" + name;
      ECFS_LET(const struct stat st, look(path));
      NodePtr& child = known[st.st_ino];
      if (!child) {
        child = std::make_shared<Node>();
        child->type = st.st_mode & S_IFMT;
        if (S_ISDIR(st.st_mode)) ECFS_TRY(fill(path, *child, known));
        if (S_ISLNK(st.st_mode)) {
          ECFS_LET(child->target, target_of(path));
        } else if (S_ISREG(st.st_mode)) {
          ECFS_LET(child->data, bytes_of(path));
        }
      }
      node.entries[name] = known[st.st_ino];
    }
    if (error) return Error{Code::kIo, error.value(), dir + ": " + error.message()};
    return {};
  }
  [[nodiscard]] Result<std::string> target_of(const std::string& path) const {
    std::string target(8192, '\0');
    const ssize_t len = ::readlink((top_ / path).c_str(), target.data(), target.size());
    if (len < 0) return failed(path);
    target.resize(static_cast<std::size_t>(len));
    return target;
  }
  [[nodiscard]] Result<Bytes> bytes_of(const std::string& path) const {
    const Fd fd(::open((top_ / path).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return failed(path);
    Bytes bytes;
    for (;;) {
      const std::size_t at = bytes.size();
      bytes.resize(at + 65536);
      const ssize_t got = ::read(fd.get(), bytes.data() + at, 65536);
      if (got < 0) return failed(path);
      bytes.resize(at + static_cast<std::size_t>(got));
      if (got == 0) return bytes;
    }
  }

  stdfs::path top_;
  bool sizes_are_known_;
};

Status sizes_match(Tree& tree, const Model& want) {
  for (const std::string& path : want.all(0)) {
    const NodePtr node = want.find(path);
    if (node->type == S_IFDIR) continue;
    const std::size_t right = node->type == S_IFLNK ? node->target.size() : node->data.size();
    ECFS_LET(const std::uint64_t size, tree.size_of(path));
    if (size != right) {
      return Error{Code::kCorrupt, EIO,
                   path + ": the size is given as " + std::to_string(size) + ", not " + std::to_string(right)};
    }
  }
  return {};
}

// compare reads everything, and gives what is printed of it.
Result<std::string> compare(Tree& tree, const Model& want) {
  const auto different = [](std::string what) { return Error{Code::kCorrupt, EIO, std::move(what)}; };
  if (tree.sizes_are_known_at_once()) ECFS_TRY(sizes_match(tree, want));
  ECFS_LET(const NodePtr root, tree.found());
  ECFS_TRY(sizes_match(tree, want));
  std::map<const Node*, const Node*> same;
  if (std::string text = names_differ(*root, *want.root(), "", same); !text.empty()) return different(std::move(text));
  const Model found(root);
  std::string text;
  std::map<const Node*, std::string> first;
  std::uint64_t bytes = 0;
  std::size_t files = 0;
  std::size_t links = 0;
  for (const std::string& path : found.all(0)) {
    const NodePtr node = found.find(path);
    text += path + '\0' + std::to_string(node->type) + '\0' + node->target + '\0';
    if (node->type == S_IFLNK) ++links;
    if (node->type != S_IFREG) continue;
    ++files;
    bytes += node->data.size();
    const NodePtr right = want.find(path);
    if (node->unreadable || !node->bad_blocks.empty()) return different(path + ": cannot be read");
    if (node->data != right->data) {
      const auto at = std::mismatch(node->data.begin(), node->data.end(), right->data.begin(), right->data.end());
      return different(path + ": the contents differ from byte " + std::to_string(at.first - node->data.begin()) +
                       " on; " + std::to_string(node->data.size()) + " bytes, wanted " +
                       std::to_string(right->data.size()));
    }
    text += first.emplace(node.get(), path).first->second + '\0' + to_hex(need(wrap::sha256({node->data}))) + '\0';
  }
  return std::to_string(files) + " " + std::to_string(bytes) + " " + std::to_string(links) + " " +
         to_hex(need(wrap::sha256({as_bytes(text)}))).substr(0, 16);
}

Status apply(Model& model, Tree* tree, const std::vector<Step>& steps) {
  for (const Step& step : steps) {
    const auto with_text = [&](const std::string& why) { return Error{Code::kIo, EIO, step.text() + ": " + why}; };
    if (const int error = model.apply(step); error != 0) return with_text("not possible here");
    if (tree == nullptr) continue;
    if (const Status done = tree->run(step); !done) return with_text(done.error().what);
  }
  return {};
}

// Nothing of what a kernel or a Volume left may look damaged, or like a leftover, to `ecfs fsck`.
Status check_lower(const Fd& lower, const Format& format) {
  class First final : public CheckWatcher {
   public:
    std::string text;
    void found(const Finding& finding) override {
      if (text.empty()) text = "fsck finds: " + finding.lower + ": " + finding.what;
    }
    Status advanced(std::uint64_t, std::uint64_t) override { return {}; }
  } first;
  ECFS_TRY(check_tree(lower, format, CheckOptions(), first));
  return first.text.empty() ? Status() : Status(Error{Code::kCorrupt, EIO, std::move(first.text)});
}

Result<std::unique_ptr<Tree>> open_tree(const std::string& how, const std::string& path, const Variant& variant) {
  if (how == "mount") {
    return std::unique_ptr<Tree>(new MountTree(path, variant.options.place == EcryptfsPlace::kFile));
  }
  if (how != "volume") return Error{Code::kInvalid, EINVAL, "no way to a tree: " + how};
  const EcryptfsKeys keys = variant.keys();
  EcryptfsFormatOptions options = variant.options;
  options.signatures = {keys.all.front().signature};
  if (variant.encrypted_names()) options.name_signature = keys.all.back().signature;
  ECFS_LET(const Secret packed, keys.pack());
  ECFS_LET(auto format, make_ecryptfs_format(options, packed));
  Fd lower(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lower) return Error{Code::kIo, errno, path + ": " + std::strerror(errno)};
  ECFS_TRY(check_lower(lower, *format));
  ECFS_LET(auto volume, Volume::open(std::move(lower), std::move(format), VolumeOptions()));
  return std::unique_ptr<Tree>(new VolumeTree(std::move(volume)));
}

Status work(const std::vector<std::string>& args) {
  const std::vector<Variant> all = all_variants();
  const auto variant = std::find_if(all.begin(), all.end(), [&](const Variant& v) { return v.name == args[2]; });
  if (variant == all.end()) return Error{Code::kInvalid, EINVAL, "no such variant: " + args[2]};
  ECFS_LET(const std::vector<Step> past, steps_of(*variant, args[3]));
  ECFS_LET(const std::vector<Step> now, steps_of(*variant, args[4]));
  Model model;
  ECFS_TRY(apply(model, nullptr, past));
  ECFS_LET(std::unique_ptr<Tree> tree, open_tree(args[0], args[1], *variant));
  ECFS_LET(const std::string before, compare(*tree, model));
  std::printf("%s\n", before.c_str());
  if (now.empty()) return {};
  ECFS_TRY(apply(model, tree.get(), now));
  ECFS_LET(std::string after, compare(*tree, model));
  if (args[0] == "volume") {  // again, from below; for a mount the caller makes another one
    tree.reset();
    ECFS_LET(tree, open_tree(args[0], args[1], *variant));
    ECFS_LET(after, compare(*tree, model));
  }
  std::printf("%s\n", after.c_str());
  return {};
}

}  // namespace
}  // namespace ecfs::fs::test

int main(int argc, char** argv) {
  using namespace ecfs::fs::test;  // NOLINT: a test program
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() == 1 && args[0] == "list") {
    ecfs::fs::load_botan();
    for (const Variant& v : all_variants()) {
      if (!available(v.options.cipher)) continue;
      std::printf("%s\t%s\t%s\t%s\n", v.name.c_str(), v.passphrase.c_str(), ecfs::to_hex(v.salt).c_str(),
                  mount_options(v).c_str());
    }
    return 0;
  }
  if (args.size() != 5) {
    std::fprintf(stderr, "usage: vm_ecryptfs_trees list | volume|mount DIRECTORY VARIANT PAST NOW\n");
    return 2;
  }
  const ecfs::Status done = work(args);
  if (done) return 0;
  std::fprintf(stderr, "%s: %s\n", args[2].c_str(), done.error().what.c_str());
  return 1;
}
