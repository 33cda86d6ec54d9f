// What a power cut may leave of one lower file, page by page.
#pragma once

#include <map>
#include <random>
#include <vector>

#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {

// Disk is the lower file as a power cut may leave it: for each page all it held since it was last synced.
class Disk {
 public:
  explicit Disk(Bytes image = {}) { settle(std::move(image)); }

  void take(const Call& call) {
    if (call.kind == CallKind::kSync) {
      settle(std::move(now_));
      return;
    }
    const std::uint64_t old_size = now_.size();
    apply(now_, call);
    std::uint64_t from = call.offset;
    std::uint64_t to = call.offset + call.len;
    if (call.kind == CallKind::kTruncate) {
      to = std::max<std::uint64_t>(old_size, now_.size());
      sizes_.push_back(now_.size());
    } else if (now_.size() != old_size) {
      sizes_.push_back(now_.size());
    }
    for (std::uint64_t page = from / kPageBytes; page * kPageBytes < to; ++page) {
      // A page that is cut off is not written: it reads as zeros only where the new size has come to the disk.
      const bool cut_off = call.kind == CallKind::kTruncate && page * kPageBytes >= now_.size();
      pages_[page].push_back({page_of(now_, page), cut_off ? sizes_.size() - 1 : 0});
    }
  }

  // sample puts a state together. `bias`: how likely a page is at its newest.
  Bytes sample(std::mt19937_64& random, unsigned bias) const {
    Bytes image = base_;
    const std::size_t when = random() % sizes_.size();
    const std::uint64_t size = sizes_[when];
    image.resize(std::max<std::size_t>(size, base_.size()));
    for (const auto& [page, versions] : pages_) {
      const bool newest = random() % 8 < bias;
      std::size_t chosen = newest ? versions.size() : random() % (versions.size() + 1);
      while (chosen > 0 && versions[chosen - 1].since_size > when) --chosen;
      if (chosen == 0) continue;
      const Bytes& version = versions[chosen - 1].bytes;
      const std::uint64_t at = page * kPageBytes;
      if (at >= image.size()) continue;
      std::copy_n(version.begin(), std::min<std::uint64_t>(kPageBytes, image.size() - at),
                  image.begin() + static_cast<std::ptrdiff_t>(at));
    }
    image.resize(size);
    return image;
  }
  // What a kill leaves, and the least that a power cut leaves.
  [[nodiscard]] const Bytes& newest() const { return now_; }
  [[nodiscard]] const Bytes& synced() const { return base_; }
  [[nodiscard]] bool unsynced() const { return !pages_.empty() || sizes_.size() > 1; }

 private:
  static Bytes page_of(const Bytes& image, std::uint64_t page) {
    Bytes bytes(kPageBytes);
    const std::uint64_t at = page * kPageBytes;
    if (at < image.size()) {
      std::copy_n(image.begin() + static_cast<std::ptrdiff_t>(at),
                  std::min<std::uint64_t>(kPageBytes, image.size() - at), bytes.begin());
    }
    return bytes;
  }
  void settle(Bytes image) {
    base_ = image;
    now_ = std::move(image);
    pages_.clear();
    sizes_.assign(1, base_.size());
  }

  Bytes base_;
  Bytes now_;
  struct Page {
    Bytes bytes;
    std::size_t since_size;  // not before this one of sizes_
  };
  std::map<std::uint64_t, std::vector<Page>> pages_;
  std::vector<std::uint64_t> sizes_;
};

}  // namespace ecfs::fs::test
