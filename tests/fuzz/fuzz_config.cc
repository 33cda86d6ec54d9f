// Any bytes as ecfs.conf. What is accepted is within its bounds.
#include <cstdlib>

#include "wrap/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  const auto config = wrap::parse_config({data, size});
  if (!config) {
    if (config.error().what.rfind("line ", 0) != 0) std::abort();
    return 0;
  }
  if (config->login_time_limit_s < 1 || config->login_time_limit_s > 15 || config->unmount_wait_s < 0 ||
      config->unmount_wait_s > 600 || config->ask_services.size() > 32) {
    std::abort();
  }
  for (const auto& name : config->ask_services) {
    if (name.empty() || name.size() > 64 || name.find('/') != std::string::npos) std::abort();
  }
  return 0;
}
