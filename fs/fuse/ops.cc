#include "fs/fuse/ops.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "wrap/base/log.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {
namespace {

constexpr double kTimeoutSec = 60.0;  // of names and attributes, where the lower tree is ours alone
// Of a directory's attributes: an answer that one thread is given may be overtaken by what another does there, and the
// kernel believes it all the same.
constexpr double kDirTimeoutSec = 1.0;

Server& server_of(fuse_req_t req) noexcept { return *static_cast<Server*>(fuse_req_userdata(req)); }
Volume& volume_of(fuse_req_t req) noexcept { return *server_of(req).volume; }
double timeout_of(fuse_req_t req) noexcept { return server_of(req).shared ? 0.0 : kTimeoutSec; }
double attr_timeout_of(fuse_req_t req, const struct stat& st) noexcept {
  return S_ISDIR(st.st_mode) ? std::min(kDirTimeoutSec, timeout_of(req)) : timeout_of(req);
}

// reply_with does `work` (a Result) and gives its value to `reply`; an error, or an exception of the standard library,
// becomes the one reply instead.
template <class Work, class Reply>
void reply_with(fuse_req_t req, Work&& work, Reply&& reply) noexcept {
  int err = EIO;
  try {
    auto done = work();
    if (done) {
      reply(*std::move(done));
      return;
    }
    err = errno_of(done.error());
  } catch (const std::bad_alloc&) {
    err = ENOMEM;
  } catch (const std::exception& e) {
    log_line(LOG_CRIT, e.what());
  }
  fuse_reply_err(req, err);
}

template <class Work>
void reply_status(fuse_req_t req, Work&& work) noexcept {
  int err = EIO;
  try {
    const Status done = work();
    err = done ? 0 : errno_of(done.error());
  } catch (const std::bad_alloc&) {
    err = ENOMEM;
  } catch (const std::exception& e) {
    log_line(LOG_CRIT, e.what());
  }
  fuse_reply_err(req, err);
}

Caller caller_of(fuse_req_t req) {
  const fuse_ctx* ctx = fuse_req_ctx(req);
  return {ctx->uid, ctx->gid, ctx->umask, [req] {
            std::vector<gid_t> groups(64);
            int n = fuse_req_getgroups(req, static_cast<int>(groups.size()), groups.data());
            if (n > static_cast<int>(groups.size())) {
              groups.resize(static_cast<std::size_t>(n));
              n = fuse_req_getgroups(req, n, groups.data());
            }
            groups.resize(n < 0 ? 0 : std::min(groups.size(), static_cast<std::size_t>(n)));
            return groups;
          }};
}

fuse_entry_param to_fuse(fuse_req_t req, const Entry& entry) noexcept {
  fuse_entry_param out{};
  out.ino = entry.nodeid;
  out.generation = entry.generation;
  out.attr = entry.attr;
  out.attr_timeout = attr_timeout_of(req, entry.attr);
  out.entry_timeout = timeout_of(req);
  return out;
}

// A reply that does not arrive (the caller was killed) is no lookup.
void reply_entry(fuse_req_t req, const Entry& entry) noexcept {
  const fuse_entry_param out = to_fuse(req, entry);
  Volume& volume = volume_of(req);
  if (fuse_reply_entry(req, &out) != 0) volume.forget(entry.nodeid, 1);
}

FileHandle& file_of(const fuse_file_info* fi) noexcept { return Handles<FileHandle>::get(fi->fh); }
DirHandle& dir_of(const fuse_file_info* fi) noexcept { return Handles<DirHandle>::get(fi->fh); }

void set_handle(fuse_req_t req, fuse_file_info* fi, OpenedFile file) {
  fi->keep_cache = file.keep_cache && !server_of(req).shared ? 1 : 0;
  fi->noflush = file.handle->writer ? 0 : 1;
  fi->fh = server_of(req).files.give(std::move(file.handle));
}

// What a request is to the time in which nobody uses the mount, and whether it needs keys.
enum class Kind {
  kUse,   // a use that needs keys: refused while there are none
  kOwn,   // the same, and the request itself sees to what happens without keys
  kLook,  // no use: forgetting, statfs. Monitors and file managers do it all day
};

// served<Op> is Op, counted and with the gate held.
template <auto Op, Kind kind>
struct Served;
template <class... Args, void (*Op)(fuse_req_t, Args...) noexcept, Kind kind>
struct Served<Op, kind> {
  static void call(fuse_req_t req, Args... args) noexcept {
    Server& server = server_of(req);
    if (kind != Kind::kLook && server.idle) server.idle->note_use();
    const KeyGate::Pass pass(server.gate);
    if (kind == Kind::kUse && !pass.has_keys()) {
      fuse_reply_err(req, ENOKEY);
      return;
    }
    Op(req, args...);
  }
};
template <auto Op, Kind kind = Kind::kUse>
constexpr auto served = &Served<Op, kind>::call;

// later has `work` done when the keys are back.
template <class Work>
void later(fuse_req_t req, Work&& work) noexcept {
  try {
    server_of(req).gate.wait_for_keys(std::forward<Work>(work));
  } catch (const std::bad_alloc&) {
    fuse_reply_err(req, ENOMEM);
  }
}

ByteView view_of(const char* data, std::size_t size) noexcept { return as_bytes({data, size}); }

// A buffer of this thread, for what is on its way between the kernel and the volume.
MutableByteView scratch(std::size_t size) {
  thread_local std::vector<std::uint8_t> buffer;
  if (buffer.size() < size) buffer.resize(size);
  return MutableByteView(buffer).first(size);
}

// ---- the session

void op_init(void* userdata, fuse_conn_info* conn) noexcept {
  const Server& server = *static_cast<Server*>(userdata);
  unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                  FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_CACHE_SYMLINKS;
  // The umask is applied below, by the lower filesystem, which alone knows default ACLs.
  want |= FUSE_CAP_DONT_MASK;
  if (server.volume->lower_has_acls()) want |= FUSE_CAP_POSIX_ACL;
  // HANDLE_KILLPRIV_V2: kernel_io.cc.
  want |= server.shared ? FUSE_CAP_AUTO_INVAL_DATA : FUSE_CAP_WRITEBACK_CACHE;
  conn->want = want & conn->capable;
  conn->max_write = static_cast<unsigned>(kMaxRequestBytes);
  conn->time_gran = 1;
  conn->max_background = 64;
  conn->congestion_threshold = 48;
}

// ---- inodes

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  reply_with(
      req,
      [&]() -> Result<Entry> {
        Result<Entry> found = volume_of(req).lookup(parent, name);
        // No inode is an answer too, which the kernel keeps.
        if (!found && errno_of(found.error()) == ENOENT && !server_of(req).shared) return Entry{};
        return found;
      },
      [&](const Entry& entry) {
        if (entry.nodeid != 0) return reply_entry(req, entry);
        const fuse_entry_param none = to_fuse(req, entry);
        fuse_reply_entry(req, &none);
      });
}

