#include "wrap/base/fd.h"

#include <unistd.h>

#include <cerrno>

namespace ecfs {

void Fd::reset(int fd) noexcept {
  if (fd_ >= 0) {
    const int saved = errno;  // a clean-up must not hide the error it cleans up after
    ::close(fd_);
    errno = saved;
  }
  fd_ = fd;
}

}  // namespace ecfs
