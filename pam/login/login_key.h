// What a login opens of a volume: its password slots and those of the TPM or, where ecryptfs-utils set it up, the file
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
  // of reads what there is; `lower_dir` may be -1. `who` is the user, whose ~/.ecryptfsrc counts. Without a TPM its
  // slots are not tried.
  static Result<LoginKey> of(const Identity& who, const wrap::OpenProfile& volume, int lower_dir, LoginTpm tpm = {});

  // present says whether there is anything that a password could open.
  [[nodiscard]] bool present() const;

  // open gives the secret of the volume: kWrongKey if the password does not fit, kNotFound if it is not present().
  // First come slots that the TPM opens by itself, then what the password alone opens, then the TPM with the password,
  // unless that is known to be `stale`: each wrong one is a try less. `password` may be empty: kNoKey if the TPM does
  // not open. kOnlyTpmTried (volumes.h) is marked.
  Result<Secret> open(const Secret& password, bool stale = false);
  // open_otherwise takes an old password, a recovery key or (ecryptfs-utils) the mount passphrase, and makes the login
  // password open the volume from now on: `rewrapped`. It does not if the TPM is needed for that and refuses.
  Result<Secret> open_otherwise(const Secret& other, const Secret& login, bool& rewrapped);
  // open_by_recovery takes a recovery key, and changes nothing. kWrongKey if it is none of the volume's.
  Result<Secret> open_by_recovery(const Secret& typed);
  // change puts the new password in the place of the old one. That the new one opens already is success.
  Status change(const Secret& old_password, const Secret& new_password);

  // opened_by_password: the last open() succeeded by the password it was given.
  [[nodiscard]] bool opened_by_password() const { return by_password_; }
  // uses_tpm2 says whether the volume has keys of a TPM; what cannot be read has none.
  static bool uses_tpm2(const wrap::OpenProfile& volume);

  // finish is called with the secret: it repairs damaged copies, binds keys of the TPM anew where that is wanted, puts
  // the keys into the keyring and fills in what the server of the mount needs.
  Status finish(Secret secret, OpenVolume& opened);
  // resume gives a suspended mount its keys back.
  Status resume(const Secret& secret, const wrap::VolumeId& mount);

 private:
  LoginKey(const wrap::OpenProfile& volume, const wrap::EcryptfsSalt& salt, LoginTpm tpm)
      : volume_(&volume), salt_(salt), tpm_(tpm.tpm), reseal_(tpm.reseal) {}
  [[nodiscard]] bool ecryptfs() const { return volume_->profile.format == wrap::kEcryptfsFormat; }
  [[nodiscard]] Error only_tpm_tried(Error error) const;
  // take notes which slot it was, and gives the secret.
  Secret take(wrap::Unlocked unlocked);
  [[nodiscard]] Result<std::vector<wrap::EcryptfsKey>> keys(const Secret& secret) const;

  const wrap::OpenProfile* volume_;
  wrap::EcryptfsSalt salt_;
  wrap::Tpm2* tpm_;
  bool reseal_;
  bool by_password_ = false;
  std::vector<std::string> troubles_;       // of the TPM, where something else opened
  std::optional<wrap::VolumeStore> store_;  // none: wrapped-passphrase
  std::uint32_t slot_id_ = 0;               // which slot opened it
  wrap::SlotType slot_type_{};
};

}  // namespace ecfs::pam
