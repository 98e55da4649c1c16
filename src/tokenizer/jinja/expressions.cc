// Expressions, attributes and calls.
#include <fmt/format.h>

#include "core/status_macros.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/methods.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/tests.h"
#include "tokenizer/jinja/text_form.h"

namespace billfish::tokenizer::jinja {

struct ExpressionRunner {
  Interpreter& self;
  Scope& scope;

  Result<Value> operator()(const LiteralExpression& e) { return e.value; }

  Result<Value> operator()(const NameExpression& e) {
    const Value* found = scope.Find(e.name);
    return found ? *found : Value::MakeUndefined(e.name);
  }

  Result<Value> operator()(const SequenceExpression& e) {
    List* list = self.runtime_.NewList(e.tuple ? List::Kind::kTuple : List::Kind::kList);
    BILLFISH_RETURN_IF_ERROR(self.runtime_.Items(static_cast<int64_t>(e.items.size())));
    for (const ExpressionPtr& item : e.items) {
      BILLFISH_ASSIGN_OR_RETURN(Value value, self.Evaluate(*item, scope));
      list->items.push_back(std::move(value));
    }
    return Value::Of(list);
  }

  Result<Value> operator()(const DictExpression& e) {
    Dict* dict = self.runtime_.NewDict();
    BILLFISH_RETURN_IF_ERROR(self.runtime_.Items(static_cast<int64_t>(e.entries.size())));
    for (const auto& [key_expression, value_expression] : e.entries) {
      BILLFISH_ASSIGN_OR_RETURN(const Value key, self.Evaluate(*key_expression, scope));
      BILLFISH_ASSIGN_OR_RETURN(Value value, self.Evaluate(*value_expression, scope));
      if (!Dict::CanBeKey(key)) {
        return Status(ErrorCode::kInvalidArgument, fmt::format("a {} cannot be the key of a dictionary", key.TypeName()));
      }
      dict->Set(key, std::move(value));
    }
    return Value::Of(dict);
  }

  Result<Value> operator()(const AttributeExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value object, self.Evaluate(*e.object, scope));
    return self.Attribute(object, e.name);
  }

