#include "setup/signature_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "wrap/base/bytes.h"
#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

constexpr const char* kDirectory = ".ecryptfs";  // in an encrypted home a link of its owner's
constexpr const char* kFile = "sig-cache.txt";
constexpr std::uint64_t kMaxCacheBytes = 1U << 20;

Result<Fd> open_own_directory(const Identity& who) {
  const std::string path = who.home + "/" + kDirectory;
  Fd dir(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return system_error(errno, path);
  struct stat st {};
  if (fstat(dir.get(), &st) != 0) return system_error(errno, path);
  if (st.st_uid != who.uid) return Error{Code::kDenied, EPERM, path + " belongs to another user"};
  return dir;
}

}  // namespace

bool signature_is_cached(const Identity& who, const wrap::EcryptfsSignature& signature) {
  const auto dir = open_own_directory(who);
  if (!dir) return false;
  const auto bytes = read_file(dir->get(), kFile, kMaxCacheBytes, who.uid);
  if (!bytes) return false;
  const std::string_view text = as_text(*bytes);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const auto cached = wrap::parse_ecryptfs_signature(text.substr(at, end - at));
    if (cached && *cached == signature) return true;
    at = end + 1;
  }
  return false;
}

Status cache_signature(const Identity& who, const wrap::EcryptfsSignature& signature) {
  const std::string path = who.home + "/" + kDirectory;
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return system_error(errno, "make " + path);
  ECFS_LET(const Fd dir, open_own_directory(who));
  const Fd file(openat(dir.get(), kFile, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!file) return system_error(errno, "open " + path + "/" + kFile);
  struct stat st {};
  if (fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != who.uid) {
    return Error{Code::kDenied, EPERM, path + "/" + kFile + " is no file of yours"};
  }
  // A last line without its end would swallow ours.
  char last = '\n';
  if (st.st_size > 0 && pread(file.get(), &last, 1, st.st_size - 1) != 1) return system_error(errno, path);
  ECFS_TRY(write_all(file.get(), as_bytes((last == '\n' ? "" : "\n") + to_hex(signature) + "\n")));
  return sync_fd(file.get(), path);
}

}  // namespace ecfs::setup
