// The names in directories: finding, listing, making, removing and moving them.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "fs/lower_names.h"
#include "fs/volume.h"
#include "fs/volume_internal.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"

namespace ecfs::fs {
namespace {

constexpr std::string_view kConflictMark = ".ecfs-conflict-";

bool is_dots(std::string_view name) noexcept { return name == "." || name == ".."; }

// DirLocks holds the locks of several directories alone, taken in the order of their nodeids.
class DirLocks {
 public:
  explicit DirLocks(std::vector<Inode*> dirs) {
    std::sort(dirs.begin(), dirs.end(), [](const Inode* a, const Inode* b) { return a->id < b->id; });
    dirs.erase(std::unique(dirs.begin(), dirs.end()), dirs.end());
    for (Inode* d : dirs) locks_.emplace_back(d->dir->lock);
  }

 private:
  std::vector<std::unique_lock<std::shared_mutex>> locks_;
};

// OwnDescriptor has what is to lose its last name reached by a descriptor from before that moment, so that who has it
// (an open directory or FIFO, a working directory) gets an answer at any time. Ended without `keep`, the name still
// counts. The lock of the directory that holds the name is held, and a directory's own. Given no inode it does nothing.
class OwnDescriptor {
 public:
  OwnDescriptor(InodeRef inode, std::shared_ptr<const Fd> fd) : inode_(std::move(inode)) { set(std::move(fd)); }
  OwnDescriptor(const OwnDescriptor&) = delete;
  OwnDescriptor& operator=(const OwnDescriptor&) = delete;
  ~OwnDescriptor() {
    if (!kept_) set(nullptr);
  }
  void keep() noexcept { kept_ = true; }

 private:
  void set(std::shared_ptr<const Fd> fd) {
    if (!inode_) return;
    const std::lock_guard lock(inode_->mutex);
    inode_->swap_own_fd(fd);
  }

  InodeRef inode_;
  bool kept_ = false;
};

}  // namespace

// ---- ids

Result<DirId> Volume::id_of(const Dir& dir) {
  Error failed;
  {
    const std::lock_guard lock(dir.inode->mutex);
    DirState& state = *dir.inode->dir;
    if (state.loaded) return state.id;
    state.id = state.derived;
    state.stored = false;
    const Result<FoundDirId> found = find_dir_id(*format_, dir.get(), state.derived);
    if (found) {
      state.id = found->id;
      state.stored = found->stored;
      state.loaded = true;
      return state.id;
    }
    failed = found.error();
  }
  // The derived id is never taken in its place: names would be lost under it.
  return complain(*dir.inode, with_context(std::move(failed), "the directory's id"));
}

void Volume::recheck_id(const Dir& dir) {
  const std::lock_guard lock(dir.inode->mutex);
  dir.inode->dir->loaded = false;
}

Status Volume::check_new_names(const Dir& dir, const DirId& id) {
  DirState& state = *dir.inode->dir;
  if (state.names_fit) return {};
  {
    const std::lock_guard lock(dir.inode->mutex);
    if (state.stored) return {};
  }
  ECFS_LET(const LowerStat st, stat_at(dir.get(), ""));
  const OwnerAccess access(dir.get(), st.st, S_IRUSR);
  Result<DirReader> reader = list_lower(dir);
  // Another's directory that may be written but not listed (a drop box) can only be trusted.
  if (!reader && errno_of(reader.error()) == EACCES) return {};
  if (!reader) return std::move(reader).error();
  bool any = false;
  for (;;) {
    ECFS_LET(const std::optional<RawEntry> raw, reader->peek());
    if (!raw) break;
    const LowerNameKind kind = format_->kind_of(raw->name);
    if (!is_dots(raw->name) && (kind == LowerNameKind::kName || kind == LowerNameKind::kLongName)) {
      if (decode(dir, id, raw->name)) {
        state.names_fit = true;
        return {};
      }
      any = true;
    }
    reader->pop();
  }
  if (!any) {
    state.names_fit = true;
    return {};
  }
  recheck_id(dir);  // it may come yet
  return complain(*dir.inode, Error{Code::kCorrupt, EIO,
                                    "no name in this directory decodes: the file with its id is lost, or a sync has "
                                    "not brought it yet; nothing new is made in it"});
}

// keep_id stores the directory's id in it, so that it does not depend on its place any more. In the order of the
// format: file, its fsync, rename, fsync of the directory, its time put back.
Status Volume::keep_id(const Dir& dir) {
  const std::string file(format_->dir_id_file());
  if (file.empty()) return {};
  ECFS_LET(const DirId id, id_of(dir));
  {
    const std::lock_guard lock(dir.inode->mutex);
    if (dir.inode->dir->stored) return {};
  }
  ECFS_LET(const Bytes bytes, format_->store_dir_id(id));
  ECFS_LET(const LowerStat was, stat_at(dir.get(), ""));
  const OwnerAccess access(dir.get(), was.st, S_IRWXU);
  ECFS_TRY(write_new_at(dir.get(), file, bytes));
  {
    const std::lock_guard lock(dir.inode->mutex);
    dir.inode->dir->stored = true;
  }
  ECFS_LET(const Fd readable, open_lower(dir.get(), ".", O_RDONLY | O_DIRECTORY));
  ECFS_TRY(sync_directory(readable.get()));
  const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, was.st.st_mtim};
  (void)futimens(readable.get(), times.data());  // not ours: its time shows that something was made in it
  return {};
}

