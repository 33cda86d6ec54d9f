#include "fs/fuse/loop.h"

#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

#include "fs/fuse/ops.h"
#include "wrap/base/fd.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {
namespace {

constexpr unsigned kFewest = 1;           // threads, where one has no cause to wait for anything but requests
constexpr std::int64_t kSoonNs = 50'000;  // a request that comes within it is waited for awake
constexpr int kWakeSignal = SIGUSR1;      // takes a thread out of read(2)
constexpr std::int64_t kTickNs = 1'000'000;
constexpr unsigned kQuietTicks = 50;        // without a moment when all were at work: no need to look
constexpr unsigned kTicksUntilFewer = 100;  // one thread less, if none was wanted meanwhile

constexpr int kGatherMs = 1;  // what is forgotten meanwhile comes in one message

const unsigned kNumCpus = std::max(1U, std::thread::hardware_concurrency());

std::int64_t now_ns(clockid_t clock) noexcept {
  timespec t{};
  clock_gettime(clock, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

bool forgets(const fuse_buf& message) noexcept {
  fuse_in_header in{};
  if (message.size < sizeof in) return false;
  std::memcpy(&in, message.mem, sizeof in);
  return in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET;
}

class Loop {
 public:
  Loop(fuse_session* session, unsigned max_threads, bool beside_rings) noexcept
      : session_(session), max_threads_(max_threads), beside_rings_(beside_rings) {}
  Status run();

 private:
  struct Worker {
    std::thread thread;
    bool ended = false;
  };
  bool add_thread();  // mutex_ is held, as by let_in
  void let_in();
  void work(Worker& self);
  bool take_turn();
  bool receive(fuse_buf& buffer, std::int64_t& waited_ns);
  void watch(const sigset_t& awake);
  void tick();
  void end_threads();

  fuse_session* const session_;
  const unsigned max_threads_;
  const bool beside_rings_;
  Fd call_;  // an eventfd: the watching thread shall look

  // Changed under mutex_, but for the last three; read without it, as no request shall cost a lock.
  std::atomic<unsigned> wanted_{kFewest};
  std::atomic<unsigned> active_{0};  // threads that wait for a request or are at one
  std::atomic<bool> ending_{false};
  std::atomic<unsigned> reading_{0};      // those that wait for one
  std::atomic<std::uint64_t> taken_{0};   // requests
  std::atomic<std::uint64_t> queued_{0};  // those of them that were there before somebody waited for them
  std::atomic<bool> watched_{false};      // somebody looks every tick

  std::mutex mutex_;  // guards what follows
  std::condition_variable turn_;
  std::list<Worker> workers_;
  unsigned aside_ = 0;
  Status failed_;

  // Of the watching thread alone.
  std::uint64_t taken_before_ = 0;
  std::uint64_t queued_before_ = 0;
  std::int64_t tick_at_ = 0;
  std::int64_t cpu_at_ = 0;
  bool busy_before_ = false;
  unsigned quiet_ticks_ = 0;
  unsigned ticks_until_fewer_ = kTicksUntilFewer;
};

bool Loop::add_thread() {
  if (workers_.size() >= max_threads_) return false;
  Worker& worker = workers_.emplace_back();
  try {
    worker.thread = std::thread([this, &worker] { work(worker); });
  } catch (const std::system_error&) {  // those that are there do it alone
    workers_.pop_back();
    return false;
  }
  ++active_;
  return true;
}

void Loop::let_in() {
  if (wanted_ >= max_threads_) return;
  ++wanted_;
  if (aside_ > 0) {
    turn_.notify_one();
  } else {
    add_thread();
  }
}

// take_turn waits until one more is wanted; false: the session has ended.
bool Loop::take_turn() {
  if (active_ > wanted_) {
    std::unique_lock lock(mutex_);
    --active_;
    ++aside_;
    turn_.wait(lock, [this] { return ending_ || active_ < wanted_; });
    --aside_;
    ++active_;
  }
  if (ending_) return false;
  ++reading_;
  return true;
}

// receive gets one request; false: the session has ended. `waited_ns` is how long the one before was waited for: if it
// came soon, and nobody else waits, whom the kernel would wake, then the next is waited for awake.
bool Loop::receive(fuse_buf& buffer, std::int64_t& waited_ns) {
  const std::int64_t begin = now_ns(CLOCK_MONOTONIC);
  pollfd request{fuse_session_fd(session_), POLLIN, 0};
  if (poll(&request, 1, 0) > 0) {
    ++queued_;
  } else if (waited_ns < kSoonNs && wanted_ == 1 && kNumCpus > 1 && !beside_rings_) {
    while (poll(&request, 1, 0) == 0 && now_ns(CLOCK_MONOTONIC) - begin < kSoonNs) continue;
  }
  int got = 0;
  do {
    got = fuse_session_receive_buf(session_, &buffer);
  } while (got == -EINTR && fuse_session_exited(session_) == 0);
  waited_ns = now_ns(CLOCK_MONOTONIC) - begin;
  const bool last = --reading_ == 0;
  ++taken_;
  if (got <= 0 || fuse_session_exited(session_) != 0) {
    const std::lock_guard lock(mutex_);
    if (got < 0 && got != -EINTR && !ending_) failed_ = system_error(-got, "read requests");
    ending_ = true;
    turn_.notify_all();
  } else if (last && !watched_ && !watched_.exchange(true)) {
    (void)eventfd_write(call_.get(), 1);
  }
  return got > 0;  // what came is answered, even at the end
}

void Loop::work(Worker& self) {
  keep_stack_from_dumps();
  fuse_buf buffer{};
  std::int64_t waited_ns = kSoonNs;
  while (take_turn() && receive(buffer, waited_ns)) {
    const bool may_gather = beside_rings_ && forgets(buffer);
    fuse_session_process_buf(session_, &buffer);
    if (may_gather) (void)poll(nullptr, 0, kGatherMs);
  }
  free(buffer.mem);  // NOLINT: libfuse allocates it so
  {
    const std::lock_guard lock(mutex_);
    self.ended = true;
    --active_;
    ending_ = true;
  }
  (void)eventfd_write(call_.get(), 1);
}

// tick lets one more thread in if none was there for the next request, now and a millisecond ago, and meanwhile they
// had less than a quarter of the CPUs' time, or finished nothing; or, on as many threads as half of the CPUs, if most
// requests had to queue. The other half is for those who ask.
void Loop::tick() {
  const std::int64_t now = now_ns(CLOCK_MONOTONIC);
  const std::int64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  const std::lock_guard lock(mutex_);
  const std::uint64_t taken = taken_;
  const std::uint64_t queued = queued_;
  const bool busy = reading_ == 0;
  if (busy && busy_before_) {
    const std::int64_t could = (now - tick_at_) * std::min(active_.load(), kNumCpus);
    const bool behind = 2 * (queued - queued_before_) > taken - taken_before_ && active_ < kNumCpus / 2;
    if (4 * (cpu - cpu_at_) < could || taken == taken_before_ || behind) {
      let_in();
      ticks_until_fewer_ = kTicksUntilFewer;
    }
  }
  if (--ticks_until_fewer_ == 0) {
    ticks_until_fewer_ = kTicksUntilFewer;
    wanted_ = std::max(wanted_.load() - 1, kFewest);
  }
  quiet_ticks_ = busy ? 0 : quiet_ticks_ + 1;
  if (quiet_ticks_ >= kQuietTicks && wanted_ == kFewest) watched_ = false;
  busy_before_ = busy;
  taken_before_ = taken;
  queued_before_ = queued;
  tick_at_ = now;
  cpu_at_ = cpu;
}

// watch looks after the threads until the session has ended. Stop signals are heard in ppoll alone.
void Loop::watch(const sigset_t& awake) {
  pollfd call{call_.get(), POLLIN, 0};
  const timespec one_tick{0, kTickNs};
  for (;;) {
    if (ending_ || fuse_session_exited(session_) != 0) return;
    const bool watched = watched_;
    if (ppoll(&call, 1, watched ? &one_tick : nullptr, &awake) > 0) {
      eventfd_t count = 0;
      (void)eventfd_read(call_.get(), &count);
      quiet_ticks_ = 0;
      busy_before_ = false;
    } else if (watched) {
      tick();
    }
  }
}

void Loop::end_threads() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    turn_.notify_all();
  }
  for (;;) {
    bool all = true;
    {
      const std::lock_guard lock(mutex_);
      for (Worker& worker : workers_) {
        if (worker.ended) continue;
        all = false;
        pthread_kill(worker.thread.native_handle(), kWakeSignal);
      }
    }
    if (all) break;
    // Again and again: it may have come just before the read, which then waits on.
    constexpr int kAgainMs = 20;
    pollfd call{call_.get(), POLLIN, 0};
    eventfd_t count = 0;
    if (poll(&call, 1, kAgainMs) > 0) (void)eventfd_read(call_.get(), &count);
  }
  for (Worker& worker : workers_) worker.thread.join();
}

Status Loop::run() {
  call_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!call_) return system_error(errno, "eventfd");
  struct sigaction wake {};
  wake.sa_handler = [](int) {};
  if (sigaction(kWakeSignal, &wake, nullptr) != 0) return system_error(errno, "sigaction");
  sigset_t blocked;
  sigset_t awake;
  sigfillset(&blocked);
  sigdelset(&blocked, kWakeSignal);
  pthread_sigmask(SIG_SETMASK, &blocked, &awake);
  bool begun = false;
  {
    const std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < kFewest && add_thread(); ++i) begun = true;
  }
  if (begun) watch(awake);
  end_threads();
  pthread_sigmask(SIG_SETMASK, &awake, nullptr);
  if (!begun) return Error{Code::kNoMemory, EAGAIN, "no thread can be made"};
  return std::move(failed_);
}

}  // namespace

Status serve_requests(fuse_session* session, unsigned max_threads, bool beside_rings) {
  return Loop(session, max_threads, beside_rings).run();
}

}  // namespace ecfs::fs
