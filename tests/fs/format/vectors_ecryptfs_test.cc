// Checks the eCryptfs format, through the Format interface, against lower trees that a kernel made
// (tests/vectors/ecryptfs/README.md): names, links, sizes and contents decoded, and encoded again to the same bytes.
// ECFS_ECRYPTFS_VECTORS names another folder of the same make.
#include <fcntl.h>

#include <set>

#include "fs/format/ecryptfs_format.h"
#include "tests/fs/format/ecryptfs_vectors.h"

namespace ecfs::fs::test {
namespace {

std::map<std::string, int>& counts() {
  static std::map<std::string, int> all;
  return all;
}

bool has_option(const EcryptfsCase& c, const std::string& option) {
  const Json extra = c.manifest.value("extra", Json::array());
  return std::find(extra.begin(), extra.end(), option) != extra.end();
}

Result<std::unique_ptr<Format>> format_of(const EcryptfsCase& c, bool view = false) {
  EcryptfsFormatOptions options;
  options.cipher =
      need(EcryptfsCipher::by_name(c.manifest.at("cipher").get<std::string>(), c.manifest.at("key_bytes")));
  const EcryptfsKeys keys = c.keys();
  options.signatures = {keys.all.front().signature};
  const std::string fnek = c.manifest.value("fnek", "");
  if (!fnek.empty()) options.name_signature = (fnek == "default" ? keys.all.back() : keys.all.front()).signature;
  options.name_cipher = c.name_cipher();
  options.passthrough = has_option(c, "ecryptfs_passthrough");
  options.place = has_option(c, "ecryptfs_xattr_metadata") ? EcryptfsPlace::kXattr : EcryptfsPlace::kFile;
  options.encrypted_view = view;
  return make_ecryptfs_format(options, need(keys.pack()));
}

// The lower file of an entry: in memory, or on the disk of the test if it has an attribute.
LowerFile lower_file(const TarEntry& entry, std::size_t num_bytes) {
  const ByteView bytes = ByteView(entry.data).first(num_bytes);
  if (!entry.attribute) return LowerFile(memory_file(bytes), true);
  LowerFile lower(Fd(::open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)), true);
  EXPECT_TRUE(lower.write_xattr("user.ecryptfs", *entry.attribute)) << "run this where files keep attributes of users";
  EXPECT_TRUE(lower.write_at(0, bytes));
  return lower;
}

void check_names(const EcryptfsCase& c, const Format& format, const Json& entry) {
  const std::string plain = EcryptfsCase::path_of(entry);
  bool found = false;
  for (const Json& text : entry.at("lower")) {
    std::string lower = EcryptfsCase::lower_of(text);
    std::string decoded;
    for (std::size_t at = 0; at <= lower.size();) {
      const std::size_t end = std::min(lower.find('/', at), lower.size());
      const std::string part = lower.substr(at, end - at);
      EXPECT_EQ(format.kind_of(part), LowerNameKind::kName);
      const std::string name = need(format.decode_name({}, part));
      EXPECT_EQ(need(format.encode_name({}, name)).entry, part);
      decoded += (decoded.empty() ? "" : "/") + name;
      at = end + 1;
      ++counts()["components of names"];
    }
    found = found || decoded == plain;
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(format.longest_plain_name(), c.manifest.at("f_namelen"));
  ++counts()["paths"];
}

void check_link(const Format& format, const Json& entry, const TarEntry& lower) {
  const std::string target = entry.at("target");
  EXPECT_EQ(need(format.decode_link(lower.target)), target);
  EXPECT_EQ(need(format.encode_link(target)), lower.target);
  EXPECT_EQ(format.link_size(lower.target.size()).value_or(target.size()), entry.at("size"));
  ++counts()["links"];
}

void check_file(const Format& format, const Json& entry, const TarEntry& lower) {
  EXPECT_EQ(lower.data.size(), entry.at("lower_size"));
  LowerFile file = lower_file(lower, lower.data.size());
  const auto contents = need(format.open_contents(file));
  EXPECT_EQ(need(contents->size()), entry.at("size"));
  const Bytes plain = need(read_all(*contents));
  EXPECT_EQ(to_hex(need(wrap::sha256({plain}))), entry.at("sha256"));
  EXPECT_EQ(need(read_all(*contents, 1000)), plain);
  ++counts()["files"];

  // The same file once more, from its header alone.
  const auto header = parse_ecryptfs_header(lower.data, EcryptfsPlace::kFile);
  if (!header && !lower.attribute) {
    ++counts()["plain files passed through"];
    return;
  }
  const std::size_t from = header ? header->data_offset(EcryptfsPlace::kFile) : 0;
  for (const std::size_t step : {std::size_t{777}, std::size_t{4096}, std::size_t{1} << 20}) {
    TarEntry empty = lower;
    std::fill_n((header ? empty.data : *empty.attribute).begin(), kEcryptfsSizeBytes, std::uint8_t{0});
    LowerFile again = lower_file(empty, from);
    const auto writer = need(format.open_contents(again));
    for (std::size_t at = 0; at < plain.size(); at += step) {
      const ByteView part = ByteView(plain).subspan(at, std::min(step, plain.size() - at));
      EXPECT_EQ(need(writer->write(at, part)), part.size());
    }
    EXPECT_TRUE(writer->settle() && writer->finish());
    EXPECT_EQ(contents_of(again), lower.data);
    if (lower.attribute) {
      EXPECT_EQ(need(again.read_xattr("user.ecryptfs")), lower.attribute);
    }
  }
  ++counts()[header ? "files written again" : "files written again, with attribute"];
}

TEST(EcryptfsVectors, TreesOfAKernel) {
  std::set<std::string> refused;
  for (const EcryptfsCase& c : ecryptfs_cases()) {
    SCOPED_TRACE(c.name);
    const auto format = format_of(c);
    if (!c.supported()) {
      ASSERT_FALSE(format);
      EXPECT_EQ(format.error().code, Code::kUnsupported);
      EXPECT_NE(format.error().what.find(c.manifest.at("cipher").get<std::string>()), std::string::npos);
      refused.insert(c.manifest.at("cipher"));
      ++counts()["trees refused for their cipher"];
      continue;
    }
    ASSERT_TRUE(format) << why(format);
    for (const Json& entry : c.manifest.at("entries")) {
      SCOPED_TRACE(EcryptfsCase::path_of(entry));
      const TarEntry& lower = c.lower.at(EcryptfsCase::lower_of(entry.at("lower").at(0)));
      check_names(c, **format, entry);
      if (entry.at("type") == "symlink") check_link(**format, entry, lower);
      if (entry.at("type") == "file") check_file(**format, entry, lower);
    }
    ++counts()["trees"];
  }
  EXPECT_GT(counts()["files"], 0);
}

TEST(EcryptfsVectors, EncryptedViews) {
  for (const EcryptfsCase& c : ecryptfs_cases()) {
    const Json files = c.manifest.value("encrypted_view_files", Json::object());
    if (files.empty()) continue;
    SCOPED_TRACE(c.name);
    const auto format = need(format_of(c, true));
    for (const auto& [path, seen] : files.items()) {
      SCOPED_TRACE(path);
      const TarEntry& lower = c.lower.at(path);
      LowerFile file = lower_file(lower, lower.data.size());
      const auto contents = need(format->open_contents(file));
      const Bytes bytes = need(read_all(*contents, 5000));
      EXPECT_EQ(bytes.size(), seen.at("size"));
      EXPECT_EQ(to_hex(need(wrap::sha256({bytes}))), seen.at("sha256"));
      ++counts()["files in the encrypted view"];
    }
  }
}

TEST(EcryptfsVectors, KeysDroppedAndRestored) {
  for (const EcryptfsCase& c : ecryptfs_cases()) {
    if (c.manifest.value("fnek", "") != "default" || !c.supported()) continue;
    SCOPED_TRACE(c.name);
    const auto format = need(format_of(c));
    const std::string lower = need(format->encode_name({}, "a name")).entry;
    format->drop_keys();
    EXPECT_EQ(format->encode_name({}, "a name").error().code, Code::kNoKey);
    EXPECT_EQ(format->restore_keys(need(Secret::copy_of(as_bytes("another")))).error().code, Code::kWrongKey);
    EXPECT_EQ(format->decode_name({}, lower).error().code, Code::kNoKey);
    EcryptfsKeys few = c.keys();
    few.all.pop_back();
    EXPECT_EQ(format->restore_keys(need(few.pack())).error().code, Code::kWrongKey);
    EXPECT_TRUE(format->restore_keys(need(c.keys().pack())));
    EXPECT_EQ(need(format->decode_name({}, lower)), "a name");
  }
}

class Printer : public testing::Environment {
 public:
  void TearDown() override {
    std::printf("vectors checked (%s):\n", ecryptfs_folder().c_str());
    for (const auto& [kind, num] : counts()) std::printf("  %-36s %6d\n", kind.c_str(), num);
  }
};
const auto* const kPrinter = testing::AddGlobalTestEnvironment(new Printer);

}  // namespace
}  // namespace ecfs::fs::test
