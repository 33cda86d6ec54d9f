#include "fs/fuse/rings.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

#include "fs/fuse/ops.h"
#include "wrap/base/fd.h"
#include "wrap/base/log.h"
#include "wrap/base/secret.h"

namespace ecfs::fs {
namespace {

// ---- include/uapi/linux/fuse.h; the headers of the oldest system lack this part

struct EntryInOut {  // fuse_uring_ent_in_out
  std::uint64_t flags;
  std::uint64_t commit_id;
  std::uint32_t payload_size;
  std::uint32_t padding;
  std::uint64_t reserved;
};
struct RequestHeader {                   // fuse_uring_req_header
  std::array<std::uint8_t, 128> in_out;  // fuse_in_header, or the answer's fuse_out_header
  std::array<std::uint8_t, 128> op_in;   // what comes first in the request, such as fuse_read_in
  EntryInOut about;
};
static_assert(sizeof(RequestHeader) == 288);
struct Command {  // fuse_uring_cmd_req
  std::uint64_t flags;
  std::uint64_t commit_id;
  std::uint16_t queue;
  std::array<std::uint8_t, 6> padding;
};
static_assert(sizeof(Command) == 24);
constexpr std::uint32_t kRegister = 1;        // FUSE_IO_URING_CMD_REGISTER
constexpr std::uint32_t kCommitAndFetch = 2;  // FUSE_IO_URING_CMD_COMMIT_AND_FETCH

// ---- include/uapi/linux/io_uring.h, the same
constexpr unsigned kNoIoWait = 1U << 7;             // IORING_ENTER_NO_IOWAIT
constexpr std::uint32_t kKnowsNoIoWait = 1U << 17;  // IORING_FEAT_NO_IOWAIT

constexpr std::size_t kFront = 4096;  // before the payload: its header, and room to put the message together
constexpr unsigned kSubmissions = 8;
constexpr unsigned kCompletions = 256;  // the kernel keeps more by itself
constexpr std::uint32_t kLongBytes = 32 * 1024;
constexpr long kMaxQueues = 256;
constexpr long kMostThreads = 64;  // of all queues together, unless that is less than two for each
constexpr long kMostOfQueue = 4;

// liburing 2.3 has no function for these two in its library.
bool set_up(const io_uring& ring, unsigned what, const void* list, std::size_t num) noexcept {
  return syscall(SYS_io_uring_register, ring.ring_fd, what, list, num) == 0;
}

// A queue that nobody stands at would hold its requests for ever. The supervisor clears the mount away.
[[noreturn]] void end_server(int err, const char* what) {
  log_line(LOG_CRIT, system_error(err, std::string("requests over io_uring: ") + what).what);
  _exit(EXIT_FAILURE);
}

// RingEntry is what one request and then its answer pass through.
class RingEntry {
 public:
  enum class State { kWaits, kServed, kAnswered };  // waits: the kernel has it, for the next request
  State state = State::kWaits;
  std::uint64_t unique = 0;  // of the request, where it is served

  RingEntry() = default;
  ~RingEntry() {
    if (memory_ != nullptr) munmap(memory_, kFront + kMaxRequestBytes);
  }
  RingEntry(const RingEntry&) = delete;
  RingEntry& operator=(const RingEntry&) = delete;

