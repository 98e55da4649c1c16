// Rows of the CPU kernels: median time, fraction of the limit measured in the same run, and the same of the best tenth of the runs.
//
//   cpu_kernels [filter] [threads]
//
// limit = max(bytes of weights read / read bandwidth, 2 M N K / dot peak of the kernel's class). Weights are cold: every case cycles
// through enough copies to exceed the last-level cache at small M. Times include staging (and quantising) the activations.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "billfish/weight.h"
#include "core/float_formats.h"
#include "cpu/grouped_linear.h"
#include "cpu/limits.h"

using namespace billfish;       // NOLINT: a program
using namespace billfish::cpu;  // NOLINT

namespace {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

PackedWeight Random(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K) {
  std::mt19937_64 rng(1);
  const auto bytes = [&](int64_t count, auto make) {
    std::vector<std::byte> out(static_cast<size_t>(count));
    for (std::byte& b : out) b = std::byte(make());
    return Bytes::Own(std::move(out));
  };
  WeightParts parts;
  const int bits = CodeBits(scheme.codes);
  const int64_t row_bytes = (K * bits + 7) / 8;
  const auto code = [&] { return bits == 16 ? rng() & 0x3F : bits == 8 ? rng() & 0x77 : rng(); };
  parts.codes = bytes(E * N * row_bytes, code);
  if (scheme.has_scale()) {
    const int64_t rows = scheme.group_rows == 0 ? 1 : (N + scheme.group_rows - 1) / scheme.group_rows;
    const int64_t count = E * rows * (scheme.group == 0 ? 1 : (K + scheme.group - 1) / scheme.group);
    parts.scales = bytes(count * DTypeBits(scheme.scale) / 8, [&] {
      return scheme.scale == DType::kF8E8M0 ? 118 + rng() % 8 : scheme.scale == DType::kF8E4M3 ? 40 + rng() % 32 : 0x3C;
    });
    if (scheme.zero == ZeroPoint::kPerGroup) parts.zeros = bytes(count, [&] { return rng() % 17; });
  }
  if (scheme.row_scale) parts.row_scale.assign(size_t(E * N), 1.0f);
  Result<PackedWeight> weight = PackedWeight::FromParts(scheme, E, N, K, std::move(parts));
  if (!weight) {
    std::fprintf(stderr, "%s\n", std::string(weight.error().message()).c_str());
    std::exit(1);
  }
  return *weight;
}

struct Limits {
  double bandwidth, bf16, int8, fp32;
};

void RunRow(const std::string& name, const PackedWeight& weight, int64_t tokens, int64_t top_k, DType x_type, Precision precision, int threads,
            const Limits& limits) {
  const int64_t E = weight.E(), N = weight.N(), K = weight.K(), rows = tokens * top_k;
  const CpuWeight first = *CpuWeight::Pack(weight, threads);
  const int copies = int(std::clamp<int64_t>((tokens <= 16 ? 300'000'000 : 1) / int64_t(first.bytes()) + 1, 1, 40));
  std::vector<CpuWeight> weights(1, first);
  for (int i = 1; i < copies; ++i) weights.push_back(*CpuWeight::Pack(weight, threads));
  std::vector<GroupedLinear> linears;
  for (const CpuWeight& w : weights) {
    Result<GroupedLinear> linear = GroupedLinear::Create(&w, x_type, precision);
    if (!linear) {
      std::printf("%-28s %s\n", name.c_str(), std::string(linear.error().message()).c_str());
      return;
    }
    linears.push_back(*linear);
  }
  std::vector<float> x32(size_t(tokens * K));
  std::vector<uint16_t> x16(x32.size());
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < x32.size(); ++i) x16[i] = BF16FromF32(x32[i] = normal(rng));
  std::vector<float> y(size_t(rows * N));
  std::vector<std::byte> workspace(linears[0].workspace_bytes(rows, threads));
  const ConstTensorView xv(x_type == DType::kBF16 ? static_cast<const void*>(x16.data()) : x32.data(), x_type, {tokens, K});
  const TensorView yv(y.data(), DType::kF32, {rows, N});

