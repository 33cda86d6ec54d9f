// Suspension is the server's end of the control socket (wrap/control.h): it wipes the keys of the mount when told to,
// and takes them back. It has a thread of its own.
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "fs/fuse/ops.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/control.h"
#include "wrap/volume_header.h"

namespace ecfs::fs {

class Suspension {
 public:
  struct Of {
    Server* server = nullptr;
    std::optional<wrap::VolumeFile> file;             // of a native volume, verified: what a key has to fit
    std::vector<wrap::EcryptfsSignature> signatures;  // of an eCryptfs mount: the keys that it needs
    bool wanted = false;                              // mount option suspend
    int link = -1;                                    // to the supervisor
  };
  // `server` and `link` outlive it. make takes what it needs of the system, start only a thread.
  static Result<std::unique_ptr<Suspension>> make(Of of);
  void start() {
    thread_ = std::thread([this] { work(); });
  }
  ~Suspension();
  Suspension(const Suspension&) = delete;
  Suspension& operator=(const Suspension&) = delete;

 private:
  Suspension(Of of, Fd stop_read, Fd stop_write)
      : of_(std::move(of)), stop_read_(std::move(stop_read)), stop_write_(std::move(stop_write)) {}
  void work();
  Result<wrap::MountState> obey(int connection);
  const Of of_;
  Fd stop_read_;
  Fd stop_write_;
  std::thread thread_;
};

}  // namespace ecfs::fs
