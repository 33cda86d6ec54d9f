#include "setup/ecryptfs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "fs/ecryptfs_tree.h"
#include "fs/format/ecryptfs_format.h"
#include "fs/format/ecryptfs_keys.h"
#include "setup/messages.h"
#include "setup/signature_cache.h"
#include "setup/ui.h"
#include "wrap/base/log.h"
#include "wrap/control.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/volume_store.h"

namespace ecfs::setup {
namespace {

using fs::EcryptfsTree;
using wrap::EcryptfsKey;
using wrap::EcryptfsOptions;
using wrap::EcryptfsSignature;

constexpr int kTries = 3;
constexpr const char* kDefaultCipher = "aes";
constexpr std::uint8_t kDefaultKeyBytes = 16;

Error invalid(std::string what) { return Error{Code::kInvalid, EINVAL, std::move(what)}; }

// --- Options -------------------------------------------------------------------------------------------------------

// One of the parameters behind key=passphrase, or of the same name by itself; false: it is none.
Result<bool> take_key_word(std::string_view word, EcryptfsWords& words) {
  const std::size_t equals = word.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view name = word.substr(0, equals);
  const std::string_view value = word.substr(equals + 1);
  if (name == "passphrase_passwd" || name == "passwd") {
    ECFS_LET(words.passphrase, Secret::copy_of(as_bytes(value)));
    warn("a passphrase among mount options can be read by everybody on this machine: use passphrase_passwd_file=FILE");
  } else if (name == "passphrase_passwd_file" || name == "passwd_file") {
    words.source.file = value;
    if (value.empty()) return invalid("mount option '" + std::string(name) + "': give a file");
  } else if (name == "passphrase_passwd_fd" || name == "passwd_fd") {
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), words.source.fd);
    if (error != std::errc{} || end != value.data() + value.size() || words.source.fd < 0) {
      return invalid("mount option '" + std::string(name) + "': give the number of a descriptor");
    }
  } else if (name == "passphrase_salt" || name == "salt") {
    const auto salt = wrap::parse_ecryptfs_signature(value);  // of the same form
    if (!salt) return invalid("mount option '" + std::string(name) + "': a salt has 16 hexadecimal digits");
    words.salt = *salt;
  } else if (name == "verbosity") {
    words.verbose = value != "0";
  } else {
    return false;
  }
  return true;
}

Result<bool> take_word(std::string_view item, EcryptfsWords& words) {
  constexpr std::string_view kKey = "key=";
  constexpr std::string_view kNames = "ecryptfs_enable_filename_crypto=";
  if (item == "no_sig_cache") {
    words.no_sig_cache = true;
  } else if (item == "verbose") {
    words.verbose = true;
  } else if (item.starts_with(kNames)) {
    words.encrypt_names = wrap::yes_or_no(item.substr(kNames.size()));
    if (!words.encrypt_names) return invalid("mount option 'ecryptfs_enable_filename_crypto': say y or n");
  } else if (item.starts_with(kKey)) {
    std::string_view rest = item.substr(kKey.size());
    const auto next = [&] {
      const std::string_view part = rest.substr(0, rest.find(':'));
      rest.remove_prefix(std::min(rest.size(), part.size() + 1));
      return part;
    };
    if (const std::string_view kind = next(); kind != "passphrase") {
      return Error{Code::kUnsupported, EOPNOTSUPP,
                   "mount option 'key': keys of the kind '" + printable(kind) +
                       "' need a module of eCryptfs; only key=passphrase is supported"};
    }
    while (!rest.empty()) {
      const std::string_view part = next();
      ECFS_LET(const bool taken, take_key_word(part, words));
      if (!taken) return invalid("mount option 'key': unknown '" + printable(part.substr(0, part.find('='))) + "'");
    }
  } else {
    return take_key_word(item, words);
  }
  return true;
}

// --- Keys ----------------------------------------------------------------------------------------------------------

// Finder comes by the keys that a mount needs: from the keyring, or from the passphrase that is given or asked for.
class Finder {
 public:
  Finder(const VolumeRef& volume, const EcryptfsWords& words, const UnlockOptions& unlock)
      : shown_(volume.shown()), words_(words), source_(unlock.source.given() ? unlock.source : words.source) {}

