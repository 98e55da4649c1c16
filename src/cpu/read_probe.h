// A read of memory at full speed, short enough to repeat around every timed run: on shared machines the bandwidth changes by the minute.
#pragma once

#include <cstddef>

#include "billfish/status.h"
#include "cpu/huge_buffer.h"

namespace billfish::cpu {

class ReadProbe {
 public:
  static constexpr int kPasses = 4;

  /// Allocates and touches kPasses * `bytes` on 2 MiB pages where the system has them. kOutOfMemory.
  static Result<ReadProbe> Create(int threads, size_t bytes);
  /// Reads `bytes`, one stream per thread, and returns bytes per second. Passes go round a buffer of kPasses times that: reading the same
  /// 128 MiB again finds a tenth of it in a 32 MiB cache whose replacement is not strictly by age.
  double Measure();

 private:
  ReadProbe(HugeBuffer buffer, int threads, size_t bytes) : buffer_(std::move(buffer)), threads_(threads), bytes_(bytes) {}
  HugeBuffer buffer_;
  int threads_;
  size_t bytes_;  ///< of one pass
  int pass_ = 0;
};

}  // namespace billfish::cpu