// ---- finding

void Volume::note_foreign(std::string_view lower_name) {
  if (foreign_names_.fetch_add(1) != 0) return;
  log_line(LOG_NOTICE, "the lower directory holds names that are not of this volume, the first is \"" +
                           printable(lower_name) + "\": they are hidden (mount option show-conflicts)");
}

Result<std::string> Volume::decode(const Dir& dir, const DirId& id, std::string_view lower_name) {
  return decode_entry(*format_, dir.get(), id, lower_name);
}

void Volume::note_link(const InodeRef& inode, const InodeRef& parent, const std::string& lower_name,
                       const DirId& derived) {
  if (inode.get() == root_.get()) return;
  std::vector<Link> dropped;  // a last reference may go with it, which takes locks
  Link fresh(parent, lower_name);
  const std::lock_guard lock(inode->mutex);
  inode->note_link(std::move(fresh), dropped);
  if (inode->dir && inode->dir->derived != derived) {
    inode->dir->derived = derived;
    if (!inode->dir->stored) inode->dir->loaded = false;
  }
}

void Volume::move_link(const InodeRef& inode, const Dir& from, const LowerName& was, const Dir& to, const LowerName& is,
                       const DirId& derived) {
  std::vector<Link> dropped;
  {
    const std::lock_guard lock(inode->mutex);
    inode->drop_link(from.inode.get(), was.entry, dropped);
  }
  note_link(inode, to.inode, is.entry, derived);
}

Result<InodeRef> Volume::inode_of(const Dir& dir, const DirId& id, std::string_view plain,
                                  const std::string& lower_name, const LowerStat& lower, bool read_only) {
  NewLink link{dir.inode, lower_name, {}, read_only || dir.inode->read_only};
  if (InodeRef known = table_.find(lower.key()); known && known->type == (lower.st.st_mode & S_IFMT)) {
    bool same = false;
    {
      const std::lock_guard lock(known->mutex);
      same = known->has_link(dir.inode.get(), lower_name);
    }
    if (!same) {
      if (known->dir) {
        ECFS_LET(link.derived, format_->child_id(id, plain));
      }
      note_link(known, dir.inode, lower_name, link.derived);
    }
    return known;
  }
  if (S_ISDIR(lower.st.st_mode)) {
    ECFS_LET(link.derived, format_->child_id(id, plain));
  }
  auto [inode, made] = table_.obtain(lower.key(), lower.st.st_mode, link);
  if (made && S_ISREG(lower.st.st_mode)) {
    Result<struct stat> st = attr_of(inode, lower);
    if (!st) return std::move(st).error();
    const std::lock_guard lock(inode->mutex);
    inode->kernel_size = static_cast<std::uint64_t>(st->st_size);
  }
  return inode;
}

