// Vocabulary: token texts and their ids, both ways.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "billfish/status.h"

namespace billfish::tokenizer {

/// Larger ids are taken for damage: the table from ids to texts is dense. Known vocabularies end below 300 000.
inline constexpr int64_t kMaxTokenId = (int64_t{1} << 22) - 1;

class Vocabulary {
 public:
  Vocabulary() = default;
  // by_id_ points into by_text_: moving keeps the nodes where they are, copying would not.
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  /// Errors: kCorruptFile (id outside 0..kMaxTokenId, a text or an id that is there already with another partner).
  Status Add(std::string_view token, int64_t id);

  /// -1 if absent.
  int32_t Find(std::string_view token) const;
  /// nullptr if absent.
  const std::string* Find(int32_t id) const;
  /// Largest id + 1.
  int32_t size() const { return static_cast<int32_t>(by_id_.size()); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> by_text_;
  std::vector<const std::string*> by_id_;  ///< keys of by_text_, which never move
};

}  // namespace billfish::tokenizer
