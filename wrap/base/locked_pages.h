// LockedPages are whole pages for secrets: locked into memory, left out of core dumps, fenced by unreadable pages on
// both sides, and wiped before they are given back.
#pragma once

#include <cstddef>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"

namespace ecfs {

// SecretRules say how this process keeps its secrets. The default suits a short run that hands them on to children.
struct SecretRules {
  // Pages of memfd_secret(2) where the kernel has it: no other process's access to this memory reaches them, nor the
  // kernel's own by its map of all memory. They are never for children. Linux does not hibernate while there are any.
  bool hidden = false;
  // Once the limit on locked memory is used up, go on with pages that are not locked, and may be written to swap. The
  // log says so at the first.
  // Without it that is kNoMemory.
  bool past_limit = false;
  // A child of fork(2) finds zeros, or nothing at all.
  bool not_for_children = false;
};

// set_secret_rules holds for pages mapped from now on. Call before other threads start.
void set_secret_rules(const SecretRules& rules) noexcept;

class LockedPages {
 public:
  LockedPages() noexcept = default;
  // map gives zeroed pages for at least `len` bytes, 1 .. 2^30 (kInvalid beyond). kNoMemory: there are none, or they
  // cannot be locked; the text then names the limit.
  static Result<LockedPages> map(std::size_t len);

  LockedPages(LockedPages&& other) noexcept;
  LockedPages& operator=(LockedPages&& other) noexcept;
  LockedPages(const LockedPages&) = delete;
  LockedPages& operator=(const LockedPages&) = delete;
  ~LockedPages() { reset(); }

  [[nodiscard]] MutableByteView bytes() const noexcept { return {body_, len_}; }
  explicit operator bool() const noexcept { return body_ != nullptr; }
  void reset() noexcept;
  // release gives the pages away: adopt, with what bytes() said, owns them again.
  MutableByteView release() noexcept;
  static LockedPages adopt(MutableByteView released) noexcept;

 private:
  std::uint8_t* body_ = nullptr;
  std::size_t len_ = 0;  // whole pages, without the fences
};

// How many bytes have been mapped in each way since the start, for the log.
struct SecretPages {
  std::size_t hidden = 0;
  std::size_t locked = 0;
  std::size_t unlocked = 0;
};
SecretPages secret_pages() noexcept;

}  // namespace ecfs
