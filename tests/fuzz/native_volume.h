// The volume of the vectors in tests/vectors/native, so that what lies there serves as seeds.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "fs/format/native_format.h"

namespace ecfs::fuzz {

template <class T>
T need(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().what.c_str());
    std::abort();
  }
  return *std::move(result);
}

inline void expect(bool holds, int line = __builtin_LINE()) {
  if (holds) return;
  std::fprintf(stderr, "what was expected in line %d does not hold\n", line);
  std::abort();
}

inline Secret volume_key() {
  return need(Secret::copy_of(need(from_hex("5f18409d5455e21be87377efc9cc2187260b5de95a0843d5fd607dfb3cc9982c"))));
}

inline wrap::VolumeHeader volume_header() {
  wrap::VolumeHeader header;
  const Bytes id = need(from_hex("f65791ac185b9a1158d6402e578a6353"));
  std::copy(id.begin(), id.end(), header.id.begin());
  return header;
}

inline std::unique_ptr<fs::Format> make_format(const wrap::VolumeHeader& header) {
  return need(fs::make_native_format({header, false}, volume_key()));
}

}  // namespace ecfs::fuzz
