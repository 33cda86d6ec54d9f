// Wrapped-passphrase files (~/.ecryptfs/wrapped-passphrase): the mount passphrase of an eCryptfs directory, encrypted
// under another passphrase, mostly the login's. Both versions are read, version 2 is written, as ecryptfs-utils does.
//
// The files are weak, and nothing can make them stronger: the key costs 65536 hashes, and nothing but the wrapping
// passphrase's signature is checked. They are parsed as hostile input. Safe from any thread.
// Source: fs/ECRYPTFS-FORMAT.md §8.
#pragma once

#include <optional>
#include <string>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/ecryptfs_passphrase.h"

namespace ecfs::wrap {

constexpr std::size_t kMaxWrappedPassphraseBytes = 90;  // of a file

// wrap_passphrase gives the bytes of a file, with a salt of its own. Either passphrase has 1..64 bytes without NUL
// (kInvalid). It is opened again before it is handed out.
Result<Bytes> wrap_passphrase(const Secret& passphrase, const Secret& wrapping);

// parse_wrapped_passphrase takes a file apart: kCorrupt if it is none, kUnsupported for a version that is not known.
struct WrappedPassphrase {
  std::optional<EcryptfsSalt> salt;  // version 2; files of version 1 have the salt of contents
  EcryptfsSignature signature{};     // of the wrapping passphrase
  Bytes encrypted;                   // 16, 32, 48 or 64 bytes
};
Result<WrappedPassphrase> parse_wrapped_passphrase(ByteView file);

// unwrap_passphrase gives the mount passphrase. `salt` (of ~/.ecryptfsrc) counts for files of version 1. kWrongKey: the
// wrapping passphrase does not fit.
Result<Secret> unwrap_passphrase(ByteView file, const Secret& wrapping, const EcryptfsSalt& salt);

// wrapped_passphrase_version reads the version of the file `name` in `dir`, 1 or 2; errors as of parse and read.
Result<int> wrapped_passphrase_version(int dir, const std::string& name);

// read_wrapped_passphrase reads and unwraps `name` in `dir`: a regular file, no link; kNotFound if there is none.
Result<Secret> read_wrapped_passphrase(int dir, const std::string& name, const Secret& wrapping,
                                       const EcryptfsSalt& salt);

// write_wrapped_passphrase makes `name` in `dir` (0600) at once or not at all, also if the machine stops meanwhile, and
// reads it back. The file there was is kept as NAME.bak.
Status write_wrapped_passphrase(int dir, const std::string& name, const Secret& passphrase, const Secret& wrapping);

// rewrap_passphrase puts another wrapping passphrase in place of the old one. In the end NAME.bak opens with the new
// one too: the old one opens nothing any more. An error that names NAME.bak is of that last step.
Status rewrap_passphrase(int dir, const std::string& name, const Secret& old_wrapping, const Secret& new_wrapping,
                         const EcryptfsSalt& salt);

}  // namespace ecfs::wrap
