#include "billfish/chat_template.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/read_file.h"
#include "core/status_macros.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/parser.h"
#include "tokenizer/jinja/text_form.h"
#include "tokenizer/json_object.h"
#include "tokenizer/unicode.h"

namespace billfish {
namespace {

using nlohmann::json;
using tokenizer::JsonObject;
using tokenizer::ParseJson;
using tokenizer::jinja::Dict;
using tokenizer::jinja::List;
using tokenizer::jinja::Runtime;
using tokenizer::jinja::Value;

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxTemplateBytes = size_t{4} << 20;
constexpr auto kSpecialTokens =
    std::to_array<const char*>({"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"});

/// The file as JSON, or null if there is none.
Result<json> ReadOptionalJson(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return json();
  BILLFISH_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  return ParseJson(text, path.string());
}

/// A token as Hugging Face writes it: "text" or {"content": "text", ...}; null otherwise.
json TokenText(const json& token) {
  if (token.is_string()) return token;
  if (token.is_object() && token.contains("content") && token["content"].is_string()) return token["content"];
  return json();
}

/// Adds the special tokens that the file names and `variables` does not have yet.
void AddSpecialTokens(const json& file, json& variables) {
  if (!file.is_object()) return;
  const auto add = [&](const std::string& name, const json& token) {
    const json text = TokenText(token);
    if (!text.is_null() && !variables.contains(name)) variables[name] = text;
  };
  for (const char* name : kSpecialTokens) {
    if (file.contains(name)) add(name, file[name]);
  }
  if (file.contains("extra_special_tokens") && file["extra_special_tokens"].is_object()) {
    for (const auto& [name, token] : file["extra_special_tokens"].items()) add(name, token);
  }
  if (!file.contains("additional_special_tokens") || !file["additional_special_tokens"].is_array()) return;
  json list = json::array();
  for (const json& token : file["additional_special_tokens"]) {
    if (json text = TokenText(token); !text.is_null()) list.push_back(std::move(text));
  }
  if (!variables.contains("additional_special_tokens")) variables["additional_special_tokens"] = std::move(list);
}

/// Templates by name, from a "chat_template" field.
Status ReadTemplates(const json& file, const std::filesystem::path& path, std::vector<std::pair<std::string, std::string>>& templates) {
  if (!file.is_object() || !file.contains("chat_template") || file["chat_template"].is_null()) return {};
  const json& field = file["chat_template"];
  if (field.is_string()) {
    templates.emplace_back("default", field.get_ref<const std::string&>());
    return {};
  }
  if (!field.is_array()) {
    return {ErrorCode::kCorruptFile,
            fmt::format("{}: chat_template must be a string or a list, found {}", path.string(), field.type_name())};
  }
  for (size_t i = 0; i < field.size(); ++i) {
    JsonObject entry(field[i], fmt::format("{}: chat_template[{}]", path.string(), i));
    std::string name = entry.RequiredString("name");
    std::string text = entry.RequiredString("template");
    BILLFISH_RETURN_IF_ERROR(entry.status());
    templates.emplace_back(std::move(name), std::move(text));
  }
  return {};
}

bool IsPlainName(std::string_view name) {
  return !name.empty() &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == std::string_view::npos;
}

}  // namespace

struct ChatTemplate::Impl {
  bool present = false;
  std::string source;
  std::string variables_json;
  tokenizer::jinja::Block block;

  Result<Value> MakeMessage(Runtime& runtime, const ChatMessage& message, size_t index) const;
  Result<Dict*> MakeVariables(Runtime& runtime, std::span<const ChatMessage> messages, const ChatOptions& options) const;
};

ChatTemplate::ChatTemplate() : impl_(std::make_shared<const Impl>()) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(const ChatTemplate&) = default;
ChatTemplate& ChatTemplate::operator=(const ChatTemplate&) = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

bool ChatTemplate::present() const { return impl_->present; }
const std::string& ChatTemplate::source() const { return impl_->source; }

Result<ChatTemplate> ChatTemplate::Load(const std::filesystem::path& folder, std::string_view name) {
  if (!IsPlainName(name)) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("\"{}\" is not the name of a chat template: use letters, digits, _ and -", name));
  }
  const std::filesystem::path config_file = folder / "tokenizer_config.json", processor_file = folder / "chat_template.json";
  BILLFISH_ASSIGN_OR_RETURN(const json config, ReadOptionalJson(config_file));
  BILLFISH_ASSIGN_OR_RETURN(const json processor, ReadOptionalJson(processor_file));
  BILLFISH_ASSIGN_OR_RETURN(const json tokens, ReadOptionalJson(folder / "special_tokens_map.json"));
  json variables = json::object();
  AddSpecialTokens(config, variables);
  AddSpecialTokens(tokens, variables);

  // Earlier entries win.
  std::vector<std::pair<std::string, std::string>> templates;
  const std::filesystem::path files[] = {folder / "additional_chat_templates" / fmt::format("{}.jinja", name),
                                         folder / "chat_template.jinja"};
  const std::string names[] = {std::string(name), "default"};
  for (size_t i = name == "default" ? 1 : 0; i < 2; ++i) {
    std::error_code error;
    if (!std::filesystem::exists(files[i], error)) continue;
    BILLFISH_ASSIGN_OR_RETURN(std::string text, ReadFile(files[i], kMaxTemplateBytes));
    templates.emplace_back(names[i], std::move(text));
  }
  BILLFISH_RETURN_IF_ERROR(ReadTemplates(processor, processor_file, templates));
  BILLFISH_RETURN_IF_ERROR(ReadTemplates(config, config_file, templates));

  std::string known;
  for (const auto& [known_name, text] : templates) {
    if (known_name == name) {
      auto result = FromString(text, variables.dump(-1, ' ', false, json::error_handler_t::replace));
      if (!result.ok()) return result.error().WithContext(folder.string());
      return result;
    }
    known += (known.empty() ? "" : ", ") + known_name;
  }
  if (name == "default") return ChatTemplate();
  return Status(ErrorCode::kNotFound,
                fmt::format("{} has no chat template \"{}\"; it has {}", folder.string(), name, known.empty() ? "none" : known));
}

