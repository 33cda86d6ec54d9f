// Starting programs and stepping down from root.
//
// A program is started with a clean environment, exactly the descriptors named, default signal dispositions and an
// empty signal mask, whatever the host process (login, sshd, a display manager) has set up. Secrets go over pipes.
// Callers that are libraries in a foreign process (the PAM module) use only spawn() and Child.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs {

// Whom to be: a user with all groups, as the system's databases know them.
struct Identity {
  std::string name;
  std::string home;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

// identity_of looks a user up. An unknown user is kNotFound. Uses the _r functions only.
Result<Identity> identity_of(const std::string& user);
Result<Identity> identity_of(uid_t uid);
// own_identity is that of the effective user, with the supplementary groups that this process has: asking the databases
// for groups loads libraries and may ask a network.
Result<Identity> own_identity();

// become turns this process into `who` for good: groups, then gid, then uid, real, effective and saved; checks that
// there is no way back. Does nothing if it is that user already without privilege.
Status become(const Identity& who);

struct SpawnOptions {
  std::vector<std::string> argv;         // argv[0] is the path of the program
  std::vector<std::string> env;          // "NAME=value"; nothing is inherited
  std::vector<std::pair<int, int>> fds;  // {descriptor here, number there}; numbers 0..2 not named are /dev/null
  std::optional<Identity> run_as;        // needs root
  bool new_session = false;              // setsid, so that it outlives a terminal or a login
};

// Child is a started program. Destroying it neither kills nor waits.
class Child {
 public:
  explicit Child(pid_t pid) noexcept : pid_(pid) {}
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

  // wait gives the exit status (128 + signal if killed). With `timeout_ms` >= 0 it waits that long at most, then kills
  // the child (SIGKILL) and is kUnavailable with ETIMEDOUT, even if a child in an uninterruptible wait stays. Works
  // when the host ignores SIGCHLD (the status is then unknown: kIo with ECHILD).
  Result<int> wait(int timeout_ms = -1);

 private:
  pid_t pid_;
};

// spawn starts a program. Failing to execute it is an error here, not a status there.
Result<Child> spawn(const SpawnOptions& options);

// What a forked worker gives back to the process that forked it.
struct Reply {
  Bytes data;
  Secret secret;
  std::vector<Fd> fds;  // at most 16
};

// run_as forks a child that becomes `who`, runs `work` there, and brings its Reply or Error back; the child ends at
// once. It is how root reads what a user could have prepared. After `timeout_ms` (>= 0) the child is killed:
// kUnavailable. The parent must have no other thread that holds a lock which `work` needs (ecfs-login has none).
Result<Reply> run_as(const Identity& who, int timeout_ms, const std::function<Result<Reply>()>& work);

// start_time_of reads when a process started, in clock ticks since the boot (proc(5)): nothing if there is none. With
// it a process is told from a later one of the same number.
std::optional<std::uint64_t> start_time_of(pid_t pid);

struct Pipe {
  Fd read_end;
  Fd write_end;
};
Result<Pipe> make_pipe();  // both close-on-exec

}  // namespace ecfs
