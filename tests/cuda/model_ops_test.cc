// The operations between a model's matrices on the device against their definitions in fp64, over sizes that fill no block.
#include "cuda/model_ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/float_formats.h"
#include "support/device_array.h"
#include "support/random_tensor.h"

namespace billfish::cuda {
namespace {

using test::DeviceArray;
using test::Gaussian;
using test::ToBF16;

constexpr double kBF16Half = 0x1p-8;  // relative error of one rounding, with room for the fp32 arithmetic before it

class ModelOpsTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto device = GpuDevice::Get(0);
    if (!device) GTEST_SKIP() << device.error().message();
    device_ = *device;
  }
  ModelOps Ops(int64_t head_dim = 64) const {
    auto ops = ModelOps::Create(*device_, head_dim);
    EXPECT_TRUE(ops) << ops.status().message();
    return std::move(*ops);
  }
  const GpuDevice* device_ = nullptr;
};

void ExpectOk(const Status& status) { ASSERT_TRUE(status.ok()) << status.message(); }

double FromBF16(uint16_t bits) { return static_cast<double>(F32FromBF16(bits)); }

TEST_F(ModelOpsTest, EmbeddingCopiesTheRowsOfItsIds) {
  for (const int H : {1, 64, 257, 4100}) {
    const std::vector<float> table = Gaussian(static_cast<size_t>(7 * H), 1);
    const std::vector<int32_t> ids = {6, 0, 3, 6, 1};
    const DeviceArray<float> table_f32(table), x(ids.size() * static_cast<size_t>(H), -1.0f);
    const DeviceArray<uint16_t> table_bf16(ToBF16(table));
    const DeviceArray<int32_t> device_ids(ids);
    for (const bool f32 : {true, false}) {
      EmbeddingArgs args{.table = table_bf16.get(), .ids = device_ids.get(), .x = x.get(), .T = 5, .H = H};
      if (f32) args.table = table_f32.get(), args.table_f32 = 1;
      ExpectOk(Ops().Embedding(args, nullptr));
      const std::vector<float> found = x.Read();
      for (size_t i = 0; i < found.size(); ++i) {
        const float value = table[static_cast<size_t>(ids[i / static_cast<size_t>(H)] * H) + i % static_cast<size_t>(H)];
        ASSERT_EQ(found[i], f32 ? value : F32FromBF16(BF16FromF32(value))) << "H " << H << ", element " << i;
      }
    }
  }
}

TEST_F(ModelOpsTest, RmsNormAddsTheDeltaAndNormalisesTheSum) {
  for (const int H : {1, 31, 64, 2880, 4096, 5001, 16384}) {
    for (const bool with_delta : {false, true}) {
      constexpr int kRows = 3;
      const auto count = static_cast<size_t>(kRows * H);
      const std::vector<float> x = Gaussian(count, 2), delta = Gaussian(count, 3), weight = Gaussian(static_cast<size_t>(H), 4);
      const DeviceArray<float> device_x(x), device_delta(delta), device_weight(weight);
      const DeviceArray<uint16_t> y(count, 0);
      RmsNormArgs args{.x = device_x.get(), .weight = device_weight.get(), .y = y.get(), .eps = 1e-5f, .T = kRows, .H = H};
      if (with_delta) args.delta = device_delta.get();
      ExpectOk(Ops().RmsNorm(args, nullptr));
      const std::vector<float> sums = device_x.Read();
      const std::vector<uint16_t> found = y.Read();
      for (int t = 0; t < kRows; ++t) {
        double squares = 0;
        for (int i = 0; i < H; ++i) {
          const auto at = static_cast<size_t>(t * H + i);
          ASSERT_EQ(sums[at], with_delta ? x[at] + delta[at] : x[at]);
          squares += static_cast<double>(sums[at]) * sums[at];
        }
        const double factor = 1 / std::sqrt(squares / H + 1e-5);
        for (int i = 0; i < H; ++i) {
          const auto at = static_cast<size_t>(t * H + i);
          const double expected = sums[at] * factor * weight[static_cast<size_t>(i)];
          ASSERT_NEAR(FromBF16(found[at]), expected, std::fabs(expected) * kBF16Half) << "H " << H << ", row " << t << ", " << i;
        }
      }
    }
  }
}

