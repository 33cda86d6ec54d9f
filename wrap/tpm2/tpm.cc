#include "wrap/tpm2/tpm.h"

#include <fcntl.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "wrap/base/fd.h"
#include "wrap/base/owned.h"

namespace ecfs::wrap {
namespace {

template <class T>
using FromEsys = Owned<T, Esys_Free>;

constexpr TPM2_HANDLE kPersistentStorageKey = 0x81000001;
constexpr TPMA_OBJECT kStorageKeyAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT | TPMA_OBJECT_FIXEDTPM |
                                              TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                                              TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA;
constexpr const char* kInstead = "; open it with the recovery key or another passphrase";
constexpr const char* kThenReseal = ", then bind it anew: ecfs key reseal";

// Of a response code from the TPM itself: its number, without the parameter, handle or session that it is about.
TSS2_RC tpm_code(TSS2_RC rc) {
  if ((rc & TSS2_RC_LAYER_MASK) != 0) return 0;
  return (rc & TPM2_RC_FMT1) != 0 ? rc & (TPM2_RC_FMT1 | 0x3f) : rc;
}

TPML_PCR_SELECTION selection_of(PcrSet pcrs) {
  TPML_PCR_SELECTION selection{};
  selection.count = 1;
  selection.pcrSelections[0].hash = TPM2_ALG_SHA256;
  selection.pcrSelections[0].sizeofSelect = 3;
  for (unsigned i = 0; i < 3; ++i) {
    selection.pcrSelections[0].pcrSelect[i] = static_cast<BYTE>(pcrs >> (8 * i) & 0xff);
  }
  return selection;
}

PcrSet set_of(const TPML_PCR_SELECTION& selection) {
  PcrSet pcrs = 0;
  if (selection.count != 1 || selection.pcrSelections[0].hash != TPM2_ALG_SHA256) return 0;
  const TPMS_PCR_SELECTION& bank = selection.pcrSelections[0];
  for (unsigned i = 0; i < bank.sizeofSelect && i < 3; ++i) pcrs |= PcrSet{bank.pcrSelect[i]} << (8 * i);
  return pcrs;
}

TPM2B_PUBLIC storage_template() {
  TPM2B_PUBLIC area{};
  TPMT_PUBLIC& p = area.publicArea;
  p.type = TPM2_ALG_ECC;
  p.nameAlg = TPM2_ALG_SHA256;
  p.objectAttributes = kStorageKeyAttributes;
  TPMS_ECC_PARMS& ecc = p.parameters.eccDetail;
  ecc.symmetric.algorithm = TPM2_ALG_AES;
  ecc.symmetric.keyBits.aes = 128;
  ecc.symmetric.mode.aes = TPM2_ALG_CFB;
  ecc.scheme.scheme = TPM2_ALG_NULL;
  ecc.curveID = TPM2_ECC_NIST_P256;
  ecc.kdf.scheme = TPM2_ALG_NULL;
  return area;
}

bool is_of_template(const TPM2B_PUBLIC& area) {
  const TPMT_PUBLIC& p = area.publicArea;
  const TPMS_ECC_PARMS& ecc = p.parameters.eccDetail;
  return p.type == TPM2_ALG_ECC && p.nameAlg == TPM2_ALG_SHA256 && p.objectAttributes == kStorageKeyAttributes &&
         ecc.symmetric.algorithm == TPM2_ALG_AES && ecc.symmetric.keyBits.aes == 128 &&
         ecc.symmetric.mode.aes == TPM2_ALG_CFB && ecc.scheme.scheme == TPM2_ALG_NULL &&
         ecc.curveID == TPM2_ECC_NIST_P256 && p.authPolicy.size == 0;
}

bool uniform(const Sha256& value) {
  return (value[0] == 0x00 || value[0] == 0xff) &&
         std::all_of(value.begin(), value.end(), [&](std::uint8_t b) { return b == value[0]; });
}

std::string seconds_text(std::uint32_t seconds) {
  if (seconds < 120) return std::to_string(seconds) + " s";
  if (seconds < 7200) return std::to_string((seconds + 59) / 60) + " minutes";
  return std::to_string((seconds + 3599) / 3600) + " hours";
}

std::string pcr_words(PcrSet pcrs) {
  return (pcrs & (pcrs - 1)) == 0 ? "PCR " + pcrs_text(pcrs) : "PCRs " + pcrs_text(pcrs);
}

// Why a device cannot be opened, in words; the libraries have none.
Status check_device(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd) return {};
  switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return Error{Code::kUnavailable, errno,
                   "this computer has no TPM 2.0, or it is switched off: " + path + " is not there"};
    case EACCES:
    case EPERM:
      return Error{Code::kDenied, 0,
                   "the TPM may not be used by this user: " + path + " is for root and the group tss"};
    case EBUSY: return Error{Code::kBusy, EBUSY, "another program uses the TPM: " + path + " is busy"};
    default: return system_error(errno, "open the TPM " + path);
  }
}

}  // namespace

