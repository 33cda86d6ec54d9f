#include "setup/private_volume.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "setup/mounting.h"
#include "setup/ui.h"
#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

constexpr std::uint64_t kSpareBytes = 16U << 20;
constexpr std::uint64_t kEntryBytes = 8192;  // what an entry may cost below: a header page and a directory block
constexpr int kEndMs = 60000;

Status prove_keys(const VolumeRef& volume, const Secret& key, NewKeys& keys) {
  const auto same = [&](const wrap::Unlocked& opened) -> Status {
    if (opened.key.equals(key)) return {};
    return Error{Code::kIo, 0, "the new volume's keys do not belong together"};
  };
  ECFS_LET(wrap::VolumeStore by_passphrase, open_store(volume, false));
  ECFS_LET(const wrap::Unlocked first, keys.tpm ? by_passphrase.unlock_with_tpm2(*keys.tpm, &keys.passphrase)
                                                : by_passphrase.unlock_with_passphrase(keys.passphrase));
  ECFS_TRY(same(first));
  if (!keys.recovery) return {};
  ECFS_LET(wrap::VolumeStore by_recovery, open_store(volume, false));
  ECFS_LET(const wrap::Unlocked second, by_recovery.unlock_with_recovery(*keys.recovery));
  ECFS_TRY(same(second));
  // And from LOWER alone, as it would come back from a backup.
  VolumeRef alone;
  alone.lower_path = volume.lower_path;
  ECFS_LET(alone.lower_dir, open_directory(AT_FDCWD, volume.lower_path));
  ECFS_LET(wrap::VolumeStore copy, open_store(alone, false));
  ECFS_LET(const wrap::Unlocked third, copy.unlock_with_recovery(*keys.recovery));
  return same(third);
}

