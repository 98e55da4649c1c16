// Statements, calls of macros, and loops.
#include "tokenizer/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/status_macros.h"
#include "tokenizer/jinja/functions.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_form.h"

namespace billfish::tokenizer::jinja {
namespace {

constexpr int64_t kItemsOfScope = 6;

}  // namespace

void Scope::Set(std::string_view name, Value value) {
  for (auto& [known, slot] : variables) {
    if (known == name) {
      slot = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

const Value* Scope::Find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->parent) {
    for (const auto& [known, value] : scope->variables) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

Scope& Interpreter::NewScope(Scope* parent) {
  scopes_.push_back({parent, {}});
  return scopes_.back();
}

Status Interpreter::Append(std::string_view text, std::string& out) {
  BILLFISH_RETURN_IF_ERROR(runtime_.TextBytes(text.size()));
  out += text;
  return {};
}

Status Interpreter::Refuse(std::string message) {
  refused_ = located_ = true;
  return {ErrorCode::kInvalidArgument, std::move(message)};
}

Result<std::string> Interpreter::Render(const Block& block, const Dict& variables) {
  Scope& globals = NewScope(nullptr);
  DefineFunctions(runtime_, globals);
  Scope& top = NewScope(&globals);
  for (const Dict::Entry& entry : variables.entries) top.Set(entry.key.text(), entry.value);
  std::string out;
  BILLFISH_ASSIGN_OR_RETURN([[maybe_unused]] const Flow flow, Run(block, top, out));
  return out;
}

Result<Interpreter::Flow> Interpreter::Run(const Block& block, Scope& scope, std::string& out) {
  for (const auto& statement : block) {
    auto flow = Run(*statement, scope, out);
    if (!flow.ok()) {
      if (located_) return flow;
      located_ = true;
      return flow.error().WithContext(fmt::format("line {}", statement->line));
    }
    if (*flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

struct StatementRunner {
  Interpreter& self;
  Scope& scope;
  std::string& out;
  using Flow = Interpreter::Flow;

  Result<Flow> operator()(const TextStatement& s) { return Done(self.Append(s.text, out)); }

  Result<Flow> operator()(const OutputStatement& s) {
    BILLFISH_ASSIGN_OR_RETURN(const Value value, self.Evaluate(*s.value, scope));
    BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(self.runtime_, value));
    return Done(self.Append(text, out));
  }

  Result<Flow> operator()(const IfStatement& s) {
    for (const auto& [condition, body] : s.branches) {
      BILLFISH_ASSIGN_OR_RETURN(const Value value, self.Evaluate(*condition, scope));
      if (value.IsTrue()) return self.Run(body, scope, out);
    }
    return self.Run(s.otherwise, scope, out);
  }

  Result<Flow> operator()(const ForStatement& s) {
    BILLFISH_ASSIGN_OR_RETURN(const Value items, self.Evaluate(*s.items, scope));
    return self.RunLoop(s, items, 0, scope, out);
  }

  Result<Flow> operator()(const SetStatement& s) {
    if (s.value) {
      BILLFISH_ASSIGN_OR_RETURN(const Value value, self.Evaluate(*s.value, scope));
      return Done(self.Assign(s.target, value, scope));
    }
    std::string text;
    BILLFISH_ASSIGN_OR_RETURN(const Flow flow, self.Run(s.block, self.NewScope(&scope), text));
    BILLFISH_ASSIGN_OR_RETURN(const Value value, self.ApplyFilters(s.filters, std::move(text), scope));
    BILLFISH_RETURN_IF_ERROR(self.Assign(s.target, value, scope));
    return flow;
  }

  Result<Flow> operator()(const MacroStatement& s) {
    scope.Set(s.name, Value::Of(self.runtime_.NewCallable({.name = s.name, .macro = &s, .scope = &scope})));
    return Flow::kNormal;
  }

  Result<Flow> operator()(const CallStatement& s) {
    const auto& call = *std::get_if<CallExpression>(&s.call->node);
    BILLFISH_ASSIGN_OR_RETURN(const Value callee, self.Evaluate(*call.callee, scope));
    BILLFISH_ASSIGN_OR_RETURN(Arguments arguments, self.EvaluateArguments(call.arguments, scope));
    const Callable* body = self.runtime_.NewCallable({.name = s.body.name, .macro = &s.body, .scope = &scope});
    arguments.named.emplace_back("caller", Value::Of(body));
    BILLFISH_ASSIGN_OR_RETURN(const Value value, self.Call(callee, arguments));
    BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(self.runtime_, value));
    return Done(self.Append(text, out));
  }

  Result<Flow> operator()(const FilterStatement& s) {
    std::string text;
    BILLFISH_ASSIGN_OR_RETURN(const Flow flow, self.Run(s.body, self.NewScope(&scope), text));
    BILLFISH_ASSIGN_OR_RETURN(const Value value, self.ApplyFilters(s.filters, std::move(text), scope));
    BILLFISH_ASSIGN_OR_RETURN(const std::string filtered, ToText(self.runtime_, value));
    BILLFISH_RETURN_IF_ERROR(self.Append(filtered, out));
    return flow;
  }

  Result<Flow> operator()(const WithStatement& s) {
    Scope& inner = self.NewScope(&scope);
    for (const auto& [target, expression] : s.assignments) {
      BILLFISH_ASSIGN_OR_RETURN(const Value value, self.Evaluate(*expression, scope));
      BILLFISH_RETURN_IF_ERROR(self.Assign(target, value, inner));
    }
    return self.Run(s.body, inner, out);
  }

  Result<Flow> operator()(const BreakStatement&) { return Flow::kBreak; }
  Result<Flow> operator()(const ContinueStatement&) { return Flow::kContinue; }

  static Result<Flow> Done(Status status) {
    if (!status.ok()) return status;
    return Flow::kNormal;
  }
};

Result<Interpreter::Flow> Interpreter::Run(const Statement& statement, Scope& scope, std::string& out) {
  const Runtime::Level level(runtime_);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  BILLFISH_RETURN_IF_ERROR(runtime_.Steps(1));
  return std::visit(StatementRunner{*this, scope, out}, statement.node);
}

Result<Interpreter::Flow> Interpreter::RunLoop(const ForStatement& statement, const Value& items, int64_t depth, Scope& scope,
                                               std::string& out) {
  BILLFISH_ASSIGN_OR_RETURN(std::vector<Value> all, ItemsOf(runtime_, items));
  if (statement.condition) {
    std::vector<Value> kept;
    Scope& inner = NewScope(&scope);
    for (Value& item : all) {
      BILLFISH_RETURN_IF_ERROR(Assign(statement.target, item, inner));
      BILLFISH_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.condition, inner));
      if (condition.IsTrue()) kept.push_back(std::move(item));
    }
    all = std::move(kept);
  }
  if (all.empty()) return Run(statement.otherwise, NewScope(&scope), out);
  LoopState* loop = runtime_.NewLoop();
  loop->statement = &statement;
  loop->scope = &scope;
  loop->items = std::move(all);
  loop->depth = depth;
  const Value loop_value = Value::Of(runtime_.NewCallable({.name = "loop", .loop = loop}));
  for (; loop->index < loop->items.size(); ++loop->index) {
    BILLFISH_RETURN_IF_ERROR(runtime_.Items(kItemsOfScope));
    Scope& inner = NewScope(&scope);
    inner.Set("loop", loop_value);
    BILLFISH_RETURN_IF_ERROR(Assign(statement.target, loop->items[loop->index], inner));
    BILLFISH_ASSIGN_OR_RETURN(const Flow flow, Run(statement.body, inner, out));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

Status Interpreter::Assign(const Target& target, const Value& value, Scope& scope) {
  if (!target.members.empty()) {
    BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(runtime_, value));
    if (items.size() != target.members.size()) {
      return {ErrorCode::kInvalidArgument, fmt::format("{} names cannot take {} values", target.members.size(), items.size())};
    }
    for (size_t i = 0; i < items.size(); ++i) BILLFISH_RETURN_IF_ERROR(Assign(target.members[i], items[i], scope));
    return {};
  }
  if (target.attribute.empty()) {
    scope.Set(target.name, value);
    return {};
  }
  const Value* object = scope.Find(target.name);
  if (!object || !object->is_dict() || object->dict().kind != Dict::Kind::kNamespace) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("cannot set {}.{}: {} is not a namespace", target.name, target.attribute, target.name)};
  }
  BILLFISH_RETURN_IF_ERROR(runtime_.Items(1));
  object->dict().Set(target.attribute, value);
  return {};
}

Result<Value> Interpreter::ApplyFilters(const std::vector<ExpressionPtr>& filters, std::string text, Scope& scope) {
  Value value = Value::Of(std::move(text));
  for (const ExpressionPtr& filter : filters) {
    const auto& f = *std::get_if<FilterExpression>(&filter->node);
    BILLFISH_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(f.arguments, scope));
    BILLFISH_ASSIGN_OR_RETURN(value, Filter(f.name, value, arguments));
  }
  return value;
}

Result<Value> Interpreter::CallMacro(const Callable& callable, const Arguments& arguments) {
  const MacroStatement& macro = *callable.macro;
  BILLFISH_RETURN_IF_ERROR(runtime_.Items(kItemsOfScope));
  Scope& scope = NewScope(callable.scope);
  const auto fail = [&](std::string_view what) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("macro {} {}", macro.name, what));
  };
  std::vector<bool> given(arguments.named.size(), false);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    const auto named =
        std::find_if(arguments.named.begin(), arguments.named.end(), [&, key = &name](const auto& n) { return n.first == *key; });
    if (named != arguments.named.end()) given[static_cast<size_t>(named - arguments.named.begin())] = true;
    if (i < arguments.positional.size()) {
      if (named != arguments.named.end()) return fail(fmt::format("was given {} twice", name));
      scope.Set(name, arguments.positional[i]);
    } else if (named != arguments.named.end()) {
      scope.Set(name, named->second);
    } else if (fallback) {
      BILLFISH_ASSIGN_OR_RETURN(const Value value, Evaluate(*fallback, scope));
      scope.Set(name, value);
    } else {
      scope.Set(name, Value::MakeUndefined(name));
    }
  }
  if (macro.uses_varargs) {
    List* rest = runtime_.NewList(List::Kind::kTuple);
    for (size_t i = macro.parameters.size(); i < arguments.positional.size(); ++i) rest->items.push_back(arguments.positional[i]);
    scope.Set("varargs", Value::Of(rest));
  } else if (arguments.positional.size() > macro.parameters.size()) {
    return fail(fmt::format("takes {} arguments, was given {}", macro.parameters.size(), arguments.positional.size()));
  }
  Dict* others = runtime_.NewDict();
  if (macro.uses_caller) scope.Set("caller", Value::MakeUndefined("caller"));
  for (size_t i = 0; i < arguments.named.size(); ++i) {
    const auto& [name, value] = arguments.named[i];
    if (given[i]) continue;
    if (name == "caller" && macro.uses_caller) {
      scope.Set(name, value);
    } else if (macro.uses_kwargs) {
      others->Set(name, value);
    } else {
      return fail(fmt::format("has no parameter {}", name));
    }
  }
  if (macro.uses_kwargs) scope.Set("kwargs", Value::Of(others));
  std::string text;
  BILLFISH_ASSIGN_OR_RETURN([[maybe_unused]] const Flow flow, Run(macro.body, scope, text));
  return Value::Of(std::move(text));
}

}  // namespace billfish::tokenizer::jinja
