// What lies on the device after an upload is what the same kernel makes on the CPU, where its results are tested. Needs a GPU.
#include "cuda/tile_weight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "cuda/driver.h"
#include "cuda/driver_api.h"
#include "cuda/host_pack.h"
#include "cuda/random_weight.h"

namespace billfish::cuda {
namespace {

class TileWeightTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = GpuDevice::Get(0);
    if (!device) GTEST_SKIP() << device.status().message();
    device_ = device.value();
  }

  template <class T>
  std::vector<T> Read(const void* from, size_t count) const {
    std::vector<T> out(count);
    const DriverApi& api = *Driver().value();
    EXPECT_TRUE(device_->MakeCurrent().ok());
    EXPECT_EQ(api.MemcpyDtoHAsync(out.data(), static_cast<CUdeviceptr>(reinterpret_cast<uintptr_t>(from)), count * sizeof(T), nullptr),
              kCudaSuccess);
    EXPECT_EQ(api.StreamSynchronize(nullptr), kCudaSuccess);
    return out;
  }

  void ExpectUploadEqualsPacking(const PackedWeight& weight, RowOrder order) const {
    auto uploaded = TileWeight::Upload(weight, *device_, order);
    ASSERT_TRUE(uploaded.has_value()) << uploaded.status().message();
    const TileForm& form = uploaded->form();
    const auto rows = static_cast<size_t>(form.packed_rows());
    const auto tiles = Read<std::byte>(uploaded->tiles(), static_cast<size_t>(form.E) * form.expert_bytes());
    ASSERT_EQ(uploaded->row_scale() != nullptr, form.has_row_scale);
    const auto row_scale =
        form.has_row_scale ? Read<float>(uploaded->row_scale(), static_cast<size_t>(form.E) * rows) : std::vector<float>();
    const HostPacked want = PackOnHost(weight, form, 0, form.E * form.panels);
    EXPECT_TRUE(want.tiles == tiles) << weight.scheme().Name();
    if (form.has_row_scale) {
      EXPECT_TRUE(want.row_scale == row_scale) << weight.scheme().Name();
    }
    // Beside the panels: alignment, and units behind the last one that kernels may read.
    EXPECT_LE(static_cast<double>(uploaded->bytes()),
              1.001 * static_cast<double>(static_cast<size_t>(form.E) * (form.expert_bytes() + (form.has_row_scale ? 4 * rows : 0))) + 512 +
                  (kMostStepUnits - 1) * form.layout.unit_bytes() + 4.0 * static_cast<double>(weight.parts().perm.size()));
  }

  const GpuDevice* device_ = nullptr;
};

TEST_F(TileWeightTest, UploadsEverySchemeAsThePackerPacksIt) {
  uint32_t seed = 0;
  for (const auto name : SchemeNames()) {
    if (name == "f32") continue;
    const QuantScheme scheme = SchemeByName(name).value();
    ExpectUploadEqualsPacking(RandomWeight(scheme, 3, 130, 200, ++seed), RowOrder::kPlain);
    ExpectUploadEqualsPacking(RandomWeight(scheme, 2, 704 * 2, 320, ++seed), RowOrder::kGateUpConcatenated);
    ExpectUploadEqualsPacking(RandomWeight(scheme, 2, 33 * 2, 65, ++seed), RowOrder::kGateUpInterleaved);
  }
}

TEST_F(TileWeightTest, UploadsMoreThanTheStagingMemoryHolds) {
  ExpectUploadEqualsPacking(RandomWeight(schemes::kBf16, 2, 4096, 1440), RowOrder::kPlain);
  ExpectUploadEqualsPacking(RandomWeight(schemes::kMxfp4, 2, 5760, 2880), RowOrder::kGateUpInterleaved);
}

TEST_F(TileWeightTest, KeepsTheColumnOrderOfActOrderWeights) {
  WeightParts parts = RandomParts(schemes::Int4(32, true), 2, 64, 96, 1);
  parts.perm.resize(2 * 96);
  std::iota(parts.perm.begin(), parts.perm.begin() + 96, 0);
  std::iota(parts.perm.rbegin(), parts.perm.rbegin() + 96, 0);
  const std::vector<int32_t> perm = parts.perm;
  const PackedWeight weight = MakeWeight(schemes::Int4(32, true), 2, 64, 96, std::move(parts));
  ExpectUploadEqualsPacking(weight, RowOrder::kPlain);
  const auto uploaded = TileWeight::Upload(weight, *device_, RowOrder::kPlain);
  ASSERT_TRUE(uploaded.has_value());
  ASSERT_NE(uploaded->perm(), nullptr);
  EXPECT_EQ(Read<int32_t>(uploaded->perm(), perm.size()), perm);
}

TEST_F(TileWeightTest, PassesOnWhatThePackedFormRefuses) {
  const auto uploaded = TileWeight::Upload(RandomWeight(schemes::kF32, 1, 2, 2), *device_, RowOrder::kPlain);
  ASSERT_FALSE(uploaded.has_value());
  EXPECT_EQ(uploaded.error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace billfish::cuda
