// Value: what a template's expressions compute, with Python's semantics. Runtime: owns the containers of one rendering and bounds it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "billfish/status.h"

namespace billfish::tokenizer::jinja {

struct List;
struct Dict;
struct Callable;
struct LoopState;

/// Cheap to copy. Containers are references into a Runtime, as in Python, and may contain themselves.
class Value {
 public:
  struct Undefined {
    std::shared_ptr<const std::string> name;  ///< what was looked up, for messages
  };
  struct None {};
  using Text = std::shared_ptr<const std::string>;

  Value() : data_(Undefined{}) {}
  static Value MakeUndefined(std::string_view name) { return Value(Undefined{std::make_shared<const std::string>(name)}); }
  static Value MakeNone() { return Value(None{}); }
  static Value Of(bool b) { return Value(b); }
  static Value Of(int64_t i) { return Value(i); }
  static Value Of(double d) { return Value(d); }
  static Value Of(std::string text) { return Value(std::make_shared<const std::string>(std::move(text))); }
  static Value Of(std::string_view text) { return Of(std::string(text)); }
  static Value Of(const char* text) { return Of(std::string(text)); }
  static Value Of(List* list) { return Value(list); }
  static Value Of(Dict* dict) { return Value(dict); }
  static Value Of(const Callable* callable) { return Value(callable); }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_text() const { return std::holds_alternative<Text>(data_); }
  bool is_list() const { return std::holds_alternative<List*>(data_); }
  bool is_dict() const { return std::holds_alternative<Dict*>(data_); }
  bool is_callable() const { return std::holds_alternative<const Callable*>(data_); }
  /// bool or int: Python's bool is an int.
  bool is_integral() const { return is_bool() || is_int(); }
  bool is_number() const { return is_integral() || is_float(); }

  // Preconditions: the matching is_...().
  bool boolean() const { return *std::get_if<bool>(&data_); }
  int64_t integer() const { return is_bool() ? (boolean() ? 1 : 0) : *std::get_if<int64_t>(&data_); }
  double number() const { return is_float() ? *std::get_if<double>(&data_) : static_cast<double>(integer()); }
  const std::string& text() const { return **std::get_if<Text>(&data_); }
  List& list() const { return **std::get_if<List*>(&data_); }
  Dict& dict() const { return **std::get_if<Dict*>(&data_); }
  const Callable& callable() const { return **std::get_if<const Callable*>(&data_); }
  /// "'message.name' is undefined" for messages.
  std::string UndefinedMessage() const;

  bool IsTrue() const;
  /// Python's name of the type: "str", "NoneType", ...
  std::string_view TypeName() const;
  /// The same object, or equal values of a type that has no identity here.
  bool IsSameObject(const Value& other) const;

 private:
  template <class T>
  explicit Value(T data) : data_(std::move(data)) {}

  std::variant<Undefined, None, bool, int64_t, double, Text, List*, Dict*, const Callable*> data_;
};

struct List {
  enum class Kind : uint8_t {
    kList,
    kTuple,
    kGenerator,  ///< always true, has no length and can be walked through once
  };
  Kind kind = Kind::kList;
  std::vector<Value> items;
};

/// Insertion-ordered.
struct Dict {
  enum class Kind : uint8_t {
    kDict,
    kNamespace,  ///< attributes only; assignable by {% set ns.x = ... %}
  };
  struct Entry {
    Value key;
    Value value;
  };

  /// nullptr if absent.
  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;
  void Set(std::string_view key, Value value);
  /// Precondition: CanBeKey(key).
  void Set(const Value& key, Value value);
  static bool CanBeKey(const Value& key);

  Kind kind = Kind::kDict;
  std::vector<Entry> entries;

 private:
  static std::string IndexKey(const Value& key);
  std::unordered_map<std::string, size_t> index_;
};

/// Memory and limits of one rendering. A hostile template runs into a limit, not into the machine's.
class Runtime {
 public:
  static constexpr int64_t kMaxSteps = 30'000'000;
  static constexpr int64_t kMaxItems = 2'000'000;
  static constexpr int64_t kMaxTextBytes = int64_t{256} << 20;
  static constexpr int kMaxDepth = 700;

  // Objects count as items, by their size; the next check of a total finds out.
  List* NewList(List::Kind kind = List::Kind::kList);
  Dict* NewDict(Dict::Kind kind = Dict::Kind::kDict);
  const Callable* NewCallable(Callable callable);
  LoopState* NewLoop();

  // kUnsupported once a total is reached.
  Status Steps(int64_t count);
  Status Items(int64_t count);
  /// Text made, of whatever lifetime.
  Status TextBytes(size_t count);

  /// Counts one level of nesting for its lifetime.
  class Level {
   public:
    explicit Level(Runtime& runtime) : runtime_(runtime) { ++runtime_.depth_; }
    ~Level() { --runtime_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Status Check() const;

   private:
    Runtime& runtime_;
  };

  Runtime();
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

 private:
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Callable> callables_;
  std::deque<LoopState> loops_;
  int64_t steps_ = 0, items_ = 0, text_bytes_ = 0;
  int depth_ = 0;
};

}  // namespace billfish::tokenizer::jinja
