// Interpreter: runs a syntax tree. One object per rendering.
#pragma once

#include <ctime>
#include <deque>
#include <string>
#include <string_view>

#include "billfish/status.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/callable.h"
#include "tokenizer/jinja/value.h"

namespace billfish::tokenizer::jinja {

class Interpreter {
 public:
  Interpreter(Runtime& runtime, std::time_t now) : runtime_(runtime), now_(now) {}

  /// The template's text. Errors: kInvalidArgument, kUnsupported; messages name the line, but for refused().
  Result<std::string> Render(const Block& block, const Dict& variables);
  /// The template called raise_exception; the error's message is its argument.
  bool refused() const { return refused_; }

  Runtime& runtime() { return runtime_; }
  std::time_t now() const { return now_; }

  // For filters, tests, methods and functions.
  Result<Value> Call(const Value& callee, const Arguments& arguments);
  /// Jinja's object.name: attributes and methods first, then items.
  Result<Value> Attribute(const Value& object, std::string_view name);
  /// Jinja's object[index]: items first, then attributes and methods.
  Result<Value> Item(const Value& object, const Value& index);
  Result<Value> Filter(std::string_view name, const Value& input, const Arguments& arguments);
  Result<bool> Test(std::string_view name, const Value& input, const Arguments& arguments);
  Status Refuse(std::string message);

 private:
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };
  friend struct StatementRunner;
  friend struct ExpressionRunner;

  Result<Flow> Run(const Block& block, Scope& scope, std::string& out);
  Result<Flow> Run(const Statement& statement, Scope& scope, std::string& out);
  Result<Value> Evaluate(const Expression& expression, Scope& scope);
  Result<Arguments> EvaluateArguments(const CallArguments& arguments, Scope& scope);
  Result<Value> CallMacro(const Callable& callable, const Arguments& arguments);
  /// Runs the loop's body for every item.
  Result<Flow> RunLoop(const ForStatement& statement, const Value& items, int64_t depth, Scope& scope, std::string& out);
  Result<Value> LoopAttribute(LoopState& loop, std::string_view name);
  Status Assign(const Target& target, const Value& value, Scope& scope);
  Result<Value> ApplyFilters(const std::vector<ExpressionPtr>& filters, std::string text, Scope& scope);
  Status Append(std::string_view text, std::string& out);
  Scope& NewScope(Scope* parent);

  Runtime& runtime_;
  std::time_t now_;
  std::deque<Scope> scopes_;  ///< live to the end: macros refer to them
  bool located_ = false;      ///< the error under way names its line already
  bool refused_ = false;
};

}  // namespace billfish::tokenizer::jinja
