#include "wrap/keyring.h"

#include "wrap/user_keyring.h"

namespace ecfs::wrap {
namespace {

constexpr std::size_t kMaxTokenBytes = 64;
constexpr std::size_t kShownIdBytes = 8;

}  // namespace

std::string token_description(const VolumeId& volume) {
  return "ecfs:" + to_hex(ByteView(volume).first(kShownIdBytes));
}

Status put_token(const VolumeId& volume, const Secret& key) {
  UserKeyring keyring;
  ECFS_LET(const std::int32_t id, keyring.add(token_description(volume), key.reveal()));
  if (auto done = keyring.only_for_possessor(id); !done) {
    (void)keyring.invalidate(id);
    return done;
  }
  // A session keyring that is gone or belongs to another user (su, cron) is no reason to fail: @u has the key.
  return keyring.link_to_session(id);
}

Result<Secret> find_token(const VolumeId& volume) {
  const UserKeyring keyring;
  ECFS_LET(const std::int32_t id, keyring.find(token_description(volume)));
  return keyring.read(id, kMaxTokenBytes);
}

Status drop_token(const VolumeId& volume) {
  UserKeyring keyring;
  const auto id = keyring.find(token_description(volume));
  if (!id) return id.error().code == Code::kNotFound ? Status{} : id.error();
  return keyring.invalidate(*id);
}

}  // namespace ecfs::wrap