  [[nodiscard]] bool has_passphrase_source() const { return source_.given() || !words_.passphrase.empty(); }
  [[nodiscard]] bool can_ask() const { return ask_ && (has_passphrase_source() || interactive()); }
  void do_not_ask() { ask_ = false; }
  [[nodiscard]] std::string prompt() const {
    return (words_.as_it_is ? "Mount passphrase of " : "Passphrase of ") + printable(shown_);
  }

  // The key of a signature if it is at hand.
  const EcryptfsKey* known(const EcryptfsSignature& signature) {
    for (const EcryptfsKey& key : keys_.all) {
      if (key.signature == signature) return &key;
    }
    auto token = wrap::find_ecryptfs_token(signature);
    if (!token) return nullptr;
    keys_.all.push_back(*std::move(token));
    return &keys_.all.back();
  }

  // Takes a passphrase and both keys that it gives: that of contents first.
  Status take_passphrase(const std::string& prompt) {
    Secret passphrase;
    if (!words_.passphrase.empty()) {
      ECFS_LET(passphrase, words_.passphrase.clone());
    } else {
      ECFS_LET(passphrase, read_secret(source_, prompt));
      if (source_.given()) ECFS_TRY(strip_name(passphrase));
    }
    ECFS_LET(EcryptfsKey contents, EcryptfsKey::derive(passphrase, words_.salt.value_or(wrap::kEcryptfsContentSalt)));
    ECFS_LET(EcryptfsKey names, EcryptfsKey::derive(passphrase, wrap::kEcryptfsNameSalt));
    contents_ = contents.signature;
    names_ = names.signature;
    keys_.all.push_back(std::move(contents));
    keys_.all.push_back(std::move(names));
    return {};
  }
  [[nodiscard]] const std::optional<EcryptfsSignature>& contents() const { return contents_; }
  [[nodiscard]] const std::optional<EcryptfsSignature>& names() const { return names_; }
  // Forgets what a passphrase gave that was not the right one.
  void drop_passphrase() {
    std::erase_if(keys_.all, [&](const EcryptfsKey& k) { return k.signature == contents_ || k.signature == names_; });
    contents_.reset();
    names_.reset();
  }

  // Comes by the keys of all these signatures. kWrongKey: the passphrase gives others.
  Status need(const std::vector<EcryptfsSignature>& signatures) {
    for (const EcryptfsSignature& signature : signatures) {
      for (int i = 1; known(signature) == nullptr; ++i) {
        if (contents_ && has_passphrase_source()) return wrong(signature);
        if (!can_ask()) {
          return Error{
              Code::kInvalid, 0,
              shown_ + ": the key with the signature " + to_hex(signature) +
                  " is not in the keyring, and there is no terminal to ask for its passphrase on: give "
                  "--passphrase-fd N" +
                  (words_.as_it_is ? " or --passphrase-file FILE"
                                   : ", --passphrase-file FILE or key=passphrase:passphrase_passwd_file=FILE")};
        }
        Status typed = take_passphrase(prompt() + " (key " + to_hex(signature) + "): ");
        if (!typed && (typed.error().code != Code::kInvalid || has_passphrase_source())) return typed;
        if (known(signature) != nullptr) break;
        if (has_passphrase_source() || i == kTries) return wrong(signature);
        note(typed ? wrong(signature).what : typed.error().what);
        drop_passphrase();
      }
    }
    return {};
  }

  // Everything for the server: the named keys, and with `others` what else is at hand.
  Result<Secret> pack(const std::vector<EcryptfsSignature>& named, bool others) {
    fs::EcryptfsKeys chosen;
    const auto add = [&](const EcryptfsSignature& signature) -> Status {
      const auto same = [&](const EcryptfsKey& k) { return k.signature == signature; };
      if (std::any_of(chosen.all.begin(), chosen.all.end(), same)) return {};
      const EcryptfsKey* key = known(signature);
      if (key == nullptr || chosen.all.size() >= fs::kEcryptfsMaxKeys) return {};
      EcryptfsKey copy;
      copy.salt = key->salt;
      copy.signature = key->signature;
      ECFS_LET(copy.key, key->key.clone());
      chosen.all.push_back(std::move(copy));
      return {};
    };
    for (const EcryptfsSignature& signature : named) ECFS_TRY(add(signature));
    if (others) {
      const auto tokens = wrap::list_ecryptfs_tokens();
      if (!tokens) warn(tokens.error().what);
      for (const EcryptfsSignature& signature : tokens ? *tokens : std::vector<EcryptfsSignature>()) {
        ECFS_TRY(add(signature));
      }
    }
    return chosen.pack();
  }

