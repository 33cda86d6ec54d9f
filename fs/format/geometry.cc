#include "fs/format/geometry.h"

namespace ecfs::fs {

std::uint64_t Geometry::paged_lower_size(std::uint64_t plain_size) const noexcept {
  const std::uint64_t per_group = kBlocksPerGroup << shift_;
  const std::uint64_t rest = plain_size % per_group;
  return plain_size / per_group * group_bytes() + (rest != 0 ? kPageBytes + rest : 0);
}

std::uint64_t Geometry::lower_size(std::uint64_t plain_size) const noexcept {
  if (plain_size == 0) return 0;
  if (plain_size <= kInlineMaxBytes) return kFileHeaderBytes + plain_size;
  return paged_lower_size(plain_size);
}

std::uint64_t Geometry::paged_plain_size(std::uint64_t lower_size) const noexcept {
  const std::uint64_t rest = lower_size % group_bytes();
  return lower_size / group_bytes() * (kBlocksPerGroup << shift_) + (rest > kPageBytes ? rest - kPageBytes : 0);
}

std::uint64_t Geometry::plain_size(std::uint64_t lower_size) const noexcept {
  if (lower_size <= kFileHeaderBytes) return 0;
  if (lower_size <= kPageBytes) return lower_size - kFileHeaderBytes;
  return paged_plain_size(lower_size);
}

}  // namespace ecfs::fs
