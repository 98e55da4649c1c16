// ModelOptions::kernel while a model loads: granted to each matrix that it supports, an error if that is none.
#pragma once

#include <string>
#include <utility>

#include "billfish/status.h"

namespace billfish::model {

class KernelWish {
 public:
  explicit KernelWish(std::string kernel) : kernel_(std::move(kernel)) {}

  /// create(kernel) -> Result<T>, first with the wish, then, if that kernel cannot compute this matrix, with the free choice ("").
  template <class Create>
  auto Grant(Create create) -> decltype(create(std::string())) {
    if (kernel_.empty()) return create(std::string());
    auto wished = create(kernel_);
    if (wished.ok()) granted_ = true;
    if (wished.ok() || wished.error().code() != ErrorCode::kUnsupported) return wished;
    refusal_ = wished.error();
    return create(std::string());
  }

  /// The last refusal if no matrix took the kernel, else ok.
  Status Verdict() const {
    return kernel_.empty() || granted_ ? OkStatus() : refusal_.WithContext("the model has no matrix for kernel " + kernel_);
  }

 private:
  std::string kernel_;
  bool granted_ = false;
  Status refusal_;
};

}  // namespace billfish::model
