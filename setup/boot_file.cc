#include "setup/boot_file.h"

#include <algorithm>
#include <array>
#include <utility>

namespace ecfs::setup {
namespace {

constexpr std::array<std::pair<std::string_view, std::string BootFile::*>, 3> kFields = {
    {{"LOWER", &BootFile::lower}, {"MOUNTPOINT", &BootFile::mountpoint}, {"OPTIONS", &BootFile::options}}};

bool may_stand(std::string_view value) {
  if (value.empty()) return false;
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '"' || c == '\'' || c == '\\' || c == '$' || c == '`') return false;
  }
  return true;
}

Error damaged() { return {Code::kCorrupt, 0, "it is not as `ecfs setup-boot` writes it"}; }

}  // namespace

std::string unit_escape(std::string_view path) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string name;
  bool separate = false;
  for (const char c : path) {
    if (c == '/') {
      separate = !name.empty();
      continue;
    }
    if (separate) name += '-';
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == ':' ||
                       c == '_' || (c == '.' && !name.empty());
    separate = false;
    if (plain) {
      name += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      name += "\\x";
      name += kDigits[byte >> 4U];
      name += kDigits[byte & 15U];
    }
  }
  return name.empty() ? "-" : name;
}

Result<std::string> build_boot_file(const BootFile& file) {
  std::string text = "# By `ecfs setup-boot`, for the unit ecfs-mount@.service.\n";
  for (const auto& [name, field] : kFields) {
    if (!may_stand(file.*field)) {
      return Error{Code::kInvalid, 0,
                   "'" + file.*field +
                       "' cannot be written down for a unit: it is empty, or has quotes, backslashes, '$' or control "
                       "characters"};
    }
    text += std::string(name) + "=\"" + file.*field + "\"\n";
  }
  return text;
}

Result<BootFile> parse_boot_file(std::string_view text) {
  BootFile file;
  std::size_t next = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    at = end + 1;
    if (line.empty() || line.front() == '#') continue;
    if (next == kFields.size()) return damaged();
    const auto& [name, field] = kFields[next++];
    const std::string begin = std::string(name) + "=\"";
    if (!line.starts_with(begin) || !line.ends_with('"') || line.size() <= begin.size()) return damaged();
    file.*field = std::string(line.substr(begin.size(), line.size() - begin.size() - 1));
    if (!may_stand(file.*field)) return damaged();
  }
  if (next != kFields.size()) return damaged();
  return file;
}

}  // namespace ecfs::setup
