// reached is called by the work between any two things that it does; it does nothing. A copy of the program that is
// made for tests, and never installed, has one that ends the process at a point of their choice
// (tests/vm/swap_points.cc).
#pragma once

#include <string>

namespace ecfs::swap {

void reached(const std::string& point) noexcept;

}  // namespace ecfs::swap
