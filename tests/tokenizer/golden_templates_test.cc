// Every template of tests/golden/tokenizer/templates.json against the text that Jinja2 renders.
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>

#include "billfish/chat_template.h"
#include "test_data.h"

namespace billfish {
namespace {

using json = nlohmann::ordered_json;

class GoldenTemplates : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("TZ", "UTC", 1);
    tzset();
  }

  void SetUp() override {
    golden_ = json::parse(FileText(GoldenFolder() / "templates.json"));
    options_.now = golden_["now"].get<std::time_t>();
  }

  static void ExpectOutcome(const Result<std::string>& found, const json& expected) {
    if (expected.contains("text")) {
      ASSERT_TRUE(found.ok()) << found.error().message();
      EXPECT_EQ(*found, expected["text"].get<std::string>());
    } else if (expected.contains("refused")) {
      ASSERT_FALSE(found.ok());
      EXPECT_EQ(found.error().code(), ErrorCode::kInvalidArgument);
      EXPECT_EQ(found.error().message(), "the chat template refused the messages: " + expected["refused"].get<std::string>());
    } else {
      ASSERT_FALSE(found.ok()) << *found;
      EXPECT_EQ(found.error().code(), ErrorCode::kInvalidArgument) << found.error().message();
    }
  }

  json golden_;
  ChatOptions options_;
};

TEST_F(GoldenTemplates, ExpressionsAndStatementsRenderAsInJinja2) {
  options_.variables_json = golden_["variables"].dump();
  for (const json& sample : golden_["templates"]) {
    const auto source = sample["template"].get<std::string>();
    SCOPED_TRACE(source);
    const auto chat_template = ChatTemplate::FromString(source);
    if (!chat_template.ok()) {
      ADD_FAILURE() << chat_template.error().message();
      continue;
    }
    ExpectOutcome(chat_template->Render({}, options_), sample);
  }
}

TEST_F(GoldenTemplates, ConversationsRenderAsInJinja2) {
  for (const auto& [name, family] : golden_["families"].items()) {
    const auto chat_template = ChatTemplate::FromString(family["template"].get<std::string>(), golden_["tokens"].dump());
    ASSERT_TRUE(chat_template.ok()) << name << ": " << chat_template.error().message();
    for (const json& run : family["runs"]) {
      SCOPED_TRACE(name + " " + run["messages"].dump().substr(0, 60) + run["extra"].dump().substr(0, 60));
      std::vector<ChatMessage> messages;
      for (json message : run["messages"]) {
        ChatMessage m{message["role"].get<std::string>(), ""};
        message.erase("role");
        if (message["content"].is_string()) {
          m.content = message["content"].get<std::string>();
          message.erase("content");
        }
        if (!message.empty()) m.extra_json = message.dump();
        messages.push_back(std::move(m));
      }
      json extra = run["extra"];
      ChatOptions options = options_;
      options.add_generation_prompt = extra["add_generation_prompt"].get<bool>();
      if (extra.contains("tools")) options.tools_json = extra["tools"].dump();
      for (const char* known : {"add_generation_prompt", "tools"}) extra.erase(known);
      if (!extra.empty()) options.variables_json = extra.dump();
      ExpectOutcome(chat_template->Render(messages, options), run);
    }
  }
}

}  // namespace
}  // namespace billfish
