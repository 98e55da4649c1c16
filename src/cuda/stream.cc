// Stream, CudaGraph and CudaTimer.
#include <fmt/format.h>

#include "billfish/cuda.h"
#include "core/status_macros.h"
#include "cuda/device.h"
#include "cuda/driver_api.h"
#include "cuda/stream_context.h"

namespace billfish {
namespace cuda {

Result<const GpuDevice*> GpuOf(Device device, const char* what) {
  if (device.kind != Device::Kind::kCuda) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} was asked for on a CPU device; pass Device{{Device::Kind::kCuda, index}}", what));
  }
  return GpuDevice::Get(device.index);
}

Status MakeStreamCurrent(CudaStream stream) {
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  CUcontext context = nullptr;
  if (stream != nullptr) {
    BILLFISH_RETURN_IF_ERROR(Check(api->StreamGetCtx(static_cast<CUstream>(stream), &context), "finding a stream's context"));
    return Check(api->CtxSetCurrent(context), "making the stream's context current");
  }
  BILLFISH_RETURN_IF_ERROR(Check(api->CtxGetCurrent(&context), "finding the thread's context"));
  if (context != nullptr) return OkStatus();
  BILLFISH_ASSIGN_OR_RETURN(const GpuDevice* gpu, GpuDevice::Get(0));
  return gpu->MakeCurrent();
}

}  // namespace cuda

using cuda::Check;
using cuda::Driver;
using cuda::DriverApi;

Stream::~Stream() {
  if (stream_ == nullptr) return;
  if (const auto api = Driver(); api.ok()) api.value()->StreamDestroy(static_cast<cuda::CUstream>(stream_));
}

Result<Stream> Stream::Create(Device device) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuOf(device, "a stream"));
  BILLFISH_RETURN_IF_ERROR(gpu->MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  cuda::CUstream handle = nullptr;
  BILLFISH_RETURN_IF_ERROR(Check(api->StreamCreate(&handle, cuda::kStreamNonBlocking), "creating a stream"));
  Stream stream;
  stream.stream_ = handle;
  stream.device_ = device.index;
  return stream;
}

Status Stream::Synchronize() const {
  BILLFISH_RETURN_IF_ERROR(cuda::MakeStreamCurrent(stream_));
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  return Check(api->StreamSynchronize(static_cast<cuda::CUstream>(stream_)), "the work on a stream");
}

CudaGraph::~CudaGraph() {
  if (graph_ == nullptr) return;
  if (const auto api = Driver(); api.ok()) api.value()->GraphExecDestroy(static_cast<cuda::CUgraphExec>(graph_));
}

Result<CudaGraph> CudaGraph::Capture(const Stream& stream, const std::function<Status()>& record) {
  if (stream.get() == nullptr) {
    return Status(ErrorCode::kInvalidArgument, "a graph was to be recorded from an empty Stream; pass one made by Stream::Create");
  }
  BILLFISH_RETURN_IF_ERROR(cuda::MakeStreamCurrent(stream.get()));
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  const auto on = static_cast<cuda::CUstream>(stream.get());
  BILLFISH_RETURN_IF_ERROR(Check(api->StreamBeginCapture(on, cuda::kCaptureThreadLocal), "beginning to record a graph"));
  const Status recorded = record();
  cuda::CUgraph graph = nullptr;
  const cuda::CUresult ended = api->StreamEndCapture(on, &graph);
  CudaGraph result;
  Status status = !recorded.ok() ? recorded : Check(ended, "recording a graph");
  if (status.ok()) {
    cuda::CUgraphExec exec = nullptr;
    status = Check(api->GraphInstantiate(&exec, graph, 0), "preparing a recorded graph");
    result.graph_ = exec;
  }
  if (graph != nullptr) api->GraphDestroy(graph);
  if (!status.ok()) return status;
  return result;
}

Status CudaGraph::Launch(CudaStream stream) const {
  if (graph_ == nullptr)
    return Status(ErrorCode::kInvalidArgument, "an empty CudaGraph was to be launched; record one with CudaGraph::Capture");
  BILLFISH_RETURN_IF_ERROR(cuda::MakeStreamCurrent(stream));
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  return Check(api->GraphLaunch(static_cast<cuda::CUgraphExec>(graph_), static_cast<cuda::CUstream>(stream)), "launching a graph");
}

CudaTimer::~CudaTimer() {
  const auto api = Driver();
  for (void* event : {begin_, end_}) {
    if (event != nullptr && api.ok()) api.value()->EventDestroy(static_cast<cuda::CUevent>(event));
  }
}

Result<CudaTimer> CudaTimer::Create(Device device) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuOf(device, "a timer"));
  BILLFISH_RETURN_IF_ERROR(gpu->MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  CudaTimer timer;
  for (void** point : {&timer.begin_, &timer.end_}) {
    cuda::CUevent event = nullptr;
    BILLFISH_RETURN_IF_ERROR(Check(api->EventCreate(&event, cuda::kEventDefault), "creating a timer"));
    *point = event;
  }
  return timer;
}

namespace {

Status Record(void* event, CudaStream stream) {
  if (event == nullptr) return Status(ErrorCode::kInvalidArgument, "an empty CudaTimer was used; make one with CudaTimer::Create");
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  if (stream == nullptr) BILLFISH_RETURN_IF_ERROR(cuda::MakeStreamCurrent(stream));
  return Check(api->EventRecord(static_cast<cuda::CUevent>(event), static_cast<cuda::CUstream>(stream)), "recording a point in time");
}

}  // namespace

Status CudaTimer::Start(CudaStream stream) { return Record(begin_, stream); }

Status CudaTimer::Stop(CudaStream stream) { return Record(end_, stream); }

Result<double> CudaTimer::ElapsedUs() const {
  if (end_ == nullptr) return Status(ErrorCode::kInvalidArgument, "an empty CudaTimer was used; make one with CudaTimer::Create");
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  BILLFISH_RETURN_IF_ERROR(Check(api->EventSynchronize(static_cast<cuda::CUevent>(end_)), "waiting for a point in time"));
  float milliseconds = 0;
  BILLFISH_RETURN_IF_ERROR(Check(api->EventElapsedTime(&milliseconds, static_cast<cuda::CUevent>(begin_), static_cast<cuda::CUevent>(end_)),
                                 "reading a timer (was it both started and stopped?)"));
  return static_cast<double>(milliseconds) * 1e3;
}

}  // namespace billfish
