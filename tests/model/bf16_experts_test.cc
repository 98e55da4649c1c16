// The gpt-oss fixture against the logits that came with it, which transformers made with experts in bf16.
//
// Model keeps fp32 between roundings that transformers makes, so the two differ (docs/NUMERICS.md). Here the model's own parts run with an
// expert block that rounds where transformers does, and the logits have to meet the contract of 2e-3.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>

#include "billfish/checkpoint.h"
#include "billfish/model.h"
#include "core/float_formats.h"
#include "model/forward.h"
#include "model/kv_cache.h"
#include "model/loader.h"
#include "model/rope.h"
#include "model/vector_ops.h"
#include "support/golden_file.h"

namespace billfish::model {
namespace {

namespace fs = std::filesystem;
using Floats = std::vector<float>;

fs::path Folder() { return test::TestData() / "fixtures/gpt-oss-tiny-mxfp4"; }

size_t Size(int64_t n) { return static_cast<size_t>(n); }

double WorstRow(const Floats& found, const Floats& golden, int64_t vocab) {
  double worst = 0;
  for (size_t row = 0; row < golden.size(); row += Size(vocab)) {
    double largest = 0, difference = 0;
    for (size_t i = row; i < row + Size(vocab); ++i) {
      largest = std::max(largest, std::fabs(double{golden[i]}));
      difference = std::max(difference, std::fabs(double{golden[i]} - double{found[i]}));
    }
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

// The roundings of the run that made the logits. A value within fp32 noise of the middle of two bf16 values goes either way with the
// order of a sum; tests/golden/make_gpt_oss_ties.py lists which way each of those went.
class Bf16Roundings {
 public:
  enum Place { kInput, kGateUp, kDown };
  static constexpr double kEdge = 2e-5;  ///< distance from the middle over the largest value of the row

  /// ties [n,6]: layer, place, expert, token, column, bits of the bf16; empty: all round to nearest.
  explicit Bf16Roundings(const std::vector<int32_t>& ties) {
    for (size_t i = 0; i < ties.size(); i += 6) {
      ties_[{ties[i], ties[i + 1], ties[i + 2], ties[i + 3], ties[i + 4]}] = static_cast<uint16_t>(ties[i + 5]);
    }
  }

  double operator()(double value, double largest, int64_t layer, Place place, int64_t expert, int64_t token, int64_t column) {
    ++roundings;
    const double nearest = Nearest(value);
    const auto tie = ties_.find({layer, place, expert, token, column});
    if (tie == ties_.end()) return nearest;
    const double listed = double{F32FromBF16(tie->second)};
    if (listed == nearest || std::fabs(value - (listed + nearest) / 2) > kEdge * largest) return nearest;
    ++overruled;
    return listed;
  }

  static double Nearest(double value) { return double{F32FromBF16(BF16FromF32(static_cast<float>(value)))}; }

  int64_t roundings = 0, overruled = 0;

 private:
  std::map<std::array<int64_t, 5>, uint16_t> ties_;
};

// y [tokens, hidden] of the experts of one layer.
using ExpertBlock = std::function<Floats(int64_t layer, const Floats& x, const std::vector<int32_t>& ids, const Floats& weights)>;

class GptOssExpertsInBf16 : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(Folder())) GTEST_SKIP() << "no test data at " << Folder();
    auto loaded = LoadModel(Folder(), {});
    ASSERT_TRUE(loaded) << loaded.error().message();
    model_ = std::move(loaded).value();
    const test::GoldenFile golden(Folder() / "golden.safetensors");
    tokens_ = golden["input_ids"].As<int32_t>();
    golden_ = golden["logits"].Floats();
    const auto checkpoint = Checkpoint::Open(Folder());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    for (size_t layer = 0; layer < model_.layers.size(); ++layer) {
      const std::string name = "model.layers." + std::to_string(layer) + ".mlp.experts.";
      experts_.push_back({Dequantized(*checkpoint, name + "gate_up_proj"), *checkpoint->ReadF32(name + "gate_up_proj_bias"),
                          Dequantized(*checkpoint, name + "down_proj"), *checkpoint->ReadF32(name + "down_proj_bias")});
    }
  }

