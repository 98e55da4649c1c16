#include "checkpoint/writer/module_kind.h"

#include <algorithm>
#include <vector>

namespace billfish::checkpoint {
namespace {

struct LeafKind {
  std::string_view leaf;  ///< last part of the module's name
  ModuleKind kind;        ///< outside routed experts
};

// Hugging Face names of linears. What is not here is left alone: routers (gate, router, shared_expert_gate), embeddings, norms, and the
// small projections of sparse attention (compressor, indexer), whose errors would decide which tokens are seen.
constexpr LeafKind kLeaves[] = {
    {"q_proj", ModuleKind::kLinear},       {"k_proj", ModuleKind::kLinear},
    {"v_proj", ModuleKind::kLinear},       {"o_proj", ModuleKind::kLinear},
    {"qkv_proj", ModuleKind::kLinear},     {"q_a_proj", ModuleKind::kLinear},
    {"q_b_proj", ModuleKind::kLinear},     {"kv_a_proj_with_mqa", ModuleKind::kLinear},
    {"kv_b_proj", ModuleKind::kLinear},    {"gate_proj", ModuleKind::kLinear},
    {"up_proj", ModuleKind::kLinear},      {"down_proj", ModuleKind::kLinear},
    {"gate_up_proj", ModuleKind::kLinear}, {"w1", ModuleKind::kLinear},
    {"w2", ModuleKind::kLinear},           {"w3", ModuleKind::kLinear},
    {"fc1", ModuleKind::kLinear},          {"fc2", ModuleKind::kLinear},
    {"wq_a", ModuleKind::kLinear},         {"wq_b", ModuleKind::kLinear},
    {"wkv", ModuleKind::kLinear},          {"wo_a", ModuleKind::kLinear},
    {"wo_b", ModuleKind::kLinear},         {"lm_head", ModuleKind::kHead},
    {"head", ModuleKind::kHead},
};

constexpr std::string_view kNeverInside[] = {"compressor", "indexer"};

std::vector<std::string_view> Parts(std::string_view name) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t dot = name.find('.');
    parts.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    name.remove_prefix(dot + 1);
  }
}

}  // namespace

ModuleKind KindOfModule(std::string_view name) {
  const std::vector<std::string_view> parts = Parts(name);
  for (const std::string_view never : kNeverInside) {
    if (std::find(parts.begin(), parts.end(), never) != parts.end()) return ModuleKind::kNever;
  }
  for (const LeafKind& row : kLeaves) {
    if (parts.back() != row.leaf) continue;
    // "experts" is exactly the list of routed ones; shared experts are called shared_expert(s).
    const bool routed = row.kind == ModuleKind::kLinear && std::find(parts.begin(), parts.end(), "experts") != parts.end();
    return routed ? ModuleKind::kExpert : row.kind;
  }
  return ModuleKind::kNever;
}

bool Selects(QuantModules modules, ModuleKind kind, bool tied_head) {
  switch (kind) {
    case ModuleKind::kExpert:
      return true;
    case ModuleKind::kLinear:
      return modules != QuantModules::kExperts;
    case ModuleKind::kHead:
      return modules == QuantModules::kAll && !tied_head;
    case ModuleKind::kNever:
      return false;
  }
  return false;
}

bool IsEmbedding(std::string_view name) {
  const std::string_view leaf = Parts(name).back();
  return leaf.find("embed") != std::string_view::npos || leaf == "wte" || leaf == "wpe";
}

}  // namespace billfish::checkpoint
