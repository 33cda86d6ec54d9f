#include "fs/format/native_keys.h"

#include <algorithm>
#include <cerrno>

#include "wrap/crypto.h"

namespace ecfs::fs {
namespace {

DirId first_16(const wrap::Sha256& hash) {
  DirId id{};
  std::copy_n(hash.begin(), id.size(), id.begin());
  return id;
}

}  // namespace

Result<NativeKeys> NativeKeys::derive(const wrap::VolumeId& id, const Secret& volume_key) {
  ECFS_LET(const Secret prk, wrap::volume_prk(id, volume_key));
  NativeKeys keys;
  struct Label {
    Secret NativeKeys::*key;
    std::string_view info;
    std::size_t len;
  };
  constexpr std::array<Label, 8> kLabels{{
      {&NativeKeys::file, "ecfs1 file", 32},
      {&NativeKeys::dir, "ecfs1 dir", 32},
      {&NativeKeys::longs, "ecfs1 long", 32},
      {&NativeKeys::name, "ecfs1 name", 64},
      {&NativeKeys::dirid, "ecfs1 dirid", 64},
      {&NativeKeys::symlink, "ecfs1 symlink", 64},
      {&NativeKeys::xname, "ecfs1 xname", 64},
      {&NativeKeys::xvalue, "ecfs1 xvalue", 64},
  }};
  for (const Label& label : kLabels) {
    ECFS_LET(keys.*label.key, wrap::hkdf_expand(prk, label.info, label.len));
  }
  return keys;
}

Error no_keys() { return Error{Code::kNoKey, ENOKEY, "the volume is suspended: its keys were wiped"}; }

Status check_there(const Secret& key) {
  if (key.empty()) return no_keys();
  return {};
}

Result<DirId> root_dir_id(const NativeKeys& keys) {
  ECFS_TRY(check_there(keys.dir));
  constexpr std::array<std::uint8_t, 5> kRoot{0x00, 'r', 'o', 'o', 't'};
  ECFS_LET(const wrap::Sha256 hash, wrap::hmac_sha256(keys.dir.reveal(), {kRoot}));
  return first_16(hash);
}

Result<DirId> child_dir_id(const NativeKeys& keys, const DirId& parent, std::string_view plain_name) {
  ECFS_TRY(check_there(keys.dir));
  constexpr std::array<std::uint8_t, 1> kChild{0x01};
  ECFS_LET(const wrap::Sha256 hash, wrap::hmac_sha256(keys.dir.reveal(), {kChild, parent, as_bytes(plain_name)}));
  return first_16(hash);
}

}  // namespace ecfs::fs
