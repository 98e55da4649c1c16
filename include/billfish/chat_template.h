// ChatTemplate: a conversation to the prompt text that a model was trained on, by the Jinja template of its folder.
//
// The templates are those of Hugging Face models: a sandboxed Jinja2 (3.x) with trim_blocks and lstrip_blocks, loop controls, the
// functions raise_exception and strftime_now and a tojson filter that keeps non-ASCII text and does not escape HTML. billfish
// interprets the part of the language that such templates use; anything else is an error that names it, never a wrong prompt.
#pragma once

#include <cstddef>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish {

struct ChatMessage {
  std::string role;     ///< "system", "user", "assistant", "tool", ...
  std::string content;  ///< plain text
  /// Further fields as the text of a JSON object, for example {"tool_calls": [...]} or {"reasoning_content": "..."}; empty is none.
  /// A field "content" here replaces `content` (null, or a list of parts).
  std::string extra_json = {};
};

struct ChatOptions {
  bool add_generation_prompt = true;  ///< end with the header of the assistant's turn
  std::string tools_json = {};        ///< a JSON array of tool definitions; empty is none
  std::string documents_json = {};    ///< a JSON array of documents; empty is none
  /// More variables as the text of a JSON object, for example {"enable_thinking": false}; they win over all others.
  std::string variables_json = {};
  std::optional<std::time_t> now = {};  ///< what strftime_now formats, in local time; empty is the present
};

/// Immutable; copies share; Render may be called from several threads at once.
class ChatTemplate {
 public:
  /// No template: present() is false and Render fails.
  ChatTemplate();
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&);
  ChatTemplate& operator=(const ChatTemplate&);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// Of a model folder: chat_template.jinja, else chat_template.json, else "chat_template" of tokenizer_config.json (a string, or a
  /// list of named ones of which `name` is taken). With a name other than "default", additional_chat_templates/<name>.jinja is looked
  /// for first. The special tokens of tokenizer_config.json and special_tokens_map.json become variables. A folder without template
  /// is no error. Errors: kIo, kCorruptFile (bad JSON, a template that does not parse; says where), kNotFound (a name other than
  /// "default" that the folder does not have; lists those it has), kUnsupported (a construct that billfish does not implement).
  static Result<ChatTemplate> Load(const std::filesystem::path& folder, std::string_view name = "default");
  /// From the text of a template. `variables_json`: a JSON object with bos_token, eos_token and so on; empty is none.
  static Result<ChatTemplate> FromString(std::string_view source, std::string_view variables_json = {});

  bool present() const;
  const std::string& source() const;

  /// Encode the result with add_special_tokens = false: templates write BOS themselves.
  /// Special tokens inside the messages are not escaped: a server that takes them from strangers should look for them.
  /// Errors: kInvalidArgument (the template refused the messages with raise_exception: its message; bad JSON in the arguments; a value
  /// used in a way that its type does not allow), kNotFound (no template), kUnsupported (an unknown filter, test or method; more steps
  /// or output than a template may need).
  Result<std::string> Render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace billfish