  static Floats Dequantized(const Checkpoint& checkpoint, const std::string& module) {
    const auto weight = checkpoint.LoadWeight(module);
    EXPECT_TRUE(weight) << weight.error().message();
    Floats values(Size(weight->E() * weight->N() * weight->K()));
    EXPECT_TRUE(weight->Dequantize({values.data(), DType::kF32, {weight->E(), weight->N(), weight->K()}}).ok());
    return values;
  }

  // All logits: the layers of ForwardChunk out of the same parts, with `block` for the experts.
  Floats Run(const ExpertBlock& block);
  // The block of transformers: every matrix, bias and step of the activation answers in bf16, the weighted sum is fp32.
  Floats RoundingBlock(Bf16Roundings& roundings, int64_t layer, const Floats& x, const std::vector<int32_t>& ids, const Floats& weights);

  struct Experts {
    Floats gate_up, gate_up_bias, down, down_bias;
  };
  LoadedModel model_;
  std::vector<Experts> experts_;
  std::vector<int32_t> tokens_;
  Floats golden_;
};

Floats GptOssExpertsInBf16::Run(const ExpertBlock& block) {
  const ModelConfig& c = model_.config;
  const auto T = static_cast<int64_t>(tokens_.size());
  const int64_t H = c.hidden, D = c.head_dim, half = c.rope.dim / 2, width = (c.heads + 2 * c.kv_heads) * D;
  Workspace workspace;
  ExecContext ctx{workspace, 2};
  EXPECT_TRUE(workspace.Reserve(size_t{1} << 24).ok());
  KvCache::Impl cache;
  cache.layers = static_cast<int64_t>(model_.layers.size());
  cache.kv_heads = c.kv_heads, cache.head_dim = D, cache.v_dim = c.v_head_dim, cache.lengths = {0}, cache.max_tokens = T;
  EXPECT_TRUE(cache.Allocate().ok());
  const Floats frequencies = RopeFrequencies(c.rope);
  const auto factor = static_cast<float>(c.rope.attention_factor);

  Floats x(Size(T * H)), input(Size(T * H)), delta(Size(T * H));
  Floats qkv(Size(T * width)), heads(Size(T * c.heads * c.v_head_dim)), accumulator(Size(AttentionTile::kRows * cache.v_stride));
  Floats scores(Size(T * c.experts)), weights(Size(T * c.top_k)), logits(Size(T * c.vocab));
  std::vector<int32_t> ids(Size(T * c.top_k));
  const auto norm = [&](const Floats& weight) {
    for (int64_t t = 0; t < T; ++t) Ops().rms_norm(&x[Size(t * H)], weight.data(), H, c.norm_eps, &input[Size(t * H)], nullptr);
  };
  const auto apply = [&](const FusedLinear& linear, Floats& from, int64_t K, Floats& to) {
    const Status status = linear.Forward({from.data(), DType::kF32, {T, K}}, {to.data(), DType::kF32, {T, linear.N()}}, ctx);
    EXPECT_TRUE(status.ok()) << status.message();
  };
  for (int64_t t = 0; t < T; ++t) model_.embedding.Row(tokens_[Size(t)], &x[Size(t * H)]);
  for (int64_t index = 0; index < cache.layers; ++index) {
    const Layer& layer = model_.layers[Size(index)];
    norm(layer.attention_norm);
    apply(layer.qkv, input, H, qkv);
    for (int64_t t = 0; t < T; ++t) {
      Floats cos, sin;
      for (const float frequency : frequencies) {
        cos.push_back(std::cos(static_cast<float>(t) * frequency) * factor);
        sin.push_back(std::sin(static_cast<float>(t) * frequency) * factor);
      }
      EXPECT_EQ(static_cast<int64_t>(cos.size()), half);
      for (int64_t head = 0; head < c.heads + c.kv_heads; ++head) {
        float* values = &qkv[Size(t * width + head * D)];
        Rotate(values, cos.data(), sin.data(), c.rope.dim);
        for (int64_t d = 0; d < D && head < c.heads; ++d) values[d] *= 1.0f / std::sqrt(static_cast<float>(D));
      }
      for (int64_t head = 0; head < c.kv_heads; ++head) {
        cache.Put(0, index, head, t, &qkv[Size(t * width + (c.heads + head) * D)],
                  &qkv[Size(t * width + (c.heads + c.kv_heads + head) * D)]);
      }
    }
    for (int64_t i = 0; i < T * c.heads; ++i) {
      const int64_t t = i / c.heads, head = i % c.heads, kv_head = head / (c.heads / c.kv_heads);
      AttentionTile tile;
      tile.rows = 1;
      tile.keys = cache.Keys(0, index, kv_head), tile.values = cache.Values(0, index, kv_head);
      tile.qk_dim = D, tile.v_dim = c.v_head_dim, tile.v_stride = cache.v_stride, tile.accumulator = accumulator.data();
      tile.q[0] = &qkv[Size(t * width + head * D)];
      tile.last[0] = t, tile.first[0] = layer.config.window > 0 ? std::max<int64_t>(0, t - layer.config.window + 1) : 0;
      tile.has_sink = true, tile.sink[0] = layer.sinks[Size(head)];
      tile.out_f32[0] = &heads[Size(i * c.v_head_dim)];
      Ops().attention(tile);
    }
    apply(layer.o, heads, c.heads * c.v_head_dim, delta);
    Ops().add(x.data(), delta.data(), T * H);
    norm(layer.mlp_norm);
    apply(*layer.router, input, H, scores);
    const Status status = RouteTopK({scores.data(), DType::kF32, {T, c.experts}}, *c.router, tokens_,
                                    {{ids.data(), DType::kI32, {T, c.top_k}}, {weights.data(), DType::kF32, {T, c.top_k}}}, ctx);
    EXPECT_TRUE(status.ok()) << status.message();
    delta = block(index, input, ids, weights);
    Ops().add(x.data(), delta.data(), T * H);
  }
  norm(model_.final_norm);
  apply(model_.lm_head, input, H, logits);
  return logits;
}

Floats GptOssExpertsInBf16::RoundingBlock(Bf16Roundings& roundings, int64_t layer, const Floats& x, const std::vector<int32_t>& ids,
                                          const Floats& weights) {
  const ModelConfig& c = model_.config;
  const Experts& experts = experts_[Size(layer)];
  const int64_t H = c.hidden, I = c.moe_intermediate;
  const double limit = double{c.activation->limit};
  constexpr auto kRound = Bf16Roundings::Nearest;
  Floats y(x.size(), 0.0f);
  std::vector<double> in(Size(H)), both(Size(2 * I)), h(Size(I));
  // Row n of expert e's [N,K] weight times v, rounded, plus bias, rounded.
  const auto answer = [&](const Floats& weight, const Floats& bias, int64_t N, const std::vector<double>& v, int64_t e, int64_t n,
                          Bf16Roundings::Place place, int64_t t) {
    double sum = 0;
    for (size_t k = 0; k < v.size(); ++k) sum += double{weight[Size(e * N + n) * v.size() + k]} * v[k];
    return kRound(roundings(sum, std::fabs(sum), layer, place, e, t, n) + double{bias[Size(e * N + n)]});
  };
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    const int64_t t = static_cast<int64_t>(slot) / c.top_k, e = ids[slot];
    if (t * c.top_k == static_cast<int64_t>(slot)) {
      double largest = 0;
      for (int64_t k = 0; k < H; ++k) largest = std::max(largest, std::fabs(double{x[Size(t * H + k)]}));
      for (int64_t k = 0; k < H; ++k) in[Size(k)] = roundings(double{x[Size(t * H + k)]}, largest, layer, Bf16Roundings::kInput, -1, t, k);
    }
    for (int64_t n = 0; n < 2 * I; ++n)
      both[Size(n)] = answer(experts.gate_up, experts.gate_up_bias, 2 * I, in, e, n, Bf16Roundings::kGateUp, t);
    for (int64_t i = 0; i < I; ++i) {
      const double gate = std::min(both[Size(2 * i)], limit), up = std::clamp(both[Size(2 * i + 1)], -limit, limit);
      const double sigmoid = kRound(1 / (1 + std::exp(-kRound(gate * double{c.activation->alpha}))));
      h[Size(i)] = kRound(kRound(up + 1) * kRound(gate * sigmoid));
    }
    for (int64_t n = 0; n < H; ++n) {
      const double d = answer(experts.down, experts.down_bias, H, h, e, n, Bf16Roundings::kDown, t);
      y[Size(t * H + n)] += static_cast<float>(d) * weights[slot];
    }
  }
  return y;
}

