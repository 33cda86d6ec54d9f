#include "setup/swap/device.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <libfdisk/libfdisk.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "wrap/base/file.h"
#include "wrap/base/owned.h"
#include "wrap/base/secret.h"

namespace ecfs::swap {
namespace {

constexpr std::size_t kKeyBytes = 64;         // of XTS with 256 bits
constexpr std::size_t kClearedBytes = 65536;  // of a mapping, in which other signatures could be
constexpr std::size_t kWriteBytes = 1U << 20;
constexpr int kTries = 5;

using Probe = Owned<blkid_struct_probe, blkid_free_probe>;
using Fdisk = Owned<fdisk_context, fdisk_unref_context>;
struct FreeCrypt {
  void operator()(crypt_device* device) const noexcept { crypt_free(device); }
};
using Crypt = std::unique_ptr<crypt_device, FreeCrypt>;

// What libcryptsetup said last: its own codes say little.
std::string& crypt_words() {
  static std::string words;
  return words;
}
void on_crypt_log(int level, const char* text, void* /*unused*/) {
  if (level != CRYPT_LOG_ERROR) return;
  crypt_words() = text;
  while (!crypt_words().empty() && crypt_words().back() == '\n') crypt_words().pop_back();
}
Error crypt_error(int code, const std::string& what) {
  Error error = system_error(-code, what);
  if (!crypt_words().empty()) error.what += " (" + crypt_words() + ")";
  return error;
}
void listen_to_crypt() {
  crypt_words().clear();
  crypt_set_log_callback(nullptr, on_crypt_log, nullptr);
}

Result<Probe> probe(int fd, const std::string& path) {
  Probe out(blkid_new_probe());
  if (!out || blkid_probe_set_device(out.get(), fd, 0, 0) != 0) return Error{Code::kIo, 0, "look at " + path};
  return out;
}

// What the kernel remembers of the device may be older than what went through a mapping.
void forget_cache(int fd) {
  (void)ioctl(fd, BLKFLSBUF, 0);
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

std::string value_of(blkid_probe pr, const char* name) {
  const char* value = nullptr;
  return blkid_probe_lookup_value(pr, name, &value, nullptr) == 0 && value != nullptr ? value : "";
}

void enable_signatures(blkid_probe pr) {
  blkid_probe_enable_superblocks(pr, 1);
  blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_BADCSUM);
  blkid_probe_enable_partitions(pr, 1);
  blkid_probe_set_partitions_flags(pr, BLKID_PARTS_MAGIC);
}

}  // namespace

std::string mapper_path(const std::string& name) { return "/dev/mapper/" + name; }

Result<Fd> open_device(const std::string& path, Use use) {
  const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (use == Use::kRead ? O_RDONLY : O_RDWR | O_EXCL);
  Fd fd(open(path.c_str(), flags));
  if (!fd) return system_error(errno, "open " + path);
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return system_error(errno, "stat " + path);
  if (!S_ISBLK(st.st_mode)) return Error{Code::kInvalid, 0, path + " is not a block device"};
  return fd;
}

Result<std::uint64_t> device_size(int fd, const std::string& path) {
  std::uint64_t size = 0;
  if (ioctl(fd, BLKGETSIZE64, &size) != 0) return system_error(errno, "ask for the size of " + path);
  return size;
}

std::string device_number(int fd) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return "";
  return std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev));
}

