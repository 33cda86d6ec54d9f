// Volume is the mounted filesystem without FUSE: inodes, plain names and plain offsets above; a lower directory and a
// Format below. It knows no format and no libfuse.
//
// Every function is safe from any thread. Errors carry the errno to answer with (errno_of). Inodes are named by nodeid:
// 1 is the root; an Entry that a function returns counts one lookup, given back by forget. ESTALE means "look the name
// up again": the kernel does that by itself for a path.
//
// Locks and the life of inodes and descriptors: fs/DESIGN.md.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "fs/format/format.h"
#include "fs/lower/caller.h"
#include "fs/lower/inode_table.h"
#include "fs/lower/lower_dir.h"
#include "fs/open_file.h"

namespace ecfs::fs {

struct VolumeOptions {
  bool read_only = false;
  bool show_conflicts = false;
  bool shared = false;           // the lower tree is changed behind the mount, and the kernel caches no sizes
  bool no_atime = false;         // reading changes no access time of lower files and directories, where that can be had
  bool log_plain_names = false;  // log lines go to a terminal, not to a file: they may hold plain names
};

struct Entry {
  std::uint64_t nodeid = 0;
  std::uint64_t generation = 0;
  struct stat attr {};
};

// What setattr changes. A time of UTIME_NOW (in tv_nsec) is the present.
struct AttrChange {
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<timespec> atime;
  std::optional<timespec> mtime;
  uid_t caller = 0;  // who asks: suid and sgid go when another than root changes the size
};

// FileHandle is one open file, DirHandle one open directory. Given back by release and releasedir.
struct FileHandle {
  InodeRef inode;
  std::shared_ptr<OpenFile> open;
  bool writer = false;
};
struct DirHandle {
  InodeRef inode;
  std::mutex mutex;  // guards the reader
  DirReader reader;
  explicit DirHandle(InodeRef i, DirReader r) noexcept : inode(std::move(i)), reader(std::move(r)) {}
};

struct OpenedFile {
  std::unique_ptr<FileHandle> handle;
  bool keep_cache = false;  // the lower file is what it was at the last close
};

// A listed entry. `entry` is set for readdirplus, but for "." and "..".
struct DirEntry {
  std::string_view name;
  ino_t ino = 0;
  mode_t type = 0;
  off_t next_pos = 0;
  const Entry* entry = nullptr;
};

class Volume {  // NOLINT(clang-analyzer-optin.performance.Padding): in the order in which it is explained
 public:
  // open serves the lower directory `root` (O_PATH or readable). Takes the volume's lock there (flock on the
  // directory; shared if read-only): kBusy if another process serves it.
  static Result<std::unique_ptr<Volume>> open(Fd root, std::unique_ptr<Format> format, const VolumeOptions& options);
  // start begins what is done in the background. Call once, before anything below: till then there is no thread, and
  // the process may still give up rights that threads would keep.
  void start();
  // All handles are closed by then; what is still open is settled.
  ~Volume();
  // set_cache_fill says how the kernel can be given the contents of a small file while it opens it, which saves it the
  // read: `fill` puts all of a file's bytes into its cache, or gives false. Before anything else is called.
  using CacheFill = std::function<bool(std::uint64_t nodeid, ByteView contents)>;
  void set_cache_fill(CacheFill fill) { cache_fill_ = std::move(fill); }
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;

  // Inodes.
  Result<Entry> lookup(std::uint64_t parent, std::string_view name);
  void forget(std::uint64_t nodeid, std::uint64_t num_lookups);
  Result<struct stat> getattr(std::uint64_t nodeid);
  Result<struct stat> setattr(std::uint64_t nodeid, const AttrChange& change);
  Result<std::string> readlink(std::uint64_t nodeid);
  Result<struct statvfs> statfs();