  Status allocate() {
    void* const at =
        mmap(nullptr, kFront + kMaxRequestBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return system_error(errno, "memory for requests");
    memory_ = static_cast<std::uint8_t*>(at);
    parts_ = {iovec{memory_, sizeof(RequestHeader)}, iovec{payload(), kMaxRequestBytes}};
    return {};
  }
  [[nodiscard]] std::uint8_t* payload() const noexcept { return memory_ + kFront; }
  [[nodiscard]] const std::array<iovec, 2>& parts() const noexcept { return parts_; }
  [[nodiscard]] std::uint64_t commit_id() const noexcept { return header().about.commit_id; }
  [[nodiscard]] bool was_used() const noexcept { return header().about.commit_id != 0; }

  [[nodiscard]] fuse_in_header in() const noexcept {
    fuse_in_header out{};
    std::memcpy(&out, header().in_out.data(), sizeof out);
    return out;
  }
  // Whether it is one of contents that the kernel reads ahead or writes back while the program goes on.
  [[nodiscard]] bool is_long(const fuse_in_header& in) const noexcept {
    fuse_read_in read{};
    std::memcpy(&read, header().op_in.data(), sizeof read);
    return (in.opcode == FUSE_READ ? read.size : header().about.payload_size) >= kLongBytes;
  }

  // message puts the request together as it would come over /dev/fuse.
  fuse_buf message(const fuse_in_header& in) noexcept {
    const std::size_t payload_size = std::min<std::size_t>(header().about.payload_size, kMaxRequestBytes);
    const std::size_t known = sizeof in + payload_size;
    const std::size_t op_size = std::min(in.len > known ? in.len - known : 0, header().op_in.size());
    fuse_buf out{};
    out.size = known + op_size;
    out.mem = payload() - op_size - sizeof in;
    std::memcpy(out.mem, &in, sizeof in);
    std::memcpy(payload() - op_size, header().op_in.data(), op_size);
    return out;
  }

  void fill(const iovec* parts, int num) noexcept {
    fuse_out_header out{};
    std::memcpy(&out, parts[0].iov_base, sizeof out);
    std::size_t size = 0;
    for (const iovec& part : std::span(parts, static_cast<std::size_t>(num)).subspan(1)) {
      if (part.iov_len > kMaxRequestBytes - size) {
        out.error = -EIO;
        size = 0;
        break;
      }
      if (part.iov_base != payload() + size) std::memcpy(payload() + size, part.iov_base, part.iov_len);
      size += part.iov_len;
    }
    std::memcpy(header().in_out.data(), &out, sizeof out);
    header().about.payload_size = static_cast<std::uint32_t>(size);
  }

 private:
  [[nodiscard]] RequestHeader& header() const noexcept { return *reinterpret_cast<RequestHeader*>(memory_); }  // NOLINT
  std::uint8_t* memory_ = nullptr;
  std::array<iovec, 2> parts_{};
};

thread_local Ring* t_ring = nullptr;

}  // namespace

// Ring is one thread at a queue.
class Ring {
 public:
  Ring(fuse_session* session, unsigned queue) : session_(session), queue_(queue) {}
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  Status make();
  Status make_thread();
  void serve();
  void ask_to_stop();
  void end();
  bool answer(std::uint64_t unique, const iovec* parts, int num);
  [[nodiscard]] MutableByteView buffer(std::size_t size) const noexcept {
    if (current_ == nullptr || size > kMaxRequestBytes) return {};
    return {current_->payload(), size};
  }

 private:
  void work();
  void complete(RingEntry* entry, int result);
  void fail(RingEntry& entry, int err);
  void take(RingEntry& entry);
  void add_entry();
  void commit_answered();
  void submit(RingEntry& entry, std::uint32_t command);
  void wait_for_call();
  enum class Wait { kNo, kYes };
  void hand_over(Wait wait);
  io_uring_sqe& next_submission();
  void be_bound(bool bound);

  fuse_session* const session_;
  const unsigned queue_;
  io_uring uring_{};
  bool made_ = false;
  Fd call_;  // an eventfd: something was answered by another thread, or the end has come
  std::atomic<bool> begun_{false};
  std::atomic<bool> ending_{false};
  std::thread thread_;

  // Of the thread alone.
  RingEntry* current_ = nullptr;
  bool bound_ = false;
  cpu_set_t anywhere_{};

