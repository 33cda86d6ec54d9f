#include "fs/salvage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "wrap/base/file.h"
#include "wrap/base/log.h"

namespace ecfs::fs {
namespace {

constexpr int kMaxTries = 10'000;  // names with a number behind them

std::string numbered(const std::string& name, int number) {
  if (number == 0) return name;
  const std::string suffix = "." + std::to_string(number);
  return name.substr(0, std::min(name.size(), std::size_t{255} - suffix.size())) + suffix;
}

Status write_at(int fd, std::uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return system_error(n < 0 ? errno : EIO, "write what was salvaged");
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<Salvage> Salvage::open(Fd dir) {
  ECFS_LET(const std::vector<std::string> names, list_directory(dir.get(), 1));
  if (!names.empty()) {
    return Error{Code::kInvalid, ENOTEMPTY, "the directory for what is salvaged is not empty"};
  }
  if (mkdirat(dir.get(), "files", 0700) != 0) return system_error(errno, "make the directory for what is salvaged");
  ECFS_LET(Fd files, open_directory(dir.get(), "files"));
  Fd list(openat(dir.get(), "list.txt", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!list) return system_error(errno, "make the list of what is salvaged");
  return Salvage(std::move(files), std::move(list));
}

Result<Fd> Salvage::directory_of(const std::vector<std::string>& path) const {
  Fd at;
  for (std::size_t i = 0; i + 1 < path.size(); ++i) {
    const int above = at ? at.get() : files_.get();
    // A file of that name may be there: a copy of something else.
    for (int number = 0;; ++number) {
      const std::string name = numbered(path[i], number);
      if (mkdirat(above, name.c_str(), 0700) != 0 && errno != EEXIST) {
        return system_error(errno, "make a directory for what is salvaged");
      }
      Result<Fd> dir = open_directory(above, name);
      if (dir) {
        at = *std::move(dir);
        break;
      }
      if (number == kMaxTries) return std::move(dir).error();
    }
  }
  if (at) return at;
  return open_directory(files_.get(), ".");
}

Status Salvage::note(const std::vector<std::string>& path, const std::string& name, std::string_view what) const {
  std::string line;
  for (std::size_t i = 0; i + 1 < path.size(); ++i) line += path[i] + "/";
  line = escaped(line + name) + ": " + std::string(what) + "\n";
  return write_all(list_.get(), as_bytes(line));
}

Result<bool> Salvage::file(const std::vector<std::string>& path, LowerFile& lower, const struct stat& st,
                           const Format& format, const std::function<Status()>& go_on) {
  ECFS_LET(const Fd dir, directory_of(path));
  Fd fd;
  std::string name;
  for (int number = 0; !fd; ++number) {
    name = numbered(path.back(), number);
    fd.reset(openat(dir.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd && (errno != EEXIST || number == kMaxTries)) return system_error(errno, "make a file for what is salvaged");
  }
  Result<Salvaged> salvaged = format.salvage_contents(lower, [&](std::uint64_t offset, ByteView plain) -> Status {
    ECFS_TRY(go_on());
    return write_at(fd.get(), offset, plain);
  });
  if (salvaged && salvaged->good_bytes == 0 && salvaged->plain_size != 0) {
    (void)unlinkat(dir.get(), name.c_str(), 0);
    ECFS_TRY(note(path, name, "nothing of it verifies"));
    return false;
  }
  Status done = salvaged ? Status() : Status(salvaged.error());
  if (done && ftruncate(fd.get(), static_cast<off_t>(salvaged->plain_size)) != 0) {
    done = system_error(errno, "set the size of what was salvaged");
  }
  if (!done) {
    (void)unlinkat(dir.get(), name.c_str(), 0);
    return std::move(done).error();
  }
  const std::array<timespec, 2> times = {st.st_atim, st.st_mtim};
  (void)fchmod(fd.get(), (st.st_mode & 0777) | S_IRUSR | S_IWUSR);
  (void)futimens(fd.get(), times.data());
  if (salvaged->lost.empty()) {
    ECFS_TRY(note(path, name, "whole"));
    return true;
  }
  std::string what = std::to_string(salvaged->lost.num_bytes()) + " of " + std::to_string(salvaged->plain_size) +
                     " bytes are lost and read as zeros:";
  for (const Ranges::Range& range : salvaged->lost.list()) {
    what += " " + std::to_string(range.begin) + "-" + std::to_string(range.end - 1);
  }
  if (!salvaged->lost.complete()) what += " and more behind";
  ECFS_TRY(note(path, name, what));
  return true;
}

Status Salvage::link(const std::vector<std::string>& path, const std::string& target) {
  ECFS_LET(const Fd dir, directory_of(path));
  for (int number = 0;; ++number) {
    const std::string name = numbered(path.back(), number);
    if (symlinkat(target.c_str(), dir.get(), name.c_str()) == 0) return note(path, name, "a link, whole");
    if (errno != EEXIST || number == kMaxTries) return system_error(errno, "make a link for what is salvaged");
  }
}

}  // namespace ecfs::fs
