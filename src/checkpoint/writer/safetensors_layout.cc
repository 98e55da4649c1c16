#include "checkpoint/writer/safetensors_layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "billfish/safetensors.h"
#include "checkpoint/writer/durable_file.h"
#include "core/status_macros.h"

namespace billfish {
namespace checkpoint {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

Result<std::string> QuotedName(const std::string& name) {
  if (name == "__metadata__") {
    return Status(ErrorCode::kInvalidArgument, "a tensor named __metadata__ was given to write; the format keeps that name for itself");
  }
  // Bytes that are no UTF-8 are replaced or left out; either way a difference shows them.
  const nlohmann::json json = name;
  std::string quoted = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (quoted != json.dump(-1, ' ', false, nlohmann::json::error_handler_t::ignore)) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("a tensor name was given that is not valid UTF-8: {}", quoted));
  }
  return quoted;
}

}  // namespace

uint64_t OutputTensor::bytes() const {
  uint64_t bits = static_cast<uint64_t>(DTypeBits(dtype));
  for (const int64_t extent : shape) bits *= static_cast<uint64_t>(extent);
  return bits / 8;
}

Result<SafetensorsLayout> LayOutSafetensors(std::span<const OutputTensor> tensors, const std::map<std::string, std::string>& metadata) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int bits_a = DTypeBits(tensors[a].dtype), bits_b = DTypeBits(tensors[b].dtype);
    return bits_a != bits_b ? bits_a > bits_b : tensors[a].name < tensors[b].name;
  });
  SafetensorsLayout layout;
  layout.offsets.resize(tensors.size());
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":" + nlohmann::json(metadata).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  std::vector<std::string_view> names;
  uint64_t next = 0;
  for (const size_t i : order) {
    const OutputTensor& tensor = tensors[i];
    BILLFISH_ASSIGN_OR_RETURN(const std::string name, QuotedName(tensor.name));
    names.push_back(tensor.name);
    layout.offsets[i] = next;
    text += fmt::format(R"({}{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", text.size() > 1 ? "," : "", name,
                        DTypeName(tensor.dtype), fmt::join(tensor.shape, ","), next, next + tensor.bytes());
    next += tensor.bytes();
  }
  text += "}";
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("two tensors named {} were given to write; names must differ", *twice));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} tensors need a header of {} bytes; a safetensors file may have {}: use "
                                                           "more and smaller files",
                                                           tensors.size(), text.size(), kMaxHeaderBytes));
  }
  const uint64_t header_bytes = text.size();
  layout.header.assign(8, '\0');
  std::memcpy(layout.header.data(), &header_bytes, 8);
  layout.header += text;
  for (uint64_t& offset : layout.offsets) offset += layout.header.size();
  layout.file_bytes = layout.header.size() + next;
  return layout;
}

}  // namespace checkpoint

Status WriteSafetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<checkpoint::OutputTensor> planned;
  for (const SafetensorsEntry& tensor : tensors) {
    uint64_t bits = static_cast<uint64_t>(DTypeBits(tensor.dtype));
    for (const int64_t extent : tensor.shape) {
      if (extent < 0 || __builtin_mul_overflow(bits, static_cast<uint64_t>(extent), &bits)) {
        return {ErrorCode::kInvalidArgument,
                fmt::format("{} was given with an extent of {}; no tensor has that shape", tensor.name, extent)};
      }
    }
    if (bits % 8 != 0 || bits / 8 != tensor.bytes.size()) {
      return {ErrorCode::kInvalidArgument, fmt::format("{} was given {} bytes; its dtype {} and shape need {} bits", tensor.name,
                                                       tensor.bytes.size(), DTypeName(tensor.dtype), bits)};
    }
    planned.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  BILLFISH_ASSIGN_OR_RETURN(const checkpoint::SafetensorsLayout layout, checkpoint::LayOutSafetensors(planned, metadata));
  BILLFISH_ASSIGN_OR_RETURN(checkpoint::DurableFile file, checkpoint::DurableFile::Create(path, layout.file_bytes));
  BILLFISH_RETURN_IF_ERROR(file.Write(0, std::as_bytes(std::span<const char>(layout.header))));
  for (size_t i = 0; i < tensors.size(); ++i) BILLFISH_RETURN_IF_ERROR(file.Write(layout.offsets[i], tensors[i].bytes));
  return file.Commit();
}

}  // namespace billfish