  std::mutex mutex_;              // guards the entries' states
  std::list<RingEntry> entries_;  // changed by the thread alone, with the mutex
};

Ring::~Ring() {
  ask_to_stop();
  end();
}

// What the ring may do is settled here and for good: no filter of system calls sees what goes through it.
Status Ring::make() {
  call_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!call_) return system_error(errno, "eventfd");
  io_uring_params params{};
  params.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
  params.cq_entries = kCompletions;
  if (const int err = io_uring_queue_init_params(kSubmissions, &uring_, &params); err != 0) {
    return system_error(-err, "io_uring_setup");
  }
  made_ = true;
  // Without it a mount that nobody uses looks like one that waits for a disk, to people and to what saves power.
  if ((params.features & kKnowsNoIoWait) == 0) return Error{Code::kUnavailable, 0, "this kernel is older than 6.15"};
  const std::array<int, 2> files{fuse_session_fd(session_), call_.get()};
  if (const int err = io_uring_register_files(&uring_, files.data(), files.size()); err != 0) {
    return system_error(-err, "register the files of a ring");
  }
  std::array<io_uring_restriction, 4> only{};
  only[0].opcode = IORING_RESTRICTION_SQE_OP;
  only[0].sqe_op = IORING_OP_URING_CMD;
  only[1].opcode = IORING_RESTRICTION_SQE_OP;
  only[1].sqe_op = IORING_OP_POLL_ADD;
  only[2].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  only[2].sqe_flags = IOSQE_FIXED_FILE;
  only[3].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
  only[3].sqe_flags = IOSQE_FIXED_FILE;
  if (!set_up(uring_, IORING_REGISTER_RESTRICTIONS, only.data(), only.size())) {
    return system_error(errno, "restrict a ring");
  }
  return {};
}

Status Ring::make_thread() {
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error& e) {
    return system_error(e.code().value(), "make a thread");
  }
  return {};
}

void Ring::serve() {
  begun_ = true;
  begun_.notify_all();
}

void Ring::ask_to_stop() {
  ending_ = true;
  serve();
  if (call_) (void)eventfd_write(call_.get(), 1);
}

// With the ring goes its hold on /dev/fuse.
void Ring::end() {
  if (thread_.joinable()) thread_.join();
  if (made_) io_uring_queue_exit(&uring_);
  made_ = false;
}

// hand_over gives the kernel what was prepared and with Wait::kYes waits until something is there, in one system call:
// liburing 2.3 has none that does both without looking like one that waits for a disk.
void Ring::hand_over(Wait wait) {
  io_uring_sq& sq = uring_.sq;
  unsigned tail = *sq.ktail;
  for (; sq.sqe_head != sq.sqe_tail; ++sq.sqe_head) sq.array[tail++ & sq.ring_mask] = sq.sqe_head & sq.ring_mask;
  io_uring_smp_store_release(sq.ktail, tail);
  const unsigned num = tail - io_uring_smp_load_acquire(sq.khead);  // with what it did not take before
  const bool waits = wait == Wait::kYes;
  const int done = io_uring_enter(static_cast<unsigned>(uring_.ring_fd), num, waits ? 1 : 0,
                                  waits ? IORING_ENTER_GETEVENTS | kNoIoWait : 0, nullptr);
  if (waits && done < 0 && done != -EINTR) end_server(-done, "wait");
}

io_uring_sqe& Ring::next_submission() {
  io_uring_sqe* sqe = io_uring_get_sqe(&uring_);
  if (sqe == nullptr) {  // all are used: the kernel takes them
    hand_over(Wait::kNo);
    sqe = io_uring_get_sqe(&uring_);
  }
  if (sqe == nullptr) end_server(EBUSY, "submit");
  std::memset(sqe, 0, 2 * sizeof *sqe);  // SQE128
  sqe->flags = IOSQE_FIXED_FILE;
  return *sqe;
}

void Ring::submit(RingEntry& entry, std::uint32_t command) {
  Command what{};
  what.queue = static_cast<std::uint16_t>(queue_);
  io_uring_sqe& sqe = next_submission();
  sqe.opcode = IORING_OP_URING_CMD;
  sqe.fd = 0;
  sqe.cmd_op = command;
  if (command == kRegister) {
    sqe.addr = reinterpret_cast<std::uint64_t>(entry.parts().data());  // NOLINT: as the kernel has it
    sqe.len = static_cast<std::uint32_t>(entry.parts().size());
  } else {
    what.commit_id = entry.commit_id();
  }
  std::memcpy(sqe.cmd, &what, sizeof what);
  io_uring_sqe_set_data(&sqe, &entry);
}

