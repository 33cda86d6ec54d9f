// BlockSet is a set of block numbers kept as intervals: few and long ones cost little. Not synchronised.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace ecfs::fs {

class BlockSet {
 public:
  [[nodiscard]] bool empty() const noexcept { return ends_.empty(); }
  [[nodiscard]] std::size_t num_intervals() const noexcept { return ends_.size(); }
  // intervals gives first -> one past the last, ascending and not touching.
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& intervals() const noexcept { return ends_; }

  [[nodiscard]] bool contains(std::uint64_t block) const {
    if (ends_.empty()) return false;
    const auto next = ends_.upper_bound(block);
    return next != ends_.begin() && block < std::prev(next)->second;
  }

  void add(std::uint64_t from, std::uint64_t to) {
    if (from >= to) return;
    auto it = ends_.upper_bound(from);
    if (it != ends_.begin() && std::prev(it)->second >= from) {
      --it;
      from = it->first;
    }
    while (it != ends_.end() && it->first <= to) {
      if (it->second > to) to = it->second;
      it = ends_.erase(it);
    }
    ends_.emplace(from, to);
  }

  void remove(std::uint64_t from, std::uint64_t to) {
    if (from >= to || ends_.empty()) return;
    auto it = ends_.upper_bound(from);
    if (it != ends_.begin()) --it;
    while (it != ends_.end() && it->first < to) {
      const auto [begin, end] = *it;
      if (end <= from) {
        ++it;
        continue;
      }
      it = ends_.erase(it);
      if (begin < from) ends_.emplace(begin, from);
      if (end > to) ends_.emplace(to, end);
    }
  }

  void clear() noexcept { ends_.clear(); }

 private:
  std::map<std::uint64_t, std::uint64_t> ends_;
};

}  // namespace ecfs::fs
