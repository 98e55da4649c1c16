#include "tokenizer/vocabulary.h"

#include <fmt/format.h>

namespace billfish::tokenizer {

Status Vocabulary::Add(std::string_view token, int64_t id) {
  if (id < 0 || id > kMaxTokenId) {
    return {ErrorCode::kCorruptFile, fmt::format("token \"{}\" has id {}, outside 0..{}", token, id, kMaxTokenId)};
  }
  const auto index = static_cast<size_t>(id);
  if (index >= by_id_.size()) by_id_.resize(index + 1, nullptr);
  if (by_id_[index]) {
    if (*by_id_[index] == token) return {};
    return {ErrorCode::kCorruptFile, fmt::format("tokens \"{}\" and \"{}\" both have id {}", *by_id_[index], token, id)};
  }
  const auto [it, inserted] = by_text_.try_emplace(std::string(token), static_cast<int32_t>(id));
  if (!inserted) return {ErrorCode::kCorruptFile, fmt::format("token \"{}\" has two ids, {} and {}", token, it->second, id)};
  by_id_[index] = &it->first;
  return {};
}

int32_t Vocabulary::Find(std::string_view token) const {
  const auto it = by_text_.find(token);
  return it == by_text_.end() ? -1 : it->second;
}

const std::string* Vocabulary::Find(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < by_id_.size() ? by_id_[static_cast<size_t>(id)] : nullptr;
}

}  // namespace billfish::tokenizer
