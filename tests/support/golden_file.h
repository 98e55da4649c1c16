// Reads golden .safetensors files for the tests, apart from the library's own reader.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billfish/weight.h"
#include "core/float_formats.h"

namespace billfish::test {

/// BILLFISH_TEST_DATA, or where the build says the data is.
inline std::filesystem::path TestData() {
  const char* folder = std::getenv("BILLFISH_TEST_DATA");
  return folder != nullptr ? folder : BILLFISH_DEFAULT_TEST_DATA;
}

struct GoldenTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;

  int64_t dim(size_t i) const { return shape[i]; }
  template <class T>
  std::vector<T> As() const {
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
  }
  /// F32 or BF16 as fp32.
  std::vector<float> Floats() const {
    if (dtype == "F32") return As<float>();
    std::vector<float> values;
    for (uint16_t bits : As<uint16_t>()) values.push_back(F32FromBF16(bits));
    return values;
  }
  Bytes Shared() const { return Bytes::Own(bytes); }
};

class GoldenFile {
 public:
  static bool Exists(const std::filesystem::path& path) { return std::filesystem::exists(path); }

  /// The path must exist and hold a sound file.
  explicit GoldenFile(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    uint64_t header_size = 0;
    std::memcpy(&header_size, bytes_.data(), 8);
    header_ = nlohmann::json::parse(bytes_.begin() + 8, bytes_.begin() + 8 + static_cast<std::ptrdiff_t>(header_size));
    data_ = 8 + header_size;
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : header_.items()) {
      if (entry.key() != "__metadata__") names.push_back(entry.key());
    }
    return names;
  }
  bool Has(const std::string& name) const { return header_.contains(name); }
  std::string Metadata(const std::string& key) const { return header_.at("__metadata__").at(key); }

  GoldenTensor operator[](const std::string& name) const {
    const nlohmann::json& entry = header_.at(name);
    GoldenTensor tensor{entry.at("dtype"), entry.at("shape"), {}};
    const size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
    tensor.bytes.resize(end - begin);
    if (end > begin) std::memcpy(tensor.bytes.data(), bytes_.data() + data_ + begin, end - begin);
    return tensor;
  }

 private:
  std::string bytes_;
  nlohmann::json header_;
  size_t data_ = 0;
};

}  // namespace billfish::test
