#include "tokenizer/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/status_macros.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

/// The character that ends at `end`. Precondition: end > 0, valid UTF-8.
Utf8Unit CharacterBefore(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return Utf8At(text, begin);
}

bool IsWordBefore(std::string_view text, size_t at) { return at > 0 && IsWordCharacter(CharacterBefore(text, at).code_point); }

bool IsWordAt(std::string_view text, size_t at) { return at < text.size() && IsWordCharacter(Utf8At(text, at).code_point); }

}  // namespace

Result<AddedTokens> AddedTokens::FromJson(const nlohmann::json& value, const Vocabulary& model, const Normalizer& normalizer) {
  AddedTokens tokens;
  if (!value.is_null() && !value.is_array()) {
    return Status(ErrorCode::kCorruptFile, fmt::format("added_tokens must be an array, found {}", value.type_name()));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    JsonObject object(value[i], fmt::format("added_tokens[{}]", i));
    const std::string content = object.RequiredString("content");
    const int64_t id = object.RequiredInt("id");
    const bool normalized = object.Bool("normalized", true);
    const bool special = object.Bool("special", false);
    Entry entry{content, 0, object.Bool("single_word", false), object.Bool("lstrip", false), object.Bool("rstrip", false)};
    BILLFISH_RETURN_IF_ERROR(object.status());
    if (content.empty()) continue;
    BILLFISH_RETURN_IF_ERROR(tokens.vocabulary_.Add(content, id).WithContext(object.where()));
    entry.id = static_cast<int32_t>(id);
    const int32_t model_id = model.Find(content);
    const std::string* model_token = model.Find(entry.id);
    if ((model_id >= 0 && model_id != entry.id) || (model_token && *model_token != content)) {
      return Status(ErrorCode::kCorruptFile,
                    fmt::format("{}: token \"{}\" has id {}, but model.vocab gives that token id {} and that id to \"{}\"", object.where(),
                                content, id, model_id, model_token ? *model_token : ""));
    }
    if (special) tokens.special_ids_.push_back(entry.id);
    if (normalized) {
      BILLFISH_RETURN_IF_ERROR(normalizer.Apply(entry.pattern).WithContext(object.where()));
      if (entry.pattern != content) tokens.normalized_text_.emplace(entry.id, entry.pattern);
      if (!entry.pattern.empty()) tokens.normalized_.entries.push_back(std::move(entry));
    } else {
      tokens.raw_.entries.push_back(std::move(entry));
    }
  }
  std::sort(tokens.special_ids_.begin(), tokens.special_ids_.end());
  tokens.special_ids_.erase(std::unique(tokens.special_ids_.begin(), tokens.special_ids_.end()), tokens.special_ids_.end());
  tokens.raw_.Finish();
  tokens.normalized_.Finish();
  return tokens;
}

const std::string* AddedTokens::TextOf(int32_t id) const {
  const auto it = normalized_text_.find(id);
  return it != normalized_text_.end() ? &it->second : vocabulary_.Find(id);
}

bool AddedTokens::IsSpecial(int32_t id) const { return std::binary_search(special_ids_.begin(), special_ids_.end(), id); }

void AddedTokens::Patterns::Finish() {
  // Of tokens that normalise to the same text, the first in the file counts.
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.pattern < b.pattern; });
  entries.erase(std::unique(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.pattern == b.pattern; }),
                entries.end());
  first.assign(257, entries.size());
  for (size_t i = entries.size(); i-- > 0;) first[static_cast<unsigned char>(entries[i].pattern[0])] = i;
  for (size_t byte = 256; byte-- > 0;) first[byte] = std::min(first[byte], first[byte + 1]);
}

const AddedTokens::Entry* AddedTokens::Patterns::LongestAt(std::string_view text, size_t position) const {
  const auto byte = static_cast<unsigned char>(text[position]);
  auto low = entries.begin() + static_cast<ptrdiff_t>(first[byte]);
  auto high = entries.begin() + static_cast<ptrdiff_t>(first[byte + 1u]);
  const Entry* longest = nullptr;
  // [low, high) share their first `length` bytes with the text; a pattern of exactly that length sorts first.
  for (size_t length = 1; low != high; ++length) {
    if (low->pattern.size() == length) longest = &*low++;
    if (position + length >= text.size()) break;
    const auto next = static_cast<unsigned char>(text[position + length]);
    const auto at = [length](const Entry& e) { return static_cast<unsigned char>(e.pattern[length]); };
    low = std::lower_bound(low, high, next, [&](const Entry& e, unsigned char c) { return at(e) < c; });
    high = std::upper_bound(low, high, next, [&](unsigned char c, const Entry& e) { return c < at(e); });
  }
  return longest;
}

std::vector<TextPart> AddedTokens::Split(const Patterns& patterns, std::string_view text) {
  std::vector<TextPart> parts;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const Entry* token = patterns.LongestAt(text, at);
    if (!token) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + token->pattern.size();
    at = end;
    if (token->single_word && (IsWordBefore(text, begin) || IsWordAt(text, end))) continue;
    if (token->lstrip) {
      while (begin > done && IsSpace(CharacterBefore(text, begin).code_point)) begin -= CharacterBefore(text, begin).length;
    }
    if (token->rstrip) {
      while (end < text.size() && IsSpace(Utf8At(text, end).code_point)) end += Utf8At(text, end).length;
    }
    if (done < begin) parts.push_back({std::nullopt, {done, begin}});
    parts.push_back({token->id, {begin, end}});
    done = end;
  }
  if (done < text.size()) parts.push_back({std::nullopt, {done, text.size()}});
  return parts;
}

}  // namespace billfish::tokenizer
