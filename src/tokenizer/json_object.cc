#include "tokenizer/json_object.h"

#include <fmt/format.h>

#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

using nlohmann::json;

const json kEmptyArray = json::array();
const json kEmptyObject = json::object();

/// Finds where a parse stops, which the exception-free parser does not tell.
class ErrorLocator : public nlohmann::json_sax<json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(json::number_integer_t) override { return true; }
  bool number_unsigned(json::number_unsigned_t) override { return true; }
  bool number_float(json::number_float_t, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(json::binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(std::string&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) override {
    position = at;
    return false;
  }
  size_t position = 0;
};

}  // namespace

Result<json> ParseJson(std::string_view text, std::string_view where) {
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_discarded()) return value;
  ErrorLocator locator;
  json::sax_parse(text, &locator);
  return Status(ErrorCode::kCorruptFile,
                fmt::format("{} is not valid JSON: {} bytes long, wrong near byte {}", where, text.size(), locator.position));
}

JsonObject::JsonObject(const json& value, std::string where) : value_(value.is_object() ? value : kEmptyObject), where_(std::move(where)) {
  if (!value.is_object()) {
    status_ = Status(ErrorCode::kCorruptFile, fmt::format("{} must be a JSON object, found {}", where_, value.type_name()));
  }
}

const json* JsonObject::Find(std::string_view key) const {
  const auto it = value_.find(std::string(key));
  return it == value_.end() || it->is_null() ? nullptr : &*it;
}

void JsonObject::Fail(std::string_view key, std::string_view expected, const json* found) {
  if (!status_.ok()) return;
  status_ = Status(ErrorCode::kCorruptFile,
                   fmt::format("{}: field \"{}\" must be {}, found {}", where_, key, expected, found ? found->type_name() : "nothing"));
}

bool JsonObject::Bool(std::string_view key, bool fallback) {
  const json* field = Find(key);
  if (!field) return fallback;
  if (field->is_boolean()) return field->get<bool>();
  Fail(key, "true or false", field);
  return fallback;
}

int64_t JsonObject::Int(std::string_view key, int64_t fallback) {
  const json* field = Find(key);
  if (!field) return fallback;
  // Unsigned values above int64's range would wrap; they are as wrong as a string.
  if (field->is_number_integer() && !(field->is_number_unsigned() && field->get<uint64_t>() > uint64_t{INT64_MAX})) {
    return field->get<int64_t>();
  }
  Fail(key, "an integer", field);
  return fallback;
}

std::string JsonObject::String(std::string_view key, std::string_view fallback) {
  const json* field = Find(key);
  if (!field) return std::string(fallback);
  if (field->is_string()) return field->get_ref<const std::string&>();
  Fail(key, "a string", field);
  return std::string(fallback);
}

std::string JsonObject::RequiredString(std::string_view key) {
  if (!Find(key)) Fail(key, "a string", nullptr);
  return String(key);
}

char32_t JsonObject::RequiredCharacter(std::string_view key) {
  const std::string text = RequiredString(key);
  if (!text.empty() && Utf8At(text, 0).length == text.size()) return Utf8At(text, 0).code_point;
  if (status_.ok())
    status_ = Status(ErrorCode::kCorruptFile, fmt::format("{}: field \"{}\" must be one character, found \"{}\"", where_, key, text));
  return ' ';
}

int64_t JsonObject::RequiredInt(std::string_view key) {
  if (!Find(key)) Fail(key, "an integer", nullptr);
  return Int(key, 0);
}

const json& JsonObject::RequiredArray(std::string_view key) {
  const json* field = Find(key);
  if (field && field->is_array()) return *field;
  Fail(key, "an array", field);
  return kEmptyArray;
}

const json& JsonObject::RequiredObject(std::string_view key) {
  const json* field = Find(key);
  if (field && field->is_object()) return *field;
  Fail(key, "an object", field);
  return kEmptyObject;
}

}  // namespace billfish::tokenizer