  // Names.
  Result<Entry> mknod(std::uint64_t parent, std::string_view name, mode_t mode, dev_t rdev, const Caller& caller);
  Result<Entry> mkdir(std::uint64_t parent, std::string_view name, mode_t mode, const Caller& caller);
  Result<Entry> symlink(std::uint64_t parent, std::string_view name, std::string_view target, const Caller& caller);
  Result<Entry> link(std::uint64_t nodeid, std::uint64_t new_parent, std::string_view new_name);
  Status unlink(std::uint64_t parent, std::string_view name);
  Status rmdir(std::uint64_t parent, std::string_view name);
  // flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE; others EINVAL.
  Status rename(std::uint64_t parent, std::string_view name, std::uint64_t new_parent, std::string_view new_name,
                unsigned flags);

  // Files. `flags` as for open(2).
  Result<OpenedFile> open_file(std::uint64_t nodeid, int flags, const Caller& caller);
  struct Created {
    Entry entry;
    OpenedFile file;
  };
  Result<Created> create(std::uint64_t parent, std::string_view name, mode_t mode, int flags, const Caller& caller);
  Result<std::size_t> read(FileHandle& file, std::uint64_t offset, MutableByteView out);
  // write gives what was written: less than all if the disk is full after some of it, with `all_or_error` then the
  // error (the kernel's writeback takes no short counts).
  Result<std::size_t> write(FileHandle& file, std::uint64_t offset, ByteView data, bool all_or_error);
  // drop_privileges takes suid and sgid away from a file that somebody other than root wrote to.
  static void drop_privileges(FileHandle& file, uid_t caller);
  Status flush(FileHandle& file);
  Status fsync(FileHandle& file, bool data_only);
  void release(std::unique_ptr<FileHandle> file);
  Status fallocate(FileHandle& file, int mode, std::uint64_t offset, std::uint64_t len);
  Result<std::uint64_t> seek(FileHandle& file, std::uint64_t offset, int whence);  // SEEK_DATA, SEEK_HOLE
  // copy_range decrypts and encrypts inside the daemon; gives the number of bytes copied, at most 16 MiB a call.
  Result<std::size_t> copy_range(FileHandle& from, std::uint64_t from_offset, FileHandle& to, std::uint64_t to_offset,
                                 std::size_t len);

  // Directories. readdir lists from `position` (0: the beginning; else some next_pos) until `take` gives false, which
  // refuses that entry, or the end. With `plus` each entry counts one lookup unless refused.
  Result<std::unique_ptr<DirHandle>> opendir(std::uint64_t nodeid);
  Status readdir(DirHandle& dir, off_t position, bool plus, const std::function<bool(const DirEntry&)>& take);
  Status fsyncdir(DirHandle& dir, bool data_only);

  // Extended attributes. An empty `out` asks for the size only; too small a one is ERANGE. Both give the size.
  Result<std::size_t> getxattr(std::uint64_t nodeid, std::string_view name, MutableByteView out);
  Result<std::size_t> listxattr(std::uint64_t nodeid, MutableByteView out);
  Status setxattr(std::uint64_t nodeid, std::string_view name, ByteView value, int flags);
  Status removexattr(std::uint64_t nodeid, std::string_view name);

  // drop_keys settles what is put off, of every open file, and forgets all keys: whatever needs one is kNoKey (ENOKEY)
  // until restore_keys, which takes the volume key, verified by the caller. `open` are all handles that are open. No
  // other call may be under way. An error: nothing was forgotten.
  Status drop_keys(const std::vector<FileHandle*>& open);
  Status restore_keys(const Secret& volume_key) { return format_->restore_keys(volume_key); }

  // lower_has_acls says whether the lower filesystem keeps POSIX ACLs.
  [[nodiscard]] bool lower_has_acls() const;
  // Numbers for tests and `ecfs status`.
  [[nodiscard]] std::size_t known_inodes() const noexcept { return table_.size(); }
  [[nodiscard]] std::uint64_t foreign_names() const noexcept { return foreign_names_.load(); }

 private:
  // A directory with a descriptor to reach its entries by. Resolved before any directory is locked.
  struct Dir {
    InodeRef inode;
    std::shared_ptr<const Fd> fd;
    [[nodiscard]] int get() const noexcept { return fd->get(); }
  };
  struct Place {  // one name in a directory and what has it now
    DirId dir_id{};
    LowerName lower;
    std::optional<LowerStat> now;
    Dir node;  // if that is a directory
  };

