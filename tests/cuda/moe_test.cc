// The expert block on the device against its definition and against golden layers.
#include "cuda/moe_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "core/rounding.h"
#include "cuda/route.h"
#include "cuda/tile_weight.h"
#include "cuda/token_moe.h"
#include "reference/moe.h"
#include "reference/route.h"
#include "support/device_numbers.h"
#include "support/moe_fixture.h"
#include "support/random_tensor.h"
#include "support/scheme_test.h"

namespace billfish::cuda {
namespace {

using test::kGpu;
using test::MoeFixture;
using ::testing::HasSubstr;
using Kind = Activation::Kind;

std::shared_ptr<DeviceBuffer> Upload(const void* data, DType dtype, int64_t count) {
  auto buffer = DeviceBuffer::Allocate(kGpu, std::max<size_t>(16, static_cast<size_t>(count * DTypeBits(dtype) / 8)));
  EXPECT_TRUE(buffer) << buffer.status().message();
  if (count > 0) {
    EXPECT_TRUE(CopyTensor(TensorView(buffer->data(), dtype, {count}, kGpu), ConstTensorView(data, dtype, {count})).ok());
  }
  return std::make_shared<DeviceBuffer>(std::move(*buffer));
}

template <class T>
std::vector<T> Download(const void* data, DType dtype, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  EXPECT_TRUE(CopyTensor(TensorView(values.data(), dtype, {count}), ConstTensorView(data, dtype, {count}, kGpu)).ok());
  return values;
}

// A weight and its bias in packed row order on the device.
struct DeviceWeight {
  TileWeight tiles;
  std::shared_ptr<DeviceBuffer> bias;

  DeviceWeight(const PackedWeight& weight, RowOrder order, const std::vector<float>& values) {
    auto uploaded = TileWeight::Upload(weight, *GpuDevice::Get(0).value(), order);
    EXPECT_TRUE(uploaded) << uploaded.status().message();
    tiles = std::move(*uploaded);
    if (values.empty()) return;
    const TileForm& form = tiles.form();
    std::vector<float> packed(static_cast<size_t>(form.E * form.packed_rows()));
    for (int64_t e = 0; e < form.E; ++e) {
      for (int64_t n = 0; n < form.packed_rows(); ++n) {
        const int64_t row = SourceRow(form, n);
        if (row >= 0) packed[static_cast<size_t>(e * form.packed_rows() + n)] = values[static_cast<size_t>(e * form.N + row)];
      }
    }
    bias = Upload(packed.data(), DType::kF32, static_cast<int64_t>(packed.size()));
  }
  TileView View() const {
    return {tiles.form(), tiles.tiles(), tiles.row_scale(), bias == nullptr ? nullptr : reinterpret_cast<const float*>(bias->data())};
  }
};

// A fixture's layer on the device and everything that a call needs.
class Layer {
 public:
  Layer(const MoeFixture& fixture, DType dtype, int64_t first_expert = 0)
      : fixture_(fixture),
        dtype_(dtype),
        first_expert_(first_expert),
        gate_up_(fixture.gate_up, Order(fixture), fixture.gate_up_bias),
        down_(fixture.down, RowOrder::kPlain, fixture.down_bias) {
    auto moe = MoePipeline::Create(*GpuDevice::Get(0).value(), gate_up_.View(), down_.View(), {fixture.activation, dtype, first_expert});
    EXPECT_TRUE(moe) << moe.status().message();
    created_ = moe.status();
    if (moe) moe_ = std::move(*moe);
    x_ = std::make_unique<test::DeviceNumbers>(fixture.x, dtype);
    const auto slots = static_cast<int64_t>(fixture.ids.size());
    ids_ = Upload(fixture.ids.data(), DType::kI32, slots);
    weights_ = Upload(fixture.weights.data(), DType::kF32, slots);
  }

