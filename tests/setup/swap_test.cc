#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>

#include "setup/swap/areas.h"
#include "setup/swap/header.h"
#include "setup/swap/journal.h"
#include "setup/swap/plan.h"
#include "setup/swap/tables.h"

namespace ecfs::swap {
namespace {

const std::string kName = "ecfs_swap1";
const std::vector<std::string> kNames = {"UUID=1c7e8a52-9b3d-4f60-8a11-5d2f0c9be7a4", "LABEL=scratch",
                                         "PARTUUID=6e0f3a51-02", "/dev/vda2"};
const Means kMeans = [](const std::string& spec) {
  return std::find(kNames.begin(), kNames.end(), spec) != kNames.end();
};

std::string vector_file(const std::string& name) {
  std::ifstream in(std::string(ECFS_TEST_VECTORS) + "/swap/" + name, std::ios::binary);
  EXPECT_TRUE(in.good()) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

// All lines of `before` but those that changed are in `after`, in the same order.
void expect_same_but(const std::string& before, const std::string& after, std::size_t changed) {
  std::vector<std::string> rest;
  for (const Line& line : lines_of(after)) rest.push_back(line.text);
  std::size_t missing = 0;
  auto at = rest.begin();
  for (const Line& line : lines_of(before)) {
    const auto found = std::find(at, rest.end(), line.text);
    if (found == rest.end()) {
      ++missing;
    } else {
      at = found + 1;
    }
  }
  EXPECT_EQ(missing, changed) << after;
}

TEST(SwapTables, ProcSwapsOfAKernel) {
  const auto swaps = parse_proc_swaps(
      "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
      "/dev/vda2                               partition\t1048572\t\t12\t\t-2\n"
      "/var/swap\\040file\\040(deleted)          file\t\t65532\t\t0\t\t5\n"
      "/dev/zram0                              partition\t4194300\t\t0\t\t100\n");
  ASSERT_TRUE(swaps);
  ASSERT_EQ(swaps->size(), 3U);
  EXPECT_EQ((*swaps)[0].path, "/dev/vda2");
  EXPECT_FALSE((*swaps)[0].file);
  EXPECT_EQ((*swaps)[0].size_bytes, 1048572U * 1024);
  EXPECT_EQ((*swaps)[0].used_bytes, 12U * 1024);
  EXPECT_EQ((*swaps)[0].priority, -2);
  EXPECT_EQ((*swaps)[1].path, "/var/swap file (deleted)");
  EXPECT_TRUE((*swaps)[1].file);
  EXPECT_TRUE(parse_proc_swaps("")->empty());
  EXPECT_TRUE(parse_proc_swaps("Filename Type Size Used Priority\n")->empty());
}

TEST(SwapTables, ProcSwapsThatMakesNoSenseIsAnError) {
  for (const char* line : {"/dev/a partition 1 2", "/dev/a partition x 2 3", "/dev/a partition 1 2 3 4",
                           "/dev/a partition 99999999999999999999 0 0", "/dev/a partition 4503599627370496 0 0"}) {
    const auto swaps = parse_proc_swaps(std::string("heading\n") + line + "\n");
    ASSERT_FALSE(swaps) << line;
    EXPECT_EQ(swaps.error().code, Code::kCorrupt);
  }
}

TEST(SwapTables, EscapesAreThoseOfTheKernel) {
  EXPECT_EQ(unescape("a\\040b\\011c\\134d"), "a b\tc\\d");
  EXPECT_EQ(unescape("\\04"), "\\04");
  EXPECT_EQ(unescape("\\999\\777\\377"), "\\999\\777\xff");
}

TEST(SwapTables, FstabOfEachDistributionKeepsItsCommentsAndOrder) {
  struct Case {
    const char* file;
    const char* line;  // the new one
    std::size_t changed;
  };
  const std::vector<Case> cases = {
      {"debian.fstab", "/dev/mapper/ecfs_swap1 none swap sw,pri=7,nofail,x-systemd.device-timeout=30s 0 0\n", 1},
      {"ubuntu.fstab", "/dev/mapper/ecfs_swap1 none swap sw,pri=5,nofail,x-systemd.device-timeout=30s 0 0\n", 1},
      {"mint.fstab", "/dev/mapper/ecfs_swap1 none swap defaults,pri=7,nofail,x-systemd.device-timeout=30s 0 0\n", 1},
      {"fedora.fstab", "/dev/mapper/ecfs_swap1 none swap defaults,x-systemd.device-timeout=0,pri=7,nofail 0 0\n", 1},
      {"hostile.fstab", "/dev/mapper/ecfs_swap1 none swap defaults,pri=7,nofail,x-systemd.device-timeout=30s 0 0\n", 3},
  };
  for (const Case& c : cases) {
    const std::string before = vector_file(c.file);
    const std::string after = replace_fstab(before, kName, kMeans, 7);
    expect_same_but(before, after, c.changed);
    EXPECT_NE(after.find(c.line), std::string::npos) << c.file << "\n" << after;
    EXPECT_EQ(without_marks(after, Table::kFstab, kName), before) << c.file;
    EXPECT_EQ(replace_fstab(after, kName, kMeans, 7), after) << c.file;
    const std::string guarded = guard_fstab(before, kName, kMeans);
    EXPECT_EQ(without_marks(guarded, Table::kFstab, kName), before) << c.file;
    EXPECT_EQ(replace_fstab(guarded, kName, kMeans, 7), after) << c.file;
    for (const FstabSwap& swap : fstab_swaps(guarded)) {
      if (kMeans(swap.spec)) {
        EXPECT_TRUE(swap.has("nofail") && swap.has("x-systemd.device-timeout")) << c.file;
      }
    }
    for (const FstabSwap& swap : fstab_swaps(after)) EXPECT_FALSE(kMeans(swap.spec)) << c.file;
  }
}

TEST(SwapTables, WithoutALineInFstabOneIsAdded) {
  const std::string before = "# nothing here\n/dev/vda1 / ext4 defaults 0 1\n";
  EXPECT_EQ(guard_fstab(before, kName, kMeans), before);
  const std::string after = replace_fstab(before, kName, kMeans, -2);
  EXPECT_EQ(after, before +
                       "# ecfs setup-swap, ecfs_swap1, added:\n"
                       "/dev/mapper/ecfs_swap1 none swap sw,nofail,x-systemd.device-timeout=30s 0 0\n");
  EXPECT_EQ(without_marks(after, Table::kFstab, kName), before);
}

TEST(SwapTables, WhatSomebodyElseChangedSinceStays) {
  const std::string before = vector_file("debian.fstab");
  std::string edited = replace_fstab(before, kName, kMeans, -2);
  edited.replace(edited.find(" sw,nofail"), 3, " sw,pri=9");
  edited += "/dev/vdb1 /data ext4 nofail 0 2\n";
  EXPECT_EQ(without_marks(edited, Table::kFstab, kName), before + "/dev/vdb1 /data ext4 nofail 0 2\n");
  // Our line is gone, its mark is not.
  std::string cut = replace_fstab(before, kName, kMeans, -2);
  const std::size_t at = cut.find("/dev/mapper/");
  cut.erase(at, cut.find('\n', at) + 1 - at);
  EXPECT_EQ(without_marks(cut, Table::kFstab, kName), before);
}

TEST(SwapTables, TwoAreasDoNotTouchEachOther) {
  const std::string before = vector_file("ubuntu.fstab");
  const Means other = [](const std::string& spec) { return spec == "/swap.img"; };
  const std::string one = replace_fstab(before, "ecfs_swap1", kMeans, -2);
  const std::string both = replace_fstab(one, "ecfs_swap10", other, -2);
  EXPECT_EQ(without_marks(both, Table::kFstab, "ecfs_swap10"), one);
  EXPECT_EQ(without_marks(both, Table::kFstab, "ecfs_swap1"), replace_fstab(before, "ecfs_swap10", other, -2));
}

TEST(SwapTables, CrypttabOfEachDistribution) {
  const std::string line = crypttab_line(kName, "PARTUUID=6e0f3a51-02", "aes-xts-plain64", 4096);
  for (const char* file : {"debian.crypttab", "ubuntu.crypttab", "mint.crypttab", "fedora.crypttab"}) {
    const std::string before = vector_file(file);
    const std::string after = add_crypttab(before, kName, line);
    EXPECT_TRUE(after.starts_with(before)) << file;
    EXPECT_EQ(without_marks(after, Table::kCrypttab, kName), before) << file;
    EXPECT_EQ(add_crypttab(after, kName, line), after) << file;
    const auto entries = crypttab_entries(after);
    ASSERT_FALSE(entries.empty()) << file;
    const CryptEntry& ours = entries.back();
    EXPECT_EQ(ours.name, kName);
    EXPECT_EQ(ours.device, "PARTUUID=6e0f3a51-02");
    EXPECT_EQ(ours.key, "/dev/urandom");
    EXPECT_TRUE(ours.has("plain") && ours.has("swap") && ours.has("nofail"));
    EXPECT_EQ(ours.option("cipher"), "aes-xts-plain64");
    EXPECT_EQ(ours.option("sector-size"), "4096");
    EXPECT_EQ(ours.option("x-systemd.device-timeout"), "30s");
  }
  const std::string hostile = vector_file("hostile.crypttab");
  const std::string after =
      add_crypttab(hostile, "ecfs_swap3", crypttab_line("ecfs_swap3", "/dev/vg/swap", "aes-xts-plain64", 512));
  EXPECT_EQ(without_marks(after, Table::kCrypttab, "ecfs_swap3"), hostile + "\n");
}

TEST(SwapTables, ResumeOfInitramfsTools) {
  EXPECT_EQ(resume_of("RESUME=UUID=1c7e\n"), "UUID=1c7e");
  EXPECT_EQ(resume_of("# RESUME=none\nRESUME=none\nRESUME=\"/dev/vda2\" \n"), "/dev/vda2");
  EXPECT_EQ(resume_of(""), "");
  for (const std::string before : {"RESUME=UUID=1c7e\n", "# only a remark\n", "", "a=b\nRESUME=auto"}) {
    const std::string after = end_resume(before, kName);
    EXPECT_EQ(resume_of(after), "none");
    EXPECT_EQ(without_marks(after, Table::kResume, kName), before);
  }
}

TEST(SwapHeader, IsReadBack) {
  std::array<std::uint8_t, 16> uuid{};
  for (std::size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::uint8_t>(i * 16 + i);
  const auto page = make_header(4096, 64U << 20, uuid, "a label that is too long");
  ASSERT_TRUE(page);
  const auto header = parse_header(*page);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->last_page, 16383U);
  EXPECT_EQ(uuid_text(header->uuid), "00112233-4455-6677-8899-aabbccddeeff");
  EXPECT_EQ(header->label, "a label that is ");
  EXPECT_FALSE(header->hibernated);
  EXPECT_EQ(parse_header(*make_header(65536, std::uint64_t{1} << 50, uuid, ""))->last_page, UINT32_MAX - 1);
}

TEST(SwapHeader, WhatIsNoneIsRefused) {
  EXPECT_FALSE(parse_header(Bytes(4096)));
  EXPECT_FALSE(parse_header(Bytes(4095)));
  EXPECT_FALSE(parse_header({}));
  EXPECT_FALSE(make_header(4096, 9 * 4096, {}, ""));
  EXPECT_FALSE(make_header(1024, 1U << 20, {}, ""));
  Bytes page = *make_header(4096, 1U << 20, {}, "");
  page[1024] = 2;
  EXPECT_FALSE(parse_header(page));
  page[1024] = 1;
  const std::string image = "S1SUSPEND";
  std::copy(image.begin(), image.end(), page.end() - 10);
  EXPECT_TRUE(parse_header(page)->hibernated);
}

// A tree as sysfs has it.
class SwapAreas : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "/swap-areas";
    std::filesystem::remove_all(root_);
    put("proc/swaps", "heading\n");
    places_.proc = root_ + "/proc";
    places_.sys = root_ + "/sys";
    places_.device_of = [this](const std::string& path) -> std::optional<std::string> {
      const auto at = devices_.find(path);
      if (at == devices_.end()) return {};
      return at->second;
    };
    places_.device_below = places_.device_of;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text;
  }
  void device(const std::string& path, const std::string& number, const std::string& dm_uuid = "",
              const std::vector<std::string>& slaves = {}) {
    devices_[path] = number;
    put("sys/dev/block/" + number + "/dev", number + "\n");
    if (!dm_uuid.empty()) {
      put("sys/dev/block/" + number + "/dm/uuid", dm_uuid + "\n");
      put("sys/dev/block/" + number + "/dm/name", "name\n");
    }
    for (const std::string& slave : slaves) {
      put("sys/dev/block/" + number + "/slaves/" + std::to_string(std::hash<std::string>()(slave)) + "/dev",
          slave + "\n");
    }
  }
  void on(const std::string& path, const char* type = "partition") {
    std::ofstream(root_ + "/proc/swaps", std::ios::app) << path << " " << type << " 1024 0 -2\n";
  }

