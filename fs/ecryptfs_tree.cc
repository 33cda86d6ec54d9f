#include "fs/ecryptfs_tree.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "fs/format/ecryptfs_header.h"
#include "fs/format/ecryptfs_names.h"
#include "fs/lower/lower_dir.h"
#include "fs/lower/lower_file.h"
#include "wrap/base/file.h"

namespace ecfs::fs {
namespace {

constexpr std::string_view kPrivateName = ".Private";
constexpr std::uint8_t kTag70 = 0x46;

template <class T>
void count(std::vector<std::pair<T, int>>& counts, const T& what) {
  const auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == what; });
  if (found == counts.end()) {
    counts.emplace_back(what, 1);
  } else {
    ++found->second;
  }
}

template <class T>
std::vector<T> by_frequency(std::vector<std::pair<T, int>> counts) {
  std::stable_sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<T> out;
  out.reserve(counts.size());
  for (const auto& [what, number] : counts) out.push_back(what);
  return out;
}

class Looker {
 public:
  explicit Looker(const EcryptfsLook& look) : most_(look) {}

  Status look(int root) {
    ECFS_LET(Fd first, open_directory(root, "."));
    std::deque<Fd> due;
    due.push_back(std::move(first));
    for (std::size_t dirs = 0; !due.empty() && dirs < most_.most_directories && entries_ < most_.most_entries; ++dirs) {
      const Fd dir = std::move(due.front());
      due.pop_front();
      const auto names = list_directory(dir.get(), most_.most_entries);
      if (!names) continue;
      for (const std::string& name : *names) {
        if (++entries_ > most_.most_entries) break;
        note_name(name);
        struct stat st {};
        if (fstatat(dir.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (S_ISREG(st.st_mode) && files_ < most_.most_files) note_file(dir.get(), name);
        if (S_ISDIR(st.st_mode) && name != kPrivateName && due.size() < most_.most_directories) {
          if (Result<Fd> below = open_directory(dir.get(), name)) due.push_back(*std::move(below));
        }
      }
    }
    return {};
  }

  [[nodiscard]] EcryptfsTree found() const {
    EcryptfsTree tree;
    tree.signatures = by_frequency(signatures_);
    if (const auto ciphers = by_frequency(ciphers_); !ciphers.empty()) tree.cipher = ciphers.front();
    tree.in_xattr = in_xattr_ * 2 > headers_;
    if (const auto names = by_frequency(names_); !names.empty()) {
      tree.name_signature = names.front().first;
      tree.name_cipher_code = names.front().second;
    }
    return tree;
  }

 private:
  void note_name(std::string_view name) {
    if (!name.starts_with(kEcryptfsNamePrefix)) return;
    const auto packet = from_ecryptfs_text(name.substr(kEcryptfsNamePrefix.size()));
    if (!packet || packet->empty() || (*packet)[0] != kTag70) return;
    const auto length = parse_ecryptfs_length(ByteView(*packet).subspan(1));
    if (!length) return;
    const ByteView rest = ByteView(*packet).subspan(1 + length->num_bytes);
    EcryptfsSignature signature{};
    if (rest.size() <= signature.size()) return;
    std::copy_n(rest.begin(), signature.size(), signature.begin());
    count(names_, std::pair(signature, rest[signature.size()]));
  }

  void note_file(int dir, const std::string& name) {
    Result<Fd> fd = open_at(dir, name.c_str(), O_RDONLY | O_NONBLOCK | O_NOATIME);
    if (!fd) fd = open_at(dir, name.c_str(), O_RDONLY | O_NONBLOCK);
    if (!fd) return;
    ++files_;
    const LowerFile file(*std::move(fd), false);
    Bytes front(kEcryptfsProbeBytes);
    const auto got = file.read_at(0, front);
    if (!got) return;
    front.resize(*got);
    auto header = parse_ecryptfs_header(front, EcryptfsPlace::kFile);
    if (!header) {
      const auto attribute = file.read_xattr(kEcryptfsXattr.data());
      if (!attribute || !*attribute) return;
      header = parse_ecryptfs_header(**attribute, EcryptfsPlace::kXattr);
      if (!header) return;
      ++in_xattr_;
    }
    ++headers_;
    for (const EcryptfsKeyPacket& packet : header->keys) {
      count(signatures_, packet.signature);
      if (const auto cipher = EcryptfsCipher::of_packet(packet.cipher_code, packet.encrypted_key.size())) {
        count(ciphers_, *cipher);
      }
    }
  }

  EcryptfsLook most_;
  std::size_t entries_ = 0;
  std::size_t files_ = 0;
  std::size_t headers_ = 0;
  std::size_t in_xattr_ = 0;
  std::vector<std::pair<EcryptfsSignature, int>> signatures_;
  std::vector<std::pair<EcryptfsCipher, int>> ciphers_;
  std::vector<std::pair<std::pair<EcryptfsSignature, std::uint8_t>, int>> names_;
};

}  // namespace

Result<EcryptfsTree> look_at_ecryptfs_tree(int lower_dir, const EcryptfsLook& look) {
  Looker looker(look);
  ECFS_TRY(looker.look(lower_dir));
  return looker.found();
}

}  // namespace ecfs::fs
