
#include <algorithm>
#include <array>
#include <optional>

#include "pam/login/attach.h"
#include "pam/login/commands.h"
#include "pam/login/runtime_dir.h"
#include "pam/login/unit.h"
#include "pam/login/volumes.h"
#include "pam/protocol.h"
#include "wrap/base/log.h"
#include "wrap/login_records.h"
#include "wrap/profile.h"
#include "wrap/tpm2.h"

namespace ecfs::pam {
namespace {

constexpr int kTpm2Ms = 5000;
constexpr int kHoldMs = 5000;  // as long as a watcher may take for one clean unmount

// Root becoming a user has no password to give and expects no word about it.
constexpr std::array<std::string_view, 7> kQuietServices = {"su",      "su-l",      "sudo",    "sudo-i",
                                                            "runuser", "runuser-l", "polkit-1"};

std::string by_hand(const std::string& name) {
  return "ecfs mount-private" + (name == wrap::kDefaultVolumeName ? std::string() : " " + name);
}

Status start_watcher(uid_t uid) {
  SpawnOptions options;
  options.argv = {own_path(), kCommandWatch, "--uid=" + std::to_string(uid)};
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  options.new_session = true;
  ECFS_TRY(spawn(options));
  return {};
}

// ", by its slot 1 (password)": which key it was.
std::string by_slot(std::uint32_t id, wrap::SlotType type) {
  if (id == 0) return ", by the wrapped-passphrase";
  return ", by its slot " + std::to_string(id) + " (" + std::string(wrap::slot_type_name(type)) + ")";
}

// A login that finds the mount of a server that has crashed clears it away and mounts anew. The watcher may do so at
// the same moment: what is not there any more is cleared away, too.
Status clear_dead_mount(const Identity& who, const VolumeInfo& volume, const std::string& mountpoint) {
  const auto find = [&]() -> Result<std::optional<wrap::MountEntry>> {
    ECFS_LET(const auto entries, wrap::mounts());
    for (const wrap::MountEntry& entry : entries) {
      if (volume.device != std::pair(entry.device_major, entry.device_minor) || !is_mount_of(entry, who.uid)) continue;
      return std::optional(entry);
    }
    return std::optional<wrap::MountEntry>();
  };
  ECFS_LET(const auto entry, find());
  if (!entry) return {};
  Status cleared = Error{Code::kBusy, 0, "it is mounted"};
  if (mount_is_dead(who, mountpoint)) {
    log_line(LOG_WARNING, "user " + who.name + ": the server of " + entry->mountpoint + " is gone; unmounting");
    cleared = detach_mount(*entry, true);
  }
  if (cleared) return {};
  ECFS_LET(const auto still, find());
  if (!still) return {};
  return cleared;
}

// One volume from locked to mounted. An error says why it stayed locked.
Status bring_up(const Request& request, const Identity& who, const VolumeInfo& volume, int dir, LoginTpm tpm,
                Channel& channel, const Deadline& deadline) {
  ECFS_LET(OpenVolume opened, open_volume(who, volume.name, request.first, request.second, tpm, deadline));
  if (opened.mounted_already) {
    for (const std::string& line : opened.log) {
      log_line(LOG_INFO, "user " + who.name + ", " + volume.name + ": " + line);
      channel.tell(volume.name + ": " + line);
    }
    if (!volume.device || !clear_dead_mount(who, volume, opened.mountpoint)) return {};
    ECFS_LET(opened, open_volume(who, volume.name, request.first, request.second, tpm, deadline));
    if (opened.mounted_already) return {};
  }
  for (const std::string& line : opened.log)
    log_line(LOG_WARNING, "user " + who.name + ", " + volume.name + ": " + line);
  for (const std::string& note : opened.notes) channel.tell(volume.name + ": " + note);
  const bool rewrapped = opened.rewrapped;
  const std::uint32_t slot_id = opened.slot_id;
  const wrap::SlotType slot_type = opened.slot_type;
  const Fd lock = std::move(opened.lock);
  ECFS_LET(const Attached attached, attach_volume(who, std::move(opened), program_beside("ecfs-mountd"), deadline));
  wrap::MountRecord record;
  record.name = volume.name;
  record.server = attached.server;
  record.started = start_time_of(attached.server).value_or(0);
  record.device_major = attached.device_major;
  record.device_minor = attached.device_minor;
  record.auto_unmount = volume.auto_unmount;
  record.slot_id = slot_id;
  record.slot_type = slot_type;
  if (auto saved = wrap::save_record(dir, record); !saved) log_line(LOG_WARNING, saved.error().what);
  wrap::remove_refusal(dir, volume.name);
  if (attached.whole_home) {
    if (auto marked = mark_opened(who, volume.name, deadline); !marked) log_line(LOG_WARNING, marked.error().what);
  }
  log_line(LOG_INFO, "user " + who.name + ": " + volume.name + " is open" + by_slot(slot_id, slot_type));
  if (rewrapped) channel.tell(volume.name + " is open, and opens with your login password from now on.");
  return {};
}

void explain(const Request& request, const VolumeInfo& volume, const Error& error, Channel& channel) {
  const std::string& name = volume.name;
  if (error.code == Code::kNoKey) {
    const bool quiet = std::find(kQuietServices.begin(), kQuietServices.end(), request.service) != kQuietServices.end();
    if (!quiet) channel.tell(name + " is locked; open it with: " + by_hand(name));
  } else if (error.code == Code::kWrongKey && !request.second.empty()) {
    channel.tell("that does not open " + name + " either. Try again with: " + by_hand(name));
  } else if (error.code == Code::kWrongKey) {
    channel.tell("your login password does not open " + name +
                 " (it was changed elsewhere). Open it with: " + by_hand(name));
  } else {
    log_line(LOG_ERR, "user " + request.user + ": " + name + " stays locked: " + error.what);
    channel.tell(name + " stays locked: " + error.what + ". To try again: " + by_hand(name));
  }
}

}  // namespace

std::optional<wrap::Tpm2> start_tpm2(const std::vector<VolumeInfo>& volumes, const wrap::Config& config,
                                     const Deadline& deadline) {
  const auto wanted = [](const VolumeInfo& v) { return v.auto_mount && v.tpm2; };
  if (std::none_of(volumes.begin(), volumes.end(), wanted)) return {};
  wrap::Tpm2::Options options;
  auto started = [&]() -> Result<wrap::Tpm2> {
    ECFS_LET(options.tcti, wrap::choose_tcti("", config.tpm_tcti));
    options.timeout_ms = std::min(kTpm2Ms, deadline.remaining_ms() / 2);
    options.for_login = true;
    options.program = program_beside("ecfs-tpm2");
    return wrap::Tpm2::start(options);
  }();
  if (started) return *std::move(started);
  log_line(LOG_ERR, "keys in the TPM are not tried: " + started.error().what);
  return {};
}

Result<int> run_open(const Request& request, const wrap::Config& config, Channel& channel) {
  const int limit_ms = std::min(request.time_limit_ms, config.login_time_limit_s * 1000);
  const Deadline deadline(std::max(500, limit_ms - 500));
  ECFS_LET(const Identity who, identity_of(request.user));
  if (who.uid == 0) return 0;
  ECFS_LET(const std::vector<VolumeInfo> volumes, survey_volumes(who, deadline));
  bool any = false;
  for (const VolumeInfo& volume : volumes) {
    any = any || volume.auto_mount || volume.auto_unmount;
    if (volume.error.empty()) continue;
    log_line(LOG_ERR, "user " + who.name + ": " + volume.name + " stays locked: " + volume.error);
    channel.tell(volume.name + " stays locked: " + volume.error);
  }
  if (!any) return 0;

  const Deadline for_hold(deadline.at_most_ms(kHoldMs));
  auto hold = hold_session(who.uid, for_hold);
  if (!hold) {
    channel.tell("your files stay locked: " + hold.error().what + ". Open them with: ecfs mount-private");
    return std::move(hold).error();
  }
  channel.give_hold(*hold);
  ECFS_LET(const Fd dir, open_runtime_dir(who.uid));
  for (const VolumeInfo& volume : volumes) {
    if (!volume.error.empty()) (void)wrap::save_refusal(dir.get(), volume.name, volume.error);
  }
  if (auto entered = enter_user_unit(dir.get(), who.uid, deadline);
      !entered && entered.error().code != Code::kNotFound) {
    log_line(LOG_WARNING, "user " + who.name + ": no unit of its own: " + entered.error().what);
  }
  // Before anything is mounted: whatever happens to us now, it is seen. The unit's watcher may have been about to end.
  ECFS_TRY(start_watcher(who.uid));

  auto tpm = start_tpm2(volumes, config, deadline);
  bool wrong_password = false;
  bool only_tpm = false;
  for (const VolumeInfo& volume : volumes) {
    if (!volume.auto_mount) continue;
    const Status done = bring_up(request, who, volume, dir.get(),
                                 {tpm && volume.tpm2 ? &*tpm : nullptr, config.tpm_reseal}, channel, deadline);
    if (done) continue;
    wrong_password = wrong_password || done.error().code == Code::kWrongKey;
    only_tpm = only_tpm || done.error().sys_errno == kOnlyTpmTried;
    explain(request, volume, done.error(), channel);
    (void)wrap::save_refusal(dir.get(), volume.name, done.error().what);
  }
  const auto& services = config.ask_services;
  const bool asks =
      request.second.empty() && std::find(services.begin(), services.end(), request.service) != services.end();
  if (asks && wrong_password) channel.mark(kTagAsk);
  if (asks && only_tpm) channel.mark(kTagAskRecovery);
  return 0;
}

}  // namespace ecfs::pam
