#include "setup/swap/points.h"

namespace ecfs::swap {

void reached(const std::string& /*point*/) noexcept {}

}  // namespace ecfs::swap