  Volume(Fd root, Fd lock, std::unique_ptr<Format> format, const VolumeOptions& options);

  // Reaching lower inodes (volume.cc).
  Result<InodeRef> find(std::uint64_t nodeid) const;
  Result<Fd> open_lower(int dirfd, const char* name, int flags, mode_t mode = 0);
  Result<std::shared_ptr<const Fd>> dir_fd(const InodeRef& dir, bool moves_held = false);
  Result<DirReader> list_lower(const Dir& dir);
  Result<Dir> dir_at(std::uint64_t nodeid);
  Result<Dir> dir_of(const InodeRef& inode);
  template <class F>
  auto at_link(const Inode& inode, F&& use) -> decltype(use(0, ""));
  Result<LowerStat> look(const InodeRef& inode);
  template <class F>
  auto on_fd(const InodeRef& inode, F&& use) -> decltype(use(0));
  Result<Fd> path_fd(const InodeRef& inode);
  static Status change_attributes(int fd, const AttrChange& change);
  template <class F>
  auto on_xattrs(const InodeRef& inode, F&& use) -> decltype(use(""));
  Error complain(const Inode& inode, Error error, bool opening = false);
  std::string describe(const Inode& inode) const;

  // Attributes.
  Result<struct stat> attr_of(const InodeRef& inode, const LowerStat& lower);
  // stored_target reads a symbolic link below. `moves_` is not held alone by this thread.
  Result<std::string> stored_target(const Inode& inode);
  // stored_size looks into a file whose format has the size in it. No key is needed.
  std::optional<std::uint64_t> stored_size(const InodeRef& inode);
  std::optional<std::uint64_t> hinted_size(const LowerStat& lower) const;
  void hint_size(const LowerStat& lower, std::uint64_t plain_size);
  ino_t shown_ino(dev_t dev, ino_t ino) const noexcept;

  // Names (volume_names.cc). The directory's lock is held by the caller where a Dir is passed.
  Result<DirId> id_of(const Dir& dir);
  void recheck_id(const Dir& dir);
  Result<Entry> entered(const Dir& dir, const DirId& id, std::string_view plain, const std::string& lower_name,
                        const LowerStat& lower, bool read_only = false);
  Result<InodeRef> inode_of(const Dir& dir, const DirId& id, std::string_view plain, const std::string& lower_name,
                            const LowerStat& lower, bool read_only = false);
  Status check_new_names(const Dir& dir, const DirId& id);
  // A long name's side file; nothing to do for a short one.
  [[nodiscard]] bool has_side_file(const Dir& dir, const LowerName& name) const;
  Status ensure_side_file(const Dir& dir, const LowerName& name);
  Status sync_names(const Dir& dir);
  void remove_side_file(const Dir& dir, const LowerName& name);
  void remove_spare_side_file(const Dir& dir, const LowerName& name);
  Result<LowerName> place_new(const Dir& dir, const DirId& id, std::string_view plain);
  struct Conflict {
    std::string lower;
    std::string plain;
  };
  Result<Conflict> find_conflict(const Dir& dir, const DirId& id, std::string_view shown);
  Result<std::string> decode(const Dir& dir, const DirId& id, std::string_view lower_name);
  Result<Place> place_of(const Dir& dir, std::string_view plain);
  Status rename_locked(const Dir& from, const Dir& to, const Place& source, const Place& target,
                       std::string_view new_name, std::string_view old_name, unsigned flags);
  Status keep_id(const Dir& dir);
  Status clear_leftovers(const Dir& dir);
  Dir outliving(const Dir& dir, const LowerName& name, const LowerStat& was);
  void removed(const LowerStat& was, const Dir& parent, const LowerName& lower_name);
  Status refuse_conflict(const Dir& dir, const DirId& id, std::string_view plain);
  void note_link(const InodeRef& inode, const InodeRef& parent, const std::string& lower_name, const DirId& derived);
  void move_link(const InodeRef& inode, const Dir& from, const LowerName& was, const Dir& to, const LowerName& is,
                 const DirId& derived);
  void note_foreign(std::string_view lower_name);
  Status writable(const Inode& inode) const;
  // make_node lets `make` (given the directory's descriptor and the lower name) make a new entry as the caller.
  Result<Entry> make_node(std::uint64_t parent, std::string_view name, const Caller& caller,
                          const std::function<Status(int, const char*)>& make);

