// Where the loader takes a model's tensors from, by the names that its architecture gives them: a checkpoint, or random numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billfish/checkpoint.h"
#include "model/architecture.h"

namespace billfish::model {

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  /// Whether there is a tensor that a model may have or not.
  virtual bool HasTensor(const std::string& tensor) const = 0;
  /// Whether there is a matrix, where an architecture knows several names.
  virtual bool HasModule(const std::string& module) const = 0;
  /// Whether the matrix is stored as 16- or 32-bit numbers in the order of the architecture's plain tensors.
  virtual bool IsPlain(const std::string& module) const = 0;
  /// kNotFound, or kCorruptFile with both shapes where the tensor has another.
  virtual Result<std::vector<float>> Vector(const std::string& tensor, int64_t size) const = 0;
  virtual Result<PackedWeight> Matrix(const std::string& module, int64_t E, int64_t N, int64_t K) const = 0;
};

class CheckpointSource : public TensorSource {
 public:
  /// `checkpoint` must outlive the source.
  explicit CheckpointSource(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  bool HasTensor(const std::string& tensor) const override { return checkpoint_.Find(tensor) != nullptr; }
  bool HasModule(const std::string& module) const override { return checkpoint_.Describe(module).ok(); }
  bool IsPlain(const std::string& module) const override;
  Result<std::vector<float>> Vector(const std::string& tensor, int64_t size) const override;
  Result<PackedWeight> Matrix(const std::string& module, int64_t E, int64_t N, int64_t K) const override;

 private:
  const Checkpoint& checkpoint_;
};

/// Has every tensor that it is asked for and none that is optional: matrices as PackedWeight::Random makes them, expert matrices as
/// stacks, norms near 1, biases and sinks within 0.1 of 0. A tensor's numbers depend on the seed and its name alone.
class RandomSource : public TensorSource {
 public:
  /// Both must outlive the source.
  RandomSource(const RandomModel& spec, const Architecture& architecture) : spec_(spec), architecture_(architecture) {}

  bool HasTensor(const std::string& tensor) const override;
  bool HasModule(const std::string& module) const override;
  bool IsPlain(const std::string& module) const override;
  Result<std::vector<float>> Vector(const std::string& tensor, int64_t size) const override;
  Result<PackedWeight> Matrix(const std::string& module, int64_t E, int64_t N, int64_t K) const override;

 private:
  QuantScheme SchemeOf(const std::string& module) const;
  uint64_t SeedOf(const std::string& name) const;

  const RandomModel& spec_;
  const Architecture& architecture_;
};

}  // namespace billfish::model
