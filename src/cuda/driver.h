// The CUDA driver, opened at run time: no toolkit at build time, one binary for machines with and without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "billfish/status.h"
#include "cuda/driver_types.h"

namespace billfish::cuda {

/// One function pointer per entry point of libcuda.so.1 that billfish calls, named without the prefix: Driver().value()->MemAlloc(...).
struct DriverApi;

/// Opens and initialises the driver once. kNotFound: one sentence that says what is missing (the library, a GPU) and what to do.
Result<const DriverApi*> Driver();

/// kDevice with the driver's own name and text of the error and what was being done, or ok.
Status Check(CUresult result, const char* what);

}  // namespace billfish::cuda
