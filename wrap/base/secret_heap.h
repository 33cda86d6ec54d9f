// A heap in LockedPages, for many small pieces that hold keys: a cipher library's contexts. As fast as malloc: each
// thread keeps a few freed pieces of each size for itself. A piece is wiped when it is freed; pages are used again and
// stay with the process, but for pieces above 32 KiB, which have pages of their own.
//
// All functions are safe from any thread.
#pragma once

#include <cstddef>

#include "wrap/base/bytes.h"

namespace ecfs {

// secret_alloc gives `len` bytes (0 counts as 1) at a multiple of 16, or null if there is no memory for it under the
// process's SecretRules. The bytes are not set.
void* secret_alloc(std::size_t len) noexcept;

// ordinary_alloc gives a piece of malloc(3) that the two functions below take as well: for what a library allocates
// before it is given a secret. Moved by secret_realloc it becomes a secret one.
void* ordinary_alloc(std::size_t len) noexcept;

// secret_realloc moves a piece (null: none) into one of `len` bytes and frees the old one. Null: the old one stays.
void* secret_realloc(void* piece, std::size_t len) noexcept;

// secret_free wipes and frees a piece; null is none. What is no piece of this heap, or was freed before, ends the
// process.
void secret_free(void* piece) noexcept;

// SecretBytes is a small array in the heap, for a key on its way through a function: a stack is dumped and swapped.
template <std::size_t N>
class SecretBytes {
 public:
  SecretBytes() noexcept : bytes_(static_cast<std::uint8_t*>(secret_alloc(N))) {}
  ~SecretBytes() { secret_free(bytes_); }
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  // False: there was no memory.
  explicit operator bool() const noexcept { return bytes_ != nullptr; }
  [[nodiscard]] MutableByteView reveal_mutable() noexcept { return {bytes_, N}; }

 private:
  std::uint8_t* bytes_;
};

}  // namespace ecfs
