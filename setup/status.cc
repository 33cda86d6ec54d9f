// ecfs status: the caller's volumes, what is open, and how their keys are.
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "setup/command.h"
#include "setup/ecryptfs_private.h"
#include "setup/json.h"
#include "setup/machine_status.h"
#include "setup/mounting.h"
#include "setup/swap/areas.h"
#include "setup/ui.h"
#include "setup/volume_ref.h"
#include "wrap/control.h"
#include "wrap/ecryptfs_private.h"
#include "wrap/keyring.h"
#include "wrap/mount.h"
#include "wrap/wrapped_passphrase.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

struct Server {
  pid_t pid = 0;
  std::int64_t started = 0;  // seconds since the epoch
};

std::optional<Server> server_of(int lower_dir) {
  const std::optional<pid_t> pid = locker_of(lower_dir);
  if (!pid) return {};
  const auto ticks = start_time_of(*pid);
  return Server{*pid, ticks ? epoch_of_ticks(*ticks) : 0};
}

// The file of ecryptfs-utils: what opens the volume or, where it has slots, still does.
void describe_wrapped_passphrase(const VolumeRef& volume, json& entry) {
  const auto me = caller();
  const auto private_dir = me ? wrap::open_ecryptfs_dir(*me) : Result<wrap::UserDir>(me.error());
  entry["wrapped_passphrase"] = nullptr;
  if (!private_dir) return;
  const std::string path = private_dir->path + "/" + wrap::kWrappedPassphraseName;
  const auto version = wrap::wrapped_passphrase_version(private_dir->dir.get(), wrap::kWrappedPassphraseName);
  if (!version) {
    if (version.error().code != Code::kNotFound) entry["notes"].push_back(path + ": " + version.error().what);
    return;
  }
  entry["wrapped_passphrase"] = {
      {"file", path}, {"version", *version}, {"independent", wrap::is_wrapping_independent(*volume.profile)}};
  const std::string advice = upgrade_advice(volume);
  entry["notes"].push_back(advice.empty() ? path +
                                                " opens it too, and is the weaker way: remove it, and its .bak, once "
                                                "the new keys were tried"
                                          : advice);
}

// One profile. What cannot be read is part of the answer, not its end.
json describe(const std::string& name) {
  auto volume = find_user_volume(name);
  if (!volume) return {{"name", name}, {"state", "unreadable"}, {"notes", {volume.error().what}}};
  const wrap::Profile& profile = volume->profile->profile;
  const bool ecryptfs = is_ecryptfs_volume(*volume);
  json entry = {{"name", name},
                {"lower", profile.lower},
                {"mountpoint", profile.mountpoint},
                {"format", profile.format},
                {"volume_id", volume->profile->of_ecryptfs_utils ? json() : json(to_hex(profile.volume_id))},
                {"auto_mount", profile.auto_mount},
                {"auto_unmount", profile.auto_unmount},
                {"slots_in_volume", profile.slots_in_volume},
                {"options", profile.options},
                {"stale_password", wrap::has_stale_mark(*volume->profile)},
                {"key_in_keyring", ecryptfs ? wrap::private_keys_in_keyring(profile).has_value()
                                            : wrap::find_token(profile.volume_id).has_value()},
                {"notes", json::array()},
                {"slots", json::array()}};
  auto mount = wrap::ecfs_mount_at(profile.mountpoint);
  entry["state"] = "locked";
  if (mount && *mount) {
    const auto id =
        ecryptfs ? wrap::ecryptfs_mount_id(volume->lower_dir.get()) : Result<wrap::VolumeId>(profile.volume_id);
    const auto told = id ? wrap::mount_state(*id, geteuid()) : Result<wrap::MountState>(id.error());
    entry["state"] = wrap::is_dead(profile.mountpoint) ? "dead" : told && told->suspended ? "suspended" : "open";
    entry["mount_options"] = (*mount)->options;
    if (const auto server = server_of(volume->lower_dir.get()); server) {
      entry["server"] = {{"pid", server->pid}, {"started", server->started}};
    }
  }
  const auto kernel = wrap::kernel_mount_of(profile);
  if (ecryptfs && kernel && *kernel) {
    entry["state"] = "open";
    entry["mountpoint"] = (*kernel)->mountpoint;
    entry["mount_options"] = (*kernel)->options;
    entry["notes"].push_back("it was opened by the kernel's eCryptfs; umount.ecryptfs_private locks it");
  }
  if (ecryptfs) describe_wrapped_passphrase(*volume, entry);
  if (!volume->lower_dir) entry["notes"].push_back("the lower directory " + profile.lower + " is not there");
  if (!has_slots(*volume)) {
    // What opens it was described already.
  } else if (auto store = open_slots(*volume, false); store) {
    entry["slots"] = slots_json(store->area());
    entry["generation"] = store->area().generation;
    for (const std::string& sentence : store->notes()) entry["notes"].push_back(sentence);
  } else {
    entry["notes"].push_back(store.error().what);
  }
  return entry;
}

