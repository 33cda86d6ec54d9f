// tests/vectors: JSON made by other programs.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/wrap/testing.h"

namespace ecfs {

inline nlohmann::json vectors(const std::string& name) {
  std::ifstream file(std::string(ECFS_TEST_VECTORS) + "/" + name);
  return nlohmann::json::parse(file);
}
inline Bytes hex_of(const nlohmann::json& text) { return ok(from_hex(text.get<std::string>())); }
inline Secret secret_hex(const nlohmann::json& text) { return ok(Secret::copy_of(hex_of(text))); }

}  // namespace ecfs
