// The table of inodes that the kernel (or an open handle, or a child in the table) knows.
//
// A nodeid is a counter, never a pointer, and never used twice in one mount. One lower inode has one nodeid however
// many names it has. No descriptor is kept for it: it is reached through a known link, its parent and its lower name
// there. Memory: at most 200 bytes an inode, indexes included, and the name; a directory 120 more.
//
// References: the kernel's lookups, handles, children (through `parent`) and InodeRefs in use all count in one number.
// At zero the inode leaves the table. Safe from any thread. Locks: a shard's is held for a few instructions, never over
// a system call and never while another lock of ours is taken, except that the shard of the key comes before that of
// the nodeid.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/lower/lower_dir.h"

namespace ecfs::fs {

struct OpenFile;  // fs/open_file.h
class InodeTable;
struct Inode;

// InodeRef is one reference to an inode, or none.
class InodeRef {
 public:
  InodeRef() noexcept = default;
  InodeRef(const InodeRef& other) noexcept;
  InodeRef(InodeRef&& other) noexcept : inode_(std::exchange(other.inode_, nullptr)) {}
  InodeRef& operator=(InodeRef other) noexcept {
    std::swap(inode_, other.inode_);
    return *this;
  }
  ~InodeRef();
  Inode* operator->() const noexcept { return inode_; }
  Inode& operator*() const noexcept { return *inode_; }
  Inode* get() const noexcept { return inode_; }
  explicit operator bool() const noexcept { return inode_ != nullptr; }

 private:
  friend class InodeTable;
  explicit InodeRef(Inode* counted) noexcept : inode_(counted) {}
  Inode* inode_ = nullptr;
};

// Link is one way to an inode: a name in a lower directory. No parent: the root, or no way is known.
struct Link {
  InodeRef parent;
  std::unique_ptr<char[]> name;
  Link() noexcept = default;
  Link(InodeRef p, std::string_view n);
  [[nodiscard]] bool is(const Inode* in, std::string_view n) const noexcept {
    return parent.get() == in && name != nullptr && n == name.get();
  }
};

using DirIdBytes = std::array<std::uint8_t, 16>;

// DirState is what a directory has besides. Its mutex is the directory's lock: it guards the names in the lower
// directory and what they mean; everything else is guarded by Inode::mutex.
struct DirState {
  std::shared_mutex lock;
  DirIdBytes derived{};                // what the directory's place gives
  DirIdBytes id{};                     // in use, once `loaded`
  bool loaded = false;                 // it was looked for a stored id
  bool stored = false;                 // `id` is the stored one
  std::atomic<bool> names_fit{false};  // new entries may be made: a name here decodes, or there is none
};

// OtherWays to an inode, which few have.
struct OtherWays {
  std::vector<Link> links;  // more names, of a file that has several: the kernel may know them all
  // Of one that is (being) removed: no name leads to it. A regular file mostly has its OpenFile instead.
  std::shared_ptr<const Fd> fd;
};

// NewLink is how an inode that is new to the table is reached.
struct NewLink {
  InodeRef parent;
  std::string_view name;  // lower name in `parent`
  DirIdBytes derived{};   // of a directory
  bool read_only = false;
};

struct Inode {
  const std::uint64_t id;
  const InodeKey key;
  InodeTable& table;

  mutable std::mutex mutex;  // guards what follows, up to `dir`; after a directory's lock, before a shard's
  Link link;                 // the one noted last
  std::unique_ptr<OtherWays> others;
  std::shared_ptr<OpenFile> open;       // while a handle is open
  std::uint64_t kernel_size = 0;        // size that the kernel holds for this nodeid (writeback cache), while not open
  std::uint64_t version = 0;            // of the lower file at the last close, 0: none
  const std::unique_ptr<DirState> dir;  // of a directory

  const std::uint16_t type;                     // S_IFMT bits
  std::atomic<bool> stale{false};               // another nodeid has its place: to be looked up again
  mutable std::atomic<bool> complained{false};  // the log has a line about its damage
  const bool read_only;                         // shown as a conflict, or below one
  // Of security.capability, which the kernel asks for ahead of writes. kSet stays: who looked before may tell later.
  enum class Caps : std::uint8_t { kUnknown, kNone, kSet };
  std::atomic<Caps> caps{Caps::kUnknown};
  void has_no_caps() noexcept {
    Caps unknown = Caps::kUnknown;
    caps.compare_exchange_strong(unknown, Caps::kNone);
  }

