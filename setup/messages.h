// What the tool says when it fails: exit codes, and the one place where hints live.
#pragma once

#include <string>

#include "wrap/base/result.h"

namespace ecfs::setup {

constexpr int kExitUsage = 2;  // a command line that makes no sense

// exit_code_of gives the exit code of a failure: kNoKey 3, kWrongKey 4, kCorrupt 5, kDenied 6, kNoMemory 7, the rest 1.
int exit_code_of(Code code) noexcept;

// hint_of says what to do next; "" where the error's own text says all.
std::string hint_of(const Error& error);

// report writes the error and its hint to stderr. Control characters of file names do not get through.
void report(const Error& error);

// fuse_error explains why /dev/fuse cannot be opened (`err` is the errno of the attempt) and what helps.
Error fuse_error(int err);

// no_terminal_error says that a secret is needed, that there is nobody to ask, and which `option` takes it.
Error no_terminal_error(const std::string& what, const std::string& option);

}  // namespace ecfs::setup
