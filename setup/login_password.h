// The login password of an account, asked for by root and proven against the shadow file.
#pragma once

#include <string>

#include "setup/ui.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::setup {

// Proof of a password by its hash. kCannotTell: the account has no hash that this machine can compute (a directory
// service keeps it, or the account is locked).
enum class PasswordProof { kRight, kWrong, kCannotTell };
// prove_password compares by crypt(3), in constant time. `hash` is as in shadow(5).
Result<PasswordProof> prove_password(const Secret& password, const std::string& hash);

// login_password asks for the login password of `who`, three times on a terminal, until it is the account's; one that
// cannot be checked is asked for twice. A weak one as choose_passphrase says. kDenied: it is not the account's.
Result<Secret> login_password(const Identity& who, const SecretSource& source, bool allow_weak);

}  // namespace ecfs::setup
