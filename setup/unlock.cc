#include "setup/unlock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <memory>

#include "setup/messages.h"
#include "setup/volume_ref.h"
#include "wrap/base/fd.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/config.h"
#include "wrap/keyring.h"

namespace ecfs::setup {
namespace {

constexpr int kTries = 3;

Option add_fd_option(CommandLine command, const std::string& name, int& fd, const std::string& what) {
  return command.add_option(name, fd, what).value_name("N").range(0, 1 << 20);
}

Error wrong(const std::string& shown, const char* what) { return {Code::kWrongKey, 0, shown + ": wrong " + what}; }

Result<wrap::Unlocked> by_tpm2(wrap::VolumeStore& store, const std::string& tcti, const Secret* passphrase) {
  ECFS_LET(wrap::Tpm2 tpm, start_tpm2(tcti));
  return store.unlock_with_tpm2(tpm, passphrase);
}

// With a passphrase: first the slots that cost no try at the TPM. kWrongKey whatever the TPM had against it: another
// passphrase, or the recovery key, opens the volume all the same.
Result<wrap::Unlocked> by_passphrase(wrap::VolumeStore& store, const UnlockOptions& options, const Secret& typed) {
  const bool with_tpm = store.area().count(wrap::SlotType::kTpm2Password) > 0 && options.slot != "password";
  auto opened = options.slot == "tpm2+password" ? Result<wrap::Unlocked>(Error{Code::kNotFound, 0, "no such key"})
                                                : store.unlock_with_passphrase(typed);
  if (opened) return opened;
  if (opened.error().code != Code::kWrongKey && opened.error().code != Code::kNotFound) return opened;
  if (!with_tpm) {
    if (opened.error().code == Code::kWrongKey) return Error{Code::kWrongKey, 0, "wrong passphrase"};
    return opened;
  }
  opened = by_tpm2(store, options.tcti, &typed);
  if (opened) return opened;
  const bool refused = opened.error().code == Code::kWrongKey;
  return Error{Code::kWrongKey, 0, (refused ? "wrong passphrase: " : "no passphrase opens it: ") + opened.error().what};
}

Result<wrap::Unlocked> try_secret(wrap::VolumeStore& store, const UnlockOptions& options, const Secret& typed,
                                  const std::string& shown) {
  const bool recovery = options.recovery || options.slot == "recovery";
  const bool has_passwords =
      store.area().count(wrap::SlotType::kPassword) + store.area().count(wrap::SlotType::kTpm2Password) > 0;
  if (recovery || wrap::RecoveryKey::looks_like_one(typed.reveal())) {
    auto key = wrap::RecoveryKey::parse(typed.reveal());
    auto opened = key ? store.unlock_with_recovery(*key) : Result<wrap::Unlocked>(std::move(key).error());
    if (opened) return opened;
    // What only looks like a recovery key may be a passphrase after all.
    if (!recovery && has_passwords) {
      auto second = by_passphrase(store, options, typed);
      if (second || second.error().code != Code::kWrongKey) return second;
    }
    if (opened.error().code == Code::kWrongKey) return wrong(shown, "recovery key");
    if (opened.error().code == Code::kNotFound) {
      return Error{Code::kWrongKey, 0, shown + ": wrong recovery key (this volume has none)"};
    }
    if (opened.error().code == Code::kInvalid) {
      return Error{Code::kWrongKey, 0, shown + ": wrong recovery key: " + opened.error().what};
    }
    return with_context(std::move(opened).error(), shown);
  }
  auto opened = by_passphrase(store, options, typed);
  if (opened) return opened;
  if (opened.error().code == Code::kNotFound) {
    // A copy of LOWER alone: its header has the recovery slots only.
    return Error{Code::kWrongKey, 0, shown + ": no passphrase opens this copy of the volume; the recovery key does"};
  }
  return with_context(std::move(opened).error(), shown);
}

Result<wrap::Unlocked> try_mount_passphrase(wrap::VolumeStore& store, const Secret& typed, const std::string& shown) {
  if (store.header().kind != wrap::VolumeKind::kEcryptfs) {
    return Error{Code::kInvalid, 0, shown + " is no eCryptfs tree: it has no mount passphrase"};
  }
  auto padded = wrap::pad_mount_passphrase(typed);
  auto opened = padded ? store.unlock_with_key(*std::move(padded)) : Result<wrap::Unlocked>(padded.error());
  if (opened) return opened;
  const Code code = opened.error().code;
  if (code == Code::kWrongKey || code == Code::kInvalid) return wrong(shown, "mount passphrase");
  return with_context(std::move(opened).error(), shown);
}

Result<wrap::Unlocked> open_a_slot(wrap::VolumeStore& store, const UnlockOptions& options, const std::string& shown,
                                   Token token) {
  const bool unasked =
      token == Token::kTry && !options.source.given() && !options.recovery && !options.mount_passphrase;
  if (unasked && options.slot.empty()) {
    if (auto key = wrap::find_token(store.header().id); key) {
      if (auto opened = store.unlock_with_key(*std::move(key)); opened) return opened;
    }
  }
  const bool tpm_only = options.slot == "tpm2";
  if (tpm_only || (unasked && options.slot.empty() && store.area().count(wrap::SlotType::kTpm2) > 0)) {
    auto opened = by_tpm2(store, options.tcti, nullptr);
    if (opened) return opened;
    if (tpm_only) return with_context(std::move(opened).error(), shown);
    note(shown + ": " + opened.error().what);
  }
  const bool recovery = options.recovery || options.slot == "recovery";
  const std::string prompt = (recovery                   ? "Recovery key of "
                              : options.mount_passphrase ? "Mount passphrase of "
                                                         : "Passphrase (or recovery key) of ") +
                             printable(shown) + ": ";
  const auto attempt = [&](const Secret& typed) {
    return options.mount_passphrase ? try_mount_passphrase(store, typed, shown)
                                    : try_secret(store, options, typed, shown);
  };
  for (int i = 1;; ++i) {
    auto typed = read_secret(options.source, prompt);
    const bool empty = !typed && typed.error().code == Code::kInvalid && !options.source.given() && interactive();
    if (!typed && !empty) return std::move(typed).error();
    auto opened = typed ? attempt(*typed) : Result<wrap::Unlocked>(wrong(shown, "passphrase"));
    if (opened || opened.error().code != Code::kWrongKey || options.source.given() || i == kTries) return opened;
    note(opened.error().what);
  }
}

// Gives what removes the file again.
Result<std::function<void()>> write_recovery_file(const std::string& path, const Secret& text) {
  const std::string what = "make the file for the recovery key, " + path;
  const std::size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  auto dir = open_directory(AT_FDCWD, slash == std::string::npos ? "." : path.substr(0, slash + 1));
  if (!dir) return with_context(std::move(dir).error(), what);
  const auto directory = std::make_shared<Fd>(*std::move(dir));
  const std::function<void()> remove = [directory, name] { unlinkat(directory->get(), name.c_str(), 0); };
  const Fd fd(openat(directory->get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400));
  if (!fd) return system_error(errno, what);
  Status done = write_all(fd.get(), text.reveal());
  if (done) done = write_all(fd.get(), as_bytes("\n"));
  if (done) done = sync_fd(fd.get(), path);
  if (!done) {
    remove();
    return with_context(std::move(done).error(), path);
  }
  return remove;
}

Status show_and_confirm(const wrap::RecoveryKey& key, const Secret& text, bool qr, const std::string& shown) {
  note("the recovery key of " + shown +
       ". It opens the volume when the passphrase is lost. Write it down or print it,");
  note_more("and keep it away from this computer: whoever has it can read the files.");
  ECFS_TRY(show_secret(text));
  ECFS_LET(const Secret newline, Secret::copy_of(as_bytes("\n")));
  ECFS_TRY(show_secret(newline));
  if (!qr) {
    ECFS_LET(qr, ask_yes("Show it as a QR code as well?", false));
  }
  if (qr) {
    ECFS_LET(const Secret code, key.qr_text());
    ECFS_TRY(show_secret(code));
  }
  for (int i = 0; i < kTries; ++i) {
    SecretSource terminal;
    auto typed = read_secret(terminal, "Type the recovery key again, to be sure that it was written down: ");
    if (!typed && typed.error().code == Code::kInvalid) {
      note(typed.error().what);
      continue;
    }
    if (!typed) return std::move(typed).error();
    auto again = wrap::RecoveryKey::parse(typed->reveal());
    if (again && again->bytes().equals(key.bytes())) return {};
    note(again ? "that is another key" : again.error().what);
  }
  return Error{Code::kInvalid, 0, "the recovery key was not confirmed; nothing was changed"};
}

// Whether it is strong, or the person takes it all the same.
Result<bool> good_enough(const Secret& passphrase, const std::string& user, const SecretSource& source,
                         bool allow_weak) {
  const std::string weakness = weak_passphrase(passphrase, user);
  if (weakness.empty() || allow_weak) return true;
  if (source.given() || !interactive()) {
    return Error{Code::kInvalid, 0,
                 "the passphrase is weak (" + weakness + "): choose a better one, or say --allow-weak-passphrase"};
  }
  note("this passphrase is weak: " + weakness);
  note_more("Whoever gets hold of the disk can try passphrases as fast as their machines allow.");
  return ask_yes("Use it all the same?", false);
}

}  // namespace

void add_secret_options(CommandLine command, SecretSource& source, const std::string& what) {
  const Option fd = add_fd_option(command, source.option + "-fd", source.fd, "Read " + what + " from descriptor N");
  command.add_option(source.option + "-file", source.file, "Read it from the first line of a file")
      .value_name("FILE")
      .excludes(fd);
}

void add_unlock_options(CommandLine command, UnlockOptions& options) {
  add_secret_options(command, options.source, "the passphrase or recovery key");
  command.add_flag("--recovery", options.recovery, "Open with the recovery key");
}

void add_mount_passphrase_option(CommandLine command, UnlockOptions& options) {
  command.add_flag("--mount-passphrase", options.mount_passphrase,
                   "eCryptfs: what is given is the mount passphrase itself");
}

void add_slot_option(CommandLine command, UnlockOptions& options) {
  command
      .add_option("--slot", options.slot,
                  "Open with this type of key only: tpm2 (no question), tpm2+password, password, recovery")
      .value_name("TYPE")
      .one_of({"tpm2", "tpm2+password", "password", "recovery"});
}

void add_tcti_option(CommandLine command, std::string& tcti) {
  command.add_option("--tcti", tcti, "How the TPM is reached; normally device:/dev/tpmrm0").value_name("TCTI");
}

Result<wrap::Tpm2> start_tpm2(const std::string& tcti) {
  ECFS_LET(const wrap::Config config, wrap::load_config());
  wrap::Tpm2::Options options;
  ECFS_LET(options.tcti, wrap::choose_tcti(tcti, config.tpm_tcti));
  return wrap::Tpm2::start(options);
}

Result<wrap::Unlocked> unlock(wrap::VolumeStore& store, const UnlockOptions& options, const std::string& shown,
                              Token token, bool tell) {
  const std::size_t told = store.notes().size();
  auto unlocked = open_a_slot(store, options, shown, token);
  if (!tell) return unlocked;
  for (std::size_t i = told; i < store.notes().size(); ++i) note(shown + ": " + store.notes()[i]);
  return unlocked;
}

void add_cost_options(CommandLine command, CostOptions& options) {
  command
      .add_option("--kdf-memory", options.memory_mib, "Memory of the passphrase's key derivation, in MiB (19 or more)")
      .value_name("MIB")
      .range(wrap::kFloorMemoryKib / 1024, wrap::kCeilingMemoryKib / 1024);
  command.add_option("--kdf-time", options.passes, "Passes of the key derivation (2 or more)")
      .value_name("N")
      .range(wrap::kFloorPasses, wrap::kCeilingPasses);
}

Result<wrap::Argon2Cost> choose_cost(const CostOptions& options) {
  wrap::Argon2Cost cost;
  if (options.memory_mib == 0 && options.passes == 0) {
    ECFS_LET(cost, wrap::calibrate());
  }
  if (options.memory_mib != 0) cost.memory_kib = options.memory_mib * 1024;
  if (options.passes != 0) cost.passes = options.passes;
  ECFS_TRY(wrap::check_cost_writable(cost));
  return cost;
}

void add_recovery_options(CommandLine command, RecoveryOptions& options) {
  const Option fd =
      add_fd_option(command, "--recovery-key-fd", options.fd, "Write the new recovery key to descriptor N");
  command.add_option("--recovery-key-file", options.file, "Write it to a new file, readable by you only")
      .value_name("FILE")
      .excludes(fd);
  command.add_flag("--qr", options.qr, "Show it as a QR code, too");
}

Status check_recovery_options(const RecoveryOptions& options) {
  if (options.fd >= 0) {
    const int flags = fcntl(options.fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) {
      return Error{Code::kInvalid, EBADF,
                   "--recovery-key-fd " + std::to_string(options.fd) + ": no descriptor that can be written to"};
    }
    return {};
  }
  if (!options.file.empty()) {
    struct stat st {};
    if (lstat(options.file.c_str(), &st) == 0) {
      return Error{Code::kInvalid, EEXIST,
                   options.file + " exists already; the recovery key is written to a new file only"};
    }
    return {};
  }
  if (!interactive()) {
    return Error{
        Code::kInvalid, 0,
        "there is no terminal to show the recovery key on: give --recovery-key-fd N or --recovery-key-file FILE"};
  }
  return {};
}

Result<wrap::RecoveryKey> make_recovery_key(const RecoveryOptions& options, const std::string& shown,
                                            std::function<void()>* take_back) {
  if (take_back != nullptr) *take_back = [] {};
  ECFS_LET(wrap::RecoveryKey key, wrap::RecoveryKey::generate());
  ECFS_LET(const Secret text, key.text());
  if (options.fd >= 0) {
    if (auto done = write_all(options.fd, text.reveal()); !done) {
      return with_context(std::move(done).error(), "hand over the recovery key");
    }
    ECFS_TRY(write_all(options.fd, as_bytes("\n")));
  } else if (!options.file.empty()) {
    ECFS_LET(const std::function<void()> remove, write_recovery_file(options.file, text));
    if (take_back != nullptr) *take_back = remove;
  } else {
    ECFS_TRY(show_and_confirm(key, text, options.qr, shown));
  }
  return key;
}

Result<Secret> choose_passphrase(const SecretSource& source, const std::string& prompt, bool allow_weak) {
  ECFS_LET(const Identity me, caller());
  for (int i = 0; i < kTries; ++i) {
    ECFS_LET(Secret passphrase, read_new_secret(source, prompt));
    ECFS_LET(const bool good, good_enough(passphrase, me.name, source, allow_weak));
    if (good) return passphrase;
  }
  return Error{Code::kInvalid, 0, "no passphrase was chosen"};
}

Result<Secret> accept_passphrase(Secret passphrase, const std::string& user, const SecretSource& source,
                                 bool allow_weak) {
  ECFS_LET(const bool good, good_enough(passphrase, user, source, allow_weak));
  if (good) return passphrase;
  return Error{Code::kInvalid, 0, "choose a better login password first (passwd)"};
}

}  // namespace ecfs::setup
