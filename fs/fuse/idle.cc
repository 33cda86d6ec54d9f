#include "fs/fuse/idle.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

namespace ecfs::fs {

Idle::Idle(std::uint32_t seconds, std::function<bool()> unused, std::function<void()> report)
    : limit_ms_(std::int64_t{seconds} * 1000),
      unused_(std::move(unused)),
      report_(std::move(report)),
      last_use_ms_(now_ms()),
      thread_([this] { watch(); }) {}

Idle::~Idle() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::int64_t Idle::now_ms() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

void Idle::watch() {
  std::unique_lock lock(mutex_);
  std::int64_t counted_from = last_use_ms_;
  for (;;) {
    const std::int64_t left_ms = counted_from + limit_ms_ - now_ms();
    if (left_ms > 0) {
      wake_.wait_for(lock, std::chrono::milliseconds(left_ms), [&] { return stopping_; });
      if (stopping_) return;
      counted_from = std::max<std::int64_t>(counted_from, last_use_ms_);
      continue;
    }
    // What is open is a use, and its close will be one more: looked at again after the whole time.
    counted_from = now_ms();
    if (unused_()) report_();
  }
}

}  // namespace ecfs::fs