  struct Output {
    std::unique_ptr<test::DeviceNumbers> y;
    DeviceBuffer workspace;
  };
  Output NewOutput(DType y_dtype) const {
    Output out;
    out.y = std::make_unique<test::DeviceNumbers>(fixture_.T * fixture_.H, y_dtype);
    const size_t bytes = created_.ok() ? moe_.WorkspaceBytes(fixture_.T, fixture_.top_k) : 0;
    auto memory = DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, bytes));
    EXPECT_TRUE(memory) << memory.status().message();
    out.workspace = std::move(*memory);
    return out;
  }
  // An error where the layer could not be made (its kernel does not compile, say), so that the tests after this one still run.
  Status Run(const Output& out, DType y_dtype, CudaStream stream, const void* addend = nullptr) const {
    if (!created_.ok()) return created_;
    MoeCall call;
    call.x = x_->data();
    call.ids = reinterpret_cast<const int32_t*>(ids_->data());
    call.weights = reinterpret_cast<const float*>(weights_->data());
    call.y = out.y->data();
    call.addend = addend;
    call.T = fixture_.T;
    call.top_k = fixture_.top_k;
    call.x_stride = call.y_stride = fixture_.H;
    const auto y_type = OutTypeOf(y_dtype, "the test");
    if (!y_type) return y_type.status();
    call.y_type = *y_type;
    return moe_.Run(call, out.workspace.span(), static_cast<CUstream>(stream));
  }
  std::vector<float> Result(DType y_dtype = DType::kF32) const {
    const Output out = NewOutput(y_dtype);
    const Status status = Run(out, y_dtype, nullptr);
    EXPECT_TRUE(status.ok()) << status.message();
    return out.y->Read();
  }
  // The only token's, by `shares` CTAs in one launch; nothing where the matrices have different layouts.
  std::vector<float> OneLaunch(int64_t shares) const {
    const GpuDevice& device = *GpuDevice::Get(0).value();
    auto moe = TokenMoe::Create(device, gate_up_.View(), down_.View(), dtype_, fixture_.activation);
    EXPECT_TRUE(moe) << moe.status().message();
    if (!moe || !*moe) return {};
    EXPECT_TRUE((*moe)->Takes(fixture_.top_k));
    test::DeviceNumbers y(fixture_.H, DType::kF32);
    const int64_t h_stride = RoundUp(fixture_.down.K(), 8);
    auto h = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(fixture_.top_k * h_stride * 2));
    auto sums = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(TokenMoe::SumsBytes(shares)));
    TokenMoeCall call;
    call.x = x_->data();
    call.ids = reinterpret_cast<const int32_t*>(ids_->data());
    call.weights = reinterpret_cast<const float*>(weights_->data());
    call.y = y.data();
    call.h = h->data();
    call.sums = reinterpret_cast<float*>(sums->data());
    call.h_stride = h_stride;
    call.first_expert = first_expert_;
    call.top_k = fixture_.top_k;
    call.shares = shares;
    for (int again = 0; again < 2; ++again) {
      const Status status = (*moe)->Run(call, TokenProgressOf(device, h->data()), nullptr);
      EXPECT_TRUE(status.ok()) << status.message();
    }
    return y.Read();
  }
  /// x of the fixture made from the residual stream, and its routing, in the same launch; nothing where the device cannot.
  std::optional<std::vector<float>> Normed(const HeldNormedCall& call) const {
    const Output out = NewOutput(DType::kF32);
    HeldNormedCall own = call;
    own.y = out.y->data();
    if (!moe_.Takes(own, out.workspace.span())) return std::nullopt;
    const Status status = moe_.Run(own, out.workspace.span(), nullptr);
    EXPECT_TRUE(status.ok()) << status.message();
    return out.y->Read();
  }
  bool Takes(const HeldNormedCall& call) const { return moe_.Takes(call, NewOutput(DType::kF32).workspace.span()); }
  const MoePipeline& moe() const { return moe_; }

 private:
  static RowOrder Order(const MoeFixture& fixture) {
    if (!fixture.activation.gated()) return RowOrder::kPlain;
    return fixture.order == GateUpOrder::kInterleaved ? RowOrder::kGateUpInterleaved : RowOrder::kGateUpConcatenated;
  }
  MoeFixture fixture_;
  DType dtype_;
  int64_t first_expert_;
  DeviceWeight gate_up_, down_;
  Status created_;
  MoePipeline moe_;
  std::unique_ptr<test::DeviceNumbers> x_;
  std::shared_ptr<DeviceBuffer> ids_, weights_;
};

struct Shape {
  int64_t E, top_k, H, I, T;
};

MoeFixture RandomLayer(const QuantScheme& scheme, const Shape& shape, const Activation& activation, uint64_t seed) {
  MoeFixture fixture;
  fixture.activation = activation;
  const int64_t rows = activation.gated() ? 2 * shape.I : shape.I;
  fixture.gate_up = test::RandomWeight(scheme, shape.E, rows, shape.H, seed);
  fixture.down = test::RandomWeight(scheme, shape.E, shape.H, shape.I, seed + 1);
  EXPECT_EQ(fixture.gate_up.K(), shape.H);
  EXPECT_EQ(fixture.down.K(), shape.I);
  fixture.T = shape.T, fixture.H = shape.H, fixture.top_k = shape.top_k;
  fixture.x = test::RoundedToBF16(test::Gaussian(static_cast<size_t>(shape.T * shape.H), seed + 2));
  fixture.weights = test::Gaussian(static_cast<size_t>(shape.T * shape.top_k), seed + 3);
  std::mt19937_64 rng(seed + 4);
  for (int64_t i = 0; i < shape.T * shape.top_k; ++i) fixture.ids.push_back(static_cast<int32_t>(rng() % static_cast<uint64_t>(shape.E)));
  return fixture;
}

