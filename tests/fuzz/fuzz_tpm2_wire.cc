// Any bytes as what ecfs and ecfs-tpm2 tell each other about a TPM. What is accepted is written back as it was read.
#include <algorithm>
#include <cstdlib>

#include "wrap/tpm2_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  const ByteView bytes{data, size};
  if (const auto list = wrap::parse_sealed_list(bytes); list) {
    const Bytes packed = wrap::pack_sealed_list(*list);
    if (list->size() > wrap::kMaxTpm2Slots || packed.size() != size ||
        !std::equal(packed.begin(), packed.end(), data)) {
      std::abort();
    }
  }
  if (const auto status = wrap::parse_status(bytes); status) {
    if (status->slots.size() > wrap::kMaxTpm2Slots || status->pcr_values.size() > wrap::kNumPcrs) std::abort();
    const Bytes packed = wrap::pack_status(*status);
    const auto again = wrap::parse_status(packed);
    if (!again || wrap::pack_status(*again) != packed) std::abort();
  }
  return 0;
}
