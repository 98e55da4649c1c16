// Operators between values, with Python's rules. Errors are kInvalidArgument unless said otherwise.
#pragma once

#include "billfish/status.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/value.h"

namespace billfish::tokenizer::jinja {

Result<Value> ApplyBinary(Runtime& runtime, BinaryOperator op, const Value& left, const Value& right);
Result<Value> ApplyUnary(UnaryOperator op, const Value& operand);
Result<bool> Compare(Runtime& runtime, CompareOperator op, const Value& left, const Value& right);

Result<bool> AreEqual(Runtime& runtime, const Value& left, const Value& right);
/// Numbers, texts and sequences among themselves.
Result<bool> IsLess(Runtime& runtime, const Value& left, const Value& right);
/// item in container
Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

/// What a for loop over the value sees; a generator is empty afterwards.
Result<std::vector<Value>> ItemsOf(Runtime& runtime, const Value& value);
Result<int64_t> LengthOf(const Value& value);
/// value[index]; undefined where there is no such item.
Result<Value> ItemAt(Runtime& runtime, const Value& value, const Value& index);
/// value[begin:end:step]; undefined or none stands for a bound that is left out.
Result<Value> SliceOf(Runtime& runtime, const Value& value, const Value& begin, const Value& end, const Value& step);

}  // namespace billfish::tokenizer::jinja
