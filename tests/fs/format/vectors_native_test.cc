// Checks the native format against vectors that another implementation made (tests/vectors/native/README.md): decoding,
// refusing, encoding with given ids and nonces, names and sizes. Nothing here depends on the seed, the number or the
// names of the vectors, so that a second set can be run through the same program: ECFS_NATIVE_VECTORS names its folder.
#include <fcntl.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "fs/format/native_header.h"
#include "fs/format/native_keys.h"
#include "tests/fs/format/support.h"
#include "wrap/volume_header.h"

namespace ecfs::fs::test {
namespace {

using Json = nlohmann::json;

std::string folder() {
  const char* other = std::getenv("ECFS_NATIVE_VECTORS");
  return other != nullptr && *other != '\0' ? other : ECFS_TEST_VECTORS "/native";
}

Bytes file_bytes(const std::string& name) {
  std::ifstream in(folder() + "/" + name, std::ios::binary);
  if (!in) {
    ADD_FAILURE() << "cannot open " << folder() << "/" << name;
    std::abort();
  }
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

const Json& vectors() {
  static const Json kAll = Json::parse(file_bytes("vectors.json"));
  return kAll;
}

Bytes hex(const Json& value) { return need(from_hex(value.get<std::string>())); }
std::string text(const Json& value) { return std::string(as_text(hex(value))); }
template <std::size_t N>
std::array<std::uint8_t, N> array_of(ByteView bytes) {
  EXPECT_EQ(bytes.size(), N);
  std::array<std::uint8_t, N> out{};
  std::copy_n(bytes.begin(), std::min(N, bytes.size()), out.begin());
  return out;
}

Secret volume_key() { return need(Secret::copy_of(hex(vectors().at("volume_key")))); }
wrap::VolumeId volume_id() { return array_of<16>(hex(vectors().at("volume_id"))); }

Secret key_of(const std::string& label) {
  return need(wrap::hkdf_expand(need(wrap::volume_prk(volume_id(), volume_key())), "ecfs1 " + label,
                                hex(vectors().at("keys").at(label)).size()));
}

NativeFormatOptions options_for(const Json& vector) {
  NativeFormatOptions options;
  options.header.id = volume_id();
  options.header.suite = static_cast<wrap::Suite>(vector.value("suite", 1));
  options.header.block_shift = static_cast<std::uint8_t>(vector.value("shift", 12));
  options.header.name_encoding = static_cast<wrap::NameEncoding>(vector.value("enc", 1));
  options.header.longest_name = static_cast<std::uint8_t>(vector.value("longest", 0));
  options.header.incompat = vector.value("sealed_volume", false) ? wrap::kIncompatSealedSize : 0;
  return options;
}

std::unique_ptr<Format> format_for(const Json& vector) {
  return need(make_native_format(options_for(vector), volume_key()));
}

std::unique_ptr<Format> scripted_format(const Json& vector, Bytes script) {
  return need(make_native_format(options_for(vector), volume_key(), std::make_shared<Scripted>(std::move(script))));
}

std::string sha256_hex(ByteView bytes) { return to_hex(need(wrap::sha256({bytes}))); }

std::map<std::string, int>& counts() {
  static std::map<std::string, int> all;
  return all;
}

// each goes through a list of the vectors, which must be there and not be empty.
template <class F>
void each(const std::string& kind, F check) {
  ASSERT_TRUE(vectors().contains(kind)) << kind << " is missing";
  const Json& list = vectors().at(kind);
  ASSERT_TRUE(list.is_array() && !list.empty()) << kind << " is empty";
  for (const Json& vector : list) {
    SCOPED_TRACE(kind + " " + vector.dump().substr(0, 300));
    check(vector);
    ++counts()[kind];
  }
}

// encode_file writes `plain` into an empty lower file with the given ids and nonces, `step` bytes a request.
Bytes encode_file(const Json& vector, ByteView plain, Bytes script, std::size_t step) {
  auto nonces = std::make_shared<Scripted>(std::move(script));
  const auto format = need(make_native_format(options_for(vector), volume_key(), nonces));
  LowerFile lower(memory_file(), true);
  {
    const auto contents = need(format->open_contents(lower));
    for (std::size_t at = 0; at < plain.size(); at += step) {
      const ByteView part = plain.subspan(at, std::min(step, plain.size() - at));
      const auto written = contents->write(at, part);
      EXPECT_TRUE(written) << why(written);
      EXPECT_EQ(written ? *written : 0, part.size());
    }
    EXPECT_TRUE(contents->settle());
    EXPECT_TRUE(contents->finish());
  }
  EXPECT_TRUE(nonces->used_up());
  return contents_of(lower);
}

class NativeVectors : public testing::Test {
 protected:
  static void TearDownTestSuite() {
    std::printf("vectors checked (%s):\n", folder().c_str());
    for (const auto& [kind, num] : counts()) std::printf("  %-32s %6d\n", kind.c_str(), num);
  }
};

TEST_F(NativeVectors, HoldsAllKindsAndNoUnknownOne) {
  const std::set<std::string> known{
      "format",  "volume_key",   "volume_id",     "keys",          "volume_headers", "volume_headers_bad",
      "names",   "sidecars_bad", "names_bad",     "symlinks",      "directory_ids",  "dirfiles",
      "xattrs",  "sizes",        "places",        "files",         "sizes_torn",     "generated",
      "reverse", "reverse_link", "reverse_xattr", "reverse_inline"};
  for (const auto& [kind, value] : vectors().items()) {
    EXPECT_TRUE(known.contains(kind)) << "unknown kind " << kind;
    EXPECT_FALSE(value.empty()) << kind;
  }
  for (const std::string& kind : known) EXPECT_TRUE(vectors().contains(kind)) << kind << " is missing";
  EXPECT_EQ(vectors().at("format"), "ecfs native 1");
}

TEST_F(NativeVectors, Keys) {
  const NativeKeys keys = need(NativeKeys::derive(volume_id(), volume_key()));
  const std::map<std::string, const Secret*> ours{
      {"file", &keys.file},   {"dir", &keys.dir},         {"long", &keys.longs},  {"name", &keys.name},
      {"dirid", &keys.dirid}, {"symlink", &keys.symlink}, {"xname", &keys.xname}, {"xvalue", &keys.xvalue}};
  const Json& given = vectors().at("keys");
  for (const auto& [label, value] : given.items()) {
    SCOPED_TRACE(label);
    const auto it = ours.find(label);
    const Secret other = key_of(label);
    EXPECT_EQ(to_hex((it == ours.end() ? other : *it->second).reveal()), value);
    ++counts()["keys"];
  }
  for (const auto& [label, key] : ours) EXPECT_TRUE(given.contains(label)) << label;
  EXPECT_TRUE(given.contains("hdr") && given.contains("reverse"));
}

TEST_F(NativeVectors, VolumeHeaders) {
  each("volume_headers", [](const Json& v) {
    const Bytes raw = hex(v.at("raw"));
    const auto parsed = wrap::parse_volume_file(raw);
    ASSERT_TRUE(parsed) << why(parsed);
    EXPECT_TRUE(wrap::verify_volume_file(*parsed, volume_key()));
    EXPECT_EQ(parsed->header.id, volume_id());
    EXPECT_EQ(static_cast<int>(parsed->header.suite), v.at("suite"));
    EXPECT_EQ(parsed->header.block_shift, v.at("shift"));
    EXPECT_EQ(static_cast<int>(parsed->header.name_encoding), v.at("enc"));
    EXPECT_EQ(parsed->header.longest_name, v.value("longest", 0));
    EXPECT_EQ(to_hex(parsed->slots), v.at("slots"));
    wrap::VolumeHeader header = options_for(v).header;
    header.compat = parsed->header.compat;
    header.ro_compat = parsed->header.ro_compat;
    header.incompat = parsed->header.incompat;
    const auto built = wrap::build_volume_file(header, hex(v.at("slots")), volume_key());
    ASSERT_TRUE(built) << why(built);
    EXPECT_EQ(to_hex(*built), to_hex(raw));
  });
  each("volume_headers_bad", [](const Json& v) {
    const auto parsed = wrap::parse_volume_file(hex(v.at("raw")));
    EXPECT_TRUE(!parsed || !wrap::verify_volume_file(*parsed, volume_key())) << "accepted";
  });
}

TEST_F(NativeVectors, Directories) {
  const auto format = format_for(Json::object());
  each("directory_ids", [&](const Json& v) {
    const std::string path = text(v.at("path_hex"));
    ASSERT_TRUE(path.starts_with('/'));
    DirId id = need(format->root_id());
    for (std::size_t at = 1; at < path.size();) {
      const std::size_t end = std::min(path.find('/', at), path.size());
      id = need(format->child_id(id, path.substr(at, end - at)));
      at = end + 1;
    }
    EXPECT_EQ(to_hex(id), v.at("id"));
  });
  each("dirfiles", [&](const Json& v) {
    const Bytes raw = hex(v.at("raw"));
    const DirId id = array_of<16>(hex(v.at("id")));
    EXPECT_EQ(to_hex(need(format->store_dir_id(id))), to_hex(raw));
    EXPECT_EQ(need(format->read_dir_id(raw)), id);
    for (std::size_t i = 0; i < raw.size(); ++i) {
      Bytes changed = raw;
      changed[i] ^= 0x10;
      const auto read = format->read_dir_id(changed);
      EXPECT_TRUE(!read && read.error().code == Code::kCorrupt) << "byte " << i;
      EXPECT_FALSE(format->read_dir_id(ByteView(raw).first(i)));
    }
  });
}

TEST_F(NativeVectors, Names) {
  each("names", [](const Json& v) {
    const auto format = format_for(v);
    const DirId dir = array_of<16>(hex(v.at("dir_id")));
    const std::string plain = text(v.at("name"));
    const std::string lower = v.at("lower");
    const auto encoded = format->encode_name(dir, plain);
    ASSERT_TRUE(encoded) << why(encoded);
    EXPECT_EQ(encoded->entry, lower);
    EXPECT_EQ(encoded->side.has_value(), !v.at("sidecar").is_null());
    if (v.at("sidecar").is_null()) {
      EXPECT_EQ(format->kind_of(lower), LowerNameKind::kName);
      EXPECT_EQ(need(format->decode_name(dir, lower)), plain);
      ++counts()["names (short)"];
    } else {
      EXPECT_EQ(format->kind_of(lower), LowerNameKind::kLongName);
      EXPECT_EQ(format->kind_of(lower + ".n"), LowerNameKind::kOurs);
      EXPECT_FALSE(format->decode_name(dir, lower));
      const Bytes side = hex(v.at("sidecar"));
      EXPECT_EQ(to_hex(*encoded->side), to_hex(side));
      EXPECT_EQ(need(format->decode_long_name(dir, lower, side)), plain);
      ++counts()["names (long)"];
    }
  });
  each("names_bad", [](const Json& v) {
    const auto decoded =
        format_for(v)->decode_name(array_of<16>(hex(v.at("dir_id"))), v.at("lower").get<std::string>());
    ASSERT_FALSE(decoded) << *decoded;
    EXPECT_EQ(decoded.error().code, Code::kCorrupt);
  });
  each("sidecars_bad", [](const Json& v) {
    const auto decoded = format_for(v)->decode_long_name(array_of<16>(hex(v.at("dir_id"))),
                                                         v.at("lower").get<std::string>(), hex(v.at("sidecar")));
    ASSERT_FALSE(decoded) << *decoded;
    EXPECT_EQ(decoded.error().code, Code::kCorrupt);
  });
}

void check_link(const std::string& target, const Bytes& nonce, const std::string& lower) {
  const auto format = scripted_format(Json::object(), nonce);
  EXPECT_EQ(need(format->encode_link(target)), lower);
  EXPECT_EQ(need(format->decode_link(lower)), target);
  EXPECT_EQ(format->link_size(lower.size()), target.size());
}

void check_xattr(const std::string& name, const Bytes& nonce, const Bytes& value, const std::string& lower_name,
                 const Bytes& lower_value) {
  const auto format = scripted_format(Json::object(), nonce);
  EXPECT_EQ(need(format->encode_xattr_name(name)), lower_name);
  EXPECT_EQ(format->decode_xattr_name(lower_name), name);
  EXPECT_EQ(to_hex(need(format->encode_xattr_value(name, value))), to_hex(lower_value));
  EXPECT_EQ(to_hex(need(format->decode_xattr_value(name, lower_value))), to_hex(value));
  EXPECT_EQ(format->xattr_value_size(lower_value.size()), value.size());
}

TEST_F(NativeVectors, LinksAndXattrs) {
  each("symlinks", [](const Json& v) { check_link(text(v.at("target")), hex(v.at("nonce")), v.at("lower")); });
  each("xattrs", [](const Json& v) {
    check_xattr(v.at("name"), hex(v.at("nonce")), hex(v.at("value")), v.at("lower_name"), hex(v.at("lower_value")));
  });
}

TEST_F(NativeVectors, SizesAndPlaces) {
  const auto geometry = [](const Json& v) { return Geometry(v.at("shift").get<std::uint8_t>()); };
  each("sizes", [&](const Json& v) {
    EXPECT_EQ(geometry(v).lower_size(v.at("upper")), v.at("lower"));
    EXPECT_EQ(geometry(v).plain_size(v.at("lower")), v.at("upper"));
  });
  each("sizes_torn", [&](const Json& v) { EXPECT_EQ(geometry(v).plain_size(v.at("lower")), v.at("upper")); });
  each("places", [&](const Json& v) {
    const Geometry g = geometry(v);
    const std::uint64_t block = v.at("block");
    EXPECT_EQ(g.meta_offset(block / kBlocksPerGroup), v.at("meta"));
    EXPECT_EQ(g.entry_offset(block), v.at("entry"));
    EXPECT_EQ(g.data_offset(block), v.at("data"));
  });
}

// What a lower file that opens is made of, taken apart with the codec.
struct Parts {
  RawHeader raw;
  FileState state;
  Bytes script;       // id, header's nonce, nonces of the blocks: what its encoder drew
  bool plain = true;  // written in one go and complete: the encoder makes nothing else
};

Parts take_apart(const Json& v, const Bytes& lower, std::uint64_t plain_size) {
  const NativeKeys keys = need(NativeKeys::derive(volume_id(), volume_key()));
  const Ciphers ciphers = need(Ciphers::fetch());
  const Geometry g(static_cast<std::uint8_t>(v.value("shift", 12)));
  Parts parts;
  parts.raw = need(parse_header(lower, g.block_shift()));
  const auto cipher = need(FileCipher::make(keys, ciphers, parts.raw.fixed));
  auto opener = need(cipher->opener());
  auto sealer = need(cipher->sealer());
  const auto nonce_at = [&](std::uint64_t at) {
    return array_of<kNonceBytes>(ByteView(lower).subspan(at, kNonceBytes));
  };

  // The header, from its own nonce and state.
  Bytes contents(parts.raw.inline_len);
  parts.state = need(open_header(opener, parts.raw, lower, contents));
  Bytes header(kFileHeaderBytes + contents.size());
  EXPECT_TRUE(seal_header(sealer, parts.raw.fixed, parts.state, nonce_at(24), contents, header));
  EXPECT_TRUE(std::equal(header.begin(), header.end(), lower.begin())) << "header encoded otherwise";
  ++counts()["files: header encoded again"];

  parts.script.assign(lower.begin() + 8, lower.begin() + 36);
  if (contents.empty()) {
    for (std::uint64_t block = 0; block < g.num_blocks(plain_size); ++block) {
      Entry entry;
      std::copy_n(lower.begin() + static_cast<std::ptrdiff_t>(g.entry_offset(block)), kEntryBytes,
                  reinterpret_cast<std::uint8_t*>(&entry));
      const std::uint64_t len = std::min(g.block_bytes(), plain_size - block * g.block_bytes());
      if (!entry.previous.absent() || entry.current.pending() || entry.current.length() != len) parts.plain = false;
      append(parts.script, entry.current.nonce);
      // Each version that verifies, encrypted again under its own nonce.
      BlockAssociated associated(parts.raw.fixed);
      for (const Version& version : {entry.current, entry.previous}) {
        const std::uint64_t there = std::min<std::uint64_t>(g.block_bytes(), lower.size() - g.data_offset(block));
        if (!version.may_hold(there)) continue;
        const ByteView sealed = ByteView(lower).subspan(g.data_offset(block), version.length());
        Bytes opened(sealed.size());
        if (!need(opener.open(version.nonce, version.tag, associated.of(block), sealed, opened.data()))) continue;
        Tag tag{};
        EXPECT_TRUE(sealer.seal(version.nonce, associated.of(block), opened, opened.data(), tag));
        EXPECT_EQ(tag, version.tag);
        EXPECT_TRUE(std::equal(opened.begin(), opened.end(), sealed.begin()));
        ++counts()["files: block encoded again"];
      }
    }
    const std::uint64_t behind = g.num_blocks(plain_size);
    for (std::uint64_t block = behind; block % kBlocksPerGroup != 0; ++block) {
      if (!all_zero(ByteView(lower).subspan(g.entry_offset(block), kEntryBytes))) parts.plain = false;
    }
  }
  if (parts.state != FileState{} || lower.size() != g.lower_size(plain_size)) parts.plain = false;
  return parts;
}

TEST_F(NativeVectors, Files) {
  each("files", [](const Json& v) {
    const Bytes stored = file_bytes(v.at("file"));
    ASSERT_EQ(stored.size(), v.at("lower_size"));
    const auto format = format_for(v);
    EXPECT_EQ(format->plain_size(stored.size()), v.at("stat_size"));
    if (v.contains("file_id") && stored.size() > kFileHeaderBytes) {
      EXPECT_EQ(to_hex(ByteView(stored).subspan(8, 16)), v.at("file_id"));
      const auto key = need(wrap::hmac_sha256(need(NativeKeys::derive(volume_id(), volume_key())).file.reveal(),
                                              {as_bytes("ecfs1 content"), ByteView(stored).first(kFileFixedBytes)}));
      EXPECT_EQ(to_hex(key), v.at("file_key"));
    }

    LowerFile lower(memory_file(stored), true);
    const auto opened = format->open_contents(lower);
    if (v.contains("expect")) {
      ASSERT_EQ(v.at("expect"), "EIO");
      ASSERT_FALSE(opened) << "opened";
      EXPECT_EQ(opened.error().code, Code::kCorrupt);
      EXPECT_EQ(errno_of(opened.error()), EIO);
      // Truncation to nothing is what such a file still answers to.
      const auto to_truncate = need(format->open_contents_to_truncate(lower));
      EXPECT_TRUE(to_truncate->truncate(0));
      EXPECT_EQ(need(to_truncate->size()), 0U);
      const Bytes hello{'h', 'i'};
      EXPECT_EQ(need(to_truncate->write(0, hello)), hello.size());
      EXPECT_TRUE(to_truncate->finish());
      EXPECT_EQ(need(read_all(*need(format->open_contents(lower)))), hello);
      ++counts()["files: refused"];
      return;
    }
    ASSERT_TRUE(opened) << why(opened);
    Contents& contents = **opened;
    const std::uint64_t size = need(contents.size());
    ASSERT_EQ(size, v.at("plain_size"));

    // Block by block; then in one go, and in steps that fit nothing.
    const std::uint64_t b = Geometry(static_cast<std::uint8_t>(v.value("shift", 12))).block_bytes();
    std::set<std::uint64_t> bad;
    for (const Json& block : v.value("bad_blocks", Json::array())) bad.insert(block.get<std::uint64_t>());
    Bytes plain(size);
    for (std::uint64_t at = 0; at < size; at += b) {
      const MutableByteView part = MutableByteView(plain).subspan(at, std::min(b, size - at));
      const auto got = contents.read(at, part);
      if (bad.contains(at / b)) {
        EXPECT_TRUE(!got && errno_of(got.error()) == EIO) << "bad block " << at / b << " was read";
        std::array<std::uint8_t, 1> one{};
        EXPECT_FALSE(contents.read(at + part.size() - 1, one));
        std::fill(part.begin(), part.end(), std::uint8_t{0});
        ++counts()["files: bad block refused"];
      } else {
        ASSERT_TRUE(got) << "block " << at / b << ": " << why(got);
        ASSERT_EQ(*got, part.size());
      }
    }
    EXPECT_EQ(sha256_hex(plain), v.at("plain_sha256"));
    for (const std::size_t step : {std::size_t{1} << 22, std::size_t{777}, std::size_t{5000}}) {
      const auto again = read_all(contents, step);
      EXPECT_EQ(static_cast<bool>(again), bad.empty()) << why(again);
      if (again) {
        EXPECT_EQ(*again, plain);
      }
    }
    std::array<std::uint8_t, 8> behind{};
    EXPECT_EQ(need(contents.read(size, behind)), 0U);
    ++counts()["files: decoded"];

    if (size > 0) {
      const Parts parts = take_apart(v, stored, size);
      if (parts.plain && bad.empty()) {
        Json kind = v;
        kind["suite"] = parts.raw.fixed[5];
        // In one request, and block by block: the order of the nonces is that of the blocks either way.
        EXPECT_EQ(encode_file(kind, plain, parts.script, size), stored);
        if (size > kInlineMaxBytes) {
          EXPECT_EQ(encode_file(kind, plain, parts.script, std::max<std::size_t>(b, 8192)), stored);
        }
        ++counts()["files: encoded to the same bytes"];
      }
    }

    // A bad block can be overwritten whole, and all is well then.
    if (!bad.empty()) {
      for (const std::uint64_t block : bad) {
        const Bytes fresh(std::min(b, size - block * b), 0);
        EXPECT_EQ(need(contents.write(block * b, fresh)), fresh.size());
      }
      EXPECT_TRUE(contents.finish());
      EXPECT_EQ(need(read_all(*need(format->open_contents(lower)))), plain);
    }
  });
  EXPECT_GT(counts()["files: refused"], 0);
  EXPECT_GT(counts()["files: bad block refused"], 0);
  EXPECT_GT(counts()["files: encoded to the same bytes"], 0);
}

Bytes counted(std::string_view label, std::uint64_t k) {
  std::array<std::uint8_t, 8> number{};
  store_le(number.data(), k);
  const auto hash = need(wrap::sha256({as_bytes(label), number}));
  return Bytes(hash.begin(), hash.end());
}

TEST_F(NativeVectors, Generated) {
  each("generated", [](const Json& v) {
    const std::uint64_t size = v.at("plain_size");
    Bytes plain;
    for (std::uint64_t k = 0; plain.size() < size; ++k) append(plain, counted("ecfs plain", k));
    plain.resize(size);
    const Geometry g(v.at("shift").get<std::uint8_t>());
    Bytes script = hex(v.at("file_id"));
    const std::uint64_t num_nonces = 1 + (size > kInlineMaxBytes ? g.num_blocks(size) : 0);
    for (std::uint64_t k = 0; k < num_nonces; ++k)
      append(script, ByteView(counted("ecfs nonce", k)).first(kNonceBytes));
    const Bytes lower = encode_file(v, plain, script, size);
    EXPECT_EQ(lower.size(), v.at("lower_size"));
    EXPECT_EQ(sha256_hex(lower), v.at("lower_sha256"));
    LowerFile file(memory_file(lower), false);
    EXPECT_EQ(need(read_all(*need(format_for(v)->open_contents(file)))), plain);
  });
}

// --- The reverse view: ids and nonces are functions of place and contents -------------------------------------------

Bytes hmac_reverse(std::uint8_t purpose, std::initializer_list<ByteView> parts, std::size_t len) {
  Bytes message{purpose};
  for (const ByteView part : parts) append(message, part);
  const auto hash = need(wrap::hmac_sha256(key_of("reverse").reveal(), {message}));
  return Bytes(hash.begin(), hash.begin() + static_cast<std::ptrdiff_t>(len));
}

Bytes reverse_id(const Json& v) { return hmac_reverse(2, {hex(v.at("dir_id")), hex(v.at("name"))}, 16); }

Bytes reverse_nonce(ByteView id, std::uint64_t block, ByteView plain) {
  std::array<std::uint8_t, 8> number{};
  store_le(number.data(), block);
  return hmac_reverse(3, {id, number, plain}, kNonceBytes);
}

void check_reverse_file(const Json& v) {
  const Bytes id = reverse_id(v);
  EXPECT_EQ(to_hex(id), v.at("file_id"));
  const Bytes plain = hex(v.at("plain"));
  const Geometry g(static_cast<std::uint8_t>(v.value("shift", 12)));
  const bool is_inline = plain.size() <= kInlineMaxBytes;
  Bytes state(8, 0xff);
  state[7] = 0x7f;  // not sealed, no holes
  if (is_inline) append(state, plain);
  Bytes script = id;
  append(script, reverse_nonce(id, ~std::uint64_t{0}, state));
  for (std::uint64_t at = 0; !is_inline && at < plain.size(); at += g.block_bytes()) {
    const ByteView part = ByteView(plain).subspan(at, std::min<std::uint64_t>(g.block_bytes(), plain.size() - at));
    append(script, reverse_nonce(id, at / g.block_bytes(), part));
  }
  const Bytes stored = file_bytes(v.at("file"));
  EXPECT_EQ(encode_file(v, plain, script, plain.size()), stored);
  LowerFile lower(memory_file(stored), false);
  EXPECT_EQ(need(read_all(*need(format_for(v)->open_contents(lower)))), plain);
}

TEST_F(NativeVectors, Reverse) {
  for (const char* kind : {"reverse", "reverse_inline"}) {
    SCOPED_TRACE(kind);
    check_reverse_file(vectors().at(kind));
    ++counts()[kind];
  }
  const Json& link = vectors().at("reverse_link");
  const Bytes link_nonce = hmac_reverse(4, {reverse_id(link)}, 16);
  EXPECT_EQ(to_hex(link_nonce), link.at("nonce"));
  check_link(text(link.at("target")), link_nonce, link.at("lower"));
  ++counts()["reverse_link"];

  const Json& xattr = vectors().at("reverse_xattr");
  check_xattr(xattr.at("xattr"), hmac_reverse(5, {reverse_id(xattr)}, 16), hex(xattr.at("value")),
              xattr.at("lower_name"), hex(xattr.at("lower_value")));
  ++counts()["reverse_xattr"];
}

}  // namespace
}  // namespace ecfs::fs::test
