// Any bytes as a name, a long name with its side file, a link target, an attribute or a stored directory id: what
// decodes encodes to the same again, and what is encoded decodes.
#include <string>

#include "tests/fuzz/native_volume.h"

namespace {

using namespace ecfs;
using namespace ecfs::fs;
using fuzz::expect;
using fuzz::need;

void lower_side(const Format& format, const DirId& dir, std::string_view first, std::string_view second) {
  (void)format.kind_of(first);
  const auto name = format.decode_name(dir, first);
  if (name) {
    expect(format.kind_of(first) == LowerNameKind::kName);
    const LowerName again = need(format.encode_name(dir, *name));
    expect(again.entry == first && !again.side);
  }
  const auto long_name = format.decode_long_name(dir, first, as_bytes(second));
  if (long_name) {
    expect(format.kind_of(first) == LowerNameKind::kLongName);
    const LowerName again = need(format.encode_name(dir, *long_name));
    expect(again.entry == first && again.side && as_text(*again.side) == second);
  }
  const auto conflict = format.conflict_name(dir, first, as_bytes(second));
  if (conflict) expect(conflict->shown.size() <= 255 && conflict->shown.starts_with(conflict->plain));
  const auto target = format.decode_link(first);
  if (target) expect(format.link_size(first.size()) == target->size() && !target->empty());
  const auto attribute = format.decode_xattr_name(first);
  if (attribute) expect(need(format.encode_xattr_name(*attribute)) == first);
  const auto value = format.decode_xattr_value("user.comment", as_bytes(first));
  if (value) expect(format.xattr_value_size(first.size()) == value->size());
  const auto id = format.read_dir_id(as_bytes(first));
  if (id) expect(as_text(need(format.store_dir_id(*id))) == first);
}

void plain_side(const Format& format, const DirId& dir, std::string_view plain, std::string_view rest) {
  const auto lower = format.encode_name(dir, plain);
  if (lower) {
    expect(lower->entry.size() <= 255);
    const auto back =
        lower->side ? format.decode_long_name(dir, lower->entry, *lower->side) : format.decode_name(dir, lower->entry);
    expect(back && *back == plain);
    (void)format.conflict_name(dir, lower->entry + std::string(rest),
                               lower->side ? ByteView(*lower->side) : ByteView());
    (void)format.child_id(dir, plain);
  }
  const auto link = format.encode_link(plain);
  if (link) expect(need(format.decode_link(*link)) == plain && format.link_size(link->size()) == plain.size());
  const std::string attribute = "user." + std::string(plain);
  const auto name = format.encode_xattr_name(attribute);
  if (name) {
    expect(name->size() <= 255 && format.decode_xattr_name(*name) == attribute);
    const Bytes value = need(format.encode_xattr_value(attribute, as_bytes(rest)));
    expect(as_text(need(format.decode_xattr_value(attribute, value))) == rest);
  }
}

}  // namespace

// The first byte chooses the encoding, the longest name and how much belongs to the first of two strings.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto kFormats = [] {
    std::array<std::unique_ptr<Format>, 4> all;
    for (unsigned i = 0; i < all.size(); ++i) {
      wrap::VolumeHeader header = fuzz::volume_header();
      header.name_encoding = (i & 1) != 0 ? wrap::NameEncoding::kBase32Hex : wrap::NameEncoding::kBase64Url;
      header.longest_name = (i & 2) != 0 ? 143 : 0;
      all[i] = fuzz::make_format(header);
    }
    return all;
  }();
  if (size < 2) return 0;
  const Format& format = *kFormats[data[0] % 4];
  const DirId dir = need(format.root_id());
  const std::string_view all = as_text(ByteView(data + 2, size - 2));
  const std::size_t split = std::min<std::size_t>(data[1], all.size());
  lower_side(format, dir, all.substr(0, split), all.substr(split));
  plain_side(format, dir, all.substr(0, split), all.substr(split));
  return 0;
}