void op_forget(fuse_req_t req, fuse_ino_t ino, std::uint64_t num) noexcept {
  volume_of(req).forget(ino, num);
  fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, std::size_t count, fuse_forget_data* forgets) noexcept {
  for (std::size_t i = 0; i < count; ++i) volume_of(req).forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(req);
}

void reply_attr(fuse_req_t req, const struct stat& st) noexcept { fuse_reply_attr(req, &st, attr_timeout_of(req, st)); }

void op_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) noexcept {
  // A look at the root itself is none at the files.
  if (Idle* idle = server_of(req).idle.get(); idle != nullptr && ino != FUSE_ROOT_ID) idle->note_use();
  reply_with(
      req, [&] { return volume_of(req).getattr(ino); }, [&](const struct stat& st) { reply_attr(req, st); });
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* st, int to_set, fuse_file_info*) noexcept {
  // Times are set by the kernel's own writing, too, and need no key.
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0 && !server_of(req).gate.is_open()) {
    fuse_reply_err(req, ENOKEY);
    return;
  }
  AttrChange change;
  change.caller = fuse_req_ctx(req)->uid;
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) change.mode = st->st_mode;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) change.uid = st->st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) change.gid = st->st_gid;
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) change.size = static_cast<std::uint64_t>(st->st_size);
  if ((to_set & FUSE_SET_ATTR_ATIME) != 0) change.atime = st->st_atim;
  if ((to_set & FUSE_SET_ATTR_MTIME) != 0) change.mtime = st->st_mtim;
  if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) change.atime = timespec{0, UTIME_NOW};
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) change.mtime = timespec{0, UTIME_NOW};
  // chown(2) of neither, which takes suid and sgid off all the same.
  constexpr int kNamed = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE |
                         FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW;
  if ((to_set & kNamed) == 0) change.uid = static_cast<uid_t>(-1);
  reply_with(
      req, [&] { return volume_of(req).setattr(ino, change); }, [&](const struct stat& now) { reply_attr(req, now); });
}

