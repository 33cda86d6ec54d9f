// Recorder is a LowerFile that remembers every call that changes the file, and can make calls fail.
#pragma once

#include <fcntl.h>

#include <functional>
#include <vector>

#include "tests/fs/format/support.h"

namespace ecfs::fs::test {

enum class CallKind { kWrite, kTruncate, kSync, kPunch, kReserve };

struct Call {
  CallKind kind;
  std::uint64_t offset = 0;  // kTruncate: the new size
  std::uint64_t len = 0;
  Bytes data;  // kWrite
};

class Recorder final : public LowerFile {
 public:
  explicit Recorder(ByteView image = {}, bool writable = true) : LowerFile(memory_file(image), writable) {}

  std::vector<Call> calls;
  // What becomes of call number `n` (counting from 0 since `armed`): the errno to fail with, or 0. A write that fails
  // first takes `allow` bytes.
  std::function<int(const Call&, std::size_t n, std::size_t& allow)> judge;
  std::size_t judged = 0;

 private:
  int verdict(const Call& call, std::size_t& allow) { return judge ? judge(call, judged++, allow) : 0; }

  int after(const Call& call, int result) {
    if (result == 0) calls.push_back(call);
    return result;
  }

  template <class F>
  int plain_call(Call call, F run) {
    std::size_t allow = 0;
    if (const int err = verdict(call, allow); err != 0) {
      errno = err;
      return -1;
    }
    return after(call, run());
  }

  ssize_t sys_pwritev(const iovec* buffers, int num, off_t offset) override {
    Call call{CallKind::kWrite, static_cast<std::uint64_t>(offset), 0, {}};
    for (int i = 0; i < num; ++i) {
      append(call.data, ByteView(static_cast<const std::uint8_t*>(buffers[i].iov_base), buffers[i].iov_len));
    }
    call.len = call.data.size();
    std::size_t allow = 0;
    const int err = pending_errno_ != 0 ? std::exchange(pending_errno_, 0) : verdict(call, allow);
    if (err != 0 && allow == 0) {
      errno = err;
      return -1;
    }
    if (err != 0 && allow < call.data.size()) {  // a short count now, the error at the next call
      call.data.resize(allow);
      call.len = allow;
      pending_errno_ = err;
    }
    const ssize_t done = ::pwrite(fd(), call.data.data(), call.data.size(), offset);
    if (done >= 0) calls.push_back(std::move(call));
    return done;
  }
  int sys_ftruncate(off_t size) override {
    return plain_call({CallKind::kTruncate, static_cast<std::uint64_t>(size), 0, {}},
                      [&] { return LowerFile::sys_ftruncate(size); });
  }
  int sys_fdatasync() override {
    return plain_call({CallKind::kSync, 0, 0, {}}, [] { return 0; });
  }
  int sys_fsync() override {
    return plain_call({CallKind::kSync, 0, 0, {}}, [] { return 0; });
  }
  int sys_fallocate(int mode, off_t offset, off_t len) override {
    const CallKind kind = (mode & FALLOC_FL_PUNCH_HOLE) != 0 ? CallKind::kPunch : CallKind::kReserve;
    return plain_call({kind, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(len), {}},
                      [&] { return LowerFile::sys_fallocate(mode, offset, len); });
  }

  int pending_errno_ = 0;
};

// apply does to `image` what the call does to a file, up to `cut` bytes of a write or a punched range.
inline void apply(Bytes& image, const Call& call, std::uint64_t cut = ~std::uint64_t{0}) {
  switch (call.kind) {
    case CallKind::kWrite: {
      const std::uint64_t len = std::min(call.len, cut);
      if (len == 0) return;
      if (image.size() < call.offset + len) image.resize(call.offset + len);
      std::copy_n(call.data.begin(), len, image.begin() + static_cast<std::ptrdiff_t>(call.offset));
      return;
    }
    case CallKind::kTruncate: image.resize(call.offset); return;
    case CallKind::kPunch: {
      const std::uint64_t end = std::min<std::uint64_t>(image.size(), call.offset + std::min(call.len, cut));
      if (call.offset < end) {
        std::fill(image.begin() + static_cast<std::ptrdiff_t>(call.offset),
                  image.begin() + static_cast<std::ptrdiff_t>(end), std::uint8_t{0});
      }
      return;
    }
    case CallKind::kSync:
    case CallKind::kReserve: return;
  }
}

// page_cuts gives the lengths at which a call can be cut off: at the borders of pages inside it.
inline std::vector<std::uint64_t> page_cuts(const Call& call) {
  std::vector<std::uint64_t> cuts;
  if (call.kind != CallKind::kWrite && call.kind != CallKind::kPunch) return cuts;
  for (std::uint64_t at = (call.offset / kPageBytes + 1) * kPageBytes; at < call.offset + call.len; at += kPageBytes) {
    cuts.push_back(at - call.offset);
  }
  return cuts;
}

// One random operation on a file, and the same on plain bytes.
struct Operation {
  enum class What { kWrite, kTruncate, kPunch, kZeroRange, kAllocate, kSettle, kSync, kReopen } what;
  std::uint64_t offset = 0;
  std::uint64_t len = 0;
  Bytes data;

