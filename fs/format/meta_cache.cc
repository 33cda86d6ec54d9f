#include "fs/format/meta_cache.h"

#include <algorithm>

namespace ecfs::fs {

MetaRef MetaCache::find(std::uint64_t group) {
  const std::lock_guard lock(mutex_);
  for (Slot& slot : slots_) {
    if (slot.meta->group == group) {
      slot.used = ++clock_;
      return slot.meta;
    }
  }
  return nullptr;
}

std::vector<MetaRef> MetaCache::keep(const MetaRef& meta, bool writer) {
  std::vector<MetaRef> leaving;
  const std::size_t max_pages = budget_->exceeded() ? kMinPages : kMaxPages;
  const std::lock_guard lock(mutex_);
  for (Slot& slot : slots_) {
    if (slot.meta->group == meta->group) {
      // Two readers may both have read it; the first one's page may carry more (at_previous).
      if (writer) slot.meta = meta;
      slot.used = ++clock_;
      return leaving;
    }
  }
  while (slots_.size() >= max_pages) {
    // One that somebody works with stays: what he changed in it would be missing from one read again meanwhile.
    const auto in_use = [](const Slot& slot) { return slot.meta.use_count() > 1; };
    const auto sooner = [&](const Slot& a, const Slot& b) {
      if (in_use(a) != in_use(b)) return in_use(b);
      if (a.meta->dirty() != b.meta->dirty()) return b.meta->dirty();
      return a.used < b.used;
    };
    const auto oldest = std::min_element(slots_.begin(), slots_.end(), sooner);
    if (in_use(*oldest)) break;
    if (oldest->meta->dirty()) {
      if (!writer) return leaving;
      leaving.push_back(oldest->meta);
    }
    *oldest = std::move(slots_.back());
    slots_.pop_back();
  }
  slots_.push_back({++clock_, meta});
  return leaving;
}

void MetaCache::drop(std::uint64_t from, std::uint64_t to) {
  const std::lock_guard lock(mutex_);
  std::erase_if(slots_, [from, to](const Slot& slot) { return slot.meta->group >= from && slot.meta->group < to; });
}

bool MetaCache::any_dirty() {
  const std::lock_guard lock(mutex_);
  return std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.meta->dirty(); });
}

std::vector<MetaRef> MetaCache::dirty() {
  std::vector<MetaRef> pages;
  const std::lock_guard lock(mutex_);
  for (const Slot& slot : slots_) {
    if (slot.meta->dirty()) pages.push_back(slot.meta);
  }
  return pages;
}

}  // namespace ecfs::fs
