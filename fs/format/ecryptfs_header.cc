#include "fs/format/ecryptfs_header.h"

#include <algorithm>
#include <cerrno>
#include <string>

namespace ecfs::fs {
namespace {

constexpr std::uint32_t kMarkerMask = 0x3c81b7f5;
constexpr std::uint8_t kNewestVersion = 3;
constexpr std::size_t kFixedBytes = 26;          // before the packets
constexpr std::size_t kFixedBytesVersion0 = 20;  // which has no extent fields
constexpr std::uint32_t kAllFlags = 0xffffff;
constexpr std::uint64_t kMaxBuiltHeaderBytes = 1U << 20;

constexpr std::uint8_t kTag1 = 0x01;
constexpr std::uint8_t kTag3 = 0x8c;
constexpr std::uint8_t kTag11 = 0xed;
constexpr std::size_t kTag3FixedBytes = 13;
constexpr std::size_t kTag1FixedBytes = 10;
constexpr std::array<std::uint8_t, 14> kTag11Head{0x62, 8, '_', 'C', 'O', 'N', 'S', 'O', 'L', 'E', 0, 0, 0, 0};
constexpr std::size_t kTag11NameAndDateFrom = 2;  // a reader does not look at them

Error corrupt(std::string_view what) { return Error{Code::kCorrupt, EIO, "eCryptfs header: " + std::string(what)}; }
Error invalid(std::string_view what) { return Error{Code::kInvalid, EINVAL, "eCryptfs header: " + std::string(what)}; }

template <class T>
T load_be(ByteView bytes) noexcept {
  T v = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) v = static_cast<T>(std::uint64_t{v} << 8 | bytes[i]);
  return v;
}
template <class T>
void append_be(Bytes& out, T v) {
  for (std::size_t i = sizeof(T); i-- > 0;) out.push_back(static_cast<std::uint8_t>(v >> (8 * i)));
}

// take_packet takes one packet of the given tag off the front of `rest` and gives its body.
Result<ByteView> take_packet(ByteView& rest, std::uint8_t tag) {
  if (rest.empty() || rest[0] != tag) return corrupt("a key without its signature");
  ECFS_LET(const EcryptfsLength length, parse_ecryptfs_length(rest.subspan(1)));
  rest = rest.subspan(1 + length.num_bytes);
  if (length.len > rest.size()) return corrupt("a packet is cut off");
  const ByteView body = rest.first(length.len);
  rest = rest.subspan(length.len);
  return body;
}

Result<EcryptfsKeyPacket> take_key(ByteView& rest) {
  ECFS_LET(const ByteView tag3, take_packet(rest, kTag3));
  if (tag3.size() <= kTag3FixedBytes || tag3.size() > kTag3FixedBytes + kEcryptfsMaxKeyBytes) {
    return corrupt("an encrypted key of impossible length");
  }
  if (tag3[0] != 4 || tag3[2] != 3 || tag3[3] != 1) return corrupt("a key packet of an unknown kind");
  EcryptfsKeyPacket key;
  key.cipher_code = tag3[1];
  std::copy_n(tag3.begin() + 4, key.salt.size(), key.salt.begin());
  key.encrypted_key.assign(tag3.begin() + kTag3FixedBytes, tag3.end());

  ECFS_LET(const ByteView tag11, take_packet(rest, kTag11));
  if (tag11.size() != kTag11Head.size() + key.signature.size() ||
      !std::equal(tag11.begin(), tag11.begin() + kTag11NameAndDateFrom, kTag11Head.begin())) {
    return corrupt("a signature packet of an unknown kind");
  }
  std::copy_n(tag11.begin() + kTag11Head.size(), key.signature.size(), key.signature.begin());
  return key;
}

Result<EcryptfsSignature> take_public_key(ByteView& rest) {
  ECFS_LET(const ByteView tag1, take_packet(rest, kTag1));
  if (tag1.size() < kTag1FixedBytes || tag1[0] != 3) return corrupt("a public-key packet of an unknown kind");
  EcryptfsSignature signature{};
  std::copy_n(tag1.begin() + 1, signature.size(), signature.begin());
  return signature;
}

Status take_packets(ByteView rest, EcryptfsHeader& header) {
  while (!rest.empty()) {
    switch (rest[0]) {
      case kTag3: {
        ECFS_LET(EcryptfsKeyPacket key, take_key(rest));
        header.keys.push_back(std::move(key));
        break;
      }
      case kTag1: {
        ECFS_LET(const EcryptfsSignature signature, take_public_key(rest));
        header.public_key_sigs.push_back(signature);
        break;
      }
      case kTag11: return corrupt("a signature without its key");
      default: return {};  // the end of the set; what comes behind it has no meaning
    }
  }
  return {};
}

}  // namespace

