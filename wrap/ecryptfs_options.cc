#include "wrap/ecryptfs_options.h"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "wrap/base/bytes.h"
#include "wrap/base/log.h"
#include "wrap/ecryptfs_token.h"

namespace ecfs::wrap {
namespace {

constexpr std::size_t kMaxCipherName = 32;

Error invalid(std::string_view name, const char* what) {
  return Error{Code::kInvalid, EINVAL, "mount option '" + printable(name) + "': " + what};
}

Result<std::uint8_t> key_bytes(std::string_view name, std::string_view text) {
  std::uint8_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number == 0 || number > 64) {
    return invalid(name, "give a number of bytes, 1 to 64");
  }
  return number;
}

Result<std::string> cipher_name(std::string_view name, std::string_view text) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (text.empty() || text.size() > kMaxCipherName || !std::all_of(text.begin(), text.end(), plain)) {
    return invalid(name, "give the name of a cipher, as aes");
  }
  return std::string(text);
}

// What is switched on by its name alone, or with a yes or no behind it.
Result<bool> flag(std::string_view name, bool has_value, std::string_view value) {
  if (!has_value) return true;
  const std::optional<bool> said = yes_or_no(value);
  if (!said) return invalid(name, "say y or n");
  return *said;
}

}  // namespace

std::optional<bool> yes_or_no(std::string_view text) noexcept {
  if (text == "y" || text == "yes" || text == "1") return true;
  if (text == "n" || text == "no" || text == "0") return false;
  return std::nullopt;
}

Result<bool> take_ecryptfs_option(std::string_view item, std::optional<EcryptfsOptions>& options) {
  const std::size_t equals = item.find('=');
  const bool has_value = equals != std::string_view::npos;
  const std::string_view name = item.substr(0, equals);
  const std::string_view value = has_value ? item.substr(equals + 1) : std::string_view();
  EcryptfsOptions next = options.value_or(EcryptfsOptions());
  const auto signature = [&]() -> Result<EcryptfsSignature> {
    auto parsed = parse_ecryptfs_signature(value);
    if (!parsed) return invalid(name, "the signature of a key has 16 hexadecimal digits");
    return parsed;
  };
  if (name == "ecryptfs" && !has_value) {
    // Only the format.
  } else if (name == "ecryptfs_sig" || name == "sig") {
    ECFS_LET(const EcryptfsSignature one, signature());
    if (std::find(next.signatures.begin(), next.signatures.end(), one) == next.signatures.end()) {
      next.signatures.push_back(one);
    }
    if (next.signatures.size() > kMaxEcryptfsSignatures) return invalid(name, "given too often");
  } else if (name == "ecryptfs_fnek_sig") {
    ECFS_LET(next.name_signature, signature());
  } else if (name == "ecryptfs_cipher" || name == "cipher") {
    ECFS_LET(next.cipher, cipher_name(name, value));
  } else if (name == "ecryptfs_key_bytes") {
    ECFS_LET(next.key_bytes, key_bytes(name, value));
  } else if (name == "ecryptfs_fn_cipher") {
    ECFS_LET(next.name_cipher, cipher_name(name, value));
  } else if (name == "ecryptfs_fn_key_bytes") {
    ECFS_LET(next.name_key_bytes, key_bytes(name, value));
  } else if (name == "ecryptfs_passthrough") {
    ECFS_LET(next.passthrough, flag(name, has_value, value));
  } else if (name == "ecryptfs_xattr_metadata" || name == "ecryptfs_xattr") {
    ECFS_LET(next.xattr_metadata, flag(name, has_value, value));
  } else if (name == "ecryptfs_encrypted_view") {
    ECFS_LET(next.encrypted_view, flag(name, has_value, value));
  } else if (name == "ecryptfs_mount_auth_tok_only") {
    ECFS_LET(next.named_keys_only, flag(name, has_value, value));
  } else if (name == "ecryptfs_unlink_sigs") {
    ECFS_LET(next.unlink_keys, flag(name, has_value, value));
  } else if (name == "ecryptfs_check_dev_ruid") {
    ECFS_LET(next.own_lower, flag(name, has_value, value));
  } else if (name == "ecryptfs_hmac") {
    // Never had an effect in eCryptfs either.
  } else {
    return false;
  }
  options = std::move(next);
  return true;
}

std::string build_ecryptfs_options(const EcryptfsOptions& options) {
  std::string text = "ecryptfs";
  const auto add = [&](bool wanted, const std::string& item) {
    if (wanted) text += "," + item;
  };
  for (const EcryptfsSignature& signature : options.signatures) add(true, "ecryptfs_sig=" + to_hex(signature));
  add(options.name_signature.has_value(),
      "ecryptfs_fnek_sig=" + to_hex(options.name_signature.value_or(EcryptfsSignature())));
  add(!options.cipher.empty(), "ecryptfs_cipher=" + options.cipher);
  add(options.key_bytes != 0, "ecryptfs_key_bytes=" + std::to_string(options.key_bytes));
  add(!options.name_cipher.empty(), "ecryptfs_fn_cipher=" + options.name_cipher);
  add(options.name_key_bytes != 0, "ecryptfs_fn_key_bytes=" + std::to_string(options.name_key_bytes));
  add(options.passthrough.has_value(),
      std::string("ecryptfs_passthrough=") + (options.passthrough.value_or(false) ? "y" : "n"));
  add(options.xattr_metadata, "ecryptfs_xattr_metadata");
  add(options.encrypted_view, "ecryptfs_encrypted_view");
  add(options.named_keys_only, "ecryptfs_mount_auth_tok_only");
  add(options.unlink_keys, "ecryptfs_unlink_sigs");
  add(options.own_lower, "ecryptfs_check_dev_ruid");
  return text;
}

}  // namespace ecfs::wrap