 private:
  // Files for mount.ecryptfs say what they hold.
  static Status strip_name(Secret& line) {
    for (const std::string_view name : {"passphrase_passwd=", "passwd="}) {
      const std::string_view text = as_text(line.reveal());
      if (!text.starts_with(name)) continue;
      ECFS_LET(line, Secret::copy_of(line.reveal().subspan(name.size())));
      if (line.empty()) return invalid("the passphrase is empty");
      return {};
    }
    return {};
  }
  [[nodiscard]] Error wrong(const EcryptfsSignature& signature) const {
    return Error{Code::kWrongKey, EKEYREJECTED,
                 shown_ + ": wrong passphrase" +
                     (contents_ ? ": its key is " + to_hex(*contents_) + ", not " + to_hex(signature) : "")};
  }

  std::string shown_;
  const EcryptfsWords& words_;
  SecretSource source_;
  bool ask_ = true;
  fs::EcryptfsKeys keys_;
  std::optional<EcryptfsSignature> contents_;  // of the passphrase taken last
  std::optional<EcryptfsSignature> names_;
};

bool holds(const std::vector<EcryptfsSignature>& all, const EcryptfsSignature& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

// --- Settling what is missing --------------------------------------------------------------------------------------

class Settler {
 public:
  Settler(const MountJob& job, const EcryptfsWords& words, Finder& finder, const EcryptfsTree& tree)
      : shown_(job.volume->shown()),
        words_(words),
        finder_(finder),
        tree_(tree),
        options_(job.options.ecryptfs.value_or(EcryptfsOptions())) {}

  Result<EcryptfsOptions> settle() {
    if (words_.as_it_is) options_.xattr_metadata = tree_.in_xattr;
    ECFS_TRY(settle_contents_key());
    ECFS_TRY(settle_cipher());
    ECFS_TRY(settle_passthrough());
    ECFS_TRY(settle_names());
    return options_;
  }

 private:
  // Which key files are made with.
  Status settle_contents_key() {
    if (!options_.signatures.empty()) return finder_.need(options_.signatures);
    if (!finder_.has_passphrase_source()) {
      for (const EcryptfsSignature& signature : tree_.signatures) {
        if (finder_.known(signature) == nullptr) continue;
        options_.signatures = {signature};
        return {};
      }
      if (!finder_.can_ask()) {
        return Error{
            Code::kInvalid, 0,
            shown_ + (words_.as_it_is
                          ? ": its mount passphrase is needed, and there is no terminal to ask for it on: give "
                            "--passphrase-fd N or --passphrase-file FILE"
                          : ": no key was named, and there is no terminal to ask for a passphrase on: give "
                            "ecryptfs_sig=SIGNATURE, --passphrase-fd N, --passphrase-file FILE or "
                            "key=passphrase:passphrase_passwd_file=FILE")};
      }
    }
    for (int i = 1;; ++i) {
      Status typed = finder_.take_passphrase(finder_.prompt() + ": ");
      const bool again = !finder_.has_passphrase_source() && i < kTries;
      if (!typed) {
        if (typed.error().code != Code::kInvalid || !again) return typed;
        note(typed.error().what);
        continue;
      }
      const EcryptfsSignature signature = *finder_.contents();
      ECFS_LET(const bool accepted, accept(signature));
      if (accepted) {
        options_.signatures = {signature};
        return {};
      }
      Error wrong{Code::kWrongKey, EKEYREJECTED,
                  shown_ + ": wrong passphrase: its key is " + to_hex(signature) +
                      (tree_.signatures.empty() ? "" : ", the files there have " + to_hex(tree_.signatures.front()))};
      if (!again) return wrong;
      if (words_.as_it_is) note(wrong.what);  // else accept() has asked
      finder_.drop_passphrase();
    }
  }

  // A key that nothing here has been encrypted with, and that was never mounted with, is probably a mistyped
  // passphrase. Mounted so, it would show nothing of what is there, and new files would be under that key.
  Result<bool> accept(const EcryptfsSignature& signature) {
    if (words_.as_it_is) {
      // Where no file tells (only directories, say) names do: under the passphrase's key for names, or under this one.
      const bool of_names = tree_.signatures.empty() && tree_.name_signature &&
                            (tree_.name_signature == finder_.names() || tree_.name_signature == signature);
      return of_names || holds(tree_.signatures, signature) || holds(words_.expected, signature);
    }
    if (words_.no_sig_cache || holds(tree_.signatures, signature)) return true;
    ECFS_LET(const Identity me, identity_of(getuid()));
    if (signature_is_cached(me, signature)) return true;
    if (!tree_.signatures.empty()) {
      warn("the files in " + shown_ + " are encrypted with the key " + to_hex(tree_.signatures.front()) +
           ", and this passphrase gives the key " + to_hex(signature) + ".");
      note_more("It may have been mistyped. The files there could not be read.");
      if (!interactive()) return false;
    } else {
      warn("the key of this passphrase, " + to_hex(signature) + ", has not been mounted with before, and " + shown_ +
           " holds no file");
      note_more("to check it by. If it was mistyped, new files can be read with the mistyped passphrase only.");
      if (!interactive()) return true;
    }
    ECFS_LET(const bool proceed, ask_yes("Mount with it all the same?", false));
    if (!proceed) return false;
    const std::string question = std::string("Remember it in ~/") + kSignatureCacheName + ", and not ask again?";
    ECFS_LET(const bool remember, ask_yes(question, false));
    if (remember) {
      if (Status cached = cache_signature(me, signature); !cached) warn(cached.error().what);
    }
    return true;
  }

  Status settle_cipher() {
    const bool asks = interactive() && !words_.as_it_is;
    if (options_.cipher.empty()) {
      const std::string otherwise = tree_.cipher ? std::string(tree_.cipher->name()) : kDefaultCipher;
      options_.cipher = otherwise;
      if (asks) {
        for (;;) {
          ECFS_LET(options_.cipher, ask_line("Cipher of new files (aes, blowfish, des3_ede, cast5" +
                                                 std::string(fs::has_botan_cipher(0x0a) ? ", twofish, cast6" : "") +
                                                 ") [" + otherwise + "]: ",
                                             otherwise));
          if (usual_key_bytes() != 0) break;
          note("there is no cipher '" + options_.cipher + "'");
        }
      }
    }
    if (options_.key_bytes == 0) {
      const bool as_there = tree_.cipher && tree_.cipher->name() == options_.cipher;
      options_.key_bytes = as_there ? tree_.cipher->key_bytes : usual_key_bytes();
      const bool only_one = options_.cipher == "des3_ede";
      while (asks && !only_one) {
        const std::string otherwise = std::to_string(options_.key_bytes);
        ECFS_LET(const std::string answer,
                 ask_line("Length of its keys in bytes (" + lengths() + ") [" + otherwise + "]: ", otherwise));
        unsigned number = 0;
        const auto [end, error] = std::from_chars(answer.data(), answer.data() + answer.size(), number);
        const bool whole = error == std::errc{} && end == answer.data() + answer.size();
        const auto cipher = whole ? fs::EcryptfsCipher::by_name(options_.cipher, number)
                                  : Result<fs::EcryptfsCipher>(invalid("'" + answer + "' is no number"));
        if (cipher) {
          options_.key_bytes = cipher->key_bytes;
          break;
        }
        note(cipher.error().what);
      }
    }
    ECFS_TRY(fs::EcryptfsCipher::by_name(options_.cipher, options_.key_bytes));
    return {};
  }
  // 0: there is no such cipher.
  [[nodiscard]] std::uint8_t usual_key_bytes() const {
    for (const std::uint8_t bytes : {kDefaultKeyBytes, std::uint8_t{24}}) {
      if (fs::EcryptfsCipher::by_name(options_.cipher, bytes)) return bytes;
    }
    return 0;
  }
  [[nodiscard]] std::string lengths() const {
    std::string text;
    for (std::size_t bytes = 1; bytes <= fs::kEcryptfsMaxKeyBytes; ++bytes) {
      if (fs::EcryptfsCipher::by_name(options_.cipher, bytes))
        text += (text.empty() ? "" : ", ") + std::to_string(bytes);
    }
    return text;
  }

  Status settle_passthrough() {
    if (options_.passthrough || words_.as_it_is) return {};
    ECFS_LET(options_.passthrough, ask_yes("Show files that are not encrypted, too (passthrough)?", false));
    return {};
  }

  Status settle_names() {
    if (options_.name_signature) {
      if (words_.encrypt_names == false) {
        options_.name_signature.reset();
        return {};
      }
      ECFS_TRY(finder_.need({*options_.name_signature}));
      return settle_name_cipher();
    }
    bool encrypt = tree_.name_signature.has_value();
    if (words_.encrypt_names) {
      encrypt = *words_.encrypt_names;
    } else if (!words_.as_it_is) {
      ECFS_LET(encrypt, ask_yes("Encrypt the names of files?", encrypt));
      if (encrypt && !interactive()) note("the names in " + shown_ + " are encrypted, and shown decrypted");
    }
    if (!encrypt) return {};
    // The names that are there say which key it is; of a new tree mount.ecryptfs uses that of the contents.
    EcryptfsSignature signature = tree_.name_signature.value_or(options_.signatures.front());
    const bool asks = interactive() && !words_.encrypt_names && !words_.as_it_is;
    while (asks) {
      ECFS_LET(const std::string answer,
               ask_line("Signature of the key for names [" + to_hex(signature) + "]: ", to_hex(signature)));
      const auto parsed = wrap::parse_ecryptfs_signature(answer);
      if (parsed) {
        signature = *parsed;
        break;
      }
      note(parsed.error().what);
    }
    options_.name_signature = signature;
    ECFS_TRY(finder_.need({signature}));
    return settle_name_cipher();
  }

  // Names may have another cipher than contents; the names there tell.
  Status settle_name_cipher() {
    if (!options_.name_cipher.empty() || options_.name_key_bytes != 0 || !tree_.name_cipher_code) return {};
    ECFS_LET(const auto contents, fs::EcryptfsCipher::by_name(options_.cipher, options_.key_bytes));
    if (*tree_.name_cipher_code == contents.code) return {};
    const auto names = fs::EcryptfsCipher::of_name(*tree_.name_cipher_code, options_.key_bytes);
    if (!names) return {};
    options_.name_cipher = names->name();
    options_.name_key_bytes = names->key_bytes;
    return {};
  }

  std::string shown_;
  const EcryptfsWords& words_;
  Finder& finder_;
  const EcryptfsTree& tree_;
  EcryptfsOptions options_;
};

Status check_owner(const VolumeRef& volume) {
  struct stat st {};
  if (fstat(volume.lower_dir.get(), &st) != 0) return system_error(errno, volume.lower_path);
  if (st.st_uid == getuid()) return {};
  return Error{Code::kDenied, EPERM, volume.lower_path + " belongs to another user (ecryptfs_check_dev_ruid)"};
}

std::vector<EcryptfsSignature> named(const EcryptfsOptions& options) {
  std::vector<EcryptfsSignature> all = options.signatures;
  if (options.name_signature && !holds(all, *options.name_signature)) all.push_back(*options.name_signature);
  return all;
}

}  // namespace

