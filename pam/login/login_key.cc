#include "pam/login/login_key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wrap/control.h"
#include "wrap/ecryptfs_private.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/keyring.h"
#include "wrap/keyslot.h"
#include "wrap/recovery_key.h"
#include "wrap/wrapped_passphrase.h"

namespace ecfs::pam {
namespace {

// The login's password slot made anew, at the costs of the old one; one of the TPM is sealed anew.
Status rewrap(wrap::VolumeStore& store, wrap::Tpm2* tpm, const Secret& key, const wrap::Slot* old_slot,
              const Secret& new_password) {
  wrap::Argon2Cost cost;
  auto old_cost = old_slot != nullptr ? wrap::password_cost(*old_slot) : Result<wrap::Argon2Cost>(cost);
  if (old_slot != nullptr && old_cost && wrap::check_cost_writable(*old_cost)) {
    cost = *old_cost;
  } else {
    ECFS_LET(cost, wrap::calibrate());
  }
  const std::string label = old_slot != nullptr ? old_slot->label : "login";
  const bool with_tpm = old_slot != nullptr && old_slot->type == wrap::SlotType::kTpm2Password;
  const auto make = [&]() -> Result<wrap::Slot> {
    const std::uint32_t id = store.area().unused_id();
    if (!with_tpm) return wrap::make_password_slot(store.header().id, id, label, key, new_password, cost);
    if (tpm == nullptr) return Error{Code::kUnavailable, 0, "the TPM cannot be used"};
    ECFS_LET(const wrap::Tpm2Sealed sealed, wrap::tpm2_sealed(*old_slot));
    return wrap::make_tpm2_slot(store.header().id, id, label, key, {tpm, sealed.pcrs, &new_password, cost});
  };
  ECFS_LET(wrap::Slot slot, make());
  if (old_slot == nullptr) return store.add_slot(key, std::move(slot));
  const std::uint32_t old_id = old_slot->id;
  return store.replace_slot(key, old_id, std::move(slot));
}

bool has(const wrap::VolumeStore& store, wrap::SlotType type) { return store.area().count(type) != 0; }

// The slot to wrap anew when a recovery key opened the volume: the only one of its type; of several we cannot know
// which was the login's.
const wrap::Slot* only_slot(const wrap::SlotArea& area, wrap::SlotType type) {
  const wrap::Slot* found = nullptr;
  for (const wrap::Slot& slot : area.slots) {
    if (slot.type != type) continue;
    if (found != nullptr) return nullptr;
    found = &slot;
  }
  return found;
}

// Binds anew what the TPM alone does not open any more. Gives the number of slots.
Result<int> reseal(wrap::VolumeStore& store, wrap::Tpm2& tpm, const Secret& key) {
  std::vector<wrap::Slot> slots;
  std::vector<wrap::Tpm2Sealed> sealed;
  for (const wrap::Slot& slot : store.area().slots) {
    if (slot.type != wrap::SlotType::kTpm2) continue;
    auto kept = wrap::tpm2_sealed(slot);
    if (!kept) continue;
    slots.push_back(slot);
    sealed.push_back(*std::move(kept));
  }
  ECFS_LET(const wrap::Tpm2Status status, tpm.status(sealed));
  int done = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    // That of another TPM is for another computer.
    const wrap::Tpm2Opens opens = status.slots[i].opens;
    if (opens == wrap::Tpm2Opens::kYes || opens == wrap::Tpm2Opens::kOtherTpm) continue;
    ECFS_LET(wrap::Slot slot, wrap::make_tpm2_slot(store.header().id, store.area().unused_id(), slots[i].label, key,
                                                   {&tpm, sealed[i].pcrs, nullptr, {}}));
    ECFS_TRY(store.replace_slot(key, slots[i].id, std::move(slot)));
    ++done;
  }
  return done;
}

// Opens with what the user typed besides the login password, and wraps the login's slot anew. Where the login password
// goes together with the TPM, that slot, and no weaker one is added.
Result<wrap::Unlocked> unlock_and_rewrap(wrap::VolumeStore& store, wrap::Tpm2* tpm, const Secret& login,
                                         const Secret& other, bool& rewrapped) {
  const bool is_recovery = wrap::RecoveryKey::looks_like_one(other.reveal());
  auto unlocked = [&]() -> Result<wrap::Unlocked> {
    if (!is_recovery) return store.unlock_with_passphrase(other);
    ECFS_LET(const wrap::RecoveryKey key, wrap::RecoveryKey::parse(other.reveal()));
    return store.unlock_with_recovery(key);
  }();
  // A password may look like a recovery key.
  if (!unlocked && is_recovery) {
    if (auto second = store.unlock_with_passphrase(other)) unlocked = std::move(second);
  }
  if (!unlocked && tpm != nullptr && has(store, wrap::SlotType::kTpm2Password)) {
    unlocked = store.unlock_with_tpm2(*tpm, &other);
  }
  if (!unlocked) return unlocked;
  const wrap::Slot* slot = store.area().find(unlocked->slot_id);
  const bool by_password =
      slot != nullptr && (slot->type == wrap::SlotType::kPassword || slot->type == wrap::SlotType::kTpm2Password);
  if (!by_password) slot = only_slot(store.area(), wrap::SlotType::kPassword);
  if (slot == nullptr && !has(store, wrap::SlotType::kPassword) && has(store, wrap::SlotType::kTpm2Password)) {
    slot = only_slot(store.area(), wrap::SlotType::kTpm2Password);
    if (slot == nullptr) return unlocked;
  }
  // That the TPM does not take the new password leaves the volume open, and no less safe.
  const bool with_tpm = slot != nullptr && slot->type == wrap::SlotType::kTpm2Password;
  const Status done = rewrap(store, tpm, unlocked->key, slot, login);
  if (!done && !with_tpm) return done.error();
  rewrapped = done.has_value();
  return unlocked;
}

// What cannot be a mount passphrase, or gives other keys, is a wrong one here.
Error wrong() { return Error{Code::kWrongKey, 0, "neither the wrapping passphrase nor the mount passphrase"}; }

}  // namespace