// An object or session in the TPM, flushed when it goes; of what is persistent only the library's handle.
class Tpm::Object {
 public:
  Object(ESYS_CONTEXT* context, ESYS_TR handle, bool persistent = false)
      : context_(context), handle_(handle), persistent_(persistent) {}
  Object(Object&& other) noexcept
      : context_(other.context_),
        handle_(std::exchange(other.handle_, static_cast<ESYS_TR>(ESYS_TR_NONE))),
        persistent_(other.persistent_) {}
  Object& operator=(Object&&) = delete;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() {
    if (handle_ == ESYS_TR_NONE) return;
    if (persistent_ || Esys_FlushContext(context_, handle_) != TSS2_RC_SUCCESS) Esys_TR_Close(context_, &handle_);
  }
  [[nodiscard]] ESYS_TR handle() const noexcept { return handle_; }

 private:
  ESYS_CONTEXT* context_;
  ESYS_TR handle_;
  bool persistent_;
};

void Tpm::Close::operator()(ESYS_CONTEXT* context) const noexcept { Esys_Finalize(&context); }
void Tpm::Close::operator()(TSS2_TCTI_OPAQUE_CONTEXT_BLOB* tcti) const noexcept { Tss2_TctiLdr_Finalize(&tcti); }

Result<Sha256> policy_digest(PcrSet pcrs, const std::vector<Sha256>& values, bool needs_auth) {
  static constexpr std::array<std::uint8_t, 4> kPolicyPcr = {0x00, 0x00, 0x01, 0x7f};
  static constexpr std::array<std::uint8_t, 4> kPolicyAuthValue = {0x00, 0x00, 0x01, 0x6b};
  Sha256 digest{};
  if (pcrs != 0) {
    Bytes joined;
    for (const Sha256& value : values) append(joined, value);
    ECFS_LET(const Sha256 of_values, sha256({joined}));
    // TPML_PCR_SELECTION: one entry, SHA-256, three bytes of bits. The TPM's integers have the highest byte first.
    const std::array<std::uint8_t, 10> selection = {0,
                                                    0,
                                                    0,
                                                    1,
                                                    0x00,
                                                    0x0b,
                                                    3,
                                                    static_cast<std::uint8_t>(pcrs),
                                                    static_cast<std::uint8_t>(pcrs >> 8),
                                                    static_cast<std::uint8_t>(pcrs >> 16)};
    ECFS_LET(digest, sha256({digest, kPolicyPcr, selection, of_values}));
  }
  if (needs_auth) {
    ECFS_LET(digest, sha256({digest, kPolicyAuthValue}));
  }
  return digest;
}

Result<Tpm> Tpm::open(const std::string& tcti) {
  constexpr std::string_view kDevice = "device:";
  if (tcti.starts_with(kDevice)) ECFS_TRY(check_device(tcti.substr(kDevice.size())));
  if (tcti == "device") ECFS_TRY(check_device("/dev/tpmrm0"));
  Tpm tpm;
  TSS2_TCTI_CONTEXT* connection = nullptr;
  if (const TSS2_RC rc = Tss2_TctiLdr_Initialize(tcti.c_str(), &connection); rc != TSS2_RC_SUCCESS) {
    return Error{Code::kUnavailable, 0, "no TPM answers at " + tcti + " (" + Tss2_RC_Decode(rc) + ")"};
  }
  tpm.tcti_.reset(connection);
  ESYS_CONTEXT* context = nullptr;
  if (const TSS2_RC rc = Esys_Initialize(&context, connection, nullptr); rc != TSS2_RC_SUCCESS) {
    return Error{Code::kUnavailable, 0, "the TPM cannot be used (" + std::string(Tss2_RC_Decode(rc)) + ")"};
  }
  tpm.context_.reset(context);
  return tpm;
}

