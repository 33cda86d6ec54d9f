// What the kernel says of a piece of this process's memory.
#pragma once

#include <fstream>
#include <sstream>
#include <string>

namespace ecfs {

// flags_of gives the VmFlags (proc_pid_smaps(5)) of the mapping that holds `address`, with a space before and after
// each.
inline std::string flags_of(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool here = false;
  while (std::getline(smaps, line)) {
    unsigned long begin = 0;
    unsigned long end = 0;
    char dash = 0;
    std::istringstream range(line);
    if (range >> std::hex >> begin >> dash >> end && dash == '-') {
      const auto at = reinterpret_cast<unsigned long>(address);
      here = at >= begin && at < end;
    } else if (here && line.rfind("VmFlags:", 0) == 0) {
      return line + " ";
    }
  }
  return {};
}

}  // namespace ecfs
