// The grouped tile kernel against the fp64 products of the decoded experts, for every way that rows may fall on them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cuda/linear_tile.h"
#include "reference/activation.h"
#include "tile_problem.h"

namespace billfish::cuda {
namespace {

// Rows sorted by expert: where each expert's begin, and which row of x each is.
struct Sorted {
  std::vector<int64_t> offsets;
  std::vector<int32_t> source;  // empty: the sorted row itself

  int64_t rows() const { return offsets.back(); }
  std::vector<TileWork> Work(int tile_rows) const {
    std::vector<TileWork> work;
    for (size_t e = 0; e + 1 < offsets.size(); ++e) {
      for (int64_t r = offsets[e]; r < offsets[e + 1]; r += tile_rows) {
        work.push_back(
            {static_cast<int32_t>(e), static_cast<int32_t>(r), static_cast<int32_t>(std::min<int64_t>(tile_rows, offsets[e + 1] - r))});
      }
    }
    return work;
  }
};

Sorted WithCounts(const std::vector<int64_t>& counts, int64_t x_rows) {
  Sorted sorted{{0}, {}};
  for (const int64_t count : counts) sorted.offsets.push_back(sorted.offsets.back() + count);
  std::mt19937 random(5);
  for (int64_t r = 0; x_rows > 0 && r < sorted.rows(); ++r)
    sorted.source.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(x_rows)));
  return sorted;
}

struct Case {
  Sorted sorted;
  DType x = DType::kBF16, y = DType::kF32;
  const Activation* activation = nullptr;
  int tile_rows = 0;  // 0: what TileRows says
};

// act of the products with a bound on what their magnitudes become: |d act / d gate| <= 1.2 (|up| + |beta|), |d act / d up| <= |gate|.
test::Expected Activated(const test::Expected& products, const Activation& activation, bool interleaved) {
  const int64_t I = activation.gated() ? products.cols / 2 : products.cols;
  test::Expected h{products.rows, I, products.K, std::vector<double>(static_cast<size_t>(products.rows * I)), {}};
  h.magnitude = h.values;
  for (int64_t r = 0; r < products.rows; ++r) {
    for (int64_t i = 0; i < I; ++i) {
      const auto gate = static_cast<size_t>(r * products.cols + (activation.gated() && interleaved ? 2 * i : i));
      const size_t up = !activation.gated() ? gate : interleaved ? gate + 1 : gate + static_cast<size_t>(I);
      const double g = products.values[gate], u = products.values[up];
      const auto at = static_cast<size_t>(r * I + i);
      h.values[at] = reference::Activate(activation, g, u);
      h.magnitude[at] = activation.kind == Activation::Kind::kRelu2 ? 2 * std::fabs(g) * products.magnitude[gate]
                        : activation.gated() ? 1.2 * (std::fabs(u) + std::fabs(activation.beta)) * products.magnitude[gate] +
                                                   std::fabs(g) * products.magnitude[up]
                                             : 1.2 * products.magnitude[gate];
    }
  }
  return h;
}

