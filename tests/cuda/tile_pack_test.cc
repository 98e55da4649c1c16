// Packed tiles hold exactly the numbers of the weight, for every scheme, code, scale and awkward shape. The kernel that packs runs here on
// the CPU, its threads one after the other.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "cuda/host_pack.h"
#include "cuda/random_weight.h"
#include "cuda/tile_unpack.h"
#include "format/row_decoder.h"

namespace billfish::cuda {
namespace {

HostPacked Pack(const PackedWeight& weight, int64_t e = 0, RowOrder order = RowOrder::kPlain) {
  const auto form = FormOf(weight, order);
  EXPECT_TRUE(form.has_value()) << form.status().message();
  if (!form) return {};
  return PackOnHost(weight, form.value(), e * form->panels, (e + 1) * form->panels);
}

// Bit for bit, so that -0 is not 0.
void ExpectSameNumbers(const PackedWeight& weight, RowOrder order = RowOrder::kPlain) {
  std::vector<float> want(static_cast<size_t>(weight.K()));
  for (int64_t e = 0; e < weight.E(); ++e) {
    const HostPacked packed = Pack(weight, e, order);
    ASSERT_GT(packed.form.panels, 0);
    const UnpackedTiles got = UnpackTiles(packed.form, packed.tiles.data(), packed.row_scale.data());
    EXPECT_TRUE(got.exact) << weight.scheme().Name();
    for (int64_t n = 0; n < weight.N(); ++n) {
      format::DecodeRow(weight, e, n, want);
      for (int64_t k = 0; k < weight.K(); ++k) {
        const float have = got.values[static_cast<size_t>(n * weight.K() + k)];
        ASSERT_EQ(std::bit_cast<uint32_t>(have), std::bit_cast<uint32_t>(want[static_cast<size_t>(k)]))
            << weight.scheme().Name() << " N " << weight.N() << " K " << weight.K() << " expert " << e << " row " << n << " column " << k
            << ": " << have << " for " << want[static_cast<size_t>(k)];
      }
    }
  }
}

QuantScheme With(CodeBook codes, int64_t group, DType scale, ZeroPoint zero = ZeroPoint::kNone, bool row_scale = false,
                 int64_t group_rows = 1) {
  return {codes, group, group_rows, scale, zero, row_scale};
}

std::vector<QuantScheme> EveryScheme() {
  std::vector<QuantScheme> all;
  for (const auto name : SchemeNames()) {
    if (name != "f32") all.push_back(SchemeByName(name).value());
  }
  for (const DType scale : {DType::kF8E8M0, DType::kF8E4M3, DType::kBF16, DType::kF16, DType::kF32}) {
    for (const int64_t group : {0, 16, 32, 48, 64, 96, 128, 256, 4096}) {
      for (const bool row_scale : {false, true}) {
        for (const CodeBook codes : {CodeBook::kInt4, CodeBook::kE2M1, CodeBook::kE4M3})
          all.push_back(With(codes, group, scale, ZeroPoint::kNone, row_scale));
        all.push_back(With(CodeBook::kInt4, group, scale, ZeroPoint::kPerGroup, row_scale));
      }
    }
  }
  all.push_back(With(CodeBook::kE4M3, 128, DType::kF8E8M0, ZeroPoint::kNone, false, 128));
  all.push_back(With(CodeBook::kInt4, 32, DType::kF32, ZeroPoint::kPerGroup, false, 0));
  return all;
}

TEST(TilePack, HoldsTheNumbersOfEveryScheme) {
  uint32_t seed = 0;
  for (const QuantScheme& scheme : EveryScheme()) ExpectSameNumbers(RandomWeight(scheme, 2, 70, 300, ++seed));
}

TEST(TilePack, HoldsTheNumbersOfAwkwardShapes) {
  const QuantScheme some[] = {
      schemes::kMxfp4,       schemes::kNvfp4, schemes::Int4(32, false), schemes::Int4(128, true, DType::kF16), schemes::Int4(0, false),
      schemes::kFp8Block128, schemes::kBf16};
  for (const QuantScheme& scheme : some) {
    for (const auto& [N, K] :
         {std::pair<int64_t, int64_t>{1, 1}, {1, 63}, {63, 65}, {65, 127}, {129, 129}, {3, 704}, {2, 2880}, {1, 10944}, {704, 64}}) {
      ExpectSameNumbers(RandomWeight(scheme, 1, N, K, static_cast<uint32_t>(N * 31 + K)));
    }
  }
}

// One row: group g has scales[g], and every code meets it.
PackedWeight EveryCodeTimes(const QuantScheme& scheme, const std::vector<uint8_t>& scales, std::vector<float> row_scale = {}) {
  const auto N = static_cast<int64_t>(scales.size());
  std::vector<uint8_t> codes(static_cast<size_t>(N * scheme.group / 2));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>((2 * i % 16) | ((2 * i + 1) % 16) << 4);
  WeightParts parts;
  parts.codes = Bytes::Own(std::move(codes));
  parts.scales = Bytes::Own(scales);
  parts.row_scale = std::move(row_scale);
  return MakeWeight(scheme, 1, 1, N * scheme.group, std::move(parts));
}

TEST(TilePack, HoldsEveryE4M3ScaleTimesEveryCodeForAnyGlobalScale) {
  std::vector<uint8_t> scales;
  for (int code = 0; code < 256; ++code) {
    if (!IsE4M3Nan(static_cast<uint8_t>(code))) scales.push_back(static_cast<uint8_t>(code));
  }
  ASSERT_EQ(scales.size(), 254u);
  for (const float global : {1.0f, 0x1p-20f, 0x1p12f, 1.0f / 3.0f, 0x1p-149f, 0x1p-130f, -3.0f, 0x1p118f, 0.0f}) {
    ExpectSameNumbers(EveryCodeTimes(schemes::kNvfp4, scales, {global}));
  }
}

TEST(TilePack, HoldsEveryE8M0ScaleTimesEveryCode) {
  std::vector<uint8_t> scales(255);
  std::iota(scales.begin(), scales.end(), uint8_t{0});
  const PackedWeight weight = EveryCodeTimes(schemes::kMxfp4, scales);
  EXPECT_TRUE(FormOf(weight, RowOrder::kPlain).value().layout.wide_scales);
  ExpectSameNumbers(weight);
  for (uint8_t base = 0; base < 255; ++base)
    ExpectSameNumbers(EveryCodeTimes(schemes::kMxfp4, {base, base, static_cast<uint8_t>(base / 2 + 10)}));
}

TEST(TilePack, TakesWideScalesOnlyWhereARowSpreadsBeyondExactness) {
  const auto wide = [](std::vector<uint8_t> scales) {
    return FormOf(EveryCodeTimes(schemes::kMxfp4, scales), RowOrder::kPlain).value().layout.wide_scales;
  };
  EXPECT_FALSE(wide({254, 129}));
  EXPECT_TRUE(wide({254, 128}));
  EXPECT_FALSE(wide({125, 0}));
  EXPECT_TRUE(wide({126, 0}));
}

TEST(TilePack, TakesWideScalesWhereARowScaleWouldBeRounded) {
  const QuantScheme scheme = With(CodeBook::kE2M1, 32, DType::kF8E8M0, ZeroPoint::kNone, true);
  for (const auto& [row_scale, wide] : {std::pair{1.5f, false}, {0x1.000002p-120f, true}, {0x1p-120f, false}, {0x1p100f, false}}) {
    const PackedWeight weight = EveryCodeTimes(scheme, {100, 101}, {row_scale});
    EXPECT_EQ(FormOf(weight, RowOrder::kPlain).value().layout.wide_scales, wide) << row_scale;
    ExpectSameNumbers(weight);
  }
  EXPECT_TRUE(FormOf(EveryCodeTimes(scheme, {200, 201}, {0x1p100f}), RowOrder::kPlain).value().layout.wide_scales);
}

TEST(TilePack, HoldsOneByteScalesOfInt4AndFp8Codes) {
  std::vector<uint8_t> e8m0(255), e4m3;
  std::iota(e8m0.begin(), e8m0.end(), uint8_t{0});
  for (int code = 0; code < 256; ++code) {
    if (!IsE4M3Nan(static_cast<uint8_t>(code))) e4m3.push_back(static_cast<uint8_t>(code));
  }
  ExpectSameNumbers(EveryCodeTimes(With(CodeBook::kInt4, 16, DType::kF8E8M0), e8m0));
  ExpectSameNumbers(EveryCodeTimes(With(CodeBook::kInt4, 16, DType::kF8E4M3), e4m3));
  const auto fp8 = [](DType scale, const std::vector<uint8_t>& scales) {
    WeightParts parts = RandomParts(schemes::kFp8Channel, 1, 1, static_cast<int64_t>(scales.size()) * 16, 1);
    parts.scales = Bytes::Own(scales);
    return MakeWeight(With(CodeBook::kE4M3, 16, scale), 1, 1, static_cast<int64_t>(scales.size()) * 16, std::move(parts));
  };
  ExpectSameNumbers(fp8(DType::kF8E8M0, e8m0));
  ExpectSameNumbers(fp8(DType::kF8E4M3, e4m3));
}

TEST(TilePack, DoesNotTakeWideScalesForGroupsOfZeros) {
  WeightParts parts;
  std::vector<uint8_t> codes(32, 0x29);
  std::fill(codes.begin() + 16, codes.end(), uint8_t{0x08});  // 0 and -0
  parts.codes = Bytes::Own(std::move(codes));
  parts.scales = Bytes::Own(std::vector<uint8_t>{200, 0});
  const PackedWeight weight = MakeWeight(schemes::kMxfp4, 1, 1, 64, std::move(parts));
  EXPECT_FALSE(FormOf(weight, RowOrder::kPlain).value().layout.wide_scales);
  ExpectSameNumbers(weight);
}

TEST(TilePack, HoldsEveryInt4CodeWithEveryZeroPoint) {
  const QuantScheme scheme = schemes::Int4(32, false);
  std::vector<uint8_t> codes, zeros;
  std::vector<uint16_t> scales;
  for (int zero = 0; zero <= 16; ++zero) {
    for (int i = 0; i < 16; ++i) codes.push_back(static_cast<uint8_t>((2 * i % 16) | ((2 * i + 1) % 16) << 4));
    zeros.push_back(static_cast<uint8_t>(zero));
    scales.push_back(BF16FromF32(0.3f + static_cast<float>(zero)));
  }
  WeightParts parts;
  parts.codes = Bytes::Own(std::move(codes));
  parts.scales = Bytes::Own(std::move(scales));
  parts.zeros = Bytes::Own(std::move(zeros));
  ExpectSameNumbers(MakeWeight(scheme, 1, 1, 17 * 32, std::move(parts)));
}

TEST(TilePack, PadsWithZeros) {
  for (const int64_t K : {71, 72}) {
    for (const QuantScheme& scheme : EveryScheme()) {
      WeightParts parts = RandomParts(scheme, 1, 33, K, 5);
      if (scheme.zero == ZeroPoint::kPerGroup) parts.zeros = Bytes::Own(std::vector<uint8_t>(parts.zeros.size(), 11));
      const HostPacked packed = Pack(MakeWeight(scheme, 1, 33, K, std::move(parts)));
      EXPECT_TRUE(UnpackTiles(packed.form, packed.tiles.data(), packed.row_scale.data()).padding_is_zero) << scheme.Name() << " K " << K;
    }
  }
}

TEST(TilePack, PutsGateAndUpOfAFeatureIntoTheRowsOfOneThread) {
  for (const int64_t I : {1, 31, 32, 33, 704}) {
    for (const RowOrder order : {RowOrder::kGateUpConcatenated, RowOrder::kGateUpInterleaved}) {
      const PackedWeight weight = RandomWeight(schemes::kNvfp4, 2, 2 * I, 64);
      const TileForm form = FormOf(weight, order).value();
      EXPECT_EQ(form.panels, (I + 31) / 32);
      ExpectSameNumbers(weight, order);
      int64_t held = 0;
      for (int64_t packed = 0; packed < form.packed_rows(); ++packed) {
        if (packed % 16 >= 8) continue;
        const int64_t gate = SourceRow(form, packed), up = SourceRow(form, packed + 8),
                      feature = packed / 64 * 32 + packed % 64 / 16 * 8 + packed % 8;
        held += gate >= 0 ? 1 : 0;
        if (feature >= I) {
          EXPECT_EQ(gate, -1);
          EXPECT_EQ(up, -1);
        } else {
          EXPECT_EQ(gate, order == RowOrder::kGateUpConcatenated ? feature : 2 * feature);
          EXPECT_EQ(up, order == RowOrder::kGateUpConcatenated ? I + feature : 2 * feature + 1);
        }
      }
      EXPECT_EQ(held, I);
    }
  }
}

TEST(TilePack, PacksPanelRangesAsThePartsOfTheWhole) {
  const PackedWeight weight = RandomWeight(schemes::kMxfp4, 2, 200, 130);
  const HostPacked whole = Pack(weight, 1);
  const HostPacked part = PackOnHost(weight, whole.form, whole.form.panels + 1, whole.form.panels + 3);
  EXPECT_TRUE(std::equal(part.tiles.begin(), part.tiles.end(), whole.tiles.begin() + static_cast<int64_t>(whole.form.panel_bytes())));
  EXPECT_TRUE(std::equal(part.row_scale.begin(), part.row_scale.end(), whole.row_scale.begin() + kPanelRows));
}

TEST(TileForm, RefusesWhatHasNoPackedForm) {
  const auto refusal = [](const PackedWeight& weight, RowOrder order = RowOrder::kPlain) {
    const auto form = FormOf(weight, order);
    EXPECT_FALSE(form.has_value());
    return std::string(form.status().message());
  };
  EXPECT_EQ(refusal(RandomWeight(schemes::kF32, 1, 2, 2)),
            "a GPU kernel for f32 weights was asked for; kernels multiply 16-bit numbers, so convert the weight to bf16 or f16");
  EXPECT_EQ(refusal(RandomWeight(schemes::Int4(24, true), 1, 2, 48)),
            "a GPU kernel for groups of 24 columns was asked for; a scale must be shared by a multiple of 16 columns or by the whole row: "
            "quantise the weight so");
  EXPECT_EQ(refusal(RandomWeight(schemes::kMxfp4, 1, 3, 32), RowOrder::kGateUpConcatenated),
            "a weight of 3 rows was to be packed as gate and up; their numbers of rows must be the same");
  WeightParts parts = RandomParts(schemes::kNvfp4, 1, 2, 16, 1);
  parts.row_scale = {1.0f, 0x1p120f};
  EXPECT_EQ(
      refusal(MakeWeight(schemes::kNvfp4, 1, 2, 16, std::move(parts))),
      "row 1 of the weight has the row scale 1.329228e+36; a GPU kernel multiplies it by 512 and needs it below 2^119: divide the scale "
      "by a power of two and undo it after the layer");
}

TEST(TileForm, SaysWhichActivationsAWeightTakes) {
  const auto said = [](const QuantScheme& scheme, DType activation) {
    return std::string(CheckActivation(FormOf(RandomWeight(scheme, 1, 2, 64), RowOrder::kPlain).value().layout, activation).message());
  };
  for (const QuantScheme& scheme : {schemes::kNvfp4, schemes::Int4(32, false), schemes::kFp8Block128}) {
    EXPECT_EQ(said(scheme, DType::kBF16), "");
    EXPECT_EQ(said(scheme, DType::kF16), "");
  }
  EXPECT_EQ(said(schemes::kMxfp4, DType::kBF16), "");
  EXPECT_EQ(said(schemes::kMxfp4, DType::kF16),
            "f16 activations were given to a weight with E8M0 scales; f16 has not their range: use bf16 activations");
  EXPECT_EQ(said(schemes::kBf16, DType::kF16), "f16 activations were given to bf16 weights; f16 has not their range: use bf16 activations");
  EXPECT_EQ(said(schemes::kF16, DType::kBF16),
            "bf16 activations were given to f16 weights; bf16 has not their precision: use f16 activations");
  EXPECT_EQ(said(schemes::kNvfp4, DType::kF32), "activations of F32 were given to a GPU kernel; it takes BF16 or F16");
}

}  // namespace
}  // namespace billfish::cuda
