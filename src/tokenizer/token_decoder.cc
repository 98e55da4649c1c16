#include "tokenizer/token_decoder.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/status_macros.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/sequence.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

/// The byte of "<0x41>".
std::optional<char> FallbackByte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + static_cast<unsigned>(digit);
  }
  return static_cast<char>(static_cast<unsigned char>(value));
}

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  out.append(text, done);
  text = std::move(out);
}

}  // namespace

Result<TokenDecoder> TokenDecoder::FromJson(const nlohmann::json& value) {
  TokenDecoder decoder;
  if (value.is_null()) {
    decoder.joined_with_spaces_ = true;
  } else {
    BILLFISH_RETURN_IF_ERROR(
        AddParts(value, "decoder", "decoders",
                 [&](const nlohmann::json&, JsonObject& object, const std::string& type) { return decoder.Add(object, type); }));
  }
  return decoder;
}

Status TokenDecoder::Add(JsonObject& object, const std::string& type) {
  if (type == "ByteLevel") {
    steps_.push_back(ByteLevel{});
  } else if (type == "ByteFallback") {
    steps_.push_back(ByteFallback{});
  } else if (type == "Fuse") {
    steps_.push_back(Fuse{});
  } else if (type == "Strip") {
    const char32_t character = object.RequiredCharacter("content");
    const int64_t start = object.Int("start", 0), stop = object.Int("stop", 0);
    if (start < 0 || stop < 0) {
      return {ErrorCode::kCorruptFile, fmt::format("{}: start {} and stop {} must not be negative", object.where(), start, stop)};
    }
    steps_.push_back(Strip{character, static_cast<size_t>(start), static_cast<size_t>(stop)});
  } else if (type == "Metaspace") {
    const char32_t character = object.RequiredCharacter("replacement");
    const std::string scheme = object.String("prepend_scheme", object.Bool("add_prefix_space", true) ? "always" : "never");
    steps_.push_back(Metaspace{character, scheme != "never"});
  } else if (type == "BPEDecoder") {
    steps_.push_back(BpeSuffix{object.String("suffix", "</w>")});
  } else if (type == "Replace") {
    BILLFISH_ASSIGN_OR_RETURN(TextReplace replace, TextReplace::FromJson(object));
    steps_.push_back(std::move(replace));
  } else {
    return {ErrorCode::kUnsupported, fmt::format("{}: decoder \"{}\" is not implemented; known are ByteLevel, ByteFallback, Fuse, Strip, "
                                                 "Replace, Metaspace, BPEDecoder, Sequence",
                                                 object.where(), type)};
  }
  return OkStatus();
}

Result<std::string> TokenDecoder::Decode(std::vector<std::string> tokens) const {
  for (const Step& step : steps_) {
    BILLFISH_RETURN_IF_ERROR(std::visit([&](const auto& s) { return Run(s, tokens); }, step));
  }
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && joined_with_spaces_) text += ' ';
    text += tokens[i];
  }
  return text;
}

Status TokenDecoder::Run(ByteLevel, Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) AppendBytesOfToken(token, bytes);
  tokens.clear();
  tokens.push_back(ToValidUtf8(bytes));
  return {};
}

Status TokenDecoder::Run(ByteFallback, Tokens& tokens) {
  Tokens out;
  std::string run;
  // A run of byte tokens is one text, or as many U+FFFD as it has bytes.
  const auto finish_run = [&] {
    if (run.empty()) return;
    if (FindInvalidUtf8(run) == std::string_view::npos) {
      out.push_back(run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) out.emplace_back(kReplacementCharacter);
    }
    run.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = FallbackByte(token)) {
      run += *byte;
    } else {
      finish_run();
      out.push_back(std::move(token));
    }
  }
  finish_run();
  tokens = std::move(out);
  return {};
}

Status TokenDecoder::Run(Fuse, Tokens& tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  tokens.clear();
  tokens.push_back(std::move(all));
  return {};
}

Status TokenDecoder::Run(const Strip& strip, Tokens& tokens) {
  std::string character;
  AppendUtf8(strip.character, character);
  for (std::string& token : tokens) {
    std::string_view rest = token;
    for (size_t i = 0; i < strip.start && rest.starts_with(character); ++i) rest.remove_prefix(character.size());
    for (size_t i = 0; i < strip.stop && rest.ends_with(character); ++i) rest.remove_suffix(character.size());
    token = std::string(rest);
  }
  return {};
}

Status TokenDecoder::Run(const Metaspace& metaspace, Tokens& tokens) {
  std::string character;
  AppendUtf8(metaspace.replacement, character);
  for (size_t i = 0; i < tokens.size(); ++i) ReplaceAll(tokens[i], character, i == 0 && metaspace.drop_first ? "" : " ");
  return {};
}

Status TokenDecoder::Run(const BpeSuffix& suffix, Tokens& tokens) {
  if (suffix.suffix.empty()) return {};
  for (size_t i = 0; i < tokens.size(); ++i) ReplaceAll(tokens[i], suffix.suffix, i + 1 == tokens.size() ? "" : " ");
  return {};
}

Status TokenDecoder::Run(const TextReplace& replace, Tokens& tokens) {
  for (std::string& token : tokens) BILLFISH_RETURN_IF_ERROR(replace.Apply(token));
  return {};
}

}  // namespace billfish::tokenizer