Result<EcryptfsWords> take_ecryptfs_words(std::vector<std::string>& items) {
  EcryptfsWords words;
  std::vector<std::string> rest;
  for (std::string& item : items) {
    auto taken = take_word(item, words);
    if (taken && !*taken) {
      rest.push_back(std::move(item));
      continue;
    }
    wipe({reinterpret_cast<std::uint8_t*>(item.data()), item.size()});  // NOLINT: it may have held a passphrase
    if (!taken) return std::move(taken).error();
    words.any = true;
  }
  items = std::move(rest);
  return words;
}

Error not_ecryptfs(const VolumeRef& volume) {
  return invalid(volume.lower_path + " is a volume of ecfs, no eCryptfs tree: options of eCryptfs do not fit it");
}

Result<bool> is_ecryptfs_tree(const VolumeRef& volume, bool said) {
  if (!volume.lower_dir) return false;
  bool native = false;
  for (const char* name : {".ecfs-volume", ".ecfs-volume.bak"}) {
    struct stat st {};
    native = native || fstatat(volume.lower_dir.get(), name, &st, AT_SYMLINK_NOFOLLOW) == 0;
  }
  native = native || (volume.profile && volume.profile->profile.format != wrap::kEcryptfsFormat);
  if (native && said) return not_ecryptfs(volume);
  if (native) return false;
  if (said) return true;
  const auto tree = fs::look_at_ecryptfs_tree(volume.lower_dir.get());
  return tree && tree->seen();
}

