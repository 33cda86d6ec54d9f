// ecfs stat: what a file of a volume is, on both sides.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <memory>
#include <nlohmann/json.hpp>

#include "fs/format/ecryptfs_check.h"
#include "fs/format/native_check.h"
#include "fs/lower/lower_dir.h"
#include "fs/lower_names.h"
#include "setup/command.h"
#include "setup/ecryptfs.h"
#include "setup/json.h"
#include "setup/locate.h"
#include "setup/messages.h"
#include "setup/ui.h"
#include "wrap/base/log.h"
#include "wrap/keyring.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;

struct Options {
  std::vector<std::string> files;
  bool ask = false;
  bool json = false;
  UnlockOptions unlock;
};

const char* type_of(mode_t mode) noexcept {
  switch (mode & S_IFMT) {
    case S_IFREG: return "regular file";
    case S_IFDIR: return "directory";
    case S_IFLNK: return "symbolic link";
    case S_IFIFO: return "FIFO";
    case S_IFSOCK: return "socket";
    case S_IFBLK: return "block device";
    case S_IFCHR: return "character device";
    default: return "unknown";
  }
}

const char* shape_of(fs::FileShape shape) noexcept {
  switch (shape) {
    case fs::FileShape::kEmpty: return "empty";
    case fs::FileShape::kInline: return "inline";
    case fs::FileShape::kPaged: return "paged";
    case fs::FileShape::kExtents: return "extents";
    case fs::FileShape::kOther: return "unknown";
  }
  return "unknown";
}

// The volume of one path, with its Format if it was (or need be) unlocked.
struct Context {
  Located located;
  std::optional<wrap::VolumeStore> store;  // of a native volume
  std::unique_ptr<fs::Format> format;
};

Result<Context> open_context(const Options& o, const std::string& path) {
  Context c;
  ECFS_LET(c.located, locate(path));
  const VolumeRef& volume = c.located.volume;
  // A plain name leads nowhere without the key; a lower file tells something without it.
  const bool needed = c.located.plain || o.ask || o.unlock.source.given() || o.unlock.recovery;
  if (c.located.ecryptfs) {
    auto format = open_ecryptfs(volume, o.unlock, needed);
    if (format) {
      c.format = *std::move(format);
    } else if (needed || format.error().code == Code::kNoMemory) {
      return std::move(format).error();
    }
    return c;
  }
  ECFS_LET(c.store, open_store(volume));
  if (needed) {
    ECFS_LET(const wrap::Unlocked unlocked, unlock(*c.store, o.unlock, volume.shown(), Token::kTry));
    ECFS_LET(c.format, format_of(*c.store, unlocked.key));
    return c;
  }
  if (auto key = wrap::find_token(c.store->header().id); key) {
    if (auto unlocked = c.store->unlock_with_key(*std::move(key)); unlocked) {
      ECFS_LET(c.format, format_of(*c.store, unlocked->key));
    }
  }
  return c;
}

void add_facts(json& out, const fs::FileFacts& facts) {
  out["plain_size"] = facts.plain_size;
  out["lower_size"] = facts.lower_size;
  out["shape"] = shape_of(facts.shape);
  out["authenticated"] = facts.authentic;
  if (facts.version != 0) out["format_version"] = facts.version;
  if (!facts.suite.empty()) out["suite"] = facts.suite;
  if (facts.shape == fs::FileShape::kPaged || facts.shape == fs::FileShape::kExtents) {
    out["block_bytes"] = facts.block_bytes;
    out["num_blocks"] = facts.num_blocks;
  }
  if (facts.shape == fs::FileShape::kExtents) {
    out["key_bytes"] = facts.key_bytes;
    out["header_bytes"] = facts.header_bytes;
    out["signatures"] = facts.signatures;
  }
  if (!facts.authentic || facts.version == 0) return;
  out["holes_allowed"] = facts.holes;
  out["sealed_size"] = facts.sealed_size ? json(*facts.sealed_size) : json();
}