// Writes a file through the mount, mounts anew, reads it back and removes it.
Status prove_mount(const VolumeRef& volume, const Secret& key) {
  constexpr const char* kName = "ecfs-setup-proof";
  ECFS_LET(const Secret content, Secret::random(10000));
  {
    ECFS_LET(Staging staging, Staging::mount(volume, key));
    Fd fd(openat(staging.root(), kName, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) return system_error(errno, "make a file in the new volume");
    ECFS_TRY(write_all(fd.get(), content.reveal()));
    ECFS_TRY(sync_fd(fd.get(), "the proof file"));
    fd.reset();
    ECFS_TRY(staging.end());
  }
  ECFS_LET(Staging staging, Staging::mount(volume, key));
  ECFS_LET(const Bytes read, read_file(staging.root(), kName, content.size()));
  if (!std::equal(read.begin(), read.end(), content.reveal().begin(), content.reveal().end())) {
    return Error{Code::kCorrupt, 0, "a file in the new volume did not read back as it was written"};
  }
  if (unlinkat(staging.root(), kName, 0) != 0) return system_error(errno, "remove the proof file");
  return staging.end();
}

// The time by the clock of the filesystem that `originals` is on: status times are compared with it.
Result<timespec> filesystem_time(const VolumeRef& volume, int originals) {
  struct stat of_originals {};
  struct stat st {};
  if (fstat(originals, &of_originals) != 0 || fstat(volume.profile->dir.get(), &st) != 0) {
    return system_error(errno, "stat");
  }
  if (st.st_dev != of_originals.st_dev) return timespec{0, 0};  // another clock
  constexpr const char* kName = "setup-clock";
  const int dir = volume.profile->dir.get();
  const Fd probe(openat(dir, kName, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!probe || fchmod(probe.get(), 0600) != 0 || fstat(probe.get(), &st) != 0) return system_error(errno, kName);
  unlinkat(dir, kName, 0);
  return st.st_ctim;
}

}  // namespace

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string base_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::vector<wrap::Holder> users_of(const std::string& path) {
  std::vector<wrap::Holder> users = wrap::holders_of({path, "", "", "", 0, 0});
  users.erase(std::remove_if(users.begin(), users.end(), [](const wrap::Holder& h) { return h.pid == getpid(); }),
              users.end());
  return users;
}

Status check_space(const std::string& where, const Survey* copy) {
  struct statvfs fs {};
  if (statvfs(where.c_str(), &fs) != 0) return system_error(errno, where);
  const std::uint64_t free_bytes = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize;
  std::uint64_t need = kSpareBytes;
  if (copy != nullptr) need += copy->data_bytes + copy->data_bytes / 32 + copy->num_entries * kEntryBytes;
  if (free_bytes >= need) return {};
  return Error{Code::kNoSpace, ENOSPC,
               where + " has " + size_text(free_bytes) + " of free space, and " + size_text(need) + " are needed" +
                   (copy != nullptr ? ": files are removed only after all of them are copied and compared" : "")};
}

Result<Staging> Staging::mount(const VolumeRef& volume, const Secret& key) {
  ECFS_LET(const std::string keys, path_of_directory(volume.profile->dir.get()));
  const std::string path = keys + "/" + kStagingName;
  ECFS_LET(Fd below, make_directory(volume.profile->dir.get(), kStagingName, 0700));
  ECFS_LET(wrap::VolumeStore store, open_store(volume, false));
  ECFS_LET(Secret copy, key.clone());
  ECFS_TRY(store.unlock_with_key(std::move(copy)));
  MountJob job;
  job.volume = &volume;
  const Mountpoint at{path, std::move(below)};
  ECFS_LET(const Child server, mount_volume(job, store, key, at));
  Staging staging(path, server);
  ECFS_LET(staging.root_, open_directory(AT_FDCWD, path));
  return staging;
}

Staging::~Staging() {
  if (path_.empty()) return;
  root_.reset();
  if (!wrap::unmount(path_, false)) (void)wrap::unmount(path_, true);
  (void)server_.wait(kEndMs);
}

Status Staging::end() {
  root_.reset();
  Status done;
  for (int waited_ms = 0;; waited_ms += 100) {
    done = wrap::unmount(path_, false);
    // A program that looks into every new mount for a moment (an indexer) is waited for.
    if (done || done.error().code != Code::kBusy || waited_ms >= 5000) break;
    poll(nullptr, 0, 100);
  }
  if (!done) return done;
  path_.clear();
  ECFS_LET(const int status, server_.wait(kEndMs));
  if (status != 0) return Error{Code::kIo, 0, "ecfs-mountd reported a failure at the unmount"};
  return {};
}

Status Staging::clear(int profile_dir) {
  ECFS_LET(const std::string keys, path_of_directory(profile_dir));
  const std::string path = keys + "/" + kStagingName;
  ECFS_LET(const std::optional<wrap::MountEntry> mounted, wrap::ecfs_mount_at(path));
  if (!mounted || wrap::unmount(path, false)) return {};
  const Status detached = wrap::unmount(path, true);
  ECFS_LET(const std::optional<wrap::MountEntry> still, wrap::ecfs_mount_at(path));
  return still ? detached : Status();  // its own supervisor may have been faster
}

Result<Secret> make_volume(VolumeRef& volume, const VolumeOptions& options, NewKeys& keys) {
  ECFS_LET(NewVolume fresh, begin_volume(options, volume.lower_dir.get()));
  if (keys.tpm) {
    ECFS_TRY(fresh.add_tpm2("login", {&*keys.tpm, keys.pcrs, &keys.passphrase, keys.cost}));
  } else {
    ECFS_TRY(fresh.add_password("login", keys.passphrase, keys.cost));
  }
  if (keys.recovery) ECFS_TRY(fresh.add_recovery("", *keys.recovery));
  ECFS_TRY(check_signals());
  volume.profile->profile.volume_id = fresh.header.id;
  ECFS_TRY(wrap::VolumeStore::create(volume.places(), fresh.header, std::move(fresh.area), fresh.key));
  ECFS_TRY(prove_keys(volume, fresh.key, keys));
  ECFS_TRY(check_signals());
  ECFS_TRY(prove_mount(volume, fresh.key));
  return std::move(fresh.key);
}

Result<timespec> copy_inside(const VolumeRef& volume, const Secret& key, int originals, const std::string& shown,
                             const Survey& survey, const std::function<Status(int root)>& finish) {
  {
    ECFS_LET(Staging staging, Staging::mount(volume, key));
    {
      Progress progress("Copying  ", survey.data_bytes);
      if (auto done = copy_tree(originals, staging.root(), progress); !done) {
        return with_context(std::move(done).error(), "copy the files of " + shown);
      }
    }
    if (syncfs(staging.root()) != 0) return system_error(errno, "bring the copy to the disk");
    ECFS_TRY(staging.end());
  }
  if (syncfs(volume.lower_dir.get()) != 0) return system_error(errno, "bring the copy to the disk");
  ECFS_LET(Staging staging, Staging::mount(volume, key));
  ECFS_LET(const timespec before, filesystem_time(volume, originals));
  {
    Progress progress("Comparing", survey.data_bytes);
    ECFS_TRY(compare_trees(originals, staging.root(), progress));
  }
  if (finish) ECFS_TRY(finish(staging.root()));
  ECFS_TRY(staging.end());
  return before;
}

void warn_about_lower(int dir, const std::string& path) {
  if (fsetxattr(dir, "user.ecfs-test", "1", 1, 0) != 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
    warn("the filesystem of " + path + " holds no extended attributes: files in this volume will have none");
  }
  (void)fremovexattr(dir, "user.ecfs-test");
}

}  // namespace ecfs::setup
