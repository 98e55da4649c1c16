// Filters on lists and dictionaries.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "core/status_macros.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/python_text.h"
#include "tokenizer/jinja/text_form.h"

namespace billfish::tokenizer::jinja {
namespace {

Status Invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<Value> MakeList(Interpreter& interpreter, std::vector<Value> items, List::Kind kind) {
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Items(static_cast<int64_t>(items.size())));
  List* list = interpreter.runtime().NewList(kind);
  list->items = std::move(items);
  return Value::Of(list);
}

/// object.a.b.0 for the path "a.b.0" or the index 0.
Result<Value> AttributePath(Interpreter& interpreter, const Value& object, const Value& path) {
  if (!path.is_text()) return interpreter.Item(object, path);
  Value value = object;
  for (const std::string_view part : SplitText(path.text(), ".", -1, false)) {
    const bool number = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string_view::npos;
    const Value key = number ? Value::Of(static_cast<int64_t>(std::stoll(std::string(part)))) : Value::Of(part);
    BILLFISH_ASSIGN_OR_RETURN(value, interpreter.Item(value, key));
  }
  return value;
}

/// For sorting and finding doubles: texts without regard to case unless asked for.
Result<Value> SortKey(Interpreter& interpreter, const Value& item, const Value* attribute, bool case_sensitive) {
  Value key = item;
  if (attribute && !attribute->is_none()) {
    BILLFISH_ASSIGN_OR_RETURN(key, AttributePath(interpreter, item, *attribute));
  }
  return key.is_text() && !case_sensitive ? Value::Of(LowerText(key.text())) : key;
}

struct Keyed {
  Value key;
  Value item;
};

/// Stable merge sort by key; std::stable_sort cannot stop at an error of the comparison.
Status SortKeyed(Interpreter& interpreter, std::vector<Keyed>& items, bool reverse) {
  std::vector<Keyed> merged(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size()), end = std::min(begin + 2 * width, items.size());
      size_t left = begin, right = middle;
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (!take_right && right < end) {
          const Value &a = items[left].key, &b = items[right].key;
          BILLFISH_ASSIGN_OR_RETURN(take_right, reverse ? IsLess(interpreter.runtime(), a, b) : IsLess(interpreter.runtime(), b, a));
        }
        merged[out] = std::move(take_right ? items[right++] : items[left++]);
      }
    }
    items.swap(merged);
  }
  return {};
}

Result<Value> SortFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    BILLFISH_ASSIGN_OR_RETURN(Value key, SortKey(interpreter, item, bound.Has(2) ? &bound.At(2) : nullptr, bound.Flag(1, false)));
    keyed.push_back({std::move(key), item});
  }
  BILLFISH_RETURN_IF_ERROR(SortKeyed(interpreter, keyed, bound.Flag(0, false)));
  std::vector<Value> sorted;
  sorted.reserve(keyed.size());
  for (Keyed& k : keyed) sorted.push_back(std::move(k.item));
  return MakeList(interpreter, std::move(sorted), List::Kind::kList);
}

Result<std::vector<Value>> PairsOf(Interpreter& interpreter, const Value& input) {
  std::vector<Value> pairs;
  if (input.is_undefined()) return pairs;
  if (!input.is_dict() || input.dict().kind != Dict::Kind::kDict)
    return Invalid(fmt::format("expected a dictionary, found {}", input.TypeName()));
  for (const Dict::Entry& entry : input.dict().entries) {
    BILLFISH_ASSIGN_OR_RETURN(Value pair, MakeList(interpreter, {entry.key, entry.value}, List::Kind::kTuple));
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

Result<Value> DictSort(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("dictsort", arguments, {"case_sensitive", "by", "reverse"}));
  BILLFISH_ASSIGN_OR_RETURN(const std::string by, bound.Text(1, "key"));
  if (by != "key" && by != "value") return Invalid(fmt::format("dictsort sorts by key or value, not by '{}'", by));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> pairs, PairsOf(interpreter, input));
  std::vector<Keyed> keyed;
  for (const Value& pair : pairs) {
    BILLFISH_ASSIGN_OR_RETURN(Value key, SortKey(interpreter, pair.list().items[by == "key" ? 0 : 1], nullptr, bound.Flag(0, false)));
    keyed.push_back({std::move(key), pair});
  }
  BILLFISH_RETURN_IF_ERROR(SortKeyed(interpreter, keyed, bound.Flag(2, false)));
  std::vector<Value> sorted;
  sorted.reserve(keyed.size());
  for (Keyed& k : keyed) sorted.push_back(std::move(k.item));
  return MakeList(interpreter, std::move(sorted), List::Kind::kList);
}

