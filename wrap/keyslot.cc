#include "wrap/keyslot.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "wrap/base/log.h"
#include "wrap/crypto.h"

namespace ecfs::wrap {
namespace {

constexpr std::array<std::string_view, 6> kTypeNames = {"password",      "recovery",   "tpm2",
                                                        "tpm2+password", "public-key", "keyfile"};

constexpr std::size_t kAreaHeadBytes = 16;
constexpr std::size_t kPermanentHeadBytes = 12;  // what every version of a record begins with
constexpr std::size_t kHeadBytes = 32;
constexpr std::size_t kSmallestRecord = 64;
constexpr std::size_t kSaltBytes = 16;
constexpr std::size_t kCommitmentBytes = 32;
constexpr std::size_t kWrapBytes = kGcmNonceBytes + kGcmTagBytes + kCommitmentBytes;  // around the secret
constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kCostBytes = 12;
constexpr std::size_t kStretchedBytes = 64;  // of the passphrase of a TPM slot
constexpr std::size_t kMaxPassphraseBytes = 4096;
constexpr std::uint8_t kVersion = 1;

// A record of version 1, taken apart; the views point into Slot::raw.
struct Record {
  std::int64_t created = 0;
  ByteView label;
  ByteView parameters;
  ByteView covered;  // all before the nonce
  ByteView nonce;
  ByteView sealed;  // ciphertext || tag
  ByteView commitment;
};

Error malformed(const char* why) { return {Code::kCorrupt, 0, std::string("the key slot is damaged: ") + why}; }

Result<Record> take_apart(ByteView raw) {
  if (raw.size() < kHeadBytes) return malformed("it is cut short");
  const std::size_t label_len = raw[12];
  const std::size_t secret_len = raw[13];
  const std::size_t parameters_len = load_le<std::uint16_t>(raw.data() + 14);
  if (raw[7] != 0 || !all_zero(raw.subspan(24, 8))) return malformed("a field that is not in use is not zero");
  if (label_len > kMaxSlotLabelBytes || secret_len == 0 || secret_len > kMaxSlotSecretBytes ||
      raw.size() != kHeadBytes + label_len + parameters_len + secret_len + kWrapBytes) {
    return malformed("its lengths do not fit");
  }
  Record r;
  r.created = static_cast<std::int64_t>(load_le<std::uint64_t>(raw.data() + 16));
  r.label = raw.subspan(kHeadBytes, label_len);
  r.parameters = raw.subspan(kHeadBytes + label_len, parameters_len);
  r.covered = raw.first(kHeadBytes + label_len + parameters_len);
  ByteView rest = raw.subspan(r.covered.size());
  r.nonce = rest.first(kGcmNonceBytes);
  r.sealed = rest.subspan(kGcmNonceBytes, secret_len + kGcmTagBytes);
  r.commitment = rest.last(kCommitmentBytes);
  return r;
}

Result<Slot> read_slot(ByteView raw) {
  Slot slot;
  slot.type = static_cast<SlotType>(load_le<std::uint16_t>(raw.data() + 4));
  slot.version = raw[6];
  slot.id = load_le<std::uint32_t>(raw.data() + 8);
  if (slot.type == SlotType{} || slot.id == 0) return malformed("it has no type or no number");
  slot.raw.assign(raw.begin(), raw.end());
  // Damage behind this point is that slot's alone: it must not close the others.
  if (auto record = slot.version == kVersion ? take_apart(raw) : malformed(""); record) {
    slot.created = record->created;
    slot.label = as_text(record->label);
  }
  return slot;
}

Result<Record> open_record(const Slot& slot, SlotType type) {
  if (slot.type != type || slot.raw.size() < kPermanentHeadBytes) {
    return Error{Code::kInvalid, 0, "this is not a key slot of type " + std::string(slot_type_name(type))};
  }
  if (slot.version != kVersion) {
    return Error{Code::kUnsupported, 0, "the key slot was made by a later version of ecfs"};
  }
  return take_apart(slot.raw);
}

// The two halves of what a slot's input gives: the key that wraps, and the commitment to it.
struct SlotKeys {
  Secret key;
  Secret commitment;
};

Result<SlotKeys> slot_keys(const VolumeId& volume, SlotType type, ByteView covered, ByteView salt,
                           const Secret& input) {
  ECFS_LET(const Sha256 bound, sha256({volume, covered}));
  std::string info = "ecfs slot 1 ";
  info += slot_type_name(type);
  info += as_text(bound);
  ECFS_LET(const Secret prk, hkdf_extract(salt, input.reveal()));
  ECFS_LET(const Secret both, hkdf_expand(prk, info, kKeyBytes + kCommitmentBytes));
  SlotKeys keys;
  ECFS_LET(keys.key, Secret::copy_of(both.reveal().first(kKeyBytes)));
  ECFS_LET(keys.commitment, Secret::copy_of(both.reveal().last(kCommitmentBytes)));
  return keys;
}

Bytes associated_data(const VolumeId& volume, ByteView covered) {
  Bytes out(volume.begin(), volume.end());
  append(out, covered);
  return out;
}

Result<Secret> unwrap(const VolumeId& volume, SlotType type, const Record& record, ByteView salt, const Secret& input) {
  ECFS_LET(const SlotKeys keys, slot_keys(volume, type, record.covered, salt, input));
  if (!equal_constant_time(keys.commitment.reveal(), record.commitment)) {
    return Error{Code::kWrongKey, 0, "it does not open this key slot"};
  }
  auto secret = gcm_open(keys.key, record.nonce, associated_data(volume, record.covered), record.sealed);
  // The commitment says that the input is right, so it is the bytes that are wrong.
  if (!secret && secret.error().code == Code::kWrongKey) return malformed("its wrapped key was changed");
  return secret;
}

Result<Bytes> new_salt() {
  Bytes salt(kSaltBytes);
  ECFS_TRY(fill_random(salt));
  if (all_zero(salt)) return Error{Code::kIo, 0, "the system's random numbers are all zero"};
  return salt;
}

Result<Slot> wrap_secret(const VolumeId& volume, SlotType type, std::uint32_t id, std::string_view label,
                         ByteView parameters, ByteView salt, const Secret& input, const Secret& secret) {
  if (id == 0) return Error{Code::kInvalid, 0, "a key slot needs a number other than 0"};
  if (label.size() > kMaxSlotLabelBytes || printable(label) != label) {
    return Error{Code::kInvalid, 0, "the label of a key slot has at most 64 bytes of printable UTF-8"};
  }
  if (secret.empty() || secret.size() > kMaxSlotSecretBytes) {
    return Error{Code::kInvalid, 0, "a key slot holds a secret of 1 to 64 bytes"};
  }
  Bytes raw;
  append_le(raw,
            static_cast<std::uint32_t>(kHeadBytes + label.size() + parameters.size() + secret.size() + kWrapBytes));
  append_le(raw, static_cast<std::uint16_t>(type));
  raw.push_back(kVersion);
  raw.push_back(0);
  append_le(raw, id);
  raw.push_back(static_cast<std::uint8_t>(label.size()));
  raw.push_back(static_cast<std::uint8_t>(secret.size()));
  append_le(raw, static_cast<std::uint16_t>(parameters.size()));
  append_le(raw, static_cast<std::uint64_t>(time(nullptr)));
  raw.resize(kHeadBytes, 0);
  append(raw, as_bytes(label));
  append(raw, parameters);
  ECFS_LET(const SlotKeys keys, slot_keys(volume, type, raw, salt, input));
  std::array<std::uint8_t, kGcmNonceBytes> nonce{};
  ECFS_TRY(fill_random(nonce));
  ECFS_LET(const Bytes sealed, gcm_seal(keys.key, nonce, associated_data(volume, raw), secret));
  append(raw, nonce);
  append(raw, sealed);
  append(raw, keys.commitment.reveal());
  return read_slot(raw);
}

// Proves a slot just made, before anybody relies on it.
Result<Slot> proven(Slot slot, const Result<Secret>& opened, const Secret& secret) {
  if (!opened || !opened->equals(secret)) {
    return Error{Code::kIo, 0,
                 "a new key slot does not open with what it was made from; this computer's memory may be faulty"};
  }
  return slot;
}

struct PasswordParameters {
  ByteView salt;
  Argon2Cost cost;
};

Result<PasswordParameters> password_parameters(ByteView parameters) {
  if (parameters.size() != kSaltBytes + kCostBytes) return malformed("its parameters have the wrong length");
  PasswordParameters p;
  p.salt = parameters.first(kSaltBytes);
  if (all_zero(p.salt)) return malformed("its salt is zero");
  const std::uint8_t* costs = parameters.data() + kSaltBytes;
  p.cost = {load_le<std::uint32_t>(costs), load_le<std::uint32_t>(costs + 4), load_le<std::uint32_t>(costs + 8)};
  ECFS_TRY(check_cost_readable(p.cost));
  return p;
}

// Of both TPM types.
struct Tpm2Parameters {
  ByteView salt;
  Argon2Cost cost;  // of tpm2+password
  Tpm2Sealed sealed;
};

Result<Tpm2Parameters> tpm2_parameters(SlotType type, ByteView parameters) {
  const bool with_password = type == SlotType::kTpm2Password;
  const std::size_t head = kSaltBytes + (with_password ? kCostBytes : 0);
  if (parameters.size() < head) return malformed("its parameters have the wrong length");
  Tpm2Parameters p;
  p.salt = parameters.first(kSaltBytes);
  if (all_zero(p.salt)) return malformed("its salt is zero");
  if (with_password) {
    ECFS_LET(const PasswordParameters password, password_parameters(parameters.first(head)));
    p.cost = password.cost;
  }
  auto sealed = parse_sealed(parameters.subspan(head));
  if (!sealed) return malformed("what the TPM sealed has parts that do not fit");
  p.sealed = *std::move(sealed);
  if (p.sealed.needs_auth != (with_password || p.sealed.pcrs == 0)) return malformed("it is of another type");
  return p;
}

// What the passphrase of a TPM slot gives.
struct Stretched {
  Secret all;   // goes into the key
  Secret auth;  // is shown to the TPM
};

Result<Stretched> stretch(const Secret& passphrase, ByteView salt, const Argon2Cost& cost) {
  Stretched s;
  ECFS_LET(s.all, argon2id(passphrase, salt, cost, kStretchedBytes));
  ECFS_LET(const Secret prk, hkdf_extract(salt, s.all.reveal()));
  ECFS_LET(s.auth, hkdf_expand(prk, "ecfs tpm2 auth 1", kTpm2AuthBytes));
  s.auth.reveal_mutable().back() |= 1;  // a TPM drops zeros at the end of an auth value
  return s;
}

Result<Secret> joined(const Secret& a, const Secret& b) {
  ECFS_LET(Secret both, Secret::of_size(a.size() + b.size()));
  std::copy(a.reveal().begin(), a.reveal().end(), both.reveal_mutable().begin());
  std::copy(b.reveal().begin(), b.reveal().end(), both.reveal_mutable().subspan(a.size()).begin());
  return both;
}

Status check_passphrase(const Secret& passphrase) {
  if (passphrase.empty()) return Error{Code::kInvalid, 0, "the passphrase is empty"};
  if (passphrase.size() > kMaxPassphraseBytes) return Error{Code::kInvalid, 0, "the passphrase is too long"};
  return {};
}

}  // namespace

std::string_view slot_type_name(SlotType type) noexcept {
  const auto number = static_cast<std::size_t>(type);
  return number >= 1 && number <= kTypeNames.size() ? kTypeNames[number - 1] : "unknown";
}

std::optional<SlotType> slot_type_from_name(std::string_view name) noexcept {
  const auto* const found = std::find(kTypeNames.begin(), kTypeNames.end(), name);
  if (found == kTypeNames.end()) return {};
  return static_cast<SlotType>(found - kTypeNames.begin() + 1);
}

bool Slot::known() const noexcept {
  return version == kVersion && (type == SlotType::kPassword || type == SlotType::kRecovery || is_tpm2(type));
}

const Slot* SlotArea::find(std::uint32_t id) const noexcept {
  const auto found = std::find_if(slots.begin(), slots.end(), [&](const Slot& s) { return s.id == id; });
  return found == slots.end() ? nullptr : &*found;
}

std::size_t SlotArea::count(SlotType type) const noexcept {
  return static_cast<std::size_t>(
      std::count_if(slots.begin(), slots.end(), [&](const Slot& s) { return s.type == type; }));
}

std::uint32_t SlotArea::unused_id() const noexcept {
  std::uint32_t id = next_id;
  for (const Slot& s : slots) {
    if (s.id >= id) id = s.id + 1;  // wraps to 0 behind the last number there is
    if (id == 0) return 0;
  }
  return id;
}

Result<SlotArea> parse_slots(ByteView bytes) {
  const auto corrupt = [](const char* why) {
    return Error{Code::kCorrupt, 0, std::string("the key slots are damaged: ") + why};
  };
  if (bytes.size() < kAreaHeadBytes) return corrupt("cut short");
  SlotArea area;
  area.generation = load_le<std::uint64_t>(bytes.data());
  area.next_id = load_le<std::uint32_t>(bytes.data() + 8);
  const std::size_t count = load_le<std::uint16_t>(bytes.data() + 12);
  if (area.generation == 0) return corrupt("no generation");
  if (count > kMaxSlots) return corrupt("too many");
  if (load_le<std::uint16_t>(bytes.data() + 14) != 0) return corrupt("a field that is not in use is not zero");
  ByteView rest = bytes.subspan(kAreaHeadBytes);
  for (std::size_t i = 0; i < count; ++i) {
    if (rest.size() < kPermanentHeadBytes) return corrupt("cut short");
    const std::size_t len = load_le<std::uint32_t>(rest.data());
    if (len < kSmallestRecord || len > kMaxSlotBytes || len > rest.size()) return corrupt("a length does not fit");
    ECFS_LET(Slot slot, read_slot(rest.first(len)));
    if (area.find(slot.id) != nullptr) return corrupt("two have one number");
    area.slots.push_back(std::move(slot));
    rest = rest.subspan(len);
  }
  if (!rest.empty()) return corrupt("more bytes than slots");
  return area;
}

Bytes build_slots(const SlotArea& area) {
  Bytes out;
  append_le(out, area.generation);
  append_le(out, area.unused_id());
  append_le(out, static_cast<std::uint16_t>(area.slots.size()));
  append_le(out, std::uint16_t{0});
  for (const Slot& slot : area.slots) append(out, slot.raw);
  return out;
}

Result<Slot> make_password_slot(const VolumeId& volume, std::uint32_t id, std::string_view label, const Secret& secret,
                                const Secret& passphrase, const Argon2Cost& cost) {
  ECFS_TRY(check_passphrase(passphrase));
  ECFS_TRY(check_cost_writable(cost));
  ECFS_LET(const Bytes salt, new_salt());
  Bytes parameters = salt;
  append_le(parameters, cost.memory_kib);
  append_le(parameters, cost.passes);
  append_le(parameters, cost.lanes);
  ECFS_LET(const Secret input, argon2id(passphrase, salt, cost, kKeyBytes));
  ECFS_LET(Slot slot, wrap_secret(volume, SlotType::kPassword, id, label, parameters, salt, input, secret));
  auto opened = open_password_slot(volume, slot, passphrase);
  return proven(std::move(slot), opened, secret);
}

Result<Slot> make_recovery_slot(const VolumeId& volume, std::uint32_t id, std::string_view label, const Secret& secret,
                                const RecoveryKey& key) {
  ECFS_LET(const Bytes salt, new_salt());
  ECFS_LET(Slot slot, wrap_secret(volume, SlotType::kRecovery, id, label, salt, salt, key.bytes(), secret));
  auto opened = open_recovery_slot(volume, slot, key);
  return proven(std::move(slot), opened, secret);
}

Result<Secret> open_password_slot(const VolumeId& volume, const Slot& slot, const Secret& passphrase) {
  ECFS_LET(const Record record, open_record(slot, SlotType::kPassword));
  ECFS_LET(const PasswordParameters parameters, password_parameters(record.parameters));
  if (!check_passphrase(passphrase)) return Error{Code::kWrongKey, 0, "it does not open this key slot"};
  ECFS_LET(const Secret input, argon2id(passphrase, parameters.salt, parameters.cost, kKeyBytes));
  return unwrap(volume, SlotType::kPassword, record, parameters.salt, input);
}

Result<Secret> open_recovery_slot(const VolumeId& volume, const Slot& slot, const RecoveryKey& key) {
  ECFS_LET(const Record record, open_record(slot, SlotType::kRecovery));
  if (record.parameters.size() != kSaltBytes) return malformed("its parameters have the wrong length");
  if (all_zero(record.parameters)) return malformed("its salt is zero");
  return unwrap(volume, SlotType::kRecovery, record, record.parameters, key.bytes());
}

bool is_tpm2(SlotType type) noexcept { return type == SlotType::kTpm2 || type == SlotType::kTpm2Password; }

Result<Slot> make_tpm2_slot(const VolumeId& volume, std::uint32_t id, std::string_view label, const Secret& secret,
                            const Tpm2Lock& lock) {
  const SlotType type = lock.passphrase != nullptr ? SlotType::kTpm2Password : SlotType::kTpm2;
  ECFS_LET(const Bytes salt, new_salt());
  Bytes parameters = salt;
  Stretched stretched;
  if (lock.passphrase != nullptr) {
    ECFS_TRY(check_passphrase(*lock.passphrase));
    ECFS_TRY(check_cost_writable(lock.cost));
    append_le(parameters, lock.cost.memory_kib);
    append_le(parameters, lock.cost.passes);
    append_le(parameters, lock.cost.lanes);
    ECFS_LET(stretched, stretch(*lock.passphrase, salt, lock.cost));
  }
  ECFS_LET(const Secret random, Secret::random(kTpm2SecretBytes));
  ECFS_LET(const Tpm2Sealed sealed, lock.tpm->seal(lock.pcrs, random, stretched.auth));
  append(parameters, pack_sealed(sealed));
  ECFS_LET(const Secret input, joined(stretched.all, random));
  ECFS_LET(Slot slot, wrap_secret(volume, type, id, label, parameters, salt, input, secret));
  auto opened = open_tpm2_slot(volume, slot, *lock.tpm, lock.passphrase);
  return proven(std::move(slot), opened, secret);
}

Result<Secret> open_tpm2_slot(const VolumeId& volume, const Slot& slot, Tpm2& tpm, const Secret* passphrase) {
  const SlotType type = passphrase != nullptr ? SlotType::kTpm2Password : SlotType::kTpm2;
  ECFS_LET(const Record record, open_record(slot, type));
  ECFS_LET(const Tpm2Parameters parameters, tpm2_parameters(type, record.parameters));
  Stretched stretched;
  if (passphrase != nullptr) {
    if (!check_passphrase(*passphrase)) return Error{Code::kWrongKey, 0, "it does not open this key slot"};
    ECFS_LET(stretched, stretch(*passphrase, parameters.salt, parameters.cost));
  }
  ECFS_LET(const Secret sealed, tpm.unseal(parameters.sealed, stretched.auth));
  ECFS_LET(const Secret input, joined(stretched.all, sealed));
  auto secret = unwrap(volume, type, record, parameters.salt, input);
  // The TPM took the password and gave what it had sealed: if that does not fit, the bytes beside it are wrong.
  if (!secret && secret.error().code == Code::kWrongKey) return malformed("it is not what the TPM's secret belongs to");
  return secret;
}

Result<Tpm2Sealed> tpm2_sealed(const Slot& slot) {
  const SlotType type = slot.type == SlotType::kTpm2Password ? SlotType::kTpm2Password : SlotType::kTpm2;
  ECFS_LET(const Record record, open_record(slot, type));
  ECFS_LET(Tpm2Parameters parameters, tpm2_parameters(type, record.parameters));
  return std::move(parameters.sealed);
}

Result<Argon2Cost> password_cost(const Slot& slot) {
  if (slot.type == SlotType::kTpm2Password) {
    ECFS_LET(const Record record, open_record(slot, SlotType::kTpm2Password));
    ECFS_LET(const Tpm2Parameters parameters, tpm2_parameters(slot.type, record.parameters));
    return parameters.cost;
  }
  ECFS_LET(const Record record, open_record(slot, SlotType::kPassword));
  ECFS_LET(const PasswordParameters parameters, password_parameters(record.parameters));
  return parameters.cost;
}

}  // namespace ecfs::wrap
