#include "pam/session.h"

#include <pwd.h>
#include <security/pam_ext.h>
#include <security/pam_modutil.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "pam/helper.h"
#include "pam/protocol.h"
#include "wrap/base/owned.h"
#include "wrap/base/secret.h"

namespace ecfs::pam {
namespace {

constexpr const char* kStashName = "ecfs_password";
constexpr const char* kHoldName = "ecfs_session";
constexpr uid_t kNobody = 65534;
constexpr int kReserveMs = 500;  // of the limit, for ending what overran it

// The password, and whose it is: under sudo the session is another user's than the one who typed it.
struct Stash {
  std::string user;
  Secret password;
};

// The session's lock. A host may close every descriptor it does not know and use the number again, so we remember which
// file it was: never is anybody else's descriptor closed or unlocked.
struct Hold {
  Fd fd;
  dev_t device = 0;
  ino_t inode = 0;

  explicit Hold(Fd lock) : fd(std::move(lock)) {
    struct stat st {};
    if (fstat(fd.get(), &st) != 0) return;
    device = st.st_dev;
    inode = st.st_ino;
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  ~Hold() {
    if (!still_ours()) (void)fd.release();
  }
  [[nodiscard]] bool still_ours() const noexcept {
    struct stat st {};
    return fstat(fd.get(), &st) == 0 && st.st_dev == device && st.st_ino == inode;
  }
};

template <class T>
void destroy(pam_handle_t*, void* data, int) {
  delete static_cast<T*>(data);
}

template <class T>
T* get_data(pam_handle_t* pamh, const char* name) {
  const void* data = nullptr;
  if (pam_get_data(pamh, name, &data) != PAM_SUCCESS || data == nullptr) return nullptr;
  return static_cast<T*>(const_cast<void*>(data));  // NOLINT: our own object, put there by set_data
}

// Sets (or, with nullptr, clears) a datum; the one before is destroyed by libpam.
template <class T>
Status set_data(pam_handle_t* pamh, const char* name, std::unique_ptr<T> data) {
  if (pam_set_data(pamh, name, data.get(), data ? destroy<T> : nullptr) != PAM_SUCCESS) {
    return Error{Code::kNoMemory, 0, "keep data in the PAM handle"};
  }
  (void)data.release();
  return {};
}

std::string text_item(pam_handle_t* pamh, int type) {
  const void* item = nullptr;
  if (pam_get_item(pamh, type, &item) != PAM_SUCCESS || item == nullptr) return {};
  return static_cast<const char*>(item);
}

// The bytes stay PAM's; empty if there are none, or more than a password may have.
ByteView secret_item(pam_handle_t* pamh, int type) {
  const void* item = nullptr;
  if (pam_get_item(pamh, type, &item) != PAM_SUCCESS || item == nullptr) return {};
  const auto* text = static_cast<const char*>(item);
  const std::size_t len = strnlen(text, kMaxSecretBytes + 1);
  return len > kMaxSecretBytes ? ByteView() : as_bytes({text, len});
}

// take_stash brings the stash out of the PAM data, where nothing of it stays.
std::optional<Stash> take_stash(pam_handle_t* pamh) {
  auto* kept = get_data<Stash>(pamh, kStashName);
  if (kept == nullptr) return {};
  std::optional<Stash> stash(std::move(*kept));
  (void)set_data<Stash>(pamh, kStashName, nullptr);
  return stash;
}

// The user whom PAM is about, where ecfs has business with that user: not root, not nobody, and only if this process
// is privileged. Whether the user has anything of ecfs is for ecfs-login to find out: looking into a home directory can
// hang, and must not hang here.
std::optional<std::string> our_user(pam_handle_t* pamh) {
  if (geteuid() != 0) return {};
  std::string name = text_item(pamh, PAM_USER);
  if (name.empty()) return {};
  const passwd* entry = pam_modutil_getpwnam(pamh, name.c_str());
  if (entry == nullptr || entry->pw_uid == 0 || entry->pw_uid == kNobody) return {};
  return name;
}

void tell(pam_handle_t* pamh, bool silent, const HelperAnswer& answer) {
  for (const std::string& line : answer.lines) {
    if (!silent) pam_info(pamh, "ecfs: %s", line.c_str());
  }
}

// One question without echo; an empty answer, or a conversation that cannot ask, gives nothing.
Result<Secret> ask(pam_handle_t* pamh, const char* question) {
  char* typed = nullptr;
  const int asked = pam_prompt(pamh, PAM_PROMPT_ECHO_OFF, &typed, "%s", question);
  const Owned<char, std::free> owner(typed);
  if (asked != PAM_SUCCESS || typed == nullptr) return Secret();
  const std::size_t len = strnlen(typed, PAM_MAX_RESP_SIZE);
  auto copy = Secret::copy_of(as_bytes({typed, len}));
  explicit_bzero(typed, len);
  return copy;
}

// finish ends a hook whose helper has answered: its failure goes to the boundary, and the user is told of a long wait.
Result<int> finish(pam_handle_t* pamh, bool silent, HelperAnswer answer, const char* if_too_slow) {
  if (!answer.error) return PAM_IGNORE;
  if (answer.error->sys_errno == ETIMEDOUT && !silent) pam_info(pamh, "ecfs: %s", if_too_slow);
  return *std::move(answer.error);
}

}  // namespace

Result<int> stash_password(pam_handle_t* pamh) {
  // A screen locker runs as the user and opens no session: it needs no copy.
  if (geteuid() != 0) return PAM_IGNORE;
  (void)take_stash(pamh);
  const ByteView password = secret_item(pamh, PAM_AUTHTOK);
  if (password.empty()) return PAM_IGNORE;
  auto stash = std::make_unique<Stash>();
  stash->user = text_item(pamh, PAM_USER);
  ECFS_LET(stash->password, Secret::copy_of(password));
  ECFS_TRY(set_data(pamh, kStashName, std::move(stash)));
  return PAM_IGNORE;
}

Result<int> open_session(pam_handle_t* pamh, const Options& options, bool silent) {
  const std::optional<Stash> stash = take_stash(pamh);  // whatever comes, it does not stay behind
  const std::optional<std::string> user = our_user(pamh);
  if (!user) return PAM_IGNORE;

  HelperCall call;
  call.command = kCommandOpen;
  call.user = *user;
  call.service = text_item(pamh, PAM_SERVICE);
  call.first = stash && stash->user == *user ? &stash->password : nullptr;
  call.timeout_ms = options.time_limit_s * 1000 - kReserveMs;
  const long long begun = now_ms();
  ECFS_LET(HelperAnswer answer, call_helper(options, call));
  const auto used_ms = static_cast<int>(now_ms() - begun);
  if (answer.hold) ECFS_TRY(set_data(pamh, kHoldName, std::make_unique<Hold>(std::move(answer.hold))));
  tell(pamh, silent, answer);

  const bool ask_old = answer.ask && call.first != nullptr;
  if (!answer.error && (ask_old || answer.ask_recovery) && !silent) {
    // How long a person takes is no time of ours.
    ECFS_LET(const Secret typed,
             ask(pamh, ask_old ? "Old password or recovery key (Enter to skip): " : "Recovery key (Enter to skip): "));
    if (typed.empty()) return PAM_IGNORE;
    call.second = &typed;
    call.timeout_ms -= used_ms;
    ECFS_LET(answer, call_helper(options, call));
    if (answer.hold) ECFS_TRY(set_data(pamh, kHoldName, std::make_unique<Hold>(std::move(answer.hold))));
    tell(pamh, silent, answer);
  }
  return finish(pamh, silent, std::move(answer),
                "opening your files took too long for a login. Where they are locked still: ecfs mount-private");
}

Result<int> close_session(pam_handle_t* pamh) {
  if (const auto* hold = get_data<Hold>(pamh, kHoldName); hold != nullptr && hold->still_ours()) {
    // For all copies of the descriptor: the host may have forked since. The end of such a copy alone (the destructor,
    // at pam_end) must not do this.
    flock(hold->fd.get(), LOCK_UN);
  }
  (void)set_data<Hold>(pamh, kHoldName, nullptr);
  return PAM_IGNORE;
}

Result<int> check_old_password(pam_handle_t* pamh, const Options& options, bool silent) {
  if (getuid() == 0) return PAM_IGNORE;  // root may always set a password
  const std::optional<std::string> user = our_user(pamh);
  const ByteView old_password = secret_item(pamh, PAM_OLDAUTHTOK);
  if (!user || old_password.empty()) return PAM_IGNORE;
  ECFS_LET(const Secret copy, Secret::copy_of(old_password));
  HelperCall call;
  call.command = kCommandCheck;
  call.user = *user;
  call.service = text_item(pamh, PAM_SERVICE);
  call.first = &copy;
  call.timeout_ms = options.time_limit_s * 1000 - kReserveMs;
  ECFS_LET(const HelperAnswer answer, call_helper(options, call));
  if (answer.error) return *answer.error;
  if (!answer.wrong) return PAM_IGNORE;
  if (!silent) {
    pam_error(pamh,
              "ecfs: this password does not open your encrypted files, so nothing was changed. "
              "Give them the current password first: ecfs key change");
  }
  return PAM_AUTHTOK_RECOVERY_ERR;
}

Result<int> change_password(pam_handle_t* pamh, const Options& options, bool silent) {
  const std::optional<std::string> user = our_user(pamh);
  const ByteView new_password = secret_item(pamh, PAM_AUTHTOK);
  if (!user || new_password.empty()) return PAM_IGNORE;
  const ByteView old_password = secret_item(pamh, PAM_OLDAUTHTOK);
  ECFS_LET(const Secret old_copy, Secret::copy_of(old_password));
  ECFS_LET(const Secret new_copy, Secret::copy_of(new_password));
  HelperCall call;
  call.command = old_password.empty() ? kCommandMarkStale : kCommandChange;
  call.user = *user;
  call.service = text_item(pamh, PAM_SERVICE);
  if (!old_password.empty()) {
    call.first = &old_copy;
    call.second = &new_copy;
  }
  call.timeout_ms = options.time_limit_s * 1000 - kReserveMs;
  ECFS_LET(HelperAnswer answer, call_helper(options, call));
  tell(pamh, silent, answer);
  // A login with an expired password changes it between auth and session: the session is opened with the new one.
  if (auto* stash = get_data<Stash>(pamh, kStashName); stash != nullptr && stash->user == *user) {
    ECFS_LET(stash->password, Secret::copy_of(new_password));
  }
  return finish(pamh, silent, std::move(answer),
                "your files could not take over the new password in time. After the next login: ecfs key change");
}

}  // namespace ecfs::pam
