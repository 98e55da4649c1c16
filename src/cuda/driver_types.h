// The types, enumerators and attribute numbers of the CUDA driver that billfish uses, so that no toolkit is needed to build.
//
// Source: the CUDA Driver API reference, version 13.0. The numbers and layouts are its binary interface, stable since CUDA 12.0.
// Everything lies in billfish::cuda, so that a program may include <cuda.h> beside it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace billfish::cuda {

using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;

/// Error codes; those without a name here are described by the driver itself.
enum CUresult : int {
  kCudaSuccess = 0,
  kCudaErrorInvalidValue = 1,
  kCudaErrorOutOfMemory = 2,
  kCudaErrorDeinitialized = 4,
  kCudaErrorStubLibrary = 34,
  kCudaErrorNoDevice = 100,
  kCudaErrorInvalidDevice = 101,
  kCudaErrorInvalidImage = 200,
  kCudaErrorInvalidContext = 201,
  kCudaErrorNoBinaryForGpu = 209,
  kCudaErrorNotReady = 600,
};

enum CUdevice_attribute : int {
  kDeviceMultiprocessorCount = 16,
  kDeviceL2CacheBytes = 38,
  kDeviceComputeCapabilityMajor = 75,
  kDeviceComputeCapabilityMinor = 76,
  kDeviceMaxSharedBytesPerBlock = 97,  ///< after opting in by kFunctionMaxDynamicSharedBytes
};

enum CUfunction_attribute : int {
  kFunctionLocalBytes = 3,
  kFunctionRegisters = 4,
  kFunctionMaxDynamicSharedBytes = 8,
  kFunctionSharedCarveout = 9,  ///< percent of an SM's cache that is shared memory, if possible
  kFunctionNonPortableClusterAllowed = 14,
};

// What cuTensorMapEncodeTiled takes.
inline constexpr int kTensorUint16 = 1, kTensorNoInterleave = 0, kTensorSwizzle128 = 3, kTensorL2Promotion256 = 3, kTensorFillZeros = 0;

inline constexpr unsigned kStreamNonBlocking = 1;
inline constexpr unsigned kEventDefault = 0;
inline constexpr unsigned kEventDisableTiming = 2;

enum CUstreamCaptureMode : int { kCaptureGlobal = 0, kCaptureThreadLocal = 1, kCaptureRelaxed = 2 };
enum CUstreamCaptureStatus : int { kCaptureNone = 0, kCaptureActive = 1, kCaptureInvalidated = 2 };

enum CUlaunchAttributeID : int {
  kLaunchClusterDimension = 4,
  kLaunchProgrammaticStreamSerialization = 6,
};

union CUlaunchAttributeValue {
  char pad[64];
  struct {
    unsigned x, y, z;
  } cluster_dim;
  int programmatic_stream_serialization_allowed;
};

struct CUlaunchAttribute {
  CUlaunchAttributeID id;
  char pad[8 - sizeof(CUlaunchAttributeID)];
  CUlaunchAttributeValue value;
};

struct CUlaunchConfig {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
  CUstream stream;
  CUlaunchAttribute* attributes;
  unsigned num_attributes;
};

static_assert(sizeof(CUlaunchAttributeValue) == 64 && sizeof(CUlaunchAttribute) == 72 && offsetof(CUlaunchAttribute, value) == 8);
static_assert(sizeof(CUlaunchConfig) == 56 && offsetof(CUlaunchConfig, stream) == 32 && offsetof(CUlaunchConfig, num_attributes) == 48);

}  // namespace billfish::cuda
