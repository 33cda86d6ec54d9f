// What is to be done with each swap area, and why; found out from facts alone (survey.h gathers them). Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "setup/swap/areas.h"
#include "setup/swap/tables.h"

namespace ecfs::swap {

// Attribute bit 63 of a GPT partition of type swap: not to be switched on by itself.
constexpr std::uint64_t kGptNoAuto = std::uint64_t{1} << 63;
constexpr const char* kGptSwapType = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f";

struct Partition {
  std::string uuid;   // PARTUUID
  std::string label;  // PARTLABEL
  std::string disk;   // "/dev/vda"
  unsigned number = 0;
  bool gpt = false;
  std::string type;  // GPT: UUID of the type
  std::uint64_t attributes = 0;
};

// What is known of one area.
struct Facts {
  Area area;
  std::string path;                // of the device, "/dev/vda2"
  std::string stable;              // how it is called at every boot, "PARTUUID=…" or a path; "" if there is nothing
  std::vector<std::string> names;  // specs that mean it: "UUID=…", "LABEL=…", "PARTUUID=…", "/dev/…"
  std::uint64_t size_bytes = 0;    // of the device
  bool hibernated = false;         // an image lies there
  std::string foreign;             // something else than swap that has a signature there, "ext4"; "" if there is none
  std::string unit;                // the systemd unit of the administrator's own that switches it on
  std::optional<Partition> partition;
};

// How a mapping is made at boot: by a line of crypttab in both cases.
enum class Boot { kCrypttab, kUnit, kNone };  // kUnit: ecfs-swap@.service reads the line

struct Machine {
  std::uint64_t available_bytes = 0;  // memory
  std::uint64_t total_bytes = 0;
  Boot boot = Boot::kNone;
  std::string cmdline_resume;      // resume= of the kernel; "" without or with noresume
  std::string power_resume;        // /sys/power/resume, MAJOR:MINOR; "" if it is 0:0
  std::string initramfs_resume;    // RESUME= of initramfs-tools; "" if there is none
  bool initramfs_tools = false;    //
  std::vector<std::string> off;    // specs of swap in fstab that is not on
  std::vector<std::string> taken;  // names of mappings and of lines of crypttab
};

struct Wishes {
  std::vector<std::string> devices;  // only these; empty: all
  std::string cipher = "aes-xts-plain64";
  bool no_hibernation = false;
  bool wipe = false;
};

enum class Action { kNothing, kEncrypt, kRefuse };

struct Plan {
  Facts facts;
  Action action = Action::kNothing;
  std::string reason;  // why nothing is done, or why not
  std::string name;    // kEncrypt: of the mapping, "ecfs_swap1"
  unsigned sector_bytes = 0;
  bool end_resume = false;  // the initramfs would look for an image there
  bool ends_hibernation = false;
  std::vector<std::string> steps;  // in words, as they will be done
};

std::vector<Plan> make_plans(const std::vector<Facts>& facts, const Machine& machine, const Wishes& wishes);

// means_device says whether `spec` is one of the names of the device.
bool means_device(const Facts& facts, const std::string& spec);

// spare_bytes is the memory that has to stay free when swap is switched off.
std::uint64_t spare_bytes(const Machine& machine);

// crypttab_line is the line of a mapping.
std::string crypttab_line(const std::string& name, const std::string& stable, const std::string& cipher,
                          unsigned sector_bytes);

// Ciphers that may be chosen.
const std::vector<std::string>& ciphers();

// cmdline_resume gives resume= of a kernel's command line; "" with noresume.
std::string cmdline_resume(std::string_view cmdline);

// meminfo_bytes gives a line of /proc/meminfo ("MemAvailable").
std::uint64_t meminfo_bytes(std::string_view text, std::string_view name);

// logical_volume gives "/dev/GROUP/VOLUME" of a name of device-mapper, in which "--" stands for "-"; "" if it is none.
std::string logical_volume(const std::string& mapper_name, const std::string& mapper_uuid);

std::string size_text(std::uint64_t bytes);

}  // namespace ecfs::swap
