// eCryptfs keys in the kernel's keyrings, byte for byte as the kernel and ecryptfs-utils keep theirs: type `user`, in
// the user keyring, named by the 16 hex digits of the signature. Either side uses the other's.
//
// Called as the user. Safe from any thread. Source: fs/ECRYPTFS-FORMAT.md §6.
#pragma once

#include <string>
#include <vector>

#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_passphrase.h"

namespace ecfs::wrap {

constexpr std::size_t kEcryptfsTokenBytes = 740;

// encode_ecryptfs_token gives the payload of a key. decode_ecryptfs_token takes one apart, which somebody else may have
// made: kCorrupt if it is none, or its key does not have its signature (what would be written with it nobody could
// read); kUnsupported for a token that stands for a private key.
Result<Secret> encode_ecryptfs_token(const EcryptfsKey& key);
Result<EcryptfsKey> decode_ecryptfs_token(ByteView payload);

// parse_ecryptfs_signature reads 16 hex digits; kInvalid.
Result<EcryptfsSignature> parse_ecryptfs_signature(std::string_view text);

// put_ecryptfs_token adds a key; kThere: it was there already, and stays as it is. A token of that name that does not
// hold the key is replaced. With sudo or su the kernel may not find it: it looks through the session keyring.
enum class TokenPut { kNew, kThere };
Result<TokenPut> put_ecryptfs_token(const EcryptfsKey& key);
// find_ecryptfs_token: kNotFound if there is none that may be read; else as decode_ecryptfs_token.
Result<EcryptfsKey> find_ecryptfs_token(const EcryptfsSignature& signature);
// list_ecryptfs_tokens gives the signatures by which keys in the user keyring are named; what they hold is not looked
// at.
Result<std::vector<EcryptfsSignature>> list_ecryptfs_tokens();
// drop_ecryptfs_token takes it out of the user keyring and the session's; none there is success. A mount of the kernel
// that uses the key goes on.
Status drop_ecryptfs_token(const EcryptfsSignature& signature);

}  // namespace ecfs::wrap
