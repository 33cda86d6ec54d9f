#include "fs/format/ecryptfs_keys.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string>

#include "wrap/crypto.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kMd5Bytes = 16;
constexpr std::size_t kMaxIdle = 4;  // contexts kept of each direction: as many threads as usually share a file

using DigestCtx = Owned<EVP_MD_CTX, EVP_MD_CTX_free>;

// Key lengths are from `least` to `most` in steps of `step`: those whose encrypted file key is whole blocks.
struct CipherRow {
  std::uint8_t code;
  std::string_view name;
  std::uint8_t block_bytes;
  std::uint8_t least, most, step;
  const char* ecb;  // OpenSSL's names; null: it does not have this cipher, Botan has
  const char* cbc;
};
constexpr std::array<CipherRow, 8> kCiphers{{
    {0x02, "des3_ede", 8, 24, 24, 1, "DES-EDE3", "DES-EDE3-CBC"},
    {0x03, "cast5", 8, 8, 16, 8, "CAST5-ECB", "CAST5-CBC"},
    {0x04, "blowfish", 8, 8, 56, 8, "BF-ECB", "BF-CBC"},
    {0x07, "aes", 16, 16, 16, 1, "AES-128-ECB", "AES-128-CBC"},
    {0x08, "aes", 16, 24, 24, 1, "AES-192-ECB", "AES-192-CBC"},
    {0x09, "aes", 16, 32, 32, 1, "AES-256-ECB", "AES-256-CBC"},
    {0x0a, "twofish", 16, 16, 32, 16, nullptr, nullptr},
    {0x0b, "cast6", 16, 16, 32, 16, nullptr, nullptr},
}};

int to_int(std::size_t n) noexcept { return static_cast<int>(n); }

bool has_key_length(const CipherRow& row, std::size_t key_bytes) noexcept {
  return key_bytes >= row.least && key_bytes <= row.most && (key_bytes - row.least) % row.step == 0;
}

const CipherRow* row_of(std::uint8_t code) noexcept {
  const auto* it =
      std::find_if(kCiphers.begin(), kCiphers.end(), [&](const CipherRow& row) { return row.code == code; });
  return it == kCiphers.end() ? nullptr : it;
}

Error corrupt(std::string what) { return Error{Code::kCorrupt, EIO, std::move(what)}; }
Error no_memory() { return Error{Code::kNoMemory, ENOMEM, "no memory for a file's key"}; }

// hash gives the digest of `in` at `out`.
bool hash(const DigestCtx& ctx, const EVP_MD* algorithm, ByteView in, std::uint8_t* out) noexcept {
  return EVP_DigestInit_ex(ctx.get(), algorithm, nullptr) == 1 &&
         EVP_DigestUpdate(ctx.get(), in.data(), in.size()) == 1 && EVP_DigestFinal_ex(ctx.get(), out, nullptr) == 1;
}

}  // namespace

Result<const EcryptfsKey*> EcryptfsKeys::find(const EcryptfsSignature& signature) const {
  for (const EcryptfsKey& key : all) {
    if (key.signature == signature) return &key;
  }
  return Error{Code::kNoKey, ENOKEY, "no key with the signature " + to_hex(signature)};
}

constexpr std::size_t kPackedBytes = wrap::kPackedEcryptfsKeyBytes;

Result<Secret> EcryptfsKeys::pack() const { return wrap::pack_ecryptfs_keys(all); }

Result<EcryptfsKeys> EcryptfsKeys::parse(const Secret& packed) {
  const ByteView bytes = packed.reveal();
  if (bytes.size() % kPackedBytes != 0 || bytes.size() / kPackedBytes > kEcryptfsMaxKeys) {
    return Error{Code::kInvalid, EINVAL, "these are no eCryptfs keys"};
  }
  EcryptfsKeys keys;
  for (std::size_t at = 0; at < bytes.size(); at += kPackedBytes) {
    EcryptfsKey key;
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), key.salt.size(), key.salt.begin());
    ECFS_LET(key.key, Secret::copy_of(bytes.subspan(at + key.salt.size(), wrap::kEcryptfsKeyBytes)));
    ECFS_LET(key.signature, wrap::ecryptfs_signature(key.key.reveal()));
    keys.all.push_back(std::move(key));
  }
  return keys;
}

