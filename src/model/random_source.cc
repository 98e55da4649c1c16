#include <random>

#include "model/tensor_source.h"

namespace billfish::model {

bool RandomSource::HasTensor(const std::string&) const { return false; }

bool RandomSource::HasModule(const std::string&) const { return true; }

// Stacks are made in the order [experts, outputs, inputs], whatever their scheme.
bool RandomSource::IsPlain(const std::string&) const { return false; }

Result<std::vector<float>> RandomSource::Vector(const std::string& tensor, int64_t size) const {
  std::mt19937_64 rng(SeedOf(tensor));
  const float middle = tensor.find("norm") != std::string::npos ? 1.0F : 0.0F;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = middle + 0.1F * (static_cast<float>(rng() >> 40) * 0x1p-23F - 1.0F);
  return values;
}

Result<PackedWeight> RandomSource::Matrix(const std::string& module, int64_t E, int64_t N, int64_t K) const {
  Result<PackedWeight> weight = PackedWeight::Random(SchemeOf(module), E, N, K, SeedOf(module));
  if (!weight.ok()) return weight.error().WithContext(module);
  return weight;
}

QuantScheme RandomSource::SchemeOf(const std::string& module) const {
  if (module == "lm_head") return spec_.lm_head;
  if (module.find(".self_attn.") != std::string::npos) return spec_.attention;
  const std::string_view router = architecture_.experts.router;
  const bool plain = module == "model.embed_tokens" || (!router.empty() && std::string_view(module).ends_with(router));
  return plain ? schemes::kBf16 : spec_.mlp;
}

// FNV-1a of the name, begun at the seed.
uint64_t RandomSource::SeedOf(const std::string& name) const {
  uint64_t hash = 0xCBF29CE484222325ULL ^ spec_.seed;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return hash;
}

}  // namespace billfish::model
