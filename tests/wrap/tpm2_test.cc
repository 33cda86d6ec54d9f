// A real TPM 2.0, in software: swtpm, one for each test, with a socket and a state of its own.
#include "wrap/tpm2.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "tests/wrap/volume_fixture.h"
#include "wrap/keyslot.h"
#include "wrap/tpm2/tpm.h"
#include "wrap/tpm2_wire.h"

namespace ecfs::wrap {
namespace {

constexpr const char* kSwtpm = "/usr/bin/swtpm";
constexpr PcrSet kPcr7 = 1U << 7;

bool is_listening(const std::string& path) {
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);) {
    if (line.find(" 00010000 ") != std::string::npos && line.ends_with(" " + path)) return true;
  }
  return false;
}

class Swtpm {
 public:
  Swtpm() { start(); }
  ~Swtpm() { stop(); }
  Swtpm(const Swtpm&) = delete;
  Swtpm& operator=(const Swtpm&) = delete;

  void start() {
    const std::string socket = dir_ / "s";
    SpawnOptions o;
    o.argv = {kSwtpm,
              "socket",
              "--tpm2",
              "--tpmstate",
              "dir=" + dir_.path(),
              "--server",
              "type=unixio,path=" + socket,
              "--ctrl",
              "type=unixio,path=" + socket + ".ctrl",
              "--flags",
              "not-need-init,startup-clear"};
    o.env = {"PATH=/usr/bin:/bin"};
    child_ = ok(spawn(o));
    for (int i = 0; i < 3000; ++i) {
      if (is_listening(socket)) return;  // at this one last
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << "swtpm did not start";
  }
  void stop() {
    kill(child_.pid(), SIGKILL);
    (void)child_.wait(2000);
    for (const char* name : {"s", "s.ctrl"}) unlink((dir_ / name).c_str());
  }
  [[nodiscard]] std::string tcti() const { return "swtpm:path=" + dir_.path() + "/s"; }
  [[nodiscard]] Tpm2::Options options(int timeout_ms = 10000) const {
    Tpm2::Options o;
    o.tcti = tcti();
    o.timeout_ms = timeout_ms;
    o.program = ECFS_TPM2_PROGRAM;
    return o;
  }
  [[nodiscard]] pid_t pid() const { return child_.pid(); }
  // Runs a program of tpm2-tools; gives what it wrote to stdout.
  std::string tool(std::vector<std::string> argv) const {
    argv[0] = "/usr/bin/" + argv[0];
    SpawnOptions o;
    o.argv = argv;
    o.env = {"PATH=/usr/bin:/bin", "TPM2TOOLS_TCTI=" + tcti(), "TSS2_LOG=all+NONE"};
    Pipe out = ok(make_pipe());
    o.fds = {{out.write_end.get(), 1}};
    Child child = ok(spawn(o));
    out.write_end.reset();
    Bytes said(65536);
    said.resize(ok(read_full(out.read_end.get(), said)));
    EXPECT_EQ(ok(child.wait()), 0) << argv[0];
    return std::string(as_text(said));
  }
  void extend(unsigned pcr) const {
    tool({"tpm2_pcrextend", std::to_string(pcr) + ":sha256=" + std::string(63, '0') + "1"});
  }
  // Objects and sessions that are in the chip.
  [[nodiscard]] std::string loaded() const {
    return tool({"tpm2_getcap", "handles-transient"}) + tool({"tpm2_getcap", "handles-loaded-session"}) +
           tool({"tpm2_getcap", "handles-saved-session"});
  }

 private:
  Scratch dir_;
  Child child_{-1};
};

class TpmTest : public testing::Test {
 protected:
  void SetUp() override { swtpm.extend(7); }
  Swtpm swtpm;
  Secret secret = ok(Secret::random(kTpm2SecretBytes));
  Secret auth = ok(Secret::random(kTpm2AuthBytes));
  Secret no_auth;
};

TEST_F(TpmTest, PolicyDigestIsThatOfATrialSession) {
  for (const unsigned pcr : {0U, 1U, 8U, 11U, 14U, 23U}) swtpm.extend(pcr);
  Tpm tpm = ok(Tpm::open(swtpm.tcti()));
  for (const PcrSet pcrs : {0U, 1U << 7, 1U, 0x800000U, 0x4983U, 0xffffffU}) {
    for (const bool needs_auth : {false, true}) {
      const auto values = ok(tpm.read_pcrs(pcrs));
      EXPECT_EQ(ok(policy_digest(pcrs, values, needs_auth)), ok(tpm.trial_policy(pcrs, needs_auth)))
          << pcrs << needs_auth;
    }
  }
}

TEST_F(TpmTest, SealedSecretOpensUnderItsConditionsOnly) {
  swtpm.extend(11);
  Tpm tpm = ok(Tpm::open(swtpm.tcti()));
  for (const PcrSet pcrs : {0U, kPcr7, kPcr7 | 1U << 11}) {
    for (const Secret* with : {&no_auth, &auth}) {
      const Tpm2Sealed sealed = ok(tpm.seal(pcrs, secret, *with));
      EXPECT_EQ(sealed.pcrs, pcrs);
      EXPECT_EQ(sealed.needs_auth, pcrs == 0 || !with->empty());
      EXPECT_EQ(ok(parse_sealed(pack_sealed(sealed))), sealed);
      EXPECT_TRUE(ok(tpm.unseal(sealed, *with)).equals(secret));
      if (!with->empty()) {
        EXPECT_EQ(code_of(tpm.unseal(sealed, no_auth)), Code::kWrongKey);
        swtpm.tool({"tpm2_dictionarylockout", "-c"});
      }
      // The policy that a slot claims is not what counts.
      Tpm2Sealed lies = sealed;
      lies.pcrs = pcrs == 0 ? kPcr7 : 0;
      lies.pcr_values = ok(tpm.read_pcrs(lies.pcrs));
      lies.needs_auth = true;
      EXPECT_FALSE(tpm.unseal(lies, *with).has_value());
    }
  }
}

TEST_F(TpmTest, NothingStaysInTheChip) {
  {
    Tpm tpm = ok(Tpm::open(swtpm.tcti()));
    Tpm2Sealed sealed = ok(tpm.seal(kPcr7, secret, auth));
    EXPECT_EQ(swtpm.loaded(), "");
    ok(tpm.unseal(sealed, auth));
    EXPECT_EQ(swtpm.loaded(), "");
    EXPECT_FALSE(tpm.unseal(sealed, no_auth).has_value());
    EXPECT_EQ(swtpm.loaded(), "");
    Tpm2Sealed damaged = sealed;
    damaged.private_area.back() ^= 1;
    EXPECT_EQ(code_of(tpm.unseal(damaged, auth)), Code::kCorrupt);
    EXPECT_EQ(swtpm.loaded(), "");
    swtpm.extend(7);
    EXPECT_FALSE(tpm.unseal(sealed, auth).has_value());
    EXPECT_FALSE(tpm.seal(1U << 3, secret, auth).has_value());
    ok(tpm.status({sealed, damaged, sealed}));
    EXPECT_EQ(swtpm.loaded(), "");
  }
  EXPECT_EQ(swtpm.loaded(), "");
}

TEST_F(TpmTest, RegisterThatChangesMeanwhileIsTriedAgain) {
  static const Swtpm* chip = nullptr;
  static int times = 0;
  chip = &swtpm;
  Tpm tpm = ok(Tpm::open(swtpm.tcti()));
  const Tpm2Sealed sealed = ok(tpm.seal(kPcr7, secret, auth));
  tpm.before_unseal = [] {
    if (times++ == 0) chip->extend(10);
  };
  times = 0;
  EXPECT_TRUE(ok(tpm.unseal(sealed, auth)).equals(secret));
  EXPECT_EQ(times, 2);
  // Once, not for ever.
  tpm.before_unseal = [] {
    ++times;
    chip->extend(10);
  };
  times = 0;
  EXPECT_FALSE(tpm.unseal(sealed, auth).has_value());
  EXPECT_EQ(times, 2);
}

TEST_F(TpmTest, StorageKeyKeptAtItsPlaceIsUsedIfItsNameIsRight) {
  Scratch dir;
  const std::string context = dir / "context";
  const auto keep = [&](const char* algorithm, const char* attributes) {
    swtpm.tool({"tpm2_createprimary", "-Q", "-C", "o", "-G", algorithm, "-a", attributes, "-c", context});
    swtpm.tool({"tpm2_evictcontrol", "-Q", "-C", "o", "-c", context, "0x81000001"});
    swtpm.tool({"tpm2_flushcontext", "-t"});
  };
  const char* const kAttributes = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth";
  Tpm tpm = ok(Tpm::open(swtpm.tcti()));
  const Tpm2Sealed sealed = ok(tpm.seal(kPcr7, secret, no_auth));
  keep("rsa2048:aes128cfb", kAttributes);  // somebody else's
  EXPECT_TRUE(ok(tpm.unseal(sealed, no_auth)).equals(secret));
  EXPECT_EQ(ok(tpm.seal(kPcr7, secret, no_auth)).parent, sealed.parent);
  swtpm.tool({"tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001"});
  swtpm.tool({"tpm2_changeauth", "-c", "owner", "owner-password"});
  const Error e = failure_of(tpm.unseal(sealed, no_auth));
  EXPECT_EQ(e.code, Code::kDenied);
  EXPECT_NE(e.what.find("owner password"), std::string::npos) << e.what;
  swtpm.tool({"tpm2_changeauth", "-c", "owner", "-p", "owner-password"});
  keep("ecc256:aes128cfb", (std::string(kAttributes) + "|noda").c_str());
  swtpm.tool({"tpm2_changeauth", "-c", "owner", "owner-password"});
  EXPECT_TRUE(ok(tpm.unseal(sealed, no_auth)).equals(secret));
  EXPECT_EQ(ok(tpm.seal(kPcr7, secret, auth)).parent, sealed.parent);
  EXPECT_EQ(swtpm.loaded(), "");
}

TEST_F(TpmTest, EmptyRegistersProtectNothing) {
  Tpm tpm = ok(Tpm::open(swtpm.tcti()));
  for (const PcrSet pcrs : {1U << 4, 1U << 17, kPcr7 | 1U << 4}) {  // zeros, ones
    const Error e = failure_of(tpm.seal(pcrs, secret, no_auth));
    EXPECT_EQ(e.code, Code::kInvalid);
    EXPECT_NE(e.what.find("--pcrs none"), std::string::npos) << e.what;
  }
}

TEST_F(TpmTest, ClearedAndOtherTpmAreToldApart) {
  Swtpm other;
  other.extend(7);
  Tpm here = ok(Tpm::open(swtpm.tcti()));
  const Tpm2Sealed sealed = ok(here.seal(kPcr7, secret, no_auth));
  Tpm there = ok(Tpm::open(other.tcti()));
  EXPECT_EQ(
      failure_of(there.unseal(sealed, no_auth)).what,
      "this key was sealed by another TPM than this computer has; open it with the recovery key or another passphrase");
  EXPECT_EQ(ok(there.status({sealed})).slots[0].opens, Tpm2Opens::kOtherTpm);
  swtpm.tool({"tpm2_clear"});
  EXPECT_EQ(failure_of(here.unseal(sealed, no_auth)).what,
            "the TPM was cleared since this key was sealed; open it with the recovery key or another passphrase, then "
            "bind it "
            "anew: ecfs key reseal");
  EXPECT_EQ(ok(here.status({sealed})).slots[0].opens, Tpm2Opens::kCleared);
}

// ---- through the program ----

TEST_F(TpmTest, ProgramSealsAndUnseals) {
  Tpm2 tpm = ok(Tpm2::start(swtpm.options()));
  const Tpm2Sealed plain = ok(tpm.seal(kPcr7, secret, no_auth));
  const Tpm2Sealed with = ok(tpm.seal(0, secret, auth));
  EXPECT_TRUE(ok(tpm.unseal(plain, no_auth)).equals(secret));
  EXPECT_TRUE(ok(tpm.unseal(with, auth)).equals(secret));
  const Error refused = failure_of(tpm.unseal(with, ok(Secret::random(kTpm2AuthBytes))));
  EXPECT_EQ(refused.code, Code::kWrongKey);
  EXPECT_EQ(refused.what, "the TPM refused the password (2 tries left)");
  EXPECT_TRUE(ok(tpm.unseal(with, auth)).equals(secret));
  const std::vector<Tpm2Sealed> many(40, plain);
  EXPECT_EQ(ok(tpm.status(many)).slots.size(), 40U);
}

TEST_F(TpmTest, ProgramForLoginsTriesOneWrongPasswordOnly) {
  Tpm2::Options o = swtpm.options();
  const Tpm2Sealed with = ok(ok(Tpm2::start(o)).seal(0, secret, auth));
  o.for_login = true;
  Tpm2 tpm = ok(Tpm2::start(o));
  EXPECT_TRUE(ok(tpm.unseal(with, auth)).equals(secret));
  EXPECT_EQ(code_of(tpm.unseal(with, ok(Secret::random(kTpm2AuthBytes)))), Code::kWrongKey);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(code_of(tpm.unseal(with, ok(Secret::random(kTpm2AuthBytes)))), Code::kBusy);
  EXPECT_EQ(code_of(tpm.unseal(with, auth)), Code::kBusy);
  EXPECT_EQ(ok(ok(Tpm2::start(swtpm.options())).status({})).failed_tries, 1U);
}

TEST_F(TpmTest, TpmThatHangsCostsNoMoreThanTheLimit) {
  Tpm2 tpm = ok(Tpm2::start(swtpm.options(3000)));  // the program's start counts
  ok(tpm.status({}));
  kill(swtpm.pid(), SIGSTOP);
  const auto begun = std::chrono::steady_clock::now();
  {
    Tpm2 other = ok(Tpm2::start(swtpm.options(700)));
    const Error e = failure_of(other.status({}));
    EXPECT_EQ(e.code, Code::kUnavailable);
    EXPECT_EQ(e.what, "the TPM did not answer within 1 s");
    EXPECT_EQ(failure_of(other.status({})).what, "the TPM did not answer before");
  }
  EXPECT_EQ(failure_of(tpm.status({})).sys_errno, ETIMEDOUT);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(30));
  kill(swtpm.pid(), SIGCONT);
}

