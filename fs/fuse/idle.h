// Idle watches for the time in which nobody uses a mount. Safe from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace ecfs::fs {

class Idle {
 public:
  // `unused` says whether nothing is open. `report` is called, by a thread of Idle's own, when for `seconds` no use was
  // noted and nothing is open, and again after each further such time.
  Idle(std::uint32_t seconds, std::function<bool()> unused, std::function<void()> report);
  ~Idle();
  Idle(const Idle&) = delete;
  Idle& operator=(const Idle&) = delete;

  void note_use() noexcept { last_use_ms_.store(now_ms(), std::memory_order_relaxed); }

 private:
  static std::int64_t now_ms() noexcept;  // coarse, which is cheap; never goes back
  void watch();
  const std::int64_t limit_ms_;
  const std::function<bool()> unused_;
  const std::function<void()> report_;
  std::atomic<std::int64_t> last_use_ms_;
  std::mutex mutex_;  // guards stopping_
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace ecfs::fs
