#include "setup/swap/header.h"

#include <algorithm>
#include <limits>

namespace ecfs::swap {
namespace {

constexpr std::size_t kInfo = 1024;
constexpr std::size_t kUuidAt = kInfo + 12;
constexpr std::size_t kLabelAt = kUuidAt + 16;
constexpr std::size_t kLabelBytes = 16;
constexpr std::size_t kSmallestPage = 4096;
constexpr std::size_t kMagicBytes = 10;
constexpr std::string_view kMagic = "SWAPSPACE2";
// Each with the zero byte that is behind it.
constexpr std::array<std::string_view, 4> kHibernated = {"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"};

}  // namespace

Result<Header> parse_header(ByteView page) {
  if (page.size() < kSmallestPage) return Error{Code::kCorrupt, 0, "too short for a swap header"};
  const std::string_view magic = as_text(page.last(kMagicBytes));
  Header header;
  header.hibernated = std::any_of(kHibernated.begin(), kHibernated.end(),
                                  [&](std::string_view image) { return magic.starts_with(image); });
  if (magic != kMagic && !header.hibernated) return Error{Code::kCorrupt, 0, "no swap header"};
  if (load_le<std::uint32_t>(&page[kInfo]) != 1) return Error{Code::kCorrupt, 0, "a swap header of another version"};
  header.last_page = load_le<std::uint32_t>(&page[kInfo + 4]);
  std::copy_n(page.begin() + kUuidAt, header.uuid.size(), header.uuid.begin());
  const std::string_view label = as_text(page.subspan(kLabelAt, kLabelBytes));
  header.label = label.substr(0, label.find('\0'));
  return header;
}

Result<Bytes> make_header(std::size_t page_bytes, std::uint64_t size_bytes, const std::array<std::uint8_t, 16>& uuid,
                          const std::string& label) {
  constexpr std::uint64_t kFewestPages = 10;
  if (page_bytes < kSmallestPage || size_bytes / page_bytes < kFewestPages) {
    return Error{Code::kInvalid, 0, "too small for a swap area"};
  }
  Bytes page(page_bytes);
  const std::uint64_t last = size_bytes / page_bytes - 1;
  store_le<std::uint32_t>(&page[kInfo], 1);
  store_le<std::uint32_t>(&page[kInfo + 4], static_cast<std::uint32_t>(std::min<std::uint64_t>(
                                                last, std::numeric_limits<std::uint32_t>::max() - 1)));
  std::copy(uuid.begin(), uuid.end(), page.begin() + kUuidAt);
  std::copy_n(label.begin(), std::min(label.size(), kLabelBytes), page.begin() + kLabelAt);
  std::copy(kMagic.begin(), kMagic.end(), page.end() - kMagicBytes);
  return page;
}

std::string uuid_text(const std::array<std::uint8_t, 16>& uuid) {
  std::string out = to_hex(uuid);
  for (const std::size_t at : {20U, 16U, 12U, 8U}) out.insert(at, 1, '-');
  return out;
}

}  // namespace ecfs::swap
