// ecfs tpm status: the TPM, what it has measured, and which keys it would open now.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "setup/command.h"
#include "setup/ecryptfs_private.h"
#include "setup/json.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/ecryptfs_private.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

struct Options {
  std::string volume;
  std::string tcti;
  bool json = false;
};

// A key of the TPM, in one of the volumes.
struct TpmKey {
  std::string volume;
  std::uint32_t slot;
  wrap::SlotType type;
  wrap::Tpm2Sealed sealed;
};

void find_keys(const VolumeRef& volume, std::vector<TpmKey>& keys) {
  if (!has_slots(volume)) return;
  const auto store = open_slots(volume, false);
  if (!store) {
    note(store.error().what);
    return;
  }
  for (const wrap::Slot& slot : store->area().slots) {
    if (!wrap::is_tpm2(slot.type)) continue;
    auto sealed = wrap::tpm2_sealed(slot);
    if (sealed) {
      keys.push_back({volume.shown(), slot.id, slot.type, *std::move(sealed)});
    } else {
      note(fmt::format("{}: slot {}: {}", volume.shown(), slot.id, sealed.error().what));
    }
  }
}

// Of the volume that was named, or of all that the caller has.
Result<std::vector<TpmKey>> find_all_keys(const Options& o) {
  std::vector<TpmKey> keys;
  if (!o.volume.empty()) {
    ECFS_LET(const VolumeRef volume, find_volume(o.volume));
    find_keys(volume, keys);
    return keys;
  }
  ECFS_LET(const Identity me, caller());
  ECFS_LET(const std::vector<std::string> names, wrap::list_user_volumes(me));
  for (const std::string& name : names) {
    const auto volume = find_user_volume(name);
    if (volume) find_keys(*volume, keys);
    if (!volume) note(volume.error().what);
  }
  return keys;
}

const char* word(wrap::Tpm2Opens opens) {
  switch (opens) {
    case wrap::Tpm2Opens::kYes: return "opens";
    case wrap::Tpm2Opens::kBootStateChanged: return "boot-state-changed";
    case wrap::Tpm2Opens::kCleared: return "cleared";
    case wrap::Tpm2Opens::kOtherTpm: return "other-tpm";
    case wrap::Tpm2Opens::kDamaged: return "damaged";
  }
  return "";
}

std::string sentence(const TpmKey& key, const wrap::Tpm2SlotState& state, bool locked) {
  const bool with_password = key.type == wrap::SlotType::kTpm2Password;
  switch (state.opens) {
    case wrap::Tpm2Opens::kYes:
      if (!with_password) return "opens now";
      return locked ? "does not open: the TPM is locked against guessing" : "opens now, with its passphrase";
    case wrap::Tpm2Opens::kBootStateChanged:
      return "does not open: PCR " + wrap::pcrs_text(state.changed) + " changed (ecfs key reseal " + key.volume + ")";
    case wrap::Tpm2Opens::kCleared:
      return "does not open: the TPM was cleared since (ecfs key reseal " + key.volume + ")";
    case wrap::Tpm2Opens::kOtherTpm: return "does not open: another TPM sealed it";
    case wrap::Tpm2Opens::kDamaged:
      return "does not open: what the TPM sealed is damaged (ecfs key reseal " + key.volume + ")";
  }
  return "";
}

json pcr_list(wrap::PcrSet pcrs) {
  json list = json::array();
  for (unsigned i = 0; i < wrap::kNumPcrs; ++i) {
    if ((pcrs >> i & 1) != 0) list.push_back(i);
  }
  return list;
}

bool is_empty(const wrap::Sha256& value) {
  return (value[0] == 0 || value[0] == 0xff) &&
         std::all_of(value.begin(), value.end(), [&](std::uint8_t b) { return b == value[0]; });
}

