#include "setup/swap/areas.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <climits>
#include <cstdlib>

#include "wrap/base/file.h"
#include "wrap/base/owned.h"

namespace ecfs::swap {
namespace {

constexpr int kDeepest = 16;  // devices one upon the other

std::string text_of(dev_t device) { return std::to_string(major(device)) + ":" + std::to_string(minor(device)); }

std::optional<std::string> device_of_path(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0 || !S_ISBLK(st.st_mode)) return {};
  return text_of(st.st_rdev);
}

// The files of /proc and /sys have no size.
std::string read_small(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return "";
  Bytes bytes(kMaxTableBytes);
  const auto done = read_full(fd.get(), bytes);
  return done ? std::string(as_text(ByteView(bytes).first(*done))) : "";
}

// Of a filesystem without a device of its own (btrfs) the one that it was mounted from.
std::optional<std::string> device_below_file(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return {};
  if (major(st.st_dev) != 0) return text_of(st.st_dev);
  const std::string wanted = text_of(st.st_dev);
  for (const Line& line : lines_of(read_small("/proc/self/mountinfo"))) {
    const auto& f = line.fields;
    if (f.size() < 10 || f[2] != wanted) continue;
    for (std::size_t i = 6; i + 2 < f.size(); ++i) {
      if (f[i] == "-") return device_of_path(f[i + 2]);
    }
  }
  return {};
}

std::vector<std::string> names_in(const std::string& path) {
  const auto dir = open_directory(AT_FDCWD, path);
  if (!dir) return {};
  auto names = list_directory(dir->get(), 1024);
  return names ? *std::move(names) : std::vector<std::string>{};
}

bool encrypts(const std::string& uuid) {
  return uuid.starts_with("CRYPT-") && !uuid.starts_with("CRYPT-VERITY-") && !uuid.starts_with("CRYPT-INTEGRITY-");
}

bool encrypted_to(const Places& places, const std::string& device, int depth) {
  if (device.empty() || device.find('/') != std::string::npos || depth > kDeepest) return false;
  const std::string here = places.sys + "/dev/block/" + device;
  if (encrypts(read_line(here + "/dm/uuid"))) return true;
  const std::vector<std::string> slaves = names_in(here + "/slaves");
  for (const std::string& slave : slaves) {
    if (!encrypted_to(places, read_line(here + "/slaves/" + slave + "/dev"), depth + 1)) return false;
  }
  if (!slaves.empty()) return true;
  if (read_line(here + "/partition").empty()) return false;
  // A partition of something that is mapped: in sysfs it is a directory of that device.
  const Owned<char, std::free> real(realpath(here.c_str(), nullptr));
  return real && encrypted_to(places, read_line(std::string(real.get()) + "/../dev"), depth + 1);
}

}  // namespace

const char* kind_name(Kind kind) noexcept {
  switch (kind) {
    case Kind::kPartition: return "partition";
    case Kind::kDevice: return "device";
    case Kind::kMapped: return "device-mapper";
    case Kind::kFile: return "file";
    case Kind::kZram: return "zram";
  }
  return "";
}

Places this_machine() { return {"/proc", "/sys", device_of_path, device_below_file}; }

std::string read_line(const std::string& path) {
  const std::string text = read_small(path);
  return text.substr(0, text.find('\n'));
}

bool encrypted_below(const Places& places, const std::string& device) { return encrypted_to(places, device, 0); }

Result<std::vector<Area>> areas(const Places& places) {
  ECFS_LET(const std::vector<ActiveSwap> on, parse_proc_swaps(read_small(places.proc + "/swaps")));
  std::vector<Area> out;
  for (const ActiveSwap& swap : on) {
    Area area;
    area.swap = swap;
    if (swap.file) {
      area.kind = Kind::kFile;
      const auto below = places.device_below(swap.path);
      area.encrypted = below && encrypted_below(places, *below);
      out.push_back(std::move(area));
      continue;
    }
    area.device = places.device_of(swap.path).value_or("");
    const std::string here = places.sys + "/dev/block/" + area.device;
    const std::string name = swap.path.substr(swap.path.rfind('/') + 1);
    area.mapper_uuid = read_line(here + "/dm/uuid");
    area.mapper_name = read_line(here + "/dm/name");
    if (name.starts_with("zram") && !area.device.empty()) {
      area.kind = Kind::kZram;
      area.writeback = read_line(here + "/backing_dev");
      if (area.writeback == "none") area.writeback.clear();
      const auto device = places.device_of(area.writeback);
      area.encrypted = area.writeback.empty() || (device && encrypted_below(places, *device));
    } else if (!area.mapper_name.empty()) {
      area.kind = Kind::kMapped;
    } else if (!read_line(here + "/partition").empty()) {
      area.kind = Kind::kPartition;
    }
    if (area.kind != Kind::kZram) area.encrypted = encrypted_below(places, area.device);
    out.push_back(std::move(area));
  }
  return out;
}

std::string not_encrypted(const std::vector<Area>& areas) {
  std::string out;
  for (const Area& area : areas) {
    if (area.encrypted) continue;
    out += (out.empty() ? "" : ", ") + area.swap.path;
    if (area.kind == Kind::kZram) out += " (which puts pages on " + area.writeback + ")";
  }
  return out;
}

}  // namespace ecfs::swap