  [[nodiscard]] std::string text() const {
    static constexpr std::array<const char*, 8> kNames{"write",    "truncate", "punch", "zero range",
                                                       "allocate", "settle",   "sync",  "reopen"};
    return std::string(kNames[static_cast<std::size_t>(what)]) + " " + std::to_string(offset) + " +" +
           std::to_string(len);
  }

  void apply_to(Bytes& plain) const {
    switch (what) {
      case What::kWrite:
        if (plain.size() < offset + data.size()) plain.resize(offset + data.size());
        std::copy(data.begin(), data.end(), plain.begin() + static_cast<std::ptrdiff_t>(offset));
        return;
      case What::kTruncate: plain.resize(offset); return;
      case What::kPunch:
      case What::kZeroRange: {
        if (what == What::kZeroRange && plain.size() < offset + len) plain.resize(offset + len);
        const std::uint64_t end = std::min<std::uint64_t>(plain.size(), offset + len);
        for (std::uint64_t i = offset; i < end; ++i) plain[i] = 0;
        return;
      }
      case What::kAllocate:
        if (plain.size() < offset + len) plain.resize(offset + len);
        return;
      default: return;
    }
  }

  // run gives what was done of a write, else 0.
  Result<std::size_t> run(Contents& contents) const {
    Status status;
    switch (what) {
      case What::kWrite: return contents.write(offset, data);
      case What::kTruncate: status = contents.truncate(offset); break;
      case What::kPunch: status = contents.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len); break;
      case What::kZeroRange: status = contents.allocate(FALLOC_FL_ZERO_RANGE, offset, len); break;
      case What::kAllocate: status = contents.allocate(0, offset, len); break;
      case What::kSettle: status = contents.settle(); break;
      case What::kSync: status = contents.sync(false); break;
      case What::kReopen: status = contents.finish(); break;
    }
    if (!status) return status.error();
    return std::size_t{0};
  }
};

// Offsets and lengths like those of programs: at borders, near them, and anywhere.
class OperationMaker {
 public:
  OperationMaker(std::uint64_t seed, std::uint8_t shift, std::uint64_t max_size)
      : random_(seed), block_(1ULL << shift), max_size_(max_size) {}

  std::mt19937_64& random() { return random_; }
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : random_() % n; }

  std::uint64_t place(std::uint64_t size) {
    const std::uint64_t group = kBlocksPerGroup * block_;
    std::uint64_t at = 0;
    switch (below(8)) {
      case 0: at = size; break;
      case 1: at = below(max_size_ / block_) * block_; break;
      case 2: at = below(max_size_ / group + 1) * group; break;
      case 3: at = below(5000); break;
      case 4: at = below(max_size_); break;
      case 5: at = size - std::min(size, below(3 * block_)); break;
      default: at = below(size + 1); break;
    }
    if (below(4) == 0) at += below(200);
    return std::min(at, max_size_ - 1);
  }

  Operation next(std::uint64_t size, bool with_holes = true) {
    using What = Operation::What;
    const std::uint64_t at = place(size);
    const std::uint64_t span = below(4) == 0   ? 1 + below(200)
                               : below(3) == 0 ? block_ * (1 + below(6))
                                               : 1 + below(12 * block_);
    const std::uint64_t len = std::min(span, max_size_ - at);
    switch (below(with_holes ? 24 : 18)) {
      case 0: return {What::kTruncate, 0, 0, {}};
      case 1:
      case 2:
      case 3: return {What::kTruncate, at, 0, {}};
      case 4: return {What::kSettle, 0, 0, {}};
      case 5: return {What::kReopen, 0, 0, {}};
      case 6: return {What::kSync, 0, 0, {}};
      case 18:
      case 19:
      case 20: return {What::kPunch, at, len, {}};
      case 21: return {What::kZeroRange, at, len, {}};
      case 22: return {What::kAllocate, at, len, {}};
      default: return {What::kWrite, at, len, random_bytes(random_, len)};
    }
  }

 private:
  std::mt19937_64 random_;
  std::uint64_t block_;
  std::uint64_t max_size_;
};

}  // namespace ecfs::fs::test
