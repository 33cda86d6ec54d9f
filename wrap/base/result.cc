#include "wrap/base/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace ecfs {

Code code_of_errno(int err) noexcept {
  switch (err) {
    case ENOENT:
    case ENOTDIR:
    case ENODATA: return Code::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS: return Code::kDenied;
    case EBUSY:
    case EAGAIN:
    case ETXTBSY: return Code::kBusy;
    case ENOSPC:
    case EDQUOT: return Code::kNoSpace;
    case ENOMEM: return Code::kNoMemory;
    case ENODEV:
    case ENXIO: return Code::kUnavailable;
    case EINVAL:
    case ELOOP:
    case ENAMETOOLONG: return Code::kInvalid;
    case ENOSYS:
    case EOPNOTSUPP: return Code::kUnsupported;
    case ENOKEY: return Code::kNoKey;
    default: return Code::kIo;
  }
}

int errno_of(const Error& error) noexcept {
  if (error.sys_errno != 0) return error.sys_errno;
  switch (error.code) {
    case Code::kNotFound: return ENOENT;
    case Code::kNoKey: return ENOKEY;
    case Code::kWrongKey:
    case Code::kDenied: return EACCES;
    case Code::kInvalid: return EINVAL;
    case Code::kUnsupported: return EOPNOTSUPP;
    case Code::kBusy: return EBUSY;
    case Code::kNoSpace: return ENOSPC;
    case Code::kNoMemory: return ENOMEM;
    case Code::kUnavailable: return ENODEV;
    case Code::kCorrupt:
    case Code::kIo: break;
  }
  return EIO;
}

Error system_error(int err, std::string_view what) {
  std::array<char, 128> buffer{};
  std::string text(what);
  text += ": ";
  text += strerror_r(err, buffer.data(), buffer.size());  // the GNU one: thread-safe, returns the text
  return Error{code_of_errno(err), err, std::move(text)};
}

Error with_context(Error error, std::string_view context) {
  error.what = std::string(context) + ": " + error.what;
  return error;
}

}  // namespace ecfs
