// CVE-2009-0787: eCryptfs wrote memory that nobody had set into the headers of files. Here all memory that malloc hands
// out is full of one byte, and what is taken back of another; neither may come to stand in a lower file.
#include <malloc.h>

#include "fs/format/ecryptfs_contents.h"
#include "tests/fs/format/ecryptfs_vectors.h"
#include "tests/fs/format/recorder.h"

namespace ecfs::fs::test {
namespace {

constexpr int kTakenBack = 0x5A;
constexpr std::uint8_t kHandedOut = 0xFF ^ kTakenBack;
constexpr std::size_t kRun = 6;  // random bytes give such a run once in 2^47 places

// The longest run of one of the two bytes.
std::size_t longest_run(const Bytes& bytes) {
  std::size_t longest = 0;
  std::size_t run = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const bool of_memory = bytes[i] == kTakenBack || bytes[i] == kHandedOut;
    run = !of_memory ? 0 : i > 0 && bytes[i] == bytes[i - 1] ? run + 1 : 1;
    longest = std::max(longest, run);
  }
  return longest;
}

class MemoryStored : public testing::Test {
 protected:
  void SetUp() override {
    mallopt(M_PERTURB, kTakenBack);
    const std::unique_ptr<std::uint8_t[]> fresh(new std::uint8_t[4096]);
    // Read as a pointer to volatile: what is in it is the question.
    const volatile std::uint8_t* look = fresh.get();
    if (look[100] != kHandedOut) GTEST_SKIP() << "this malloc does not fill memory (a sanitizer's)";
  }
  void TearDown() override { mallopt(M_PERTURB, 0); }
};

// Sizes around the ends of blocks, pages and groups; grown, cut and written in the middle.
void write_every_way(Contents& contents, const std::function<Bytes()>& stored) {
  std::size_t written = 0;
  for (const std::size_t size : {std::size_t{1}, std::size_t{100}, std::size_t{4000}, std::size_t{4096},
                                 std::size_t{5000}, std::size_t{70000}, std::size_t{600001}}) {
    ASSERT_TRUE(contents.write(size / 2, Bytes(size - size / 2, 7)));
    ASSERT_TRUE(contents.settle());
    ASSERT_LT(longest_run(stored()), kRun) << size;
    ASSERT_TRUE(contents.truncate(size + 3));
    ASSERT_TRUE(contents.truncate(size - size / 3));
    ASSERT_TRUE(contents.settle());
    ASSERT_LT(longest_run(stored()), kRun) << size;
    written += size;
  }
  EXPECT_GT(stored().size(), written / 4);
}

TEST_F(MemoryStored, CVE_2009_0787_NotInNativeFiles) {
  for (const VolumeKind kind : {VolumeKind{}, VolumeKind{wrap::Suite::kChaCha20Poly1305, 14, true, false}}) {
    const auto format = make_format(kind);
    LowerFile lower(memory_file(), true);
    const auto contents = need(format->open_contents_to_truncate(lower));
    ASSERT_TRUE(contents->truncate(0));
    write_every_way(*contents, [&] { return contents_of(lower); });
  }
}

TEST_F(MemoryStored, CVE_2009_0787_NotInEcryptfsFiles) {
  EcryptfsKeys keys;
  keys.all.push_back(need(EcryptfsKey::derive(need(Secret::copy_of(as_bytes("a passphrase"))), kEcryptfsContentSalt)));
  const EcryptfsSignature signature = keys.all[0].signature;
  const auto volume =
      std::make_shared<EcryptfsVolume>(EcryptfsVolume{.keys = std::move(keys),
                                                      .ciphers = need(EcryptfsCiphers::fetch()),
                                                      .cipher = need(EcryptfsCipher::by_name("aes", 16)),
                                                      .signatures = {signature}});
  LowerFile lower(memory_file(), true);
  const auto contents = need(open_ecryptfs_contents(volume, lower));
  write_every_way(*contents, [&] { return contents_of(lower); });
}

}  // namespace
}  // namespace ecfs::fs::test
