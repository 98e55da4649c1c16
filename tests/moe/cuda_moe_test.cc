// Router and MoeLayer on a GPU against the CPU layer, which is checked against the definition. Both round h to 16 bits, so the results
// differ only where fp32 sums of another order round to the other neighbour.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "billfish/moe.h"
#include "support/device_moe.h"

namespace billfish {
namespace {

using Kind = Activation::Kind;
using test::DeviceInts;
using test::DeviceNumbers;
using test::kGpu;
using test::MakeSlots;
using test::OnCpu;
using test::OnGpu;
using test::RelativeError;
using test::Slots;
using test::Spread;

// A rounding of h to the other neighbour (2^-9 of it) is rare: it happens where a sum lies within fp32 error of a tie.
constexpr double kTolerance = 2e-4;

struct Shape {
  int64_t E, H, I;
};

void CheckBlock(const QuantScheme& scheme, const Activation& activation, GateUpOrder order, const Shape& shape, bool biased,
                const std::vector<Slots>& calls, uint64_t seed) {
  const int64_t gate_up_rows = activation.gated() ? 2 * shape.I : shape.I;
  const PackedWeight gate_up = test::RandomWeight(scheme, shape.E, gate_up_rows, shape.H, seed);
  const PackedWeight down = test::RandomWeight(scheme, shape.E, shape.H, shape.I, seed + 1);
  const std::vector<float> gate_up_bias = test::Gaussian(static_cast<size_t>(shape.E * gate_up_rows), seed + 2);
  const std::vector<float> down_bias = test::Gaussian(static_cast<size_t>(shape.E * shape.H), seed + 3);
  MoeOptions options{activation};
  options.order = order;
  if (biased) {
    options.gate_up_bias = ConstTensorView(gate_up_bias.data(), DType::kF32, {shape.E, gate_up_rows});
    options.down_bias = ConstTensorView(down_bias.data(), DType::kF32, {shape.E, shape.H});
  }
  const auto cpu = MoeLayer::Create(gate_up, down, options);
  ASSERT_TRUE(cpu) << cpu.status().message();
  options.device = kGpu;
  const auto gpu = MoeLayer::Create(gate_up, down, options);
  ASSERT_TRUE(gpu) << gpu.status().message();
  for (const Slots& slots : calls) {
    const std::vector<float> x = test::RoundedToBF16(test::Gaussian(static_cast<size_t>(slots.T * shape.H), seed + 4));
    EXPECT_LE(RelativeError(OnGpu(*gpu, x, slots), OnCpu(*cpu, x, slots)), kTolerance)
        << scheme.Name() << ", activation " << static_cast<int>(activation.kind) << ", E = " << shape.E << ", H = " << shape.H
        << ", I = " << shape.I << ", T = " << slots.T << ", top " << slots.top_k;
  }
}

TEST(CudaMoe, EqualsTheCpuForEverySchemeAndActivation) {
  BILLFISH_NEEDS_GPU();
  const Activation activations[] = {
      {Kind::kSwiglu}, {Kind::kSwigluClamped, 0.5F}, {Kind::kSwigluOai, 0.5F, 1.702F, 1.0F}, {Kind::kGegluTanh}, {Kind::kSilu},
      {Kind::kRelu2}};
  uint64_t seed = 50;
  for (const std::string_view name : SchemeNames()) {
    if (name == "f32" || name == "f16") continue;
    const Activation& activation = activations[seed % 6];
    const bool interleaved = activation.gated() && seed % 2 == 0;
    CheckBlock(*SchemeByName(name), activation, interleaved ? GateUpOrder::kInterleaved : GateUpOrder::kConcatenated, {5, 96, 80},
               seed % 3 == 0, {MakeSlots(1, 2, 5, Spread::kEven, seed), MakeSlots(33, 3, 5, Spread::kGaps, seed)}, seed);
    ++seed;
  }
  for (const Activation& activation : activations) {
    ++seed;
    CheckBlock(schemes::kMxfp4, activation, GateUpOrder::kConcatenated, {4, 64, 72}, true,
               {MakeSlots(3, 2, 4, Spread::kEven, seed), MakeSlots(150, 2, 4, Spread::kEven, seed)}, seed);
  }
}

TEST(CudaMoe, EqualsTheCpuForOddShapesAndSpreads) {
  BILLFISH_NEEDS_GPU();
  uint64_t seed = 90;
  for (const Shape& shape : {Shape{1, 17, 10}, Shape{3, 704, 33}, Shape{32, 128, 96}, Shape{130, 64, 64}}) {
    std::vector<Slots> calls;
    for (const int64_t T : {1, 2, 7, 16, 65, 300}) {
      for (const Spread spread : {Spread::kEven, Spread::kOneExpert, Spread::kSkewed}) {
        calls.push_back(MakeSlots(T, std::min<int64_t>(4, shape.E), shape.E, spread, ++seed));
      }
    }
    CheckBlock(schemes::kNvfp4, {Kind::kSwiglu}, GateUpOrder::kInterleaved, shape, true, calls, seed);
  }
}

TEST(CudaMoe, RepeatsAreBitwiseEqualAndGraphsEqualEagerCalls) {
  BILLFISH_NEEDS_GPU();
  const PackedWeight gate_up = test::RandomWeight(schemes::kMxfp4, 16, 256, 192, 1),
                     down = test::RandomWeight(schemes::kMxfp4, 16, 192, 128, 2);
  MoeOptions options{{Kind::kSwiglu}};
  options.device = kGpu;
  const auto layer = MoeLayer::Create(gate_up, down, options);
  ASSERT_TRUE(layer) << layer.status().message();
  for (const int64_t T : {1, 40, 500}) {
    const Slots slots = MakeSlots(T, 4, 16, Spread::kEven, 3);
    const std::vector<float> x = test::Gaussian(static_cast<size_t>(T * 192), 4);
    const std::vector<float> first = OnGpu(*layer, x, slots);
    for (int run = 0; run < 100; ++run) ASSERT_EQ(OnGpu(*layer, x, slots), first) << "T = " << T;
    const DeviceNumbers input(x, DType::kBF16), y(T * 192, DType::kF32), weights(slots.weights, DType::kF32);
    const DeviceInts ids(slots.ids);
    const auto scratch = DeviceBuffer::Allocate(kGpu, layer->WorkspaceBytes(T, 4) + 256);
    const auto stream = Stream::Create(kGpu);
    Workspace workspace(scratch->span());
    ExecContext ctx{workspace, 1, stream->get()};
    const auto graph = CudaGraph::Capture(*stream, [&] {
      return layer->Forward(input.View(T, 192), {ids.View(T, 4), weights.View(T, 4)}, y.View(T, 192), ctx);
    });
    ASSERT_TRUE(graph) << graph.status().message();
    for (int replay = 0; replay < 10; ++replay) ASSERT_TRUE(graph->Launch(stream->get()).ok());
    ASSERT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(y.Read(), first) << "T = " << T;
  }
}

TEST(CudaRouter, ChoosesTheExpertsThatTheCpuChooses) {
  BILLFISH_NEEDS_GPU();
  uint64_t seed = 5;
  using Score = RouterRule::Score;
  std::vector<RouterRule> rules;
  for (const Score score : {Score::kSoftmax, Score::kTopKSoftmax, Score::kSigmoid, Score::kSqrtSoftplus}) {
    rules.push_back({score, 32, 4, true, 1.0F});
    rules.push_back({score, 7, 7, false, 2.5F});
  }
  rules.push_back({Score::kSigmoid, 64, 6, true, 2.5F, test::Gaussian(64, 9), 8, 4});
  rules.push_back({Score::kSoftmax, 256, 8, true, 1.0F, {}, 8, 3});
  for (const RouterRule& rule : rules) {
    for (const int64_t T : {1, 5, 300}) {
      const std::vector<float> logits = test::Gaussian(static_cast<size_t>(T * rule.E), ++seed);
      Slots wanted{T, rule.top_k, std::vector<int32_t>(static_cast<size_t>(T * rule.top_k)),
                   std::vector<float>(static_cast<size_t>(T * rule.top_k))};
      const auto cpu = Router::Create(rule), gpu = Router::Create(rule, kGpu);
      ASSERT_TRUE(cpu) << cpu.status().message();
      ASSERT_TRUE(gpu) << gpu.status().message();
      Workspace workspace;
      ASSERT_TRUE(workspace.Reserve(cpu->WorkspaceBytes(T)).ok());
      ExecContext ctx{workspace, 1};
      const Routing host{TensorView(wanted.ids.data(), DType::kI32, {T, rule.top_k}),
                         TensorView(wanted.weights.data(), DType::kF32, {T, rule.top_k})};
      ASSERT_TRUE(cpu->Forward(ConstTensorView(logits.data(), DType::kF32, {T, rule.E}), {}, host, ctx).ok());
      const DeviceNumbers scores(logits, DType::kF32), weights(T * rule.top_k, DType::kF32);
      DeviceInts ids(std::vector<int32_t>(wanted.ids.size(), -7));
      ASSERT_TRUE(gpu->Forward(scores.View(T, rule.E), {}, {ids.View(T, rule.top_k), weights.View(T, rule.top_k)}, ctx).ok());
      EXPECT_EQ(ids.Read(), wanted.ids) << "E = " << rule.E << ", top " << rule.top_k << ", T = " << T;
      EXPECT_LE(RelativeError(weights.Read(), wanted.weights), 1e-6);
    }
  }
}

TEST(CudaMoe, RefusesInWordsWhatItCannotCompute) {
  BILLFISH_NEEDS_GPU();
  const PackedWeight gate_up = test::RandomWeight(schemes::kMxfp4, 2, 64, 64, 1), down = test::RandomWeight(schemes::kMxfp4, 2, 64, 32, 2);
  MoeOptions options{{Kind::kSwiglu}};
  options.device = kGpu;
  options.activation_dtype = DType::kF16;
  const auto refused = MoeLayer::Create(gate_up, down, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(std::string(refused.error().message()), testing::HasSubstr("w4a16_grouped_decode_sm80"));
  options.activation_dtype = DType::kBF16;
  options.mode = Mode::kFast;
  EXPECT_THAT(std::string(MoeLayer::Create(gate_up, down, options).error().message()), testing::HasSubstr("use exact mode"));
}

}  // namespace
}  // namespace billfish
