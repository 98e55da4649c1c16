// A reader turns the tensors of one module, in one layout, into the plain form of weight.h. One file per layout, one row in the table.
#pragma once

#include <span>
#include <string_view>

#include "billfish/checkpoint.h"
#include "billfish/weight.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/tensor_roles.h"
#include "core/parallel.h"

namespace billfish::checkpoint {

struct ReadContext {
  const ModuleTensors& module;
  const QuantConfig& config;
  FunctionRef<Bytes(const TensorInfo&)> bytes;  ///< the stored bytes of a tensor; may be unaligned
};

struct Reader {
  /// Whether these tensors are in this layout. Looks at names, types and ranks only.
  bool (*matches)(const ModuleTensors& module);
  /// Everything about the module except name, bytes and tensors, from headers and configuration alone.
  /// Errors: kCorruptFile (shapes that contradict each other or the configuration), kUnsupported.
  Result<ModuleInfo> (*describe)(const ReadContext& context);
  /// The weight; `info` is what describe returned.
  Result<PackedWeight> (*load)(const ReadContext& context, const ModuleInfo& info);
};

extern const Reader kPlainReader;          // bf16, f16, f32
extern const Reader kGptqReader;           // qweight [K/8, N]
extern const Reader kAwqReader;            // qweight [K, N/8]
extern const Reader kPackQuantizedReader;  // compressed-tensors int4
extern const Reader kFp4Reader;            // NVFP4 and MXFP4 under every name
extern const Reader kFp8Reader;            // E4M3 with tensor, channel or block scales

/// The reader of this module. kUnsupported names the tensors and types that no reader takes.
Result<const Reader*> FindReader(const ModuleTensors& module);

// --- shared by the readers -----------------------------------------------------------------------------------------------------------

/// "model.layers.0.mlp.up_proj.qweight is I32[32, 64]" for messages.
std::string Describe(const TensorInfo& tensor);
/// kCorruptFile: "MODULE: what".
Status ModuleError(const ReadContext& context, std::string_view what);
/// kCorruptFile if the configuration names a method that stores other tensors than these.
Status CheckMethod(const ReadContext& context, std::string_view layout, std::initializer_list<Method> allowed);
/// The required tensor, or kCorruptFile that names what is missing.
Result<const TensorInfo*> Require(const ReadContext& context, Role role, std::string_view what);
/// Scheme dtype of integer scales: kBF16, kF16 or kF32, else kCorruptFile.
Result<DType> ScaleDType(const ReadContext& context, const TensorInfo& scales);
/// Values of a small float tensor as fp32, exactly: F32, BF16, F16, F8_E8M0, or U8 read as E8M0.
Result<std::vector<float>> ToF32(const ReadContext& context, const TensorInfo& tensor);
/// Consecutive k per group, from the configuration if it says, else K / G. 0 = the whole row. kCorruptFile where they contradict.
Result<int64_t> GroupSize(const ReadContext& context, std::optional<int64_t> configured, int64_t K, int64_t groups);

/// Columns sorted by group for act-order: perm[j] is the original k of stored column j; empty if g_idx is k / group or absent (-1).
/// kCorruptFile for an index outside 0..groups-1, kUnsupported for groups that do not hold `group` columns each.
Result<std::vector<int32_t>> ColumnOrder(const ReadContext& context, const TensorInfo* g_idx, int64_t K, int64_t group, int64_t groups);

}  // namespace billfish::checkpoint
