// The statement half of the parser.
#include "tokenizer/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "core/status_macros.h"
#include "tokenizer/jinja/expression_parser.h"

namespace billfish::tokenizer::jinja {
namespace {

using Kind = Token::Kind;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : in_(std::move(tokens)), expressions_(in_) {}

  Result<Block> Run() {
    BILLFISH_ASSIGN_OR_RETURN(Block block, ParseBlock({}));
    if (!in_.Is(Kind::kEnd)) return in_.Unexpected("the end of the template");
    return block;
  }

 private:
  bool AtTag(std::initializer_list<std::string_view> names) const {
    if (!in_.Is(Kind::kBlockBegin) || in_.Peek(1).kind != Kind::kName) return false;
    return std::find(names.begin(), names.end(), in_.Peek(1).text) != names.end();
  }

  /// Statements up to a tag of one of these names, which stays; or up to the end of the template.
  Result<Block> ParseBlock(std::initializer_list<std::string_view> ends) {
    const TokenStream::Level level(in_);
    BILLFISH_RETURN_IF_ERROR(level.Check());
    Block block;
    while (!in_.Is(Kind::kEnd) && !AtTag(ends)) {
      const int line = in_.line();
      if (in_.Is(Kind::kText)) {
        Push(block, TextStatement{in_.Next().text}, line);
      } else if (in_.Is(Kind::kVariableBegin)) {
        in_.Next();
        BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseTuple());
        BILLFISH_RETURN_IF_ERROR(in_.Expect(Kind::kVariableEnd));
        Push(block, OutputStatement{std::move(value)}, line);
      } else {
        BILLFISH_RETURN_IF_ERROR(in_.Expect(Kind::kBlockBegin));
        BILLFISH_RETURN_IF_ERROR(ParseStatement(block, line));
      }
    }
    return block;
  }

  static void Push(Block& block, Statement::Node node, int line) {
    block.push_back(std::make_unique<Statement>(Statement{std::move(node), line}));
  }

  /// Consumes "{% name".
  Status OpenTag(std::string_view name) {
    if (!AtTag({name})) return in_.Unexpected(fmt::format("{{% {} %}}", name));
    in_.Next();
    in_.Next();
    return {};
  }
  Status CloseTag() { return in_.Expect(Kind::kBlockEnd); }
  /// "{% name %}"
  Status EndTag(std::string_view name) {
    BILLFISH_RETURN_IF_ERROR(OpenTag(name));
    return CloseTag();
  }

  /// "{%" is consumed.
  Status ParseStatement(Block& block, int line) {
    BILLFISH_ASSIGN_OR_RETURN(const std::string name, in_.ExpectName());
    if (name == "if") return ParseIf(block, line);
    if (name == "for") return ParseFor(block, line);
    if (name == "set") return ParseSet(block, line);
    if (name == "macro") return ParseMacro(block, line);
    if (name == "call") return ParseCall(block, line);
    if (name == "filter") return ParseFilter(block, line);
    if (name == "with") return ParseWith(block, line);
    if (name == "generation") {
      // Marks what the assistant wrote, for training; its text is plain.
      BILLFISH_RETURN_IF_ERROR(CloseTag());
      BILLFISH_ASSIGN_OR_RETURN(Block body, ParseBlock({"endgeneration"}));
      BILLFISH_RETURN_IF_ERROR(EndTag("endgeneration"));
      Push(block, WithStatement{{}, std::move(body)}, line);
      return {};
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return in_.Error(ErrorCode::kCorruptFile, fmt::format("{{% {} %}} outside of a for loop", name));
      if (name == "break") {
        Push(block, BreakStatement{}, line);
      } else {
        Push(block, ContinueStatement{}, line);
      }
      return CloseTag();
    }
    if (name.starts_with("end") || name == "elif" || name == "else") {
      return in_.Error(ErrorCode::kCorruptFile, fmt::format("{{% {} %}} closes nothing", name));
    }
    return in_.Error(ErrorCode::kUnsupported, fmt::format("the statement {{% {} %}} is not implemented", name));
  }