Result<SettledEcryptfs> settle_ecryptfs(const MountJob& job, const EcryptfsWords& words,
                                        const UnlockOptions& unlock_options) {
  const VolumeRef& volume = *job.volume;
  auto tree = volume.lower_dir ? fs::look_at_ecryptfs_tree(volume.lower_dir.get()) : fs::EcryptfsTree();
  if (!tree) return with_context(std::move(tree).error(), volume.shown());
  Finder finder(volume, words, unlock_options);
  Settler settler(job, words, finder, *tree);
  SettledEcryptfs settled;
  ECFS_LET(settled.options, settler.settle());
  ECFS_LET(settled.keys, finder.pack(named(settled.options), !settled.options.named_keys_only));
  return settled;
}

Result<Child> mount_ecryptfs(const MountJob& job, const std::string& mountpoint, const EcryptfsWords& words,
                             const UnlockOptions& unlock_options) {
  const VolumeRef& volume = *job.volume;
  ECFS_TRY(check_fuse());
  const auto check = [&]() -> Result<Mountpoint> {
    ECFS_TRY(check_not_mounted(volume.lower_path));
    return check_mountpoint(mountpoint, volume.lower_path);
  };
  ECFS_TRY(check());
  if (job.options.ecryptfs && job.options.ecryptfs->own_lower) ECFS_TRY(check_owner(volume));
  ECFS_LET(SettledEcryptfs settled, settle_ecryptfs(job, words, unlock_options));
  wrap::MountRequest request;
  request.options = job.options;
  request.options.ecryptfs = std::move(settled.options);
  request.key = std::move(settled.keys);
  if (words.verbose) note("mounting with " + wrap::build_mount_options(request.options));
  if (request.options.ecryptfs->encrypted_view) request.options.read_only = true;
  ECFS_LET(const Mountpoint at, check());
  return start_server(job, std::move(request), at);
}