Error Tpm::failure(TSS2_RC rc, const char* what) {
  switch (tpm_code(rc)) {
    case TPM2_RC_FAILURE:
      return {Code::kUnavailable, 0,
              "the TPM is in failure mode and does nothing any more until the computer was switched off and on"};
    case TPM2_RC_LOCKOUT: return locked_error();
    case TPM2_RC_BAD_AUTH:
      return {
          Code::kDenied, 0,
          "the TPM has an owner password, without which ecfs cannot make its storage key: remove it (tpm2_changeauth "
          "-c owner), or have the storage key kept at 0x81000001"};
    default: break;
  }
  return {Code::kIo, 0, std::string("the TPM could not ") + what + " (" + Tss2_RC_Decode(rc) + ")"};
}

Error Tpm::locked_error() {
  const auto seconds = property(TPM2_PT_LOCKOUT_INTERVAL);
  std::string text = "the TPM is locked against guessing, after too many wrong passwords";
  if (seconds && *seconds != 0) text += "; in " + seconds_text(*seconds) + " at most it allows one more try";
  return {Code::kBusy, 0, text + kInstead};
}

Error Tpm::refused_password() {
  const auto failed = property(TPM2_PT_LOCKOUT_COUNTER);
  const auto most = property(TPM2_PT_MAX_AUTH_FAIL);
  std::string text = "the TPM refused the password";
  if (failed && most) {
    const std::uint32_t left = *most - std::min(*most, *failed);
    text += " (" + (left == 0 ? "no tries" : std::to_string(left) + (left == 1 ? " try" : " tries")) + " left)";
  }
  return {Code::kWrongKey, 0, text};
}

// The storage key is not the one it was sealed below.
Error Tpm::another_key(const Tpm2Sealed& sealed) {
  auto chip = make_primary(ESYS_TR_RH_ENDORSEMENT);
  const auto name = chip ? name_of(*chip) : Result<Tpm2Name>(std::move(chip).error());
  const bool cleared = name && *name == sealed.chip;
  return {Code::kUnavailable, 0,
          std::string(cleared ? "the TPM was cleared since this key was sealed"
                              : "this key was sealed by another TPM than this computer has") +
              kInstead + (cleared ? kThenReseal : "")};
}

Error Tpm::other_state(const Tpm2Sealed& sealed) {
  const auto changed = changed_pcrs(sealed);
  std::string text = "this computer was not booted in the state that the key is sealed to";
  if (changed && *changed != 0) text += " (" + pcr_words(*changed) + " changed)";
  return {Code::kUnavailable, 0, text + kInstead + kThenReseal};
}

Result<std::uint32_t> Tpm::property(std::uint32_t id) {
  TPMI_YES_NO more = 0;
  TPMS_CAPABILITY_DATA* raw = nullptr;
  const TSS2_RC rc = Esys_GetCapability(context_.get(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                        TPM2_CAP_TPM_PROPERTIES, id, 1, &more, &raw);
  const FromEsys<TPMS_CAPABILITY_DATA> data(raw);
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "tell its properties");
  const TPML_TAGGED_TPM_PROPERTY& list = data->data.tpmProperties;
  if (list.count != 1 || list.tpmProperty[0].property != id) {
    return Error{Code::kUnsupported, 0, "the TPM does not tell a property"};
  }
  return list.tpmProperty[0].value;
}

