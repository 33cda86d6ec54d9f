#include "setup/swap/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "setup/swap/tables.h"
#include "wrap/base/file.h"

namespace ecfs::swap {
namespace {

using nlohmann::json;

constexpr unsigned kVersion = 1;
constexpr std::size_t kMaxJournalBytes = 8 * kMaxTableBytes;
constexpr std::size_t kMaxHeaderBytes = 65536;
constexpr std::string_view kNameStart = "ecfs_swap";

json original_json(const Original& original) {
  return {{"existed", original.existed}, {"bytes", to_hex(original.bytes)}};
}

// Fields of a document that may be anything: a wrong kind makes `good` false.
class Fields {
 public:
  explicit Fields(const json& document) : document_(document) {}

  template <class T>
  T unsigned_of(const char* name, std::uint64_t most) {
    const json* value = find(name);
    if (value == nullptr || !value->is_number_unsigned() || value->get<std::uint64_t>() > most) return fail<T>();
    return static_cast<T>(value->get<std::uint64_t>());
  }
  int int_of(const char* name) {
    const json* value = find(name);
    if (value == nullptr || !value->is_number_integer()) return fail<int>();
    const auto number = value->get<std::int64_t>();
    if (number < -32768 || number > 32767) return fail<int>();
    return static_cast<int>(number);
  }
  bool bool_of(const char* name) {
    const json* value = find(name);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : fail<bool>();
  }
  std::string text_of(const char* name) {
    const json* value = find(name);
    return value != nullptr && value->is_string() ? value->get<std::string>() : fail<std::string>();
  }
  Bytes bytes_of(const char* name, std::size_t most) {
    auto bytes = from_hex(text_of(name));
    return bytes && bytes->size() <= most ? *std::move(bytes) : fail<Bytes>();
  }
  std::vector<std::string> texts_of(const char* name) {
    std::vector<std::string> out;
    const json* value = find(name);
    if (value == nullptr || !value->is_array()) return fail<std::vector<std::string>>();
    for (const json& one : *value) {
      if (!one.is_string()) return fail<std::vector<std::string>>();
      out.push_back(one.get<std::string>());
    }
    return out;
  }
  Original original_of(const char* name) {
    const json* value = find(name);
    if (value == nullptr) return fail<Original>();
    Fields inner(*value);
    Original out{inner.bool_of("existed"), inner.bytes_of("bytes", kMaxTableBytes)};
    good = good && inner.good;
    return out;
  }

  bool good = true;

 private:
  const json* find(const char* name) {
    if (!document_.is_object()) return nullptr;
    const auto at = document_.find(name);
    return at == document_.end() ? nullptr : &*at;
  }
  template <class T>
  T fail() {
    good = false;
    return {};
  }