void Ring::wait_for_call() {
  io_uring_sqe& sqe = next_submission();
  io_uring_prep_poll_add(&sqe, 1, POLLIN);
  sqe.flags = IOSQE_FIXED_FILE;
}

void Ring::add_entry() {
  const std::lock_guard lock(mutex_);
  RingEntry& entry = entries_.emplace_back();
  if (const Status done = entry.allocate(); !done) end_server(ENOMEM, "memory");
  submit(entry, kRegister);
}

bool Ring::answer(std::uint64_t unique, const iovec* parts, int num) {
  const std::lock_guard lock(mutex_);
  for (RingEntry& entry : entries_) {
    if (entry.state != RingEntry::State::kServed || entry.unique != unique) continue;
    entry.fill(parts, num);
    entry.state = RingEntry::State::kAnswered;
    if (t_ring != this || current_ != &entry) (void)eventfd_write(call_.get(), 1);
    return true;
  }
  return false;
}

// A CPU that this process may not use, or that is not there at present, leaves the thread where it is.
void Ring::be_bound(bool bound) {
  if (bound == bound_) return;
  bound_ = bound;
  cpu_set_t own;
  CPU_ZERO(&own);
  CPU_SET(queue_, &own);
  (void)sched_setaffinity(0, sizeof own, bound ? &own : &anywhere_);
}

void Ring::take(RingEntry& entry) {
  const fuse_in_header in = entry.in();
  {
    const std::lock_guard lock(mutex_);
    entry.state = RingEntry::State::kServed;
    entry.unique = in.unique;
  }
  be_bound(!entry.is_long(in));
  fuse_buf message = entry.message(in);
  current_ = &entry;
  fuse_session_process_buf(session_, &message);
  current_ = nullptr;
  bool answered = false;
  bool none_waits = false;
  {
    const std::lock_guard lock(mutex_);
    answered = entry.state == RingEntry::State::kAnswered;
    if (answered) entry.state = RingEntry::State::kWaits;
    none_waits = std::none_of(entries_.begin(), entries_.end(),
                              [](const RingEntry& e) { return e.state == RingEntry::State::kWaits; });
  }
  if (answered) {
    submit(entry, kCommitAndFetch);
  } else if (none_waits) {
    // Somebody else will answer, later. Afterwards there is one entry more than needed: a request may then wait for
    // this thread where another is free.
    add_entry();
  }
}

void Ring::commit_answered() {
  const std::lock_guard lock(mutex_);
  for (RingEntry& entry : entries_) {
    if (entry.state != RingEntry::State::kAnswered) continue;
    entry.state = RingEntry::State::kWaits;
    submit(entry, kCommitAndFetch);
  }
}

void Ring::complete(RingEntry* entry, int result) {
  if (entry == nullptr) {
    eventfd_t count = 0;
    (void)eventfd_read(call_.get(), &count);
    commit_answered();
    wait_for_call();
  } else if (result == 0) {
    take(*entry);
  } else {
    fail(*entry, -result);
  }
}

void Ring::fail(RingEntry& entry, int err) {
  // Unmounted. What the kernel says to an answer that comes just then depends on how far it is.
  pollfd device{fuse_session_fd(session_), 0, 0};
  if (err == ENOTCONN || err == ECONNABORTED || err == ECANCELED ||
      (poll(&device, 1, 0) > 0 && (device.revents & POLLERR) != 0)) {
    ending_ = true;
    return;
  }
  // Not registered: the switch was turned off meanwhile, or the kernel has no memory. Before all queues have a thread
  // it goes over to /dev/fuse; later the others are enough.
  if (entry.was_used() || (err != EOPNOTSUPP && err != ENOMEM && err != EINVAL)) end_server(err, "a command failed");
  log_line(LOG_WARNING, system_error(err, "requests over io_uring: register").what);
  const std::lock_guard lock(mutex_);
  entries_.remove_if([&](const RingEntry& e) { return &e == &entry; });
  if (entries_.empty()) ending_ = true;
}

