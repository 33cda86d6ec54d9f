#include "wrap/mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "wrap/base/file.h"
#include "wrap/base/log.h"
#include "wrap/base/owned.h"
#include "wrap/crypto.h"
#include "wrap/volume_header.h"

namespace ecfs::wrap {
namespace {

constexpr std::uint32_t kMaxPathBytes = 4096;
constexpr std::uint32_t kMaxOptionBytes = 4096;
constexpr std::uint64_t kMaxProcFileBytes = 4U << 20;
constexpr std::string_view kIdleOption = "idle=";

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// What mount(8), fstab and mount.fuse pass along and which has no meaning for us: either the default or for others.
bool means_nothing(std::string_view item) {
  static constexpr auto kIgnored = std::to_array<std::string_view>(
      {"",       "rw",      "atime", "relatime", "norelatime", "nodiratime", "strictatime", "lazytime",
       "nosuid", "nodev",   "async", "auto",     "noauto",     "defaults",   "user",        "nouser",
       "users",  "nousers", "owner", "group",    "nofail",     "_netdev",    "silent",      "loud"});
  return std::find(kIgnored.begin(), kIgnored.end(), item) != kIgnored.end() || item.starts_with("x-") ||
         item.starts_with("X-") || item.starts_with("comment=");
}

Status send_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, "hand the request to ecfs-mountd");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status send_field(int fd, ByteView field) {
  std::array<std::uint8_t, 4> len{};
  store_le<std::uint32_t>(len.data(), static_cast<std::uint32_t>(field.size()));
  ECFS_TRY(send_all(fd, len));
  return send_all(fd, field);
}

Result<std::uint32_t> receive_length(int fd, std::uint32_t most) {
  std::array<std::uint8_t, 4> bytes{};
  ECFS_LET(const std::size_t got, read_full(fd, bytes));
  const auto len = load_le<std::uint32_t>(bytes.data());
  if (got != bytes.size() || len > most) return Error{Code::kCorrupt, 0, "a malformed mount request"};
  return len;
}

Result<Bytes> receive_bytes(int fd, std::uint32_t most) {
  ECFS_LET(const std::uint32_t len, receive_length(fd, most));
  Bytes bytes(len);
  ECFS_LET(const std::size_t got, read_full(fd, bytes));
  if (got != len) return Error{Code::kCorrupt, 0, "a mount request that is cut short"};
  return bytes;
}

Result<std::string> receive_text(int fd, std::uint32_t most) {
  ECFS_LET(const Bytes bytes, receive_bytes(fd, most));
  return std::string(as_text(bytes));
}

std::int64_t now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
}

// Reads until a newline, the end, `most` bytes or the deadline.
Result<std::string> read_line(int fd, std::size_t most, int timeout_ms) {
  const std::int64_t end = now_ms() + timeout_ms;
  std::string line;
  while (line.size() < most) {
    pollfd p{fd, POLLIN, 0};
    const auto left = static_cast<int>(std::max<std::int64_t>(0, end - now_ms()));
    const int ready = poll(&p, 1, left);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return system_error(errno, "wait for ecfs-mountd");
    if (ready == 0) return Error{Code::kUnavailable, ETIMEDOUT, "ecfs-mountd did not answer in time"};
    char c = 0;
    const ssize_t n = read(fd, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || c == '\n') break;
    line.push_back(c);
  }
  return line;
}

