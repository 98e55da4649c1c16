// Oniguruma's regular expressions (Ruby syntax, Unicode) rewritten for PCRE2, which differs in a handful of places.
#pragma once

#include <string>
#include <string_view>

#include "billfish/status.h"

namespace billfish::tokenizer {

/// The same language as a PCRE2 pattern for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE with newline = LF. Rewritten are: \s \w \h and
/// property names (Oniguruma's sets differ), nested and intersected classes [a&&[^b]], {n,m}+ (greedy, not possessive), (?m) (dot
/// matches newline), (?i) without colon (reaches over later alternatives), \uHHHH, {,m}.
/// Source: Oniguruma's doc/RE and doc/SYNTAX.md. Errors: kUnsupported (absence operators, callouts), kCorruptFile (unclosed parts).
Result<std::string> TranslateOniguruma(std::string_view pattern);

}  // namespace billfish::tokenizer
