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

// The login's password slot made anew, at the costs of the old one.
Status rewrap(wrap::VolumeStore& store, const Secret& key, const wrap::Slot* old_slot, const Secret& new_password) {
  wrap::Argon2Cost cost;
  auto old_cost = old_slot != nullptr ? wrap::password_cost(*old_slot) : Result<wrap::Argon2Cost>(cost);
  if (old_slot != nullptr && old_cost && wrap::check_cost_writable(*old_cost)) {
    cost = *old_cost;
  } else {
    ECFS_LET(cost, wrap::calibrate());
  }
  const std::string label = old_slot != nullptr ? old_slot->label : "login";
  ECFS_LET(wrap::Slot slot,
           wrap::make_password_slot(store.header().id, store.area().unused_id(), label, key, new_password, cost));
  if (old_slot == nullptr) return store.add_slot(key, std::move(slot));
  const std::uint32_t old_id = old_slot->id;
  return store.replace_slot(key, old_id, std::move(slot));
}

// The slot to wrap anew when a recovery key opened the volume: the only password slot; where there are several we
// cannot know which was the login's, and add one.
const wrap::Slot* only_password_slot(const wrap::SlotArea& area) {
  const wrap::Slot* found = nullptr;
  for (const wrap::Slot& slot : area.slots) {
    if (slot.type != wrap::SlotType::kPassword) continue;
    if (found != nullptr) return nullptr;
    found = &slot;
  }
  return found;
}

// Opens with what the user typed besides the login password, and wraps the login's slot anew.
Result<wrap::Unlocked> unlock_and_rewrap(wrap::VolumeStore& store, const Secret& login, const Secret& other) {
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
  if (!unlocked) return unlocked;
  const wrap::Slot* opened = store.area().find(unlocked->slot_id);
  const bool by_password = opened != nullptr && opened->type == wrap::SlotType::kPassword;
  ECFS_TRY(rewrap(store, unlocked->key, by_password ? opened : only_password_slot(store.area()), login));
  return unlocked;
}

// What cannot be a mount passphrase, or gives other keys, is a wrong one here.
Error wrong() { return Error{Code::kWrongKey, 0, "neither the wrapping passphrase nor the mount passphrase"}; }

}  // namespace

Result<LoginKey> LoginKey::of(const Identity& who, const wrap::OpenProfile& volume, int lower_dir) {
  const wrap::Profile& profile = volume.profile;
  const bool ecryptfs = profile.format == wrap::kEcryptfsFormat;
  if (!ecryptfs && profile.format != wrap::kNativeFormat) {
    return Error{Code::kUnsupported, 0, "its format '" + profile.format + "' is not known"};
  }
  wrap::EcryptfsSalt salt = wrap::kEcryptfsContentSalt;
  if (ecryptfs) {
    ECFS_LET(salt, wrap::salt_of_user(who));
  }
  LoginKey key(volume, salt);
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

bool LoginKey::present() const {
  if (store_) return store_->area().count(wrap::SlotType::kPassword) != 0;
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

Result<Secret> LoginKey::open(const Secret& password) {
  if (store_) {
    ECFS_LET(wrap::Unlocked unlocked, store_->unlock_with_passphrase(password));
    return take(std::move(unlocked));
  }
  if (!present()) return Error{Code::kNotFound, 0, "it has no passphrase of the login's"};
  return wrap::unwrap_private(*volume_, password, salt_);
}

Result<Secret> LoginKey::open_otherwise(const Secret& other, const Secret& login) {
  if (store_) {
    ECFS_LET(auto unlocked, unlock_and_rewrap(*store_, login, other));
    return take(std::move(unlocked));
  }
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

Status LoginKey::change(const Secret& old_password, const Secret& new_password) {
  if (store_) {
    auto unlocked = store_->unlock_with_passphrase(old_password);
    if (unlocked) {
      return rewrap(*store_, unlocked->key, store_->area().find(unlocked->slot_id), new_password);
    }
    if (unlocked.error().code == Code::kWrongKey && store_->unlock_with_passphrase(new_password)) return {};
    return std::move(unlocked).error();
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
    if (auto repaired = store_->repair(secret); !repaired) opened.log.push_back(repaired.error().what);
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