  // Permission bits with suid or sgid among them, else 0: known of a file that was opened. Lower writes by an
  // unprivileged daemon take those two off, which is not for them to do; until they are back, this is the mode. Changed
  // with the OpenFile's `upgrade` alone.
  std::atomic<std::uint16_t> set_id_mode{0};
  void note_mode(mode_t mode) noexcept {
    set_id_mode = static_cast<std::uint16_t>((mode & (S_ISUID | S_ISGID)) != 0 ? mode & 07777U : 0);
  }

  // Under `mutex`: the descriptor that stands for the name, and a change of it. Without one: null.
  [[nodiscard]] std::shared_ptr<const Fd> own_fd() const noexcept { return others ? others->fd : nullptr; }
  void swap_own_fd(std::shared_ptr<const Fd>& fd) {
    if (!others) others = std::make_unique<OtherWays>();
    others->fd.swap(fd);
  }

  // Links, under `mutex`. note_link makes it the first; of other names of a file it keeps kMaxOtherLinks. drop_link
  // says whether it was known; `dropped` takes references that may be the last ones, to be ended outside the lock.
  static constexpr std::size_t kMaxOtherLinks = 32;
  [[nodiscard]] bool has_link(const Inode* in, std::string_view lower_name) const noexcept;
  void note_link(Link fresh, std::vector<Link>& dropped);
  bool drop_link(const Inode* in, std::string_view lower_name, std::vector<Link>& dropped);

 private:
  friend class InodeTable;
  friend class InodeRef;
  Inode(std::uint64_t nodeid, const InodeKey& k, InodeTable& t, mode_t mode, const NewLink& link);
  bool in_key_index_ = false;  // guarded by the key's shard
  std::atomic<std::uint64_t> refs_{1};
  Inode* next_by_id_ = nullptr;
  Inode* next_by_key_ = nullptr;
};

class InodeTable {
 public:
  static constexpr std::uint64_t kRootId = 1;

  InodeTable();
  ~InodeTable();
  InodeTable(const InodeTable&) = delete;
  InodeTable& operator=(const InodeTable&) = delete;

  // make_root makes the inode kRootId; once.
  InodeRef make_root(const InodeKey& key, const DirIdBytes& id);

  // obtain finds the inode with `key` and type, or makes it with the given link. `.second`: it was made.
  std::pair<InodeRef, bool> obtain(const InodeKey& key, mode_t mode, const NewLink& link);
  [[nodiscard]] InodeRef find(std::uint64_t id) const;
  [[nodiscard]] InodeRef find(const InodeKey& key) const;

  // retire makes `inode` stale: its key is free for a new nodeid from now on.
  void retire(Inode& inode);

  // add_lookup counts one more lookup of the kernel; forget takes `num` of them back.
  void add_lookup(const InodeRef& inode) noexcept;
  void forget(std::uint64_t id, std::uint64_t num);

  // take_most gives the most inodes there were since it was last called, about.
  std::size_t take_most() noexcept { return std::max(most_.exchange(size()), size()); }
  [[nodiscard]] std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }

 private:
  friend class InodeRef;
  static constexpr std::size_t kShards = 64;
  struct alignas(64) Shard {
    mutable std::mutex mutex;
    std::vector<Inode*> buckets;  // a power of two of chains
    std::size_t count = 0;
  };

  static std::size_t hash(std::uint64_t id) noexcept;
  static std::size_t hash(const InodeKey& key) noexcept;
  Inode* find_by_key(const Shard& s, const InodeKey& key) const noexcept;
  template <Inode* Inode::*Next, auto Of>
  void insert(Shard& s, Inode* inode);
  template <Inode* Inode::*Next, auto Of>
  static void remove(Shard& s, Inode* inode) noexcept;
  void unref(Inode* inode, std::uint64_t num = 1) noexcept;

  std::atomic<std::uint64_t> next_id_{kRootId};
  std::atomic<std::size_t> size_{0};
  std::atomic<std::size_t> most_{0};
  std::vector<Shard> by_id_;
  std::vector<Shard> by_key_;
};

}  // namespace ecfs::fs
