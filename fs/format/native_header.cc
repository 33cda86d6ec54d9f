#include "fs/format/native_header.h"

#include <algorithm>
#include <cerrno>

namespace ecfs::fs {
namespace {

constexpr std::array<std::uint8_t, 4> kFileMagic{'E', 'C', 'F', '1'};
constexpr std::array<std::uint8_t, 4> kGroupMagic{'E', 'C', 'G', '1'};
constexpr std::uint8_t kHeaderVersion = 1;

constexpr std::size_t kNonceAt = 24;
constexpr std::size_t kTagAt = 36;
constexpr std::size_t kLengthAt = 52;
constexpr std::size_t kStateAt = 56;
constexpr std::size_t kStateBytes = 8;

constexpr std::uint64_t kHolesBit = 1ULL << 63;
constexpr std::uint64_t kNotSealed = kHolesBit - 1;

using HeaderAssociated = std::array<std::uint8_t, kFileFixedBytes + 4>;

HeaderAssociated header_associated(const FileFixed& fixed, std::uint32_t inline_len) {
  HeaderAssociated associated{};
  std::copy(fixed.begin(), fixed.end(), associated.begin());
  store_le(associated.data() + kFileFixedBytes, inline_len);
  return associated;
}

Error corrupt(std::string_view what) { return Error{Code::kCorrupt, EIO, std::string(what)}; }

}  // namespace

Version Version::of(const Nonce& nonce, const Tag& tag, std::uint64_t len, bool pending) noexcept {
  Version v{nonce, tag, {}};
  store_le(v.word.data(), static_cast<std::uint32_t>(len) | (pending ? kPending : 0U));
  return v;
}

FileFixed fixed_header(wrap::Suite suite, std::uint8_t block_shift, const FileId& id) {
  FileFixed fixed{};
  std::copy(kFileMagic.begin(), kFileMagic.end(), fixed.begin());
  fixed[4] = kHeaderVersion;
  fixed[5] = static_cast<std::uint8_t>(suite);
  fixed[6] = block_shift;
  std::copy(id.begin(), id.end(), fixed.begin() + 8);
  return fixed;
}

Result<RawHeader> parse_header(ByteView bytes, std::uint8_t block_shift) {
  if (bytes.size() < kFileHeaderBytes) return corrupt("file header: cut off");
  RawHeader raw;
  std::copy_n(bytes.begin(), raw.fixed.size(), raw.fixed.begin());
  if (!std::equal(kFileMagic.begin(), kFileMagic.end(), raw.fixed.begin()))
    return corrupt("file header: not one of ours");
  if (raw.fixed[4] != kHeaderVersion) return corrupt("file header: unknown version");
  if (raw.fixed[6] != block_shift) return corrupt("file header: block size of another volume");
  if (raw.fixed[7] != 0) return corrupt("file header: unknown flags");
  raw.inline_len = load_le<std::uint32_t>(bytes.data() + kLengthAt);
  if (raw.inline_len > kInlineMaxBytes) return corrupt("file header: impossible length");
  return raw;
}

Result<FileState> open_header(FileCipher::Lease& opener, const RawHeader& raw, ByteView bytes,
                              MutableByteView contents) {
  const std::size_t sealed_len = kStateBytes + raw.inline_len;
  if (bytes.size() < kStateAt + sealed_len || contents.size() != raw.inline_len) {
    return corrupt("file header: lower file shorter than the contents in it");
  }
  Nonce nonce{};
  Tag tag{};
  std::copy_n(bytes.begin() + kNonceAt, nonce.size(), nonce.begin());
  std::copy_n(bytes.begin() + kTagAt, tag.size(), tag.begin());
  const HeaderAssociated associated = header_associated(raw.fixed, raw.inline_len);
  std::array<std::uint8_t, kStateBytes + kInlineMaxBytes> plain{};
  ECFS_LET(const bool fits, opener.open(nonce, tag, associated, bytes.subspan(kStateAt, sealed_len), plain.data()));
  if (!fits) return corrupt("file header: does not verify");
  const auto word = load_le<std::uint64_t>(plain.data());
  FileState state;
  state.holes = (word & kHolesBit) != 0;
  if ((word & kNotSealed) != kNotSealed) state.sealed = word & kNotSealed;
  if (raw.inline_len != 0 && (state.holes || (state.sealed && *state.sealed != raw.inline_len))) {
    return corrupt("file header: authentic, but not one that is ever written");
  }
  std::copy_n(plain.begin() + kStateBytes, contents.size(), contents.begin());
  return state;
}

Status seal_header(FileCipher::Lease& sealer, const FileFixed& fixed, const FileState& state, const Nonce& nonce,
                   ByteView contents, MutableByteView out) {
  if (contents.size() > kInlineMaxBytes || out.size() != kFileHeaderBytes + contents.size()) {
    return Error{Code::kInvalid, EINVAL, "file header: wrong length"};
  }
  const auto inline_len = static_cast<std::uint32_t>(contents.size());
  std::copy(fixed.begin(), fixed.end(), out.begin());
  std::copy(nonce.begin(), nonce.end(), out.begin() + kNonceAt);
  store_le(out.data() + kLengthAt, inline_len);
  store_le(out.data() + kStateAt, state.sealed.value_or(kNotSealed) | (state.holes ? kHolesBit : 0));
  std::copy(contents.begin(), contents.end(), out.begin() + kFileHeaderBytes);
  const HeaderAssociated associated = header_associated(fixed, inline_len);
  const MutableByteView text = out.subspan(kStateAt);
  Tag tag{};
  ECFS_TRY(sealer.seal(nonce, associated, text, text.data(), tag));
  std::copy(tag.begin(), tag.end(), out.begin() + kTagAt);
  return {};
}

std::array<std::uint8_t, kFileHeaderBytes> group_head(const FileFixed& fixed, std::uint64_t group) {
  std::array<std::uint8_t, kFileHeaderBytes> head{};
  std::copy(kGroupMagic.begin(), kGroupMagic.end(), head.begin());
  std::copy(fixed.begin() + 4, fixed.end(), head.begin() + 4);
  store_le(head.data() + kFileFixedBytes, group);
  return head;
}

BlockAssociated::BlockAssociated(const FileFixed& fixed) noexcept {
  std::copy(fixed.begin(), fixed.end(), bytes_.begin());
}

}  // namespace ecfs::fs
