#include "fs/lower_names.h"

#include <fcntl.h>

#include <cerrno>

#include "fs/lower/lower_dir.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kMaxDirIdFile = 4096;  // far above any format's; what is longer is none
constexpr std::size_t kMaxSideFile = 512;

// The components of a relative path; empty ones and "." count for nothing.
Result<std::vector<std::string>> components_of(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    const std::string_view part = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), part.size() + 1));
    if (part.empty() || part == ".") continue;
    if (part == "..") return Error{Code::kInvalid, EINVAL, "a path of the volume cannot hold '..'"};
    out.emplace_back(part);
  }
  return out;
}

// Something that cannot be opened as a file is in its place: a link, a socket.
bool is_other_kind(const Error& error) noexcept {
  const int err = errno_of(error);
  return err == ELOOP || err == ENOTDIR || err == ESTALE || err == ENXIO || err == EISDIR;
}

void append_name(std::string& path, std::string_view name) {
  if (!path.empty()) path += '/';
  path += name;
}

// Walker goes down from the root, and on in thought where there is nothing.
class Walker {
 public:
  Walker(const Format& format, int root) : format_(format), root_(root) {}

  Status begin() {
    ECFS_LET(dir_, open_at(root_, ".", O_PATH | O_DIRECTORY));
    ECFS_LET(const DirId derived, format_.root_id());
    ECFS_LET(const FoundDirId found, find_dir_id(format_, dir_.get(), derived));
    id_ = found.id;
    out.exists = true;
    return {};
  }
  // step goes on to one entry; descend then makes it the directory to look in.
  void step(const LowerName& lower, std::string_view plain) {
    out.side_file.clear();
    if (lower.side)
      out.side_file = out.lower.empty() ? side_name(lower.entry) : out.lower + "/" + side_name(lower.entry);
    append_name(out.lower, lower.entry);
    append_name(out.plain, plain);
    out.entry = lower.entry;
    if (dir_) out.exists = stat_at(dir_.get(), out.entry.c_str()).has_value();
  }
  Status descend(std::string_view plain) {
    ECFS_LET(id_, format_.child_id(id_, plain));
    if (dir_ && out.exists) {
      Result<Fd> next = open_at(dir_.get(), out.entry.c_str(), O_PATH | O_DIRECTORY);
      if (!next && errno_of(next.error()) == ENOTDIR) {
        return Error{Code::kInvalid, ENOTDIR, out.plain + " is not a directory"};
      }
      if (!next) return std::move(next).error();
      dir_ = *std::move(next);
      ECFS_LET(const FoundDirId found, find_dir_id(format_, dir_.get(), id_));
      id_ = found.id;
      return {};
    }
    dir_.reset();
    out.exists = false;
    out.sure = out.sure && format_.dir_id_file().empty();
    return {};
  }
  [[nodiscard]] const DirId& id() const noexcept { return id_; }
  [[nodiscard]] int dir() const noexcept { return dir_.get(); }
  PathFound finish() {
    if (!out.entry.empty()) out.parent = std::move(dir_);
    return std::move(out);
  }

  PathFound out;

 private:
  const Format& format_;
  int root_;
  Fd dir_;
  DirId id_{};
};

// The entry that carries the name of a conflicting copy as it is shown with `show-conflicts`.
Result<Format::ConflictName> conflict_shown(const Format& format, int dir, const DirId& id, std::string_view shown,
                                            std::string& lower_name) {
  const Error none{Code::kNotFound, ENOENT, "no such name"};
  if (dir < 0 || shown.find(".ecfs-conflict-") == std::string_view::npos) return none;
  ECFS_LET(DirReader reader, DirReader::open(dir));
  for (;;) {
    ECFS_LET(const std::optional<RawEntry> raw, reader.peek());
    if (!raw) return none;
    if (format.kind_of(raw->name) == LowerNameKind::kForeign) {
      Result<Format::ConflictName> name = conflict_of(format, dir, id, raw->name);
      if (name && name->shown == shown) {
        lower_name = raw->name;
        return name;
      }
    }
    reader.pop();
  }
}

}  // namespace

std::string side_name(std::string_view lower_entry) { return std::string(lower_entry) + std::string(kSideSuffix); }