TEST_F(ModelOpsTest, RopePlacesRotatedKeysAndPlainValuesInTheCache) {
  for (const int D : {16, 64, 128}) {
    for (const bool norms : {false, true}) {
      constexpr int kTokens = 3, kHeads = 5, kKvHeads = 2, kCapacity = 16, kPosition = 9;
      const int width = (kHeads + 2 * kKvHeads) * D, half = D / 2;
      const std::vector<float> qkv = Gaussian(static_cast<size_t>(kTokens * width), 5);
      const std::vector<float> q_norm = Gaussian(static_cast<size_t>(D), 6), k_norm = Gaussian(static_cast<size_t>(D), 7);
      std::vector<float> cosines, sines;
      for (int i = 0; i < kCapacity * half; ++i)
        cosines.push_back(std::cos(0.1f * static_cast<float>(i))), sines.push_back(std::sin(0.1f * static_cast<float>(i)));
      const DeviceArray<float> device_qkv(qkv), device_q_norm(q_norm), device_k_norm(k_norm), device_cos(cosines), device_sin(sines);
      const DeviceArray<int32_t> position(1, kPosition);
      constexpr uint16_t kUntouched = 0x7fc1;
      const auto cache_values = static_cast<size_t>(kKvHeads * kCapacity * D);
      const DeviceArray<uint16_t> q(static_cast<size_t>(kTokens * kHeads * D), 0), keys(cache_values, kUntouched),
          values(cache_values, kUntouched);
      RopeArgs args{.qkv = device_qkv.get(),
                    .cosines = device_cos.get(),
                    .sines = device_sin.get(),
                    .position = position.get(),
                    .q = q.get(),
                    .keys = keys.get(),
                    .values = values.get(),
                    .capacity = kCapacity,
                    .eps = 1e-6f,
                    .T = kTokens,
                    .heads = kHeads,
                    .kv_heads = kKvHeads,
                    .D = D};
      if (norms) args.q_norm = device_q_norm.get(), args.k_norm = device_k_norm.get();
      ExpectOk(Ops(D).Rope(args, nullptr));
      const auto found_q = q.Read(), found_k = keys.Read(), found_v = values.Read();
      size_t untouched = 0;
      for (const uint16_t bits : found_k) untouched += bits == kUntouched;
      EXPECT_EQ(untouched, static_cast<size_t>(kKvHeads * (kCapacity - kTokens) * D));
      for (int t = 0; t < kTokens; ++t) {
        for (int head = 0; head < kHeads + 2 * kKvHeads; ++head) {
          const float* in = qkv.data() + t * width + head * D;
          const int kv = head < kHeads ? head : (head - kHeads) % kKvHeads;
          const auto place = static_cast<size_t>((kv * kCapacity + kPosition + t) * D);
          const uint16_t* found = head < kHeads              ? found_q.data() + (t * kHeads + head) * D
                                  : head < kHeads + kKvHeads ? found_k.data() + place
                                                             : found_v.data() + place;
          double squares = 0;
          for (int i = 0; i < D; ++i) squares += static_cast<double>(in[i]) * in[i];
          const double factor = norms ? 1 / std::sqrt(squares / D + 1e-6) : 1;
          const std::vector<float>& norm = head < kHeads ? q_norm : k_norm;
          for (int i = 0; i < D; ++i) {
            const auto value = [&](int j) { return in[j] * factor * (norms ? norm[static_cast<size_t>(j)] : 1.0f); };
            const auto angle = static_cast<size_t>((kPosition + t) * half + i % half);
            const double turned = i < half ? value(i) * cosines[angle] - value(i + half) * sines[angle]
                                           : value(i) * cosines[angle] + value(i - half) * sines[angle];
            const double expected = head < kHeads + kKvHeads ? turned : in[i];
            // A difference of two products keeps their rounding, not its own.
            ASSERT_NEAR(FromBF16(found[i]), expected, std::fabs(expected) * kBF16Half + 1e-5)
                << "D " << D << ", head " << head << ", " << i;
          }
        }
      }
    }
  }
}

struct Heads {
  int D, heads, kv_heads;
};

struct AttentionProblem {
  Heads shape;
  int T, position, capacity, window;
  bool sinks;
  std::vector<uint16_t> q, keys, values;
  std::vector<float> sink;

