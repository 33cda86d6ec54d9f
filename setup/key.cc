// ecfs key list | add | remove | change | reseal: the slots of a volume.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>

#include "setup/command.h"
#include "setup/ecryptfs_private.h"
#include "setup/json.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/log.h"

namespace ecfs::setup {
namespace {

using wrap::SlotType;

struct Options {
  std::string volume;
  std::string type;
  std::string slot;
  std::string label;
  UnlockOptions unlock;
  SecretSource new_passphrase{-1, "", "--new-passphrase"};
  bool allow_weak = false;
  CostOptions cost;
  RecoveryOptions recovery;
  bool force = false;
  bool json = false;
  bool with_password = false;
  std::string pcrs;
};

std::string slot_text(const wrap::Slot& slot, std::size_t type_width) {
  std::string text = fmt::format("{:>3}  {:<{}}  {:<16}", slot.id, wrap::slot_type_name(slot.type), type_width,
                                 time_text(slot.created));
  if (!slot.known())
    return text + fmt::format("  (type {}: made by a newer version)", static_cast<unsigned>(slot.type));
  if (auto sealed = wrap::tpm2_sealed(slot); sealed) text += "  PCR " + wrap::pcrs_text(sealed->pcrs);
  if (auto cost = wrap::password_cost(slot); cost) {
    text += fmt::format("  argon2id {} MiB x {}", cost->memory_kib / 1024, cost->passes);
  }
  return slot.label.empty() ? text : text + "  " + slot.label;
}

// Of a Private as ecryptfs-utils made it.
Result<int> list_without_slots(const Options& o, const VolumeRef& volume) {
  if (o.json) {
    print_json({{"volume_id", nullptr},
                {"lower", volume.lower_path},
                {"profile", volume.profile->profile.name},
                {"generation", nullptr},
                {"slots", nlohmann::json::array()},
                {"notes", {upgrade_advice(volume)}}});
    return 0;
  }
  say(volume.shown() + " has no key slots: the wrapped passphrase of ecryptfs-utils opens it");
  note(volume.shown() + ": " + upgrade_advice(volume));
  return 0;
}

Result<int> list(const Options& o) {
  ECFS_LET(const VolumeRef volume, find_volume(o.volume));
  if (!has_slots(volume)) return list_without_slots(o, volume);
  ECFS_LET(const wrap::VolumeStore store, open_slots(volume, !o.json));
  if (o.json) {
    print_json({{"volume_id", to_hex(store.header().id)},
                {"lower", volume.lower_path},
                {"profile", volume.profile ? nlohmann::json(volume.profile->profile.name) : nlohmann::json()},
                {"generation", store.area().generation},
                {"slots", slots_json(store.area())},
                {"notes", store.notes()}});
    return 0;
  }
  std::size_t width = 10;
  for (const wrap::Slot& slot : store.area().slots) width = std::max(width, wrap::slot_type_name(slot.type).size());
  say(fmt::format(" ID  {:<{}}  CREATED", "TYPE", width));
  for (const wrap::Slot& slot : store.area().slots) say(slot_text(slot, width));
  return 0;
}

// A volume opened to change its keys: always with a passphrase or recovery key, never with the keyring's token, so that
// nobody can add a key of his own at a screen left unlocked.
struct Session {
  VolumeRef volume;
  wrap::VolumeStore store;
  wrap::Unlocked unlocked;
};
Result<Session> open_session(const Options& o) {
  ECFS_LET(VolumeRef volume, find_volume(o.volume));
  ECFS_LET(wrap::VolumeStore store, open_slots(volume));
  ECFS_LET(wrap::Unlocked unlocked, unlock(store, o.unlock, volume.shown(), Token::kIgnore));
  return Session{std::move(volume), std::move(store), std::move(unlocked)};
}

// Reads the volume anew under the lock: while questions were asked another program may have changed the keys.
Result<Fd> lock_and_refresh(Session& s) {
  ECFS_LET(Fd held, lock(s.volume));
  ECFS_LET(s.store, open_slots(s.volume, false));
  ECFS_LET(Secret key, s.unlocked.key.clone());
  ECFS_TRY(s.store.unlock_with_key(std::move(key)));
  ECFS_TRY(s.store.repair(s.unlocked.key));
  return held;
}

// A key that was just made: opens(store) must give the volume key back from what is on the disk now.
using Proof = std::function<Result<wrap::Unlocked>(wrap::VolumeStore&)>;

Status prove(const Session& s, std::uint32_t id, const Proof& opens) {
  ECFS_LET(wrap::VolumeStore fresh, open_slots(s.volume, false));
  ECFS_LET(const wrap::Unlocked opened, opens(fresh));
  if (!opened.key.equals(s.unlocked.key)) return Error{Code::kIo, 0, "the new key opens another volume"};
  if (fresh.area().find(id) == nullptr) return Error{Code::kIo, 0, "the new key is not on the disk"};
  return {};
}

struct NewKey {
  std::function<Result<wrap::Slot>(std::uint32_t id)> slot;
  Proof proof;  // of the slot made last
};

// What kind of key is to be made.
struct Kind {
  SlotType type;
  std::string label;
  wrap::PcrSet pcrs = 0;  // of the types of the TPM
};

// Without a password the TPM is all that is asked: then it should at least be the state that the owner chose to boot.
// With one, the key survives changes of firmware and boot settings.
constexpr wrap::PcrSet kPcrsAlone = 1U << 7;

Result<Kind> kind_of(const Options& o) {
  Kind kind{*wrap::slot_type_from_name(o.type), o.label};
  if (kind.type != SlotType::kTpm2) {
    if (o.with_password || !o.pcrs.empty()) {
      return Error{Code::kInvalid, 0, "--with-password and --pcrs are for keys of the TPM (ecfs key add tpm2)"};
    }
    return kind;
  }
  if (o.with_password) kind.type = SlotType::kTpm2Password;
  kind.pcrs = o.with_password ? 0 : kPcrsAlone;
  if (!o.pcrs.empty()) {
    ECFS_LET(kind.pcrs, wrap::parse_pcrs(o.pcrs));
  }
  return kind;
}

// The TPM answers, before anything is asked of a person.
Status check_tpm2(const Options& o) {
  ECFS_LET(wrap::Tpm2 tpm, start_tpm2(o.unlock.tcti));
  ECFS_TRY(tpm.status({}));
  return {};
}

struct Passphrase {
  Secret secret;
  wrap::Argon2Cost cost;
};
Result<std::shared_ptr<Passphrase>> new_passphrase(const Options& o, const char* prompt) {
  auto made = std::make_shared<Passphrase>();
  ECFS_LET(made->secret, choose_passphrase(o.new_passphrase, prompt, o.allow_weak));
  ECFS_LET(made->cost, choose_cost(o.cost));
  return made;
}

Result<NewKey> make_tpm2_key(const Options& o, const wrap::VolumeId& id_of_volume, std::shared_ptr<Secret> volume_key,
                             const Kind& kind) {
  std::shared_ptr<Passphrase> passphrase;
  if (kind.type == SlotType::kTpm2Password) {
    ECFS_LET(passphrase, new_passphrase(o, "Passphrase to be given together with the TPM: "));
  }
  ECFS_LET(wrap::Tpm2 started, start_tpm2(o.unlock.tcti));
  auto tpm = std::make_shared<wrap::Tpm2>(std::move(started));
  auto made = std::make_shared<std::uint32_t>(0);
  const auto typed = [passphrase] { return passphrase ? &passphrase->secret : nullptr; };
  return NewKey{[=](std::uint32_t id) {
                  *made = id;
                  wrap::Tpm2Lock with{tpm.get(), kind.pcrs, typed(), {}};
                  if (passphrase) with.cost = passphrase->cost;
                  return wrap::make_tpm2_slot(id_of_volume, id, kind.label, *volume_key, with);
                },
                [=](wrap::VolumeStore& store) { return store.unlock_with_tpm2(*tpm, typed(), *made); }};
}

Result<NewKey> make_key(const Options& o, const std::string& shown, const wrap::VolumeId& id_of_volume,
                        const Secret& secret, const Kind& kind) {
  ECFS_LET(Secret volume_key, secret.clone());
  auto shared_key = std::make_shared<Secret>(std::move(volume_key));
  const std::string label = kind.label;
  if (wrap::is_tpm2(kind.type)) return make_tpm2_key(o, id_of_volume, shared_key, kind);
  if (kind.type == SlotType::kRecovery) {
    ECFS_LET(wrap::RecoveryKey made, make_recovery_key(o.recovery, shown));
    auto key = std::make_shared<wrap::RecoveryKey>(std::move(made));
    return NewKey{
        [=](std::uint32_t id) { return wrap::make_recovery_slot(id_of_volume, id, label, *shared_key, *key); },
        [=](wrap::VolumeStore& store) { return store.unlock_with_recovery(*key); }};
  }
  ECFS_LET(const std::shared_ptr<Passphrase> passphrase, new_passphrase(o, "New passphrase: "));
  return NewKey{[=](std::uint32_t id) {
                  return wrap::make_password_slot(id_of_volume, id, label, *shared_key, passphrase->secret,
                                                  passphrase->cost);
                },
                [=](wrap::VolumeStore& store) { return store.unlock_with_passphrase(passphrase->secret); }};
}

// What a new key of the TPM means, and what is still weaker than it.
void tell_of_tpm2(const std::string& shown, const wrap::SlotArea& area, const Kind& kind) {
  if (kind.pcrs != 0) {
    const bool one = (kind.pcrs & (kind.pcrs - 1)) == 0;
    note((one ? "it opens while PCR " : "it opens while PCRs ") + wrap::pcrs_text(kind.pcrs) + " of the TPM " +
         (one ? "holds what it holds" : "hold what they hold") +
         " now. After a change of firmware or boot settings open");
    note_more(shown + " with another key, and bind it anew: ecfs key reseal " + shown);
  } else if (kind.type == SlotType::kTpm2) {
    note("it opens on this computer whatever system is started on it, without a question");
  }
  if (kind.type == SlotType::kTpm2Password && area.count(SlotType::kPassword) > 0) {
    note("a passphrase alone, without the TPM, still opens " + shown +
         " (ecfs key list); remove those slots if the TPM");
    note_more("is meant to guard it, and keep the recovery key");
  }
  if (area.count(SlotType::kRecovery) == 0) {
    note(shown + " has no recovery key, and TPMs get lost with their computers: ecfs key add recovery " + shown);
  }
}

// The first slots of a Private as ecryptfs-utils made it: the passphrase that opens it now, and the key to be added.
Result<int> add_first(const Options& o, const VolumeRef& volume, const Kind& kind) {
  const std::string shown = volume.shown();
  ECFS_LET(const OpenedPrivate opened, unlock_private(volume, o.unlock));
  if (opened.wrapping.empty() && kind.type != SlotType::kPassword) {
    return Error{Code::kInvalid, 0,
                 shown +
                     " would not open with the login password any more: give it that first (`ecfs key add password "
                     "--mount-passphrase " +
                     shown + "`)"};
  }
  ECFS_LET(NewVolume slots, begin_slots(opened.mount_passphrase));
  ECFS_LET(const NewKey key, make_key(o, shown, slots.header.id, slots.key, kind));
  ECFS_LET(const wrap::Argon2Cost cost, choose_cost(o.cost));
  if (!opened.wrapping.empty()) ECFS_TRY(slots.add_password("login", opened.wrapping, cost));
  ECFS_LET(wrap::Slot slot, key.slot(slots.area.unused_id()));
  slots.area.slots.push_back(std::move(slot));
  const std::uint32_t id = slots.area.slots.back().id;
  ECFS_TRY(place_slots(volume, slots));
  ECFS_LET(const VolumeRef now, find_user_volume(shown));
  ECFS_LET(wrap::VolumeStore fresh, open_slots(now, false));
  ECFS_LET(const wrap::Unlocked proof, key.proof(fresh));
  if (!proof.key.equals(slots.key)) return Error{Code::kIo, 0, shown + ": the new key opens something else"};
  const std::string type(wrap::slot_type_name(kind.type));
  if (o.json) {
    print_json({{"added", id}, {"type", type}});
  } else {
    if (slots.area.slots.size() > 1) say(fmt::format("{}: the passphrase that opened it is slot 1 now", shown));
    say(fmt::format("{}: added {} slot {}", shown, type, id));
  }
  if (wrap::is_tpm2(kind.type)) tell_of_tpm2(shown, slots.area, kind);
  note("wrapped-passphrase in ~/.ecryptfs still opens " + shown +
       ", and is the weaker way: remove it, and its .bak, once the new keys were tried.");
  return 0;
}

// Adds the key and proves it; what does not open is taken back. Gives its number.
Result<std::uint32_t> add_proven(Session& s, const NewKey& key, const char* otherwise) {
  const std::uint32_t id = s.store.area().unused_id();
  ECFS_LET(wrap::Slot slot, key.slot(id));
  ECFS_TRY(s.store.add_slot(s.unlocked.key, std::move(slot)));
  if (auto proven = prove(s, id, key.proof); !proven) {
    (void)s.store.remove_slot(s.unlocked.key, id, true);
    return with_context(std::move(proven).error(),
                        s.volume.shown() + ": the new key does not open the volume" + otherwise);
  }
  return id;
}

// The old slot goes only after the new one was proven to open what is on the disk.
Result<std::uint32_t> exchange(Session& s, const NewKey& key, std::uint32_t old_id) {
  if (s.store.area().find(old_id) == nullptr) {
    return Error{Code::kBusy, 0,
                 s.volume.shown() + ": another program removed slot " + std::to_string(old_id) + " meanwhile"};
  }
  ECFS_LET(const std::uint32_t id, add_proven(s, key, "; the old one stays"));
  if (auto removed = s.store.remove_slot(s.unlocked.key, old_id, true); !removed) {
    return with_context(std::move(removed).error(),
                        s.volume.shown() + ": the new key is in place, and the old one could not be removed (slot " +
                            std::to_string(old_id) + ")");
  }
  return id;
}

Result<int> add(const Options& o) {
  ECFS_LET(const Kind kind, kind_of(o));
  if (kind.type == SlotType::kRecovery) ECFS_TRY(check_recovery_options(o.recovery));
  ECFS_LET(const VolumeRef volume, find_volume(o.volume));
  if (wrap::is_tpm2(kind.type)) ECFS_TRY(check_tpm2(o));
  if (!has_slots(volume)) return add_first(o, volume, kind);
  ECFS_LET(Session s, open_session(o));
  ECFS_LET(const NewKey key, make_key(o, s.volume.shown(), s.store.header().id, s.unlocked.key, kind));
  ECFS_LET(const Fd held, lock_and_refresh(s));
  ECFS_LET(const std::uint32_t id, add_proven(s, key, " and was taken back"));
  const std::string type(wrap::slot_type_name(kind.type));
  if (o.json) {
    print_json({{"added", id}, {"type", type}});
  } else {
    say(fmt::format("{}: added {} slot {}", s.volume.shown(), type, id));
  }
  if (wrap::is_tpm2(kind.type)) tell_of_tpm2(s.volume.shown(), s.store.area(), kind);
  return 0;
}

Result<const wrap::Slot*> choose_slot(const wrap::VolumeStore& store, const std::string& text,
                                      const std::string& shown) {
  std::uint32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error == std::errc{} && end == text.data() + text.size()) {
    if (const wrap::Slot* slot = store.area().find(id); slot != nullptr) return slot;
    return Error{Code::kNotFound, 0, shown + " has no slot " + text + " (see `ecfs key list`)"};
  }
  const auto type = wrap::slot_type_from_name(text);
  if (!type) return Error{Code::kInvalid, 0, "'" + text + "' is neither the number of a slot nor a type of slots"};
  const wrap::Slot* found = nullptr;
  for (const wrap::Slot& slot : store.area().slots) {
    if (slot.type != *type) continue;
    if (found != nullptr)
      return Error{Code::kInvalid, 0, shown + " has several " + text + " slots: name one by its number"};
    found = &slot;
  }
  if (found == nullptr) return Error{Code::kNotFound, 0, shown + " has no " + text + " slot"};
  return found;
}

Result<int> remove(const Options& o) {
  ECFS_LET(Session s, open_session(o));
  bool force = o.force;
  std::uint32_t id = 0;
  {
    ECFS_LET(const wrap::Slot* slot, choose_slot(s.store, o.slot, s.volume.shown()));
    id = slot->id;
    if (s.store.area().slots.size() == 1) {
      return Error{Code::kInvalid, 0,
                   s.volume.shown() + ": slot " + std::to_string(id) +
                       " is the last one; without it nobody could open the volume again"};
    }
    if (slot->type == SlotType::kRecovery && s.store.area().count(SlotType::kRecovery) == 1 && !force) {
      note(
          "this is the last recovery key: with the passphrase forgotten, or from a copy of the encrypted directory "
          "alone,");
      note_more("the files could not be opened any more.");
      ECFS_LET(force, ask_yes("Remove it all the same?", false));
      if (!force) return Error{Code::kInvalid, 0, "nothing was removed (--force removes it without a question)"};
    }
  }
  ECFS_LET(const Fd held, lock_and_refresh(s));
  ECFS_TRY(s.store.remove_slot(s.unlocked.key, id, force));
  if (o.json) {
    print_json({{"removed", id}});
  } else {
    say(fmt::format("{}: removed slot {}", s.volume.shown(), id));
    say("A copy of the header that somebody kept from before still opens with the removed key.");
  }
  return 0;
}

Result<int> change_wrapping(const Options& o, const VolumeRef& volume) {
  if (!o.slot.empty()) return Error{Code::kInvalid, 0, volume.shown() + " has no key slots"};
  ECFS_LET(const OpenedPrivate opened, unlock_private(volume, o.unlock));
  if (opened.wrapping.empty()) {
    return Error{Code::kInvalid, 0,
                 "a mount passphrase is never changed: the files are encrypted with it. `ecfs wrap-passphrase "
                 "~/.ecryptfs/wrapped-passphrase` encrypts it under a new login passphrase"};
  }
  ECFS_LET(const Secret chosen, choose_passphrase(o.new_passphrase, "New passphrase: ", o.allow_weak));
  ECFS_TRY(rewrap_private(volume, opened.wrapping, chosen));
  if (o.json) {
    print_json({{"added", nullptr}, {"removed", nullptr}, {"type", "wrapped-passphrase"}});
  } else {
    say(volume.shown() + ": changed the passphrase (of wrapped-passphrase)");
  }
  return 0;
}

Result<int> change(const Options& o) {
  ECFS_LET(const VolumeRef volume, find_volume(o.volume));
  if (!has_slots(volume)) return change_wrapping(o, volume);
  ECFS_LET(Session s, open_session(o));
  std::uint32_t old_id = s.unlocked.slot_id;
  const wrap::Slot* old = s.store.area().find(old_id);
  if (!o.slot.empty()) {
    ECFS_LET(old, choose_slot(s.store, o.slot, s.volume.shown()));
  } else if (old == nullptr || (old->type != SlotType::kPassword && old->type != SlotType::kTpm2Password)) {
    // Opened with the recovery key: the passphrase is what people want to change.
    ECFS_LET(old, choose_slot(s.store, "password", s.volume.shown()));
  }
  if (!old->known()) return Error{Code::kUnsupported, 0, "slots of that type cannot be changed by this version"};
  Kind kind{old->type, old->label};
  if (kind.type == SlotType::kTpm2) {
    return Error{Code::kInvalid, 0, "a key of the TPM alone has no passphrase; `ecfs key reseal` binds it anew"};
  }
  if (kind.type == SlotType::kTpm2Password) {
    ECFS_LET(const wrap::Tpm2Sealed sealed, wrap::tpm2_sealed(*old));
    kind.pcrs = sealed.pcrs;
  }
  old_id = old->id;
  if (kind.type == SlotType::kRecovery) ECFS_TRY(check_recovery_options(o.recovery));
  const std::string type(wrap::slot_type_name(kind.type));
  ECFS_LET(const NewKey key, make_key(o, s.volume.shown(), s.store.header().id, s.unlocked.key, kind));
  ECFS_LET(const Fd held, lock_and_refresh(s));
  ECFS_LET(const std::uint32_t id, exchange(s, key, old_id));
  if (s.volume.profile) (void)wrap::set_stale_mark(*s.volume.profile, false);
  if (o.json) {
    print_json({{"added", id}, {"removed", old_id}, {"type", type}});
  } else {
    say(fmt::format("{}: changed the {} (slot {} took the place of slot {})", s.volume.shown(),
                    type == "recovery" ? "recovery key" : "passphrase", id, old_id));
  }
  return 0;
}

struct Reseal {
  std::uint32_t id;
  Kind kind;
};

// The slots of the TPM that have to be bound anew; what is said of the others.
Result<std::vector<Reseal>> find_unopenable(const Options& o, const Session& s, std::vector<std::string>& told) {
  std::vector<Reseal> all;
  std::vector<wrap::Tpm2Sealed> sealed;
  std::uint32_t only = 0;
  if (!o.slot.empty()) {
    ECFS_LET(const wrap::Slot* slot, choose_slot(s.store, o.slot, s.volume.shown()));
    only = slot->id;
  }
  for (const wrap::Slot& slot : s.store.area().slots) {
    if (!wrap::is_tpm2(slot.type) || (only != 0 && slot.id != only)) continue;
    auto kept = wrap::tpm2_sealed(slot);
    if (!kept) return with_context(std::move(kept).error(), s.volume.shown() + ": slot " + std::to_string(slot.id));
    all.push_back({slot.id, {slot.type, slot.label, kept->pcrs}});
    sealed.push_back(*std::move(kept));
  }
  if (all.empty()) {
    return Error{Code::kNotFound, 0,
                 s.volume.shown() + (only == 0 ? " has no key of the TPM (`ecfs key add tpm2` adds one)"
                                               : ": slot " + std::to_string(only) + " is no key of the TPM")};
  }
  ECFS_LET(wrap::Tpm2 tpm, start_tpm2(o.unlock.tcti));
  ECFS_LET(const wrap::Tpm2Status status, tpm.status(sealed));
  std::vector<Reseal> wanted;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string slot = s.volume.shown() + ": slot " + std::to_string(all[i].id);
    if (status.slots[i].opens == wrap::Tpm2Opens::kYes && o.pcrs.empty()) {
      told.push_back(slot + " opens as it is");
    } else if (status.slots[i].opens == wrap::Tpm2Opens::kOtherTpm && only == 0) {
      told.push_back(slot + " is of another TPM and was left; `--slot " + std::to_string(all[i].id) +
                     "` binds it to this one");
    } else {
      if (!o.pcrs.empty()) {
        ECFS_LET(all[i].kind.pcrs, wrap::parse_pcrs(o.pcrs));
      }
      wanted.push_back(all[i]);
    }
  }
  return wanted;
}

