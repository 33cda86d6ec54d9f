// /etc/ecfs/ecfs.conf: the machine's policy. Lines "name = value", '#' begins a comment. Read as root's file: one that
// somebody else may write is refused. A missing file gives the defaults; a line that cannot be understood is kInvalid
// with its number.
#pragma once

#include <string>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"

namespace ecfs::wrap {

enum class BusyPolicy { kWait, kLazy, kKill };

struct Config {
  int login_time_limit_s = 15;  // login_time_limit: 1..15; all that ecfs does in a login ends within it
  BusyPolicy unmount_busy =
      BusyPolicy::kWait;    // unmount_busy: wait | lazy | kill, when programs keep files open at the last logout
  int unmount_wait_s = 10;  // unmount_wait: 0..600 seconds of clean tries before the policy applies
  // ask_services: PAM services in which open_session may ask a question (a changed password, the recovery key).
  std::vector<std::string> ask_services = {"login", "gdm-password", "lightdm", "sddm", "xdm"};
  bool tpm_reseal = false;  // tpm_reseal: yes | no; a login that opens otherwise binds keys of the TPM anew
  std::string tpm_tcti;     // tpm_tcti: how the TPM is reached (wrap/tpm2.h); empty: the kernel's, /dev/tpmrm0
};

Result<Config> parse_config(ByteView text);
Result<Config> load_config(const std::string& path = "/etc/ecfs/ecfs.conf");

}  // namespace ecfs::wrap
