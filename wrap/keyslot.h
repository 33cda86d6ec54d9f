// Key slots: the ways to one secret (the volume key, or an eCryptfs mount passphrase). Byte by byte in wrap/FORMAT.md.
//
// The slot area is parsed as hostile input. A slot's own bytes are the associated data of its wrapped secret, and the
// whole area stands under the volume header's MAC. Types and versions this program does not know are kept as they are
// and skipped. Values, not shared: safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/kdf.h"
#include "wrap/recovery_key.h"
#include "wrap/tpm2.h"
#include "wrap/volume_header.h"

namespace ecfs::wrap {

enum class SlotType : std::uint16_t {
  kPassword = 1,
  kRecovery = 2,
  kTpm2 = 3,
  kTpm2Password = 4,
  kPublicKey = 5,
  kKeyfile = 6,
};

// slot_type_name: "password", "recovery", ...; "unknown" for another number.
std::string_view slot_type_name(SlotType type) noexcept;
std::optional<SlotType> slot_type_from_name(std::string_view name) noexcept;

constexpr std::size_t kMaxSlots = 32;
constexpr std::size_t kMaxSlotBytes = 64 * 1024;
constexpr std::size_t kMaxSlotLabelBytes = 64;
constexpr std::size_t kMaxSlotSecretBytes = 64;

// One slot as it is stored, with its common fields read. Records of a later version have only `raw`, `type`, `version`
// and `id`.
struct Slot {
  std::uint32_t id = 0;  // unique in its volume, never 0; what the user names it by
  SlotType type{};
  std::uint8_t version = 1;
  std::int64_t created = 0;  // seconds since the epoch
  std::string label;         // UTF-8, chosen by the user or empty
  Bytes raw;                 // the stored record, whole

  [[nodiscard]] bool known() const noexcept;  // can this program open it, given the right input?
};

struct SlotArea {
  std::uint64_t generation = 0;  // counts the updates of the volume's slots; begins with 1
  std::vector<Slot> slots;
  std::uint32_t next_id = 1;  // above every id ever given out, so that a removed slot's number never comes back

  [[nodiscard]] const Slot* find(std::uint32_t id) const noexcept;
  [[nodiscard]] std::size_t count(SlotType type) const noexcept;
  [[nodiscard]] std::uint32_t unused_id() const noexcept;  // for the next slot: never used before; 0: none is left
};

// parse_slots: kCorrupt for anything out of bounds: more than kMaxSlots, two equal ids, lengths that do not add up.
Result<SlotArea> parse_slots(ByteView area);
Bytes build_slots(const SlotArea& area);

// make_password_slot wraps `secret` under Argon2id(passphrase). The passphrase has 1..4096 bytes. The new slot is
// opened again before it is handed out (the work is done twice): bad memory shall not cost anybody his way in.
Result<Slot> make_password_slot(const VolumeId& volume, std::uint32_t id, std::string_view label, const Secret& secret,
                                const Secret& passphrase, const Argon2Cost& cost);
Result<Slot> make_recovery_slot(const VolumeId& volume, std::uint32_t id, std::string_view label, const Secret& secret,
                                const RecoveryKey& key);

// open_password_slot and open_recovery_slot give the secret; kWrongKey if the input does not fit, kCorrupt if the
// record is malformed or its costs are hostile (nothing is then computed).
Result<Secret> open_password_slot(const VolumeId& volume, const Slot& slot, const Secret& passphrase);
Result<Secret> open_recovery_slot(const VolumeId& volume, const Slot& slot, const RecoveryKey& key);

// A slot of type tpm2 or, with a passphrase, tpm2+password: a random secret that the TPM seals to the present values of
// `pcrs` is mixed into the key. The TPM is shown a part of what the passphrase gives, and counts the wrong ones; the
// other part goes into the key beside the TPM's secret, so that a broken TPM is not enough either.
struct Tpm2Lock {
  Tpm2* tpm = nullptr;
  PcrSet pcrs = 0;
  const Secret* passphrase = nullptr;  // null: type tpm2
  Argon2Cost cost;                     // of the passphrase
};
Result<Slot> make_tpm2_slot(const VolumeId& volume, std::uint32_t id, std::string_view label, const Secret& secret,
                            const Tpm2Lock& lock);
// open_tpm2_slot: errors as in wrap/tpm2.h. `passphrase` is of tpm2+password, and null for tpm2.
Result<Secret> open_tpm2_slot(const VolumeId& volume, const Slot& slot, Tpm2& tpm, const Secret* passphrase);
// tpm2_sealed reads what the TPM keeps of a slot of either type.
Result<Tpm2Sealed> tpm2_sealed(const Slot& slot);
bool is_tpm2(SlotType type) noexcept;

// password_cost reads the costs of a slot with a password, for `ecfs key list`.
Result<Argon2Cost> password_cost(const Slot& slot);

}  // namespace ecfs::wrap