void AddBiases(MoeFixture& fixture, uint64_t seed) {
  fixture.gate_up_bias = test::Gaussian(static_cast<size_t>(fixture.gate_up.E() * fixture.gate_up.N()), seed);
  fixture.down_bias = test::Gaussian(static_cast<size_t>(fixture.down.E() * fixture.down.N()), seed + 1);
}

std::vector<double> Definition(const MoeFixture& fixture) {
  reference::Matrix x(fixture.T, fixture.H);
  x.values.assign(fixture.x.begin(), fixture.x.end());
  const std::vector<double> weights(fixture.weights.begin(), fixture.weights.end());
  const reference::MoeWeights moe{&fixture.gate_up,  &fixture.down, fixture.gate_up_bias,
                                  fixture.down_bias, fixture.order, fixture.activation};
  return reference::Moe(moe, x, fixture.ids, weights).values;
}

double Error(const std::vector<float>& found, const std::vector<double>& wanted) {
  double error = 0, size = 1e-300;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += (found[i] - wanted[i]) * (found[i] - wanted[i]);
    size += wanted[i] * wanted[i];
  }
  return std::sqrt(error / size);
}

// Of what the shapes choose and, for one token, of the kernel that streams its experts.
double WorstError(const MoeFixture& fixture, DType dtype = DType::kBF16) {
  const Layer layer(fixture, dtype);
  const std::vector<double> wanted = Definition(fixture);
  const double error = Error(layer.Result(), wanted);
  if (fixture.T > 1) return error;
  const std::vector<float> streamed = layer.OneLaunch(7);
  return streamed.empty() ? error : std::max(error, Error(streamed, wanted));
}

// bf16 keeps h to 2^-9.
constexpr double kTolerance = 4e-3;

// A kernel's first compilation takes seconds: every activation and every format is a test of its own.
class CudaMoeActivations : public ::testing::TestWithParam<Activation> {};