Result<Entry> Volume::entered(const Dir& dir, const DirId& id, std::string_view plain, const std::string& lower_name,
                              const LowerStat& lower, bool read_only) {
  ECFS_LET(const InodeRef inode, inode_of(dir, id, plain, lower_name, lower, read_only));
  Entry entry;
  entry.nodeid = inode->id;
  entry.generation = generation_;
  ECFS_LET(entry.attr, attr_of(inode, lower));
  table_.add_lookup(inode);
  return entry;
}

Result<Entry> Volume::lookup(std::uint64_t parent, std::string_view name) {
  ECFS_LET(const Dir dir, dir_at(parent));
  std::shared_lock lock(dir.inode->dir->lock);
  ECFS_LET(const DirId id, id_of(dir));
  ECFS_LET(const LowerName lower, format_->encode_name(id, name));
  Result<LowerStat> found = stat_at(dir.get(), lower.entry.c_str());
  if (!found && options_.show_conflicts && errno_of(found.error()) == ENOENT) {
    ECFS_LET(const Conflict conflict, find_conflict(dir, id, name));
    ECFS_LET(const LowerStat st, stat_at(dir.get(), conflict.lower.c_str()));
    return entered(dir, id, conflict.plain, conflict.lower, st, true);
  }
  if (!found) return std::move(found).error();
  dir.inode->dir->names_fit = true;
  Result<Entry> entry = entered(dir, id, name, lower.entry, *found);
  if (entry && lower.side && !options_.read_only && !has_side_file(dir, lower)) {
    // Its entry is here and its side file is not: a listing would not show it. Written again, if that can be done.
    lock.unlock();
    const std::unique_lock alone(dir.inode->dir->lock);
    if (const Result<LowerStat> still = stat_at(dir.get(), lower.entry.c_str());
        still && still->key() == found->key()) {
      (void)ensure_side_file(dir, lower);
    }
  }
  return entry;
}

Result<Volume::Conflict> Volume::find_conflict(const Dir& dir, const DirId& id, std::string_view shown) {
  const Error none{Code::kNotFound, ENOENT, "no such name"};
  if (shown.find(kConflictMark) == std::string_view::npos) return none;
  ECFS_LET(DirReader reader, list_lower(dir));
  for (;;) {
    ECFS_LET(const std::optional<RawEntry> raw, reader.peek());
    if (!raw) return none;
    if (!is_dots(raw->name) && format_->kind_of(raw->name) == LowerNameKind::kForeign) {
      Result<Format::ConflictName> name = conflict_of(*format_, dir.get(), id, raw->name);
      if (name && name->shown == shown) return Conflict{std::string(raw->name), std::move(name->plain)};
    }
    reader.pop();
  }
}

Status Volume::refuse_conflict(const Dir& dir, const DirId& id, std::string_view plain) {
  if (!options_.show_conflicts || !find_conflict(dir, id, plain)) return {};
  return Error{Code::kDenied, EROFS, "a conflict's entry is read-only"};
}

// ---- listing

Result<std::unique_ptr<DirHandle>> Volume::opendir(std::uint64_t nodeid) {
  ECFS_LET(const Dir dir, dir_at(nodeid));
  if (options_.shared) recheck_id(dir);
  ECFS_LET(DirReader reader, list_lower(dir));
  return std::make_unique<DirHandle>(dir.inode, std::move(reader));
}

