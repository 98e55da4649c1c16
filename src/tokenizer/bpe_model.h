// BpeModel: byte-pair encoding of one piece of text.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/pair_table.h"
#include "tokenizer/vocabulary.h"

namespace billfish::tokenizer {

/// Starts with one symbol per character and keeps joining the neighbouring pair of lowest rank, leftmost first, until none is listed.
/// Immutable; encodings share it between threads, each with an Encoder of its own.
class BpeModel {
 public:
  /// The "model" field. Errors: kUnsupported (another model, dropout), kCorruptFile.
  static Result<BpeModel> FromJson(const nlohmann::json& value);

  const Vocabulary& vocabulary() const { return vocabulary_; }

  class Encoder {
   public:
    explicit Encoder(const BpeModel& model) : model_(model) {}
    /// Appends the ids of a non-empty valid UTF-8 piece.
    void Append(std::string_view piece, std::vector<int32_t>& ids);

   private:
    struct Symbol {
      int32_t id;
      int32_t previous;  ///< index of the neighbour, -1 at the ends
      int32_t next;
      bool alive;
    };
    struct Candidate {
      uint32_t rank;
      int32_t left;  ///< index of its first symbol
      int32_t left_id, right_id;
    };
    struct Span {
      uint32_t begin;
      uint32_t count;
    };

    void EncodeWord(std::string_view piece, std::vector<int32_t>& ids);
    void StartSymbols(std::string_view piece);
    void AddSymbol(int32_t id);
    void PushCandidate(int32_t left);
    void MergeAll();

    const BpeModel& model_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
    // Words repeat: keeps what they became, up to a bound.
    std::unordered_map<std::string_view, Span> cache_;
    std::deque<std::string> cached_words_;  ///< own the keys of cache_
    std::vector<int32_t> cached_ids_;
  };

 private:
  Status ReadVocabulary(const nlohmann::json& vocab);
  Status ReadMerges(const nlohmann::json& merges);
  void FillByteTables();

  Vocabulary vocabulary_;
  PairTable merges_;
  std::string continuing_subword_prefix_;
  std::string end_of_word_suffix_;
  int32_t unknown_id_ = -1;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::vector<int32_t> low_characters_;  ///< ids of the one-character tokens below kByteAlphabetEnd, -1 where there is none
  std::vector<int32_t> byte_tokens_;     ///< ids of <0x00> .. <0xFF>, -1 where there is none
};

}  // namespace billfish::tokenizer
