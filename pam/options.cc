#include "pam/options.h"

#include <charconv>
#include <string_view>

namespace ecfs::pam {
namespace {

bool take_path(std::string_view value, std::string& out) {
  if (!value.starts_with('/')) return false;
  out = value;
  return true;
}

bool take_limit(std::string_view value, int& out) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || number < 1 || number > kMaxTimeLimitS) return false;
  out = number;
  return true;
}

}  // namespace

Options parse_options(std::span<const char* const> arguments) {
  Options options;
  options.helper = ECFS_LIBEXEC_DIR "/ecfs-login";
  for (const char* argument : arguments) {
    const std::string_view text = argument;
    const std::size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? std::string_view() : text.substr(equals + 1);
    const bool understood = name == "helper"       ? take_path(value, options.helper)
                            : name == "time_limit" ? take_limit(value, options.time_limit_s)
                            : text == "silent"     ? (options.silent = true)
                                                   : false;
    if (!understood) options.unknown.emplace_back(text);
  }
  return options;
}

}  // namespace ecfs::pam
