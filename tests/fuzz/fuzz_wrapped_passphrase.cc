// Any bytes as a wrapped-passphrase file, and as a .ecryptfsrc. A derivation costs 65536 hashes: one in 64 of the files
// that parse is opened, with the signature of the wrapping passphrase put in.
#include <algorithm>
#include <cstdlib>

#include "wrap/wrapped_passphrase.h"

namespace {

using namespace ecfs;

const Secret& wrapping() {
  static const Secret kWrapping = [] {
    auto secret = Secret::copy_of(as_bytes("login"));
    if (!secret) std::abort();
    return *std::move(secret);
  }();
  return kWrapping;
}

void unwrap(ByteView file) {
  const auto passphrase = wrap::unwrap_passphrase(file, wrapping(), wrap::kEcryptfsContentSalt);
  if (!passphrase) return;
  const ByteView text = passphrase->reveal();
  if (text.empty() || text.size() > wrap::kEcryptfsMaxPassphraseBytes || file.size() > wrap::kMaxWrappedPassphraseBytes)
    std::abort();
  if (std::find(text.begin(), text.end(), 0) != text.end()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static_cast<void>(wrap::ecryptfs_rc_salt({data, size}));
  const auto wrapped = wrap::parse_wrapped_passphrase({data, size});
  if (!wrapped) return 0;
  if (wrapped->encrypted.empty() || wrapped->encrypted.size() % 16 != 0 || wrapped->encrypted.size() > 64) std::abort();
  if (wrapped->salt.has_value() != (data[0] == ':') || size > wrap::kMaxWrappedPassphraseBytes) std::abort();
  if (data[size - 1] % 64 != 0) return 0;
  static const std::string kSignature = [] {
    const auto key = wrap::EcryptfsKey::derive(wrapping(), wrap::kEcryptfsContentSalt);
    if (!key) std::abort();
    return to_hex(key->signature);
  }();
  Bytes fitted(kSignature.begin(), kSignature.end());  // version 1
  append(fitted, wrapped->encrypted);
  unwrap(fitted);
  fitted.assign({':', 2});
  append(fitted, wrap::kEcryptfsContentSalt);
  append(fitted, as_bytes(kSignature));
  append(fitted, wrapped->encrypted);
  unwrap(fitted);
  return 0;
}
