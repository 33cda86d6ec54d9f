#include "wrap/config.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <set>

#include "wrap/base/file.h"
#include "wrap/tpm2.h"

namespace ecfs::wrap {
namespace {

constexpr std::uint64_t kMaxConfigBytes = 64 * 1024;
constexpr std::size_t kMaxServices = 32;
constexpr std::size_t kMaxServiceBytes = 64;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const auto begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

bool parse_number(std::string_view text, int least, int most, int& out) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) return false;
  out = value;
  return true;
}

bool parse_services(std::string_view text, std::vector<std::string>& out) {
  constexpr std::string_view kBetween = " \t,";
  out.clear();
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(kBetween), text.size()));
    if (text.empty()) return true;
    const std::string_view name = text.substr(0, text.find_first_of(kBetween));
    const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
             c == '.';
    });
    if (!plain || name.size() > kMaxServiceBytes || out.size() == kMaxServices) return false;
    out.emplace_back(name);
    text.remove_prefix(name.size());
  }
}

bool parse_busy(std::string_view text, BusyPolicy& out) {
  if (text == "wait") {
    out = BusyPolicy::kWait;
  } else if (text == "lazy") {
    out = BusyPolicy::kLazy;
  } else if (text == "kill") {
    out = BusyPolicy::kKill;
  } else {
    return false;
  }
  return true;
}

// What is wrong with a setting; empty: nothing.
std::string set(Config& config, std::string_view name, std::string_view value) {
  if (name == "login_time_limit") {
    return parse_number(value, 1, 15, config.login_time_limit_s) ? "" : "login_time_limit is 1 to 15 seconds";
  }
  if (name == "unmount_wait") {
    return parse_number(value, 0, 600, config.unmount_wait_s) ? "" : "unmount_wait is 0 to 600 seconds";
  }
  if (name == "unmount_busy") {
    return parse_busy(value, config.unmount_busy) ? "" : "unmount_busy is wait, lazy or kill";
  }
  if (name == "ask_services") {
    return parse_services(value, config.ask_services)
               ? ""
               : "ask_services is a list of at most 32 PAM services, separated by spaces";
  }
  if (name == "tpm_reseal") {
    config.tpm_reseal = value == "yes";
    return config.tpm_reseal || value == "no" ? "" : "tpm_reseal is yes or no";
  }
  if (name == "tpm_tcti") {
    if (auto good = check_tcti(value); !good) return good.error().what;
    config.tpm_tcti = value;
    return "";
  }
  return "there is no such setting";
}

}  // namespace

Result<Config> parse_config(ByteView bytes) {
  Config config;
  std::set<std::string, std::less<>> seen;
  std::string_view text = as_text(bytes);
  for (int number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, std::min(text.find('#'), end)));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    const auto fault = [&](std::string_view why) {
      return Error{Code::kInvalid, 0, "line " + std::to_string(number) + ": " + std::string(why)};
    };
    const auto equals = line.find('=');
    if (equals == std::string_view::npos) return fault("expected \"name = value\"");
    const std::string_view name = trimmed(line.substr(0, equals));
    if (seen.contains(name)) return fault("this setting stands in the file twice");
    if (const std::string why = set(config, name, trimmed(line.substr(equals + 1))); !why.empty()) return fault(why);
    seen.emplace(name);
  }
  return config;
}

Result<Config> load_config(const std::string& path) {
  auto fd = open_regular(AT_FDCWD, path, kMaxConfigBytes, uid_t{0});
  if (!fd) {
    if (fd.error().code == Code::kNotFound) return Config{};
    return std::move(fd).error();
  }
  struct stat st {};
  if (fstat(fd->get(), &st) != 0) return system_error(errno, "stat " + path);
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Error{Code::kDenied, 0, path + " may be written by others than root: it is not believed"};
  }
  Bytes bytes(kMaxConfigBytes);
  auto done = read_full(fd->get(), bytes);
  if (!done) return with_context(std::move(done).error(), "read " + path);
  auto config = parse_config(ByteView(bytes).first(*done));
  if (!config) return with_context(std::move(config).error(), path);
  return config;
}

}  // namespace ecfs::wrap
