#include "setup/swap/work.h"

#include <fcntl.h>
#include <libmount/libmount.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <functional>

#include "setup/swap/device.h"
#include "setup/swap/points.h"
#include "setup/swap/survey.h"
#include "setup/ui.h"
#include "wrap/base/file.h"
#include "wrap/base/owned.h"
#include "wrap/base/process.h"

namespace ecfs::swap {
namespace {

using setup::check_signals;
using setup::note;
using setup::warn;

constexpr mode_t kTableMode = 0644;
constexpr const char* kUnit = ECFS_UNIT_DIR "/ecfs-swap@.service";
constexpr const char* kUnits = "/etc/systemd/system";
constexpr const char* kWants = "swap.target.wants";

bool exists(const char* path) { return access(path, F_OK) == 0; }

// A table of /etc that is changed and put back.
struct Place {
  Table table;
  std::string directory;
  std::string file;
  [[nodiscard]] std::string path() const { return directory + "/" + file; }
};
Place fstab_place() { return {Table::kFstab, "/etc", kFstab}; }
Place crypttab_place() { return {Table::kCrypttab, "/etc", kCrypttab}; }
Place resume_place() { return {Table::kResume, kResumeDirectory, kResumeFile}; }

Result<Original> remember(const Place& place) {
  const auto dir = open_directory(AT_FDCWD, place.directory);
  if (!dir && dir.error().code == Code::kNotFound) return Original{};
  if (!dir) return with_context(dir.error(), place.directory);
  auto bytes = read_file(dir->get(), place.file, kMaxTableBytes, 0);
  if (!bytes && bytes.error().code == Code::kNotFound) return Original{};
  if (!bytes) return with_context(std::move(bytes).error(), place.path());
  return Original{true, *std::move(bytes)};
}

Status write_table(const Place& place, std::string_view text) {
  auto written = [&]() -> Status {
    ECFS_LET(const Fd dir, open_directory(AT_FDCWD, place.directory));
    struct stat st {};
    const bool there = fstatat(dir.get(), place.file.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
    return replace_file(dir.get(), place.file, as_bytes(text), there ? st.st_mode & 0777 : kTableMode);
  }();
  if (!written) return with_context(std::move(written).error(), place.path());
  return {};
}

// change_table writes what `change` makes of the text that stands there now.
Status change_table(const Place& place, const std::function<std::string(std::string_view)>& change) {
  ECFS_LET(const std::string text, read_table(place.directory, place.file));
  const std::string fresh = change(text);
  if (fresh == text) return {};
  if (fresh.size() > kMaxTableBytes) return Error{Code::kInvalid, 0, place.path() + " is too long"};
  return write_table(place, fresh);
}

// restore_table puts the original back, byte for byte, if what stands there is one of `ours`; what somebody else has
// changed since stays, and only our marks go.
Status restore_table(const Place& place, const Original& original, const std::string& name,
                     const std::vector<std::string>& ours) {
  ECFS_LET(const Original now, remember(place));
  if (!now.existed) return {};
  const std::string text(as_text(now.bytes));
  if (std::find(ours.begin(), ours.end(), text) == ours.end()) {
    const std::string without = without_marks(text, place.table, name);
    return without == text ? Status() : write_table(place, without);
  }
  if (original.existed) return text == as_text(original.bytes) ? Status() : write_table(place, as_text(original.bytes));
  ECFS_LET(const Fd dir, open_directory(AT_FDCWD, place.directory));
  if (unlinkat(dir.get(), place.file.c_str(), 0) != 0) return system_error(errno, "remove " + place.path());
  return sync_directory(dir.get());
}

Means means_of(const Journal& j) {
  return [&j](const std::string& spec) { return std::find(j.names.begin(), j.names.end(), spec) != j.names.end(); };
}

std::string guarded(const Journal& j, std::string_view text) { return guard_fstab(text, j.name, means_of(j)); }
std::string replaced(const Journal& j, std::string_view text) {
  return replace_fstab(text, j.name, means_of(j), j.priority);
}
std::string with_mapping(const Journal& j, std::string_view text) {
  return add_crypttab(text, j.name, crypttab_line(j.name, j.stable, j.cipher, j.sector_bytes));
}
std::string without_resume(const Journal& j, std::string_view text) { return end_resume(text, j.name); }

// Whether mount(8), swapon(8) and systemd, which all read it by libmount, find in a fstab what was meant.
Status check_fstab(const std::string& text, const std::string& name) {
  const Error wrong{Code::kCorrupt, 0, "libmount does not find " + mapper_path(name) + " in the new /etc/fstab"};
  std::string copy = text;
  const Owned<FILE, fclose> stream(fmemopen(copy.data(), copy.size(), "r"));
  const Owned<libmnt_table, mnt_unref_table> table(mnt_new_table());
  if (!stream || !table || mnt_table_parse_stream(table.get(), stream.get(), "/etc/fstab") != 0) return wrong;
  libmnt_fs* fs = mnt_table_find_srcpath(table.get(), mapper_path(name).c_str(), MNT_ITER_FORWARD);
  if (fs == nullptr || mnt_fs_is_swaparea(fs) == 0 || mnt_fs_get_option(fs, "nofail", nullptr, nullptr) != 0) {
    return wrong;
  }
  return {};
}

Status run_program(const std::vector<std::string>& argv, int timeout_ms) {
  SpawnOptions options;
  options.argv = argv;
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"};
  options.fds = {{STDERR_FILENO, STDERR_FILENO}};
  ECFS_LET(Child child, spawn(options));
  ECFS_LET(const int status, child.wait(timeout_ms));
  if (status != 0) return Error{Code::kIo, 0, argv[0] + " ended with " + std::to_string(status)};
  return {};
}

Status update_initramfs() {
  constexpr const char* kProgram = "/usr/sbin/update-initramfs";
  if (!exists(kProgram)) return {};
  note("making the initramfs anew, which may take a minute");
  constexpr int kTenMinutesMs = 600000;
  return run_program({kProgram, "-u"}, kTenMinutesMs);
}

void reload_units() {
  constexpr const char* kProgram = "/usr/bin/systemctl";
  if (!exists("/run/systemd/system") || !exists(kProgram)) return;
  constexpr int kMinuteMs = 60000;
  if (const auto done = run_program({kProgram, "daemon-reload"}, kMinuteMs); !done) warn(done.error().what);
}

Status enable_unit(const std::string& name, bool enable) {
  ECFS_LET(const Fd units, open_directory(AT_FDCWD, kUnits));
  const std::string link = "ecfs-swap@" + name + ".service";
  if (!enable) {
    auto wants = open_directory(units.get(), kWants);
    if (!wants) return wants.error().code == Code::kNotFound ? Status() : std::move(wants).error();
    if (unlinkat(wants->get(), link.c_str(), 0) != 0 && errno != ENOENT) return system_error(errno, "remove " + link);
    return sync_directory(wants->get());
  }
  constexpr mode_t kDirectoryMode = 0755;
  ECFS_LET(const Fd wants, make_directory(units.get(), kWants, kDirectoryMode));
  if (symlinkat(kUnit, wants.get(), link.c_str()) != 0 && errno != EEXIST) return system_error(errno, "make " + link);
  ECFS_TRY(sync_directory(units.get()));
  return sync_directory(wants.get());
}

// There has to be memory for what is in use there.
Status check_memory(const ActiveSwap& swap) {
  ECFS_LET(const Survey now, survey());
  if (swap.used_bytes + spare_bytes(now.machine) <= now.machine.available_bytes) return {};
  return Error{Code::kBusy, ENOMEM,
               "not enough memory to switch " + swap.path + " off: " + size_text(swap.used_bytes) +
                   " of it are in use, " + size_text(now.machine.available_bytes) + " of memory are available"};
}

// Steps in order, each in the journal before it is done; after one that failed the others are left out.
class Steps {
 public:
  enum class Signals { kEnd, kWait };

  // kWait: signals wait until the last step is over. swapoff(2), for one, would end early.
  Steps(int dir, Journal& journal, Signals signals) : dir_(dir), journal_(journal), signals_(signals) {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&ending, number);
    if (signals == Signals::kWait) sigprocmask(SIG_BLOCK, &ending, &before_);
  }
  Steps(const Steps&) = delete;
  Steps& operator=(const Steps&) = delete;
  ~Steps() {
    if (signals_ == Signals::kWait) sigprocmask(SIG_SETMASK, &before_, nullptr);
  }

  void operator()(const std::string& name, const std::function<Status()>& work) {
    if (outcome_) outcome_ = one(name, work);
  }
  [[nodiscard]] Status outcome() const { return outcome_; }

 private:
  Status one(const std::string& name, const std::function<Status()>& work) {
    if (signals_ == Signals::kEnd) ECFS_TRY(check_signals());
    journal_.step = name;
    ECFS_TRY(save(dir_, journal_));
    reached(std::string(phase_name(journal_.phase)) + " " + name + " begun");
    ECFS_TRY(work());
    reached(std::string(phase_name(journal_.phase)) + " " + name + " done");
    return {};
  }

  int dir_;
  Journal& journal_;
  Signals signals_;
  sigset_t before_{};
  Status outcome_;
};

// On the disk where the partition is now.
Status set_attribute(const Journal& j, bool no_auto) {
  ECFS_LET(const std::string path, find_device(j.stable));
  ECFS_LET(const Fd device, open_device(path, Use::kRead));
  ECFS_LET(const auto partition, partition_of(device.get(), path));
  if (!partition || !partition->gpt) return Error{Code::kInvalid, 0, path + " is no partition of a GPT any more"};
  return set_no_auto(partition->disk, partition->number, no_auto);
}

Status check_result(const Journal& j) {
  const std::string mapped = mapper_path(j.name);
  ECFS_LET(const auto on, active_swap(mapped));
  if (!on) return Error{Code::kIo, 0, mapped + " is not on"};
  if (j.priority >= 0 && on->priority != j.priority) return Error{Code::kIo, 0, mapped + " has another priority"};
  const auto number = this_machine().device_of(mapped);
  if (!number || !encrypted_below(this_machine(), *number)) return Error{Code::kIo, 0, mapped + " is not encrypted"};
  ECFS_LET(const std::string path, find_device(j.stable));
  ECFS_LET(const Fd below, open_device(path, Use::kRead));
  ECFS_LET(const Bytes page, read_header(below.get(), path));
  if (parse_header(page)) return Error{Code::kIo, 0, path + " still has a swap header"};
  return {};
}

Status forward(int dir, Journal& j) {
  Steps step(dir, j, Steps::Signals::kWait);
  step("crypttab", [&] { return change_table(crypttab_place(), [&](auto text) { return with_mapping(j, text); }); });
  step("fstab", [&]() -> Status {
    ECFS_LET(const std::string text, read_table("/etc", kFstab));
    ECFS_TRY(check_fstab(replaced(j, text), j.name));
    return change_table(fstab_place(), [&](auto now) { return replaced(j, now); });
  });
  step("gpt", [&] { return j.no_auto ? set_attribute(j, true) : Status(); });
  step("resume", [&]() -> Status {
    if (!j.resume) return {};
    ECFS_TRY(change_table(resume_place(), [&](auto text) { return without_resume(j, text); }));
    return update_initramfs();
  });
  step("unit", [&] { return j.unit ? enable_unit(j.name, true) : Status(); });
  step("reload", [&]() -> Status {
    reload_units();
    return {};
  });
  ECFS_TRY(step.outcome());
  j.phase = Phase::kEncrypted;
  step("end", [] { return Status(); });
  return step.outcome();
}

Status encrypt_steps(int dir, Journal& j) {
  Steps step(dir, j, Steps::Signals::kEnd);
  const std::string mapped = mapper_path(j.name);
  step("begin", [] { return Status(); });
  step("guard", [&] { return change_table(fstab_place(), [&](auto text) { return guarded(j, text); }); });
  step("swapoff", [&]() -> Status {
    ECFS_LET(const auto swap, active_swap(j.path));
    if (swap) ECFS_TRY(check_memory(*swap));
    return swap_off(j.path);
  });
  step("signature", [&]() -> Status {
    ECFS_LET(const Fd device, open_device(j.path, Use::kAlone));
    return wipe_signatures(device.get(), j.path);
  });
  step("map", [&] { return map_device(j.path, j.name, j.cipher, j.sector_bytes); });
  if (j.wipe) {
    step("overwrite", [&]() -> Status {
      setup::Progress progress("Overwriting " + j.path, j.size_bytes);
      return overwrite(j.name, [&](std::uint64_t bytes) {
        progress.advance(bytes);
        return check_signals();
      });
    });
  }
  step("header", [&] { return make_swap(j.path, j.name, j.cipher, j.sector_bytes); });
  step("swapon", [&] { return swap_on(mapped, j.priority, false); });
  step("check", [&] { return check_result(j); });
  ECFS_TRY(step.outcome());
  return forward(dir, j);
}

Result<Journal> journal_of(const Plan& plan, const std::string& cipher, bool wipe, Boot boot) {
  const Facts& facts = plan.facts;
  Journal j;
  j.name = plan.name;
  j.path = facts.path;
  j.stable = facts.stable;
  j.names = facts.names;
  j.size_bytes = facts.size_bytes;
  j.priority = facts.area.swap.priority;
  j.cipher = cipher;
  j.sector_bytes = plan.sector_bytes;
  j.wipe = wipe;
  j.unit = boot == Boot::kUnit;
  j.resume = plan.end_resume;
  if (facts.partition && facts.partition->gpt && facts.partition->type == kGptSwapType) {
    j.no_auto = (facts.partition->attributes & kGptNoAuto) == 0;
  }
  ECFS_LET(j.fstab, remember(fstab_place()));
  ECFS_LET(j.crypttab, remember(crypttab_place()));
  ECFS_LET(j.resume_file, remember(resume_place()));
  for (const FstabSwap& swap : fstab_swaps(as_text(j.fstab.bytes))) {
    if (means_of(j)(swap.spec) && swap.has("discard")) j.discard = true;
  }
  ECFS_LET(const Fd device, open_device(j.path, Use::kRead));
  if (device_number(device.get()) != facts.area.device) {
    return Error{Code::kBusy, 0, j.path + " is another device than a moment ago"};
  }
  // The next boots will go by this name alone.
  ECFS_LET(const std::string found, find_device(j.stable));
  if (this_machine().device_of(found) != facts.area.device) {
    return Error{Code::kBusy, 0, j.stable + " is " + found + ", not " + j.path};
  }
  ECFS_LET(j.header, read_header(device.get(), j.path));
  ECFS_TRY(parse_header(j.header));
  return j;
}

// Whether the header may be put back: not over something that was made there since.
Status check_place(const Journal& j, const std::string& path) {
  ECFS_LET(const Fd device, open_device(path, Use::kRead));
  ECFS_LET(const std::uint64_t size, device_size(device.get(), path));
  std::string now = size == j.size_bytes ? "" : "has another size than before";
  ECFS_LET(const bool mapped, is_mapped(j.name));
  ECFS_LET(const auto on, active_swap(path));
  if (now.empty() && !mapped && !on) {
    ECFS_LET(const std::vector<std::string> seen, signatures(device.get(), path));
    for (const std::string& name : seen) {
      if (name != "swap") now = "holds " + name;
    }
  }
  if (now.empty()) return {};
  return Error{Code::kInvalid, 0,
               path + " now " + now + ": nothing is changed. Take the lines marked \"ecfs setup-swap, " + j.name +
                   "\" out of /etc/crypttab and /etc/fstab by hand, then remove /var/lib/ecfs/swap/" + j.name +
                   ".json"};
}

// The old header, unless the old swap is on (then it was never taken off).
Status restore_header(const Journal& j, const std::string& path) {
  ECFS_LET(const auto on, active_swap(path));
  if (on) return {};
  ECFS_LET(const Fd device, open_device(path, Use::kAlone));
  return write_header(device.get(), j.header, path);
}

std::optional<int> number_of(const std::string& text) {
  int value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

}  // namespace

Result<Fd> lock_work(int dir) {
  constexpr mode_t kForRoot = 0600;
  Fd fd(openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kForRoot));
  if (!fd) return system_error(errno, "open the lock in /var/lib/ecfs/swap");
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{Code::kBusy, errno, "another `ecfs setup-swap` is at work"};
  }
  return fd;
}