TEST(Tpm2Program, HostileRequestsAreRefused) {
  std::array<int, 2> ends{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const Fd ours(ends[0]);
  Fd theirs(ends[1]);
  SpawnOptions o;
  o.argv = {ECFS_TPM2_PROGRAM, "device:/nonexistent"};
  o.fds = {{theirs.get(), kTpm2SocketFd}};
  Child child = ok(spawn(o));
  theirs.reset();
  const auto ask = [&](std::uint32_t head, const Bytes& data, std::size_t secret_len) {
    ok(send_message(ours.get(), head, data, ok(Secret::of_size(secret_len)), 5000));
    return ok(receive_message(ours.get(), 5000)).head;
  };
  const auto refused = 1 + static_cast<std::uint32_t>(Code::kInvalid);
  const auto corrupt = 1 + static_cast<std::uint32_t>(Code::kCorrupt);
  EXPECT_EQ(ask(0, {}, 0), refused);
  EXPECT_EQ(ask(99, {1, 2, 3}, 7), refused);
  EXPECT_EQ(ask(kTpm2Seal, {1, 0, 0, 0}, 31), refused);
  EXPECT_EQ(ask(kTpm2Seal, {1, 0, 0}, 32), refused);
  EXPECT_EQ(ask(kTpm2Seal, {0, 0, 0, 1}, 32), refused);
  EXPECT_EQ(ask(kTpm2Unseal, {}, 0), corrupt);
  EXPECT_EQ(ask(kTpm2Unseal, Bytes(59000, 0xff), 32), corrupt);
  EXPECT_EQ(ask(kTpm2Status, {0xff, 0xff, 0xff, 0xff}, 0), corrupt);
  EXPECT_EQ(ask(kTpm2Status, {0, 0, 0, 0}, 0), 1 + static_cast<std::uint32_t>(Code::kUnavailable));
  const Bytes too_long = {1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0};
  ok(write_all(ours.get(), too_long));
  EXPECT_EQ(ok(child.wait(5000)), 1);
}

TEST(Tpm2Program, WaysToATpmAreThoseThatLoadNothingElse) {
  for (const char* good : {"device:/dev/tpmrm0", "device", "swtpm:host=127.0.0.1,port=2321", "mssim:", "tabrmd"}) {
    EXPECT_TRUE(check_tcti(good)) << good;
  }
  for (const std::string& bad : {std::string("cmd:sh -c id"), std::string("cmd:id"), std::string("/tmp/lib.so"),
                                 std::string("libtss2-tcti-cmd.so.0"), std::string(), std::string("pcap:"),
                                 std::string("device:/dev/tpm 0"), "device:" + std::string(300, 'x')}) {
    EXPECT_EQ(code_of(check_tcti(bad)), Code::kInvalid) << bad;
  }
}

TEST(Tpm2Program, ListsOfPcrs) {
  EXPECT_EQ(ok(parse_pcrs("none")), 0U);
  EXPECT_EQ(ok(parse_pcrs("7")), kPcr7);
  EXPECT_EQ(ok(parse_pcrs("23,0,0")), 0x800001U);
  EXPECT_EQ(pcrs_text(0x800001U), "0,23");
  EXPECT_EQ(pcrs_text(0), "none");
  for (const char* bad : {"", "24", "7,", ",7", "7 ", "-1", "7,none", "x", "4294967296"}) {
    EXPECT_EQ(code_of(parse_pcrs(bad)), Code::kInvalid) << bad;
  }
}

// ---- slots ----

class TpmSlots : public TpmTest {
 protected:
  VolumeId volume{1, 2, 3};
  Secret key = ok(Secret::random(32));
  Secret passphrase = secret_of("correct horse");
  Tpm2 tpm = ok(Tpm2::start(swtpm.options()));
  Slot make(PcrSet pcrs, const Secret* with, std::uint32_t id = 3) {
    return ok(make_tpm2_slot(volume, id, "chip", key, {&tpm, pcrs, with, kCheapCost}));
  }
};

TEST_F(TpmSlots, OpenOnThisTpm) {
  const Slot alone = make(kPcr7, nullptr);
  EXPECT_EQ(alone.type, SlotType::kTpm2);
  EXPECT_TRUE(alone.known());
  EXPECT_EQ(alone.label, "chip");
  EXPECT_TRUE(ok(open_tpm2_slot(volume, alone, tpm, nullptr)).equals(key));
  EXPECT_EQ(code_of(open_tpm2_slot(volume, alone, tpm, &passphrase)), Code::kInvalid);
  EXPECT_EQ(code_of(open_tpm2_slot({}, alone, tpm, nullptr)), Code::kCorrupt);
  EXPECT_EQ(code_of(password_cost(alone)), Code::kInvalid);
  EXPECT_EQ(ok(tpm2_sealed(alone)).pcrs, kPcr7);
}

TEST_F(TpmSlots, PasswordAndTpmAreBothNeeded) {
  const Slot both = make(0, &passphrase);
  EXPECT_EQ(both.type, SlotType::kTpm2Password);
  EXPECT_EQ(ok(password_cost(both)), kCheapCost);
  EXPECT_TRUE(ok(open_tpm2_slot(volume, both, tpm, &passphrase)).equals(key));
  const Secret wrong = secret_of("correct horsf");
  EXPECT_EQ(code_of(open_tpm2_slot(volume, both, tpm, &wrong)), Code::kWrongKey);
  EXPECT_EQ(code_of(open_tpm2_slot(volume, both, tpm, nullptr)), Code::kInvalid);
  // Who has the TPM's secret, without the passphrase, has nothing: the key is not derived from the former alone. The
  // slot's commitment says so for every input that leaves the passphrase out.
  const Tpm2Sealed sealed = ok(tpm2_sealed(both));
  EXPECT_EQ(code_of(tpm.unseal(sealed, no_auth)), Code::kWrongKey);
}

TEST_F(TpmSlots, WhatIsChangedInASlotClosesIt) {
  for (const Secret* with : {static_cast<const Secret*>(nullptr), static_cast<const Secret*>(&passphrase)}) {
    const Slot slot = make(kPcr7, with);
    for (std::size_t at = 12; at < slot.raw.size(); at += with == nullptr ? 5 : 37) {
      Slot changed = slot;
      changed.raw[at] ^= 0x10;
      // Each is refused, and most cost no try at the TPM; a wrong auth value may.
      if (open_tpm2_slot(volume, changed, tpm, with).has_value()) ADD_FAILURE() << "byte " << at;
      swtpm.tool({"tpm2_dictionarylockout", "-c"});
    }
  }
}

TEST_F(TpmSlots, VolumeTriesEachTpmSlotInTurn) {
  Swtpm other;
  other.extend(7);
  Tpm2 elsewhere = ok(Tpm2::start(other.options()));
  const VolumeKit& k = kit();
  Scratch lower;
  VolumeStore::Places places;
  places.lower_dir = lower.fd();
  VolumeStore store = ok(VolumeStore::create(places, k.header, k.area, k.key));
  const auto add = [&](std::uint32_t id, Tpm2& chip, PcrSet pcrs, const Secret* with) {
    ok(store.add_slot(k.key, ok(make_tpm2_slot(k.header.id, id, "", k.key, {&chip, pcrs, with, kCheapCost}))));
  };
  EXPECT_EQ(code_of(store.unlock_with_tpm2(tpm, nullptr)), Code::kNotFound);
  add(3, elsewhere, kPcr7, nullptr);
  EXPECT_NE(failure_of(store.unlock_with_tpm2(tpm, nullptr)).what.find("another TPM"), std::string::npos);
  add(4, tpm, kPcr7, nullptr);
  add(5, elsewhere, 0, &k.passphrase);
  add(6, tpm, 0, &k.passphrase);
  EXPECT_EQ(ok(store.unlock_with_tpm2(tpm, nullptr)).slot_id, 4U);
  EXPECT_EQ(ok(store.unlock_with_tpm2(elsewhere, nullptr)).slot_id, 3U);
  EXPECT_EQ(ok(store.unlock_with_tpm2(tpm, &k.passphrase)).slot_id, 6U);
  EXPECT_EQ(ok(store.unlock_with_tpm2(elsewhere, &k.passphrase, 5)).slot_id, 5U);
  EXPECT_EQ(code_of(store.unlock_with_tpm2(tpm, nullptr, 3)), Code::kUnavailable);
  swtpm.extend(7);
  const Error e = failure_of(store.unlock_with_tpm2(tpm, nullptr));
  EXPECT_EQ(e.code, Code::kUnavailable);
  EXPECT_NE(e.what.find("slot 3: this key was sealed by another TPM"), std::string::npos) << e.what;
  EXPECT_NE(e.what.find("slot 4: this computer was not booted in the state that the key is sealed to (PCR 7 changed)"),
            std::string::npos)
      << e.what;
  // One wrong password is one try, however many slots there are.
  add(7, tpm, 0, &k.passphrase);
  EXPECT_EQ(code_of(store.unlock_with_tpm2(tpm, &k.other_passphrase)), Code::kWrongKey);
  EXPECT_EQ(ok(tpm.status({})).failed_tries, 1U);
}

TEST_F(TpmSlots, VolumeKeepsAKeyThatNeedsNoTpm) {
  const VolumeKit& k = kit();
  Scratch lower;
  VolumeStore::Places places;
  places.lower_dir = lower.fd();
  VolumeStore store = ok(VolumeStore::create(places, k.header, k.area, k.key));
  ok(store.add_slot(k.key, ok(make_tpm2_slot(k.header.id, 3, "", k.key, {&tpm, kPcr7, nullptr, {}}))));
  ok(store.remove_slot(k.key, 1, true));
  const Error e = failure_of(store.remove_slot(k.key, 2, true));
  EXPECT_EQ(e.code, Code::kDenied);
  EXPECT_NE(e.what.find("needs no TPM"), std::string::npos) << e.what;
  SlotArea only_tpm;
  only_tpm.slots.push_back(make(kPcr7, nullptr));
  Scratch empty;
  places.lower_dir = empty.fd();
  EXPECT_EQ(code_of(VolumeStore::create(places, k.header, only_tpm, k.key)), Code::kInvalid);
}

}  // namespace
}  // namespace ecfs::wrap

int main(int argc, char** argv) {
  if (access(ecfs::wrap::kSwtpm, X_OK) != 0 || access("/usr/bin/tpm2_pcrextend", X_OK) != 0) {
    puts("skipped: there is no swtpm or no tpm2-tools (packages swtpm, tpm2-tools)");
    return 77;
  }
  setenv("TSS2_LOG", "all+NONE", 1);  // NOLINT(concurrency-mt-unsafe)
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
