// The parts of a loaded tokenizer.json.
#pragma once

#include <optional>

#include "billfish/tokenizer.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_decoder.h"

namespace billfish {

struct Tokenizer::Impl {
  tokenizer::Normalizer normalizer;
  tokenizer::PreTokenizer pre_tokenizer;
  tokenizer::BpeModel model;
  tokenizer::AddedTokens added;
  tokenizer::PostProcessor post_processor;
  tokenizer::TokenDecoder decoder;
  std::optional<int32_t> bos_id, eos_id;

  static Result<std::shared_ptr<Impl>> FromJson(std::string_view json);

  /// nullptr if no token has this id.
  const std::string* TokenOf(int32_t id) const {
    const std::string* token = added.TextOf(id);
    return token ? token : model.vocabulary().Find(id);
  }
};

}  // namespace billfish
