#include "fs/fuse/kernel_io.h"

#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "fs/fuse/ops.h"

namespace ecfs::fs {
namespace {

constexpr std::uint32_t kOverIoUring = 1U << 9;  // FUSE_OVER_IO_URING, in flags2

// The first message is INIT, and is answered before the next is read.
ssize_t read_message(int fd, void* buffer, std::size_t size, void* userdata) {
  const ssize_t got = ::read(fd, buffer, size);
  Server& server = *static_cast<Server*>(userdata);
  if (server.kernel_agreed || got <= 0) return got;
  fuse_in_header header{};
  fuse_init_in init{};
  if (static_cast<std::size_t>(got) >= sizeof header + sizeof init) {
    std::memcpy(&header, buffer, sizeof header);
    std::memcpy(&init, static_cast<const char*>(buffer) + sizeof header, sizeof init);
    if (header.opcode != FUSE_INIT) return got;
    server.kernel_offers_killpriv = (init.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
    server.kernel_offers_rings = (init.flags & FUSE_INIT_EXT) != 0 && (init.flags2 & kOverIoUring) != 0;
  }
  return got;
}

std::size_t size_of(const iovec* parts, int num) noexcept {
  std::size_t size = 0;
  for (const iovec& part : std::span(parts, static_cast<std::size_t>(num))) size += part.iov_len;
  return size;
}

// answer_init says what is agreed on beyond what libfuse says.
ssize_t answer_init(int fd, iovec* parts, int num, Server& server) {
  fuse_init_out init{};
  if (num != 2 || parts[1].iov_len > sizeof init ||
      parts[1].iov_len < offsetof(fuse_init_out, flags2) + sizeof init.flags2) {
    server.rings.reset();
    return ::writev(fd, parts, num);
  }
  std::memcpy(&init, parts[1].iov_base, parts[1].iov_len);
  // Only where the kernel caches what is written: else each write comes here at once, and it takes the bits away
  // itself.
  if (server.kernel_offers_killpriv && !server.shared) init.flags |= FUSE_HANDLE_KILLPRIV_V2;
  if (!server.kernel_offers_rings) server.rings.reset();
  if (server.rings) {
    init.flags |= FUSE_INIT_EXT;
    init.flags2 |= kOverIoUring;
  }
  std::array<iovec, 2> changed{parts[0], iovec{&init, parts[1].iov_len}};
  return ::writev(fd, changed.data(), num);
}

ssize_t write_answer(int fd, iovec* parts, int num, void* userdata) {
  Server& server = *static_cast<Server*>(userdata);
  if (!server.kernel_agreed) {
    server.kernel_agreed = true;
    return answer_init(fd, parts, num, server);
  }
  if (server.rings && server.rings->answer(parts, num)) return static_cast<ssize_t>(size_of(parts, num));
  return ::writev(fd, parts, num);
}

}  // namespace

Status use_kernel_io(fuse_session* session) {
  fuse_custom_io io{};
  io.read = read_message;
  io.writev = write_answer;
  if (const int err = fuse_session_custom_io(session, &io, fuse_session_fd(session)); err != 0) {
    return system_error(-err, "libfuse");
  }
  return {};
}

}  // namespace ecfs::fs