template <class T>
bool parse_number(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

// Minutes, or a number with its unit.
Result<std::uint32_t> parse_idle(std::string_view text) {
  std::uint64_t seconds_each = 60;
  std::string_view digits = text;
  if (!digits.empty() && (digits.back() == 's' || digits.back() == 'm' || digits.back() == 'h')) {
    seconds_each = digits.back() == 's' ? 1 : digits.back() == 'm' ? 60 : 3600;
    digits.remove_suffix(1);
  }
  std::uint32_t number = 0;
  if (!parse_number(digits, number) || number == 0 || number * seconds_each > kMaxIdleSeconds) {
    return Error{Code::kInvalid, 0,
                 "mount option 'idle=" + printable(text) + "': give a number of minutes, or one with s, m or h"};
  }
  return static_cast<std::uint32_t>(number * seconds_each);
}

// "ok", or "<code> <errno> <text>".
Status read_ready(int fd, int timeout_ms) {
  ECFS_LET(const std::string line, read_line(fd, 4096, timeout_ms));
  if (line == "ok") return {};
  const std::size_t first = line.find(' ');
  const std::size_t second = first == std::string::npos ? first : line.find(' ', first + 1);
  int code = 0;
  int err = 0;
  if (second == std::string::npos || !parse_number(std::string_view(line).substr(0, first), code) ||
      !parse_number(std::string_view(line).substr(first + 1, second - first - 1), err) || code < 0 ||
      code > static_cast<int>(Code::kIo)) {
    return Error{Code::kIo, 0,
                 line.empty() ? "ecfs-mountd ended before the mount was there (see the system log)" : line};
  }
  return Error{static_cast<Code>(code), err, line.substr(second + 1)};
}

// mountinfo and mounts write space, tab, newline and backslash as three octal digits.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// Files of /proc have no size: read until the end.
Result<std::string> read_proc_file(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return system_error(errno, "open " + path);
  std::string text;
  std::array<std::uint8_t, 65536> chunk{};
  while (text.size() < kMaxProcFileBytes) {
    ECFS_LET(const std::size_t got, read_full(fd.get(), chunk));
    if (got == 0) break;
    text += as_text(ByteView(chunk).first(got));
  }
  return text;
}

std::string read_link(const std::string& path) {
  std::array<char, kMaxPathBytes> target{};
  const ssize_t n = readlink(path.c_str(), target.data(), target.size());
  return n > 0 ? std::string(target.data(), static_cast<std::size_t>(n)) : std::string();
}

bool is_below(const std::string& path, const std::string& directory) {
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

// By the text of the links, not by stat: a server that hangs must not hang those who look at it.
bool process_uses(const std::string& proc, const std::string& mountpoint) {
  for (const char* link : {"/cwd", "/root", "/exe"}) {
    if (is_below(read_link(proc + link), mountpoint)) return true;
  }
  const Owned<DIR, closedir> fds(opendir((proc + "/fd").c_str()));
  while (fds) {
    const dirent* entry = readdir(fds.get());
    if (entry == nullptr) break;
    if (entry->d_name[0] != '.' && is_below(read_link(proc + "/fd/" + entry->d_name), mountpoint)) return true;
  }
  auto maps = read_proc_file(proc + "/maps");
  if (!maps) return false;
  for (const std::string_view line : split(*maps, '\n')) {
    const std::size_t path = line.find('/');
    if (path != std::string_view::npos && is_below(unescape(line.substr(path)), mountpoint)) return true;
  }
  return false;
}

}  // namespace

Result<MountOptions> parse_mount_options(const std::vector<std::string>& items) {
  MountOptions options;
  for (const std::string& list : items) {
    for (const std::string_view item : split(list, ',')) {
      if (item == "ro") {
        options.read_only = true;
      } else if (item == "noatime") {
        options.no_atime = true;
      } else if (item == "noexec") {
        options.no_exec = true;
      } else if (item == "exec") {
        options.no_exec = false;
      } else if (item == "allow_other") {
        options.allow_other = true;
      } else if (item == "show-conflicts") {
        options.show_conflicts = true;
      } else if (item == "shared") {
        options.shared = true;
      } else if (item == "unsealed=report") {
        options.unsealed_report = true;
      } else if (item == "suspend") {
        options.suspend = true;
      } else if (item == "hibernate") {
        options.hibernate = true;
      } else if (item.starts_with(kIdleOption)) {
        ECFS_LET(options.idle_s, parse_idle(item.substr(kIdleOption.size())));
      } else if (!means_nothing(item)) {
        ECFS_LET(const bool taken, take_ecryptfs_option(item, options.ecryptfs));
        if (taken) continue;
        return Error{Code::kInvalid, 0, "unknown mount option '" + printable(item) + "'"};
      }
    }
  }
  return options;
}

std::string build_mount_options(const MountOptions& options) {
  std::string text;
  const auto add = [&](bool wanted, const std::string& name) {
    if (wanted) text += (text.empty() ? "" : ",") + name;
  };
  add(options.read_only, "ro");
  add(options.no_atime, "noatime");
  add(options.no_exec, "noexec");
  add(options.allow_other, "allow_other");
  add(options.show_conflicts, "show-conflicts");
  add(options.shared, "shared");
  add(options.unsealed_report, "unsealed=report");
  add(options.suspend, "suspend");
  add(options.hibernate, "hibernate");
  add(options.idle_s > 0, std::string(kIdleOption) + std::to_string(options.idle_s) + "s");
  if (options.ecryptfs) add(true, build_ecryptfs_options(*options.ecryptfs));
  return text;
}

Status send_mount_request(int fd, const MountRequest& request) {
  ECFS_TRY(send_field(fd, as_bytes(build_mount_options(request.options))));
  ECFS_TRY(send_field(fd, as_bytes(request.lower_path)));
  ECFS_TRY(send_field(fd, as_bytes(request.mountpoint)));
  ECFS_TRY(send_field(fd, request.volume_file));
  return send_field(fd, request.key.reveal());
}

Result<MountRequest> receive_mount_request(int fd) {
  MountRequest request;
  ECFS_LET(const std::string options, receive_text(fd, kMaxOptionBytes));
  ECFS_LET(request.options, parse_mount_options({options}));
  ECFS_LET(request.lower_path, receive_text(fd, kMaxPathBytes));
  ECFS_LET(request.mountpoint, receive_text(fd, kMaxPathBytes));
  ECFS_LET(request.volume_file, receive_bytes(fd, static_cast<std::uint32_t>(kMaxVolumeFileBytes)));
  ECFS_LET(const std::uint32_t key_len, receive_length(fd, kMaxMountKeyBytes));
  ECFS_LET(request.key, Secret::of_size(key_len));
  ECFS_LET(const std::size_t got, read_full(fd, request.key.reveal_mutable()));
  if (got != key_len) return Error{Code::kCorrupt, 0, "a mount request that is cut short"};
  return request;
}

bool await_mount_request(int fd) {
  char first = 0;
  ssize_t n = 0;
  do {
    n = recv(fd, &first, 1, MSG_PEEK);
  } while (n < 0 && errno == EINTR);
  return n != 0;
}

std::string helper_path(const std::string& name) {
  if (const char* dir = secure_getenv("ECFS_LIBEXEC"); dir != nullptr && dir[0] == '/')
    return std::string(dir) + "/" + name;
  return std::string(ECFS_LIBEXEC_DIR) + "/" + name;
}

std::vector<std::string> helper_environment() {
  std::vector<std::string> env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  for (const char* name : {"ECFS_DEBUG"
#ifdef ECFS_SANITIZED
                           ,
                           "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"
#endif
       }) {
    if (const char* value = secure_getenv(name); value != nullptr) env.push_back(std::string(name) + "=" + value);
  }
  return env;
}

Result<VolumeId> ecryptfs_mount_id(int lower_dir) {
  struct stat st {};
  if (fstat(lower_dir, &st) != 0) return system_error(errno, "look at a lower directory");
  const std::string text = "ecryptfs " + std::to_string(st.st_dev) + " " + std::to_string(st.st_ino);
  ECFS_LET(const auto digest, sha256({as_bytes(text)}));
  VolumeId id{};
  std::copy_n(digest.begin(), id.size(), id.begin());
  return id;
}

Result<WaitingMountd> prepare_mountd(const MountdStart& start) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return system_error(errno, "make a socket pair");
  Fd ours(ends[0]);
  Fd theirs(ends[1]);
  ECFS_LET(Pipe ready, make_pipe());

  SpawnOptions options;
  options.argv = {start.program.empty() ? helper_path("ecfs-mountd") : start.program};
  options.env = helper_environment();
  options.fds = {
      {theirs.get(), kMountdRequestFd}, {start.lower_dir, kMountdLowerFd}, {ready.write_end.get(), kMountdReadyFd}};
  if (start.fuse_fd >= 0) options.fds.emplace_back(start.fuse_fd, kMountdFuseFd);
  const EcryptfsOptions* const ecryptfs =
      start.request != nullptr && start.request->options.ecryptfs ? &*start.request->options.ecryptfs : nullptr;
  if (ecryptfs != nullptr && ecryptfs->unlink_keys) {
    // For the supervisor, which reads no request. A signature is no secret.
    std::vector<EcryptfsSignature> signatures = ecryptfs->signatures;
    if (ecryptfs->name_signature) signatures.push_back(*ecryptfs->name_signature);
    for (const EcryptfsSignature& signature : signatures) options.argv.push_back("--unlink=" + to_hex(signature));
  }
  if (start.foreground) {
    options.argv.emplace_back("--foreground");
    options.fds.emplace_back(STDOUT_FILENO, STDOUT_FILENO);
    options.fds.emplace_back(STDERR_FILENO, STDERR_FILENO);
  }
  options.run_as = start.run_as;
  options.new_session = !start.foreground;
  ECFS_LET(const Child child, spawn(options));
  return WaitingMountd{child, std::move(ours), std::move(ready.read_end)};
}

