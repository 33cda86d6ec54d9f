// Talking to the person: questions, secrets without echo, progress, and reading secrets from descriptors. The only place
// that touches the terminal. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::setup {

// Where a command takes a secret from: --passphrase-fd N, --passphrase-file F (one line), else the terminal.
struct SecretSource {
  int fd = -1;
  std::string file;
  [[nodiscard]] bool given() const noexcept { return fd >= 0 || !file.empty(); }
};

// interactive: are stdin and stderr a terminal, so that questions make sense?
bool interactive() noexcept;

// say writes a line to stdout; note one to stderr ("ecfs: …"); warn one to stderr ("ecfs: warning: …").
void say(std::string_view line);
void note(std::string_view line);
void warn(std::string_view line);

// read_secret takes one line from the source, or asks on /dev/tty without echo. Not given and no terminal: kInvalid with a
// text that names the options. The terminal is put back as it was also after SIGINT, SIGTERM, SIGTSTP.
Result<Secret> read_secret(const SecretSource& source, std::string_view prompt);

// read_new_secret asks twice on a terminal (three tries); from a source it reads one line.
Result<Secret> read_new_secret(const SecretSource& source, std::string_view prompt);

// ask_yes asks a yes/no question; without a terminal it gives `otherwise`.
Result<bool> ask_yes(std::string_view question, bool otherwise);

// ask_line asks for a line of text (not secret).
Result<std::string> ask_line(std::string_view question, std::string_view otherwise);

// show_secret writes secret bytes (a recovery key, its QR code) to the terminal or, without one, to stdout, and nowhere else.
Status show_secret(const Secret& text);

// weak_passphrase explains why libpwquality finds a passphrase too weak ("" if it is good enough).
std::string weak_passphrase(const Secret& passphrase, const std::string& user);

// Progress draws a bar on stderr while it is a terminal, at most ten times a second; silent otherwise.
class Progress {
 public:
  Progress(std::string_view label, std::uint64_t total_bytes);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the line
  void advance(std::uint64_t bytes);

 private:
  std::string label_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::int64_t drawn_at_ms_ = 0;
  bool draws_;
};

}  // namespace ecfs::setup
