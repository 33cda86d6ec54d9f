// Any text as a name or link target of the eCryptfs format: what decodes as a name encodes to the same again, and what
// is encoded decodes. The first byte chooses the cipher.
#include <array>
#include <cerrno>
#include <cstdlib>

#include "fs/format/ecryptfs_names.h"

namespace {

using namespace ecfs;
using namespace ecfs::fs;

void expect(bool holds) {
  if (!holds) std::abort();
}
template <class T>
T need(Result<T> result) {
  if (!result) std::abort();
  return *std::move(result);
}

// What every name and link of the vectors was made with, so that they serve as seeds.
constexpr std::array<std::string_view, 3> kPassphrases{"Sesame open one", "Sesame open five", "Sesame open six"};
constexpr std::array<EcryptfsCipher, 3> kCiphers{{{7, 16}, {2, 24}, {4, 16}}};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const EcryptfsCiphers kLibrary = need(EcryptfsCiphers::fetch());
  static const EcryptfsKeys kKeys = [] {
    EcryptfsKeys keys;
    for (const std::string_view text : kPassphrases) {
      keys.all.push_back(need(EcryptfsKey::derive(need(Secret::copy_of(as_bytes(text))), kEcryptfsNameSalt)));
    }
    return keys;
  }();
  static const std::array<EcryptfsNames, 3> kNames{
      need(EcryptfsNames::make(kKeys, kLibrary, kCiphers[0], kKeys.all[0].signature)),
      need(EcryptfsNames::make(kKeys, kLibrary, kCiphers[1], kKeys.all[1].signature)),
      need(EcryptfsNames::make(kKeys, kLibrary, kCiphers[2], kKeys.all[2].signature))};
  if (size == 0) return 0;
  const EcryptfsNames& names = kNames[data[0] % kNames.size()];
  const std::string_view text = as_text(ByteView(data + 1, size - 1));

  const auto name = names.decode(text);
  if (name) expect(need(names.encode(*name)) == text && name->size() <= kEcryptfsLongestName);
  const auto target = names.decode_link(text);
  if (target) expect(!target->empty() && target->find('\0') == std::string::npos);

  const auto lower = names.encode(text);
  const bool long_enough = !text.empty() && text.size() <= kEcryptfsLongestName;
  expect(lower.has_value() == long_enough);
  if (lower) {
    const bool is_name = text != "." && text != ".." && text.find_first_of(std::string_view("/\0", 2)) == text.npos;
    const auto back = names.decode(*lower);
    expect(back.has_value() == is_name && (!back || *back == text));
  }
  const auto link = names.encode_link(text);
  if (link && text.find('\0') == text.npos) expect(need(names.decode_link(*link)) == text);
  // A packet of the bytes given, in text.
  (void)names.decode_link(std::string(kEcryptfsNamePrefix) + to_ecryptfs_text(as_bytes(text)));
  return 0;
}