Result<ChatTemplate> ChatTemplate::FromString(std::string_view source, std::string_view variables_json) {
  if (source.size() > kMaxTemplateBytes) {
    return Status(ErrorCode::kUnsupported, fmt::format("the chat template has {} bytes, more than {}", source.size(), kMaxTemplateBytes));
  }
  auto impl = std::make_shared<Impl>();
  auto block = tokenizer::jinja::ParseTemplate(source);
  if (!block.ok()) return block.error().WithContext("chat template");
  impl->present = true;
  impl->source = std::string(source);
  impl->variables_json = std::string(variables_json);
  impl->block = std::move(*block);
  ChatTemplate result;
  result.impl_ = std::move(impl);
  return result;
}

Result<Value> ChatTemplate::Impl::MakeMessage(Runtime& runtime, const ChatMessage& message, size_t index) const {
  for (const std::string* text : {&message.role, &message.content}) {
    if (tokenizer::FindInvalidUtf8(*text) != std::string::npos) {
      return Status(ErrorCode::kInvalidArgument, fmt::format("message {} is not UTF-8", index));
    }
  }
  BILLFISH_RETURN_IF_ERROR(runtime.Items(2));
  Dict* dict = runtime.NewDict();
  dict->Set("role", Value::Of(message.role));
  dict->Set("content", Value::Of(message.content));
  if (!message.extra_json.empty()) {
    const std::string what = fmt::format("extra_json of message {}", index);
    BILLFISH_ASSIGN_OR_RETURN(const Value extra, FromJson(runtime, message.extra_json, what));
    if (!extra.is_dict()) return Status(ErrorCode::kInvalidArgument, fmt::format("{} must be a JSON object", what));
    for (const Dict::Entry& entry : extra.dict().entries) dict->Set(entry.key, entry.value);
  }
  return Value::Of(dict);
}

Result<Dict*> ChatTemplate::Impl::MakeVariables(Runtime& runtime, std::span<const ChatMessage> messages, const ChatOptions& options) const {
  Dict* variables = runtime.NewDict();
  const auto add_object = [&](std::string_view text, std::string_view what) -> Status {
    if (text.empty()) return {};
    BILLFISH_ASSIGN_OR_RETURN(const Value object, FromJson(runtime, text, what));
    if (!object.is_dict()) return {ErrorCode::kInvalidArgument, fmt::format("{} must be a JSON object", what)};
    for (const Dict::Entry& entry : object.dict().entries) variables->Set(entry.key, entry.value);
    return {};
  };
  const auto add_array = [&](const char* name, std::string_view text) -> Status {
    Value value = Value::MakeNone();
    if (!text.empty()) {
      const std::string what = fmt::format("{}_json", name);
      BILLFISH_ASSIGN_OR_RETURN(value, FromJson(runtime, text, what));
      if (!value.is_list()) return {ErrorCode::kInvalidArgument, fmt::format("{} must be a JSON array", what)};
    }
    variables->Set(name, std::move(value));
    return {};
  };
  BILLFISH_RETURN_IF_ERROR(add_object(variables_json, "the template's variables"));
  List* list = runtime.NewList();
  for (size_t i = 0; i < messages.size(); ++i) {
    BILLFISH_ASSIGN_OR_RETURN(Value message, MakeMessage(runtime, messages[i], i));
    list->items.push_back(std::move(message));
  }
  variables->Set("messages", Value::Of(list));
  BILLFISH_RETURN_IF_ERROR(add_array("tools", options.tools_json));
  BILLFISH_RETURN_IF_ERROR(add_array("documents", options.documents_json));
  variables->Set("add_generation_prompt", Value::Of(options.add_generation_prompt));
  BILLFISH_RETURN_IF_ERROR(add_object(options.variables_json, "variables_json"));
  return variables;
}

Result<std::string> ChatTemplate::Render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  if (!impl_->present) {
    return Status(ErrorCode::kNotFound, "this model has no chat template; give the prompt as plain text, or a template of your own");
  }
  Runtime runtime;
  auto variables = impl_->MakeVariables(runtime, messages, options);
  if (!variables.ok()) return variables.error().WithContext("chat template");
  tokenizer::jinja::Interpreter interpreter(runtime, options.now.value_or(std::time(nullptr)));
  auto text = interpreter.Render(impl_->block, **variables);
  if (text.ok()) return text;
  return text.error().WithContext(interpreter.refused() ? "the chat template refused the messages" : "chat template");
}

}  // namespace billfish
