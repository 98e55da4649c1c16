#include "tokenizer/jinja/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "core/status_macros.h"

namespace billfish::tokenizer::jinja {
namespace {

using Kind = Token::Kind;

constexpr int kMaxHeight = 250;

int HeightOf(const ExpressionPtr& e) { return e ? e->height : 0; }

int HeightOf(const CallArguments& arguments) {
  int height = std::max(HeightOf(arguments.star), HeightOf(arguments.double_star));
  for (const auto& e : arguments.positional) height = std::max(height, HeightOf(e));
  for (const auto& [name, e] : arguments.named) height = std::max(height, HeightOf(e));
  return height;
}

struct ChildHeight {
  int operator()(const LiteralExpression&) const { return 0; }
  int operator()(const NameExpression&) const { return 0; }
  int operator()(const SequenceExpression& n) const { return All(n.items); }
  int operator()(const DictExpression& n) const {
    int height = 0;
    for (const auto& [key, value] : n.entries) height = std::max({height, HeightOf(key), HeightOf(value)});
    return height;
  }
  int operator()(const AttributeExpression& n) const { return HeightOf(n.object); }
  int operator()(const ItemExpression& n) const { return std::max(HeightOf(n.object), HeightOf(n.index)); }
  int operator()(const SliceExpression& n) const {
    return std::max({HeightOf(n.object), HeightOf(n.begin), HeightOf(n.end), HeightOf(n.step)});
  }
  int operator()(const CallExpression& n) const { return std::max(HeightOf(n.callee), HeightOf(n.arguments)); }
  int operator()(const FilterExpression& n) const { return std::max(HeightOf(n.input), HeightOf(n.arguments)); }
  int operator()(const TestExpression& n) const { return std::max(HeightOf(n.input), HeightOf(n.arguments)); }
  int operator()(const UnaryExpression& n) const { return HeightOf(n.operand); }
  int operator()(const BinaryExpression& n) const { return std::max(HeightOf(n.left), HeightOf(n.right)); }
  int operator()(const LogicExpression& n) const { return std::max(HeightOf(n.left), HeightOf(n.right)); }
  int operator()(const CompareExpression& n) const {
    int height = HeightOf(n.first);
    for (const auto& [op, e] : n.rest) height = std::max(height, HeightOf(e));
    return height;
  }
  int operator()(const ConcatExpression& n) const { return All(n.parts); }
  int operator()(const ConditionalExpression& n) const {
    return std::max({HeightOf(n.condition), HeightOf(n.then), HeightOf(n.otherwise)});
  }

  static int All(const std::vector<ExpressionPtr>& expressions) {
    int height = 0;
    for (const auto& e : expressions) height = std::max(height, HeightOf(e));
    return height;
  }
};

}  // namespace

Result<ExpressionPtr> ExpressionParser::Make(Expression::Node node, int line) const {
  const int height = 1 + std::visit(ChildHeight{}, node);
  if (height > kMaxHeight) return in_.Error(ErrorCode::kUnsupported, fmt::format("the expression nests deeper than {} levels", kMaxHeight));
  return std::make_unique<Expression>(Expression{std::move(node), line, height});
}

Result<ExpressionPtr> ExpressionParser::Parse(bool with_condition) {
  const TokenStream::Level level(in_);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  if (!with_condition) return ParseOr();
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseOr());
  while (in_.AcceptName("if")) {
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (in_.AcceptName("else")) {
      BILLFISH_ASSIGN_OR_RETURN(otherwise, Parse());
    }
    BILLFISH_ASSIGN_OR_RETURN(node, Make(ConditionalExpression{std::move(condition), std::move(node), std::move(otherwise)}, line));
  }
  return node;
}

Result<ExpressionPtr> ExpressionParser::ParseTuple(bool with_condition) {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr first, Parse(with_condition));
  if (!in_.IsOperator(",")) return first;
  SequenceExpression tuple{true, {}};
  tuple.items.push_back(std::move(first));
  while (in_.AcceptOperator(",")) {
    if (in_.Is(Kind::kBlockEnd) || in_.Is(Kind::kVariableEnd) || in_.IsOperator(")") || in_.IsName("recursive")) break;
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr item, Parse(with_condition));
    tuple.items.push_back(std::move(item));
  }
  return Make(std::move(tuple), line);
}