Result<EcryptfsCipher> EcryptfsCipher::by_name(std::string_view name, std::size_t key_bytes) {
  bool known = false;
  for (const CipherRow& row : kCiphers) {
    if (row.name != name) continue;
    if (has_key_length(row, key_bytes)) return EcryptfsCipher{row.code, static_cast<std::uint8_t>(key_bytes)};
    known = true;
  }
  if (!known) return Error{Code::kInvalid, EINVAL, "eCryptfs has no cipher " + std::string(name)};
  return Error{Code::kInvalid, EINVAL,
               "the cipher " + std::string(name) + " takes no keys of " + std::to_string(key_bytes) + " bytes"};
}

Result<EcryptfsCipher> EcryptfsCipher::of_packet(std::uint8_t code, std::size_t encrypted_key_bytes) {
  const CipherRow* row = row_of(code);
  if (row == nullptr) return corrupt("eCryptfs header: unknown cipher " + std::to_string(code));
  const std::size_t key_bytes = row->least == row->most ? row->least : encrypted_key_bytes;
  const EcryptfsCipher cipher{code, static_cast<std::uint8_t>(key_bytes)};
  if (!has_key_length(*row, key_bytes) || cipher.encrypted_key_bytes() != encrypted_key_bytes) {
    return corrupt("eCryptfs header: a key of " + std::to_string(encrypted_key_bytes) + " bytes for the cipher " +
                   std::string(row->name));
  }
  return cipher;
}

Result<EcryptfsCipher> EcryptfsCipher::of_name(std::uint8_t code, std::size_t key_bytes) {
  const CipherRow* row = row_of(code);
  if (row == nullptr) return corrupt("eCryptfs name: unknown cipher " + std::to_string(code));
  if (row->least == row->most) key_bytes = row->least;
  if (!has_key_length(*row, key_bytes)) return corrupt("eCryptfs name: another key length than this mount's");
  return EcryptfsCipher{code, static_cast<std::uint8_t>(key_bytes)};
}

std::string_view EcryptfsCipher::name() const noexcept {
  const CipherRow* row = row_of(code);
  return row == nullptr ? "none" : row->name;
}

std::size_t EcryptfsCipher::block_bytes() const noexcept {
  const CipherRow* row = row_of(code);
  return row == nullptr ? 1 : row->block_bytes;
}

// --- OpenSSL -------------------------------------------------------------------------------------------------------

Result<EcryptfsCiphers> EcryptfsCiphers::fetch() {
  EcryptfsCiphers c;
  c.library_.reset(OSSL_LIB_CTX_new());
  if (!c.library_) return wrap::openssl_error("make an OpenSSL library context");
  c.default_.reset(OSSL_PROVIDER_load(c.library_.get(), "default"));
  c.legacy_.reset(OSSL_PROVIDER_load(c.library_.get(), "legacy"));
  c.md5_.reset(EVP_MD_fetch(c.library_.get(), "MD5", nullptr));
  if (!c.default_ || !c.md5_) return wrap::openssl_error("this OpenSSL lacks MD5");
  for (const CipherRow& row : kCiphers) {
    if (row.ecb == nullptr) continue;
    Modes modes{Cipher(EVP_CIPHER_fetch(c.library_.get(), row.ecb, nullptr)),
                Cipher(EVP_CIPHER_fetch(c.library_.get(), row.cbc, nullptr))};
    if (modes.ecb && modes.cbc) c.ciphers_.emplace(row.code, std::move(modes));
  }
  (void)wrap::openssl_error("");  // what is missing is said when it is asked for
  load_botan();
  return c;
}

