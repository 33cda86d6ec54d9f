#include "pam/login/commands.h"
#include "pam/login/volumes.h"
#include "pam/protocol.h"
#include "wrap/base/log.h"

namespace ecfs::pam {
namespace {

// A little less than the module gives, so that what is slow ends here, with an answer.
Deadline deadline_of(const Request& request) { return Deadline(request.time_limit_ms - 500); }

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    if (!text.empty()) text += ", ";
    text += name;
  }
  return text;
}

void log_all(const std::string& user, const std::vector<std::string>& lines) {
  const std::string whose = "user " + user + ", ";
  for (const std::string& line : lines) log_line(LOG_WARNING, whose + line);
}

}  // namespace

Result<int> run_check(const Request& request, Channel& channel) {
  ECFS_LET(const Identity who, identity_of(request.user));
  ECFS_LET(const bool wrong, opens_nothing(who, request.first, deadline_of(request)));
  if (wrong) channel.mark(kTagWrong);
  return 0;
}

Result<int> run_change(const Request& request, const wrap::Config& config, Channel& channel) {
  const Deadline deadline = deadline_of(request);
  ECFS_LET(const Identity who, identity_of(request.user));
  const auto volumes = survey_volumes(who, deadline);
  auto tpm = volumes ? start_tpm2(*volumes, config, deadline) : std::nullopt;
  auto report = change_password(who, request.first, request.second, tpm ? &*tpm : nullptr, deadline);
  if (!report) {
    channel.tell("your encrypted files did not take over the new password. After the next login: ecfs key change");
    return std::move(report).error();
  }
  log_all(who.name, report->log);
  for (const std::string& name : report->changed) {
    log_line(LOG_INFO, "user " + who.name + ": " + name + " takes the new password");
  }
  if (!report->stale.empty()) {
    channel.tell(joined(report->stale) + " still opens with its former password only. To change it: ecfs key change");
  }
  return 0;
}

Result<int> run_mark_stale(const Request& request, Channel& channel) {
  ECFS_LET(const Identity who, identity_of(request.user));
  ECFS_LET(const ChangeReport report, mark_all_stale(who, deadline_of(request)));
  log_all(who.name, report.log);
  if (report.stale.empty()) return 0;
  channel.mark(kTagStale);
  channel.tell("the encrypted files of " + who.name + " (" + joined(report.stale) +
               ") still open with the former password only. " + who.name +
               " is asked for it at the next login on this machine's screen, or uses: ecfs key change");
  return 0;
}

}  // namespace ecfs::pam