void op_readlink(fuse_req_t req, fuse_ino_t ino) noexcept {
  reply_with(
      req, [&] { return volume_of(req).readlink(ino); },
      [&](const std::string& target) { fuse_reply_readlink(req, target.c_str()); });
}

void op_statfs(fuse_req_t req, fuse_ino_t) noexcept {
  reply_with(
      req, [&] { return volume_of(req).statfs(); }, [&](const struct statvfs& st) { fuse_reply_statfs(req, &st); });
}

// ---- names

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) noexcept {
  reply_with(
      req, [&] { return volume_of(req).mknod(parent, name, mode, rdev, caller_of(req)); },
      [&](const Entry& entry) { reply_entry(req, entry); });
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) noexcept {
  reply_with(
      req, [&] { return volume_of(req).mkdir(parent, name, mode, caller_of(req)); },
      [&](const Entry& entry) { reply_entry(req, entry); });
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) noexcept {
  reply_with(
      req, [&] { return volume_of(req).symlink(parent, name, target, caller_of(req)); },
      [&](const Entry& entry) { reply_entry(req, entry); });
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) noexcept {
  reply_with(
      req, [&] { return volume_of(req).link(ino, parent, name); },
      [&](const Entry& entry) { reply_entry(req, entry); });
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  reply_status(req, [&] { return volume_of(req).unlink(parent, name); });
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  reply_status(req, [&] { return volume_of(req).rmdir(parent, name); });
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
               unsigned flags) noexcept {
  reply_status(req, [&] { return volume_of(req).rename(parent, name, new_parent, new_name, flags); });
}

// ---- files

void op_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept {
  reply_with(
      req, [&] { return volume_of(req).open_file(ino, fi->flags, caller_of(req)); },
      [&](OpenedFile file) {
        Server& server = server_of(req);
        set_handle(req, fi, std::move(file));
        if (fuse_reply_open(req, fi) != 0) server.volume->release(server.files.take(fi->fh));
      });
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) noexcept {
  reply_with(
      req, [&] { return volume_of(req).create(parent, name, mode, fi->flags, caller_of(req)); },
      [&](Volume::Created made) {
        Server& server = server_of(req);
        set_handle(req, fi, std::move(made.file));
        const fuse_entry_param entry = to_fuse(req, made.entry);
        if (fuse_reply_create(req, &entry, fi) != 0) {
          server.volume->release(server.files.take(fi->fh));
          server.volume->forget(made.entry.nodeid, 1);
        }
      });
}