Result<EcryptfsContext> EcryptfsCiphers::keyed(const EcryptfsCipher& cipher, ByteView key, bool encrypt,
                                               bool chained) const {
  if (key.size() < cipher.key_bytes) return Error{Code::kInvalid, EINVAL, "an eCryptfs key is too short"};
  const auto lacking = [&](const std::string& why) {
    return Error{Code::kUnsupported, EOPNOTSUPP,
                 "the cipher " + std::string(cipher.name()) + " is not supported on this system" + why};
  };
  if (const CipherRow* row = row_of(cipher.code); row != nullptr && row->ecb == nullptr) {
    Result<std::unique_ptr<BotanCipher>> botan = BotanCipher::make(cipher.code, key.first(cipher.key_bytes));
    if (botan) return EcryptfsContext(*std::move(botan), encrypt);
    if (botan.error().code == Code::kUnsupported) return lacking(": " + botan.error().what);
    return std::move(botan).error();
  }
  const auto modes = ciphers_.find(cipher.code);
  if (modes == ciphers_.end()) return lacking("");
  const EVP_CIPHER* algorithm = chained ? modes->second.cbc.get() : modes->second.ecb.get();
  CipherCtx ctx(EVP_CIPHER_CTX_new());
  const bool ok = ctx && EVP_CipherInit_ex2(ctx.get(), algorithm, nullptr, nullptr, encrypt ? 1 : 0, nullptr) == 1 &&
                  (EVP_CIPHER_CTX_get_key_length(ctx.get()) == cipher.key_bytes ||
                   EVP_CIPHER_CTX_set_key_length(ctx.get(), cipher.key_bytes) == 1) &&
                  EVP_CipherInit_ex2(ctx.get(), nullptr, key.data(), nullptr, -1, nullptr) == 1 &&
                  EVP_CIPHER_CTX_set_padding(ctx.get(), 0) == 1;
  if (!ok) return wrap::openssl_error("set an eCryptfs key");
  return EcryptfsContext(std::move(ctx));
}

Status EcryptfsCiphers::ecb(const EcryptfsCipher& cipher, ByteView key, bool encrypt, ByteView in,
                            std::uint8_t* out) const {
  if (in.size() % cipher.block_bytes() != 0) return Error{Code::kInvalid, EINVAL, "not whole blocks of a cipher"};
  ECFS_LET(EcryptfsContext ctx, keyed(cipher, key, encrypt, false));
  return ctx.ecb(in, out);
}

Result<EcryptfsContext> EcryptfsCiphers::cbc(const EcryptfsCipher& cipher, ByteView key, bool encrypt) const {
  return keyed(cipher, key, encrypt, true);
}

Status EcryptfsContext::openssl(const std::uint8_t* iv, ByteView in, std::uint8_t* out) {
  int len = 0;
  if ((iv != nullptr && EVP_CipherInit_ex2(openssl_.get(), nullptr, nullptr, iv, -1, nullptr) != 1) ||
      EVP_CipherUpdate(openssl_.get(), out, &len, in.data(), to_int(in.size())) != 1 || len != to_int(in.size())) {
    return wrap::openssl_error("use an eCryptfs key");
  }
  return {};
}

Status EcryptfsContext::ecb(ByteView in, std::uint8_t* out) {
  return botan_ ? botan_->ecb(encrypts_, in, out) : openssl(nullptr, in, out);
}

Status EcryptfsContext::cbc(ByteView iv, ByteView in, std::uint8_t* out) {
  return botan_ ? botan_->cbc(encrypts_, iv, in, out) : openssl(iv.data(), in, out);
}

// --- File keys -----------------------------------------------------------------------------------------------------

Result<std::vector<EcryptfsKeyPacket>> make_ecryptfs_file_key(const EcryptfsKeys& keys, const EcryptfsCiphers& ciphers,
                                                              const EcryptfsCipher& cipher,
                                                              std::span<const EcryptfsSignature> signatures) {
  SecretBytes<kEcryptfsMaxKeyBytes> file_key;
  if (!file_key) return no_memory();
  const std::size_t len = cipher.encrypted_key_bytes();
  if (cipher.key_bytes > len || len > kEcryptfsMaxKeyBytes) return Error{Code::kInvalid, EINVAL, "no eCryptfs cipher"};
  const MutableByteView bytes = file_key.reveal_mutable().first(len);
  ECFS_TRY(fill_random(bytes.first(cipher.key_bytes)));
  std::fill(bytes.begin() + cipher.key_bytes, bytes.end(), std::uint8_t{0});
  std::vector<EcryptfsKeyPacket> packets;
  for (const EcryptfsSignature& signature : signatures) {
    ECFS_LET(const EcryptfsKey* const key, keys.find(signature));
    EcryptfsKeyPacket packet{cipher.code, key->salt, Bytes(len), signature};
    ECFS_TRY(ciphers.ecb(cipher, key->key.reveal(), true, bytes, packet.encrypted_key.data()));
    packets.push_back(std::move(packet));
  }
  return packets;
}

