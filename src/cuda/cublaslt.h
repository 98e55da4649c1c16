// The few entry points of cuBLASLt that a plain product needs, opened at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "billfish/status.h"
#include "cuda/driver_types.h"

namespace billfish::cuda {

// Types and numbers as in the cuBLASLt reference, versions 12 and 13.
using CublasHandle = struct CublasHandleTag*;
using CublasDesc = struct CublasDescTag*;
using CublasLayout = struct CublasLayoutTag*;
using CublasPreference = struct CublasPreferenceTag*;
using CublasResult = int;  // 0 = success

inline constexpr int kCublasCompute32F = 68;
inline constexpr int kCublasRealF32 = 0, kCublasRealBF16 = 14;
inline constexpr int kCublasDescTransA = 3;
inline constexpr int kCublasPreferenceMaxWorkspace = 1;
inline constexpr int32_t kCublasTranspose = 1;

struct CublasAlgorithm {
  uint64_t data[8];
};

struct CublasHeuristic {
  CublasAlgorithm algorithm;
  size_t workspace_bytes;
  CublasResult state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(CublasHeuristic) == 96);

// X(member, exported symbol, parameters)
#define BILLFISH_CUBLASLT_API(X)                                                                                                          \
  X(Create, "cublasLtCreate", (CublasHandle * handle))                                                                                    \
  X(Destroy, "cublasLtDestroy", (CublasHandle handle))                                                                                    \
  X(DescCreate, "cublasLtMatmulDescCreate", (CublasDesc * desc, int compute_type, int scale_type))                                        \
  X(DescDestroy, "cublasLtMatmulDescDestroy", (CublasDesc desc))                                                                          \
  X(DescSetAttribute, "cublasLtMatmulDescSetAttribute", (CublasDesc desc, int which, const void* value, size_t bytes))                    \
  X(LayoutCreate, "cublasLtMatrixLayoutCreate", (CublasLayout * layout, int type, uint64_t rows, uint64_t columns, int64_t stride))       \
  X(LayoutDestroy, "cublasLtMatrixLayoutDestroy", (CublasLayout layout))                                                                  \
  X(PreferenceCreate, "cublasLtMatmulPreferenceCreate", (CublasPreference * preference))                                                  \
  X(PreferenceDestroy, "cublasLtMatmulPreferenceDestroy", (CublasPreference preference))                                                  \
  X(PreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute",                                                                       \
    (CublasPreference preference, int which, const void* value, size_t bytes))                                                            \
  X(GetHeuristic, "cublasLtMatmulAlgoGetHeuristic",                                                                                       \
    (CublasHandle handle, CublasDesc desc, CublasLayout a, CublasLayout b, CublasLayout c, CublasLayout d, CublasPreference preference,   \
     int wanted, CublasHeuristic* results, int* found))                                                                                   \
  X(Matmul, "cublasLtMatmul",                                                                                                             \
    (CublasHandle handle, CublasDesc desc, const void* alpha, const void* a, CublasLayout a_layout, const void* b, CublasLayout b_layout, \
     const void* beta, const void* c, CublasLayout c_layout, void* d, CublasLayout d_layout, const CublasAlgorithm* algorithm,            \
     void* workspace, size_t workspace_bytes, CUstream stream))

struct CublasLtApi {
#define BILLFISH_CUBLASLT_MEMBER(member, symbol, parameters) CublasResult(*member) parameters = nullptr;
  BILLFISH_CUBLASLT_API(BILLFISH_CUBLASLT_MEMBER)
#undef BILLFISH_CUBLASLT_MEMBER
};

/// The first of `candidates` that opens; kNotFound with the reasons.
Result<CublasLtApi> OpenCublasLt(const std::vector<std::string>& candidates);

}  // namespace billfish::cuda
