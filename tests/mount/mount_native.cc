// mount_native LOWER MOUNTPOINT [-o OPTIONS] [--foreground] [--suite N] [--sealed] [--ecryptfs] [--program MOUNTD]
//
// Mounts a native volume with a key that everybody knows, for the tests of the mount. Makes the volume header if LOWER
// has none. With --ecryptfs LOWER is an eCryptfs tree, whose contents and names have such keys (aes with 16 bytes
// unless the options say otherwise). Prints the process id of the mount's supervisor. Exit status: 0, or 1 with the
// error on stderr.
#include <fcntl.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "wrap/base/file.h"
#include "wrap/ecryptfs_passphrase.h"
#include "wrap/mount.h"
#include "wrap/volume_header.h"

namespace {

using namespace ecfs;  // NOLINT: a test program

struct Arguments {
  std::vector<std::string> paths;
  std::vector<std::string> options;
  std::string program = ECFS_MOUNTD;
  bool foreground = false;
  bool sealed = false;
  bool ecryptfs = false;
  int suite = 1;
  int block_shift = 12;
};

Arguments parse(int argc, char** argv) {
  Arguments out;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "-o" && i + 1 < argc) {
      out.options.emplace_back(argv[++i]);
    } else if (arg == "--suite" && i + 1 < argc) {
      out.suite = std::stoi(argv[++i]);
    } else if (arg == "--block-shift" && i + 1 < argc) {
      out.block_shift = std::stoi(argv[++i]);
    } else if (arg == "--program" && i + 1 < argc) {
      out.program = argv[++i];
    } else if (arg == "--foreground") {
      out.foreground = true;
    } else if (arg == "--ecryptfs") {
      out.ecryptfs = true;
    } else if (arg == "--sealed") {
      out.sealed = true;
    } else {
      out.paths.push_back(arg);
    }
  }
  return out;
}

Result<Secret> test_key() {
  ECFS_LET(Secret key, Secret::of_size(wrap::kVolumeKeyBytes));
  std::memset(key.reveal_mutable().data(), 0x5a, key.size());
  return key;
}

// The keys that tests know, for contents and for names; no pattern that stands in memory anyway.
Status ecryptfs_request(wrap::MountRequest& request) {
  constexpr std::size_t kPacked = sizeof(wrap::EcryptfsSalt) + wrap::kEcryptfsKeyBytes;
  ECFS_LET(request.key, Secret::of_size(2 * kPacked));
  const MutableByteView bytes = request.key.reveal_mutable();
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 167 + 13);
  const auto signature = [&](std::size_t i) {
    return wrap::ecryptfs_signature(bytes.subspan(i * kPacked + sizeof(wrap::EcryptfsSalt), wrap::kEcryptfsKeyBytes));
  };
  wrap::EcryptfsOptions options = request.options.ecryptfs.value_or(wrap::EcryptfsOptions());
  ECFS_LET(const auto contents, signature(0));
  ECFS_LET(options.name_signature, signature(1));
  options.signatures = {contents};
  if (options.cipher.empty()) options.cipher = "aes";
  if (options.key_bytes == 0) options.key_bytes = 16;
  request.options.ecryptfs = std::move(options);
  return {};
}

Status native_request(const Arguments& args, int lower, wrap::MountRequest& request) {
  ECFS_LET(request.key, test_key());
  Result<Bytes> header = read_file(lower, ".ecfs-volume", wrap::kMaxVolumeFileBytes);
  if (!header && header.error().code == Code::kNotFound) {
    wrap::VolumeHeader fresh;
    fresh.suite = static_cast<wrap::Suite>(args.suite);
    fresh.block_shift = static_cast<std::uint8_t>(args.block_shift);
    if (args.sealed) fresh.incompat = wrap::kIncompatSealedSize;
    ECFS_TRY(fill_random(fresh.id));
    const Bytes no_slots(8);
    header = wrap::build_volume_file(fresh, no_slots, request.key);
    if (!header) return std::move(header).error();
    ECFS_TRY(replace_file(lower, ".ecfs-volume", *header, 0600));
  }
  if (!header) return std::move(header).error();
  request.volume_file = *std::move(header);
  return {};
}

Status mount(const Arguments& args) {
  const std::string& lower_path = args.paths[0];
  ECFS_LET(Fd lower, open_directory(AT_FDCWD, lower_path));
  wrap::MountRequest request;
  ECFS_LET(request.options, wrap::parse_mount_options(args.options));
  request.lower_path = lower_path;
  request.mountpoint = args.paths[1];
  ECFS_TRY(args.ecryptfs ? ecryptfs_request(request) : native_request(args, lower.get(), request));
  wrap::MountdStart start;
  start.request = &request;
  start.lower_dir = lower.get();
  start.program = args.program;
  start.foreground = args.foreground;
  start.timeout_ms = 60000;
  ECFS_LET(Child child, wrap::start_mountd(start));
  std::printf("%d\n", child.pid());
  std::fflush(stdout);
  if (args.foreground) {
    ECFS_LET(const int status, child.wait());
    if (status != 0) return Error{Code::kIo, 0, "ecfs-mountd ended with status " + std::to_string(status)};
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments args = parse(argc, argv);
  if (args.paths.size() != 2) {
    std::fprintf(stderr,
                 "usage: mount_native LOWER MOUNTPOINT [-o OPTIONS] [--foreground] [--suite N] [--sealed] "
                 "[--ecryptfs] [--program MOUNTD]\n");
    return 2;
  }
  const Status done = mount(args);
  if (done) return 0;
  std::fprintf(stderr, "mount_native: %s\n", done.error().what.c_str());
  return 1;
}
