#include "tokenizer/jinja/functions.h"

#include <fmt/format.h>

#include <array>
#include <ctime>

#include "core/status_macros.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_form.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer::jinja {
namespace {

// Jinja's sandbox has the same bound.
constexpr int64_t kMaxRange = 100'000;
constexpr size_t kMaxTimeFormat = 1000;

Result<Value> RangeFunction(Interpreter& interpreter, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("range", arguments, {"start", "stop", "step"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t first, bound.Int(0, 0));
  const int64_t begin = bound.Has(1) ? first : 0;
  BILLFISH_ASSIGN_OR_RETURN(const int64_t end, bound.Int(1, first));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t step, bound.Int(2, 1));
  if (step == 0) return Status(ErrorCode::kInvalidArgument, "range needs a step other than 0");
  List* list = interpreter.runtime().NewList();
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<int64_t>(list->items.size()) == kMaxRange) {
      return Status(ErrorCode::kInvalidArgument, fmt::format("range makes more than {} numbers", kMaxRange));
    }
    list->items.push_back(Value::Of(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Items(static_cast<int64_t>(list->items.size())));
  return Value::Of(list);
}

/// dict(a=1), dict(other), dict([["a", 1]]); the same for namespace.
Result<Value> MakeMapping(Interpreter& interpreter, const Arguments& arguments, Dict::Kind kind) {
  Runtime& runtime = interpreter.runtime();
  Dict* dict = runtime.NewDict(kind);
  if (arguments.positional.size() > 1)
    return Status(ErrorCode::kInvalidArgument, "dict and namespace take one positional argument at most");
  for (const Value& source : arguments.positional) {
    if (source.is_dict()) {
      BILLFISH_RETURN_IF_ERROR(runtime.Items(static_cast<int64_t>(source.dict().entries.size())));
      for (const Dict::Entry& entry : source.dict().entries) dict->Set(entry.key, entry.value);
      continue;
    }
    BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> pairs, ItemsOf(runtime, source));
    BILLFISH_RETURN_IF_ERROR(runtime.Items(static_cast<int64_t>(pairs.size())));
    for (const Value& pair : pairs) {
      BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> both, ItemsOf(runtime, pair));
      if (both.size() != 2 || !Dict::CanBeKey(both[0])) {
        return Status(ErrorCode::kInvalidArgument, "dict needs pairs of a key and a value");
      }
      dict->Set(both[0], both[1]);
    }
  }
  BILLFISH_RETURN_IF_ERROR(runtime.Items(static_cast<int64_t>(arguments.named.size())));
  for (const auto& [name, value] : arguments.named) dict->Set(name, value);
  return Value::Of(dict);
}

Result<Value> DictFunction(Interpreter& interpreter, const Arguments& arguments) {
  return MakeMapping(interpreter, arguments, Dict::Kind::kDict);
}

Result<Value> NamespaceFunction(Interpreter& interpreter, const Arguments& arguments) {
  return MakeMapping(interpreter, arguments, Dict::Kind::kNamespace);
}

Result<Value> RaiseFunction(Interpreter& interpreter, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("raise_exception", arguments, {"message"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(std::string message, ToText(interpreter.runtime(), bound.At(0)));
  return interpreter.Refuse(std::move(message));
}

Result<Value> StrftimeFunction(Interpreter& interpreter, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("strftime_now", arguments, {"format"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(std::string format, bound.Text(0, ""));
  // Widths such as %9999d are the C library's own extension and could make any amount of text.
  for (size_t i = 0; i + 1 < format.size(); ++i) {
    if (format[i] != '%') continue;
    ++i;
    while (i + 1 < format.size() && std::string_view("_-^#").find(format[i]) != std::string_view::npos) ++i;
    if (format[i] >= '0' && format[i] <= '9') {
      return Status(ErrorCode::kUnsupported, fmt::format("strftime_now: the format '{}' is not implemented", format.substr(0, 100)));
    }
  }
  if (format.size() > kMaxTimeFormat) return Status(ErrorCode::kUnsupported, "strftime_now: the format is too long");
  const std::time_t now = interpreter.now();
  std::tm local{};
  localtime_r(&now, &local);
  // The mark tells an empty result from a full buffer.
  format += '.';
  std::array<char, 64 * 1024> buffer{};
  const size_t length = std::strftime(buffer.data(), buffer.size(), format.c_str(), &local);
  if (length == 0) return Status(ErrorCode::kUnsupported, "strftime_now: the format makes too much text");
  return Value::Of(ToValidUtf8(std::string_view(buffer.data(), length - 1)));
}

struct Named {
  std::string_view name;
  Callable::Function function;
};

constexpr auto kFunctions = std::to_array<Named>({
    {"range", RangeFunction},
    {"dict", DictFunction},
    {"namespace", NamespaceFunction},
    {"raise_exception", RaiseFunction},
    {"strftime_now", StrftimeFunction},
});

}  // namespace

void DefineFunctions(Runtime& runtime, Scope& scope) {
  for (const Named& f : kFunctions) {
    scope.Set(f.name, Value::Of(runtime.NewCallable({.name = std::string(f.name), .function = f.function})));
  }
}

}  // namespace billfish::tokenizer::jinja
