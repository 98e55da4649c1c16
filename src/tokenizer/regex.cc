#include "tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>

#include "core/status_macros.h"
#include "tokenizer/oniguruma.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

// Enough for any text that a sane pattern meets, little enough that a hostile pattern fails within a second.
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kMaxPatternBytes = 64 * 1024;

struct MatchContext {
  MatchContext() : context(pcre2_match_context_create(nullptr)) {
    if (!context) return;
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
  }
  ~MatchContext() { pcre2_match_context_free(context); }
  MatchContext(const MatchContext&) = delete;
  MatchContext& operator=(const MatchContext&) = delete;
  pcre2_match_context* context;
};

/// Read-only after construction, so all threads share it.
pcre2_match_context* SharedMatchContext() {
  static const MatchContext shared;
  return shared.context;
}

PCRE2_SPTR Data(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.empty() ? "" : text.data()); }

}  // namespace

Result<Regex> Regex::CompilePcre(std::string_view shown, std::string_view pcre, uint32_t options) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(pcre2_compile_context_create(nullptr),
                                                                                         pcre2_compile_context_free);
  if (!context) return Status(ErrorCode::kOutOfMemory, "no memory for a regular expression of the tokenizer");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  pcre2_code* code = pcre2_compile(Data(pcre), pcre.size(), options, &error, &offset, context.get());
  if (!code) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return Status(ErrorCode::kCorruptFile,
                  fmt::format("regular expression \"{}\" does not compile: {}", shown, reinterpret_cast<const char*>(message.data())));
  }
  // Without JIT the interpreter runs instead, so a refusal here is no error.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  Regex regex;
  regex.pattern_ = std::string(shown);
  regex.code_ = std::shared_ptr<const void>(code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  return regex;
}

Result<Regex> Regex::Compile(std::string_view oniguruma_pattern) {
  BILLFISH_ASSIGN_OR_RETURN(const std::string pcre, TranslateOniguruma(oniguruma_pattern));
  return CompilePcre(oniguruma_pattern, pcre, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
}

Result<Regex> Regex::Literal(std::string_view text) { return CompilePcre(text, text, PCRE2_UTF | PCRE2_LITERAL); }

void Regex::Scanner::Free::operator()(void* match_data) const { pcre2_match_data_free(static_cast<pcre2_match_data*>(match_data)); }

Regex::Scanner::Scanner(const Regex& regex) : regex_(regex), match_data_(pcre2_match_data_create(1, nullptr)) {}

Status Regex::Scanner::FindAll(std::string_view text, std::vector<Range>& matches) {
  matches.clear();
  auto* match_data = static_cast<pcre2_match_data*>(match_data_.get());
  if (!match_data || !SharedMatchContext()) return {ErrorCode::kOutOfMemory, "no memory to match a regular expression of the tokenizer"};
  const auto* code = static_cast<const pcre2_code*>(regex_.code_.get());
  const PCRE2_SIZE* match = pcre2_get_ovector_pointer(match_data);
  size_t from = 0;
  size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    int rc = pcre2_match(code, Data(text), text.size(), from, PCRE2_NO_UTF_CHECK, match_data, SharedMatchContext());
    // JIT code has a small fixed stack; the interpreter takes the heap.
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code, Data(text), text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match_data, SharedMatchContext());
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return {
          ErrorCode::kInvalidArgument,
          fmt::format("regular expression \"{}\" cannot be matched against a text of {} bytes: it needs more than the {} steps or {} MiB "
                      "that are allowed",
                      regex_.pattern_, text.size(), kMatchLimit, kHeapLimitKiB / 1024)};
    }
    const Range found{match[0], match[1]};
    if (found.begin == found.end && found.end == last_end) {
      from += from < text.size() ? Utf8At(text, from).length : 1;
      continue;
    }
    matches.push_back(found);
    from = last_end = found.end;
  }
  return {};
}

}  // namespace billfish::tokenizer
