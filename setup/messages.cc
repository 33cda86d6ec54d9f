#include "setup/messages.h"

#include <cerrno>

#include "setup/ui.h"

namespace ecfs::setup {

int exit_code_of(Code code) noexcept {
  switch (code) {
    case Code::kNoKey: return 3;
    case Code::kWrongKey: return 4;
    case Code::kCorrupt: return 5;
    case Code::kDenied: return 6;
    case Code::kNoMemory: return 7;
    default: return 1;
  }
}

std::string hint_of(const Error& error) {
  switch (error.code) {
    case Code::kNoKey: return "Open it first: ecfs mount-private";
    case Code::kWrongKey:
      if (error.sys_errno == EKEYREJECTED) return "Try again: nothing but its passphrase opens an eCryptfs tree.";
      return "Try again, or give the recovery key at the same question.";
    case Code::kCorrupt:
      if (error.sys_errno == EBADMSG) {
        return "The files themselves open with the mount passphrase: `ecfs mount LOWER MOUNTPOINT`. With it a damaged\n"
               "wrapped-passphrase is made anew by `ecfs wrap-passphrase`; see ecfs-mount-private(1).";
      }
      return "Restore the damaged file from a backup. A volume's header has copies: LOWER/.ecfs-volume and "
             ".ecfs-volume.bak,\n"
             "~/.ecfs/NAME/volume and volume.bak; `ecfs recover-private LOWER` needs one of the first two and the "
             "recovery key.";
    case Code::kDenied:
      return error.sys_errno == EACCES || error.sys_errno == EPERM
                 ? "Only the owner of the directory may do this, or root."
                 : "";
    case Code::kNoMemory:
      return "Keys are kept in locked memory. The limit is shown by `ulimit -l`; it is set in "
             "/etc/security/limits.conf\n"
             "(memlock) or by LimitMEMLOCK= of a systemd unit. `--kdf-memory` lowers what a new passphrase slot needs.";
    case Code::kNoSpace:
      return "Make room on that filesystem, then try again. Nothing that was there before has changed.";
    default: return "";
  }
}

void report(const Error& error) {
  note(error.what);
  std::string hint = hint_of(error);
  while (!hint.empty()) {
    const std::size_t end = hint.find('\n');
    note_more(hint.substr(0, end));
    hint = end == std::string::npos ? "" : hint.substr(end + 1);
  }
}

Error fuse_error(int err) {
  switch (err) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return {
          Code::kUnavailable, err,
          "this system has no /dev/fuse, which every mount needs: load the kernel's module (as root: modprobe fuse); a "
          "container must be given the device (--device /dev/fuse)"};
    case EACCES:
      return {Code::kUnavailable, err,
              "/dev/fuse may not be opened by this user: it is meant to be open to all (as root: chmod 0666 /dev/fuse; "
              "udev "
              "does this at start)"};
    case EPERM:
      return {Code::kUnavailable, err,
              "/dev/fuse may not be opened here: this container or sandbox does not allow the device"};
    default: return system_error(err, "open /dev/fuse");
  }
}

Error no_terminal_error(const std::string& what, const std::string& option) {
  return {Code::kInvalid, 0,
          what + " is needed and there is no terminal to ask on: give it with " + option + "-fd N or " + option +
              "-file FILE"};
}

}  // namespace ecfs::setup