Status undo(int dir, Journal& j) {
  auto path = find_device(j.stable);
  if (!path) return with_context(std::move(path).error(), "undo " + j.name);
  ECFS_TRY(check_place(j, *path));
  const std::string mapped = mapper_path(j.name);
  j.phase = Phase::kUndoing;
  Steps step(dir, j, Steps::Signals::kWait);
  step("swapoff", [&]() -> Status {
    ECFS_LET(const auto on, active_swap(mapped));
    if (!on) return {};
    ECFS_TRY(check_memory(*on));
    return swap_off(mapped);
  });
  step("unmap", [&]() -> Status {
    ECFS_LET(const bool mapped_now, is_mapped(j.name));
    return mapped_now ? unmap_device(j.name) : Status();
  });
  step("header", [&] { return restore_header(j, *path); });
  step("swapon", [&]() -> Status {
    ECFS_LET(const auto on, active_swap(*path));
    return on ? Status() : swap_on(*path, j.priority, j.discard);
  });
  // Crypttab first: its line would have a boot write over the header.
  step("crypttab", [&] {
    return restore_table(crypttab_place(), j.crypttab, j.name, {with_mapping(j, as_text(j.crypttab.bytes))});
  });
  step("unit", [&] { return j.unit ? enable_unit(j.name, false) : Status(); });
  step("fstab", [&] {
    const std::string_view text = as_text(j.fstab.bytes);
    return restore_table(fstab_place(), j.fstab, j.name, {guarded(j, text), replaced(j, text)});
  });
  step("gpt", [&] { return j.no_auto ? set_attribute(j, false) : Status(); });
  step("resume", [&]() -> Status {
    if (!j.resume) return {};
    const std::string_view text = as_text(j.resume_file.bytes);
    ECFS_TRY(restore_table(resume_place(), j.resume_file, j.name, {without_resume(j, text)}));
    if (const auto done = update_initramfs(); !done) warn(done.error().what + ": run `update-initramfs -u`");
    return {};
  });
  step("reload", [&]() -> Status {
    reload_units();
    return {};
  });
  ECFS_TRY(step.outcome());
  return remove(dir, j);
}

