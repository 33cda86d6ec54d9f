// Any bytes as Private.sig and as Private.mnt: what is accepted is within its bounds, and its text says the same again.
#include <cstdlib>

#include "wrap/ecryptfs_private.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  const ByteView raw(data, size);
  if (const auto signatures = wrap::parse_private_sig(raw)) {
    std::string text = to_hex(signatures->contents) + "\n";
    if (signatures->names) text += to_hex(*signatures->names) + "\n";
    const auto again = wrap::parse_private_sig(as_bytes(text));
    if (!again || again->contents != signatures->contents || again->names != signatures->names) std::abort();
  }
  if (const auto path = wrap::parse_private_mnt(raw)) {
    if (path->empty() || path->front() != '/' || path->size() > 4095 || path->find('\n') != std::string::npos) {
      std::abort();
    }
    if (("/" + *path + "/").find("/../") != std::string::npos) std::abort();
    const auto again = wrap::parse_private_mnt(as_bytes(*path + "\n"));
    if (!again || *again != *path) std::abort();
  }
  return 0;
}
