// The syntax tree of a template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace billfish::tokenizer::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star;         ///< *args
  ExpressionPtr double_star;  ///< **kwargs
};

struct LiteralExpression {
  Value value;  ///< none, bool, int, float or text
};
struct NameExpression {
  std::string name;
};
struct SequenceExpression {
  bool tuple;
  std::vector<ExpressionPtr> items;
};
struct DictExpression {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct AttributeExpression {
  ExpressionPtr object;
  std::string name;
};
struct ItemExpression {
  ExpressionPtr object;
  ExpressionPtr index;
};
struct SliceExpression {
  ExpressionPtr object;
  ExpressionPtr begin, end, step;  ///< null where left out
};
struct CallExpression {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct FilterExpression {
  ExpressionPtr input;  ///< null in {% filter %} and {% set x | filter %}: the block's text
  std::string name;
  CallArguments arguments;
};
struct TestExpression {
  ExpressionPtr input;
  std::string name;
  CallArguments arguments;
  bool negated;
};
enum class UnaryOperator : uint8_t { kNot, kMinus, kPlus };
struct UnaryExpression {
  UnaryOperator op;
  ExpressionPtr operand;
};
enum class BinaryOperator : uint8_t { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
struct BinaryExpression {
  BinaryOperator op;
  ExpressionPtr left, right;
};
struct LogicExpression {
  bool is_and;
  ExpressionPtr left, right;
};
enum class CompareOperator : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };
struct CompareExpression {
  ExpressionPtr first;
  std::vector<std::pair<CompareOperator, ExpressionPtr>> rest;
};
struct ConcatExpression {
  std::vector<ExpressionPtr> parts;
};
struct ConditionalExpression {
  ExpressionPtr condition, then, otherwise;  ///< otherwise may be null
};

struct Expression {
  using Node = std::variant<LiteralExpression, NameExpression, SequenceExpression, DictExpression, AttributeExpression, ItemExpression,
                            SliceExpression, CallExpression, FilterExpression, TestExpression, UnaryExpression, BinaryExpression,
                            LogicExpression, CompareExpression, ConcatExpression, ConditionalExpression>;
  Node node;
  int line;
  int height;  ///< of the tree below, which bounds recursion
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

/// What a value is assigned to: a name, ns.attribute, or several of them.
struct Target {
  std::string name;
  std::string attribute;        ///< empty for a plain name
  std::vector<Target> members;  ///< of a tuple; name is empty then
};

struct TextStatement {
  std::string text;
};
struct OutputStatement {
  ExpressionPtr value;
};
struct IfStatement {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
struct ForStatement {
  Target target;
  ExpressionPtr items;
  ExpressionPtr condition;  ///< null if there is none
  bool recursive;
  Block body;
  Block otherwise;
};
struct SetStatement {
  Target target;
  ExpressionPtr value;  ///< null for the block form
  Block block;
  std::vector<ExpressionPtr> filters;  ///< of the block form, each a FilterExpression without input
};
struct MacroStatement {
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  ///< default or null
  Block body;
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};
struct CallStatement {
  ExpressionPtr call;   ///< a CallExpression
  MacroStatement body;  ///< becomes "caller"
};
struct FilterStatement {
  std::vector<ExpressionPtr> filters;
  Block body;
};
struct WithStatement {
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Block body;
};
struct BreakStatement {};
struct ContinueStatement {};

struct Statement {
  using Node = std::variant<TextStatement, OutputStatement, IfStatement, ForStatement, SetStatement, MacroStatement, CallStatement,
                            FilterStatement, WithStatement, BreakStatement, ContinueStatement>;
  Node node;
  int line;
};

}  // namespace billfish::tokenizer::jinja
