// Any bytes as a volume header file: what is accepted has the shape it claims, and what a header is made of gives the
// same bytes again.
#include <cstdlib>

#include "wrap/volume_header.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  static const Secret kKey = [] {
    auto key = Secret::of_size(wrap::kVolumeKeyBytes);
    if (!key) std::abort();
    return *std::move(key);
  }();
  const ByteView raw(data, size);
  // The header of an eCryptfs tree's keys: without its MAC, which costs 65536 hashes.
  if (const auto keys = wrap::parse_volume_file(raw, wrap::VolumeKind::kEcryptfs)) {
    if (keys->raw.size() != size || keys->slots.size() + 96 != size || wrap::parse_volume_file(raw)) std::abort();
    if (keys->header.kind != wrap::VolumeKind::kEcryptfs) std::abort();
    return 0;
  }
  const auto file = wrap::parse_volume_file(raw);
  if (!file) return 0;
  if (file->raw.size() != size || file->slots.size() + 96 != size) std::abort();
  const bool verified = wrap::verify_volume_file(*file, kKey).has_value();
  const auto built = wrap::build_volume_file(file->header, file->slots, kKey);
  if (!built || built->size() != size) std::abort();
  const auto again = wrap::parse_volume_file(*built);
  if (!again || !wrap::verify_volume_file(*again, kKey) || again->slots != file->slots) std::abort();
  // Bytes 52..63 are ignored but under the MAC: only where they are 0 must all be equal.
  if (verified && all_zero(raw.subspan(52, 12)) && *built != file->raw) std::abort();
  return 0;
}
