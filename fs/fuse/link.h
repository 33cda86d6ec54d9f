// The link between the server of a mount and its supervisor: a socket pair that keeps messages apart. Once it is
// confined, the server has no other way to the world around it. The supervisor believes nothing that comes from it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

enum class Say : char {
  kMountpoint = 'm',  // the path where the mount is going to be; the first one counts
  kLog = 'l',         // a priority as one digit, and a line for the log
  kStop = 's',        // somebody wishes the mount to end
  kIdle = 'i',        // nobody has used the mount for the time set
  kVolume = 'v',      // the volume's id, 16 bytes; the first one counts
};

struct LinkEnds {
  Fd server;
  Fd supervisor;
};
Result<LinkEnds> make_link();  // both close-on-exec

// say sends one message, at most 8 KiB of `text` (the rest is cut off), and never waits: false if it could not be sent.
// May be called from a signal handler.
bool say(int link, Say what, std::string_view text) noexcept;

struct Said {
  Say what;
  std::string text;
};
// hear gives the next message; nothing if there is none at present. kNotFound: the other end is closed.
Result<std::optional<Said>> hear(int link);

// The other way, the supervisor only hands over connections of the control socket (wrap/control.h), so that no key goes
// through it. take_connection gives the next one, none if there is none at present; kNotFound: the other end is closed.
bool hand_over(int link, const Fd& connection) noexcept;
Result<Fd> take_connection(int link);

}  // namespace ecfs::fs
