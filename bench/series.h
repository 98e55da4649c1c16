// The distinct values of a field in the order of the rows: what a chart's colours and shapes stand for.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "row.h"

namespace billfish::bench {

template <class KeyOf>
std::vector<std::string> DistinctValues(const std::vector<Row>& rows, KeyOf key_of) {
  std::vector<std::string> values;
  for (const Row& row : rows) {
    if (std::string key = key_of(row); std::find(values.begin(), values.end(), key) == values.end()) values.push_back(std::move(key));
  }
  return values;
}

inline size_t IndexOf(const std::vector<std::string>& values, const std::string& value) {
  return static_cast<size_t>(std::find(values.begin(), values.end(), value) - values.begin());
}

inline Status NoRows() { return {ErrorCode::kInvalidArgument, "a report without rows cannot be drawn; time something first"}; }

inline std::string MatrixOf(const Row& row) { return row.op + " " + row.name; }

}  // namespace billfish::bench
