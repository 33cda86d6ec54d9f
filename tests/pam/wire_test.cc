#include "pam/login/wire.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

namespace ecfs::pam {
namespace {

OpenVolume sample() {
  OpenVolume volume;
  volume.rewrapped = true;
  volume.lower = "/home/alice/.Private";
  volume.mountpoint = "/home/alice/Private";
  volume.options = {"ro", "noatime"};
  volume.notes = {"a note"};
  volume.log = {"one", "two"};
  volume.volume_file = {1, 2, 3};
  volume.key = Secret::random(32).value();
  for (Fd* fd : {&volume.lock, &volume.lower_dir, &volume.mountpoint_dir})
    fd->reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return volume;
}

TEST(Wire, AnOpenVolumeArrivesWhole) {
  const Secret key = sample().key.clone().value();
  OpenVolume sent = sample();
  sent.key = key.clone().value();
  const auto got = wire::unpack_open(wire::pack(std::move(sent)));
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->rewrapped);
  EXPECT_FALSE(got->mounted_already);
  EXPECT_EQ(got->lower, "/home/alice/.Private");
  EXPECT_EQ(got->mountpoint, "/home/alice/Private");
  EXPECT_EQ(got->options, (std::vector<std::string>{"ro", "noatime"}));
  EXPECT_EQ(got->notes, std::vector<std::string>{"a note"});
  EXPECT_EQ(got->log, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(got->volume_file, (Bytes{1, 2, 3}));
  EXPECT_TRUE(got->key.equals(key));
  EXPECT_TRUE(got->lock && got->lower_dir && got->mountpoint_dir);
}

TEST(Wire, ASurveyArrivesWhole) {
  std::vector<VolumeInfo> sent(2);
  sent[0].name = "Private";
  sent[0].auto_mount = true;
  sent[0].tpm2 = true;
  sent[0].id[3] = 7;
  sent[0].device = std::pair(0U, 42U);
  sent[1].name = "Other";
  sent[1].error = "profile.json is a symbolic link";
  const auto got = wire::unpack_survey(wire::pack(sent));
  ASSERT_TRUE(got);
  ASSERT_EQ(got->size(), 2U);
  EXPECT_EQ((*got)[0].id, sent[0].id);
  EXPECT_TRUE((*got)[0].auto_mount);
  EXPECT_FALSE((*got)[0].auto_unmount);
  EXPECT_TRUE((*got)[0].tpm2);
  EXPECT_FALSE((*got)[1].tpm2);
  EXPECT_EQ((*got)[0].device, sent[0].device);
  EXPECT_EQ((*got)[1].error, sent[1].error);
  EXPECT_FALSE((*got)[1].device);
}

TEST(Wire, NamesThatLeadOutOfTheirDirectoryAreRefused) {
  for (const char* name : {"../x", "a/b", "", ".", ".hidden", "-f"}) {
    std::vector<VolumeInfo> sent(1);
    sent[0].name = name;
    EXPECT_FALSE(wire::unpack_survey(wire::pack(sent))) << name;
  }
}

TEST(Wire, EveryCutAnswerIsRefused) {
  const Bytes whole = wire::pack(sample()).data;
  for (std::size_t len = 0; len < whole.size(); ++len) {
    Reply cut = wire::pack(sample());
    cut.data.resize(len);
    EXPECT_FALSE(wire::unpack_open(std::move(cut))) << len;
  }
}

TEST(Wire, AnOpenVolumeWithoutItsDescriptorsIsRefused) {
  for (std::size_t fds = 0; fds < 3; ++fds) {
    Reply reply = wire::pack(sample());
    reply.fds.resize(fds);
    EXPECT_FALSE(wire::unpack_open(std::move(reply))) << fds;
  }
}

TEST(Wire, ForgedBytesNeverCostMoreThanTheirLength) {
  std::mt19937 random(1);  // NOLINT: the same run every time
  for (int round = 0; round < 20000; ++round) {
    Reply forged;
    forged.data.resize(random() % 200);
    for (auto& byte : forged.data) byte = static_cast<std::uint8_t>(random() % 4 == 0 ? random() : 0);
    const auto survey = wire::unpack_survey(forged);
    if (survey) {
      EXPECT_LE(survey->size(), forged.data.size());
    }
    const auto change = wire::unpack_change(forged);
    if (change) {
      EXPECT_LE(change->log.size(), forged.data.size());
    }
    const auto open = wire::unpack_open(std::move(forged));
    if (open) {
      EXPECT_TRUE(open->mounted_already);  // there were no descriptors
    }
  }
}

}  // namespace
}  // namespace ecfs::pam
