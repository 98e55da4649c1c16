#include "tokenizer/pre_tokenizer.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/status_macros.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/sequence.h"
#include "tokenizer/text_replace.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

// What ByteLevel cuts at when use_regex is set; the format defines it as GPT-2's pattern.
constexpr std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// \w+|[^\w\s]+ with the \w of Unicode Technical Standard 18, which has the joiners but not Oniguruma's superscripts.
constexpr std::string_view kWhitespacePattern = R"([[:word:]\x{200C}\x{200D}]+|[^[:word:]\s\x{200C}\x{200D}]+)";

Result<SplitBehavior> ReadBehavior(JsonObject& object, std::string_view fallback) {
  const std::string name = object.String("behavior", fallback);
  BILLFISH_RETURN_IF_ERROR(object.status());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return Status(ErrorCode::kCorruptFile,
                fmt::format("{}: behavior \"{}\" is none of Removed, Isolated, MergedWithPrevious, MergedWithNext, "
                            "Contiguous",
                            object.where(), name));
}

}  // namespace

PieceList PieceList::Whole(std::string text, bool at_origin) {
  PieceList list{std::move(text), {}, at_origin};
  if (!list.text.empty()) list.pieces.push_back({0, list.text.size()});
  return list;
}

Result<PreTokenizer> PreTokenizer::FromJson(const nlohmann::json& value) {
  PreTokenizer pre_tokenizer;
  if (!value.is_null()) {
    BILLFISH_RETURN_IF_ERROR(
        AddParts(value, "pre_tokenizer", "pretokenizers",
                 [&](const nlohmann::json&, JsonObject& object, const std::string& type) { return pre_tokenizer.Add(object, type); }));
  }
  return pre_tokenizer;
}

Status PreTokenizer::Add(JsonObject& object, const std::string& type) {
  using Kind = CharacterSplit::Kind;
  if (type == "Split") {
    BILLFISH_ASSIGN_OR_RETURN(Regex regex, ReadPattern(object));
    object.RequiredString("behavior");
    BILLFISH_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(object, ""));
    steps_.push_back(PatternSplit{std::move(regex), behavior, object.Bool("invert", false)});
  } else if (type == "ByteLevel") {
    if (object.Bool("add_prefix_space", true)) steps_.push_back(AddPrefix{" ", AddPrefix::Where::kEveryPiece});
    if (object.Bool("use_regex", true)) {
      BILLFISH_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(kGpt2Pattern));
      steps_.push_back(PatternSplit{std::move(regex), SplitBehavior::kIsolated, false});
    }
    steps_.push_back(ToByteAlphabet{});
  } else if (type == "Metaspace") {
    const char32_t character = object.RequiredCharacter("replacement");
    std::string replacement;
    AppendUtf8(character, replacement);
    // Old files say add_prefix_space, newer ones prepend_scheme.
    const std::string scheme = object.String("prepend_scheme", object.Bool("add_prefix_space", true) ? "always" : "never");
    steps_.push_back(ReplaceSpaces{replacement});
    if (scheme == "always") {
      steps_.push_back(AddPrefix{replacement, AddPrefix::Where::kEveryPiece});
    } else if (scheme == "first") {
      steps_.push_back(AddPrefix{replacement, AddPrefix::Where::kOrigin});
    } else if (scheme != "never") {
      return {ErrorCode::kCorruptFile, fmt::format("{}: prepend_scheme \"{}\" is none of always, first, never", object.where(), scheme)};
    }
    if (object.Bool("split", true)) steps_.push_back(CharacterSplit{Kind::kDelimiter, SplitBehavior::kMergedWithNext, character});
  } else if (type == "Digits") {
    const bool single = object.Bool("individual_digits", false);
    steps_.push_back(CharacterSplit{Kind::kNumeric, single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, 0});
  } else if (type == "Punctuation") {
    BILLFISH_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(object, "Isolated"));
    steps_.push_back(CharacterSplit{Kind::kPunctuation, behavior, 0});
  } else if (type == "Whitespace") {
    BILLFISH_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(kWhitespacePattern));
    steps_.push_back(PatternSplit{std::move(regex), SplitBehavior::kRemoved, true});
  } else if (type == "WhitespaceSplit") {
    steps_.push_back(CharacterSplit{Kind::kSpace, SplitBehavior::kRemoved, 0});
  } else if (type == "CharDelimiterSplit") {
    const char32_t character = object.RequiredCharacter("delimiter");
    steps_.push_back(CharacterSplit{Kind::kDelimiter, SplitBehavior::kRemoved, character});
  } else {
    return {
        ErrorCode::kUnsupported,
        fmt::format("{}: pre-tokenizer \"{}\" is not implemented; known are Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, "
                    "WhitespaceSplit, CharDelimiterSplit, Sequence",
                    object.where(), type)};
  }
  return OkStatus();
}

