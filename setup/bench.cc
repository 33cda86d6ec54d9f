// ecfs bench: what this machine does. The key derivation of a passphrase, the ciphers as the filesystem uses them, and,
// if a directory is named, files written, read and removed there.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "fs/format/native_crypto.h"
#include "fs/format/native_header.h"
#include "setup/command.h"
#include "setup/json.h"
#include "setup/new_volume.h"
#include "setup/ui.h"
#include "setup/unlock.h"
#include "setup/volume_ref.h"
#include "wrap/base/file.h"
#include "wrap/crypto.h"
#include "wrap/kdf.h"

namespace ecfs::setup {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMib = 1U << 20;
constexpr std::size_t kChunkBytes = 128 * 1024;  // of one read or write
constexpr std::size_t kBlockBytes = 4096;        // of the filesystem, unless a volume was made with other ones
constexpr std::size_t kSmallFileBytes = 4000;
constexpr auto kCipherTime = std::chrono::milliseconds(300);

struct Options {
  std::string directory;
  unsigned size_mib = 256;
  unsigned num_files = 1000;
  CostOptions cost;
  bool json = false;
};

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// ---- the key derivation

Result<json> derive_a_key(const CostOptions& options) {
  ECFS_LET(const wrap::Argon2Cost cost, choose_cost(options));
  ECFS_LET(Secret passphrase, Secret::of_size(16));
  const std::array<std::uint8_t, 16> salt{};
  const auto begin = Clock::now();
  ECFS_TRY(wrap::argon2id(passphrase, salt, cost, 32));
  return json{{"memory_mib", cost.memory_kib / 1024},
              {"passes", cost.passes},
              {"lanes", cost.lanes},
              {"seconds", seconds_since(begin)}};
}

// ---- the ciphers

struct Speed {
  double seal = 0;  // MB/s
  double open = 0;
};

// One thread, one block of a file after the other, as a mount does it: a nonce and a tag each.
Result<Speed> measure(wrap::Suite suite) {
  ECFS_LET(const fs::Ciphers ciphers, fs::Ciphers::fetch());
  fs::NativeKeys keys;
  ECFS_LET(keys.file, Secret::of_size(32));
  const fs::FileFixed fixed = fs::fixed_header(suite, 12, {});
  ECFS_LET(const auto cipher, fs::FileCipher::make(keys, ciphers, fixed));
  ECFS_LET(auto sealer, cipher->sealer());
  ECFS_LET(auto opener, cipher->opener());
  fs::BlockAssociated associated(fixed);
  Bytes plain(kBlockBytes);
  Bytes sealed(kBlockBytes);
  fs::Nonce nonce{};
  fs::Tag tag{};
  const auto rate = [](auto&& one_block) -> Result<double> {
    const auto begin = Clock::now();
    std::uint64_t blocks = 0;
    while (Clock::now() - begin < kCipherTime) {
      for (int i = 0; i < 64; ++i) ECFS_TRY(one_block(blocks++));
    }
    return static_cast<double>(blocks * kBlockBytes) / seconds_since(begin) / 1e6;
  };
  Speed out;
  ECFS_LET(out.seal, rate([&](std::uint64_t block) -> Status {
             store_le(nonce.data(), block);
             return sealer.seal(nonce, associated.of(block), plain, sealed.data(), tag);
           }));
  ECFS_TRY(sealer.seal(nonce, associated.of(0), plain, sealed.data(), tag));
  ECFS_LET(out.open, rate([&](std::uint64_t) -> Status {
             ECFS_LET(const bool fits, opener.open(nonce, tag, associated.of(0), sealed, plain.data()));
             if (!fits) return Error{Code::kIo, 0, "a block does not decrypt to what was encrypted"};
             return {};
           }));
  return out;
}

Result<json> measure_ciphers() {
  json out = json::array();
  struct Named {
    wrap::Suite suite;
    const char* name;
  };
  constexpr std::array<Named, 2> kSuites{
      {{wrap::Suite::kAes256Gcm, "aes-256-gcm"}, {wrap::Suite::kChaCha20Poly1305, "chacha20-poly1305"}}};
  for (const Named& s : kSuites) {
    ECFS_LET(const Speed speed, measure(s.suite));
    out.push_back({{"suite", s.name},
                   {"default", s.suite == wrap::preferred_suite()},
                   {"encrypt_mb_s", speed.seal},
                   {"decrypt_mb_s", speed.open}});
  }
  return out;
}

// ---- a directory

// A directory of our own in the one that is measured; it goes with all that is in it.
class Workplace {
 public:
  static Result<Workplace> make(const std::string& path) {
    ECFS_LET(Fd above, open_directory(AT_FDCWD, path));
    std::array<std::uint8_t, 8> random{};
    ECFS_TRY(fill_random(random));
    const std::string name = "ecfs-bench-" + to_hex(random);
    Result<Fd> dir = make_directory(above.get(), name, 0700);
    if (!dir) return with_context(std::move(dir).error(), "make a directory in " + path);
    return Workplace(std::move(above), *std::move(dir), name);
  }
  Workplace(Workplace&&) noexcept = default;
  Workplace& operator=(Workplace&&) = delete;
  ~Workplace() {
    if (above_) (void)remove_tree(above_.get(), name_);
  }
  [[nodiscard]] int fd() const noexcept { return dir_.get(); }