  const json& document_;
};

std::optional<Phase> phase_of(const std::string& name) {
  for (const Phase phase : {Phase::kEncrypting, Phase::kEncrypted, Phase::kUndoing}) {
    if (name == phase_name(phase)) return phase;
  }
  return {};
}

std::string file_of(const std::string& name) { return name + ".json"; }

}  // namespace

const char* phase_name(Phase phase) noexcept {
  switch (phase) {
    case Phase::kEncrypting: return "encrypting";
    case Phase::kEncrypted: return "encrypted";
    case Phase::kUndoing: return "undoing";
  }
  return "";
}

bool is_name(std::string_view name) {
  constexpr std::size_t kMostDigits = 6;
  if (!name.starts_with(kNameStart)) return false;
  name.remove_prefix(kNameStart.size());
  return !name.empty() && name.size() <= kMostDigits && name[0] != '0' &&
         name.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string to_text(const Journal& j) {
  const json document = {{"version", kVersion},
                         {"name", j.name},
                         {"phase", phase_name(j.phase)},
                         {"step", j.step},
                         {"path", j.path},
                         {"stable", j.stable},
                         {"names", j.names},
                         {"size_bytes", j.size_bytes},
                         {"header", to_hex(j.header)},
                         {"priority", j.priority},
                         {"discard", j.discard},
                         {"cipher", j.cipher},
                         {"sector_bytes", j.sector_bytes},
                         {"wipe", j.wipe},
                         {"unit", j.unit},
                         {"no_auto", j.no_auto},
                         {"resume", j.resume},
                         {"fstab", original_json(j.fstab)},
                         {"crypttab", original_json(j.crypttab)},
                         {"resume_file", original_json(j.resume_file)}};
  return document.dump(1, ' ', true, json::error_handler_t::replace) + "\n";
}

Result<Journal> parse_journal(std::string_view text) {
  const Error wrong{Code::kCorrupt, 0, "not a journal of ecfs setup-swap"};
  const json document = json::parse(text, nullptr, false);
  if (!document.is_object()) return wrong;
  Fields f(document);
  if (f.unsigned_of<unsigned>("version", UINT32_MAX) != kVersion) return wrong;
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 60;
  Journal j;
  j.name = f.text_of("name");
  const auto phase = phase_of(f.text_of("phase"));
  j.step = f.text_of("step");
  j.path = f.text_of("path");
  j.stable = f.text_of("stable");
  j.names = f.texts_of("names");
  j.size_bytes = f.unsigned_of<std::uint64_t>("size_bytes", kMostBytes);
  j.header = f.bytes_of("header", kMaxHeaderBytes);
  j.priority = f.int_of("priority");
  j.discard = f.bool_of("discard");
  j.cipher = f.text_of("cipher");
  j.sector_bytes = f.unsigned_of<unsigned>("sector_bytes", 4096);
  j.wipe = f.bool_of("wipe");
  j.unit = f.bool_of("unit");
  j.no_auto = f.bool_of("no_auto");
  j.resume = f.bool_of("resume");
  j.fstab = f.original_of("fstab");
  j.crypttab = f.original_of("crypttab");
  j.resume_file = f.original_of("resume_file");
  if (!f.good || !phase || !is_name(j.name)) return wrong;
  j.phase = *phase;
  return j;
}

Result<Fd> open_journals(bool make) {
  if (!make) return open_directory(AT_FDCWD, "/var/lib/ecfs/swap");
  ECFS_LET(const Fd lib, open_directory(AT_FDCWD, "/var/lib"));
  constexpr mode_t kForAll = 0755;
  constexpr mode_t kForRoot = 0700;
  ECFS_LET(const Fd ours, make_directory(lib.get(), "ecfs", kForAll));
  ECFS_LET(Fd dir, make_directory(ours.get(), "swap", kForRoot));
  ECFS_TRY(sync_directory(lib.get()));
  ECFS_TRY(sync_directory(ours.get()));
  return dir;
}

Status save(int dir, const Journal& journal) {
  constexpr mode_t kForRoot = 0600;
  return replace_file(dir, file_of(journal.name), as_bytes(to_text(journal)), kForRoot);
}

Status remove(int dir, const Journal& journal) {
  if (unlinkat(dir, file_of(journal.name).c_str(), 0) != 0 && errno != ENOENT) {
    return system_error(errno, "remove the journal of " + journal.name);
  }
  return sync_directory(dir);
}

Result<std::vector<Journal>> load(int dir) {
  std::vector<Journal> out;
  constexpr std::size_t kMostEntries = 1000;
  ECFS_LET(const std::vector<std::string> names, list_directory(dir, kMostEntries));
  for (const std::string& file : names) {
    if (!file.ends_with(".json")) continue;  // what a kill left of a write
    const std::string path = "/var/lib/ecfs/swap/" + file;
    auto bytes = read_file(dir, file, kMaxJournalBytes, 0);
    if (!bytes) return with_context(std::move(bytes).error(), path);
    auto journal = parse_journal(as_text(*bytes));
    if (!journal) return with_context(std::move(journal).error(), path);
    if (file_of(journal->name) != file) return Error{Code::kCorrupt, 0, path + " is of another name"};
    out.push_back(*std::move(journal));
  }
  std::sort(out.begin(), out.end(), [](const Journal& a, const Journal& b) {
    return std::pair(a.name.size(), a.name) < std::pair(b.name.size(), b.name);
  });
  return out;
}

}  // namespace ecfs::swap
