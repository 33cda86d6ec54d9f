// What pam_ecfs.so and ecfs-login say to each other, over one connected stream socket.
//
// The module writes two secrets (each a u32, least significant byte first, and that many bytes; 0 bytes: not given) and
// shuts its side down. ecfs-login answers with lines: one tag, a text, a newline. The byte of a kTagHold line carries
// the session's lock as a descriptor (SCM_RIGHTS). Both sides treat what they read as hostile.
#pragma once

#include <cstddef>

namespace ecfs::pam {

constexpr int kHelperSocketFd = 3;  // its number in ecfs-login

constexpr std::size_t kMaxSecretBytes = 4096;
constexpr std::size_t kMaxAnswerBytes = 16 * 1024;

constexpr char kTagTell = 'T';         // a line for the user
constexpr char kTagHold = 'H';         // comes with the descriptor that holds the volumes open for this session
constexpr char kTagAsk = 'A';          // the login password did not open: ask for the old one, or the recovery key
constexpr char kTagAskRecovery = 'R';  // the TPM gave no key, and nothing else was tried: ask for the recovery key
constexpr char kTagWrong = 'W';        // `check`: the password opens nothing
constexpr char kTagStale = 'S';        // `mark-stale`: something of the user's was marked

// Exactly these words are its commands.
constexpr const char* kCommandOpen = "open";
constexpr const char* kCommandCheck = "check";
constexpr const char* kCommandChange = "change";
constexpr const char* kCommandMarkStale = "mark-stale";
constexpr const char* kCommandWatch = "watch";

}  // namespace ecfs::pam
