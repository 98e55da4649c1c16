#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

Status Corrupt(std::string message) { return {ErrorCode::kCorruptFile, std::move(message)}; }

struct Entry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Follows the JSON as it is read, so that a duplicate name is seen and nothing is built that the format does not have.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string error;

  bool null() override { return Scalar("null"); }
  bool boolean(bool) override { return Scalar("a boolean"); }
  bool number_float(number_float_t, const string_t& text) override { return Scalar(("the number " + text).c_str()); }
  bool binary(binary_t&) override { return Scalar("binary data"); }
  bool number_integer(number_integer_t value) override { return Scalar(fmt::format("the negative number {}", value).c_str()); }
  bool number_unsigned(number_unsigned_t value) override {
    if (skipped_depth_ > 0) return true;
    if (in_array_) {
      (field_ == Field::kShape ? entries.back().shape : entries.back().offsets).push_back(value);
      return true;
    }
    return Scalar("a number");
  }
  bool string(string_t& value) override {
    if (skipped_depth_ > 0) return true;
    if (depth_ == 2 && in_metadata_) {
      metadata[key_] = value;
      return true;
    }
    if (depth_ == 2 && field_ == Field::kDtype) {
      entries.back().dtype = value;
      return true;
    }
    return Scalar("a string");
  }
  bool start_object(size_t) override {
    if (skipped_depth_ > 0 || field_ == Field::kOther) return ++skipped_depth_, true;
    if (depth_ == 1) in_metadata_ = key_ == "__metadata__";
    if (depth_ == 1 && !in_metadata_) entries.push_back({key_, {}, {}, {}});
    if (depth_ >= 2) return Fail(fmt::format("an object inside \"{}\" where a value was expected", name_));
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (skipped_depth_ > 0) return EndSkipped();
    --depth_;
    field_ = Field::kNone;
    return true;
  }
  bool start_array(size_t) override {
    if (skipped_depth_ > 0 || field_ == Field::kOther) return ++skipped_depth_, true;
    if (depth_ == 2 && !in_array_ && (field_ == Field::kShape || field_ == Field::kOffsets)) return in_array_ = true;
    return Fail(fmt::format("a list {} where none belongs", Place()));
  }
  bool end_array() override {
    if (skipped_depth_ > 0) return EndSkipped();
    in_array_ = false;
    return true;
  }
  bool key(string_t& value) override {
    if (skipped_depth_ > 0) return true;
    key_ = value;
    if (depth_ == 1) {
      name_ = value;
      field_ = Field::kNone;
      if (!names_.insert(value).second) return Fail(fmt::format("the name \"{}\" appears twice", value));
      return true;
    }
    if (in_metadata_) return true;
    Entry& entry = entries.back();
    bool* seen = nullptr;
    if (value == "dtype")
      field_ = Field::kDtype, seen = &entry.has_dtype;
    else if (value == "shape")
      field_ = Field::kShape, seen = &entry.has_shape;
    else if (value == "data_offsets")
      field_ = Field::kOffsets, seen = &entry.has_offsets;
    else
      field_ = Field::kOther;
    if (seen != nullptr && std::exchange(*seen, true)) return Fail(fmt::format("\"{}\" has the field {} twice", name_, value));
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(fmt::format("invalid JSON at byte {}", position));
  }

 private:
  enum class Field { kNone, kDtype, kShape, kOffsets, kOther };

  std::string Place() const { return depth_ < 2 ? "at the top level" : fmt::format("in \"{}\"", name_); }
  bool Fail(std::string message) {
    if (error.empty()) error = std::move(message);
    return false;
  }
  bool Scalar(const char* what) {
    if (skipped_depth_ > 0) return true;
    if (depth_ == 2 && !in_metadata_ && field_ == Field::kOther && !in_array_) return true;  // unknown fields are ignored
    return Fail(fmt::format("{} {} where something else was expected", what, Place()));
  }
  bool EndSkipped() {
    --skipped_depth_;
    return true;
  }

  int depth_ = 0;
  int skipped_depth_ = 0;
  bool in_array_ = false;
  bool in_metadata_ = false;
  Field field_ = Field::kNone;
  std::string key_, name_;
  std::set<std::string> names_;
};

