#include "fs/format/ecryptfs_format.h"

#include <algorithm>
#include <cerrno>

#include "fs/format/ecryptfs_contents.h"
#include "fs/format/ecryptfs_names.h"

namespace ecfs::fs {
namespace {

constexpr std::string_view kUserXattrs = "user.";

Error no_such(std::string_view what) {
  return Error{Code::kUnsupported, EOPNOTSUPP, "eCryptfs has no " + std::string(what)};
}

// derive gives the keys of a mount: that of the contents first.
Result<EcryptfsKeys> derive(const EcryptfsFormatOptions& options, const Secret& passphrase) {
  EcryptfsKeys keys;
  ECFS_LET(EcryptfsKey contents, EcryptfsKey::derive(passphrase, options.salt));
  keys.all.push_back(std::move(contents));
  if (options.names == EcryptfsNameKey::kOwn) {
    ECFS_LET(EcryptfsKey names, EcryptfsKey::derive(passphrase, kEcryptfsNameSalt));
    keys.all.push_back(std::move(names));
  }
  return keys;
}

class EcryptfsFormat final : public Format {
 public:
  EcryptfsFormat(const EcryptfsFormatOptions& options, std::shared_ptr<EcryptfsVolume> volume)
      : options_(options), volume_(std::move(volume)) {
    for (const EcryptfsKey& key : volume_->keys.all) signatures_.push_back(key.signature);
  }

  // make_names takes the present keys into use.
  Status make_names() {
    if (options_.names == EcryptfsNameKey::kNone || options_.encrypted_view) return {};
    ECFS_LET(EcryptfsNames names,
             EcryptfsNames::make(volume_->keys, volume_->ciphers, options_.name_cipher.value_or(options_.cipher),
                                 signatures_.back()));
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
  bool empty_files_have_header() const noexcept override { return true; }
  Result<std::unique_ptr<Contents>> open_contents(LowerFile& lower) const override {
    return open_ecryptfs_contents(volume_, lower);
  }
  Result<std::unique_ptr<Contents>> open_contents_to_truncate(LowerFile& lower) const override {
    return open_ecryptfs_to_truncate(volume_, lower);
  }

  void drop_keys() noexcept override {
    volume_->keys.all.clear();
    if (names_) names_->drop_keys();
  }
  Status restore_keys(const Secret& volume_key) override {
    ECFS_LET(EcryptfsKeys keys, derive(options_, volume_key));
    const auto same = [](const EcryptfsKey& key, const EcryptfsSignature& signature) {
      return key.signature == signature;
    };
    if (!std::equal(keys.all.begin(), keys.all.end(), signatures_.begin(), signatures_.end(), same)) {
      return Error{Code::kWrongKey, 0, "a passphrase with other signatures"};
    }
    volume_->keys = std::move(keys);
    Status status = make_names();
    if (!status) drop_keys();
    return status;
  }

 private:
  EcryptfsFormatOptions options_;
  std::shared_ptr<EcryptfsVolume> volume_;
  std::vector<EcryptfsSignature> signatures_;  // of the keys: contents first, names last
  std::optional<EcryptfsNames> names_;         // nothing: names stand as they are
};

}  // namespace

Result<std::unique_ptr<Format>> make_ecryptfs_format(const EcryptfsFormatOptions& options, const Secret& passphrase) {
  ECFS_LET(EcryptfsKeys keys, derive(options, passphrase));
  ECFS_LET(EcryptfsCiphers ciphers, EcryptfsCiphers::fetch());
  const EcryptfsSignature contents = keys.all.front().signature;
  // What new files would be made with has to be there now, not at the first file.
  ECFS_TRY(make_ecryptfs_file_key(keys, ciphers, options.cipher, {&contents, 1}));
  auto volume =
      std::make_shared<EcryptfsVolume>(EcryptfsVolume{.keys = std::move(keys),
                                                      .ciphers = std::move(ciphers),
                                                      .cipher = options.cipher,
                                                      .signatures = {contents},
                                                      .encrypted_names = options.names != EcryptfsNameKey::kNone,
                                                      .place = options.place,
                                                      .passthrough = options.passthrough,
                                                      .encrypted_view = options.encrypted_view});
  auto format = std::make_unique<EcryptfsFormat>(options, std::move(volume));
  ECFS_TRY(format->make_names());
  return std::unique_ptr<Format>(std::move(format));
}

}  // namespace ecfs::fs
