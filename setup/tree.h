// A tree of files as it is read and made when files are moved: a directory of the machine, or a volume of either format
// without a mount. Symbolic links are never followed. One thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fs/volume.h"
#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::setup {

using Attributes = std::map<std::string, Bytes>;

// OpenFile is the contents of one open regular file. What was written may be lost unless close() succeeds.
class OpenFile {
 public:
  virtual ~OpenFile() = default;
  virtual Result<std::uint64_t> size() = 0;
  // read gives the bytes read: fewer than asked only at the end.
  virtual Result<std::size_t> read(std::uint64_t offset, MutableByteView out) = 0;
  virtual Status write(std::uint64_t offset, ByteView bytes) = 0;
  virtual Status resize(std::uint64_t size) = 0;
  // next_data and next_hole give offsets at or behind `offset`; kNotFound with ENXIO: there is no more data.
  virtual Result<std::uint64_t> next_data(std::uint64_t offset) = 0;
  virtual Result<std::uint64_t> next_hole(std::uint64_t offset) = 0;
  virtual Status set_times(const struct stat& like) = 0;
  virtual Status sync() = 0;
  // forget_cached has the kernel drop what it keeps of the stored file, so that reading it asks the disk.
  virtual Status forget_cached() = 0;
  virtual Status close() = 0;
};

class Node;
using NodePtr = std::unique_ptr<Node>;

// Node is one entry of a tree: what has a name in a directory, or the root.
class Node {
 public:
  virtual ~Node() = default;
  virtual Result<struct stat> stat() = 0;
  virtual Result<std::string> target() = 0;  // of a symbolic link
  // attributes gives those that go with a file: the user's and ACLs, as root also capabilities and trusted ones. What
  // else there is (labels) is the machine's.
  virtual Result<Attributes> attributes() = 0;
  virtual Result<std::unique_ptr<OpenFile>> open(bool for_writing) = 0;

  // Of a directory.
  virtual Result<std::vector<std::string>> names() = 0;                // without "." and "..", sorted
  virtual Result<NodePtr> child(const std::string& name) = 0;          // kNotFound
  virtual Status remove(const std::string& name, bool directory) = 0;  // a directory has to be empty
  // make makes an entry of the type of `like`, open to nobody else, with its target or device number.
  virtual Result<NodePtr> make(const std::string& name, const struct stat& like, const std::string& target) = 0;
  virtual Status link(Node& node, const std::string& name) = 0;
  // rename: EEXIST if the new name is taken.
  virtual Status rename(const std::string& name, const std::string& new_name) = 0;
  virtual Status sync() = 0;  // the names in it

  virtual Status set_owner(uid_t uid, gid_t gid) = 0;
  virtual Status set_mode(mode_t mode) = 0;
  virtual Status set_times(const struct stat& like) = 0;
  virtual Status set_attribute(const std::string& name, ByteView value) = 0;
  virtual Status remove_attribute(const std::string& name) = 0;
};

// directory_tree is the tree below an open directory. A node of it has a descriptor.
Result<NodePtr> directory_tree(int dir);
// volume_tree is that of a volume, which outlives its nodes.
Result<NodePtr> volume_tree(fs::Volume& volume);

// find_path goes down a path of names from the root of a tree.
Result<NodePtr> find_path(Node& root, const std::string& path);

// wanted_attribute says whether Node::attributes() tells of an attribute.
bool wanted_attribute(std::string_view name);

}  // namespace ecfs::setup