Result<std::shared_ptr<const EcryptfsFileKey>> EcryptfsFileKey::open(const EcryptfsKeys& keys,
                                                                     const EcryptfsCiphers& ciphers,
                                                                     const EcryptfsHeader& header) {
  std::string missing;
  for (const EcryptfsKeyPacket& packet : header.keys) {
    if (!keys.find(packet.signature)) {
      missing += " " + to_hex(packet.signature);
      continue;
    }
    ECFS_LET(const EcryptfsCipher cipher, EcryptfsCipher::of_packet(packet.cipher_code, packet.encrypted_key.size()));
    std::shared_ptr<EcryptfsFileKey> key(new EcryptfsFileKey(keys, ciphers, cipher, packet));
    ECFS_LET(Lease::State first, key->new_state(false));  // says at once what would fail at the first read
    key->idle_[0].push_back(std::move(first));
    return std::shared_ptr<const EcryptfsFileKey>(std::move(key));
  }
  for (const EcryptfsSignature& signature : header.public_key_sigs) missing += " " + to_hex(signature) + " (public)";
  return Error{Code::kNoKey, ENOKEY, "no key with the signature" + missing};
}

Result<EcryptfsFileKey::Lease::State> EcryptfsFileKey::new_state(bool encrypts) const {
  ECFS_LET(const EcryptfsKey* const parent, keys_->find(packet_.signature));
  SecretBytes<kEcryptfsMaxKeyBytes> file_key;
  auto iv_input = std::make_unique<SecretBytes<32>>();
  if (!file_key || !*iv_input) return no_memory();
  const MutableByteView bytes = file_key.reveal_mutable();
  ECFS_TRY(ciphers_->ecb(cipher_, parent->key.reveal(), false, packet_.encrypted_key, bytes.data()));
  ECFS_LET(EcryptfsContext ctx, ciphers_->cbc(cipher_, bytes, encrypts));
  const DigestCtx digest(EVP_MD_CTX_new());
  if (!digest || !hash(digest, ciphers_->md5(), bytes.first(cipher_.key_bytes), iv_input->reveal_mutable().data())) {
    return wrap::openssl_error("derive an IV");
  }
  return Lease::State{std::move(ctx), std::move(iv_input)};
}

Result<EcryptfsFileKey::Lease> EcryptfsFileKey::lease(bool encrypts) const {
  {
    const std::lock_guard lock(mutex_);
    std::vector<Lease::State>& idle = idle_[encrypts ? 1 : 0];
    if (!idle.empty()) {
      Lease::State state = std::move(idle.back());
      idle.pop_back();
      return Lease(*this, std::move(state), encrypts);
    }
  }
  ECFS_LET(Lease::State state, new_state(encrypts));
  return Lease(*this, std::move(state), encrypts);
}

void EcryptfsFileKey::drop_keys() const noexcept {
  const std::lock_guard lock(mutex_);
  for (std::vector<Lease::State>& idle : idle_) idle.clear();
}

EcryptfsFileKey::Lease::~Lease() {
  if (!state_.iv_input) return;  // moved from
  const std::lock_guard lock(owner_->mutex_);
  std::vector<State>& idle = owner_->idle_[encrypts_ ? 1 : 0];
  if (idle.size() < kMaxIdle) idle.push_back(std::move(state_));
}

Status EcryptfsFileKey::Lease::crypt(std::uint64_t number, ByteView in, std::uint8_t* out) {
  const MutableByteView input = state_.iv_input->reveal_mutable();
  std::array<char, 20> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number);
  // Larger numbers than fit belong to no file that there can be: the largest has fewer than 10^16 extents.
  const std::size_t num_digits = std::min<std::size_t>(static_cast<std::size_t>(end.ptr - digits.data()), kMd5Bytes);
  std::fill(input.begin() + kMd5Bytes, input.end(), std::uint8_t{0});
  std::copy_n(digits.begin(), num_digits, input.begin() + kMd5Bytes);
  std::array<std::uint8_t, kMd5Bytes> iv{};
  if (EVP_Digest(input.data(), input.size(), iv.data(), nullptr, owner_->ciphers_->md5(), nullptr) != 1) {
    return wrap::openssl_error("derive an IV");
  }
  return state_.ctx.cbc(iv, in, out);
}

}  // namespace ecfs::fs
