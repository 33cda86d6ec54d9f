#include "wrap/base/bytes.h"

#include <algorithm>

namespace ecfs {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";
constexpr std::string_view kBase64Url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr std::string_view kBase32Hex = "0123456789abcdefghijklmnopqrstuv";

constexpr std::uint8_t kNoDigit = 0xff;

template <std::size_t N>
constexpr std::array<std::uint8_t, 256> digits_of(const char (&alphabet)[N]) {
  std::array<std::uint8_t, 256> table{};
  for (auto& d : table) d = kNoDigit;
  for (std::size_t i = 0; i + 1 < N; ++i) table[static_cast<unsigned char>(alphabet[i])] = static_cast<std::uint8_t>(i);
  return table;
}

std::string encode(ByteView bytes, std::string_view alphabet, unsigned bits) {
  std::string out;
  out.reserve((bytes.size() * 8 + bits - 1) / bits);
  const std::uint32_t mask = (1U << bits) - 1;
  std::uint32_t acc = 0;
  unsigned have = 0;
  for (const std::uint8_t b : bytes) {
    acc = (acc << 8) | b;
    have += 8;
    while (have >= bits) {
      have -= bits;
      out.push_back(alphabet[(acc >> have) & mask]);
    }
  }
  if (have > 0) out.push_back(alphabet[(acc << (bits - have)) & mask]);
  return out;
}

Result<Bytes> decode(std::string_view text, const std::array<std::uint8_t, 256>& digits, unsigned bits) {
  Bytes out;
  out.reserve(text.size() * bits / 8);
  std::uint32_t acc = 0;
  unsigned have = 0;
  for (const char c : text) {
    const std::uint8_t d = digits[static_cast<unsigned char>(c)];
    if (d == kNoDigit) return Error{Code::kInvalid, 0, "a character outside the alphabet"};
    acc = (acc << bits) | d;
    have += bits;
    if (have >= 8) {
      have -= 8;
      out.push_back(static_cast<std::uint8_t>(acc >> have));
    }
  }
  // A whole digit left over, or spare bits that are set, would give one byte string a second spelling.
  if (have >= bits || (acc & ((1U << have) - 1)) != 0) return Error{Code::kInvalid, 0, "not canonical"};
  return out;
}

}  // namespace

void append(Bytes& out, ByteView more) { out.insert(out.end(), more.begin(), more.end()); }

bool all_zero(ByteView bytes) noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

bool equal_constant_time(ByteView a, ByteView b) noexcept {
  if (a.size() != b.size()) return false;
  volatile std::uint8_t difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference = static_cast<std::uint8_t>(difference | (a[i] ^ b[i]));
  return difference == 0;
}

Result<ByteView> ByteReader::take(std::size_t len) {
  if (len > rest_.size()) return Error{Code::kCorrupt, 0, "cut short"};
  const ByteView field = rest_.first(len);
  rest_ = rest_.subspan(len);
  return field;
}

std::string to_hex(ByteView bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::uint8_t b : bytes) {
    out.push_back(kHex[b >> 4]);
    out.push_back(kHex[b & 15]);
  }
  return out;
}

Result<Bytes> from_hex(std::string_view text) {
  static constexpr auto kDigits = [] {
    auto table = digits_of("0123456789abcdef");
    for (unsigned i = 0; i < 6; ++i) table['A' + i] = static_cast<std::uint8_t>(10 + i);
    return table;
  }();
  if (text.size() % 2 != 0) return Error{Code::kInvalid, 0, "an odd number of hex digits"};
  return decode(text, kDigits, 4);
}

std::string to_base64url(ByteView bytes) { return encode(bytes, kBase64Url, 6); }

Result<Bytes> from_base64url(std::string_view text) {
  static constexpr auto kDigits = digits_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
  return decode(text, kDigits, 6);
}

std::string to_base32hex(ByteView bytes) { return encode(bytes, kBase32Hex, 5); }

Result<Bytes> from_base32hex(std::string_view text) {
  static constexpr auto kDigits = digits_of("0123456789abcdefghijklmnopqrstuv");
  return decode(text, kDigits, 5);
}

}  // namespace ecfs
