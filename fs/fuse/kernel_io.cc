#include "fs/fuse/kernel_io.h"

#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "fs/fuse/ops.h"

namespace ecfs::fs {
namespace {

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
    server.kernel_offers_killpriv = header.opcode == FUSE_INIT && (init.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
  }
  return got;
}

ssize_t write_answer(int fd, iovec* parts, int num, void* userdata) {
  Server& server = *static_cast<Server*>(userdata);
  if (server.kernel_agreed) return ::writev(fd, parts, num);
  server.kernel_agreed = true;
  fuse_init_out init{};
  // Only where the kernel caches what is written: else each write comes here at once, and it takes the bits away
  // itself.
  if (!server.kernel_offers_killpriv || server.shared || num != 2 || parts[1].iov_len > sizeof init ||
      parts[1].iov_len < offsetof(fuse_init_out, flags) + sizeof init.flags) {
    return ::writev(fd, parts, num);
  }
  std::memcpy(&init, parts[1].iov_base, parts[1].iov_len);
  init.flags |= FUSE_HANDLE_KILLPRIV_V2;
  std::array<iovec, 2> changed{parts[0], iovec{&init, parts[1].iov_len}};
  return ::writev(fd, changed.data(), num);
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
