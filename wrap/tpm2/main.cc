// ecfs-tpm2 TCTI [login]: does what it is asked over the socket that it is started with (wrap/tpm2_wire.h), until that
// ends. Not for people. With `login` it runs as root and who asks is a user's process: it seals and unseals alone, and
// a password that the TPM refused is the last one that the TPM is shown.
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <optional>

#include "wrap/base/log.h"
#include "wrap/tpm2/tpm.h"
#include "wrap/tpm2_wire.h"

namespace ecfs::wrap {
namespace {

class Server {
 public:
  Server(std::string tcti, bool for_login) : tcti_(std::move(tcti)), for_login_(for_login) {}

  int run(int socket) {
    for (;;) {
      auto request = receive_message(socket, -1);
      if (!request) return request.error().code == Code::kNotFound ? 0 : 1;
      Result<Reply> done = answer(*request);
      const Status sent = done ? send_message(socket, 0, done->data, done->secret, -1)
                               : send_message(socket, 1 + static_cast<std::uint32_t>(done.error().code),
                                              as_bytes(done.error().what), Secret(), -1);
      if (!sent) return 1;
    }
  }

 private:
  Result<Reply> answer(const Tpm2Message& request) {
    switch (request.head) {
      case kTpm2Seal: return seal(request);
      case kTpm2Unseal: return unseal(request);
      case kTpm2Status: return status(request);
      default: return Error{Code::kInvalid, 0, "ecfs-tpm2 was asked something that it does not know"};
    }
  }

  Result<Tpm*> tpm() {
    if (!tpm_) {
      ECFS_LET(tpm_, Tpm::open(tcti_));
    }
    return &*tpm_;
  }

  Result<Reply> seal(const Tpm2Message& request) {
    const ByteView both = request.secret.reveal();
    if (request.data.size() != 4 || load_le<std::uint32_t>(request.data.data()) >> kNumPcrs != 0 ||
        (both.size() != kTpm2SecretBytes && both.size() != kTpm2SecretBytes + kTpm2AuthBytes)) {
      return Error{Code::kInvalid, 0, "a malformed request to the TPM"};
    }
    ECFS_LET(const Secret secret, Secret::copy_of(both.first(kTpm2SecretBytes)));
    ECFS_LET(const Secret auth, Secret::copy_of(both.subspan(kTpm2SecretBytes)));
    ECFS_LET(Tpm * chip, tpm());
    ECFS_LET(const Tpm2Sealed sealed, chip->seal(load_le<std::uint32_t>(request.data.data()), secret, auth));
    Reply reply;
    reply.data = pack_sealed(sealed);
    return reply;
  }

  Result<Reply> unseal(const Tpm2Message& request) {
    ECFS_LET(const Tpm2Sealed sealed, parse_sealed(request.data));
    const bool with_password = !request.secret.empty();
    if (with_password && (request.secret.size() != kTpm2AuthBytes || !sealed.needs_auth)) {
      return Error{Code::kInvalid, 0, "a malformed request to the TPM"};
    }
    if (for_login_ && with_password && refused_) {
      return Error{Code::kBusy, 0, "the TPM refused a password in this login already, and was not asked again"};
    }
    ECFS_LET(Tpm * chip, tpm());
    auto secret = chip->unseal(sealed, request.secret);
    if (!secret) {
      refused_ = refused_ || secret.error().code == Code::kWrongKey;
      return std::move(secret).error();
    }
    Reply reply;
    reply.secret = *std::move(secret);
    return reply;
  }

  Result<Reply> status(const Tpm2Message& request) {
    ECFS_LET(const std::vector<Tpm2Sealed> list, parse_sealed_list(request.data));
    ECFS_LET(Tpm * chip, tpm());
    ECFS_LET(const Tpm2Status found, chip->status(list));
    Reply reply;
    reply.data = pack_status(found);
    return reply;
  }

  std::string tcti_;
  bool for_login_;
  bool refused_ = false;
  std::optional<Tpm> tpm_;
};

// The libraries hold what they pass on in ordinary memory: where this process may lock it all, it does.
void lock_memory() {
  rlimit limit{};
  if (geteuid() == 0 || (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY)) {
    (void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
  }
}

int run_program(int argc, char** argv) {
  if (argc < 2 || argc > 3 || (argc == 3 && std::string_view(argv[2]) != "login") || !check_tcti(argv[1])) return 2;
#ifndef ECFS_SANITIZED  // the leak checker traces its own process, and shadow memory cannot be locked
  if (!no_core_dumps()) return 1;
  lock_memory();
#else
  (void)lock_memory;
#endif
  if (!openssl_in_secret_heap()) return 1;
  return Server(argv[1], argc == 3).run(kTpm2SocketFd);
}

}  // namespace
}  // namespace ecfs::wrap

int main(int argc, char** argv) {
  try {
    return ecfs::wrap::run_program(argc, argv);
  } catch (const std::exception& failure) {  // std::bad_alloc
    ecfs::log_line(LOG_ERR, failure.what());
    return 1;
  }
}
