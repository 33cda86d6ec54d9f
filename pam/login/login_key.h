// What a login password opens of a volume: its password slots or, where ecryptfs-utils set it up, the file
// wrapped-passphrase. For pam/login/volumes.cc; in the user's child only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pam/login/volumes.h"
#include "wrap/ecryptfs_passphrase.h"
#include "wrap/profile.h"
#include "wrap/volume_store.h"

namespace ecfs::pam {

class LoginKey {
 public:
  // of reads what there is; `lower_dir` may be -1. `who` is the user, whose ~/.ecryptfsrc counts.
  static Result<LoginKey> of(const Identity& who, const wrap::OpenProfile& volume, int lower_dir);

  // present says whether there is anything that a password could open.
  [[nodiscard]] bool present() const;

  // open gives the secret of the volume: kWrongKey if the password does not fit, kNotFound if it is not present().
  Result<Secret> open(const Secret& password);
  // open_otherwise takes an old password, a recovery key or (ecryptfs-utils) the mount passphrase, and makes the login
  // password open the volume from now on.
  Result<Secret> open_otherwise(const Secret& other, const Secret& login);
  // change puts the new password in the place of the old one. That the new one opens already is success.
  Status change(const Secret& old_password, const Secret& new_password);

  // finish is called with the secret: it repairs damaged copies, puts the keys into the keyring and fills in what the
  // server of the mount needs.
  Status finish(Secret secret, OpenVolume& opened);
  // resume gives a suspended mount its keys back.
  Status resume(const Secret& secret, const wrap::VolumeId& mount);

 private:
  LoginKey(const wrap::OpenProfile& volume, const wrap::EcryptfsSalt& salt) : volume_(&volume), salt_(salt) {}
  [[nodiscard]] bool ecryptfs() const { return volume_->profile.format == wrap::kEcryptfsFormat; }
  // take notes which slot it was, and gives the secret.
  Secret take(wrap::Unlocked unlocked);
  [[nodiscard]] Result<std::vector<wrap::EcryptfsKey>> keys(const Secret& secret) const;

  const wrap::OpenProfile* volume_;
  wrap::EcryptfsSalt salt_;
  std::optional<wrap::VolumeStore> store_;  // none: wrapped-passphrase
  std::uint32_t slot_id_ = 0;               // which slot opened it
  wrap::SlotType slot_type_{};
};

}  // namespace ecfs::pam