TEST_P(CudaMoeActivations, EqualItsDefinition) {
  BILLFISH_NEEDS_GPU();
  for (const GateUpOrder order : {GateUpOrder::kConcatenated, GateUpOrder::kInterleaved}) {
    for (const int64_t T : {1, 2, 11}) {
      MoeFixture fixture = RandomLayer(schemes::kMxfp4, {6, 3, 192, 128, T}, GetParam(), 40);
      fixture.order = order;
      AddBiases(fixture, 50);
      EXPECT_LT(WorstError(fixture), kTolerance) << "order " << static_cast<int>(order) << " T " << T;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, CudaMoeActivations,
                         ::testing::Values(Activation{Kind::kSwiglu}, Activation{Kind::kSwigluClamped, 1.5f},
                                           Activation{Kind::kSwigluOai, 2.0f, 1.702f, 1.0f}, Activation{Kind::kGegluTanh},
                                           Activation{Kind::kSilu}, Activation{Kind::kRelu2}),
                         [](const auto& with) { return "Kind" + std::to_string(static_cast<int>(with.param.kind)); });

class CudaMoeFormats : public ::testing::TestWithParam<QuantScheme> {};

TEST_P(CudaMoeFormats, EqualItsDefinition) {
  BILLFISH_NEEDS_GPU();
  for (const Shape& shape : {Shape{5, 2, 256, 128, 1}, Shape{3, 2, 2304, 128, 1}, Shape{5, 2, 256, 128, 2}, Shape{5, 2, 256, 128, 9}}) {
    const MoeFixture fixture = RandomLayer(GetParam(), shape, {Kind::kSwiglu}, 60);
    EXPECT_LT(WorstError(fixture), kTolerance) << "H " << shape.H << " T " << shape.T;
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, CudaMoeFormats,
                         ::testing::Values(schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(128, true), schemes::Int4(32, false),
                                           schemes::kFp8Channel, schemes::kBf16),
                         [](const auto& with) { return test::TestName(with.param.Name()); });

TEST(CudaMoe, EqualsItsDefinitionForOddShapes) {
  BILLFISH_NEEDS_GPU();
  for (const Shape& shape : {Shape{3, 2, 72, 40, 1}, Shape{3, 2, 72, 40, 13}, Shape{4, 4, 200, 104, 5}, Shape{1, 1, 64, 32, 20},
                             Shape{7, 1, 32, 300, 3}, Shape{64, 8, 96, 64, 4}, Shape{64, 8, 96, 64, 5}, Shape{16, 6, 520, 88, 31},
                             Shape{16, 6, 520, 88, 1}, Shape{9, 9, 136, 232, 1}, Shape{96, 8, 72, 40, 150}}) {
    MoeFixture fixture = RandomLayer(schemes::kNvfp4, shape, {Kind::kSwiglu}, 70);
    AddBiases(fixture, 80);
    EXPECT_LT(WorstError(fixture), kTolerance) << "E " << shape.E << " H " << shape.H << " I " << shape.I << " T " << shape.T;
  }
}

class CudaMoeOneToken : public ::testing::TestWithParam<Shape> {};

TEST_P(CudaMoeOneToken, EqualsItsDefinition) {
  BILLFISH_NEEDS_GPU();
  const MoeFixture fixture = RandomLayer(schemes::kMxfp4, GetParam(), {Kind::kSwiglu}, 76);
  EXPECT_LT(WorstError(fixture), kTolerance);
}

// Several row blocks a CTA, several units of down a warp; experts chosen more than once.
INSTANTIATE_TEST_SUITE_P(Shapes, CudaMoeOneToken,
                         ::testing::Values(Shape{4, 8, 2048, 768, 1}, Shape{9, 11, 1536, 288, 1}, Shape{3, 24, 320, 96, 1}),
                         [](const auto& with) { return "H" + std::to_string(with.param.H) + "Top" + std::to_string(with.param.top_k); });

struct NormedShape {
  Shape shape;
  RouterRule rule;
  bool biased;
};
class CudaMoeNormed : public ::testing::TestWithParam<NormedShape> {};

// From the residual stream on in one launch: the norm, the router's matrix and its rule, the experts.
TEST_P(CudaMoeNormed, EqualsItsDefinition) {
  BILLFISH_NEEDS_GPU();
  const auto& [shape, given, biased] = GetParam();
  RouterRule rule = given;
  rule.E = shape.E, rule.top_k = shape.top_k;
  MoeFixture fixture = RandomLayer(schemes::kMxfp4, shape, {Kind::kSwiglu}, 200);
  if (biased) AddBiases(fixture, 210);
  const auto H = static_cast<size_t>(shape.H), E = static_cast<size_t>(shape.E);
  const std::vector<float> x = test::Gaussian(H, 220), delta = test::Gaussian(H, 221), norm = test::Gaussian(H, 222);
  const std::vector<float> matrix = test::RoundedToBF16(test::Gaussian(E * H, 223)), bias = test::Gaussian(E, 224);
  std::vector<float> sum(H);
  double squares = 0;
  for (size_t i = 0; i < H; ++i) sum[i] = x[i] + delta[i], squares += static_cast<double>(sum[i]) * sum[i];
  constexpr float kEps = 1e-6f;
  for (size_t i = 0; i < H; ++i) {
    fixture.x[i] = static_cast<float>(sum[i] / std::sqrt(squares / static_cast<double>(H) + kEps) * norm[i]);
  }
  fixture.x = test::RoundedToBF16(fixture.x);
  std::vector<double> logits(E);
  for (size_t e = 0; e < E; ++e) {
    logits[e] = biased ? bias[e] : 0;
    for (size_t i = 0; i < H; ++i) logits[e] += static_cast<double>(matrix[e * H + i]) * fixture.x[i];
  }
  const reference::Route route = reference::RouteToken(logits, rule, 0);
  fixture.ids.assign(route.ids.begin(), route.ids.end());
  fixture.weights.assign(route.weights.begin(), route.weights.end());

  const auto router = Router::Create(rule, *GpuDevice::Get(0).value());
  ASSERT_TRUE(router) << router.status().message();
  const test::DeviceNumbers x_on(x, DType::kF32), delta_on(delta, DType::kF32), norm_on(norm, DType::kF32), bias_on(bias, DType::kF32);
  const test::DeviceNumbers matrix_on(matrix, DType::kBF16), sum_on(shape.H, DType::kF32);
  HeldNormedCall call;
  call.norm = {.x = reinterpret_cast<const float*>(x_on.data()),
               .delta = reinterpret_cast<const float*>(delta_on.data()),
               .weight = reinterpret_cast<const float*>(norm_on.data()),
               .sum = reinterpret_cast<float*>(sum_on.data()),
               .eps = kEps,
               .M = 1,
               .H = static_cast<int32_t>(shape.H)};
  call.router = reinterpret_cast<const uint16_t*>(matrix_on.data());
  call.logit_bias = biased ? reinterpret_cast<const float*>(bias_on.data()) : nullptr;
  call.route = router->rule();
  const Layer layer(fixture, DType::kBF16);
  const auto first = layer.Normed(call);
  if (!first) GTEST_SKIP() << "the device has too little shared memory";
  EXPECT_LT(Error(*first, Definition(fixture)), kTolerance);
  EXPECT_EQ(sum_on.Read(), sum);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(layer.Normed(call), first);

  // What blocks that start late still read must not be where the others store y.
  const test::DeviceNumbers y_on(shape.H, DType::kF32);
  for (const auto* y : {&y_on, &x_on, &delta_on, &sum_on}) {
    call.y = const_cast<std::byte*>(static_cast<const std::byte*>(y->data()));
    EXPECT_EQ(layer.Takes(call), y == &y_on);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaMoeNormed,
                         ::testing::Values(NormedShape{{128, 8, 512, 64, 1}, {RouterRule::Score::kSoftmax, 0, 0, true}, false},
                                           NormedShape{{6, 3, 192, 128, 1}, {RouterRule::Score::kTopKSoftmax}, true},
                                           NormedShape{{200, 5, 288, 96, 1}, {RouterRule::Score::kTopKSoftmax}, true},
                                           NormedShape{{8, 8, 2048, 768, 1}, {RouterRule::Score::kSoftmax, 0, 0, true}, false}),
                         [](const auto& with) { return "E" + std::to_string(with.param.shape.E); });

TEST(CudaMoe, RowsLongerThanSharedMemoryAreRight) {
  BILLFISH_NEEDS_GPU();
  for (const Shape& shape : {Shape{3, 2, 9024, 40, 1}, Shape{3, 2, 9024, 40, 7}, Shape{3, 2, 40, 9024, 7}, Shape{3, 2, 104, 32032, 1},
                             Shape{3, 2, 1056, 4160, 20}}) {
    const MoeFixture fixture = RandomLayer(schemes::kMxfp4, shape, {Kind::kSwiglu}, 75);
    EXPECT_LT(Error(Layer(fixture, DType::kBF16).Result(), Definition(fixture)), kTolerance)
        << "H " << shape.H << " I " << shape.I << " T " << shape.T;
  }
}

TEST(CudaMoe, RowsOfAnyAlignmentAreRead) {
  BILLFISH_NEEDS_GPU();
  for (const int64_t T : {1, 2, 24}) {
    const MoeFixture fixture = RandomLayer(schemes::kBf16, {4, 2, 77, 51, T}, {Kind::kSwiglu}, 90);
    EXPECT_LT(WorstError(fixture), kTolerance) << "T " << T;
  }
}

TEST(CudaMoe, SkewedRoutingsAndSkippedSlotsAreRight) {
  BILLFISH_NEEDS_GPU();
  for (const int64_t T : {1, 4, 40}) {
    for (int kind = 0; kind < 4; ++kind) {
      MoeFixture fixture = RandomLayer(schemes::kMxfp4, {12, 3, 128, 64, T}, {Kind::kSwiglu}, 100);
      std::mt19937_64 rng(7);
      for (int32_t& id : fixture.ids) {
        if (kind == 0) id = 5;                                                           // all to one expert
        if (kind == 1) id = rng() % 4 == 0 ? -1 : id;                                    // gaps
        if (kind == 2) id = -1;                                                          // nothing at all
        if (kind == 3) id = rng() % 8 == 0 ? id : static_cast<int32_t>(rng() % 2) * 11;  // two busy experts
      }
      EXPECT_LT(WorstError(fixture), kTolerance) << "T " << T << " routing " << kind;
    }
  }
}

TEST(CudaMoe, OneTokenIsRightWhateverTheNumberOfCtas) {
  BILLFISH_NEEDS_GPU();
  // The last number is more than run at a time: those that wait for a row of h do what the others have not begun.
  for (const Shape& shape : {Shape{5, 4, 256, 2048, 1}, Shape{5, 5, 2112, 64, 1}}) {
    MoeFixture fixture = RandomLayer(schemes::kMxfp4, shape, {Kind::kSwiglu}, 105);
    AddBiases(fixture, 106);
    const Layer layer(fixture, DType::kBF16);
    const std::vector<double> wanted = Definition(fixture);
    for (const int64_t shares : {1, 3, 100, kMostTokenShares}) {
      const std::vector<float> y = layer.OneLaunch(shares);
      ASSERT_EQ(y.size(), wanted.size());
      EXPECT_LT(Error(y, wanted), kTolerance) << "H " << shape.H << " I " << shape.I << " shares " << shares;
    }
  }
}

TEST(CudaMoe, ManyRowsAnExpertAreRight) {
  BILLFISH_NEEDS_GPU();
  for (const Shape& shape : {Shape{4, 2, 128, 96, 150}, Shape{8, 4, 64, 32, 600}}) {
    const MoeFixture fixture = RandomLayer(schemes::kMxfp4, shape, {Kind::kSwigluOai, 7.0f, 1.702f, 1.0f}, 110);
    const Layer layer(fixture, DType::kBF16);
    EXPECT_FALSE(layer.moe().Decodes(fixture.T * fixture.top_k));
    EXPECT_LT(Error(layer.Result(), Definition(fixture)), kTolerance) << "T " << shape.T;
  }
}

TEST(CudaMoe, HalfPrecisionActivationsAreRight) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::kNvfp4, schemes::Int4(64, true)}) {
    for (const int64_t T : {1, 9}) {
      const MoeFixture fixture = RandomLayer(scheme, {5, 2, 256, 128, T}, {Kind::kSwiglu}, 120);
      EXPECT_LT(WorstError(fixture, DType::kF16), 6e-4) << scheme.Name() << " T " << T;
    }
  }
}

TEST(CudaMoe, WritesEveryTypeOfOutputAndAddsToIt) {
  BILLFISH_NEEDS_GPU();
  for (const int64_t T : {1, 11}) {
    const MoeFixture fixture = RandomLayer(schemes::kMxfp4, {6, 3, 192, 128, T}, {Kind::kSwiglu}, 130);
    const Layer layer(fixture, DType::kBF16);
    const std::vector<double> wanted = Definition(fixture);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      EXPECT_LT(Error(layer.Result(dtype), wanted), kTolerance);
      const auto out = layer.NewOutput(dtype);
      const std::vector<float> residual = test::RoundedToBF16(test::Gaussian(wanted.size(), 9));
      out.y->Write(residual);
      ASSERT_TRUE(layer.Run(out, dtype, nullptr, out.y->data()).ok());
      std::vector<double> sum = wanted;
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += residual[i];
      EXPECT_LT(Error(out.y->Read(), sum), kTolerance);
    }
  }
}

