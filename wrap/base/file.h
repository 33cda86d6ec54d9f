// Files and directories that somebody else may have prepared: bounded reading, atomic replacing.
//
// Nothing here follows a symbolic link in the last component, blocks on a FIFO, or reads past a limit. All names are
// relative to a directory descriptor, so that nobody can exchange the directory between two steps. Stateless: safe from
// any thread.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"

namespace ecfs {

// open_directory opens `name` below `dirfd` (or AT_FDCWD): a directory, not through a symbolic link in the last
// component.
Result<Fd> open_directory(int dirfd, const std::string& name);

// open_regular opens a regular file for reading. A symbolic link, FIFO, device or directory is kInvalid; a file that
// belongs to neither `owner` (where given) nor root is kDenied; one of more than `max_bytes` is kCorrupt.
Result<Fd> open_regular(int dirfd, const std::string& name, std::uint64_t max_bytes, std::optional<uid_t> owner = {});

// read_file reads all of such a file.
Result<Bytes> read_file(int dirfd, const std::string& name, std::uint64_t max_bytes, std::optional<uid_t> owner = {});

// read_full reads until `out` is full or the end; gives the number of bytes read. Retries EINTR.
Result<std::size_t> read_full(int fd, MutableByteView out);

// write_all writes everything. Retries EINTR; a full disk is kNoSpace.
Status write_all(int fd, ByteView bytes);

// read_secret_line reads one line from `fd`, without the newline, byte by byte so that nothing behind it is consumed.
// The end of the file ends a line too. More than `max_len` bytes: kInvalid. Nothing at all (end of file at once):
// kNotFound.
Result<Secret> read_secret_line(int fd, std::size_t max_len = 4096);

// sync_fd and sync_directory bring data or entries to the disk.
Status sync_fd(int fd, const std::string& what);
Status sync_directory(int dirfd);

enum class KeepPrevious { kNo, kYes };

// replace_file makes `name` hold `bytes`, now and after a crash at any moment: the old contents or the new, never
// neither. Writes `name`.tmp-<random> with `mode`, syncs it, renames it over `name`, syncs the directory. With
// KeepPrevious::kYes a copy of the present file is first put at `name`.bak in the same way; `name` is never absent.
Status replace_file(int dirfd, const std::string& name, ByteView bytes, mode_t mode,
                    KeepPrevious keep = KeepPrevious::kNo);

// make_directory makes `name` with exactly `mode`, or finds it: then it must be a directory (not a link) of ours.
Result<Fd> make_directory(int dirfd, const std::string& name, mode_t mode);

// path_of_directory tells where an open directory is now, without symbolic links; for messages, and for what takes a
// path only.
Result<std::string> path_of_directory(int dir);

// list_directory gives the names in a directory, without "." and ".."; at most `most` of them.
Result<std::vector<std::string>> list_directory(int dir, std::size_t most = SIZE_MAX);

}  // namespace ecfs
