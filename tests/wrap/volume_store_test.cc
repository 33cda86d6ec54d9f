#include "wrap/volume_store.h"

#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/wrap/volume_fixture.h"

namespace ecfs::wrap {
namespace {

class Store : public testing::Test {
 protected:
  VolumeStore::Places both() const {
    VolumeStore::Places p;
    p.lower_dir = lower.fd();
    p.profile_dir = profile.fd();
    p.pinned = kit().header.id;
    return p;
  }
  VolumeStore::Places only_lower() const {
    VolumeStore::Places p;
    p.lower_dir = lower.fd();
    return p;
  }
  VolumeStore made(const VolumeStore::Places& places) const {
    return ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  }
  SlotArea area_in(const Scratch& dir, const std::string& name) const {
    return ok(parse_slots(ok(parse_volume_file(get(dir.fd(), name))).slots));
  }
  bool nowhere(const Slot& slot) const { return !anywhere({lower.path(), profile.path()}, essence(slot)); }

  Scratch lower;
  Scratch profile;
};

using Ids = std::set<std::uint32_t>;

TEST_F(Store, CreateOpenUnlock) {
  made(both());
  for (const std::string& path :
       {profile / "volume", lower / ".ecfs-volume", profile / "volume.bak", lower / ".ecfs-volume.bak"}) {
    struct stat st {};
    ASSERT_EQ(stat(path.c_str(), &st), 0) << path;
    EXPECT_EQ(st.st_mode & 07777, 0600U) << path;
  }
  EXPECT_EQ(names_in(profile.path()).size(), 2U);
  EXPECT_EQ(names_in(lower.path()).size(), 2U);
  VolumeStore store = ok(VolumeStore::open(both()));
  EXPECT_TRUE(store.notes().empty());
  EXPECT_EQ(store.area().generation, 1U);
  EXPECT_EQ(store.header().id, kit().header.id);
  const Unlocked by_password = ok(store.unlock_with_passphrase(kit().passphrase));
  EXPECT_TRUE(by_password.key.equals(kit().key));
  EXPECT_EQ(by_password.slot_id, 1U);
  EXPECT_EQ(ok(store.unlock_with_recovery(kit().recovery)).slot_id, 2U);
  EXPECT_TRUE(store.unlock_with_key(ok(kit().key.clone())));
  EXPECT_EQ(code_of(store.unlock_with_passphrase(kit().other_passphrase)), Code::kWrongKey);
  EXPECT_EQ(code_of(store.unlock_with_recovery(kit().other_recovery)), Code::kWrongKey);
  EXPECT_EQ(code_of(store.unlock_with_key(ok(Secret::random(32)))), Code::kWrongKey);
  EXPECT_EQ(code_of(store.unlock_with_key(ok(Secret::random(16)))), Code::kWrongKey);
  EXPECT_TRUE(store.notes().empty());
}

TEST_F(Store, LowersCopyTravelsWithoutThePassword) {
  made(both());
  EXPECT_FALSE(anywhere({lower.path()}, essence(kit().area.slots[0])));
  VolumeStore backup = ok(VolumeStore::open(only_lower()));
  EXPECT_EQ(ids_of(backup.area()), Ids{2});
  EXPECT_EQ(backup.area().unused_id(), 3U) << "the number of the profile's password is not given out again";
  EXPECT_EQ(code_of(backup.unlock_with_passphrase(kit().passphrase)), Code::kNotFound);
  EXPECT_TRUE(ok(backup.unlock_with_recovery(kit().recovery)).key.equals(kit().key));
}

TEST_F(Store, AllSlotsInTheVolumeWhereAskedOrWithoutAProfile) {
  VolumeStore::Places places = both();
  places.slots_in_volume = true;
  made(places);
  EXPECT_EQ(ids_of(ok(VolumeStore::open(only_lower())).area()), (Ids{1, 2}));
  // The setting goes back: the next repair takes the password out of LOWER, .bak included.
  VolumeStore store = ok(VolumeStore::open(both()));
  ok(store.repair(kit().key));
  EXPECT_FALSE(anywhere({lower.path()}, essence(kit().area.slots[0])));
  const Scratch alone;
  VolumeStore::Places p;
  p.lower_dir = alone.fd();
  made(p);
  EXPECT_EQ(ids_of(ok(VolumeStore::open(p)).area()), (Ids{1, 2}));
}

TEST_F(Store, CreateNeverOverwrites) {
  for (const char* name : {".ecfs-volume", ".ecfs-volume.bak"}) {
    put(lower.fd(), name, "something");
    EXPECT_EQ(code_of(VolumeStore::create(both(), kit().header, kit().area, kit().key)), Code::kBusy);
    EXPECT_EQ(as_text(get(lower.fd(), name)), "something");
    EXPECT_TRUE(names_in(profile.path()).empty());
    ASSERT_EQ(unlinkat(lower.fd(), name, 0), 0);
  }
  ASSERT_EQ(symlinkat("nowhere", profile.fd(), "volume"), 0);
  EXPECT_EQ(code_of(VolumeStore::create(both(), kit().header, kit().area, kit().key)), Code::kBusy);
  ASSERT_EQ(unlinkat(profile.fd(), "volume", 0), 0);
  EXPECT_EQ(code_of(VolumeStore::create(both(), kit().header, {}, kit().key)), Code::kInvalid);
  EXPECT_EQ(code_of(VolumeStore::create({}, kit().header, kit().area, kit().key)), Code::kInvalid);
  EXPECT_TRUE(names_in(lower.path()).empty());
  made(both());
}

TEST_F(Store, NothingThereIsNotFound) {
  EXPECT_EQ(code_of(VolumeStore::open(both())), Code::kNotFound);
  EXPECT_EQ(code_of(VolumeStore::open({})), Code::kInvalid);
}

TEST_F(Store, TellsHowEachCopyIs) {
  using How = VolumeStore::CopyState::How;
  const auto hows = [&](const VolumeStore::Places& places) {
    VolumeStore store = ok(VolumeStore::open(places));
    ok(store.unlock_with_key(ok(kit().key.clone())));
    std::vector<How> out;
    for (const auto& copy : store.copies(kit().key)) {
      out.push_back(copy.how);
      EXPECT_EQ(copy.path.empty(), false);
      EXPECT_EQ(copy.why.empty(), copy.how == How::kGood || copy.how == How::kMissing) << copy.path;
    }
    return out;
  };
  const std::vector<How> all_good(4, How::kGood);
  VolumeStore store = made(both());
  EXPECT_EQ(hows(both()), all_good);
  const Bytes first = get(lower.fd(), ".ecfs-volume");
  ok(store.add_slot(kit().key, kit().third));
  EXPECT_EQ(hows(both()), all_good) << "a .bak is of the version before";
  // LOWER brought back from a backup.
  put(lower.fd(), ".ecfs-volume", as_text(first));
  EXPECT_EQ(hows(both()), (std::vector{How::kGood, How::kGood, How::kOlder, How::kGood}));
  ok(store.unlock_with_key(ok(kit().key.clone())));
  VolumeStore again = ok(VolumeStore::open(both()));
  ok(again.unlock_with_key(ok(kit().key.clone())));
  ok(again.repair(kit().key));
  EXPECT_EQ(hows(both()), all_good);
  // A .bak with a slot that was removed since.
  const Bytes with_both = get(profile.fd(), "volume");
  ok(again.remove_slot(kit().key, 2));
  EXPECT_EQ(hows(both()), all_good);
  put(profile.fd(), "volume.bak", as_text(with_both));
  EXPECT_EQ(hows(both()), (std::vector{How::kGood, How::kOlder, How::kGood, How::kGood}));
  // Missing; damaged so that it shows, and so that only the MAC tells.
  ASSERT_EQ(unlinkat(profile.fd(), "volume.bak", 0), 0);
  put(lower.fd(), ".ecfs-volume.bak", "rubbish");
  Bytes changed = get(lower.fd(), ".ecfs-volume");
  changed[40] ^= 1;
  put(lower.fd(), ".ecfs-volume", as_text(changed));
  EXPECT_EQ(hows(both()), (std::vector{How::kGood, How::kMissing, How::kDamaged, How::kDamaged}));
  VolumeStore mended = ok(VolumeStore::open(both()));
  ok(mended.unlock_with_key(ok(kit().key.clone())));
  ok(mended.repair(kit().key));
  EXPECT_EQ(hows(both()), all_good);
  EXPECT_EQ(hows(only_lower()).size(), 2U);
}

TEST_F(Store, AddRemoveReplace) {
  VolumeStore store = made(both());
  ok(store.add_slot(kit().key, kit().third));
  EXPECT_EQ(store.area().generation, 2U);
  EXPECT_EQ(ids_of(area_in(profile, "volume")), (Ids{1, 2, 3}));
  EXPECT_EQ(ids_of(area_in(lower, ".ecfs-volume")), (Ids{2, 3}));
  EXPECT_EQ(ids_of(area_in(profile, "volume.bak")), (Ids{1, 2})) << "the version before";
  EXPECT_EQ(ok(store.unlock_with_recovery(kit().other_recovery)).slot_id, 3U);

  ok(store.remove_slot(kit().key, 2));
  EXPECT_EQ(store.area().generation, 3U);
  EXPECT_TRUE(nowhere(kit().area.slots[1]));
  EXPECT_EQ(code_of(store.unlock_with_recovery(kit().recovery)), Code::kWrongKey);
  EXPECT_EQ(ok(VolumeStore::open(both())).area().generation, 3U);
  EXPECT_EQ(area_in(lower, ".ecfs-volume").generation, 3U);

  const std::uint32_t id = store.area().unused_id();
  EXPECT_EQ(id, 4U) << "numbers do not come back";
  const Slot fresh = ok(make_password_slot(kit().header.id, id, "", kit().key, kit().other_passphrase, kCheapCost));
  ok(store.replace_slot(kit().key, 1, fresh));
  EXPECT_TRUE(nowhere(kit().area.slots[0]));
  EXPECT_EQ(ids_of(store.area()), (Ids{3, 4}));
  EXPECT_EQ(store.area().generation, 5U);
  VolumeStore again = ok(VolumeStore::open(both()));
  EXPECT_EQ(ok(again.unlock_with_passphrase(kit().other_passphrase)).slot_id, 4U);
  EXPECT_EQ(code_of(again.unlock_with_passphrase(kit().passphrase)), Code::kWrongKey);
  EXPECT_EQ(names_in(profile.path()), (std::set<std::string>{"volume", "volume.bak"}));
  EXPECT_EQ(names_in(lower.path()), (std::set<std::string>{".ecfs-volume", ".ecfs-volume.bak"}));
}

TEST_F(Store, RequestsThatMakeNoSense) {
  VolumeStore store = made(both());
  EXPECT_EQ(code_of(store.remove_slot(kit().key, 9)), Code::kNotFound);
  EXPECT_EQ(code_of(store.replace_slot(kit().key, 9, kit().third)), Code::kNotFound);
  EXPECT_EQ(code_of(store.add_slot(kit().key, kit().area.slots[0])), Code::kInvalid);
  Slot zero = kit().third;
  zero.id = 0;
  EXPECT_EQ(code_of(store.add_slot(kit().key, zero)), Code::kInvalid);
  EXPECT_EQ(store.area().generation, 1U);
}

TEST_F(Store, TheLastWaysInStay) {
  VolumeStore store = made(both());
  EXPECT_EQ(code_of(store.remove_slot(kit().key, 2)), Code::kDenied) << "LOWER alone could not be opened any more";
  ok(store.remove_slot(kit().key, 2, true));
  EXPECT_TRUE(area_in(lower, ".ecfs-volume").slots.empty());
  EXPECT_EQ(code_of(store.remove_slot(kit().key, 1)), Code::kDenied);
  EXPECT_EQ(code_of(store.remove_slot(kit().key, 1, true)), Code::kDenied);
  EXPECT_TRUE(ok(VolumeStore::open(both())).unlock_with_passphrase(kit().passphrase));
  // A slot that this program cannot open is no way in.
  Slot unknown;
  unknown.id = store.area().unused_id();
  unknown.type = SlotType::kPublicKey;
  unknown.raw.assign(64, 1);
  store_le(unknown.raw.data(), 64U);
  store_le(unknown.raw.data() + 4, std::uint16_t{5});
  store_le(unknown.raw.data() + 8, unknown.id);
  ok(store.add_slot(kit().key, unknown));
  EXPECT_EQ(code_of(store.remove_slot(kit().key, 1)), Code::kDenied);
}

TEST_F(Store, FullOfSlots) {
  VolumeStore store = made(only_lower());
  std::size_t added = 0;
  Status last;
  while (last && added < 40) {
    last = store.add_slot(
        kit().key, ok(make_recovery_slot(kit().header.id, store.area().unused_id(), "", kit().key, kit().recovery)));
    added += last ? 1 : 0;
  }
  EXPECT_EQ(code_of(last), Code::kInvalid);
  EXPECT_EQ(store.area().slots.size(), kMaxSlots - 1);
  ok(store.replace_slot(
      kit().key, 1, ok(make_recovery_slot(kit().header.id, store.area().unused_id(), "", kit().key, kit().recovery))));
}

TEST_F(Store, ADamagedByteAnywhereCostsNothing) {
  made(both());
  const Bytes good = get(profile.fd(), "volume");
  for (std::size_t at = 0; at < good.size(); ++at) {
    Bytes bad = good;
    bad[at] ^= 0x41;
    put(profile.fd(), "volume", bad);
    auto store = VolumeStore::open(both());
    if (at == 12 || at == 13) {  // reads as a later version: not for us to go behind it
      EXPECT_EQ(code_of(store), Code::kUnsupported);
      continue;
    }
    if (!store && store.error().code == Code::kUnsupported) {
      EXPECT_TRUE(at >= 44 && at < 48) << at;  // incompat bits
      continue;
    }
    ASSERT_TRUE(store) << at << ' ' << store.error().what;
    auto opened = store->unlock_with_recovery(kit().recovery);
    ASSERT_TRUE(opened) << at << ' ' << opened.error().what;
    EXPECT_TRUE(opened->key.equals(kit().key));
    EXPECT_EQ(store->file().raw, good) << at;
    ASSERT_EQ(store->notes().size(), 1U) << at;
    EXPECT_NE(store->notes()[0].find("volume is damaged"), std::string::npos) << store->notes()[0];
    ok(store->repair(kit().key));
    EXPECT_EQ(get(profile.fd(), "volume"), good) << at;
  }
}

TEST_F(Store, ADamagedPasswordSlotIsFoundInThePreviousVersion) {
  made(both());
  Bytes bad = get(profile.fd(), "volume");
  bad[64 + 16 + 40] ^= 1;  // in the salt of slot 1: the shape is right
  put(profile.fd(), "volume", bad);
  VolumeStore store = ok(VolumeStore::open(both()));
  EXPECT_TRUE(store.notes().empty());
  EXPECT_TRUE(store.unlock_with_passphrase(kit().passphrase));
  EXPECT_EQ(store.notes().size(), 1U);
  EXPECT_TRUE(verify_volume_file(store.file(), kit().key));
  EXPECT_EQ(code_of(ok(VolumeStore::open(both())).unlock_with_passphrase(kit().other_passphrase)), Code::kWrongKey);
}

TEST_F(Store, EveryPlaceServesWhenTheOthersAreGone) {
  made(both());
  const std::pair<int, std::string> kCopies[] = {{profile.fd(), "volume"},
                                                 {profile.fd(), "volume.bak"},
                                                 {lower.fd(), ".ecfs-volume"},
                                                 {lower.fd(), ".ecfs-volume.bak"}};
  for (const char* how : {"gone", "empty", "cut", "fifo", "directory", "huge"}) {
    for (std::size_t survivor = 0; survivor < 4; ++survivor) {
      std::vector<Bytes> saved;
      for (std::size_t i = 0; i < 4; ++i) {
        const auto& [dir, name] = kCopies[i];
        saved.push_back(get(dir, name));
        if (i == survivor) continue;
        ASSERT_EQ(unlinkat(dir, name.c_str(), 0), 0);
        const std::string_view kind = how;
        if (kind == "empty") put(dir, name, "");
        if (kind == "cut") put(dir, name, ByteView(saved[i]).first(saved[i].size() / 2));
        if (kind == "fifo") {
          ASSERT_EQ(mkfifoat(dir, name.c_str(), 0600), 0);
        }
        if (kind == "directory") {
          ASSERT_EQ(mkdirat(dir, name.c_str(), 0700), 0);
        }
        if (kind == "huge") put(dir, name, Bytes((1U << 20) + 1, 'x'));
      }
      auto store = VolumeStore::open(both());
      ASSERT_TRUE(store) << how << survivor << ' ' << store.error().what;
      EXPECT_TRUE(store->unlock_with_recovery(kit().recovery)) << how << survivor;
      EXPECT_FALSE(store->notes().empty());
      for (std::size_t i = 0; i < 4; ++i) {
        const auto& [dir, name] = kCopies[i];
        (void)unlinkat(dir, name.c_str(), std::string_view(how) == "directory" && i != survivor ? AT_REMOVEDIR : 0);
        put(dir, name, saved[i]);
      }
    }
  }
  for (const auto& [dir, name] : kCopies) put(dir, name, "damaged");
  EXPECT_EQ(code_of(VolumeStore::open(both())), Code::kCorrupt);
}

TEST_F(Store, RepairBringsBackWhatIsMissing) {
  made(both());
  for (const char* name : {"volume", "volume.bak"}) ASSERT_EQ(unlinkat(profile.fd(), name, 0), 0);
  VolumeStore store = ok(VolumeStore::open(both()));
  ASSERT_EQ(store.notes().size(), 1U);
  EXPECT_NE(store.notes()[0].find("volume is missing"), std::string::npos);
  ok(store.unlock_with_recovery(kit().recovery));
  ok(store.repair(kit().key));
  EXPECT_EQ(ids_of(area_in(profile, "volume")), Ids{2});
  EXPECT_EQ(names_in(profile.path()).size(), 2U);
}

TEST_F(Store, RepairWritesNothingIfAllIsWell) {
  VolumeStore store = made(both());
  ok(store.add_slot(kit().key, kit().third));
  const auto inode = [&](const Scratch& dir, const char* name) {
    struct stat st {};
    EXPECT_EQ(stat((dir / name).c_str(), &st), 0);
    return st.st_ino;
  };
  const std::array<ino_t, 4> before = {inode(profile, "volume"), inode(profile, "volume.bak"),
                                       inode(lower, ".ecfs-volume"), inode(lower, ".ecfs-volume.bak")};
  VolumeStore again = ok(VolumeStore::open(both()));
  ok(again.repair(kit().key));
  const std::array<ino_t, 4> after = {inode(profile, "volume"), inode(profile, "volume.bak"),
                                      inode(lower, ".ecfs-volume"), inode(lower, ".ecfs-volume.bak")};
  EXPECT_EQ(before, after);
}

TEST_F(Store, AnOlderLowerIsToldAndRenewed) {
  VolumeStore store = made(both());
  const Bytes old = get(lower.fd(), ".ecfs-volume");
  ok(store.add_slot(kit().key, kit().third));
  ok(store.remove_slot(kit().key, 2));
  put(lower.fd(), ".ecfs-volume", old);
  put(lower.fd(), ".ecfs-volume.bak", old);
  VolumeStore again = ok(VolumeStore::open(both()));
  EXPECT_EQ(code_of(again.unlock_with_recovery(kit().recovery)), Code::kWrongKey) << "that slot was removed";
  EXPECT_TRUE(again.unlock_with_recovery(kit().other_recovery));
  ASSERT_EQ(again.notes().size(), 1U);
  EXPECT_NE(again.notes()[0].find("older"), std::string::npos);
  ok(again.repair(kit().key));
  EXPECT_TRUE(nowhere(kit().area.slots[1]));
  EXPECT_EQ(area_in(lower, ".ecfs-volume").generation, 3U);
}

TEST_F(Store, AnOlderProfileTakesWhatTheVolumeLearned) {
  made(both());
  // Elsewhere, without this profile: a new recovery key, a password, and the old recovery key removed.
  VolumeStore elsewhere = ok(VolumeStore::open(only_lower()));
  ok(elsewhere.add_slot(kit().key, kit().third));
  const Slot password = ok(make_password_slot(kit().header.id, elsewhere.area().unused_id(), "", kit().key,
                                              kit().other_passphrase, kCheapCost));
  ok(elsewhere.add_slot(kit().key, password));
  ok(elsewhere.remove_slot(kit().key, 2));
  for (const bool by_recovery : {true, false}) {
    VolumeStore store = ok(VolumeStore::open(both()));
    EXPECT_EQ(ids_of(store.area()), (Ids{1, 2})) << "nothing is believed before the key is there";
    if (by_recovery) {
      EXPECT_EQ(ok(store.unlock_with_recovery(kit().other_recovery)).slot_id, 3U);
    } else {
      EXPECT_EQ(ok(store.unlock_with_passphrase(kit().passphrase)).slot_id, 1U);
    }
    EXPECT_EQ(ids_of(store.area()), (Ids{1, 3, 4}));
    EXPECT_FALSE(store.notes().empty());
  }
  VolumeStore store = ok(VolumeStore::open(both()));
  ok(store.unlock_with_passphrase(kit().passphrase));
  ok(store.repair(kit().key));
  EXPECT_EQ(ids_of(area_in(profile, "volume")), (Ids{1, 3, 4}));
  EXPECT_EQ(ids_of(area_in(lower, ".ecfs-volume")), Ids{3});
  EXPECT_EQ(area_in(profile, "volume").generation, area_in(lower, ".ecfs-volume").generation);
  EXPECT_TRUE(nowhere(kit().area.slots[1]));
  EXPECT_TRUE(ok(VolumeStore::open(both())).notes().empty());
}

TEST_F(Store, CopiesThatWentApartFollowTheProfile) {
  VolumeStore store = made(both());
  const Bytes common = get(lower.fd(), ".ecfs-volume");
  ok(ok(VolumeStore::open(only_lower())).add_slot(kit().key, kit().third));  // slot 3 there: a recovery key
  const Bytes apart = get(lower.fd(), ".ecfs-volume");
  put(lower.fd(), ".ecfs-volume", common);
  store = ok(VolumeStore::open(both()));
  ok(store.add_slot(kit().key, kit().third_password));  // slot 3 here: a password
  put(lower.fd(), ".ecfs-volume", apart);

  VolumeStore again = ok(VolumeStore::open(both()));
  EXPECT_EQ(code_of(again.unlock_with_recovery(kit().other_recovery)), Code::kWrongKey);
  EXPECT_EQ(ok(again.unlock_with_passphrase(kit().other_passphrase)).slot_id, 3U);
  const auto told = [](const std::string& note) { return note.find("slot 3 ") != std::string::npos; };
  EXPECT_TRUE(std::any_of(again.notes().begin(), again.notes().end(), told)) << "a key that is lost is told of";
  ok(again.repair(kit().key));
  EXPECT_EQ(ids_of(area_in(lower, ".ecfs-volume")), Ids{2});
  EXPECT_TRUE(nowhere(kit().third));

  // The other side went further: its numbers in use here are told, and nothing of the profile's own is lost.
  put(lower.fd(), ".ecfs-volume", apart);
  put(lower.fd(), ".ecfs-volume.bak", apart);
  VolumeStore elsewhere = ok(VolumeStore::open(only_lower()));
  ok(elsewhere.add_slot(kit().key, ok(make_recovery_slot(kit().header.id, 4, "", kit().key, kit().recovery))));
  again = ok(VolumeStore::open(both()));
  ok(again.unlock_with_passphrase(kit().passphrase));
  EXPECT_EQ(ids_of(again.area()), (Ids{1, 2, 3, 4}));
  EXPECT_EQ(again.area().find(3)->type, SlotType::kPassword);
  EXPECT_TRUE(std::any_of(again.notes().begin(), again.notes().end(), told));
}

TEST_F(Store, CopiesOfOneGenerationAreJoined) {
  VolumeStore store = made(both());
  const Bytes common = get(lower.fd(), ".ecfs-volume");
  ok(ok(VolumeStore::open(only_lower())).add_slot(kit().key, kit().third));  // slot 3 there, generation 2
  const Bytes apart = get(lower.fd(), ".ecfs-volume");
  put(lower.fd(), ".ecfs-volume", common);
  store = ok(VolumeStore::open(both()));
  ok(store.add_slot(kit().key, ok(make_recovery_slot(kit().header.id, 4, "", kit().key, kit().recovery))));
  put(lower.fd(), ".ecfs-volume", apart);

  VolumeStore again = ok(VolumeStore::open(both()));
  EXPECT_EQ(ok(again.unlock_with_recovery(kit().other_recovery)).slot_id, 3U);
  ok(again.repair(kit().key));
  EXPECT_EQ(ids_of(area_in(profile, "volume")), (Ids{1, 2, 3, 4}));
  EXPECT_EQ(ids_of(area_in(lower, ".ecfs-volume")), (Ids{2, 3, 4}));
}

TEST_F(Store, AnEmptyLowerDirectoryIsADiskThatIsNotThere) {
  EXPECT_EQ(code_of(check_lower_present(lower.fd(), "low")), Code::kUnavailable);
  ASSERT_EQ(mkdirat(lower.fd(), "lost+found", 0700), 0);
  EXPECT_EQ(code_of(check_lower_present(lower.fd(), "low")), Code::kUnavailable);
  put(lower.fd(), "x", Bytes{1});
  EXPECT_TRUE(check_lower_present(lower.fd(), "low"));
}

TEST_F(Store, AForgedNewerGenerationIsNotBelieved) {
  made(both());
  VolumeFile file = ok(parse_volume_file(get(lower.fd(), ".ecfs-volume")));
  SlotArea area = ok(parse_slots(file.slots));
  area.generation = 99;
  area.slots.clear();
  put(lower.fd(), ".ecfs-volume", ok(build_volume_file(file.header, build_slots(area), ok(Secret::random(32)))));
  VolumeStore store = ok(VolumeStore::open(both()));
  ok(store.unlock_with_passphrase(kit().passphrase));
  EXPECT_EQ(ids_of(store.area()), (Ids{1, 2}));
  ok(store.repair(kit().key));
  EXPECT_EQ(ids_of(area_in(lower, ".ecfs-volume")), Ids{2});
  EXPECT_EQ(area_in(lower, ".ecfs-volume").generation, 1U);
}

TEST_F(Store, AnotherVolumeIsNeitherOpenedNorOverwritten) {
  made(both());
  VolumeHeader foreign_header = kit().header;
  foreign_header.id.fill(1);
  const Scratch foreign_lower;
  VolumeStore::Places foreign;
  foreign.lower_dir = foreign_lower.fd();
  const Slot slot = ok(make_recovery_slot(foreign_header.id, 1, "", kit().key, kit().recovery));
  SlotArea foreign_area;
  foreign_area.slots.push_back(slot);
  ok(VolumeStore::create(foreign, foreign_header, foreign_area, kit().key));
  const Bytes raw = get(foreign_lower.fd(), ".ecfs-volume");

  VolumeStore::Places mixed = both();
  mixed.lower_dir = foreign_lower.fd();
  EXPECT_EQ(code_of(VolumeStore::open(mixed)), Code::kDenied);
  mixed.pinned.reset();
  EXPECT_EQ(code_of(VolumeStore::open(mixed)), Code::kDenied) << "the profile's header says which it is";
  foreign.pinned = kit().header.id;
  EXPECT_EQ(code_of(VolumeStore::open(foreign)), Code::kDenied);
  EXPECT_EQ(get(foreign_lower.fd(), ".ecfs-volume"), raw);
  // In the profile's place, too.
  put(profile.fd(), "volume", raw);
  put(profile.fd(), "volume.bak", raw);
  EXPECT_EQ(code_of(VolumeStore::open(both())), Code::kDenied);
}

TEST_F(Store, ALaterVersionIsNotTakenForDamage) {
  made(both());
  Bytes later = get(profile.fd(), "volume");
  later[12] = 2;
  put(profile.fd(), "volume", later);
  EXPECT_EQ(code_of(VolumeStore::open(both())), Code::kUnsupported);
}

TEST_F(Store, ChangesByOthersAreNoticed) {
  made(only_lower());
  VolumeStore a = ok(VolumeStore::open(only_lower()));
  VolumeStore b = ok(VolumeStore::open(only_lower()));
  ok(a.add_slot(kit().key, kit().third));
  EXPECT_EQ(code_of(b.add_slot(kit().key, kit().third_password)), Code::kBusy);
  EXPECT_EQ(ids_of(area_in(lower, ".ecfs-volume")), (Ids{1, 2, 3}));
  EXPECT_EQ(area_in(lower, ".ecfs-volume").find(3)->type, SlotType::kRecovery);
}

TEST_F(Store, ManyWritersLoseNothing) {
  made(only_lower());
  constexpr int kWriters = 12;
  std::vector<pid_t> writers;
  for (int i = 0; i < kWriters; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      for (int tries = 0; tries < 200; ++tries) {
        auto store = VolumeStore::open(only_lower());
        if (!store) _exit(2);
        auto slot = make_recovery_slot(kit().header.id, store->area().unused_id(), "", kit().key, kit().recovery);
        if (!slot) _exit(3);
        const auto done = store->add_slot(kit().key, *std::move(slot));
        if (done) _exit(0);
        if (done.error().code != Code::kBusy) _exit(4);
        usleep(1000);
      }
      _exit(5);
    }
    writers.push_back(pid);
  }
  for (const pid_t pid : writers) {
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(area_in(lower, ".ecfs-volume").slots.size(), 2U + kWriters);
  EXPECT_EQ(area_in(lower, ".ecfs-volume").generation, 1U + kWriters);
}

TEST_F(Store, RootGivesFilesToTheirOwner) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(chown(lower.path().c_str(), 1001, 1002), 0);
  ASSERT_EQ(chown(profile.path().c_str(), 1001, 1002), 0);
  VolumeStore store = made(both());
  ok(store.add_slot(kit().key, kit().third));
  for (const std::string& path :
       {profile / "volume", lower / ".ecfs-volume", profile / "volume.bak", lower / ".ecfs-volume.bak"}) {
    struct stat st {};
    ASSERT_EQ(stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, 1001U) << path;
    EXPECT_EQ(st.st_gid, 1002U) << path;
    EXPECT_EQ(st.st_mode & 07777, 0600U) << path;
  }
  EXPECT_TRUE(VolumeStore::open(both()));
  // In a directory of root's the header's owner counts, for the .bak as well.
  ASSERT_EQ(chown(lower.path().c_str(), 0, 0), 0);
  ASSERT_EQ(unlinkat(lower.fd(), ".ecfs-volume.bak", 0), 0);
  store = ok(VolumeStore::open(both()));
  ok(store.repair(kit().key));
  struct stat bak {};
  ASSERT_EQ(stat((lower / ".ecfs-volume.bak").c_str(), &bak), 0);
  EXPECT_EQ(bak.st_uid, 1001U);
  ASSERT_EQ(chown((profile / "volume").c_str(), 1003, 1002), 0);
  ASSERT_EQ(chown((profile / "volume.bak").c_str(), 1003, 1002), 0);
  VolumeStore foreign = ok(VolumeStore::open(both()));
  EXPECT_FALSE(foreign.notes().empty()) << "a profile's header of another user is not believed";
  EXPECT_EQ(ids_of(foreign.area()), (Ids{2, 3}));
}

TEST_F(Store, LeftoversOfACrashGo) {
  VolumeStore store = made(both());
  put(profile.fd(), "volume.tmp", "left");
  put(profile.fd(), "volume.bak.tmp", "left");
  put(lower.fd(), ".ecfs-volume.tmp", "left");
  ok(store.add_slot(kit().key, kit().third));
  EXPECT_EQ(names_in(profile.path()).size(), 2U);
  EXPECT_EQ(names_in(lower.path()).size(), 2U);
}

TEST_F(Store, HostileSlotAreasCostLittle) {
  // Every slot a password slot at the largest cost that is still read: what is tried is bounded.
  SlotArea area;
  for (std::uint32_t i = 1; i <= kMaxSlots; ++i) {
    Slot s = kit().area.slots[0];
    store_le(s.raw.data() + 8, i);
    s.id = i;
    s.raw[32 + 5 + 16] = 8;  // memory: 8 KiB, one pass; quick to compute here, what counts is how many are
    s.raw[32 + 5 + 17] = 0;
    s.raw[32 + 5 + 18] = 0;
    area.slots.push_back(s);
  }
  area.generation = 1;
  put(lower.fd(), ".ecfs-volume", ok(build_volume_file(kit().header, build_slots(area), kit().key)));
  VolumeStore store = ok(VolumeStore::open(only_lower()));
  EXPECT_EQ(code_of(store.unlock_with_passphrase(kit().passphrase)), Code::kWrongKey);
}

// With every number of free pages: either the change is whole, or nothing has changed.
TEST(StoreOnAFullDisk, OldStateIntact) {
  const TinyFilesystem disk(256 * 1024);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount";
  ASSERT_EQ(mkdirat(disk.fd(), "lower", 0700), 0);
  ASSERT_EQ(mkdirat(disk.fd(), "profile", 0700), 0);
  const Fd lower = ok(open_directory(disk.fd(), "lower"));
  const Fd profile = ok(open_directory(disk.fd(), "profile"));
  VolumeStore::Places places;
  places.lower_dir = lower.get();
  places.profile_dir = profile.get();
  ok(VolumeStore::create(places, kit().header, kit().area, kit().key));
  const std::vector<std::pair<int, std::string>> copies = {{profile.get(), "volume"},
                                                           {profile.get(), "volume.bak"},
                                                           {lower.get(), ".ecfs-volume"},
                                                           {lower.get(), ".ecfs-volume.bak"}};
  std::vector<Bytes> before;
  for (const auto& [dir, name] : copies) before.push_back(get(dir, name));
  bool refused = false;
  bool done = false;
  for (std::size_t free_pages = 0; free_pages <= 6; ++free_pages) {
    const Fd filler(openat(disk.fd(), "filler", O_RDWR | O_CREAT | O_TRUNC, 0600));
    off_t filled = 0;
    const Bytes page(4096, 'x');
    while (write_all(filler.get(), page)) filled += 4096;
    ASSERT_EQ(ftruncate(filler.get(), filled - static_cast<off_t>(free_pages * 4096)), 0);
    VolumeStore store = ok(VolumeStore::open(places));
    const Status added = store.add_slot(kit().key, kit().third);
    if (added) {
      done = true;
      EXPECT_EQ(ok(VolumeStore::open(places)).area().generation, 2U);
      break;
    }
    refused = true;
    EXPECT_EQ(added.error().code, Code::kNoSpace) << added.error().what;
    for (std::size_t i = 0; i < copies.size(); ++i) EXPECT_EQ(get(copies[i].first, copies[i].second), before[i]);
    EXPECT_EQ(names_in(disk / "lower").size(), 2U);
    EXPECT_EQ(names_in(disk / "profile").size(), 2U);
    EXPECT_TRUE(store.unlock_with_recovery(kit().recovery)) << "the store in memory is as before, too";
    EXPECT_EQ(store.area().generation, 1U);
  }
  EXPECT_TRUE(refused && done);
}

TEST(StoreOnAFullDisk, CreateLeavesNothing) {
  const TinyFilesystem disk(64 * 1024);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount";
  const Scratch profile;
  const Fd filler(openat(disk.fd(), "filler", O_RDWR | O_CREAT, 0600));
  const Bytes page(4096, 'x');
  while (write_all(filler.get(), page)) {
  }
  VolumeStore::Places places;
  places.lower_dir = disk.fd();
  places.profile_dir = profile.fd();
  EXPECT_EQ(code_of(VolumeStore::create(places, kit().header, kit().area, kit().key)), Code::kNoSpace);
  EXPECT_TRUE(names_in(profile.path()).empty());
  EXPECT_EQ(names_in(disk.path()), std::set<std::string>{"filler"});
}

}  // namespace
}  // namespace ecfs::wrap
