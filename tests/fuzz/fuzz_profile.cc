// Any bytes as profile.json. What is accepted can be written, and is read back the same.
#include <cstdlib>

#include "wrap/profile.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  const auto profile = wrap::parse_profile("Private", {data, size});
  if (!profile) return 0;
  const auto built = wrap::build_profile(*profile);
  if (!built) std::abort();
  const auto again = wrap::parse_profile("Private", as_bytes(*built));
  if (!again || again->lower != profile->lower || again->mountpoint != profile->mountpoint ||
      again->volume_id != profile->volume_id || again->options != profile->options) {
    std::abort();
  }
  return 0;
}
