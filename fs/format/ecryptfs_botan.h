// The two ciphers of the eCryptfs format that OpenSSL does not have, Twofish and CAST-256 (cast6), from Botan 2, where
// ecfs was built with it. Nothing else of Botan is used, and nothing but ecryptfs_keys uses this.
//
// The key schedule is in Botan's own memory for secrets: locked and not dumped up to 512 KiB in a process (from then on
// ordinary memory), and wiped when it is freed.
#pragma once

#include <cstdint>
#include <memory>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

// has_botan_cipher: does this program have the cipher of that code (0x0a, 0x0b)?
bool has_botan_cipher(std::uint8_t code) noexcept;

// BotanCipher is a cipher with its key set. One thread at a time. Lengths are whole blocks of 16 bytes.
class BotanCipher {
 public:
  // make: kUnsupported for a cipher that is not there, kInvalid for a key it does not take.
  static Result<std::unique_ptr<BotanCipher>> make(std::uint8_t code, ByteView key);
  virtual ~BotanCipher() = default;
  BotanCipher(const BotanCipher&) = delete;
  BotanCipher& operator=(const BotanCipher&) = delete;

  // ecb and cbc write to `out`, which may be the same place. kInvalid: not whole blocks, or no IV of 16 bytes.
  virtual Status ecb(bool encrypt, ByteView in, std::uint8_t* out) = 0;
  virtual Status cbc(bool encrypt, ByteView iv, ByteView in, std::uint8_t* out) = 0;

 protected:
  BotanCipher() = default;
};

}  // namespace ecfs::fs
