#include "wrap/login_records.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <ctime>
#include <string_view>

#include "wrap/base/bytes.h"
#include "wrap/base/file.h"
#include "wrap/profile.h"

namespace ecfs::wrap {
namespace {

constexpr std::string_view kRecordPrefix = "mount-";
constexpr std::string_view kRefusalPrefix = "refused-";
constexpr std::uint64_t kMaxRecordBytes = 256;
constexpr std::size_t kMaxWhyBytes = 1024;
constexpr std::size_t kMaxFiles = 256;

// The names of volumes that have a file with this prefix, sorted.
std::vector<std::string> names_with(int dir, std::string_view prefix) {
  std::vector<std::string> names;
  auto files = list_directory(dir, kMaxFiles);
  if (!files) return names;
  for (const std::string& file : *files) {
    if (!file.starts_with(prefix)) continue;
    std::string name = file.substr(prefix.size());
    if (valid_profile_name(name)) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string file_of(std::string_view prefix, const std::string& name) { return std::string(prefix) + name; }

}  // namespace

Status save_record(int dir, const MountRecord& record) {
  std::string text;
  for (const std::uint64_t number :
       {static_cast<std::uint64_t>(record.server), record.started, static_cast<std::uint64_t>(record.device_major),
        static_cast<std::uint64_t>(record.device_minor), static_cast<std::uint64_t>(record.auto_unmount ? 1 : 0),
        static_cast<std::uint64_t>(record.slot_id), static_cast<std::uint64_t>(record.slot_type)}) {
    text += (text.empty() ? "" : " ") + std::to_string(number);
  }
  return replace_file(dir, file_of(kRecordPrefix, record.name), as_bytes(text + "\n"), 0600);
}

std::vector<MountRecord> load_records(int dir) {
  std::vector<MountRecord> records;
  for (std::string& name : names_with(dir, kRecordPrefix)) {
    const auto bytes = read_file(dir, file_of(kRecordPrefix, name), kMaxRecordBytes, 0);
    if (!bytes) continue;
    const std::string text(as_text(*bytes));
    MountRecord record;
    int auto_unmount = 1;
    unsigned type = 0;
    // The version before knew the first five fields, and what it mounted may still be open.
    if (std::sscanf(text.c_str(), "%d %" SCNu64 " %u %u %d %" SCNu32 " %u", &record.server, &record.started,
                    &record.device_major, &record.device_minor, &auto_unmount, &record.slot_id, &type) < 5) {
      continue;
    }
    record.name = std::move(name);
    record.auto_unmount = auto_unmount != 0;
    record.slot_type = static_cast<SlotType>(type);
    records.push_back(std::move(record));
  }
  return records;
}

void remove_record(int dir, const std::string& name) { unlinkat(dir, file_of(kRecordPrefix, name).c_str(), 0); }

Status save_refusal(int dir, const std::string& name, const std::string& why) {
  const std::string text = std::to_string(std::time(nullptr)) + "\n" + why.substr(0, kMaxWhyBytes);
  return replace_file(dir, file_of(kRefusalPrefix, name), as_bytes(text), 0600);
}

std::vector<Refusal> load_refusals(int dir) {
  std::vector<Refusal> refusals;
  for (std::string& name : names_with(dir, kRefusalPrefix)) {
    const auto bytes = read_file(dir, file_of(kRefusalPrefix, name), kMaxWhyBytes + 32, 0);
    if (!bytes) continue;
    const std::string text(as_text(*bytes));
    const std::size_t end = text.find('\n');
    Refusal refusal;
    if (end == std::string::npos || std::sscanf(text.c_str(), "%" SCNd64, &refusal.when) != 1) continue;
    refusal.name = std::move(name);
    refusal.why = text.substr(end + 1);
    refusals.push_back(std::move(refusal));
  }
  return refusals;
}

void remove_refusal(int dir, const std::string& name) { unlinkat(dir, file_of(kRefusalPrefix, name).c_str(), 0); }

void remove_login_records(int dir) {
  for (const std::string& name : names_with(dir, kRecordPrefix)) remove_record(dir, name);
  for (const std::string& name : names_with(dir, kRefusalPrefix)) remove_refusal(dir, name);
}

}  // namespace ecfs::wrap
