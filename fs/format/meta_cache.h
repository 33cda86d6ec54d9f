// MetaCache holds the meta pages of one open file: at most 64 (16 MiB of file at 4 KiB blocks), few where all open
// files together hold too many. Safe from any thread; the pages it hands out are shared.
//
// A page's bytes are changed only by who holds the file's lock alone; others read them under the shared lock.
// Source: fs/FORMAT.md §4, "For implementers".
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "fs/format/native_header.h"

namespace ecfs::fs {

// MetaBudget counts the pages of all open files of a mount.
class MetaBudget {
 public:
  static constexpr std::size_t kMaxPages = 16384;  // 64 MiB
  void take() noexcept { pages_.fetch_add(1, std::memory_order_relaxed); }
  void give() noexcept { pages_.fetch_sub(1, std::memory_order_relaxed); }
  [[nodiscard]] bool exceeded() const noexcept { return pages_.load(std::memory_order_relaxed) > kMaxPages; }

 private:
  std::atomic<std::size_t> pages_{0};
};

struct CachedMeta {
  CachedMeta(std::uint64_t group_number, MetaBudget& all) noexcept : group(group_number), budget(&all) { all.take(); }
  ~CachedMeta() { budget->give(); }
  CachedMeta(const CachedMeta&) = delete;
  CachedMeta& operator=(const CachedMeta&) = delete;

  [[nodiscard]] MutableByteView bytes() noexcept {
    return {reinterpret_cast<std::uint8_t*>(&page), sizeof page};  // NOLINT: all members are arrays of bytes
  }
  // touch marks bytes [from, to) as not yet written down.
  void touch(std::size_t from, std::size_t to) noexcept {
    dirty_from = from < dirty_from ? from : dirty_from;
    dirty_to = to > dirty_to ? to : dirty_to;
  }
  void touch_entry(std::size_t k) noexcept {
    touch(kFileHeaderBytes + k * kEntryBytes, kFileHeaderBytes + (k + 1) * kEntryBytes);
  }
  void set_clean() noexcept {
    dirty_from = kPageBytes;
    dirty_to = 0;
  }
  [[nodiscard]] bool dirty() const noexcept { return dirty_from < dirty_to; }

  MetaPage page;
  std::uint64_t group;
  MetaBudget* budget;
  std::size_t dirty_from = kPageBytes;
  std::size_t dirty_to = 0;
  // Bit k: a read found block k at its `previous` version. Set under the shared lock too.
  std::atomic<std::uint64_t> at_previous{0};
};
using MetaRef = std::shared_ptr<CachedMeta>;

class MetaCache {
 public:
  explicit MetaCache(MetaBudget& budget) noexcept : budget_(&budget) {}

  // make gives a zeroed page that is not in the cache yet.
  [[nodiscard]] MetaRef make(std::uint64_t group) const { return std::make_shared<CachedMeta>(group, *budget_); }
  // find gives null if the group's page is not here.
  [[nodiscard]] MetaRef find(std::uint64_t group);
  // keep takes a page in, in place of one of the same group. Clean pages leave for it as need be. Dirty ones leave only
  // if `writer`: they are handed back for the caller to write down. A reader's page is not kept if only dirty ones are
  // here. A page that somebody has a MetaRef of never leaves: there are more pages for that time.
  [[nodiscard]] std::vector<MetaRef> keep(const MetaRef& meta, bool writer);
  // drop forgets the groups from `from` up to, not including, `to`, dirty or not.
  void drop(std::uint64_t from, std::uint64_t to = std::numeric_limits<std::uint64_t>::max());
  // any_dirty says whether dirty() gives any.
  [[nodiscard]] bool any_dirty();
  // dirty gives the pages that are not written down.
  [[nodiscard]] std::vector<MetaRef> dirty();

 private:
  static constexpr std::size_t kMaxPages = 64;
  static constexpr std::size_t kMinPages = 8;  // more than one request touches
  struct Slot {
    std::uint64_t used;
    MetaRef meta;
  };
  MetaBudget* budget_;
  std::mutex mutex_;  // guards what follows; innermost
  std::uint64_t clock_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace ecfs::fs
