// Owners for handles of C libraries: `using CipherCtx = Owned<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;`
#pragma once

#include <memory>

namespace ecfs {

template <auto Free>
struct FreeWith {
  template <class T>
  void operator()(T* p) const noexcept {
    Free(p);
  }
};

template <class T, auto Free>
using Owned = std::unique_ptr<T, FreeWith<Free>>;

}  // namespace ecfs
