// Which context a call belongs to: the device that it names, or the stream's own.
#pragma once

#include "billfish/context.h"
#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cuda/device.h"

namespace billfish::cuda {

/// The GPU that `device` names. kInvalidArgument for a CPU, worded with `what` ("device memory").
Result<const GpuDevice*> GpuOf(Device device, const char* what);

/// Makes the stream's context current; for the default stream keeps the thread's context, or takes GPU 0 if it has none.
Status MakeStreamCurrent(CudaStream stream);

}  // namespace billfish::cuda