Result<int> reseal(const Options& o) {
  if (!o.pcrs.empty()) ECFS_TRY(wrap::parse_pcrs(o.pcrs));
  ECFS_LET(const VolumeRef volume, find_volume(o.volume));
  if (!has_slots(volume)) return Error{Code::kInvalid, 0, volume.shown() + " has no key slots"};
  ECFS_LET(Session s, open_session(o));
  std::vector<std::string> told;
  ECFS_LET(const std::vector<Reseal> wanted, find_unopenable(o, s, told));
  std::vector<NewKey> keys;
  for (const Reseal& one : wanted) {
    ECFS_LET(NewKey key, make_key(o, s.volume.shown(), s.store.header().id, s.unlocked.key, one.kind));
    keys.push_back(std::move(key));
  }
  auto resealed = nlohmann::json::array();
  ECFS_LET(const Fd held, lock_and_refresh(s));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    ECFS_LET(const std::uint32_t id, exchange(s, keys[i], wanted[i].id));
    resealed.push_back({{"added", id}, {"removed", wanted[i].id}, {"type", wrap::slot_type_name(wanted[i].kind.type)}});
    told.push_back(fmt::format("{}: slot {}, bound to the TPM as it is now, took the place of slot {}",
                               s.volume.shown(), id, wanted[i].id));
  }
  if (o.json) {
    print_json({{"resealed", resealed}});
  } else {
    for (const std::string& sentence : told) say(sentence);
  }
  return 0;
}

