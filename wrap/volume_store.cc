#include "wrap/volume_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>

#include "wrap/base/file.h"

namespace ecfs::wrap {
namespace {

constexpr std::size_t kMostTries = 8;  // passwords slots of one copy: each costs as much time as its maker chose
constexpr int kLockWaitMs = 5000;
constexpr int kLockPollMs = 20;
constexpr mode_t kMode = 0600;

// The path of a file in an open directory, for messages only.
std::string shown(int dir, const std::string& name) {
  const auto parent = path_of_directory(dir);
  if (!parent || !parent->starts_with('/')) return name;
  return name.empty() ? *parent : *parent + "/" + name;
}

// Is every slot of `a` in `b`, bit for bit?
bool within(const SlotArea& a, const SlotArea& b) {
  return std::all_of(a.slots.begin(), a.slots.end(), [&](const Slot& s) {
    const Slot* other = b.find(s.id);
    return other != nullptr && other->raw == s.raw;
  });
}

std::size_t count_known(const SlotArea& area) {
  return static_cast<std::size_t>(
      std::count_if(area.slots.begin(), area.slots.end(), [](const Slot& s) { return s.known(); }));
}

// Those that open wherever the header is: a TPM is cleared, locked, or lost with its computer.
std::size_t count_lasting(const SlotArea& area) {
  return static_cast<std::size_t>(
      std::count_if(area.slots.begin(), area.slots.end(), [](const Slot& s) { return s.known() && !is_tpm2(s.type); }));
}

bool exists(int dir, const std::string& name) {
  struct stat st {};
  return fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

// Gives a new file the owner of the present header `name` or, made by root, of its directory: a header that root wrote
// in somebody's place must not be one that its owner can no longer read.
Status give_owner(int fd, int dir, const std::string& name) {
  struct stat mine {};
  struct stat wanted {};
  if (fstat(fd, &mine) != 0) return system_error(errno, "stat " + shown(dir, name));
  if (fstatat(dir, name.c_str(), &wanted, AT_SYMLINK_NOFOLLOW) != 0) {
    if (geteuid() != 0) return {};
    if (fstat(dir, &wanted) != 0) return system_error(errno, "stat " + shown(dir, name));
  }
  if (mine.st_uid == wanted.st_uid && mine.st_gid == wanted.st_gid) return {};
  if (fchown(fd, wanted.st_uid, wanted.st_gid) == 0 || mine.st_uid == wanted.st_uid) return {};
  if (errno == EPERM) {
    return Error{Code::kDenied, EPERM,
                 shown(dir, name) + " belongs to another user; only that user or root can change its keys"};
  }
  return system_error(errno, "give " + shown(dir, name) + " to its owner");
}

// A file written under a temporary name, waiting to be renamed.
class Staged {
 public:
  // write stages `bytes` for `name`, with the owner that the header `like` has.
  static Result<Staged> write(int dir, const std::string& name, const std::string& like, ByteView bytes) {
    Staged staged(dir, name);
    const std::string temporary = temporary_of(name);
    Fd fd(openat(dir, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kMode));
    if (!fd) {
      const int err = errno;
      staged.dir_ = -1;  // not ours to remove
      return system_error(err, "make " + shown(dir, temporary));
    }
    // Filesystems without modes refuse; there is nothing to set there.
    if (fchmod(fd.get(), kMode) != 0 && errno != EPERM && errno != EOPNOTSUPP) {
      return system_error(errno, "set the mode of " + shown(dir, temporary));
    }
    ECFS_TRY(give_owner(fd.get(), dir, like));
    if (auto done = write_all(fd.get(), bytes); !done) {
      return with_context(std::move(done).error(), shown(dir, temporary));
    }
    ECFS_TRY(sync_fd(fd.get(), shown(dir, temporary)));
    // Who opens the new header to change it waits until this change is over, as with the old one (lock_header).
    (void)flock(fd.get(), LOCK_EX | LOCK_NB);
    staged.fd_ = std::move(fd);
    return staged;
  }

  Staged(Staged&& other) noexcept
      : dir_(std::exchange(other.dir_, -1)),
        committed_in_(other.committed_in_),
        name_(std::move(other.name_)),
        fd_(std::move(other.fd_)) {}
  Staged& operator=(Staged&&) = delete;
  Staged(const Staged&) = delete;
  Staged& operator=(const Staged&) = delete;
  ~Staged() {
    if (dir_ >= 0) discard(dir_, name_);
  }

  // discard removes what a crash left behind under the temporary name of `name`: it may hold a slot removed since.
  static void discard(int dir, const std::string& name) noexcept { unlinkat(dir, temporary_of(name).c_str(), 0); }

  // commit renames it into place; with `fresh` never over another file.
  Status commit(bool fresh) {
    const std::string from = temporary_of(name_);
    int rc = fresh ? renameat2(dir_, from.c_str(), dir_, name_.c_str(), RENAME_NOREPLACE) : -1;
    if (fresh && rc != 0 && errno == EEXIST) {
      return Error{Code::kBusy, EEXIST, shown(dir_, name_) + " exists already"};
    }
    if (rc != 0) rc = renameat(dir_, from.c_str(), dir_, name_.c_str());
    if (rc != 0) return system_error(errno, "rename " + shown(dir_, from) + " to " + name_);
    committed_in_ = std::exchange(dir_, -1);
    return sync_directory(committed_in_);
  }

  // take_back removes what was committed where nothing was before.
  void take_back() const {
    if (committed_in_ >= 0) unlinkat(committed_in_, name_.c_str(), 0);
  }

 private:
  Staged(int dir, std::string name) : dir_(dir), name_(std::move(name)) {}
  static std::string temporary_of(const std::string& name) { return name + ".tmp"; }

  int dir_;  // -1: nothing to remove any more
  int committed_in_ = -1;
  std::string name_;
  Fd fd_;
};

// Keeps two programs from changing one volume at once where there is no profile with a lock.
Result<Fd> lock_header(int dir, const std::string& name) {
  auto fd = open_regular(dir, name, kMaxVolumeFileBytes);
  if (!fd) return Fd();  // none there yet, or not one that could be locked
  for (int waited = 0;;) {
    if (flock(fd->get(), LOCK_EX | LOCK_NB) == 0) return fd;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return fd;  // a filesystem without locks
    if (waited >= kLockWaitMs) {
      return Error{Code::kBusy, EWOULDBLOCK, "another program is changing the keys of this volume"};
    }
    const timespec pause{0, kLockPollMs * 1000000L};
    nanosleep(&pause, nullptr);
    waited += kLockPollMs;
  }
}

}  // namespace

Status check_lower_present(int lower_dir, const std::string& path) {
  ECFS_LET(const std::vector<std::string> names, list_directory(lower_dir, 2));  // lost+found may be one
  const bool any = std::any_of(names.begin(), names.end(), [](const std::string& n) { return n != "lost+found"; });
  if (any) return {};
  return Error{Code::kUnavailable, ENOENT,
               "the encrypted directory " + path + " is empty, as if its disk were not there"};
}

// What one place is to hold.
struct VolumeStore::Update {
  int dir;
  std::string name;
  Bytes bytes;
  Bytes previous;  // for the `.bak`
  bool write_bytes;
  bool write_previous;
};

VolumeStore::Copy VolumeStore::load(int dir, const char* name, bool in_profile, bool previous,
                                    std::optional<Error>& failure) const {
  Copy copy;
  copy.dir = dir;
  copy.name = previous ? std::string(name) + ".bak" : name;
  copy.in_profile = in_profile;
  copy.previous = previous;
  const auto fail = [&](Error error) {
    copy.trouble = error.what;
    if (!failure) failure = with_context(std::move(error), shown(dir, copy.name));
  };
  // The profile's copy is believed if it is its owner's. LOWER may have come from anywhere: there the MAC decides.
  std::optional<uid_t> owner;
  struct stat st {};
  if (in_profile && fstat(dir, &st) == 0) owner = st.st_uid;
  auto raw = read_file(dir, copy.name, kMaxVolumeFileBytes, owner);
  if (!raw) {
    if (raw.error().code != Code::kNotFound) fail(std::move(raw).error());
    return copy;
  }
  copy.raw = *std::move(raw);
  auto file = parse_volume_file(copy.raw, places_.kind);
  if (!file) {
    fail(std::move(file).error());
    return copy;
  }
  auto area = parse_slots(file->slots);
  if (!area) {
    fail(std::move(area).error());
    return copy;
  }
  copy.file = *std::move(file);
  copy.area = *std::move(area);
  return copy;
}

void VolumeStore::note(std::string text) {
  if (std::find(notes_.begin(), notes_.end(), text) == notes_.end()) notes_.push_back(std::move(text));
}

// Reads all copies and drops those of another volume. The first that is left is the one in force.
Status VolumeStore::read_copies() {
  copies_.clear();
  std::optional<Error> failure;
  for (const bool in_profile : {true, false}) {
    const int dir = in_profile ? places_.profile_dir : places_.lower_dir;
    if (dir < 0) continue;
    for (const bool previous : {false, true}) {
      std::optional<Error> why;
      copies_.push_back(load(dir, in_profile ? kProfileVolumeName : kVolumeFileName, in_profile, previous, why));
      // A later version's header is not damage: what lies behind it may be older than its upgrade.
      if (why && why->code == Code::kUnsupported && !previous) {
        const Copy& copy = copies_.back();
        if (exists(dir, copy.name + ".bak")) {
          why->what += "; if no later version was ever used here, the header is damaged: put its previous version, " +
                       copy.name + ".bak, in its place";
        }
        return *std::move(why);
      }
      if (why && !failure) failure = std::move(why);
    }
  }
  std::optional<VolumeId> expected = places_.pinned;
  const Copy* chosen = nullptr;
  for (std::size_t i = 0; i < copies_.size(); i += 2) {
    for (std::size_t j : {i, i + 1}) {
      Copy& copy = copies_[j];
      if (!copy.file) continue;
      const VolumeId id = copy.file->header.id;
      if (!expected) expected = id;
      if (id == *expected) {
        if (chosen == nullptr) chosen = &copy;
        continue;
      }
      // Another volume, unless its own .bak tells that it is this one with a damaged id. Never to be written over.
      const Copy& backup = copies_[i + 1];
      if (!copy.previous && !(backup.file && backup.file->header.id == *expected)) {
        return Error{Code::kDenied, 0,
                     shown(copy.dir, copy.name) + " belongs to another volume (id " + to_hex(id) + ", expected " +
                         to_hex(*expected) + ")"};
      }
      copy.file.reset();
      copy.trouble = "the volume header has another id";
    }
  }
  if (chosen == nullptr) {
    if (failure) return *std::move(failure);
    const int dir = places_.lower_dir >= 0 ? places_.lower_dir : places_.profile_dir;
    return Error{Code::kNotFound, ENOENT,
                 shown(dir, "") + " is not an ecfs volume: it has no " +
                     (places_.lower_dir >= 0 ? kVolumeFileName : kProfileVolumeName)};
  }
  file_ = *chosen->file;
  area_ = chosen->area;
  return {};
}

Result<VolumeStore> VolumeStore::open(const Places& places) {
  if (places.lower_dir < 0 && places.profile_dir < 0) return Error{Code::kInvalid, 0, "no place to look for a volume"};
  VolumeStore store(places);
  ECFS_TRY(store.read_copies());
  for (const Copy& copy : store.copies_) {
    if (copy.file || copy.previous) continue;
    const std::string path = shown(copy.dir, copy.name);
    const Copy& backup = *(&copy + 1);
    store.note("the header " + path + (copy.trouble.empty() ? " is missing" : " is damaged (" + copy.trouble + ")") +
               (backup.file ? "; its previous version was used" : "; the other copy was used"));
  }
  return store;
}

Result<VolumeStore> VolumeStore::create(const Places& places, const VolumeHeader& header, SlotArea area,
                                        const Secret& volume_key) {
  if (places.lower_dir < 0 && places.profile_dir < 0) return Error{Code::kInvalid, 0, "no place to make a volume in"};
  if (count_lasting(area) == 0) return Error{Code::kInvalid, 0, "a volume that nobody could open is not made"};
  if (volume_key.size() != secret_bytes_of(places.kind) || header.kind != places.kind) {
    return Error{Code::kInvalid, 0, "a volume key has 32 bytes, a padded mount passphrase 64"};
  }
  VolumeStore store(places);
  for (const bool in_profile : {true, false}) {
    const int dir = in_profile ? places.profile_dir : places.lower_dir;
    const std::string name = in_profile ? kProfileVolumeName : kVolumeFileName;
    if (dir < 0) continue;
    for (const std::string& taken : {name, name + ".bak"}) {
      if (exists(dir, taken)) return Error{Code::kBusy, EEXIST, shown(dir, taken) + " exists already"};
    }
  }
  area.generation = 1;
  store.file_.header = header;
  ECFS_TRY(store.write(volume_key, area, true));
  return store;
}

// With the key proven by any copy: decides which copy is in force, and takes over what a later copy of LOWER has.
Status VolumeStore::adopt(const Secret& volume_key) {
  if (volume_key.size() != secret_bytes_of(places_.kind)) {
    return Error{Code::kCorrupt, 0, "the volume's secret does not have its length"};
  }
  const Copy* chosen = nullptr;
  const Copy* lower = nullptr;
  std::optional<Error> damage;
  std::vector<const Copy*> damaged;
  for (const Copy& copy : copies_) {
    if (!copy.file) continue;
    if (auto done = verify_volume_file(*copy.file, volume_key); !done) {
      if (done.error().code != Code::kCorrupt) return done;
      if (!damage) damage = with_context(std::move(done).error(), shown(copy.dir, copy.name));
      damaged.push_back(&copy);
      continue;
    }
    if (chosen == nullptr) chosen = &copy;
    if (!copy.in_profile && lower == nullptr) lower = &copy;
  }
  if (chosen == nullptr) {
    return damage ? *std::move(damage) : Error{Code::kCorrupt, 0, "no header of the volume is left"};
  }
  for (const Copy* copy : damaged) {
    if (!copy->previous) {
      note("the header " + shown(copy->dir, copy->name) + " is damaged (its checksum does not fit); " +
           shown(chosen->dir, chosen->name) + " was used");
    }
  }
  file_ = *chosen->file;
  area_ = chosen->area;
  if (lower == nullptr || !chosen->in_profile) return {};
  if (lower->area.generation < area_.generation) {
    note("the header " + shown(lower->dir, lower->name) + " is older than the profile's: a backup of it has old keys");
  }
  if (lower->area.generation < area_.generation) return {};
  const auto is_recovery = [](const Slot& s) { return s.type == SlotType::kRecovery; };
  if (lower->area.generation > area_.generation) {
    note("the header " + shown(chosen->dir, chosen->name) +
         " is older than the one in the volume; the later one's recovery keys count");
    area_.slots.erase(std::remove_if(area_.slots.begin(), area_.slots.end(), is_recovery), area_.slots.end());
  } else if (within(lower->area, area_)) {
    return {};
  } else {
    note("the headers " + shown(chosen->dir, chosen->name) + " and " + shown(lower->dir, lower->name) +
         " were changed independently; the keys of both count");
  }
  for (const Slot& slot : lower->area.slots) {
    const Slot* same = area_.find(slot.id);
    if (same == nullptr && area_.slots.size() < kMaxSlots) {
      area_.slots.push_back(slot);
    } else if (same == nullptr || same->raw != slot.raw) {
      note("key slot " + std::to_string(slot.id) + " of " + shown(lower->dir, lower->name) +
           " could not be taken over: add that key again");
    }
  }
  area_.next_id = std::max(area_.next_id, lower->area.next_id);
  area_.generation = lower->area.generation + 1;
  return {};
}

Result<Unlocked> VolumeStore::unlock_with(SlotType type,
                                          const std::function<Result<Secret>(const VolumeId&, const Slot&)>& open) {
  std::vector<Bytes> tried;
  bool wrong = false;
  std::optional<Error> bad_slot;
  std::optional<Error> bad_header;
  for (const Copy& copy : copies_) {
    if (!copy.file) continue;
    std::size_t tries = 0;
    for (const Slot& slot : copy.area.slots) {
      if (slot.type != type || !slot.known()) continue;
      // The other copies mostly hold the same slots: only those that differ are worth the time.
      if (std::find(tried.begin(), tried.end(), slot.raw) != tried.end()) continue;
      if (++tries > kMostTries) break;
      tried.push_back(slot.raw);
      auto key = open(copy.file->header.id, slot);
      if (!key) {
        if (key.error().code == Code::kWrongKey) {
          wrong = true;
        } else if (key.error().code == Code::kCorrupt) {
          bad_slot = std::move(key).error();
        } else {
          return std::move(key).error();
        }
        continue;
      }
      if (auto adopted = adopt(*key); !adopted) {
        if (adopted.error().code != Code::kCorrupt) return std::move(adopted).error();
        bad_header = std::move(adopted).error();
        continue;
      }
      const Slot* in_force = area_.find(slot.id);
      if (in_force == nullptr || in_force->raw != slot.raw) {
        wrong = true;  // removed; only an old copy still has it
        continue;
      }
      return Unlocked{*std::move(key), slot.id};
    }
  }
  if (tried.empty()) {
    return Error{Code::kNotFound, 0, "the volume has no key slot of type " + std::string(slot_type_name(type))};
  }
  if (bad_header) return *std::move(bad_header);
  if (bad_slot && !wrong) return *std::move(bad_slot);
  return Error{Code::kWrongKey, 0, "no key slot of type " + std::string(slot_type_name(type)) + " opens"};
}

Result<Unlocked> VolumeStore::unlock_with_passphrase(const Secret& passphrase) {
  return unlock_with(SlotType::kPassword,
                     [&](const VolumeId& id, const Slot& slot) { return open_password_slot(id, slot, passphrase); });
}

Result<Unlocked> VolumeStore::unlock_with_recovery(const RecoveryKey& key) {
  return unlock_with(SlotType::kRecovery,
                     [&](const VolumeId& id, const Slot& slot) { return open_recovery_slot(id, slot, key); });
}

Result<Unlocked> VolumeStore::unlock_with_tpm2(Tpm2& tpm, const Secret* passphrase, std::uint32_t only) {
  const SlotType type = passphrase != nullptr ? SlotType::kTpm2Password : SlotType::kTpm2;
  struct Failure {
    std::string slots;
    Error error;
  };
  std::vector<Failure> failures;  // one of a kind
  bool refused = false;
  auto unlocked = unlock_with(type, [&](const VolumeId& id, const Slot& slot) -> Result<Secret> {
    // kWrongKey has the next one tried, whatever was wrong with this one.
    const Error next{Code::kWrongKey, 0, "the TPM does not open this key slot"};
    if (refused || (only != 0 && slot.id != only)) return next;
    auto secret = open_tpm2_slot(id, slot, tpm, passphrase);
    if (secret) return secret;
    refused = secret.error().code == Code::kWrongKey;
    if (refused) failures.clear();
    const std::string number = std::to_string(slot.id);
    const auto same = std::find_if(failures.begin(), failures.end(),
                                   [&](const Failure& f) { return f.error.what == secret.error().what; });
    if (same == failures.end()) {
      failures.push_back({number, std::move(secret).error()});
    } else {
      same->slots += ", " + number;
    }
    return next;
  });
  if (unlocked || unlocked.error().code != Code::kWrongKey || failures.empty()) return unlocked;
  Error error = failures.front().error;
  if (failures.size() == 1) return error;
  error.what.clear();
  for (const Failure& failure : failures) {
    error.what += error.what.empty() ? "slot" : "; slot";
    error.what +=
        (failure.slots.find(',') == std::string::npos ? " " : "s ") + failure.slots + ": " + failure.error.what;
  }
  return error;
}

Result<Unlocked> VolumeStore::unlock_with_key(Secret volume_key) {
  if (auto adopted = adopt(volume_key); !adopted) {
    if (adopted.error().code == Code::kCorrupt) return Error{Code::kWrongKey, 0, "the key does not fit this volume"};
    return std::move(adopted).error();
  }
  return Unlocked{std::move(volume_key), 0};
}

std::vector<VolumeStore::CopyState> VolumeStore::copies(const Secret& volume_key) const {
  std::vector<CopyState> states;
  for (const Copy& copy : copies_) {
    CopyState state;
    state.path = shown(copy.dir, copy.name);
    if (!copy.file) {
      state.how = copy.trouble.empty() ? CopyState::How::kMissing : CopyState::How::kDamaged;
      state.why = copy.trouble;
    } else if (!verify_volume_file(*copy.file, volume_key)) {
      state.how = CopyState::How::kDamaged;
      state.why = "its checksum does not fit";
    } else if (!copy.previous && copy.area.generation < area_.generation) {
      state.how = CopyState::How::kOlder;
      state.why = "it has generation " + std::to_string(copy.area.generation) + " and the volume " +
                  std::to_string(area_.generation);
    } else if (copy.previous && !within(copy.area, area_)) {
      state.how = CopyState::How::kOlder;
      state.why = "it has a key slot that was removed since";
    }
    states.push_back(std::move(state));
  }
  return states;
}

SlotArea VolumeStore::area_of_lower(const SlotArea& area) const {
  SlotArea out = area;
  out.next_id = area.unused_id();
  if (places_.profile_dir < 0 || places_.slots_in_volume) return out;
  out.slots.erase(
      std::remove_if(out.slots.begin(), out.slots.end(), [](const Slot& s) { return s.type != SlotType::kRecovery; }),
      out.slots.end());
  return out;
}

Status VolumeStore::check_removal(const SlotArea& after, bool force) const {
  if (count_known(after) == 0) {
    return Error{Code::kDenied, 0, "the last key slot cannot be removed: nobody could open the volume any more"};
  }
  if (count_lasting(after) == 0) {
    return Error{
        Code::kDenied, 0,
        "the last key slot that needs no TPM cannot be removed: with the TPM cleared or broken nobody could open "
        "the volume any more"};
  }
  if (!force && count_lasting(area_of_lower(after)) == 0 && count_lasting(area_of_lower(area_)) != 0) {
    return Error{Code::kDenied, 0,
                 "this is the last key that opens the volume without this profile (from a backup, or on another "
                 "computer); add another recovery key first"};
  }
  return {};
}

// Brings both places to `area` and reads them back. What is so already is not written.
Status VolumeStore::write(const Secret& volume_key, const SlotArea& area, bool first) {
  if (area.generation == 0) return Error{Code::kInvalid, 0, "the slots of the volume were changed too often"};
  ECFS_LET(const Fd lock, places_.lower_dir >= 0 ? lock_header(places_.lower_dir, kVolumeFileName) : Result<Fd>(Fd()));
  std::vector<Copy> present;
  for (const bool in_profile : {true, false}) {
    const int dir = in_profile ? places_.profile_dir : places_.lower_dir;
    if (dir < 0) continue;
    for (const bool previous : {false, true}) {
      std::optional<Error> ignored;  // what is damaged is about to be replaced
      present.push_back(load(dir, in_profile ? kProfileVolumeName : kVolumeFileName, in_profile, previous, ignored));
    }
  }
  const bool unchanged = first || std::equal(present.begin(), present.end(), copies_.begin(), copies_.end(),
                                             [](const Copy& a, const Copy& b) { return a.raw == b.raw; });
  if (!unchanged) return Error{Code::kBusy, 0, "another program changed the keys of this volume meanwhile; try again"};

  std::vector<Update> updates;
  for (std::size_t i = 0; i < present.size(); i += 2) {
    const Copy& main = present[i];
    const Copy& backup = present[i + 1];
    SlotArea wanted = main.in_profile ? area : area_of_lower(area);
    wanted.next_id = area.unused_id();
    const Bytes slots = build_slots(wanted);
    ECFS_TRY(parse_slots(slots));
    Update u{main.dir, main.name, {}, {}, false, false};
    ECFS_LET(u.bytes, build_volume_file(file_.header, slots, volume_key));
    // The version before is kept only if it is proven and opens with nothing that the new one does not open with.
    const auto worth_keeping = [&](const Copy& copy) {
      return copy.file && copy.file->header.id == file_.header.id && within(copy.area, wanted) &&
             verify_volume_file(*copy.file, volume_key).has_value();
    };
    u.write_bytes = main.raw != u.bytes;
    u.previous = u.write_bytes && worth_keeping(main) ? main.raw : worth_keeping(backup) ? backup.raw : u.bytes;
    u.write_previous = backup.raw != u.previous;
    updates.push_back(std::move(u));
  }

  // Everything is on the disk under temporary names before the first name changes: a full disk shows here. `.bak` goes
  // first, so that no crash leaves a removed slot in it beside a header that is without it.
  std::vector<Staged> staged;
  for (const Update& u : updates) {
    Staged::discard(u.dir, u.name + ".bak");
    Staged::discard(u.dir, u.name);
    if (u.write_previous) {
      ECFS_LET(Staged one, Staged::write(u.dir, u.name + ".bak", u.name, u.previous));
      staged.push_back(std::move(one));
    }
    if (u.write_bytes) {
      ECFS_LET(Staged one, Staged::write(u.dir, u.name, u.name, u.bytes));
      staged.push_back(std::move(one));
    }
  }
  for (Staged& one : staged) {
    auto done = one.commit(first);
    if (done) continue;
    if (first) {
      for (const Staged& made : staged) made.take_back();
    }
    return done;
  }
  for (const Update& u : updates) {
    auto bytes = read_file(u.dir, u.name, kMaxVolumeFileBytes);
    auto previous = read_file(u.dir, u.name + ".bak", kMaxVolumeFileBytes);
    if (!bytes || !previous || *bytes != u.bytes || *previous != u.previous) {
      return Error{Code::kIo, 0, shown(u.dir, u.name) + " does not read back as it was written; check the disk"};
    }
  }
  return read_copies();
}

Status VolumeStore::add_slot(const Secret& volume_key, Slot slot) {
  // One stays free, so that replacing a slot, which adds before it removes, is always possible.
  if (area_.slots.size() + 1 >= kMaxSlots) {
    return Error{Code::kInvalid, 0,
                 "the volume has " + std::to_string(area_.slots.size()) + " key slots; remove one first"};
  }
  return write_with(volume_key, std::move(slot));
}

Status VolumeStore::write_with(const Secret& volume_key, Slot slot) {
  if (slot.id == 0 || slot.id < area_.unused_id()) {
    return Error{Code::kInvalid, 0, "key slot " + std::to_string(slot.id) + ": this number was in use before"};
  }
  SlotArea after = area_;
  after.slots.push_back(std::move(slot));
  ++after.generation;
  return write(volume_key, after);
}

Status VolumeStore::remove_slot(const Secret& volume_key, std::uint32_t id, bool force) {
  ECFS_LET(SlotArea after, area_without(id));
  ECFS_TRY(check_removal(after, force));
  ++after.generation;
  return write(volume_key, after);
}

Status VolumeStore::replace_slot(const Secret& volume_key, std::uint32_t old_id, Slot slot) {
  ECFS_LET(SlotArea after, area_without(old_id));
  after.slots.push_back(slot);
  ECFS_TRY(check_removal(after, false));
  ECFS_TRY(write_with(volume_key, std::move(slot)));
  ECFS_LET(after, area_without(old_id));
  ++after.generation;
  if (auto done = write(volume_key, after); !done) {
    return with_context(std::move(done).error(), "the new key is in place, but the old one could not be removed");
  }
  return {};
}

Result<SlotArea> VolumeStore::area_without(std::uint32_t id) const {
  SlotArea after = area_;
  const auto found = std::find_if(after.slots.begin(), after.slots.end(), [&](const Slot& s) { return s.id == id; });
  if (found == after.slots.end()) {
    return Error{Code::kNotFound, 0, "the volume has no key slot " + std::to_string(id)};
  }
  after.slots.erase(found);
  after.next_id = area_.unused_id();
  return after;
}

Status VolumeStore::repair(const Secret& volume_key) {
  ECFS_TRY(adopt(volume_key));
  return write(volume_key, area_);
}

}  // namespace ecfs::wrap
