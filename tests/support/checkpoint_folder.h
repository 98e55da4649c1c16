// A checkpoint folder that a test writes byte by byte, so that it can be wrong in any way.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/temporary_folder.h"

namespace billfish::test {

inline void WriteFile(const std::filesystem::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

/// The bytes of a safetensors file with this header text and data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file + header + data;
}

/// Collects tensors and writes a sound safetensors file.
class SafetensorsBuilder {
 public:
  template <class T>
  SafetensorsBuilder& Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
                          const std::vector<T>& values) {
    const size_t begin = data_.size();
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
    return *this;
  }
  /// All bytes `fill`.
  SafetensorsBuilder& AddFilled(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape, int bits,
                                uint8_t fill = 0) {
    int64_t bytes = bits;
    for (const int64_t extent : shape) bytes *= extent;
    return Add(name, dtype, shape, std::vector<uint8_t>(static_cast<size_t>(bytes / 8), fill));
  }
  std::string Bytes() const { return SafetensorsBytes(header_.is_null() ? "{}" : header_.dump(), data_); }
  void Write(const std::filesystem::path& path) const { WriteFile(path, Bytes()); }

 private:
  nlohmann::json header_;
  std::string data_;
};

}  // namespace billfish::test
