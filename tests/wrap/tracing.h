// Watching a child process at each of its system calls, with ptrace(2): to kill it there, or to look at its memory.
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "wrap/base/bytes.h"

namespace ecfs {

struct SystemCall {
  pid_t pid;
  std::uint64_t number;
  std::array<std::uint64_t, 6> args;

  // memory reads the child's memory; shorter where it ends.
  [[nodiscard]] Bytes memory(std::uint64_t address, std::size_t len) const {
    Bytes out(len);
    const iovec local{out.data(), len};
    const iovec remote{reinterpret_cast<void*>(address), len};  // NOLINT: an address of another process
    const ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    out.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return out;
  }
  [[nodiscard]] std::string text(std::uint64_t address) const {
    const Bytes bytes = memory(address, 256);  // NOLINT: names in the tests are short
    return std::string(as_text(bytes)).c_str();
  }
  // path gives what descriptor `fd` of the child is open on.
  [[nodiscard]] std::string path(std::uint64_t fd) const {
    std::array<char, 4096> buffer{};
    const std::string link = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
    const ssize_t n = readlink(link.c_str(), buffer.data(), buffer.size());
    return n < 0 ? std::string() : std::string(buffer.data(), static_cast<std::size_t>(n));
  }
};

enum class Traced { kDone, kFailed, kKilled };

// trace runs `work` (it gives true for success) in a child; before each system call of it `at_entry` is asked, and the
// child is killed there if it says false: that call does not happen.
template <class Work, class AtEntry>
Traced trace(Work&& work, AtEntry&& at_entry) {
  const pid_t pid = fork();
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    _exit(work() ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFSTOPPED(status)) std::abort();  // no ptrace here: nothing below could be believed
  ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  for (int deliver = 0;; deliver = 0) {
    ptrace(PTRACE_SYSCALL, pid, nullptr, deliver);
    if (waitpid(pid, &status, 0) != pid) std::abort();
    if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? Traced::kDone : Traced::kFailed;
    if (WIFSIGNALED(status)) return Traced::kFailed;
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
      deliver = WSTOPSIG(status);
      continue;
    }
    __ptrace_syscall_info info{};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) <= 0) std::abort();
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
    SystemCall call{pid, info.entry.nr, {}};
    for (std::size_t i = 0; i < call.args.size(); ++i) call.args[i] = info.entry.args[i];
    if (at_entry(call)) continue;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return Traced::kKilled;
  }
}

}  // namespace ecfs
