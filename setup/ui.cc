#include "setup/ui.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pwquality.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "setup/messages.h"
#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"

namespace ecfs::setup {
namespace {

constexpr std::size_t kMaxLine = 4096;
constexpr std::uint64_t kMaxSecretFileBytes = 64 * 1024;
constexpr int kTries = 3;
constexpr std::array kEnding = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
constexpr std::array kStopping = {SIGTSTP, SIGTTIN, SIGTTOU};
constexpr std::array kGuarded = {SIGINT, SIGTERM, SIGHUP};

volatile sig_atomic_t g_prompt_signal = 0;   // arrived while a question was open
volatile sig_atomic_t g_guarded_signal = 0;  // noted by a SignalGuard
bool g_guarded = false;
std::array<struct sigaction, kGuarded.size()> g_before_guard;

void on_prompt_signal(int number) { g_prompt_signal = number; }
void on_guarded_signal(int number) { g_guarded_signal = number; }

void write_line(int fd, std::string_view start, std::string_view line) {
  const std::string whole = std::string(start) + printable(line) + "\n";
  // Nothing can be done about an output that is closed or full.
  (void)write_all(fd, as_bytes(whole));
}

Fd open_terminal() { return Fd(open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC)); }

// Quiet switches a terminal's echo off and puts everything back, whatever ends the question.
class Quiet {
 public:
  Quiet(int tty, bool quiet) : tty_(tty) {
    if (!quiet || tcgetattr(tty, &before_) != 0) return;
    termios now = before_;
    now.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    now.c_lflag |= static_cast<tcflag_t>(ECHONL | ICANON | ISIG);
    changed_ = tcsetattr(tty, TCSAFLUSH, &now) == 0;
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
  ~Quiet() {
    if (changed_) tcsetattr(tty_, TCSAFLUSH, &before_);
  }

 private:
  int tty_;
  termios before_{};
  bool changed_ = false;
};

// PromptSignals holds back all signals that would end or stop the process, but for the moments of waiting().
class PromptSignals {
 public:
  PromptSignals() {
    g_prompt_signal = 0;
    sigset_t all;
    sigemptyset(&all);
    std::size_t i = 0;
    const auto take = [&](int number) {
      sigaddset(&all, number);
      struct sigaction action {};
      action.sa_handler = on_prompt_signal;
      sigaction(number, &action, &before_[i++]);
    };
    for (const int number : kEnding) take(number);
    for (const int number : kStopping) take(number);
    sigprocmask(SIG_BLOCK, &all, &mask_);
  }
  PromptSignals(const PromptSignals&) = delete;
  PromptSignals& operator=(const PromptSignals&) = delete;
  ~PromptSignals() {
    std::size_t i = 0;
    for (const int number : kEnding) sigaction(number, &before_[i++], nullptr);
    for (const int number : kStopping) sigaction(number, &before_[i++], nullptr);
    sigprocmask(SIG_SETMASK, &mask_, nullptr);
  }
  // waiting returns true when `tty` can be read, false when a signal came.
  bool waiting(int tty) const {
    pollfd p{tty, POLLIN, 0};
    for (;;) {
      const int n = ppoll(&p, 1, nullptr, &mask_);
      if (n > 0) return true;
      if (g_prompt_signal != 0) return false;
      if (n < 0 && errno != EINTR) return true;  // the read that follows says what is wrong
    }
  }

