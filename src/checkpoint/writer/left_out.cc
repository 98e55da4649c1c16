#include "checkpoint/writer/left_out.h"

#include <cctype>
#include <map>
#include <set>

namespace billfish::checkpoint {
namespace {

// "layers.12.mlp" -> "layers\.\d+\.mlp". Only whole parts count: the 1 of "w1" stays.
std::string PatternOf(const std::string& name) {
  std::string pattern;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    if (begin > 0) pattern += "\\.";
    pattern += number ? "\\d+" : EscapePattern(part);
    begin = end + 1;
  }
  return pattern;
}

}  // namespace

std::string EscapePattern(const std::string& name) {
  std::string escaped;
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && static_cast<unsigned char>(c) < 0x80) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::vector<LeftOut> SummariseLeftOut(const std::vector<std::string>& left_out, const std::vector<std::string>& quantized) {
  std::set<std::string> taken;
  for (const std::string& name : quantized) taken.insert(PatternOf(name));
  std::map<std::string, std::vector<std::string>> classes;
  for (const std::string& name : left_out) classes[PatternOf(name)].push_back(name);
  std::vector<LeftOut> result;
  for (const auto& [pattern, names] : classes) {
    if (names.size() > 1 && taken.count(pattern) == 0) {
      result.push_back({"^" + pattern + "$", true});
      continue;
    }
    for (const std::string& name : names) result.push_back({name, false});
  }
  return result;
}

}  // namespace billfish::checkpoint