  std::string root_;
  std::map<std::string, std::string> devices_;
  Places places_;
};

TEST_F(SwapAreas, EncryptionIsSeenThroughWhatStandsUponIt) {
  device("/dev/vda2", "254:2");
  put("sys/dev/block/254:2/partition", "2\n");
  device("/dev/dm-0", "253:0", "CRYPT-PLAIN-ecfs_swap1", {"254:2"});
  device("/dev/dm-1", "253:1", "LVM-abc", {"253:0"});
  device("/dev/dm-2", "253:2", "LVM-def", {"254:2"});
  device("/dev/dm-3", "253:3", "LVM-ghi", {"253:0", "254:2"});
  device("/dev/dm-4", "253:4", "CRYPT-VERITY-x", {"254:2"});
  for (const char* path : {"/dev/vda2", "/dev/dm-0", "/dev/dm-1", "/dev/dm-2", "/dev/dm-3", "/dev/dm-4"}) on(path);
  const auto all = areas(places_);
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 6U);
  const std::vector<bool> encrypted = {false, true, true, false, false, false};
  for (std::size_t i = 0; i < encrypted.size(); ++i) EXPECT_EQ((*all)[i].encrypted, encrypted[i]) << i;
  EXPECT_EQ((*all)[0].kind, Kind::kPartition);
  EXPECT_EQ((*all)[1].kind, Kind::kMapped);
  EXPECT_EQ(not_encrypted(*all), "/dev/vda2, /dev/dm-2, /dev/dm-3, /dev/dm-4");
}

