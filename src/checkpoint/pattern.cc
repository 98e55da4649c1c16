#define PCRE2_CODE_UNIT_WIDTH 8
#include "checkpoint/pattern.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <memory>

namespace billfish::checkpoint {
namespace {

constexpr uint32_t kMatchLimit = 100'000;

struct FreeCode {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
struct FreeContext {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};

PCRE2_SPTR Units(const std::string& text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

Result<bool> MatchesAtStart(const std::string& pattern, const std::string& text) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, FreeCode> code(
      pcre2_compile(Units(pattern), pattern.size(), PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (code == nullptr) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("the pattern \"{}\" of the quantisation configuration is invalid at byte {}", pattern, offset));
  }
  const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const std::unique_ptr<pcre2_match_context, FreeContext> context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kMatchLimit);
  const int result = pcre2_match(code.get(), Units(text), text.size(), 0, 0, match.get(), context.get());
  if (result >= 0) return true;
  if (result == PCRE2_ERROR_NOMATCH) return false;
  return Status(ErrorCode::kUnsupported,
                fmt::format("the pattern \"{}\" of the quantisation configuration cannot be matched (PCRE2 error {})", pattern, result));
}

}  // namespace billfish::checkpoint