Status encrypt(int dir, const Plan& plan, const std::string& cipher, bool wipe, Boot boot) {
  ECFS_LET(Journal j, journal_of(plan, cipher, wipe, boot));
  auto done = encrypt_steps(dir, j);
  if (done) return done;
  Error failure = std::move(done).error();
  if (auto undone = undo(dir, j); !undone) {
    failure.what += "; and it could not be taken back: " + undone.error().what +
                    ". Run `ecfs setup-swap` again, or `ecfs setup-swap --undo`";
    return failure;
  }
  failure.what += ". All is as it was before";
  return failure;
}

Result<std::string> recover(int dir, Journal& j) {
  if (j.phase == Phase::kEncrypted) return std::string();
  if (j.phase == Phase::kEncrypting) {
    ECFS_LET(const auto on, active_swap(mapper_path(j.name)));
    if (on && check_result(j)) {
      ECFS_TRY(forward(dir, j));
      return "what an interrupted run began with " + j.path + " is finished: it is encrypted";
    }
  }
  ECFS_TRY(undo(dir, j));
  return "what an interrupted run began with " + j.path + " is taken back: all is as it was before";
}

Status set_up(const std::string& name, int wait_ms) {
  ECFS_LET(const std::string text, read_table("/etc", kCrypttab));
  const auto entries = crypttab_entries(text);
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const CryptEntry& e) { return e.name == name; });
  if (entry == entries.end()) return Error{Code::kNotFound, 0, "/etc/crypttab has no line for " + name};
  if (!entry->has("swap") || entry->key != "/dev/urandom") {
    return Error{Code::kInvalid, 0, "the line of " + name + " in /etc/crypttab is not for swap with a random key"};
  }
  const std::string cipher = entry->option("cipher");
  const auto size = number_of(entry->option("size"));
  const auto sector = entry->has("sector-size") ? number_of(entry->option("sector-size")) : std::optional<int>(512);
  if (std::find(ciphers().begin(), ciphers().end(), cipher) == ciphers().end() || !size || *size != 512 || !sector ||
      (*sector != 512 && *sector != 4096)) {
    return Error{Code::kUnsupported, 0,
                 "the line of " + name + " in /etc/crypttab has another cipher, size or sector size than ours"};
  }
  ECFS_LET(const bool mapped, is_mapped(name));
  if (mapped) return {};
  constexpr int kEveryMs = 200;
  auto path = find_device(entry->device);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
  while (!path && path.error().code == Code::kNotFound && std::chrono::steady_clock::now() < end) {
    poll(nullptr, 0, kEveryMs);
    path = find_device(entry->device);
  }
  if (!path) return std::move(path).error();
  {
    ECFS_LET(const Fd device, open_device(*path, Use::kAlone));
    ECFS_LET(const std::vector<std::string> seen, signatures(device.get(), *path));
    for (const std::string& found : seen) {
      if (found != "swap") {
        return Error{Code::kInvalid, 0,
                     *path + " now holds " + found + ", and was not touched: take " + name +
                         " out of /etc/crypttab and /etc/fstab (ecfs setup-swap --undo)"};
      }
    }
    // What is under an old header was swapped out unencrypted; it must not be switched on as that again.
    if (!seen.empty()) ECFS_TRY(wipe_signatures(device.get(), *path));
  }
  const auto sector_bytes = static_cast<unsigned>(*sector);
  ECFS_TRY(map_device(*path, name, cipher, sector_bytes));
  auto made = make_swap(*path, name, cipher, sector_bytes);
  if (!made) (void)unmap_device(name);
  return made;
}

Status take_down(const std::string& name) {
  ECFS_LET(const bool mapped, is_mapped(name));
  if (!mapped) return {};
  ECFS_LET(const auto on, active_swap(mapper_path(name)));
  if (on) ECFS_TRY(swap_off(mapper_path(name)));
  return unmap_device(name);
}

}  // namespace ecfs::swap
