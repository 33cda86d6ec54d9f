// Any bytes as a slot area. What is accepted is written back bit for bit; looking into a slot computes nothing costly.
#include <cstdlib>

#include "wrap/keyslot.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  static const wrap::RecoveryKey kKey = [] {
    auto key = wrap::RecoveryKey::generate();
    if (!key) std::abort();
    return *std::move(key);
  }();
  const auto area = wrap::parse_slots({data, size});
  if (!area) return 0;
  if (area->slots.size() > wrap::kMaxSlots || area->generation == 0) std::abort();
  const Bytes built = wrap::build_slots(*area);
  const auto again = wrap::parse_slots(built);
  if (!again || built.size() != size || again->slots.size() != area->slots.size()) std::abort();
  if (wrap::build_slots(*again) != built) std::abort();
  for (std::size_t i = 0; i < area->slots.size(); ++i) {
    const wrap::Slot& slot = area->slots[i];
    if (slot.id == 0 || area->find(slot.id) != &slot || again->slots[i].raw != slot.raw) std::abort();
    if (slot.label.size() > wrap::kMaxSlotLabelBytes) std::abort();
    if (const auto cost = wrap::password_cost(slot); cost && !wrap::check_cost_readable(*cost)) std::abort();
    if (const auto sealed = wrap::tpm2_sealed(slot); sealed) {
      const auto packed = wrap::pack_sealed(*sealed);
      const auto read_again = wrap::parse_sealed(packed);
      if (!read_again || !(*read_again == *sealed)) std::abort();
      if (sealed->private_area.size() > wrap::kMaxTpm2PartBytes || sealed->pcr_values.size() > wrap::kNumPcrs)
        std::abort();
    }
    if (wrap::open_recovery_slot({}, slot, kKey)) std::abort();
  }
  return 0;
}