// With HANDLE_KILLPRIV_V2 (kernel_io.h) that is for us to do.
void drop_privileges(fuse_req_t req, FileHandle& file) {
  if (!server_of(req).shared) Volume::drop_privileges(file, fuse_req_ctx(req)->uid);
}

void op_read(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* fi) noexcept {
  MutableByteView buffer;
  reply_with(
      req,
      [&]() -> Result<std::size_t> {
        buffer = answer_buffer(size);
        if (buffer.empty()) buffer = scratch(size);
        return volume_of(req).read(file_of(fi), static_cast<std::uint64_t>(offset), buffer);
      },
      [&](std::size_t len) { fuse_reply_buf(req, as_text(buffer).data(), len); });
}

void write(fuse_req_t req, FileHandle& file, std::uint64_t offset, ByteView data, bool from_cache) noexcept {
  reply_with(
      req,
      [&] {
        // What comes from the kernel's cache was asked about when it was written there.
        if (!from_cache) drop_privileges(req, file);
        return volume_of(req).write(file, offset, data, from_cache);
      },
      [&](std::size_t len) { fuse_reply_write(req, len); });
}

void op_write(fuse_req_t req, fuse_ino_t, const char* data, std::size_t size, off_t offset,
              fuse_file_info* fi) noexcept {
  const auto at = static_cast<std::uint64_t>(offset);
  const bool from_cache = fi->writepage != 0;
  if (server_of(req).gate.is_open()) return write(req, file_of(fi), at, view_of(data, size), from_cache);
  if (!from_cache) {
    fuse_reply_err(req, ENOKEY);
    return;
  }
  // The program was told long ago that this is written. As many as the kernel has under way at once (max_background).
  later(req, [req, file = &file_of(fi), at, bytes = Bytes(data, data + size)] { write(req, *file, at, bytes, true); });
}

void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) noexcept {
  // Also where there is nothing to do: a kernel that is told ENOSYS never asks again, and drops without a word what a
  // program closes after the server has died.
  reply_status(req, [&] { return volume_of(req).flush(file_of(fi)); });
}

// Without keys, too: the kernel asks only after all it has of the file was written, and what was put off was settled
// before the keys went. Where a key is needed all the same (to seal a size), ENOKEY is the truth, and nobody waits.
void op_fsync(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* fi) noexcept {
  reply_status(req, [&] { return volume_of(req).fsync(file_of(fi), data_only != 0); });
}

// Nobody waits for the answer, and the handle is the server's.
void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) noexcept {
  reply_status(req, [&]() -> Status {
    Server& server = server_of(req);
    if (server.gate.is_open()) {
      server.volume->release(server.files.take(fi->fh));
    } else {
      server.gate.wait_for_keys([&server, number = fi->fh] { server.volume->release(server.files.take(number)); });
    }
    return {};
  });
}

void op_fallocate(fuse_req_t req, fuse_ino_t, int mode, off_t offset, off_t len, fuse_file_info* fi) noexcept {
  reply_status(req, [&] {
    drop_privileges(req, file_of(fi));
    return volume_of(req).fallocate(file_of(fi), mode, static_cast<std::uint64_t>(offset),
                                    static_cast<std::uint64_t>(len));
  });
}

void reply_seek(Volume& volume, const Seeker::Question& q) noexcept {
  reply_with(
      q.req, [&] { return volume.seek(*q.file, q.offset, q.whence); },
      [&](std::uint64_t found) { fuse_reply_lseek(q.req, static_cast<off_t>(found)); });
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info* fi) noexcept {
  const Seeker::Question question{req, ino, static_cast<std::uint64_t>(offset), whence, &file_of(fi)};
  const Server& server = server_of(req);
  if (server.shared || question.file->open->writers == 0) return reply_seek(*server.volume, question);
  try {
    server.seeker->ask(question);
  } catch (const std::exception&) {
    fuse_reply_err(req, ENOMEM);
  }
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t, off_t from, fuse_file_info* fi_from, fuse_ino_t, off_t to,
                        fuse_file_info* fi_to, std::size_t len, int) noexcept {
  reply_with(
      req,
      [&] {
        drop_privileges(req, file_of(fi_to));
        return volume_of(req).copy_range(file_of(fi_from), static_cast<std::uint64_t>(from), file_of(fi_to),
                                         static_cast<std::uint64_t>(to), len);
      },
      [&](std::size_t copied) { fuse_reply_write(req, copied); });
}

