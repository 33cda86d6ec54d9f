#include "setup/login_password.h"

#include <crypt.h>
#include <shadow.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "setup/unlock.h"
#include "wrap/base/bytes.h"

namespace ecfs::setup {
namespace {

constexpr int kTries = 3;
constexpr std::size_t kMaxShadowBytes = 65536;

// The hash of an account, "" where there is none.
Result<std::string> hash_of(const std::string& user) {
  std::string buffer(kMaxShadowBytes, '\0');
  spwd entry{};
  spwd* found = nullptr;
  const int err = getspnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (err != 0 && err != ENOENT) return system_error(err, "read the shadow file");
  std::string hash = found != nullptr && found->sp_pwdp != nullptr ? found->sp_pwdp : "";
  explicit_bzero(buffer.data(), buffer.size());
  return hash;
}

}  // namespace

Result<PasswordProof> prove_password(const Secret& password, const std::string& hash) {
  // '!' and '*': nobody logs in by password. crypt(3) would take what is not a hash for a setting of an old method.
  if (hash.size() < 13 || hash[0] == '!' || hash[0] == '*') return PasswordProof::kCannotTell;
  ECFS_LET(Secret phrase, Secret::of_size(password.size() + 1));
  std::copy(password.reveal().begin(), password.reveal().end(), phrase.reveal_mutable().begin());
  // Everything that crypt(3) computes with stands in it. Aligned: its end is that of a page, and its size a multiple.
  ECFS_LET(Secret memory, Secret::of_size(sizeof(crypt_data)));
  auto* const data = new (memory.reveal_mutable().data()) crypt_data{};
  const char* const text =
      crypt_r(reinterpret_cast<const char*>(phrase.reveal().data()), hash.c_str(), data);  // NOLINT: C text
  if (text == nullptr || text[0] == '*') return PasswordProof::kCannotTell;
  return equal_constant_time(as_bytes(text), as_bytes(hash)) ? PasswordProof::kRight : PasswordProof::kWrong;
}

Result<Secret> login_password(const Identity& who, const SecretSource& source, bool allow_weak) {
  ECFS_LET(std::string hash, hash_of(who.name));
  const std::string prompt = "Login password of " + who.name + ": ";
  for (int i = 1;; ++i) {
    ECFS_LET(Secret password, read_secret(source, prompt));
    ECFS_LET(const PasswordProof proof, prove_password(password, hash));
    if (proof == PasswordProof::kCannotTell) {
      note("whether this is the login password of " + who.name + " cannot be checked here: the account has no hash");
      if (source.given()) return accept_passphrase(std::move(password), who.name, source, allow_weak);
      ECFS_LET(const Secret again, read_secret(source, "The same again: "));
      if (again.equals(password)) return accept_passphrase(std::move(password), who.name, source, allow_weak);
    } else if (proof == PasswordProof::kRight) {
      return accept_passphrase(std::move(password), who.name, source, allow_weak);
    }
    Error wrong{Code::kDenied, 0,
                proof == PasswordProof::kWrong ? "this is not the login password of " + who.name
                                               : "these are two different passwords"};
    if (source.given() || !interactive() || i == kTries) return wrong;
    note(wrong.what);
  }
}

}  // namespace ecfs::setup
