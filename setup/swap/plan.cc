#include "setup/swap/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace ecfs::swap {
namespace {

constexpr std::uint64_t kMib = std::uint64_t{1} << 20;
constexpr unsigned kLargeSector = 4096;
constexpr unsigned kSmallSector = 512;
constexpr const char* kNobody =
    "nothing here would set it up at the next boot: neither systemd-cryptsetup nor Debian's cryptsetup, which read "
    "/etc/crypttab, nor systemd for a unit of ours. Install cryptsetup, or systemd-cryptsetup";

bool contains(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

// Which place names the area as where an image of hibernation lies; "" if none.
std::string hibernation(const Facts& facts, const Machine& machine) {
  if (means_device(facts, machine.cmdline_resume)) return "resume=" + machine.cmdline_resume + " of the kernel";
  if (!machine.power_resume.empty() && machine.power_resume == facts.area.device) return "/sys/power/resume";
  if (means_device(facts, machine.initramfs_resume) || machine.initramfs_resume == "auto") {
    return "/etc/initramfs-tools/conf.d/resume";
  }
  return "";
}

std::string refusal(const Facts& facts, const Machine& machine, const Wishes& wishes) {
  const Area& area = facts.area;
  if (area.kind == Kind::kZram) {
    return fmt::format(
        "it is compressed memory, but puts pages that are not encrypted on {}. Give it an encrypted device to write "
        "to, or none (backing_dev of zram; writeback-device= of zram-generator)",
        area.writeback);
  }
  // Measured with Linux 6.1 (tests/vm/test_swap.py, --long): the machine stands still at the first want of memory. The
  // task that swaps out and the loop device, which has to write for it, both wait for the kernel's reserve of requests;
  // and the loop device's work waits for a thread, which nobody can make without memory.
  if (area.kind == Kind::kFile) {
    return "dm-crypt upon a file, which goes through a loop device, can block the machine for good once memory is "
           "short (measured on ext4, xfs and btrfs). Make a partition or a logical volume for swap, or use zram; then "
           "`swapoff` the file, take it out of fstab, and write over it with `shred -u`";
  }
  if (facts.path.empty() || facts.size_bytes == 0) return "the device, or its header, cannot be read";
  if (facts.hibernated) return "an image of hibernation lies there: start the machine from it first";
  if (!facts.foreign.empty()) {
    return "there is also " + facts.foreign + " on it: whatever that is, it would be lost. Look with wipefs";
  }
  if (facts.stable.empty()) {
    return "it has no name that is the same at every boot (PARTUUID, logical volume): another disk could be taken for "
           "it and be overwritten. Make a partition";
  }
  if (!facts.unit.empty()) {
    return fmt::format(
        "the unit {} switches it on at every boot, unencrypted. `systemctl disable` it, put the swap into /etc/fstab, "
        "and run this again",
        facts.unit);
  }
  if (machine.boot == Boot::kNone) return kNobody;
  const std::uint64_t needed = area.swap.used_bytes + spare_bytes(machine);
  if (needed > machine.available_bytes) {
    return fmt::format(
        "not enough memory to switch it off: {} of it are in use, and {} of memory are available ({} have to stay). "
        "End "
        "some programs, and run this again",
        size_text(area.swap.used_bytes), size_text(machine.available_bytes), size_text(spare_bytes(machine)));
  }
  if (const std::string where = hibernation(facts, machine); !where.empty() && !wishes.no_hibernation) {
    return fmt::format(
        "the machine hibernates into it ({}): what is encrypted with a new key at each boot cannot be resumed from. "
        "--no-hibernation gives hibernation up",
        where);
  }
  return "";
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  if (bytes >= 1024 * kMib) {
    return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / static_cast<double>(1024 * kMib));
  }
  return fmt::format("{} MiB", (bytes + kMib / 2) / kMib);
}

const std::vector<std::string>& ciphers() {
  static const std::vector<std::string> all = {"aes-xts-plain64", "serpent-xts-plain64", "twofish-xts-plain64"};
  return all;
}

std::uint64_t spare_bytes(const Machine& machine) { return std::max(64 * kMib, machine.total_bytes / 20); }

bool means_device(const Facts& facts, const std::string& spec) { return !spec.empty() && contains(facts.names, spec); }

std::string crypttab_line(const std::string& name, const std::string& stable, const std::string& cipher,
                          unsigned sector_bytes) {
  return fmt::format(
      "{} {} /dev/urandom plain,swap,cipher={},size=512,sector-size={},nofail,x-systemd.device-timeout=30s", name,
      stable, cipher, sector_bytes);
}

std::string cmdline_resume(std::string_view cmdline) {
  std::string value;
  for (const Line& line : lines_of(cmdline)) {
    for (const std::string& word : line.fields) {
      if (word == "noresume") return "";
      if (word.starts_with("resume=")) value = word.substr(7);
    }
  }
  return value == "none" ? "" : value;
}

std::uint64_t meminfo_bytes(std::string_view text, std::string_view name) {
  for (const Line& line : lines_of(text)) {
    const auto& f = line.fields;
    if (f.size() < 2 || f[0] != std::string(name) + ":") continue;
    std::uint64_t kib = 0;
    const auto [end, fault] = std::from_chars(f[1].data(), f[1].data() + f[1].size(), kib);
    constexpr std::uint64_t kMostKib = std::uint64_t{1} << 50;
    if (fault != std::errc() || end != f[1].data() + f[1].size() || kib > kMostKib) return 0;
    return kib * 1024;
  }
  return 0;
}

std::string logical_volume(const std::string& mapper_name, const std::string& mapper_uuid) {
  if (!mapper_uuid.starts_with("LVM-")) return "";
  std::string out = "/dev/";
  bool volume = false;
  for (std::size_t i = 0; i < mapper_name.size(); ++i) {
    if (mapper_name[i] != '-') {
      out += mapper_name[i];
    } else if (i + 1 < mapper_name.size() && mapper_name[i + 1] == '-') {
      out += mapper_name[i++];
    } else if (volume || i == 0 || i + 1 == mapper_name.size()) {
      return "";  // a layer of LVM's own, or no name of it
    } else {
      out += '/';
      volume = true;
    }
  }
  return volume ? out : "";
}

std::vector<Plan> make_plans(const std::vector<Facts>& facts, const Machine& machine, const Wishes& wishes) {
  std::vector<Plan> out;
  std::vector<std::string> taken = machine.taken;
  for (const Facts& one : facts) {
    Plan plan;
    plan.facts = one;
    const Area& area = one.area;
    const bool asked = wishes.devices.empty() || contains(wishes.devices, area.swap.path) ||
                       std::any_of(wishes.devices.begin(), wishes.devices.end(),
                                   [&](const std::string& device) { return means_device(one, device); });
    if (area.kind == Kind::kZram && area.writeback.empty()) {
      plan.reason = "compressed memory, nothing of it comes to a disk";
    } else if (area.encrypted) {
      plan.reason = area.kind == Kind::kFile ? "the filesystem stands on dm-crypt" : "encrypted already";
    } else if (!asked) {
      plan.reason = "not asked for";
    } else if (plan.reason = refusal(one, machine, wishes); !plan.reason.empty()) {
      plan.action = Action::kRefuse;
    } else {
      plan.action = Action::kEncrypt;
      for (unsigned number = 1; plan.name.empty(); ++number) {
        const std::string name = "ecfs_swap" + std::to_string(number);
        if (!contains(taken, name)) plan.name = name;
      }
      taken.push_back(plan.name);
      plan.sector_bytes = one.size_bytes % kLargeSector == 0 ? kLargeSector : kSmallSector;
      plan.ends_hibernation = !hibernation(one, machine).empty();
      plan.end_resume = machine.initramfs_tools && machine.initramfs_resume != "none" &&
                        (machine.initramfs_resume.empty() || plan.ends_hibernation);
      plan.steps.push_back(fmt::format("switch {} off", one.path));
      plan.steps.push_back(fmt::format("map it to /dev/mapper/{} with {} and a random key, {} bytes a sector",
                                       plan.name, wishes.cipher, plan.sector_bytes));
      if (wishes.wipe)
        plan.steps.push_back("write over " + size_text(one.size_bytes) + ", all that was swapped out before");
      plan.steps.emplace_back("switch that on as swap, and check it");
      plan.steps.push_back(fmt::format("/etc/crypttab: a line for {}", one.stable));
      plan.steps.push_back("/etc/fstab: /dev/mapper/" + plan.name + " in the place of the device, never waited for");
      if (one.partition && one.partition->gpt && one.partition->type == kGptSwapType &&
          (one.partition->attributes & kGptNoAuto) == 0) {
        plan.steps.push_back(fmt::format("{}: partition {} is not to be switched on by itself (GPT attribute 63)",
                                         one.partition->disk, one.partition->number));
      }
      if (plan.end_resume) plan.steps.emplace_back("/etc/initramfs-tools/conf.d/resume: RESUME=none; update-initramfs");
      if (machine.boot == Boot::kUnit) {
        plan.steps.push_back(fmt::format("systemd: ecfs-swap@{}.service is enabled", plan.name));
      }
    }
    out.push_back(std::move(plan));
  }
  return out;
}

}  // namespace ecfs::swap
