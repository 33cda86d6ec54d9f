// Looking through a lower file of the native format block by block: what a mount could not read, what interruptions
// left, and (salvage) what verifies although a mount would not show it.
//
// It reads the file by itself and in order, not through NativeContents, which knows only what a mount has to: tests
// hold the two against each other. Repairing changes nothing that a mount shows, only entries, heads of groups and
// bytes behind the authenticated end. Source: fs/FORMAT.md §4, "fsck". Each call is on its own: safe from any thread.
#pragma once

#include "fs/format/check.h"
#include "fs/format/native_contents.h"
#include "fs/lower/lower_file.h"

namespace ecfs::fs {

Result<ContentsCheck> check_native_contents(const NativeVolume& volume, LowerFile& lower, const CheckHow& how);
Result<Salvaged> salvage_native_contents(const NativeVolume& volume, LowerFile& lower, const PutPlain& put);

// native_open_facts gives what can be said of a lower file without a key: from the `first` bytes of it (64, or all if
// it has fewer), its size and the volume's header, which may be unverified too.
FileFacts native_open_facts(const wrap::VolumeHeader& volume, ByteView first, std::uint64_t lower_size);

}  // namespace ecfs::fs
