// ecfs wrap-passphrase | unwrap-passphrase | rewrap-passphrase | add-passphrase |
// insert-wrapped-passphrase-into-keyring: what scripts know from ecryptfs-utils, with its arguments, its order of lines
// on standard input, and its output.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "setup/command.h"
#include "setup/ui.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"
#include "wrap/ecryptfs_token.h"
#include "wrap/wrapped_passphrase.h"

namespace ecfs::setup {
namespace {

constexpr const char* kDefaultFile = "/.ecryptfs/wrapped-passphrase";  // below the home directory

struct Options {
  std::string file;
  std::string standard_input;  // "-": the passphrases come from there
  bool fnek = false;

  // "-" without FILE stands in its place.
  [[nodiscard]] bool default_file() const { return file.empty() || file == "-"; }
  [[nodiscard]] bool from_stdin() const { return file == "-" || standard_input == "-"; }
};

// Answers are the passphrases: from standard input, one a line, with "-" or where it is no terminal; else from the
// terminal.
class Answers {
 public:
  explicit Answers(const Options& o) : from_stdin_(o.from_stdin() || isatty(STDIN_FILENO) != 1) {}

  [[nodiscard]] Result<Secret> next(const char* prompt) const { return from_stdin_ ? line() : read_secret({}, prompt); }
  // next_new has it typed twice.
  [[nodiscard]] Result<Secret> next_new(const char* prompt) const {
    return from_stdin_ ? line() : read_new_secret({}, prompt);
  }

