#include "fs/format/ecryptfs_check.h"

#include <algorithm>
#include <cerrno>
#include <functional>

namespace ecfs::fs {
namespace {

constexpr std::uint64_t kExtent = kEcryptfsExtentBytes;
constexpr std::uint64_t kChunkBytes = 1U << 20;

constexpr std::uint64_t round_down(std::uint64_t n) noexcept { return n / kExtent * kExtent; }
constexpr std::uint64_t round_up(std::uint64_t n) noexcept { return round_down(n + kExtent - 1); }

// Takes the lower bytes of an extent that is all there, and may change them; its first `plain_len` bytes are the
// file's.
using TakeExtent = std::function<Status(std::uint64_t at, MutableByteView extent, std::uint64_t plain_len)>;

// Reader is one pass over the extents of one lower file.
class Reader {
 public:
  Reader(const LowerFile& lower, const EcryptfsFound& found, std::uint64_t lower_size)
      : lower_(lower), from_(found.header.data_offset(found.place)), size_(found.header.plain_size) {
    there_ = lower_size > from_ ? lower_size - from_ : 0;
    whole_ = std::min(size_, round_down(there_));
  }

  // Plain bytes from here on have no whole extent; equals the size if nothing is missing.
  [[nodiscard]] std::uint64_t whole() const noexcept { return whole_; }
  [[nodiscard]] std::uint64_t extra_bytes() const noexcept {
    return there_ > round_up(size_) ? there_ - round_up(size_) : 0;
  }

  // scan looks at every whole extent. What the disk cannot read goes to `bad`, what it does not hold to `holes`, which
  // may be the same.
  Status scan(const CheckHow& how, Ranges& bad, Ranges& holes, const TakeExtent& take) {
    buffer_.resize(std::min(kChunkBytes, round_up(whole_)));
    for (std::uint64_t at = 0; at < whole_;) {
      const std::uint64_t data_at = next_data(at);
      if (data_at > at) {
        holes.add(at, std::min(data_at, whole_));
        at = data_at;
        if (how.advance) ECFS_TRY(how.advance(0));
        continue;
      }
      const std::uint64_t len = std::min(kChunkBytes, whole_ - at);
      if (how.only == nullptr || how.only->touches(at, at + len)) {
        ECFS_TRY(read(at, len, bad, holes, take));
        if (how.advance) ECFS_TRY(how.advance(round_up(len)));
      }
      at += len;
    }
    return {};
  }
  [[nodiscard]] bool disk_error() const noexcept { return disk_error_; }

  // partial reads what there is of the extent at whole(), and gives the number of bytes.
  [[nodiscard]] Result<std::size_t> partial(MutableByteView extent) const {
    if (whole_ == size_) return std::size_t{0};
    return lower_.read_at(from_ + whole_, extent.first(there_ - whole_));
  }

 private:
  // The first extent from `at` on of which anything is stored.
  [[nodiscard]] std::uint64_t next_data(std::uint64_t at) const {
    const auto next = lower_.next_data(from_ + at);
    if (next) return *next <= from_ + at ? at : std::max(at, round_down(*next - from_));
    return errno_of(next.error()) == ENXIO ? std::max(at, round_up(whole_)) : at;
  }

  Status read(std::uint64_t at, std::uint64_t len, Ranges& bad, Ranges& holes, const TakeExtent& take) {
    const MutableByteView all = MutableByteView(buffer_).first(round_up(len));
    const auto got = lower_.read_at(from_ + at, all);
    const bool whole = got && *got == all.size();
    for (std::uint64_t i = 0; i < len; i += kExtent) {
      const MutableByteView extent = all.subspan(i, kExtent);
      const std::uint64_t plain_len = std::min(kExtent, len - i);
      if (!whole) {
        const auto one = lower_.read_at(from_ + at + i, extent);
        if (!one && one.error().code == Code::kNoMemory) return one.error();
        disk_error_ = disk_error_ || !one;
        if (!one || *one != kExtent) {
          bad.add(at + i, at + i + plain_len);
          continue;
        }
      }
      if (all_zero(extent)) {
        holes.add(at + i, at + i + plain_len);
      } else if (take) {
        ECFS_TRY(take(at + i, extent, plain_len));
      }
    }
    return {};
  }

