// The golden MoE layers of the test data: one with LoRA by PyTorch autograd in fp64, one of gpt-oss by transformers.
#pragma once

#include <string>
#include <vector>

#include "billfish/moe.h"
#include "support/golden_file.h"
#include "support/weight_numbers.h"

namespace billfish::test {

struct MoeFixture {
  PackedWeight gate_up, down;
  std::vector<float> gate_up_bias, down_bias;  ///< [E,2I], [E,H]; empty if the layer has none
  Activation activation{Activation::Kind::kSwiglu};
  GateUpOrder order = GateUpOrder::kConcatenated;
  int64_t T = 0, H = 0, top_k = 0;
  std::vector<float> x;        ///< [T,H]
  std::vector<int32_t> ids;    ///< [T,top_k]
  std::vector<float> weights;  ///< [T,top_k]
  std::vector<float> y;        ///< [T,H] golden
};

/// W[e] + scale * B[e] A[e] as fp32 weights: the LoRA part folded in. A [E,r,K], B [E,N,r].
inline PackedWeight WithDelta(const PackedWeight& weight, const std::vector<float>& A, const std::vector<float>& B, double scale) {
  const int64_t E = weight.E(), N = weight.N(), K = weight.K();
  const int64_t r = static_cast<int64_t>(A.size()) / E / K;
  std::vector<float> w = DequantizedF32(weight);
  for (int64_t e = 0; e < E; ++e) {
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t k = 0; k < K; ++k) {
        double delta = 0;
        for (int64_t i = 0; i < r; ++i) {
          delta += static_cast<double>(B[static_cast<size_t>((e * N + n) * r + i)]) * A[static_cast<size_t>((e * r + i) * K + k)];
        }
        float& value = w[static_cast<size_t>((e * N + n) * K + k)];
        value = static_cast<float>(value + scale * delta);
      }
    }
  }
  return *PackedWeight::Quantize(ConstTensorView(w.data(), DType::kF32, {E, N, K}), schemes::kF32);
}

/// One of moe-lora/<name>.safetensors; the LoRA part is folded into fp32 weights unless `quantized` asks for the 4-bit weights alone.
inline MoeFixture LoadMoeLora(const std::filesystem::path& path, bool quantized = false) {
  const GoldenFile file(path);
  MoeFixture fixture;
  const bool mxfp4 = file.Metadata("format") == "mxfp4";
  const auto load = [&](const std::string& name) {
    const GoldenTensor packed = file[name + ".packed"];
    const int64_t E = packed.dim(0), N = packed.dim(1), K = packed.dim(2) * 2;
    WeightParts parts;
    parts.codes = packed.Shared();
    parts.scales = file[name + ".scale"].Shared();
    if (!mxfp4) {
      for (float global : file[name + ".global_scale"].Floats())
        parts.row_scale.insert(parts.row_scale.end(), static_cast<size_t>(N), global);
    }
    PackedWeight weight = *PackedWeight::FromParts(mxfp4 ? schemes::kMxfp4 : schemes::kNvfp4, E, N, K, parts);
    if (quantized) return weight;
    return WithDelta(weight, file["A_" + name].Floats(), file["B_" + name].Floats(), std::stod(file.Metadata("lora_scale")));
  };
  fixture.gate_up = load("gate_up");
  fixture.down = load("down");
  if (file.Has("bias_gate_up")) {
    fixture.gate_up_bias = file["bias_gate_up"].Floats();
    fixture.down_bias = file["bias_down"].Floats();
  }
  const std::string activation = file.Metadata("activation");
  const float limit = std::stof(file.Metadata("limit"));
  if (activation == "swiglu_clamped") fixture.activation = {Activation::Kind::kSwigluClamped, limit};
  if (activation == "swiglu_oai") fixture.activation = {Activation::Kind::kSwigluOai, limit, 1.702f, 1.0f};
  if (activation == "geglu") fixture.activation = {Activation::Kind::kGegluTanh};
  if (activation == "swiglu_oai") fixture.order = GateUpOrder::kInterleaved;
  fixture.x = file["x"].Floats();
  fixture.T = file["x"].dim(0);
  fixture.H = file["x"].dim(1);
  fixture.ids = file["ids"].As<int32_t>();
  fixture.top_k = file["ids"].dim(1);
  fixture.weights = file["routing_weight"].Floats();
  fixture.y = file["y"].Floats();
  return fixture;
}

