#include "wrap/keyring.h"

#include <keyutils.h>

#include "tests/wrap/session.h"
#include "tests/wrap/testing.h"

namespace ecfs::wrap {
namespace {

class Keyring : public testing::Test {
 protected:
  Keyring() {
    // One id per test, so that parallel runs of the tests do not meet in the user keyring.
    EXPECT_TRUE(fill_random(id));
  }
  ~Keyring() override { (void)drop_token(id); }
  void SetUp() override {
    if (in_session(Session::kLinksUserKeyring, [] { return 0; }) != 0) GTEST_SKIP() << "no keyrings here";
  }
  VolumeId id{};
};

TEST_F(Keyring, Description) {
  VolumeId fixed{};
  for (std::size_t i = 0; i < fixed.size(); ++i) fixed[i] = static_cast<std::uint8_t>(0xa0 + i);
  EXPECT_EQ(token_description(fixed), "ecfs:a0a1a2a3a4a5a6a7");
}

TEST_F(Keyring, PutFindReplaceDrop) {
  for (const Session kind : {Session::kLinksUserKeyring, Session::kBare}) {
    EXPECT_EQ(in_session(kind,
                         [&] {
                           const Secret a = ok(Secret::random(32));
                           const Secret b = ok(Secret::random(32));
                           if (find_token(id) || find_token(id).error().code != Code::kNotFound) return 1;
                           if (!drop_token(id)) return 2;
                           if (!put_token(id, a)) return 3;
                           auto found = find_token(id);
                           if (!found || !found->equals(a)) return 4;
                           if (!put_token(id, b)) return 5;
                           found = find_token(id);
                           if (!found || !found->equals(b)) return 6;
                           if (!drop_token(id)) return 7;
                           if (find_token(id)) return 8;
                           if (!put_token(id, a)) return 9;  // at once again
                           if (!find_token(id)) return 10;
                           return drop_token(id) && !find_token(id) ? 0 : 11;
                         }),
              0);
  }
}

TEST_F(Keyring, AnotherSessionOfTheUserFindsAndDropsIt) {
  const Secret key = ok(Secret::random(32));
  EXPECT_EQ(in_session(Session::kLinksUserKeyring, [&] { return put_token(id, key) ? 0 : 1; }), 0);
  for (const Session kind : {Session::kLinksUserKeyring, Session::kBare}) {
    EXPECT_EQ(in_session(kind,
                         [&] {
                           auto found = find_token(id);
                           return found && found->equals(key) ? 0 : 1;
                         }),
              0);
  }
  EXPECT_EQ(in_session(Session::kBare, [&] { return drop_token(id) ? 0 : 1; }), 0);
  EXPECT_EQ(in_session(Session::kLinksUserKeyring, [&] { return find_token(id) ? 1 : 0; }), 0);
}

TEST_F(Keyring, PossessorOnlyAndLinkedIntoTheSession) {
  EXPECT_EQ(in_session(Session::kLinksUserKeyring,
                       [&] {
                         if (!put_token(id, ok(Secret::random(32)))) return 1;
                         const std::string name = token_description(id);
                         const long serial = keyctl_search(KEY_SPEC_SESSION_KEYRING, "user", name.c_str(), 0);
                         if (serial < 0) return 2;
                         char* description = nullptr;
                         if (keyctl_describe_alloc(static_cast<key_serial_t>(serial), &description) < 0) return 3;
                         // type;uid;gid;permissions;description
                         const bool fits = std::string(description).find(";3f000000;" + name) != std::string::npos;
                         free(description);
                         if (!fits) return 4;
                         // Plain keyctl in a process whose session links the user keyring reads it, as other tools
                         // would.
                         std::array<char, 64> buffer{};
                         return keyctl_read(static_cast<key_serial_t>(serial), buffer.data(), buffer.size()) == 32 ? 0
                                                                                                                   : 5;
                       }),
            0);
}

TEST_F(Keyring, WithoutPossessionNobodyReadsIt) {
  EXPECT_EQ(in_session(Session::kLinksUserKeyring, [&] { return put_token(id, ok(Secret::random(32))) ? 0 : 1; }), 0);
  EXPECT_EQ(in_session(Session::kBare,
                       [&] {
                         const std::string name = token_description(id);
                         const long serial = keyctl_search(KEY_SPEC_USER_KEYRING, "user", name.c_str(), 0);
                         if (serial < 0) return 0;  // not even found
                         std::array<char, 64> buffer{};
                         return keyctl_read(static_cast<key_serial_t>(serial), buffer.data(), buffer.size()) < 0 &&
                                        errno == EACCES
                                    ? 0
                                    : 1;
                       }),
            0);
}

TEST_F(Keyring, ASessionOfAnotherUserDoesNotComeToPossessIt) {
  if (getuid() != 0) GTEST_SKIP() << "needs root";
  // As under sudo: the session keyring is the caller's, the process is root's.
  EXPECT_EQ(in_session(Session::kLinksUserKeyring,
                       [&] {
                         if (keyctl_chown(KEY_SPEC_SESSION_KEYRING, 65534, static_cast<gid_t>(-1)) != 0) return 1;
                         if (!put_token(id, ok(Secret::random(32)))) return 2;
                         const auto linked = [&] {
                           std::array<key_serial_t, 64> held{};
                           const long len =
                               keyctl_read(KEY_SPEC_SESSION_KEYRING, reinterpret_cast<char*>(held.data()), sizeof held);
                           return len < 0 ? -1 : static_cast<int>(len / static_cast<long>(sizeof held[0]));
                         };
                         if (linked() != 1) return 3;  // the user keyring alone
                         if (!find_token(id)) return 4;
                         return drop_token(id) ? 0 : 5;
                       }),
            0);
}

TEST_F(Keyring, ForeignContentsAreNotTaken) {
  EXPECT_EQ(in_session(Session::kLinksUserKeyring,
                       [&] {
                         const std::string name = token_description(id);
                         const std::string large(65, 'x');
                         if (add_key("user", name.c_str(), large.data(), large.size(), KEY_SPEC_USER_KEYRING) < 0)
                           return 1;
                         auto found = find_token(id);
                         if (found || found.error().code != Code::kCorrupt) return 2;
                         return drop_token(id) ? 0 : 3;
                       }),
            0);
}

}  // namespace
}  // namespace ecfs::wrap
