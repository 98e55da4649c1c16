// h = silu(gate) * up between the matrices of a dense MLP, fp32 in, bf16 out.
#define BF_ACT 0
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/model_args.h"

extern "C" __global__ void __launch_bounds__(256) vector_swiglu(const __grid_constant__ billfish::cuda::SwigluArgs args) {
  using namespace billfish::cuda;
  const int64_t t = blockIdx.y;
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * 2;
  AllowDependents();
  WaitForPredecessor();
  if (i >= args.I) return;
  const float* gate = args.gate_up + t * 2 * args.I;
  const float* up = gate + args.I;
  uint16_t* h = args.h + t * args.I + i;
  const auto act = [&](int j) { return Activate<ActivationKind::kSwiglu>(gate[j], up[j], {}); };
  if (args.I % 2 == 0) {
    *reinterpret_cast<uint32_t*>(h) = BF16PairFromFloats(act(i), act(i + 1));
    return;
  }
  for (int j = i; j < min(i + 2, args.I); ++j) h[j - i] = static_cast<uint16_t>(BF16PairFromFloats(act(j), 0.0f));
}
