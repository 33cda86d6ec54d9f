#include "setup/machine_status.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "setup/json.h"
#include "setup/ui.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"
#include "wrap/base/process.h"
#include "wrap/login_records.h"
#include "wrap/mount.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

std::optional<uid_t> number(std::string_view text) {
  uid_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end.ec != std::errc() || end.ptr != text.data() + text.size()) return {};
  return value;
}

std::string user_text(uid_t uid) {
  std::array<char, 4096> room{};
  struct passwd entry {};
  struct passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, room.data(), room.size(), &found) != 0 || found == nullptr) return std::to_string(uid);
  return found->pw_name;
}

json describe(const wrap::MountEntry& mount) {
  return {{"mountpoint", mount.mountpoint}, {"lower", mount.source}, {"options", mount.options}, {"state", "open"}};
}

// Takes the record's mount out of `mounts`; what is left at the end was mounted by hand. Nothing if all of it is gone.
// A record that nobody removed may name a device that is another user's mount by now.
std::optional<json> describe(const wrap::MountRecord& record, uid_t uid, std::vector<wrap::MountEntry>& mounts) {
  const auto mount = std::find_if(mounts.begin(), mounts.end(), [&](const wrap::MountEntry& entry) {
    return entry.device_major == record.device_major && entry.device_minor == record.device_minor &&
           wrap::owner_of(entry) == uid;
  });
  const bool served = start_time_of(record.server) == record.started;
  if (mount == mounts.end() && !served) return {};
  json entry = {{"state", "detached"}};
  if (mount != mounts.end()) {
    entry = describe(*mount);
    mounts.erase(mount);
  }
  if (!served) entry["state"] = "dead";
  entry["name"] = record.name;
  entry["by"] = "login";
  entry["since"] = epoch_of_ticks(record.started);
  entry["server"] = served ? json(record.server) : json();
  entry["at_last_logout"] = record.auto_unmount ? "locked" : "open";
  entry["slot"] = nullptr;
  if (record.slot_id != 0) entry["slot"] = {{"id", record.slot_id}, {"type", wrap::slot_type_name(record.slot_type)}};
  return entry;
}

void print(const json& volume) {
  const bool by_hand = volume["by"] == "hand";
  const std::string name = by_hand ? "(by hand)" : volume["name"].get<std::string>();
  const std::string state = volume["state"];
  if (volume.contains("why")) {
    return say("  " + name + ": refused at " + time_text(volume["since"]) + ": " + volume["why"].get<std::string>());
  }
  std::string line = "  " + name + ": " + (state == "dead" ? "its server has ended" : state);
  if (volume.contains("mountpoint")) line += " at " + volume["mountpoint"].get<std::string>();
  if (state == "detached") line += ", and in use still";
  if (!by_hand) {
    const json& slot = volume["slot"];
    line += " since " + time_text(volume["since"]) +
            (slot.is_null() ? ", by the wrapped-passphrase"
                            : ", by slot " + std::to_string(slot["id"].get<unsigned>()) + " (" +
                                  slot["type"].get<std::string>() + ")");
    if (!volume["server"].is_null()) line += ", served by process " + std::to_string(volume["server"].get<pid_t>());
    if (volume["at_last_logout"] == "open") line += "; it stays open after the last logout";
  }
  say(line);
}

}  // namespace

std::int64_t epoch_of_ticks(std::uint64_t ticks) {
  std::ifstream machine("/proc/stat");
  std::string field;
  while (machine >> field) {
    std::int64_t boot = 0;
    if (field == "btime" && machine >> boot)
      return boot + static_cast<std::int64_t>(ticks / static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK)));
  }
  return 0;
}

Result<int> print_machine_status(bool as_json) {
  if (geteuid() != 0) return Error{Code::kDenied, EACCES, "what is open for other users is shown to root alone"};
  ECFS_LET(std::vector<wrap::MountEntry> mounts, wrap::mounts());
  mounts.erase(std::remove_if(mounts.begin(), mounts.end(), [](const auto& m) { return m.fstype != "fuse.ecfs"; }),
               mounts.end());
  std::vector<std::pair<uid_t, json>> users;
  const auto of = [&](uid_t uid) -> json& {
    for (auto& [known, volumes] : users) {
      if (known == uid) return volumes;
    }
    return users.emplace_back(uid, json::array()).second;
  };

  auto root = open_directory(AT_FDCWD, wrap::kLoginsDir);
  if (!root && root.error().code != Code::kNotFound) return std::move(root).error();
  if (root) {
    ECFS_LET(const std::vector<std::string> names, list_directory(root->get()));
    for (const std::string& name : names) {
      const std::optional<uid_t> uid = number(name);
      const auto dir = uid ? open_directory(root->get(), name) : Result<Fd>(Error{});
      if (!dir) continue;
      for (const wrap::MountRecord& record : wrap::load_records(dir->get())) {
        if (auto entry = describe(record, *uid, mounts)) of(*uid).push_back(*std::move(entry));
      }
      for (const wrap::Refusal& refusal : wrap::load_refusals(dir->get())) {
        of(*uid).push_back({{"name", refusal.name},
                            {"state", "locked"},
                            {"by", "login"},
                            {"since", refusal.when},
                            {"why", refusal.why}});
      }
    }
  }
  for (const wrap::MountEntry& mount : mounts) {
    json entry = describe(mount);
    entry["by"] = "hand";
    of(wrap::owner_of(mount).value_or(0)).push_back(std::move(entry));
  }
  std::sort(users.begin(), users.end(), [](const auto& a, const auto& b) { return a.first < b.first; });

  if (as_json) {
    json all = json::array();
    for (auto& [uid, volumes] : users) all.push_back({{"uid", uid}, {"user", user_text(uid)}, {"volumes", volumes}});
    print_json({{"users", std::move(all)}});
    return 0;
  }
  if (users.empty()) say("Nothing is open, for any user.");
  for (const auto& [uid, volumes] : users) {
    say(user_text(uid) + " (" + std::to_string(uid) + ")");
    for (const json& volume : volumes) print(volume);
  }
  return 0;
}

}  // namespace ecfs::setup
