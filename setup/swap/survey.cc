#include "setup/swap/survey.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "setup/swap/device.h"
#include "setup/swap/header.h"
#include "wrap/base/file.h"

namespace ecfs::swap {
namespace {

constexpr std::size_t kMaxEntries = 4096;

bool exists(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0;
}

std::string proc_text(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Bytes bytes(kMaxTableBytes);
  const auto done = fd ? read_full(fd.get(), bytes) : Result<std::size_t>(std::size_t{0});
  return done ? std::string(as_text(ByteView(bytes).first(*done))) : "";
}

std::vector<std::string> entries(const std::string& path) {
  const auto dir = open_directory(AT_FDCWD, path);
  if (!dir) return {};
  auto names = list_directory(dir->get(), kMaxEntries);
  return names ? *std::move(names) : std::vector<std::string>{};
}

// A unit of the administrator's own: generators make theirs of fstab and of GPT, and these go by themselves.
std::string unit_for(const Facts& facts) {
  for (const char* directory : {"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"}) {
    for (const std::string& name : entries(directory)) {
      if (!name.ends_with(".swap")) continue;
      const auto text = read_table(directory, name);
      if (!text) continue;
      for (const Line& line : lines_of(*text)) {
        std::string joined;
        for (const std::string& field : line.fields) joined += field;
        if (!joined.starts_with("What=")) continue;
        const std::string what = joined.substr(5);
        if (means_device(facts, what) || this_machine().device_of(what) == facts.area.device) {
          return std::string(directory) + "/" + name;
        }
      }
    }
  }
  return "";
}

void add_name(Facts& facts, const std::string& name) {
  if (!name.empty() && std::find(facts.names.begin(), facts.names.end(), name) == facts.names.end()) {
    facts.names.push_back(name);
  }
}

// A path that means the device now, among those that tables and the command line name.
void add_path(Facts& facts, const std::string& spec) {
  if (spec.starts_with("/dev/") && this_machine().device_of(spec) == facts.area.device) add_name(facts, spec);
}

std::string stable_name(const Facts& facts) {
  // A disk with an old table and no number of its own shares these names with others.
  if (facts.partition && facts.partition->uuid.starts_with("00000000-")) return "";
  if (facts.partition) return "PARTUUID=" + facts.partition->uuid;
  const Places places = this_machine();
  const auto is_it = [&](const std::string& path) { return places.device_of(path) == facts.area.device; };
  if (facts.area.kind == Kind::kMapped) {
    const std::string volume = logical_volume(facts.area.mapper_name, facts.area.mapper_uuid);
    for (const std::string& path : {volume, mapper_path(facts.area.mapper_name)}) {
      if (!path.empty() && is_it(path)) return path;
    }
    return "";
  }
  // A whole disk: what udev calls it by its maker and serial number.
  for (const std::string& name : entries("/dev/disk/by-id")) {
    if (is_it("/dev/disk/by-id/" + name)) return "/dev/disk/by-id/" + name;
  }
  return "";
}

Facts facts_of(const Area& area, const std::vector<std::string>& specs) {
  Facts facts;
  facts.area = area;
  if (area.kind == Kind::kFile) {
    add_name(facts, area.swap.path);
    return facts;
  }
  const std::string path = area.swap.path;
  const auto fd = open_device(path, Use::kRead);
  if (!fd || device_number(fd->get()) != area.device) return facts;
  const auto size = device_size(fd->get(), path);
  const auto page = read_header(fd->get(), path);
  const auto seen = signatures(fd->get(), path);
  if (!size || !page || !seen) return facts;
  add_name(facts, path);
  if (const auto header = parse_header(*page); header) {
    facts.hibernated = header->hibernated;
    add_name(facts, "UUID=" + uuid_text(header->uuid));
    if (!header->label.empty()) add_name(facts, "LABEL=" + header->label);
  } else {
    return facts;
  }
  for (const std::string& name : *seen) {
    if (name != "swap" && name != "swsuspend" && name != "swap_tuxonice") facts.foreign = name;
    if (name == "swsuspend") facts.hibernated = true;
  }
  if (auto partition = partition_of(fd->get(), path); partition) facts.partition = *std::move(partition);
  if (facts.partition) {
    add_name(facts, "PARTUUID=" + facts.partition->uuid);
    if (!facts.partition->label.empty()) add_name(facts, "PARTLABEL=" + facts.partition->label);
  }
  for (const std::string& spec : specs) add_path(facts, spec);
  facts.path = path;
  facts.size_bytes = *size;
  facts.stable = stable_name(facts);
  add_path(facts, facts.stable);
  facts.unit = unit_for(facts);
  return facts;
}

Boot how_to_boot() {
  for (const char* reader : {"/usr/lib/systemd/system-generators/systemd-cryptsetup-generator",
                             "/lib/systemd/system-generators/systemd-cryptsetup-generator"}) {
    if (exists("/run/systemd/system") && exists(reader)) return Boot::kCrypttab;
  }
  if (exists("/run/systemd/system")) return Boot::kUnit;
  return exists("/etc/init.d/cryptdisks") ? Boot::kCrypttab : Boot::kNone;
}

}  // namespace

Result<std::string> read_table(const std::string& directory, const std::string& name) {
  auto dir = open_directory(AT_FDCWD, directory);
  if (!dir && dir.error().code == Code::kNotFound) return std::string();
  if (!dir) return with_context(std::move(dir).error(), directory);
  auto bytes = read_file(dir->get(), name, kMaxTableBytes, 0);
  if (!bytes && bytes.error().code == Code::kNotFound) return std::string();
  if (!bytes) return with_context(std::move(bytes).error(), directory + "/" + name);
  return std::string(as_text(*bytes));
}

Result<Survey> survey() {
  const Places places = this_machine();
  Survey out;
  ECFS_LET(out.areas, areas(places));
  ECFS_LET(const std::string fstab, read_table("/etc", kFstab));
  ECFS_LET(const std::string crypttab, read_table("/etc", kCrypttab));
  ECFS_LET(const std::string resume, read_table(kResumeDirectory, kResumeFile));

  Machine& machine = out.machine;
  const std::string meminfo = proc_text(places.proc + "/meminfo");
  machine.available_bytes = meminfo_bytes(meminfo, "MemAvailable");
  machine.total_bytes = meminfo_bytes(meminfo, "MemTotal");
  machine.boot = how_to_boot();
  machine.cmdline_resume = cmdline_resume(proc_text(places.proc + "/cmdline"));
  machine.power_resume = read_line(places.sys + "/power/resume");
  if (machine.power_resume == "0:0") machine.power_resume.clear();
  machine.initramfs_tools = exists("/etc/initramfs-tools");
  machine.initramfs_resume = resume_of(resume);
  for (const CryptEntry& entry : crypttab_entries(crypttab)) machine.taken.push_back(entry.name);
  for (const std::string& name : entries("/dev/mapper")) machine.taken.push_back(name);

  std::vector<std::string> specs = {machine.cmdline_resume, machine.initramfs_resume};
  const std::vector<FstabSwap> wanted = fstab_swaps(fstab);
  for (const FstabSwap& swap : wanted) specs.push_back(swap.spec);
  for (const Area& area : out.areas) out.facts.push_back(facts_of(area, specs));
  for (const FstabSwap& swap : wanted) {
    const bool on = std::any_of(out.facts.begin(), out.facts.end(), [&](const Facts& facts) {
      return means_device(facts, swap.spec) || facts.area.swap.path == swap.spec;
    });
    const auto device = places.device_of(swap.spec);
    if (!on && !(device && encrypted_below(places, *device))) machine.off.push_back(swap.spec);
  }
  return out;
}

}  // namespace ecfs::swap