Result<Bytes> read_header(int fd, const std::string& path) {
  forget_cache(fd);
  Bytes page(static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
  const ssize_t n = pread(fd, page.data(), page.size(), 0);
  if (n < 0) return system_error(errno, "read the header of " + path);
  if (static_cast<std::size_t>(n) != page.size()) return Error{Code::kIo, 0, path + " has no header"};
  return page;
}

Status write_header(int fd, ByteView page, const std::string& path) {
  const ssize_t n = pwrite(fd, page.data(), page.size(), 0);
  if (n < 0 || static_cast<std::size_t>(n) != page.size()) return system_error(errno, "write the header of " + path);
  return sync_fd(fd, path);
}

Result<std::vector<std::string>> signatures(int fd, const std::string& path) {
  forget_cache(fd);
  ECFS_LET(const Probe pr, probe(fd, path));
  enable_signatures(pr.get());
  std::vector<std::string> out;
  int found = 0;
  while ((found = blkid_do_probe(pr.get())) == 0) {
    std::string name = value_of(pr.get(), "TYPE");
    if (name.empty()) name = value_of(pr.get(), "PTTYPE");
    if (!name.empty()) out.push_back(std::move(name));
  }
  if (found < 0) return system_error(errno, "look for signatures on " + path);
  return out;
}

Status wipe_signatures(int fd, const std::string& path) {
  ECFS_LET(const Probe pr, probe(fd, path));
  enable_signatures(pr.get());
  constexpr int kMost = 100;  // a device that does not keep what is written
  for (int i = 0; i < kMost; ++i) {
    const int found = blkid_do_probe(pr.get());
    if (found > 0) return sync_fd(fd, path);
    if (found < 0 || blkid_do_wipe(pr.get(), 0) != 0) break;
  }
  return Error{Code::kIo, 0, "wipe the signature of " + path};
}

Result<std::optional<Partition>> partition_of(int fd, const std::string& path) {
  ECFS_LET(const Probe pr, probe(fd, path));
  blkid_probe_enable_superblocks(pr.get(), 0);
  blkid_probe_enable_partitions(pr.get(), 1);
  blkid_probe_set_partitions_flags(pr.get(), BLKID_PARTS_ENTRY_DETAILS);
  if (blkid_do_safeprobe(pr.get()) < 0) return std::optional<Partition>();
  const auto number_of = [&](const char* name, auto value) {
    std::string text = value_of(pr.get(), name);
    int base = 10;
    if (text.starts_with("0x")) {
      text.erase(0, 2);
      base = 16;
    }
    (void)std::from_chars(text.data(), text.data() + text.size(), value, base);
    return value;
  };
  Partition out;
  out.uuid = value_of(pr.get(), "PART_ENTRY_UUID");
  if (out.uuid.empty()) return std::optional<Partition>();
  out.label = value_of(pr.get(), "PART_ENTRY_NAME");
  out.gpt = value_of(pr.get(), "PART_ENTRY_SCHEME") == "gpt";
  out.number = number_of("PART_ENTRY_NUMBER", 0U);
  out.disk = device_path(value_of(pr.get(), "PART_ENTRY_DISK"));
  if (out.gpt) {
    out.type = value_of(pr.get(), "PART_ENTRY_TYPE");
    out.attributes = number_of("PART_ENTRY_FLAGS", std::uint64_t{0});
  }
  return std::optional<Partition>(std::move(out));
}

Status set_no_auto(const std::string& disk, unsigned number, bool no_auto) {
  const std::string what = "the GPT attributes of partition " + std::to_string(number) + " of " + disk;
  const Fdisk context(fdisk_new_context());
  if (!context || number == 0) return Error{Code::kInvalid, 0, what};
  fdisk_disable_dialogs(context.get(), 1);
  if (const int fault = fdisk_assign_device(context.get(), disk.c_str(), 0); fault != 0) {
    return system_error(-fault, "open " + disk);
  }
  std::uint64_t attributes = 0;
  int fault = fdisk_is_label(context.get(), GPT) ? fdisk_gpt_get_partition_attrs(context.get(), number - 1, &attributes)
                                                 : -EINVAL;
  const std::uint64_t wanted = no_auto ? attributes | kGptNoAuto : attributes & ~kGptNoAuto;
  if (fault == 0 && wanted != attributes) {
    fault = fdisk_gpt_set_partition_attrs(context.get(), number - 1, wanted);
    if (fault == 0) fault = fdisk_write_disklabel(context.get());
  }
  // Syncs, and does not have the kernel read the table again: nothing that it looks at was changed.
  const int closed = fdisk_deassign_device(context.get(), 0);
  if (fault == 0) fault = closed;
  if (fault != 0) return system_error(-fault, what);
  return {};
}

std::string device_path(const std::string& number) {
  if (number.empty() || number.find('/') != std::string::npos) return "";
  const auto bytes = read_file(AT_FDCWD, "/sys/dev/block/" + number + "/uevent", kMaxTableBytes);
  if (!bytes) return "";
  for (const Line& entry : lines_of(as_text(*bytes))) {
    if (!entry.fields.empty() && entry.fields[0].starts_with("DEVNAME=")) return "/dev/" + entry.fields[0].substr(8);
  }
  return "";
}

Result<std::string> find_device(const std::string& stable) {
  const Error missing{Code::kNotFound, ENODEV, stable + " is not there"};
  if (!stable.starts_with("PARTUUID=")) {
    if (!this_machine().device_of(stable)) return missing;
    return stable;
  }
  // By a look at each partition: links of udev need not be there, and lists of libblkid can be old.
  const std::string wanted = stable.substr(9);
  ECFS_LET(const Fd all, open_directory(AT_FDCWD, "/sys/class/block"));
  ECFS_LET(const std::vector<std::string> names, list_directory(all.get(), 65536));
  std::vector<std::string> found;
  for (const std::string& name : names) {
    const std::string here = "/sys/class/block/" + name;
    if (read_line(here + "/partition").empty()) continue;
    const std::string path = device_path(read_line(here + "/dev"));
    const auto fd = open_device(path, Use::kRead);
    if (!fd) continue;
    const auto partition = partition_of(fd->get(), path);
    if (partition && *partition && (*partition)->uuid == wanted) found.push_back(path);
  }
  if (found.empty()) return missing;
  if (found.size() > 1) {
    return Error{Code::kBusy, 0,
                 stable + " is on several disks (" + found[0] + ", " + found[1] + "), which are copies"};
  }
  return found.front();
}

Result<bool> is_mapped(const std::string& name) {
  listen_to_crypt();
  const crypt_status_info status = crypt_status(nullptr, name.c_str());
  if (status == CRYPT_INACTIVE || status == CRYPT_INVALID) return false;
  const auto number = this_machine().device_of(mapper_path(name));
  if (number && read_line("/sys/dev/block/" + *number + "/dm/uuid") == "CRYPT-PLAIN-" + name) return true;
  return Error{Code::kBusy, EEXIST, mapper_path(name) + " is something else already"};
}

Status map_device(const std::string& path, const std::string& name, const std::string& cipher, unsigned sector_bytes) {
  listen_to_crypt();
  const std::size_t dash = cipher.find('-');
  if (dash == std::string::npos) return Error{Code::kInvalid, 0, "the cipher " + cipher};
  crypt_device* raw = nullptr;
  int code = crypt_init(&raw, path.c_str());
  const Crypt device(raw);
  if (code != 0) return crypt_error(code, "open " + path + " for dm-crypt");
  crypt_params_plain params{};
  params.sector_size = sector_bytes;
  code = crypt_format(device.get(), CRYPT_PLAIN, cipher.substr(0, dash).c_str(), cipher.substr(dash + 1).c_str(),
                      nullptr, nullptr, kKeyBytes, &params);
  if (code != 0) return crypt_error(code, "prepare dm-crypt for " + path);
  ECFS_LET(const Secret key, Secret::random(kKeyBytes));
  const ByteView bytes = key.reveal();
  const char* text = reinterpret_cast<const char*>(bytes.data());  // NOLINT: the library takes bytes so
  code = crypt_activate_by_volume_key(device.get(), name.c_str(), text, bytes.size(), 0);
  if (code < 0) return crypt_error(code, "map " + path + " to " + mapper_path(name));
  return {};
}

Status unmap_device(const std::string& name) {
  listen_to_crypt();
  const int code = crypt_deactivate(nullptr, name.c_str());
  if (code != 0) return crypt_error(code, "take " + mapper_path(name) + " away");
  return {};
}

namespace {

// look_again has udev look at a device that it saw when it was empty. It looks again by itself when somebody has
// written to a device that it watches, which it may not have begun to by now; and systemd waits for a dm-crypt device
// until udev has seen what is on it. Where there is no udev, or no sysfs, nobody waits.
void look_again(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0 || !S_ISBLK(st.st_mode)) return;
  const std::string event =
      "/sys/dev/block/" + std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev)) + "/uevent";
  const Fd fd(open(event.c_str(), O_WRONLY | O_CLOEXEC));
  constexpr std::string_view kChange = "change";
  if (fd) [[maybe_unused]]
    const ssize_t told = write(fd.get(), kChange.data(), kChange.size());
}

}  // namespace

