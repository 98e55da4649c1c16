// Callable: a macro, a built-in function, a method bound to its object, or the variable "loop".
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace billfish::tokenizer::jinja {

struct ForStatement;
struct MacroStatement;
class Interpreter;

/// Variables of one level. Lookups go on in the levels around it.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string, Value>> variables;

  void Set(std::string_view name, Value value);
  /// Here or further out; nullptr if there is none.
  const Value* Find(std::string_view name) const;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// A running {% for %}.
struct LoopState {
  const ForStatement* statement = nullptr;
  Scope* scope = nullptr;  ///< around the loop
  std::vector<Value> items;
  size_t index = 0;
  int64_t depth = 0;  ///< 0 unless the loop called itself
  std::vector<Value> last_changed;
  bool has_changed = false;
};

struct Callable {
  using Function = Result<Value> (*)(Interpreter&, const Arguments&);

  std::string name;
  Function function = nullptr;            ///< a built-in function
  const MacroStatement* macro = nullptr;  ///< a macro, or the body of {% call %}
  Scope* scope = nullptr;                 ///< where the macro was defined
  LoopState* loop = nullptr;
  Value receiver = {};  ///< of a method, where all pointers are null
};

}  // namespace billfish::tokenizer::jinja
