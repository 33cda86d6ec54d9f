// Format is what differs between on-disk formats: names, ids of directories, sizes, contents, link targets, xattrs.
// Volume (fs/volume.h) does everything else and knows no format. A format never touches a path.
//
// One Format object serves a whole mount; its const functions are safe from any thread. A Contents object belongs to
// one open lower inode and takes its own lock.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "fs/format/check.h"
#include "fs/lower/lower_file.h"
#include "wrap/base/bytes.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {

// What names inside a directory are encrypted under. The eCryptfs format has none and leaves it zero.
using DirId = std::array<std::uint8_t, 16>;

// Names of lower extended attributes that begin so are ours, in every format that has attributes of its own.
constexpr std::string_view kXattrPrefix = "user.ecfs.";

struct LowerName {
  std::string entry;          // name of the entry in the lower directory
  std::optional<Bytes> side;  // a long name: contents of the side file `entry` + ".n"
};

enum class LowerNameKind {
  kName,      // may be an encrypted name: decode_name
  kLongName,  // a long one: decode_long_name with its side file's contents
  kOurs,      // `.ecfs-*`, side files: never shown
  kForeign,   // not made by us: hidden, counted, or shown as a conflict
};

// Contents is the plaintext of one open lower regular file. Safe from any thread: reads share a lock, the rest
// excludes. Offsets and lengths are plain bytes. After a failed call the file is old, new, or as the format's table of
// interruptions says.
class Contents {
 public:
  virtual ~Contents() = default;

  // size is the authenticated size, with what is written but not settled.
  virtual Result<std::uint64_t> size() = 0;
  // read gives the bytes read: fewer than asked only at the end of the file. A damaged block: kCorrupt (EIO).
  virtual Result<std::size_t> read(std::uint64_t offset, MutableByteView out) = 0;
  // write gives the bytes written: all, or (disk full, quota) whole blocks from the front; nothing at all is an error.
  // Past the largest size: EFBIG before anything is written.
  virtual Result<std::size_t> write(std::uint64_t offset, ByteView data) = 0;
  virtual Status truncate(std::uint64_t new_size) = 0;
  // allocate is fallocate(2) with `mode` 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE or ZERO_RANGE[|KEEP_SIZE]; others
  // EOPNOTSUPP.
  virtual Status allocate(int mode, std::uint64_t offset, std::uint64_t len) = 0;
  // next_data, next_hole: lseek SEEK_DATA / SEEK_HOLE in plain offsets; past the end ENXIO.
  virtual Result<std::uint64_t> next_data(std::uint64_t offset) = 0;
  virtual Result<std::uint64_t> next_hole(std::uint64_t offset) = 0;
  // puts_off says whether settle or finish has anything to store.
  virtual bool puts_off() = 0;
  // settle makes what was put off (a gap behind the old end) real; called at flush and at the last close, at
  // the latest 5 s after a write.
  virtual Status settle() = 0;
  // sync settles, then fsync (or fdatasync) of the lower file, and seals where the volume wants it.
  virtual Status sync(bool data_only) = 0;
  // finish is called once, after the last handle is closed: settle, clear hints, drop what only an open file needs.
  virtual Status finish() = 0;
  // drop_keys forgets this file's keys, at Format::drop_keys. No other call may be under way.
  virtual void drop_keys() noexcept = 0;
};

class Format {
 public:
  virtual ~Format() = default;

  // Directories.
  [[nodiscard]] virtual Result<DirId> root_id() const = 0;
  [[nodiscard]] virtual Result<DirId> child_id(const DirId& parent, std::string_view plain_name) const = 0;
  // A directory's stored id: the name of the file that holds it ("" where the format has none), and the two
  // conversions. A stored id that does not verify is kCorrupt.
  [[nodiscard]] virtual std::string_view dir_id_file() const = 0;
  [[nodiscard]] virtual Result<DirId> read_dir_id(ByteView stored) const = 0;
  [[nodiscard]] virtual Result<Bytes> store_dir_id(const DirId& id) const = 0;

