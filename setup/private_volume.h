// What setup-private does for a Private directory and for a whole home alike: making the volume of a profile, proving
// that it opens, and copying files inside. Everything here runs as the user whose files they are. One thread.
#pragma once

#include <sys/stat.h>
#include <time.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "setup/move.h"
#include "setup/new_volume.h"
#include "setup/volume_ref.h"
#include "wrap/base/fd.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/kdf.h"
#include "wrap/mount.h"
#include "wrap/recovery_key.h"
#include "wrap/tpm2.h"

namespace ecfs::setup {

std::string parent_of(const std::string& path);  // of an absolute path
std::string base_of(const std::string& path);

// Undo runs what it was told, in reverse, unless it is told to forget.
class Undo {
 public:
  Undo() = default;
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;
  ~Undo() {
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) (*step)();
  }
  void add(std::function<void()> step) { steps_.push_back(std::move(step)); }
  void forget() noexcept { steps_.clear(); }

 private:
  std::vector<std::function<void()>> steps_;
};

// users_of lists the programs that have files below `path` open, but this one.
std::vector<wrap::Holder> users_of(const std::string& path);

// check_space: is there room for the volume, and for a copy of what was surveyed, in the directory `where`? kNoSpace.
Status check_space(const std::string& where, const Survey* copy);

constexpr const char* kStagingName = "setup-mount";

// Staging is the volume mounted where only its user looks: the directory `setup-mount` beside the keys.
class Staging {
 public:
  static Result<Staging> mount(const VolumeRef& volume, const Secret& key);
  Staging(Staging&& other) noexcept
      : path_(std::exchange(other.path_, "")), server_(other.server_), root_(std::move(other.root_)) {}
  Staging& operator=(Staging&&) = delete;
  ~Staging();
  [[nodiscard]] int root() const noexcept { return root_.get(); }
  // end unmounts and waits until everything is in the lower directory.
  Status end();
  // clear ends what a killed run left mounted beside the keys in `profile_dir`.
  static Status clear(int profile_dir);

 private:
  Staging(std::string path, const Child& server) : path_(std::move(path)), server_(server) {}
  std::string path_;
  Child server_;
  Fd root_;
};

// What opens a new volume.
struct NewKeys {
  Secret passphrase;
  wrap::Argon2Cost cost;
  std::optional<wrap::RecoveryKey> recovery;
  std::optional<wrap::Tpm2> tpm;  // the passphrase goes together with it
  wrap::PcrSet pcrs = 0;          // of the TPM
};

// make_volume makes the volume of a profile whose directories are there, and proves that each of the keys opens it, the
// recovery key also from LOWER alone, and that a file written through a mount comes back. Gives the volume key; the id
// is in volume.profile. What it made is its caller's to remove when it fails.
Result<Secret> make_volume(VolumeRef& volume, const VolumeOptions& options, NewKeys& keys);

// copy_inside copies the files of `originals` into the empty volume, unmounts, mounts anew and compares what comes from
// the disk. `finish` then gets the root of the volume, for what the copy is to hold besides. Gives the moment before
// the comparison by the clock of the originals' filesystem; {0, 0} if that cannot be known.
Result<timespec> copy_inside(const VolumeRef& volume, const Secret& key, int originals, const std::string& shown,
                             const Survey& survey, const std::function<Status(int root)>& finish);

// warn_about_lower says what the filesystem of LOWER cannot hold.
void warn_about_lower(int dir, const std::string& path);

}  // namespace ecfs::setup