Result<EcryptfsLength> parse_ecryptfs_length(ByteView bytes) {
  if (bytes.empty()) return corrupt("a packet is cut off");
  const std::size_t first = bytes[0];
  if (first < 192) return EcryptfsLength{first, 1};
  if (first >= 224) return corrupt("a packet length of an unknown kind");
  if (bytes.size() < 2) return corrupt("a packet is cut off");
  return EcryptfsLength{((first - 192) << 8) + bytes[1] + 192, 2};
}

void append_ecryptfs_length(Bytes& out, std::size_t len) {
  if (len >= 192) {
    out.push_back(static_cast<std::uint8_t>(192 + ((len - 192) >> 8)));
    len -= 192;
  }
  out.push_back(static_cast<std::uint8_t>(len));
}

bool has_ecryptfs_marker(ByteView bytes) noexcept {
  return bytes.size() >= 16 &&
         (load_be<std::uint32_t>(bytes.subspan(8)) ^ load_be<std::uint32_t>(bytes.subspan(12))) == kMarkerMask;
}

Result<EcryptfsHeader> parse_ecryptfs_header(ByteView bytes, EcryptfsPlace place) {
  bytes = bytes.first(std::min(bytes.size(), kEcryptfsProbeBytes));
  if (bytes.size() < kFixedBytes) return corrupt("too short");
  EcryptfsHeader header;
  header.plain_size = load_be<std::uint64_t>(bytes);
  header.marker = load_be<std::uint32_t>(bytes.subspan(8));
  if (!has_ecryptfs_marker(bytes)) return corrupt("no marker");
  header.version = bytes[16];
  if (header.version > kNewestVersion) return corrupt("version " + std::to_string(header.version));
  header.flags = load_be<std::uint32_t>(bytes.subspan(16)) & kAllFlags;
  std::size_t packets_at = kFixedBytesVersion0;
  if (header.version > 0) {
    packets_at = kFixedBytes;
    header.header_extent_bytes = load_be<std::uint32_t>(bytes.subspan(20));
    header.num_header_extents = load_be<std::uint16_t>(bytes.subspan(24));
  }
  // Only what is in front of the contents has to leave room for the header.
  if (place == EcryptfsPlace::kFile && header.data_offset(place) < kEcryptfsMinHeaderBytes) {
    return corrupt("a header that is too small");
  }
  if (header.plain_size > kEcryptfsMaxPlainSize) return corrupt("an impossible size");
  ECFS_TRY(take_packets(bytes.subspan(packets_at), header));
  if (header.keys.empty() && header.public_key_sigs.empty()) return corrupt("no key");
  return header;
}

Result<Bytes> build_ecryptfs_header(const EcryptfsHeader& header, EcryptfsPlace place) {
  if (header.keys.empty()) return invalid("no key");
  if (header.plain_size > kEcryptfsMaxPlainSize || header.flags > kAllFlags) return invalid("a field is out of bounds");
  Bytes out;
  append_be<std::uint64_t>(out, header.plain_size);
  append_be<std::uint32_t>(out, header.marker);
  append_be<std::uint32_t>(out, header.marker ^ kMarkerMask);
  const bool in_xattr = place == EcryptfsPlace::kXattr;
  const std::uint32_t flags = (header.flags & ~EcryptfsHeader::kInXattr) | (in_xattr ? EcryptfsHeader::kInXattr : 0U);
  append_be<std::uint32_t>(out, std::uint32_t{kNewestVersion} << 24 | flags);
  append_be<std::uint32_t>(out, header.header_extent_bytes);
  append_be<std::uint16_t>(out, header.num_header_extents);
  for (const EcryptfsKeyPacket& key : header.keys) {
    if (key.encrypted_key.empty() || key.encrypted_key.size() > kEcryptfsMaxKeyBytes) {
      return invalid("an encrypted key of impossible length");
    }
    out.push_back(kTag3);
    append_ecryptfs_length(out, kTag3FixedBytes + key.encrypted_key.size());
    append(out, std::array<std::uint8_t, 4>{4, key.cipher_code, 3, 1});
    append(out, key.salt);
    out.push_back(0x60);
    append(out, key.encrypted_key);
    out.push_back(kTag11);
    append_ecryptfs_length(out, kTag11Head.size() + key.signature.size());
    append(out, kTag11Head);
    append(out, key.signature);
  }
  if (out.size() + (in_xattr ? 0 : 1) > kEcryptfsProbeBytes) return invalid("too many keys");
  if (in_xattr) return out;
  const std::uint64_t header_bytes = header.data_offset(place);
  if (header_bytes < kEcryptfsMinHeaderBytes || header_bytes > kMaxBuiltHeaderBytes) {
    return invalid("a header of impossible size");
  }
  out.resize(header_bytes);
  return out;
}

std::array<std::uint8_t, kEcryptfsSizeBytes> ecryptfs_size_field(std::uint64_t plain_size) noexcept {
  std::array<std::uint8_t, kEcryptfsSizeBytes> field{};
  for (std::size_t i = 0; i < field.size(); ++i) field[i] = static_cast<std::uint8_t>(plain_size >> (56 - 8 * i));
  return field;
}

}  // namespace ecfs::fs
