// The header of an eCryptfs lower file: size, marker, flags, and the packet set that carries the file key, encrypted
// under one or more passphrase keys. It stands at the front of the lower file, or in the attribute user.ecryptfs.
//
// Nothing here is authenticated, so nothing is trusted: what parses is within the bounds below and no more. Pure
// functions, safe from any thread. Source: fs/ECRYPTFS-FORMAT.md §2, §5, §7.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/ecryptfs_passphrase.h"

namespace ecfs::fs {

constexpr std::string_view kEcryptfsXattr = "user.ecryptfs";
constexpr std::size_t kEcryptfsExtentBytes = 4096;     // of contents; not stored
constexpr std::size_t kEcryptfsMinHeaderBytes = 8192;  // where the header is in the file
constexpr std::size_t kEcryptfsProbeBytes = 4096;      // all packets stand in the first so many bytes
constexpr std::size_t kEcryptfsMaxKeyBytes = 64;       // of a file key, encrypted or not
constexpr std::uint64_t kEcryptfsMaxPlainSize = 0x7fffffffffffffff - (std::uint64_t{1} << 49);
constexpr std::size_t kEcryptfsSizeBytes = 8;  // the size field, at offset 0

using wrap::EcryptfsSalt;
using wrap::EcryptfsSignature;

enum class EcryptfsPlace { kFile, kXattr };

// A Tag 3 packet with its Tag 11: the file key under the passphrase key that `signature` names.
struct EcryptfsKeyPacket {
  std::uint8_t cipher_code = 0;
  EcryptfsSalt salt{};  // informative: the key is found by its signature
  Bytes encrypted_key;  // 1..64 bytes
  EcryptfsSignature signature{};
  bool operator==(const EcryptfsKeyPacket&) const = default;
};

struct EcryptfsHeader {
  static constexpr std::uint32_t kEncrypted = 0x2;
  static constexpr std::uint32_t kInXattr = 0x4;
  static constexpr std::uint32_t kEncryptedNames = 0x8;

  std::uint64_t plain_size = 0;  // at most kEcryptfsMaxPlainSize
  std::uint32_t marker = 0;      // m1, random
  std::uint8_t version = 3;
  std::uint32_t flags = kEncrypted;  // 24 bits
  std::uint32_t header_extent_bytes = 4096;
  std::uint16_t num_header_extents = 2;
  std::vector<EcryptfsKeyPacket> keys;             // in the order of the packets
  std::vector<EcryptfsSignature> public_key_sigs;  // of Tag 1 packets, whose keys we cannot use; never written

  // data_offset is where extent 0 is in the lower file. Trust where the header was found, not the flag.
  [[nodiscard]] std::uint64_t data_offset(EcryptfsPlace place) const noexcept {
    return place == EcryptfsPlace::kXattr ? 0 : std::uint64_t{header_extent_bytes} * num_header_extents;
  }
  bool operator==(const EcryptfsHeader&) const = default;
};

// has_ecryptfs_marker says whether the bytes carry the mark by which headers are told from other files.
bool has_ecryptfs_marker(ByteView bytes) noexcept;

// parse_ecryptfs_header takes the beginning of a lower file (at least min(its size, kEcryptfsProbeBytes)) or the whole
// attribute. kCorrupt if it is not a header, or one that no reader may accept.
Result<EcryptfsHeader> parse_ecryptfs_header(ByteView bytes, EcryptfsPlace place);

// build_ecryptfs_header gives all bytes before extent 0, or the attribute's value; always version 3, the place's flag
// set as it must be. kInvalid: no key, a field out of bounds, or packets that do not fit.
Result<Bytes> build_ecryptfs_header(const EcryptfsHeader& header, EcryptfsPlace place);

// ecryptfs_size_field is what stands in the first bytes of a header.
std::array<std::uint8_t, kEcryptfsSizeBytes> ecryptfs_size_field(std::uint64_t plain_size) noexcept;

// EcryptfsLength is the length of a packet as it stands behind its tag: one or two bytes.
struct EcryptfsLength {
  std::size_t len = 0;        // of the packet's body
  std::size_t num_bytes = 0;  // of the length itself: 1 or 2
};
// parse_ecryptfs_length: kCorrupt for five-byte lengths, partial ones and those cut off. append_ecryptfs_length writes
// the shortest form; `len` is at most kEcryptfsMaxPacketBytes.
constexpr std::size_t kEcryptfsMaxPacketBytes = 8383;
Result<EcryptfsLength> parse_ecryptfs_length(ByteView bytes);
void append_ecryptfs_length(Bytes& out, std::size_t len);

}  // namespace ecfs::fs