  AttentionProblem(Heads h, int tokens, int at, int w, bool with_sinks, uint64_t seed = 8)
      : shape(h), T(tokens), position(at), capacity(at + tokens + 5), window(w), sinks(with_sinks) {
    q = ToBF16(Gaussian(static_cast<size_t>(T * h.heads * h.D), seed));
    keys = ToBF16(Gaussian(static_cast<size_t>(h.kv_heads * capacity * h.D), seed + 1));
    values = ToBF16(Gaussian(static_cast<size_t>(h.kv_heads * capacity * h.D), seed + 2));
    sink = Gaussian(static_cast<size_t>(h.heads), seed + 3, 3.0f);
    // Memory behind the sequence must never count.
    for (int head = 0; head < h.kv_heads; ++head) {
      for (int i = (head * capacity + position + T) * h.D; i < (head + 1) * capacity * h.D; ++i) {
        keys[static_cast<size_t>(i)] = values[static_cast<size_t>(i)] = 0x7fc0;
      }
    }
  }

  double scale() const { return 1 / std::sqrt(static_cast<double>(shape.D)); }

  // The first token's query, key and value in fp32.
  std::vector<float> NewRow() const {
    std::vector<float> row;
    for (int i = 0; i < shape.heads * shape.D; ++i) row.push_back(F32FromBF16(q[static_cast<size_t>(i)]));
    for (const std::vector<uint16_t>* cache : {&keys, &values}) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        for (int d = 0; d < shape.D; ++d)
          row.push_back(F32FromBF16((*cache)[static_cast<size_t>((head * capacity + position) * shape.D + d)]));
      }
    }
    return row;
  }
  // The cache before that token: nothing may be read from its place.
  std::vector<uint16_t> WithoutNew(std::vector<uint16_t> cache) const {
    for (int head = 0; head < shape.kv_heads; ++head) {
      std::fill_n(cache.begin() + (head * capacity + position) * shape.D, shape.D, uint16_t{0x7fc0});
    }
    return cache;
  }

  // out of one token and head, and sum_j p_j |v_j| / sum: what errors of the weights are multiplied with.
  void Row(int t, int head, std::vector<double>& out, std::vector<double>& size) const {
    const int D = shape.D, kv = head / (shape.heads / shape.kv_heads), last = position + t;
    const int first = window > 0 ? std::max(0, last - window + 1) : 0;
    const uint16_t* query = q.data() + (t * shape.heads + head) * D;
    std::vector<double> scores;
    double top = sinks ? sink[static_cast<size_t>(head)] : -1e300;
    for (int j = first; j <= last; ++j) {
      const uint16_t* key = keys.data() + static_cast<size_t>((kv * capacity + j) * D);
      double dot = 0;
      for (int d = 0; d < D; ++d) dot += FromBF16(query[d]) * FromBF16(key[d]);
      scores.push_back(dot * scale());
      top = std::max(top, scores.back());
    }
    double sum = sinks ? std::exp(sink[static_cast<size_t>(head)] - top) : 0;
    out.assign(static_cast<size_t>(D), 0);
    size.assign(static_cast<size_t>(D), 0);
    for (int j = first; j <= last; ++j) {
      const double p = std::exp(scores[static_cast<size_t>(j - first)] - top);
      sum += p;
      const uint16_t* value = values.data() + static_cast<size_t>((kv * capacity + j) * D);
      for (size_t d = 0; d < static_cast<size_t>(D); ++d) {
        out[d] += p * FromBF16(value[d]);
        size[d] += p * std::fabs(FromBF16(value[d]));
      }
    }
    for (double& v : out) v /= sum;
    for (double& v : size) v /= sum;
  }

  // Weights and results are rounded to bf16: 2^-9 each, of the sum of magnitudes and of the result.
  void Check(const std::vector<uint16_t>& found, const std::string& what) const {
    std::vector<double> expected, size;
    for (int t = 0; t < T; ++t) {
      for (int head = 0; head < shape.heads; ++head) {
        Row(t, head, expected, size);
        for (int d = 0; d < shape.D; ++d) {
          const auto i = static_cast<size_t>(d);
          const double value = FromBF16(found[static_cast<size_t>((t * shape.heads + head) * shape.D + d)]);
          ASSERT_NEAR(value, expected[i], kBF16Half * (size[i] + std::fabs(expected[i])) + 1e-6)
              << what << ": D " << shape.D << ", heads " << shape.heads << "/" << shape.kv_heads << ", position " << position << ", window "
              << window << ", sinks " << sinks << ", token " << t << ", head " << head << ", d " << d;
        }
      }
    }
  }
};