// The registers there are among `pcrs`. A TPM gives eight at once.
Result<std::pair<PcrSet, std::vector<Sha256>>> Tpm::read_present(PcrSet pcrs) {
  std::array<std::optional<Sha256>, kNumPcrs> found;
  PcrSet left = pcrs;
  while (left != 0) {
    const TPML_PCR_SELECTION wanted = selection_of(left);
    TPML_PCR_SELECTION* raw_given = nullptr;
    TPML_DIGEST* raw_values = nullptr;
    const TSS2_RC rc = Esys_PCR_Read(context_.get(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &wanted, nullptr,
                                     &raw_given, &raw_values);
    const FromEsys<TPML_PCR_SELECTION> given(raw_given);
    const FromEsys<TPML_DIGEST> values(raw_values);
    if (rc != TSS2_RC_SUCCESS) return failure(rc, "read its registers");
    const PcrSet got = set_of(*given) & left;
    if (got == 0) break;
    std::size_t next = 0;
    for (unsigned i = 0; i < kNumPcrs; ++i) {
      if ((got >> i & 1) == 0) continue;
      if (next >= values->count || values->digests[next].size != sizeof(Sha256)) {
        return Error{Code::kIo, 0, "the TPM's registers make no sense"};
      }
      Sha256 value{};
      std::memcpy(value.data(), values->digests[next++].buffer, value.size());
      found[i] = value;
    }
    left &= ~got;
  }
  std::pair<PcrSet, std::vector<Sha256>> all{0, {}};
  for (unsigned i = 0; i < kNumPcrs; ++i) {
    if (!found[i]) continue;
    all.first |= 1U << i;
    all.second.push_back(*found[i]);
  }
  return all;
}

Result<std::vector<Sha256>> Tpm::read_pcrs(PcrSet pcrs) {
  ECFS_LET(auto all, read_present(pcrs));
  if (all.first != pcrs) {
    return Error{Code::kInvalid, 0, "the TPM has no " + pcr_words(pcrs & ~all.first) + " with SHA-256"};
  }
  return std::move(all.second);
}

Result<PcrSet> Tpm::changed_pcrs(const Tpm2Sealed& sealed) {
  ECFS_LET(const std::vector<Sha256> now, read_pcrs(sealed.pcrs));
  PcrSet changed = 0;
  std::size_t next = 0;
  for (unsigned i = 0; i < kNumPcrs; ++i) {
    if ((sealed.pcrs >> i & 1) == 0) continue;
    if (now[next] != sealed.pcr_values[next]) changed |= 1U << i;
    ++next;
  }
  return changed;
}

Result<Tpm::Object> Tpm::make_primary(std::uint32_t hierarchy) {
  const TPM2B_SENSITIVE_CREATE nothing{};
  const TPM2B_PUBLIC area = storage_template();
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION no_pcrs{};
  ESYS_TR handle = ESYS_TR_NONE;
  const TSS2_RC rc =
      Esys_CreatePrimary(context_.get(), hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &nothing, &area,
                         &outside, &no_pcrs, &handle, nullptr, nullptr, nullptr, nullptr);
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "make its storage key");
  return Object(context_.get(), handle);
}

// The storage key: of this name, or without one any of the template. kNotFound: it is another one.
Result<Tpm::Object> Tpm::storage_key(const Tpm2Name* expected) {
  ESYS_TR handle = ESYS_TR_NONE;
  if (Esys_TR_FromTPMPublic(context_.get(), kPersistentStorageKey, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &handle) ==
      TSS2_RC_SUCCESS) {
    Object kept(context_.get(), handle, true);
    TPM2B_PUBLIC* raw = nullptr;
    const TSS2_RC rc = Esys_ReadPublic(context_.get(), kept.handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &raw,
                                       nullptr, nullptr);
    const FromEsys<TPM2B_PUBLIC> area(raw);
    const auto name = name_of(kept);
    if (rc == TSS2_RC_SUCCESS && name && is_of_template(*area) && (expected == nullptr || *name == *expected)) {
      return kept;
    }
  }
  ECFS_LET(Object made, make_primary(ESYS_TR_RH_OWNER));
  if (expected == nullptr) return made;
  ECFS_LET(const Tpm2Name name, name_of(made));
  if (name != *expected) return Error{Code::kNotFound, 0, "the TPM's storage key is another one"};
  return made;
}

Result<Tpm2Name> Tpm::name_of(const Object& object) {
  TPM2B_NAME* raw = nullptr;
  const TSS2_RC rc = Esys_TR_GetName(context_.get(), object.handle(), &raw);
  const FromEsys<TPM2B_NAME> name(raw);
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "name a key");
  Tpm2Name out{};
  if (name->size != out.size()) return Error{Code::kUnsupported, 0, "the TPM's storage key has a strange name"};
  std::memcpy(out.data(), name->name, out.size());
  return out;
}

