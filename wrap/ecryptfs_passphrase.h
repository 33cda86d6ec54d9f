// What an eCryptfs mount passphrase becomes: the 64-byte key that encrypts file keys or names, and the signature by
// which files, names and keyrings tell of it. Files of every version of eCryptfs depend on it; nothing new may.
//
// Safe from any thread. A failure of OpenSSL itself is kIo. Source: fs/ECRYPTFS-FORMAT.md §1.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <span>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::wrap {

using EcryptfsSignature = std::array<std::uint8_t, 8>;  // shown as 16 hex digits
using EcryptfsSalt = std::array<std::uint8_t, 8>;

constexpr EcryptfsSalt kEcryptfsContentSalt{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77};  // unless told otherwise
constexpr EcryptfsSalt kEcryptfsNameSalt{'9', '9', '8', '8', '7', '7', '6', '6'};
constexpr std::size_t kEcryptfsMaxPassphraseBytes = 64;
constexpr std::size_t kEcryptfsKeyBytes = 64;

// EcryptfsKey is what a passphrase becomes: FEKEK or FNEK. Ciphers use the first bytes of `key`.
struct EcryptfsKey {
  Secret key;  // 64 bytes
  EcryptfsSalt salt{};
  EcryptfsSignature signature{};

  // derive takes tens of milliseconds. kInvalid: a passphrase that is not 1..64 bytes, or has a NUL in it.
  static Result<EcryptfsKey> derive(const Secret& passphrase, const EcryptfsSalt& salt);
};

// ecryptfs_signature is the signature of 64 bytes of key.
Result<EcryptfsSignature> ecryptfs_signature(ByteView key);

// pack_ecryptfs_keys puts keys one behind the other as they travel to the server of a mount: of each the salt and the
// 64 bytes (signatures follow from those); at most 64 keys (kInvalid).
constexpr std::size_t kPackedEcryptfsKeyBytes = sizeof(EcryptfsSalt) + kEcryptfsKeyBytes;
constexpr std::size_t kMaxPackedEcryptfsKeys = 64;
Result<Secret> pack_ecryptfs_keys(std::span<const EcryptfsKey> keys);

// ecryptfs_rc_salt takes the salt of contents from the text of a ~/.ecryptfsrc: the first "salt=" with 16 characters
// between newlines or commas; without one it is kEcryptfsContentSalt. 16 characters that are not hex digits: kInvalid.
Result<EcryptfsSalt> ecryptfs_rc_salt(ByteView rc);
// read_ecryptfs_rc_salt reads it from .ecryptfsrc in `home`, as the user. No such file is kEcryptfsContentSalt.
Result<EcryptfsSalt> read_ecryptfs_rc_salt(int home, uid_t owner);

}  // namespace ecfs::wrap