Status make_swap(const std::string& path, const std::string& name, const std::string& cipher, unsigned sector_bytes) {
  const std::string mapped = mapper_path(name);
  for (int i = 0; i < kTries; ++i) {
    {
      ECFS_LET(const Fd fd, open_device(mapped, Use::kAlone));
      ECFS_LET(const std::uint64_t size, device_size(fd.get(), mapped));
      std::array<std::uint8_t, 16> uuid{};
      ECFS_TRY(fill_random(uuid));
      constexpr std::uint8_t kVersion4 = 0x40;
      constexpr std::uint8_t kVariant1 = 0x80;
      uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0f) | kVersion4);
      uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3f) | kVariant1);
      ECFS_LET(const Bytes page, make_header(static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), size, uuid, ""));
      // Under a new key all reads as something random, which may look like the start of some filesystem.
      Bytes start(std::min<std::uint64_t>(size, std::max(kClearedBytes, page.size())));
      std::copy(page.begin(), page.end(), start.begin());
      ECFS_TRY(write_header(fd.get(), start, mapped));
    }
    ECFS_LET(const Fd below, open_device(path, Use::kRead));
    ECFS_LET(const std::vector<std::string> seen, signatures(below.get(), path));
    if (seen.empty()) {
      look_again(mapped);
      return {};
    }
    ECFS_TRY(unmap_device(name));
    ECFS_TRY(map_device(path, name, cipher, sector_bytes));
  }
  return Error{Code::kIo, 0, path + " looks like a filesystem under each of several keys"};
}

