// The table of the driver's entry points: what Driver() hands out, and how tests open another library in its place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "billfish/status.h"
#include "cuda/driver.h"
#include "cuda/driver_types.h"

namespace billfish::cuda {

// X(member, exported symbol, parameters). The suffixes are those of the 64-bit interface; <cuda.h> hides them behind macros.
#define BILLFISH_DRIVER_API(X)                                                                                                   \
  X(Init, "cuInit", (unsigned flags))                                                                                            \
  X(DriverGetVersion, "cuDriverGetVersion", (int* version))                                                                      \
  X(GetErrorName, "cuGetErrorName", (CUresult error, const char** name))                                                         \
  X(GetErrorString, "cuGetErrorString", (CUresult error, const char** text))                                                     \
  X(DeviceGetCount, "cuDeviceGetCount", (int* count))                                                                            \
  X(DeviceGet, "cuDeviceGet", (CUdevice * device, int ordinal))                                                                  \
  X(DeviceGetName, "cuDeviceGetName", (char* name, int bytes, CUdevice device))                                                  \
  X(DeviceTotalMem, "cuDeviceTotalMem_v2", (size_t * bytes, CUdevice device))                                                    \
  X(DeviceGetAttribute, "cuDeviceGetAttribute", (int* value, CUdevice_attribute which, CUdevice device))                         \
  X(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext * context, CUdevice device))                                  \
  X(CtxSetCurrent, "cuCtxSetCurrent", (CUcontext context))                                                                       \
  X(CtxGetCurrent, "cuCtxGetCurrent", (CUcontext * context))                                                                     \
  X(CtxSynchronize, "cuCtxSynchronize", ())                                                                                      \
  X(MemGetInfo, "cuMemGetInfo_v2", (size_t * free, size_t * total))                                                              \
  X(MemAlloc, "cuMemAlloc_v2", (CUdeviceptr * address, size_t bytes))                                                            \
  X(MemFree, "cuMemFree_v2", (CUdeviceptr address))                                                                              \
  X(MemAllocHost, "cuMemAllocHost_v2", (void** address, size_t bytes))                                                           \
  X(MemFreeHost, "cuMemFreeHost", (void* address))                                                                               \
  X(MemcpyAsync, "cuMemcpyAsync", (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                             \
  X(MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr to, const void* from, size_t bytes, CUstream stream))                  \
  X(MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void* to, CUdeviceptr from, size_t bytes, CUstream stream))                        \
  X(MemsetD8Async, "cuMemsetD8Async", (CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream))                      \
  X(MemsetD32Async, "cuMemsetD32Async", (CUdeviceptr to, unsigned value, size_t words, CUstream stream))                         \
  X(StreamCreate, "cuStreamCreate", (CUstream * stream, unsigned flags))                                                         \
  X(StreamDestroy, "cuStreamDestroy_v2", (CUstream stream))                                                                      \
  X(StreamSynchronize, "cuStreamSynchronize", (CUstream stream))                                                                 \
  X(StreamGetCtx, "cuStreamGetCtx", (CUstream stream, CUcontext * context))                                                      \
  X(StreamWaitEvent, "cuStreamWaitEvent", (CUstream stream, CUevent event, unsigned flags))                                      \
  X(StreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream stream, CUstreamCaptureMode mode))                                  \
  X(StreamEndCapture, "cuStreamEndCapture", (CUstream stream, CUgraph * graph))                                                  \
  X(StreamIsCapturing, "cuStreamIsCapturing", (CUstream stream, CUstreamCaptureStatus * status))                                 \
  X(EventCreate, "cuEventCreate", (CUevent * event, unsigned flags))                                                             \
  X(EventDestroy, "cuEventDestroy_v2", (CUevent event))                                                                          \
  X(EventRecord, "cuEventRecord", (CUevent event, CUstream stream))                                                              \
  X(EventSynchronize, "cuEventSynchronize", (CUevent event))                                                                     \
  X(EventElapsedTime, "cuEventElapsedTime", (float* milliseconds, CUevent begin, CUevent end))                                   \
  X(GraphInstantiate, "cuGraphInstantiateWithFlags", (CUgraphExec * exec, CUgraph graph, unsigned long long flags))              \
  X(GraphLaunch, "cuGraphLaunch", (CUgraphExec exec, CUstream stream))                                                           \
  X(GraphDestroy, "cuGraphDestroy", (CUgraph graph))                                                                             \
  X(GraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec exec))                                                                  \
  X(ModuleLoadData, "cuModuleLoadData", (CUmodule * module, const void* image))                                                  \
  X(ModuleGetFunction, "cuModuleGetFunction", (CUfunction * function, CUmodule module, const char* name))                        \
  X(FuncGetAttribute, "cuFuncGetAttribute", (int* value, CUfunction_attribute which, CUfunction function))                       \
  X(FuncSetAttribute, "cuFuncSetAttribute", (CUfunction function, CUfunction_attribute which, int value))                        \
  X(LaunchKernelEx, "cuLaunchKernelEx", (const CUlaunchConfig* config, CUfunction function, void** parameters, void** extra))    \
  X(TensorMapEncodeTiled, "cuTensorMapEncodeTiled",                                                                              \
    (void* map, int type, unsigned dimensions, void* data, const uint64_t* extent, const uint64_t* strides, const unsigned* box, \
     const unsigned* steps, int interleave, int swizzle, int promotion, int fill))                                               \
  X(OccupancyMaxActiveBlocks, "cuOccupancyMaxActiveBlocksPerMultiprocessor",                                                     \
    (int* blocks, CUfunction function, int threads, size_t shared_bytes))                                                        \
  X(OccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters", (int* clusters, CUfunction function, const CUlaunchConfig* config))

struct DriverApi {
#define BILLFISH_DRIVER_MEMBER(member, symbol, parameters) CUresult(*member) parameters = nullptr;
  BILLFISH_DRIVER_API(BILLFISH_DRIVER_MEMBER)
#undef BILLFISH_DRIVER_MEMBER
};

/// Opens `library` (never closed), resolves every entry point and calls cuInit. Driver() does this once with libcuda.so.1.
Result<DriverApi> OpenDriver(const char* library);

}  // namespace billfish::cuda
