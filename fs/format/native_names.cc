#include "fs/format/native_names.h"

#include <algorithm>
#include <cerrno>

#include "wrap/crypto.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kLongestPlainName = 255;
constexpr std::size_t kPad = 16;
constexpr std::size_t kLongestSide = kSivBytes + 256;
constexpr std::size_t kHashBytes = 32;
constexpr std::string_view kOurPrefix = ".ecfs-";
constexpr std::string_view kSideSuffix = ".n";
constexpr char kLongMark = '~';

constexpr std::array<std::uint8_t, 8> kDirFileHead{'E', 'C', 'D', '1', 0x01, 0, 0, 0};
constexpr std::size_t kDirFileBytes = kDirFileHead.size() + kSivBytes + std::tuple_size_v<DirId>;

constexpr std::size_t kLongestLink = 3039;  // 4095 characters of base64url

constexpr std::string_view kUserPrefix = "user.";
constexpr std::size_t kLongestXattrName = 167;
constexpr std::uint8_t kXattrValueMark = 0x01;  // SIV takes no empty plaintext, a value may be empty
constexpr std::size_t kXattrExtra = kRandomPrefixBytes + kSivBytes + 1;

Error corrupt(std::string_view what) { return Error{Code::kCorrupt, EIO, std::string(what)}; }

bool forbidden(std::string_view plain) {
  return plain.empty() || plain == "." || plain == ".." || plain.find('/') != std::string_view::npos ||
         plain.find('\0') != std::string_view::npos;
}

Bytes joined(ByteView a, ByteView b) {
  Bytes both(a.begin(), a.end());
  append(both, b);
  return both;
}

}  // namespace

NativeNames::NativeNames(const NativeKeys& keys, wrap::NameEncoding encoding, std::size_t longest,
                         std::shared_ptr<NonceSource> nonces, Siv name, Siv dirid, Siv symlink, Siv xname, Siv xvalue)
    : keys_(&keys),
      encoding_(encoding),
      longest_(longest),
      nonces_(std::move(nonces)),
      name_(std::move(name)),
      dirid_(std::move(dirid)),
      symlink_(std::move(symlink)),
      xname_(std::move(xname)),
      xvalue_(std::move(xvalue)) {}

Result<NativeNames> NativeNames::make(const NativeKeys& keys, const Ciphers& ciphers, wrap::NameEncoding encoding,
                                      std::size_t longest, std::shared_ptr<NonceSource> nonces) {
  ECFS_LET(Siv name, Siv::make(ciphers, keys.name));
  ECFS_LET(Siv dirid, Siv::make(ciphers, keys.dirid));
  ECFS_LET(Siv symlink, Siv::make(ciphers, keys.symlink));
  ECFS_LET(Siv xname, Siv::make(ciphers, keys.xname));
  ECFS_LET(Siv xvalue, Siv::make(ciphers, keys.xvalue));
  return NativeNames(keys, encoding, longest, std::move(nonces), std::move(name), std::move(dirid), std::move(symlink),
                     std::move(xname), std::move(xvalue));
}

void NativeNames::drop_keys() noexcept {
  for (Siv* siv : {&name_, &dirid_, &symlink_, &xname_, &xvalue_}) *siv = Siv();
}

std::string NativeNames::to_text(ByteView bytes) const {
  return encoding_ == wrap::NameEncoding::kBase32Hex ? to_base32hex(bytes) : to_base64url(bytes);
}

Result<Bytes> NativeNames::from_text(std::string_view text) const {
  return encoding_ == wrap::NameEncoding::kBase32Hex ? from_base32hex(text) : from_base64url(text);
}

bool NativeNames::is_long(std::string_view lower) const {
  if (lower.empty() || lower.front() != kLongMark) return false;
  const Result<Bytes> hash = from_text(lower.substr(1));
  return hash && hash->size() == kHashBytes;
}

LowerNameKind NativeNames::kind_of(std::string_view lower) const {
  if (lower.starts_with(kOurPrefix)) return LowerNameKind::kOurs;
  if (is_long(lower)) return LowerNameKind::kLongName;
  if (lower.ends_with(kSideSuffix) && is_long(lower.substr(0, lower.size() - kSideSuffix.size()))) {
    return LowerNameKind::kOurs;
  }
  if (lower.size() > longest_) return LowerNameKind::kForeign;
  const Result<Bytes> sealed = from_text(lower);
  const bool well_formed = sealed && sealed->size() >= kSivBytes + kPad && sealed->size() % kPad == 0;
  return well_formed ? LowerNameKind::kName : LowerNameKind::kForeign;
}

