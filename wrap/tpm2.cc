#include "wrap/tpm2.h"

#include <signal.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include "wrap/base/log.h"
#include "wrap/mount.h"
#include "wrap/tpm2_wire.h"

namespace ecfs::wrap {
namespace {

constexpr int kEndMs = 1000;  // for the program to end once its socket is closed
constexpr auto kTctiKinds = std::to_array<std::string_view>({"device", "swtpm", "mssim", "tabrmd"});

// An answer that is an error: the text of its head's code.
Error error_of(const Tpm2Message& answer) {
  const std::uint32_t code = answer.head - 1;
  if (code > static_cast<std::uint32_t>(Code::kIo) || answer.data.empty()) {
    return {Code::kCorrupt, 0, "ecfs-tpm2 answered something that makes no sense"};
  }
  return {static_cast<Code>(code), 0, printable(as_text(answer.data))};
}

}  // namespace

Result<PcrSet> parse_pcrs(std::string_view text) {
  const Error bad{Code::kInvalid, 0,
                  "'" + printable(text) + "' is no list of PCRs: give numbers from 0 to 23, as in 7,11, or none"};
  if (text == "none") return PcrSet{0};
  PcrSet pcrs = 0;
  for (;;) {
    const std::size_t comma = std::min(text.find(','), text.size());
    unsigned number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + comma, number);
    if (error != std::errc{} || end != text.data() + comma || number >= kNumPcrs) return bad;
    pcrs |= 1U << number;
    if (comma == text.size()) return pcrs;
    text.remove_prefix(comma + 1);
  }
}

std::string pcrs_text(PcrSet pcrs) {
  std::string text;
  for (unsigned i = 0; i < kNumPcrs; ++i) {
    if ((pcrs >> i & 1) != 0) text += (text.empty() ? "" : ",") + std::to_string(i);
  }
  return text.empty() ? "none" : text;
}

Status check_tcti(std::string_view tcti) {
  const std::string_view kind = tcti.substr(0, tcti.find(':'));
  const bool plain = std::all_of(tcti.begin(), tcti.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (std::find(kTctiKinds.begin(), kTctiKinds.end(), kind) == kTctiKinds.end() || tcti.size() > kMaxTctiBytes ||
      !plain) {
    return Error{
        Code::kInvalid, 0,
        "'" + printable(tcti.substr(0, kMaxTctiBytes)) +
            "' is no way to a TPM: one is device:/dev/tpmrm0; besides it there are swtpm:, mssim: and tabrmd:"};
  }
  return {};
}

Result<std::string> choose_tcti(const std::string& asked, const std::string& configured) {
  std::string chosen = configured.empty() ? kDefaultTcti : configured;
  if (const char* named = secure_getenv("ECFS_TCTI"); named != nullptr && *named != '\0') chosen = named;
  if (!asked.empty()) {
    if (getauxval(AT_SECURE) != 0) return Error{Code::kDenied, 0, "--tcti is not for a program with raised privileges"};
    chosen = asked;
  }
  ECFS_TRY(check_tcti(chosen));
  return chosen;
}

Result<Tpm2> Tpm2::start(const Options& options) {
  ECFS_TRY(check_tcti(options.tcti));
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return system_error(errno, "make a socket pair");
  }
  Fd ours(ends[0]);
  const Fd theirs(ends[1]);
  SpawnOptions program;
  program.argv = {options.program.empty() ? helper_path("ecfs-tpm2") : options.program, options.tcti};
  if (options.for_login) program.argv.emplace_back("login");
  program.env = helper_environment();
  program.env.emplace_back("TSS2_LOG=all+NONE");  // its libraries write to stderr otherwise
  program.fds = {{theirs.get(), kTpm2SocketFd}};
  auto child = spawn(program);
  if (!child) {
    if (child.error().code != Code::kNotFound) return std::move(child).error();
    return Error{Code::kUnavailable, ENOENT,
                 "the program " + program.argv[0] + ", which talks to the TPM, is not installed"};
  }
  return Tpm2(std::move(ours), *child, options.timeout_ms);
}

