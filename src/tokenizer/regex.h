// Regex: a pattern of a tokenizer file, compiled for PCRE2, and the search for all its matches.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish::tokenizer {

/// Bytes [begin, end) of a text.
struct Range {
  size_t begin;
  size_t end;
  bool operator==(const Range&) const = default;
};

/// Immutable and shareable between threads.
class Regex {
 public:
  /// Errors: kCorruptFile (not a regular expression), kUnsupported (a construct that PCRE2 does not have).
  static Result<Regex> Compile(std::string_view oniguruma_pattern);
  /// Matches exactly `text`.
  static Result<Regex> Literal(std::string_view text);

  /// Working memory for searches; one thread at a time.
  class Scanner {
   public:
    explicit Scanner(const Regex& regex);
    /// All matches in order, without overlaps; an empty match directly behind another is left out. `text` must be valid UTF-8.
    /// Errors: kInvalidArgument (the pattern needs too much work on this text).
    Status FindAll(std::string_view text, std::vector<Range>& matches);

   private:
    struct Free {
      void operator()(void* match_data) const;
    };
    const Regex& regex_;
    std::unique_ptr<void, Free> match_data_;
  };

 private:
  static Result<Regex> CompilePcre(std::string_view shown, std::string_view pcre, uint32_t options);

  std::string pattern_;  ///< as the file has it, for messages
  std::shared_ptr<const void> code_;
};

}  // namespace billfish::tokenizer
