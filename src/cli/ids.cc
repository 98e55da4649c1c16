#include "cli/ids.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>

#include "billfish/checkpoint.h"
#include "billfish/npy.h"
#include "cli/options.h"

namespace billfish::cli {
namespace {

bool EndsWith(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool IsInteger(DType dtype) {
  return dtype == DType::kU8 || dtype == DType::kI8 || dtype == DType::kI16 || dtype == DType::kU16 || dtype == DType::kI32 ||
         dtype == DType::kU32 || dtype == DType::kI64 || dtype == DType::kU64;
}

template <class T>
int64_t Load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  if constexpr (sizeof(T) == 8 && std::is_unsigned_v<T>) return value > INT64_MAX ? INT64_MAX : static_cast<int64_t>(value);
  return static_cast<int64_t>(value);
}

int64_t Element(const std::byte* p, DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return Load<uint8_t>(p);
    case DType::kI8:
      return Load<int8_t>(p);
    case DType::kI16:
      return Load<int16_t>(p);
    case DType::kU16:
      return Load<uint16_t>(p);
    case DType::kI32:
      return Load<int32_t>(p);
    case DType::kU32:
      return Load<uint32_t>(p);
    case DType::kI64:
      return Load<int64_t>(p);
    default:
      return Load<uint64_t>(p);
  }
}

Result<std::vector<int32_t>> FromSafetensors(const std::string& path) {
  const Result<Checkpoint> file = Checkpoint::Open(path);
  if (!file) return file.error();
  const TensorInfo* chosen = nullptr;
  int candidates = 0;
  for (const TensorInfo& tensor : file->tensors()) {
    if (!IsInteger(tensor.dtype)) continue;
    ++candidates;
    if (candidates == 1 || tensor.name == "input_ids" || tensor.name == "ids") chosen = &tensor;
  }
  if (chosen == nullptr || (candidates > 1 && chosen->name != "input_ids" && chosen->name != "ids")) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} holds {} integer tensors; token ids are read from the only one, or from one "
                                                           "named input_ids or ids",
                                                           path, candidates));
  }
  const Result<Bytes> bytes = file->Read(chosen->name);
  if (!bytes) return bytes.error();
  const auto size = static_cast<size_t>(DTypeBits(chosen->dtype) / 8);
  std::vector<int32_t> ids;
  for (size_t at = 0; at + size <= bytes->size(); at += size) {
    const int64_t id = Element(bytes->data() + at, chosen->dtype);
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("{}: tensor {} has {} at index {}, which is no token id", path, chosen->name, id, at / size));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace

Result<std::vector<int32_t>> ReadIds(const std::string& source) {
  if (EndsWith(source, ".npy")) return ReadNpyIds(source);
  if (EndsWith(source, ".safetensors")) return FromSafetensors(source);
  std::vector<int32_t> ids;
  for (const std::string& item : SplitList(source)) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), id);
    if (error != std::errc() || end != item.data() + item.size() || id < 0) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("--ids got '{}'; give a .npy file, a .safetensors file or token ids with commas between them", source));
    }
    ids.push_back(id);
  }
  if (ids.empty()) return Status(ErrorCode::kInvalidArgument, "--ids is empty; give at least one token id");
  return ids;
}

Result<std::string> ReadText(const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const {
      if (file != stdin) std::fclose(file);
    }
  };
  const std::unique_ptr<std::FILE, Close> file(path == "-" ? stdin : std::fopen(path.c_str(), "rb"));
  const std::string name = path == "-" ? "standard input" : path;
  if (file == nullptr) {
    return Status(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                  fmt::format("{} cannot be opened: {}", name, std::strerror(errno)));
  }
  std::string text;
  char buffer[65536];
  size_t count;
  while ((count = std::fread(buffer, 1, sizeof buffer, file.get())) > 0) text.append(buffer, count);
  if (std::ferror(file.get()) != 0) return Status(ErrorCode::kIo, fmt::format("{} cannot be read: {}", name, std::strerror(errno)));
  return text;
}

}  // namespace billfish::cli
