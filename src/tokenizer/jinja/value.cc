#include "tokenizer/jinja/value.h"

#include <fmt/format.h>

#include <cmath>

#include "tokenizer/jinja/callable.h"

namespace billfish::tokenizer::jinja {

std::string Value::UndefinedMessage() const {
  const auto* undefined = std::get_if<Undefined>(&data_);
  return undefined && undefined->name ? fmt::format("'{}' is undefined", *undefined->name) : "the value is undefined";
}

bool Value::IsTrue() const {
  if (is_undefined() || is_none()) return false;
  if (is_float()) return number() != 0;
  if (is_integral()) return integer() != 0;
  if (is_text()) return !text().empty();
  if (is_list()) return list().kind == List::Kind::kGenerator || !list().items.empty();
  if (is_dict()) return dict().kind != Dict::Kind::kDict || !dict().entries.empty();
  return true;
}

std::string_view Value::TypeName() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_text()) return "str";
  if (is_list()) {
    return list().kind == List::Kind::kList ? "list" : list().kind == List::Kind::kTuple ? "tuple" : "generator";
  }
  if (is_dict()) {
    return dict().kind == Dict::Kind::kDict ? "dict" : "Namespace";
  }
  return callable().loop ? "LoopContext" : callable().macro ? "Macro" : "function";
}

bool Value::IsSameObject(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_list()) return &list() == &other.list();
  if (is_dict()) return &dict() == &other.dict();
  if (is_callable()) return &callable() == &other.callable();
  if (is_text()) return text() == other.text();
  if (is_float()) return number() == other.number();
  if (is_integral()) return integer() == other.integer();
  return true;
}

std::string Dict::IndexKey(const Value& key) {
  if (key.is_text()) return "s" + key.text();
  // 1, 1.0 and True are one key.
  if (key.is_float()) {
    const double number = key.number();
    if (std::trunc(number) == number && std::fabs(number) < 9e18) return fmt::format("n{}", static_cast<int64_t>(number));
    return fmt::format("f{}", number);
  }
  if (key.is_integral()) return fmt::format("n{}", key.integer());
  return "0";
}

bool Dict::CanBeKey(const Value& key) { return key.is_text() || key.is_number() || key.is_none(); }

const Value* Dict::Find(const Value& key) const {
  if (!CanBeKey(key)) return nullptr;
  const auto it = index_.find(IndexKey(key));
  return it == index_.end() ? nullptr : &entries[it->second].value;
}

const Value* Dict::Find(std::string_view key) const {
  const auto it = index_.find("s" + std::string(key));
  return it == index_.end() ? nullptr : &entries[it->second].value;
}

void Dict::Set(const Value& key, Value value) {
  const auto [it, inserted] = index_.try_emplace(IndexKey(key), entries.size());
  if (inserted) {
    entries.push_back({key, std::move(value)});
  } else {
    entries[it->second].value = std::move(value);
  }
}

void Dict::Set(std::string_view key, Value value) { Set(Value::Of(key), std::move(value)); }

Runtime::Runtime() = default;
Runtime::~Runtime() = default;

List* Runtime::NewList(List::Kind kind) {
  items_ += 2;
  lists_.emplace_back().kind = kind;
  return &lists_.back();
}

Dict* Runtime::NewDict(Dict::Kind kind) {
  items_ += 4;
  dicts_.emplace_back().kind = kind;
  return &dicts_.back();
}

const Callable* Runtime::NewCallable(Callable callable) {
  items_ += 4;
  callables_.push_back(std::move(callable));
  return &callables_.back();
}

LoopState* Runtime::NewLoop() {
  items_ += 4;
  return &loops_.emplace_back();
}

Status Runtime::Steps(int64_t count) {
  steps_ += count;
  if (steps_ > kMaxSteps) {
    return {ErrorCode::kUnsupported, fmt::format("it takes more than the {} steps that a template may take", kMaxSteps)};
  }
  return Items(0);
}

Status Runtime::Items(int64_t count) {
  items_ += count;
  if (items_ <= kMaxItems) return {};
  return {ErrorCode::kUnsupported, fmt::format("it makes more than the {} list items that a template may make", kMaxItems)};
}

Status Runtime::TextBytes(size_t count) {
  text_bytes_ += count > static_cast<size_t>(kMaxTextBytes) ? kMaxTextBytes + 1 : static_cast<int64_t>(count);
  if (text_bytes_ <= kMaxTextBytes) return {};
  return {ErrorCode::kUnsupported, fmt::format("it makes more than the {} bytes of text that a template may make", kMaxTextBytes)};
}

Status Runtime::Level::Check() const {
  if (runtime_.depth_ <= kMaxDepth) return {};
  return {ErrorCode::kUnsupported, fmt::format("it nests deeper than the {} levels that a template may nest", kMaxDepth)};
}

}  // namespace billfish::tokenizer::jinja