 private:
  static Result<Secret> line() {
    auto line = read_secret_line(STDIN_FILENO);
    if (!line && line.error().code == Code::kNotFound) {
      return Error{Code::kInvalid, 0, "standard input has no passphrase more (each is a line of it)"};
    }
    // Scripts end a passphrase with a zero byte too (printf '%s\0').
    if (line && !line->empty() && line->reveal().back() == 0) line->shrink(line->size() - 1);
    return line;
  }
  bool from_stdin_;
};

// The file of a command, in its directory. All but the last component may be a link: ~/.ecryptfs of an encrypted home
// is one.
struct Place {
  Fd dir;
  std::string name;
  std::string shown;
  wrap::EcryptfsSalt salt{};  // of contents, as the caller's ~/.ecryptfsrc has it
};

Result<wrap::EcryptfsSalt> salt_of_caller() {
  ECFS_LET(const Identity me, caller());
  const Fd home(open(me.home.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!home) return wrap::kEcryptfsContentSalt;
  return wrap::read_ecryptfs_rc_salt(home.get(), me.uid);
}

Result<Place> find_file(const Options& o) {
  Place place;
  place.shown = o.file;
  if (o.default_file()) {
    ECFS_LET(const Identity me, caller());
    place.shown = me.home + kDefaultFile;
  }
  const std::size_t slash = place.shown.rfind('/');
  place.name = place.shown.substr(slash == std::string::npos ? 0 : slash + 1);
  if (place.name.empty() || place.name == "." || place.name == "..") {
    return Error{Code::kInvalid, EISDIR, place.shown + " is no name of a file"};
  }
  const std::string dir = slash == std::string::npos ? "." : place.shown.substr(0, slash + 1);
  place.dir.reset(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!place.dir) return system_error(errno, place.shown);
  ECFS_LET(place.salt, salt_of_caller());
  return place;
}

// What root writes in a directory of somebody else would be root's, and of no use to the owner.
Status check_writable(const Place& place) {
  struct stat st {};
  if (fstat(place.dir.get(), &st) != 0) return system_error(errno, place.shown);
  if (geteuid() == 0 && st.st_uid != 0) {
    return Error{Code::kDenied, 0, place.shown + ": its directory is another user's; run this as that user"};
  }
  return {};
}

Result<Secret> unwrapped(const Place& place, const Secret& wrapping) {
  auto passphrase = wrap::read_wrapped_passphrase(place.dir.get(), place.name, wrapping, place.salt);
  if (!passphrase && passphrase.error().code == Code::kNotFound) {
    return Error{Code::kNotFound, ENOENT, place.shown + ": no such file"};
  }
  return passphrase;
}

Result<int> do_wrap(const Options& o) {
  ECFS_LET(const Place place, find_file(o));
  ECFS_TRY(check_writable(place));
  const Answers answers(o);
  ECFS_LET(const Secret passphrase, answers.next_new("Passphrase to wrap: "));
  ECFS_LET(const Secret wrapping, answers.next_new("Wrapping passphrase: "));
  const bool replaces = faccessat(place.dir.get(), place.name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  ECFS_TRY(wrap::write_wrapped_passphrase(place.dir.get(), place.name, passphrase, wrapping));
  if (replaces) note("the file that was there is kept as " + place.shown + ".bak");
  return 0;
}

Result<int> do_unwrap(const Options& o) {
  ECFS_LET(const Place place, find_file(o));
  ECFS_LET(const Secret wrapping, Answers(o).next("Passphrase: "));
  ECFS_LET(const Secret passphrase, unwrapped(place, wrapping));
  ECFS_LET(Secret line, Secret::of_size(passphrase.size() + 1));
  std::copy(passphrase.reveal().begin(), passphrase.reveal().end(), line.reveal_mutable().begin());
  line.reveal_mutable().back() = '\n';
  if (auto done = write_all(STDOUT_FILENO, line.reveal()); !done) {
    return with_context(std::move(done).error(), "standard output");
  }
  return 0;
}

Result<int> do_rewrap(const Options& o) {
  ECFS_LET(const Place place, find_file(o));
  ECFS_TRY(check_writable(place));
  const Answers answers(o);
  ECFS_LET(const Secret old_wrapping, answers.next("Old wrapping passphrase: "));
  ECFS_TRY(unwrapped(place, old_wrapping));  // before the second question
  ECFS_LET(const Secret new_wrapping, answers.next_new("New wrapping passphrase: "));
  ECFS_TRY(wrap::rewrap_passphrase(place.dir.get(), place.name, old_wrapping, new_wrapping, place.salt));
  return 0;
}

enum class Names { kNo, kToo };

// Puts the keys of a mount passphrase into the keyring; gives their signatures, that of the contents first.
Result<std::vector<std::string>> put_keys(const Secret& passphrase, const wrap::EcryptfsSalt& salt, Names names) {
  ECFS_LET(const wrap::EcryptfsKey contents, wrap::EcryptfsKey::derive(passphrase, salt));
  std::vector<std::string> signatures = {to_hex(contents.signature)};
  ECFS_TRY(wrap::put_ecryptfs_token(contents));
  if (names == Names::kToo) {
    ECFS_LET(const wrap::EcryptfsKey key, wrap::EcryptfsKey::derive(passphrase, wrap::kEcryptfsNameSalt));
    ECFS_TRY(wrap::put_ecryptfs_token(key));
    signatures.push_back(to_hex(key.signature));
  }
  return signatures;
}

// Scripts take the signature from between the brackets.
void say_inserted(const std::string& signature) {
  say("Inserted auth tok with sig [" + signature + "] into the user session keyring");
}

Result<int> do_add(const Options& o) {
  ECFS_LET(const wrap::EcryptfsSalt salt, salt_of_caller());
  ECFS_LET(const Secret passphrase, Answers(o).next("Passphrase: "));
  ECFS_LET(const std::vector<std::string> signatures, put_keys(passphrase, salt, o.fnek ? Names::kToo : Names::kNo));
  for (const std::string& signature : signatures) say_inserted(signature);
  return 0;
}

Result<int> do_insert(const Options& o) {
  ECFS_LET(const Place place, find_file(o));
  ECFS_LET(const Secret wrapping, Answers(o).next("Passphrase: "));
  ECFS_LET(const Secret passphrase, unwrapped(place, wrapping));
  ECFS_LET(const std::vector<std::string> signatures, put_keys(passphrase, place.salt, Names::kToo));
  say_inserted(signatures.front());  // and no other, as ever
  return 0;
}

// The general hints speak of volumes with slots and recovery keys; these files have neither.
Result<int> told(Result<int> done) {
  if (done) return done;
  const Code code = done.error().code;
  if (code == Code::kWrongKey) {
    note(done.error().what);
    note_more("It is mostly the login passphrase, as it was when the file was last rewrapped.");
  } else if (code == Code::kCorrupt) {
    note(done.error().what);
    note_more("FILE.bak may hold the version before. With the mount passphrase itself (32 hex digits that were shown");
    note_more("when the directory was set up) the file can be made anew: ecfs wrap-passphrase.");
  } else {
    return done;
  }
  return exit_code_of(code);
}

int refuse_arguments(const std::string& how) {
  note("a passphrase does not belong in the arguments: every user of the machine can read them");
  note_more("Without it the command asks; a script gives it on standard input:");
  note_more(how);
  return kExitUsage;
}

}  // namespace

std::vector<Command> add_wrapped_passphrase(CommandLine parent) {
  std::vector<Command> commands;
  enum class File { kNone, kOptional, kRequired };
  const auto declare = [&](const char* name, const char* what, File file, const char* how,
                           Result<int> (*work)(const Options&)) {
    auto o = std::make_shared<Options>();
    const CommandLine command = parent.add_command(name, what);
    // What is too much may be a passphrase: it must not be shown again by a message of the parser.
    command.allow_extras();
    if (file == File::kRequired) {
      command.add_option("FILE", o->file, "The file with the wrapped passphrase").required();
    } else if (file == File::kOptional) {
      command.add_option("FILE", o->file, "The file; without it ~/.ecryptfs/wrapped-passphrase");
    }
    command.add_option("STDIN", o->standard_input, "-: take the passphrases from standard input, one a line");
    command.set_footer(std::string("Example:\n  ") + how);
    commands.push_back({command, [o, command, how, work]() -> Result<int> {
                          const bool other = !o->standard_input.empty() && o->standard_input != "-";
                          if (other || command.has_extras()) return refuse_arguments(how);
                          return told(work(*o));
                        }});
    return std::pair(command, o);
  };
  declare("wrap-passphrase", "eCryptfs: encrypt a mount passphrase under another one, into a file", File::kRequired,
          "printf '%s\\n%s' \"$mount_passphrase\" \"$wrapping_passphrase\" | ecfs wrap-passphrase FILE -", do_wrap);
  declare("unwrap-passphrase", "eCryptfs: show the mount passphrase that a file holds", File::kOptional,
          "printf '%s' \"$wrapping_passphrase\" | ecfs unwrap-passphrase FILE -", do_unwrap);
  declare("rewrap-passphrase", "eCryptfs: change the passphrase that a mount passphrase is encrypted under",
          File::kOptional, "printf '%s\\n%s' \"$old_passphrase\" \"$new_passphrase\" | ecfs rewrap-passphrase FILE -",
          do_rewrap);
  {
    auto [command, o] =
        declare("add-passphrase", "eCryptfs: put the key of a mount passphrase into the keyring", File::kNone,
                "printf '%s' \"$mount_passphrase\" | ecfs add-passphrase --fnek -", do_add);
    command.add_flag("--fnek", o->fnek, "And its key for file names");
  }
  declare("insert-wrapped-passphrase-into-keyring", "eCryptfs: put the keys of a wrapped mount passphrase there",
          File::kOptional, "printf '%s' \"$wrapping_passphrase\" | ecfs insert-wrapped-passphrase-into-keyring FILE -",
          do_insert);
  return commands;
}

}  // namespace ecfs::setup
