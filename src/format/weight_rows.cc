// Selecting, concatenating and stacking rows: numbers are moved or repeated, never changed.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "billfish/weight.h"
#include "core/status_macros.h"
#include "format/scale_codec.h"

namespace billfish {
namespace {

// Appends rows of weights to the arrays of a plain form. `target` has the code book and group of every weight; its scale dtype is
// theirs or fp32, and its group_rows is theirs or 1.
class RowWriter {
 public:
  explicit RowWriter(const QuantScheme& target) : target_(target) {}

  void Reserve(size_t codes, size_t scales) {
    codes_.reserve(codes);
    scales_.reserve(scales);
  }

  // Needs group_rows = 1 in the target.
  void AppendRow(const PackedWeight& weight, int64_t e, int64_t n) {
    AppendCodes(weight, e, n);
    if (!target_.has_scale()) return;
    const int64_t rows = weight.scheme().group_rows;
    AppendScaleRow(weight, e, rows == 0 ? 0 : n / rows);
    AppendRowScale(weight, e, n);
  }

  void AppendExpert(const PackedWeight& weight, int64_t e) {
    const bool keep_blocks = target_.group_rows == weight.scheme().group_rows;
    for (int64_t n = 0; n < weight.N(); ++n) {
      if (!keep_blocks) {
        AppendRow(weight, e, n);
        continue;
      }
      AppendCodes(weight, e, n);
      if (target_.has_scale()) AppendRowScale(weight, e, n);
    }
    if (!keep_blocks || !target_.has_scale()) return;
    for (int64_t r = 0; r < weight.scale_rows(); ++r) AppendScaleRow(weight, e, r);
  }

  WeightParts Finish(std::vector<int32_t> perm) && {
    WeightParts parts;
    parts.codes = Bytes::Own(std::move(codes_));
    parts.scales = Bytes::Own(std::move(scales_));
    parts.zeros = Bytes::Own(std::move(zeros_));
    parts.row_scale = std::move(row_scale_);
    parts.perm = std::move(perm);
    return parts;
  }

 private:
  void AppendCodes(const PackedWeight& weight, int64_t e, int64_t n) {
    const std::byte* row = weight.parts().codes.data() + (e * weight.N() + n) * weight.row_bytes();
    codes_.insert(codes_.end(), row, row + weight.row_bytes());
  }

  void AppendScaleRow(const PackedWeight& weight, int64_t e, int64_t r) {
    const WeightParts& parts = weight.parts();
    const int64_t first = (e * weight.scale_rows() + r) * weight.groups();
    const DType from = weight.scheme().scale;
    if (from == target_.scale) {
      const int64_t size = DTypeBits(from) / 8;
      const std::byte* scales = parts.scales.data() + first * size;
      scales_.insert(scales_.end(), scales, scales + weight.groups() * size);
    } else {
      for (int64_t g = 0; g < weight.groups(); ++g) {
        const float scale = format::LoadScale(from, parts.scales.data(), first + g);
        const auto bytes = std::as_bytes(std::span<const float>(&scale, 1));
        scales_.insert(scales_.end(), bytes.begin(), bytes.end());
      }
    }
    if (target_.zero == ZeroPoint::kNone) return;
    if (parts.zeros.empty()) {
      zeros_.insert(zeros_.end(), static_cast<size_t>(weight.groups()), std::byte{8});
    } else {
      zeros_.insert(zeros_.end(), parts.zeros.data() + first, parts.zeros.data() + first + weight.groups());
    }
  }

  void AppendRowScale(const PackedWeight& weight, int64_t e, int64_t n) {
    if (!target_.row_scale) return;
    row_scale_.push_back(weight.scheme().row_scale ? weight.parts().row_scale[static_cast<size_t>(e * weight.N() + n)] : 1.0f);
  }