Result<FoundDirId> find_dir_id(const Format& format, int dirfd, const DirId& derived) {
  const std::string file(format.dir_id_file());
  if (file.empty()) return FoundDirId{derived, false};
  const Result<Bytes> bytes = read_small_at(dirfd, file.c_str(), kMaxDirIdFile);
  if (bytes) {
    ECFS_LET(const DirId id, format.read_dir_id(*bytes));
    return FoundDirId{id, true};
  }
  if (errno_of(bytes.error()) == ENOENT) return FoundDirId{derived, false};
  Error failed = bytes.error();
  if (is_other_kind(failed)) failed.code = Code::kCorrupt, failed.sys_errno = EIO;
  return failed;
}

Result<std::string> decode_entry(const Format& format, int dirfd, const DirId& id, std::string_view lower_name) {
  if (format.kind_of(lower_name) == LowerNameKind::kName) return format.decode_name(id, lower_name);
  Result<Bytes> bytes = read_small_at(dirfd, side_name(lower_name).c_str(), kMaxSideFile);
  if (!bytes && is_other_kind(bytes.error())) return Error{Code::kCorrupt, EIO, "the side file is none of ours"};
  if (!bytes) return std::move(bytes).error();
  return format.decode_long_name(id, lower_name, *bytes);
}

Result<Format::ConflictName> conflict_of(const Format& format, int dirfd, const DirId& id,
                                         std::string_view lower_name) {
  const std::string_view base = format.conflict_base(lower_name);
  Bytes side;
  if (!base.empty() && format.kind_of(base) == LowerNameKind::kLongName) {
    if (Result<Bytes> bytes = read_small_at(dirfd, side_name(base).c_str(), kMaxSideFile)) side = *std::move(bytes);
  }
  return format.conflict_name(id, lower_name, side);
}

Result<PathFound> find_plain(const Format& format, int root, std::string_view plain_path) {
  ECFS_LET(const std::vector<std::string> components, components_of(plain_path));
  Walker walker(format, root);
  ECFS_TRY(walker.begin());
  for (std::size_t i = 0; i < components.size(); ++i) {
    ECFS_LET(const LowerName lower, format.encode_name(walker.id(), components[i]));
    std::string id_from = components[i];
    walker.step(lower, components[i]);
    if (!walker.out.exists && walker.dir() >= 0) {
      std::string conflict;
      if (const auto shown = conflict_shown(format, walker.dir(), walker.id(), components[i], conflict)) {
        walker.out.lower.resize(walker.out.lower.size() - walker.out.entry.size());
        walker.out.lower += conflict;
        walker.out.entry = conflict;
        walker.out.side_file.clear();
        walker.out.exists = true;
        id_from = shown->plain;
      }
    }
    if (i + 1 < components.size()) ECFS_TRY(walker.descend(id_from));
  }
  return walker.finish();
}

Result<PathFound> find_lower(const Format& format, int root, std::string_view lower_path) {
  ECFS_LET(std::vector<std::string> components, components_of(lower_path));
  Walker walker(format, root);
  ECFS_TRY(walker.begin());
  for (std::size_t i = 0; i < components.size(); ++i) {
    std::string name = components[i];
    const bool is_side =
        format.kind_of(name) == LowerNameKind::kOurs && !name.starts_with('.') && name.ends_with(kSideSuffix);
    if (is_side) name.resize(name.size() - kSideSuffix.size());
    std::string plain;
    std::string id_from;
    switch (format.kind_of(name)) {
      case LowerNameKind::kName:
      case LowerNameKind::kLongName: {
        if (walker.dir() < 0 && format.kind_of(name) == LowerNameKind::kLongName) {
          return Error{Code::kNotFound, ENOENT, name + ": a long name stands in its side file, which is not there"};
        }
        Result<std::string> decoded = decode_entry(format, walker.dir(), walker.id(), name);
        if (!decoded) return with_context(std::move(decoded).error(), name);
        plain = id_from = *std::move(decoded);
        break;
      }
      case LowerNameKind::kForeign: {
        Result<Format::ConflictName> conflict = conflict_of(format, walker.dir(), walker.id(), name);
        if (!conflict) return Error{Code::kNotFound, 0, name + " is not a name of this volume"};
        plain = conflict->shown;
        id_from = conflict->plain;
        break;
      }
      default: return Error{Code::kNotFound, 0, name + " is a file of ecfs itself and has no plain name"};
    }
    LowerName lower{name, std::nullopt};
    if (format.kind_of(name) == LowerNameKind::kLongName) lower.side.emplace();
    walker.step(lower, plain);
    if (i + 1 < components.size()) ECFS_TRY(walker.descend(id_from));
  }
  return walker.finish();
}

}  // namespace ecfs::fs