class Attention : public ModelOpsTest {
 protected:
  // The problem on the device, run by either kernel.
  struct OnDevice {
    explicit OnDevice(const AttentionProblem& p)
        : problem(p),
          q(p.q),
          keys(p.keys),
          values(p.values),
          out(p.q.size(), 0x7fc0),
          sink(p.sink),
          partial(static_cast<size_t>(DecodePartialFloats(p.shape.heads, p.shape.kv_heads, p.shape.D)), NAN),
          qkv(p.NewRow()),
          ones(static_cast<size_t>(p.capacity * p.shape.D / 2), 1.0f),
          zeros(static_cast<size_t>(p.capacity * p.shape.D / 2), 0.0f),
          decode_keys(p.WithoutNew(p.keys)),
          decode_values(p.WithoutNew(p.values)),
          position(1, p.position),
          arrivals(static_cast<size_t>(DecodeTiles(p.shape.heads, p.shape.kv_heads)), 0) {}
    AttentionArgs Args() const {
      return {.q = q.get(),
              .keys = keys.get(),
              .values = values.get(),
              .sinks = problem.sinks ? sink.get() : nullptr,
              .position = position.get(),
              .out = out.get(),
              .capacity = problem.capacity,
              .window = problem.window,
              .scale = static_cast<float>(problem.scale()),
              .T = problem.T,
              .heads = problem.shape.heads,
              .kv_heads = problem.shape.kv_heads};
    }
    // The same for the token at problem.position, with angles of zero: its query, key and value come as a row of qkv.
    AttentionDecodeArgs DecodeArgs() const {
      return {.qkv = qkv.get(),
              .cosines = ones.get(),
              .sines = zeros.get(),
              .sinks = problem.sinks ? sink.get() : nullptr,
              .positions = position.get(),
              .keys = decode_keys.get(),
              .values = decode_values.get(),
              .out = out.get(),
              .partial = partial.get(),
              .arrivals = arrivals.get(),
              .capacity = problem.capacity,
              .window = problem.window,
              .scale = static_cast<float>(problem.scale()),
              .T = 1,
              .heads = problem.shape.heads,
              .kv_heads = problem.shape.kv_heads};
    }
    const AttentionProblem& problem;
    DeviceArray<uint16_t> q, keys, values, out;
    DeviceArray<float> sink, partial, qkv, ones, zeros;
    DeviceArray<uint16_t> decode_keys, decode_values;
    DeviceArray<int32_t> position, arrivals;
  };
};

constexpr Heads kShapes[] = {{16, 4, 2}, {32, 3, 3}, {64, 8, 1}, {64, 40, 2}, {96, 6, 2}, {128, 8, 2}, {192, 2, 1}, {256, 2, 1}};

TEST_F(Attention, DecodeIsTheDefinition) {
  for (const Heads& shape : kShapes) {
    const ModelOps ops = Ops(shape.D);
    for (const int position : {0, 1, 15, 63, 64, 200, 2047, 2048, 5000}) {
      if (position > 300 && shape.D != 64 && shape.D != 128) continue;
      for (const int window : {0, 1, 100}) {
        for (const bool sinks : {false, true}) {
          const AttentionProblem problem(shape, 1, position, window, sinks);
          const OnDevice device(problem);
          ExpectOk(ops.AttentionDecode(device.DecodeArgs(), nullptr));
          const auto first = device.out.Read();
          problem.Check(first, "decode");
          if (HasFatalFailure()) return;
          ASSERT_EQ(device.decode_keys.Read(), problem.keys);
          ASSERT_EQ(device.decode_values.Read(), problem.values);
          // The counters are ready for the next launch, and the sum does not depend on which block ends last.
          for (int repeat = 0; repeat < 3; ++repeat) ExpectOk(ops.AttentionDecode(device.DecodeArgs(), nullptr));
          ASSERT_EQ(device.out.Read(), first);
        }
      }
    }
  }
}