TEST_F(GptOssExpertsInBf16, ThePartsWithTheModelsOwnExpertsAreTheModel) {
  const auto model = Model::Load(Folder());
  ASSERT_TRUE(model) << model.error().message();
  Workspace workspace;
  ExecContext ctx{workspace, 2};
  const auto T = static_cast<int64_t>(tokens_.size());
  auto cache = model->NewCache(T);
  Floats expected(golden_.size());
  ASSERT_TRUE(model->Forward(tokens_, *cache, {expected.data(), DType::kF32, {T, model_.config.vocab}}, ctx).ok());
  ASSERT_TRUE(workspace.Reserve(size_t{1} << 24).ok());
  const Floats logits = Run([&](int64_t layer, const Floats& x, std::vector<int32_t> ids, Floats weights) {
    Floats y(x.size());
    const Routing routing{{ids.data(), DType::kI32, {T, model_.config.top_k}}, {weights.data(), DType::kF32, {T, model_.config.top_k}}};
    const Status status = model_.layers[Size(layer)].experts->Forward({x.data(), DType::kF32, {T, model_.config.hidden}}, routing,
                                                                      {y.data(), DType::kF32, {T, model_.config.hidden}}, ctx);
    EXPECT_TRUE(status.ok()) << status.message();
    return y;
  });
  EXPECT_EQ(logits, expected);
}

