#include "wrap/base/locked_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "wrap/base/fd.h"
#include "wrap/base/log.h"
#include "wrap/base/secret.h"

namespace ecfs {
namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 30;

SecretRules g_rules;
std::atomic<std::size_t> g_hidden{0};
std::atomic<std::size_t> g_locked{0};
std::atomic<std::size_t> g_unlocked{0};

std::size_t page_size() noexcept {
  static const auto kSize = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return kSize;
}

// Nothing but fences: gives where the body belongs; null if there is no room.
std::uint8_t* map_fences(std::size_t len) noexcept {
  void* mapping = mmap(nullptr, len + 2 * page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return mapping == MAP_FAILED ? nullptr : static_cast<std::uint8_t*>(mapping) + page_size();
}

void unmap(std::uint8_t* body, std::size_t len) noexcept { munmap(body - page_size(), len + 2 * page_size()); }

// Null: this kernel has none, or none for us (the limit counts them, too).
std::uint8_t* map_hidden(std::size_t len) noexcept {
#ifdef SYS_memfd_secret
  const Fd memory(static_cast<int>(syscall(SYS_memfd_secret, O_CLOEXEC)));
  if (!memory || ftruncate(memory.get(), static_cast<off_t>(len)) != 0) return nullptr;
  std::uint8_t* const body = map_fences(len);
  if (body == nullptr) return nullptr;
  if (mmap(body, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory.get(), 0) == MAP_FAILED) {
    // The kernel has taken the middle away already, and another thread may have mapped something there.
    munmap(body - page_size(), page_size());
    munmap(body + len, page_size());
    return nullptr;
  }
  (void)madvise(body, len, MADV_DONTFORK);
  return body;
#else
  (void)len;
  return nullptr;
#endif
}

}  // namespace

void set_secret_rules(const SecretRules& rules) noexcept { g_rules = rules; }

SecretPages secret_pages() noexcept { return {g_hidden, g_locked, g_unlocked}; }

Result<LockedPages> LockedPages::map(std::size_t len) {
  if (len == 0 || len > kMostBytes) return Error{Code::kInvalid, 0, "a secret of that size is a mistake"};
  const std::size_t inner = (len + page_size() - 1) / page_size() * page_size();
  if (std::uint8_t* const hidden = g_rules.hidden ? map_hidden(inner) : nullptr; hidden != nullptr) {
    g_hidden += inner;
    return adopt({hidden, inner});
  }
  std::uint8_t* const body = map_fences(inner);
  if (body == nullptr) return Error{Code::kNoMemory, errno, "no memory for a secret"};
  if (mprotect(body, inner, PROT_READ | PROT_WRITE) != 0) {
    const int err = errno;
    unmap(body, inner);
    return Error{Code::kNoMemory, err, "no memory for a secret"};
  }
  const bool locked = mlock(body, inner) == 0;
  if (!locked && !g_rules.past_limit) {
    const int err = errno;
    unmap(body, inner);
    return Error{Code::kNoMemory, err,
                 "memory for a secret cannot be locked: the limit on locked memory (ulimit -l) is used up"};
  }
  // These only narrow what may see the pages; a kernel that lacks one still has the lock and the wiping.
  (void)madvise(body, inner, MADV_DONTDUMP);
  if (g_rules.not_for_children) (void)madvise(body, inner, MADV_WIPEONFORK);
  (locked ? g_locked : g_unlocked) += inner;
  if (static std::atomic_flag said; !locked && !said.test_and_set()) {
    log_line(LOG_WARNING,
             "keys: the limit on locked memory (ulimit -l) is used up; from now on some may be written to swap");
  }
  return adopt({body, inner});
}

LockedPages::LockedPages(LockedPages&& other) noexcept
    : body_(std::exchange(other.body_, nullptr)), len_(std::exchange(other.len_, 0)) {}

LockedPages& LockedPages::operator=(LockedPages&& other) noexcept {
  if (this != &other) {
    reset();
    body_ = std::exchange(other.body_, nullptr);
    len_ = std::exchange(other.len_, 0);
  }
  return *this;
}

void LockedPages::reset() noexcept {
  const MutableByteView pages = release();
  if (pages.empty()) return;
  wipe(pages);
  unmap(pages.data(), pages.size());
}

MutableByteView LockedPages::release() noexcept { return {std::exchange(body_, nullptr), std::exchange(len_, 0)}; }

LockedPages LockedPages::adopt(MutableByteView released) noexcept {
  LockedPages pages;
  pages.body_ = released.data();
  pages.len_ = released.size();
  return pages;
}

}  // namespace ecfs