  Result<Value> operator()(const ItemExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value object, self.Evaluate(*e.object, scope));
    BILLFISH_ASSIGN_OR_RETURN(const Value index, self.Evaluate(*e.index, scope));
    return self.Item(object, index);
  }

  Result<Value> operator()(const SliceExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value object, self.Evaluate(*e.object, scope));
    Value bounds[3];
    const ExpressionPtr* const parts[] = {&e.begin, &e.end, &e.step};
    for (size_t i = 0; i < 3; ++i) {
      if (*parts[i]) {
        BILLFISH_ASSIGN_OR_RETURN(bounds[i], self.Evaluate(**parts[i], scope));
      }
    }
    return SliceOf(self.runtime_, object, bounds[0], bounds[1], bounds[2]);
  }

  Result<Value> operator()(const CallExpression& e) {
    // A method of a value is called without an object for the method.
    if (const auto* attribute = std::get_if<AttributeExpression>(&e.callee->node)) {
      BILLFISH_ASSIGN_OR_RETURN(const Value object, self.Evaluate(*attribute->object, scope));
      if (HasMethod(object, attribute->name)) {
        BILLFISH_ASSIGN_OR_RETURN(const Arguments arguments, self.EvaluateArguments(e.arguments, scope));
        return CallMethod(self, object, attribute->name, arguments);
      }
      BILLFISH_ASSIGN_OR_RETURN(const Value callee, self.Attribute(object, attribute->name));
      if (callee.is_undefined()) {
        return Status(ErrorCode::kInvalidArgument, fmt::format("'{}' object has no method '{}'", object.TypeName(), attribute->name));
      }
      BILLFISH_ASSIGN_OR_RETURN(const Arguments arguments, self.EvaluateArguments(e.arguments, scope));
      return self.Call(callee, arguments);
    }
    BILLFISH_ASSIGN_OR_RETURN(const Value callee, self.Evaluate(*e.callee, scope));
    BILLFISH_ASSIGN_OR_RETURN(const Arguments arguments, self.EvaluateArguments(e.arguments, scope));
    return self.Call(callee, arguments);
  }

  Result<Value> operator()(const FilterExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value input, self.Evaluate(*e.input, scope));
    BILLFISH_ASSIGN_OR_RETURN(const Arguments arguments, self.EvaluateArguments(e.arguments, scope));
    return self.Filter(e.name, input, arguments);
  }

  Result<Value> operator()(const TestExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value input, self.Evaluate(*e.input, scope));
    BILLFISH_ASSIGN_OR_RETURN(const Arguments arguments, self.EvaluateArguments(e.arguments, scope));
    BILLFISH_ASSIGN_OR_RETURN(const bool result, self.Test(e.name, input, arguments));
    return Value::Of(result != e.negated);
  }

  Result<Value> operator()(const UnaryExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value operand, self.Evaluate(*e.operand, scope));
    return ApplyUnary(e.op, operand);
  }

  Result<Value> operator()(const BinaryExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value left, self.Evaluate(*e.left, scope));
    BILLFISH_ASSIGN_OR_RETURN(const Value right, self.Evaluate(*e.right, scope));
    return ApplyBinary(self.runtime_, e.op, left, right);
  }

  Result<Value> operator()(const LogicExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value left, self.Evaluate(*e.left, scope));
    if (left.IsTrue() != e.is_and) return left;
    return self.Evaluate(*e.right, scope);
  }

  Result<Value> operator()(const CompareExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(Value left, self.Evaluate(*e.first, scope));
    for (const auto& [op, expression] : e.rest) {
      BILLFISH_ASSIGN_OR_RETURN(Value right, self.Evaluate(*expression, scope));
      BILLFISH_ASSIGN_OR_RETURN(const bool holds, Compare(self.runtime_, op, left, right));
      if (!holds) return Value::Of(false);
      left = std::move(right);
    }
    return Value::Of(true);
  }

  Result<Value> operator()(const ConcatExpression& e) {
    std::string out;
    for (const ExpressionPtr& part : e.parts) {
      BILLFISH_ASSIGN_OR_RETURN(const Value value, self.Evaluate(*part, scope));
      BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(self.runtime_, value));
      out += text;
    }
    return Value::Of(std::move(out));
  }

  Result<Value> operator()(const ConditionalExpression& e) {
    BILLFISH_ASSIGN_OR_RETURN(const Value condition, self.Evaluate(*e.condition, scope));
    if (condition.IsTrue()) return self.Evaluate(*e.then, scope);
    if (e.otherwise) return self.Evaluate(*e.otherwise, scope);
    return Value::MakeUndefined("the inline if-expression without else");
  }
};

Result<Value> Interpreter::Evaluate(const Expression& expression, Scope& scope) {
  const Runtime::Level level(runtime_);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  BILLFISH_RETURN_IF_ERROR(runtime_.Steps(1));
  return std::visit(ExpressionRunner{*this, scope}, expression.node);
}

Result<Arguments> Interpreter::EvaluateArguments(const CallArguments& call, Scope& scope) {
  Arguments arguments;
  for (const ExpressionPtr& expression : call.positional) {
    BILLFISH_ASSIGN_OR_RETURN(Value value, Evaluate(*expression, scope));
    arguments.positional.push_back(std::move(value));
  }
  if (call.star) {
    BILLFISH_ASSIGN_OR_RETURN(const Value star, Evaluate(*call.star, scope));
    BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(runtime_, star));
    arguments.positional.insert(arguments.positional.end(), items.begin(), items.end());
  }
  for (const auto& [name, expression] : call.named) {
    BILLFISH_ASSIGN_OR_RETURN(Value value, Evaluate(*expression, scope));
    arguments.named.emplace_back(name, std::move(value));
  }
  if (call.double_star) {
    BILLFISH_ASSIGN_OR_RETURN(const Value others, Evaluate(*call.double_star, scope));
    if (!others.is_dict() || others.dict().kind != Dict::Kind::kDict) {
      return Status(ErrorCode::kInvalidArgument, fmt::format("the argument behind ** must be a dictionary, found {}", others.TypeName()));
    }
    BILLFISH_RETURN_IF_ERROR(runtime_.Steps(static_cast<int64_t>(others.dict().entries.size())));
    for (const Dict::Entry& entry : others.dict().entries) {
      if (!entry.key.is_text()) return Status(ErrorCode::kInvalidArgument, "the keys of the argument behind ** must be strings");
      arguments.named.emplace_back(entry.key.text(), entry.value);
    }
  }
  return arguments;
}