  // Names. encode_name: ENAMETOOLONG over 255 bytes. decode_*: kCorrupt if it is none of ours in this directory.
  [[nodiscard]] virtual LowerNameKind kind_of(std::string_view lower_name) const = 0;
  [[nodiscard]] virtual Result<LowerName> encode_name(const DirId& dir, std::string_view plain) const = 0;
  [[nodiscard]] virtual Result<std::string> decode_name(const DirId& dir, std::string_view lower) const = 0;
  [[nodiscard]] virtual Result<std::string> decode_long_name(const DirId& dir, std::string_view lower,
                                                             ByteView side) const = 0;
  [[nodiscard]] virtual std::uint32_t longest_plain_name() const = 0;
  // conflict_name gives the name under which a foreign entry is shown (option show-conflicts) and the plain name it
  // begins with (which a directory shown so has its id from); kNotFound if it begins with no name of ours.
  struct ConflictName {
    std::string shown;
    std::string plain;
  };
  // The beginning may be a long name: conflict_base gives it ("" if there is none), and `side` is the contents of that
  // name's side file.
  [[nodiscard]] virtual Result<ConflictName> conflict_name(const DirId& dir, std::string_view lower,
                                                           ByteView side = {}) const = 0;
  [[nodiscard]] virtual std::string_view conflict_base(std::string_view lower) const = 0;

  // Link targets. encode_link: ENAMETOOLONG if the result is longer than a link can be. link_size: plain length by
  // arithmetic (nullopt: the target has to be decoded).
  [[nodiscard]] virtual Result<std::string> encode_link(std::string_view target) const = 0;
  [[nodiscard]] virtual Result<std::string> decode_link(std::string_view lower) const = 0;
  [[nodiscard]] virtual std::optional<std::uint64_t> link_size(std::uint64_t lower_len) const = 0;

  // Extended attributes of the user. class. decode_xattr_name is nullopt for a lower attribute that is not one of ours.
  // encode_xattr_value wants the plain name too; xattr_value_size is the plain length by arithmetic (nullopt: cannot be
  // ours).
  [[nodiscard]] virtual Result<std::string> encode_xattr_name(std::string_view name) const = 0;
  [[nodiscard]] virtual std::optional<std::string> decode_xattr_name(std::string_view lower_name) const = 0;
  [[nodiscard]] virtual Result<Bytes> encode_xattr_value(std::string_view name, ByteView value) const = 0;
  [[nodiscard]] virtual Result<Bytes> decode_xattr_value(std::string_view name, ByteView lower_value) const = 0;
  [[nodiscard]] virtual std::optional<std::size_t> xattr_value_size(std::size_t lower_len) const = 0;

  // Sizes and contents. plain_size by arithmetic from the lower size (nullopt: it stands in the file, and stored_size
  // finds it there, without a key).
  [[nodiscard]] virtual std::optional<std::uint64_t> plain_size(std::uint64_t lower_size) const = 0;
  [[nodiscard]] virtual Result<std::uint64_t> stored_size(const LowerFile& lower) const {
    ECFS_LET(const std::uint64_t lower_size, lower.size());
    return plain_size(lower_size).value_or(lower_size);
  }
  // open_contents reads and checks the header: kCorrupt (EIO) if it fails. `lower` outlives the Contents.
  // open_contents_to_truncate is for O_TRUNC and truncation to 0, which need no valid header, and for a lower file just
  // made: truncate(0) comes next and writes the header that an empty file has if empty_files_have_header() (without it
  // there it is damaged).
  [[nodiscard]] virtual bool empty_files_have_header() const noexcept = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<Contents>> open_contents(LowerFile& lower) const = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<Contents>> open_contents_to_truncate(LowerFile& lower) const = 0;

  // Checking (format/check.h). check_contents says what a mount could not read of a lower file, and what interruptions
  // left in it; what it says of a file that changes meanwhile counts for nothing. Only failures of the check itself are
  // errors (no memory, `how.advance`). salvage_contents hands over what still verifies, more than a mount would show if
  // the format can. Both have a definition for formats that know no better: what a mount reads.
  [[nodiscard]] virtual Result<ContentsCheck> check_contents(LowerFile& lower, const CheckHow& how) const;
  [[nodiscard]] virtual Result<Salvaged> salvage_contents(LowerFile& lower, const PutPlain& put) const;

  // Keys. drop_keys wipes those of the volume, for as long as it is suspended: whatever needs one is kNoKey (ENOKEY)
  // then, here and in every Contents whose own were dropped too. restore_keys takes the volume key, which the caller
  // has verified, and all goes on. No other call may be under way meanwhile.
  virtual void drop_keys() noexcept = 0;
  virtual Status restore_keys(const Secret& volume_key) = 0;
};

}  // namespace ecfs::fs
