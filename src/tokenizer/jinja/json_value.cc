// JSON text -> Value, as it is parsed, so that objects keep their order and limits hold from the start.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/status_macros.h"
#include "tokenizer/jinja/text_form.h"

namespace billfish::tokenizer::jinja {
namespace {

using nlohmann::json;

constexpr size_t kMaxJsonDepth = 100;

class Builder : public nlohmann::json_sax<json> {
 public:
  explicit Builder(Runtime& runtime) : runtime_(runtime) {}

  bool null() override { return Add(Value::MakeNone()); }
  bool boolean(bool value) override { return Add(Value::Of(value)); }
  bool number_integer(json::number_integer_t value) override { return Add(Value::Of(static_cast<int64_t>(value))); }
  bool number_unsigned(json::number_unsigned_t value) override {
    return value > uint64_t{INT64_MAX} ? Add(Value::Of(static_cast<double>(value))) : Add(Value::Of(static_cast<int64_t>(value)));
  }
  bool number_float(json::number_float_t value, const std::string&) override { return Add(Value::Of(value)); }
  bool string(std::string& value) override { return Charge(value) && Add(Value::Of(std::move(value))); }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(Value::Of(runtime_.NewDict())); }
  bool start_array(size_t) override { return Open(Value::Of(runtime_.NewList())); }
  bool key(std::string& value) override {
    keys_.back() = std::move(value);
    return true;
  }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    position_ = position;
    return false;
  }

  const Value& root() const { return root_; }
  const Status& status() const { return status_; }
  size_t position() const { return position_; }

 private:
  bool Check(Status status) {
    if (status_.ok()) status_ = std::move(status);
    return status_.ok();
  }
  bool Charge(const std::string& text) { return Check(runtime_.TextBytes(text.size())); }

  bool Add(Value value) {
    if (!Check(runtime_.Items(1))) return false;
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_list()) {
      open_.back().list().items.push_back(std::move(value));
    } else {
      open_.back().dict().Set(keys_.back(), std::move(value));
    }
    return true;
  }
  bool Open(Value container) {
    if (open_.size() == kMaxJsonDepth) {
      return Check({ErrorCode::kUnsupported, fmt::format("it nests deeper than {} levels", kMaxJsonDepth)});
    }
    if (!Add(container)) return false;
    open_.push_back(std::move(container));
    keys_.emplace_back();
    return true;
  }
  bool Close() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  Runtime& runtime_;
  Value root_;
  std::vector<Value> open_;
  std::vector<std::string> keys_;  ///< the last key of each open container
  Status status_;
  size_t position_ = 0;
};

}  // namespace

Result<Value> FromJson(Runtime& runtime, std::string_view text, std::string_view what) {
  Builder builder(runtime);
  if (json::sax_parse(text, &builder)) return builder.root();
  if (!builder.status().ok()) return builder.status().WithContext(what);
  return Status(ErrorCode::kInvalidArgument, fmt::format("{} is not valid JSON, near byte {}", what, builder.position()));
}

}  // namespace billfish::tokenizer::jinja
