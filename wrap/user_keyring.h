// The user keyring of the kernel, for as long as an object lives possessed by its thread: the session keyring of a cron
// job, a desktop service or `su` need not link it, and a key that only its possessor may use could not even be removed
// then. Keys are of type `user`, named by their description. For the rest of wrap/; one thread.
//
// Errors: no keyrings in this kernel is kUnsupported. Source: keyrings(7), user-keyring(7).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::wrap {

class UserKeyring {
 public:
  UserKeyring() noexcept;
  UserKeyring(const UserKeyring&) = delete;
  UserKeyring& operator=(const UserKeyring&) = delete;
  ~UserKeyring();

  // add makes a key, or gives the one of that name another payload; the result is its serial number.
  Result<std::int32_t> add(const std::string& name, ByteView payload);
  // find: kNotFound if there is none, or none that may be used.
  [[nodiscard]] Result<std::int32_t> find(const std::string& name) const;
  // names lists the keys that stand in it, at most kMostKeys.
  [[nodiscard]] Result<std::vector<std::string>> names() const;
  static constexpr std::size_t kMostKeys = 1024;
  // read gives a whole payload; one that is empty or larger than `max_bytes` is kCorrupt.
  [[nodiscard]] Result<Secret> read(std::int32_t key, std::size_t max_bytes) const;
  // only_for_possessor takes every right from all but who possesses the key.
  Status only_for_possessor(std::int32_t key);
  // link_to_session makes the key possessed by this session too. A session keyring that is gone, or is another user's
  // (sudo), is left alone without an error.
  Status link_to_session(std::int32_t key);
  // unlink takes the key out of this keyring and the session's: what uses it already goes on with it. invalidate ends
  // the key itself, wherever it is linked. A key that is gone is success.
  Status unlink(std::int32_t key);
  Status invalidate(std::int32_t key);

 private:
  int linked_errno_;  // 0: possessed
};

}  // namespace ecfs::wrap