  QuantScheme target_;
  std::vector<std::byte> codes_, scales_, zeros_;
  std::vector<float> row_scale_;
};

Status CannotJoin(size_t i, const std::string& why) {
  return {ErrorCode::kShapeMismatch, fmt::format("weights 0 and {} cannot be joined: {}", i, why)};
}

// The scheme that can hold the numbers of every weight; group_rows is left to the caller.
Result<QuantScheme> CommonScheme(std::span<const PackedWeight> weights, const char* done) {
  if (weights.empty()) return Status(ErrorCode::kInvalidArgument, fmt::format("no weights to be {} were given; give at least one", done));
  QuantScheme common = weights[0].scheme();
  for (size_t i = 0; i < weights.size(); ++i) {
    const PackedWeight& weight = weights[i];
    const QuantScheme& scheme = weight.scheme();
    if (weight.E() != 1) {
      return Status(
          ErrorCode::kShapeMismatch,
          fmt::format("weight {} has {} experts; only single weights can be {}, take them apart with Expert() first", i, weight.E(), done));
    }
    if (scheme.codes != common.codes || scheme.group != common.group) {
      return CannotJoin(i, fmt::format("their schemes are {} and {}", weights[0].scheme().Name(), scheme.Name()));
    }
    if (weight.K() != weights[0].K()) return CannotJoin(i, fmt::format("their K are {} and {}", weights[0].K(), weight.K()));
    if (scheme.scale != common.scale) common.scale = DType::kF32;
    if (scheme.zero == ZeroPoint::kPerGroup) common.zero = ZeroPoint::kPerGroup;
    common.row_scale |= scheme.row_scale;
  }
  return common;
}

template <class Size>
size_t Total(std::span<const PackedWeight> weights, Size size) {
  return std::accumulate(weights.begin(), weights.end(), size_t{0}, [&](size_t sum, const PackedWeight& w) { return sum + size(w); });
}

void ReserveFor(std::span<const PackedWeight> weights, RowWriter& writer) {
  writer.Reserve(Total(weights, [](const PackedWeight& w) { return w.parts().codes.size(); }),
                 Total(weights, [](const PackedWeight& w) { return w.parts().scales.size(); }));
}

}  // namespace

Result<PackedWeight> PackedWeight::SelectRows(std::span<const int64_t> order) const {
  std::vector<bool> seen(static_cast<size_t>(N_), false);
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] >= 0 && order[i] < N_ && !seen[static_cast<size_t>(order[i])]) {
      seen[static_cast<size_t>(order[i])] = true;
      continue;
    }
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("row order entry {} is {}, which is {}; give distinct rows of 0..{}", i, order[i],
                              order[i] < 0 || order[i] >= N_ ? "out of range" : "there twice", N_ - 1));
  }
  QuantScheme target = scheme_;
  target.group_rows = 1;
  RowWriter writer(target);
  const auto rows = static_cast<size_t>(E_) * order.size();
  writer.Reserve(rows * static_cast<size_t>(row_bytes()), rows * static_cast<size_t>(groups() * (DTypeBits(target.scale) / 8)));
  for (int64_t e = 0; e < E_; ++e) {
    for (int64_t n : order) writer.AppendRow(*this, e, n);
  }
  return FromParts(target, E_, static_cast<int64_t>(order.size()), K_, std::move(writer).Finish(parts_.perm));
}

Result<PackedWeight> PackedWeight::ConcatRows(std::span<const PackedWeight> weights) {
  BILLFISH_ASSIGN_OR_RETURN(QuantScheme target, CommonScheme(weights, "concatenated"));
  int64_t N = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i].parts().perm != weights[0].parts().perm) {
      return CannotJoin(i, "they order their columns differently (act-order); keep them as separate linears");
    }
    // A block of rows may not reach from one weight into the next.
    const int64_t rows = weights[i].scheme().group_rows;
    const bool last = i + 1 == weights.size();
    if (weights.size() > 1 && (rows != target.group_rows || rows == 0 || (!last && weights[i].N() % rows != 0))) target.group_rows = 1;
    N += weights[i].N();
  }
  RowWriter writer(target);
  ReserveFor(weights, writer);
  // Scales of a kept block structure follow in the same order as the rows.
  for (const PackedWeight& weight : weights) writer.AppendExpert(weight, 0);
  return FromParts(target, 1, N, weights[0].K(), std::move(writer).Finish(weights[0].parts().perm));
}

Result<PackedWeight> PackedWeight::StackExperts(std::span<const PackedWeight> weights) {
  BILLFISH_ASSIGN_OR_RETURN(QuantScheme target, CommonScheme(weights, "stacked"));
  bool any_perm = false;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i].N() != weights[0].N()) return CannotJoin(i, fmt::format("their N are {} and {}", weights[0].N(), weights[i].N()));
    if (weights[i].scheme().group_rows != weights[0].scheme().group_rows) target.group_rows = 1;
    any_perm |= !weights[i].parts().perm.empty();
  }
  RowWriter writer(target);
  ReserveFor(weights, writer);
  std::vector<int32_t> perm;
  for (const PackedWeight& weight : weights) {
    writer.AppendExpert(weight, 0);
    if (!any_perm) continue;
    const std::vector<int32_t>& own = weight.parts().perm;
    const size_t first = perm.size();
    perm.insert(perm.end(), own.begin(), own.end());
    perm.resize(first + static_cast<size_t>(weight.K()));
    if (own.empty()) std::iota(perm.begin() + static_cast<std::ptrdiff_t>(first), perm.end(), 0);
  }
  return FromParts(target, static_cast<int64_t>(weights.size()), weights[0].N(), weights[0].K(), std::move(writer).Finish(std::move(perm)));
}

}  // namespace billfish
