// Any bytes as a chat template, rendered with a short conversation.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "billfish/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto chat_template = billfish::ChatTemplate::FromString({reinterpret_cast<const char*>(data), size}, R"({"bos_token": "<s>"})");
  if (!chat_template.ok()) {
    if (chat_template.error().message().empty()) std::abort();
    return 0;
  }
  const std::vector<billfish::ChatMessage> messages = {
      {"system", "Be brief."},
      {"user", "Hi <b>\xC3\xA9"},
      {"assistant", "", R"({"tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}}]})"}};
  const billfish::ChatOptions options{.tools_json = R"([{"type": "function"}])", .now = 1718456789};
  const auto text = chat_template->Render(messages, options);
  if (!text.ok() && text.error().message().empty()) std::abort();
  return 0;
}
