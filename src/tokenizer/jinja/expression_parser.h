// The expression half of the parser.
#pragma once

#include <set>
#include <string>

#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/token_stream.h"

namespace billfish::tokenizer::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : in_(stream) {}

  /// One expression, with "a if b else c" unless with_condition is off (the items of a for loop).
  Result<ExpressionPtr> Parse(bool with_condition = true);
  /// One expression or several with commas between: a tuple without parentheses.
  Result<ExpressionPtr> ParseTuple(bool with_condition = true);
  /// "name(args) | name ..." of {% filter %} and {% set x | ... %}: the current token is the first name.
  Result<ExpressionPtr> ParseFilterWithoutInput();
  Result<CallArguments> ParseArguments();

  /// Names that were read since the last Clear: how a macro knows whether it uses varargs, kwargs and caller.
  std::set<std::string>& names() { return names_; }

 private:
  Result<ExpressionPtr> ParseOr();
  Result<ExpressionPtr> ParseAnd();
  Result<ExpressionPtr> ParseNot();
  Result<ExpressionPtr> ParseCompare();
  Result<ExpressionPtr> ParseSum();
  Result<ExpressionPtr> ParseConcat();
  Result<ExpressionPtr> ParseProduct();
  Result<ExpressionPtr> ParsePower();
  Result<ExpressionPtr> ParseUnary(bool with_filter = true);
  Result<ExpressionPtr> ParsePrimary();
  Result<ExpressionPtr> ParsePostfix(ExpressionPtr node);
  Result<ExpressionPtr> ParseSubscript(ExpressionPtr node);
  Result<ExpressionPtr> ParseFilters(ExpressionPtr node);
  Result<ExpressionPtr> ParseTest(ExpressionPtr node);
  Result<ExpressionPtr> ParseNumber();
  Result<ExpressionPtr> ParseDict();

  /// Wraps a node; refuses a tree that would be too deep to walk.
  Result<ExpressionPtr> Make(Expression::Node node, int line) const;

  TokenStream& in_;
  std::set<std::string> names_;
};

}  // namespace billfish::tokenizer::jinja
