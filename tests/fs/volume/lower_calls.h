// What a Volume asks of the lower filesystem, call by call: to make one of them fail, or to write them all down.
//
// The test program is linked so that the libraries' system calls come here first (--wrap, see CMakeLists.txt); without
// a LowerCalls they go straight on. One LowerCalls exists at a time.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "wrap/base/bytes.h"

namespace ecfs::fs::test {

struct LowerCall {
  enum class Kind {
    kMake,      // a file, directory, link or special file `name` in `dir`; it is `inode`, of `mode`, with `target`
    kLink,      // `name` in `dir` is `inode` too
    kUnlink,    // `name` in `dir`, of a directory too
    kRename,    // `name` in `dir` to `other_name` in `other_dir`; exchanged with it
    kWrite,     // `data` at `offset` of `inode`
    kTruncate,  // to `offset`
    kPunch,     // `len` bytes at `offset`
    kSync,      // `inode`, of a directory too
  } kind = Kind::kSync;
  // Inodes are numbered in the order in which they were made, the root of the tree is 0.
  std::uint64_t dir = 0;
  std::uint64_t other_dir = 0;
  std::uint64_t inode = 0;
  std::string name{};
  std::string other_name{};
  std::string target{};
  bool exchange = false;
  bool data_only = false;  // kSync: fdatasync
  mode_t mode = 0;
  std::uint64_t offset = 0;
  std::uint64_t len = 0;
  Bytes data{};
};

class LowerCalls {
 public:
  LowerCalls();
  ~LowerCalls();
  LowerCalls(const LowerCalls&) = delete;
  LowerCalls& operator=(const LowerCalls&) = delete;

  // record_below writes down what changes the tree of `root` (a directory's descriptor), from any thread, until the
  // end.
  void record_below(int root);
  std::vector<LowerCall> take_recorded();

  // judge says what becomes of a call of the thread that made this object: the errno to fail with, or 0. `what` is its
  // name; `changes`: it changes something below.
  std::function<int(const char* what, bool changes)> judge;

  // For the wrapped calls.
  int verdict(const char* what, bool changes);
  [[nodiscard]] bool recording() const { return recording_; }
  std::uint64_t number_of(dev_t dev, ino_t ino, bool made);
  void add(LowerCall call);
  static LowerCalls* present();

 private:
  const std::thread::id thread_ = std::this_thread::get_id();
  bool judging_ = false;
  bool recording_ = false;
  std::mutex mutex_;  // guards what follows
  std::map<std::pair<dev_t, ino_t>, std::uint64_t> numbers_;
  std::uint64_t next_number_ = 0;
  std::vector<LowerCall> calls_;
};

}  // namespace ecfs::fs::test
