#include "fs/format/ecryptfs_format.h"

#include <algorithm>
#include <cerrno>

#include "fs/format/ecryptfs_check.h"
#include "fs/format/ecryptfs_contents.h"
#include "fs/format/ecryptfs_names.h"

namespace ecfs::fs {
namespace {

constexpr std::string_view kUserXattrs = "user.";

Error no_such(std::string_view what) {
  return Error{Code::kUnsupported, EOPNOTSUPP, "eCryptfs has no " + std::string(what)};
}

// keys_of gives the keys of a mount, among which all are that its options name.
Result<EcryptfsKeys> keys_of(const EcryptfsFormatOptions& options, const Secret& packed) {
  ECFS_LET(EcryptfsKeys keys, EcryptfsKeys::parse(packed));
  for (const EcryptfsSignature& signature : options.signatures) ECFS_TRY(keys.find(signature));
  if (options.name_signature) ECFS_TRY(keys.find(*options.name_signature));
  if (options.named_keys_only) {
    std::erase_if(keys.all, [&](const EcryptfsKey& key) {
      const auto& all = options.signatures;
      return key.signature != options.name_signature && std::find(all.begin(), all.end(), key.signature) == all.end();
    });
  }
  return keys;
}

class EcryptfsFormat final : public Format {
 public:
  EcryptfsFormat(const EcryptfsFormatOptions& options, std::shared_ptr<EcryptfsVolume> volume)
      : options_(options), volume_(std::move(volume)) {}

  // make_names takes the present keys into use.
  Status make_names() {
    if (!options_.name_signature || options_.encrypted_view) return {};
    ECFS_LET(EcryptfsNames names,
             EcryptfsNames::make(volume_->keys, volume_->ciphers, options_.name_cipher.value_or(options_.cipher),
                                 *options_.name_signature));
    names_.emplace(std::move(names));
    return {};
  }

  Result<DirId> root_id() const override { return DirId{}; }
  Result<DirId> child_id(const DirId&, std::string_view) const override { return DirId{}; }
  std::string_view dir_id_file() const override { return ""; }
  Result<DirId> read_dir_id(ByteView) const override { return no_such("ids of directories"); }
  Result<Bytes> store_dir_id(const DirId&) const override { return no_such("ids of directories"); }

  LowerNameKind kind_of(std::string_view lower_name) const override {
    const bool ours = !names_ || lower_name.starts_with(kEcryptfsNamePrefix);
    return ours ? LowerNameKind::kName : LowerNameKind::kForeign;
  }
  Result<LowerName> encode_name(const DirId&, std::string_view plain) const override {
    if (names_) {
      ECFS_LET(std::string entry, names_->encode(plain));
      return LowerName{std::move(entry), {}};
    }
    if (plain.size() > kEcryptfsLongestLowerName) return system_error(ENAMETOOLONG, "a name");
    return LowerName{std::string(plain), {}};
  }
  Result<std::string> decode_name(const DirId&, std::string_view lower) const override {
    return names_ ? names_->decode(lower) : Result<std::string>(std::string(lower));
  }
  Result<std::string> decode_long_name(const DirId&, std::string_view, ByteView) const override {
    return Error{Code::kCorrupt, EIO, "eCryptfs has no long names"};
  }
  std::uint32_t longest_plain_name() const override {
    return names_ ? kEcryptfsLongestName : kEcryptfsLongestLowerName;
  }
  Result<ConflictName> conflict_name(const DirId&, std::string_view, ByteView) const override {
    return Error{Code::kNotFound, ENOENT, "no name of ours"};
  }
  std::string_view conflict_base(std::string_view) const override { return ""; }

  Result<std::string> encode_link(std::string_view target) const override {
    if (names_) return names_->encode_link(target);
    if (target.size() > kEcryptfsLongestLowerLink) return system_error(ENAMETOOLONG, "a link");
    return std::string(target);
  }
  Result<std::string> decode_link(std::string_view lower) const override {
    return names_ ? names_->decode_link(lower) : Result<std::string>(std::string(lower));
  }
  std::optional<std::uint64_t> link_size(std::uint64_t lower_len) const override {
    if (names_) return std::nullopt;
    return lower_len;
  }

