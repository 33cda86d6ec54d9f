// Makes a volume and its profile for a user, as the wizard does, at the least costs: for tests of logins.
// usage: make_volume USER [--name N] [--lower PATH] [--mountpoint PATH] [--no-auto-mount] [--no-auto-unmount]
// [--memory-kib N] [--options OPTIONS]
//        make_volume USER --mark [--name N]     prints "stale" or "fresh"
//        make_volume USER --tries [--name N]    prints for each passphrase on stdin (one a line) "opens" or "refused"
//        make_volume USER --rewrap [--name N]   `ecfs key change`: from the first to the second line of stdin
// The passphrase is the first line of stdin. Prints the recovery key.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "wrap/base/file.h"
#include "wrap/base/process.h"
#include "wrap/keyring.h"
#include "wrap/profile.h"
#include "wrap/recovery_key.h"
#include "wrap/volume_store.h"

namespace {

using namespace ecfs;

struct Wish {
  std::string user;
  std::string name = "Private";
  std::string lower;
  std::string mountpoint;
  std::string options;
  bool auto_mount = true;
  bool auto_unmount = true;
  bool mark = false;
  bool tries = false;
  bool rewrap = false;
  std::uint32_t memory_kib = wrap::kFloorMemoryKib;
};

Status make(const Wish& wish, const Identity& who) {
  ECFS_LET(const Secret passphrase, read_secret_line(STDIN_FILENO));
  for (const std::string& dir : {wish.lower, wish.mountpoint}) {
    if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return system_error(errno, "make " + dir);
  }
  ECFS_LET(const Fd lower, open_directory(AT_FDCWD, wish.lower));
  ECFS_LET(const Fd profiles, wrap::make_profiles_dir(who));
  ECFS_LET(const Fd dir, make_directory(profiles.get(), wish.name, 0700));
  wrap::VolumeHeader header;
  ECFS_TRY(fill_random(header.id));
  header.suite = wrap::preferred_suite();
  ECFS_LET(const Secret key, Secret::random(wrap::kVolumeKeyBytes));
  ECFS_LET(const wrap::RecoveryKey recovery, wrap::RecoveryKey::generate());
  wrap::Argon2Cost cost;
  cost.memory_kib = wish.memory_kib;
  cost.passes = 2;
  cost.lanes = 1;
  wrap::SlotArea area;
  area.generation = 1;
  ECFS_LET(wrap::Slot password, wrap::make_password_slot(header.id, 1, "login", key, passphrase, cost));
  ECFS_LET(wrap::Slot spare, wrap::make_recovery_slot(header.id, 2, "", key, recovery));
  area.slots.push_back(std::move(password));
  area.slots.push_back(std::move(spare));
  wrap::VolumeStore::Places places;
  places.lower_dir = lower.get();
  places.profile_dir = dir.get();
  ECFS_TRY(wrap::VolumeStore::create(places, header, std::move(area), key));
  wrap::Profile profile;
  profile.name = wish.name;
  profile.lower = wish.lower;
  profile.mountpoint = wish.mountpoint;
  profile.volume_id = header.id;
  profile.auto_mount = wish.auto_mount;
  profile.auto_unmount = wish.auto_unmount;
  if (!wish.options.empty()) profile.options = {wish.options};
  ECFS_TRY(wrap::save_profile(dir.get(), profile));
  ECFS_LET(const Secret text, recovery.text());
  std::cout << as_text(text.reveal()) << "\n" << wrap::token_description(header.id) << std::endl;
  return {};
}

Status look(const Wish& wish, const Identity& who) {
  ECFS_LET(const Fd profiles, wrap::open_profiles_dir(who));
  ECFS_LET(const wrap::OpenProfile open, wrap::open_profile(profiles.get(), wish.name));
  if (wish.mark) {
    std::cout << (wrap::has_stale_mark(open) ? "stale" : "fresh") << std::endl;
    return {};
  }
  ECFS_LET(const Fd lower, open_directory(AT_FDCWD, open.profile.lower));
  wrap::VolumeStore::Places places;
  places.lower_dir = lower.get();
  places.profile_dir = open.dir.get();
  places.pinned = open.profile.volume_id;
  ECFS_LET(wrap::VolumeStore store, wrap::VolumeStore::open(places));
  if (wish.rewrap) {
    ECFS_LET(const Secret old_passphrase, read_secret_line(STDIN_FILENO));
    ECFS_LET(const Secret new_passphrase, read_secret_line(STDIN_FILENO));
    ECFS_LET(const wrap::Unlocked unlocked, store.unlock_with_passphrase(old_passphrase));
    ECFS_LET(wrap::Slot slot, wrap::make_password_slot(store.header().id, store.area().unused_id(), "login",
                                                       unlocked.key, new_passphrase, {wrap::kFloorMemoryKib, 2, 1}));
    ECFS_TRY(store.replace_slot(unlocked.key, unlocked.slot_id, std::move(slot)));
    return wrap::set_stale_mark(open, false);
  }
  for (;;) {
    const auto passphrase = read_secret_line(STDIN_FILENO);
    if (!passphrase) break;
    std::cout << (store.unlock_with_passphrase(*passphrase) ? "opens" : "refused") << std::endl;
  }
  std::cout << store.area().slots.size() << " slots" << std::endl;
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  Wish wish;
  wish.user = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string option = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (option == "--no-auto-mount") {
      wish.auto_mount = false;
    } else if (option == "--no-auto-unmount") {
      wish.auto_unmount = false;
    } else if (option == "--mark") {
      wish.mark = true;
    } else if (option == "--rewrap") {
      wish.rewrap = true;
    } else if (option == "--tries") {
      wish.tries = true;
    } else if (option == "--name") {
      wish.name = value, ++i;
    } else if (option == "--lower") {
      wish.lower = value, ++i;
    } else if (option == "--mountpoint") {
      wish.mountpoint = value, ++i;
    } else if (option == "--options") {
      wish.options = value, ++i;
    } else if (option == "--memory-kib") {
      wish.memory_kib = static_cast<std::uint32_t>(std::strtoul(value.c_str(), nullptr, 10)), ++i;
    } else {
      return 2;
    }
  }
  const auto who = identity_of(wish.user);
  if (!who) return 3;
  if (wish.lower.empty()) wish.lower = who->home + "/." + wish.name;
  if (wish.mountpoint.empty()) wish.mountpoint = who->home + "/" + wish.name;
  Status done = become(*who);
  if (done) done = wish.mark || wish.tries || wish.rewrap ? look(wish, *who) : make(wish, *who);
  if (done) return 0;
  std::cerr << "make_volume: " << done.error().what << std::endl;
  return 1;
}
