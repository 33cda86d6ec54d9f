// KeyGate stands between the requests of the kernel and the keys of a mount, which can be taken away (when the machine
// is put to sleep) and given back.
//
// While they are away, a request that needs a key is refused with ENOKEY, but for what carries data that the kernel has
// taken from a program already: that waits, without a thread, and is done when the keys are back. Safe from any thread.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <shared_mutex>

#include "wrap/base/result.h"

namespace ecfs::fs {

class KeyGate {
 public:
  KeyGate() = default;
  KeyGate(const KeyGate&) = delete;
  KeyGate& operator=(const KeyGate&) = delete;

  // Hold one while a request is served: meanwhile the keys neither go nor come. Never two in a thread.
  class Pass {
   public:
    explicit Pass(KeyGate& gate);
    [[nodiscard]] bool has_keys() const noexcept { return !gate_.away_.load(std::memory_order_relaxed); }

   private:
    KeyGate& gate_;
    std::shared_lock<std::shared_timed_mutex> lock_;
  };

  // wait_for_keys keeps `work` until the keys are back. Called with a Pass without keys.
  void wait_for_keys(std::function<void()> work);

  // close takes the keys away, with `drop`, once no request is under way: kBusy if one does not end within
  // `timeout_ms`. open gives them back with `restore`, and then does what waited, in order. An error of either is
  // passed on, and all stays as it was. Both do nothing if it is so already.
  Status close(int timeout_ms, const std::function<Status()>& drop);
  Status open(int timeout_ms, const std::function<Status()>& restore);

  // give_up does what waits without the keys, each of which then fails: at the end, so that nothing is left unanswered.
  void give_up() { do_waiting(); }

  [[nodiscard]] bool is_open() const noexcept { return !away_; }
  [[nodiscard]] std::size_t num_waiting() const;

 private:
  void do_waiting();
  Status change(int timeout_ms, bool away, const std::function<Status()>& how);

  // Requests share it, a change holds it alone. New requests wait while `changing_`: else readers would keep it for
  // ever.
  std::shared_timed_mutex mutex_;
  std::atomic<bool> changing_{false};
  std::atomic<bool> away_{false};  // changed with mutex_ held alone
  std::mutex change_mutex_;        // one change at a time; first
  mutable std::mutex waiting_mutex_;
  std::deque<std::function<void()>> waiting_;
};

}  // namespace ecfs::fs
