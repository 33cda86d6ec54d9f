#include "fs/fuse/suspension.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

#include "fs/fuse/link.h"
#include "wrap/base/log.h"
#include "wrap/base/process.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {
namespace {

constexpr int kRequestsMs = 5000;  // for those that are under way

}  // namespace

Result<std::unique_ptr<Suspension>> Suspension::make(Of of) {
  ECFS_LET(Pipe stop, make_pipe());
  return std::unique_ptr<Suspension>(
      new Suspension(std::move(of), std::move(stop.read_end), std::move(stop.write_end)));
}

Suspension::~Suspension() {
  stop_write_.reset();
  if (thread_.joinable()) thread_.join();
  if (const std::size_t lost = of_.server->gate.num_waiting(); lost > 0) {
    log_line(LOG_ERR, "the mount ended while it was suspended: what " + std::to_string(lost) +
                          " requests were to write or to bring to the disk is lost");
  }
}

void Suspension::work() {
  keep_stack_from_dumps();
  for (;;) {
    std::array<pollfd, 2> both{{{stop_read_.get(), POLLIN, 0}, {of_.link, POLLIN, 0}}};
    if (poll(both.data(), both.size(), -1) <= 0) continue;
    if (both[0].revents != 0) return;
    const Result<Fd> connection = take_connection(of_.link);
    if (!connection) return;
    if (*connection) wrap::answer_control(connection->get(), obey(connection->get()));
  }
}

Result<wrap::MountState> Suspension::obey(int connection) {
  Server& server = *of_.server;
  ECFS_LET(const wrap::ControlRequest request, wrap::receive_control(connection));
  if (request.command == wrap::Command::kSuspend) {
    const bool was_open = server.gate.is_open();
    ECFS_TRY(server.gate.close(kRequestsMs, [&] { return server.volume->drop_keys(server.files.all()); }));
    if (was_open) log_line(LOG_INFO, "suspended: the keys were wiped");
  } else if (request.command == wrap::Command::kResume && !server.gate.is_open()) {
    // The keys of an eCryptfs mount are told by their signatures, when they are given back.
    if (of_.file && !wrap::verify_volume_file(*of_.file, request.key)) {
      return Error{Code::kWrongKey, 0, "the key is not this volume's"};
    }
    ECFS_TRY(server.gate.open(kRequestsMs, [&] { return server.volume->restore_keys(request.key); }));
    log_line(LOG_INFO, "resumed");
  }
  return wrap::MountState{!server.gate.is_open(), of_.wanted, of_.signatures};
}

}  // namespace ecfs::fs
