// ecfs fsck: look through a volume's lower directory, and put right what can be.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>

#include "fs/check.h"
#include "fs/lower_names.h"
#include "setup/command.h"
#include "setup/ecryptfs.h"
#include "setup/json.h"
#include "setup/locate.h"
#include "setup/messages.h"
#include "setup/mounting.h"
#include "setup/ui.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

// As of fsck(8): the sum of what is so.
constexpr int kFsckRepaired = 1;   // something was put right
constexpr int kFsckDamaged = 4;    // damage is left
constexpr int kFsckUnchecked = 8;  // something could not be looked at, or nothing at all
constexpr int kFsckUsage = 16;

constexpr std::uint64_t kNotesOfAKind = 20;
constexpr std::size_t kRangesShown = 20;

struct Options {
  std::string volume;
  bool quick = false;
  bool repair = false;
  std::string salvage;
  std::vector<std::string> known_names;
  std::string zero_bad;
  bool plain_names = false;
  bool verbose = false;
  bool json = false;
  UnlockOptions unlock;
};

std::string ranges_text(const fs::Ranges& bad) {
  std::string text;
  std::size_t shown = 0;
  for (const fs::Ranges::Range& range : bad.list()) {
    if (shown++ == kRangesShown) break;
    text += fmt::format("{}{}-{}", text.empty() ? "" : ", ", range.begin, range.end - 1);
  }
  return shown > kRangesShown || !bad.complete() ? text + ", and more" : text;
}

std::string word_of(const fs::Finding& finding) {
  if (finding.repaired) return "repaired";
  return std::string(finding.severity == fs::Severity::kDamage ? "damaged" : name_of(finding.severity));
}

// Reporter prints what is found as it is found: a line each, or an element of the JSON document.
class Reporter final : public fs::CheckWatcher {
 public:
  // `held`: nobody can have the volume mounted.
  Reporter(const Options& o, const VolumeRef& volume, bool held, std::optional<Progress>& progress)
      : o_(o),
        volume_(volume),
        held_(held),
        progress_(progress),
        plain_names_(o.plain_names || isatty(STDOUT_FILENO) == 1) {
    if (o_.json) put("{\n  \"findings\": [");
  }

  void found(const fs::Finding& f) override {
    if (o_.json) {
      json entry = {{"kind", name_of(f.trouble)},
                    {"severity", name_of(f.severity)},
                    {"repaired", f.repaired},
                    {"lower", f.lower},
                    {"what", f.what}};
      if (plain_names_ && f.plain) entry["plain"] = *f.plain;
      if (f.bad != nullptr) {
        json ranges = json::array();
        for (const fs::Ranges::Range& range : f.bad->list()) ranges.push_back({range.begin, range.end});
        entry["ranges"] = std::move(ranges);
        entry["ranges_complete"] = f.bad->complete();
      }
      add(entry);
      return;
    }
    if (f.severity == fs::Severity::kNote && !o_.verbose) {
      std::uint64_t& told = told_notes_[static_cast<std::size_t>(f.trouble)];
      if (told == kNotesOfAKind) return;
      ++told;
    }
    const bool plain = plain_names_ && f.plain;
    const std::string name = plain ? escaped(*f.plain) : "lower file " + escaped(f.lower);
    std::string line = fmt::format("{:<10} {}: {}", word_of(f), name, f.what);
    if (f.bad != nullptr) line += ": bytes " + ranges_text(*f.bad);
    print(line);
    if (plain && f.lower != *f.plain) print(fmt::format("{:<10} (lower file {})", "", escaped(f.lower)));
  }

  // A copy of the header.
  void found_header(const wrap::VolumeStore::CopyState& copy, bool repaired) {
    using How = wrap::VolumeStore::CopyState::How;
    const std::string what = copy.how == How::kMissing   ? "this copy of the volume's header is missing"
                             : copy.how == How::kDamaged ? "this copy of the volume's header is damaged: " + copy.why
                                                         : "this copy of the volume's header is older: " + copy.why;
    ++(repaired ? headers_repaired : headers_damaged);
    if (o_.json) {
      add({{"kind", "header"}, {"severity", "damage"}, {"repaired", repaired}, {"lower", copy.path}, {"what", what}});
      return;
    }
    print(fmt::format("{:<10} {}: {}", repaired ? "repaired" : "damaged", copy.path, what));
  }

