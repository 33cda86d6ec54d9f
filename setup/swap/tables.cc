#include "setup/swap/tables.h"

#include <algorithm>
#include <charconv>

namespace ecfs::swap {
namespace {

constexpr std::string_view kBlanks = " \t";
constexpr std::string_view kInsteadOf = "instead of: ";
constexpr std::string_view kWithout = "without: ";
constexpr std::string_view kAdded = "added:";
constexpr const char* kNofail = "nofail";
constexpr const char* kTimeout = "x-systemd.device-timeout=30s";

std::string mark(const std::string& name) { return "# ecfs setup-swap, " + name + ", "; }

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::vector<std::string> split(std::string_view text, std::string_view separators) {
  std::vector<std::string> out;
  std::size_t at = text.find_first_not_of(separators);
  while (at != std::string_view::npos) {
    const std::size_t end = text.find_first_of(separators, at);
    out.emplace_back(text.substr(at, end == std::string_view::npos ? end : end - at));
    at = end == std::string_view::npos ? end : text.find_first_not_of(separators, end);
  }
  return out;
}

bool has_option(const std::string& options, std::string_view wanted) {
  const auto all = split(options, ",");
  return std::any_of(all.begin(), all.end(), [&](const std::string& option) {
    return option == wanted || (option.starts_with(wanted) && option.substr(wanted.size()).starts_with('='));
  });
}

// UUID="…" as the tools write it.
std::string without_quotes(const std::string& spec) {
  const std::size_t equals = spec.find('=');
  if (equals == std::string::npos || spec.size() < equals + 3) return spec;
  const char quote = spec[equals + 1];
  if ((quote != '"' && quote != '\'') || spec.back() != quote) return spec;
  return spec.substr(0, equals + 1) + spec.substr(equals + 2, spec.size() - equals - 3);
}

std::string_view body(const std::string& line) {
  std::string_view text = line;
  if (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

bool is_swap(const Line& line) { return line.fields.size() >= 3 && line.fields[2] == "swap"; }
FstabSwap swap_of(const Line& line) {
  return {without_quotes(line.fields[0]), line.fields.size() > 3 ? line.fields[3] : "defaults"};
}

// The line that is put behind a mark, which holds `old`: also if somebody has changed its options since.
bool is_ours(const Line& line, Table table, const std::string& name, std::string_view old) {
  switch (table) {
    case Table::kFstab: {
      if (!is_swap(line)) return false;
      if (line.fields[0] == "/dev/mapper/" + name) return true;
      const std::vector<Line> was = lines_of(old);  // guarded: the same device
      return !was.empty() && !was[0].fields.empty() && was[0].fields[0] == line.fields[0];
    }
    case Table::kCrypttab: return !line.fields.empty() && line.fields[0] == name;
    case Table::kResume: return line.text.starts_with("RESUME=");
  }
  return false;
}

std::string bounded_options(const std::string& options) {
  std::string out = options;
  if (!has_option(out, kNofail)) out += std::string(out.empty() ? "" : ",") + kNofail;
  if (!has_option(out, "x-systemd.device-timeout")) out += std::string(",") + kTimeout;
  return out;
}

// Bytes that would end a field; the rest stays as it is.
std::string escape(std::string_view field) {
  std::string out;
  for (const char c : field) {
    switch (c) {
      case ' ': out += "\\040"; break;
      case '\t': out += "\\011"; break;
      case '\n': out += "\\012"; break;
      case '\r': out += "\\015"; break;
      case '\\': out += "\\134"; break;
      default: out += c;
    }
  }
  return out;
}

std::string fstab_line(const std::string& spec, const std::string& options) {
  return escape(spec) + " none swap " + escape(options) + " 0 0";
}

// What becomes of a line: nothing stays as it is; "": it is taken out.
using Change = std::function<std::optional<std::string>(const Line&)>;

std::string changed(std::string_view text, Table table, const std::string& name, const Change& change,
                    const std::string& added) {
  std::string out;
  bool any = false;
  for (const Line& line : lines_of(without_marks(text, table, name))) {
    const std::optional<std::string> fresh = change(line);
    if (!fresh) {
      out += line.text;
      continue;
    }
    any = true;
    const std::string_view old = body(line.text);
    const std::string_view end = std::string_view(line.text).substr(old.size());
    if (fresh->empty()) {
      out += mark(name).append(kWithout).append(old).append(end);
    } else {
      out += mark(name).append(kInsteadOf).append(old).append("\n").append(*fresh).append(end);
    }
  }
  if (!any && !added.empty()) {
    if (!out.empty() && !out.ends_with('\n')) out += '\n';
    out += mark(name).append(kAdded).append("\n").append(added).append("\n");
  }
  return out;
}

}  // namespace

std::string unescape(std::string_view field) {
  std::string out;
  for (std::size_t i = 0; i < field.size(); ++i) {
    const auto digit = [&](std::size_t at) { return at < field.size() && field[at] >= '0' && field[at] <= '7'; };
    if (field[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3) && field[i + 1] <= '3') {
      out += static_cast<char>(((field[i + 1] - '0') << 6) | ((field[i + 2] - '0') << 3) | (field[i + 3] - '0'));
      i += 3;
    } else {
      out += field[i];
    }
  }
  return out;
}

std::vector<Line> lines_of(std::string_view text) {
  std::vector<Line> out;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::size_t len = newline == std::string_view::npos ? text.size() : newline + 1;
    Line line{std::string(text.substr(0, len)), {}};
    text.remove_prefix(len);
    for (const std::string& field : split(line.text, " \t\r\n")) {
      if (line.fields.empty() && field.starts_with('#')) break;
      line.fields.push_back(unescape(field));
    }
    out.push_back(std::move(line));
  }
  return out;
}

Result<std::vector<ActiveSwap>> parse_proc_swaps(std::string_view text) {
  std::vector<ActiveSwap> out;
  bool heading = true;
  for (const Line& line : lines_of(text)) {
    if (std::exchange(heading, false)) continue;
    const auto& f = line.fields;
    // A path that begins with '#' would be taken for a comment: the kernel writes it as it is, but it begins with '/'.
    if (f.empty() && line.text == "\n") continue;
    const auto size = f.size() == 5 ? number<std::uint64_t>(f[2]) : std::nullopt;
    const auto used = f.size() == 5 ? number<std::uint64_t>(f[3]) : std::nullopt;
    const auto priority = f.size() == 5 ? number<int>(f[4]) : std::nullopt;
    constexpr std::uint64_t kMostKib = std::uint64_t{1} << 50;
    if (!size || !used || !priority || *size > kMostKib || *used > kMostKib) {
      return Error{Code::kCorrupt, 0, "/proc/swaps has a line that makes no sense: " + std::string(body(line.text))};
    }
    out.push_back({f[0], f[1] == "file", *size * 1024, *used * 1024, *priority});
  }
  return out;
}

bool FstabSwap::has(std::string_view option) const { return has_option(options, option); }

std::vector<FstabSwap> fstab_swaps(std::string_view text) {
  std::vector<FstabSwap> out;
  for (const Line& line : lines_of(text)) {
    if (is_swap(line)) out.push_back(swap_of(line));
  }
  return out;
}

bool CryptEntry::has(std::string_view option) const { return has_option(options, option); }

std::string CryptEntry::option(std::string_view wanted) const {
  for (const std::string& option : split(options, ",")) {
    if (option.starts_with(wanted) && option.substr(wanted.size()).starts_with('=')) {
      return option.substr(wanted.size() + 1);
    }
  }
  return "";
}

std::vector<CryptEntry> crypttab_entries(std::string_view text) {
  std::vector<CryptEntry> out;
  for (const Line& line : lines_of(text)) {
    const auto& f = line.fields;
    if (f.size() < 2) continue;
    out.push_back({f[0], without_quotes(f[1]), f.size() > 2 ? f[2] : "", f.size() > 3 ? f[3] : ""});
  }
  return out;
}

std::string guard_fstab(std::string_view text, const std::string& name, const Means& means) {
  return changed(
      text, Table::kFstab, name,
      [&](const Line& line) -> std::optional<std::string> {
        if (!is_swap(line) || !means(swap_of(line).spec)) return {};
        return fstab_line(line.fields[0], bounded_options(swap_of(line).options));
      },
      "");
}

std::string replace_fstab(std::string_view text, const std::string& name, const Means& means, int priority) {
  const std::string mapped = "/dev/mapper/" + name;
  const std::string given = priority >= 0 ? ",pri=" + std::to_string(priority) : "";
  bool first = true;
  return changed(
      text, Table::kFstab, name,
      [&](const Line& line) -> std::optional<std::string> {
        if (!is_swap(line) || !means(swap_of(line).spec)) return {};
        if (!std::exchange(first, false)) return "";
        std::string options;
        for (const std::string& option : split(swap_of(line).options, ",")) {
          if (option == "discard" || option.starts_with("discard=")) continue;
          options += (options.empty() ? "" : ",") + option;
        }
        if (options.empty()) options = "sw";
        if (!has_option(options, "pri")) options += given;
        return fstab_line(mapped, bounded_options(options));
      },
      fstab_line(mapped, bounded_options("sw" + given)));
}

std::string add_crypttab(std::string_view text, const std::string& name, const std::string& line) {
  return changed(
      text, Table::kCrypttab, name, [](const Line&) { return std::nullopt; }, line);
}

std::string resume_of(std::string_view text) {
  std::string value;
  for (const Line& line : lines_of(text)) {
    if (!line.text.starts_with("RESUME=")) continue;
    value = std::string(body(line.text)).substr(7);
    while (!value.empty() && (kBlanks.find(value.back()) != std::string_view::npos || value.back() == '\r')) {
      value.pop_back();
    }
    if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front()) {
      value = value.substr(1, value.size() - 2);
    }
    value = without_quotes(value);
  }
  return value;
}

std::string end_resume(std::string_view text, const std::string& name) {
  return changed(
      text, Table::kResume, name,
      [](const Line& line) -> std::optional<std::string> {
        if (!line.text.starts_with("RESUME=")) return {};
        return "RESUME=none";
      },
      "RESUME=none");
}

std::string without_marks(std::string_view text, Table table, const std::string& name) {
  const std::string ours = mark(name);
  const std::vector<Line> lines = lines_of(text);
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!lines[i].text.starts_with(ours)) {
      out += lines[i].text;
      continue;
    }
    const std::string_view rest = std::string_view(lines[i].text).substr(ours.size());
    const std::string_view instead_of = rest.starts_with(kInsteadOf) ? rest.substr(kInsteadOf.size()) : "";
    const bool followed = i + 1 < lines.size() && is_ours(lines[i + 1], table, name, instead_of);
    if (rest.starts_with(kWithout)) {
      out += rest.substr(kWithout.size());
    } else if (rest.starts_with(kInsteadOf)) {
      std::string_view old = instead_of;
      if (old.ends_with('\n')) old.remove_suffix(1);
      out += old;
      if (!followed || lines[i + 1].text.ends_with('\n')) out += '\n';
      if (followed) ++i;
    } else if (rest.starts_with(kAdded)) {
      if (followed) ++i;
    } else {
      out += lines[i].text;
    }
  }
  return out;
}

}  // namespace ecfs::swap
