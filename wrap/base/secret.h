// Secret holds key or passphrase bytes, in pages of its own (LockedPages).
//
// A Secret moves but never copies, grows, prints or becomes a string. `reveal` and `reveal_mutable` are the only ways
// to the bytes, so a search for "reveal" lists every use. Not synchronised: one thread at a time, or read only.
#pragma once

#include <cstddef>

#include "wrap/base/bytes.h"
#include "wrap/base/locked_pages.h"
#include "wrap/base/result.h"

namespace ecfs {

class Secret {
 public:
  // The empty secret: no bytes, no pages.
  Secret() noexcept = default;

  // of_size makes a secret of `len` zero bytes (0 is allowed). kNoMemory if the pages cannot be had or locked; the
  // text then names the locked-memory limit.
  static Result<Secret> of_size(std::size_t len);

  // copy_of makes a secret of the given bytes; the caller wipes the original.
  static Result<Secret> copy_of(ByteView bytes);

  // random makes a secret of `len` bytes from getrandom(2).
  static Result<Secret> random(std::size_t len);

  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() = default;

  [[nodiscard]] std::size_t size() const noexcept { return len_; }
  [[nodiscard]] bool empty() const noexcept { return len_ == 0; }

  [[nodiscard]] ByteView reveal() const noexcept { return {bytes_, len_}; }
  [[nodiscard]] MutableByteView reveal_mutable() noexcept { return {bytes_, len_}; }

  // equals compares in a time that depends on the lengths only.
  [[nodiscard]] bool equals(const Secret& other) const noexcept;

  // clone is the one, explicit, way to a second copy.
  [[nodiscard]] Result<Secret> clone() const;

  // shrink wipes and forgets all bytes from `len` on; `len` is at most size().
  void shrink(std::size_t len) noexcept;

  // clear wipes all and leaves the empty secret.
  void clear() noexcept;

 private:
  std::uint8_t* bytes_ = nullptr;  // the end of the bytes touches the upper fence
  std::size_t len_ = 0;
  LockedPages pages_;
};

// fill_random fills `out` from getrandom(2). Never from a pool in user space, which would repeat after a fork.
Status fill_random(MutableByteView out);

// wipe overwrites with zeros in a way that the compiler keeps.
void wipe(MutableByteView bytes) noexcept;

// keep_stack_from_dumps leaves the calling thread's stack out of core files: a library has a key there for a moment, to
// schedule it, and a thread may be stopped in it. (As far as the stack reaches now, for the main thread; not locked.)
void keep_stack_from_dumps() noexcept;

// no_core_dumps makes this process not dumpable, not traceable by its own user, and sets its core limit to 0.
Status no_core_dumps();

}  // namespace ecfs