Status Volume::readdir(DirHandle& handle, off_t position, bool plus, const std::function<bool(const DirEntry&)>& take) {
  ECFS_LET(const Dir dir, dir_of(handle.inode));
  const std::shared_lock lock(handle.inode->dir->lock);
  const std::lock_guard reader_lock(handle.mutex);
  DirReader& reader = handle.reader;
  if (reader.position() != position) ECFS_TRY(reader.seek(position));
  // Its id, and the side files of long names, are files in it: they want the right to search, which a listing of names
  // does not.
  ECFS_LET(const LowerStat now, stat_at(reader.fd(), ""));
  const OwnerAccess access(reader.fd(), now.st, S_IXUSR);
  ECFS_LET(const DirId id, id_of(dir));
  for (;;) {
    ECFS_LET(const std::optional<RawEntry> raw, reader.peek());
    if (!raw) return {};
    std::string plain;
    std::string conflict;
    if (is_dots(raw->name)) {
      plain = raw->name;
    } else {
      const LowerNameKind kind = format_->kind_of(raw->name);
      if (kind == LowerNameKind::kName || kind == LowerNameKind::kLongName) {
        if (Result<std::string> name = decode(dir, id, raw->name)) plain = *std::move(name);
      }
      if (plain.empty() && kind != LowerNameKind::kOurs) {
        note_foreign(raw->name);
        if (options_.show_conflicts && kind == LowerNameKind::kForeign) {
          if (Result<Format::ConflictName> name = conflict_of(*format_, dir.get(), id, raw->name)) {
            plain = std::move(name->shown);
            conflict = std::move(name->plain);
          }
        }
      }
    }
    if (plain.empty()) {
      reader.pop();
      continue;
    }
    DirEntry out;
    out.name = plain;
    out.ino = shown_ino(handle.inode->key.dev, raw->ino);
    out.type = raw->type;
    out.next_pos = raw->next_pos;
    Entry entry;
    if (plus && !is_dots(plain)) {
      const std::string lower_name(raw->name);
      const Result<LowerStat> st = stat_at(reader.fd(), lower_name.c_str());
      if (!st && errno_of(st.error()) == ENOENT) {
        reader.pop();
        continue;
      }
      if (st) {
        Result<Entry> found = entered(dir, id, conflict.empty() ? plain : conflict, lower_name, *st, !conflict.empty());
        if (found) {
          entry = *found;
          out.entry = &entry;
          out.ino = entry.attr.st_ino;
          out.type = entry.attr.st_mode & S_IFMT;
        }
      }
    }
    if (!take(out)) {
      if (out.entry != nullptr) table_.forget(entry.nodeid, 1);
      return {};
    }
    reader.pop();
  }
}

Status Volume::fsyncdir(DirHandle& dir, bool data_only) {
  if ((data_only ? fdatasync(dir.reader.fd()) : ::fsync(dir.reader.fd())) != 0) {
    return system_error(errno, "sync a directory");
  }
  return {};
}

// ---- long names

bool Volume::has_side_file(const Dir& dir, const LowerName& name) const {
  return stat_at(dir.get(), side_name(name.entry).c_str()).has_value();
}

Status Volume::ensure_side_file(const Dir& dir, const LowerName& name) {
  if (!name.side || has_side_file(dir, name)) return {};
  ECFS_TRY(write_new_at(dir.get(), side_name(name.entry), *name.side));
  // Before the entry: where an fsync brings over no other name than that of its file (f2fs), a file synced later would
  // be there after a power cut and its side file not, or by its temporary name, and no listing would show the file.
  Status done = sync_names(dir);
  if (!done) remove_spare_side_file(dir, name);
  return done;
}

Status Volume::sync_names(const Dir& dir) {
  ECFS_LET(const LowerStat st, stat_at(dir.get(), ""));
  const OwnerAccess access(dir.get(), st.st, S_IRUSR);
  const Result<Fd> readable = open_lower(dir.get(), ".", O_RDONLY | O_DIRECTORY);
  // Another's directory that may be written but not read: it cannot be synced.
  if (!readable && errno_of(readable.error()) == EACCES) return {};
  if (!readable) return readable.error();
  return sync_directory(readable->get());
}

void Volume::remove_side_file(const Dir& dir, const LowerName& name) {
  // One that stays shows nothing: a listing goes by entries.
  if (name.side) (void)unlinkat(dir.get(), side_name(name.entry).c_str(), 0);
}

// After an entry could not be made: the side file goes if it is certain that there is none.
void Volume::remove_spare_side_file(const Dir& dir, const LowerName& name) {
  if (!name.side) return;
  const Result<LowerStat> entry = stat_at(dir.get(), name.entry.c_str());
  if (!entry && errno_of(entry.error()) == ENOENT) remove_side_file(dir, name);
}

// ---- making

