#include "tokenizer/post_processor.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/status_macros.h"
#include "tokenizer/json_object.h"
#include "tokenizer/sequence.h"
#include "tokenizer/vocabulary.h"

namespace billfish::tokenizer {
namespace {

using nlohmann::json;

// A template repeats the text per item, so their number bounds how far an encoding can grow.
constexpr size_t kMaxItems = 64;

Result<int32_t> ReadId(const json& value, const std::string& where) {
  if (value.is_number_integer()) {
    const auto id = value.get<int64_t>();
    if (id >= 0 && id <= kMaxTokenId) return static_cast<int32_t>(id);
  }
  return Status(ErrorCode::kCorruptFile, fmt::format("{}: a token id must be an integer 0..{}", where, kMaxTokenId));
}

}  // namespace

Result<PostProcessor> PostProcessor::FromJson(const json& value) {
  PostProcessor processor;
  if (value.is_null()) return processor;
  BILLFISH_RETURN_IF_ERROR(
      AddParts(value, "post_processor", "processors",
               [&](const json& part, JsonObject& object, const std::string& type) { return processor.Add(part, object, type); }));
  if (processor.templates_.size() > 4) return Status(ErrorCode::kUnsupported, "post_processor has more than 4 templates");
  return processor;
}

Status PostProcessor::Add(const json& value, const JsonObject& object, const std::string& type) {
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") return AddTemplate(value, object.where());
  if (type == "BertProcessing" || type == "RobertaProcessing") return AddPair(value, object.where());
  return {ErrorCode::kUnsupported,
          fmt::format("{}: post-processor \"{}\" is not implemented; known are TemplateProcessing, BertProcessing, "
                      "RobertaProcessing, ByteLevel, Sequence",
                      object.where(), type)};
}

Status PostProcessor::AddTemplate(const json& value, const std::string& where) {
  JsonObject object(value, where);
  const json& items = object.RequiredArray("single");
  const json* known = object.Find("special_tokens");
  const json none = json::object();
  BILLFISH_RETURN_IF_ERROR(object.status());
  if (items.size() > kMaxItems)
    return {ErrorCode::kCorruptFile, fmt::format("{}.single has {} items, more than {}", where, items.size(), kMaxItems)};
  Template result;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string item_where = fmt::format("{}.single[{}]", where, i);
    JsonObject item(items[i], item_where);
    if (item.Find("Sequence")) {
      JsonObject sequence(item.RequiredObject("Sequence"), item_where + ".Sequence");
      const std::string id = sequence.RequiredString("id");
      BILLFISH_RETURN_IF_ERROR(sequence.status());
      if (id != "A") return {ErrorCode::kCorruptFile, fmt::format("{}: a template for one text names text \"{}\"", item_where, id)};
      result.push_back({true, {}});
      continue;
    }
    JsonObject special(item.RequiredObject("SpecialToken"), item_where + ".SpecialToken");
    const std::string name = special.RequiredString("id");
    BILLFISH_RETURN_IF_ERROR(item.status());
    BILLFISH_RETURN_IF_ERROR(special.status());
    JsonObject tokens(known ? *known : none, where + ".special_tokens");
    JsonObject token(tokens.RequiredObject(name), fmt::format("{}.special_tokens.{}", where, name));
    const json& ids = token.RequiredArray("ids");
    BILLFISH_RETURN_IF_ERROR(tokens.status());
    BILLFISH_RETURN_IF_ERROR(token.status());
    Item fixed{false, {}};
    for (const json& id : ids) {
      BILLFISH_ASSIGN_OR_RETURN(const int32_t number, ReadId(id, token.where()));
      fixed.ids.push_back(number);
    }
    result.push_back(std::move(fixed));
  }
  templates_.push_back(std::move(result));
  return {};
}

Status PostProcessor::AddPair(const json& value, const std::string& where) {
  JsonObject object(value, where);
  Template result{{false, {}}, {true, {}}, {false, {}}};
  const char* const keys[] = {"cls", nullptr, "sep"};
  for (const size_t i : {size_t{0}, size_t{2}}) {
    const json& pair = object.RequiredArray(keys[i]);
    BILLFISH_RETURN_IF_ERROR(object.status());
    if (pair.size() != 2) return {ErrorCode::kCorruptFile, fmt::format("{}: field \"{}\" must be [token, id]", where, keys[i])};
    BILLFISH_ASSIGN_OR_RETURN(const int32_t id, ReadId(pair[1], where));
    result[i].ids.push_back(id);
  }
  templates_.push_back(std::move(result));
  return {};
}

std::vector<int32_t> PostProcessor::Apply(std::vector<int32_t> ids) const {
  for (const Template& t : templates_) {
    if (t.size() == 1 && t[0].text) continue;
    std::vector<int32_t> out;
    for (const Item& item : t) {
      const std::vector<int32_t>& source = item.text ? ids : item.ids;
      out.insert(out.end(), source.begin(), source.end());
    }
    ids = std::move(out);
  }
  return ids;
}

}  // namespace billfish::tokenizer