Tpm2::Tpm2(Tpm2&& other) noexcept
    : socket_(std::move(other.socket_)),
      child_(std::exchange(other.child_, Child(-1))),
      timeout_ms_(other.timeout_ms_) {}

Tpm2::~Tpm2() {
  if (child_.pid() < 0) return;
  socket_.reset();
  (void)child_.wait(kEndMs);
}

Result<Reply> Tpm2::ask(std::uint32_t operation, ByteView data, const Secret& secret) {
  if (!socket_) return Error{Code::kUnavailable, 0, "the TPM did not answer before"};
  auto answer = [&]() -> Result<Tpm2Message> {
    ECFS_TRY(send_message(socket_.get(), operation, data, secret, timeout_ms_));
    return receive_message(socket_.get(), timeout_ms_);
  }();
  if (!answer) {
    // Whatever it was, the two would not understand each other any more; nor would those in other processes.
    shutdown(socket_.get(), SHUT_RDWR);
    if (child_.pid() > 0) kill(child_.pid(), SIGKILL);
    socket_.reset();
    if (answer.error().sys_errno == EPIPE) return Error{Code::kUnavailable, 0, "the TPM did not answer before"};
    if (answer.error().sys_errno == ETIMEDOUT) {
      return Error{Code::kUnavailable, ETIMEDOUT,
                   "the TPM did not answer within " + std::to_string((timeout_ms_ + 999) / 1000) + " s"};
    }
    if (answer.error().code == Code::kNotFound) return Error{Code::kIo, 0, "ecfs-tpm2 ended without an answer"};
    return std::move(answer).error();
  }
  if (answer->head != 0) return error_of(*answer);
  Reply reply;
  reply.data = std::move(answer->data);
  reply.secret = std::move(answer->secret);
  return reply;
}

Result<Tpm2Sealed> Tpm2::seal(PcrSet pcrs, const Secret& secret, const Secret& auth) {
  if (secret.size() != kTpm2SecretBytes || (!auth.empty() && auth.size() != kTpm2AuthBytes)) {
    return Error{Code::kInvalid, 0, "a TPM is given 32 bytes to seal, and an auth value of 32 bytes or none"};
  }
  ECFS_LET(Secret both, Secret::of_size(secret.size() + auth.size()));
  std::copy(secret.reveal().begin(), secret.reveal().end(), both.reveal_mutable().begin());
  std::copy(auth.reveal().begin(), auth.reveal().end(), both.reveal_mutable().begin() + kTpm2SecretBytes);
  Bytes data;
  append_le(data, pcrs);
  ECFS_LET(const Reply reply, ask(kTpm2Seal, data, both));
  return parse_sealed(reply.data);
}

Result<Secret> Tpm2::unseal(const Tpm2Sealed& sealed, const Secret& auth) {
  ECFS_LET(Reply reply, ask(kTpm2Unseal, pack_sealed(sealed), auth));
  if (reply.secret.size() != kTpm2SecretBytes) {
    return Error{Code::kCorrupt, 0, "the TPM gave back something else than was sealed"};
  }
  return std::move(reply.secret);
}

Result<Tpm2Status> Tpm2::status(const std::vector<Tpm2Sealed>& sealed) {
  Tpm2Status all;
  std::size_t next = 0;
  do {
    const std::size_t count = std::min(sealed.size() - next, kMaxTpm2Slots);
    const auto* const first = sealed.data() + next;
    ECFS_LET(const Reply reply, ask(kTpm2Status, pack_sealed_list({first, first + count}), Secret()));
    ECFS_LET(Tpm2Status status, parse_status(reply.data));
    if (status.slots.size() != count) {
      return Error{Code::kCorrupt, 0, "ecfs-tpm2 answered something that makes no sense"};
    }
    status.slots.insert(status.slots.begin(), all.slots.begin(), all.slots.end());
    all = std::move(status);
    next += count;
  } while (next < sealed.size());
  return all;
}

}  // namespace ecfs::wrap
