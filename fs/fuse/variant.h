// What a copy of the server for tests does otherwise. Nothing in an installed program can switch these: they are set
// when the copies are compiled (fs/CMakeLists.txt, which installs none of them).
#pragma once

namespace ecfs::fs {

#ifdef ECFS_TEST_COPY
// Its memory can be looked at from outside, and leaves a core. A system call that the filter does not list ends it.
constexpr bool kTestCopy = true;
#else
constexpr bool kTestCopy = false;
#endif

#ifdef ECFS_TEST_PLAIN_MEMORY
// OpenSSL's memory is the ordinary heap: for the proof that the search for keys finds some.
constexpr bool kPlainMemory = true;
#else
constexpr bool kPlainMemory = false;
#endif

#ifdef ECFS_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace ecfs::fs
