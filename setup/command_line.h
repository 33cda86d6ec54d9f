// Commands and their options: declaring them, and taking a command line apart. Only command_line.cc sees CLI11, which
// takes a compiler many seconds. One thread.
//
// CommandLine and Option are handles, copied at will, onto what a Parser owns; they live no longer than it. A
// declaration that makes no sense (a name given twice) is a mistake of the program, and an exception.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace ecfs::setup {

// An option or a positional argument. Each function gives the option itself, for the next.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option& required();
  Option& excludes(const Option& other);
  // value_name is what help calls the value, in place of its type and of a range() given after it.
  Option& value_name(const std::string& name);
  // show_default shows in help what the variable held when this is called.
  Option& show_default();
  // repeatable: may be given several times, with one value each.
  Option& repeatable();
  Option& one_of(const std::vector<std::string>& words);
  Option& range(int min, int max);  // both included
  // check refuses a value with the text that `fault` gives; "": it is good.
  Option& check(const std::function<std::string(const std::string&)>& fault);

 private:
  CLI::Option* option_;
  bool value_named_ = false;
};

// A command, or what stands before all commands.
class CommandLine {
 public:
  explicit CommandLine(CLI::App* app) : app_(app) {}

  // add_command declares a command below this one; add_option an option ("--name", "-n,--name") or, without dashes, a
  // positional argument. `what` is its line of help. `value` gets what is given; it has to live as long as the Parser.
  [[nodiscard]] CommandLine add_command(const std::string& name, const std::string& what) const;
  Option add_option(const std::string& name, std::string& value, const std::string& what) const;
  Option add_option(const std::string& name, std::vector<std::string>& values, const std::string& what) const;
  Option add_option(const std::string& name, int& value, const std::string& what) const;
  Option add_option(const std::string& name, unsigned& value, const std::string& what) const;
  Option add_flag(const std::string& name, bool& value, const std::string& what) const;
  void set_footer(const std::string& text) const;  // the end of the help

  // require_command: one of the commands below has to be named.
  void require_command() const;
  // allow_extras takes positional arguments that were not declared; has_extras says whether there were any.
  void allow_extras() const;
  [[nodiscard]] bool has_extras() const;

  bool operator==(const CommandLine&) const = default;

 private:
  CLI::App* app_;
};

// What a command line says.
struct Parsed {
  CommandLine command;                 // the innermost one that is named
  std::string name;                    // of it, with those above: "ecfs key add"
  std::optional<std::string> text;     // help or version, if that is asked for: to stdout, and nothing is run
  std::optional<std::string> mistake;  // why it makes no sense, if it does not
};

// The command line of a whole program.
class Parser {
 public:
  Parser(const std::string& name, const std::string& what, const std::string& version);
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;
  ~Parser();

  [[nodiscard]] CommandLine top() const;
  // parse fills the variables of the options. `args` are without the program's name. At most once.
  [[nodiscard]] Parsed parse(const std::vector<std::string>& args);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace ecfs::setup
