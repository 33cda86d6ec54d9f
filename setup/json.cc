#include "setup/json.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "wrap/base/file.h"

namespace ecfs::setup {

using nlohmann::json;

std::string json_text(const json& document) { return document.dump(2, ' ', true, json::error_handler_t::replace); }

std::string json_line(const json& document) { return document.dump(-1, ' ', true, json::error_handler_t::replace); }

void print_json(const json& document) {
  (void)write_all(STDOUT_FILENO, as_bytes(json_text(document) + "\n"));  // nothing can be done about a closed output
}

json slots_json(const wrap::SlotArea& area) {
  json slots = json::array();
  for (const wrap::Slot& slot : area.slots) {
    json entry = {{"id", slot.id},
                  {"type", wrap::slot_type_name(slot.type)},
                  {"type_number", static_cast<unsigned>(slot.type)},
                  {"label", slot.label},
                  {"created", slot.created},
                  {"usable", slot.known()}};
    if (const auto sealed = wrap::tpm2_sealed(slot); sealed) {
      entry["pcrs"] = json::array();
      for (unsigned i = 0; i < wrap::kNumPcrs; ++i) {
        if ((sealed->pcrs >> i & 1) != 0) entry["pcrs"].push_back(i);
      }
    }
    if (slot.known()) {
      if (auto cost = wrap::password_cost(slot); cost) {
        entry["kdf"] = {
            {"name", "argon2id"}, {"memory_kib", cost->memory_kib}, {"passes", cost->passes}, {"lanes", cost->lanes}};
      }
    }
    slots.push_back(std::move(entry));
  }
  return slots;
}

}  // namespace ecfs::setup
