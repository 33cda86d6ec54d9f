// Names, link targets, extended attributes and stored directory ids of the native format.
//
// Everything read here was written by somebody else and is decoded strictly: one text for each name. Immutable: safe
// from any thread. Source: fs/FORMAT.md §5.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "fs/format/format.h"
#include "fs/format/native_crypto.h"

namespace ecfs::fs {

class NativeNames {
 public:
  // `keys` outlives it. `longest` is the volume's longest lower name in bytes.
  static Result<NativeNames> make(const NativeKeys& keys, const Ciphers& ciphers, wrap::NameEncoding encoding,
                                  std::size_t longest, std::shared_ptr<NonceSource> nonces);

  // drop_keys leaves what answers kNoKey, but for kind_of; make() anew brings it back.
  void drop_keys() noexcept;

  [[nodiscard]] LowerNameKind kind_of(std::string_view lower) const;
  [[nodiscard]] Result<LowerName> encode(const DirId& dir, std::string_view plain) const;
  [[nodiscard]] Result<std::string> decode(const DirId& dir, std::string_view lower) const;
  [[nodiscard]] Result<std::string> decode_long(const DirId& dir, std::string_view lower, ByteView side) const;
  [[nodiscard]] Result<Format::ConflictName> conflict(const DirId& dir, std::string_view lower, ByteView side) const;

  [[nodiscard]] Result<DirId> read_dir_id(ByteView stored) const;
  [[nodiscard]] Result<Bytes> store_dir_id(const DirId& id) const;

  [[nodiscard]] Result<std::string> encode_link(std::string_view target) const;
  [[nodiscard]] Result<std::string> decode_link(std::string_view lower) const;

  [[nodiscard]] Result<std::string> encode_xattr_name(std::string_view name) const;
  [[nodiscard]] std::optional<std::string> decode_xattr_name(std::string_view lower_name) const;
  [[nodiscard]] Result<Bytes> encode_xattr_value(std::string_view name, ByteView value) const;
  [[nodiscard]] Result<Bytes> decode_xattr_value(std::string_view name, ByteView lower_value) const;

 private:
  NativeNames(const NativeKeys& keys, wrap::NameEncoding encoding, std::size_t longest,
              std::shared_ptr<NonceSource> nonces, Siv name, Siv dirid, Siv symlink, Siv xname, Siv xvalue);
  [[nodiscard]] std::string to_text(ByteView bytes) const;
  [[nodiscard]] Result<Bytes> from_text(std::string_view text) const;
  [[nodiscard]] Result<std::string> plain_of(const DirId& dir, ByteView sealed) const;
  [[nodiscard]] bool is_long(std::string_view lower) const;
  [[nodiscard]] Result<Bytes> seal_xattr_name(std::string_view name) const;

  const NativeKeys* keys_;
  wrap::NameEncoding encoding_;
  std::size_t longest_;
  std::shared_ptr<NonceSource> nonces_;
  Siv name_;
  Siv dirid_;
  Siv symlink_;
  Siv xname_;
  Siv xvalue_;
};

// conflict_base is the beginning of a foreign lower name that may be a name of ours: up to the first " (", "." or "~"
// (not counting a "~" at its start). Empty if there is no such mark.
std::string_view conflict_base(std::string_view lower);

// native_link_size is the length of a link's target, by arithmetic from that of its lower target.
std::uint64_t native_link_size(std::uint64_t lower_len) noexcept;

// native_xattr_value_size is the length of a value, by arithmetic (nullopt: cannot be ours).
std::optional<std::size_t> native_xattr_value_size(std::size_t lower_len) noexcept;

}  // namespace ecfs::fs
