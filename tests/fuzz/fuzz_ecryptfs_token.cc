// Any bytes as the payload of a token. The signature is that of the key, so the fuzzer's bytes are tried as they are
// and once more with the proper signature put in; what is accepted is written back with its key, salt and signature.
#include <algorithm>
#include <cstdlib>

#include "wrap/ecryptfs_token.h"

namespace {

using namespace ecfs;

void decode(ByteView payload) {
  const auto key = wrap::decode_ecryptfs_token(payload);
  if (!key) return;
  const auto proper = wrap::ecryptfs_signature(key->key.reveal());
  const auto again = wrap::encode_ecryptfs_token(*key);
  if (!proper || *proper != key->signature || !again || payload.size() != wrap::kEcryptfsTokenBytes) std::abort();
  const ByteView built = again->reveal();
  // The key and the salt; the signature may have been written in capitals.
  if (!std::equal(built.begin() + 648, built.begin() + 712, payload.begin() + 648)) std::abort();
  if (!std::equal(built.begin() + 729, built.begin() + 737, payload.begin() + 729)) std::abort();
  const auto same = wrap::decode_ecryptfs_token(built);
  if (!same || same->signature != key->signature || same->salt != key->salt || !same->key.equals(key->key))
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  decode({data, size});
  if (size < 728) return 0;
  Bytes fitted(data, data + size);
  const auto signature = wrap::ecryptfs_signature(ByteView(fitted).subspan(648, 64));
  if (!signature) std::abort();
  const std::string text = to_hex(*signature);
  std::copy(text.begin(), text.end(), fitted.begin() + 712);
  decode(fitted);
  return 0;
}