TEST(CudaMoe, ExpertsHeldElsewhereAddNothing) {
  BILLFISH_NEEDS_GPU();
  for (const int64_t T : {1, 2, 30}) {
    MoeFixture all = RandomLayer(schemes::kBf16, {8, 4, 64, 64, T}, {Kind::kSwiglu}, 140);
    std::vector<float> sum(static_cast<size_t>(T * 64));
    for (const int64_t first : {0, 3}) {
      const int64_t count = first == 0 ? 3 : 5;
      MoeFixture part = all;
      const auto slice = [&](const PackedWeight& weight) {
        const std::vector<float> w = test::DequantizedF32(weight);
        const int64_t size = weight.N() * weight.K();
        return *PackedWeight::Quantize(ConstTensorView(w.data() + first * size, DType::kF32, {count, weight.N(), weight.K()}),
                                       schemes::kBf16);
      };
      part.gate_up = slice(all.gate_up);
      part.down = slice(all.down);
      const std::vector<float> y = Layer(part, DType::kBF16, first).Result();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += y[i];
    }
    EXPECT_LT(Error(sum, Definition(all)), kTolerance);
  }
}

TEST(CudaMoe, TwoGraphsOnTwoStreamsGiveTheEagerBits) {
  BILLFISH_NEEDS_GPU();
  for (const Shape& shape : {Shape{8, 4, 512, 256, 1}, Shape{8, 4, 2304, 256, 1}, Shape{8, 4, 512, 256, 4}, Shape{8, 4, 512, 256, 40},
                             Shape{8, 4, 512, 256, 200}, Shape{8, 4, 512, 256, 1500}}) {
    const MoeFixture fixture = RandomLayer(schemes::kMxfp4, shape, {Kind::kSwiglu}, 150);
    const Layer layer(fixture, DType::kBF16);
    const std::vector<float> eager = layer.Result();
    std::vector<Layer::Output> outputs;
    std::vector<Stream> streams;
    std::vector<CudaGraph> graphs;
    for (int i = 0; i < 2; ++i) {
      outputs.push_back(layer.NewOutput(DType::kF32));
      streams.push_back(std::move(Stream::Create(kGpu).value()));
    }
    for (size_t i = 0; i < 2; ++i) {
      auto graph = CudaGraph::Capture(streams[i], [&] { return layer.Run(outputs[i], DType::kF32, streams[i].get()); });
      ASSERT_TRUE(graph) << graph.status().message();
      graphs.push_back(std::move(*graph));
    }
    for (int replay = 0; replay < 50; ++replay) {
      for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(graphs[i].Launch(streams[i].get()).ok());
    }
    for (size_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(streams[i].Synchronize().ok());
      const std::vector<float> y = outputs[i].y->Read();
      EXPECT_EQ(std::memcmp(y.data(), eager.data(), y.size() * sizeof(float)), 0) << "H " << shape.H << " T " << shape.T << " graph " << i;
    }
  }
}

