#include "pam/login/wire.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "wrap/base/bytes.h"
#include "wrap/profile.h"

namespace ecfs::pam::wire {
namespace {

constexpr std::uint32_t kMaxItems = 128;
constexpr std::uint32_t kMaxTextBytes = 8192;
constexpr std::size_t kMaxSignatures = wrap::kMaxEcryptfsSignatures + 1;

void put(Bytes& out, ByteView bytes) {
  append_le<std::uint32_t>(out, static_cast<std::uint32_t>(bytes.size()));
  append(out, bytes);
}

void put(Bytes& out, const std::string& text) {
  put(out, as_bytes(text).first(std::min<std::size_t>(text.size(), kMaxTextBytes)));
}

void put(Bytes& out, const std::vector<std::string>& list) {
  const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(list.size(), kMaxItems));
  append_le<std::uint32_t>(out, count);
  for (std::uint32_t i = 0; i < count; ++i) put(out, list[i]);
}

Result<Bytes> take_bytes(ByteReader& in, std::uint64_t most) {
  ECFS_LET(const auto len, in.take_le<std::uint32_t>());
  if (len > most) return Error{Code::kCorrupt, 0, "an answer with a field that is too long"};
  ECFS_LET(const ByteView bytes, in.take(len));
  return Bytes(bytes.begin(), bytes.end());
}

Result<std::string> take_text(ByteReader& in) {
  ECFS_LET(const Bytes bytes, take_bytes(in, kMaxTextBytes));
  return std::string(as_text(bytes));
}

Result<bool> take_flag(ByteReader& in) {
  ECFS_LET(const auto byte, in.take_le<std::uint8_t>());
  return byte != 0;
}

Result<std::uint32_t> take_count(ByteReader& in) {
  ECFS_LET(const auto count, in.take_le<std::uint32_t>());
  if (count > kMaxItems) return Error{Code::kCorrupt, 0, "an answer with too many items"};
  return count;
}

Result<std::vector<wrap::EcryptfsSignature>> take_signatures(ByteReader& in) {
  constexpr std::size_t kBytes = sizeof(wrap::EcryptfsSignature);
  ECFS_LET(const Bytes bytes, take_bytes(in, kMaxSignatures * kBytes));
  if (bytes.size() % kBytes != 0) return Error{Code::kCorrupt, 0, "an answer with half a signature"};
  std::vector<wrap::EcryptfsSignature> signatures(bytes.size() / kBytes);
  for (std::size_t i = 0; i < signatures.size(); ++i) {
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(i * kBytes), kBytes, signatures[i].begin());
  }
  return signatures;
}

Result<std::vector<std::string>> take_list(ByteReader& in) {
  ECFS_LET(const std::uint32_t count, take_count(in));
  std::vector<std::string> list(count);
  for (std::string& item : list) {
    ECFS_LET(item, take_text(in));
  }
  return list;
}

}  // namespace

Reply pack(const std::vector<VolumeInfo>& volumes) {
  Reply reply;
  Bytes& out = reply.data;
  const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(volumes.size(), kMaxItems));
  append_le<std::uint32_t>(out, count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const VolumeInfo& v = volumes[i];
    put(out, v.name);
    put(out, v.error);
    append(out, v.id);
    Bytes signatures;
    for (std::size_t j = 0; j < v.signatures.size() && j < kMaxSignatures; ++j) append(signatures, v.signatures[j]);
    put(out, ByteView(signatures));
    append_le<std::uint8_t>(out, v.auto_mount ? 1 : 0);
    append_le<std::uint8_t>(out, v.auto_unmount ? 1 : 0);
    append_le<std::uint8_t>(out, v.tpm2 ? 1 : 0);
    append_le<std::uint8_t>(out, v.device ? 1 : 0);
    append_le<std::uint32_t>(out, v.device ? v.device->first : 0);
    append_le<std::uint32_t>(out, v.device ? v.device->second : 0);
  }
  return reply;
}

