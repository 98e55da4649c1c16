// The numbers that a weight stands for.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "billfish/weight.h"

namespace billfish::test {

/// [E,N,K].
inline std::vector<float> DequantizedF32(const PackedWeight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.E() * weight.N() * weight.K()));
  const Status status = weight.Dequantize(TensorView(values.data(), DType::kF32, {weight.E(), weight.N(), weight.K()}));
  EXPECT_TRUE(status.ok()) << status.message();
  return values;
}

}  // namespace billfish::test
