// A program that uses PAM as login does: one handle, kept for as long as a session lasts. The tests speak to it on
// stdin, one command a line, and read what happens on stdout, one event a line:
//
//   say TEXT         the next question without echo is answered with TEXT (one answer a question, in order)
//   authenticate, acct_mgmt, setcred, open_session, close_session, chauthtok
//                    calls it; answers "R <name> <code>"
//   set_user NAME    the session becomes another user's, as under sudo; answers "R set_user <code>"
//   silent           PAM_SILENT from now on
//   run COMMAND      runs it with sh as the user, in this process's session keyring;
//                    answers "O <line>"... and "R run <status>"
//   fork_end         a forked copy of this process ends its copy of the handle, as sshd's do; answers "R fork_end 0"
//   ignore_children  SIGCHLD is ignored from now on
//   end              pam_end; answers "R end <code>"
//
// Lines from the modules: "I text" (information), "E text" (error), "Q text" (question without echo).
// usage: pam_driver SERVICE USER [REAL-UID]
#include <grp.h>
#include <pwd.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iostream>
#include <string>

namespace {

std::deque<std::string> g_answers;

void event(const std::string& text) {
  std::cout << text << std::endl;  // flushed: the test waits for it
}

int converse(int count, const pam_message** messages, pam_response** responses, void*) {
  auto* made = static_cast<pam_response*>(calloc(static_cast<std::size_t>(count), sizeof(pam_response)));
  if (made == nullptr) return PAM_BUF_ERR;
  *responses = made;
  for (int i = 0; i < count; ++i) {
    const std::string text = messages[i]->msg;
    switch (messages[i]->msg_style) {
      case PAM_TEXT_INFO: event("I " + text); break;
      case PAM_ERROR_MSG: event("E " + text); break;
      default:
        event("Q " + text);
        if (g_answers.empty()) return PAM_CONV_ERR;
        made[i].resp = strdup(g_answers.front().c_str());
        g_answers.pop_front();
    }
  }
  return PAM_SUCCESS;
}

int run_as_user(const std::string& user, const std::string& command) {
  std::cout.flush();
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    const passwd* entry = getpwnam(user.c_str());
    if (entry == nullptr || initgroups(entry->pw_name, entry->pw_gid) != 0 || setgid(entry->pw_gid) != 0 ||
        setuid(entry->pw_uid) != 0) {
      _exit(126);
    }
    setenv("HOME", entry->pw_dir, 1);
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  FILE* out = fdopen(ends[0], "r");
  char* line = nullptr;
  std::size_t size = 0;
  while (out != nullptr && getline(&line, &size, out) > 0) {
    std::string text = line;
    if (text.back() == '\n') text.pop_back();
    event("O " + text);
  }
  free(line);
  if (out != nullptr) fclose(out);
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return 0;  // SIGCHLD is ignored
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string user = argv[2];
  if (argc > 3) {
    const auto uid = static_cast<uid_t>(std::strtoul(argv[3], nullptr, 10));
    if (setresuid(uid, static_cast<uid_t>(-1), 0) != 0) return 2;
  }
  const pam_conv conversation{converse, nullptr};
  pam_handle_t* pamh = nullptr;
  if (pam_start(argv[1], user.c_str(), &conversation, &pamh) != PAM_SUCCESS) return 3;
  int silent = 0;
  std::string line;
  while (std::getline(std::cin, line)) {
    const std::string command = line.substr(0, line.find(' '));
    const std::string rest = line.size() > command.size() ? line.substr(command.size() + 1) : "";
    const auto result = [&](int code) { event("R " + command + " " + std::to_string(code)); };
    if (command == "say") {
      g_answers.push_back(rest);
    } else if (command == "silent") {
      silent = static_cast<int>(PAM_SILENT);
    } else if (command == "authenticate") {
      result(pam_authenticate(pamh, silent));
    } else if (command == "set_user") {
      result(pam_set_item(pamh, PAM_USER, rest.c_str()));
    } else if (command == "acct_mgmt") {
      result(pam_acct_mgmt(pamh, silent));
    } else if (command == "setcred") {
      result(pam_setcred(pamh, static_cast<int>(PAM_ESTABLISH_CRED) | silent));
    } else if (command == "open_session") {
      result(pam_open_session(pamh, silent));
    } else if (command == "close_session") {
      result(pam_close_session(pamh, silent));
    } else if (command == "chauthtok") {
      result(pam_chauthtok(pamh, silent | (rest == "expired" ? static_cast<int>(PAM_CHANGE_EXPIRED_AUTHTOK) : 0)));
    } else if (command == "run") {
      result(run_as_user(user, rest));
    } else if (command == "ignore_children") {
      signal(SIGCHLD, SIG_IGN);
    } else if (command == "fork_end") {
      const pid_t pid = fork();
      if (pid == 0) {
        pam_end(pamh, static_cast<int>(PAM_DATA_SILENT));
        _exit(0);
      }
      waitpid(pid, nullptr, 0);
      result(0);
    } else if (command == "end") {
      const int code = pam_end(pamh, PAM_SUCCESS);
      pamh = nullptr;
      result(code);
    } else {
      return 2;
    }
  }
  if (pamh != nullptr) pam_end(pamh, PAM_SUCCESS);
  return 0;
}
