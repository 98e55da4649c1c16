// Streaming decode. Byte-level tokenizers go byte by byte; for the others, whose decoders look at neighbours, a short window of ids
// is decoded again with every new id and what it adds to the text is returned.
#include <fmt/format.h>

#include "core/status_macros.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

namespace billfish {
namespace {

using tokenizer::Utf8At;
using tokenizer::Utf8Unit;

/// Length of the part of `bytes` in front of an unfinished last character.
size_t CompleteLength(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Unit unit = Utf8At(bytes, at);
    if (unit.kind == Utf8Unit::Kind::kTruncated) return at;
    at += unit.length;
  }
  return at;
}

/// Decoded windows are cut back to this many ids once their text is complete.
constexpr size_t kKeptIds = 8;
/// A window whose text stays incomplete for longer than any character can is not going to be completed.
constexpr size_t kMaxWindow = 64;

}  // namespace

struct StreamDecoder::Impl {
  std::shared_ptr<const Tokenizer::Impl> tokenizer;
  bool skip_special_tokens;
  std::string bytes;                // byte level: the unfinished character
  std::vector<std::string> window;  // otherwise: the latest tokens
  std::string returned;             // the window's text as far as it was returned

  std::string PushByteLevel(const std::string& token) {
    tokenizer::AppendBytesOfToken(token, bytes);
    const size_t complete = CompleteLength(bytes);
    std::string text = tokenizer::ToValidUtf8(std::string_view(bytes).substr(0, complete));
    bytes.erase(0, complete);
    return text;
  }

  Result<std::string> PushWindow(const std::string& token) {
    window.push_back(token);
    BILLFISH_ASSIGN_OR_RETURN(const std::string text, tokenizer->decoder.Decode(window));
    if (text.ends_with(tokenizer::kReplacementCharacter) && window.size() < kMaxWindow) return std::string();
    std::string added = Behind(text);
    returned = text;
    if (window.size() >= 2 * kKeptIds) BILLFISH_RETURN_IF_ERROR(CutWindow());
    return added;
  }

  /// Keeps the last tokens, the left neighbours of the coming ones. Their text must be the end of the whole text, which it is not if
  /// they begin inside a character; and not empty, or a step that treats the start of a text differently would take the next token for
  /// the start.
  Status CutWindow() {
    const bool must = window.size() >= kMaxWindow;
    for (size_t kept = kKeptIds; kept < 2 * kKeptIds; ++kept) {
      const std::vector<std::string> tail(window.end() - static_cast<ptrdiff_t>(kept), window.end());
      BILLFISH_ASSIGN_OR_RETURN(const std::string text, tokenizer->decoder.Decode(tail));
      if ((!text.empty() && returned.ends_with(text)) || must) {
        window = tail;
        returned = text;
        return {};
      }
    }
    return {};
  }

  /// What `text` has behind the characters that it shares with the returned text: all that is new, since texts grow at the end (but
  /// for a run of byte tokens that turned invalid).
  std::string Behind(const std::string& text) const {
    size_t shared = 0;
    while (shared < text.size() && shared < returned.size()) {
      const size_t length = Utf8At(text, shared).length;
      if (returned.compare(shared, length, text, shared, length) != 0) break;
      shared += length;
    }
    return text.substr(shared);
  }
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : impl_(new Impl{tokenizer.impl_, skip_special_tokens, {}, {}, {}}) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

Result<std::string> StreamDecoder::Push(int32_t id) {
  if (id < 0) return Status(ErrorCode::kInvalidArgument, fmt::format("cannot decode token id {}: ids start at 0", id));
  const Tokenizer::Impl& tokenizer = *impl_->tokenizer;
  const std::string* token = tokenizer.TokenOf(id);
  if (!token || (impl_->skip_special_tokens && tokenizer.added.IsSpecial(id))) return std::string();
  return tokenizer.decoder.is_byte_level() ? impl_->PushByteLevel(*token) : impl_->PushWindow(*token);
}

std::string StreamDecoder::Flush() {
  std::string text = tokenizer::ToValidUtf8(impl_->bytes);
  if (!impl_->window.empty()) {
    if (const auto all = impl_->tokenizer->decoder.Decode(impl_->window); all.ok()) text = impl_->Behind(*all);
  }
  impl_->bytes.clear();
  impl_->window.clear();
  impl_->returned.clear();
  return text;
}

}  // namespace billfish
