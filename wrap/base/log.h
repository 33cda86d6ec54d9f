// One line to the system log or to stderr. Never key or passphrase bytes. Safe from any thread once opened.
#pragma once

#include <syslog.h>

#include <string>
#include <string_view>

namespace ecfs {

enum class LogTo { kStderr, kSyslog };

// log_open chooses where lines go and the name they carry. Without it: stderr, "ecfs". Call before other threads start.
void log_open(std::string_view program, LogTo where);

// log_through has lines go to `sink` instead, control characters replaced already. For a process that cannot reach the
// system log and hands its lines to one that can.
void log_through(void (*sink)(int priority, std::string_view line));

// log_line writes one line with a syslog priority (LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG). Control characters in
// `text` (a file name can hold a newline) are replaced by '?'. LOG_DEBUG goes nowhere unless ECFS_DEBUG is set (stderr
// only).
void log_line(int priority, std::string_view text);

// printable gives `text` with control characters and bytes that are not UTF-8 replaced by '?': for terminals and logs.
std::string printable(std::string_view text);
// escaped is for names of files: text that printable would change has "\x1b" in the place of each such byte, and "\\"
// for a backslash, so that two names do not look the same; other text stays as it is.
std::string escaped(std::string_view text);

}  // namespace ecfs
