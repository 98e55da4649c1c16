// PostProcessor: the ids that tokenizer.json puts around an encoded text, such as BOS.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/json_object.h"

namespace billfish::tokenizer {

class PostProcessor {
 public:
  /// The "post_processor" field: TemplateProcessing (its "single" form), BertProcessing, RobertaProcessing, ByteLevel (which moves
  /// offsets only) or a Sequence of these. A null value does nothing. Errors: kUnsupported (another type), kCorruptFile.
  static Result<PostProcessor> FromJson(const nlohmann::json& value);

  std::vector<int32_t> Apply(std::vector<int32_t> ids) const;

 private:
  /// Fixed ids, or the text's ids.
  struct Item {
    bool text;
    std::vector<int32_t> ids;
  };
  using Template = std::vector<Item>;

  Status Add(const nlohmann::json& value, const JsonObject& object, const std::string& type);
  Status AddTemplate(const nlohmann::json& value, const std::string& where);
  Status AddPair(const nlohmann::json& value, const std::string& where);

  std::vector<Template> templates_;
};

}  // namespace billfish::tokenizer
