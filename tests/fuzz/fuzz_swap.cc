// Any bytes as the tables and the journal of swap. The first byte says as which. What was changed and taken back is
// what it was, and nothing but the lines in question changes.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "setup/swap/header.h"
#include "setup/swap/journal.h"
#include "setup/swap/plan.h"
#include "setup/swap/tables.h"

namespace {

using namespace ecfs;
using namespace ecfs::swap;

void require(bool is_so) {
  if (!is_so) std::abort();
}

bool means(const std::string& spec) { return spec == "/dev/vda2" || spec == "UUID=1c7e"; }

// `after` with the marks taken out is `before`, as it was without any.
void check_undone(const std::string& before, const std::string& after, Table table) {
  const std::string name = "ecfs_swap1";
  const std::string plain = without_marks(before, table, name);
  if (plain.find("# ecfs setup-swap, " + name) != std::string::npos) return;  // a mark that held a mark
  const std::string back = without_marks(after, table, name);
  require(back == plain || back == plain + "\n");
}

void fstab(const std::string& text) {
  const std::string name = "ecfs_swap1";
  const std::string guarded = guard_fstab(text, name, means);
  const std::string replaced = replace_fstab(text, name, means, 3);
  check_undone(text, guarded, Table::kFstab);
  check_undone(text, replaced, Table::kFstab);
  for (const FstabSwap& swap : fstab_swaps(guarded)) {
    require(!means(swap.spec) || (swap.has("nofail") && swap.has("x-systemd.device-timeout")));
  }
  bool ours = false;
  for (const FstabSwap& swap : fstab_swaps(replaced)) {
    require(!means(swap.spec));
    ours = ours || (swap.spec == "/dev/mapper/" + name && swap.has("nofail"));
  }
  require(ours);
}

void crypttab(const std::string& text) {
  const std::string name = "ecfs_swap1";
  const std::string after = add_crypttab(text, name, crypttab_line(name, "PARTUUID=1-2", ciphers().front(), 4096));
  check_undone(text, after, Table::kCrypttab);
  const auto entries = crypttab_entries(after);
  require(!entries.empty() && entries.back().name == name && entries.back().option("sector-size") == "4096");
}

void resume(const std::string& text) {
  const std::string after = end_resume(text, "ecfs_swap1");
  check_undone(text, after, Table::kResume);
  require(resume_of(after) == "none");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView bytes(data + 1, size - 1);
  const std::string text(as_text(bytes));
  switch (data[0]) {
    case 'f': fstab(text); break;
    case 'c': crypttab(text); break;
    case 'r': resume(text); break;
    case 'p':
      if (const auto swaps = parse_proc_swaps(text); !swaps) require(swaps.error().code == Code::kCorrupt);
      (void)cmdline_resume(text);
      (void)meminfo_bytes(text, "MemAvailable");
      (void)logical_volume(text, "LVM-");
      break;
    case 'h': (void)parse_header(bytes); break;
    case 'j':
      if (const auto journal = parse_journal(text)) {
        const auto again = parse_journal(to_text(*journal));
        require(again && to_text(*again) == to_text(*journal) && is_name(journal->name));
      }
      break;
    default: break;
  }
  return 0;
}