TEST(CudaMoe, EqualsTheQuantizedPartOfTheLoraLayers) {
  BILLFISH_NEEDS_GPU();
  for (const std::string& name : test::MoeLoraNames()) {
    if (!test::GoldenFile::Exists(test::MoeLoraPath(name))) GTEST_SKIP() << name << " is absent";
    const MoeFixture fixture = test::LoadMoeLora(test::MoeLoraPath(name), true);
    EXPECT_LT(Error(Layer(fixture, DType::kBF16).Result(), Definition(fixture)), 2 * kTolerance) << name;
  }
}

TEST(CudaMoe, RouterAndExpertsEqualTheGptOssLayer) {
  BILLFISH_NEEDS_GPU();
  if (!test::GoldenFile::Exists(test::GptOssFolder() / "golden.safetensors")) GTEST_SKIP() << test::GptOssFolder() << " is absent";
  test::GptOssRouter weights;
  MoeFixture fixture = test::LoadGptOss(&weights);
  RouterRule rule{RouterRule::Score::kTopKSoftmax};
  rule.E = fixture.gate_up.E();
  rule.top_k = fixture.top_k;
  const auto router = Router::Create(rule, *GpuDevice::Get(0).value());
  ASSERT_TRUE(router) << router.status().message();
  const std::vector<float> logits = test::RouterLogits(weights, fixture);
  const int64_t slots = fixture.T * fixture.top_k;
  const auto input = Upload(logits.data(), DType::kF32, fixture.T * rule.E);
  const auto ids = Upload(logits.data(), DType::kF32, slots), weight = Upload(logits.data(), DType::kF32, slots);
  ASSERT_TRUE(router
                  ->Run(reinterpret_cast<const float*>(input->data()), rule.E, fixture.T, nullptr, reinterpret_cast<int32_t*>(ids->data()),
                        reinterpret_cast<float*>(weight->data()), nullptr)
                  .ok());
  fixture.ids = Download<int32_t>(ids->data(), DType::kI32, slots);
  fixture.weights = Download<float>(weight->data(), DType::kF32, slots);
  const std::vector<double> golden(fixture.y.begin(), fixture.y.end());
  EXPECT_LT(Error(Layer(fixture, DType::kBF16).Result(), golden), 2 * kTolerance);
}

