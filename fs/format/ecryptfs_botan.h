// The two ciphers of the eCryptfs format that OpenSSL does not have, Twofish and CAST-256 (cast6), from Botan 2, where
// ecfs was built with it and the library is installed. Nothing else of Botan is used, and nothing but ecryptfs_keys
// uses this.
//
// The library is loaded when it is needed, not with the program: it maps up to 512 KiB of locked memory as soon as it
// is there, which a child of fork(2) finds unlocked, and only few have a use for it. The key schedules are in that
// memory: not dumped, and wiped when they are freed (past 512 KiB in a process, or the limit on locked memory: ordinary
// memory).
#pragma once

#include <cstdint>
#include <memory>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

// load_botan looks for the library, once in a process: it reads files, and maps code. The others here do it themselves;
// a process that gives up the right to do so, or that shall have the memory and not its parent, calls this before.
void load_botan() noexcept;

// has_botan_cipher: is the cipher of that code (0x0a, 0x0b) there?
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
