// Making a volume: its directory, header and first slots; and taking back what was made when something fails.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "setup/command_line.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/keyslot.h"
#include "wrap/volume_store.h"

namespace ecfs::setup {

struct VolumeOptions {
  std::string name_encoding = "base64url";
  std::string block_size = "4k";
  std::string suite = "auto";
  unsigned longest_name = 0;  // bytes; 0: what the lower filesystem takes
  bool sealed_size = false;
};
// add_volume_options declares --name-encoding, --block-size, --suite, --longest-name, --sealed-size.
void add_volume_options(CommandLine command, VolumeOptions& options);

// A volume that is not on disk yet.
struct NewVolume {
  wrap::VolumeHeader header;
  Secret key;
  wrap::SlotArea area;

  Status add_password(std::string_view label, const Secret& passphrase, const wrap::Argon2Cost& cost);
  // add_tpm2 adds a key of type tpm2 or, with a passphrase, tpm2+password.
  Status add_tpm2(std::string_view label, const wrap::Tpm2Lock& lock);
  Status add_recovery(std::string_view label, const wrap::RecoveryKey& recovery);
};
// begin_volume draws id and key. Names are as long as the filesystem of `lower_dir` takes them, unless the options say.
Result<NewVolume> begin_volume(const VolumeOptions& options, int lower_dir);

// NewDirectory is a directory for a volume: made, or found empty. Unless keep() was called it is put back as it was
// when the object goes, with all that has come into it.
class NewDirectory {
 public:
  // make: the directory above must exist. What is there and not an empty directory of ours: kBusy, kInvalid, kDenied.
  static Result<NewDirectory> make(const std::string& path, mode_t mode);
  NewDirectory(NewDirectory&&) noexcept = default;
  NewDirectory& operator=(NewDirectory&&) = delete;
  ~NewDirectory();
  [[nodiscard]] int fd() const noexcept { return dir_.get(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] bool made() const noexcept { return made_; }  // else it was there, empty
  void keep() noexcept { undo_.reset(); }

 private:
  NewDirectory(std::string path, Fd dir, Fd undo, bool made, mode_t mode_before)
      : path_(std::move(path)), dir_(std::move(dir)), undo_(std::move(undo)), made_(made), mode_before_(mode_before) {}
  std::string path_;  // absolute
  Fd dir_;
  Fd undo_;  // the directory above, while there is something to undo
  bool made_;
  mode_t mode_before_;
};

// remove_contents removes all that is in a directory, never following a symbolic link and never going into another
// filesystem. remove_tree removes the directory as well.
Status remove_contents(int dir);
Status remove_tree(int parent_dir, const std::string& name);

}  // namespace ecfs::setup