Result<std::unique_ptr<fs::Format>> open_ecryptfs(const VolumeRef& volume, const UnlockOptions& unlock_options,
                                                  bool ask) {
  if (unlock_options.recovery) {
    return Error{Code::kInvalid, 0, volume.shown() + " is an eCryptfs tree: it has no recovery key but its passphrase"};
  }
  auto tree = fs::look_at_ecryptfs_tree(volume.lower_dir.get());
  if (!tree) return with_context(std::move(tree).error(), volume.shown());
  EcryptfsWords words;
  words.as_it_is = true;
  MountJob job;
  job.volume = &volume;
  Finder finder(volume, words, unlock_options);
  if (!ask) finder.do_not_ask();
  const auto settled = Settler(job, words, finder, *tree).settle();
  if (!settled) {
    if (!ask && settled.error().code == Code::kInvalid) return Error{Code::kNoKey, ENOKEY, settled.error().what};
    return settled.error();
  }
  SettledEcryptfs all;
  all.options = *settled;
  ECFS_LET(all.keys, finder.pack(named(*settled), true));
  return reading_format(all);
}

Result<std::unique_ptr<fs::Format>> reading_format(const SettledEcryptfs& settled) {
  ECFS_LET(fs::EcryptfsFormatOptions options, fs::ecryptfs_format_options(settled.options));
  auto format = fs::make_ecryptfs_format(options, settled.keys);
  if (format || format.error().code != Code::kUnsupported) return format;
  // The cipher of most files is not there, which others may do without: the check says of which files.
  if (options.name_signature && !options.name_cipher) options.name_cipher = options.cipher;
  options.cipher = fs::EcryptfsFormatOptions().cipher;
  auto others = fs::make_ecryptfs_format(options, settled.keys);
  return others ? std::move(others) : std::move(format);
}

Result<bool> resume_ecryptfs(const VolumeRef& volume, const EcryptfsWords& words, const UnlockOptions& unlock_options) {
  ECFS_LET(const wrap::VolumeId id, wrap::ecryptfs_mount_id(volume.lower_dir.get()));
  const auto state = wrap::mount_state(id, geteuid());
  if (!state || !state->suspended) return false;
  Finder finder(volume, words, unlock_options);
  ECFS_TRY(finder.need(state->signatures));
  ECFS_LET(const Secret keys, finder.pack(state->signatures, true));
  ECFS_TRY(wrap::resume_mounts(id, geteuid(), keys));
  return true;
}

}  // namespace ecfs::setup