 private:
  std::array<struct sigaction, kEnding.size() + kStopping.size()> before_{};
  sigset_t mask_{};
};

// One line from the terminal, or nothing if a signal came (g_prompt_signal).
Result<std::optional<Secret>> line_from(int tty, std::string_view prompt, bool quiet) {
  ECFS_LET(Secret line, Secret::of_size(kMaxLine + 1));
  std::size_t len = 0;
  const PromptSignals signals;
  const Quiet echo(tty, quiet);
  ECFS_TRY(write_all(tty, as_bytes(prompt)));
  for (;;) {
    if (!signals.waiting(tty)) {
      (void)write_all(tty, as_bytes("\n"));
      return std::optional<Secret>();
    }
    const ssize_t n = read(tty, line.reveal_mutable().data() + len, line.size() - len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(errno, "read from the terminal");
    if (n == 0 && len == 0) return Error{Code::kInvalid, 0, "the question was closed without an answer"};
    len += static_cast<std::size_t>(n);
    if (n == 0 || line.reveal()[len - 1] == '\n') break;
    if (len == line.size()) return Error{Code::kInvalid, 0, "the line is too long"};
  }
  if (len > 0 && line.reveal()[len - 1] == '\n') --len;
  line.shrink(len);
  return std::optional<Secret>(std::move(line));
}

Result<Secret> ask_terminal(int tty, std::string_view prompt, bool quiet) {
  for (;;) {
    ECFS_LET(std::optional<Secret> line, line_from(tty, prompt, quiet));
    if (line) return *std::move(line);
    // The terminal and the handlers are as they were before the question: the signal may now do what it does.
    const int number = g_prompt_signal;
    raise(number);
    ECFS_TRY(check_signals());
    if (std::find(kEnding.begin(), kEnding.end(), number) != kEnding.end()) {
      return Error{Code::kIo, EINTR,
                   "interrupted"};  // ignored by whoever started us; the question is over all the same
    }
  }
}

Status check_line(const Secret& line) {
  if (line.empty()) return Error{Code::kInvalid, 0, "the passphrase is empty"};
  const ByteView bytes = line.reveal();
  if (std::find(bytes.begin(), bytes.end(), 0) != bytes.end()) {
    return Error{Code::kInvalid, 0, "the passphrase holds a zero byte"};
  }
  return {};
}

Result<Secret> read_from(const SecretSource& source) {
  if (source.fd >= 0) {
    auto line = read_secret_line(source.fd, kMaxLine);
    if (!line) return with_context(std::move(line).error(), fmt::format("{}-fd {}", source.option, source.fd));
    return line;
  }
  auto file = open_regular(AT_FDCWD, source.file, kMaxSecretFileBytes);
  if (!file) {
    Error error = with_context(std::move(file).error(), source.option + "-file");
    if (error.code == Code::kInvalid) error.what += " (a pipe is given with " + source.option + "-fd)";
    return error;
  }
  struct stat st {};
  if (fstat(file->get(), &st) == 0 && (st.st_mode & 077) != 0) {
    warn(source.file + " can be read by others: chmod 600 it");
  }
  auto line = read_secret_line(file->get(), kMaxLine);
  if (!line) return with_context(std::move(line).error(), source.file);
  return line;
}

std::int64_t now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
}

}  // namespace

bool interactive() noexcept { return isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1; }

void say(std::string_view line) { write_line(STDOUT_FILENO, "", line); }
void note(std::string_view line) { write_line(STDERR_FILENO, "ecfs: ", line); }
void note_more(std::string_view line) { write_line(STDERR_FILENO, "      ", line); }
void warn(std::string_view line) { write_line(STDERR_FILENO, "ecfs: warning: ", line); }

Result<Secret> read_secret(const SecretSource& source, std::string_view prompt) {
  if (source.given()) {
    ECFS_LET(Secret line, read_from(source));
    ECFS_TRY(check_line(line));
    return line;
  }
  const Fd tty = open_terminal();
  if (!tty) return no_terminal_error("a passphrase", source.option);
  ECFS_LET(Secret line, ask_terminal(tty.get(), prompt, true));
  ECFS_TRY(check_line(line));
  return line;
}

Result<Secret> read_new_secret(const SecretSource& source, std::string_view prompt) {
  if (source.given()) return read_secret(source, prompt);
  for (int i = 0; i < kTries; ++i) {
    ECFS_LET(Secret first, read_secret(source, prompt));
    ECFS_LET(const Secret second, read_secret(source, "Once more: "));
    if (first.equals(second)) return first;
    note("the two differ");
  }
  return Error{Code::kInvalid, 0, "no passphrase was chosen"};
}

Result<bool> ask_yes(std::string_view question, bool otherwise) {
  const std::string prompt = fmt::format("{} [{}] ", question, otherwise ? "Y/n" : "y/N");
  for (;;) {
    const auto answer = ask_line(prompt, otherwise ? "y" : "n");
    if (!answer) return answer.error();
    const std::string_view word = *answer;
    if (word == "y" || word == "Y" || word == "yes" || word == "Yes") return true;
    if (word == "n" || word == "N" || word == "no" || word == "No") return false;
    note("answer y or n");
  }
}

Result<std::string> ask_line(std::string_view question, std::string_view otherwise) {
  const Fd tty = interactive() ? open_terminal() : Fd();
  if (!tty) return std::string(otherwise);
  ECFS_LET(const Secret line, ask_terminal(tty.get(), question, false));
  std::string answer(as_text(line.reveal()));
  return answer.empty() ? std::string(otherwise) : answer;
}

Status show_secret(const Secret& text) {
  const Fd tty = open_terminal();
  if (!tty) return Error{Code::kUnavailable, 0, "there is no terminal to show the recovery key on"};
  return write_all(tty.get(), text.reveal());
}

std::string weak_passphrase(const Secret& passphrase, const std::string& user) {
  const Owned<pwquality_settings_t, pwquality_free_settings> settings(pwquality_default_settings());
  auto text = Secret::of_size(passphrase.size() + 1);  // libpwquality wants a C string
  if (!settings || !text) return "its strength could not be judged (out of memory)";
  std::memcpy(text->reveal_mutable().data(), passphrase.reveal().data(), passphrase.size());
  const auto* password = reinterpret_cast<const char*>(text->reveal().data());  // NOLINT: bytes as the library's char
  // The machine's own rules; without or with a damaged file the library's defaults hold.
  void* detail = nullptr;
  (void)pwquality_read_config(settings.get(), nullptr, &detail);
  // Where cracklib has no dictionary it would complain on stderr; the other rules then judge alone.
  const char* dictionary = nullptr;
  (void)pwquality_get_str_value(settings.get(), PWQ_SETTING_DICT_PATH, &dictionary);
  const std::string index =
      std::string(dictionary == nullptr ? "/var/cache/cracklib/cracklib_dict" : dictionary) + ".pwd";
  if (access(index.c_str(), R_OK) != 0) pwquality_set_int_value(settings.get(), PWQ_SETTING_DICT_CHECK, 0);
  detail = nullptr;
  const int score = pwquality_check(settings.get(), password, nullptr, user.c_str(), &detail);
  if (score >= 0) return "";
  std::array<char, PWQ_MAX_ERROR_MESSAGE_LEN> buffer{};
  const char* reason = pwquality_strerror(buffer.data(), buffer.size(), score, detail);
  return reason == nullptr ? "it is too weak" : reason;
}

SignalGuard::SignalGuard() noexcept {
  if (g_guarded) return;
  g_guarded = true;
  for (std::size_t i = 0; i < kGuarded.size(); ++i) {
    struct sigaction action {};
    action.sa_handler = on_guarded_signal;
    action.sa_flags = SA_RESTART;
    sigaction(kGuarded[i], &action, &g_before_guard[i]);
  }
}

SignalGuard::~SignalGuard() {
  for (std::size_t i = 0; i < kGuarded.size(); ++i) sigaction(kGuarded[i], &g_before_guard[i], nullptr);
  g_guarded = false;
}

int caught_signal() noexcept { return g_guarded_signal; }

Status check_signals() {
  if (g_guarded_signal != 0) return Error{Code::kIo, EINTR, "interrupted"};
  return {};
}

Progress::Progress(std::string_view label, std::uint64_t total_bytes, std::uint64_t total_entries)
    : label_(label),
      total_(total_bytes),
      total_entries_(total_entries),
      begun_at_ms_(now_ms()),
      draws_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (!draws_ || drawn_at_ms_ == 0) return;
  draw();
  (void)write_all(STDERR_FILENO, as_bytes("\n"));
}