  // Attributes of users stand as they are; the one that holds a header is not theirs.
  Result<std::string> encode_xattr_name(std::string_view name) const override {
    if (!name.starts_with(kUserXattrs) || name == kEcryptfsXattr) return system_error(EPERM, "this attribute");
    return std::string(name);
  }
  std::optional<std::string> decode_xattr_name(std::string_view lower_name) const override {
    if (!lower_name.starts_with(kUserXattrs) || lower_name == kEcryptfsXattr) return std::nullopt;
    return std::string(lower_name);
  }
  Result<Bytes> encode_xattr_value(std::string_view, ByteView value) const override {
    return Bytes(value.begin(), value.end());
  }
  Result<Bytes> decode_xattr_value(std::string_view, ByteView lower_value) const override {
    return Bytes(lower_value.begin(), lower_value.end());
  }
  std::optional<std::size_t> xattr_value_size(std::size_t lower_len) const override { return lower_len; }

  std::optional<std::uint64_t> plain_size(std::uint64_t) const override { return std::nullopt; }
  Result<std::uint64_t> stored_size(const LowerFile& lower) const override {
    return ecryptfs_stored_size(*volume_, lower);
  }
  bool empty_files_have_header() const noexcept override { return true; }
  Result<std::unique_ptr<Contents>> open_contents(LowerFile& lower) const override {
    return open_ecryptfs_contents(volume_, lower);
  }
  Result<std::unique_ptr<Contents>> open_contents_to_truncate(LowerFile& lower) const override {
    return open_ecryptfs_to_truncate(volume_, lower);
  }
  Result<ContentsCheck> check_contents(LowerFile& lower, const CheckHow& how) const override {
    return check_ecryptfs_contents(*volume_, lower, how);
  }
  Result<Salvaged> salvage_contents(LowerFile& lower, const PutPlain& put) const override {
    return salvage_ecryptfs_contents(volume_, lower, put);
  }

  void drop_keys() noexcept override {
    volume_->keys.all.clear();
    if (names_) names_->drop_keys();
  }
  Status restore_keys(const Secret& volume_key) override {
    Result<EcryptfsKeys> keys = keys_of(options_, volume_key);
    if (!keys) {
      const bool another = keys.error().code == Code::kNoKey || keys.error().code == Code::kInvalid;
      if (another) return Error{Code::kWrongKey, 0, keys.error().what};
      return std::move(keys).error();
    }
    volume_->keys = *std::move(keys);
    Status status = make_names();
    if (!status) drop_keys();
    return status;
  }

 private:
  EcryptfsFormatOptions options_;
  std::shared_ptr<EcryptfsVolume> volume_;
  std::optional<EcryptfsNames> names_;  // nothing: names stand as they are
};

}  // namespace

Result<EcryptfsFormatOptions> ecryptfs_format_options(const wrap::EcryptfsOptions& o) {
  EcryptfsFormatOptions options;
  options.signatures = o.signatures;
  options.name_signature = o.name_signature;
  ECFS_LET(options.cipher, EcryptfsCipher::by_name(o.cipher, o.key_bytes));
  if (!o.name_cipher.empty() || o.name_key_bytes != 0) {
    ECFS_LET(options.name_cipher, EcryptfsCipher::by_name(o.name_cipher.empty() ? o.cipher : o.name_cipher,
                                                          o.name_key_bytes == 0 ? o.key_bytes : o.name_key_bytes));
  }
  options.place = o.xattr_metadata ? EcryptfsPlace::kXattr : EcryptfsPlace::kFile;
  options.named_keys_only = o.named_keys_only;
  options.passthrough = o.passthrough.value_or(false);
  options.encrypted_view = o.encrypted_view;
  return options;
}

Result<std::unique_ptr<Format>> make_ecryptfs_format(const EcryptfsFormatOptions& options, const Secret& packed_keys) {
  if (options.signatures.empty()) return Error{Code::kInvalid, EINVAL, "an eCryptfs mount needs a signature"};
  ECFS_LET(EcryptfsKeys keys, keys_of(options, packed_keys));
  ECFS_LET(EcryptfsCiphers ciphers, EcryptfsCiphers::fetch());
  // What new files would be made with has to be there now, not at the first file; and they have to fit in a header.
  EcryptfsHeader header;
  ECFS_LET(header.keys, make_ecryptfs_file_key(keys, ciphers, options.cipher, options.signatures));
  ECFS_TRY(build_ecryptfs_header(header, options.place));
  auto volume = std::make_shared<EcryptfsVolume>(EcryptfsVolume{.keys = std::move(keys),
                                                                .ciphers = std::move(ciphers),
                                                                .cipher = options.cipher,
                                                                .signatures = options.signatures,
                                                                .encrypted_names = options.name_signature.has_value(),
                                                                .place = options.place,
                                                                .passthrough = options.passthrough,
                                                                .encrypted_view = options.encrypted_view});
  auto format = std::make_unique<EcryptfsFormat>(options, std::move(volume));
  ECFS_TRY(format->make_names());
  return std::unique_ptr<Format>(std::move(format));
}

}  // namespace ecfs::fs