std::vector<float> ExpectRight(const WeightOnDevice& on_device, const Case& c, TileCores cores) {
  const PackedWeight& weight = on_device.weight;
  const Sorted& sorted = c.sorted;
  const int64_t K = weight.K(), rows = sorted.rows();
  const bool gated = c.activation != nullptr && c.activation->gated();
  const int64_t N = gated ? weight.N() / 2 : weight.N();
  const std::string name = NameOf(weight, rows);
  auto tile = GroupedTile::Create(Gpu(), on_device.View(), c.x, c.activation, cores);
  EXPECT_TRUE(tile) << name << ": " << tile.status().message();
  if (!tile) return {};
  const int64_t x_rows = sorted.source.empty() ? rows : *std::max_element(sorted.source.begin(), sorted.source.end()) + 1;
  const std::vector<float> values = Rounded(test::Gaussian(static_cast<size_t>(x_rows * K), 7, 0.25f), c.x);
  const test::DeviceNumbers x(values, c.x), y(rows * N, c.y);
  const DeviceValues<int32_t> source(sorted.source);
  GroupedTileCall call;
  call.tile_rows = c.tile_rows != 0 ? c.tile_rows : tile->TileRows(rows);
  const std::vector<TileWork> list = sorted.Work(call.tile_rows);
  const DeviceValues<TileWork> work(list);
  const DeviceValues<int32_t> count(std::vector<int32_t>{static_cast<int32_t>(list.size())});
  call.x = x.data();
  call.x_stride = K;
  call.y = {y.data(), N, c.y};
  call.work = work.data();
  call.work_count = count.data();
  call.source = sorted.source.empty() ? nullptr : source.data();
  const Status status = tile->Run(call, nullptr);
  EXPECT_TRUE(status.ok()) << name << ": " << status.message();
  const std::vector<float> found = y.Read();
  test::Expected expected = test::Multiply(weight, values, sorted.offsets, sorted.source, on_device.bias);
  if (c.activation != nullptr) {
    expected = Activated(expected, *c.activation, on_device.tiles.form().order == RowOrder::kGateUpInterleaved);
  }
  EXPECT_TRUE(test::NumericChecker(expected, TileBounds(c.y), name).Check([&](int64_t r, int64_t n) {
    return found[static_cast<size_t>(r * N + n)];
  }));
  return found;
}

class GroupedTileCores : public TileCoresTest {};
INSTANTIATE_TEST_SUITE_P(Kernels, GroupedTileCores, EveryTileCores(), TileCoresName);

TEST_P(GroupedTileCores, MultipliesWhateverTheExpertsGet) {
  BILLFISH_NEEDS_GPU();
  const std::vector<int64_t> patterns[] = {{40, 40, 40, 40}, {0, 1, 0, 3}, {300, 0, 2, 1}, {0, 0, 257, 0}, {1, 1, 1, 1}};
  for (const QuantScheme& scheme : {schemes::Int4(128, false), schemes::kNvfp4, schemes::kMxfp4, schemes::kFp8Block128}) {
    const PackedWeight weight = RandomWeight(scheme, 4, 200, 320);
    const WeightOnDevice on_device(weight, Bias(weight));
    for (const std::vector<int64_t>& counts : patterns) {
      ExpectRight(on_device, {.sorted = WithCounts(counts, 0)}, GetParam());
      ExpectRight(on_device, {.sorted = WithCounts(counts, 90), .y = DType::kBF16}, GetParam());
    }
  }
}

TEST_P(GroupedTileCores, MultipliesTilesOfEverySize) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(32, true), schemes::kNvfp4, schemes::kBf16}) {
    const WeightOnDevice on_device(RandomWeight(scheme, 3, 704, 130));
    for (const int tile_rows : {1, 16, 32, 50, 64, 128}) {
      ExpectRight(on_device, {.sorted = WithCounts({130, 0, 71}, 40), .tile_rows = tile_rows}, GetParam());
    }
  }
}

TEST_P(GroupedTileCores, MultipliesByF16) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(64, true, DType::kF16), schemes::kNvfp4}) {
    const WeightOnDevice on_device(RandomWeight(scheme, 3, 96, 192));
    for (const int64_t rows : {3, 60, 200}) {
      ExpectRight(on_device, {.sorted = WithCounts({rows, 0, rows}, 40), .x = DType::kF16, .y = DType::kF16}, GetParam());
    }
  }
}

