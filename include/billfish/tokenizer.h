// Tokenizer: text to token ids and back, as a Hugging Face tokenizer.json prescribes.
//
// Implemented: BPE models (byte-level and SentencePiece-style with byte fallback) with the normalizers, pre-tokenizers,
// post-processors and decoders that such files use. Ids and texts are those of the `tokenizers` library (0.2x), which defines the
// format. Regular expressions of the file are Oniguruma's; they run on PCRE2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish {

/// Immutable; copies share; every method may be called from several threads at once.
class Tokenizer {
 public:
  /// Empty: only good for being assigned to.
  Tokenizer();
  ~Tokenizer();
  Tokenizer(const Tokenizer&);
  Tokenizer& operator=(const Tokenizer&);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// A tokenizer.json, or the folder that holds one. tokenizer_config.json beside it, where present, gives bos_id() and eos_id().
  /// Errors: kNotFound, kIo, kCorruptFile (not JSON, a field of the wrong type, parts that contradict each other), kUnsupported (a
  /// model, normalizer, ... that billfish does not implement; names it).
  static Result<Tokenizer> Load(const std::filesystem::path& path);
  /// The same from the text of a tokenizer.json. bos_id() and eos_id() stay empty.
  static Result<Tokenizer> FromJson(std::string_view json);

  /// Added tokens inside `text` ("<|im_end|>") become their ids. add_special_tokens also applies the post-processor (BOS and EOS);
  /// leave it off for text that a chat template made.
  /// The file's "truncation" and "padding" are not applied.
  /// Errors: kInvalidArgument (text is not UTF-8; a pattern of the file that this text drives beyond the matching limit).
  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens) const;

  /// Ids that the tokenizer does not have are skipped: models pad their vocabulary. Invalid UTF-8 becomes U+FFFD.
  /// Errors: kInvalidArgument (a negative id).
  Result<std::string> Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// Largest id + 1, added tokens included. The model's own vocab_size may be larger (padding).
  int32_t vocab_size() const;
  /// Looks in the added tokens first. Spelled as in the file: a space is "Ġ" in a byte-level vocabulary.
  std::optional<int32_t> TokenToId(std::string_view token) const;
  std::optional<std::string> IdToToken(int32_t id) const;
  /// Ids of the added tokens marked special, ascending: what skip_special_tokens leaves out.
  std::span<const int32_t> special_ids() const;
  bool IsSpecial(int32_t id) const;
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

/// Decodes ids as they arrive. What Push() and Flush() returned, joined, is what Decode() says of all ids (for a run of byte-fallback
/// tokens that turns invalid after valid text of it was returned, the replacement characters may differ in number).
class StreamDecoder {
 public:
  /// Keeps the tokenizer's data alive.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /// The text that became complete with this id, possibly none: bytes of an unfinished character are held back.
  /// Errors: kInvalidArgument (a negative id).
  Result<std::string> Push(int32_t id);
  /// What was held back, U+FFFD for an unfinished character. The decoder is then as new.
  std::string Flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billfish