Result<LoginKey> LoginKey::of(const Identity& who, const wrap::OpenProfile& volume, int lower_dir, LoginTpm tpm) {
  const wrap::Profile& profile = volume.profile;
  const bool ecryptfs = profile.format == wrap::kEcryptfsFormat;
  if (!ecryptfs && profile.format != wrap::kNativeFormat) {
    return Error{Code::kUnsupported, 0, "its format '" + profile.format + "' is not known"};
  }
  wrap::EcryptfsSalt salt = wrap::kEcryptfsContentSalt;
  if (ecryptfs) {
    ECFS_LET(salt, wrap::salt_of_user(who));
  }
  LoginKey key(volume, salt, tpm);
  if (volume.of_ecryptfs_utils) return key;
  wrap::VolumeStore::Places places;
  places.lower_dir = ecryptfs ? -1 : lower_dir;
  places.profile_dir = volume.dir.get();
  places.kind = ecryptfs ? wrap::VolumeKind::kEcryptfs : wrap::VolumeKind::kNative;
  places.slots_in_volume = profile.slots_in_volume;
  places.pinned = profile.volume_id;
  ECFS_LET(key.store_, wrap::VolumeStore::open(places));
  return key;
}

bool LoginKey::uses_tpm2(const wrap::OpenProfile& volume) {
  if (volume.of_ecryptfs_utils) return false;
  wrap::VolumeStore::Places places;  // LOWER's copy never has slots that the profile's does not
  places.profile_dir = volume.dir.get();
  places.kind =
      volume.profile.format == wrap::kEcryptfsFormat ? wrap::VolumeKind::kEcryptfs : wrap::VolumeKind::kNative;
  places.pinned = volume.profile.volume_id;
  const auto store = wrap::VolumeStore::open(places);
  return store && (has(*store, wrap::SlotType::kTpm2) || has(*store, wrap::SlotType::kTpm2Password));
}

