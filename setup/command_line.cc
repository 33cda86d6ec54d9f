#include "setup/command_line.h"

#include <CLI/CLI.hpp>
#include <sstream>

namespace ecfs::setup {

Option& Option::required() {
  option_->required();
  return *this;
}

Option& Option::excludes(const Option& other) {
  option_->excludes(other.option_);
  return *this;
}

Option& Option::value_name(const std::string& name) {
  option_->type_name(name);
  value_named_ = true;
  return *this;
}

Option& Option::show_default() {
  option_->capture_default_str();
  return *this;
}

Option& Option::repeatable() {
  option_->expected(1)->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return *this;
}

Option& Option::one_of(const std::vector<std::string>& words) {
  option_->check(CLI::IsMember(words));
  return *this;
}

Option& Option::range(int min, int max) {
  CLI::Range range(min, max);
  if (value_named_) range.description("");
  option_->check(range);
  return *this;
}

Option& Option::check(const std::function<std::string(const std::string&)>& fault) {
  option_->check(fault);
  return *this;
}

CommandLine CommandLine::add_command(const std::string& name, const std::string& what) const {
  return CommandLine(app_->add_subcommand(name, what));
}

Option CommandLine::add_option(const std::string& name, std::string& value, const std::string& what) const {
  return Option(app_->add_option(name, value, what));
}

Option CommandLine::add_option(const std::string& name, std::vector<std::string>& values,
                               const std::string& what) const {
  return Option(app_->add_option(name, values, what));
}

Option CommandLine::add_option(const std::string& name, int& value, const std::string& what) const {
  return Option(app_->add_option(name, value, what));
}

Option CommandLine::add_option(const std::string& name, unsigned& value, const std::string& what) const {
  return Option(app_->add_option(name, value, what));
}

Option CommandLine::add_flag(const std::string& name, bool& value, const std::string& what) const {
  return Option(app_->add_flag(name, value, what));
}

void CommandLine::set_footer(const std::string& text) const { app_->footer(text); }

void CommandLine::require_command() const { app_->require_subcommand(1); }

void CommandLine::allow_extras() const { app_->allow_extras(); }

bool CommandLine::has_extras() const { return !app_->remaining().empty(); }

Parser::Parser(const std::string& name, const std::string& what, const std::string& version)
    : app_(std::make_unique<CLI::App>(what, name)) {
  app_->set_version_flag("--version", version);
  app_->set_help_all_flag("--help-all", "Describe all commands");
  app_->require_subcommand(1);
}

Parser::~Parser() = default;

CommandLine Parser::top() const { return CommandLine(app_.get()); }

Parsed Parser::parse(const std::vector<std::string>& args) {
  std::optional<std::string> text;
  std::optional<std::string> mistake;
  bool help = false;
  try {
    app_->parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::CallForHelp&) {
    help = true;
  } catch (const CLI::Success& done) {  // the version, or the help of all commands
    std::ostringstream out;
    app_->exit(done, out);
    text = out.str();
  } catch (const CLI::ParseError& wrong) {
    mistake = wrong.what();
  }
  CLI::App* asked = app_.get();
  std::string above;
  while (!asked->get_subcommands().empty()) {
    above += (above.empty() ? "" : " ") + asked->get_name();
    asked = asked->get_subcommands().front();
  }
  const std::string name = (above.empty() ? "" : above + " ") + asked->get_name();
  if (help) text = asked->help(above) + "\n";
  if (const std::vector<std::string> rest = asked->remaining();
      mistake && asked->get_require_subcommand_min() > 0 && !rest.empty()) {
    mistake = "there is no command '" + name + " " + rest.front() + "'";
  }
  return {CommandLine(asked), name, text, mistake};
}

}  // namespace ecfs::setup
