// The merging itself: symbols are a linked list in one array, candidate pairs a heap ordered by (rank, position).
#include <algorithm>

#include "tokenizer/bpe_model.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

constexpr size_t kMaxCachedWords = 1 << 16;
// Long pieces hardly repeat and would fill the cache.
constexpr size_t kMaxCachedWordBytes = 128;

}  // namespace

void BpeModel::Encoder::Append(std::string_view piece, std::vector<int32_t>& ids) {
  if (model_.ignore_merges_) {
    if (const int32_t id = model_.vocabulary_.Find(piece); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  if (piece.size() > kMaxCachedWordBytes) return EncodeWord(piece, ids);
  if (const auto it = cache_.find(piece); it != cache_.end()) {
    const auto begin = cached_ids_.begin() + it->second.begin;
    ids.insert(ids.end(), begin, begin + it->second.count);
    return;
  }
  const size_t before = ids.size();
  EncodeWord(piece, ids);
  if (cached_words_.size() == kMaxCachedWords) return;
  cached_words_.emplace_back(piece);
  cache_.emplace(cached_words_.back(), Span{static_cast<uint32_t>(cached_ids_.size()), static_cast<uint32_t>(ids.size() - before)});
  cached_ids_.insert(cached_ids_.end(), ids.begin() + static_cast<ptrdiff_t>(before), ids.end());
}

void BpeModel::Encoder::EncodeWord(std::string_view piece, std::vector<int32_t>& ids) {
  StartSymbols(piece);
  MergeAll();
  for (const Symbol& symbol : symbols_) {
    if (symbol.alive) ids.push_back(symbol.id);
  }
}

void BpeModel::Encoder::AddSymbol(int32_t id) {
  const auto index = static_cast<int32_t>(symbols_.size());
  if (index > 0) symbols_.back().next = index;
  symbols_.push_back({id, index - 1, -1, true});
}

void BpeModel::Encoder::StartSymbols(std::string_view piece) {
  symbols_.clear();
  // An unknown symbol waits until a known one follows, so that fuse_unk can lengthen it; bytes of a fallback overtake it, as they do
  // in the reference implementation.
  bool unknown_waits = false;
  const bool decorated = !model_.continuing_subword_prefix_.empty() || !model_.end_of_word_suffix_.empty();
  std::string spelled;
  for (size_t i = 0; i < piece.size();) {
    const Utf8Unit unit = Utf8At(piece, i);
    std::string_view text = piece.substr(i, unit.length);
    const bool first = i == 0;
    i += unit.length;
    int32_t id = -1;
    if (decorated) {
      spelled.clear();
      if (!first) spelled += model_.continuing_subword_prefix_;
      spelled += text;
      if (i == piece.size()) spelled += model_.end_of_word_suffix_;
      text = spelled;
      id = model_.vocabulary_.Find(text);
    } else {
      id = unit.code_point < model_.low_characters_.size() ? model_.low_characters_[unit.code_point] : model_.vocabulary_.Find(text);
    }
    if (id >= 0) {
      if (unknown_waits) AddSymbol(model_.unknown_id_);
      unknown_waits = false;
      AddSymbol(id);
      continue;
    }
    const auto byte_token = [&](char c) { return model_.byte_tokens_[static_cast<uint8_t>(c)]; };
    if (model_.byte_fallback_ && std::all_of(text.begin(), text.end(), [&](char c) { return byte_token(c) >= 0; })) {
      for (const char c : text) AddSymbol(byte_token(c));
      continue;
    }
    // Without an unknown token the character is dropped, as in the reference implementation.
    if (model_.unknown_id_ < 0) continue;
    if (unknown_waits && !model_.fuse_unknown_) AddSymbol(model_.unknown_id_);
    unknown_waits = true;
  }
  if (unknown_waits) AddSymbol(model_.unknown_id_);
}

void BpeModel::Encoder::PushCandidate(int32_t left) {
  const Symbol& first = symbols_[static_cast<size_t>(left)];
  if (first.next < 0) return;
  const Symbol& second = symbols_[static_cast<size_t>(first.next)];
  if (const Merge* merge = model_.merges_.Find(first.id, second.id)) heap_.push_back({merge->rank, left, first.id, second.id});
}

void BpeModel::Encoder::MergeAll() {
  const auto later = [](const Candidate& a, const Candidate& b) { return a.rank != b.rank ? a.rank > b.rank : a.left > b.left; };
  heap_.clear();
  for (size_t i = 0; i + 1 < symbols_.size(); ++i) PushCandidate(static_cast<int32_t>(i));
  std::make_heap(heap_.begin(), heap_.end(), later);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Candidate best = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<size_t>(best.left)];
    // Symbols change under waiting candidates; such a candidate has lost its pair.
    if (!left.alive || left.id != best.left_id || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    if (right.id != best.right_id) continue;
    left.id = model_.merges_.Find(best.left_id, best.right_id)->joined;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = best.left;
    for (const int32_t start : {left.previous, best.left}) {
      if (start < 0) continue;
      const size_t before = heap_.size();
      PushCandidate(start);
      if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), later);
    }
  }
}

}  // namespace billfish::tokenizer
