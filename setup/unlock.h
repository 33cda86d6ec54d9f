// Opening a volume's slots with what the person has, and making new slots. The only place that asks for passphrases.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "setup/command_line.h"
#include "setup/ui.h"
#include "wrap/base/result.h"
#include "wrap/kdf.h"
#include "wrap/recovery_key.h"
#include "wrap/volume_store.h"

namespace ecfs::setup {

// add_secret_options declares OPTION-fd and OPTION-file (source.option) for a secret called `what`.
void add_secret_options(CommandLine command, SecretSource& source, const std::string& what);

struct UnlockOptions {
  SecretSource source;
  bool recovery = false;          // --recovery: take the secret for a recovery key, whatever it looks like
  bool mount_passphrase = false;  // --mount-passphrase: take it for the mount passphrase of an eCryptfs tree
  std::string slot;               // --slot: the type of slots to open with; empty: any
  std::string tcti;               // --tcti: how the TPM is reached
};
// add_unlock_options declares --passphrase-fd, --passphrase-file and --recovery; add_mount_passphrase_option the other.
void add_unlock_options(CommandLine command, UnlockOptions& options);
void add_mount_passphrase_option(CommandLine command, UnlockOptions& options);
// add_slot_option declares --slot, add_tcti_option --tcti.
void add_slot_option(CommandLine command, UnlockOptions& options);
void add_tcti_option(CommandLine command, std::string& tcti);

// start_tpm2 starts what talks to the TPM: that of `tcti` (--tcti), of $ECFS_TCTI, of ecfs.conf, or the kernel's.
Result<wrap::Tpm2> start_tpm2(const std::string& tcti);

// unlock takes the passphrase or recovery key (on a terminal with three tries) and opens a slot with it. kWrongKey if
// none opens. With Token::kTry what needs no question comes first, unless a source was given: a key in the keyring, and
// slots that the TPM opens by itself. What the unlocking found out about damaged copies of the header is noted on
// stderr if `tell`.
enum class Token { kTry, kIgnore };
Result<wrap::Unlocked> unlock(wrap::VolumeStore& store, const UnlockOptions& options, const std::string& shown,
                              Token token, bool tell = true);

// The cost of new password slots: --kdf-memory MIB, --kdf-time N.
struct CostOptions {
  std::uint32_t memory_mib = 0;  // 0: not said
  std::uint32_t passes = 0;
};
void add_cost_options(CommandLine command, CostOptions& options);
Result<wrap::Argon2Cost> choose_cost(const CostOptions& options);

// Where a new recovery key goes: --recovery-key-fd N, --recovery-key-file F, else the terminal, where it is typed
// again.
struct RecoveryOptions {
  int fd = -1;
  std::string file;
  bool qr = false;
};
void add_recovery_options(CommandLine command, RecoveryOptions& options);

// check_recovery_options finds out before anything is made whether the key can be handed over.
Status check_recovery_options(const RecoveryOptions& options);
// make_recovery_key makes a key and hands it over; it is in use only once the person proved to have it (terminal), or
// it is written (descriptor, file). A file is made new, 0400, never through a link. `take_back`, where it is given,
// becomes what removes that file, in the directory where it was made, whatever its path leads to by then.
Result<wrap::RecoveryKey> make_recovery_key(const RecoveryOptions& options, const std::string& shown,
                                            std::function<void()>* take_back = nullptr);

// choose_passphrase reads a new passphrase and judges it. A weak one is explained: on a terminal the person decides,
// elsewhere it is refused (kInvalid) unless `allow_weak`.
Result<Secret> choose_passphrase(const SecretSource& source, const std::string& prompt, bool allow_weak);
// accept_passphrase judges one that cannot be chosen anew, the login password of `user`, in the same way.
Result<Secret> accept_passphrase(Secret passphrase, const std::string& user, const SecretSource& source,
                                 bool allow_weak);

}  // namespace ecfs::setup
