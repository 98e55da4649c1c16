// Any bytes as tokenizer.json and text: "JSON \0 text". Without a zero byte the whole input is the file and the text is fixed.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "billfish/tokenizer.h"

namespace {

constexpr size_t kMaxText = 512;

void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view text =
      zero == std::string_view::npos ? "Hello, w\xC3\xB6rld's  12 <s> \n x" : input.substr(zero + 1).substr(0, kMaxText);
  const auto tokenizer = billfish::Tokenizer::FromJson(input.substr(0, zero));
  if (!tokenizer.ok()) {
    Require(!tokenizer.error().message().empty());
    return 0;
  }
  const auto ids = tokenizer->Encode(text, true);
  if (!ids.ok()) return 0;
  if (!tokenizer->Decode(*ids, false).ok()) return 0;
  // Streaming must neither crash nor fail where decoding does not.
  billfish::StreamDecoder stream(*tokenizer, false);
  for (const int32_t id : *ids) {
    const auto part = stream.Push(id);
    if (!part.ok()) return 0;
  }
  stream.Flush();
  for (const int32_t id : *ids) Require(id >= 0);
  return 0;
}
