// The volume header: the file `.ecfs-volume` (native-format.md §2, fs/FORMAT.md §2) as bytes in memory. And the header
// of the key slots of an eCryptfs tree (wrap/FORMAT.md §8), of the same shape.
//
// Reading has two steps, because the key that checks the MAC comes out of the slots inside: parse_volume_file looks at
// shape only and treats every byte as hostile; verify_volume_file then proves that the holder of the volume key wrote
// it. Nothing but the slots may be believed between the two. Pure functions, safe from any thread.
#pragma once

#include <array>
#include <cstdint>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::wrap {

constexpr std::size_t kVolumeKeyBytes = 32;
constexpr std::uint64_t kMaxVolumeFileBytes = 1U << 20;

// What a header is of: a native volume, whose secret is its key; or an eCryptfs tree, whose secret is its mount
// passphrase in 64 bytes (pad_mount_passphrase), so that no slot tells its length.
enum class VolumeKind : std::uint8_t { kNative, kEcryptfs };
constexpr std::size_t kPaddedPassphraseBytes = 64;
constexpr std::size_t secret_bytes_of(VolumeKind kind) noexcept {
  return kind == VolumeKind::kNative ? kVolumeKeyBytes : kPaddedPassphraseBytes;
}
// pad_mount_passphrase fills 1..64 bytes without NUL (else kInvalid) up with zeros; unpad_mount_passphrase takes them
// away again: kCorrupt for what is no padded passphrase.
Result<Secret> pad_mount_passphrase(const Secret& passphrase);
Result<Secret> unpad_mount_passphrase(const Secret& padded);

using VolumeId = std::array<std::uint8_t, 16>;

enum class Suite : std::uint8_t { kAes256Gcm = 1, kChaCha20Poly1305 = 2 };
enum class NameEncoding : std::uint8_t { kBase64Url = 1, kBase32Hex = 2 };

constexpr std::uint32_t kIncompatSealedSize = 1U << 0;
constexpr std::uint32_t kIncompatKnown = kIncompatSealedSize;
constexpr std::uint32_t kRoCompatKnown = 0;

struct VolumeHeader {
  VolumeId id{};
  VolumeKind kind = VolumeKind::kNative;  // of an eCryptfs tree all the rest but minor_version is as here
  Suite suite = Suite::kAes256Gcm;        // of new files
  std::uint8_t block_shift = 12;          // 12..16; fixed for the volume's life
  NameEncoding name_encoding = NameEncoding::kBase64Url;
  std::uint8_t longest_name = 0;  // longest lower name in bytes, 64..254; 0 means 255
  std::uint32_t compat = 0;
  std::uint32_t ro_compat = 0;  // unknown bits: mount read-only
  std::uint32_t incompat = 0;   // unknown bits are refused by parse_volume_file (kUnsupported)
  std::uint16_t minor_version = 0;

  [[nodiscard]] bool sealed_size() const noexcept { return (incompat & kIncompatSealedSize) != 0; }
  [[nodiscard]] bool must_be_read_only() const noexcept { return (ro_compat & ~kRoCompatKnown) != 0; }
};

struct VolumeFile {
  VolumeHeader header;
  Bytes slots;  // the slot area, unchecked (keyslot.h)
  Bytes raw;    // the whole file
};

// parse_volume_file: kCorrupt for anything that no writer of version 1 makes, kUnsupported for a later major version or
// an unknown incompat bit, or for a header of the other kind.
Result<VolumeFile> parse_volume_file(ByteView raw, VolumeKind kind = VolumeKind::kNative);

// verify_volume_file checks the MAC under K_hdr: kCorrupt if it does not fit. `volume_key` is the secret of the volume;
// that of an eCryptfs tree takes tens of milliseconds.
Status verify_volume_file(const VolumeFile& file, const Secret& volume_key);

// build_volume_file gives the bytes to write. kInvalid for a header out of bounds or a file over 1 MiB.
Result<Bytes> build_volume_file(const VolumeHeader& header, ByteView slots, const Secret& volume_key);

// volume_prk is HKDF-Extract(SHA-256, salt = volume id, volume key), from which every key of the volume is expanded.
Result<Secret> volume_prk(const VolumeId& id, const Secret& volume_key);

// preferred_suite: AES-256-GCM where this CPU has AES and carry-less multiply instructions, else ChaCha20-Poly1305.
Suite preferred_suite() noexcept;

}  // namespace ecfs::wrap