Status PreTokenizer::Apply(PieceList& list) const {
  for (const Step& step : steps_) {
    BILLFISH_RETURN_IF_ERROR(std::visit([&](const auto& s) { return Run(s, list); }, step));
  }
  return {};
}

Status PreTokenizer::Run(const PatternSplit& step, PieceList& list) {
  Regex::Scanner scanner(step.regex);
  std::vector<Range> matches, cut;
  cut.reserve(list.text.size() / 4 + 1);
  for (size_t i = 0; i < list.pieces.size(); ++i) {
    const std::string_view piece = list.At(i);
    BILLFISH_RETURN_IF_ERROR(scanner.FindAll(piece, matches));
    SplitAt(piece.size(), matches, step.behavior, step.invert, list.pieces[i].begin, cut);
  }
  list.at_origin = list.at_origin && !cut.empty() && cut[0].begin == list.pieces[0].begin;
  list.pieces = std::move(cut);
  return {};
}

Status PreTokenizer::Run(const CharacterSplit& step, PieceList& list) {
  using Kind = CharacterSplit::Kind;
  const auto separates = [&](char32_t c) {
    switch (step.kind) {
      case Kind::kNumeric:
        return IsNumeric(c);
      case Kind::kPunctuation:
        return IsPunctuation(c);
      case Kind::kSpace:
        return IsSpace(c);
      default:
        return c == step.delimiter;
    }
  };
  std::vector<Range> matches, cut;
  for (size_t p = 0; p < list.pieces.size(); ++p) {
    const std::string_view piece = list.At(p);
    matches.clear();
    for (size_t i = 0; i < piece.size();) {
      const Utf8Unit unit = Utf8At(piece, i);
      if (separates(unit.code_point)) matches.push_back({i, i + unit.length});
      i += unit.length;
    }
    SplitAt(piece.size(), matches, step.behavior, false, list.pieces[p].begin, cut);
  }
  list.at_origin = list.at_origin && !cut.empty() && cut[0].begin == list.pieces[0].begin;
  list.pieces = std::move(cut);
  return {};
}

Status PreTokenizer::Run(const AddPrefix& step, PieceList& list) {
  std::string text;
  text.reserve(list.text.size() + step.prefix.size());
  for (size_t i = 0; i < list.pieces.size(); ++i) {
    const std::string_view piece = list.At(i);
    const size_t begin = text.size();
    const bool wanted = step.where == AddPrefix::Where::kEveryPiece || (i == 0 && list.at_origin);
    if (wanted && !piece.starts_with(step.prefix)) text += step.prefix;
    text += piece;
    list.pieces[i] = {begin, text.size()};
  }
  list.text = std::move(text);
  return {};
}

Status PreTokenizer::Run(const ReplaceSpaces& step, PieceList& list) {
  std::string text;
  text.reserve(list.text.size() * 2);
  for (size_t i = 0; i < list.pieces.size(); ++i) {
    const size_t begin = text.size();
    for (const char c : list.At(i)) {
      if (c == ' ') {
        text += step.replacement;
      } else {
        text += c;
      }
    }
    list.pieces[i] = {begin, text.size()};
  }
  list.text = std::move(text);
  return {};
}

Status PreTokenizer::Run(ToByteAlphabet, PieceList& list) {
  std::string text;
  text.reserve(list.text.size() * 3 / 2);
  for (size_t i = 0; i < list.pieces.size(); ++i) {
    const size_t begin = text.size();
    AppendInAlphabet(list.At(i), text);
    list.pieces[i] = {begin, text.size()};
  }
  list.text = std::move(text);
  return {};
}

}  // namespace billfish::tokenizer
