// Views of bytes, little-endian integers, and the text encodings that the formats use.
// Everything here is a pure function and safe from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "wrap/base/result.h"

namespace ecfs {

using Bytes = std::vector<std::uint8_t>;  // public bytes only: secrets live in Secret
using ByteView = std::span<const std::uint8_t>;
using MutableByteView = std::span<std::uint8_t>;

inline ByteView as_bytes(std::string_view s) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(s.data()), s.size()};  // NOLINT: the one cast between char and byte
}
inline std::string_view as_text(ByteView b) noexcept {
  return {reinterpret_cast<const char*>(b.data()), b.size()};  // NOLINT
}

// load_le / store_le read and write an unsigned integer, least significant byte first. `p` has sizeof(T) bytes.
template <class T>
T load_le(const std::uint8_t* p) noexcept {
  T v = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) v = static_cast<T>(v | (static_cast<T>(p[i]) << (8 * i)));
  return v;
}
template <class T>
void store_le(std::uint8_t* p, T v) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i) p[i] = static_cast<std::uint8_t>(v >> (8 * i));
}
template <class T>
void append_le(Bytes& out, T v) {
  std::array<std::uint8_t, sizeof(T)> b{};
  store_le<T>(b.data(), v);
  out.insert(out.end(), b.begin(), b.end());
}

// append adds all of `more` at the end of `out`.
void append(Bytes& out, ByteView more);

// all_zero says whether every byte is 0 (true of none). Not constant time.
bool all_zero(ByteView bytes) noexcept;

// equal_constant_time compares in a time that depends on the lengths only.
bool equal_constant_time(ByteView a, ByteView b) noexcept;

// ByteReader takes fields off the front of hostile bytes; a field that is not wholly there is kCorrupt.
class ByteReader {
 public:
  explicit ByteReader(ByteView bytes) noexcept : rest_(bytes) {}
  [[nodiscard]] std::size_t remaining() const noexcept { return rest_.size(); }
  Result<ByteView> take(std::size_t len);
  template <class T>
  Result<T> take_le() {
    ECFS_LET(ByteView b, take(sizeof(T)));
    return load_le<T>(b.data());
  }

 private:
  ByteView rest_;
};

// hex: lower case; from_hex takes both cases, an odd length or another character is kInvalid.
std::string to_hex(ByteView bytes);
Result<Bytes> from_hex(std::string_view text);

// base64url (RFC 4648 §5) without '=', and base32hex (RFC 4648 §7) in lower case without '='. Decoding is strict:
// one text for each byte string. A foreign character, an impossible length or spare bits that are not zero: kInvalid.
std::string to_base64url(ByteView bytes);
Result<Bytes> from_base64url(std::string_view text);
std::string to_base32hex(ByteView bytes);
Result<Bytes> from_base32hex(std::string_view text);

}  // namespace ecfs