Result<Value> Interpreter::Call(const Value& callee, const Arguments& arguments) {
  const Runtime::Level level(runtime_);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  if (callee.is_undefined()) return Status(ErrorCode::kInvalidArgument, callee.UndefinedMessage());
  if (!callee.is_callable()) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("'{}' object is not callable", callee.TypeName()));
  }
  const Callable& callable = callee.callable();
  if (callable.function) return callable.function(*this, arguments);
  if (callable.macro) return CallMacro(callable, arguments);
  if (!callable.loop) return CallMethod(*this, callable.receiver, callable.name, arguments);
  const LoopState& loop = *callable.loop;
  if (!loop.statement->recursive) return Status(ErrorCode::kInvalidArgument, "the loop was called, but it is not marked recursive");
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    return Status(ErrorCode::kInvalidArgument, "a recursive loop takes exactly one argument");
  }
  std::string text;
  const auto flow = RunLoop(*loop.statement, arguments.positional[0], loop.depth + 1, *loop.scope, text);
  if (!flow.ok()) return flow.error();
  return Value::Of(std::move(text));
}

Result<Value> Interpreter::Attribute(const Value& object, std::string_view name) {
  if (object.is_undefined()) return Status(ErrorCode::kInvalidArgument, object.UndefinedMessage());
  if (object.is_callable() && object.callable().loop) {
    if (!HasMethod(object, name)) return LoopAttribute(*object.callable().loop, name);
  } else if (object.is_dict() && object.dict().kind == Dict::Kind::kNamespace) {
    const Value* found = object.dict().Find(name);
    return found ? *found : Value::MakeUndefined(name);
  }
  if (HasMethod(object, name)) return Value::Of(runtime_.NewCallable({.name = std::string(name), .receiver = object}));
  if (object.is_dict()) {
    if (const Value* found = object.dict().Find(name)) return *found;
  }
  return Value::MakeUndefined(name);
}

Result<Value> Interpreter::Item(const Value& object, const Value& index) {
  BILLFISH_ASSIGN_OR_RETURN(Value item, ItemAt(runtime_, object, index));
  return item.is_undefined() && index.is_text() ? Attribute(object, index.text()) : std::move(item);
}

Result<Value> Interpreter::LoopAttribute(LoopState& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index), length = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::Of(index + 1);
  if (name == "index0") return Value::Of(index);
  if (name == "revindex") return Value::Of(length - index);
  if (name == "revindex0") return Value::Of(length - index - 1);
  if (name == "first") return Value::Of(index == 0);
  if (name == "last") return Value::Of(index == length - 1);
  if (name == "length") return Value::Of(length);
  if (name == "depth") return Value::Of(loop.depth + 1);
  if (name == "depth0") return Value::Of(loop.depth);
  if (name == "previtem" && index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return loop.items[loop.index + 1];
  return Value::MakeUndefined(name);
}

Result<Value> Interpreter::Filter(std::string_view name, const Value& input, const Arguments& arguments) {
  const Runtime::Level level(runtime_);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  BILLFISH_RETURN_IF_ERROR(runtime_.Steps(1));
  const FilterFunction function = FindFilter(name);
  if (!function) return Status(ErrorCode::kUnsupported, fmt::format("the filter '{}' is not implemented", name));
  return function(*this, input, arguments);
}

Result<bool> Interpreter::Test(std::string_view name, const Value& input, const Arguments& arguments) {
  BILLFISH_RETURN_IF_ERROR(runtime_.Steps(1));
  const TestFunction function = FindTest(name);
  if (!function) return Status(ErrorCode::kUnsupported, fmt::format("the test '{}' is not implemented", name));
  return function(*this, input, arguments);
}

}  // namespace billfish::tokenizer::jinja