Result<Tpm::Object> Tpm::session(const Object* salted_with, std::uint8_t type) {
  TPMT_SYM_DEF symmetric{};
  symmetric.algorithm = TPM2_ALG_AES;
  symmetric.keyBits.aes = 128;
  symmetric.mode.aes = TPM2_ALG_CFB;
  ESYS_TR handle = ESYS_TR_NONE;
  TSS2_RC rc = Esys_StartAuthSession(context_.get(), salted_with != nullptr ? salted_with->handle() : ESYS_TR_NONE,
                                     ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, nullptr, type, &symmetric,
                                     TPM2_ALG_SHA256, &handle);
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "begin a session");
  Object started(context_.get(), handle);
  const TPMA_SESSION wanted =
      TPMA_SESSION_CONTINUESESSION |
      (type == TPM2_SE_TRIAL ? 0 : TPMA_SESSION_ENCRYPT | (type == TPM2_SE_HMAC ? TPMA_SESSION_DECRYPT : 0));
  rc = Esys_TRSess_SetAttributes(context_.get(), handle, wanted, 0xff);
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "encrypt a session");
  return started;
}

Result<Tpm::Object> Tpm::load(const Object& parent, const Tpm2Sealed& sealed) {
  const Error damaged{Code::kCorrupt, 0, std::string("what the TPM sealed is damaged") + kInstead + kThenReseal};
  TPM2B_PUBLIC public_area{};
  TPM2B_PRIVATE private_area{};
  std::size_t used = 0;
  if (Tss2_MU_TPM2B_PUBLIC_Unmarshal(sealed.public_area.data(), sealed.public_area.size(), &used, &public_area) !=
          TSS2_RC_SUCCESS ||
      used != sealed.public_area.size()) {
    return damaged;
  }
  used = 0;
  if (Tss2_MU_TPM2B_PRIVATE_Unmarshal(sealed.private_area.data(), sealed.private_area.size(), &used, &private_area) !=
          TSS2_RC_SUCCESS ||
      used != sealed.private_area.size()) {
    return damaged;
  }
  ESYS_TR handle = ESYS_TR_NONE;
  const TSS2_RC rc = Esys_Load(context_.get(), parent.handle(), ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                               &private_area, &public_area, &handle);
  if (rc != TSS2_RC_SUCCESS) {
    // With the storage key it was sealed below, nothing else is left that could be wrong with it.
    const TSS2_RC code = tpm_code(rc);
    if ((code & TPM2_RC_FMT1) != 0 && code != TPM2_RC_BAD_AUTH) return damaged;
    return failure(rc, "load what it sealed");
  }
  return Object(context_.get(), handle);
}

Status Tpm::apply_policy(const Object& session, PcrSet pcrs, bool needs_auth) {
  if (pcrs != 0) {
    const TPM2B_DIGEST of_now{};
    const TPML_PCR_SELECTION selection = selection_of(pcrs);
    const TSS2_RC rc =
        Esys_PolicyPCR(context_.get(), session.handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &of_now, &selection);
    if (rc != TSS2_RC_SUCCESS) return failure(rc, "check its registers");
  }
  if (needs_auth) {
    const TSS2_RC rc = Esys_PolicyAuthValue(context_.get(), session.handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE);
    if (rc != TSS2_RC_SUCCESS) return failure(rc, "ask for the auth value");
  }
  return {};
}

Result<Sha256> Tpm::trial_policy(PcrSet pcrs, bool needs_auth) {
  ECFS_LET(const Object trial, session(nullptr, TPM2_SE_TRIAL));
  ECFS_TRY(apply_policy(trial, pcrs, needs_auth));
  TPM2B_DIGEST* raw = nullptr;
  const TSS2_RC rc =
      Esys_PolicyGetDigest(context_.get(), trial.handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &raw);
  const FromEsys<TPM2B_DIGEST> digest(raw);
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "tell a policy");
  Sha256 out{};
  if (digest->size != out.size()) return Error{Code::kIo, 0, "the TPM's policy has another length"};
  std::memcpy(out.data(), digest->buffer, out.size());
  return out;
}

