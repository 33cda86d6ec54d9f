#include "wrap/base/secret.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace ecfs {

Result<Secret> Secret::of_size(std::size_t len) {
  Secret secret;
  if (len == 0) return secret;
  ECFS_LET(secret.pages_, LockedPages::map(len));
  secret.bytes_ = secret.pages_.bytes().data() + (secret.pages_.bytes().size() - len);
  secret.len_ = len;
  return secret;
}

Result<Secret> Secret::copy_of(ByteView bytes) {
  ECFS_LET(Secret secret, of_size(bytes.size()));
  if (!bytes.empty()) std::memcpy(secret.bytes_, bytes.data(), bytes.size());
  return secret;
}

Result<Secret> Secret::random(std::size_t len) {
  ECFS_LET(Secret secret, of_size(len));
  ECFS_TRY(fill_random(secret.reveal_mutable()));
  return secret;
}

Secret::Secret(Secret&& other) noexcept
    : bytes_(std::exchange(other.bytes_, nullptr)),
      len_(std::exchange(other.len_, 0)),
      pages_(std::move(other.pages_)) {}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    bytes_ = std::exchange(other.bytes_, nullptr);
    len_ = std::exchange(other.len_, 0);
    pages_ = std::move(other.pages_);
  }
  return *this;
}

bool Secret::equals(const Secret& other) const noexcept { return equal_constant_time(reveal(), other.reveal()); }

Result<Secret> Secret::clone() const { return copy_of(reveal()); }

void Secret::shrink(std::size_t len) noexcept {
  if (len >= len_) return;
  wipe(reveal_mutable().subspan(len));
  len_ = len;
}

void Secret::clear() noexcept {
  pages_.reset();
  bytes_ = nullptr;
  len_ = 0;
}

Status fill_random(MutableByteView out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = getrandom(out.data() + done, out.size() - done, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, "getrandom");
    }
    done += static_cast<std::size_t>(n);
  }
  return {};
}

void wipe(MutableByteView bytes) noexcept {
  if (!bytes.empty()) explicit_bzero(bytes.data(), bytes.size());
}

void keep_stack_from_dumps() noexcept {
  pthread_attr_t attr;
  if (pthread_getattr_np(pthread_self(), &attr) != 0) return;
  void* begin = nullptr;
  std::size_t size = 0;
  if (pthread_attr_getstack(&attr, &begin, &size) == 0) {
    // The main thread's is told in full: ENOMEM for what it has not grown to, and the rest is done.
    (void)madvise(begin, size, MADV_DONTDUMP);
  }
  (void)pthread_attr_destroy(&attr);
}

Status no_core_dumps() {
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) return system_error(errno, "set the core file limit");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return system_error(errno, "make this process not dumpable");
  return {};
}

}  // namespace ecfs
