// Any bytes as a lower file, opened, read everywhere, then written, cut and punched. Nothing may crash or hang, and a
// whole block that was written reads back. Of a copy: the check says what the reader says, repairing changes nothing
// that the reader shows, and salvage finds at least as much.
//
// Input: one byte of modes, one that says how many bytes at the end are operations, the lower file, the operations. As
// tags would stop nearly every input at the door, the modes can have the header and the blocks sealed as they stand.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "fs/format/native_crypto.h"
#include "fs/format/native_header.h"
#include "tests/fuzz/native_volume.h"

namespace {

using namespace ecfs;
using namespace ecfs::fs;
using fuzz::expect;
using fuzz::need;

constexpr std::uint8_t kSealHeader = 1;
constexpr std::uint8_t kSealBlocks = 2;
constexpr std::uint8_t kSealPrevious = 4;
constexpr std::uint8_t kSealedVolume = 8;
constexpr std::uint8_t kUnsealedReport = 16;
constexpr std::uint8_t kLargerBlocks = 32;
constexpr std::uint8_t kHoles = 64;
constexpr std::uint8_t kSealSize = 128;

constexpr std::uint64_t kMaxSize = 3U << 20;
constexpr std::uint64_t kUsualSize = 40000;
constexpr std::uint64_t kMaxBlocksSealed = 200;

// seal makes header and blocks of `lower` verify, whatever they hold.
void seal(Bytes& lower, std::uint8_t modes, const Geometry& g) {
  static const NativeKeys kKeys = need(NativeKeys::derive(fuzz::volume_header().id, fuzz::volume_key()));
  static const Ciphers kCiphers = need(Ciphers::fetch());
  if (lower.size() < kFileHeaderBytes) return;
  FileId id{};
  std::copy_n(lower.begin() + 8, id.size(), id.begin());
  const FileFixed fixed =
      fixed_header((lower[5] & 1) != 0 ? wrap::Suite::kAes256Gcm : wrap::Suite::kChaCha20Poly1305, g.block_shift(), id);
  std::copy(fixed.begin(), fixed.end(), lower.begin());
  const auto cipher = need(FileCipher::make(kKeys, kCiphers, fixed));
  auto sealer = need(cipher->sealer());
  std::size_t inline_len = load_le<std::uint32_t>(lower.data() + 52) % (kInlineMaxBytes + 1);
  if ((lower[52] & 1) == 0 || inline_len > lower.size() - kFileHeaderBytes) inline_len = 0;
  Nonce nonce{};
  std::copy_n(lower.begin() + 24, nonce.size(), nonce.begin());
  FileState state;
  if (inline_len == 0) {
    state.holes = (modes & kHoles) != 0;
    if ((modes & kSealSize) != 0) state.sealed = g.paged_plain_size(lower.size());
  }
  const Bytes contents(lower.begin() + kFileHeaderBytes,
                       lower.begin() + static_cast<std::ptrdiff_t>(kFileHeaderBytes + inline_len));
  expect(seal_header(sealer, fixed, state, nonce, contents, MutableByteView(lower).first(kFileHeaderBytes + inline_len))
             .has_value());
  if (inline_len != 0 || (modes & kSealBlocks) == 0) return;
  BlockAssociated associated(fixed);
  const std::uint64_t num = std::min(kMaxBlocksSealed, g.num_blocks(g.paged_plain_size(lower.size())));
  for (std::uint64_t block = 0; block < num; ++block) {
    const std::uint64_t there = std::min<std::uint64_t>(g.block_bytes(), lower.size() - g.data_offset(block));
    std::uint8_t* const at =
        lower.data() + g.entry_offset(block) + ((modes & kSealPrevious) != 0 ? sizeof(Version) : 0);
    Version version;
    std::copy_n(at, version.nonce.size(), version.nonce.begin());
    std::copy_n(at + 28, version.word.size(), version.word.begin());
    std::uint64_t len = version.length() % (g.block_bytes() + 1);
    if (len > there || (at[0] & 1) == 0) len = there;
    if (len == 0) continue;
    const MutableByteView text(lower.data() + g.data_offset(block), len);
    Tag tag{};
    expect(sealer.seal(version.nonce, associated.of(block), text, text.data(), tag).has_value());
    version = Version::of(version.nonce, tag, len, version.pending());
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&version);
    std::copy_n(bytes, sizeof version, at);
  }
}

