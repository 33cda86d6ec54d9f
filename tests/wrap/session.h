// Keyring sessions for tests.
#pragma once

#include <keyutils.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace ecfs {

enum class Session { kLinksUserKeyring, kBare };

// Runs `work` (it gives the number of the step that failed, 0 for none) in a child with a session keyring of its own,
// so that no test sees another's, or the tester's, keys there.
inline int in_session(Session kind, const std::function<int()>& work) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (keyctl_join_session_keyring(nullptr) < 0) _exit(77);
    if (kind == Session::kLinksUserKeyring && keyctl_link(KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING) != 0)
      _exit(77);
    _exit(work());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

}  // namespace ecfs