Result<LowerName> NativeNames::encode(const DirId& dir, std::string_view plain) const {
  if (plain.size() > kLongestPlainName) return system_error(ENAMETOOLONG, "name");
  if (forbidden(plain)) return Error{Code::kInvalid, EINVAL, "not a file name"};
  Bytes padded((plain.size() + kPad - 1) / kPad * kPad);
  std::copy(plain.begin(), plain.end(), padded.begin());
  ECFS_LET(Bytes sealed, name_.seal(dir, padded));
  LowerName lower{to_text(sealed), std::nullopt};
  if (lower.entry.size() <= longest_) return lower;
  ECFS_TRY(check_there(keys_->longs));
  ECFS_LET(const wrap::Sha256 hash, wrap::hmac_sha256(keys_->longs.reveal(), {dir, as_bytes(plain)}));
  lower.entry = kLongMark + to_text(hash);
  lower.side = std::move(sealed);
  return lower;
}

Result<std::string> NativeNames::plain_of(const DirId& dir, ByteView sealed) const {
  if (sealed.size() < kSivBytes + kPad || sealed.size() % kPad != 0 || sealed.size() > kLongestSide) {
    return corrupt("name: impossible length");
  }
  ECFS_LET(const Bytes padded, name_.open(dir, sealed));
  const auto end = std::find_if(padded.rbegin(), padded.rend(), [](std::uint8_t c) { return c != 0; }).base();
  const std::string_view plain = as_text(ByteView(padded.begin(), end));
  if (padded.size() - plain.size() >= kPad || plain.size() > kLongestPlainName || forbidden(plain)) {
    return corrupt("name: authentic, but not one that is ever written");
  }
  return std::string(plain);
}

Result<std::string> NativeNames::decode(const DirId& dir, std::string_view lower) const {
  // A longer one would be the second name of an entry that has a hashed name.
  if (lower.size() > longest_) return corrupt("name: longer than this volume's names");
  const Result<Bytes> sealed = from_text(lower);
  if (!sealed) return corrupt("name: not in this volume's encoding");
  return plain_of(dir, *sealed);
}

Result<std::string> NativeNames::decode_long(const DirId& dir, std::string_view lower, ByteView side) const {
  ECFS_LET(std::string plain, plain_of(dir, side));
  // Believed only if encrypting gives this very pair: else names could be exchanged, or a short one be given twice.
  ECFS_LET(const LowerName again, encode(dir, plain));
  if (!again.side || again.entry != lower ||
      !std::equal(side.begin(), side.end(), again.side->begin(), again.side->end())) {
    return corrupt("long name: the side file belongs to another entry");
  }
  return plain;
}

std::string_view conflict_base(std::string_view lower) {
  for (std::size_t i = 1; i < lower.size(); ++i) {
    if (lower[i] == '.' || lower[i] == '~' || lower.substr(i, 2) == " (") return lower.substr(0, i);
  }
  return {};
}

Result<Format::ConflictName> NativeNames::conflict(const DirId& dir, std::string_view lower, ByteView side) const {
  const Error none{Code::kNotFound, ENOENT, "a foreign name, not a conflicting copy"};
  const std::string_view base = conflict_base(lower);
  if (base.empty() || kind_of(lower) == LowerNameKind::kOurs) return none;
  const std::string_view rest = lower.substr(base.size());
  const bool is_long_base = is_long(base);
  // The conflicting copy of a side file is no entry.
  if (is_long_base && rest.ends_with(kSideSuffix)) return none;
  Result<std::string> plain = is_long_base ? decode_long(dir, base, side) : decode(dir, base);
  if (!plain) return none;
  ECFS_LET(const wrap::Sha256 hash, wrap::sha256({as_bytes(rest)}));
  Format::ConflictName name;
  name.shown = *plain + ".ecfs-conflict-" + to_hex(ByteView(hash).first(4));
  name.plain = *std::move(plain);
  if (name.shown.size() > kLongestPlainName) return system_error(ENAMETOOLONG, "name of a conflicting copy");
  return name;
}

Result<DirId> NativeNames::read_dir_id(ByteView stored) const {
  if (stored.size() != kDirFileBytes || !std::equal(kDirFileHead.begin(), kDirFileHead.end(), stored.begin())) {
    return corrupt("stored directory id: not one of this version");
  }
  Result<Bytes> id = dirid_.open(kDirFileHead, stored.subspan(kDirFileHead.size()));
  if (!id) return with_context(std::move(id).error(), "stored directory id");
  DirId out{};
  std::copy_n(id->begin(), out.size(), out.begin());
  return out;
}