Result<Value> ItemsFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  BILLFISH_ASSIGN_OR_RETURN(std::vector<Value> pairs, PairsOf(interpreter, input));
  return MakeList(interpreter, std::move(pairs), List::Kind::kGenerator);
}

Result<Value> ListFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  BILLFISH_ASSIGN_OR_RETURN(std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  return MakeList(interpreter, std::move(items), List::Kind::kList);
}

Result<Value> Length(Interpreter&, const Value& input, const Arguments&) {
  BILLFISH_ASSIGN_OR_RETURN(const int64_t length, LengthOf(input));
  return Value::Of(length);
}

Result<Value> First(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_list() && input.list().kind == List::Kind::kGenerator && !input.list().items.empty()) {
    Value first = input.list().items.front();
    input.list().items.erase(input.list().items.begin());
    return first;
  }
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  return items.empty() ? Value::MakeUndefined("first of nothing") : items.front();
}

Result<Value> Last(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_list() && input.list().kind == List::Kind::kGenerator) return Invalid("'generator' object is not reversible");
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  return items.empty() ? Value::MakeUndefined("last of nothing") : items.back();
}

Result<Value> Reverse(Interpreter& interpreter, const Value& input, const Arguments&) {
  BILLFISH_ASSIGN_OR_RETURN(std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  std::reverse(items.begin(), items.end());
  if (!input.is_text()) return MakeList(interpreter, std::move(items), List::Kind::kGenerator);
  std::string text;
  for (const Value& c : items) text += c.text();
  return Value::Of(std::move(text));
}

Result<Value> Join(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("join", arguments, {"d", "attribute"}));
  BILLFISH_ASSIGN_OR_RETURN(const std::string separator,
                            bound.Has(0) ? ToText(interpreter.runtime(), bound.At(0)) : Result<std::string>(std::string()));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().TextBytes(items.size() * separator.size()));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (!bound.IsNone(1)) {
      BILLFISH_ASSIGN_OR_RETURN(item, AttributePath(interpreter, item, bound.At(1)));
    }
    BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(interpreter.runtime(), item));
    if (i > 0) out += separator;
    out += text;
  }
  return Value::Of(std::move(out));
}

/// The arguments behind the first `count`.
Arguments Behind(const Arguments& arguments, size_t count) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<ptrdiff_t>(count), arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Result<Value> MapFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("map", arguments, {"attribute", "default"}, 1));
    for (const Value& item : items) {
      BILLFISH_ASSIGN_OR_RETURN(Value value, AttributePath(interpreter, item, bound.At(0)));
      if (value.is_undefined() && bound.Has(1)) value = bound.At(1);
      mapped.push_back(std::move(value));
    }
  } else {
    if (!arguments.positional[0].is_text()) return Invalid("map needs the name of a filter");
    const Arguments rest = Behind(arguments, 1);
    for (const Value& item : items) {
      BILLFISH_ASSIGN_OR_RETURN(Value value, interpreter.Filter(arguments.positional[0].text(), item, rest));
      mapped.push_back(std::move(value));
    }
  }
  return MakeList(interpreter, std::move(mapped), List::Kind::kGenerator);
}

