#include "tokenizer/jinja/token_stream.h"

#include <fmt/format.h>

namespace billfish::tokenizer::jinja {
namespace {

constexpr int kMaxSyntaxDepth = 100;

std::string_view KindName(Token::Kind kind) {
  switch (kind) {
    case Token::Kind::kText:
      return "text";
    case Token::Kind::kBlockBegin:
      return "{%";
    case Token::Kind::kBlockEnd:
      return "%}";
    case Token::Kind::kVariableBegin:
      return "{{";
    case Token::Kind::kVariableEnd:
      return "}}";
    case Token::Kind::kEnd:
      return "the end of the template";
    default:
      return "a name";
  }
}

std::string Describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kName:
    case Token::Kind::kString:
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
    case Token::Kind::kOperator:
      return fmt::format("\"{}\"", token.text);
    default:
      return std::string(KindName(token.kind));
  }
}

}  // namespace

Status TokenStream::Error(ErrorCode code, std::string_view what) const { return {code, fmt::format("line {}: {}", line(), what)}; }

Status TokenStream::Unexpected(std::string_view expected) const {
  return Error(ErrorCode::kCorruptFile, fmt::format("expected {}, found {}", expected, Describe(Peek())));
}

Status TokenStream::ExpectOperator(std::string_view op) { return AcceptOperator(op) ? Status() : Unexpected(fmt::format("\"{}\"", op)); }

Result<std::string> TokenStream::ExpectName() {
  if (!Is(Token::Kind::kName)) return Unexpected("a name");
  return Next().text;
}

Status TokenStream::Expect(Token::Kind kind) {
  if (!Is(kind)) return Unexpected(KindName(kind));
  Next();
  return {};
}

Status TokenStream::Level::Check() const {
  if (stream_.depth_ <= kMaxSyntaxDepth) return {};
  return stream_.Error(ErrorCode::kUnsupported, fmt::format("the template nests deeper than {} levels", kMaxSyntaxDepth));
}

}  // namespace billfish::tokenizer::jinja
