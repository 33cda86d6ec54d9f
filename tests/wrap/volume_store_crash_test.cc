// A crash at every moment of every change of a volume's keys: the child that makes the change is killed before each of
// its system calls in turn, and what it left on the disk is opened.

#include <sys/stat.h>
#include <sys/syscall.h>

#include <functional>
#include <map>

#include "tests/wrap/tracing.h"
#include "tests/wrap/volume_fixture.h"

namespace ecfs::wrap {
namespace {

using Ids = std::set<std::uint32_t>;
using Files = std::map<std::string, Bytes>;

Files files_in(const Scratch& dir) {
  Files files;
  for (const std::string& name : names_in(dir.path())) files[name] = get(dir.fd(), name);
  return files;
}

void restore(const Scratch& dir, const Files& files) {
  for (const std::string& name : names_in(dir.path())) ASSERT_EQ(unlinkat(dir.fd(), name.c_str(), 0), 0);
  for (const auto& [name, bytes] : files) put(dir.fd(), name, bytes);
}

class Crash : public testing::Test {
 protected:
  Crash() {
    places.lower_dir = lower.fd();
    places.profile_dir = profile.fd();
    places.pinned = kit().header.id;
  }

  using Change = std::function<Status(VolumeStore&)>;

  // Makes `change` over and over, killed one system call later each time. `allowed` are the sets of slots that the
  // profile's header may hold afterwards; in `gone` are slots that must not be in any file of a place whose header is
  // without them. `after` looks at more.
  void crash_everywhere(const Change& change, const std::set<Ids>& allowed, const std::vector<Slot>& gone) {
    const Files profile_before = files_in(profile);
    const Files lower_before = files_in(lower);
    std::set<Ids> seen;
    std::size_t kills = 0;
    for (std::size_t limit = 1;; ++limit) {
      restore(profile, profile_before);
      restore(lower, lower_before);
      std::size_t calls = 0;
      const Traced end = trace(
          [&] {
            auto store = VolumeStore::open(places);
            return store && change(*store);
          },
          [&](const SystemCall& call) {
            // Only calls that can change a disk make a new state.
            static const std::set<std::uint64_t> kChanging = {SYS_openat,    SYS_write,    SYS_fsync,
                                                              SYS_fchmod,    SYS_fchown,   SYS_renameat,
                                                              SYS_renameat2, SYS_unlinkat, SYS_ftruncate};
            return !kChanging.contains(call.number) || ++calls < limit;
          });
      ASSERT_NE(end, Traced::kFailed);
      check_state(allowed, gone, seen);
      if (HasFatalFailure()) return;
      if (end == Traced::kDone) break;
      ++kills;
    }
    EXPECT_GT(kills, 20U);
    EXPECT_EQ(seen, allowed) << "each state that is allowed is also met";
  }

  void check_state(const std::set<Ids>& allowed, const std::vector<Slot>& gone, std::set<Ids>& seen) {
    for (const int which : {0, 1}) {
      VolumeStore::Places view = places;
      if (which == 1) view.profile_dir = -1;  // LOWER alone, as a backup of it would be opened
      if (which == 1 && places.profile_dir < 0) continue;
      auto store = VolumeStore::open(view);
      ASSERT_TRUE(store) << store.error().what;
      ASSERT_TRUE(store->unlock_with_key(ok(kit().key.clone())));
      ASSERT_TRUE(store->notes().empty() || store->notes()[0].find("older") != std::string::npos) << store->notes()[0];
      if (which == 0) {
        ASSERT_TRUE(allowed.contains(ids_of(store->area())));
        seen.insert(ids_of(store->area()));
      }
      ASSERT_TRUE(store->unlock_with_recovery(kit().recovery)) << "the key that was not touched opens at every moment";
    }
    for (const Scratch* dir : {&profile, &lower}) {
      const std::string name = dir == &profile ? kProfileVolumeName : kVolumeFileName;
      if (dir == &profile && places.profile_dir < 0) continue;
      const Bytes header = get(dir->fd(), name);
      const Bytes backup = get(dir->fd(), name + ".bak");
      for (const Slot& slot : gone) {
        const Bytes part = essence(slot);
        const auto holds = [&](const Bytes& file) {
          return std::search(file.begin(), file.end(), part.begin(), part.end()) != file.end();
        };
        ASSERT_FALSE(!holds(header) && holds(backup)) << "a removed slot is left in " << name << ".bak";
      }
    }
    // Afterwards everything can be put right, and no temporary file stays.
    auto store = VolumeStore::open(places);
    ASSERT_TRUE(store);
    const Status repaired = store->repair(kit().key);
    ASSERT_TRUE(repaired) << repaired.error().what;
    const Ids now = ids_of(store->area());
    for (const Slot& slot : gone) {
      ASSERT_EQ(anywhere({profile.path(), lower.path()}, essence(slot)), now.contains(slot.id));
    }
    ASSERT_EQ(names_in(lower.path()).size(), 2U);
    ASSERT_EQ(names_in(profile.path()).size(), places.profile_dir < 0 ? 0U : 2U);
    auto again = VolumeStore::open(places);
    ASSERT_TRUE(again && again->unlock_with_key(ok(kit().key.clone())) && again->notes().empty());
  }

