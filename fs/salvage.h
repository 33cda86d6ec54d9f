// Salvage copies what still verifies of damaged files into a directory of its own, and keeps a list of what it could
// not: `files/` holds the copies, under their plain paths where these are known, and `list.txt` a line for each.
//
// Nothing is ever overwritten: a name that is taken gets a number behind it. Lost parts read as zeros. One thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fs/format/format.h"
#include "fs/lower/lower_dir.h"
#include "wrap/base/fd.h"
#include "wrap/base/result.h"

namespace ecfs::fs {

class Salvage {
 public:
  // open takes an empty directory, which nobody else should be able to enter.
  static Result<Salvage> open(Fd dir);

  // file copies out of `lower`; true if anything verified. `path` is the way to it, one name each, none with a slash.
  // An error is one of the place that is copied to, or no memory.
  // `go_on` is asked before each piece; its error ends the copy, which is taken away, and is the result.
  Result<bool> file(const std::vector<std::string>& path, LowerFile& lower, const struct stat& st, const Format& format,
                    const std::function<Status()>& go_on);
  // link makes a symbolic link, whose target is known while its name is not.
  Status link(const std::vector<std::string>& path, const std::string& target);

 private:
  Salvage(Fd files, Fd list) noexcept : files_(std::move(files)), list_(std::move(list)) {}
  Result<Fd> directory_of(const std::vector<std::string>& path) const;
  Status note(const std::vector<std::string>& path, const std::string& name, std::string_view what) const;

  Fd files_;
  Fd list_;
};

}  // namespace ecfs::fs