TEST_P(GroupedTileCores, FusesEveryActivation) {
  BILLFISH_NEEDS_GPU();
  using Kind = Activation::Kind;
  const Activation activations[] = {
      {Kind::kSwiglu}, {Kind::kSwigluClamped, 2.0f}, {Kind::kSwigluOai, 3.0f, 1.702f, 1.0f}, {Kind::kGegluTanh}, {Kind::kSilu},
      {Kind::kRelu2}};
  for (const QuantScheme& scheme : {schemes::Int4(32, true), schemes::kNvfp4}) {
    for (const Activation& activation : activations) {
      if (scheme.codes == CodeBook::kE2M1 && activation.kind != Kind::kSwiglu) continue;
      for (const RowOrder order : {RowOrder::kGateUpConcatenated, RowOrder::kGateUpInterleaved}) {
        const PackedWeight weight = RandomWeight(scheme, 3, 2 * 100, 160);
        const WeightOnDevice on_device(weight, Bias(weight), activation.gated() ? order : RowOrder::kPlain);
        for (const int64_t rows : {2, 50, 150}) {
          ExpectRight(on_device, {.sorted = WithCounts({rows, 0, rows / 2}, 30), .activation = &activation}, GetParam());
        }
        ExpectRight(on_device, {.sorted = WithCounts({50, 0, 50}, 30), .y = DType::kBF16, .activation = &activation}, GetParam());
      }
    }
  }
}

TEST_P(GroupedTileCores, GivesTheSameBitsEveryTime) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice on_device(RandomWeight(schemes::kNvfp4, 8, 512, 512));
  const Case c{.sorted = WithCounts({100, 3, 0, 64, 65, 1, 0, 200}, 128)};
  const std::vector<float> first = ExpectRight(on_device, c, GetParam());
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> again = ExpectRight(on_device, c, GetParam());
    EXPECT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(float)), 0);
  }
}

TEST(GroupedTile, ChoosesTilesNearTheMeanOfAnExpert) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice on_device(RandomWeight(schemes::kNvfp4, 8, 64, 64));
  auto tile = GroupedTile::Create(Gpu(), on_device.View(), DType::kBF16, nullptr);
  ASSERT_TRUE(tile) << tile.status().message();
  const bool narrows_by_itself = Gpu().arch() == Arch{9, 0};
  EXPECT_EQ(tile->TileRows(1), narrows_by_itself ? 128 : 32);
  EXPECT_EQ(tile->TileRows(8 * 40), narrows_by_itself ? 128 : 64);
  EXPECT_EQ(tile->TileRows(8 * 5000), 128);
}

TEST(GroupedTile, SaysWhyItRefuses) {
  BILLFISH_NEEDS_GPU();
  const Activation swiglu{Activation::Kind::kSwiglu};
  const WeightOnDevice plain(RandomWeight(schemes::kMxfp4, 2, 64, 64)),
      paired(RandomWeight(schemes::kMxfp4, 2, 64, 64), {}, RowOrder::kGateUpConcatenated);
  const auto refusal = [](const WeightOnDevice& weight, DType x, const Activation* activation) {
    return std::string(GroupedTile::Create(Gpu(), weight.View(), x, activation).status().message());
  };
  EXPECT_NE(refusal(plain, DType::kBF16, &swiglu).find("a gated activation was asked for a weight in plain row order"), std::string::npos);
  EXPECT_NE(refusal(paired, DType::kBF16, nullptr).find("no gated activation was asked for a weight in a gate-up row order"),
            std::string::npos);
  EXPECT_FALSE(refusal(plain, DType::kF16, nullptr).empty());
  auto tile = GroupedTile::Create(Gpu(), plain.View(), DType::kBF16, nullptr);
  ASSERT_TRUE(tile) << tile.status().message();
  GroupedTileCall call;
  call.y.dtype = DType::kF32;
  EXPECT_NE(tile->Run(call, nullptr).message().find("tiles of 0 rows; it takes 1 to 128"), std::string_view::npos);
  call.tile_rows = 129;
  EXPECT_NE(tile->Run(call, nullptr).message().find("tiles of 129 rows"), std::string_view::npos);
}

}  // namespace
}  // namespace billfish::cuda
