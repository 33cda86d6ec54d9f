// Options of pam_ecfs.so in a PAM file: "session optional pam_ecfs.so time_limit=10".
#pragma once

#include <span>
#include <string>
#include <vector>

namespace ecfs::pam {

constexpr int kMaxTimeLimitS = 15;

struct Options {
  std::string helper;                 // helper=/path of ecfs-login; ecfs-mountd is in the same directory
  int time_limit_s = kMaxTimeLimitS;  // time_limit=1..15, seconds for all that ecfs does in one hook
  bool silent = false;                // silent: no lines for the user
  std::vector<std::string> unknown;   // to be logged; they change nothing
};

// parse_options never fails: an option it does not understand stands in `unknown`, and the default holds.
Options parse_options(std::span<const char* const> arguments);

}  // namespace ecfs::pam
