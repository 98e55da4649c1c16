// Methods of list, tuple, dict and loop, and the choice of the table.
#include "tokenizer/jinja/methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/status_macros.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/operators.h"

namespace billfish::tokenizer::jinja {
namespace {

Result<Value> Forbidden(Interpreter&, const Value& object, const Arguments&) {
  return Status(ErrorCode::kUnsupported, fmt::format("templates may not change a {}", object.TypeName()));
}

Result<Value> ListIndex(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("index", arguments, {"value"}, 1));
  const List& list = object.list();
  for (size_t i = 0; i < list.items.size(); ++i) {
    BILLFISH_ASSIGN_OR_RETURN(const bool equal, AreEqual(interpreter.runtime(), list.items[i], bound.At(0)));
    if (equal) return Value::Of(static_cast<int64_t>(i));
  }
  return Status(ErrorCode::kInvalidArgument, "index: the value is not in the list");
}

Result<Value> ListCount(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("count", arguments, {"value"}, 1));
  int64_t count = 0;
  for (const Value& item : object.list().items) {
    BILLFISH_ASSIGN_OR_RETURN(const bool equal, AreEqual(interpreter.runtime(), item, bound.At(0)));
    count += equal ? 1 : 0;
  }
  return Value::Of(count);
}

Result<Value> ListCopy(Interpreter& interpreter, const Value& object, const Arguments&) {
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Items(static_cast<int64_t>(object.list().items.size())));
  List* copy = interpreter.runtime().NewList(object.list().kind);
  copy->items = object.list().items;
  return Value::Of(copy);
}

Result<Value> DictGet(Interpreter&, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("get", arguments, {"key", "default"}, 1));
  if (const Value* found = object.dict().Find(bound.At(0))) return *found;
  return bound.Has(1) ? bound.At(1) : Value::MakeNone();
}

/// Views are lists here: they have a length and are true if they are not empty.
Result<Value> DictItems(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const Value items, FindFilter("items")(interpreter, object, arguments));
  items.list().kind = List::Kind::kList;
  return items;
}

Result<Value> DictPart(Interpreter& interpreter, const Value& object, bool keys) {
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Items(static_cast<int64_t>(object.dict().entries.size())));
  List* list = interpreter.runtime().NewList();
  for (const Dict::Entry& entry : object.dict().entries) list->items.push_back(keys ? entry.key : entry.value);
  return Value::Of(list);
}

Result<Value> DictKeys(Interpreter& interpreter, const Value& object, const Arguments&) { return DictPart(interpreter, object, true); }
Result<Value> DictValues(Interpreter& interpreter, const Value& object, const Arguments&) { return DictPart(interpreter, object, false); }

Result<Value> DictCopy(Interpreter& interpreter, const Value& object, const Arguments&) {
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Items(static_cast<int64_t>(object.dict().entries.size())));
  Dict* copy = interpreter.runtime().NewDict();
  *copy = object.dict();
  return Value::Of(copy);
}

Result<Value> LoopCycle(Interpreter&, const Value& object, const Arguments& arguments) {
  if (arguments.positional.empty()) return Status(ErrorCode::kInvalidArgument, "loop.cycle needs values");
  return arguments.positional[object.callable().loop->index % arguments.positional.size()];
}

Result<Value> LoopChanged(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  LoopState& loop = *object.callable().loop;
  bool same = loop.has_changed && loop.last_changed.size() == arguments.positional.size();
  for (size_t i = 0; same && i < loop.last_changed.size(); ++i) {
    BILLFISH_ASSIGN_OR_RETURN(same, AreEqual(interpreter.runtime(), loop.last_changed[i], arguments.positional[i]));
  }
  loop.has_changed = true;
  loop.last_changed = arguments.positional;
  return Value::Of(!same);
}

struct Named {
  std::string_view name;
  MethodFunction function;
};

constexpr auto kListMethods = std::to_array<Named>({
    {"index", ListIndex},
    {"count", ListCount},
    {"copy", ListCopy},
    {"append", Forbidden},
    {"extend", Forbidden},
    {"insert", Forbidden},
    {"pop", Forbidden},
    {"remove", Forbidden},
    {"clear", Forbidden},
    {"sort", Forbidden},
    {"reverse", Forbidden},
});

constexpr auto kDictMethods = std::to_array<Named>({
    {"get", DictGet},
    {"items", DictItems},
    {"keys", DictKeys},
    {"values", DictValues},
    {"copy", DictCopy},
    {"pop", Forbidden},
    {"popitem", Forbidden},
    {"update", Forbidden},
    {"setdefault", Forbidden},
    {"clear", Forbidden},
});

constexpr auto kLoopMethods = std::to_array<Named>({{"cycle", LoopCycle}, {"changed", LoopChanged}});

template <class Table>
MethodFunction FindIn(const Table& table, std::string_view name) {
  const auto it = std::find_if(table.begin(), table.end(), [&](const Named& n) { return n.name == name; });
  return it == table.end() ? nullptr : it->function;
}

MethodFunction FindMethod(const Value& object, std::string_view name) {
  if (object.is_text()) return FindTextMethod(name);
  if (object.is_list() && object.list().kind != List::Kind::kGenerator) return FindIn(kListMethods, name);
  if (object.is_dict() && object.dict().kind == Dict::Kind::kDict) return FindIn(kDictMethods, name);
  if (object.is_callable() && object.callable().loop) return FindIn(kLoopMethods, name);
  return nullptr;
}

}  // namespace

bool HasMethod(const Value& object, std::string_view name) { return FindMethod(object, name) != nullptr; }

Result<Value> CallMethod(Interpreter& interpreter, const Value& object, std::string_view name, const Arguments& arguments) {
  const MethodFunction function = FindMethod(object, name);
  if (!function) return Status(ErrorCode::kUnsupported, fmt::format("'{}' object has no method '{}'", object.TypeName(), name));
  return function(interpreter, object, arguments);
}

}  // namespace billfish::tokenizer::jinja