  bool served() override {
    if (held_) return false;
    return locker_of(volume_.lower_dir.get()) || !mountpoint_of(volume_.lower_path).empty();
  }

  Status advanced(std::uint64_t lower_bytes, std::uint64_t num_entries) override {
    progress_->advance(lower_bytes, num_entries);
    return check_signals();
  }

  // finish ends the document, or says how many notes were left out. The bar is gone by then.
  void finish(const json& summary, const fs::CheckTotals& totals) {
    if (o_.json) {
      std::string text = json_text(summary);
      put((any_ ? "\n  ],\n" : "],\n") + text.substr(text.find('\n') + 1) + "\n");
      return;
    }
    std::uint64_t left_out = 0;
    for (std::size_t i = 0; i < told_notes_.size(); ++i) {
      if (told_notes_[i] == kNotesOfAKind) left_out += totals.of_trouble[i] - kNotesOfAKind;
    }
    if (left_out != 0) say(fmt::format("{:<10} and {} more notes, which --verbose shows", "note", left_out));
  }

  std::uint64_t headers_damaged = 0;
  std::uint64_t headers_repaired = 0;

 private:
  static void put(const std::string& text) {
    (void)write_all(STDOUT_FILENO, as_bytes(text));  // nothing can be done about a closed output
  }
  void print(const std::string& line) {
    progress_->hide();
    say(line);
  }
  void add(const json& entry) {
    progress_->hide();
    put((any_ ? ",\n    " : "\n    ") + json_line(entry));
    any_ = true;
  }

  const Options& o_;
  const VolumeRef& volume_;
  bool held_;
  std::optional<Progress>& progress_;
  bool plain_names_;
  bool any_ = false;
  std::array<std::uint64_t, fs::kNumTroubles> told_notes_{};
};