TEST_F(SwapAreas, DevicesInACircleAreNotEncrypted) {
  device("/dev/dm-0", "253:0", "LVM-a", {"253:1"});
  device("/dev/dm-1", "253:1", "LVM-b", {"253:0"});
  EXPECT_FALSE(encrypted_below(places_, "253:0"));
  EXPECT_FALSE(encrypted_below(places_, ""));
  EXPECT_FALSE(encrypted_below(places_, "../../253:0"));
}

TEST_F(SwapAreas, ZramIsMemoryUnlessItWritesBack) {
  device("/dev/vda3", "254:3");
  device("/dev/dm-0", "253:0", "CRYPT-LUKS2-x", {"254:3"});
  device("/dev/zram0", "252:0");
  device("/dev/zram1", "252:1");
  device("/dev/zram2", "252:2");
  put("sys/dev/block/252:0/backing_dev", "none\n");
  put("sys/dev/block/252:1/backing_dev", "/dev/vda3\n");
  put("sys/dev/block/252:2/backing_dev", "/dev/dm-0\n");
  for (const char* path : {"/dev/zram0", "/dev/zram1", "/dev/zram2"}) on(path);
  const auto all = areas(places_);
  ASSERT_TRUE(all && all->size() == 3);
  EXPECT_TRUE((*all)[0].encrypted);
  EXPECT_FALSE((*all)[1].encrypted);
  EXPECT_TRUE((*all)[2].encrypted);
  EXPECT_EQ(not_encrypted(*all), "/dev/zram1 (which puts pages on /dev/vda3)");
  std::vector<Facts> facts(2);
  facts[0].area = (*all)[0];
  facts[1].area = (*all)[1];
  const auto plans = make_plans(facts, {}, {});
  EXPECT_EQ(plans[0].action, Action::kNothing);
  EXPECT_EQ(plans[1].action, Action::kRefuse);
}