Result<LowerName> Volume::place_new(const Dir& dir, const DirId& id, std::string_view plain) {
  ECFS_LET(LowerName lower, format_->encode_name(id, plain));
  ECFS_TRY(check_new_names(dir, id));
  ECFS_TRY(refuse_conflict(dir, id, plain));
  ECFS_TRY(ensure_side_file(dir, lower));
  return lower;
}

Result<Entry> Volume::make_node(std::uint64_t parent, std::string_view name, const Caller& caller,
                                const std::function<Status(int, const char*)>& make) {
  ECFS_LET(const Dir dir, dir_at(parent));
  ECFS_TRY(writable(*dir.inode));
  const std::unique_lock lock(dir.inode->dir->lock);
  ECFS_LET(const DirId id, id_of(dir));
  ECFS_LET(const LowerName lower, place_new(dir, id, name));
  Status made;
  {
    Result<AsCaller> as = AsCaller::begin(caller);
    made = as ? make(dir.get(), lower.entry.c_str()) : Status(std::move(as).error());
  }
  if (!made) {
    remove_spare_side_file(dir, lower);
    return std::move(made).error();
  }
  if (caller.gid != getegid() && geteuid() != 0) {
    const Result<LowerStat> above = stat_at(dir.get(), "");
    const Result<Fd> node = open_lower(dir.get(), lower.entry.c_str(), O_PATH);
    if (above && node) give_group(node->get(), caller, above->st.st_mode);
  }
  dir.inode->dir->names_fit = true;
  ECFS_LET(const LowerStat st, stat_at(dir.get(), lower.entry.c_str()));
  return entered(dir, id, name, lower.entry, st);
}

Result<Entry> Volume::mknod(std::uint64_t parent, std::string_view name, mode_t mode, dev_t rdev,
                            const Caller& caller) {
  if (S_ISREG(mode)) {
    ECFS_LET(Created made, create(parent, name, mode, O_RDWR | O_EXCL, caller));
    release(std::move(made.file.handle));
    return made.entry;
  }
  return make_node(parent, name, caller, [&](int dirfd, const char* lower) -> Status {
    if (mknodat(dirfd, lower, mode, rdev) != 0) return system_error(errno, "make a special file");
    return {};
  });
}

Result<Entry> Volume::mkdir(std::uint64_t parent, std::string_view name, mode_t mode, const Caller& caller) {
  Result<Entry> made = make_node(parent, name, caller, [&](int dirfd, const char* lower) -> Status {
    if (mkdirat(dirfd, lower, mode & 07777) != 0) return system_error(errno, "make a directory");
    return {};
  });
  if (made) {  // it is new: nothing to look for in it
    if (const InodeRef inode = table_.find(made->nodeid); inode && inode->dir) {
      const std::lock_guard lock(inode->mutex);
      DirState& state = *inode->dir;
      state.id = state.derived;
      state.loaded = true;
      state.names_fit = true;
    }
  }
  return made;
}

Result<Entry> Volume::symlink(std::uint64_t parent, std::string_view name, std::string_view target,
                              const Caller& caller) {
  ECFS_LET(const std::string lower_target, format_->encode_link(target));
  return make_node(parent, name, caller, [&](int dirfd, const char* lower) -> Status {
    if (symlinkat(lower_target.c_str(), dirfd, lower) != 0) return system_error(errno, "make a symbolic link");
    return {};
  });
}

