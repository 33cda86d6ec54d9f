#include "wrap/base/secret.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace ecfs {
namespace {

std::size_t page_size() noexcept {
  static const auto kSize = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return kSize;
}

}  // namespace

Result<Secret> Secret::of_size(std::size_t len) {
  Secret secret;
  if (len == 0) return secret;
  const std::size_t page = page_size();
  if (len > (std::size_t{1} << 30)) return Error{Code::kInvalid, 0, "a secret that large is a mistake"};
  const std::size_t inner = (len + page - 1) / page * page;
  const std::size_t whole = inner + 2 * page;
  void* mapping = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return Error{Code::kNoMemory, errno, "no memory for a secret"};
  secret.mapping_ = static_cast<std::uint8_t*>(mapping);
  secret.mapped_ = whole;
  std::uint8_t* body = secret.mapping_ + page;
  if (mprotect(body, inner, PROT_READ | PROT_WRITE) != 0) {
    return Error{Code::kNoMemory, errno, "no memory for a secret"};
  }
  if (mlock(body, inner) != 0) {
    return Error{Code::kNoMemory, errno,
                 "memory for a secret cannot be locked: the limit on locked memory (ulimit -l) is used up"};
  }
  // Both only narrow what may see the pages; a kernel that lacks one still has the lock and the wiping.
  (void)madvise(body, inner, MADV_DONTDUMP);
  secret.bytes_ = body + (inner - len);
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
      mapped_(std::exchange(other.mapped_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)) {}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    clear();
    bytes_ = std::exchange(other.bytes_, nullptr);
    len_ = std::exchange(other.len_, 0);
    mapped_ = std::exchange(other.mapped_, 0);
    mapping_ = std::exchange(other.mapping_, nullptr);
  }
  return *this;
}

Secret::~Secret() { clear(); }

bool Secret::equals(const Secret& other) const noexcept { return equal_constant_time(reveal(), other.reveal()); }

Result<Secret> Secret::clone() const { return copy_of(reveal()); }

void Secret::shrink(std::size_t len) noexcept {
  if (len >= len_) return;
  wipe(reveal_mutable().subspan(len));
  len_ = len;
}

void Secret::clear() noexcept {
  if (mapping_ != nullptr) {
    const std::size_t page = page_size();
    // All of the inner pages, not only the bytes in use: shrink may have left the length behind. A mapping whose
    // mprotect failed has bytes_ == nullptr and nothing to wipe.
    if (bytes_ != nullptr) wipe({mapping_ + page, mapped_ - 2 * page});
    munmap(mapping_, mapped_);
  }
  bytes_ = nullptr;
  mapping_ = nullptr;
  len_ = 0;
  mapped_ = 0;
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

Status no_core_dumps() {
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) return system_error(errno, "set the core file limit");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return system_error(errno, "make this process not dumpable");
  return {};
}

}  // namespace ecfs