Status overwrite(const std::string& name, const std::function<Status(std::uint64_t)>& advance) {
  const std::string mapped = mapper_path(name);
  ECFS_LET(const Fd fd, open_device(mapped, Use::kAlone));
  ECFS_LET(const std::uint64_t size, device_size(fd.get(), mapped));
  const Bytes zeros(kWriteBytes);
  std::uint64_t done = 0;
  std::uint64_t synced = 0;
  while (done < size) {
    const std::size_t len = static_cast<std::size_t>(std::min<std::uint64_t>(zeros.size(), size - done));
    const ssize_t n = pwrite(fd.get(), zeros.data(), len, static_cast<off_t>(done));
    if (n <= 0 && errno != EINTR) return system_error(n == 0 ? EIO : errno, "overwrite " + mapped);
    if (n <= 0) continue;
    done += static_cast<std::uint64_t>(n);
    // In steps, so that the progress is that of the disk, and memory is not filled with what waits to be written.
    if (done - synced >= 16 * kWriteBytes || done == size) {
      ECFS_TRY(sync_fd(fd.get(), mapped));
      synced = done;
    }
    ECFS_TRY(advance(static_cast<std::uint64_t>(n)));
  }
  return {};
}

Result<std::optional<ActiveSwap>> active_swap(const std::string& path) {
  const Places places = this_machine();
  const auto wanted = places.device_of(path);
  ECFS_LET(const std::vector<Area> all, areas(places));
  for (const Area& area : all) {
    if (wanted && area.device == *wanted) return std::optional<ActiveSwap>(area.swap);
  }
  return std::optional<ActiveSwap>();
}

Status swap_on(const std::string& path, int priority, bool discard) {
  int flags = discard ? SWAP_FLAG_DISCARD : 0;
  if (priority >= 0) flags |= SWAP_FLAG_PREFER | (priority & SWAP_FLAG_PRIO_MASK);
  if (swapon(path.c_str(), flags) != 0) return system_error(errno, "switch swap on " + path + " on");
  return {};
}

Status swap_off(const std::string& path) {
  if (swapoff(path.c_str()) != 0) return system_error(errno, "switch swap on " + path + " off");
  return {};
}

}  // namespace ecfs::swap