void print(const json& entry) {
  const std::string state = entry["state"];
  const std::string name = entry["name"];
  if (state == "unreadable") {
    say(name + ": cannot be read");
  } else {
    say(name + ": " +
        (state == "dead"        ? "its server has ended (`ecfs mount-private " + name + "` opens it again)"
         : state == "suspended" ? "suspended, without keys (`ecfs mount-private " + name + "` opens it again)"
                                : state));
    say("  files        " + entry["mountpoint"].get<std::string>());
    say("  encrypted    " + entry["lower"].get<std::string>());
    if (entry.contains("server")) {
      say("  open since   " + time_text(entry["server"]["started"]) + ", served by process " +
          std::to_string(entry["server"]["pid"].get<long>()));
    }
    std::string keys;
    for (const json& slot : entry["slots"]) {
      keys += (keys.empty() ? "" : ", ") + slot["type"].get<std::string>() + " (" +
              std::to_string(slot["id"].get<unsigned>()) + ")";
    }
    const json wrapped = entry.value("wrapped_passphrase", json());
    if (keys.empty() && wrapped.is_object()) {
      keys = std::string("wrapped passphrase of ecryptfs-utils") +
             (wrapped["independent"].get<bool>() ? ", with a passphrase of its own" : ", with the login password");
    }
    say("  keys         " + (keys.empty() ? "none could be read" : keys));
    const bool opens = entry["auto_mount"];
    const bool locks = entry["auto_unmount"];
    say(std::string("  at login     ") + (opens ? "opens" : "stays locked") + "; at the last logout " +
        (locks ? "it is locked" : "it stays open"));
    if (entry["stale_password"]) {
      say("  !            the login password was changed and no longer opens it: ecfs key change " + name);
    }
  }
  for (const json& sentence : entry["notes"]) say("  !            " + sentence.get<std::string>());
}

// The swap of the machine: what is open is in memory, and memory goes there.
json describe_swap() {
  const auto areas = swap::areas(swap::this_machine());
  if (!areas) return {{"areas", json::array()}, {"encrypted", nullptr}, {"fault", areas.error().what}};
  json list = json::array();
  for (const swap::Area& area : *areas) {
    list.push_back({{"path", area.swap.path},
                    {"kind", swap::kind_name(area.kind)},
                    {"encrypted", area.encrypted},
                    {"size_bytes", area.swap.size_bytes},
                    {"used_bytes", area.swap.used_bytes}});
  }
  return {{"areas", list}, {"encrypted", swap::not_encrypted(*areas).empty()}};
}

void print_swap() {
  const auto areas = swap::areas(swap::this_machine());
  if (!areas) return say("Swap: " + areas.error().what);
  if (areas->empty()) return;
  const std::string plain = swap::not_encrypted(*areas);
  say(plain.empty() ? "Swap: encrypted, or in memory alone."
                    : "Swap: " + plain +
                          " NOT ENCRYPTED, can hold pieces of open files. `sudo ecfs setup-swap` encrypts it, or tells "
                          "what to do instead.");
}

Result<int> run(bool as_json) {
  ECFS_LET(const Identity me, caller());
  json profiles = json::array();
  ECFS_LET(const std::vector<std::string> names, wrap::list_user_volumes(me));
  for (const std::string& name : names) profiles.push_back(describe(name));
  if (as_json) {
    print_json({{"user", me.name}, {"volumes", profiles}, {"swap", describe_swap()}});
    return 0;
  }
  if (profiles.empty()) say("You have no volume that opens at login. `ecfs setup-private` makes one.");
  for (const json& entry : profiles) print(entry);
  print_swap();
  return 0;
}

}  // namespace

Command add_status(CommandLine parent) {
  struct Options {
    bool json = false;
    bool all = false;
  };
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("status", "Show your volumes: what is open, and how their keys are");
  command.add_flag("--all", o->all, "What is open for every user, and what logins could not open (root)");
  command.add_flag("--json", o->json, "As JSON");
  command.set_footer(
      "Examples:\n"
      "  ecfs status\n"
      "  ecfs status --json\n"
      "  sudo ecfs status --all");
  return {command, [o] { return o->all ? print_machine_status(o->json) : run(o->json); }};
}

}  // namespace ecfs::setup