Result<ExpressionPtr> ExpressionParser::ParseOr() {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (in_.AcceptName("or")) {
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    BILLFISH_ASSIGN_OR_RETURN(left, Make(LogicExpression{false, std::move(left), std::move(right)}, line));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::ParseAnd() {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (in_.AcceptName("and")) {
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    BILLFISH_ASSIGN_OR_RETURN(left, Make(LogicExpression{true, std::move(left), std::move(right)}, line));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::ParseNot() {
  const int line = in_.line();
  if (!in_.AcceptName("not")) return ParseCompare();
  const TokenStream::Level level(in_);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  return Make(UnaryExpression{UnaryOperator::kNot, std::move(operand)}, line);
}

Result<ExpressionPtr> ExpressionParser::ParseCompare() {
  struct Named {
    std::string_view text;
    CompareOperator op;
  };
  static constexpr Named kCompare[] = {{"==", CompareOperator::kEqual},  {"!=", CompareOperator::kNotEqual},
                                       {"<", CompareOperator::kLess},    {"<=", CompareOperator::kLessEqual},
                                       {">", CompareOperator::kGreater}, {">=", CompareOperator::kGreaterEqual}};
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  CompareExpression compare{nullptr, {}};
  while (true) {
    const auto* named = std::find_if(std::begin(kCompare), std::end(kCompare), [&](const Named& n) { return in_.IsOperator(n.text); });
    CompareOperator op = CompareOperator::kIn;
    if (named != std::end(kCompare)) {
      op = named->op;
      in_.Next();
    } else if (in_.IsName("not") && in_.Peek(1).kind == Kind::kName && in_.Peek(1).text == "in") {
      op = CompareOperator::kNotIn;
      in_.Next();
      in_.Next();
    } else if (!in_.AcceptName("in")) {
      break;
    }
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseSum());
    compare.rest.emplace_back(op, std::move(right));
  }
  if (compare.rest.empty()) return first;
  compare.first = std::move(first);
  return Make(std::move(compare), line);
}

Result<ExpressionPtr> ExpressionParser::ParseSum() {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr left, ParseConcat());
  while (in_.IsOperator("+") || in_.IsOperator("-")) {
    const BinaryOperator op = in_.Next().text == "+" ? BinaryOperator::kAdd : BinaryOperator::kSubtract;
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseConcat());
    BILLFISH_ASSIGN_OR_RETURN(left, Make(BinaryExpression{op, std::move(left), std::move(right)}, line));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::ParseConcat() {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!in_.IsOperator("~")) return first;
  ConcatExpression concat;
  concat.parts.push_back(std::move(first));
  while (in_.AcceptOperator("~")) {
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr part, ParseProduct());
    concat.parts.push_back(std::move(part));
  }
  return Make(std::move(concat), line);
}

Result<ExpressionPtr> ExpressionParser::ParseProduct() {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr left, ParsePower());
  while (in_.IsOperator("*") || in_.IsOperator("/") || in_.IsOperator("//") || in_.IsOperator("%")) {
    const BinaryOperator op = in_.IsOperator("*")    ? BinaryOperator::kMultiply
                              : in_.IsOperator("/")  ? BinaryOperator::kDivide
                              : in_.IsOperator("//") ? BinaryOperator::kFloorDivide
                                                     : BinaryOperator::kModulo;
    in_.Next();
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr right, ParsePower());
    BILLFISH_ASSIGN_OR_RETURN(left, Make(BinaryExpression{op, std::move(left), std::move(right)}, line));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::ParsePower() {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary());
  while (in_.AcceptOperator("**")) {
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary());
    BILLFISH_ASSIGN_OR_RETURN(left, Make(BinaryExpression{BinaryOperator::kPower, std::move(left), std::move(right)}, line));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filter) {
  const TokenStream::Level level(in_);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  const int line = in_.line();
  ExpressionPtr node;
  if (in_.IsOperator("-") || in_.IsOperator("+")) {
    const UnaryOperator op = in_.Next().text == "-" ? UnaryOperator::kMinus : UnaryOperator::kPlus;
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(false));
    BILLFISH_ASSIGN_OR_RETURN(node, Make(UnaryExpression{op, std::move(operand)}, line));
  } else {
    BILLFISH_ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  BILLFISH_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  return with_filter ? ParseFilters(std::move(node)) : std::move(node);
}

