// The check of a format that has no better one: what a mount reads and what it does not.
#include "fs/format/check.h"

#include <algorithm>
#include <cerrno>

#include "fs/format/format.h"

namespace ecfs::fs {
namespace {

constexpr std::uint64_t kChunkBytes = 1U << 20;
constexpr std::uint64_t kStepBytes = 4096;

bool is_damage(const Error& error) noexcept { return error.code == Code::kCorrupt || errno_of(error) == EIO; }

// read_steps reads all of `contents` in large pieces, and again in small ones where that fails.
Status read_steps(Contents& contents, std::uint64_t size, const CheckHow& how, bool& disk_error, Ranges& bad,
                  const PutPlain& good) {
  Bytes buffer(std::min(size, kChunkBytes));
  const auto read = [&](std::uint64_t at, std::uint64_t len) -> Result<bool> {
    const MutableByteView part = MutableByteView(buffer).first(len);
    const Result<std::size_t> got = contents.read(at, part);
    if (!got && !is_damage(got.error())) return got.error();
    if (!got && got.error().code != Code::kCorrupt) disk_error = true;
    const bool whole = got && *got == len;
    if (whole && good) ECFS_TRY(good(at, part));
    return whole;
  };
  for (std::uint64_t at = 0; at < size; at += kChunkBytes) {
    const std::uint64_t len = std::min(kChunkBytes, size - at);
    if (how.only != nullptr && !how.only->touches(at, at + len)) continue;
    ECFS_LET(const bool whole, read(at, len));
    for (std::uint64_t step = at; !whole && step < at + len; step += kStepBytes) {
      const std::uint64_t step_len = std::min(kStepBytes, at + len - step);
      ECFS_LET(const bool fine, read(step, step_len));
      if (!fine) bad.add(step, step + step_len);
    }
    if (how.advance) ECFS_TRY(how.advance(len));
  }
  return {};
}

}  // namespace

void Ranges::add(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  num_bytes_ += end - begin;
  if (!complete_) return;
  if (!list_.empty() && list_.back().end == begin) {
    list_.back().end = end;
  } else if (list_.size() < kMost) {
    list_.push_back({begin, end});
  } else {
    complete_ = false;
  }
}

bool Ranges::touches(std::uint64_t begin, std::uint64_t end) const noexcept {
  const auto behind =
      std::partition_point(list_.begin(), list_.end(), [begin](const Range& r) { return r.end <= begin; });
  return behind != list_.end() && behind->begin < end;
}

Result<ContentsCheck> Format::check_contents(LowerFile& lower, const CheckHow& how) const {
  ContentsCheck check;
  ECFS_LET(check.facts.lower_size, lower.size());
  const Result<std::unique_ptr<Contents>> contents = open_contents(lower);
  if (!contents) {
    if (!is_damage(contents.error())) return contents.error();
    check.refused = contents.error();
    check.disk_error = contents.error().code != Code::kCorrupt;
    return check;
  }
  ECFS_LET(check.facts.plain_size, (*contents)->size());
  if (!how.quick) {
    ECFS_TRY(read_steps(**contents, check.facts.plain_size, how, check.disk_error, check.bad, {}));
  }
  return check;
}

Result<Salvaged> Format::salvage_contents(LowerFile& lower, const PutPlain& put) const {
  Salvaged salvaged;
  const Result<std::unique_ptr<Contents>> contents = open_contents(lower);
  if (!contents) {
    if (!is_damage(contents.error())) return contents.error();
    return salvaged;
  }
  ECFS_LET(salvaged.plain_size, (*contents)->size());
  bool disk_error = false;
  ECFS_TRY(read_steps(**contents, salvaged.plain_size, {}, disk_error, salvaged.lost, put));
  salvaged.good_bytes = salvaged.plain_size - salvaged.lost.num_bytes();
  return salvaged;
}

}  // namespace ecfs::fs