Result<Secret> Tpm::unseal_once(const Tpm2Sealed& sealed, const Secret& auth, bool& pcr_race) {
  auto parent = storage_key(&sealed.parent);
  if (!parent) {
    if (parent.error().code == Code::kNotFound) return another_key(sealed);
    return std::move(parent).error();
  }
  ECFS_LET(const Object object, load(*parent, sealed));
  ECFS_LET(const Object policy, session(&*parent, TPM2_SE_POLICY));
  ECFS_TRY(apply_policy(policy, sealed.pcrs, sealed.needs_auth));
  TPM2B_AUTH value{};
  value.size = static_cast<UINT16>(auth.size());
  std::copy(auth.reveal().begin(), auth.reveal().end(), value.buffer);
  TSS2_RC rc = Esys_TR_SetAuth(context_.get(), object.handle(), &value);
  wipe({value.buffer, sizeof value.buffer});
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "take the auth value");
  if (before_unseal != nullptr) before_unseal();
  TPM2B_SENSITIVE_DATA* raw = nullptr;
  rc = Esys_Unseal(context_.get(), object.handle(), policy.handle(), ESYS_TR_NONE, ESYS_TR_NONE, &raw);
  const FromEsys<TPM2B_SENSITIVE_DATA> data(raw);
  if (rc == TSS2_RC_SUCCESS) {
    auto secret = Secret::copy_of({data->buffer, std::min<std::size_t>(data->size, sizeof data->buffer)});
    wipe({data->buffer, sizeof data->buffer});
    return secret;
  }
  switch (tpm_code(rc)) {
    case TPM2_RC_PCR_CHANGED: pcr_race = true; return failure(rc, "unseal while its registers change");
    case TPM2_RC_POLICY_FAIL: return other_state(sealed);
    case TPM2_RC_AUTH_FAIL: return refused_password();
    default: return failure(rc, "unseal");
  }
}

Result<Secret> Tpm::unseal(const Tpm2Sealed& sealed, const Secret& auth) {
  bool pcr_race = false;
  auto secret = unseal_once(sealed, auth, pcr_race);
  if (!secret && pcr_race) return unseal_once(sealed, auth, pcr_race);
  return secret;
}

Result<Tpm2Sealed> Tpm::seal_once(PcrSet pcrs, const Secret& secret, const Secret& auth) {
  Tpm2Sealed sealed;
  sealed.pcrs = pcrs;
  sealed.needs_auth = pcrs == 0 || !auth.empty();
  ECFS_LET(sealed.pcr_values, read_pcrs(pcrs));
  std::size_t next = 0;
  for (unsigned i = 0; i < kNumPcrs; ++i) {
    if ((pcrs >> i & 1) == 0) continue;
    if (uniform(sealed.pcr_values[next++])) {
      return Error{Code::kInvalid, 0,
                   "PCR " + std::to_string(i) +
                       " is empty: nothing of this computer's start is measured into it, so that it protects nothing. "
                       "Choose others, or --pcrs none"};
    }
  }
  ECFS_LET(const Sha256 policy, policy_digest(pcrs, sealed.pcr_values, sealed.needs_auth));
  ECFS_LET(const Object parent, storage_key(nullptr));
  ECFS_LET(sealed.parent, name_of(parent));
  // A password of the endorsement hierarchy, which some administrators set: then it cannot be told a cleared TPM from
  // another one.
  if (auto chip = make_primary(ESYS_TR_RH_ENDORSEMENT); chip) {
    ECFS_LET(sealed.chip, name_of(*chip));
  }
  ECFS_LET(const Object hmac, session(&parent, TPM2_SE_HMAC));

  TPM2B_SENSITIVE_CREATE sensitive{};
  sensitive.sensitive.userAuth.size = static_cast<UINT16>(auth.size());
  std::copy(auth.reveal().begin(), auth.reveal().end(), sensitive.sensitive.userAuth.buffer);
  sensitive.sensitive.data.size = static_cast<UINT16>(secret.size());
  std::copy(secret.reveal().begin(), secret.reveal().end(), sensitive.sensitive.data.buffer);
  TPM2B_PUBLIC area{};
  area.publicArea.type = TPM2_ALG_KEYEDHASH;
  area.publicArea.nameAlg = TPM2_ALG_SHA256;
  area.publicArea.objectAttributes =
      TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | (auth.empty() ? TPMA_OBJECT_NODA : 0);
  area.publicArea.authPolicy.size = static_cast<UINT16>(policy.size());
  std::copy(policy.begin(), policy.end(), area.publicArea.authPolicy.buffer);
  area.publicArea.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL;
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION no_pcrs{};
  TPM2B_PRIVATE* raw_private = nullptr;
  TPM2B_PUBLIC* raw_public = nullptr;
  const TSS2_RC rc = Esys_Create(context_.get(), parent.handle(), hmac.handle(), ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                                 &area, &outside, &no_pcrs, &raw_private, &raw_public, nullptr, nullptr, nullptr);
  wipe({reinterpret_cast<std::uint8_t*>(&sensitive), sizeof sensitive});  // NOLINT: bytes of a plain structure
  const FromEsys<TPM2B_PRIVATE> made_private(raw_private);
  const FromEsys<TPM2B_PUBLIC> made_public(raw_public);
  if (rc != TSS2_RC_SUCCESS) return failure(rc, "seal");
  sealed.public_area.resize(sizeof(TPM2B_PUBLIC));
  sealed.private_area.resize(sizeof(TPM2B_PRIVATE));
  std::size_t used = 0;
  if (Tss2_MU_TPM2B_PUBLIC_Marshal(made_public.get(), sealed.public_area.data(), sealed.public_area.size(), &used) !=
      TSS2_RC_SUCCESS) {
    return Error{Code::kIo, 0, "what the TPM sealed cannot be written down"};
  }
  sealed.public_area.resize(used);
  used = 0;
  if (Tss2_MU_TPM2B_PRIVATE_Marshal(made_private.get(), sealed.private_area.data(), sealed.private_area.size(),
                                    &used) != TSS2_RC_SUCCESS) {
    return Error{Code::kIo, 0, "what the TPM sealed cannot be written down"};
  }
  sealed.private_area.resize(used);
  if (sealed.public_area.size() > kMaxTpm2PartBytes || sealed.private_area.size() > kMaxTpm2PartBytes) {
    return Error{Code::kUnsupported, 0, "what this TPM seals is longer than a key slot has room for"};
  }
  return sealed;
}