Result<Bytes> NativeNames::store_dir_id(const DirId& id) const {
  ECFS_LET(const Bytes sealed, dirid_.seal(kDirFileHead, id));
  return joined(kDirFileHead, sealed);
}

Result<std::string> NativeNames::encode_link(std::string_view target) const {
  if (target.empty() || target.find('\0') != std::string_view::npos) {
    return Error{Code::kInvalid, EINVAL, "not a link target"};
  }
  if (target.size() > kLongestLink) return system_error(ENAMETOOLONG, "link target");
  std::array<std::uint8_t, kRandomPrefixBytes> n{};
  ECFS_TRY(nonces_->fill(n));
  ECFS_LET(const Bytes sealed, symlink_.seal(n, as_bytes(target)));
  return to_base64url(joined(n, sealed));
}

Result<std::string> NativeNames::decode_link(std::string_view lower) const {
  const Result<Bytes> bytes = from_base64url(lower);
  if (!bytes || bytes->size() <= kRandomPrefixBytes + kSivBytes) return corrupt("link target: not one of ours");
  const ByteView all(*bytes);
  Result<Bytes> target = symlink_.open(all.first(kRandomPrefixBytes), all.subspan(kRandomPrefixBytes));
  if (!target) return with_context(std::move(target).error(), "link target");
  std::string text(as_text(*target));
  if (text.find('\0') != std::string::npos) return corrupt("link target: authentic, but not one that is ever written");
  return text;
}

std::uint64_t native_link_size(std::uint64_t lower_len) noexcept {
  const std::uint64_t bytes = lower_len / 4 * 3 + lower_len % 4 * 3 / 4;
  constexpr std::uint64_t kExtra = kRandomPrefixBytes + kSivBytes;
  return bytes > kExtra ? bytes - kExtra : 0;
}

Result<Bytes> NativeNames::seal_xattr_name(std::string_view name) const {
  if (!name.starts_with(kUserPrefix) || name.size() == kUserPrefix.size() ||
      name.find('\0') != std::string_view::npos) {
    return Error{Code::kInvalid, EINVAL, "extended attribute: not of the user class"};
  }
  if (name.size() > kLongestXattrName) return system_error(ERANGE, "name of an extended attribute");
  return xname_.seal(as_bytes("x"), as_bytes(name));
}

Result<std::string> NativeNames::encode_xattr_name(std::string_view name) const {
  ECFS_LET(const Bytes sealed, seal_xattr_name(name));
  return std::string(kXattrPrefix) + to_base64url(sealed);
}

std::optional<std::string> NativeNames::decode_xattr_name(std::string_view lower_name) const {
  if (!lower_name.starts_with(kXattrPrefix)) return std::nullopt;
  const Result<Bytes> sealed = from_base64url(lower_name.substr(kXattrPrefix.size()));
  if (!sealed || sealed->size() > kSivBytes + kLongestXattrName) return std::nullopt;
  const Result<Bytes> name = xname_.open(as_bytes("x"), *sealed);
  if (!name) return std::nullopt;
  std::string text(as_text(*name));
  if (!text.starts_with(kUserPrefix) || text.size() == kUserPrefix.size() || text.find('\0') != std::string::npos) {
    return std::nullopt;
  }
  return text;
}

Result<Bytes> NativeNames::encode_xattr_value(std::string_view name, ByteView value) const {
  ECFS_LET(const Bytes sealed_name, seal_xattr_name(name));
  std::array<std::uint8_t, kRandomPrefixBytes> n{};
  ECFS_TRY(nonces_->fill(n));
  Bytes marked{kXattrValueMark};
  append(marked, value);
  ECFS_LET(const Bytes sealed, xvalue_.seal(joined(n, sealed_name), marked));
  return joined(n, sealed);
}

Result<Bytes> NativeNames::decode_xattr_value(std::string_view name, ByteView lower_value) const {
  ECFS_LET(const Bytes sealed_name, seal_xattr_name(name));
  if (lower_value.size() < kXattrExtra) return corrupt("extended attribute: too short");
  const ByteView n = lower_value.first(kRandomPrefixBytes);
  Result<Bytes> marked = xvalue_.open(joined(n, sealed_name), lower_value.subspan(kRandomPrefixBytes));
  if (!marked) return with_context(std::move(marked).error(), "extended attribute");
  if (marked->front() != kXattrValueMark) return corrupt("extended attribute: of a later version");
  marked->erase(marked->begin());
  return *std::move(marked);
}

std::optional<std::size_t> native_xattr_value_size(std::size_t lower_len) noexcept {
  if (lower_len < kXattrExtra) return std::nullopt;
  return lower_len - kXattrExtra;
}

}  // namespace ecfs::fs
