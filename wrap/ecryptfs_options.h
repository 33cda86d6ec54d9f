// How an eCryptfs tree is mounted, in the words that eCryptfs' own mounts have for it (ecryptfs(7)).
//
// Pure functions. What concerns only the tool (where a passphrase comes from, the signature cache) is not here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wrap/base/result.h"
#include "wrap/ecryptfs_passphrase.h"

namespace ecfs::wrap {

struct EcryptfsOptions {
  std::vector<EcryptfsSignature> signatures;        // ecryptfs_sig: files are made with these keys
  std::optional<EcryptfsSignature> name_signature;  // ecryptfs_fnek_sig: names are encrypted with this one
  std::string cipher;                               // ecryptfs_cipher; "": not said
  std::uint8_t key_bytes = 0;                       // ecryptfs_key_bytes; 0: not said
  std::string name_cipher;                          // ecryptfs_fn_cipher; "": as the contents
  std::uint8_t name_key_bytes = 0;                  // ecryptfs_fn_key_bytes; 0: as the contents
  std::optional<bool> passthrough;                  // ecryptfs_passthrough: files without a header are plain ones
  bool xattr_metadata = false;                      // ecryptfs_xattr_metadata: headers of new files in an attribute
  bool encrypted_view = false;                      // ecryptfs_encrypted_view: read-only, the encrypted files
  bool named_keys_only = false;                     // ecryptfs_mount_auth_tok_only: no other keys of the keyring
  bool unlink_keys = false;                         // ecryptfs_unlink_sigs: keys leave the keyring when it is unmounted
  bool own_lower = false;                           // ecryptfs_check_dev_ruid: LOWER must belong to the caller
  friend bool operator==(const EcryptfsOptions&, const EcryptfsOptions&) = default;
};
constexpr std::size_t kMaxEcryptfsSignatures = 16;

// take_ecryptfs_option notes one mount option: false if it is none of eCryptfs'; kInvalid for a value that makes no
// sense. The word `ecryptfs` alone says only which format it is.
Result<bool> take_ecryptfs_option(std::string_view item, std::optional<EcryptfsOptions>& options);
// build_ecryptfs_options gives the options back, separated by commas.
std::string build_ecryptfs_options(const EcryptfsOptions& options);

// yes_or_no understands y, n, yes, no, 1, 0; nullopt for anything else.
std::optional<bool> yes_or_no(std::string_view text) noexcept;

}  // namespace ecfs::wrap
