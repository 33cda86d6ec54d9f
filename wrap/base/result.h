// Errors as values. Everything in ecfs that can fail returns a Result, because most failures here (a wrong key, a
// locked directory, a full disk) are ordinary, and because PAM and FUSE call us from C, where an exception would
// end the host process and lock somebody out.
//
// Result keeps the method names of std::expected. Values of these types may be used from any thread.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace ecfs {

// Code says what a caller can do about a failure. Callers branch on it, never on the text.
enum class Code {
  kNotFound,     // it is not there
  kNoKey,        // locked: a key is needed first
  kWrongKey,     // a key or passphrase that does not fit
  kCorrupt,      // bytes from outside that cannot be what we wrote
  kInvalid,      // a request that makes no sense
  kUnsupported,  // understood, but not possible here
  kDenied,       // not allowed
  kBusy,         // in use; later it may work
  kNoSpace,      // disk full or quota used up
  kNoMemory,     // memory or the locked-memory limit used up
  kUnavailable,  // a service or device is missing (/dev/fuse, TPM)
  kIo,           // any other failure; sys_errno says which
};

struct Error {
  Code code = Code::kIo;
  int sys_errno = 0;  // errno, or 0; error codes of libraries go into `what` as text
  std::string what;   // "read /x/y: permission denied"; never key or passphrase bytes
};

// code_of_errno sorts an errno into the Code a caller would act on.
Code code_of_errno(int err) noexcept;

// errno_of gives the errno that a system call failing like `error` would have set: sys_errno where there is one.
int errno_of(const Error& error) noexcept;

// system_error builds an Error from `err` (usually errno): "what: strerror text".
Error system_error(int err, std::string_view what);

// with_context puts "context: " before the text of `error`.
Error with_context(Error error, std::string_view context);

// Result<T> holds a T or an Error. Looking at the missing one is a bug and aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  T& value() & noexcept { return get<0>(state_); }
  const T& value() const& noexcept { return get<0>(state_); }
  T&& value() && noexcept { return std::move(get<0>(state_)); }
  T& operator*() & noexcept { return value(); }
  const T& operator*() const& noexcept { return value(); }
  T&& operator*() && noexcept { return std::move(*this).value(); }
  T* operator->() noexcept { return &value(); }
  const T* operator->() const noexcept { return &value(); }

  Error& error() & noexcept { return get<1>(state_); }
  const Error& error() const& noexcept { return get<1>(state_); }
  Error&& error() && noexcept { return std::move(get<1>(state_)); }

  template <class U>
  T value_or(U&& other) && {
    return has_value() ? std::move(*this).value() : static_cast<T>(std::forward<U>(other));
  }

 private:
  template <std::size_t I, class V>
  static auto& get(V& v) noexcept {
    auto* p = std::get_if<I>(&v);
    if (p == nullptr) std::abort();
    return *p;
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() noexcept = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool has_value() const noexcept { return ok_; }
  explicit operator bool() const noexcept { return ok_; }
  [[nodiscard]] const Error& error() const& noexcept {
    if (ok_) std::abort();
    return error_;
  }
  Error&& error() && noexcept {
    if (ok_) std::abort();
    return std::move(error_);
  }

 private:
  Error error_;
  bool ok_ = true;
};

using Status = Result<void>;

}  // namespace ecfs

#define ECFS_CAT_(a, b) a##b
#define ECFS_CAT(a, b) ECFS_CAT_(a, b)

// ECFS_TRY goes on if `expr` (a Result) succeeded and returns its error from the calling function if not.
#define ECFS_TRY(expr)                                                      \
  do {                                                                      \
    if (auto ecfs_r_ = (expr); !ecfs_r_) return std::move(ecfs_r_).error(); \
  } while (false)

// ECFS_LET binds `decl` to the value of `expr`, or returns its error from the calling function.
#define ECFS_LET(decl, ...) ECFS_LET_(ECFS_CAT(ecfs_let_, __LINE__), decl, __VA_ARGS__)
#define ECFS_LET_(tmp, decl, ...)          \
  auto tmp = (__VA_ARGS__);                \
  if (!tmp) return std::move(tmp).error(); \
  decl = *std::move(tmp)