// What the lower file itself tells. A damaged one is part of the answer.
Status add_contents(json& out, const Context& c, int path_fd) {
  Fd fd(::open(fs::ProcPath(path_fd).c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) {
    out["note"] = system_error(errno, "its contents cannot be read").what;
    return {};
  }
  fs::LowerFile lower(std::move(fd), false);
  if (c.format) {
    fs::CheckHow how;
    how.quick = true;
    ECFS_LET(const fs::ContentsCheck check, c.format->check_contents(lower, how));
    add_facts(out, check.facts);
    if (check.locked()) {
      out["note"] = "it cannot be decrypted here: " + check.refused->what;
    } else if (check.refused) {
      out["damage"] = check.refused->what;
    } else if (!check.bad.empty()) {
      out["damage"] = std::to_string(check.bad.num_bytes()) + " of the bytes that its size promises are not there";
    }
    return {};
  }
  if (c.located.ecryptfs) {
    ECFS_LET(const fs::FileFacts facts, fs::ecryptfs_facts(lower));
    add_facts(out, facts);
    return {};
  }
  std::array<std::uint8_t, 64> first{};
  ECFS_LET(const std::uint64_t size, lower.size());
  ECFS_LET(const std::size_t got, lower.read_at(0, first));
  add_facts(out, fs::native_open_facts(c.store->header(), ByteView(first).first(got), size));
  return {};
}

Status add_link(json& out, const Context& c, int path_fd) {
  std::array<char, PATH_MAX> lower{};
  const ssize_t n = readlinkat(path_fd, "", lower.data(), lower.size());
  if (n < 0) return system_error(errno, "read the link");
  out["lower_size"] = n;
  if (!c.format) return {};
  const Result<std::string> target = c.format->decode_link({lower.data(), static_cast<std::size_t>(n)});
  if (target) {
    out["target"] = *target;
    out["plain_size"] = target->size();
  } else if (target.error().code == Code::kNoKey) {
    out["note"] = target.error().what;
  } else {
    out["damage"] = target.error().what;
  }
  return {};
}

Status add_directory(json& out, const Context& c, int path_fd) {
  if (!c.format || c.located.ecryptfs) return {};
  const Result<fs::FoundDirId> id = fs::find_dir_id(*c.format, path_fd, {});
  if (id) {
    out["stored_id"] = id->stored;
  } else {
    out["damage"] = with_context(id.error(), "its id").what;
  }
  return {};
}

Result<json> describe(const Options& o, const std::string& path) {
  ECFS_LET(const Context c, open_context(o, path));
  const VolumeRef& volume = c.located.volume;
  const int root = volume.lower_dir.get();
  json out = {{"volume", volume.shown()}, {"format", c.located.ecryptfs ? "ecryptfs" : "native"}};
  if (c.store) out["volume_id"] = to_hex(c.store->header().id);
  std::string lower = c.located.inside;
  bool of_volume = true;  // its name is one of a plain file
  Fd parent;              // of a plain path: its lower one may be too long for a system call
  if (c.located.plain) {
    ECFS_LET(fs::PathFound found, fs::find_plain(*c.format, root, c.located.inside));
    parent = std::move(found.parent);
    if (!found.exists) return Error{Code::kNotFound, ENOENT, path + ": there is no such file"};
    lower = found.lower;
    out["plain"] = c.located.inside;
    if (!found.side_file.empty()) out["side_file"] = volume.lower_path + "/" + found.side_file;
  } else if (c.format) {
    auto found = fs::find_lower(*c.format, root, lower);
    if (found) {
      out["plain"] = found->plain;
      if (!found->side_file.empty()) out["side_file"] = volume.lower_path + "/" + found->side_file;
    } else {
      out["note"] = found.error().what;
      of_volume = found.error().code != Code::kNotFound || c.located.ecryptfs;
    }
  } else if (c.located.ecryptfs) {
    out["note"] = "its plain name is not shown without the key: open the directory, or say --ask";
  } else {
    out["note"] =
        "its plain name and what is sealed in its header are not shown without the key: open the volume, or "
        "say --ask";
  }
  const std::string entry = lower.substr(lower.rfind('/') + 1);
  const std::string from_root = lower.empty() ? "." : lower;
  auto fd = parent ? fs::open_at(parent.get(), entry.c_str(), O_PATH) : fs::open_at(root, from_root.c_str(), O_PATH);
  if (!fd) return with_context(std::move(fd).error(), volume.lower_path);
  ECFS_LET(const fs::LowerStat st, fs::stat_at(fd->get(), ""));
  out["lower"] = volume.lower_path + (lower.empty() ? "" : "/" + lower);
  out["type"] = type_of(st.st.st_mode);
  out["mode"] = fmt::format("{:04o}", st.st.st_mode & 07777);
  out["uid"] = st.st.st_uid;
  out["gid"] = st.st.st_gid;
  out["names"] = st.st.st_nlink;
  out["disk_bytes"] = static_cast<std::uint64_t>(st.st.st_blocks) * 512;
  const bool native = !c.located.ecryptfs;  // whose lower names of plain files never begin with a dot
  if (native && entry.starts_with('.')) {
    of_volume = false;
    out["note"] = entry + " is a file of ecfs itself, or of another program";
  } else if (native && entry.ends_with(fs::kSideSuffix)) {
    of_volume = false;
    out["note"] = "the file that holds the long name of its entry";
  }
  if (!of_volume) return out;
  if (S_ISREG(st.st.st_mode)) ECFS_TRY(add_contents(out, c, fd->get()));
  if (S_ISLNK(st.st.st_mode)) ECFS_TRY(add_link(out, c, fd->get()));
  if (S_ISDIR(st.st.st_mode)) ECFS_TRY(add_directory(out, c, fd->get()));
  return out;
}

void line(const char* what, const std::string& text) { say(fmt::format("  {:<11} {}", what, escaped(text))); }

std::string bytes_text(const json& out, const char* key) {
  const auto bytes = out[key].get<std::uint64_t>();
  return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

void print(const std::string& path, const json& out) {
  say(escaped(path) + ": " + out["type"].get<std::string>());
  if (out.contains("plain"))
    line("plain", out["plain"].get<std::string>().empty() ? "." : out["plain"].get<std::string>());
  line("lower", out["lower"]);
  if (out.contains("side_file")) line("long name", out["side_file"]);
  if (out.contains("target")) line("target", out["target"]);
  if (out.contains("plain_size")) {
    line("size", bytes_text(out, "plain_size") + (out.value("authenticated", true) ? "" : " (not authenticated)") +
                     (out.contains("lower_size") ? ", lower " + bytes_text(out, "lower_size") : "") + ", on disk " +
                     bytes_text(out, "disk_bytes"));
  }
  if (out.contains("shape")) {
    std::string text = out["shape"];
    if (out.contains("format_version")) {
      text = fmt::format("{} {}, {}", out["format"] == "native" ? "native" : "eCryptfs",
                         out["format_version"].get<unsigned>(), text);
    }
    if (out.contains("suite")) text += ", " + out["suite"].get<std::string>();
    if (out.contains("key_bytes")) text += fmt::format(" with keys of {}", bytes_text(out, "key_bytes"));
    if (out.contains("num_blocks")) {
      text += fmt::format(
          ", {} of {}",
          out["num_blocks"] == 1 ? "1 block" : fmt::format("{} blocks", out["num_blocks"].get<std::uint64_t>()),
          bytes_text(out, "block_bytes"));
    }
    line("format", text);
  }
  if (out.contains("header_bytes")) {
    line("header", out["header_bytes"] == 0 ? "in the attribute user.ecryptfs" : bytes_text(out, "header_bytes"));
    std::string keys;
    for (const json& signature : out["signatures"]) keys += (keys.empty() ? "" : ", ") + signature.get<std::string>();
    line("key", keys);
  }
  if (out.contains("holes_allowed")) {
    const bool holes = out["holes_allowed"];
    line("state",
         std::string(holes ? "may have holes" : "no holes") +
             (out["sealed_size"].is_null() ? ", not sealed" : ", sealed with " + bytes_text(out, "sealed_size")));
  }
  if (out.contains("stored_id")) {
    const bool stored = out["stored_id"];
    line("id", stored ? "stored in .ecfs-dir: it was renamed once" : "derived from its path");
  }
  line("mode",
       fmt::format("{}, owner {}, group {}, {} name{}", out["mode"].get<std::string>(), out["uid"].get<unsigned>(),
                   out["gid"].get<unsigned>(), out["names"].get<unsigned>(), out["names"] == 1 ? "" : "s"));
  if (out.contains("damage")) line("DAMAGED", out["damage"]);
  if (out.contains("note")) line("note", out["note"]);
}

Result<int> run(const Options& o) {
  json all = json::array();
  int code = 0;
  for (const std::string& path : o.files) {
    Result<json> out = describe(o, path);
    if (!out) {  // the others are told all the same; the last failure gives the exit code
      if (ends_command(out.error())) return std::move(out).error();
      report(out.error());
      code = exit_code_of(out.error().code);
      continue;
    }
    if (out->contains("damage")) code = exit_code_of(Code::kCorrupt);
    if (o.json) {
      all.push_back(*std::move(out));
    } else {
      print(path, *out);
    }
  }
  if (o.json) print_json({{"files", all}});
  return code;
}

}  // namespace

Command add_stat(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("stat", "Show what a file is, encrypted and plain");
  command.add_option("FILE", o->files, "Plain files in an open volume, or encrypted ones").required();
  command.add_flag("--ask", o->ask, "Ask for the passphrase also where something can be shown without it");
  command.add_flag("--json", o->json, "As JSON");
  add_unlock_options(command, o->unlock);
  command.set_footer(
      "Examples:\n"
      "  ecfs stat ~/Private/Documents/tax.pdf\n"
      "  ecfs stat --json ~/.Private/ocoykvbDe5HBJdzXieXfvVrTH8QYVUuW14UfbvqrsGw");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
