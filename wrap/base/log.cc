#include "wrap/base/log.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace ecfs {
namespace {

std::string& program_name() {
  static std::string name = "ecfs";
  return name;
}

LogTo g_where = LogTo::kStderr;
void (*g_sink)(int, std::string_view) = nullptr;

// How many bytes the UTF-8 sequence at the front of `s` has; 0 if it is none (RFC 3629: no overlong form, no
// surrogate).
std::size_t utf8_sequence(std::string_view s) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned first = at(0);
  const std::size_t len = first >= 0xc2 && first <= 0xdf   ? 2
                          : (first & 0xf0) == 0xe0         ? 3
                          : first >= 0xf0 && first <= 0xf4 ? 4
                                                           : 0;
  if (len == 0 || s.size() < len) return 0;
  for (std::size_t i = 1; i < len; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned second = at(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
      (first == 0xf4 && second > 0x8f)) {
    return 0;
  }
  if (first == 0xc2 && second < 0xa0) return 0;  // C1 control characters move a terminal's cursor as C0 ones do
  return len;
}

// `text` with control characters and bytes that are not UTF-8 given to `replace(byte, out)`.
template <class Replace>
std::string with_replaced(std::string_view text, Replace replace) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text.front());
    std::size_t len = 1;
    if (c >= 0x20 && c < 0x7f) {
      out.push_back(text.front());
    } else if (len = utf8_sequence(text); len > 0) {
      out.append(text.substr(0, len));
    } else {
      len = 1;
      replace(c, out);
    }
    text.remove_prefix(len);
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) {
  return with_replaced(text, [](unsigned char, std::string& out) { out.push_back('?'); });
}

std::string escaped(std::string_view text) {
  if (printable(text) == text) return std::string(text);
  std::string doubled;
  for (const char c : text) doubled.append(c == '\\' ? 2 : 1, c);
  return with_replaced(doubled, [](unsigned char c, std::string& out) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out += "\\x";
    out += kDigits[c >> 4];
    out += kDigits[c & 15];
  });
}

void log_open(std::string_view program, LogTo where) {
  program_name() = program;
  g_where = where;
  if (where == LogTo::kSyslog) openlog(program_name().c_str(), LOG_PID | LOG_CONS, LOG_AUTHPRIV);
}

void log_through(void (*sink)(int priority, std::string_view line)) { g_sink = sink; }

void log_line(int priority, std::string_view text) {
  static const bool kDebug = secure_getenv("ECFS_DEBUG") != nullptr;
  if (priority == LOG_DEBUG && !kDebug) return;
  const std::string line = printable(text);
  if (g_sink != nullptr) return g_sink(priority, line);
  if (g_where == LogTo::kSyslog) {
    syslog(priority, "%s", line.c_str());
    return;
  }
  const std::string whole = program_name() + ": " + line + "\n";
  // One write, so that lines of several threads do not mix. Nothing can be done about a closed stderr.
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, whole.data(), whole.size());
}

}  // namespace ecfs
