// Any bytes as the header of an eCryptfs file: what parses is within bounds, and what is built from it parses as the
// same. The first byte chooses the place.
#include <cstdlib>

#include "fs/format/ecryptfs_header.h"

namespace {

void expect(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ecfs;
  using namespace ecfs::fs;
  if (size == 0) return 0;
  const EcryptfsPlace place = (data[0] & 1) != 0 ? EcryptfsPlace::kXattr : EcryptfsPlace::kFile;
  const ByteView bytes(data + 1, size - 1);
  auto header = parse_ecryptfs_header(bytes, place);
  if (!header) {
    expect(header.error().code == Code::kCorrupt);
    return 0;
  }
  expect(place == EcryptfsPlace::kXattr || header->data_offset(place) >= kEcryptfsMinHeaderBytes);
  expect(header->data_offset(place) + header->plain_size + kEcryptfsExtentBytes < std::uint64_t{1} << 63);
  expect(!header->keys.empty() || !header->public_key_sigs.empty());
  for (const EcryptfsKeyPacket& key : header->keys) {
    expect(!key.encrypted_key.empty() && key.encrypted_key.size() <= kEcryptfsMaxKeyBytes);
  }
  const auto built = build_ecryptfs_header(*header, place);
  if (!built) {
    expect(built.error().code == Code::kInvalid);
    return 0;
  }
  header->version = 3;
  header->public_key_sigs.clear();
  header->flags = place == EcryptfsPlace::kXattr ? header->flags | EcryptfsHeader::kInXattr
                                                 : header->flags & ~EcryptfsHeader::kInXattr;
  const auto again = parse_ecryptfs_header(*built, place);
  expect(again && *again == *header);
  return 0;
}
