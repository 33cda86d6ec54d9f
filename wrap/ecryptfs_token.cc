#include "wrap/ecryptfs_token.h"

#include <algorithm>
#include <array>

#include "wrap/user_keyring.h"

namespace ecfs::wrap {
namespace {

// The layout on little-endian systems, of 32 or 64 bits.
constexpr std::size_t kMostBytes = 4096;  // of a private key's token, which is told from garbage
constexpr std::size_t kVersionAt = 0;
constexpr std::size_t kTypeAt = 2;
constexpr std::size_t kHashAt = 632;
constexpr std::size_t kKeyLengthAt = 640;
constexpr std::size_t kFlagsAt = 644;
constexpr std::size_t kKeyAt = 648;
constexpr std::size_t kSignatureAt = 712;
constexpr std::size_t kSignatureChars = 16;
constexpr std::size_t kSaltAt = 729;

constexpr std::uint16_t kVersion = 0x0004;
constexpr std::uint16_t kTypePassphrase = 0;
constexpr std::uint16_t kTypePrivateKey = 1;
constexpr std::uint32_t kHashSha512 = 10;
constexpr std::uint32_t kKeyIsSet = 2;

Error corrupt(const std::string& what) { return Error{Code::kCorrupt, 0, "eCryptfs token: " + what}; }

}  // namespace

Result<Secret> encode_ecryptfs_token(const EcryptfsKey& key) {
  if (key.key.size() != kEcryptfsKeyBytes) return Error{Code::kInvalid, 0, "an eCryptfs key has 64 bytes"};
  ECFS_LET(Secret payload, Secret::of_size(kEcryptfsTokenBytes));
  std::uint8_t* const at = payload.reveal_mutable().data();
  store_le<std::uint16_t>(at + kVersionAt, kVersion);
  store_le<std::uint16_t>(at + kTypeAt, kTypePassphrase);
  store_le<std::uint32_t>(at + kHashAt, kHashSha512);
  store_le<std::uint32_t>(at + kKeyLengthAt, static_cast<std::uint32_t>(kEcryptfsKeyBytes));
  store_le<std::uint32_t>(at + kFlagsAt, kKeyIsSet);
  std::copy(key.key.reveal().begin(), key.key.reveal().end(), at + kKeyAt);
  const std::string signature = to_hex(key.signature);
  std::copy(signature.begin(), signature.end(), at + kSignatureAt);
  std::copy(key.salt.begin(), key.salt.end(), at + kSaltAt);
  return payload;
}

Result<EcryptfsSignature> parse_ecryptfs_signature(std::string_view text) {
  EcryptfsSignature signature{};
  const auto bytes = from_hex(text);
  if (!bytes || bytes->size() != signature.size()) {
    return Error{Code::kInvalid, 0, "a signature has 16 hex digits"};
  }
  std::copy(bytes->begin(), bytes->end(), signature.begin());
  return signature;
}

Result<EcryptfsKey> decode_ecryptfs_token(ByteView payload) {
  // What begins like a private key's is longer; only its first fields are looked at.
  if (payload.size() < kEcryptfsTokenBytes) return corrupt(std::to_string(payload.size()) + " bytes");
  const std::uint8_t* const at = payload.data();
  const auto version = load_le<std::uint16_t>(at + kVersionAt);
  if (version != kVersion) return corrupt("version " + std::to_string(version));
  const auto type = load_le<std::uint16_t>(at + kTypeAt);
  if (type == kTypePrivateKey) {
    return Error{Code::kUnsupported, 0, "eCryptfs token: it stands for a private key, which only the kernel can use"};
  }
  if (type != kTypePassphrase || payload.size() != kEcryptfsTokenBytes) return corrupt("neither kind of token");
  if ((load_le<std::uint32_t>(at + kFlagsAt) & kKeyIsSet) == 0) return corrupt("it holds no key");
  if (load_le<std::uint32_t>(at + kKeyLengthAt) != kEcryptfsKeyBytes) return corrupt("a key of another length");
  const ByteView signature = payload.subspan(kSignatureAt, kSignatureChars + 1);
  if (signature.back() != 0) return corrupt("its signature does not end");
  const auto parsed = parse_ecryptfs_signature(as_text(signature.first(kSignatureChars)));
  if (!parsed) return corrupt("its signature is none");
  EcryptfsKey key;
  key.signature = *parsed;
  ECFS_LET(key.key, Secret::copy_of(payload.subspan(kKeyAt, kEcryptfsKeyBytes)));
  std::copy_n(at + kSaltAt, key.salt.size(), key.salt.begin());
  ECFS_LET(const EcryptfsSignature proper, ecryptfs_signature(key.key.reveal()));
  if (proper != key.signature) return corrupt("its key does not have the signature " + to_hex(key.signature));
  return key;
}

Result<TokenPut> put_ecryptfs_token(const EcryptfsKey& key) {
  ECFS_LET(const Secret payload, encode_ecryptfs_token(key));
  const auto there = find_ecryptfs_token(key.signature);
  if (there && there->key.equals(key.key)) return TokenPut::kThere;
  if (!there && there.error().code == Code::kUnsupported) return there.error();  // not ours to replace
  UserKeyring keyring;
  ECFS_TRY(keyring.add(to_hex(key.signature), payload.reveal()));
  return TokenPut::kNew;
}

Result<EcryptfsKey> find_ecryptfs_token(const EcryptfsSignature& signature) {
  const UserKeyring keyring;
  ECFS_LET(const std::int32_t id, keyring.find(to_hex(signature)));
  ECFS_LET(const Secret payload, keyring.read(id, kMostBytes));
  ECFS_LET(EcryptfsKey key, decode_ecryptfs_token(payload.reveal()));
  if (key.signature != signature) return corrupt("it is named " + to_hex(signature) + " and says another signature");
  return key;
}

Result<std::vector<EcryptfsSignature>> list_ecryptfs_tokens() {
  const UserKeyring keyring;
  ECFS_LET(const std::vector<std::string> names, keyring.names());
  std::vector<EcryptfsSignature> signatures;
  for (const std::string& name : names) {
    if (const auto signature = parse_ecryptfs_signature(name)) signatures.push_back(*signature);
  }
  return signatures;
}

Status drop_ecryptfs_token(const EcryptfsSignature& signature) {
  UserKeyring keyring;
  const auto id = keyring.find(to_hex(signature));
  if (!id) return id.error().code == Code::kNotFound ? Status{} : id.error();
  return keyring.unlink(*id);
}

}  // namespace ecfs::wrap