Result<Entry> Volume::link(std::uint64_t nodeid, std::uint64_t new_parent, std::string_view new_name) {
  ECFS_LET(const InodeRef inode, find(nodeid));
  ECFS_LET(const Dir dir, dir_at(new_parent));
  ECFS_TRY(writable(*inode));
  ECFS_TRY(writable(*dir.inode));
  // Through the descriptor: what is linked is the inode that was meant, whatever happens to its names.
  ECFS_LET(const Fd source, path_fd(inode));
  const std::unique_lock lock(dir.inode->dir->lock);
  ECFS_LET(const DirId id, id_of(dir));
  ECFS_LET(const LowerName lower, place_new(dir, id, new_name));
  if (linkat(AT_FDCWD, ProcPath(source.get()).c_str(), dir.get(), lower.entry.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    Error failed = system_error(errno, "make a hard link");
    remove_spare_side_file(dir, lower);
    return failed;
  }
  dir.inode->dir->names_fit = true;
  ECFS_LET(const LowerStat st, stat_at(dir.get(), lower.entry.c_str()));
  return entered(dir, id, new_name, lower.entry, st);
}

// ---- removing

// outliving gives the inode and a descriptor of what is no directory, if the kernel knows it and the name is its only
// one; else none. A regular file has a descriptor while it is open; for the others it is worth its price only where
// somebody was too late lately.
Volume::Dir Volume::outliving(const Dir& dir, const LowerName& name, const LowerStat& was) {
  if (S_ISDIR(was.st.st_mode) || was.st.st_nlink > 1 || (S_ISREG(was.st.st_mode) && !lost_lately())) return {};
  InodeRef inode = table_.find(was.key());
  if (!inode) return {};
  Result<Fd> fd = open_lower(dir.get(), name.entry.c_str(), O_PATH);
  if (!fd) return {};
  const Result<LowerStat> st = stat_at(fd->get(), "");
  if (!st || !(st->key() == was.key())) return {};
  return {std::move(inode), std::make_shared<const Fd>(*std::move(fd))};
}

// removed notes that the name `lower_name` of the inode `was` is gone from the lower directory `parent`.
void Volume::removed(const LowerStat& was, const Dir& parent, const LowerName& lower_name) {
  const InodeRef inode = table_.find(was.key());
  if (!inode) return;
  if (inode->dir) {
    dir_fds_.drop(inode->id);  // its OwnDescriptor stays
    table_.retire(*inode);
    return;
  }
  std::shared_ptr<OpenFile> open;
  {
    const std::lock_guard lock(inode->mutex);
    open = inode->open;
  }
  bool last = was.st.st_nlink <= 1;
  if (open) {  // it lives on its descriptor, which alone knows whether another name was made meanwhile
    const std::shared_lock lock(open->upgrade);
    const Result<LowerStat> now = stat_at(open->file.fd(), "");
    last = now && now->st.st_nlink == 0;
  }
  if (last) return table_.retire(*inode);
  std::vector<Link> dropped;
  const std::lock_guard lock(inode->mutex);
  inode->drop_link(parent.inode.get(), lower_name.entry, dropped);
  // Without a name that is known the kernel would be told ESTALE until one is looked up, and would keep that for the
  // file's next close to report. So, if no handle holds it, that lookup gets a new nodeid.
  if (!inode->link.parent && !inode->open) table_.retire(*inode);
}

Status Volume::unlink(std::uint64_t parent, std::string_view name) {
  ECFS_LET(const Dir dir, dir_at(parent));
  ECFS_TRY(writable(*dir.inode));
  const std::unique_lock lock(dir.inode->dir->lock);
  ECFS_LET(const DirId id, id_of(dir));
  ECFS_LET(const LowerName lower, format_->encode_name(id, name));
  const Result<LowerStat> was = stat_at(dir.get(), lower.entry.c_str());
  if (!was) {
    ECFS_TRY(refuse_conflict(dir, id, name));
    return was.error();
  }
  if (S_ISDIR(was->st.st_mode)) return Error{Code::kInvalid, EISDIR, "a directory"};
  const Dir outlives = outliving(dir, lower, *was);
  OwnDescriptor own(outlives.inode, outlives.fd);
  if (unlinkat(dir.get(), lower.entry.c_str(), 0) != 0) return system_error(errno, "unlink");
  own.keep();
  remove_side_file(dir, lower);
  removed(*was, dir, lower);
  return {};
}

// clear_leftovers removes what an upper empty directory may hold below; anything else: ENOTEMPTY, nothing touched.
Status Volume::clear_leftovers(const Dir& dir) {
  const std::string id_file(format_->dir_id_file());
  std::vector<std::string> leftovers;
  ECFS_LET(const LowerStat st, stat_at(dir.get(), ""));
  const OwnerAccess access(dir.get(), st.st, S_IRWXU);
  ECFS_LET(DirReader reader, list_lower(dir));
  for (;;) {
    ECFS_LET(const std::optional<RawEntry> raw, reader.peek());
    if (!raw) break;
    const std::string name(raw->name);
    if (!is_dots(name)) {
      // A side file with an entry does not come this far: the entry is listed too.
      const bool ours =
          format_->kind_of(name) == LowerNameKind::kOurs &&
          (name == id_file || name.starts_with(kTempPrefix) || (!name.starts_with(".") && name.ends_with(kSideSuffix)));
      if (!ours) return Error{Code::kBusy, ENOTEMPTY, "the directory is not empty"};
      leftovers.push_back(name);
    }
    reader.pop();
  }
  // First what costs nothing: should a removal fail, the id has not gone.
  std::stable_partition(leftovers.begin(), leftovers.end(), [&](const std::string& n) { return n != id_file; });
  for (const std::string& name : leftovers) {
    if (unlinkat(dir.get(), name.c_str(), 0) != 0) return system_error(errno, "clear a directory");
    if (name == id_file) {
      // The directory's own removal may fail and it be used on: from now on under the derived id.
      const std::lock_guard lock(dir.inode->mutex);
      DirState& state = *dir.inode->dir;
      state.id = state.derived;
      state.stored = false;
      state.loaded = true;
    }
  }
  return {};
}

Result<Volume::Place> Volume::place_of(const Dir& dir, std::string_view plain) {
  Place place;
  ECFS_LET(place.dir_id, id_of(dir));
  ECFS_LET(place.lower, format_->encode_name(place.dir_id, plain));
  Result<LowerStat> now = stat_at(dir.get(), place.lower.entry.c_str());
  if (!now && errno_of(now.error()) != ENOENT) return std::move(now).error();
  if (!now) return place;
  place.now = *now;
  if (S_ISDIR(now->st.st_mode)) {
    ECFS_LET(const InodeRef inode, inode_of(dir, place.dir_id, plain, place.lower.entry, *now));
    ECFS_LET(place.node, dir_of(inode));
  }
  return place;
}

Status Volume::rmdir(std::uint64_t parent, std::string_view name) {
  ECFS_LET(const Dir dir, dir_at(parent));
  ECFS_TRY(writable(*dir.inode));
  for (int tries = 0; tries < 16; ++tries) {
    ECFS_LET(const Place seen, place_of(dir, name));
    if (!seen.now) {
      ECFS_TRY(refuse_conflict(dir, seen.dir_id, name));
      return Error{Code::kNotFound, ENOENT, "no such directory"};
    }
    if (!seen.node.inode) return Error{Code::kNotFound, ENOTDIR, "not a directory"};
    const DirLocks locks({dir.inode.get(), seen.node.inode.get()});
    const Result<LowerStat> now = stat_at(dir.get(), seen.lower.entry.c_str());
    if (!now || !(now->key() == seen.now->key())) continue;
    OwnDescriptor own(seen.node.inode, seen.node.fd);
    if (unlinkat(dir.get(), seen.lower.entry.c_str(), AT_REMOVEDIR) != 0) {
      if (errno != ENOTEMPTY && errno != EEXIST) return system_error(errno, "remove a directory");
      ECFS_TRY(clear_leftovers(seen.node));
      if (unlinkat(dir.get(), seen.lower.entry.c_str(), AT_REMOVEDIR) != 0) {
        return system_error(errno, "remove a directory");
      }
    }
    own.keep();
    remove_side_file(dir, seen.lower);
    removed(*seen.now, dir, seen.lower);
    return {};
  }
  return gone();
}

// ---- moving

Status Volume::rename(std::uint64_t parent, std::string_view name, std::uint64_t new_parent, std::string_view new_name,
                      unsigned flags) {
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0 ||
      flags == (RENAME_NOREPLACE | RENAME_EXCHANGE)) {
    return Error{Code::kInvalid, EINVAL, "these flags of rename"};
  }
  ECFS_LET(const Dir from, dir_at(parent));
  ECFS_LET(const Dir to, dir_at(new_parent));
  ECFS_TRY(writable(*from.inode));
  ECFS_TRY(writable(*to.inode));
  // Which directories are concerned is known only after a look; they are locked together, in order, and looked at
  // again.
  for (int tries = 0; tries < 16; ++tries) {
    ECFS_LET(const Place seen_source, place_of(from, name));
    ECFS_LET(const Place seen_target, place_of(to, new_name));
    std::vector<Inode*> dirs{from.inode.get(), to.inode.get()};
    if (seen_source.node.inode) dirs.push_back(seen_source.node.inode.get());
    if (seen_target.node.inode) dirs.push_back(seen_target.node.inode.get());
    const DirLocks locks(std::move(dirs));
    ECFS_LET(const Place source, place_of(from, name));
    ECFS_LET(const Place target, place_of(to, new_name));
    if (source.node.inode.get() != seen_source.node.inode.get() ||
        target.node.inode.get() != seen_target.node.inode.get()) {
      continue;
    }
    if (!source.now) {
      ECFS_TRY(refuse_conflict(from, source.dir_id, name));
      return Error{Code::kNotFound, ENOENT, "no such name"};
    }
    return rename_locked(from, to, source, target, new_name, name, flags);
  }
  return gone();
}

