#include "wrap/base/secret_heap.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>

#include "wrap/base/locked_pages.h"
#include "wrap/base/secret.h"

namespace ecfs {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{256} << 10;
constexpr std::size_t kFineStep = 32;    // sizes up to kFineMost are rounded up to a multiple of this
constexpr std::size_t kFineMost = 1024;  // above: to a power of two
constexpr std::size_t kLargest = 32768;  // above: pages of its own
constexpr std::size_t kFineClasses = kFineMost / kFineStep;
constexpr std::size_t kClasses = kFineClasses + 5;
constexpr std::uint32_t kOwnPages = kClasses;
constexpr std::size_t kCachedBytes = 4096;  // a thread keeps this much of each size, and at least two pieces

constexpr std::uint32_t kUsed = 0x5ec2e701;
constexpr std::uint32_t kOrdinary = 0x0d10a7ed;
constexpr std::uint32_t kFree = 0x0f2eed01;

// Before each piece. `next` chains free ones.
struct Header {
  std::uint32_t state;
  std::uint32_t size_class;
  union {
    std::uint64_t len;  // of the piece as asked for; of the pages if it has its own
    Header* next;
  };
};
constexpr std::size_t kHeaderBytes = 16;
static_assert(sizeof(Header) == kHeaderBytes);

constexpr std::size_t bytes_of_class(std::size_t size_class) noexcept {
  if (size_class < kFineClasses) return (size_class + 1) * kFineStep;
  return kFineMost << (size_class - kFineClasses + 1);
}
static_assert(bytes_of_class(kClasses - 1) == kLargest);

// `whole` includes the header and is at most kLargest.
std::size_t class_of(std::size_t whole) noexcept {
  if (whole <= kFineMost) return (whole - 1) / kFineStep;
  std::size_t size_class = kFineClasses;
  while (bytes_of_class(size_class) < whole) ++size_class;
  return size_class;
}

constexpr std::size_t most_cached(std::size_t size_class) noexcept {
  return std::max<std::size_t>(2, kCachedBytes / bytes_of_class(size_class));
}

std::uint8_t* piece_of(Header* header) noexcept { return reinterpret_cast<std::uint8_t*>(header) + kHeaderBytes; }

Header* header_of(void* piece) noexcept {
  auto* header = reinterpret_cast<Header*>(static_cast<std::uint8_t*>(piece) - kHeaderBytes);
  if (header->state != kUsed && header->state != kOrdinary) std::abort();
  return header;
}

struct List {
  Header* first = nullptr;
  std::size_t num = 0;

  void push(Header* header) noexcept {
    header->next = first;
    first = header;
    ++num;
  }
  Header* pop() noexcept {
    Header* header = first;
    first = header->next;
    --num;
    return header;
  }
};

// What all threads share. Never destroyed: libraries free their last pieces when the process ends.
class Shared {
 public:
  // Moves up to `num` pieces of a size into `list`, at least one unless there is no memory.
  void take(std::size_t size_class, List& list, std::size_t num) noexcept {
    const std::lock_guard lock(mutex_);
    List& free = free_[size_class];
    for (; num > 0 && free.num > 0; --num) list.push(free.pop());
    if (list.num == 0) {
      if (Header* fresh = cut(size_class); fresh != nullptr) list.push(fresh);
    }
  }
  void give(std::size_t size_class, List& list, std::size_t num) noexcept {
    const std::lock_guard lock(mutex_);
    for (; num > 0; --num) free_[size_class].push(list.pop());
  }

 private:
  Header* cut(std::size_t size_class) noexcept {
    const std::size_t bytes = bytes_of_class(size_class);
    if (rest_.size() < bytes) {
      keep_rest();
      Result<LockedPages> pages = LockedPages::map(kChunkBytes);
      if (!pages) return nullptr;
      rest_ = pages->release();
    }
    auto* header = reinterpret_cast<Header*>(rest_.data());
    rest_ = rest_.subspan(bytes);
    header->state = kFree;
    header->size_class = static_cast<std::uint32_t>(size_class);
    return header;
  }
  // What is left of a chunk becomes smaller pieces.
  void keep_rest() noexcept {
    while (rest_.size() >= kFineStep) {
      std::size_t size_class = kClasses - 1;
      while (bytes_of_class(size_class) > rest_.size()) --size_class;
      free_[size_class].push(cut(size_class));
    }
    rest_ = {};
  }