  const LowerFile& lower_;
  std::uint64_t from_;       // of the first extent, in the lower file
  std::uint64_t size_;       // plain, as the header says
  std::uint64_t there_ = 0;  // lower bytes behind the header
  std::uint64_t whole_ = 0;
  bool disk_error_ = false;
  Bytes buffer_;
};

void add_header(FileFacts& facts, const EcryptfsFound& found) {
  const EcryptfsHeader& header = found.header;
  facts.shape = FileShape::kExtents;
  facts.version = header.version;
  facts.plain_size = header.plain_size;
  facts.block_bytes = kExtent;
  facts.num_blocks = round_up(header.plain_size) / kExtent;
  facts.header_bytes = header.data_offset(found.place);
  for (const EcryptfsKeyPacket& key : header.keys) {
    facts.signatures.push_back(to_hex(key.signature));
    const auto cipher = EcryptfsCipher::of_packet(key.cipher_code, key.encrypted_key.size());
    if (!cipher || !facts.suite.empty()) continue;
    facts.suite = cipher->name();
    facts.key_bytes = cipher->key_bytes;
  }
  for (const EcryptfsSignature& signature : header.public_key_sigs) {
    facts.signatures.push_back(to_hex(signature) + " (public)");
  }
}

// What can be said of a file that has no header that a mount takes.
Error without_header(const LowerFile& lower, Error why) {
  Bytes front(kEcryptfsProbeBytes);
  const auto got = lower.read_at(0, front);
  if (!got) return why;
  front.resize(*got);
  if (all_zero(front)) {
    why.what = "its header is all zeros, as a crash leaves it";
  } else if (!has_ecryptfs_marker(front)) {
    why.what =
        "it has no eCryptfs header: its beginning is lost, or it is not encrypted (ecryptfs_passthrough shows it)";
  }
  return why;
}

std::uint64_t round_to_blocks(std::uint64_t n, const EcryptfsCipher& cipher) noexcept {
  return n / cipher.block_bytes() * cipher.block_bytes();
}

}  // namespace

Result<FileFacts> ecryptfs_facts(const LowerFile& lower) {
  FileFacts facts;
  ECFS_LET(facts.lower_size, lower.size());
  const auto found = find_ecryptfs_header(lower);
  if (found && *found) add_header(facts, **found);
  if (found && !*found) facts.shape = FileShape::kEmpty;
  return facts;
}

Result<ContentsCheck> check_ecryptfs_contents(const EcryptfsVolume& volume, const LowerFile& lower,
                                              const CheckHow& how) {
  ContentsCheck check;
  ECFS_LET(check.facts.lower_size, lower.size());
  const auto found = find_ecryptfs_header(lower);
  if (!found) {
    if (found.error().code == Code::kNoMemory) return found.error();
    check.disk_error = found.error().code != Code::kCorrupt;
    check.refused = check.disk_error ? found.error() : without_header(lower, found.error());
    return check;
  }
  if (!*found) {
    check.facts.shape = FileShape::kEmpty;
    check.cut_creation = true;
    return check;
  }
  add_header(check.facts, **found);
  const auto key = EcryptfsFileKey::open(volume.keys, volume.ciphers, (*found)->header);
  if (!key) {
    if (key.error().code == Code::kNoMemory) return key.error();
    check.refused = key.error();
  }
  Reader reader(lower, **found, check.facts.lower_size);
  check.extra_bytes = reader.extra_bytes();
  if (!how.quick) ECFS_TRY(reader.scan(how, check.bad, check.holes, {}));
  check.disk_error = reader.disk_error();
  check.bad.add(reader.whole(), check.facts.plain_size);
  return check;
}

Result<Salvaged> salvage_ecryptfs_contents(std::shared_ptr<const EcryptfsVolume> volume, LowerFile& lower,
                                           const PutPlain& put) {
  Salvaged salvaged;
  ECFS_LET(const std::uint64_t lower_size, lower.size());
  const auto found = find_ecryptfs_header(lower);
  if (!found && found.error().code == Code::kNoMemory) return found.error();
  if (found && !*found) return salvaged;
  if (!found) {
    salvaged.plain_size = lower_size;
    salvaged.lost.add(0, lower_size);
    return salvaged;
  }
  const EcryptfsHeader& header = (*found)->header;
  salvaged.plain_size = header.plain_size;
  const auto key = EcryptfsFileKey::open(volume->keys, volume->ciphers, header);
  if (!key && key.error().code == Code::kNoMemory) return key.error();
  if (!key) {
    salvaged.lost.add(0, header.plain_size);
    return salvaged;
  }
  Reader reader(lower, **found, lower_size);
  ECFS_LET(EcryptfsFileKey::Lease lease, (*key)->lease(false));
  const auto take = [&](std::uint64_t at, MutableByteView extent, std::uint64_t plain_len) -> Status {
    ECFS_TRY(lease.crypt(at / kExtent, extent, extent.data()));
    return put(at, extent.first(plain_len));
  };
  ECFS_TRY(reader.scan({}, salvaged.lost, salvaged.lost, take));
  Bytes extent(kExtent);
  const auto rest = reader.partial(extent);
  std::uint64_t known = reader.whole();
  if (const std::uint64_t len = rest ? round_to_blocks(*rest, (*key)->cipher()) : 0; len > 0) {
    ECFS_TRY(lease.crypt(known / kExtent, extent, extent.data()));
    const std::uint64_t plain_len = std::min(len, header.plain_size - known);
    ECFS_TRY(put(known, ByteView(extent).first(plain_len)));
    known += plain_len;
  }
  salvaged.lost.add(known, header.plain_size);
  salvaged.good_bytes = header.plain_size - salvaged.lost.num_bytes();
  return salvaged;
}

}  // namespace ecfs::fs