// Bytes of the tensor, or kCorruptFile when the product does not fit or is no whole number of bytes.
Result<uint64_t> TensorBytes(const Entry& entry, DType dtype) {
  uint64_t count = 1;
  for (const uint64_t extent : entry.shape) {
    if (extent > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) || __builtin_mul_overflow(count, extent, &count)) {
      return Corrupt(fmt::format("the shape of tensor \"{}\" has more elements than 64 bits can count", entry.name));
    }
  }
  uint64_t bits = 0;
  if (__builtin_mul_overflow(count, static_cast<uint64_t>(DTypeBits(dtype)), &bits)) {
    return Corrupt(fmt::format("the shape of tensor \"{}\" has more bits than 64 bits can count", entry.name));
  }
  if (bits % 8 != 0) return Corrupt(fmt::format("tensor \"{}\" has {} bits, which is no whole number of bytes", entry.name, bits));
  return bits / 8;
}

Result<TensorInfo> ToInfo(const Entry& entry, uint64_t data_start, uint64_t data_bytes) {
  if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets || entry.offsets.size() != 2) {
    return Corrupt(fmt::format("tensor \"{}\" must have dtype, shape and two data_offsets", entry.name));
  }
  const Result<DType> dtype = DTypeByName(entry.dtype);
  if (!dtype.ok()) return Corrupt(fmt::format("tensor \"{}\" has the unknown dtype \"{}\"", entry.name, entry.dtype));
  BILLFISH_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(entry, *dtype));
  const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
  if (end < begin || end > data_bytes) {
    return Corrupt(fmt::format("tensor \"{}\" lies at [{}, {}), outside the {} bytes of tensor data: the file is truncated or damaged",
                               entry.name, begin, end, data_bytes));
  }
  if (end - begin != bytes) {
    return Corrupt(
        fmt::format("tensor \"{}\" needs {} bytes by its dtype and shape; its offsets give it {}", entry.name, bytes, end - begin));
  }
  TensorInfo info;
  info.name = entry.name;
  info.dtype = *dtype;
  info.shape.assign(entry.shape.begin(), entry.shape.end());
  info.bytes = static_cast<size_t>(bytes);
  info.file_offset = static_cast<size_t>(data_start + begin);
  return info;
}

// The sorted tensors must tile the data from its first byte to its last.
Status CheckCoverage(std::vector<TensorInfo>& tensors, uint64_t data_start, uint64_t file_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.file_offset, a.file_offset + a.bytes) < std::pair(b.file_offset, b.file_offset + b.bytes);
  });
  uint64_t next = data_start;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.file_offset != next) {
      return Corrupt(fmt::format("tensor \"{}\" begins at byte {} of the data and the one before it ends at {}: {}", tensor.name,
                                 tensor.file_offset - data_start, next - data_start,
                                 tensor.file_offset < next ? "tensors overlap" : "there is a hole"));
    }
    next += tensor.bytes;
  }
  if (next != file_bytes) return Corrupt(fmt::format("{} bytes follow the last tensor", file_bytes - next));
  return OkStatus();
}

}  // namespace

Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file) {
  if (file.size() < 8)
    return Corrupt(fmt::format("{} bytes are too few for a safetensors file, which starts with 8 bytes of length", file.size()));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes) {
    return Corrupt(
        fmt::format("the header claims {} bytes; at most {} are allowed: this is no safetensors file", header_bytes, kMaxHeaderBytes));
  }
  if (header_bytes > file.size() - 8) {
    return Corrupt(
        fmt::format("the header claims {} bytes and the file has {} after its length: it is truncated", header_bytes, file.size() - 8));
  }
  const char* text = reinterpret_cast<const char*>(file.data()) + 8;
  if (header_bytes == 0 || text[0] != '{') return Corrupt("the header does not begin with '{'");
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(text, text + header_bytes, &reader)) return Corrupt("the header is damaged: " + reader.error);

  SafetensorsHeader header;
  header.metadata = std::move(reader.metadata);
  const uint64_t data_start = 8 + header_bytes;
  header.tensors.reserve(reader.entries.size());
  for (const Entry& entry : reader.entries) {
    BILLFISH_ASSIGN_OR_RETURN(TensorInfo info, ToInfo(entry, data_start, file.size() - data_start));
    header.tensors.push_back(std::move(info));
  }
  BILLFISH_RETURN_IF_ERROR(CheckCoverage(header.tensors, data_start, file.size()));
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  return header;
}

}  // namespace billfish::checkpoint