TEST_F(GptOssExpertsInBf16, RoundedAsInTransformersTheLogitsAreThoseThatCameWithTheModel) {
  const test::GoldenFile file(fs::path(BILLFISH_SOURCE_DIR) / "tests/golden/models/gpt-oss-tiny-mxfp4.ties.safetensors");
  const auto run = [&](Bf16Roundings& roundings) {
    return WorstRow(Run([&](int64_t layer, const Floats& x, const std::vector<int32_t>& ids, const Floats& weights) {
                      return RoundingBlock(roundings, layer, x, ids, weights);
                    }),
                    golden_, model_.config.vocab);
  };
  Bf16Roundings as_made(file["ties"].As<int32_t>());
  const double worst = run(as_made);
  EXPECT_LE(worst, 2e-3);
  // Few values went the other way because a sum ran in another order: 31 of 202,752.
  EXPECT_LE(as_made.overruled, as_made.roundings / 2000);
  RecordProperty("worst_relative_difference", std::to_string(worst));

  // One value on the edge that goes the other way is enough to move a logit beyond the contract; none moves one by more than hundredths.
  Bf16Roundings nearest(std::vector<int32_t>{});
  const double undecided = run(nearest);
  EXPECT_LE(undecided, 5e-2);
  RecordProperty("worst_with_all_to_nearest", std::to_string(undecided));
}

}  // namespace
}  // namespace billfish::model
