#include "setup/new_volume.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <vector>

#include "setup/volume_ref.h"
#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

const std::map<std::string, std::uint8_t> kBlockShifts = {
    {"4k", 12}, {"8k", 13}, {"16k", 14}, {"32k", 15}, {"64k", 16}};

std::pair<std::string, std::string> split_path(const std::string& absolute) {
  const std::size_t slash = absolute.rfind('/');
  return {slash == 0 ? "/" : absolute.substr(0, slash), absolute.substr(slash + 1)};
}

}  // namespace

void add_volume_options(CommandLine command, VolumeOptions& options) {
  command
      .add_option("--name-encoding", options.name_encoding,
                  "base64url, or base32hex for lower filesystems that do not tell upper from lower case")
      .one_of({"base64url", "base32hex"})
      .show_default();
  command.add_option("--block-size", options.block_size, "Size of encrypted blocks: 4k, 8k, 16k, 32k, 64k")
      .one_of({"4k", "8k", "16k", "32k", "64k"})
      .show_default();
  command.add_option("--suite", options.suite, "Cipher: auto, aes-256-gcm, chacha20-poly1305")
      .one_of({"auto", "aes-256-gcm", "chacha20-poly1305"})
      .show_default();
  command
      .add_option("--longest-name", options.longest_name,
                  "Longest name the lower filesystem takes, in bytes (64 to 255); default: as it says itself")
      .value_name("N")
      .range(64, 255);
  command.add_flag("--sealed-size", options.sealed_size,
                   "Seal the sizes of files, so that a file cut at its end is noticed");
}

Result<NewVolume> begin_volume(const VolumeOptions& options, int lower_dir) {
  NewVolume volume;
  ECFS_TRY(fill_random(volume.header.id));
  volume.header.suite = options.suite == "auto"          ? wrap::preferred_suite()
                        : options.suite == "aes-256-gcm" ? wrap::Suite::kAes256Gcm
                                                         : wrap::Suite::kChaCha20Poly1305;
  volume.header.block_shift = kBlockShifts.at(options.block_size);
  volume.header.name_encoding =
      options.name_encoding == "base32hex" ? wrap::NameEncoding::kBase32Hex : wrap::NameEncoding::kBase64Url;
  unsigned longest = options.longest_name;
  if (longest == 0) {
    errno = 0;
    const long limit = fpathconf(lower_dir, _PC_NAME_MAX);
    longest = limit < 0 || limit > 255 ? 255 : static_cast<unsigned>(limit);
  }
  if (longest < 64)
    return Error{Code::kUnsupported, 0, "the lower filesystem takes names of 64 bytes at least; this one does not"};
  volume.header.longest_name = longest == 255 ? std::uint8_t{0} : static_cast<std::uint8_t>(longest);
  if (options.sealed_size) volume.header.incompat |= wrap::kIncompatSealedSize;
  ECFS_LET(volume.key, Secret::random(wrap::kVolumeKeyBytes));
  return volume;
}

Status NewVolume::add_password(std::string_view label, const Secret& passphrase, const wrap::Argon2Cost& cost) {
  ECFS_LET(wrap::Slot slot, wrap::make_password_slot(header.id, area.unused_id(), label, key, passphrase, cost));
  area.slots.push_back(std::move(slot));
  return {};
}

Status NewVolume::add_tpm2(std::string_view label, const wrap::Tpm2Lock& lock) {
  ECFS_LET(wrap::Slot slot, wrap::make_tpm2_slot(header.id, area.unused_id(), label, key, lock));
  area.slots.push_back(std::move(slot));
  return {};
}

Status NewVolume::add_recovery(std::string_view label, const wrap::RecoveryKey& recovery) {
  ECFS_LET(wrap::Slot slot, wrap::make_recovery_slot(header.id, area.unused_id(), label, key, recovery));
  area.slots.push_back(std::move(slot));
  return {};
}

