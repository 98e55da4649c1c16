#include "billfish/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/read_file.h"
#include "core/status_macros.h"
#include "tokenizer/json_object.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

namespace billfish {
namespace {

using nlohmann::json;
using tokenizer::JsonObject;
using tokenizer::ParseJson;

constexpr size_t kMaxTokenizerBytes = size_t{512} << 20;
constexpr size_t kMaxConfigBytes = size_t{64} << 20;

const json& FieldOrNull(const JsonObject& object, std::string_view key) {
  static const json null;
  const json* field = object.Find(key);
  return field ? *field : null;
}

/// A special token of tokenizer_config.json: "text" or {"content": "text", ...}.
std::optional<std::string> SpecialTokenText(const json& config, const char* key) {
  const auto it = config.is_object() ? config.find(key) : config.end();
  if (it == config.end()) return std::nullopt;
  if (it->is_string()) return it->get_ref<const std::string&>();
  if (!it->is_object()) return std::nullopt;
  const auto content = it->find("content");
  if (content == it->end() || !content->is_string()) return std::nullopt;
  return content->get_ref<const std::string&>();
}

}  // namespace

Tokenizer::Tokenizer() : impl_(std::make_shared<const Impl>()) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(const Tokenizer&) = default;
Tokenizer& Tokenizer::operator=(const Tokenizer&) = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Result<Tokenizer> Tokenizer::Load(const std::filesystem::path& path) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(path, error);
  const std::filesystem::path file = folder ? path / "tokenizer.json" : path;
  BILLFISH_ASSIGN_OR_RETURN(const std::string text, ReadFile(file, kMaxTokenizerBytes));
  auto impl = Impl::FromJson(text);
  if (!impl.ok()) return impl.error().WithContext(file.string());
  Tokenizer result;
  result.impl_ = *impl;

  const std::filesystem::path config_file = file.parent_path() / "tokenizer_config.json";
  if (!std::filesystem::exists(config_file, error)) return result;
  BILLFISH_ASSIGN_OR_RETURN(const std::string config_text, ReadFile(config_file, kMaxConfigBytes));
  BILLFISH_ASSIGN_OR_RETURN(const json config, ParseJson(config_text, config_file.string()));
  const auto id_of = [&](const char* key) -> std::optional<int32_t> {
    const auto content = SpecialTokenText(config, key);
    return content ? result.TokenToId(*content) : std::nullopt;
  };
  (*impl)->bos_id = id_of("bos_token");
  (*impl)->eos_id = id_of("eos_token");
  return result;
}

Result<Tokenizer> Tokenizer::FromJson(std::string_view text) {
  Tokenizer result;
  BILLFISH_ASSIGN_OR_RETURN(result.impl_, Impl::FromJson(text));
  return result;
}

Result<std::shared_ptr<Tokenizer::Impl>> Tokenizer::Impl::FromJson(std::string_view text) {
  BILLFISH_ASSIGN_OR_RETURN(const json root, ParseJson(text, "the tokenizer file"));
  JsonObject object(root, "the tokenizer file");
  object.RequiredObject("model");
  BILLFISH_RETURN_IF_ERROR(object.status());
  auto impl = std::make_shared<Impl>();
  BILLFISH_ASSIGN_OR_RETURN(impl->normalizer, tokenizer::Normalizer::FromJson(FieldOrNull(object, "normalizer")));
  BILLFISH_ASSIGN_OR_RETURN(impl->pre_tokenizer, tokenizer::PreTokenizer::FromJson(FieldOrNull(object, "pre_tokenizer")));
  BILLFISH_ASSIGN_OR_RETURN(impl->model, tokenizer::BpeModel::FromJson(FieldOrNull(object, "model")));
  BILLFISH_ASSIGN_OR_RETURN(
      impl->added, tokenizer::AddedTokens::FromJson(FieldOrNull(object, "added_tokens"), impl->model.vocabulary(), impl->normalizer));
  BILLFISH_ASSIGN_OR_RETURN(impl->post_processor, tokenizer::PostProcessor::FromJson(FieldOrNull(object, "post_processor")));
  BILLFISH_ASSIGN_OR_RETURN(impl->decoder, tokenizer::TokenDecoder::FromJson(FieldOrNull(object, "decoder")));
  return impl;
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  if (const size_t at = tokenizer::FindInvalidUtf8(text); at != std::string_view::npos) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("cannot encode {} bytes of text: byte {} is not UTF-8", text.size(), at));
  }
  std::vector<int32_t> ids;
  tokenizer::BpeModel::Encoder encoder(impl_->model);
  for (const tokenizer::TextPart& raw : impl_->added.SplitRaw(text)) {
    if (raw.id) {
      ids.push_back(*raw.id);
      continue;
    }
    std::string normalized(text.substr(raw.range.begin, raw.range.end - raw.range.begin));
    BILLFISH_RETURN_IF_ERROR(impl_->normalizer.Apply(normalized));
    for (const tokenizer::TextPart& part : impl_->added.SplitNormalized(normalized)) {
      if (part.id) {
        ids.push_back(*part.id);
        continue;
      }
      const bool at_origin = raw.range.begin == 0 && part.range.begin == 0;
      auto pieces = tokenizer::PieceList::Whole(normalized.substr(part.range.begin, part.range.end - part.range.begin), at_origin);
      BILLFISH_RETURN_IF_ERROR(impl_->pre_tokenizer.Apply(pieces));
      for (size_t i = 0; i < pieces.pieces.size(); ++i) encoder.Append(pieces.At(i), ids);
    }
  }
  return add_special_tokens ? impl_->post_processor.Apply(std::move(ids)) : std::move(ids);
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (id < 0) return Status(ErrorCode::kInvalidArgument, fmt::format("cannot decode token id {}: ids start at 0", id));
    const std::string* token = impl_->TokenOf(id);
    if (!token || (skip_special_tokens && impl_->added.IsSpecial(id))) continue;
    tokens.push_back(*token);
  }
  return impl_->decoder.Decode(std::move(tokens));
}

int32_t Tokenizer::vocab_size() const { return std::max(impl_->model.vocabulary().size(), impl_->added.vocabulary().size()); }

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  for (const auto* vocabulary : {&impl_->added.vocabulary(), &impl_->model.vocabulary()}) {
    if (const int32_t id = vocabulary->Find(token); id >= 0) return id;
  }
  return std::nullopt;
}

std::optional<std::string> Tokenizer::IdToToken(int32_t id) const {
  const std::string* token = impl_->TokenOf(id);
  return token ? std::optional(*token) : std::nullopt;
}

std::span<const int32_t> Tokenizer::special_ids() const { return impl_->added.special_ids(); }
bool Tokenizer::IsSpecial(int32_t id) const { return impl_->added.IsSpecial(id); }
std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos_id; }

}  // namespace billfish