void Progress::advance(std::uint64_t bytes, std::uint64_t entries) {
  done_ += bytes;
  done_entries_ += entries;
  const std::int64_t now = now_ms();
  if (!draws_ || now - drawn_at_ms_ < 100) return;
  drawn_at_ms_ = now;
  draw();
}

void Progress::hide() {
  if (!draws_ || width_ == 0) return;
  (void)write_all(STDERR_FILENO, as_bytes("\r" + std::string(width_, ' ') + "\r"));
  width_ = 0;
  drawn_at_ms_ = 1;  // long ago: it comes back with the next advance
}

void Progress::draw() {
  constexpr std::size_t kWidth = 30;
  constexpr double kMib = 1024.0 * 1024.0;
  if (total_ == 0 && total_entries_ == 0) {
    const std::string line = fmt::format("{} {} entries", label_, done_entries_);
    width_ = line.size();
    (void)write_all(STDERR_FILENO, as_bytes("\r" + line));
    return;
  }
  const bool by_entries = total_ == 0 && total_entries_ != 0;
  const auto done = static_cast<double>(by_entries ? done_entries_ : done_);
  const auto total = static_cast<double>(by_entries ? total_entries_ : total_);
  const double share = total == 0 ? 1.0 : std::min(1.0, done / total);
  const auto filled = static_cast<std::size_t>(share * static_cast<double>(kWidth));
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::string line = fmt::format("{} [{}] {:3.0f}%", label_, bar, share * 100.0);
  if (!by_entries) line += fmt::format(" of {:.1f} MiB", static_cast<double>(total_) / kMib);
  if (total_entries_ != 0)
    line += fmt::format(", {} of {} entries", done_entries_, std::max(done_entries_, total_entries_));
  constexpr std::int64_t kTellsRateAfterMs = 3000;
  constexpr double kMsPerSecond = 1000.0;
  const std::int64_t passed_ms = now_ms() - begun_at_ms_;
  if (!by_entries && done_ != 0 && total_ != 0 && passed_ms >= kTellsRateAfterMs) {
    const double rate = done * kMsPerSecond / static_cast<double>(passed_ms);
    line += fmt::format(", {:.1f} MiB/s", rate / kMib);
    if (done < total) {
      const auto left_s = static_cast<std::uint64_t>((total - done) / rate) + 1;
      line += left_s < 3600 ? fmt::format(", {}:{:02} left", left_s / 60, left_s % 60)
                            : fmt::format(", {}:{:02}:{:02} left", left_s / 3600, left_s / 60 % 60, left_s % 60);
    }
  }
  // What stood there may have been longer.
  const std::string rest(width_ > line.size() ? width_ - line.size() : 0, ' ');
  width_ = line.size();
  (void)write_all(STDERR_FILENO, as_bytes("\r" + line + rest));
}

std::string shell_word(const std::string& path) {
  const bool plain = std::all_of(path.begin(), path.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("/._-+,:@%").find(c) != std::string_view::npos;
  });
  if (plain && !path.starts_with('-')) return path;
  std::string word = path.starts_with('-') ? "'./" : "'";
  for (const char c : path) {
    if (c == '\'') {
      word += "'\\''";
    } else {
      word += c;
    }
  }
  return word + "'";
}

std::string size_text(std::uint64_t bytes) {
  constexpr double kUnit = 1024.0;
  const auto value = static_cast<double>(bytes);
  if (value < kUnit * kUnit) return fmt::format("{:.0f} KiB", value / kUnit);
  if (value < kUnit * kUnit * kUnit) return fmt::format("{:.1f} MiB", value / (kUnit * kUnit));
  return fmt::format("{:.1f} GiB", value / (kUnit * kUnit * kUnit));
}

}  // namespace ecfs::setup
