// The first page of a swap area, as the kernel reads it (include/linux/swap.h, union swap_header), little-endian here:
//
//     0      1024 bytes for a boot loader
//     1024   u32 version (1), u32 number of the last page, u32 number of bad pages, 16 bytes UUID, 16 bytes label
//     page - 10   "SWAPSPACE2"; "S1SUSPEND" and some others, where an image of hibernation lies there
//
// Pure functions; the bytes are hostile; safe from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "wrap/base/bytes.h"

namespace ecfs::swap {

struct Header {
  std::uint32_t last_page = 0;
  std::array<std::uint8_t, 16> uuid{};
  std::string label;
  bool hibernated = false;  // an image of hibernation lies there
};

// parse_header takes one page. No header of swap space: kCorrupt.
Result<Header> parse_header(ByteView page);

// make_header gives a page of `page_bytes` for an area of `size_bytes`; kInvalid with fewer than ten pages. The kernel
// uses 2^32 - 1 pages at most; what is more stays unused.
Result<Bytes> make_header(std::size_t page_bytes, std::uint64_t size_bytes, const std::array<std::uint8_t, 16>& uuid,
                          const std::string& label);

// uuid_text writes it as UUID= does.
std::string uuid_text(const std::array<std::uint8_t, 16>& uuid);

}  // namespace ecfs::swap