/// select, reject, selectattr, rejectattr: items whose value (or attribute) passes a test, or is true without one.
template <bool kKeep, bool kAttribute>
Result<Value> Select(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const size_t skip = kAttribute ? 1 : 0;
  if (arguments.positional.size() < skip) return Invalid("selectattr and rejectattr need the name of an attribute");
  const bool has_test = arguments.positional.size() > skip;
  if (has_test && !arguments.positional[skip].is_text()) return Invalid("select and reject need the name of a test");
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  const Arguments rest = has_test ? Behind(arguments, skip + 1) : Arguments{};
  std::vector<Value> kept;
  for (const Value& item : items) {
    Value tested = item;
    if (kAttribute) {
      BILLFISH_ASSIGN_OR_RETURN(tested, AttributePath(interpreter, item, arguments.positional[0]));
    }
    bool passes = tested.IsTrue();
    if (has_test) {
      BILLFISH_ASSIGN_OR_RETURN(passes, interpreter.Test(arguments.positional[skip].text(), tested, rest));
    }
    if (passes == kKeep) kept.push_back(item);
  }
  return MakeList(interpreter, std::move(kept), List::Kind::kGenerator);
}

Result<Value> Unique(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("unique", arguments, {"case_sensitive", "attribute"}));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  Dict seen;
  std::vector<Value> kept;
  for (const Value& item : items) {
    BILLFISH_ASSIGN_OR_RETURN(const Value key, SortKey(interpreter, item, bound.Has(1) ? &bound.At(1) : nullptr, bound.Flag(0, false)));
    if (!Dict::CanBeKey(key)) return Invalid(fmt::format("unique cannot compare a {}", key.TypeName()));
    if (seen.Find(key)) continue;
    seen.Set(key, item);
    kept.push_back(item);
  }
  return MakeList(interpreter, std::move(kept), List::Kind::kGenerator);
}

template <bool kLargest>
Result<Value> Extreme(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("min and max", arguments, {"case_sensitive", "attribute"}));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  std::optional<Keyed> best;
  for (const Value& item : items) {
    BILLFISH_ASSIGN_OR_RETURN(Value key, SortKey(interpreter, item, bound.Has(1) ? &bound.At(1) : nullptr, bound.Flag(0, false)));
    bool better = !best;
    if (best) {
      BILLFISH_ASSIGN_OR_RETURN(better,
                                kLargest ? IsLess(interpreter.runtime(), best->key, key) : IsLess(interpreter.runtime(), key, best->key));
    }
    if (better) best = Keyed{std::move(key), item};
  }
  return best ? best->item : Value::MakeUndefined("extreme of nothing");
}

Result<Value> Sum(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("sum", arguments, {"attribute", "start"}));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), input));
  Value sum = bound.Has(1) ? bound.At(1) : Value::Of(int64_t{0});
  for (Value item : items) {
    if (!bound.IsNone(0)) {
      BILLFISH_ASSIGN_OR_RETURN(item, AttributePath(interpreter, item, bound.At(0)));
    }
    BILLFISH_ASSIGN_OR_RETURN(sum, ApplyBinary(interpreter.runtime(), BinaryOperator::kAdd, sum, item));
  }
  return sum;
}

Result<Value> AttributeFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("attr", arguments, {"name"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const std::string name, bound.Text(0, ""));
  // Unlike object.name this one never falls back to items.
  if (input.is_dict() && input.dict().kind == Dict::Kind::kDict) return Value::MakeUndefined(name);
  return interpreter.Attribute(input, name);
}

struct Named {
  std::string_view name;
  FilterFunction function;
};

constexpr auto kFilters = std::to_array<Named>({
    {"list", ListFilter},
    {"length", Length},
    {"count", Length},
    {"first", First},
    {"last", Last},
    {"join", Join},
    {"map", MapFilter},
    {"select", Select<true, false>},
    {"reject", Select<false, false>},
    {"selectattr", Select<true, true>},
    {"rejectattr", Select<false, true>},
    {"items", ItemsFilter},
    {"dictsort", DictSort},
    {"sort", SortFilter},
    {"reverse", Reverse},
    {"unique", Unique},
    {"min", Extreme<false>},
    {"max", Extreme<true>},
    {"sum", Sum},
    {"attr", AttributeFilter},
});

}  // namespace

FilterFunction FindSequenceFilter(std::string_view name) {
  const auto it = std::find_if(kFilters.begin(), kFilters.end(), [&](const Named& n) { return n.name == name; });
  return it == kFilters.end() ? nullptr : it->function;
}

}  // namespace billfish::tokenizer::jinja