  std::mutex mutex_;  // guards what follows; innermost
  std::array<List, kClasses> free_;
  MutableByteView rest_;
};
constinit Shared g_shared;

// A thread's own free pieces. Libraries free pieces after the thread's variables are gone: `g_over` outlives them.
thread_local bool t_over = false;
class Cache {
 public:
  Cache() noexcept = default;
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
  ~Cache() {
    t_over = true;
    for (std::size_t c = 0; c < kClasses; ++c) g_shared.give(c, free_[c], free_[c].num);
  }
  Header* take(std::size_t size_class) noexcept {
    List& free = free_[size_class];
    if (free.num == 0) g_shared.take(size_class, free, most_cached(size_class) / 2);
    return free.num == 0 ? nullptr : free.pop();
  }
  void give(Header* header) noexcept {
    const std::size_t size_class = header->size_class;
    List& free = free_[size_class];
    if (free.num >= most_cached(size_class)) g_shared.give(size_class, free, most_cached(size_class) / 2);
    free.push(header);
  }

 private:
  std::array<List, kClasses> free_;
};
thread_local Cache t_cache;

Header* take(std::size_t size_class) noexcept {
  if (!t_over) return t_cache.take(size_class);
  List one;
  g_shared.take(size_class, one, 1);
  return one.first;
}

void give(Header* header) noexcept {
  if (!t_over) return t_cache.give(header);
  List one;
  one.push(header);
  g_shared.give(header->size_class, one, 1);
}

}  // namespace

void* secret_alloc(std::size_t len) noexcept {
  len = std::max<std::size_t>(len, 1);
  if (len > kLargest - kHeaderBytes) {
    if (len > SIZE_MAX - kHeaderBytes) return nullptr;
    Result<LockedPages> pages = LockedPages::map(len + kHeaderBytes);
    if (!pages) return nullptr;
    const MutableByteView bytes = pages->release();
    auto* header = reinterpret_cast<Header*>(bytes.data());
    *header = {kUsed, kOwnPages, {bytes.size()}};
    return piece_of(header);
  }
  Header* header = take(class_of(len + kHeaderBytes));
  if (header == nullptr) return nullptr;
  header->state = kUsed;
  header->len = len;
  return piece_of(header);
}

void* ordinary_alloc(std::size_t len) noexcept {
  if (len > SIZE_MAX - kHeaderBytes) return nullptr;
  auto* header = static_cast<Header*>(std::malloc(len + kHeaderBytes));
  if (header == nullptr) return nullptr;
  *header = {kOrdinary, 0, {len}};
  return piece_of(header);
}

void* secret_realloc(void* piece, std::size_t len) noexcept {
  if (piece == nullptr) return secret_alloc(len);
  const Header* header = header_of(piece);
  const bool own_pages = header->size_class == kOwnPages;
  const std::size_t old_len = own_pages ? header->len - kHeaderBytes : header->len;
  void* moved = secret_alloc(len);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, piece, std::min(old_len, len));
  secret_free(piece);
  return moved;
}

void secret_free(void* piece) noexcept {
  if (piece == nullptr) return;
  Header* header = header_of(piece);
  if (header->state == kOrdinary) {
    header->state = kFree;
    std::free(header);
    return;
  }
  if (header->size_class == kOwnPages) {
    (void)LockedPages::adopt({reinterpret_cast<std::uint8_t*>(header), static_cast<std::size_t>(header->len)});
    return;
  }
  wipe({piece_of(header), static_cast<std::size_t>(header->len)});
  header->state = kFree;
  give(header);
}

}  // namespace ecfs