std::string counted(std::uint64_t n, const char* one, const char* many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

std::string size_text(std::uint64_t bytes) {
  if (bytes < 10'240) return counted(bytes, "byte", "bytes");
  if (bytes < 10'240 * 1024) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024.0);
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
}

json totals_json(const fs::CheckTotals& t) {
  return {{"files", t.num_files},
          {"directories", t.num_dirs},
          {"links", t.num_links},
          {"special", t.num_special},
          {"more_names", t.num_more_names},
          {"sparse_files", t.num_sparse},
          {"plain_bytes", t.plain_bytes},
          {"lower_bytes", t.lower_bytes},
          {"lost_bytes", t.lost_bytes},
          {"damaged", t.num_damaged},
          {"repaired", t.num_repaired},
          {"leftovers", t.num_leftovers},
          {"unchecked", t.num_unchecked},
          {"foreign_names", t.of_trouble[static_cast<std::size_t>(fs::Trouble::kForeign)]},
          {"conflicting_copies", t.of_trouble[static_cast<std::size_t>(fs::Trouble::kConflict)]},
          {"salvaged", t.num_salvaged}};
}

// `only_headers`: of what is damaged nothing but copies of the header is.
void print_summary(const Options& o, const fs::CheckTotals& t, const Located& located, bool only_headers) {
  const VolumeRef& volume = located.volume;
  std::string line = (o.quick ? "Looked at " : "Checked ") + counted(t.num_files, "file", "files") + ", " +
                     counted(t.num_dirs, "directory", "directories") + ", " + counted(t.num_links, "link", "links") +
                     ", " + counted(t.num_special, "special file", "special files") + "; " + size_text(t.plain_bytes) +
                     " in " + size_text(t.lower_bytes) + " of lower files.";
  if (t.num_sparse != 0) {
    line += t.num_sparse == 1 ? " 1 file is sparse." : fmt::format(" {} files are sparse.", t.num_sparse);
  }
  say(line);
  if (t.num_repaired != 0) say(counted(t.num_repaired, "finding was", "findings were") + " put right.");
  if (t.num_leftovers != 0) {
    say(counted(t.num_leftovers, "leftover", "leftovers") + " of interruptions: harmless; --repair takes " +
        (t.num_leftovers == 1 ? "it" : "them") + " away.");
  }
  if (t.num_unchecked != 0) {
    say(counted(t.num_unchecked, "entry", "entries") + " could not be checked.");
  }
  if (t.num_salvaged != 0) {
    say(counted(t.num_salvaged, "file was", "files were") + " salvaged to " + o.salvage + "/files; see " + o.salvage +
        "/list.txt.");
  }
  if (located.ecryptfs) {
    say("eCryptfs does not authenticate contents: what was changed in them cannot be seen, and nothing is repaired.");
  }
  if (t.num_damaged == 0 && located.ecryptfs) {
    say(t.num_unchecked != 0 ? "No damage was found in the rest." : "No damage was found.");
    return;
  }
  if (t.num_damaged == 0) {
    say(o.quick                ? "No damage was found; blocks of files were not read (--quick)."
        : t.num_unchecked != 0 ? "No damage was found in the rest."
                               : "Nothing is damaged.");
    return;
  }
  say(counted(t.num_damaged, "finding", "findings") + " of damage" +
      (t.lost_bytes == 0 ? "." : "; " + size_text(t.lost_bytes) + " cannot be read."));
  const std::string repair =
      "`ecfs fsck --repair " + volume.shown() + "` puts right what can be without losing anything";
  if (only_headers && !o.repair) {
    note(repair);
  } else if (!only_headers) {
    note("restore what is damaged from a backup; --salvage DIR copies out what still " +
         std::string(located.ecryptfs ? "can be read" : "verifies"));
    if (!o.repair && !located.ecryptfs) note_more(repair);
  }
}

// A new or empty directory of the caller's, outside the volume.
Result<fs::Salvage> open_salvage(const std::string& path, const VolumeRef& volume) {
  ECFS_LET(const std::string absolute, absolute_path(path));
  if (is_inside(absolute, volume.lower_path)) {
    return Error{Code::kInvalid, 0, path + " is inside the lower directory; salvage to somewhere else"};
  }
  if (mkdir(absolute.c_str(), 0700) != 0 && errno != EEXIST) return system_error(errno, "make " + path);
  auto dir = open_directory(AT_FDCWD, absolute);
  if (!dir) return with_context(std::move(dir).error(), path);
  struct stat st {};
  if (fstat(dir->get(), &st) != 0) return system_error(errno, path);
  if (st.st_uid != geteuid() || (st.st_mode & 022) != 0) {
    return Error{Code::kDenied, 0, path + " must be your own directory, and writable by nobody else"};
  }
  auto salvage = fs::Salvage::open(*std::move(dir));
  if (!salvage) return with_context(std::move(salvage).error(), path);
  return salvage;
}

// Nobody may serve the volume, or change its keys, while it is repaired.
Result<Fd> lock_lower(const VolumeRef& volume) {
  if (auto free = check_not_mounted(volume.lower_path); !free) {
    Error error = std::move(free).error();
    error.what += ": unmount it first (ecfs umount)";
    return error;
  }
  ECFS_LET(Fd held, open_directory(volume.lower_dir.get(), "."));
  if (flock(held.get(), LOCK_EX | LOCK_NB) == 0) return held;
  if (errno == EWOULDBLOCK) {
    const std::optional<pid_t> pid = locker_of(held.get());
    return Error{Code::kBusy, EBUSY,
                 volume.shown() + " is in use" + (pid ? " by process " + std::to_string(*pid) : "") +
                     ": unmount it before it is repaired"};
  }
  return Error{Code::kUnsupported, errno,
               volume.lower_path +
                   " cannot be locked on this filesystem, so that it cannot be known whether it is in "
                   "use; repair a copy of it on another one"};
}

// Zeros into what does not verify of one file: given by its plain path in the volume or by its lower one.
Result<int> zero_bad_of(const Options& o, const VolumeRef& volume, const fs::Format& format) {
  const int root = volume.lower_dir.get();
  auto found = fs::find_plain(format, root, o.zero_bad);
  if (!found || !found->exists) found = fs::find_lower(format, root, o.zero_bad);
  if (!found || !found->exists || !found->parent) {
    return Error{Code::kNotFound, ENOENT, o.zero_bad + ": there is no such file in the volume"};
  }
  ECFS_LET(Fd fd, fs::open_at(found->parent.get(), found->entry.c_str(), O_RDWR | O_NONBLOCK | O_NOCTTY));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return system_error(errno, o.zero_bad);
  if (!S_ISREG(st.st_mode)) return Error{Code::kInvalid, 0, o.zero_bad + " is not a regular file"};
  fs::LowerFile lower(std::move(fd), true);
  auto zeroed = fs::zero_bad(format, lower);
  if (!zeroed) return with_context(std::move(zeroed).error(), o.zero_bad);
  say(zeroed->empty() ? o.zero_bad + ": all of it verifies"
                      : o.zero_bad + ": zeros were written to bytes " + ranges_text(*zeroed));
  return 0;
}

// What is not there in this format is refused, but for --repair, which has nothing to do.
Status check_ecryptfs_options(const Options& o, const VolumeRef& volume) {
  const auto refused = [&](const char* what) {
    return Error{Code::kUnsupported, 0, volume.shown() + " is an eCryptfs tree: " + what};
  };
  if (!o.zero_bad.empty()) return refused("its blocks do not tell whether they are damaged (--zero-bad)");
  if (!o.known_names.empty()) return refused("its names need nothing but their key (--known-name)");
  if (o.repair) note("in an eCryptfs tree nothing can be put right without guessing: it is only checked");
  return {};
}

// The copies of a native volume's header.
void check_headers(const Options& o, OpenedVolume& opened, Reporter& reporter) {
  const auto copies = opened.store.copies(opened.key);
  bool any_copy_bad = false;
  for (const auto& copy : copies) any_copy_bad |= copy.how != wrap::VolumeStore::CopyState::How::kGood;
  std::optional<Error> header_failure;
  if (o.repair) {
    // Also where all copies are good: it takes away what an interrupted change of keys left.
    if (auto done = opened.store.repair(opened.key); !done && any_copy_bad) header_failure = done.error();
  }
  for (const auto& copy : copies) {
    if (copy.how == wrap::VolumeStore::CopyState::How::kGood) continue;
    reporter.found_header(copy, o.repair && !header_failure);
  }
  if (header_failure) warn("the copies of the header stay as they are: " + header_failure->what);
}

// `opened` is of a native volume.
Result<int> check(const Options& o, const Located& located, const fs::Format& format, OpenedVolume* opened) {
  const VolumeRef& volume = located.volume;
  const bool repairs = o.repair && opened != nullptr;
  std::optional<fs::Salvage> salvage;
  if (!o.salvage.empty()) {
    ECFS_LET(salvage, open_salvage(o.salvage, volume));
  }
  fs::TreeSize size;
  if (isatty(STDERR_FILENO) == 1) {
    ECFS_LET(size, fs::count_tree(volume.lower_dir));
  }
  const SignalGuard guard;
  std::optional<Progress> progress;
  progress.emplace("Checking ", o.quick ? 0 : size.lower_bytes, size.num_entries);
  Reporter reporter(o, volume, repairs, progress);
  if (opened != nullptr) check_headers(o, *opened, reporter);

  fs::CheckOptions options;
  options.quick = o.quick;
  options.repair = repairs;
  options.known_names = o.known_names;
  options.salvage = salvage ? &*salvage : nullptr;
  auto checked = fs::check_tree(volume.lower_dir, format, options, reporter);
  progress.reset();
  fs::CheckTotals totals = checked ? *checked : fs::CheckTotals{};
  totals.num_damaged += reporter.headers_damaged;
  totals.num_repaired += reporter.headers_repaired;
  const char* result = !checked                    ? "failed"
                       : totals.num_damaged != 0   ? "damaged"
                       : totals.num_unchecked != 0 ? "incomplete"
                       : totals.num_repaired != 0  ? "repaired"
                                                   : "clean";
  json summary = {{"lower", volume.lower_path},
                  {"quick", o.quick},
                  {"format", located.ecryptfs ? "ecryptfs" : "native"},
                  {"result", result},
                  {"totals", totals_json(totals)}};
  if (opened != nullptr) summary["volume_id"] = to_hex(opened->store.header().id);
  reporter.finish(summary, totals);
  if (!checked) return std::move(checked).error();
  if (!o.json) print_summary(o, totals, located, totals.num_damaged == reporter.headers_damaged);
  return (totals.num_repaired != 0 ? kFsckRepaired : 0) + (totals.num_damaged != 0 ? kFsckDamaged : 0) +
         (totals.num_unchecked != 0 ? kFsckUnchecked : 0);
}

Result<int> run(const Options& o) {
  ECFS_LET(const Located located, of_root(o.volume));
  const VolumeRef& volume = located.volume;
  if (!volume.lower_dir) {
    return Error{Code::kNotFound, ENOENT, volume.lower_path + " is not there (a disk not connected?)"};
  }
  if (located.ecryptfs) {
    ECFS_TRY(check_ecryptfs_options(o, volume));
    ECFS_LET(const auto format, open_ecryptfs(volume, o.unlock));
    return check(o, located, *format, nullptr);
  }
  ECFS_TRY(wrap::check_lower_present(volume.lower_dir.get(), volume.lower_path));
  const bool changes = o.repair || !o.zero_bad.empty();
  if (changes) ECFS_TRY(lock_lower(volume));  // only to know before anything is asked
  ECFS_LET(OpenedVolume opened, open_volume(volume, o.unlock, false));
  Fd held_profile;
  Fd held_lower;
  if (changes) {
    ECFS_LET(held_profile, lock(volume));
    ECFS_LET(held_lower, lock_lower(volume));
    // Its keys may have been changed while the question was open.
    ECFS_LET(opened.store, open_store(volume, false));
    ECFS_LET(Secret key, opened.key.clone());
    ECFS_TRY(opened.store.unlock_with_key(std::move(key)));
  }
  if (changes && opened.store.header().must_be_read_only()) {
    return Error{Code::kUnsupported, 0,
                 volume.shown() + " was written by a newer version of ecfs; this one may not repair it"};
  }
  if (!o.zero_bad.empty()) return zero_bad_of(o, volume, *opened.format);
  return check(o, located, *opened.format, &opened);
}

}  // namespace

Command add_fsck(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command =
      parent.add_command("fsck", "Check a volume's encrypted directory, mounted or not, and repair it");
  command.add_option("VOLUME", o->volume, "The encrypted directory, or the name of one of your volumes").required();
  const Option quick =
      command.add_flag("--quick", o->quick, "Only names, headers and sizes; do not read the blocks of files");
  const Option repair = command.add_flag(
      "--repair", o->repair, "Put right what can be without losing anything; the volume must not be mounted");
  const Option salvage =
      command.add_option("--salvage", o->salvage, "Copy what still verifies of damaged files to this new directory")
          .value_name("DIR");
  command
      .add_option("--known-name", o->known_names, "A name or path that something lost had; may be given several times")
      .value_name("NAME")
      .repeatable();
  command.add_flag("--plain-names", o->plain_names,
                   "Name files by their plain names also where the output is no terminal");
  command.add_flag("--verbose", o->verbose, "Show all notes");
  const Option as_json = command.add_flag("--json", o->json, "As JSON");
  command
      .add_option("--zero-bad", o->zero_bad,
                  "Only write zeros into the damaged blocks of this file (its path inside the volume), for a database "
                  "that mends itself")
      .value_name("FILE")
      .excludes(quick)
      .excludes(repair)
      .excludes(salvage)
      .excludes(as_json);
  add_unlock_options(command, o->unlock);
  command.set_footer(
      "Exit status, added up as of fsck(8): 0 clean, 1 something was put right, 4 damage is left, 8 not all was "
      "checked.\n"
      "Examples:\n"
      "  ecfs fsck Private\n"
      "  ecfs fsck --repair ~/vault.enc\n"
      "  ecfs fsck --salvage ~/salvaged /media/backup/.Private");
  return {command,
          [o]() -> Result<int> {
            try {
              return run(*o);
            } catch (const std::bad_alloc&) {  // main's exit code for it says something else here
              return Error{Code::kNoMemory, 0, "out of memory"};
            }
          },
          kFsckUnchecked, kFsckUsage};
}

}  // namespace ecfs::setup
