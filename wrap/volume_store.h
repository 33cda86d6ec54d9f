// The volume header where it lives: in LOWER/.ecfs-volume and, for a user's profile, in ~/.ecfs/NAME/volume.
//
// Both copies carry one authenticated generation number. The profile's has authority and holds every slot; LOWER's
// holds the recovery slots only, unless the volume has no profile or the profile says slots_in_volume. Updates write
// the profile's copy first, then LOWER's; each is replaced atomically with the previous kept as `.bak`, and `.bak`
// renewed when a slot was removed or replaced (native-format.md §2), so that no removed slot stays behind.
//
// Not synchronised: the callers hold the volume's lock (lock_volume) while they change it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/keyslot.h"
#include "wrap/volume_header.h"

namespace ecfs::wrap {

constexpr const char* kVolumeFileName = ".ecfs-volume";  // in LOWER
constexpr const char* kProfileVolumeName = "volume";     // in ~/.ecfs/NAME

struct Unlocked {
  Secret key;                 // the volume's secret (VolumeKind), proven against the header's MAC
  std::uint32_t slot_id = 0;  // the slot that opened
};

// check_lower_present gives kUnavailable if the lower directory of a profile is empty, as its mountpoint is where its
// disk is not there: to open that would show an empty volume, and what is written then would stand beside the real
// one. A volume that only lost its header has files, and is repaired. `path` is for the message.
Status check_lower_present(int lower_dir, const std::string& path);

class VolumeStore {
 public:
  struct Places {
    int lower_dir = -1;    // descriptor of LOWER; -1: not there (tools that only look at the profile, and
                           // eCryptfs trees, which hold no header)
    int profile_dir = -1;  // descriptor of ~/.ecfs/NAME; -1: a volume without a profile
    VolumeKind kind = VolumeKind::kNative;
    bool slots_in_volume = false;  // LOWER's copy holds all slots although there is a profile
    std::optional<VolumeId>
        pinned;  // from the profile: another id is refused (kDenied), never opened under the old name
  };

  // create writes a new volume's header to both places, with `area` as first slots (generation 1). An existing header
  // anywhere is kBusy: nothing is ever overwritten.
  static Result<VolumeStore> create(const Places& places, const VolumeHeader& header, SlotArea area,
                                    const Secret& volume_key);

  // open reads the header: the profile's copy, else its `.bak`, else LOWER's, else LOWER's `.bak`. What was found
  // damaged or missing on the way stands in notes(). No volume at all: kNotFound; only damaged ones: kCorrupt.
  static Result<VolumeStore> open(const Places& places);

  [[nodiscard]] const VolumeFile& file() const noexcept { return file_; }
  [[nodiscard]] const VolumeHeader& header() const noexcept { return file_.header; }
  [[nodiscard]] const SlotArea& area() const noexcept { return area_; }
  // notes are sentences for the user about what was wrong with the copies; empty if all is well.
  [[nodiscard]] const std::vector<std::string>& notes() const noexcept { return notes_; }

  // copies tells of each place where a copy belongs how the one there is, as it was last read; with the key proven by
  // an unlock. A `.bak` is of the version before: that it is older is right, but not that it has slots since removed.
  struct CopyState {
    enum class How { kGood, kMissing, kDamaged, kOlder };
    How how = How::kGood;
    std::string path;
    std::string why;  // of kDamaged and kOlder
  };
  [[nodiscard]] std::vector<CopyState> copies(const Secret& volume_key) const;

  // unlock_with_passphrase tries every password slot (at most 8 of a copy); kWrongKey if none opens, kNotFound if there
  // is no such slot, kCorrupt if the key that came out fits no copy's MAC. unlock_with_recovery likewise. A slot that
  // the copy in force no longer has does not open.
  //
  // Damage that only the MAC shows is found here: the first copy that the key proves is the one in force from then on,
  // and file(), header(), area() and notes() may change.
  Result<Unlocked> unlock_with_passphrase(const Secret& passphrase);
  Result<Unlocked> unlock_with_recovery(const RecoveryKey& key);
  // unlock_with_tpm2 tries the slots of type tpm2 or, with a passphrase, tpm2+password; with `only` that one slot
  // alone. A password that the TPM refused is not shown to it again: kWrongKey. If there are several they are all
  // tried; the error then tells of each.
  Result<Unlocked> unlock_with_tpm2(Tpm2& tpm, const Secret* passphrase, std::uint32_t only = 0);
  // unlock_with_key proves a key got elsewhere (a keyring token); kWrongKey if it does not fit.
  Result<Unlocked> unlock_with_key(Secret volume_key);

  // add_slot, remove_slot, replace_slot change both copies and read them back. The old slot of a replacement goes only
  // after the new one is on disk. The last slot that this program can open without a TPM cannot be removed (kDenied),
  // nor the last one that a copy of LOWER could be opened with unless `force`. kBusy: another program changed the
  // header since open().
  Status add_slot(const Secret& volume_key, Slot slot);
  Status remove_slot(const Secret& volume_key, std::uint32_t id, bool force = false);
  Status replace_slot(const Secret& volume_key, std::uint32_t old_id, Slot slot);

  // repair brings missing, damaged or older copies up to date, after an unlock. Nothing is written if all is well.
  // An older profile copy takes LOWER's newer recovery slots, and other slots that were added there, and keeps its own
  // others. Copies of one generation that differ (a profile brought back from a backup and changed again) are joined.
  Status repair(const Secret& volume_key);

 private:
  // One of the up to four files, as it was last read.
  struct Copy {
    int dir = -1;
    std::string name;
    bool in_profile = false;
    bool previous = false;           // a `.bak`
    Bytes raw;                       // what was read; empty: nothing
    std::optional<VolumeFile> file;  // where `raw` has the shape of this volume's header
    SlotArea area;
    std::string trouble;  // why there is no `file`, for a note; empty: it is not there
  };
  struct Update;

  explicit VolumeStore(const Places& places) : places_(places) {}
  Copy load(int dir, const char* name, bool in_profile, bool previous, std::optional<Error>& failure) const;
  Status read_copies();
  void note(std::string text);
  Status adopt(const Secret& volume_key);
  Result<Unlocked> unlock_with(SlotType type, const std::function<Result<Secret>(const VolumeId&, const Slot&)>& open);
  Status check_removal(const SlotArea& after, bool force) const;
  [[nodiscard]] SlotArea area_of_lower(const SlotArea& area) const;
  [[nodiscard]] Result<SlotArea> area_without(std::uint32_t id) const;
  Status write_with(const Secret& volume_key, Slot slot);
  Status write(const Secret& volume_key, const SlotArea& area, bool first = false);

  Places places_;
  VolumeFile file_;
  SlotArea area_;
  std::vector<Copy> copies_;  // in the order of trust: the profile's, its `.bak`, LOWER's, its `.bak`
  std::vector<std::string> notes_;
};

}  // namespace ecfs::wrap