// A decode step of one sequence a row, each at its own place, on caches `gap` values apart; and the same in steps of one row each, which
// write to caches and rows of their own.
struct DecodeRows {
  DecodeRows(const Heads& heads, int cache_capacity, int gap, const std::vector<int32_t>& places, uint32_t seed)
      : shape(heads),
        T(static_cast<int>(places.size())),
        capacity(cache_capacity),
        width((heads.heads + 2 * heads.kv_heads) * heads.D),
        row(heads.heads * heads.D),
        slot(heads.kv_heads * cache_capacity * heads.D + gap),
        qkv(Gaussian(static_cast<size_t>(T * width), seed)),
        cosines(Gaussian(static_cast<size_t>(capacity * heads.D / 2), seed + 1)),
        sines(Gaussian(static_cast<size_t>(capacity * heads.D / 2), seed + 2)),
        old(ToBF16(Gaussian(static_cast<size_t>(T * slot), seed + 3))),
        positions(places),
        keys(old),
        values(old),
        out(static_cast<size_t>(T * row), 0),
        alone_keys(old),
        alone_values(old),
        alone_out(static_cast<size_t>(T * row), 0),
        partial(static_cast<size_t>(T * DecodePartialFloats(heads.heads, heads.kv_heads, heads.D)), NAN),
        arrivals(static_cast<size_t>(T * DecodeTiles(heads.heads, heads.kv_heads)), 0) {}

  AttentionDecodeArgs Together() const {
    return {.qkv = qkv.get(),
            .cosines = cosines.get(),
            .sines = sines.get(),
            .positions = positions.get(),
            .keys = keys.get(),
            .values = values.get(),
            .out = out.get(),
            .partial = partial.get(),
            .arrivals = arrivals.get(),
            .capacity = capacity,
            .slot_stride = slot,
            .scale = 0.1f,
            .eps = 1e-6f,
            .T = T,
            .heads = shape.heads,
            .kv_heads = shape.kv_heads};
  }
  AttentionDecodeArgs Alone(AttentionDecodeArgs args, int t) const {
    args.qkv += t * width, args.positions += t, args.keys = alone_keys.get() + t * slot, args.values = alone_values.get() + t * slot;
    args.out = alone_out.get() + t * row, args.T = 1;
    return args;
  }

  Heads shape;
  int T, capacity, width, row, slot;
  DeviceArray<float> qkv, cosines, sines;
  std::vector<uint16_t> old;
  DeviceArray<int32_t> positions;
  DeviceArray<uint16_t> keys, values, out, alone_keys, alone_values, alone_out;
  DeviceArray<float> partial;
  DeviceArray<int32_t> arrivals;
};

TEST_F(Attention, RowsOfADecodeAreTheirOwnSequences) {
  const Heads shape{128, 8, 2};
  const ModelOps ops = Ops(shape.D);
  constexpr int kSlots = 3, kCapacity = 2600;
  const DecodeRows step(shape, kCapacity, 64, {70, 0, 2599}, 20);  // slots need not touch
  const DeviceArray<float> q_norm(Gaussian(static_cast<size_t>(shape.D), 24)), k_norm(Gaussian(static_cast<size_t>(shape.D), 25));
  const int row = step.row, slot = step.slot;
  const auto rows = static_cast<size_t>(kSlots * row);
  const DeviceArray<uint16_t> keys2(step.old), values2(step.old), q(rows, 0), prefill(rows, 0);
  AttentionDecodeArgs all = step.Together();
  all.q_norm = q_norm.get(), all.k_norm = k_norm.get();
  ExpectOk(ops.AttentionDecode(all, nullptr));
  for (int t = 0; t < kSlots; ++t) {
    const AttentionDecodeArgs one = step.Alone(all, t);
    ExpectOk(ops.AttentionDecode(one, nullptr));
    ExpectOk(ops.Rope({.qkv = one.qkv,
                       .q_norm = one.q_norm,
                       .k_norm = one.k_norm,
                       .cosines = one.cosines,
                       .sines = one.sines,
                       .position = one.positions,
                       .q = q.get() + t * row,
                       .keys = keys2.get() + t * slot,
                       .values = values2.get() + t * slot,
                       .capacity = kCapacity,
                       .eps = one.eps,
                       .T = 1,
                       .heads = shape.heads,
                       .kv_heads = shape.kv_heads,
                       .D = shape.D},
                      nullptr));
    ExpectOk(ops.AttentionPrefill({.q = q.get() + t * row,
                                   .keys = keys2.get() + t * slot,
                                   .values = values2.get() + t * slot,
                                   .position = one.positions,
                                   .out = prefill.get() + t * row,
                                   .capacity = kCapacity,
                                   .scale = one.scale,
                                   .T = 1,
                                   .heads = shape.heads,
                                   .kv_heads = shape.kv_heads},
                                  nullptr));
  }
  EXPECT_NE(step.keys.Read(), step.old);
  EXPECT_EQ(step.keys.Read(), step.alone_keys.Read());
  EXPECT_EQ(step.values.Read(), step.alone_values.Read());
  EXPECT_EQ(step.out.Read(), step.alone_out.Read());
  EXPECT_EQ(step.keys.Read(), keys2.Read());
  EXPECT_EQ(step.values.Read(), values2.Read());
  const std::vector<uint16_t> found = step.out.Read(), expected = prefill.Read();
  for (size_t i = 0; i < rows; ++i) ASSERT_NEAR(FromBF16(found[i]), FromBF16(expected[i]), 0.02) << i;
}

