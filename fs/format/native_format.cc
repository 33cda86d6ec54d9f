#include "fs/format/native_format.h"

#include <cerrno>

#include "fs/format/native_check.h"
#include "fs/format/native_contents.h"
#include "fs/format/native_names.h"
#include "fs/format/native_nonces.h"

namespace ecfs::fs {
namespace {

constexpr std::size_t kLongestLowerName = 255;

class NativeFormat final : public Format {
 public:
  NativeFormat(std::shared_ptr<NativeVolume> volume, NativeNames names)
      : volume_(std::move(volume)), names_(std::move(names)) {}

  // make_names makes what encrypts names under the volume's present keys.
  static Result<NativeNames> make_names(const NativeVolume& volume) {
    const wrap::VolumeHeader& header = volume.header;
    const std::size_t longest = header.longest_name == 0 ? kLongestLowerName : header.longest_name;
    return NativeNames::make(volume.keys, volume.ciphers, header.name_encoding, longest, volume.nonces);
  }

  Result<DirId> root_id() const override { return root_dir_id(volume_->keys); }
  Result<DirId> child_id(const DirId& parent, std::string_view plain_name) const override {
    return child_dir_id(volume_->keys, parent, plain_name);
  }
  std::string_view dir_id_file() const override { return ".ecfs-dir"; }
  Result<DirId> read_dir_id(ByteView stored) const override { return names_.read_dir_id(stored); }
  Result<Bytes> store_dir_id(const DirId& id) const override { return names_.store_dir_id(id); }

  LowerNameKind kind_of(std::string_view lower_name) const override { return names_.kind_of(lower_name); }
  Result<LowerName> encode_name(const DirId& dir, std::string_view plain) const override {
    return names_.encode(dir, plain);
  }
  Result<std::string> decode_name(const DirId& dir, std::string_view lower) const override {
    return names_.decode(dir, lower);
  }
  Result<std::string> decode_long_name(const DirId& dir, std::string_view lower, ByteView side) const override {
    return names_.decode_long(dir, lower, side);
  }
  std::uint32_t longest_plain_name() const override { return 255; }
  Result<ConflictName> conflict_name(const DirId& dir, std::string_view lower, ByteView side) const override {
    return names_.conflict(dir, lower, side);
  }
  std::string_view conflict_base(std::string_view lower) const override { return fs::conflict_base(lower); }

  Result<std::string> encode_link(std::string_view target) const override { return names_.encode_link(target); }
  Result<std::string> decode_link(std::string_view lower) const override { return names_.decode_link(lower); }
  std::optional<std::uint64_t> link_size(std::uint64_t lower_len) const override { return native_link_size(lower_len); }

  Result<std::string> encode_xattr_name(std::string_view name) const override { return names_.encode_xattr_name(name); }
  std::optional<std::string> decode_xattr_name(std::string_view lower_name) const override {
    return names_.decode_xattr_name(lower_name);
  }
  Result<Bytes> encode_xattr_value(std::string_view name, ByteView value) const override {
    return names_.encode_xattr_value(name, value);
  }
  Result<Bytes> decode_xattr_value(std::string_view name, ByteView lower_value) const override {
    return names_.decode_xattr_value(name, lower_value);
  }
  std::optional<std::size_t> xattr_value_size(std::size_t lower_len) const override {
    return native_xattr_value_size(lower_len);
  }

  std::optional<std::uint64_t> plain_size(std::uint64_t lower_size) const override {
    return volume_->geometry.plain_size(lower_size);
  }
  bool empty_files_have_header() const noexcept override { return volume_->header.sealed_size(); }
  Result<std::unique_ptr<Contents>> open_contents(LowerFile& lower) const override {
    return open_native_contents(volume_, lower);
  }
  Result<std::unique_ptr<Contents>> open_contents_to_truncate(LowerFile& lower) const override {
    return open_native_to_truncate(volume_, lower);
  }
  Result<ContentsCheck> check_contents(LowerFile& lower, const CheckHow& how) const override {
    return check_native_contents(*volume_, lower, how);
  }
  Result<Salvaged> salvage_contents(LowerFile& lower, const PutPlain& put) const override {
    return salvage_native_contents(*volume_, lower, put);
  }

  void drop_keys() noexcept override {
    volume_->keys = NativeKeys();
    names_.drop_keys();
  }
  Status restore_keys(const Secret& volume_key) override {
    ECFS_LET(volume_->keys, NativeKeys::derive(volume_->header.id, volume_key));
    Result<NativeNames> names = make_names(*volume_);
    if (!names) {
      drop_keys();
      return std::move(names).error();
    }
    names_ = *std::move(names);
    return {};
  }

 private:
  std::shared_ptr<NativeVolume> volume_;
  NativeNames names_;
};

}  // namespace

Result<std::unique_ptr<Format>> make_native_format(const NativeFormatOptions& options, const Secret& volume_key) {
  return make_native_format(options, volume_key, random_nonces());
}

Result<std::unique_ptr<Format>> make_native_format(const NativeFormatOptions& options, const Secret& volume_key,
                                                   std::shared_ptr<NonceSource> nonces) {
  const wrap::VolumeHeader& header = options.header;
  if (header.block_shift < kMinBlockShift || header.block_shift > kMaxBlockShift) {
    return Error{Code::kCorrupt, EIO, "volume header: impossible block size"};
  }
  auto volume = std::make_shared<NativeVolume>();
  volume->header = header;
  volume->geometry = Geometry(header.block_shift);
  ECFS_LET(volume->keys, NativeKeys::derive(header.id, volume_key));
  ECFS_LET(volume->ciphers, Ciphers::fetch());
  volume->nonces = std::move(nonces);
  volume->unsealed_report = options.unsealed_report;
  ECFS_LET(NativeNames names, NativeFormat::make_names(*volume));
  return std::unique_ptr<Format>(std::make_unique<NativeFormat>(std::move(volume), std::move(names)));
}

}  // namespace ecfs::fs