// ---- directories

void op_opendir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept {
  reply_with(
      req, [&] { return volume_of(req).opendir(ino); },
      [&](std::unique_ptr<DirHandle> dir) {
        Server& server = server_of(req);
        fi->fh = server.dirs.give(std::move(dir));
        fi->cache_readdir = fi->keep_cache = server.shared ? 0 : 1;
        if (fuse_reply_open(req, fi) != 0) (void)server.dirs.take(fi->fh);
      });
}

void list(fuse_req_t req, std::size_t size, off_t offset, fuse_file_info* fi, bool plus) noexcept {
  reply_with(
      req,
      [&]() -> Result<std::vector<char>> {
        std::vector<char> out(size);
        std::size_t used = 0;
        const auto take = [&](const DirEntry& entry) {
          const std::string name(entry.name);
          char* const at = out.data() + used;
          std::size_t len = 0;
          if (plus) {
            fuse_entry_param param{};  // nodeid 0: only a name
            if (entry.entry != nullptr) param = to_fuse(req, *entry.entry);
            param.attr.st_ino = entry.ino;
            if (entry.entry == nullptr) param.attr.st_mode = entry.type;
            len = fuse_add_direntry_plus(req, at, size - used, name.c_str(), &param, entry.next_pos);
          } else {
            struct stat st {};
            st.st_ino = entry.ino;
            st.st_mode = entry.type;
            len = fuse_add_direntry(req, at, size - used, name.c_str(), &st, entry.next_pos);
          }
          if (len > size - used) return false;
          used += len;
          return true;
        };
        Status done = volume_of(req).readdir(dir_of(fi), offset, plus, take);
        // What was listed before the failure is told; the next request meets the failure again.
        if (!done && used == 0) return std::move(done).error();
        out.resize(used);
        return out;
      },
      [&](const std::vector<char>& out) { fuse_reply_buf(req, out.data(), out.size()); });
}

void op_readdir(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* fi) noexcept {
  list(req, size, offset, fi, false);
}
void op_readdirplus(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* fi) noexcept {
  list(req, size, offset, fi, true);
}

void op_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) noexcept {
  reply_status(req, [&]() -> Status {
    (void)server_of(req).dirs.take(fi->fh);
    return {};
  });
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* fi) noexcept {
  reply_status(req, [&] { return volume_of(req).fsyncdir(dir_of(fi), data_only != 0); });
}

// ---- extended attributes

template <class Get>
void reply_sized(fuse_req_t req, std::size_t size, Get&& get) noexcept {
  MutableByteView buffer;
  reply_with(
      req,
      [&]() -> Result<std::size_t> {
        buffer = scratch(size);
        return get(buffer);
      },
      [&](std::size_t len) {
        if (size == 0) {
          fuse_reply_xattr(req, len);
        } else {
          fuse_reply_buf(req, as_text(buffer).data(), len);
        }
      });
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char* name, std::size_t size) noexcept {
  reply_sized(req, size, [&](MutableByteView out) { return volume_of(req).getxattr(ino, name, out); });
}
void op_listxattr(fuse_req_t req, fuse_ino_t ino, std::size_t size) noexcept {
  reply_sized(req, size, [&](MutableByteView out) { return volume_of(req).listxattr(ino, out); });
}
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char* name, const char* value, std::size_t size,
                 int flags) noexcept {
  reply_status(req, [&] { return volume_of(req).setxattr(ino, name, view_of(value, size), flags); });
}
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char* name) noexcept {
  reply_status(req, [&] { return volume_of(req).removexattr(ino, name); });
}

}  // namespace

