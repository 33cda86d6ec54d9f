#include "wrap/user_keyring.h"

#include <keyutils.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace ecfs::wrap {
namespace {

constexpr key_perm_t kPossessorOnly = KEY_POS_ALL;

Error keyring_error(int err, const std::string& what) {
  if (err == ENOSYS) return {Code::kUnsupported, ENOSYS, "this kernel has no keyrings"};
  if (err == EDQUOT) return {Code::kNoSpace, EDQUOT, what + ": the user's quota of keys is used up (/proc/key-users)"};
  return system_error(err, what);
}

// Is this how a key that is not there, or no longer, or not ours to use, shows itself?
bool absent(int err) {
  return err == ENOKEY || err == EKEYREVOKED || err == EKEYEXPIRED || err == EACCES || err == EPERM || err == ENOSYS;
}

// Does the session keyring belong to this process's user? With sudo it may be that of the user who called it, who would
// come to possess root's keys.
bool session_is_ours() {
  std::array<char, 256> text{};  // type;uid;gid;permissions;description, cut off where it is longer
  const long len = keyctl_describe(KEY_SPEC_SESSION_KEYRING, text.data(), text.size());
  if (len <= 0) return false;
  const std::string_view all(text.data(), text.size());
  const std::size_t at = all.find(';');
  if (at == std::string_view::npos) return false;
  uid_t owner = 0;
  const auto [end, error] = std::from_chars(all.data() + at + 1, all.data() + all.size(), owner);
  return error == std::errc{} && owner == geteuid();
}

}  // namespace

UserKeyring::UserKeyring() noexcept
    : linked_errno_(keyctl_link(KEY_SPEC_USER_KEYRING, KEY_SPEC_THREAD_KEYRING) == 0 ? 0 : errno) {}

UserKeyring::~UserKeyring() {
  if (linked_errno_ == 0) keyctl_unlink(KEY_SPEC_USER_KEYRING, KEY_SPEC_THREAD_KEYRING);
}

Result<std::int32_t> UserKeyring::add(const std::string& name, ByteView payload) {
  if (linked_errno_ != 0) return keyring_error(linked_errno_, "use the user keyring");
  const key_serial_t key = add_key("user", name.c_str(), payload.data(), payload.size(), KEY_SPEC_USER_KEYRING);
  if (key < 0) return keyring_error(errno, "put the key " + name + " into the user keyring");
  return key;
}

Result<std::int32_t> UserKeyring::find(const std::string& name) const {
  const long key = keyctl_search(KEY_SPEC_USER_KEYRING, "user", name.c_str(), 0);
  if (key >= 0) return static_cast<std::int32_t>(key);
  if (absent(errno)) return Error{Code::kNotFound, errno, "the user keyring has no key " + name};
  return keyring_error(errno, "look for the key " + name + " in the user keyring");
}

Result<std::vector<std::string>> UserKeyring::names() const {
  constexpr std::string_view kUser = "user;";
  std::array<key_serial_t, kMostKeys> keys{};
  const long len =
      keyctl_read(KEY_SPEC_USER_KEYRING, reinterpret_cast<char*>(keys.data()), sizeof keys);  // NOLINT: its interface
  if (len < 0) {
    if (absent(errno)) return std::vector<std::string>();
    return keyring_error(errno, "list the user keyring");
  }
  std::vector<std::string> names;
  const std::size_t num = std::min(static_cast<std::size_t>(len), sizeof keys) / sizeof keys[0];
  for (std::size_t i = 0; i < num; ++i) {
    std::array<char, 256> text{};  // type;uid;gid;permissions;description
    const long described = keyctl_describe(keys[i], text.data(), text.size());
    if (described <= 0 || static_cast<std::size_t>(described) > text.size()) continue;
    const std::string_view all(text.data());
    if (all.starts_with(kUser)) names.emplace_back(all.substr(all.rfind(';') + 1));
  }
  return names;
}

Result<Secret> UserKeyring::read(std::int32_t key, std::size_t max_bytes) const {
  ECFS_LET(Secret payload, Secret::of_size(max_bytes));
  const long len = keyctl_read(key, reinterpret_cast<char*>(payload.reveal_mutable().data()),  // NOLINT
                               payload.size());
  if (len < 0) {
    if (absent(errno)) return Error{Code::kNotFound, errno, "the key in the user keyring cannot be used"};
    return keyring_error(errno, "read a key of the user keyring");
  }
  if (len == 0 || static_cast<std::size_t>(len) > max_bytes) {
    return Error{Code::kCorrupt, 0, "a key of " + std::to_string(len) + " bytes in the user keyring"};
  }
  payload.shrink(static_cast<std::size_t>(len));
  return payload;
}

Status UserKeyring::only_for_possessor(std::int32_t key) {
  if (keyctl_setperm(key, kPossessorOnly) != 0) return keyring_error(errno, "restrict a key of the user keyring");
  return {};
}

Status UserKeyring::link_to_session(std::int32_t key) {
  if (session_is_ours() && keyctl_link(key, KEY_SPEC_SESSION_KEYRING) != 0 && !absent(errno)) {
    return keyring_error(errno, "link a key into the session keyring");
  }
  return {};
}

Status UserKeyring::unlink(std::int32_t key) {
  keyctl_unlink(key, KEY_SPEC_SESSION_KEYRING);
  if (keyctl_unlink(key, KEY_SPEC_USER_KEYRING) == 0 || errno == ENOENT || absent(errno)) return {};
  return keyring_error(errno, "remove a key from the user keyring");
}

Status UserKeyring::invalidate(std::int32_t key) {
  // It leaves every keyring that links it, those of other sessions included, but a moment later.
  const bool invalidated = keyctl_invalidate(key) == 0;
  Status unlinked = unlink(key);
  return invalidated ? Status{} : std::move(unlinked);
}

}  // namespace ecfs::wrap