// The more rows, the fewer blocks share one: the order of the sums changes, no more.
TEST_F(Attention, RowsOfALargeStepAreThoseOfSmallOnes) {
  const Heads shape{128, 8, 2};
  const ModelOps ops = Ops(shape.D);
  constexpr int kCapacity = 300;
  for (const int T : {24, 40, 160}) {
    std::vector<int32_t> places;
    for (int t = 0; t < T; ++t) places.push_back(t * 37 % kCapacity);
    const DecodeRows step(shape, kCapacity, 0, places, 30);
    const auto rows = static_cast<size_t>(T * step.row);
    AttentionDecodeArgs all = step.Together();
    all.window = 200;
    ExpectOk(ops.AttentionDecode(all, nullptr));
    for (int t = 0; t < T; ++t) ExpectOk(ops.AttentionDecode(step.Alone(all, t), nullptr));
    EXPECT_EQ(step.keys.Read(), step.alone_keys.Read());
    EXPECT_EQ(step.values.Read(), step.alone_values.Read());
    const std::vector<uint16_t> found = step.out.Read(), expected = step.alone_out.Read();
    for (size_t i = 0; i < rows; ++i)
      ASSERT_NEAR(FromBF16(found[i]), FromBF16(expected[i]), 0.02 + 0.01 * std::fabs(FromBF16(expected[i]))) << T << " rows, " << i;
  }
}

