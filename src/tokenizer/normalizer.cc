#include "tokenizer/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/status_macros.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/sequence.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {

Result<Normalizer> Normalizer::FromJson(const nlohmann::json& value) {
  Normalizer normalizer;
  if (!value.is_null()) {
    BILLFISH_RETURN_IF_ERROR(
        AddParts(value, "normalizer", "normalizers",
                 [&](const nlohmann::json&, JsonObject& object, const std::string& type) { return normalizer.Add(object, type); }));
  }
  return normalizer;
}

Status Normalizer::Add(JsonObject& object, const std::string& type) {
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    steps_.push_back(UnicodeForm{type.back() == 'C', type[2] == 'K'});
  } else if (type == "Lowercase") {
    steps_.push_back(Lowercase{});
  } else if (type == "ByteLevel") {
    steps_.push_back(ByteLevel{});
  } else if (type == "Prepend") {
    steps_.push_back(Prepend{object.RequiredString("prepend")});
  } else if (type == "Strip") {
    steps_.push_back(Strip{object.Bool("strip_left", true), object.Bool("strip_right", true)});
  } else if (type == "Replace") {
    BILLFISH_ASSIGN_OR_RETURN(TextReplace replace, TextReplace::FromJson(object));
    steps_.push_back(std::move(replace));
  } else {
    return {ErrorCode::kUnsupported,
            fmt::format("{}: normalizer \"{}\" is not implemented; known are NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, "
                        "ByteLevel, Sequence",
                        object.where(), type)};
  }
  return OkStatus();
}

Status Normalizer::Apply(std::string& text) const {
  for (const Step& step : steps_) {
    BILLFISH_RETURN_IF_ERROR(std::visit([&](const auto& s) { return Run(s, text); }, step));
  }
  return {};
}

Status Normalizer::Run(const UnicodeForm& form, std::string& text) {
  // ASCII is in every normal form already.
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return {};
  int options = UTF8PROC_STABLE | (form.compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (form.compatibility) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &result,
                   static_cast<utf8proc_option_t>(options));
  if (length < 0) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("cannot bring {} bytes of text into a Unicode normal form: {}", text.size(), utf8proc_errmsg(length))};
  }
  text.assign(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
  std::free(result);
  return {};
}

Status Normalizer::Run(Lowercase, std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    if (unit.code_point == 0x130) {
      out += "i\xCC\x87";  // the only character whose lower case is two characters
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(unit.code_point))), out);
    }
    i += unit.length;
  }
  text = std::move(out);
  return {};
}

Status Normalizer::Run(ByteLevel, std::string& text) {
  std::string out;
  AppendInAlphabet(text, out);
  text = std::move(out);
  return {};
}

Status Normalizer::Run(const Prepend& prepend, std::string& text) {
  if (!text.empty()) text.insert(0, prepend.text);
  return {};
}

Status Normalizer::Run(const Strip& strip, std::string& text) {
  size_t begin = text.size(), end = 0;  // of what is not white space
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    if (!IsSpace(unit.code_point)) {
      begin = std::min(begin, i);
      end = i + unit.length;
    }
    i += unit.length;
  }
  if (!strip.left) begin = 0;
  if (!strip.right) end = text.size();
  text = begin < end ? text.substr(begin, end - begin) : std::string();
  return {};
}

}  // namespace billfish::tokenizer