inline const std::vector<std::string>& MoeLoraNames() {
  static const std::vector<std::string> names = {"mxfp4_swiglu", "mxfp4_swiglu_oai_bias", "nvfp4_geglu", "nvfp4_swiglu_clamped"};
  return names;
}

inline std::filesystem::path MoeLoraPath(const std::string& name) { return TestData() / "fixtures/moe-lora" / (name + ".safetensors"); }
inline std::filesystem::path GptOssFolder() { return TestData() / "fixtures/gpt-oss-tiny-mxfp4"; }

struct GptOssRouter {
  std::vector<float> weight;  ///< [E,H]
  std::vector<float> bias;    ///< [E]
};

/// Layer 0 of the gpt-oss fixture; ids and weights are left to the router under test.
inline MoeFixture LoadGptOss(GptOssRouter* router) {
  const GoldenFile model(GptOssFolder() / "model.safetensors"), golden(GptOssFolder() / "golden.safetensors");
  const std::string mlp = "model.layers.0.mlp.";
  const auto load = [&](const std::string& name) {
    const GoldenTensor blocks = model[mlp + "experts." + name + "_blocks"];
    WeightParts parts;
    parts.codes = blocks.Shared();
    parts.scales = model[mlp + "experts." + name + "_scales"].Shared();
    return *PackedWeight::FromParts(schemes::kMxfp4, blocks.dim(0), blocks.dim(1), blocks.dim(2) * 32, parts);
  };
  MoeFixture fixture;
  fixture.gate_up = load("gate_up_proj");
  fixture.down = load("down_proj");
  fixture.gate_up_bias = model[mlp + "experts.gate_up_proj_bias"].Floats();
  fixture.down_bias = model[mlp + "experts.down_proj_bias"].Floats();
  fixture.activation = {Activation::Kind::kSwigluOai, 7.0f, 1.702f, 1.0f};
  fixture.order = GateUpOrder::kInterleaved;
  fixture.x = golden["moe_input"].Floats();
  fixture.y = golden["moe_output"].Floats();
  fixture.H = fixture.gate_up.K();
  fixture.T = static_cast<int64_t>(fixture.x.size()) / fixture.H;
  fixture.top_k = 4;
  router->weight = model[mlp + "router.weight"].Floats();
  router->bias = model[mlp + "router.bias"].Floats();
  return fixture;
}

/// logits[t,e] = router.weight[e] . x[t] + bias[e]
inline std::vector<float> RouterLogits(const GptOssRouter& router, const MoeFixture& fixture) {
  const auto E = static_cast<int64_t>(router.bias.size());
  std::vector<float> logits;
  for (int64_t t = 0; t < fixture.T; ++t) {
    for (int64_t e = 0; e < E; ++e) {
      double sum = router.bias[static_cast<size_t>(e)];
      for (int64_t k = 0; k < fixture.H; ++k) {
        sum +=
            static_cast<double>(router.weight[static_cast<size_t>(e * fixture.H + k)]) * fixture.x[static_cast<size_t>(t * fixture.H + k)];
      }
      logits.push_back(static_cast<float>(sum));
    }
  }
  return logits;
}

/// |found - golden| relative to the norm of golden.
inline double RelativeNorm(const std::vector<double>& found, const std::vector<float>& golden) {
  double error = 0, size = 0;
  for (size_t i = 0; i < golden.size(); ++i) {
    error += (found[i] - golden[i]) * (found[i] - golden[i]);
    size += static_cast<double>(golden[i]) * golden[i];
  }
  return std::sqrt(error / size);
}

}  // namespace billfish::test