TEST(CudaMoe, SortsAnyNumberOfSlotsByExpertAndKeepsTheirOrder) {
  BILLFISH_NEEDS_GPU();
  for (const auto& [slots, E, tile_rows, cost_rows] : std::vector<std::array<int64_t, 4>>{{1, 1, 8, 0},
                                                                                          {33, 8, 8, 0},
                                                                                          {1000, 128, 16, 0},
                                                                                          {1000, 40, 128, 32},
                                                                                          {1024, 1536, 8, 0},
                                                                                          {70001, 300, 64, 0},
                                                                                          {70001, 900, 64, 16},
                                                                                          {131072, 128, 128, 0},
                                                                                          {9000, 128, 128, 32},
                                                                                          {4000, 1500, 1, 0},
                                                                                          {2048, 8, 3, 1},
                                                                                          {2047, 8, 3, 0}}) {
    std::mt19937_64 rng(static_cast<uint64_t>(slots));
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < slots; ++i)
      ids.push_back(static_cast<int32_t>(rng() % static_cast<uint64_t>(E + 3)) - 1);  // -1 and E, E + 1 too
    const auto sort = SlotSort::Create(E, *GpuDevice::Get(0).value());
    ASSERT_TRUE(sort) << sort.status().message();
    const auto ints = [](int64_t n) { return Upload(std::vector<int32_t>(static_cast<size_t>(n), -9).data(), DType::kI32, n); };
    const auto ids_d = Upload(ids.data(), DType::kI32, slots);
    const auto offsets = ints(E + 1), source = ints(slots), position = ints(slots), count = ints(1);
    const auto scratch = ints(SlotSort::ScratchCounts(slots, E));
    const auto work = ints(MostTiles(slots, E, tile_rows) * 3);
    SortArgs args;
    args.ids = reinterpret_cast<const int32_t*>(ids_d->data());
    args.offsets = reinterpret_cast<int32_t*>(offsets->data());
    args.source = reinterpret_cast<int32_t*>(source->data());
    args.position = reinterpret_cast<int32_t*>(position->data());
    args.work = reinterpret_cast<TileWork*>(work->data());
    args.work_count = reinterpret_cast<int32_t*>(count->data());
    args.counts = reinterpret_cast<int32_t*>(scratch->data());
    args.slots = static_cast<int32_t>(slots), args.top_k = 1, args.E = static_cast<int32_t>(E);
    args.tile_rows = static_cast<int32_t>(tile_rows), args.cost_rows = static_cast<int32_t>(cost_rows);
    ASSERT_TRUE(sort->Run(args, nullptr).ok());

    std::vector<std::vector<int32_t>> of_expert(static_cast<size_t>(E));
    for (int64_t i = 0; i < slots; ++i) {
      if (ids[static_cast<size_t>(i)] >= 0 && ids[static_cast<size_t>(i)] < E) {
        of_expert[static_cast<size_t>(ids[static_cast<size_t>(i)])].push_back(static_cast<int32_t>(i));
      }
    }
    std::vector<int32_t> want_offsets, want_position(static_cast<size_t>(slots), -1), want_source;
    std::map<int64_t, std::vector<int32_t>, std::greater<>> want_by_cost;
    for (size_t e = 0; e < of_expert.size(); ++e) {
      const auto first = static_cast<int32_t>(want_source.size()), rows = static_cast<int32_t>(of_expert[e].size());
      want_offsets.push_back(first);
      for (int32_t r = 0; r < rows; r += static_cast<int32_t>(tile_rows)) {
        const auto tile = std::min<int64_t>(rows - r, tile_rows);
        std::vector<int32_t>& tiles = want_by_cost[cost_rows == 0 ? 0 : (tile + cost_rows - 1) / cost_rows];
        tiles.insert(tiles.end(), {static_cast<int32_t>(e), first + r, static_cast<int32_t>(tile)});
      }
      for (const int32_t slot : of_expert[e]) {
        want_position[static_cast<size_t>(slot)] = static_cast<int32_t>(want_source.size());
        want_source.push_back(slot);
      }
    }
    want_offsets.push_back(static_cast<int32_t>(want_source.size()));
    std::vector<int32_t> want_work;
    for (const auto& [cost, tiles] : want_by_cost) want_work.insert(want_work.end(), tiles.begin(), tiles.end());
    const auto sorted = static_cast<int64_t>(want_source.size());
    EXPECT_EQ(Download<int32_t>(offsets->data(), DType::kI32, E + 1), want_offsets);
    EXPECT_EQ(Download<int32_t>(position->data(), DType::kI32, slots), want_position);
    EXPECT_EQ(Download<int32_t>(source->data(), DType::kI32, sorted), want_source);
    ASSERT_EQ(Download<int32_t>(count->data(), DType::kI32, 1)[0], static_cast<int32_t>(want_work.size() / 3));
    EXPECT_EQ(Download<int32_t>(work->data(), DType::kI32, static_cast<int64_t>(want_work.size())), want_work);
  }
}

