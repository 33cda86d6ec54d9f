// The header of eCryptfs files: known bytes from a kernel, every field that a reader ignores, and every one it refuses.
#include "fs/format/ecryptfs_header.h"

#include <gtest/gtest.h>

namespace ecfs::fs {
namespace {

// The first bytes of `s4097` in tests/vectors/ecryptfs/encview-aes16 as a kernel wrote it, with the key packet of a
// file of our own making.
constexpr const char* kKernel =
    "0000000000001001e8ecf274d46d4581030000020000100000028c1d040703010011223344556677"
    "60aabbccddeeff00112233445566778899ed1662085f434f4e534f4c4500000000a629f7595e18ddec";

Bytes kernel_bytes() { return *from_hex(kKernel); }

Bytes in_file(Bytes bytes) {
  bytes.resize(8192);
  return bytes;
}

EcryptfsHeader parsed(const Bytes& bytes, EcryptfsPlace place = EcryptfsPlace::kFile) {
  auto header = parse_ecryptfs_header(bytes, place);
  EXPECT_TRUE(header) << header.error().what;
  return header ? *std::move(header) : EcryptfsHeader{};
}

void expect_refused(const Bytes& bytes, EcryptfsPlace place = EcryptfsPlace::kFile) {
  const auto header = parse_ecryptfs_header(bytes, place);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().code, Code::kCorrupt) << header.error().what;
}

Bytes changed(std::size_t at, std::uint8_t value) {
  Bytes bytes = in_file(kernel_bytes());
  bytes[at] = value;
  return bytes;
}

TEST(EcryptfsHeader, KernelBytesParseAndAreBuiltAgain) {
  const Bytes bytes = in_file(kernel_bytes());
  const EcryptfsHeader header = parsed(bytes);
  EXPECT_EQ(header.plain_size, 4097U);
  EXPECT_EQ(header.marker, 0xe8ecf274U);
  EXPECT_EQ(header.version, 3);
  EXPECT_EQ(header.flags, 2U);
  EXPECT_EQ(header.data_offset(EcryptfsPlace::kFile), 8192U);
  EXPECT_EQ(header.data_offset(EcryptfsPlace::kXattr), 0U);
  ASSERT_EQ(header.keys.size(), 1U);
  EXPECT_EQ(header.keys[0].cipher_code, 7);
  EXPECT_EQ(to_hex(header.keys[0].salt), "0011223344556677");
  EXPECT_EQ(to_hex(header.keys[0].encrypted_key), "aabbccddeeff00112233445566778899");
  EXPECT_EQ(to_hex(header.keys[0].signature), "a629f7595e18ddec");
  EXPECT_EQ(*build_ecryptfs_header(header, EcryptfsPlace::kFile), bytes);
}

TEST(EcryptfsHeader, TheAttributeIsTheHeaderWithoutItsEnd) {
  Bytes bytes = kernel_bytes();
  ASSERT_EQ(bytes.size(), 81U);
  EcryptfsHeader header = parsed(bytes, EcryptfsPlace::kXattr);
  bytes[19] = 6;
  EXPECT_EQ(*build_ecryptfs_header(header, EcryptfsPlace::kXattr), bytes);
  EXPECT_EQ(parsed(bytes, EcryptfsPlace::kXattr).flags, EcryptfsHeader::kEncrypted | EcryptfsHeader::kInXattr);
}

TEST(EcryptfsHeader, WhatReadersIgnore) {
  const EcryptfsHeader plain = parsed(in_file(kernel_bytes()));
  for (const std::size_t at : {40U, 61U, 67U, 69U, 72U, 81U, 82U, 4000U}) {  // iteration, name, date, end and behind it
    EXPECT_EQ(parsed(changed(at, 0x55)), plain) << at;
  }
  for (const int version : {1, 2}) {
    EcryptfsHeader header = parsed(changed(16, static_cast<std::uint8_t>(version)));
    header.version = 3;
    EXPECT_EQ(header, plain);
  }
  for (const int flags : {0, 1, 3, 4, 0xa, 0xff}) {
    EXPECT_EQ(parsed(changed(19, static_cast<std::uint8_t>(flags))).keys, plain.keys) << flags;
  }
}

TEST(EcryptfsHeader, Version0HasNoExtentFields) {
  Bytes bytes = kernel_bytes();
  bytes[16] = 0;
  bytes.erase(bytes.begin() + 20, bytes.begin() + 26);
  const EcryptfsHeader header = parsed(in_file(bytes));
  EXPECT_EQ(header.data_offset(EcryptfsPlace::kFile), 8192U);
  EXPECT_EQ(header.keys, parsed(in_file(kernel_bytes())).keys);
}

TEST(EcryptfsHeader, OtherHeaderSizes) {
  struct Case {
    std::uint32_t extent;
    std::uint16_t num;
    bool good;
  };
  for (const Case& c : {Case{4096, 16, true}, Case{8192, 1, true}, Case{512, 16, true}, Case{4096, 1, false},
                        Case{0, 2, false}, Case{4096, 0, false}, Case{0xffffffff, 0xffff, true}}) {
    Bytes bytes = in_file(kernel_bytes());
    for (std::size_t i = 0; i < 4; ++i) bytes[20 + i] = static_cast<std::uint8_t>(c.extent >> (24 - 8 * i));
    bytes[24] = static_cast<std::uint8_t>(c.num >> 8);
    bytes[25] = static_cast<std::uint8_t>(c.num);
    if (!c.good) {
      expect_refused(bytes);
      EXPECT_EQ(parsed(bytes, EcryptfsPlace::kXattr).data_offset(EcryptfsPlace::kXattr), 0U);
      continue;
    }
    EXPECT_EQ(parsed(bytes).data_offset(EcryptfsPlace::kFile), std::uint64_t{c.extent} * c.num);
  }
}

TEST(EcryptfsHeader, WhatReadersRefuse) {
  expect_refused({});
  expect_refused(Bytes(25));
  expect_refused(in_file({}));
  expect_refused(changed(8, 0));     // marker
  expect_refused(changed(16, 4));    // version
  expect_refused(changed(0, 0x80));  // size
  Bytes largest = changed(0, 0x7f);
  EXPECT_EQ(parsed(largest).plain_size, 0x7f00000000001001U);
  largest[1] = 0xff;
  expect_refused(largest);
  expect_refused(changed(26, 0));     // no key
  expect_refused(changed(26, 0xed));  // a signature alone
  expect_refused(changed(27, 13));    // a key of no bytes
  expect_refused(changed(27, 0xe0));  // a partial length
  expect_refused(changed(27, 0xff));  // a five-byte length
  expect_refused(changed(28, 5));     // packet version
  expect_refused(changed(30, 0));     // S2K
  expect_refused(changed(31, 2));     // hash
  expect_refused(changed(57, 0));     // no signature
  expect_refused(changed(58, 0x15));
  expect_refused(changed(59, 'b' + 1));
  const Bytes whole = kernel_bytes();
  for (std::size_t len = 0; len < whole.size(); ++len) {
    expect_refused(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(len)), EcryptfsPlace::kXattr);
  }
}

