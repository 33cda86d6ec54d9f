// Who asked: new lower files get the caller's owner, group and umask.
//
// A daemon of an ordinary user serves that user only: creation by another uid is EPERM. One with the right to change
// its ids (root with allow_other) makes each new file under the caller's uid, gid and supplementary groups, in the
// thread that serves the request and for no other.
#pragma once

#include <sys/types.h>

#include <functional>
#include <utility>
#include <vector>

#include "wrap/base/result.h"

namespace ecfs::fs {

struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t umask = 0;
  std::function<std::vector<gid_t>()> groups;  // supplementary ones, asked for only where they are needed

  // self is this process, with the umask 0.
  static Caller self();
};

// AsCaller makes this thread's file system calls the caller's for as long as it lives. A thread that cannot get its own
// identity back ends the process: nothing may go on under another's.
class AsCaller {
 public:
  static Result<AsCaller> begin(const Caller& caller);
  AsCaller(AsCaller&& other) noexcept : switched_(std::exchange(other.switched_, false)) {}
  AsCaller& operator=(AsCaller&&) = delete;
  ~AsCaller() { end(); }
  // end is what the destructor does, sooner.
  void end() noexcept;

 private:
  explicit AsCaller(bool switched) noexcept : switched_(switched) {}
  bool switched_;
};

// give_group gives a new inode the caller's group where an unprivileged daemon's own was used. `dir_mode` is the
// directory's: with S_ISGID that decides. Only a member can give a group; else the daemon's stays.
void give_group(int fd, const Caller& caller, mode_t dir_mode);

}  // namespace ecfs::fs
