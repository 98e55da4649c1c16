#include "tokenizer/text_replace.h"

#include <fmt/format.h>

#include "core/status_macros.h"

namespace billfish::tokenizer {

Result<Regex> ReadPattern(JsonObject& object) {
  JsonObject pattern(object.RequiredObject("pattern"), object.where() + ".pattern");
  BILLFISH_RETURN_IF_ERROR(object.status());
  if (pattern.Find("Regex")) {
    const std::string text = pattern.RequiredString("Regex");
    BILLFISH_RETURN_IF_ERROR(pattern.status());
    auto regex = Regex::Compile(text);
    if (!regex.ok()) return regex.error().WithContext(pattern.where());
    return regex;
  }
  const std::string text = pattern.RequiredString("String");
  BILLFISH_RETURN_IF_ERROR(pattern.status());
  return Regex::Literal(text);
}

Result<TextReplace> TextReplace::FromJson(JsonObject& object) {
  BILLFISH_ASSIGN_OR_RETURN(Regex regex, ReadPattern(object));
  std::string content = object.RequiredString("content");
  BILLFISH_RETURN_IF_ERROR(object.status());
  return TextReplace(std::move(regex), std::move(content));
}

Status TextReplace::Apply(std::string& text) const {
  std::vector<Range> matches;
  BILLFISH_RETURN_IF_ERROR(Regex::Scanner(regex_).FindAll(text, matches));
  if (matches.empty()) return {};
  std::string out;
  out.reserve(text.size());
  size_t copied = 0;
  for (const Range& match : matches) {
    out.append(text, copied, match.begin - copied);
    out += content_;
    copied = match.end;
  }
  out.append(text, copied);
  text = std::move(out);
  return {};
}

}  // namespace billfish::tokenizer
