// Any bytes as a typed recovery key. What is accepted has one text, which is accepted again.
#include <cstdlib>

#include "wrap/recovery_key.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  const ByteView typed(data, size);
  (void)wrap::RecoveryKey::looks_like_one(typed);
  const auto key = wrap::RecoveryKey::parse(typed);
  if (!key) return 0;
  const auto text = key->text();
  if (!text || !wrap::RecoveryKey::looks_like_one(text->reveal())) {
    // Only a key without any numeral does not look like one: not a text of 65 random characters.
    if (text && as_text(text->reveal()).find_first_of("0123456789") == std::string_view::npos) return 0;
    std::abort();
  }
  const auto again = wrap::RecoveryKey::parse(text->reveal());
  if (!again || !again->bytes().equals(key->bytes())) std::abort();
  return 0;
}
