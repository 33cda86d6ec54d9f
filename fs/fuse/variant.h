// What a copy of the server for tests does otherwise. Nothing in an installed program can switch these: they are set
// where variant.cc is compiled, once for each copy (fs/CMakeLists.txt, which installs none of those for tests).
#pragma once

namespace ecfs::fs {

// Its memory can be looked at from outside, and leaves a core. A system call that the filter does not list ends it.
extern const bool kTestCopy;
// OpenSSL's memory is the ordinary heap: for the proof that the search for keys finds some.
extern const bool kPlainMemory;

#ifdef ECFS_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace ecfs::fs
