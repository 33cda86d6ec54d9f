// Talking to the person: questions, secrets without echo, progress, and reading secrets from descriptors. The only
// place that touches the terminal. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::setup {

// Where a command takes a secret from: --passphrase-fd N, --passphrase-file F (its first line), else the terminal.
struct SecretSource {
  int fd = -1;
  std::string file;
  std::string option = "--passphrase";  // what to name in messages: option + "-fd", option + "-file"
  [[nodiscard]] bool given() const noexcept { return fd >= 0 || !file.empty(); }
};

// interactive: are stdin and stderr a terminal, so that questions make sense?
bool interactive() noexcept;

// say writes a line to stdout; note one to stderr ("ecfs: …"), note_more a further line of it; warn one to stderr
// ("ecfs: warning: …"). What would move the cursor is replaced by '?'.
void say(std::string_view line);
void note(std::string_view line);
void note_more(std::string_view line);
void warn(std::string_view line);

// read_secret takes one line from the source, or asks on /dev/tty without echo. Not given and no terminal: kInvalid
// with a text that names the options. The terminal is put back as it was also after SIGINT, SIGTERM, SIGTSTP. An empty
// line and one with a NUL byte are kInvalid.
Result<Secret> read_secret(const SecretSource& source, std::string_view prompt);

// read_new_secret asks twice on a terminal (three tries); from a source it reads one line.
Result<Secret> read_new_secret(const SecretSource& source, std::string_view prompt);

std::string size_text(std::uint64_t bytes);  // "1.2 GiB"
// shell_word gives a path as a shell takes it, for a command to be typed.
std::string shell_word(const std::string& path);

// ask_yes asks a yes/no question; without a terminal it gives `otherwise`.
Result<bool> ask_yes(std::string_view question, bool otherwise);

// ask_line asks for a line of text (not secret); without a terminal or for an empty line it gives `otherwise`.
Result<std::string> ask_line(std::string_view question, std::string_view otherwise);

// show_secret writes secret bytes (a recovery key, its QR code) to the terminal and nowhere else: what stdout gets may
// end in a log. Without a terminal: kUnavailable.
Status show_secret(const Secret& text);

// weak_passphrase explains why libpwquality finds a passphrase too weak ("" if it is good enough).
std::string weak_passphrase(const Secret& passphrase, const std::string& user);

// While a SignalGuard lives, SIGINT, SIGTERM and SIGHUP are noted instead of ending the process, so that a command can
// undo what it began. One at a time.
class SignalGuard {
 public:
  SignalGuard() noexcept;
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  ~SignalGuard();
};

// caught_signal gives the signal noted by a guard, or 0. check_signals makes it an error (kIo, EINTR, "interrupted").
int caught_signal() noexcept;
Status check_signals();

// Progress draws a bar on stderr while it is a terminal, at most ten times a second; silent otherwise. It follows the
// bytes, or, where there are none in all, the entries; these are counted beside it if their number is given. Where
// neither number is known the entries are counted, and there is no bar. After some seconds it tells of the bytes a
// second and of the time that is left.
class Progress {
 public:
  Progress(std::string_view label, std::uint64_t total_bytes, std::uint64_t total_entries = 0);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the line
  void advance(std::uint64_t bytes, std::uint64_t entries = 0);
  // hide takes the bar away until the next advance(), so that a line can be written in its place.
  void hide();

 private:
  void draw();

  std::string label_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::uint64_t total_entries_;
  std::uint64_t done_entries_ = 0;
  std::size_t width_ = 0;  // of the line that stands there
  std::int64_t begun_at_ms_ = 0;
  std::int64_t drawn_at_ms_ = 0;
  bool draws_;
};

}  // namespace ecfs::setup
