// What the tests of the native format share: a volume with a fixed key, lower files in memory, nonces from a list.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <random>
#include <string>

#include "fs/format/geometry.h"
#include "fs/format/native_crypto.h"
#include "fs/format/native_format.h"
#include "fs/format/native_nonces.h"
#include "fs/lower/lower_file.h"
#include "wrap/crypto.h"

namespace ecfs::fs::test {

// need takes the value out of a Result, or ends the test.
template <class T>
T need(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().what;
    std::abort();
  }
  return *std::move(result);
}

inline std::string why(const Status& status) { return status ? "" : status.error().what; }
template <class T>
std::string why(const Result<T>& result) {
  return result ? "" : result.error().what;
}

// Scripted gives the bytes of a list in order, and fails when they are used up.
class Scripted final : public NonceSource {
 public:
  explicit Scripted(Bytes bytes) : bytes_(std::move(bytes)) {}
  Status fill(MutableByteView out) override {
    if (out.size() > bytes_.size() - used_) return Error{Code::kInvalid, EINVAL, "the script is used up"};
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(used_), out.size(), out.begin());
    used_ += out.size();
    return {};
  }
  [[nodiscard]] bool used_up() const { return used_ == bytes_.size(); }

 private:
  Bytes bytes_;
  std::size_t used_ = 0;
};

struct VolumeKind {
  wrap::Suite suite = wrap::Suite::kAes256Gcm;
  std::uint8_t shift = 12;
  bool sealed = false;
  bool unsealed_report = false;
};

inline Secret test_key() {
  Bytes key(wrap::kVolumeKeyBytes);
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i + 1);
  return need(Secret::copy_of(key));
}

inline NativeFormatOptions options_of(const VolumeKind& kind) {
  NativeFormatOptions options;
  options.header.suite = kind.suite;
  options.header.block_shift = kind.shift;
  options.header.incompat = kind.sealed ? wrap::kIncompatSealedSize : 0;
  options.unsealed_report = kind.unsealed_report;
  return options;
}

inline std::unique_ptr<Format> make_format(const VolumeKind& kind) {
  return need(make_native_format(options_of(kind), test_key()));
}

inline Fd memory_file(ByteView bytes = {}) {
  Fd fd(::memfd_create("lower", MFD_CLOEXEC));
  if (!fd ||
      (!bytes.empty() && ::pwrite(fd.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))) {
    ADD_FAILURE() << "memfd: " << std::generic_category().message(errno);
    std::abort();
  }
  return fd;
}

inline Bytes contents_of(const LowerFile& lower) {
  Bytes bytes(need(lower.size()));
  EXPECT_EQ(need(lower.read_at(0, bytes)), bytes.size());
  return bytes;
}

inline Bytes random_bytes(std::mt19937_64& random, std::size_t len) {
  Bytes bytes(len);
  std::size_t i = 0;
  for (; i + 8 <= len; i += 8) store_le<std::uint64_t>(bytes.data() + i, random());
  for (; i < len; ++i) bytes[i] = static_cast<std::uint8_t>(random());
  return bytes;
}

// read_all reads the whole file in requests of `step` bytes.
inline Result<Bytes> read_all(Contents& contents, std::size_t step = 1U << 20) {
  ECFS_LET(const std::uint64_t size, contents.size());
  Bytes all(size);
  for (std::size_t at = 0; at < size; at += step) {
    const MutableByteView part = MutableByteView(all).subspan(at, std::min<std::size_t>(step, size - at));
    ECFS_LET(const std::size_t got, contents.read(at, part));
    if (got != part.size()) return Error{Code::kIo, EIO, "a read gave fewer bytes than there are"};
  }
  return all;
}

}  // namespace ecfs::fs::test