TEST_F(SwapAreas, AFileIsAsItsFilesystem) {
  device("/dev/vda1", "254:1");
  device("/dev/dm-0", "253:0", "CRYPT-LUKS2-x", {"254:1"});
  devices_["/swapfile"] = "254:1";
  devices_["/home/swapfile"] = "253:0";
  on("/swapfile", "file");
  on("/home/swapfile", "file");
  const auto all = areas(places_);
  ASSERT_TRUE(all && all->size() == 2);
  EXPECT_EQ(not_encrypted(*all), "/swapfile");
}

// What a plan is made of: a partition on a machine where all is well.
Facts partition_facts() {
  Facts facts;
  facts.area.swap = {"/dev/vda2", false, 1U << 30, 10U << 20, -2};
  facts.area.kind = Kind::kPartition;
  facts.area.device = "254:2";
  facts.path = "/dev/vda2";
  facts.stable = "PARTUUID=6e0f3a51-02";
  facts.names = kNames;
  facts.size_bytes = 1U << 30;
  facts.partition = Partition{"6e0f3a51-02", "", "/dev/vda", 2, true, kGptSwapType, 0};
  return facts;
}
Machine good_machine() {
  Machine machine;
  machine.available_bytes = 1U << 30;
  machine.total_bytes = 2U << 30;
  machine.boot = Boot::kCrypttab;
  return machine;
}
Plan plan_of(const Facts& facts, const Machine& machine, const Wishes& wishes = {}) {
  return make_plans({facts}, machine, wishes).front();
}