Result<Tpm2Sealed> Tpm::seal(PcrSet pcrs, const Secret& secret, const Secret& auth) {
  ECFS_LET(Tpm2Sealed sealed, seal_once(pcrs, secret, auth));
  auto again = unseal(sealed, auth);
  if (!again) return with_context(std::move(again).error(), "what was sealed does not open");
  if (!again->equals(secret)) return Error{Code::kIo, 0, "the TPM gives back something else than it sealed"};
  return sealed;
}

Result<Tpm2Status> Tpm::status(const std::vector<Tpm2Sealed>& list) {
  Tpm2Status status;
  ECFS_LET(const std::uint32_t manufacturer, property(TPM2_PT_MANUFACTURER));
  for (int shift = 24; shift >= 0; shift -= 8) {
    const auto c = static_cast<char>(manufacturer >> shift & 0xff);
    if (c > ' ' && c < 0x7f) status.manufacturer.push_back(c);
  }
  ECFS_LET(status.firmware, property(TPM2_PT_FIRMWARE_VERSION_1));
  ECFS_LET(const std::uint32_t permanent, property(TPM2_PT_PERMANENT));
  status.locked = (permanent & TPMA_PERMANENT_INLOCKOUT) != 0;
  ECFS_LET(status.failed_tries, property(TPM2_PT_LOCKOUT_COUNTER));
  ECFS_LET(status.max_tries, property(TPM2_PT_MAX_AUTH_FAIL));
  ECFS_LET(status.try_back_s, property(TPM2_PT_LOCKOUT_INTERVAL));
  ECFS_LET(auto all, read_present((PcrSet{1} << kNumPcrs) - 1));
  status.pcrs_present = all.first;
  status.pcr_values = std::move(all.second);

  for (const Tpm2Sealed& sealed : list) {
    Tpm2SlotState state;
    auto parent = storage_key(&sealed.parent);
    if (parent) {
      const auto object = load(*parent, sealed);
      if (!object && object.error().code != Code::kCorrupt) return object.error();
      ECFS_LET(state.changed, changed_pcrs(sealed));
      state.opens = !object ? Tpm2Opens::kDamaged : state.changed != 0 ? Tpm2Opens::kBootStateChanged : Tpm2Opens::kYes;
    } else if (parent.error().code == Code::kNotFound) {
      auto chip = make_primary(ESYS_TR_RH_ENDORSEMENT);
      const auto name = chip ? name_of(*chip) : Result<Tpm2Name>(std::move(chip).error());
      state.opens = name && *name == sealed.chip ? Tpm2Opens::kCleared : Tpm2Opens::kOtherTpm;
    } else {
      return std::move(parent).error();
    }
    status.slots.push_back(state);
  }
  return status;
}

}  // namespace ecfs::wrap
