// Bringing a tree into another one entry by entry, so that it can be broken off at any moment and taken up again: the
// state of the work is what is in the two trees.
//
// A file is made under a temporary name in its directory, written, synced, read back and compared; then it gets its
// name. So whatever has its own name in the new tree is complete, and what stands under the temporary name is nobody's.
// With `remove_old` an entry leaves the old tree only once its new name is on disk; an entry that this run did not copy
// itself is compared again before. What cannot be read, is changed meanwhile, or differs in both trees, is left where
// it is and told.
//
// Times of directories change with every entry that comes or goes. Of the two directories never both are touched
// between two moments at which they are right, so the older of the two times is the true one (while `removed_before`).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "setup/move.h"
#include "setup/tree.h"
#include "setup/ui.h"
#include "wrap/base/result.h"

namespace ecfs::setup {

// What an entry is called in the new tree until it is complete.
constexpr const char* kMigrationTempName = ".ecfs-migrating";

struct MigrationRules {
  bool remove_old = false;
  bool removed_before = false;                           // an earlier run had remove_old
  bool find_holes = false;                               // the old tree stores its holes
  bool stores_holes = false;                             // the new tree does
  std::uint32_t longest_name = 255;                      // bytes, of the new tree
  std::function<Status(std::string_view)> check_target;  // can the new tree hold a link to this?
  std::string reserved;                                  // a name in its root that it cannot have; or ""
  std::function<Status()> sync_new;                      // everything of the new tree, to disk
};

struct MigrationSurvey {
  std::uint64_t num_entries = 0;
  std::uint64_t num_there = 0;         // in the new tree already
  std::uint64_t data_bytes = 0;        // of those that are not
  std::uint64_t largest_bytes = 0;     // of one of them
  std::uint64_t linked_bytes = 0;      // of those with several names
  std::vector<std::string> obstacles;  // why it cannot begin, in sentences
  std::uint64_t num_obstacles = 0;     // the first 100 are in words
};

struct MigrationOutcome {
  std::uint64_t num_copied = 0;
  std::uint64_t num_there = 0;
  std::uint64_t num_removed = 0;
  std::uint64_t num_left = 0;  // told
};

// One thread. The nodes outlive it.
class Migration {
 public:
  using Tell = std::function<void(const std::string& path, const std::string& why)>;
  Migration(Node& from, MigrationRules rules) : from_(from), rules_(std::move(rules)) {}

  // survey looks through the old tree, and at what of it is in the new one, if there is one (`to`).
  Result<MigrationSurvey> survey(Node* to);
  // run needs a survey before it. `tell` is called for each entry that is left in the old tree. An error: the run broke
  // off, and another may go on.
  Result<MigrationOutcome> run(Node& to, Progress& progress, const Tell& tell);

 private:
  struct Removable {
    std::string path;
    struct stat st;  // as it was when it was copied or compared
  };
  struct Batch {
    std::vector<Removable> entries;
    std::uint64_t bytes = 0;
  };
  struct Link {
    std::string path;       // that the new tree has it at
    bool compared = false;  // by this run, or copied by it
  };

  Status survey_directory(Node& from, Node* to, const std::string& path, unsigned depth);
  Status survey_entry(Node& from, Node* to, const std::string& name, const std::string& path, unsigned depth);
  void obstacle(std::string text);

  Status directory(Node& from, Node& to, const std::string& path, const struct stat& st, bool made);
  Status entry(Node& from, Node& to, const std::string& name, const std::string& path, const struct stat& times,
               Batch& batch);
  Status inner_directory(Node& node, Node& to, NodePtr there, const std::string& name, const std::string& path,
                         const struct stat& st);
  Result<bool> file(Node& node, Node& to, NodePtr there, const std::string& name, const std::string& path,
                    const struct stat& st);
  Result<bool> is_there(Node& node, Node& there, const std::string& path, const struct stat& st);
  Result<bool> copy(Node& node, Node& to, const std::string& name, const std::string& path, const struct stat& st);
  Result<bool> fill(Node& node, Node& copy, const std::string& path, const struct stat& st);
  Result<bool> verify(Node& node, Node& copy, const std::string& path, const struct stat& st);
  Status remove_batch(Node& from, Node& to, const struct stat& times, Batch& batch);
  Status remove_names(Node& parent, const std::vector<Removable>& entries);
  Status remove_linked();
  Status remove_directories(Node& from, Node& to, const std::string& path);
  void leave(const std::string& path, const std::string& why);
  bool left(const std::string& path, const Error& error);

  Node& from_;
  MigrationRules rules_;
  MigrationSurvey survey_;
  MigrationOutcome outcome_;
  Node* to_ = nullptr;
  Contents* contents_ = nullptr;
  Progress* progress_ = nullptr;
  Tell tell_;
  dev_t device_ = 0;
  std::map<InodeKey, Link> links_;                           // of the old tree
  std::map<InodeKey, std::vector<Removable>> linked_names_;  // to be removed at the end
  std::set<std::string> left_;                               // paths that were told
  std::map<InodeKey, bool> surveyed_;
};

}  // namespace ecfs::setup
