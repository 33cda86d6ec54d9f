// The TPM 2.0: sealing a secret to this chip and the state it was booted in.
//
// The TPM's libraries are in a program of their own, ecfs-tpm2, which is started where a slot needs the TPM and nowhere
// else. It gets its requests over a socket; both sides take the other's messages for hostile: bounded and checked. One
// thread.
//
// Errors speak to the user: kWrongKey the TPM refused the password; kUnavailable no TPM, not this one, another boot
// state, or no answer in time; kDenied no permission, or an owner password is set; kBusy locked against guessing;
// kCorrupt what was sealed is damaged; kInvalid a choice of registers that protects nothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wrap/base/bytes.h"
#include "wrap/base/fd.h"
#include "wrap/base/process.h"
#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/crypto.h"

namespace ecfs::wrap {

constexpr unsigned kNumPcrs = 24;
constexpr std::size_t kTpm2NameBytes = 34;      // of a key: algorithm (SHA-256) and digest
constexpr std::size_t kMaxTpm2PartBytes = 384;  // of the public and of the private area of what was sealed
constexpr std::size_t kTpm2SecretBytes = 32;    // what is sealed
constexpr std::size_t kTpm2AuthBytes = 32;      // what the TPM is shown for a password
constexpr std::size_t kMaxTctiBytes = 256;
constexpr const char* kDefaultTcti = "device:/dev/tpmrm0";

using PcrSet = std::uint32_t;  // bit n: PCR n of the SHA-256 bank
using Tpm2Name = std::array<std::uint8_t, kTpm2NameBytes>;

// parse_pcrs reads "7" or "0,2,7" or "none"; pcrs_text gives it back. kInvalid for anything else.
Result<PcrSet> parse_pcrs(std::string_view text);
std::string pcrs_text(PcrSet pcrs);

// A secret that a TPM sealed, as a slot keeps it. None of it is secret.
struct Tpm2Sealed {
  PcrSet pcrs = 0;
  bool needs_auth = false;  // the TPM asks for an auth value (an empty one, where there is neither PCR nor password)
  Tpm2Name parent{};        // name of the storage key it is below; a cleared TPM has another
  Tpm2Name chip{};          // name of a key that only this chip makes, cleared or not; all zero: not known
  std::vector<Sha256> pcr_values;  // what `pcrs` held when it was sealed, ascending
  Bytes public_area;               // TPM2B_PUBLIC and TPM2B_PRIVATE
  Bytes private_area;
  friend bool operator==(const Tpm2Sealed&, const Tpm2Sealed&) = default;
};
// The bytes of it (wrap/FORMAT.md §1); anything out of bounds is kCorrupt.
Bytes pack_sealed(const Tpm2Sealed& sealed);
Result<Tpm2Sealed> parse_sealed(ByteView bytes);

// Would the TPM give the secret now? As far as that can be told without a password.
enum class Tpm2Opens : std::uint8_t {
  kYes,
  kBootStateChanged,
  kCleared,   // this TPM, but it was cleared since
  kOtherTpm,  // or this one, with an identity that could not be compared
  kDamaged,
};
struct Tpm2SlotState {
  Tpm2Opens opens = Tpm2Opens::kYes;
  PcrSet changed = 0;  // of kBootStateChanged
};
struct Tpm2Status {
  std::string manufacturer;
  std::uint32_t firmware = 0;  // version, major and minor 16 bits each
  bool locked = false;         // against guessing
  std::uint32_t failed_tries = 0;
  std::uint32_t max_tries = 0;
  std::uint32_t try_back_s = 0;      // after so long one try is given back
  PcrSet pcrs_present = 0;           // of the SHA-256 bank
  std::vector<Sha256> pcr_values;    // of these, ascending
  std::vector<Tpm2SlotState> slots;  // in the order in which they were asked for
};

// Tpm2 is a running ecfs-tpm2, which ends with this object. A forked child may use it too, but not at the same time,
// and has to end by _exit.
class Tpm2 {
 public:
  struct Options {
    std::string tcti = kDefaultTcti;  // how the TPM is reached
    int timeout_ms = 10000;           // for each request; past it the program is killed
    bool for_login = false;           // no password is tried after a refused one
    std::string program;              // path of ecfs-tpm2; empty: helper_path("ecfs-tpm2")
  };
  // start starts the program; the TPM is looked for with the first request.
  static Result<Tpm2> start(const Options& options);
  Tpm2(Tpm2&& other) noexcept;
  Tpm2& operator=(Tpm2&&) = delete;
  Tpm2(const Tpm2&) = delete;
  Tpm2& operator=(const Tpm2&) = delete;
  ~Tpm2();

  // seal has the TPM seal `secret` (32 bytes) to the present values of `pcrs` and, if `auth` is not empty, to it; and
  // proves that it opens again. unseal gives it back.
  Result<Tpm2Sealed> seal(PcrSet pcrs, const Secret& secret, const Secret& auth);
  Result<Secret> unseal(const Tpm2Sealed& sealed, const Secret& auth);
  // status looks at the TPM, and at what it would do with each of `sealed`.
  Result<Tpm2Status> status(const std::vector<Tpm2Sealed>& sealed);

 private:
  Tpm2(Fd socket, Child child, int timeout_ms) : socket_(std::move(socket)), child_(child), timeout_ms_(timeout_ms) {}
  Result<Reply> ask(std::uint32_t operation, ByteView data, const Secret& secret);

  Fd socket_;  // none: the program was killed, or this object moved from
  Child child_;
  int timeout_ms_;
};

// choose_tcti: `asked` (--tcti), else $ECFS_TCTI, both only in a process without raised privileges; else `configured`
// (tpm_tcti of ecfs.conf); else the default. kInvalid for a kind that is not device, swtpm, mssim or tabrmd: others
// would load any library, or run any program.
Result<std::string> choose_tcti(const std::string& asked, const std::string& configured);
Status check_tcti(std::string_view tcti);

}  // namespace ecfs::wrap
