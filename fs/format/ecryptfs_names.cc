#include "fs/format/ecryptfs_names.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "wrap/crypto.h"

namespace ecfs::fs {
namespace {

constexpr std::uint8_t kTag70 = 0x46;
constexpr std::size_t kMinPrefixBytes = 16;
constexpr std::size_t kMaxPrefixBytes = 32;  // 31, in whole hashes
constexpr std::uint8_t kInsteadOfNul = 0x42;
constexpr std::size_t kPacketFixedBytes = 9;  // signature and cipher
constexpr std::string_view kAlphabet = "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

Error corrupt(std::string_view what) { return Error{Code::kCorrupt, EIO, "eCryptfs name: " + std::string(what)}; }

// text_len is the length of `num_bytes` bytes in text.
constexpr std::size_t text_len(std::size_t num_bytes) noexcept { return (num_bytes + 2) / 3 * 4; }

}  // namespace

std::string to_ecryptfs_text(ByteView bytes) {
  std::string text;
  text.reserve(text_len(bytes.size()));
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::uint32_t group = 0;
    for (std::size_t i = 0; i < 3; ++i) group = group << 8 | (at + i < bytes.size() ? bytes[at + i] : 0U);
    for (int shift = 18; shift >= 0; shift -= 6) text.push_back(kAlphabet[group >> shift & 0x3f]);
  }
  return text;
}

Result<Bytes> from_ecryptfs_text(std::string_view text) {
  if (text.size() % 4 != 0) return corrupt("a length that is none");
  Bytes bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (std::size_t at = 0; at < text.size(); at += 4) {
    std::uint32_t group = 0;
    for (const char c : text.substr(at, 4)) {
      const std::size_t value = kAlphabet.find(c);
      if (value == std::string_view::npos) return corrupt("a foreign character");
      group = group << 6 | static_cast<std::uint32_t>(value);
    }
    for (int shift = 16; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::uint8_t>(group >> shift));
  }
  return bytes;
}

Result<EcryptfsNames> EcryptfsNames::make(const EcryptfsKeys& keys, const EcryptfsCiphers& ciphers,
                                          const EcryptfsCipher& cipher, const EcryptfsSignature& signature) {
  ECFS_LET(const EcryptfsKey* const key, keys.find(signature));
  ECFS_LET(Secret prefix, Secret::of_size(kMaxPrefixBytes));
  const MutableByteView bytes = prefix.reveal_mutable();
  constexpr std::size_t kHalf = kMaxPrefixBytes / 2;
  if (EVP_Digest(key->key.reveal().data(), key->key.size(), bytes.data(), nullptr, ciphers.md5(), nullptr) != 1 ||
      EVP_Digest(bytes.data(), kHalf, bytes.data() + kHalf, nullptr, ciphers.md5(), nullptr) != 1) {
    return wrap::openssl_error("derive an eCryptfs name key");
  }
  std::replace(bytes.begin(), bytes.end(), std::uint8_t{0}, kInsteadOfNul);
  EcryptfsNames names(keys, ciphers, cipher, signature, std::move(prefix));
  ECFS_TRY(names.encode("x"));  // says at once if the cipher is not there
  return names;
}

Result<std::string> EcryptfsNames::seal(std::string_view plain, std::size_t longest_lower) const {
  if (prefix_.empty()) return no_keys();
  if (plain.empty()) return Error{Code::kInvalid, EINVAL, "an empty name"};
  if (plain.size() > longest_lower) return system_error(ENAMETOOLONG, "encrypt a name");
  const std::size_t block = cipher_.block_bytes();
  const std::size_t len = (kMinPrefixBytes + 1 + plain.size() + block - 1) / block * block;
  Bytes packet{kTag70};
  append_ecryptfs_length(packet, kPacketFixedBytes + len);
  append(packet, signature_);
  packet.push_back(cipher_.code);
  const std::size_t at = packet.size();
  if (kEcryptfsNamePrefix.size() + text_len(at + len) > longest_lower) {
    return system_error(ENAMETOOLONG, "encrypt a name");
  }
  append(packet, prefix_.reveal().first(len - 1 - plain.size()));
  packet.push_back(0);
  append(packet, as_bytes(plain));
  ECFS_LET(const EcryptfsKey* const key, keys_->find(signature_));
  const Status status =
      ciphers_->ecb(cipher_, key->key.reveal(), true, ByteView(packet).subspan(at), packet.data() + at);
  if (!status) {
    wipe(packet);
    return status.error();
  }
  return std::string(kEcryptfsNamePrefix) + to_ecryptfs_text(packet);
}

Result<std::string> EcryptfsNames::open(std::string_view lower) const {
  if (prefix_.empty()) return no_keys();
  if (!lower.starts_with(kEcryptfsNamePrefix)) return corrupt("not encrypted");
  ECFS_LET(const Bytes packet, from_ecryptfs_text(lower.substr(kEcryptfsNamePrefix.size())));
  if (packet.empty() || packet[0] != kTag70) return corrupt("a packet of an unknown kind");
  ECFS_LET(const EcryptfsLength length, parse_ecryptfs_length(ByteView(packet).subspan(1)));
  const ByteView rest = ByteView(packet).subspan(1 + length.num_bytes);
  if (length.len <= kPacketFixedBytes || length.len > rest.size() || rest.size() - length.len > 2) {
    return corrupt("a packet of another length");
  }
  EcryptfsSignature signature{};
  std::copy_n(rest.begin(), signature.size(), signature.begin());
  ECFS_LET(const EcryptfsCipher cipher, EcryptfsCipher::of_name(rest[8], cipher_.key_bytes));
  const ByteView sealed = rest.subspan(kPacketFixedBytes, length.len - kPacketFixedBytes);
  if (sealed.size() % cipher.block_bytes() != 0) return corrupt("not whole blocks of its cipher");
  ECFS_LET(const EcryptfsKey* const key, keys_->find(signature));
  Bytes plain(sealed.size());
  ECFS_TRY(ciphers_->ecb(cipher, key->key.reveal(), false, sealed, plain.data()));
  const auto end = std::find(plain.begin(), plain.end(), 0);
  std::string name(end == plain.end() ? end : end + 1, plain.end());
  wipe(plain);
  if (name.empty() || name.find('\0') != std::string::npos) return corrupt("nothing that could be a name");
  return name;
}

Result<std::string> EcryptfsNames::encode(std::string_view plain) const {
  return seal(plain, kEcryptfsLongestLowerName);
}

Result<std::string> EcryptfsNames::decode(std::string_view lower) const {
  if (lower.size() > kEcryptfsLongestLowerName) return corrupt("too long");
  ECFS_LET(std::string name, open(lower));
  const bool dots = name.size() <= 2 && name.find_first_not_of('.') == std::string::npos;
  if (dots || name.find('/') != std::string::npos) return corrupt("no name of a file");
  ECFS_LET(const std::string again, encode(name));
  if (again != lower) return corrupt("a name that no lookup would find");
  return name;
}

Result<std::string> EcryptfsNames::encode_link(std::string_view target) const {
  return seal(target, kEcryptfsLongestLowerLink);
}

Result<std::string> EcryptfsNames::decode_link(std::string_view lower) const {
  if (lower.size() > kEcryptfsLongestLowerLink) return corrupt("too long");
  return open(lower);
}

}  // namespace ecfs::fs
