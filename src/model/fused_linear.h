// Several matrices that read the same input, as one call where their schemes allow it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "billfish/checkpoint.h"
#include "billfish/linear.h"
#include "billfish/model.h"
#include "core/parallel.h"
#include "model/cuda_plain_linear.h"
#include "model/kernel_wish.h"

namespace billfish::model {

class FusedLinear {
 public:
  struct Part {
    std::string name;  ///< module in the checkpoint
    int64_t N;         ///< rows that the configuration expects
    PackedWeight weight;
    std::vector<float> bias;  ///< empty or [N]
  };

  /// Concatenates the rows of all parts; parts whose schemes differ stay matrices of their own. `name` is what modules() says of a
  /// concatenated one.
  /// Packed matrices are kept in `store` unless that is null.
  static Result<FusedLinear> Create(const std::string& name, std::vector<Part> parts, const ModelOptions& options, KernelWish& wish,
                                    const PanelStore* store);
  /// The same from what Create kept, without the weights of the parts. kNotFound if something is missing.
  static Result<FusedLinear> Map(const std::string& name, const std::vector<Part>& parts, const ModelOptions& options, KernelWish& wish,
                                 const PanelStore& store);

  /// y [M, N] f32 with N the sum of all parts; x [M, K].
  Status Forward(ConstTensorView x, TensorView y, ExecContext& ctx) const;
  size_t WorkspaceBytes(int64_t M) const;
  int64_t N() const { return n_; }
  /// The matrix as a GPU holds it row by row, or null: it is in several pieces, or is not kept like that.
  const CudaPlainLinear* plain() const { return pieces_.size() == 1 && pieces_[0].plain ? &*pieces_[0].plain : nullptr; }
  void Summarise(std::vector<ModuleSummary>& modules) const;

 private:
  struct Piece {
    std::string name;
    std::optional<Linear> linear;          ///< this, `plain` or both
    std::optional<CudaPlainLinear> plain;  ///< on a GPU: every call if there is no `linear`, else calls of few rows
    std::string plain_scheme;              ///< of a piece without `linear`

    int64_t N() const { return linear ? linear->N() : plain->N(); }
  };
  Status Add(const Part& part, const ModelOptions& options, KernelWish& wish, const PanelStore* store,
             FunctionRef<Result<Linear>(const LinearOptions&)> create);

  int64_t n_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace billfish::model
