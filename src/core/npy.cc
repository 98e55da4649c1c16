#include "core/npy.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "billfish/npy.h"
#include "core/read_file.h"
#include "core/status_macros.h"

namespace billfish {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxFileBytes = size_t{1} << 34;
constexpr size_t kMaxRankOfFile = 32;

Status Corrupt(std::string_view what) { return {ErrorCode::kCorruptFile, fmt::format("not a readable .npy file: {}", what)}; }

/// The header is a Python dictionary literal: {'descr': '<i4', 'fortran_order': False, 'shape': (3,), }
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view text) : text_(text) {}

  Status Read(NpyArray& array) {
    bool has_descr = false, has_order = false, has_shape = false;
    if (!Accept("{")) return Corrupt("its header does not start with {");
    while (!Accept("}")) {
      std::string key;
      if (!String(key) || !Accept(":")) return Corrupt("its header is not a dictionary");
      bool read = false;
      if (key == "descr") {
        read = has_descr = String(array.descr);
      } else if (key == "fortran_order") {
        if (Accept("True")) return {ErrorCode::kUnsupported, "the .npy file is in Fortran order; save it with numpy.ascontiguousarray"};
        read = has_order = Accept("False");
      } else if (key == "shape") {
        read = has_shape = Shape(array.shape);
      }
      if (!read) return Corrupt(fmt::format("its header has no usable value for '{}'", key));
      if (!Accept(",") && Peek() != '}') return Corrupt("its header lacks a comma");
    }
    if (!has_descr || !has_order || !has_shape) return Corrupt("its header lacks descr, fortran_order or shape");
    return {};
  }

 private:
  char Peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool Accept(std::string_view word) {
    Peek();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  bool String(std::string& out) {
    const char quote = Peek();
    if (quote != '\'' && quote != '"') return false;
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) return false;
    out = std::string(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return true;
  }
  bool Shape(std::vector<int64_t>& shape) {
    if (!Accept("(")) return false;
    while (!Accept(")")) {
      Peek();
      int64_t extent = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), extent);
      if (error != std::errc() || extent < 0 || shape.size() == kMaxRankOfFile) return false;
      at_ = static_cast<size_t>(end - text_.data());
      shape.push_back(extent);
      if (!Accept(",") && Peek() != ')') return false;
    }
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

template <class T>
Result<std::vector<int32_t>> ToIds(std::string_view data) {
  std::vector<int32_t> ids(data.size() / sizeof(T));
  for (size_t i = 0; i < ids.size(); ++i) {
    T value;
    std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
    if (!std::in_range<int32_t>(value) || value < 0) {
      return Status(ErrorCode::kInvalidArgument, fmt::format("element {} is {}, which is not a token id (0..2147483647)", i, value));
    }
    // Not negative, so the way over unsigned is exact; it shows that no signed char is meant.
    ids[i] = static_cast<int32_t>(static_cast<std::make_unsigned_t<T>>(value));
  }
  return ids;
}

Result<std::vector<int32_t>> IdsOf(const NpyArray& array) {
  if (array.shape.size() != 1 && array.shape.size() != 2) {
    return Status(ErrorCode::kUnsupported, fmt::format("token ids must be an array of 1 or 2 dimensions, found {}", array.shape.size()));
  }
  const std::string_view type = std::string_view(array.descr).substr(1);
  if (type == "i1") return ToIds<int8_t>(array.data);
  if (type == "i2") return ToIds<int16_t>(array.data);
  if (type == "i4") return ToIds<int32_t>(array.data);
  if (type == "i8") return ToIds<int64_t>(array.data);
  if (type == "u1") return ToIds<uint8_t>(array.data);
  if (type == "u2") return ToIds<uint16_t>(array.data);
  if (type == "u4") return ToIds<uint32_t>(array.data);
  if (type == "u8") return ToIds<uint64_t>(array.data);
  return Status(ErrorCode::kUnsupported, fmt::format("token ids must be integers, found dtype '{}'", array.descr));
}

}  // namespace

Result<NpyArray> ParseNpy(std::string_view bytes) {
  if (!bytes.starts_with(kMagic) || bytes.size() < 10) return Corrupt("it does not start with \\x93NUMPY and a version");
  const int major = static_cast<unsigned char>(bytes[6]);
  if (major < 1 || major > 3)
    return Status(ErrorCode::kUnsupported, fmt::format(".npy version {} is not known; known are 1, 2 and 3", major));
  const size_t length_bytes = major == 1 ? 2 : 4;
  if (bytes.size() < 8 + length_bytes) return Corrupt("it ends inside its header");
  size_t header_bytes = 0;
  for (size_t i = 0; i < length_bytes; ++i) header_bytes |= size_t{static_cast<unsigned char>(bytes[8 + i])} << (8 * i);
  const std::string_view rest = bytes.substr(8 + length_bytes);
  if (header_bytes > rest.size()) return Corrupt(fmt::format("its header claims {} bytes, {} are there", header_bytes, rest.size()));

  NpyArray array;
  BILLFISH_RETURN_IF_ERROR(HeaderReader(rest.substr(0, header_bytes)).Read(array));
  const std::string_view descr = array.descr;
  const bool known_size = descr.size() == 3 && std::string_view("1248").find(descr[2]) != std::string_view::npos;
  const bool known_kind = known_size && (descr[1] == 'i' || descr[1] == 'u' || (descr[1] == 'f' && descr[2] != '1'));
  if (!known_kind || !(descr[0] == '<' || (descr[0] == '|' && descr[2] == '1'))) {
    return Status(ErrorCode::kUnsupported, fmt::format("dtype '{}' is not implemented; known are little-endian i1 i2 i4 i8, u1 u2 u4 u8, "
                                                       "f2 f4 f8",
                                                       descr));
  }
  array.item_bytes = static_cast<size_t>(descr[2] - '0');
  array.data = rest.substr(header_bytes);
  size_t expected = array.item_bytes;
  for (const int64_t extent : array.shape) {
    const auto factor = static_cast<size_t>(extent);
    if (factor != 0 && expected > std::numeric_limits<size_t>::max() / factor) return Corrupt("its shape has more elements than any file");
    expected *= factor;
  }
  if (array.data.size() != expected)
    return Corrupt(fmt::format("its shape needs {} bytes of data, {} are there", expected, array.data.size()));
  return array;
}

Result<std::vector<int32_t>> ReadNpyIds(const std::filesystem::path& path) {
  BILLFISH_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxFileBytes));
  const auto array = ParseNpy(bytes);
  if (!array.ok()) return array.error().WithContext(path.string());
  auto ids = IdsOf(*array);
  if (!ids.ok()) return ids.error().WithContext(path.string());
  return ids;
}

}  // namespace billfish