void add_new_passphrase_options(CommandLine command, Options& o) {
  add_secret_options(command, o.new_passphrase, "the new passphrase");
  command.add_flag("--allow-weak-passphrase", o.allow_weak, "Take a weak passphrase without asking");
  add_cost_options(command, o.cost);
  add_recovery_options(command, o.recovery);
}

void add_pcrs_option(CommandLine command, Options& o) {
  command
      .add_option("--pcrs", o.pcrs,
                  "The TPM's registers to bind to, as in 7 or 0,2,7, or none; without it 7, or none --with-password")
      .value_name("LIST");
}

}  // namespace

std::vector<Command> add_key(CommandLine parent) {
  constexpr const char* kVolumeHelp = "Name of a volume of yours (ecfs status), or a lower directory";
  const CommandLine key = parent.add_command("key", "List and change the keys of a volume");
  key.require_command();
  key.set_footer(
      "Examples:\n"
      "  ecfs key list Private\n"
      "  ecfs key change Private\n"
      "  ecfs key add recovery ~/vault.enc");
  std::vector<Command> commands;
  const auto declare = [&](const char* name, const char* what, Result<int> (*work)(const Options&)) {
    auto o = std::make_shared<Options>();
    const CommandLine command = key.add_command(name, what);
    commands.push_back({command, [o, work] { return work(*o); }});
    command.add_flag("--json", o->json, "Say what was found or done as JSON");
    return std::pair(command, o);
  };

  {
    auto [command, o] = declare("list", "Show the slots of a volume; needs no passphrase", list);
    command.add_option("VOLUME", o->volume, kVolumeHelp).required();
    command.set_footer("Example:\n  ecfs key list --json Private");
  }
  {
    auto [command, o] = declare("add", "Add a key: another passphrase, a recovery key, or the TPM", add);
    command.add_option("TYPE", o->type, "password, recovery or tpm2")
        .required()
        .one_of({"password", "recovery", "tpm2"});
    command.add_option("VOLUME", o->volume, kVolumeHelp).required();
    command.add_option("--label", o->label, "A name for the slot").check([](const std::string& text) {
      return text.size() <= wrap::kMaxSlotLabelBytes && printable(text) == text
                 ? ""
                 : "at most 64 bytes, no control characters";
    });
    add_unlock_options(command, o->unlock);
    add_mount_passphrase_option(command, o->unlock);
    add_new_passphrase_options(command, *o);
    command.add_flag("--with-password", o->with_password, "tpm2: the TPM and a passphrase, neither alone");
    add_pcrs_option(command, *o);
    add_tcti_option(command, o->unlock.tcti);
    command.set_footer(
        "Examples:\n"
        "  ecfs key add password --label 'office laptop' Private\n"
        "  ecfs key add recovery --recovery-key-file key.txt Private\n"
        "  ecfs key add tpm2 --with-password Private\n"
        "  ecfs key add tpm2 --pcrs 7 Private");
  }
  {
    auto [command, o] = declare("remove", "Remove a key", remove);
    command.add_option("VOLUME", o->volume, kVolumeHelp).required();
    command.add_option("SLOT", o->slot, "Number of the slot, or its type if there is one of that type only").required();
    command.add_flag("--force", o->force, "Remove the last recovery key without a question");
    add_unlock_options(command, o->unlock);
    add_mount_passphrase_option(command, o->unlock);
    command.set_footer(
        "Examples:\n"
        "  ecfs key remove Private 3\n"
        "  ecfs key remove --force ~/vault.enc recovery");
  }
  {
    auto [command, o] = declare("change", "Change a passphrase (or a recovery key)", change);
    command.add_option("VOLUME", o->volume, kVolumeHelp).required();
    command
        .add_option("--slot", o->slot,
                    "The slot to change, by number or type; normally the one that the passphrase opens")
        .value_name("SLOT");
    add_unlock_options(command, o->unlock);
    add_mount_passphrase_option(command, o->unlock);
    add_new_passphrase_options(command, *o);
    command.set_footer(
        "Examples:\n"
        "  ecfs key change Private\n"
        "  ecfs key change --slot recovery Private\n"
        "  ecfs key change --passphrase-fd 3 --new-passphrase-fd 4 Private 3<old 4<new");
  }
  {
    auto [command, o] = declare("reseal", "Bind keys of the TPM anew, after a change of firmware or boot", reseal);
    command.add_option("VOLUME", o->volume, kVolumeHelp).required();
    command.add_option("--slot", o->slot, "Only this slot, also if another TPM sealed it").value_name("SLOT");
    add_pcrs_option(command, *o);
    add_unlock_options(command, o->unlock);
    add_mount_passphrase_option(command, o->unlock);
    add_new_passphrase_options(command, *o);
    add_tcti_option(command, o->unlock.tcti);
    command.set_footer(
        "Examples:\n"
        "  ecfs key reseal Private\n"
        "  ecfs key reseal --slot 3 --pcrs none Private");
  }
  return commands;
}

}  // namespace ecfs::setup