void Ring::work() {
  keep_stack_from_dumps();
  t_ring = this;
  begun_.wait(false);
  if (ending_) return;
  (void)sched_getaffinity(0, sizeof anywhere_, &anywhere_);
  be_bound(true);
  if (!set_up(uring_, IORING_REGISTER_ENABLE_RINGS, nullptr, 0)) end_server(errno, "enable");
  wait_for_call();
  add_entry();
  while (!ending_) {
    hand_over(Wait::kYes);
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(&uring_, &completion) == 0) {
      auto* const entry = static_cast<RingEntry*>(io_uring_cqe_get_data(completion));
      const int result = completion->res;
      io_uring_cqe_seen(&uring_, completion);
      complete(entry, result);
    }
  }
  hand_over(Wait::kNo);  // the last answers
}

namespace {

// As many as the kernel has queues: CPUs that there can be, of which the last has the highest number ("0-3", "0,2-3").
Result<long> num_possible_cpus() {
  const Fd file(open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC));
  std::array<char, 256> text{};
  const ssize_t n = file ? ::read(file.get(), text.data(), text.size() - 1) : -1;
  std::string_view list(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
  list.remove_prefix(std::min(list.find_last_of(",-") + 1, list.size()));
  long last = -1;
  if (std::from_chars(list.data(), list.data() + list.size(), last).ec != std::errc{} || last < 0 ||
      last >= kMaxQueues) {
    return Error{Code::kUnavailable, 0, "the number of CPUs is not known, or large"};
  }
  return last + 1;
}

}  // namespace

bool Rings::are_offered() {
  const Fd file(open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC));
  char value = 0;
  return file && ::read(file.get(), &value, 1) == 1 && value == 'Y';
}

Rings::Rings(fuse_session* session) : session_(session) {}
Rings::~Rings() = default;

Result<std::unique_ptr<Rings>> Rings::make(fuse_session* session) {
  ECFS_LET(const long num_queues, num_possible_cpus());
  std::unique_ptr<Rings> out(new Rings(session));
  const long per_queue = std::clamp(kMostThreads / num_queues, 2L, kMostOfQueue);
  rlimit limit{};  // a ring takes two descriptors; they are for files first of all
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 16 < static_cast<rlim_t>(per_queue * num_queues)) {
    return Error{Code::kUnavailable, 0, "too few descriptors"};
  }
  for (long i = 0; i < per_queue * num_queues; ++i) {
    const auto queue = static_cast<unsigned>(i % num_queues);
    ECFS_TRY(out->rings_.emplace_back(std::make_unique<Ring>(session, queue))->make());
  }
  out->num_queues_ = static_cast<std::size_t>(num_queues);
  return out;
}

Status Rings::make_threads() {
  std::size_t made = 0;
  Status done;
  for (; made < rings_.size(); ++made) {
    done = rings_[made]->make_thread();
    if (!done) break;
  }
  if (made < num_queues_) return done;
  rings_.resize(made);  // one at each queue is enough to begin with
  return {};
}

void Rings::serve() {
  for (const auto& ring : rings_) ring->serve();
}

void Rings::stop() {
  for (const auto& ring : rings_) ring->ask_to_stop();
  for (const auto& ring : rings_) ring->end();
}

bool Rings::answer(const iovec* parts, int num) {
  fuse_out_header out{};
  std::memcpy(&out, parts[0].iov_base, sizeof out);
  if (out.unique == 0) return false;  // a notification
  if (t_ring != nullptr && t_ring->answer(out.unique, parts, num)) return true;
  return std::any_of(rings_.begin(), rings_.end(),
                     [&](const auto& ring) { return ring->answer(out.unique, parts, num); });
}

MutableByteView answer_buffer(std::size_t size) noexcept {
  return t_ring == nullptr ? MutableByteView() : t_ring->buffer(size);
}

}  // namespace ecfs::fs