TEST(SwapPlan, APartitionIsEncrypted) {
  Machine machine = good_machine();
  machine.taken = {"ecfs_swap1", "other"};
  const Plan plan = plan_of(partition_facts(), machine);
  EXPECT_EQ(plan.action, Action::kEncrypt);
  EXPECT_EQ(plan.name, "ecfs_swap2");
  EXPECT_EQ(plan.sector_bytes, 4096U);
  EXPECT_FALSE(plan.ends_hibernation);
  EXPECT_FALSE(plan.end_resume);
  EXPECT_TRUE(std::any_of(plan.steps.begin(), plan.steps.end(),
                          [](const std::string& step) { return step.find("GPT attribute 63") != std::string::npos; }));
  Facts odd = partition_facts();
  odd.size_bytes += 512;
  EXPECT_EQ(plan_of(odd, machine).sector_bytes, 512U);
  const auto two = make_plans({partition_facts(), partition_facts()}, machine, {});
  EXPECT_EQ(two[1].name, "ecfs_swap3");
}

TEST(SwapPlan, WhatCannotBeDoneIsRefusedWithTheReason) {
  struct Case {
    const char* reason;
    std::function<void(Facts&, Machine&)> change;
  };
  const std::vector<Case> cases = {
      {"not enough memory", [](Facts&, Machine& m) { m.available_bytes = 100U << 20; }},
      {"no name that is the same", [](Facts& f, Machine&) { f.stable.clear(); }},
      {"image of hibernation", [](Facts& f, Machine&) { f.hibernated = true; }},
      {"ext4", [](Facts& f, Machine&) { f.foreign = "ext4"; }},
      {"systemctl disable", [](Facts& f, Machine&) { f.unit = "/etc/systemd/system/dev-vda2.swap"; }},
      {"Install cryptsetup", [](Facts&, Machine& m) { m.boot = Boot::kNone; }},
      {"cannot be read", [](Facts& f, Machine&) { f.path.clear(); }},
      {"resume=/dev/vda2", [](Facts&, Machine& m) { m.cmdline_resume = "/dev/vda2"; }},
      {"conf.d/resume", [](Facts&, Machine& m) { m.initramfs_resume = kNames[0]; }},
      {"conf.d/resume", [](Facts&, Machine& m) { m.initramfs_resume = "auto"; }},
      {"/sys/power/resume", [](Facts&, Machine& m) { m.power_resume = "254:2"; }},
      {"dm-crypt upon a file, which goes through a loop device, can block the machine",
       [](Facts& f, Machine&) { f.area.kind = Kind::kFile; }},
  };
  for (const Case& c : cases) {
    Facts facts = partition_facts();
    Machine machine = good_machine();
    c.change(facts, machine);
    const Plan plan = plan_of(facts, machine);
    EXPECT_EQ(plan.action, Action::kRefuse) << c.reason;
    EXPECT_NE(plan.reason.find(c.reason), std::string::npos) << plan.reason;
  }
}

TEST(SwapPlan, HibernationIsGivenUpOnlyWhenAsked) {
  Machine machine = good_machine();
  machine.initramfs_tools = true;
  machine.initramfs_resume = kNames[0];
  Wishes wishes;
  wishes.no_hibernation = true;
  const Plan plan = plan_of(partition_facts(), machine, wishes);
  EXPECT_EQ(plan.action, Action::kEncrypt);
  EXPECT_TRUE(plan.ends_hibernation && plan.end_resume);
  machine.initramfs_resume = "none";
  EXPECT_FALSE(plan_of(partition_facts(), machine).end_resume);
  machine.initramfs_resume = "UUID=of-another";  // it resumes from elsewhere: left alone
  EXPECT_EQ(plan_of(partition_facts(), machine).action, Action::kEncrypt);
  EXPECT_FALSE(plan_of(partition_facts(), machine).end_resume);
  machine.initramfs_resume.clear();  // update-initramfs would choose one
  EXPECT_TRUE(plan_of(partition_facts(), machine).end_resume);
}

