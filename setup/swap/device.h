// What is done to devices: probing (libblkid), the GPT attribute (libfdisk), dm-crypt (libcryptsetup), swapon(2) and
// swapoff(2). Needs root. One thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "setup/swap/header.h"
#include "setup/swap/plan.h"
#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"

namespace ecfs::swap {

// open_device opens a block device: for reading, or for reading and writing by us alone (kBusy while it is in use).
enum class Use { kRead, kAlone };
Result<Fd> open_device(const std::string& path, Use use);
Result<std::uint64_t> device_size(int fd, const std::string& path);
std::string device_number(int fd);  // MAJOR:MINOR

// read_header reads the first page, past what the kernel remembers of it; write_header writes and syncs it.
Result<Bytes> read_header(int fd, const std::string& path);
Status write_header(int fd, ByteView page, const std::string& path);

// signatures gives what libblkid finds on a device, each by its name ("swap", "ext4").
Result<std::vector<std::string>> signatures(int fd, const std::string& path);
// wipe_signatures takes all of them off, where `fd` is open for writing.
Status wipe_signatures(int fd, const std::string& path);

// partition_of describes a device that is a partition; nothing if it is none.
Result<std::optional<Partition>> partition_of(int fd, const std::string& path);

// set_no_auto sets or clears the GPT attribute of a partition.
Status set_no_auto(const std::string& disk, unsigned number, bool no_auto);

// find_device gives the path of the device that `stable` ("PARTUUID=…" or a path) means now. kNotFound.
Result<std::string> find_device(const std::string& stable);

// device_path gives "/dev/NAME" for MAJOR:MINOR.
std::string device_path(const std::string& number);

std::string mapper_path(const std::string& name);

// is_mapped says whether a mapping of this name, made as map_device or crypttab makes it, is there. One of that name
// that is something else is kBusy.
Result<bool> is_mapped(const std::string& name);

// map_device makes /dev/mapper/NAME of a device, with a random key that nobody keeps.
Status map_device(const std::string& path, const std::string& name, const std::string& cipher, unsigned sector_bytes);
// unmap_device takes it away; it must not be in use.
Status unmap_device(const std::string& name);

// make_swap writes a swap header through the mapping `name` of the device `path`; chance may have what lies on the
// device then look like a filesystem: the mapping is made anew until it does not.
Status make_swap(const std::string& path, const std::string& name, const std::string& cipher, unsigned sector_bytes);

// overwrite writes zeros through the mapping, all of it. `advance` gets the bytes that were written, and says whether
// to go on.
Status overwrite(const std::string& name, const std::function<Status(std::uint64_t)>& advance);

// is_swap_on says whether the device is in use as swap; active_swap gives its line.
Result<std::optional<ActiveSwap>> active_swap(const std::string& path);
// swap_on switches it on; with a priority >= 0 with that, else the kernel gives one.
Status swap_on(const std::string& path, int priority, bool discard);
Status swap_off(const std::string& path);

}  // namespace ecfs::swap
