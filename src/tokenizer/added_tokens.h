// AddedTokens: the tokens that are cut out of a text before the model sees it, such as "<|im_start|>".
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/regex.h"
#include "tokenizer/vocabulary.h"

namespace billfish::tokenizer {

/// A token, or text between tokens.
struct TextPart {
  std::optional<int32_t> id;
  Range range;
};

class AddedTokens {
 public:
  /// The "added_tokens" field; null is none. `model` is the model's vocabulary.
  /// Errors: kCorruptFile (a bad field, an id that differs from the model's or belongs to another token).
  static Result<AddedTokens> FromJson(const nlohmann::json& value, const Vocabulary& model, const Normalizer& normalizer);

  /// Leftmost-longest matches of the tokens that are looked for in raw text ("normalized": false).
  std::vector<TextPart> SplitRaw(std::string_view text) const { return Split(raw_, text); }
  /// The same for those looked for in normalised text.
  std::vector<TextPart> SplitNormalized(std::string_view text) const { return Split(normalized_, text); }

  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// What the token decodes to, nullptr if there is no such id: its content, or what the normalizer made of it if it is looked for in
  /// normalised text (so does the reference implementation).
  const std::string* TextOf(int32_t id) const;
  std::span<const int32_t> special_ids() const { return special_ids_; }
  bool IsSpecial(int32_t id) const;

 private:
  struct Entry {
    std::string pattern;
    int32_t id;
    bool single_word, lstrip, rstrip;
  };
  /// Sorted by pattern, without duplicates; first_[b] is the first entry whose pattern starts with byte b or a larger one.
  struct Patterns {
    std::vector<Entry> entries;
    std::vector<size_t> first;
    void Finish();
    /// The longest pattern that `text` has at `position`, or nullptr.
    const Entry* LongestAt(std::string_view text, size_t position) const;
  };

  static std::vector<TextPart> Split(const Patterns& patterns, std::string_view text);

  Patterns raw_, normalized_;
  Vocabulary vocabulary_;
  std::unordered_map<int32_t, std::string> normalized_text_;
  std::vector<int32_t> special_ids_;
};

}  // namespace billfish::tokenizer