Result<NewDirectory> NewDirectory::make(const std::string& path, mode_t mode) {
  auto absolute = absolute_path(path);
  if (!absolute) {
    if (absolute.error().code == Code::kNotFound) {
      return Error{Code::kNotFound, ENOENT, path + ": the directory it is to be made in does not exist"};
    }
    return std::move(absolute).error();
  }
  const auto [parent, name] = split_path(*absolute);
  ECFS_LET(Fd above, open_directory(AT_FDCWD, parent));
  const bool made = mkdirat(above.get(), name.c_str(), mode) == 0;
  if (!made && errno != EEXIST) return system_error(errno, "make the directory " + path);
  auto dir = open_directory(above.get(), name);
  if (!dir) {
    if (dir.error().sys_errno == ENOTDIR || dir.error().sys_errno == ELOOP) {
      return Error{Code::kInvalid, dir.error().sys_errno, path + " exists and is not a directory"};
    }
    return with_context(std::move(dir).error(), path);
  }
  struct stat st {};
  if (fstat(dir->get(), &st) != 0) return system_error(errno, "stat " + path);
  if (st.st_uid != geteuid()) return Error{Code::kDenied, EPERM, path + " belongs to another user"};
  if (!made) {
    ECFS_LET(const std::vector<std::string> names, list_directory(dir->get()));
    if (!names.empty()) {
      struct stat volume {};
      const bool is_volume = fstatat(dir->get(), wrap::kVolumeFileName, &volume, AT_SYMLINK_NOFOLLOW) == 0;
      return Error{
          Code::kBusy, ENOTEMPTY,
          path + (is_volume ? " is an ecfs volume already" : " is not empty; a volume is made in an empty directory")};
    }
  }
  NewDirectory result(*absolute, *std::move(dir), std::move(above), made, st.st_mode & 07777);
  if (fchmod(result.fd(), mode) != 0) return system_error(errno, "set the mode of " + path);
  if (made) ECFS_TRY(sync_directory(result.undo_.get()));
  return result;
}

NewDirectory::~NewDirectory() {
  if (!undo_ || !dir_) return;
  // On the way out of a failure that was reported already; what cannot be removed stays to be seen.
  if (!remove_contents(dir_.get())) return;
  if (made_) {
    unlinkat(undo_.get(), split_path(path_).second.c_str(), AT_REMOVEDIR);
  } else {
    (void)fchmod(dir_.get(), mode_before_);
  }
}

Status remove_contents(int dir) {
  struct stat here {};
  if (fstat(dir, &here) != 0) return system_error(errno, "stat a directory");
  ECFS_LET(const std::vector<std::string> names, list_directory(dir));
  for (const std::string& name : names) {
    struct stat st {};
    if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      return system_error(errno, "stat " + name);
    }
    if (S_ISDIR(st.st_mode)) {
      if (st.st_dev != here.st_dev) return Error{Code::kBusy, EBUSY, name + " is another filesystem's mountpoint"};
      ECFS_TRY(remove_tree(dir, name));
    } else if (unlinkat(dir, name.c_str(), 0) != 0 && errno != ENOENT) {
      return system_error(errno, "remove " + name);
    }
  }
  return {};
}

Status remove_tree(int parent_dir, const std::string& name) {
  auto dir = open_directory(parent_dir, name);
  if (!dir) return std::move(dir).error();
  struct stat st {};
  // A directory without write permission (a copied one may be so) would keep its entries.
  if (fstat(dir->get(), &st) == 0 && (st.st_mode & S_IRWXU) != S_IRWXU) (void)fchmod(dir->get(), st.st_mode | S_IRWXU);
  ECFS_TRY(remove_contents(dir->get()));
  if (unlinkat(parent_dir, name.c_str(), AT_REMOVEDIR) != 0) return system_error(errno, "remove directory " + name);
  return {};
}

}  // namespace ecfs::setup