Result<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const int line = in_.line();
  if (in_.Is(Kind::kName)) {
    const std::string name = in_.Next().text;
    if (name == "true" || name == "True") return Make(LiteralExpression{Value::Of(true)}, line);
    if (name == "false" || name == "False") return Make(LiteralExpression{Value::Of(false)}, line);
    if (name == "none" || name == "None") return Make(LiteralExpression{Value::MakeNone()}, line);
    names_.insert(name);
    return Make(NameExpression{name}, line);
  }
  if (in_.Is(Kind::kString)) {
    std::string text;
    while (in_.Is(Kind::kString)) text += in_.Next().text;
    return Make(LiteralExpression{Value::Of(std::move(text))}, line);
  }
  if (in_.Is(Kind::kInteger) || in_.Is(Kind::kFloat)) return ParseNumber();
  if (in_.AcceptOperator("(")) {
    if (in_.AcceptOperator(")")) return Make(SequenceExpression{true, {}}, line);
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseTuple());
    BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(")"));
    return node;
  }
  if (in_.AcceptOperator("[")) {
    SequenceExpression list{false, {}};
    while (!in_.AcceptOperator("]")) {
      if (!list.items.empty()) BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(","));
      if (in_.AcceptOperator("]")) break;
      BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr item, Parse());
      list.items.push_back(std::move(item));
    }
    return Make(std::move(list), line);
  }
  if (in_.AcceptOperator("{")) return ParseDict();
  return in_.Unexpected("an expression");
}

Result<ExpressionPtr> ExpressionParser::ParseNumber() {
  const int line = in_.line();
  const Token token = in_.Next();
  if (token.kind == Kind::kFloat) return Make(LiteralExpression{Value::Of(std::strtod(token.text.c_str(), nullptr))}, line);
  const bool hex = token.text.size() > 2 && (token.text[1] == 'x' || token.text[1] == 'X');
  const char* begin = token.text.data() + (hex ? 2 : 0);
  const char* end = token.text.data() + token.text.size();
  int64_t number = 0;
  const auto [stop, error] = std::from_chars(begin, end, number, hex ? 16 : 10);
  if (error != std::errc() || stop != end) {
    return in_.Error(ErrorCode::kUnsupported, fmt::format("the number {} is not one of 64 bits", token.text));
  }
  return Make(LiteralExpression{Value::Of(number)}, line);
}

Result<ExpressionPtr> ExpressionParser::ParseDict() {
  const int line = in_.line();
  DictExpression dict;
  while (!in_.AcceptOperator("}")) {
    if (!dict.entries.empty()) BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(","));
    if (in_.AcceptOperator("}")) break;
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr key, Parse());
    BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(":"));
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    dict.entries.emplace_back(std::move(key), std::move(value));
  }
  return Make(std::move(dict), line);
}

Result<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr node) {
  while (true) {
    const int line = in_.line();
    if (in_.AcceptOperator(".")) {
      if (in_.Is(Kind::kInteger)) {
        BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr index, ParseNumber());
        BILLFISH_ASSIGN_OR_RETURN(node, Make(ItemExpression{std::move(node), std::move(index)}, line));
        continue;
      }
      BILLFISH_ASSIGN_OR_RETURN(std::string name, in_.ExpectName());
      BILLFISH_ASSIGN_OR_RETURN(node, Make(AttributeExpression{std::move(node), std::move(name)}, line));
    } else if (in_.AcceptOperator("[")) {
      BILLFISH_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (in_.IsOperator("(")) {
      BILLFISH_ASSIGN_OR_RETURN(CallArguments arguments, ParseArguments());
      BILLFISH_ASSIGN_OR_RETURN(node, Make(CallExpression{std::move(node), std::move(arguments)}, line));
    } else {
      return node;
    }
  }
}

