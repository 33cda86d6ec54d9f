// Reads the vectors of the eCryptfs format (tests/vectors/ecryptfs/README.md): manifests and lower trees in tar files.
// ECFS_ECRYPTFS_VECTORS names another folder of the same make.
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fs/format/ecryptfs_keys.h"
#include "tests/fs/format/support.h"

namespace ecfs::fs::test {

using Json = nlohmann::json;

inline std::string ecryptfs_folder() {
  const char* other = std::getenv("ECFS_ECRYPTFS_VECTORS");
  return other != nullptr && *other != '\0' ? other : ECFS_TEST_VECTORS "/ecryptfs";
}

inline Bytes ecryptfs_file(const std::string& name) {
  std::ifstream in(ecryptfs_folder() + "/" + name, std::ios::binary);
  if (!in) {
    ADD_FAILURE() << "cannot open " << ecryptfs_folder() << "/" << name;
    std::abort();
  }
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

// One entry of a lower tree.
struct TarEntry {
  char type = 0;  // '0' file, '2' link, '5' directory, '6' fifo
  Bytes data;
  std::string target;
  std::optional<Bytes> attribute;  // user.ecryptfs
};

// read_tar gives the entries below "lower/" by their paths; hard links are given as what they are links to.
inline std::map<std::string, TarEntry> read_tar(const Bytes& tar) {
  std::map<std::string, TarEntry> entries;
  std::map<std::string, std::string> pax;
  const auto field = [&](std::size_t at, std::size_t len) {
    const std::string_view all = as_text(ByteView(tar).subspan(at, len));
    return std::string(all.substr(0, all.find('\0')));
  };
  for (std::size_t at = 0; at + 512 <= tar.size() && tar[at] != 0;) {
    const std::size_t size = std::strtoull(field(at + 124, 12).c_str(), nullptr, 8);
    const char type = static_cast<char>(tar[at + 156]);
    const std::string_view data = as_text(ByteView(tar).subspan(at + 512, size));
    if (type == 'x') {
      for (std::size_t i = 0; i < data.size();) {  // "LEN KEY=VALUE\n"
        const std::size_t len = std::strtoull(data.data() + i, nullptr, 10);
        const std::string_view record = data.substr(i, len);
        const std::size_t space = record.find(' ');
        const std::size_t equals = record.find('=');
        pax[std::string(record.substr(space + 1, equals - space - 1))] =
            std::string(record.substr(equals + 1, record.size() - equals - 2));
        i += len;
      }
    } else {
      const auto from_pax = [&](const char* key, std::string other) {
        return pax.contains(key) ? pax[key] : std::move(other);
      };
      const std::string prefix = field(at + 345, 155);
      std::string path = from_pax("path", (prefix.empty() ? "" : prefix + "/") + field(at, 100));
      const std::string target = from_pax("linkpath", field(at + 157, 100));
      while (path.ends_with('/')) path.pop_back();
      TarEntry entry;
      if (type == '1') {
        entry = entries.at(target.substr(target.find('/') + 1));
      } else {
        entry = {type, Bytes(data.begin(), data.end()), target, {}};
        if (pax.contains("SCHILY.xattr.user.ecryptfs")) {
          const ByteView value = as_bytes(pax["SCHILY.xattr.user.ecryptfs"]);
          entry.attribute = Bytes(value.begin(), value.end());
        }
      }
      if (path.starts_with("lower/")) entries[path.substr(6)] = std::move(entry);
      pax.clear();
    }
    at += 512 + (size + 511) / 512 * 512;
  }
  return entries;
}

template <std::size_t N>
std::array<std::uint8_t, N> hex_array(const std::string& hex) {
  const Bytes bytes = need(from_hex(hex));
  std::array<std::uint8_t, N> out{};
  EXPECT_EQ(bytes.size(), N);
  std::copy_n(bytes.begin(), std::min(N, bytes.size()), out.begin());
  return out;
}

// One case of the vectors: how it was mounted, what was seen, what lies below.
struct EcryptfsCase {
  std::string name;
  Json manifest;
  std::map<std::string, TarEntry> lower;

  // The text of the manifest's "path" or "lower" entries: as it stands, or in hexadecimal.
  [[nodiscard]] static std::string path_of(const Json& entry) {
    return entry.contains("path_hex") ? std::string(as_text(need(from_hex(entry.at("path_hex").get<std::string>()))))
                                      : entry.at("path").get<std::string>();
  }
  [[nodiscard]] static std::string lower_of(const Json& text) {
    const std::string s = text.get<std::string>();
    return s.starts_with("hex:") ? std::string(as_text(need(from_hex(s.substr(4))))) : s;
  }
  [[nodiscard]] EcryptfsSignature signature(const char* key) const {
    return hex_array<8>(manifest.at(key).get<std::string>());
  }
  [[nodiscard]] bool supported() const {
    const std::string cipher = manifest.at("cipher");
    return (cipher != "twofish" && cipher != "cast6") || has_botan_cipher(0x0a);
  }
  // The cipher of the names: that of the contents, unless options say otherwise.
  [[nodiscard]] EcryptfsCipher name_cipher() const {
    std::string cipher = manifest.at("cipher");
    std::size_t key_bytes = manifest.at("key_bytes");
    const Json extra = manifest.value("extra", Json::array());
    for (const Json& option : extra) {
      const std::string text = option.get<std::string>();
      if (text.starts_with("ecryptfs_fn_cipher=")) cipher = text.substr(text.find('=') + 1);
      if (text.starts_with("ecryptfs_fn_key_bytes=")) key_bytes = std::stoul(text.substr(text.find('=') + 1));
    }
    return need(EcryptfsCipher::by_name(cipher, key_bytes));
  }
  // The keys of the mount, derived from its passphrases.
  [[nodiscard]] EcryptfsKeys keys() const {
    EcryptfsKeys keys;
    const auto add = [&](const Json& passphrase, const EcryptfsSalt& salt) {
      const std::string text = passphrase.get<std::string>();
      keys.all.push_back(need(EcryptfsKey::derive(need(Secret::copy_of(as_bytes(text))), salt)));
    };
    const EcryptfsSalt salt = hex_array<8>(manifest.at("salt").get<std::string>());
    add(manifest.at("passphrase"), salt);
    if (manifest.contains("passphrase2")) add(manifest.at("passphrase2"), salt);
    if (manifest.value("fnek", "") == "default") {
      add(manifest.at("passphrase"), hex_array<8>(manifest.at("fnek_salt").get<std::string>()));
    }
    return keys;
  }
};

inline std::vector<EcryptfsCase> ecryptfs_cases() {
  std::vector<EcryptfsCase> cases;
  const Json index = Json::parse(ecryptfs_file("index.json"));
  for (const Json& entry : index.at("cases")) {
    cases.push_back(
        {entry.at("name"), Json::parse(ecryptfs_file(entry.at("manifest"))), read_tar(ecryptfs_file(entry.at("tar")))});
  }
  return cases;
}

}  // namespace ecfs::fs::test
