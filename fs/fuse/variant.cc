#include "fs/fuse/variant.h"

namespace ecfs::fs {

#ifdef ECFS_TEST_COPY
const bool kTestCopy = true;
#else
const bool kTestCopy = false;
#endif

#ifdef ECFS_TEST_PLAIN_MEMORY
const bool kPlainMemory = true;
#else
const bool kPlainMemory = false;
#endif

}  // namespace ecfs::fs
