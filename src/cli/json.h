// JSON on standard output: keys keep their order, text that is not UTF-8 is replaced instead of failing.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

namespace billfish::cli {

using Json = nlohmann::ordered_json;

inline std::string JsonText(const Json& document) { return document.dump(2, ' ', false, Json::error_handler_t::replace); }

inline void PrintJson(const Json& document) {
  const std::string text = JsonText(document) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace billfish::cli