  Scratch lower;
  Scratch profile;
  VolumeStore::Places places;
};

TEST_F(Crash, WhileASlotIsAdded) {
  ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  crash_everywhere([](VolumeStore& s) { return s.add_slot(kit().key, kit().third); }, {{1, 2}, {1, 2, 3}}, {});
}

TEST_F(Crash, WhileASlotIsRemoved) {
  VolumeStore store = ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  ok(store.add_slot(kit().key, kit().third));
  crash_everywhere([](VolumeStore& s) { return s.remove_slot(kit().key, 3); }, {{1, 2, 3}, {1, 2}}, {kit().third});
}

TEST_F(Crash, WhileThePasswordIsReplaced) {
  ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  crash_everywhere([](VolumeStore& s) { return s.replace_slot(kit().key, 1, kit().third_password); },
                   {{1, 2}, {1, 2, 3}, {2, 3}}, {kit().area.slots[0]});
}

TEST_F(Crash, WithoutAProfile) {
  places.profile_dir = -1;
  ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  crash_everywhere([](VolumeStore& s) { return s.replace_slot(kit().key, 1, kit().third_password); },
                   {{1, 2}, {1, 2, 3}, {2, 3}}, {kit().area.slots[0]});
}

TEST_F(Crash, WhileALaterLowerIsTakenOver) {
  ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  VolumeStore::Places elsewhere = places;
  elsewhere.profile_dir = -1;
  VolumeStore store = ok(VolumeStore::open(elsewhere));
  ok(store.add_slot(kit().key, kit().third));
  // Adopting happens in memory, so every state shows all slots.
  crash_everywhere([](VolumeStore& s) { return s.repair(kit().key); }, {{1, 2, 3}}, {});
}

TEST_F(Crash, WhileTheVolumeIsMade) {
  bool was_none = false;
  for (std::size_t limit = 1;; ++limit) {
    restore(profile, {});
    restore(lower, {});
    std::size_t calls = 0;
    const Traced end =
        trace([&] { return VolumeStore::create(places, kit().header, kit().area, kit().key).has_value(); },
              [&](const SystemCall& call) {
                return (call.number != SYS_openat && call.number != SYS_write && call.number != SYS_fsync &&
                        call.number != SYS_renameat2 && call.number != SYS_renameat) ||
                       ++calls < limit;
              });
    ASSERT_NE(end, Traced::kFailed);
    auto store = VolumeStore::open(places);
    if (!store) {
      ASSERT_EQ(store.error().code, Code::kNotFound) << store.error().what;
      was_none = true;
    } else {
      ASSERT_TRUE(store->unlock_with_recovery(kit().recovery));
      ASSERT_TRUE(store->repair(kit().key));
      ASSERT_EQ(ids_of(store->area()), (Ids{1, 2}));
    }
    if (end == Traced::kDone) break;
  }
  EXPECT_TRUE(was_none);
}

// What a power cut needs, seen in the order of system calls: no name gets a file whose bytes were not synced before,
// and the directory is synced after each renaming, before the next.
TEST_F(Crash, EveryStepIsSyncedBeforeTheNext) {
  VolumeStore made = ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  ok(made.add_slot(kit().key, kit().third));
  std::set<std::string> unsynced;  // files written to since their last fsync
  std::string directory_to_sync;
  std::size_t renames = 0;
  const Traced end = trace(
      [&] {
        auto store = VolumeStore::open(places);
        return store && store->replace_slot(kit().key, 2,
                                            ok(make_recovery_slot(kit().header.id, 4, "", kit().key, kit().recovery)));
      },
      [&](const SystemCall& call) {
        if (call.number == SYS_write) unsynced.insert(call.path(call.args[0]));
        if (call.number == SYS_fsync) {
          const std::string path = call.path(call.args[0]);
          unsynced.erase(path);
          if (path == directory_to_sync) directory_to_sync.clear();
        }
        if (call.number == SYS_renameat || call.number == SYS_renameat2) {
          ++renames;
          EXPECT_EQ(directory_to_sync, "");
          directory_to_sync = call.path(call.args[0]);
          EXPECT_FALSE(unsynced.contains(directory_to_sync + "/" + call.text(call.args[1])));
        }
        return true;
      });
  EXPECT_EQ(end, Traced::kDone);
  EXPECT_EQ(directory_to_sync, "");
  EXPECT_GE(renames, 6U);
}

}  // namespace
}  // namespace ecfs::wrap
