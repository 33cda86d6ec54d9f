#include "wrap/volume_header.h"

#include <algorithm>
#include <string_view>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "wrap/crypto.h"
#include "wrap/ecryptfs_passphrase.h"

namespace ecfs::wrap {
namespace {

constexpr std::string_view kMagic = "ECFSVOL1";
constexpr std::string_view kEcryptfsMagic = "ECFSVOLE";
constexpr std::uint16_t kMajorVersion = 1;
constexpr std::size_t kSlotsAt = 64;
constexpr std::size_t kMacBytes = 32;
constexpr std::uint8_t kShortestLongName = 64;
constexpr std::uint8_t kLongestLongName = 254;
constexpr std::uint8_t kSmallestBlockShift = 12;
constexpr std::uint8_t kLargestBlockShift = 16;

Error corrupt(const char* why) { return {Code::kCorrupt, 0, std::string("the volume header ") + why}; }

// Why a header cannot be; nullptr if it can.
const char* fault_of(const VolumeHeader& h) {
  if (h.suite != Suite::kAes256Gcm && h.suite != Suite::kChaCha20Poly1305) return "names a cipher that does not exist";
  if (h.block_shift < kSmallestBlockShift || h.block_shift > kLargestBlockShift) return "has an impossible block size";
  if (h.name_encoding != NameEncoding::kBase64Url && h.name_encoding != NameEncoding::kBase32Hex) {
    return "names an encoding of file names that does not exist";
  }
  if (h.longest_name != 0 && (h.longest_name < kShortestLongName || h.longest_name > kLongestLongName)) {
    return "has an impossible limit on the length of names";
  }
  return nullptr;
}

// The fields of a native volume's files: zero in the header of an eCryptfs tree.
constexpr std::size_t kFieldsAt = 32;
constexpr std::size_t kFieldsBytes = 16;

// From what the key of the header is made. People choose mount passphrases: to try one by the header costs as much as
// by the files themselves.
Result<Secret> header_prk(const VolumeHeader& header, const Secret& secret) {
  if (header.kind == VolumeKind::kNative) return volume_prk(header.id, secret);
  ECFS_LET(const Secret passphrase, unpad_mount_passphrase(secret));
  ECFS_LET(const EcryptfsKey key, EcryptfsKey::derive(passphrase, kEcryptfsContentSalt));
  return hkdf_extract(header.id, key.key.reveal());
}

Result<Sha256> mac_of(const VolumeHeader& header, const Secret& volume_key, ByteView covered) {
  ECFS_LET(const Secret prk, header_prk(header, volume_key));
  ECFS_LET(const Secret key,
           hkdf_expand(prk, header.kind == VolumeKind::kNative ? "ecfs1 hdr" : "ecfs1 hdr ecryptfs", 32));
  return hmac_sha256(key.reveal(), {covered});
}

}  // namespace

Result<Secret> pad_mount_passphrase(const Secret& passphrase) {
  const ByteView text = passphrase.reveal();
  if (text.empty() || text.size() > kPaddedPassphraseBytes || std::find(text.begin(), text.end(), 0) != text.end()) {
    return Error{Code::kInvalid, 0, "a mount passphrase has 1 to 64 bytes, none of them NUL"};
  }
  ECFS_LET(Secret padded, Secret::of_size(kPaddedPassphraseBytes));
  std::copy(text.begin(), text.end(), padded.reveal_mutable().begin());
  return padded;
}

Result<Secret> unpad_mount_passphrase(const Secret& padded) {
  const ByteView bytes = padded.reveal();
  const auto end = std::find(bytes.begin(), bytes.end(), 0);
  const bool zeros = std::all_of(end, bytes.end(), [](std::uint8_t b) { return b == 0; });
  if (bytes.size() != kPaddedPassphraseBytes || end == bytes.begin() || !zeros) {
    return Error{Code::kCorrupt, 0, "the key slot does not hold a mount passphrase"};
  }
  return Secret::copy_of(bytes.first(static_cast<std::size_t>(end - bytes.begin())));
}

Result<VolumeFile> parse_volume_file(ByteView raw, VolumeKind kind) {
  if (raw.size() > kMaxVolumeFileBytes) return corrupt("is larger than it can be");
  if (raw.size() < kSlotsAt + kMacBytes) return corrupt("is cut short");
  const auto magic = as_text(raw.first(kMagic.size()));
  const bool ecryptfs = kind == VolumeKind::kEcryptfs;
  if (magic == (ecryptfs ? kMagic : kEcryptfsMagic)) {
    return Error{Code::kUnsupported, 0,
                 ecryptfs ? "this is the header of a native volume, not of the keys of an eCryptfs tree"
                          : "this is the header of the keys of an eCryptfs tree, not of a native volume"};
  }
  if (magic != (ecryptfs ? kEcryptfsMagic : kMagic)) {
    return corrupt(ecryptfs ? "does not begin with ECFSVOLE" : "does not begin with ECFSVOL1");
  }
  const std::uint8_t* p = raw.data();
  if (load_le<std::uint16_t>(p + 12) != kMajorVersion) {
    return Error{Code::kUnsupported, 0, "the volume was made by a later version of ecfs; this one cannot open it"};
  }
  if (load_le<std::uint32_t>(p + 8) != raw.size()) return corrupt("does not have the length it names");
  const std::size_t slots_len = load_le<std::uint32_t>(p + 48);
  if (slots_len != raw.size() - kSlotsAt - kMacBytes) return corrupt("has key slots of a length that does not fit");
  VolumeFile file;
  VolumeHeader& h = file.header;
  h.kind = kind;
  h.minor_version = load_le<std::uint16_t>(p + 14);
  std::copy_n(p + 16, h.id.size(), h.id.begin());
  file.slots.assign(raw.begin() + kSlotsAt, raw.begin() + static_cast<std::ptrdiff_t>(kSlotsAt + slots_len));
  file.raw.assign(raw.begin(), raw.end());
  if (ecryptfs) {
    if (!all_zero(raw.subspan(kFieldsAt, kFieldsBytes))) {
      return Error{Code::kUnsupported, 0, "the volume uses a feature that this version of ecfs does not know"};
    }
    return file;
  }
  h.suite = static_cast<Suite>(p[32]);
  h.block_shift = p[33];
  h.name_encoding = static_cast<NameEncoding>(p[34]);
  h.longest_name = p[35];
  h.compat = load_le<std::uint32_t>(p + 36);
  h.ro_compat = load_le<std::uint32_t>(p + 40);
  h.incompat = load_le<std::uint32_t>(p + 44);
  if ((h.incompat & ~kIncompatKnown) != 0) {
    return Error{Code::kUnsupported, 0, "the volume uses a feature that this version of ecfs does not know"};
  }
  if (const char* fault = fault_of(h); fault != nullptr) return corrupt(fault);
  return file;
}

Status verify_volume_file(const VolumeFile& file, const Secret& volume_key) {
  const ByteView raw = file.raw;
  if (raw.size() < kSlotsAt + kMacBytes) return corrupt("is cut short");
  const ByteView covered = raw.first(raw.size() - kMacBytes);
  ECFS_LET(const Sha256 mac, mac_of(file.header, volume_key, covered));
  if (!equal_constant_time(mac, raw.last(kMacBytes))) {
    return corrupt("was damaged or changed: its checksum does not fit the volume's key");
  }
  return {};
}

Result<Bytes> build_volume_file(const VolumeHeader& header, ByteView slots, const Secret& volume_key) {
  if (const char* fault = fault_of(header); fault != nullptr) {
    return Error{Code::kInvalid, 0, std::string("the volume header ") + fault};
  }
  if (slots.size() > kMaxVolumeFileBytes - kSlotsAt - kMacBytes) {
    return Error{Code::kInvalid, 0, "the key slots do not fit into a volume header of 1 MiB"};
  }
  Bytes out;
  out.reserve(kSlotsAt + slots.size() + kMacBytes);
  const bool native = header.kind == VolumeKind::kNative;
  append(out, as_bytes(native ? kMagic : kEcryptfsMagic));
  append_le(out, static_cast<std::uint32_t>(kSlotsAt + slots.size() + kMacBytes));
  append_le(out, kMajorVersion);
  append_le(out, header.minor_version);
  append(out, header.id);
  if (native) {
    out.push_back(static_cast<std::uint8_t>(header.suite));
    out.push_back(header.block_shift);
    out.push_back(static_cast<std::uint8_t>(header.name_encoding));
    out.push_back(header.longest_name);
    append_le(out, header.compat);
    append_le(out, header.ro_compat);
    append_le(out, header.incompat);
  } else {
    out.resize(kFieldsAt + kFieldsBytes, 0);
  }
  append_le(out, static_cast<std::uint32_t>(slots.size()));
  out.resize(kSlotsAt, 0);
  append(out, slots);
  ECFS_LET(const Sha256 mac, mac_of(header, volume_key, out));
  append(out, mac);
  return out;
}

Result<Secret> volume_prk(const VolumeId& id, const Secret& volume_key) {
  return hkdf_extract(id, volume_key.reveal());
}

Suite preferred_suite() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  const bool fast_aes = __builtin_cpu_supports("aes") != 0 && __builtin_cpu_supports("pclmul") != 0;
#elif defined(__aarch64__)
  const unsigned long cpu = getauxval(AT_HWCAP);
  const bool fast_aes = (cpu & HWCAP_AES) != 0 && (cpu & HWCAP_PMULL) != 0;
#else
  const bool fast_aes = false;
#endif
  return fast_aes ? Suite::kAes256Gcm : Suite::kChaCha20Poly1305;
}

}  // namespace ecfs::wrap
