// Looking at this machine: what swap there is and what the plan has to know (plan.h). Changes nothing. One thread.
#pragma once

#include <string>
#include <vector>

#include "setup/swap/plan.h"

namespace ecfs::swap {

constexpr const char* kFstab = "fstab";  // below /etc
constexpr const char* kCrypttab = "crypttab";
constexpr const char* kResumeDirectory = "/etc/initramfs-tools/conf.d";
constexpr const char* kResumeFile = "resume";

struct Survey {
  std::vector<Facts> facts;
  Machine machine;
  std::vector<Area> areas;
};

Result<Survey> survey();

// read_table gives the text of a file below `directory`; "" if it is not there.
Result<std::string> read_table(const std::string& directory, const std::string& name);

}  // namespace ecfs::swap