Result<std::vector<VolumeInfo>> unpack_survey(const Reply& reply) {
  ByteReader in(reply.data);
  ECFS_LET(const std::uint32_t count, take_count(in));
  std::vector<VolumeInfo> volumes(count);
  for (VolumeInfo& v : volumes) {
    ECFS_LET(v.name, take_text(in));
    if (!wrap::valid_profile_name(v.name)) return Error{Code::kCorrupt, 0, "an answer with a name that cannot be"};
    ECFS_LET(v.error, take_text(in));
    ECFS_LET(const ByteView id, in.take(v.id.size()));
    std::copy(id.begin(), id.end(), v.id.begin());
    ECFS_LET(v.signatures, take_signatures(in));
    ECFS_LET(v.auto_mount, take_flag(in));
    ECFS_LET(v.auto_unmount, take_flag(in));
    ECFS_LET(v.tpm2, take_flag(in));
    ECFS_LET(const bool mounted, take_flag(in));
    ECFS_LET(const auto major, in.take_le<std::uint32_t>());
    ECFS_LET(const auto minor, in.take_le<std::uint32_t>());
    if (mounted) v.device = std::pair(major, minor);
  }
  return volumes;
}

Reply pack(OpenVolume opened) {
  Reply reply;
  Bytes& out = reply.data;
  append_le<std::uint8_t>(out, opened.mounted_already ? 1 : 0);
  append_le<std::uint8_t>(out, opened.rewrapped ? 1 : 0);
  append_le<std::uint32_t>(out, opened.slot_id);
  append_le<std::uint16_t>(out, static_cast<std::uint16_t>(opened.slot_type));
  put(out, opened.lower);
  put(out, opened.mountpoint);
  put(out, opened.options);
  put(out, opened.notes);
  put(out, opened.log);
  put(out, ByteView(opened.volume_file));
  if (!opened.mounted_already) {
    reply.secret = std::move(opened.key);
    reply.fds.push_back(std::move(opened.lock));
    reply.fds.push_back(std::move(opened.lower_dir));
    reply.fds.push_back(std::move(opened.mountpoint_dir));
  }
  return reply;
}

Result<OpenVolume> unpack_open(Reply reply) {
  OpenVolume opened;
  ByteReader in(reply.data);
  ECFS_LET(opened.mounted_already, take_flag(in));
  ECFS_LET(opened.rewrapped, take_flag(in));
  ECFS_LET(opened.slot_id, in.take_le<std::uint32_t>());
  ECFS_LET(const auto slot_type, in.take_le<std::uint16_t>());
  opened.slot_type = static_cast<wrap::SlotType>(slot_type);
  ECFS_LET(opened.lower, take_text(in));
  ECFS_LET(opened.mountpoint, take_text(in));
  ECFS_LET(opened.options, take_list(in));
  ECFS_LET(opened.notes, take_list(in));
  ECFS_LET(opened.log, take_list(in));
  ECFS_LET(opened.volume_file, take_bytes(in, wrap::kMaxVolumeFileBytes));
  if (opened.mounted_already) return opened;
  if (reply.fds.size() != 3) return Error{Code::kCorrupt, 0, "an answer without its descriptors"};
  opened.key = std::move(reply.secret);
  opened.lock = std::move(reply.fds[0]);
  opened.lower_dir = std::move(reply.fds[1]);
  opened.mountpoint_dir = std::move(reply.fds[2]);
  return opened;
}

Reply pack(const ChangeReport& report) {
  Reply reply;
  put(reply.data, report.changed);
  put(reply.data, report.stale);
  put(reply.data, report.log);
  return reply;
}

Result<ChangeReport> unpack_change(const Reply& reply) {
  ChangeReport report;
  ByteReader in(reply.data);
  ECFS_LET(report.changed, take_list(in));
  ECFS_LET(report.stale, take_list(in));
  ECFS_LET(report.log, take_list(in));
  return report;
}

}  // namespace ecfs::pam::wire
