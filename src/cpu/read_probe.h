// A read of memory at full speed, short enough to repeat around every timed run: on shared machines the bandwidth changes by the minute.
#pragma once

#include <cstddef>

#include "billfish/status.h"
#include "cpu/huge_buffer.h"

namespace billfish::cpu {

class ReadProbe {
 public:
  /// Allocates and touches `bytes` on 2 MiB pages where the system has them. kOutOfMemory.
  static Result<ReadProbe> Create(int threads, size_t bytes);
  /// Reads the buffer once, one stream per thread; bytes per second.
  double Measure() const;

 private:
  ReadProbe(HugeBuffer buffer, int threads, size_t bytes) : buffer_(std::move(buffer)), threads_(threads), bytes_(bytes) {}
  HugeBuffer buffer_;
  int threads_;
  size_t bytes_;
};

}  // namespace billfish::cpu