 private:
  Workplace(Fd above, Fd dir, std::string name)
      : above_(std::move(above)), dir_(std::move(dir)), name_(std::move(name)) {}
  Fd above_;
  Fd dir_;
  std::string name_;
};

Result<Fd> open_file(int dir, const std::string& name, int flags) {
  Fd fd(openat(dir, name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return system_error(errno, name);
  return fd;
}

// Bytes that no filesystem can make smaller.
Result<Bytes> noise(std::size_t size) {
  Bytes out(size);
  ECFS_TRY(fill_random(out));
  return out;
}

Result<json> stream(int dir, std::uint64_t size) {
  Progress progress("Writing and reading", 2 * size);
  ECFS_LET(const Bytes chunk, noise(kChunkBytes));
  json out;
  auto begin = Clock::now();
  {
    ECFS_LET(const Fd file, open_file(dir, "stream", O_WRONLY | O_CREAT | O_EXCL));
    for (std::uint64_t done = 0; done < size; done += chunk.size()) {
      ECFS_TRY(check_signals());
      ECFS_TRY(write_all(file.get(), chunk));
      progress.advance(chunk.size());
    }
    if (fsync(file.get()) != 0) return system_error(errno, "fsync");
    out["write_mb_s"] = static_cast<double>(size) / seconds_since(begin) / 1e6;
    (void)posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);  // so that it is read and not remembered
  }
  begin = Clock::now();
  ECFS_LET(const Fd file, open_file(dir, "stream", O_RDONLY));
  Bytes buffer(kChunkBytes);
  for (std::uint64_t done = 0; done < size; done += buffer.size()) {
    ECFS_TRY(check_signals());
    ECFS_LET(const std::size_t got, read_full(file.get(), buffer));
    if (got != buffer.size() || buffer != chunk) return Error{Code::kIo, EIO, "what was read is not what was written"};
    progress.advance(got);
  }
  out["read_mb_s"] = static_cast<double>(size) / seconds_since(begin) / 1e6;
  return out;
}

Result<json> small_files(int dir, unsigned num) {
  ECFS_LET(const Bytes contents, noise(kSmallFileBytes));
  Bytes buffer(kSmallFileBytes);
  Progress progress("Small files", std::uint64_t{3} * num * kSmallFileBytes);
  const auto rate = [&](auto&& one_file) -> Result<double> {
    const auto begin = Clock::now();
    for (unsigned i = 0; i < num; ++i) {
      ECFS_TRY(check_signals());
      ECFS_TRY(one_file(fmt::format("file-{}", i)));
      progress.advance(kSmallFileBytes);
    }
    return num / seconds_since(begin);
  };
  json out;
  ECFS_LET(const double made, rate([&](const std::string& name) -> Status {
             ECFS_LET(const Fd file, open_file(dir, name, O_WRONLY | O_CREAT | O_EXCL));
             return write_all(file.get(), contents);
           }));
  ECFS_LET(const double opened, rate([&](const std::string& name) -> Status {
             ECFS_LET(const Fd file, open_file(dir, name, O_RDONLY));
             ECFS_LET(const std::size_t got, read_full(file.get(), buffer));
             if (got == contents.size() && buffer == contents) return {};
             return Error{Code::kIo, EIO, "what was read is not what was written"};
           }));
  ECFS_LET(const double removed, rate([&](const std::string& name) -> Status {
             if (unlinkat(dir, name.c_str(), 0) != 0) return system_error(errno, name);
             return {};
           }));
  return json{{"made_per_s", made}, {"read_per_s", opened}, {"removed_per_s", removed}};
}

Result<json> measure_directory(const Options& o) {
  const std::uint64_t size = o.size_mib * kMib;
  ECFS_LET(const Workplace place, Workplace::make(o.directory));
  struct statvfs room {};
  if (fstatvfs(place.fd(), &room) != 0) return system_error(errno, o.directory);
  const std::uint64_t wanted = size + size / 16 + std::uint64_t{o.num_files} * 3 * kBlockBytes;
  if (room.f_bavail * room.f_frsize < wanted) {
    return Error{
        Code::kNoSpace, ENOSPC,
        fmt::format("{}: {} MiB are wanted for the time of the measurement (--size)", o.directory, wanted / kMib)};
  }
  ECFS_LET(json out, stream(place.fd(), size));
  ECFS_LET(const json files, small_files(place.fd(), o.num_files));
  out["path"] = o.directory;
  out["size_mib"] = o.size_mib;
  out["files"] = o.num_files;
  out.update(files);
  return out;
}

// ---- the command

void print(const json& all) {
  const json& kdf = all["kdf"];
  say(fmt::format("Passphrase to key    Argon2id, {} MiB, {} passes, {} lanes: {:.2f} s",
                  kdf["memory_mib"].get<unsigned>(), kdf["passes"].get<unsigned>(), kdf["lanes"].get<unsigned>(),
                  kdf["seconds"].get<double>()));
  for (const json& cipher : all["ciphers"]) {
    say(fmt::format("{:<20} {:.0f} MB/s encrypted, {:.0f} MB/s decrypted on one core{}",
                    cipher["suite"].get<std::string>(), cipher["encrypt_mb_s"].get<double>(),
                    cipher["decrypt_mb_s"].get<double>(),
                    cipher["default"].get<bool>() ? " (what new volumes have)" : ""));
  }
  if (!all.contains("directory")) return;
  const json& d = all["directory"];
  say(d["path"].get<std::string>());
  say(fmt::format("  one file           {:.0f} MB/s written, {:.0f} MB/s read ({} MiB)", d["write_mb_s"].get<double>(),
                  d["read_mb_s"].get<double>(), d["size_mib"].get<unsigned>()));
  say(fmt::format("  small files        {:.0f} made, {:.0f} read, {:.0f} removed a second ({} of {} bytes)",
                  d["made_per_s"].get<double>(), d["read_per_s"].get<double>(), d["removed_per_s"].get<double>(),
                  d["files"].get<unsigned>(), kSmallFileBytes));
}

Result<int> run(const Options& o) {
  const SignalGuard guard;
  json all;
  // First what may not be there, before seconds are spent.
  if (!o.directory.empty()) ECFS_TRY(Workplace::make(o.directory));
  ECFS_LET(all["kdf"], derive_a_key(o.cost));
  ECFS_LET(all["ciphers"], measure_ciphers());
  if (!o.directory.empty()) {
    ECFS_LET(all["directory"], measure_directory(o));
  }
  if (o.json) {
    print_json(all);
  } else {
    print(all);
  }
  return 0;
}

}  // namespace

Command add_bench(CommandLine parent) {
  auto o = std::make_shared<Options>();
  const CommandLine command = parent.add_command("bench", "Measure what this machine does");
  command.add_option("DIRECTORY", o->directory, "Measure files in it, too: in a mount, or elsewhere to compare");
  command.add_option("--size", o->size_mib, "Size of the one file, in MiB").range(1, 1 << 20).show_default();
  command.add_option("--files", o->num_files, "Number of small files").range(1, 1'000'000).show_default();
  add_cost_options(command, o->cost);
  command.add_flag("--json", o->json, "As JSON");
  command.set_footer(
      "Examples:\n"
      "  ecfs bench\n"
      "  ecfs bench ~/Private\n"
      "  ecfs bench --kdf-memory 64 --kdf-time 3");
  return {command, [o] { return run(*o); }};
}

}  // namespace ecfs::setup