bool LoginKey::present() const {
  if (store_) return has(*store_, wrap::SlotType::kPassword) || has(*store_, wrap::SlotType::kTpm2Password);
  struct stat st {};
  return !wrap::is_wrapping_independent(*volume_) &&
         fstatat(volume_->dir.get(), wrap::kWrappedPassphraseName, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

Secret LoginKey::take(wrap::Unlocked unlocked) {
  const wrap::Slot* slot = store_->area().find(unlocked.slot_id);
  slot_id_ = unlocked.slot_id;
  slot_type_ = slot != nullptr ? slot->type : wrap::SlotType::kPassword;  // it was wrapped anew
  return std::move(unlocked.key);
}

Error LoginKey::only_tpm_tried(Error error) const {
  if (has(*store_, wrap::SlotType::kRecovery)) error.sys_errno = kOnlyTpmTried;
  return error;
}

Result<Secret> LoginKey::open(const Secret& password, bool stale) {
  if (store_) {
    std::optional<Error> trouble;
    if (tpm_ != nullptr && has(*store_, wrap::SlotType::kTpm2)) {
      auto unlocked = store_->unlock_with_tpm2(*tpm_, nullptr);
      by_password_ = false;
      if (unlocked) return take(*std::move(unlocked));
      troubles_.push_back(unlocked.error().what);
      trouble = std::move(unlocked).error();
    }
    by_password_ = true;
    if (password.empty()) {
      return trouble ? only_tpm_tried(*std::move(trouble)) : Error{Code::kNoKey, 0, "there is no login password"};
    }
    auto unlocked = store_->unlock_with_passphrase(password);
    if (unlocked) return take(*std::move(unlocked));
    if (unlocked.error().code != Code::kWrongKey && unlocked.error().code != Code::kNotFound) {
      return std::move(unlocked).error();
    }
    if (tpm_ != nullptr && has(*store_, wrap::SlotType::kTpm2Password)) {
      if (stale) return Error{Code::kWrongKey, 0, "the login password was changed without it"};
      unlocked = store_->unlock_with_tpm2(*tpm_, &password);
      if (unlocked) return take(*std::move(unlocked));
      if (unlocked.error().code != Code::kWrongKey && !has(*store_, wrap::SlotType::kPassword)) {
        return only_tpm_tried(std::move(unlocked).error());
      }
    }
    if (unlocked.error().code == Code::kNotFound && trouble) return only_tpm_tried(*std::move(trouble));
    return std::move(unlocked).error();
  }
  by_password_ = true;
  if (password.empty()) return Error{Code::kNoKey, 0, "there is no login password"};
  if (!present()) return Error{Code::kNotFound, 0, "it has no passphrase of the login's"};
  return wrap::unwrap_private(*volume_, password, salt_);
}

Result<Secret> LoginKey::open_otherwise(const Secret& other, const Secret& login, bool& rewrapped) {
  if (store_) {
    ECFS_LET(wrap::Unlocked unlocked, unlock_and_rewrap(*store_, tpm_, login, other, rewrapped));
    if (!rewrapped) {
      troubles_.emplace_back(
          "its key in the TPM has another password than the login: ecfs key change --slot tpm2+password " +
          volume_->profile.name);
    }
    return take(std::move(unlocked));
  }
  rewrapped = true;
  const int dir = volume_->dir.get();
  auto passphrase = wrap::unwrap_private(*volume_, other, salt_);
  if (passphrase) {
    ECFS_TRY(wrap::rewrap_passphrase(dir, wrap::kWrappedPassphraseName, other, login, salt_));
    return passphrase;
  }
  if (!wrap::private_keys(volume_->profile, other, salt_)) return wrong();
  ECFS_TRY(wrap::write_wrapped_passphrase(dir, wrap::kWrappedPassphraseName, other, login));
  return other.clone();
}

Result<Secret> LoginKey::open_by_recovery(const Secret& typed) {
  const Error wrong_key{Code::kWrongKey, 0, "that is not its recovery key"};
  if (!store_) return wrong_key;
  const auto key = wrap::RecoveryKey::parse(typed.reveal());
  if (!key) return wrong_key;
  auto unlocked = store_->unlock_with_recovery(*key);
  if (unlocked) return take(*std::move(unlocked));
  return unlocked.error().code == Code::kNotFound ? wrong_key : std::move(unlocked).error();
}

Status LoginKey::change(const Secret& old_password, const Secret& new_password) {
  if (store_) {
    auto unlocked = store_->unlock_with_passphrase(old_password);
    Status done;
    if (unlocked) {
      done = rewrap(*store_, tpm_, unlocked->key, store_->area().find(unlocked->slot_id), new_password);
    } else if (unlocked.error().code == Code::kWrongKey && store_->unlock_with_passphrase(new_password)) {
      return {};
    }
    if (!done || tpm_ == nullptr || !has(*store_, wrap::SlotType::kTpm2Password)) {
      return unlocked ? std::move(done) : Status(std::move(unlocked).error());
    }
    auto by_tpm = store_->unlock_with_tpm2(*tpm_, &old_password);
    if (by_tpm) {
      const wrap::Slot* slot = store_->area().find(by_tpm->slot_id);
      if (auto sealed = rewrap(*store_, tpm_, by_tpm->key, slot, new_password); !sealed && !unlocked) return sealed;
      return {};
    }
    // Beside a slot that has the new password now, one of the TPM may have another, of its own.
    return unlocked ? Status() : Status(std::move(by_tpm).error());
  }
  auto passphrase = wrap::unwrap_private(*volume_, old_password, salt_);
  if (passphrase) {
    return wrap::rewrap_passphrase(volume_->dir.get(), wrap::kWrappedPassphraseName, old_password, new_password, salt_);
  }
  if (passphrase.error().code == Code::kWrongKey && wrap::unwrap_private(*volume_, new_password, salt_)) return {};
  return std::move(passphrase).error();
}

Result<std::vector<wrap::EcryptfsKey>> LoginKey::keys(const Secret& secret) const {
  if (!store_) return wrap::private_keys(volume_->profile, secret, salt_);
  ECFS_LET(const Secret passphrase, wrap::unpad_mount_passphrase(secret));
  return wrap::private_keys(volume_->profile, passphrase, salt_);
}

Status LoginKey::finish(Secret secret, OpenVolume& opened) {
  opened.slot_id = slot_id_;
  opened.slot_type = slot_type_;
  if (store_) {
    opened.notes = store_->notes();
    opened.notes.insert(opened.notes.end(), troubles_.begin(), troubles_.end());
    if (auto repaired = store_->repair(secret); !repaired) opened.log.push_back(repaired.error().what);
    if (reseal_ && tpm_ != nullptr && !troubles_.empty()) {
      const auto done = reseal(*store_, *tpm_, secret);
      if (!done) opened.log.push_back("its key in the TPM was not bound anew: " + done.error().what);
      if (done && *done > 0) opened.notes.emplace_back("its key in the TPM was bound to the present state");
    }
  }
  if (!ecryptfs()) {
    if (auto put = wrap::put_token(store_->header().id, secret); !put) opened.log.push_back(put.error().what);
    opened.volume_file = store_->file().raw;
    opened.key = std::move(secret);
    return {};
  }
  ECFS_LET(const std::vector<wrap::EcryptfsKey> all, keys(secret));
  for (const wrap::EcryptfsKey& key : all) {
    if (auto put = wrap::put_ecryptfs_token(key); !put) opened.log.push_back(put.error().what);
  }
  ECFS_LET(opened.key, wrap::pack_ecryptfs_keys(all));
  return {};
}

Status LoginKey::resume(const Secret& secret, const wrap::VolumeId& mount) {
  if (!ecryptfs()) {
    ECFS_TRY(wrap::resume_mounts(mount, geteuid(), secret));
    return wrap::put_token(mount, secret);
  }
  ECFS_LET(const std::vector<wrap::EcryptfsKey> all, keys(secret));
  ECFS_LET(const Secret packed, wrap::pack_ecryptfs_keys(all));
  ECFS_TRY(wrap::resume_mounts(mount, geteuid(), packed));
  for (const wrap::EcryptfsKey& key : all) ECFS_TRY(wrap::put_ecryptfs_token(key));
  return {};
}

}  // namespace ecfs::pam