TEST(CudaMoe, RefusesWhatDoesNotFit) {
  BILLFISH_NEEDS_GPU();
  const MoeFixture fixture = RandomLayer(schemes::kMxfp4, {2, 1, 64, 64, 3}, {Kind::kSwiglu}, 160);
  const GpuDevice& device = *GpuDevice::Get(0).value();
  const DeviceWeight paired(fixture.gate_up, RowOrder::kGateUpConcatenated, {}), plain(fixture.gate_up, RowOrder::kPlain, {});
  const DeviceWeight down(fixture.down, RowOrder::kPlain, {});
  const auto message = [&](const DeviceWeight& gate_up, const Activation& activation, DType dtype) {
    return std::string(MoePipeline::Create(device, gate_up.View(), down.View(), {activation, dtype}).status().message());
  };
  EXPECT_THAT(message(plain, {Kind::kSwiglu}, DType::kBF16), HasSubstr("a gated activation got rows that are plain"));
  EXPECT_THAT(message(paired, {Kind::kRelu2}, DType::kBF16), HasSubstr("with this activation give down [2, 64, 128]"));
  EXPECT_FALSE(message(paired, {Kind::kSwiglu}, DType::kF16).empty());  // E8M0 scales exceed fp16
  EXPECT_THAT(std::string(SlotSort::Create(2000, device).status().message()), HasSubstr("at most 1536 experts and this one has 2000"));
  const Layer layer(fixture, DType::kBF16);
  auto out = layer.NewOutput(DType::kF32);
  out.workspace = std::move(DeviceBuffer::Allocate(kGpu, 256).value());
  EXPECT_THAT(std::string(layer.Run(out, DType::kF32, nullptr).message()), HasSubstr("reserve WorkspaceBytes(T, top_k)"));
}

}  // namespace
}  // namespace billfish::cuda
