// The native format (fs/FORMAT.md) behind the Format interface.
#pragma once

#include <memory>

#include "fs/format/format.h"
#include "wrap/base/secret.h"
#include "wrap/volume_header.h"

namespace ecfs::fs {

struct NativeFormatOptions {
  wrap::VolumeHeader header;     // verified
  bool unsealed_report = false;  // mount option unsealed=report
};

// make_native_format derives the volume's keys; the volume key is not kept.
Result<std::unique_ptr<Format>> make_native_format(const NativeFormatOptions& options, const Secret& volume_key);

}  // namespace ecfs::fs