TEST_F(Attention, PrefillIsTheDefinition) {
  for (const Heads& shape : kShapes) {
    const ModelOps ops = Ops(shape.D);
    for (const auto& [tokens, position] : {std::pair{1, 0}, {2, 63}, {65, 0}, {70, 130}, {129, 1000}}) {
      if (tokens > 100 && shape.D > 128) continue;
      for (const int window : {0, 1, 40}) {
        for (const bool sinks : {false, true}) {
          const AttentionProblem problem(shape, tokens, position, window, sinks);
          const OnDevice device(problem);
          ExpectOk(ops.AttentionPrefill(device.Args(), nullptr));
          problem.Check(device.out.Read(), "prefill");
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_F(Attention, ATokenOfAPrefillDoesNotDependOnItsNeighbours) {
  const Heads shape{64, 8, 2};
  const ModelOps ops = Ops(shape.D);
  const AttentionProblem all(shape, 100, 200, 0, true);
  const OnDevice device(all);
  ExpectOk(ops.AttentionPrefill(device.Args(), nullptr));
  const auto whole = device.out.Read();
  for (const int begin : {0, 33, 99}) {
    AttentionArgs args = device.Args();
    const DeviceArray<int32_t> position(1, 200 + begin);
    args.q += begin * shape.heads * shape.D, args.out += begin * shape.heads * shape.D;
    args.position = position.get(), args.T = 1;
    ExpectOk(ops.AttentionPrefill(args, nullptr));
  }
  EXPECT_EQ(device.out.Read(), whole);
}

TEST_F(Attention, ScoresFarApartNeitherOverflowNorVanish) {
  const Heads shape{64, 4, 1};
  AttentionProblem problem(shape, 1, 500, 0, false);
  for (uint16_t& bits : problem.q) bits = BF16FromF32(F32FromBF16(bits) * 100.0f);
  const OnDevice device(problem);
  ExpectOk(Ops(64).AttentionDecode(device.DecodeArgs(), nullptr));
  problem.Check(device.out.Read(), "decode");
  ExpectOk(Ops(64).AttentionPrefill(device.Args(), nullptr));
  problem.Check(device.out.Read(), "prefill");
}

TEST_F(Attention, ARecordedDecodeFollowsThePosition) {
  const Heads shape{128, 8, 2};
  const ModelOps ops = Ops(shape.D);
  const AttentionProblem problem(shape, 1, 3000, 0, false);
  const OnDevice device(problem);
  auto stream = Stream::Create(test::kFirstGpu);
  ASSERT_TRUE(stream);
  auto graph = CudaGraph::Capture(*stream, [&] { return ops.AttentionDecode(device.DecodeArgs(), static_cast<CUstream>(stream->get())); });
  ASSERT_TRUE(graph) << graph.status().message();
  for (const int32_t position : {0, 64, 777, 3000}) {
    ExpectOk(CopyTensor({device.position.get(), DType::kI32, {1}, test::kFirstGpu}, {&position, DType::kI32, {1}}));
    ExpectOk(graph->Launch(stream->get()));
    ExpectOk(stream->Synchronize());
    const auto replayed = device.out.Read();
    ExpectOk(ops.AttentionDecode(device.DecodeArgs(), nullptr));
    ASSERT_EQ(device.out.Read(), replayed) << position;
  }
}

TEST_F(ModelOpsTest, SwigluIsTheDefinition) {
  for (const int I : {1, 7, 96, 512, 14336}) {
    constexpr int kRows = 3;
    const std::vector<float> gate_up = Gaussian(static_cast<size_t>(kRows * 2 * I), 9, 4.0f);
    const DeviceArray<float> in(gate_up);
    const DeviceArray<uint16_t> h(static_cast<size_t>(kRows * I), 0);
    ExpectOk(Ops().Swiglu({.gate_up = in.get(), .h = h.get(), .T = kRows, .I = I}, nullptr));
    const auto found = h.Read();
    for (int t = 0; t < kRows; ++t) {
      for (int i = 0; i < I; ++i) {
        const double gate = gate_up[static_cast<size_t>(t * 2 * I + i)], up = gate_up[static_cast<size_t>(t * 2 * I + I + i)];
        const double expected = gate / (1 + std::exp(-gate)) * up;
        ASSERT_NEAR(FromBF16(found[static_cast<size_t>(t * I + i)]), expected, std::fabs(expected) * kBF16Half) << "I " << I << ", " << i;
      }
    }
  }
}

TEST_F(ModelOpsTest, PlainWeightsKeepAllTheirBits) {
  const auto linear = LinearPlain::Create(*device_);
  ASSERT_TRUE(linear) << linear.status().message();
  for (const auto& [M, N, K] : {std::tuple{1, 1, 1}, {1, 128, 2048}, {5, 33, 257}, {64, 9, 96}, {3, 1500, 200}, {6, 32, 2880}}) {
    for (const PlainType type : {PlainType::kF32, PlainType::kF16, PlainType::kBF16}) {
      const bool f32 = type == PlainType::kF32;
      const int stride = N + 3;
      std::vector<float> weight = Gaussian(static_cast<size_t>(N * K), 10);
      const std::vector<float> bias = Gaussian(static_cast<size_t>(N), 11);
      const std::vector<uint16_t> x = ToBF16(Gaussian(static_cast<size_t>(M * K), 12));
      std::vector<uint16_t> halves;
      for (float& w : weight) {
        halves.push_back(type == PlainType::kF16 ? F16FromF32(w) : BF16FromF32(w));
        if (!f32) w = type == PlainType::kF16 ? F32FromF16(halves.back()) : F32FromBF16(halves.back());
      }
      const DeviceArray<float> device_weight(weight), device_bias(bias), y(static_cast<size_t>(M * stride), -7.0f);
      const DeviceArray<uint16_t> device_x(x), device_halves(halves);
      LinearPlainArgs args{.x = device_x.get(),
                           .weight = device_halves.get(),
                           .y = y.get(),
                           .x_stride = K,
                           .y_stride = stride,
                           .type = type,
                           .M = M,
                           .N = N,
                           .K = K};
      if (f32) args.weight = device_weight.get(), args.bias = device_bias.get();
      ExpectOk(linear->Run(args, nullptr));
      const auto found = y.Read();
      for (int m = 0; m < M; ++m) {
        for (int n = 0; n < stride; ++n) {
          double expected = n < N && f32 ? bias[static_cast<size_t>(n)] : 0, size = 1;
          for (int k = 0; n < N && k < K; ++k) {
            const double product = FromBF16(x[static_cast<size_t>(m * K + k)]) * weight[static_cast<size_t>(n * K + k)];
            expected += product, size += std::fabs(product);
          }
          if (n >= N) expected = -7;  // between the rows nothing is written
          ASSERT_NEAR(found[static_cast<size_t>(m * stride + n)], expected, size * 1e-6)
              << M << " " << N << " " << K << ": " << m << ", " << n;
        }
      }
    }
  }
}

TEST_F(ModelOpsTest, ArgmaxTakesTheFirstOfTheLargest) {
  const ModelOps ops = Ops();
  const DeviceArray<uint64_t> partial(kArgmaxBlocks, 0);
  const DeviceArray<int32_t> arrivals(1, 0), id(1, -1);
  const auto argmax = [&](const std::vector<float>& values) {
    const DeviceArray<float> device(values);
    const auto count = static_cast<int32_t>(values.size());
    ExpectOk(ops.Argmax({.values = device.get(), .partial = partial.get(), .arrivals = arrivals.get(), .id = id.get(), .count = count},
                        nullptr));
    return id.Read()[0];
  };
  for (const size_t count : {1, 31, 4096, 100001, 201088}) {
    std::vector<float> values = Gaussian(count, 13);
    EXPECT_EQ(argmax(values), std::max_element(values.begin(), values.end()) - values.begin());
    for (float& v : values) v = -std::fabs(v);
    EXPECT_EQ(argmax(values), std::max_element(values.begin(), values.end()) - values.begin());
    std::fill(values.begin(), values.end(), -1.0f);
    EXPECT_EQ(argmax(values), 0);
    std::fill(values.begin(), values.end(), NAN);
    EXPECT_EQ(argmax(values), 0);
    values.back() = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(argmax(values), static_cast<int32_t>(count) - 1);
  }
  EXPECT_EQ(argmax({-0.0f, 0.0f}), 0);
}

TEST_F(ModelOpsTest, ArgmaxOfSeveralRowsIsThatOfEach) {
  const ModelOps ops = Ops();
  constexpr int32_t kRows = 5, kCount = 50257;
  const std::vector<float> values = Gaussian(size_t{kRows} * kCount, 17);
  const DeviceArray<float> device(values);
  const DeviceArray<uint64_t> partial(size_t{kRows} * kArgmaxBlocks, 0);
  const DeviceArray<int32_t> arrivals(kRows, 0), id(kRows, -1);
  for (int repetition = 0; repetition < 2; ++repetition) {
    ExpectOk(ops.Argmax(
        {.values = device.get(), .partial = partial.get(), .arrivals = arrivals.get(), .id = id.get(), .rows = kRows, .count = kCount},
        nullptr));
    for (int32_t row = 0; row < kRows; ++row) {
      const auto begin = values.begin() + int64_t{row} * kCount;
      EXPECT_EQ(id.Read()[static_cast<size_t>(row)], std::max_element(begin, begin + kCount) - begin);
    }
  }
}

TEST_F(ModelOpsTest, AHeadThatNoKernelTakesIsRefused) {
  for (const int64_t head_dim : {0, 8, 72, 272}) {
    const auto ops = ModelOps::Create(*device_, head_dim);
    ASSERT_FALSE(ops);
    EXPECT_EQ(ops.error().code(), ErrorCode::kUnsupported);
    EXPECT_THAT(std::string(ops.error().message()), testing::HasSubstr("attention on a GPU takes multiples of 16 up to 256"));
  }
}

}  // namespace
}  // namespace billfish::cuda