json as_json(const wrap::Tpm2Status& status, const std::vector<TpmKey>& keys) {
  json registers = json::object();
  std::size_t next = 0;
  for (unsigned i = 0; i < wrap::kNumPcrs; ++i) {
    if ((status.pcrs_present >> i & 1) != 0) registers[std::to_string(i)] = to_hex(status.pcr_values[next++]);
  }
  json slots = json::array();
  for (std::size_t i = 0; i < keys.size(); ++i) {
    slots.push_back({{"volume", keys[i].volume},
                     {"slot", keys[i].slot},
                     {"type", wrap::slot_type_name(keys[i].type)},
                     {"pcrs", pcr_list(keys[i].sealed.pcrs)},
                     {"state", word(status.slots[i].opens)},
                     {"changed_pcrs", pcr_list(status.slots[i].changed)}});
  }
  return {{"present", true},
          {"manufacturer", status.manufacturer},
          {"firmware", fmt::format("{}.{}", status.firmware >> 16, status.firmware & 0xffff)},
          {"locked", status.locked},
          {"failed_tries", status.failed_tries},
          {"max_tries", status.max_tries},
          {"try_back_seconds", status.try_back_s},
          {"pcrs", registers},
          {"slots", slots}};
}

void print(const wrap::Tpm2Status& status, const std::vector<TpmKey>& keys) {
  say(fmt::format("TPM 2.0: {}, firmware {}.{}", status.manufacturer, status.firmware >> 16, status.firmware & 0xffff));
  say(fmt::format("  guessing     {}; {} of {} wrong passwords counted, one is forgiven after {} s",
                  status.locked ? "locked" : "not locked", status.failed_tries, status.max_tries, status.try_back_s));
  wrap::PcrSet used = 0;
  for (const TpmKey& key : keys) used |= key.sealed.pcrs;
  std::size_t next = 0;
  for (unsigned i = 0; i < wrap::kNumPcrs; ++i) {
    if ((status.pcrs_present >> i & 1) == 0) continue;
    const wrap::Sha256& value = status.pcr_values[next++];
    if (!is_empty(value)) {
      say(fmt::format("  PCR {:<2}       {}", i, to_hex(value)));
    } else if ((used >> i & 1) != 0) {
      say(fmt::format("  PCR {:<2}       empty", i));
    }
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    say(fmt::format("{}, slot {} ({}, PCR {}): {}", keys[i].volume, keys[i].slot, wrap::slot_type_name(keys[i].type),
                    wrap::pcrs_text(keys[i].sealed.pcrs), sentence(keys[i], status.slots[i], status.locked)));
  }
  if (keys.empty()) say("No key of yours is sealed by a TPM (ecfs key add tpm2).");
}

Result<int> run(const Options& o) {
  ECFS_LET(const std::vector<TpmKey> keys, find_all_keys(o));
  std::vector<wrap::Tpm2Sealed> sealed;
  sealed.reserve(keys.size());
  for (const TpmKey& key : keys) sealed.push_back(key.sealed);
  auto status = [&]() -> Result<wrap::Tpm2Status> {
    ECFS_LET(wrap::Tpm2 tpm, start_tpm2(o.tcti));
    return tpm.status(sealed);
  }();
  if (!status && o.json) print_json({{"present", false}, {"why", status.error().what}});
  if (!status) return std::move(status).error();
  if (o.json) {
    print_json(as_json(*status, keys));
  } else {
    print(*status, keys);
  }
  return 0;
}

}  // namespace

Command add_tpm_status(CommandLine parent) {
  const CommandLine tpm = parent.add_command("tpm", "Look at the TPM and the keys that it sealed");
  tpm.require_command();
  tpm.set_footer("Example:\n  ecfs tpm status");
  auto o = std::make_shared<Options>();
  const CommandLine command = tpm.add_command("status", "Show the TPM, and which keys it would open now");
  command.add_option("VOLUME", o->volume, "Only this volume: its name, or a lower directory; normally all of yours");
  command.add_flag("--json", o->json, "As JSON");
  add_tcti_option(command, o->tcti);
  command.set_footer(
      "Examples:\n"
      "  ecfs tpm status\n"
      "  ecfs tpm status --json ~/vault.enc");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
