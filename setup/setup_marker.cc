#include "setup/setup_marker.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxBytes = 65536;

}  // namespace

Status write_setup_marker(int dir, const SetupMarker& marker) {
  const json text = {{"lower", marker.lower},
                     {"lower_dev", marker.lower_dev},
                     {"lower_ino", marker.lower_ino},
                     {"lower_made", marker.lower_made},
                     {"mountpoint", marker.mountpoint},
                     {"aside", marker.aside},
                     {"original_dev", marker.original_dev},
                     {"original_ino", marker.original_ino},
                     {"move", marker.move}};
  return replace_file(dir, kSetupMarkerName, as_bytes(text.dump(2, ' ', false, json::error_handler_t::replace) + "\n"),
                      0600);
}

Result<SetupMarker> read_setup_marker(int dir) {
  ECFS_LET(const Bytes bytes, read_file(dir, kSetupMarkerName, kMaxBytes, geteuid()));
  const json text = json::parse(bytes.begin(), bytes.end(), nullptr, false);
  const auto number = [&](const char* name, std::uint64_t& out) {
    const auto at = text.find(name);
    if (at == text.end() || !at->is_number_unsigned()) return false;
    out = at->get<std::uint64_t>();
    return true;
  };
  const auto word = [&](const char* name, std::string& out) {
    const auto at = text.find(name);
    if (at == text.end() || !at->is_string()) return false;
    out = at->get<std::string>();
    return true;
  };
  const auto flag = [&](const char* name, bool& out) {
    const auto at = text.find(name);
    if (at == text.end() || !at->is_boolean()) return false;
    out = at->get<bool>();
    return true;
  };
  SetupMarker m;
  if (!text.is_object() || !word("lower", m.lower) || !number("lower_dev", m.lower_dev) ||
      !number("lower_ino", m.lower_ino) || !flag("lower_made", m.lower_made) || !word("mountpoint", m.mountpoint) ||
      !word("aside", m.aside) || !number("original_dev", m.original_dev) || !number("original_ino", m.original_ino) ||
      !flag("move", m.move)) {
    return Error{Code::kCorrupt, 0, std::string(kSetupMarkerName) + " is damaged"};
  }
  return m;
}

}  // namespace ecfs::setup
