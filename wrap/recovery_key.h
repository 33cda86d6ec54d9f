// A recovery key: 256 random bits, and the text a person writes down.
//
// Text: 13 groups of 5 characters, joined by '-'. A group is 4 data characters of Crockford's base32 (no I, L, O, U)
// and one check character over GF(32), weighted by place and by the group's number, so any single wrong character and
// any exchange of two characters is caught and the group named (wrap/FORMAT.md, "Recovery key"). Reading ignores case,
// spaces and hyphens, and takes O for 0, I and L for 1.
#pragma once

#include <string>
#include <string_view>

#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::wrap {

constexpr std::size_t kRecoveryKeyBytes = 32;
constexpr std::size_t kRecoveryGroups = 13;
constexpr std::size_t kRecoveryGroupChars = 5;

class RecoveryKey {
 public:
  static Result<RecoveryKey> generate();

  // parse reads what a person typed. kInvalid: "group 7 has a mistake", "9 groups of 13", "'%' is not a character of a
  // recovery key".
  static Result<RecoveryKey> parse(ByteView typed);

  // looks_like_one: is `typed` shaped like a recovery key (so that a prompt can take either this or a passphrase)?
  static bool looks_like_one(ByteView typed) noexcept;

  // text gives the 77 characters "XXXXX-XXXXX-…" (ASCII, no newline) in locked memory.
  [[nodiscard]] Result<Secret> text() const;

  // qr_text draws the text as a QR code with half-block characters for a terminal (UTF-8, lines end with \n). The
  // result is in locked memory because it is the key. Through libqrencode.
  [[nodiscard]] Result<Secret> qr_text() const;

  [[nodiscard]] const Secret& bytes() const noexcept { return bytes_; }

 private:
  explicit RecoveryKey(Secret bytes) : bytes_(std::move(bytes)) {}
  Secret bytes_;  // kRecoveryKeyBytes
};

}  // namespace ecfs::wrap
