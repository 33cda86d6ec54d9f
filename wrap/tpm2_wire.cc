#include "wrap/tpm2_wire.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <ctime>

#include "wrap/base/log.h"

namespace ecfs::wrap {
namespace {

constexpr std::uint16_t kNeedsAuth = 1;
constexpr std::size_t kMaxManufacturerBytes = 16;

Error malformed() { return {Code::kCorrupt, 0, "what a TPM sealed is damaged: its parts do not fit"}; }

std::int64_t now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
}

// The moment until which a message is waited for.
struct Until {
  explicit Until(int timeout_ms) : end(timeout_ms < 0 ? -1 : now_ms() + timeout_ms) {}
  [[nodiscard]] int left_ms() const {
    return end < 0 ? -1 : static_cast<int>(std::max<std::int64_t>(0, end - now_ms()));
  }
  std::int64_t end;
};

Status wait_for(int socket, short events, const Until& until) {
  for (;;) {
    pollfd p{socket, events, 0};
    const int n = poll(&p, 1, until.left_ms());
    if (n > 0) return {};
    if (n == 0) return Error{Code::kUnavailable, ETIMEDOUT, "no answer in time"};
    if (errno != EINTR) return system_error(errno, "wait for ecfs-tpm2");
  }
}

Status send_all(int socket, ByteView bytes, const Until& until) {
  while (!bytes.empty()) {
    ECFS_TRY(wait_for(socket, POLLOUT, until));
    const ssize_t n = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return system_error(errno, "talk to ecfs-tpm2");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status receive_all(int socket, MutableByteView out, bool may_end, const Until& until) {
  for (std::size_t have = 0; have < out.size();) {
    ECFS_TRY(wait_for(socket, POLLIN, until));
    const ssize_t n = recv(socket, out.data() + have, out.size() - have, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return system_error(errno, "talk to ecfs-tpm2");
    if (n == 0 && have == 0 && may_end) return Error{Code::kNotFound, 0, "there is no further message"};
    if (n == 0) return Error{Code::kCorrupt, 0, "a message about the TPM ends too early"};
    have += static_cast<std::size_t>(n);
  }
  return {};
}

Status take_array(ByteReader& reader, MutableByteView out) {
  ECFS_LET(const ByteView bytes, reader.take(out.size()));
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return {};
}

Result<std::vector<Sha256>> take_values(ByteReader& reader, PcrSet pcrs) {
  std::vector<Sha256> values(static_cast<std::size_t>(std::popcount(pcrs)));
  for (Sha256& value : values) ECFS_TRY(take_array(reader, value));
  return values;
}

Result<Bytes> take_part(ByteReader& reader) {
  ECFS_LET(const auto len, reader.take_le<std::uint16_t>());
  if (len == 0 || len > kMaxTpm2PartBytes) return malformed();
  ECFS_LET(const ByteView bytes, reader.take(len));
  return Bytes(bytes.begin(), bytes.end());
}

Result<Tpm2Sealed> take_sealed(ByteReader& reader) {
  Tpm2Sealed sealed;
  ECFS_LET(sealed.pcrs, reader.take_le<std::uint32_t>());
  ECFS_LET(const auto flags, reader.take_le<std::uint16_t>());
  ECFS_LET(const auto unused, reader.take_le<std::uint16_t>());
  if (sealed.pcrs >> kNumPcrs != 0 || flags > kNeedsAuth || unused != 0) return malformed();
  sealed.needs_auth = flags == kNeedsAuth;
  if (!sealed.needs_auth && sealed.pcrs == 0) return malformed();  // no TPM gives away what has no condition at all
  ECFS_TRY(take_array(reader, sealed.parent));
  ECFS_TRY(take_array(reader, sealed.chip));
  ECFS_LET(sealed.pcr_values, take_values(reader, sealed.pcrs));
  ECFS_LET(sealed.public_area, take_part(reader));
  ECFS_LET(sealed.private_area, take_part(reader));
  return sealed;
}

}  // namespace

Bytes pack_sealed(const Tpm2Sealed& sealed) {
  Bytes out;
  append_le(out, sealed.pcrs);
  append_le(out, static_cast<std::uint16_t>(sealed.needs_auth ? kNeedsAuth : 0));
  append_le(out, std::uint16_t{0});
  append(out, sealed.parent);
  append(out, sealed.chip);
  for (const Sha256& value : sealed.pcr_values) append(out, value);
  append_le(out, static_cast<std::uint16_t>(sealed.public_area.size()));
  append(out, sealed.public_area);
  append_le(out, static_cast<std::uint16_t>(sealed.private_area.size()));
  append(out, sealed.private_area);
  return out;
}

Result<Tpm2Sealed> parse_sealed(ByteView bytes) {
  ByteReader reader(bytes);
  auto sealed = take_sealed(reader);
  if (!sealed || reader.remaining() != 0) return malformed();
  return sealed;
}

Status send_message(int socket, std::uint32_t head, ByteView data, const Secret& secret, int timeout_ms) {
  if (data.size() > kMaxTpm2MessageBytes || secret.size() > kMaxTpm2MessageSecretBytes) {
    return Error{Code::kInvalid, 0, "a message about the TPM that is too long"};
  }
  const Until until(timeout_ms);
  Bytes begin;
  append_le(begin, head);
  append_le(begin, static_cast<std::uint32_t>(data.size()));
  append_le(begin, static_cast<std::uint32_t>(secret.size()));
  append(begin, data);
  ECFS_TRY(send_all(socket, begin, until));
  return send_all(socket, secret.reveal(), until);
}

Result<Tpm2Message> receive_message(int socket, int timeout_ms) {
  const Until until(timeout_ms);
  std::array<std::uint8_t, 12> begin{};
  ECFS_TRY(receive_all(socket, begin, true, until));
  Tpm2Message message;
  message.head = load_le<std::uint32_t>(begin.data());
  const auto data_len = load_le<std::uint32_t>(begin.data() + 4);
  const auto secret_len = load_le<std::uint32_t>(begin.data() + 8);
  if (data_len > kMaxTpm2MessageBytes || secret_len > kMaxTpm2MessageSecretBytes) {
    return Error{Code::kCorrupt, 0, "a message about the TPM that is too long"};
  }
  message.data.resize(data_len);
  ECFS_LET(message.secret, Secret::of_size(secret_len));
  ECFS_TRY(receive_all(socket, message.data, false, until));
  ECFS_TRY(receive_all(socket, message.secret.reveal_mutable(), false, until));
  return message;
}

Bytes pack_sealed_list(const std::vector<Tpm2Sealed>& list) {
  Bytes out;
  append_le(out, static_cast<std::uint32_t>(list.size()));
  for (const Tpm2Sealed& sealed : list) append(out, pack_sealed(sealed));
  return out;
}

Result<std::vector<Tpm2Sealed>> parse_sealed_list(ByteView bytes) {
  ByteReader reader(bytes);
  ECFS_LET(const auto count, reader.take_le<std::uint32_t>());
  if (count > kMaxTpm2Slots) return malformed();
  std::vector<Tpm2Sealed> list;
  for (std::uint32_t i = 0; i < count; ++i) {
    ECFS_LET(Tpm2Sealed sealed, take_sealed(reader));
    list.push_back(std::move(sealed));
  }
  if (reader.remaining() != 0) return malformed();
  return list;
}

Bytes pack_status(const Tpm2Status& status) {
  Bytes out;
  const std::string name = status.manufacturer.substr(0, kMaxManufacturerBytes);
  out.push_back(static_cast<std::uint8_t>(name.size()));
  append(out, as_bytes(name));
  out.push_back(status.locked ? 1 : 0);
  for (const std::uint32_t number :
       {status.firmware, status.failed_tries, status.max_tries, status.try_back_s, status.pcrs_present}) {
    append_le(out, number);
  }
  for (const Sha256& value : status.pcr_values) append(out, value);
  append_le(out, static_cast<std::uint32_t>(status.slots.size()));
  for (const Tpm2SlotState& slot : status.slots) {
    out.push_back(static_cast<std::uint8_t>(slot.opens));
    append_le(out, slot.changed);
  }
  return out;
}

Result<Tpm2Status> parse_status(ByteView bytes) {
  const Error bad{Code::kCorrupt, 0, "ecfs-tpm2 answered something that makes no sense"};
  ByteReader reader(bytes);
  Tpm2Status status;
  ECFS_LET(const auto name_len, reader.take_le<std::uint8_t>());
  if (name_len > kMaxManufacturerBytes) return bad;
  ECFS_LET(const ByteView name, reader.take(name_len));
  status.manufacturer = printable(as_text(name));
  ECFS_LET(const auto locked, reader.take_le<std::uint8_t>());
  status.locked = locked != 0;
  for (std::uint32_t* number :
       {&status.firmware, &status.failed_tries, &status.max_tries, &status.try_back_s, &status.pcrs_present}) {
    ECFS_LET(*number, reader.take_le<std::uint32_t>());
  }
  if (status.pcrs_present >> kNumPcrs != 0) return bad;
  ECFS_LET(status.pcr_values, take_values(reader, status.pcrs_present));
  ECFS_LET(const auto count, reader.take_le<std::uint32_t>());
  if (count > kMaxTpm2Slots) return bad;
  for (std::uint32_t i = 0; i < count; ++i) {
    Tpm2SlotState slot;
    ECFS_LET(const auto opens, reader.take_le<std::uint8_t>());
    ECFS_LET(slot.changed, reader.take_le<std::uint32_t>());
    if (opens > static_cast<std::uint8_t>(Tpm2Opens::kDamaged) || slot.changed >> kNumPcrs != 0) return bad;
    slot.opens = static_cast<Tpm2Opens>(opens);
    status.slots.push_back(slot);
  }
  if (reader.remaining() != 0) return bad;
  return status;
}

}  // namespace ecfs::wrap
