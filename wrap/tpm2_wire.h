// What is said between Tpm2 (wrap/tpm2.h) and the program ecfs-tpm2, over a stream socket. Both sides of it are here.
//
// A message: u32 head, u32 length of the data, u32 length of the secret, data, secret. The head of a request is the
// operation; that of an answer 0, or 1 + the Code of an Error whose text is the data.
#pragma once

#include <cstdint>
#include <vector>

#include "wrap/tpm2.h"

namespace ecfs::wrap {

constexpr int kTpm2SocketFd = 3;  // the number that ecfs-tpm2 is started with
constexpr std::size_t kMaxTpm2MessageBytes = 60000;
constexpr std::size_t kMaxTpm2MessageSecretBytes = kTpm2SecretBytes + kTpm2AuthBytes;
constexpr std::size_t kMaxTpm2Slots = 32;

enum Tpm2Operation : std::uint32_t { kTpm2Seal = 1, kTpm2Unseal = 2, kTpm2Status = 3 };

struct Tpm2Message {
  std::uint32_t head = 0;
  Bytes data;
  Secret secret;
};
// send_message and receive_message take at most `timeout_ms` (negative: for ever): kUnavailable with ETIMEDOUT. An end
// before the first byte is kNotFound, one in the middle and lengths out of bounds are kCorrupt.
Status send_message(int socket, std::uint32_t head, ByteView data, const Secret& secret, int timeout_ms);
Result<Tpm2Message> receive_message(int socket, int timeout_ms);

// The data of a request to seal: u32 PCRs; of one to unseal: pack_sealed; of one for the status: a list of these.
Bytes pack_sealed_list(const std::vector<Tpm2Sealed>& list);
Result<std::vector<Tpm2Sealed>> parse_sealed_list(ByteView bytes);
Bytes pack_status(const Tpm2Status& status);
Result<Tpm2Status> parse_status(ByteView bytes);

}  // namespace ecfs::wrap
