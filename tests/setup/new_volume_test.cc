#include "setup/new_volume.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "wrap/base/file.h"

namespace ecfs::setup {
namespace {

class NewVolumeTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(path_.data()), nullptr); }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string in(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] bool exists(const std::string& name) const {
    struct stat st {};
    return lstat(in(name).c_str(), &st) == 0;
  }
  void touch(const std::string& name) const {
    Fd(open(in(name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)).reset();
  }
  std::string path_ = "/tmp/ecfs-new-XXXXXX";
};

TEST_F(NewVolumeTest, ADirectoryThatIsNotKeptGoesWithAllThatIsInIt) {
  {
    auto dir = NewDirectory::make(in("low"), 0700);
    ASSERT_TRUE(dir);
    EXPECT_TRUE(dir->made());
    touch("low/file");
    ASSERT_EQ(mkdir(in("low/sub").c_str(), 0500), 0);
  }
  EXPECT_FALSE(exists("low"));
}

TEST_F(NewVolumeTest, OneThatIsKeptStays) {
  {
    auto dir = NewDirectory::make(in("low"), 0700);
    ASSERT_TRUE(dir);
    dir->keep();
  }
  EXPECT_TRUE(exists("low"));
}

TEST_F(NewVolumeTest, AnEmptyDirectoryThatWasThereIsPutBack) {
  ASSERT_EQ(mkdir(in("low").c_str(), 0755), 0);
  {
    auto dir = NewDirectory::make(in("low"), 0700);
    ASSERT_TRUE(dir);
    EXPECT_FALSE(dir->made());
    touch("low/file");
  }
  struct stat st {};
  ASSERT_EQ(lstat(in("low").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755U);
  EXPECT_FALSE(exists("low/file"));
}

TEST_F(NewVolumeTest, WhatIsNotEmptyIsRefusedAndUntouched) {
  ASSERT_EQ(mkdir(in("low").c_str(), 0755), 0);
  touch("low/file");
  EXPECT_EQ(NewDirectory::make(in("low"), 0700).error().code, Code::kBusy);
  EXPECT_TRUE(exists("low/file"));
  EXPECT_EQ(NewDirectory::make(in("low/file"), 0700).error().code, Code::kInvalid);
  ASSERT_EQ(symlink("low", in("link").c_str()), 0);
  EXPECT_EQ(NewDirectory::make(in("link"), 0700).error().code, Code::kInvalid);
  EXPECT_EQ(NewDirectory::make(in("no/such"), 0700).error().code, Code::kNotFound);
}

TEST_F(NewVolumeTest, RemovingATreeFollowsNoLink) {
  ASSERT_EQ(mkdir(in("tree").c_str(), 0700), 0);
  ASSERT_EQ(mkdir(in("outside").c_str(), 0700), 0);
  touch("outside/precious");
  ASSERT_EQ(symlink("../outside", in("tree/link").c_str()), 0);
  const Fd top = *open_directory(AT_FDCWD, path_);
  EXPECT_TRUE(remove_tree(top.get(), "tree"));
  EXPECT_FALSE(exists("tree"));
  EXPECT_TRUE(exists("outside/precious"));
  ASSERT_EQ(symlink("outside", in("link").c_str()), 0);
  EXPECT_FALSE(remove_tree(top.get(), "link"));
  EXPECT_TRUE(exists("outside/precious"));
}

TEST_F(NewVolumeTest, TwoVolumesWithOnePassphraseShareNothing) {
  const Fd dir = *open_directory(AT_FDCWD, path_);
  auto a = begin_volume({}, dir.get());
  auto b = begin_volume({}, dir.get());
  ASSERT_TRUE(a && b);
  EXPECT_NE(a->header.id, b->header.id);
  EXPECT_FALSE(a->key.equals(b->key));
  const auto passphrase = Secret::copy_of(as_bytes("one passphrase"));
  ASSERT_TRUE(a->add_password("", *passphrase, {19 * 1024, 2, 4}));
  ASSERT_TRUE(b->add_password("", *passphrase, {19 * 1024, 2, 4}));
  EXPECT_NE(a->area.slots[0].raw, b->area.slots[0].raw);
  ASSERT_TRUE(a->add_password("", *passphrase, {19 * 1024, 2, 4}));
  EXPECT_NE(a->area.slots[0].id, a->area.slots[1].id);
}

TEST_F(NewVolumeTest, OptionsBecomeTheHeader) {
  const Fd dir = *open_directory(AT_FDCWD, path_);
  auto plain = begin_volume({}, dir.get());
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->header.block_shift, 12);
  EXPECT_EQ(plain->header.longest_name, 0);
  EXPECT_FALSE(plain->header.sealed_size());
  VolumeOptions options;
  options.block_size = "64k";
  options.name_encoding = "base32hex";
  options.suite = "chacha20-poly1305";
  options.longest_name = 143;
  options.sealed_size = true;
  auto chosen = begin_volume(options, dir.get());
  ASSERT_TRUE(chosen);
  EXPECT_EQ(chosen->header.block_shift, 16);
  EXPECT_EQ(chosen->header.longest_name, 143);
  EXPECT_EQ(chosen->header.name_encoding, wrap::NameEncoding::kBase32Hex);
  EXPECT_EQ(chosen->header.suite, wrap::Suite::kChaCha20Poly1305);
  EXPECT_TRUE(chosen->header.sealed_size());
}

}  // namespace
}  // namespace ecfs::setup
