#include "wrap/recovery_key.h"

#include <qrencode.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "wrap/base/owned.h"

namespace ecfs::wrap {
namespace {

constexpr std::string_view kAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::size_t kDataChars = kRecoveryGroupChars - 1;
constexpr std::size_t kDigits = kRecoveryGroups * kRecoveryGroupChars;
constexpr std::size_t kTextBytes = kDigits + kRecoveryGroups - 1;
constexpr std::size_t kSpareBits = kRecoveryGroups * kDataChars * 5 - kRecoveryKeyBytes * 8;
static_assert(kSpareBits == 4);

using QrCode = Owned<QRcode, QRcode_free>;
using QrInput = Owned<QRinput, QRinput_free>;

// What a typed character counts for: nothing (separators), a digit, or a mistake.
enum class Kind { kSeparator, kDigit, kForeign };
struct Typed {
  Kind kind;
  std::uint8_t digit;
};

Typed classify(std::uint8_t c) noexcept {
  if (c == ' ' || c == '-' || c == '\t' || c == '\r' || c == '\n') return {Kind::kSeparator, 0};
  if (c >= 'a' && c <= 'z') c = static_cast<std::uint8_t>(c - 'a' + 'A');
  if (c == 'O') c = '0';
  if (c == 'I' || c == 'L') c = '1';
  const auto at = kAlphabet.find(static_cast<char>(c));
  if (at == std::string_view::npos) return {Kind::kForeign, 0};
  return {Kind::kDigit, static_cast<std::uint8_t>(at)};
}

// Doubling in GF(32) with x^5 + x^2 + 1.
std::uint8_t twice(std::uint8_t a) noexcept {
  const unsigned doubled = static_cast<unsigned>(a) << 1;
  return static_cast<std::uint8_t>((doubled & 0x20U) != 0 ? doubled ^ 0x25U : doubled);
}

// The sum over a group, its check digit included, that is 0 in a right one; `group` counts from 1. (Horner's scheme
// from the last data digit: factors 16, 8, 4, 2, and 1 for the check digit.)
std::uint8_t remainder_of(ByteView digits, std::size_t group) noexcept {
  std::uint8_t sum = 0;
  for (std::size_t i = kDataChars; i-- > 0;) sum = twice(static_cast<std::uint8_t>(sum ^ digits[i]));
  return static_cast<std::uint8_t>(sum ^ digits[kDataChars] ^ static_cast<std::uint8_t>(group));
}

Error mistake_in(std::size_t group) {
  return {Code::kInvalid, 0, "group " + std::to_string(group) + " of the recovery key has a mistake"};
}

}  // namespace

Result<RecoveryKey> RecoveryKey::generate() {
  ECFS_LET(Secret bytes, Secret::random(kRecoveryKeyBytes));
  return RecoveryKey(std::move(bytes));
}

Result<RecoveryKey> RecoveryKey::parse(ByteView typed) {
  ECFS_LET(Secret digits, Secret::of_size(kDigits));
  std::size_t count = 0;
  for (const std::uint8_t c : typed) {
    const Typed t = classify(c);
    if (t.kind == Kind::kSeparator) continue;
    if (t.kind == Kind::kForeign) {
      const std::string shown = c > 0x20 && c < 0x7f ? std::string("'") + static_cast<char>(c) + "'" : "one of these";
      return Error{Code::kInvalid, 0, shown + " is not a character of a recovery key"};
    }
    if (count < kDigits) digits.reveal_mutable()[count] = t.digit;
    ++count;
  }
  if (count != kDigits) {
    if (count % kRecoveryGroupChars == 0) {
      return Error{Code::kInvalid, 0,
                   std::to_string(count / kRecoveryGroupChars) + " groups of " + std::to_string(kRecoveryGroups) +
                       ": the recovery key is not complete"};
    }
    // The first group that does not fit is where a character is missing or too many.
    for (std::size_t g = 0; (g + 1) * kRecoveryGroupChars <= std::min(count, kDigits); ++g) {
      if (remainder_of(digits.reveal().subspan(g * kRecoveryGroupChars, kRecoveryGroupChars), g + 1) != 0) {
        return mistake_in(g + 1);
      }
    }
    return Error{Code::kInvalid, 0,
                 std::to_string(count) + " characters: a recovery key has " + std::to_string(kDigits)};
  }
  ECFS_LET(Secret bytes, Secret::of_size(kRecoveryKeyBytes));
  std::uint32_t acc = 0;
  unsigned have = 0;
  std::size_t out = 0;
  for (std::size_t g = 0; g < kRecoveryGroups; ++g) {
    const ByteView group = digits.reveal().subspan(g * kRecoveryGroupChars, kRecoveryGroupChars);
    if (remainder_of(group, g + 1) != 0) return mistake_in(g + 1);
    for (std::size_t i = 0; i < kDataChars; ++i) {
      acc = ((acc << 5) | group[i]) & 0xfffU;  // at most 7 bits wait for the next digit
      have += 5;
      if (have >= 8) {
        have -= 8;
        bytes.reveal_mutable()[out++] = static_cast<std::uint8_t>(acc >> have);
      }
    }
  }
  if ((acc & ((1U << kSpareBits) - 1)) != 0) return mistake_in(kRecoveryGroups);
  return RecoveryKey(std::move(bytes));
}

bool RecoveryKey::looks_like_one(ByteView typed) noexcept {
  constexpr std::ptrdiff_t kManyHyphens = 10;  // more than anybody puts into a passphrase
  std::size_t digits = 0;
  bool numeral = false;  // a long passphrase of words has none; 65 random characters without one there are not
  for (const std::uint8_t c : typed) {
    const Typed t = classify(c);
    if (t.kind == Kind::kForeign) return false;
    if (t.kind == Kind::kDigit) ++digits;
    numeral = numeral || (c >= '0' && c <= '9');
  }
  return numeral && (digits == kDigits || std::count(typed.begin(), typed.end(), std::uint8_t{'-'}) >= kManyHyphens);
}

Result<Secret> RecoveryKey::text() const {
  ECFS_LET(Secret text, Secret::of_size(kTextBytes));
  const ByteView key = bytes_.reveal();
  const MutableByteView out = text.reveal_mutable();
  std::size_t at = 0;
  for (std::size_t g = 0; g < kRecoveryGroups; ++g) {
    std::array<std::uint8_t, kRecoveryGroupChars> digits{};
    for (std::size_t i = 0; i < kDataChars; ++i) {
      const std::size_t bit = (g * kDataChars + i) * 5;
      unsigned window = static_cast<unsigned>(key[bit / 8]) << 8;
      if (bit / 8 + 1 < key.size()) window |= key[bit / 8 + 1];
      digits[i] = static_cast<std::uint8_t>((window >> (11 - bit % 8)) & 31U);
    }
    digits[kDataChars] = remainder_of(digits, g + 1);  // the check digit was 0 so far
    if (g > 0) out[at++] = '-';
    for (const std::uint8_t d : digits) out[at++] = static_cast<std::uint8_t>(kAlphabet[d]);
    wipe(digits);
  }
  return text;
}

Result<Secret> RecoveryKey::qr_text() const {
  ECFS_LET(const Secret key_text, text());
  // The library works in heap memory of its own; what it returns is wiped below, what it gave back to the heap cannot
  // be.
  const QrInput input(QRinput_new2(0, QR_ECLEVEL_M));
  if (!input ||
      QRinput_append(input.get(), QR_MODE_AN, static_cast<int>(key_text.size()), key_text.reveal().data()) != 0) {
    return Error{Code::kNoMemory, errno, "draw a QR code"};
  }
  const QrCode code(QRcode_encodeInput(input.get()));
  if (!code) return Error{Code::kNoMemory, errno, "draw a QR code"};
  constexpr int kQuiet = 4;  // modules of empty border that the standard asks for
  const int width = code->width;
  const int side = width + 2 * kQuiet;
  const auto dark = [&](int x, int y) {
    x -= kQuiet;
    y -= kQuiet;
    return x >= 0 && y >= 0 && x < width && y < width && (code->data[y * width + x] & 1) != 0;
  };
  // Light modules are drawn, dark ones left empty: right on the usual dark terminal. Two rows make one line.
  static constexpr std::array<std::string_view, 4> kGlyphs = {"\u2588", "\u2580", "\u2584", " "};
  const auto lines = static_cast<std::size_t>((side + 1) / 2);
  ECFS_LET(Secret drawn, Secret::of_size(lines * (static_cast<std::size_t>(side) * 3 + 1)));
  const MutableByteView out = drawn.reveal_mutable();
  std::size_t at = 0;
  for (int y = 0; y < side; y += 2) {
    for (int x = 0; x < side; ++x) {
      const std::size_t which = (dark(x, y) ? 2U : 0U) + (dark(x, y + 1) ? 1U : 0U);
      for (const char c : kGlyphs[which]) out[at++] = static_cast<std::uint8_t>(c);
    }
    out[at++] = '\n';
  }
  drawn.shrink(at);
  wipe({code->data, static_cast<std::size_t>(width) * static_cast<std::size_t>(width)});
  return drawn;
}

}  // namespace ecfs::wrap
