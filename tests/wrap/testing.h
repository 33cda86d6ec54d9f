// What the tests of wrap/ share: directories to play in, and looking at Results.
#pragma once

#include <fcntl.h>
#include <ftw.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/file.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs {

// ok takes the value out of a Result, or ends the test program with the error's text.
template <class T>
T ok(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().what;
    std::abort();
  }
  return *std::move(result);
}
inline void ok(const Status& status) { ASSERT_TRUE(status.has_value()) << status.error().what; }

// failure_of says how something failed; a success is a test failure.
template <class T>
Error failure_of(const Result<T>& result) {
  if (result.has_value()) {
    ADD_FAILURE() << "this should have failed";
    return {};
  }
  return result.error();
}
template <class T>
Code code_of(const Result<T>& result) {
  return failure_of(result).code;
}

inline Secret secret_of(std::string_view text) { return ok(Secret::copy_of(as_bytes(text))); }

// A directory that goes with all it holds.
class Scratch {
 public:
  Scratch() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/ecfs-test-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) std::abort();
    fd_ = ok(open_directory(AT_FDCWD, path_));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  virtual ~Scratch() {
    nftw(
        path_.c_str(), [](const char* p, const struct stat*, int, FTW*) { return remove(p); }, 16,
        FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 protected:
  std::string path_;
  Fd fd_;
};

// A filesystem of a given size; mounted() is false without the right to mount.
class TinyFilesystem : public Scratch {
 public:
  explicit TinyFilesystem(std::size_t bytes) {
    const std::string options = "size=" + std::to_string(bytes) + ",mode=0700";
    mounted_ = mount("ecfs-test", path_.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) == 0;
    fd_ = ok(open_directory(AT_FDCWD, path_));
  }
  ~TinyFilesystem() override {
    fd_.reset();
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  [[nodiscard]] bool mounted() const { return mounted_; }

 private:
  bool mounted_ = false;
};

inline void put(int dir, const std::string& name, ByteView bytes, mode_t mode = 0600) {
  const Fd fd(openat(dir, name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  ASSERT_TRUE(fd) << name;
  ok(write_all(fd.get(), bytes));
}
inline void put(int dir, const std::string& name, std::string_view text, mode_t mode = 0600) {
  put(dir, name, as_bytes(text), mode);
}
inline Bytes get(int dir, const std::string& name) { return ok(read_file(dir, name, 16U << 20)); }

}  // namespace ecfs
