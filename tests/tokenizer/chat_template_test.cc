// Which template a folder gives, and what broken or hostile ones are answered with.
#include "billfish/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "support/temporary_folder.h"
#include "test_data.h"

namespace billfish {
namespace {

using testing::HasSubstr;

const std::vector<ChatMessage> kHello = {{"user", "Hello"}};

std::string Rendered(const ChatTemplate& chat_template, const ChatOptions& options = {}) {
  const auto text = chat_template.Render(kHello, options);
  return text.ok() ? *text : std::string(text.error().message());
}

std::string Rendered(std::string_view source, const ChatOptions& options = {}) {
  const auto chat_template = ChatTemplate::FromString(source);
  return chat_template.ok() ? Rendered(*chat_template, options) : std::string(chat_template.error().message());
}

class ChatTemplateFolder : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_ / "additional_chat_templates"); }

  void Write(const char* name, const std::string& text) { std::ofstream(folder_ / name, std::ios::binary) << text; }
  std::string Load(std::string_view name = "default") {
    const auto chat_template = ChatTemplate::Load(folder_.path(), name);
    return chat_template.ok() ? Rendered(*chat_template) : std::string(chat_template.error().message());
  }

  test::TemporaryFolder folder_;
};

TEST_F(ChatTemplateFolder, WithoutTemplateIsNoError) {
  const auto none = ChatTemplate::Load(folder_.path());
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->present());
  const auto text = none->Render(kHello);
  EXPECT_EQ(text.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(std::string(text.error().message()), HasSubstr("has no chat template"));
  EXPECT_TRUE(ChatTemplate::Load(folder_ / "nowhere").ok());
}

TEST_F(ChatTemplateFolder, PrefersTheJinjaFile) {
  Write("tokenizer_config.json", R"({"chat_template": "config {{ eos_token }}", "eos_token": {"content": "</s>"}, "bos_token": null})");
  EXPECT_EQ(Load(), "config </s>");
  Write("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(Load(), "processor");
  Write("chat_template.jinja", "file {{ bos_token }}|{{ eos_token }}\n");
  EXPECT_EQ(Load(), "file |</s>");
}

TEST_F(ChatTemplateFolder, FindsTemplatesByName) {
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]})");
  EXPECT_EQ(Load(), "plain");
  EXPECT_EQ(Load("tool_use"), "tools");
  Write("additional_chat_templates/rag.jinja", "rag");
  EXPECT_EQ(Load("rag"), "rag");
  EXPECT_THAT(Load("other"), HasSubstr("has no chat template \"other\"; it has default, tool_use"));
  EXPECT_THAT(Load("../secret"), HasSubstr("is not the name of a chat template"));
}

TEST_F(ChatTemplateFolder, GivesTheSpecialTokensAsVariables) {
  Write("chat_template.jinja", "{{ bos_token }} {{ pad_token }} {{ image_token }} {{ additional_special_tokens }}");
  Write("tokenizer_config.json", R"({"bos_token": "<a>", "extra_special_tokens": {"image_token": "<i>"}})");
  Write("special_tokens_map.json",
        R"({"bos_token": "<b>", "pad_token": {"content": "<p>"}, "additional_special_tokens": ["x", {"content": "y"}, 5]})");
  EXPECT_EQ(Load(), "<a> <p> <i> ['x', 'y']");
}

TEST_F(ChatTemplateFolder, NamesWhatIsBroken) {
  Write("tokenizer_config.json", "{");
  EXPECT_THAT(Load(), HasSubstr("tokenizer_config.json is not valid JSON"));
  Write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THAT(Load(), HasSubstr("chat_template must be a string or a list, found number"));
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  EXPECT_THAT(Load(), HasSubstr("chat_template[0]: field \"template\" must be a string, found nothing"));
  Write("chat_template.jinja", "a\n{% if x %}\n");
  Write("tokenizer_config.json", "{}");
  EXPECT_THAT(Load(), HasSubstr("chat template: line 2: expected {% endif %}, found the end of the template"));
}

TEST(ChatTemplate, GivesMessagesAndOptionsAsVariables) {
  EXPECT_EQ(Rendered("{{ messages[0].role }}:{{ messages[0].content }} {{ add_generation_prompt }} {{ tools }} {{ documents }}"),
            "user:Hello True None None");
  ChatOptions options{
      .add_generation_prompt = false, .tools_json = "[1]", .documents_json = "[{\"a\": 2}]", .variables_json = R"({"x": "y", "tools": 5})"};
  EXPECT_EQ(Rendered("{{ add_generation_prompt }} {{ tools }} {{ documents }} {{ x }}", options), "False 5 [{'a': 2}] y");
  const auto chat_template = ChatTemplate::FromString("{% for m in messages %}{{ m.content }}{{ m.name }}{{ m.tool_calls }};{% endfor %}");
  const std::vector<ChatMessage> messages = {{"user", "a", R"({"name": "n"})"},
                                             {"assistant", "b", R"({"content": null, "tool_calls": [1]})"}};
  EXPECT_EQ(*chat_template->Render(messages), "an;None[1];");
}

