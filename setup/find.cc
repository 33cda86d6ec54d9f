// ecfs find: from a plain path to the lower one, and back.
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "fs/lower_names.h"
#include "setup/command.h"
#include "setup/json.h"
#include "setup/locate.h"
#include "setup/messages.h"
#include "setup/ui.h"
#include "wrap/base/file.h"
#include "wrap/base/log.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

struct Options {
  std::vector<std::string> where;  // paths, or one volume with --plain or --lower
  std::vector<std::string> plain;
  std::vector<std::string> lower;
  bool json = false;
  bool nul = false;
  UnlockOptions unlock;
};

std::string joined(const std::string& directory, const std::string& below) {
  if (below.empty()) return directory;
  return (directory == "/" ? "" : directory) + "/" + below;
}

// Finder opens each volume once: several paths mostly are of one.
class Finder {
 public:
  explicit Finder(const Options& o) : o_(o) {}

  Status of_path(const std::string& path) {
    ECFS_LET(Located located, locate(path));
    const bool plain = located.plain;
    const std::string inside = located.inside;
    const std::string shown = joined(located.mountpoint, inside);
    if (!volume_ || volume_->lower_path != located.volume.lower_path) ECFS_TRY(open(std::move(located)));
    return plain ? to_lower(inside, shown) : to_plain(inside);
  }

  Status open(Located located) {
    if (!located.volume.lower_dir) {
      return Error{Code::kNotFound, ENOENT, located.volume.lower_path + " is not there (a disk not connected?)"};
    }
    mountpoint_ = mountpoint_of(located.volume.lower_path);
    ECFS_LET(format_, open_format(located, o_.unlock));
    volume_ = std::move(located.volume);
    return {};
  }

  Status to_lower(const std::string& inside, const std::string& shown) {
    auto found = fs::find_plain(*format_, volume_->lower_dir.get(), inside);
    if (!found) return with_context(std::move(found).error(), shown);
    const std::string lower = joined(volume_->lower_path, found->lower);
    tell(*found, lower);
    put(lower);
    return {};
  }

  Status to_plain(const std::string& inside) {
    auto found = fs::find_lower(*format_, volume_->lower_dir.get(), inside);
    if (!found) {
      if (found.error().code == Code::kNotFound) return std::move(found).error();  // names what it is about
      return with_context(std::move(found).error(), inside);
    }
    tell(*found, joined(volume_->lower_path, found->lower));
    put(mountpoint_.empty() ? found->plain.empty() ? "." : found->plain : joined(mountpoint_, found->plain));
    return {};
  }

  int finish() const {
    if (o_.json) print_json({{"found", found_}});
    return failed_ != 0 ? failed_ : all_there_ ? 0 : 1;
  }

  // The others are looked for all the same, unless nobody can give the key; the last failure gives the exit code.
  Status tolerated(Status done) {
    if (done || ends_command(done.error())) return done;
    report(done.error());
    failed_ = exit_code_of(done.error().code);
    return {};
  }

 private:
  void put(const std::string& path) const {
    if (o_.json) return;
    if (!o_.nul) return say(escaped(path));
    (void)write_all(STDOUT_FILENO, as_bytes(path + '\0'));  // nothing can be done about a closed output
  }

  void tell(const fs::PathFound& found, const std::string& lower) {
    all_there_ = all_there_ && found.exists;
    if (o_.json) {
      json entry = {{"plain", found.plain}, {"lower", lower}, {"exists", found.exists}, {"sure", found.sure}};
      if (!mountpoint_.empty()) entry["mounted"] = joined(mountpoint_, found.plain);
      if (!found.side_file.empty()) entry["side_file"] = joined(volume_->lower_path, found.side_file);
      found_.push_back(std::move(entry));
      return;
    }
    const std::string name = found.plain.empty() ? "." : escaped(found.plain);
    if (!found.sure) {
      note(name + ": a directory on the way is not there; if it had been renamed once, the lower name is another");
    } else if (!found.exists) {
      note(name + ": not there; this is its lower name");
    }
    if (!found.side_file.empty()) {
      note(name +
           ": its name is long, and stands in the file beside it: " + joined(volume_->lower_path, found.side_file));
    }
  }

  const Options& o_;
  std::optional<VolumeRef> volume_;
  std::string mountpoint_;
  std::unique_ptr<fs::Format> format_;
  json found_ = json::array();
  bool all_there_ = true;
  int failed_ = 0;
};

Result<int> run(const Options& o) {
  Finder finder(o);
  if (o.plain.empty() && o.lower.empty()) {
    for (const std::string& path : o.where) ECFS_TRY(finder.tolerated(finder.of_path(path)));
    return finder.finish();
  }
  if (o.where.size() != 1) {
    return Error{Code::kInvalid, 0,
                 "--plain and --lower name paths inside one volume: `ecfs find VOLUME --plain PATH`"};
  }
  ECFS_LET(Located located, of_root(o.where.front()));
  ECFS_TRY(finder.open(std::move(located)));
  for (const std::string& path : o.plain) ECFS_TRY(finder.tolerated(finder.to_lower(path, path)));
  for (const std::string& path : o.lower) ECFS_TRY(finder.tolerated(finder.to_plain(path)));
  return finder.finish();
}

}  // namespace

Command add_find(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command =
      parent.add_command("find", "Find the encrypted file of a plain one, and the other way round");
  command
      .add_option("PATH", o->where,
                  "Plain files in an open volume, or encrypted ones; with --plain or --lower: the volume")
      .required();
  command.add_option("--plain", o->plain, "A plain path inside the volume PATH, which need not be open")
      .value_name("INSIDE")
      .repeatable();
  command.add_option("--lower", o->lower, "A path inside the encrypted directory of the volume PATH")
      .value_name("INSIDE")
      .repeatable();
  const Option as_json = command.add_flag("--json", o->json, "As JSON");
  command.add_flag("-0,--null", o->nul, "Paths as they are, byte for byte, each with a zero byte behind it")
      .excludes(as_json);
  add_unlock_options(command, o->unlock);
  command.set_footer(
      "Examples:\n"
      "  ecfs find ~/Private/Documents/tax.pdf\n"
      "  ecfs find ~/vault.enc --plain Documents/tax.pdf\n"
      "  ecfs find /media/backup/.Private/ocoykvbDe5HBJdzXieXfvVrTH8QYVUuW14UfbvqrsGw");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
