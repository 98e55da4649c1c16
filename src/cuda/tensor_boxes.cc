#include "cuda/tensor_boxes.h"

#include <array>

#include "core/status_macros.h"
#include "cuda/driver_api.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

Status DescribeBoxes(const void* x, int64_t K, int64_t M, int64_t stride, int rows, TensorMap& map) {
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* driver, Driver());
  const std::array<uint64_t, 2> extent = {static_cast<uint64_t>(K), static_cast<uint64_t>(M)};
  const auto row_bytes = static_cast<uint64_t>(stride * 2);
  const std::array<uint32_t, 2> box = {kBlockK, static_cast<uint32_t>(rows)}, steps = {1, 1};
  return Check(driver->TensorMapEncodeTiled(&map, kTensorUint16, 2, const_cast<void*>(x), extent.data(), &row_bytes, box.data(),
                                            steps.data(), kTensorNoInterleave, kTensorSwizzle128, kTensorL2Promotion256, kTensorFillZeros),
               "describing the rows of x to the tensor copies");
}

}  // namespace billfish::cuda