void read_everywhere(Contents& contents, std::uint64_t b) {
  const auto size = contents.size();
  if (!size) return;
  expect(*size <= kMaxSize * 2);
  Bytes block(b);
  for (std::uint64_t at = 0; at < *size; at += b) {
    const auto got = contents.read(at, block);
    if (got) {
      expect(*got == std::min(b, *size - at));
    } else {
      expect(errno_of(got.error()) == EIO);
    }
  }
  Bytes all(*size);
  (void)contents.read(0, all);
  (void)contents.read(*size / 2, MutableByteView(all).first(*size / 3));
  if (*size != 0) {
    (void)contents.next_data(*size / 2);
    (void)contents.next_hole(0);
  }
}

std::optional<Bytes> all_of(const Format& format, LowerFile& lower) {
  const auto contents = format.open_contents(lower);
  if (!contents) return std::nullopt;
  Bytes all(need((*contents)->size()));
  if (!(*contents)->read(0, all)) return std::nullopt;
  return all;
}

void check(const Format& format, ByteView bytes) {
  static const int kFd = ::memfd_create("checked", MFD_CLOEXEC);
  expect(kFd >= 0 && ::ftruncate(kFd, 0) == 0);
  expect(::pwrite(kFd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  LowerFile lower(Fd(::dup(kFd)), true);
  const ContentsCheck reader = need(format.Format::check_contents(lower, {}));
  const ContentsCheck found = need(format.check_contents(lower, {}));
  expect(found.refused.has_value() == reader.refused.has_value() && found.bad == reader.bad);
  expect(found.refused || found.facts.plain_size == reader.facts.plain_size);
  const std::optional<Bytes> shown = all_of(format, lower);

  std::uint64_t end = 0;
  const Salvaged salvaged = need(format.salvage_contents(lower, [&](std::uint64_t offset, ByteView plain) -> Status {
    expect(offset >= end);
    end = offset + plain.size();
    return {};
  }));
  expect(end <= salvaged.plain_size && salvaged.lost.num_bytes() <= salvaged.plain_size);
  expect(found.damaged() || (salvaged.lost.empty() && salvaged.plain_size == found.facts.plain_size));

  CheckHow how;
  how.repair = true;
  const ContentsCheck repaired = need(format.check_contents(lower, how));
  expect(repaired.repaired == (found.leftovers() && !found.refused));
  const ContentsCheck again = need(format.check_contents(lower, {}));
  expect(again.bad == found.bad && again.refused.has_value() == found.refused.has_value());
  expect(again.refused || !again.leftovers());
  expect(all_of(format, lower) == shown);
}

void operate(Contents& contents, ByteView script, std::uint64_t b) {
  for (std::size_t i = 0; i + 7 <= script.size(); i += 7) {
    const std::uint8_t op = script[i];
    // Mostly small files, as they are fast; now and then one with room for holes.
    const std::uint64_t offset = load_le<std::uint32_t>(script.data() + i + 1) % (op >= 0xf8 ? kMaxSize : kUsualSize);
    const std::uint64_t len = 1 + load_le<std::uint16_t>(script.data() + i + 5) % 20000;
    switch (op % 8) {
      case 0:
      case 1: {
        const Bytes data(len, static_cast<std::uint8_t>(op | 1));
        const auto written = contents.write(offset, data);
        if (!written) break;
        expect(*written == len);
        Bytes back(len);
        expect(need(contents.read(offset, back)) == len && back == data);
        break;
      }
      case 2: {
        const std::uint64_t from = offset / b * b;
        const Bytes data(b * (1 + len % 3), op);
        const auto written = contents.write(from, data);
        // The tail that such a write leaves behind may be one that does not verify; then, and only then, it fails.
        const auto size = contents.size();
        if (!written) {
          expect(errno_of(written.error()) == EIO && (!size || from >= *size));
          break;
        }
        Bytes back(data.size());
        expect(need(contents.read(from, back)) == data.size() && back == data);
        break;
      }
      case 3:
        if (contents.truncate(offset)) expect(need(contents.size()) == offset);
        break;
      case 4:
        if ((op & 8) != 0) {
          expect(contents.truncate(0).has_value());
          expect(need(contents.size()) == 0);
        } else {
          (void)contents.allocate(FALLOC_FL_ZERO_RANGE | ((op & 16) != 0 ? FALLOC_FL_KEEP_SIZE : 0), offset, len * 16);
        }
        break;
      case 5:
        if (contents.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len)) {
          Bytes back(len);
          const auto got = contents.read(offset, back);
          expect(got && all_zero(back));
        }
        break;
      case 6: (void)contents.settle(); break;
      default: (void)contents.sync(true); break;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::uint8_t modes = data[0];
  const std::size_t script_len = std::min<std::size_t>(data[1], size - 2);
  Bytes lower_bytes(data + 2, data + size - script_len);
  const ByteView script(data + size - script_len, script_len);

  wrap::VolumeHeader header = fuzz::volume_header();
  header.block_shift = (modes & kLargerBlocks) != 0 ? 13 : 12;
  header.incompat = (modes & kSealedVolume) != 0 ? wrap::kIncompatSealedSize : 0;
  static const auto kFormats = [] {
    std::array<std::unique_ptr<Format>, 8> all;
    for (unsigned i = 0; i < all.size(); ++i) {
      wrap::VolumeHeader h = fuzz::volume_header();
      h.block_shift = (i & 1) != 0 ? 13 : 12;
      h.incompat = (i & 2) != 0 ? wrap::kIncompatSealedSize : 0;
      all[i] = need(make_native_format({h, (i & 4) != 0}, fuzz::volume_key()));
    }
    return all;
  }();
  const Format& format = *kFormats[(header.block_shift == 13 ? 1U : 0U) | ((modes & kSealedVolume) != 0 ? 2U : 0U) |
                                   ((modes & kUnsealedReport) != 0 ? 4U : 0U)];
  const Geometry g(header.block_shift);
  if ((modes & kSealHeader) != 0) seal(lower_bytes, modes, g);

  static const int kFd = ::memfd_create("lower", MFD_CLOEXEC);
  expect(kFd >= 0 && ::ftruncate(kFd, 0) == 0);
  expect(::pwrite(kFd, lower_bytes.data(), lower_bytes.size(), 0) == static_cast<ssize_t>(lower_bytes.size()));
  LowerFile lower(Fd(::dup(kFd)), true);
  expect(format.plain_size(lower_bytes.size()).has_value());

  if ((modes & kUnsealedReport) == 0) check(format, lower_bytes);  // such a mount is told more than the check

  auto contents = format.open_contents(lower);
  if (!contents) {
    expect(contents.error().code == Code::kCorrupt);
    contents = format.open_contents_to_truncate(lower);
    expect(contents && (*contents)->truncate(0));
  }
  read_everywhere(**contents, g.block_bytes());
  operate(**contents, script, g.block_bytes());
  read_everywhere(**contents, g.block_bytes());
  const auto plain_size = (*contents)->size();
  expect(plain_size.has_value());
  Bytes before(*plain_size);
  const bool readable = (*contents)->read(0, before).has_value();
  if (!(*contents)->finish()) return 0;
  if ((modes & kUnsealedReport) != 0 && (modes & kSealSize) != 0) return 0;

  // What was readable before the last close is so after it. (A short block that has become the last one ends the file.)
  const auto again = format.open_contents(lower);
  expect(again.has_value());
  const std::uint64_t new_size = need((*again)->size());
  expect(readable ? new_size == *plain_size : new_size <= *plain_size);
  Bytes after(new_size);
  if (readable) expect((*again)->read(0, after).has_value() && before == after);
  return 0;
}