Result<Child> mount_with(WaitingMountd mountd, const MountRequest& request, int timeout_ms) {
  Status done = send_mount_request(mountd.request.get(), request);
  mountd.request.reset();
  // A program that gave up before it read everything says why on the other pipe: that is the better error.
  if (Status answer = read_ready(mountd.ready.get(), timeout_ms); !answer) done = std::move(answer);
  if (!done) {
    kill(mountd.child.pid(), SIGTERM);
    (void)mountd.child.wait(2000);
    return std::move(done).error();
  }
  return mountd.child;
}

Result<Child> start_mountd(const MountdStart& start) {
  ECFS_LET(WaitingMountd mountd, prepare_mountd(start));
  return mount_with(std::move(mountd), *start.request, start.timeout_ms);
}

Result<std::vector<MountEntry>> mounts() {
  ECFS_LET(const std::string text, read_proc_file("/proc/self/mountinfo"));
  std::vector<MountEntry> entries;
  for (const std::string_view line : split(text, '\n')) {
    // proc(5): id parent major:minor root mountpoint options optional... - fstype source super-options
    const auto fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), std::string_view("-"));
    if (fields.size() < 7 || fields.end() - dash < 4) continue;
    MountEntry entry;
    const auto device = split(fields[2], ':');
    if (device.size() != 2 || !parse_number(device[0], entry.device_major) ||
        !parse_number(device[1], entry.device_minor))
      continue;
    entry.mountpoint = unescape(fields[4]);
    entry.fstype = unescape(dash[1]);
    entry.source = unescape(dash[2]);
    entry.options = std::string(fields[5]) + "," + std::string(dash[3]);
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<std::optional<MountEntry>> mount_at(const std::string& path) {
  ECFS_LET(std::vector<MountEntry> entries, mounts());
  std::optional<MountEntry> found;
  for (MountEntry& entry : entries) {
    if (entry.mountpoint == path) found = std::move(entry);
  }
  return found;
}

