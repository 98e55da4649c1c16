// Tests that run once for every weight scheme.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "billfish/scheme.h"

namespace billfish::test {

/// A name as GoogleTest takes it: '_' for every '-'.
inline std::string TestName(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

/// The parameter is one of SchemeNames().
class SchemeTest : public testing::TestWithParam<std::string_view> {
 protected:
  QuantScheme scheme() const { return *SchemeByName(GetParam()); }
};

inline auto EverySchemeName() { return testing::ValuesIn(SchemeNames().begin(), SchemeNames().end()); }
inline std::string SchemeTestName(const testing::TestParamInfo<std::string_view>& info) { return TestName(std::string(info.param)); }

}  // namespace billfish::test
