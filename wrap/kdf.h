// Argon2id (RFC 9106) over a passphrase, through libargon2. May start threads (lanes, at most the CPUs there are), so
// it never runs inside a login process. Safe from any thread.
#pragma once

#include <cstdint>

#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::wrap {

struct Argon2Cost {
  std::uint32_t memory_kib = 256 * 1024;
  std::uint32_t passes = 3;
  std::uint32_t lanes = 4;
  friend bool operator==(const Argon2Cost&, const Argon2Cost&) = default;
};

// Bounds. Below the floor nothing is ever written; above the ceilings nothing is ever run: a slot file is hostile
// input, and its costs are what an attacker would raise to hang a login.
constexpr std::uint32_t kFloorMemoryKib = 19 * 1024;  // OWASP's least, with 2 passes
constexpr std::uint32_t kFloorPasses = 2;
constexpr std::uint32_t kUnaskedMemoryKib = 64 * 1024;  // calibration never goes below this by itself
constexpr std::uint32_t kCeilingMemoryKib = 1024 * 1024;
constexpr std::uint32_t kCeilingPasses = 64;
constexpr std::uint32_t kCeilingLanes = 16;
constexpr std::uint64_t kCeilingWorkKib = 16ULL * 1024 * 1024;  // memory_kib * passes

// check_cost_readable: may this cost, read from a file, be run? Too large is kCorrupt, nonsense too (0 lanes, less
// memory than 8 KiB a lane).
Status check_cost_readable(const Argon2Cost& cost);

// check_cost_writable: may a new slot have it? Adds the floor; kInvalid with a text for the user.
Status check_cost_writable(const Argon2Cost& cost);

// calibrate picks the default for this machine: 256 MiB (64 MiB where less than 1 GiB is available, in the system or in
// this process's control group, or where one pass over 256 MiB takes longer than 0.7 s), 4 lanes, and as many passes
// (3..16) as take about 0.7 s, by timing one pass.
Result<Argon2Cost> calibrate();

// argon2id gives `len` bytes. The work memory is left out of core dumps and wiped. kNoMemory if it cannot be had.
Result<Secret> argon2id(const Secret& passphrase, ByteView salt, const Argon2Cost& cost, std::size_t len);

}  // namespace ecfs::wrap
