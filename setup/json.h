// What `--json` prints. Text is ASCII: a name moves no terminal's cursor. Bytes that are not UTF-8 (file names) are
// replaced by U+FFFD.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "wrap/keyslot.h"

namespace ecfs::setup {

std::string json_text(const nlohmann::json& document);  // indented, no newline at the end
std::string json_line(const nlohmann::json& document);  // without any newline

// print_json writes one document to stdout.
void print_json(const nlohmann::json& document);

// slots_json lists the slots of a volume as `--json` shows them.
nlohmann::json slots_json(const wrap::SlotArea& area);

}  // namespace ecfs::setup
