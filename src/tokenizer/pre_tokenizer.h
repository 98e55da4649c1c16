// PreTokenizer: cuts a normalised text into the pieces that the model sees one at a time.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/json_object.h"
#include "tokenizer/regex.h"

namespace billfish::tokenizer {

/// A text and its non-empty pieces, in order. Pieces may leave parts of the text out.
struct PieceList {
  std::string text;
  std::vector<Range> pieces;
  bool at_origin = false;  ///< the first piece starts where the whole input starts

  /// One piece, or none for an empty text.
  static PieceList Whole(std::string text, bool at_origin);
  std::string_view At(size_t i) const { return std::string_view(text).substr(pieces[i].begin, pieces[i].end - pieces[i].begin); }
};

/// What becomes of the separators that a pattern finds. Names are those of the file format.
enum class SplitBehavior : uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Cuts `length` bytes at the ordered, disjoint `matches` and appends the non-empty parts, moved by `offset`, to `out`.
/// invert: the matches are the text and what lies between them the separators.
void SplitAt(size_t length, const std::vector<Range>& matches, SplitBehavior behavior, bool invert, size_t offset, std::vector<Range>& out);

/// A sequence of steps. Immutable.
class PreTokenizer {
 public:
  /// The "pre_tokenizer" field: Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit or a
  /// Sequence of these. A null value does nothing. Errors: kUnsupported (another type), kCorruptFile.
  static Result<PreTokenizer> FromJson(const nlohmann::json& value);

  /// Errors: kInvalidArgument (see Regex::Scanner).
  Status Apply(PieceList& list) const;

 private:
  /// Cuts at the matches of a regular expression.
  struct PatternSplit {
    Regex regex;
    SplitBehavior behavior;
    bool invert;
  };
  /// Cuts at single characters.
  struct CharacterSplit {
    enum class Kind : uint8_t { kNumeric, kPunctuation, kSpace, kDelimiter };
    Kind kind;
    SplitBehavior behavior;
    char32_t delimiter;
  };
  /// A prefix on every piece that does not have it.
  struct AddPrefix {
    enum class Where : uint8_t { kEveryPiece, kOrigin };
    std::string prefix;
    Where where;
  };
  struct ReplaceSpaces {
    std::string replacement;
  };
  struct ToByteAlphabet {};
  using Step = std::variant<PatternSplit, CharacterSplit, AddPrefix, ReplaceSpaces, ToByteAlphabet>;

  static Status Run(const PatternSplit& step, PieceList& list);
  static Status Run(const CharacterSplit& step, PieceList& list);
  static Status Run(const AddPrefix& step, PieceList& list);
  static Status Run(const ReplaceSpaces& step, PieceList& list);
  static Status Run(ToByteAlphabet, PieceList& list);

  Status Add(JsonObject& object, const std::string& type);

  std::vector<Step> steps_;
};

}  // namespace billfish::tokenizer
