#include "wrap/keyring.h"

#include <keyutils.h>

#include <algorithm>
#include <cerrno>

namespace ecfs::wrap {
namespace {

constexpr key_perm_t kPossessorOnly = KEY_POS_ALL;
constexpr std::size_t kMaxTokenBytes = 64;
constexpr std::size_t kShownIdBytes = 8;

// Makes this thread possess what is in the user keyring for as long as it lives: the session keyring of a cron job, a
// desktop service or `su` need not link it, and a key that only its possessor may use could not even be removed then.
class UserKeyring {
 public:
  UserKeyring() noexcept : linked_(keyctl_link(KEY_SPEC_USER_KEYRING, KEY_SPEC_THREAD_KEYRING) == 0) {}
  UserKeyring(const UserKeyring&) = delete;
  UserKeyring& operator=(const UserKeyring&) = delete;
  ~UserKeyring() {
    if (linked_) keyctl_unlink(KEY_SPEC_USER_KEYRING, KEY_SPEC_THREAD_KEYRING);
  }
  explicit operator bool() const noexcept { return linked_; }

 private:
  bool linked_;
};

Error keyring_error(const char* what) {
  if (errno == ENOSYS) return {Code::kUnsupported, ENOSYS, "this kernel has no keyrings"};
  return system_error(errno, what);
}

// Is this how a key that is not there, or no longer, or not ours to use, shows itself?
bool absent(int err) {
  return err == ENOKEY || err == EKEYREVOKED || err == EKEYEXPIRED || err == EACCES || err == EPERM || err == ENOSYS;
}

}  // namespace

std::string token_description(const VolumeId& volume) {
  return "ecfs:" + to_hex(ByteView(volume).first(kShownIdBytes));
}

Status put_token(const VolumeId& volume, const Secret& key) {
  const UserKeyring possessed;
  if (!possessed) return keyring_error("use the user keyring");
  const ByteView bytes = key.reveal();
  const std::string name = token_description(volume);
  const key_serial_t id = add_key("user", name.c_str(), bytes.data(), bytes.size(), KEY_SPEC_USER_KEYRING);
  if (id < 0) return keyring_error("put the volume's key into the user keyring");
  if (keyctl_setperm(id, kPossessorOnly) != 0) {
    Error error = keyring_error("restrict the volume's key in the user keyring");
    keyctl_invalidate(id);
    return error;
  }
  // A session keyring that is gone or belongs to another user (su, cron) is no reason to fail: @u has the key.
  if (keyctl_link(id, KEY_SPEC_SESSION_KEYRING) != 0 && !absent(errno)) {
    return keyring_error("link the volume's key into the session keyring");
  }
  return {};
}

Result<Secret> find_token(const VolumeId& volume) {
  const UserKeyring possessed;
  const std::string name = token_description(volume);
  const long id = keyctl_search(KEY_SPEC_USER_KEYRING, "user", name.c_str(), 0);
  ECFS_LET(Secret key, Secret::of_size(kMaxTokenBytes));
  const long len = id < 0 ? id
                          : keyctl_read(static_cast<key_serial_t>(id),
                                        reinterpret_cast<char*>(key.reveal_mutable().data()),  // NOLINT
                                        key.size());
  if (len < 0) {
    if (absent(errno)) return Error{Code::kNotFound, errno, "the keyring has no key of this volume"};
    return keyring_error("read the volume's key from the user keyring");
  }
  if (len == 0 || static_cast<std::size_t>(len) > kMaxTokenBytes) {
    return Error{Code::kCorrupt, 0, "the key " + name + " in the user keyring is not one of ours"};
  }
  key.shrink(static_cast<std::size_t>(len));
  return key;
}

Status drop_token(const VolumeId& volume) {
  const UserKeyring possessed;
  const std::string name = token_description(volume);
  const long found = keyctl_search(KEY_SPEC_USER_KEYRING, "user", name.c_str(), 0);
  if (found < 0) {
    if (absent(errno)) return {};
    return keyring_error("look for the volume's key in the user keyring");
  }
  const auto id = static_cast<key_serial_t>(found);
  // Invalidating takes it out of every keyring that links it, those of other sessions included, but a moment later.
  const bool invalidated = keyctl_invalidate(id) == 0;
  const int err = errno;
  keyctl_unlink(id, KEY_SPEC_SESSION_KEYRING);
  const bool unlinked = keyctl_unlink(id, KEY_SPEC_USER_KEYRING) == 0 || errno == ENOENT || absent(errno);
  if (invalidated || unlinked) return {};
  errno = err;
  return keyring_error("remove the volume's key from the user keyring");
}

}  // namespace ecfs::wrap
