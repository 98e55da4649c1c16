#include "cuda_meter.h"

#include <algorithm>
#include <vector>

#include "timing.h"

namespace billfish::bench {
namespace {

constexpr int kReplays = 15;

// Calls of a graph at least. To launch a graph costs several microseconds, which a call that reads 200 MB, two of them a round, would
// otherwise bear alone.
constexpr int64_t kCallsOfGraph = 32;

}  // namespace

int64_t CudaCopiesOf(size_t bytes) { return std::max<int64_t>(2, static_cast<int64_t>((kCudaRotationBytes + bytes - 1) / bytes)); }

Result<CudaMeter> CudaMeter::Create(Device device) {
  CudaMeter meter;
  meter.device_ = device;
  Result<Stream> stream = Stream::Create(device);
  if (!stream) return stream.error();
  meter.stream_ = std::move(stream).value();
  return meter;
}

Result<std::vector<double>> CudaMeter::Times(const CudaWorkload& workload) const {
  const auto run = [&](int64_t rounds) -> Status {
    for (int64_t call = 0; call < rounds * workload.copies; ++call) {
      if (Status status = workload.run(call % workload.copies); !status.ok()) return status;
    }
    return {};
  };
  if (Status status = run(1); !status.ok()) return status;
  if (Status status = stream_.Synchronize(); !status.ok()) return status;
  const int64_t rounds = (kCallsOfGraph + workload.copies - 1) / workload.copies;
  const Result<CudaGraph> graph = CudaGraph::Capture(stream_, [&] { return run(rounds); });
  if (!graph) return graph.error();
  Result<CudaTimer> timer = CudaTimer::Create(device_);
  if (!timer) return timer.error();
  std::vector<double> times;
  for (int replay = 0; replay < kReplays + 2; ++replay) {
    if (Status status = timer->Start(stream_.get()); !status.ok()) return status;
    if (Status status = graph->Launch(stream_.get()); !status.ok()) return status;
    if (Status status = timer->Stop(stream_.get()); !status.ok()) return status;
    const Result<double> us = timer->ElapsedUs();
    if (!us) return us.error();
    // The first two bring clocks and page tables up.
    if (replay >= 2) times.push_back(*us * 1e-6 / static_cast<double>(rounds * workload.copies));
  }
  return times;
}

Result<double> CudaMeter::MedianUs(const CudaWorkload& workload) const {
  const Result<std::vector<double>> times = Times(workload);
  if (!times) return times.error();
  return Quantile(*times, 0.5) * 1e6;
}

Status CudaMeter::Measure(const CudaWorkload& workload, const CudaLimits& limits, Row& row) const {
  const Result<std::vector<double>> times = Times(workload);
  if (!times) return times.error();
  FillRow(*times, {workload.bytes, workload.operations}, RoofOf(limits), row);
  return {};
}

}  // namespace billfish::bench
