#include "fs/fuse/key_gate.h"

#include <cerrno>
#include <chrono>
#include <utility>

namespace ecfs::fs {

KeyGate::Pass::Pass(KeyGate& gate) : gate_(gate) {
  while (gate.changing_.load(std::memory_order_acquire)) gate.changing_.wait(true);
  lock_ = std::shared_lock(gate.mutex_);
}

void KeyGate::wait_for_keys(std::function<void()> work) {
  const std::lock_guard lock(waiting_mutex_);
  waiting_.push_back(std::move(work));
}

std::size_t KeyGate::num_waiting() const {
  const std::lock_guard lock(waiting_mutex_);
  return waiting_.size();
}

Status KeyGate::change(int timeout_ms, bool away, const std::function<Status()>& how) {
  if (away_ == away) return {};
  changing_ = true;
  Status done = Error{Code::kBusy, EBUSY, "a request of the kernel does not end"};
  if (std::unique_lock alone(mutex_, std::chrono::milliseconds(timeout_ms)); alone) {
    done = how();
    if (done) away_ = away;
  }
  changing_ = false;
  changing_.notify_all();
  return done;
}

Status KeyGate::close(int timeout_ms, const std::function<Status()>& drop) {
  const std::lock_guard one(change_mutex_);
  return change(timeout_ms, true, drop);
}

Status KeyGate::open(int timeout_ms, const std::function<Status()>& restore) {
  const std::lock_guard one(change_mutex_);
  ECFS_TRY(change(timeout_ms, false, restore));
  do_waiting();
  return {};
}

void KeyGate::do_waiting() {
  for (;;) {
    std::function<void()> work;
    {
      const std::lock_guard lock(waiting_mutex_);
      if (waiting_.empty()) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
    }
    work();
  }
}

}  // namespace ecfs::fs
