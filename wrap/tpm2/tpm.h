// A TPM 2.0 through the Enhanced System API of tpm2-tss. Only ecfs-tpm2 and its tests link this. One thread.
//
// Sealing: the storage key is the one of the TCG's template for ECC P-256, with noDA, made anew each time or found at
// 0x81000001; its name is kept with what was sealed and compared before anything is told to it. Sessions are salted
// with that key and bound to nothing, and encrypt their first parameter both ways: who listens on the way to the chip,
// or answers in its place, learns neither secret nor auth value. What is loaded is flushed on every way out.
// Source: TPM 2.0 Library parts 1 and 3; TCG TPM v2.0 Provisioning Guidance 7.5.1. Errors: wrap/tpm2.h.
#pragma once

#include <memory>
#include <string>

#include "wrap/base/result.h"
#include "wrap/base/secret.h"
#include "wrap/tpm2.h"

struct ESYS_CONTEXT;
struct TSS2_TCTI_OPAQUE_CONTEXT_BLOB;

namespace ecfs::wrap {

// policy_digest is what the TPM computes of PolicyPCR over `pcrs` with these values, if there are any, and then
// PolicyAuthValue, if `needs_auth`.
Result<Sha256> policy_digest(PcrSet pcrs, const std::vector<Sha256>& values, bool needs_auth);

class Tpm {
 public:
  static Result<Tpm> open(const std::string& tcti);

  Result<Tpm2Sealed> seal(PcrSet pcrs, const Secret& secret, const Secret& auth);
  Result<Secret> unseal(const Tpm2Sealed& sealed, const Secret& auth);
  Result<Tpm2Status> status(const std::vector<Tpm2Sealed>& sealed);

  // trial_policy has the TPM itself compute what policy_digest does, over what its registers hold now.
  Result<Sha256> trial_policy(PcrSet pcrs, bool needs_auth);
  // read_pcrs gives the values, ascending; kInvalid if the TPM has no such register in its SHA-256 bank.
  Result<std::vector<Sha256>> read_pcrs(PcrSet pcrs);

  // Called between PolicyPCR and Unseal, by a test that has a register change just then.
  void (*before_unseal)() = nullptr;

 private:
  class Object;
  struct Close {
    void operator()(ESYS_CONTEXT* context) const noexcept;
    void operator()(TSS2_TCTI_OPAQUE_CONTEXT_BLOB* tcti) const noexcept;
  };

  Error failure(std::uint32_t rc, const char* what);
  Error refused_password();
  Error locked_error();
  Error another_key(const Tpm2Sealed& sealed);
  Error other_state(const Tpm2Sealed& sealed);
  Result<std::uint32_t> property(std::uint32_t id);
  Result<std::pair<PcrSet, std::vector<Sha256>>> read_present(PcrSet pcrs);
  Result<PcrSet> changed_pcrs(const Tpm2Sealed& sealed);
  Result<Object> make_primary(std::uint32_t hierarchy);
  Result<Object> storage_key(const Tpm2Name* expected);
  Result<Object> session(const Object* salted_with, std::uint8_t type);
  Result<Tpm2Name> name_of(const Object& object);
  Result<Object> load(const Object& parent, const Tpm2Sealed& sealed);
  Status apply_policy(const Object& session, PcrSet pcrs, bool needs_auth);
  Result<Secret> unseal_once(const Tpm2Sealed& sealed, const Secret& auth, bool& pcr_race);
  Result<Tpm2Sealed> seal_once(PcrSet pcrs, const Secret& secret, const Secret& auth);

  std::unique_ptr<TSS2_TCTI_OPAQUE_CONTEXT_BLOB, Close> tcti_;
  std::unique_ptr<ESYS_CONTEXT, Close> context_;  // ends before the connection it uses
};

}  // namespace ecfs::wrap
