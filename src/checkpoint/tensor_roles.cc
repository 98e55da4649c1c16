#include "checkpoint/tensor_roles.h"

#include <limits>

namespace billfish::checkpoint {
namespace {

struct RoleName {
  std::string_view suffix;  ///< what follows the module's name
  Role role;
};

// Earlier rows win where two names of one role are present.
constexpr RoleName kRoleNames[] = {
    // most formats: MODULE.weight
    {".weight", Role::kWeight},
    {".weight_packed", Role::kPackedWeight},
    {".weight_scale", Role::kScale},
    {".weight_scale_inv", Role::kScale},
    {".scale", Role::kScale},  // DeepSeek-V4
    {".weight_scale_2", Role::kGlobalScale},
    {".weight_global_scale", Role::kGlobalDivisor},
    {".weight_zero_point", Role::kZeros},
    {".weight_g_idx", Role::kGroupIndex},
    {".weight_shape", Role::kShape},
    {".input_scale", Role::kInputScale},
    {".input_global_scale", Role::kInputScale},
    // GPTQ and AWQ
    {".qweight", Role::kGptqWeight},
    {".qzeros", Role::kZeros},
    {".scales", Role::kScale},
    {".g_idx", Role::kGroupIndex},
    // gpt-oss, all experts of a layer in one tensor
    {"_blocks", Role::kBlocks},
    {"_scales", Role::kScale},
    // stacked experts under serving engines' and exporters' names
    {"_weight", Role::kWeight},
    {"_weight_scale", Role::kScale},
    {"_weight_scale_inv", Role::kScale},
    {"_weight_scale_2", Role::kGlobalScale},
    {"_input_scale", Role::kInputScale},
    // not implemented
    {".pre_quant_scale", Role::kUnsupported},
    {".svdquant_lora_a", Role::kUnsupported},
    {".svdquant_lora_b", Role::kUnsupported},
    {".B", Role::kUnsupported},
    {".B_24", Role::kUnsupported},
    {".B_meta", Role::kUnsupported},
    {".meta", Role::kUnsupported},
    {".scale_packed", Role::kUnsupported},
    {".weight_shifted_scale", Role::kUnsupported},
};

bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() > suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

// Suffixes that start with "_" would match ordinary names; they count for stacked experts only.
bool IsStackedExperts(std::string_view module) {
  for (const std::string_view name : {".w13", ".w2", ".gate_up_proj", ".down_proj", ".gate_proj", ".up_proj", ".w1", ".w3"}) {
    if (EndsWith(module, name) && module.find("experts") != std::string_view::npos) return true;
  }
  return false;
}

bool IsMain(Role role) {
  return role == Role::kWeight || role == Role::kPackedWeight || role == Role::kGptqWeight || role == Role::kBlocks;
}

}  // namespace

std::map<std::string, ModuleTensors, std::less<>> GroupModules(const std::vector<TensorInfo>& tensors) {
  std::map<std::string, ModuleTensors, std::less<>> modules;
  std::map<std::string, std::array<int, kRoleCount>, std::less<>> rows;
  const auto add = [&](std::string_view module, const TensorInfo& tensor, Role role, int row) {
    ModuleTensors& entry = modules[std::string(module)];
    entry.name = module;
    auto [it, inserted] = rows.try_emplace(std::string(module));
    if (inserted) it->second.fill(std::numeric_limits<int>::max());
    int& best = it->second[static_cast<size_t>(role)];
    if (row < best) {
      best = row;
      entry.by_role[static_cast<size_t>(role)] = &tensor;
    }
  };
  for (const TensorInfo& tensor : tensors) {
    int row = 0;
    bool named = false;
    for (const RoleName& name : kRoleNames) {
      ++row;
      if (!EndsWith(tensor.name, name.suffix)) continue;
      const std::string_view module = std::string_view(tensor.name).substr(0, tensor.name.size() - name.suffix.size());
      if (name.suffix.front() == '_' && !IsStackedExperts(module)) continue;
      if (name.role == Role::kWeight && tensor.shape.size() < 2) break;  // a norm
      add(module, tensor, name.role, row);
      named = true;
      break;
    }
    // A stack of experts may be stored under the module's bare name.
    if (!named && tensor.shape.size() == 3 && IsStackedExperts(tensor.name)) add(tensor.name, tensor, Role::kWeight, row);
  }
  for (auto it = modules.begin(); it != modules.end();) {
    bool main = it->second.Has(Role::kUnsupported) && !it->second.Has(Role::kWeight);
    for (int role = 0; role < kRoleCount; ++role) {
      const TensorInfo* tensor = it->second.by_role[static_cast<size_t>(role)];
      main = main || (tensor != nullptr && IsMain(static_cast<Role>(role)) && tensor->shape.size() >= 2);
    }
    it = main ? std::next(it) : modules.erase(it);
  }
  return modules;
}

}  // namespace billfish::checkpoint
