#include "wrap/login_records.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "wrap/base/file.h"

namespace ecfs::wrap {
namespace {

class LoginRecords : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/records-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
    auto dir = open_directory(AT_FDCWD, path_);
    ASSERT_TRUE(dir);
    dir_ = *std::move(dir);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << text;
    ::chmod((path_ + "/" + name).c_str(), 0600);
  }

  std::string path_;
  Fd dir_;
};

TEST_F(LoginRecords, ComeBackAsTheyWere) {
  MountRecord record;
  record.name = "Work.2";
  record.server = 4711;
  record.started = 1ULL << 40;
  record.device_major = 0;
  record.device_minor = 1048575;
  record.auto_unmount = false;
  record.slot_id = 4000000000;
  record.slot_type = SlotType::kTpm2Password;
  ASSERT_TRUE(save_record(dir_.get(), record));
  record.name = "Private";
  record.auto_unmount = true;
  record.slot_id = 0;
  ASSERT_TRUE(save_record(dir_.get(), record));
  const auto records = load_records(dir_.get());
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].name, "Private");
  EXPECT_EQ(records[0].slot_id, 0U);
  EXPECT_TRUE(records[0].auto_unmount);
  EXPECT_EQ(records[1].name, "Work.2");
  EXPECT_EQ(records[1].server, 4711);
  EXPECT_EQ(records[1].started, 1ULL << 40);
  EXPECT_EQ(records[1].device_minor, 1048575U);
  EXPECT_FALSE(records[1].auto_unmount);
  EXPECT_EQ(records[1].slot_id, 4000000000U);
  EXPECT_EQ(records[1].slot_type, SlotType::kTpm2Password);
  remove_record(dir_.get(), "Private");
  EXPECT_EQ(load_records(dir_.get()).size(), 1U);
}

TEST_F(LoginRecords, ThatAreNoneAreLeftOut) {
  put("mount-Old", "12 345 0 67 1\n");  // as the version before wrote them
  put("mount-Empty", "");
  put("mount-Words", "one two three four five six seven\n");
  put("mount-Short", "12 345 0\n");
  put("mount-Long", "12 345 0 67 1 2 3" + std::string(5000, ' '));
  put("mount-..", "12 345 0 67 1 2 3\n");
  put("mount-", "12 345 0 67 1 2 3\n");
  put("mount-a b", "12 345 0 67 1 2 3\n");
  put("session.lock", "12 345 0 67 1 2 3\n");
  ASSERT_EQ(::symlink("/etc/passwd", (path_ + "/mount-Link").c_str()), 0);
  ASSERT_EQ(::mkfifo((path_ + "/mount-Pipe").c_str(), 0600), 0);
  const auto records = load_records(dir_.get());
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].name, "Old");
  EXPECT_EQ(records[0].slot_id, 0U);
}

TEST_F(LoginRecords, RefusalsKeepTheirReason) {
  const std::string why = "the mountpoint /home/a/\xff\n\x1b[2J is not there";
  ASSERT_TRUE(save_refusal(dir_.get(), "Private", why));
  ASSERT_TRUE(save_refusal(dir_.get(), "Long", std::string(100000, 'x')));
  put("refused-Bad", "soon\nbecause");
  put("refused-Cut", "1234");
  const auto refusals = load_refusals(dir_.get());
  ASSERT_EQ(refusals.size(), 2U);
  EXPECT_EQ(refusals[0].name, "Long");
  EXPECT_EQ(refusals[0].why.size(), 1024U);
  EXPECT_EQ(refusals[1].why, why);
  EXPECT_GT(refusals[1].when, 1700000000);
  remove_refusal(dir_.get(), "Long");
  EXPECT_EQ(load_refusals(dir_.get()).size(), 1U);
}

TEST_F(LoginRecords, AllGoTogetherAndNothingElse) {
  MountRecord record;
  record.name = "Private";
  ASSERT_TRUE(save_record(dir_.get(), record));
  ASSERT_TRUE(save_refusal(dir_.get(), "Work", "why"));
  put("session.lock", "");
  remove_login_records(dir_.get());
  EXPECT_EQ(list_directory(dir_.get()).value_or(std::vector<std::string>()), std::vector<std::string>{"session.lock"});
}

}  // namespace
}  // namespace ecfs::wrap
