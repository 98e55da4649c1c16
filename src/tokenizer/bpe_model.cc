// Reads the "model" field.
#include "tokenizer/bpe_model.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/status_macros.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/json_object.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

using nlohmann::json;

/// "a b" or ["a", "b"].
Result<std::pair<std::string_view, std::string_view>> ReadPair(const json& merge, size_t rank) {
  using Pair = std::pair<std::string_view, std::string_view>;
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos) {
      return Pair(text.substr(0, space), text.substr(space + 1));
    }
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return Pair(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
  }
  return Status(ErrorCode::kCorruptFile, fmt::format("model.merges[{}] must be \"a b\" or [\"a\", \"b\"], found {}", rank,
                                                     merge.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 100)));
}

}  // namespace

Result<BpeModel> BpeModel::FromJson(const json& value) {
  JsonObject object(value, "model");
  // Files from before the field existed are told by their merges.
  const std::string type = object.String("type", object.Find("merges") ? "BPE" : "unnamed");
  BILLFISH_RETURN_IF_ERROR(object.status());
  if (type != "BPE") {
    return Status(ErrorCode::kUnsupported, fmt::format("model: type \"{}\" is not implemented; billfish reads BPE tokenizers", type));
  }
  if (const json* dropout = object.Find("dropout"); dropout && !(dropout->is_number() && dropout->get<double>() == 0.0)) {
    return Status(ErrorCode::kUnsupported, "model: BPE dropout is set; billfish encodes deterministically, set \"dropout\" to null");
  }
  BpeModel model;
  model.continuing_subword_prefix_ = object.String("continuing_subword_prefix");
  model.end_of_word_suffix_ = object.String("end_of_word_suffix");
  model.fuse_unknown_ = object.Bool("fuse_unk", false);
  model.byte_fallback_ = object.Bool("byte_fallback", false);
  model.ignore_merges_ = object.Bool("ignore_merges", false);
  const std::string unknown = object.String("unk_token");
  const json& vocab = object.RequiredObject("vocab");
  const json& merges = object.RequiredArray("merges");
  BILLFISH_RETURN_IF_ERROR(object.status());
  BILLFISH_RETURN_IF_ERROR(model.ReadVocabulary(vocab));
  BILLFISH_RETURN_IF_ERROR(model.ReadMerges(merges));
  if (!unknown.empty()) {
    model.unknown_id_ = model.vocabulary_.Find(unknown);
    if (model.unknown_id_ < 0) {
      return Status(ErrorCode::kCorruptFile, fmt::format("model: unk_token \"{}\" is not in the vocabulary", unknown));
    }
  }
  model.FillByteTables();
  return model;
}

Status BpeModel::ReadVocabulary(const json& vocab) {
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer()) {
      return {ErrorCode::kCorruptFile, fmt::format("model.vocab: token \"{}\" must have an integer id, found {}", token, id.type_name())};
    }
    // Unsigned values above int64's range wrap to negative ones and fail the same check.
    BILLFISH_RETURN_IF_ERROR(vocabulary_.Add(token, id.get<int64_t>()).WithContext("model.vocab"));
  }
  return {};
}

Status BpeModel::ReadMerges(const json& merges) {
  if (merges.size() > std::numeric_limits<uint32_t>::max()) return {ErrorCode::kCorruptFile, "model.merges has more than 2^32 entries"};
  merges_.Reserve(merges.size());
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    BILLFISH_ASSIGN_OR_RETURN(const auto pair, ReadPair(merges[rank], rank));
    // The second half carries the prefix that marks a continuation, the joined token does not.
    std::string_view tail = pair.second;
    if (tail.size() < continuing_subword_prefix_.size()) {
      return {ErrorCode::kCorruptFile, fmt::format("model.merges[{}]: \"{}\" is shorter than the continuing_subword_prefix", rank, tail)};
    }
    tail.remove_prefix(continuing_subword_prefix_.size());
    joined.assign(pair.first).append(tail);
    for (const std::string_view token : {pair.first, pair.second, std::string_view(joined)}) {
      if (vocabulary_.Find(token) < 0) {
        return {ErrorCode::kCorruptFile, fmt::format("model.merges[{}]: token \"{}\" is not in the vocabulary", rank, token)};
      }
    }
    merges_.Set(vocabulary_.Find(pair.first), vocabulary_.Find(pair.second), {static_cast<uint32_t>(rank), vocabulary_.Find(joined)});
  }
  return {};
}

void BpeModel::FillByteTables() {
  for (char32_t c = 0; c < kByteAlphabetEnd; ++c) {
    std::string text;
    AppendUtf8(c, text);
    low_characters_.push_back(vocabulary_.Find(text));
  }
  for (int byte = 0; byte < 256; ++byte) byte_tokens_.push_back(vocabulary_.Find(fmt::format("<0x{:02X}>", byte)));
}

}  // namespace billfish::tokenizer