TEST(EcryptfsHeader, SeveralKeysAndPublicOnes) {
  EcryptfsHeader header = parsed(in_file(kernel_bytes()));
  EcryptfsKeyPacket other = header.keys[0];
  other.cipher_code = 8;
  other.encrypted_key.assign(32, 0x11);
  other.signature.fill(0x22);
  header.keys.push_back(other);
  Bytes bytes = *build_ecryptfs_header(header, EcryptfsPlace::kFile);
  EXPECT_EQ(parsed(bytes), header);

  bytes = *build_ecryptfs_header(header, EcryptfsPlace::kXattr);
  const Bytes tag1 = *from_hex(
      "010b03"
      "3333333333333333"
      "01"
      "77");
  append(bytes, tag1);
  const EcryptfsHeader with_public = parsed(bytes, EcryptfsPlace::kXattr);
  EXPECT_EQ(with_public.keys, header.keys);
  ASSERT_EQ(with_public.public_key_sigs.size(), 1U);
  EXPECT_EQ(to_hex(with_public.public_key_sigs[0]), "3333333333333333");
}

TEST(EcryptfsHeader, WhatIsNotBuilt) {
  const EcryptfsHeader good = parsed(in_file(kernel_bytes()));
  const auto refused = [](const EcryptfsHeader& header, EcryptfsPlace place = EcryptfsPlace::kFile) {
    const auto built = build_ecryptfs_header(header, place);
    return !built && built.error().code == Code::kInvalid;
  };
  EcryptfsHeader header = good;
  header.keys.clear();
  EXPECT_TRUE(refused(header));
  header = good;
  header.plain_size = ~std::uint64_t{0};
  EXPECT_TRUE(refused(header));
  header = good;
  header.num_header_extents = 1;
  EXPECT_TRUE(refused(header));
  header.num_header_extents = 0xffff;
  EXPECT_TRUE(refused(header));
  header = good;
  header.keys[0].encrypted_key.resize(65);
  EXPECT_TRUE(refused(header));
  header = good;
  header.keys.resize(80, good.keys[0]);
  EXPECT_TRUE(refused(header));
  EXPECT_TRUE(refused(header, EcryptfsPlace::kXattr));
}

TEST(EcryptfsHeader, LengthsOfPackets) {
  for (std::size_t len = 0; len <= kEcryptfsMaxPacketBytes; ++len) {
    Bytes bytes;
    append_ecryptfs_length(bytes, len);
    EXPECT_EQ(bytes.size(), len < 192 ? 1U : 2U);
    const auto back = parse_ecryptfs_length(bytes);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->len, len);
    EXPECT_EQ(back->num_bytes, bytes.size());
  }
  EXPECT_FALSE(parse_ecryptfs_length({}));
  EXPECT_FALSE(parse_ecryptfs_length(Bytes{200}));
}

TEST(EcryptfsHeader, SizeField) { EXPECT_EQ(to_hex(ecryptfs_size_field(0x0102030405060708)), "0102030405060708"); }

}  // namespace
}  // namespace ecfs::fs
