// Any bytes as the header of a lower file: what parses is within bounds, and what is sealed from it opens again as it
// was. The first byte chooses the block size.
#include <algorithm>

#include "fs/format/native_crypto.h"
#include "fs/format/native_header.h"
#include "tests/fuzz/native_volume.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  using namespace ecfs::fs;
  using fuzz::expect;
  using fuzz::need;
  static const NativeKeys kKeys = need(NativeKeys::derive(fuzz::volume_header().id, fuzz::volume_key()));
  static const Ciphers kCiphers = need(Ciphers::fetch());
  if (size == 0) return 0;
  const auto shift = static_cast<std::uint8_t>(kMinBlockShift + data[0] % 5);
  const ByteView bytes(data + 1, size - 1);

  const auto raw = parse_header(bytes, shift);
  if (!raw) {
    expect(raw.error().code == Code::kCorrupt);
    return 0;
  }
  expect(raw->inline_len <= kInlineMaxBytes);
  const auto cipher = FileCipher::make(kKeys, kCiphers, raw->fixed);
  if (!cipher) return 0;
  auto opener = need((*cipher)->opener());
  Bytes contents(raw->inline_len);
  const auto state = open_header(opener, *raw, bytes, contents);
  if (state)
    expect(raw->inline_len == 0 || (!state->holes && state->sealed.value_or(raw->inline_len) == raw->inline_len));

  // The same header, written by us: with a state and contents taken from the input.
  FileState ours;
  ours.holes = raw->inline_len == 0 && (bytes[24] & 1) != 0;
  if (raw->inline_len == 0 && (bytes[24] & 2) != 0) ours.sealed = load_le<std::uint64_t>(bytes.data() + 25) >> 2;
  for (std::size_t i = 0; i < contents.size(); ++i) contents[i] = bytes[i % bytes.size()];
  Nonce nonce{};
  std::copy_n(bytes.begin() + 33, nonce.size(), nonce.begin());
  Bytes sealed(kFileHeaderBytes + contents.size());
  {
    auto sealer = need((*cipher)->sealer());
    expect(seal_header(sealer, raw->fixed, ours, nonce, contents, sealed).has_value());
  }
  const auto again = parse_header(sealed, shift);
  expect(again && again->fixed == raw->fixed && again->inline_len == raw->inline_len);
  Bytes opened(contents.size());
  expect(need(open_header(opener, *again, sealed, opened)) == ours && opened == contents);

  // One changed bit anywhere, and it does not open.
  const std::size_t at = load_le<std::uint16_t>(bytes.data() + 40) % sealed.size();
  sealed[at] = static_cast<std::uint8_t>(sealed[at] ^ (1U << (bytes[42] % 8)));
  const auto changed = parse_header(sealed, shift);
  if (!changed) return 0;
  const auto other = FileCipher::make(kKeys, kCiphers, changed->fixed);
  if (!other) return 0;
  auto other_opener = need((*other)->opener());
  Bytes ignored(changed->inline_len);
  expect(!open_header(other_opener, *changed, sealed, ignored));
  return 0;
}