/// The '[' is consumed.
Result<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr node) {
  const int line = in_.line();
  ExpressionPtr parts[3];
  size_t part = 0;
  bool slice = false;
  while (!in_.AcceptOperator("]")) {
    if (in_.AcceptOperator(":")) {
      slice = true;
      if (++part > 2) return in_.Unexpected("\"]\"");
    } else if (!parts[part]) {
      BILLFISH_ASSIGN_OR_RETURN(parts[part], Parse());
    } else {
      return in_.Unexpected("\"]\"");
    }
  }
  if (slice) {
    return Make(SliceExpression{std::move(node), std::move(parts[0]), std::move(parts[1]), std::move(parts[2])}, line);
  }
  if (!parts[0]) return in_.Unexpected("an index");
  return Make(ItemExpression{std::move(node), std::move(parts[0])}, line);
}

Result<CallArguments> ExpressionParser::ParseArguments() {
  CallArguments arguments;
  BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator("("));
  for (bool first = true; !in_.AcceptOperator(")"); first = false) {
    if (!first) BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(","));
    if (in_.AcceptOperator(")")) break;
    if (in_.AcceptOperator("**")) {
      BILLFISH_ASSIGN_OR_RETURN(arguments.double_star, Parse());
    } else if (in_.AcceptOperator("*")) {
      BILLFISH_ASSIGN_OR_RETURN(arguments.star, Parse());
    } else if (in_.Is(Kind::kName) && in_.Peek(1).kind == Kind::kOperator && in_.Peek(1).text == "=") {
      std::string name = in_.Next().text;
      in_.Next();
      BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      arguments.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!arguments.named.empty()) return in_.Unexpected("a named argument");
      BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      arguments.positional.push_back(std::move(value));
    }
  }
  return arguments;
}

Result<ExpressionPtr> ExpressionParser::ParseFilterWithoutInput() {
  const int line = in_.line();
  BILLFISH_ASSIGN_OR_RETURN(std::string name, in_.ExpectName());
  while (in_.AcceptOperator(".")) {
    BILLFISH_ASSIGN_OR_RETURN(const std::string part, in_.ExpectName());
    name += "." + part;
  }
  CallArguments arguments;
  if (in_.IsOperator("(")) {
    BILLFISH_ASSIGN_OR_RETURN(arguments, ParseArguments());
  }
  return Make(FilterExpression{nullptr, std::move(name), std::move(arguments)}, line);
}

Result<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr node) {
  while (true) {
    const int line = in_.line();
    if (in_.AcceptOperator("|")) {
      BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr filter, ParseFilterWithoutInput());
      auto& bare = *std::get_if<FilterExpression>(&filter->node);
      BILLFISH_ASSIGN_OR_RETURN(node, Make(FilterExpression{std::move(node), std::move(bare.name), std::move(bare.arguments)}, line));
    } else if (in_.AcceptName("is")) {
      BILLFISH_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (in_.IsOperator("(")) {
      BILLFISH_ASSIGN_OR_RETURN(CallArguments arguments, ParseArguments());
      BILLFISH_ASSIGN_OR_RETURN(node, Make(CallExpression{std::move(node), std::move(arguments)}, line));
    } else {
      return node;
    }
  }
}

/// "is" is consumed.
Result<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr node) {
  const int line = in_.line();
  const bool negated = in_.AcceptName("not");
  BILLFISH_ASSIGN_OR_RETURN(std::string name, in_.ExpectName());
  CallArguments arguments;
  const Token& next = in_.Peek();
  const bool keyword =
      next.kind == Kind::kName && (next.text == "else" || next.text == "or" || next.text == "and" || next.text == "is" ||
                                   next.text == "if" || next.text == "not" || next.text == "in" || next.text == "recursive");
  if (in_.IsOperator("(")) {
    BILLFISH_ASSIGN_OR_RETURN(arguments, ParseArguments());
  } else if ((next.kind == Kind::kName && !keyword) || next.kind == Kind::kString || next.kind == Kind::kInteger ||
             next.kind == Kind::kFloat || in_.IsOperator("[") || in_.IsOperator("{")) {
    BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    BILLFISH_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    arguments.positional.push_back(std::move(argument));
  }
  return Make(TestExpression{std::move(node), std::move(name), std::move(arguments), negated}, line);
}

}  // namespace billfish::tokenizer::jinja