  std::vector<double> times;
  double read_bytes = 0;
  int reps = 0;
  const double start = Now();
  for (; (Now() - start < 0.4 || reps < 6) && Now() - start < 4; ++reps) {
    std::vector<int32_t> offsets(size_t(E + 1), 0), source(size_t(rows), 0);
    std::vector<std::pair<int32_t, int32_t>> pairs;
    std::vector<int32_t> experts(static_cast<size_t>(E));
    std::iota(experts.begin(), experts.end(), 0);
    for (int64_t t = 0; t < tokens; ++t) {
      std::shuffle(experts.begin(), experts.end(), rng);
      for (int64_t j = 0; j < top_k; ++j) pairs.emplace_back(experts[size_t(j)], int32_t(t));
    }
    std::sort(pairs.begin(), pairs.end());
    for (size_t i = 0; i < pairs.size(); ++i) {
      ++offsets[size_t(pairs[i].first) + 1];
      source[i] = pairs[i].second;
    }
    const int64_t active = std::count_if(offsets.begin(), offsets.end(), [](int32_t c) { return c > 0; });
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
    const GroupedRows groups{rows, E == 1 ? std::span<const int32_t>() : std::span<const int32_t>(offsets), E == 1 ? nullptr : source.data()};
    const double t0 = Now();
    const Status status = linears[size_t(reps % copies)].Run(xv, groups, nullptr, yv, workspace, threads);
    times.push_back(Now() - t0);
    read_bytes += double(active) * double(first.expert_bytes());
    if (!status.ok()) std::printf("%s\n", std::string(status.message()).c_str());
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  const double quiet = times[times.size() / 10];  // what a shared machine does when it is left alone
  read_bytes /= reps;
  const double flops = 2.0 * double(rows) * double(N) * double(K);
  const std::string kernel = linears[0].kernel_name();
  const double peak = kernel.find("a8_") != std::string::npos ? limits.int8 : kernel.find("a16_") != std::string::npos ? limits.bf16 : limits.fp32;
  const double bound = std::max(read_bytes / limits.bandwidth, flops / peak);
  std::printf("%-28s %-24s M %5ld  %9.4f ms  %6.1f GB/s  %7.1f GFLOP/s  %.3f (quiet %.3f) of %s\n", name.c_str(), kernel.c_str(), long(tokens), median * 1e3,
              read_bytes / median * 1e-9, flops / median * 1e-9, bound / median, bound / quiet, read_bytes / limits.bandwidth > flops / peak ? "bandwidth" : "dot peak");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string filter = argc > 1 ? argv[1] : "";
  const int threads = argc > 2 ? std::atoi(argv[2]) : 2;
  const Limits limits{MeasureReadBandwidth(threads), MeasureBf16DotPeak(threads), MeasureInt8DotPeak(threads), MeasureFp32FmaPeak(threads)};
  std::printf("%d threads: read %.1f GB/s, bf16 %.0f, int8 %.0f, fp32 %.0f GFLOP/s\n", threads, limits.bandwidth * 1e-9, limits.bf16 * 1e-9,
              limits.int8 * 1e-9, limits.fp32 * 1e-9);
  struct Model { const char* name; int64_t E, N, K, top_k; };
  const Model models[] = {{"dense4096x4096", 1, 4096, 4096, 1}, {"dense14336x4096", 1, 14336, 4096, 1}, {"moe32x2048x1024", 32, 2048, 1024, 4},
                          {"moe32x2880x2880", 32, 2880, 2880, 4}};
  struct Scheme { const char* name; QuantScheme scheme; };
  const Scheme list[] = {{"mxfp4", schemes::kMxfp4}, {"nvfp4", schemes::kNvfp4}, {"int4g32", schemes::Int4(32, true)},
                         {"int4g128", schemes::Int4(128, true)}, {"int4g128asym", schemes::Int4(128, false)}, {"int4chan", schemes::Int4(0, true)},
                         {"fp8block", schemes::kFp8Block128}, {"bf16", schemes::kBf16}};
  struct Mode { const char* name; DType x; Precision precision; };
  const Mode modes[] = {{"exact", DType::kBF16, Precision::kExact}, {"int8", DType::kBF16, Precision::kInt8}, {"f32", DType::kF32, Precision::kExact}};
  for (const Model& model : models) {
    for (const Scheme& scheme : list) {
      const std::string prefix = std::string(model.name) + "/" + scheme.name + "/";
      bool any = false;
      for (const Mode& mode : modes) any |= (prefix + mode.name + "/").find(filter) != std::string::npos || std::strstr(filter.c_str(), prefix.c_str());
      if (!any) continue;
      const PackedWeight weight = Random(scheme.scheme, model.E, model.N, model.K);
      for (const Mode& mode : modes) {
        if ((prefix + mode.name + "/").find(filter) == std::string::npos) continue;
        for (const int64_t tokens : {1, 4, 16, 64, 256, 512}) {
          RunRow(prefix + mode.name, weight, tokens, model.top_k, mode.x, mode.precision, threads, limits);
        }
      }
    }
  }
}