  Status ParseIf(Block& block, int line) {
    IfStatement statement;
    while (true) {
      BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr condition, expressions_.ParseTuple());
      BILLFISH_RETURN_IF_ERROR(CloseTag());
      BILLFISH_ASSIGN_OR_RETURN(Block body, ParseBlock({"elif", "else", "endif"}));
      statement.branches.emplace_back(std::move(condition), std::move(body));
      if (!AtTag({"elif"})) break;
      BILLFISH_RETURN_IF_ERROR(OpenTag("elif"));
    }
    if (AtTag({"else"})) {
      BILLFISH_RETURN_IF_ERROR(EndTag("else"));
      BILLFISH_ASSIGN_OR_RETURN(statement.otherwise, ParseBlock({"endif"}));
    }
    BILLFISH_RETURN_IF_ERROR(EndTag("endif"));
    Push(block, std::move(statement), line);
    return {};
  }

  Result<Target> ParseOneTarget(bool with_attribute) {
    const TokenStream::Level level(in_);
    BILLFISH_RETURN_IF_ERROR(level.Check());
    Target target;
    if (in_.AcceptOperator("(")) {
      BILLFISH_ASSIGN_OR_RETURN(target, ParseTarget(with_attribute));
      BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(")"));
      return target;
    }
    BILLFISH_ASSIGN_OR_RETURN(target.name, in_.ExpectName());
    for (const std::string_view reserved : {"true", "false", "none", "True", "False", "None"}) {
      if (target.name == reserved) return in_.Error(ErrorCode::kCorruptFile, fmt::format("cannot assign to {}", target.name));
    }
    if (with_attribute && in_.AcceptOperator(".")) {
      BILLFISH_ASSIGN_OR_RETURN(target.attribute, in_.ExpectName());
    }
    return target;
  }

  Result<Target> ParseTarget(bool with_attribute) {
    BILLFISH_ASSIGN_OR_RETURN(Target first, ParseOneTarget(with_attribute));
    if (!in_.IsOperator(",")) return first;
    Target tuple;
    tuple.members.push_back(std::move(first));
    while (in_.AcceptOperator(",")) {
      if (!in_.Is(Kind::kName) && !in_.IsOperator("(")) break;
      if (in_.IsName("in")) break;
      BILLFISH_ASSIGN_OR_RETURN(Target member, ParseOneTarget(with_attribute));
      tuple.members.push_back(std::move(member));
    }
    return tuple;
  }

  Status ParseFor(Block& block, int line) {
    ForStatement statement{};
    BILLFISH_ASSIGN_OR_RETURN(statement.target, ParseTarget(false));
    if (!in_.AcceptName("in")) return in_.Unexpected("\"in\"");
    BILLFISH_ASSIGN_OR_RETURN(statement.items, expressions_.ParseTuple(false));
    if (in_.AcceptName("if")) {
      BILLFISH_ASSIGN_OR_RETURN(statement.condition, expressions_.Parse());
    }
    statement.recursive = in_.AcceptName("recursive");
    BILLFISH_RETURN_IF_ERROR(CloseTag());
    ++loops_;
    auto body = ParseBlock({"else", "endfor"});
    --loops_;
    if (!body.ok()) return body.error();
    statement.body = std::move(*body);
    if (AtTag({"else"})) {
      BILLFISH_RETURN_IF_ERROR(EndTag("else"));
      BILLFISH_ASSIGN_OR_RETURN(statement.otherwise, ParseBlock({"endfor"}));
    }
    BILLFISH_RETURN_IF_ERROR(EndTag("endfor"));
    Push(block, std::move(statement), line);
    return {};
  }

  Result<std::vector<ExpressionPtr>> ParseFilterChain() {
    std::vector<ExpressionPtr> filters;
    do {
      BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr filter, expressions_.ParseFilterWithoutInput());
      filters.push_back(std::move(filter));
    } while (in_.AcceptOperator("|"));
    return filters;
  }

  Status ParseSet(Block& block, int line) {
    SetStatement statement;
    BILLFISH_ASSIGN_OR_RETURN(statement.target, ParseTarget(true));
    if (in_.AcceptOperator("=")) {
      BILLFISH_ASSIGN_OR_RETURN(statement.value, expressions_.ParseTuple());
      BILLFISH_RETURN_IF_ERROR(CloseTag());
    } else {
      if (in_.AcceptOperator("|")) {
        BILLFISH_ASSIGN_OR_RETURN(statement.filters, ParseFilterChain());
      }
      BILLFISH_RETURN_IF_ERROR(CloseTag());
      BILLFISH_ASSIGN_OR_RETURN(statement.block, ParseBlock({"endset"}));
      BILLFISH_RETURN_IF_ERROR(EndTag("endset"));
    }
    Push(block, std::move(statement), line);
    return {};
  }

  /// "(a, b=1)" and the body up to the end tag, both consumed. A macro's body is no part of the loops around it.
  Status ParseMacroBody(MacroStatement& macro, std::string_view end) {
    BILLFISH_RETURN_IF_ERROR(CloseTag());
    std::set<std::string> outer_names;
    outer_names.swap(expressions_.names());
    const int outer_loops = loops_;
    loops_ = 0;
    auto body = ParseBlock({end});
    loops_ = outer_loops;
    if (!body.ok()) return body.error();
    macro.body = std::move(*body);
    auto& names = expressions_.names();
    macro.uses_varargs = names.contains("varargs");
    macro.uses_kwargs = names.contains("kwargs");
    macro.uses_caller = names.contains("caller");
    names.merge(outer_names);
    return EndTag(end);
  }

  Status ParseParameters(MacroStatement& macro) {
    BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator("("));
    for (bool first = true; !in_.AcceptOperator(")"); first = false) {
      if (!first) BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(","));
      BILLFISH_ASSIGN_OR_RETURN(std::string name, in_.ExpectName());
      ExpressionPtr fallback;
      if (in_.AcceptOperator("=")) {
        BILLFISH_ASSIGN_OR_RETURN(fallback, expressions_.Parse());
      } else if (!macro.parameters.empty() && macro.parameters.back().second) {
        return in_.Error(ErrorCode::kCorruptFile, fmt::format("parameter {} without a default follows one with a default", name));
      }
      macro.parameters.emplace_back(std::move(name), std::move(fallback));
    }
    return {};
  }

  Status ParseMacro(Block& block, int line) {
    MacroStatement macro;
    BILLFISH_ASSIGN_OR_RETURN(macro.name, in_.ExpectName());
    BILLFISH_RETURN_IF_ERROR(ParseParameters(macro));
    BILLFISH_RETURN_IF_ERROR(ParseMacroBody(macro, "endmacro"));
    Push(block, std::move(macro), line);
    return {};
  }

  Status ParseCall(Block& block, int line) {
    CallStatement statement;
    statement.body.name = "caller";
    if (in_.IsOperator("(")) BILLFISH_RETURN_IF_ERROR(ParseParameters(statement.body));
    BILLFISH_ASSIGN_OR_RETURN(statement.call, expressions_.Parse());
    if (!std::holds_alternative<CallExpression>(statement.call->node)) return in_.Unexpected("a call");
    BILLFISH_RETURN_IF_ERROR(ParseMacroBody(statement.body, "endcall"));
    Push(block, std::move(statement), line);
    return {};
  }

  Status ParseFilter(Block& block, int line) {
    FilterStatement statement;
    BILLFISH_ASSIGN_OR_RETURN(statement.filters, ParseFilterChain());
    BILLFISH_RETURN_IF_ERROR(CloseTag());
    BILLFISH_ASSIGN_OR_RETURN(statement.body, ParseBlock({"endfilter"}));
    BILLFISH_RETURN_IF_ERROR(EndTag("endfilter"));
    Push(block, std::move(statement), line);
    return {};
  }

  Status ParseWith(Block& block, int line) {
    WithStatement statement;
    while (!in_.Is(Kind::kBlockEnd)) {
      if (!statement.assignments.empty()) BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator(","));
      BILLFISH_ASSIGN_OR_RETURN(Target target, ParseOneTarget(false));
      BILLFISH_RETURN_IF_ERROR(in_.ExpectOperator("="));
      BILLFISH_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.Parse());
      statement.assignments.emplace_back(std::move(target), std::move(value));
    }
    BILLFISH_RETURN_IF_ERROR(CloseTag());
    BILLFISH_ASSIGN_OR_RETURN(statement.body, ParseBlock({"endwith"}));
    BILLFISH_RETURN_IF_ERROR(EndTag("endwith"));
    Push(block, std::move(statement), line);
    return {};
  }

  TokenStream in_;
  ExpressionParser expressions_;
  int loops_ = 0;  ///< for loops around, up to the nearest macro
};

}  // namespace

Result<Block> ParseTemplate(std::string_view source) {
  BILLFISH_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace billfish::tokenizer::jinja