Status Volume::rename_locked(const Dir& from, const Dir& to, const Place& source, const Place& target,
                             std::string_view new_name, std::string_view old_name, unsigned flags) {
  const bool exchange = flags == RENAME_EXCHANGE;
  const bool from_dir = source.node.inode.get() != nullptr;
  const bool to_dir = target.node.inode.get() != nullptr;
  if (exchange && !target.now) return Error{Code::kNotFound, ENOENT, "no such name"};
  if (flags == RENAME_NOREPLACE && target.now) return Error{Code::kBusy, EEXIST, "the name is taken"};
  // Two names of one inode: nothing happens, and nothing may be cleared away for it.
  if (target.now && target.now->key() == source.now->key()) return {};
  if (!exchange && target.now) {
    if (from_dir && !to_dir) return Error{Code::kNotFound, ENOTDIR, "not a directory"};
    if (!from_dir && to_dir) return Error{Code::kInvalid, EISDIR, "a directory"};
  }
  if (!target.now) {
    ECFS_TRY(check_new_names(to, target.dir_id));
    ECFS_TRY(refuse_conflict(to, target.dir_id, new_name));
  }
  DirId source_derived{};  // what the places give after the move
  DirId target_derived{};
  if (from_dir) {
    ECFS_LET(source_derived, format_->child_id(target.dir_id, new_name));
    ECFS_TRY(keep_id(source.node));
  }
  if (to_dir) {
    ECFS_LET(target_derived, format_->child_id(source.dir_id, old_name));
    ECFS_TRY(exchange ? keep_id(target.node) : clear_leftovers(target.node));
  }
  ECFS_TRY(ensure_side_file(to, target.lower));
  InodeRef moved;
  InodeRef other;
  if (from_dir) {
    moved = source.node.inode;
  } else {
    moved = table_.find(source.now->key());
  }
  if (exchange) other = to_dir ? target.node.inode : table_.find(target.now->key());
  Dir replaced;
  if (target.now && !exchange) replaced = to_dir ? target.node : outliving(to, target.lower, *target.now);
  OwnDescriptor own(replaced.inode, replaced.fd);
  {
    const std::unique_lock alone(moves_);
    if (syscall(SYS_renameat2, from.get(), source.lower.entry.c_str(), to.get(), target.lower.entry.c_str(), flags) !=
        0) {
      Error failed = system_error(errno, "rename");
      if (!target.now) remove_side_file(to, target.lower);
      return failed;
    }
    if (moved) move_link(moved, from, source.lower, to, target.lower, source_derived);
    if (other) move_link(other, to, target.lower, from, source.lower, target_derived);
    own.keep();
  }
  to.inode->dir->names_fit = true;
  if (exchange) return {};
  remove_side_file(from, source.lower);
  if (target.now) removed(*target.now, to, target.lower);
  return {};
}

}  // namespace ecfs::fs