std::optional<uid_t> owner_of(const MountEntry& mount) {
  constexpr std::string_view kName = ",user_id=";
  const std::string options = "," + mount.options + ",";
  const std::size_t at = options.find(kName);
  if (at == std::string::npos) return {};
  uid_t uid = 0;
  const char* const begin = options.data() + at + kName.size();
  const auto [end, error] = std::from_chars(begin, options.data() + options.size(), uid);
  if (error != std::errc{} || *end != ',') return {};
  return uid;
}

Result<std::optional<MountEntry>> ecfs_mount_at(const std::string& path) {
  ECFS_LET(std::optional<MountEntry> entry, mount_at(path));
  if (entry && entry->fstype != "fuse.ecfs") entry.reset();
  return entry;
}

bool is_dead(const std::string& mountpoint) {
  // Not stat: the kernel answers that from its cache after the server has gone.
  struct statvfs fs {};
  if (statvfs(mountpoint.c_str(), &fs) == 0) return false;
  // ECANCELED: on its way over io_uring to a thread that ends.
  return errno == ENOTCONN || errno == ECONNABORTED || errno == ECANCELED;
}

Status unmount(const std::string& mountpoint, bool lazy) {
  if (geteuid() == 0) {
    if (umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) != 0) {
      return system_error(errno, "unmount " + printable(mountpoint));
    }
    return {};
  }
  ECFS_LET(Pipe messages, make_pipe());
  SpawnOptions options;
  options.argv = {"/usr/bin/fusermount3", "-u"};
  if (lazy) options.argv.emplace_back("-z");
  options.argv.emplace_back("--");
  options.argv.push_back(mountpoint);
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  options.fds = {{messages.write_end.get(), STDERR_FILENO}};
  ECFS_LET(Child child, spawn(options));
  messages.write_end.reset();
  Bytes said(4096);
  ECFS_LET(const std::size_t len, read_full(messages.read_end.get(), said));
  ECFS_LET(const int status, child.wait());
  if (status == 0) return {};
  std::string text(as_text(ByteView(said).first(len)));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const bool busy = text.find("busy") != std::string::npos;
  return Error{busy ? Code::kBusy : Code::kIo, busy ? EBUSY : 0,
               text.empty() ? "fusermount3 could not unmount " + printable(mountpoint) : printable(text)};
}

std::vector<Holder> holders_of(const MountEntry& mount) {
  std::vector<Holder> holders;
  const Owned<DIR, closedir> proc(opendir("/proc"));
  while (proc) {
    const dirent* entry = readdir(proc.get());
    if (entry == nullptr) break;
    pid_t pid = 0;
    if (!parse_number(std::string_view(entry->d_name), pid)) continue;
    const std::string dir = std::string("/proc/") + entry->d_name;
    if (!process_uses(dir, mount.mountpoint)) continue;
    std::string name = read_proc_file(dir + "/comm").value_or("?");
    while (!name.empty() && name.back() == '\n') name.pop_back();
    holders.push_back({pid, printable(name)});
  }
  return holders;
}

}  // namespace ecfs::wrap
