// Kernels see exactly the numbers of the weight: rows of the identity, multiplied by it, give it back. Needs a GPU.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "cuda/random_weight.h"
#include "cuda/tile_problem.h"
#include "format/row_decoder.h"

namespace billfish::cuda {
namespace {

// Each column of W through the tensor cores, by each of the kernels: fp32 sums of one product are that product.
void ExpectSameNumbers(const PackedWeight& weight, DType activation, const char* what) {
  const WeightOnDevice on_device(weight);
  const int64_t N = weight.N(), K = weight.K();
  std::vector<float> identity(static_cast<size_t>(K * K));
  for (int64_t k = 0; k < K; ++k) identity[static_cast<size_t>(k * K + k)] = 1;
  const test::DeviceNumbers x(identity, activation), y(K * N, DType::kF32);
  const auto tile = LinearTile::Create(Gpu(), on_device.View(), activation);
  ASSERT_TRUE(tile.has_value()) << tile.status().message();
  const Status status = tile->Run(x.View(K, K).data(), K, K, {y.View(K, N).mutable_data(), N, DType::kF32}, nullptr);
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<float> got = y.Read();
  std::vector<float> want(static_cast<size_t>(K));
  for (int64_t n = 0; n < N; ++n) {
    format::DecodeRow(weight, 0, n, want);
    for (int64_t k = 0; k < K; ++k) {
      ASSERT_EQ(got[static_cast<size_t>(k * N + n)], want[static_cast<size_t>(k)])
          << what << ", " << DTypeName(activation) << ": row " << n << ", column " << k;
    }
  }
}

// 64 columns: each code four times; scales(n, g) of 16 or 32 columns each.
PackedWeight EveryCodeTimes(const QuantScheme& scheme, int64_t N, const std::function<uint8_t(int64_t, int64_t)>& scales) {
  std::vector<uint8_t> codes(static_cast<size_t>(N * 32)), bytes;
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>((2 * i % 16) | ((2 * i + 1) % 16) << 4);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t g = 0; g < 64 / scheme.group; ++g) bytes.push_back(scales(n, g));
  }
  WeightParts parts;
  parts.codes = Bytes::Own(std::move(codes));
  parts.scales = Bytes::Own(std::move(bytes));
  if (scheme.row_scale) parts.row_scale.assign(static_cast<size_t>(N), 0x1p-3f);
  return MakeWeight(scheme, 1, N, 64, std::move(parts));
}

TEST(TileDecode, EveryE4M3ScaleTimesEveryCodeIsExact) {
  BILLFISH_NEEDS_GPU();
  const auto scale = [](int64_t n, int64_t g) {
    const auto code = static_cast<uint8_t>(n * 4 + g);
    return IsE4M3Nan(code) ? uint8_t{1} : code;
  };
  for (const DType activation : {DType::kBF16, DType::kF16}) {
    ExpectSameNumbers(EveryCodeTimes(schemes::kNvfp4, 64, scale), activation, "nvfp4");
  }
}

TEST(TileDecode, EveryE8M0ScaleTimesEveryCodeIsExact) {
  BILLFISH_NEEDS_GPU();
  // Beyond 252 a product is infinite, and beside it the identity's zeros are not zero.
  const auto any = [](int64_t n, int64_t g) { return static_cast<uint8_t>(std::min<int64_t>(2 * n + g, 251)); };
  ExpectSameNumbers(EveryCodeTimes(schemes::kMxfp4, 127, any), DType::kBF16, "mxfp4 with neighbouring scales");
  const auto spread = [](int64_t n, int64_t g) { return static_cast<uint8_t>(g == 0 ? n * 2 % 252 : 251 - n); };
  const PackedWeight wide = EveryCodeTimes(schemes::kMxfp4, 127, spread);
  ASSERT_TRUE(FormOf(wide, RowOrder::kPlain)->layout.wide_scales);
  ExpectSameNumbers(wide, DType::kBF16, "mxfp4 with wide scales");
}

TEST(TileDecode, EveryFp8CodeIsExact) {
  BILLFISH_NEEDS_GPU();
  std::vector<uint8_t> codes(256 * 16);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = IsE4M3Nan(static_cast<uint8_t>(i)) ? uint8_t{0} : static_cast<uint8_t>(i);
  WeightParts parts;
  parts.codes = Bytes::Own(std::move(codes));
  parts.scales = Bytes::Own(std::vector<float>(16, 0.75f));
  const PackedWeight weight = MakeWeight(schemes::kFp8Channel, 1, 16, 256, std::move(parts));
  for (const DType activation : {DType::kBF16, DType::kF16}) ExpectSameNumbers(weight, activation, "fp8");
}

TEST(TileDecode, EverySchemeIsExact) {
  BILLFISH_NEEDS_GPU();
  uint32_t seed = 0;
  for (const auto name : SchemeNames()) {
    const QuantScheme scheme = SchemeByName(name).value();
    if (scheme.codes == CodeBook::kF32) continue;
    const PackedWeight weight = RandomWeight(scheme, 1, 97, 200, ++seed);
    for (const DType activation : {DType::kBF16, DType::kF16}) {
      if (!CheckActivation(FormOf(weight, RowOrder::kPlain)->layout, activation).ok()) continue;
      ExpectSameNumbers(weight, activation, std::string(name).c_str());
    }
  }
}

}  // namespace
}  // namespace billfish::cuda
