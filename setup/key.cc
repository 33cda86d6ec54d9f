// ecfs key list | add | remove | change: the slots of a volume.
#include <fmt/format.h>

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
};

std::string slot_text(const wrap::Slot& slot) {
  std::string text =
      fmt::format("{:>3}  {:<10}  {:<16}", slot.id, wrap::slot_type_name(slot.type), time_text(slot.created));
  if (!slot.known())
    return text + fmt::format("  (type {}: made by a newer version)", static_cast<unsigned>(slot.type));
  if (slot.type == SlotType::kPassword) {
    if (auto cost = wrap::password_cost(slot); cost) {
      text += fmt::format("  argon2id {} MiB x {}", cost->memory_kib / 1024, cost->passes);
    }
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
  say(" ID  TYPE        CREATED");
  for (const wrap::Slot& slot : store.area().slots) say(slot_text(slot));
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
  Proof proof;
};

Result<NewKey> make_key(const Options& o, const std::string& shown, const wrap::VolumeId& id_of_volume,
                        const Secret& secret, SlotType type, const std::string& label) {
  ECFS_LET(Secret volume_key, secret.clone());
  auto shared_key = std::make_shared<Secret>(std::move(volume_key));
  if (type == SlotType::kRecovery) {
    ECFS_LET(wrap::RecoveryKey made, make_recovery_key(o.recovery, shown));
    auto key = std::make_shared<wrap::RecoveryKey>(std::move(made));
    return NewKey{
        [=](std::uint32_t id) { return wrap::make_recovery_slot(id_of_volume, id, label, *shared_key, *key); },
        [=](wrap::VolumeStore& store) { return store.unlock_with_recovery(*key); }};
  }
  ECFS_LET(Secret chosen, choose_passphrase(o.new_passphrase, "New passphrase: ", o.allow_weak));
  ECFS_LET(const wrap::Argon2Cost cost, choose_cost(o.cost));
  auto passphrase = std::make_shared<Secret>(std::move(chosen));
  return NewKey{[=](std::uint32_t id) {
                  return wrap::make_password_slot(id_of_volume, id, label, *shared_key, *passphrase, cost);
                },
                [=](wrap::VolumeStore& store) { return store.unlock_with_passphrase(*passphrase); }};
}

// The first slots of a Private as ecryptfs-utils made it: the passphrase that opens it now, and the key to be added.
Result<int> add_first(const Options& o, const VolumeRef& volume, SlotType type) {
  const std::string shown = volume.shown();
  ECFS_LET(const OpenedPrivate opened, unlock_private(volume, o.unlock));
  if (opened.wrapping.empty() && type != SlotType::kPassword) {
    return Error{Code::kInvalid, 0,
                 shown +
                     " would not open with the login password any more: give it that first (`ecfs key add password "
                     "--mount-passphrase " +
                     shown + "`)"};
  }
  ECFS_LET(NewVolume slots, begin_slots(opened.mount_passphrase));
  ECFS_LET(const NewKey key, make_key(o, shown, slots.header.id, slots.key, type, o.label));
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
  if (o.json) {
    print_json({{"added", id}, {"type", o.type}});
  } else {
    if (slots.area.slots.size() > 1) say(fmt::format("{}: the passphrase that opened it is slot 1 now", shown));
    say(fmt::format("{}: added {} slot {}", shown, o.type, id));
  }
  note("wrapped-passphrase in ~/.ecryptfs still opens " + shown +
       ", and is the weaker way: remove it, and its .bak, once the new keys were tried.");
  return 0;
}

Result<int> add(const Options& o) {
  const SlotType type = *wrap::slot_type_from_name(o.type);
  if (type == SlotType::kRecovery) ECFS_TRY(check_recovery_options(o.recovery));
  ECFS_LET(const VolumeRef volume, find_volume(o.volume));
  if (!has_slots(volume)) return add_first(o, volume, type);
  ECFS_LET(Session s, open_session(o));
  ECFS_LET(const NewKey key, make_key(o, s.volume.shown(), s.store.header().id, s.unlocked.key, type, o.label));
  ECFS_LET(const Fd held, lock_and_refresh(s));
  const std::uint32_t id = s.store.area().unused_id();
  ECFS_LET(wrap::Slot slot, key.slot(id));
  ECFS_TRY(s.store.add_slot(s.unlocked.key, std::move(slot)));
  if (auto proven = prove(s, id, key.proof); !proven) {
    (void)s.store.remove_slot(s.unlocked.key, id, true);
    return with_context(std::move(proven).error(),
                        s.volume.shown() + ": the new key does not open the volume and was taken back");
  }
  if (o.json) {
    print_json({{"added", id}, {"type", o.type}});
  } else {
    say(fmt::format("{}: added {} slot {}", s.volume.shown(), o.type, id));
  }
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
  } else if (old == nullptr || old->type != SlotType::kPassword) {
    // Opened with the recovery key: the passphrase is what people want to change.
    ECFS_LET(old, choose_slot(s.store, "password", s.volume.shown()));
  }
  if (!old->known()) return Error{Code::kUnsupported, 0, "slots of that type cannot be changed by this version"};
  old_id = old->id;
  if (old->type == SlotType::kRecovery) ECFS_TRY(check_recovery_options(o.recovery));
  const std::string type(wrap::slot_type_name(old->type));
  ECFS_LET(const NewKey key, make_key(o, s.volume.shown(), s.store.header().id, s.unlocked.key, old->type, old->label));
  ECFS_LET(const Fd held, lock_and_refresh(s));
  if (s.store.area().find(old_id) == nullptr) {
    return Error{Code::kBusy, 0,
                 s.volume.shown() + ": another program removed slot " + std::to_string(old_id) + " meanwhile"};
  }
  const std::uint32_t id = s.store.area().unused_id();
  ECFS_LET(wrap::Slot slot, key.slot(id));
  // The old slot goes only after the new one was proven to open what is on the disk.
  ECFS_TRY(s.store.add_slot(s.unlocked.key, std::move(slot)));
  if (auto proven = prove(s, id, key.proof); !proven) {
    (void)s.store.remove_slot(s.unlocked.key, id, true);
    return with_context(std::move(proven).error(),
                        s.volume.shown() + ": the new key does not open the volume; the old one stays");
  }
  if (auto removed = s.store.remove_slot(s.unlocked.key, old_id, true); !removed) {
    return with_context(std::move(removed).error(),
                        s.volume.shown() + ": the new key is in place, and the old one could not be removed (slot " +
                            std::to_string(old_id) + ")");
  }
  if (s.volume.profile) (void)wrap::set_stale_mark(*s.volume.profile, false);
  if (o.json) {
    print_json({{"added", id}, {"removed", old_id}, {"type", type}});
  } else {
    say(fmt::format("{}: changed the {} (slot {} took the place of slot {})", s.volume.shown(),
                    type == "password" ? "passphrase" : type + " key", id, old_id));
  }
  return 0;
}

void add_new_passphrase_options(CommandLine command, Options& o) {
  add_secret_options(command, o.new_passphrase, "the new passphrase");
  command.add_flag("--allow-weak-passphrase", o.allow_weak, "Take a weak passphrase without asking");
  add_cost_options(command, o.cost);
  add_recovery_options(command, o.recovery);
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
    auto [command, o] = declare("add", "Add a key: another passphrase, or a recovery key", add);
    command.add_option("TYPE", o->type, "password or recovery").required().one_of({"password", "recovery"});
    command.add_option("VOLUME", o->volume, kVolumeHelp).required();
    command.add_option("--label", o->label, "A name for the slot").check([](const std::string& text) {
      return text.size() <= wrap::kMaxSlotLabelBytes && printable(text) == text
                 ? ""
                 : "at most 64 bytes, no control characters";
    });
    add_unlock_options(command, o->unlock);
    add_mount_passphrase_option(command, o->unlock);
    add_new_passphrase_options(command, *o);
    command.set_footer(
        "Examples:\n"
        "  ecfs key add password --label 'office laptop' Private\n"
        "  ecfs key add recovery --recovery-key-file key.txt Private");
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
  return commands;
}

}  // namespace ecfs::setup