TEST(SwapPlan, OnlyWhatIsAskedFor) {
  Wishes wishes;
  wishes.devices = {"/dev/vdb1"};
  EXPECT_EQ(plan_of(partition_facts(), good_machine(), wishes).action, Action::kNothing);
  wishes.devices = {"LABEL=scratch"};
  EXPECT_EQ(plan_of(partition_facts(), good_machine(), wishes).action, Action::kEncrypt);
  Facts done = partition_facts();
  done.area.encrypted = true;
  EXPECT_EQ(plan_of(done, good_machine(), wishes).action, Action::kNothing);
}

TEST(SwapPlan, FactsFromText) {
  EXPECT_EQ(cmdline_resume("root=/dev/vda1 resume=/dev/vda2 quiet\n"), "/dev/vda2");
  EXPECT_EQ(cmdline_resume("resume=/dev/vda2 noresume"), "");
  EXPECT_EQ(cmdline_resume("noresume resume=/dev/vda2"), "");
  EXPECT_EQ(cmdline_resume("quiet"), "");
  EXPECT_EQ(meminfo_bytes("MemTotal:  1000 kB\nMemAvailable:    500 kB\n", "MemAvailable"), 512000U);
  EXPECT_EQ(meminfo_bytes("MemAvailable: x kB\n", "MemAvailable"), 0U);
  EXPECT_EQ(logical_volume("vg-swap", "LVM-x"), "/dev/vg/swap");
  EXPECT_EQ(logical_volume("my--vg-swap--1", "LVM-x"), "/dev/my-vg/swap-1");
  EXPECT_EQ(logical_volume("vg-swap-real", "LVM-x"), "");
  EXPECT_EQ(logical_volume("vg-swap", "CRYPT-PLAIN-x"), "");
  EXPECT_EQ(logical_volume("-swap", "LVM-x"), "");
  EXPECT_EQ(logical_volume("vg-", "LVM-x"), "");
}

TEST(SwapJournal, IsReadBack) {
  Journal j;
  j.name = "ecfs_swap12";
  j.phase = Phase::kUndoing;
  j.step = "header";
  j.path = "/dev/nvme0n1p3";
  j.stable = "PARTUUID=6e0f3a51-02";
  j.names = kNames;
  j.size_bytes = 64U << 20;
  j.header = *make_header(4096, 64U << 20, {}, "scratch");
  j.priority = -2;
  j.discard = j.wipe = j.unit = j.no_auto = j.resume = true;
  j.cipher = "aes-xts-plain64";
  j.sector_bytes = 4096;
  const std::string fstab = vector_file("hostile.fstab");
  j.fstab = {true, Bytes(fstab.begin(), fstab.end())};
  const std::string text = to_text(j);
  const auto back = parse_journal(text);
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(to_text(*back), text);
  EXPECT_EQ(back->header, j.header);
  EXPECT_EQ(back->fstab.bytes, j.fstab.bytes);
  EXPECT_FALSE(back->crypttab.existed);
  // Each field has to be there, and of its kind.
  for (std::size_t at = text.find("\n \""); at != std::string::npos; at = text.find("\n \"", at + 1)) {
    std::string other = text;
    other.insert(at + 3, "x");
    EXPECT_FALSE(parse_journal(other)) << other.substr(at, 40);
  }
}

TEST(SwapJournal, WhatIsNoneIsRefused) {
  for (const char* text : {"", "{}", "[]", "null", "{\"version\":1}", "{\"version\":2}", "{"}) {
    const auto journal = parse_journal(text);
    ASSERT_FALSE(journal) << text;
    EXPECT_EQ(journal.error().code, Code::kCorrupt);
  }
}

TEST(SwapJournal, NamesAreOurs) {
  for (const char* name : {"ecfs_swap1", "ecfs_swap999999"}) EXPECT_TRUE(is_name(name)) << name;
  for (const char* name :
       {"", "ecfs_swap", "ecfs_swap0", "ecfs_swap01", "ecfs_swap1234567", "ecfs_swap1/..", "swap1"}) {
    EXPECT_FALSE(is_name(name)) << name;
  }
}

}  // namespace
}  // namespace ecfs::swap
