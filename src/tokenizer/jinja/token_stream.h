// What the statement and expression parsers share: a cursor over the tokens and the limit on nesting.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/jinja/lexer.h"

namespace billfish::tokenizer::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Peek(size_t ahead = 0) const { return tokens_[at_ + ahead < tokens_.size() ? at_ + ahead : tokens_.size() - 1]; }
  Token Next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  int line() const { return Peek().line; }

  bool IsOperator(std::string_view op) const { return Peek().kind == Token::Kind::kOperator && Peek().text == op; }
  bool IsName(std::string_view name) const { return Peek().kind == Token::Kind::kName && Peek().text == name; }
  bool Is(Token::Kind kind) const { return Peek().kind == kind; }
  bool AcceptOperator(std::string_view op) {
    if (!IsOperator(op)) return false;
    ++at_;
    return true;
  }
  bool AcceptName(std::string_view name) {
    if (!IsName(name)) return false;
    ++at_;
    return true;
  }

  Status ExpectOperator(std::string_view op);
  Result<std::string> ExpectName();
  Status Expect(Token::Kind kind);
  /// kCorruptFile: "line N: expected `expected`, found ..."
  Status Unexpected(std::string_view expected) const;
  Status Error(ErrorCode code, std::string_view what) const;

  /// One level of nested syntax for its lifetime.
  class Level {
   public:
    explicit Level(TokenStream& stream) : stream_(stream) { ++stream_.depth_; }
    ~Level() { --stream_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Status Check() const;

   private:
    TokenStream& stream_;
  };

 private:
  std::vector<Token> tokens_;  ///< ends in kEnd
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace billfish::tokenizer::jinja