  // Open files (volume_files.cc).
  enum class Want { kRead, kWrite, kTruncate };  // kTruncate: to 0, which needs no valid header
  // acquire counts one more handle. `keep_cache` is asked for by the kernel's opens alone.
  Result<std::shared_ptr<OpenFile>> acquire(const InodeRef& inode, Want want, bool* keep_cache = nullptr);
  Result<std::shared_ptr<OpenFile>> acquire_locked(const InodeRef& inode, Want want, bool* keep_cache);
  void await_last_close(const Inode& inode);
  struct LowerOpened {
    Fd fd;
    LowerStat st;
    bool writable = false;
  };
  enum class Access { kLook, kRead, kWrite };  // kLook: never for writing, and the access time stays if it can
  Result<LowerOpened> open_regular(const InodeRef& inode, Access how);
  bool fill_cache(const Inode& inode, Contents& contents) const;
  void let_go(const InodeRef& inode, const std::shared_ptr<OpenFile>& open);
  Status settle(OpenFile& open);
  template <class F>
  Status keeping_mtime(OpenFile& open, F&& work);
  Result<Fd> make_with_header(int dirfd, const char* lower, mode_t mode);
  template <class F>
  Status changing_mode(const InodeRef& inode, F&& work);
  template <class F>
  Status changing_times(const InodeRef& inode, F&& work);
  static void put_mode_back(OpenFile& open) noexcept;
  void note_write(const InodeRef& inode, OpenFile& open);
  template <class F>
  Status changing(OpenFile& open, F&& work);
  static void take_privileges(OpenFile& open, uid_t caller);
  Status truncate(const InodeRef& inode, std::uint64_t size, uid_t caller);
  void settle_loop();

  const std::unique_ptr<Format> format_;
  const VolumeOptions options_;
  const Fd lock_;
  const std::shared_ptr<const Fd> root_fd_;
  CacheFill cache_fill_;
  dev_t root_dev_ = 0;
  std::uint64_t generation_ = 0;
  InodeTable table_;
  InodeRef root_;
  DirFds dir_fds_;
  std::shared_mutex moves_;  // held alone while a rename is made below and noted in the table
  // lost is gone(), for what is at none of its names. The kernel then looks the name up and asks once more; who is too
  // late a second time is told ESTALE by it, as no other filesystem of this machine would. So for a second from then on
  // what loses its last name can be reached without (outliving).
  Error lost() noexcept;
  [[nodiscard]] bool lost_lately() const noexcept;
  std::atomic<std::chrono::steady_clock::time_point> lost_at_{};
  std::atomic<std::uint64_t> foreign_names_{0};

  // Guards the coming and going of the OpenFile of an inode and its count of handles. After a directory's lock, before
  // `moves_` and Inode::mutex; never two at once.
  std::array<std::mutex, 256> opening_;
  std::mutex& opening(const Inode& inode) noexcept { return opening_[inode.id % opening_.size()]; }

  // Plain sizes that arithmetic does not give, for the lower file as it was then. Noted and dropped under `opening_`,
  // so that none is of a state before a change within the same tick of the clock.
  struct SizeHint {
    off_t lower_size = 0;
    timespec changed{};
    std::uint64_t plain_size = 0;
  };
  mutable std::mutex hints_mutex_;
  std::atomic<std::size_t> num_hints_{0};
  struct HashKey {
    std::size_t operator()(const InodeKey& key) const noexcept {
      return static_cast<std::size_t>((key.ino ^ (key.dev << 40)) * 0x9e3779b97f4a7c15U);
    }
  };
  std::unordered_map<InodeKey, SizeHint, HashKey> hints_;

  // Files written since they were last settled.
  std::mutex unsettled_mutex_;
  std::condition_variable unsettled_wake_;
  std::vector<InodeRef> unsettled_;
  std::mutex settling_;  // held while the thread settles; before Volume::opening_
  bool stopping_ = false;
  std::thread settler_;
};

}  // namespace ecfs::fs