void Server::close_all() {
  while (std::unique_ptr<FileHandle> file = files.take_any()) volume->release(std::move(file));
  while (dirs.take_any()) continue;
}

Seeker::Seeker(Volume& volume, KeyGate& gate, fuse_session* session)
    : volume_(volume), gate_(gate), session_(session), thread_([this] { answer_all(); }) {}

Seeker::~Seeker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Seeker::ask(const Question& question) {
  const std::lock_guard lock(mutex_);
  questions_.push_back(question);
  wake_.notify_one();
}

void Seeker::answer_all() {
  keep_stack_from_dumps();
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || !questions_.empty(); });
    if (questions_.empty()) return;
    const Question question = questions_.front();
    questions_.pop_front();
    const bool writes_are_served = !stopping_;
    lock.unlock();
    // A kernel that has dropped the inode meanwhile has nothing to write for it.
    if (writes_are_served) (void)fuse_lowlevel_notify_inval_inode(session_, question.ino, 0, 0);
    if (const KeyGate::Pass pass(gate_); pass.has_keys()) {
      reply_seek(volume_, question);
    } else {
      fuse_reply_err(question.req, ENOKEY);
    }
    lock.lock();
  }
}

bool store_in_kernel(fuse_session* session, std::uint64_t nodeid, ByteView contents) noexcept {
  fuse_bufvec bytes{};
  bytes.count = 1;
  bytes.buf[0].size = contents.size();
  bytes.buf[0].mem = const_cast<std::uint8_t*>(contents.data());  // NOLINT: it is only read
  return fuse_lowlevel_notify_store(session, nodeid, 0, &bytes, FUSE_BUF_NO_SPLICE) == 0;
}

const fuse_lowlevel_ops& operations() noexcept {
  static const fuse_lowlevel_ops kOperations = [] {
    fuse_lowlevel_ops ops{};
    ops.init = op_init;
    ops.lookup = served<op_lookup>;
    ops.forget = served<op_forget, Kind::kLook>;
    ops.forget_multi = served<op_forget_multi, Kind::kLook>;
    ops.getattr = served<op_getattr, Kind::kLook>;
    ops.setattr = served<op_setattr, Kind::kOwn>;
    ops.readlink = served<op_readlink>;
    ops.mknod = served<op_mknod>;
    ops.mkdir = served<op_mkdir>;
    ops.unlink = served<op_unlink>;
    ops.rmdir = served<op_rmdir>;
    ops.symlink = served<op_symlink>;
    ops.rename = served<op_rename>;
    ops.link = served<op_link>;
    ops.open = served<op_open>;
    ops.create = served<op_create>;
    ops.read = served<op_read>;
    ops.write = served<op_write, Kind::kOwn>;
    ops.flush = served<op_flush, Kind::kOwn>;
    ops.release = served<op_release, Kind::kOwn>;
    ops.fsync = served<op_fsync, Kind::kOwn>;
    ops.opendir = served<op_opendir>;
    ops.readdir = served<op_readdir>;
    ops.readdirplus = served<op_readdirplus>;
    ops.releasedir = served<op_releasedir, Kind::kOwn>;
    ops.fsyncdir = served<op_fsyncdir, Kind::kOwn>;
    ops.statfs = served<op_statfs, Kind::kLook>;
    ops.getxattr = served<op_getxattr>;
    ops.listxattr = served<op_listxattr>;
    ops.setxattr = served<op_setxattr>;
    ops.removexattr = served<op_removexattr>;
    ops.fallocate = served<op_fallocate>;
    ops.lseek = served<op_lseek>;
    ops.copy_file_range = served<op_copy_file_range>;
    return ops;
  }();
  return kOperations;
}

}  // namespace ecfs::fs
