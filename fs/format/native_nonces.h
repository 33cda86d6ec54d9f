// make_native_format with a source of ids and nonces of the caller's: for encoders that are not to be random, which are
// tests that compare with given bytes. A mount never calls it: a nonce used twice gives two blocks away.
#pragma once

#include "fs/format/native_crypto.h"
#include "fs/format/native_format.h"

namespace ecfs::fs {

Result<std::unique_ptr<Format>> make_native_format(const NativeFormatOptions& options, const Secret& volume_key,
                                                   std::shared_ptr<NonceSource> nonces);

}  // namespace ecfs::fs