TEST(ChatTemplate, RefusesBadArguments) {
  EXPECT_THAT(Rendered("x", {.tools_json = "{}"}), HasSubstr("tools_json must be a JSON array"));
  EXPECT_THAT(Rendered("x", {.tools_json = "[1,"}), HasSubstr("tools_json is not valid JSON"));
  EXPECT_THAT(Rendered("x", {.variables_json = "[]"}), HasSubstr("variables_json must be a JSON object"));
  EXPECT_THAT(Rendered("x", {.documents_json = std::string(200, '[') + std::string(200, ']')}), HasSubstr("nests deeper than 100 levels"));
  const auto chat_template = ChatTemplate::FromString("x");
  const auto message = [&](ChatMessage m) { return std::string(chat_template->Render(std::vector{m}).status().message()); };
  EXPECT_THAT(message({"user", "\xFF"}), HasSubstr("message 0 is not UTF-8"));
  EXPECT_THAT(message({"user", "a", "[]"}), HasSubstr("extra_json of message 0 must be a JSON object"));
  EXPECT_THAT(message({"user", "a", "{"}), HasSubstr("extra_json of message 0 is not valid JSON"));
}

TEST(ChatTemplate, GivesTheRefusalOfTheTemplate) {
  const auto chat_template = ChatTemplate::FromString("{% if true %}\n{{ raise_exception('no system role') }}{% endif %}");
  const auto text = chat_template->Render(kHello);
  EXPECT_EQ(text.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(text.error().message(), "the chat template refused the messages: no system role");
}

TEST(ChatTemplate, NamesTheLineOfASyntaxError) {
  const auto line2 = [](const std::string& source, const std::string& text) {
    EXPECT_THAT(Rendered("x\n" + source), HasSubstr("line 2: " + text)) << source;
  };
  line2("{{ 1 +", "the tag is not closed by }}");
  line2("{{ 1 + }}", "expected an expression, found }}");
  line2("{{ a b }}", "expected }}, found \"b\"");
  line2("{{ a[1 }}", "unexpected '}'");
  line2("{{ a] }}", "unexpected ']'");
  line2("{{ a[] }}", "expected an index, found");
  line2("{{ a[1:2:3:4] }}", "expected \"]\"");
  line2("{{ a[1 2] }}", "expected \"]\", found \"2\"");
  line2("{{ 'a }}", "the string is not closed");
  line2("{{ '\\xZZ' }}", "a character escape in the string lacks digits");
  line2("{{ '\\ud800' }}", "a character escape in the string is not a character");
  line2("{{ a ? b }}", "unexpected character '?'");
  line2("{{ 99999999999999999999 }}", "the number 99999999999999999999 is not one of 64 bits");
  line2("{{ f(a=1, 2) }}", "expected a named argument");
  line2("{{ a. }}", "expected a name, found }}");
  line2("{# a", "the comment is not closed");
  line2("{% raw %} a", "{% raw %} is not closed");
  line2("{% endif %}", "{% endif %} closes nothing");
  line2("{% include 'x' %}", "the statement {% include %} is not implemented");
  line2("{% break %}", "{% break %} outside of a for loop");
  line2("{% for x of y %}{% endfor %}", "expected \"in\", found \"of\"");
  line2("{% for x in y %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% break %} outside of a for loop");
  line2("{% set true = 1 %}", "cannot assign to true");
  line2("{% macro m(a=1, b) %}{% endmacro %}", "parameter b without a default follows one with a default");
  line2("{% call x %}{% endcall %}", "expected a call, found %}");
  line2("{% if x %}{% endfor %}", "{% endfor %} closes nothing");
  line2("{% %}", "expected a name, found %}");
  EXPECT_THAT(Rendered("a\xFF"), HasSubstr("the template is not UTF-8 at byte 1"));
  EXPECT_THAT(Rendered("{{ " + std::string(500, '(') + std::string(500, ')') + " }}"), HasSubstr("nests deeper than 100 levels"));
  EXPECT_THAT(Rendered("{{ a" + std::string(1000, '.') + " }}"), HasSubstr("expected a name"));
  std::string chain = "{{ a";
  for (int i = 0; i < 1000; ++i) chain += ".b";
  EXPECT_THAT(Rendered(chain + " }}"), HasSubstr("the expression nests deeper than 250 levels"));
}

TEST(ChatTemplate, NamesTheLineOfAnErrorWhileRendering) {
  const auto line2 = [](const std::string& source, const std::string& text) {
    EXPECT_THAT(Rendered("x\n" + source), HasSubstr("chat template: line 2: " + text)) << source;
  };
  line2("{{ nothing.x }}", "'nothing' is undefined");
  line2("{{ nothing() }}", "'nothing' is undefined");
  line2("{{ nothing + 1 }}", "'nothing' is undefined");
  line2("{{ 1 + 'a' }}", "+ cannot be applied to int and str");
  line2("{{ 1 / 0 }}", "division by zero");
  line2("{{ 1 % 0 }}", "division by zero");
  line2("{{ -'a' }}", "a sign cannot be applied to str");
  line2("{{ 9223372036854775807 + 1 }}", "an integer leaves the range of 64 bits");
  line2("{{ 10 ** 30 }}", "an integer leaves the range of 64 bits");
  line2("{{ 'a' < 1 }}", "str and int cannot be ordered");
  line2("{{ 1 in 'a' }}", "'in <string>' requires a string on the left, found int");
  line2("{{ '%s' % 1 }}", "formatting a string with % is not implemented");
  line2("{% for x in 5 %}{% endfor %}", "'int' object is not iterable");
  line2("{% for a, b in [[1]] %}{% endfor %}", "2 names cannot take 1 values");
  line2("{{ 5() }}", "'int' object is not callable");
  line2("{{ 'a'.nothing() }}", "'str' object has no method 'nothing'");
  line2("{{ [].append(1) }}", "templates may not change a list");
  line2("{{ {}.update() }}", "templates may not change a dict");
  line2("{{ 'a' | nothing }}", "the filter 'nothing' is not implemented");
  line2("{{ 'a' is nothing }}", "the test 'nothing' is not implemented");
  line2("{{ 'a' | replace('a') }}", "replace needs the argument new");
  line2("{{ 'a' | trim(1, 2) }}", "trim takes 1 arguments, was given 2");
  line2("{{ 'a' | trim(x=1) }}", "trim has no parameter x");
  line2("{{ 'a'.replace('a', 'b', old='c') }}", "replace was given old twice");
  line2("{{ 'a'.split(1) }}", "split needs a string for sep, found int");
  line2("{{ 'a'.split('') }}", "split needs a separator that is not empty");
  line2("{{ 'a'.zfill('x') }}", "the padding method needs an integer for width, found str");
  line2("{{ range(200000) }}", "range makes more than 100000 numbers");
  line2("{{ range(1, 2, 0) }}", "range needs a step other than 0");
  line2("{{ {[]: 1} }}", "a list cannot be the key of a dictionary");
  line2("{{ range | tojson }}", "tojson: an object of type function has no JSON form");
  line2("{{ range }}", "a function was printed");
  line2("{{ [1] | select('odd') }}", "a generator was printed; put |list behind it");
  line2("{{ [1] | map('abs') | length }}", "object of type 'generator' has no length");
  line2("{% set x = 1 %}{% set x.y = 2 %}", "cannot set x.y: x is not a namespace");
  line2("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "macro m takes 1 arguments, was given 2");
  line2("{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "macro m has no parameter b");
  line2("{% macro m(a) %}{% endmacro %}{{ m(1, a=1) }}", "macro m was given a twice");
  line2("{% for x in [1] %}{{ loop([]) }}{% endfor %}", "the loop was called, but it is not marked recursive");
  line2("{{ strftime_now('%9999d') }}", "strftime_now: the format '%9999d' is not implemented");
  line2("{{ f(**1) }}", "the argument behind ** must be a dictionary");
  line2("{{ '{:>3}'.format(1) }}", "format: the field '{:>3}' is not implemented");
}

TEST(ChatTemplate, StopsHostileTemplates) {
  const auto start = std::chrono::steady_clock::now();
  const auto stopped = [](const std::string& source, const std::string& text) { EXPECT_THAT(Rendered(source), HasSubstr(text)) << source; };
  stopped("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "that a template may make");
  stopped("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nests deeper than the 700 levels");
  stopped("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "bytes of text");
  stopped("{{ 'x' * 99999999999 }}", "bytes of text");
  stopped("{{ [1] * 99999999999 }}", "list items");
  stopped("{{ 'aaaaaaaaaa' * 10000000 }}{{ 'aaaaaaaaaa' * 10000000 }}{{ 'aaaaaaaaaa' * 10000000 }}", "bytes of text");
  stopped("{{ ('a' * 10000000).replace('', 'b' * 1000) }}", "bytes of text");
  stopped("{{ ''.ljust(9999999999) }}", "bytes of text");
  stopped("{{ ('a\\n' * 1000000) | indent(1000) }}", "bytes of text");
  stopped("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", "nests deeper than the 700 levels");
  stopped(
      "{% set ns = namespace() %}{% set ns.x = {'a': [ns.x] } %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x == "
      "ns.x + [] }}{{ ns.x | tojson }}",
      "nests deeper than the 700 levels");
  stopped("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | string | length }}",
          "steps");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 60.0);
}

TEST(ChatTemplate, RendersTheSameFromSeveralThreads) {
  const auto chat_template = ChatTemplate::FromString(
      "{% macro m(x) %}[{{ x }}]{% endmacro %}{% for i in range(200) %}{{ m(i ~ messages[0].content) }}{% endfor %}");
  const std::string expected = Rendered(*chat_template);
  std::vector<std::string> found(4);
  std::vector<std::thread> threads;
  for (auto& text : found) threads.emplace_back([&] { text = Rendered(*chat_template); });
  for (auto& thread : threads) thread.join();
  for (const auto& text : found) EXPECT_EQ(text, expected);
}

}  // namespace
}  // namespace billfish
