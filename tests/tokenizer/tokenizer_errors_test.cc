// What a damaged or unknown tokenizer.json is answered with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "billfish/tokenizer.h"
#include "support/temporary_folder.h"
#include "test_data.h"

namespace billfish {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// A tokenizer of the letters a, b, c and "ab".
json Small() {
  return json::parse(R"({
    "added_tokens": [{"id": 9, "content": "<s>", "special": true, "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": ["a b"]}})");
}

Status Load(const json& file) { return Tokenizer::FromJson(file.dump()).status(); }

void ExpectError(const json& patch, ErrorCode code, const std::string& text) {
  json file = Small();
  file.merge_patch(patch);
  const Status status = Load(file);
  EXPECT_EQ(status.code(), code) << patch << ": " << status.message();
  EXPECT_THAT(std::string(status.message()), HasSubstr(text)) << patch;
}

/// A merge patch cannot set a list of things that hold null; this replaces one field.
void ExpectErrorWith(const std::string& pointer, const json& value, ErrorCode code, const std::string& text) {
  json file = Small();
  file[json::json_pointer(pointer)] = value;
  const Status status = Load(file);
  EXPECT_EQ(status.code(), code) << pointer << value << ": " << status.message();
  EXPECT_THAT(std::string(status.message()), HasSubstr(text)) << pointer << value;
}

TEST(TokenizerErrors, TheSmallFileIsFine) {
  const auto tokenizer = Tokenizer::FromJson(Small().dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_EQ(*tokenizer->Encode("abc<s>ba", false), (std::vector<int32_t>{3, 2, 9, 1, 0}));
  EXPECT_EQ(tokenizer->vocab_size(), 10);
}

TEST(TokenizerErrors, NamesTheByteWhereJsonBreaks) {
  const auto broken = Tokenizer::FromJson(R"({"model": {]})");
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code(), ErrorCode::kCorruptFile);
  EXPECT_THAT(std::string(broken.error().message()), HasSubstr("not valid JSON: 13 bytes long, wrong near byte 12"));
  EXPECT_THAT(std::string(Tokenizer::FromJson("[1]").error().message()), HasSubstr("must be a JSON object, found array"));
  EXPECT_THAT(std::string(Tokenizer::FromJson("{}").error().message()), HasSubstr("field \"model\" must be an object, found nothing"));
  EXPECT_FALSE(Tokenizer::FromJson("").ok());
}

TEST(TokenizerErrors, RefusesEveryTruncation) {
  const std::string text = Small().dump();
  for (size_t length = 0; length < text.size(); ++length) EXPECT_FALSE(Tokenizer::FromJson(text.substr(0, length)).ok()) << length;
}

TEST(TokenizerErrors, NamesPartsThatItDoesNotImplement) {
  ExpectError({{"model", {{"type", "Unigram"}}}}, ErrorCode::kUnsupported, "type \"Unigram\" is not implemented");
  ExpectError({{"model", {{"dropout", 0.1}}}}, ErrorCode::kUnsupported, "dropout is set");
  ExpectError({{"normalizer", {{"type", "Precompiled"}}}}, ErrorCode::kUnsupported, "normalizer \"Precompiled\" is not implemented");
  ExpectError({{"pre_tokenizer", {{"type", "UnicodeScripts"}}}}, ErrorCode::kUnsupported, "pre-tokenizer \"UnicodeScripts\"");
  ExpectError({{"post_processor", {{"type", "Other"}}}}, ErrorCode::kUnsupported, "post-processor \"Other\"");
  ExpectError({{"decoder", {{"type", "CTC"}}}}, ErrorCode::kUnsupported, "decoder \"CTC\" is not implemented");
}

TEST(TokenizerErrors, RefusesVocabulariesThatContradictThemselves) {
  ExpectError({{"model", {{"vocab", {{"d", "x"}}}}}}, ErrorCode::kCorruptFile, "token \"d\" must have an integer id, found string");
  ExpectError({{"model", {{"vocab", {{"d", -1}}}}}}, ErrorCode::kCorruptFile, "token \"d\" has id -1, outside 0..");
  ExpectError({{"model", {{"vocab", {{"d", 4000000000000}}}}}}, ErrorCode::kCorruptFile, "has id 4000000000000, outside");
  ExpectError({{"model", {{"vocab", {{"d", 18446744073709551615u}}}}}}, ErrorCode::kCorruptFile, "outside 0..");
  ExpectError({{"model", {{"vocab", {{"d", 1}}}}}}, ErrorCode::kCorruptFile, "tokens \"b\" and \"d\" both have id 1");
  ExpectError({{"model", {{"vocab", 5}}}}, ErrorCode::kCorruptFile, "field \"vocab\" must be an object, found number");
  ExpectError({{"model", {{"unk_token", "<unk>"}}}}, ErrorCode::kCorruptFile, "unk_token \"<unk>\" is not in the vocabulary");
}

TEST(TokenizerErrors, RefusesBadMerges) {
  const auto merge = [](const json& m, const std::string& text) { ExpectErrorWith("/model/merges/0", m, ErrorCode::kCorruptFile, text); };
  merge("ab", "model.merges[0] must be \"a b\"");
  merge("a b c", "found \"a b c\"");
  merge(7, "found 7");
  merge({"a", "b", "c"}, "must be \"a b\" or");
  merge({"a", "c"}, "token \"ac\" is not in the vocabulary");
  merge("x b", "token \"x\" is not in the vocabulary");
  ExpectError({{"model", {{"continuing_subword_prefix", "##"}}}}, ErrorCode::kCorruptFile, "shorter than the continuing_subword_prefix");
  ExpectError({{"model", {{"merges", 5}}}}, ErrorCode::kCorruptFile, "field \"merges\" must be an array, found number");
}

TEST(TokenizerErrors, RefusesBadAddedTokens) {
  const auto added = [](const json& token, const std::string& text) {
    ExpectErrorWith("/added_tokens/0", token, ErrorCode::kCorruptFile, text);
  };
  added(5, "added_tokens[0] must be a JSON object, found number");
  added({{"id", 9}}, "field \"content\" must be a string, found nothing");
  added({{"content", "x"}}, "field \"id\" must be an integer, found nothing");
  added({{"content", "x"}, {"id", 9.5}}, "field \"id\" must be an integer, found number");
  added({{"content", "x"}, {"id", 9}, {"lstrip", "yes"}}, "field \"lstrip\" must be true or false, found string");
  added({{"content", "x"}, {"id", 1}}, "token \"x\" has id 1, but model.vocab gives");
  added({{"content", "a"}, {"id", 7}}, "token \"a\" has id 7, but model.vocab gives that token id 0");
  added({{"content", "x"}, {"id", 1 << 30}}, "outside 0..");
  ExpectError({{"added_tokens", 5}}, ErrorCode::kCorruptFile, "added_tokens must be an array, found number");
}

TEST(TokenizerErrors, RefusesBadPipelineFields) {
  const auto corrupt = [](const char* part, const json& value, const std::string& text) {
    ExpectErrorWith(std::string("/") + part, value, ErrorCode::kCorruptFile, text);
  };
  corrupt("normalizer", 5, "normalizer must be a JSON object, found number");
  corrupt("normalizer", {{"type", "Sequence"}}, "field \"normalizers\" must be an array, found nothing");
  corrupt("normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}}}}}, "normalizer[0]: field \"prepend\"");
  corrupt("normalizer", {{"type", "Replace"}, {"content", "x"}}, "field \"pattern\" must be an object");
  corrupt("normalizer", {{"type", "Replace"}, {"content", "x"}, {"pattern", {{"Regex", "(a"}}}}, "\"(a\" has an unclosed group");
  corrupt("normalizer", {{"type", "Replace"}, {"content", "x"}, {"pattern", {{"Regex", "a**b(?<n>c)\\k<m>"}}}}, "does not compile");
  corrupt("pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Sideways"}},
          "behavior \"Sideways\" is none of");
  corrupt("pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "x"}}}}, "field \"behavior\" must be a string, found nothing");
  corrupt("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "ab"}}, "must be one character, found \"ab\"");
  corrupt("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "often"}},
          "prepend_scheme \"often\" is none of");
  corrupt("decoder", {{"type", "Strip"}, {"content", " "}, {"start", -1}}, "start -1 and stop 0 must not be negative");
  corrupt("decoder", {{"type", "Strip"}, {"content", " "}, {"start", 18446744073709551615u}}, "field \"start\" must be an integer");
  corrupt("post_processor", {{"type", "BertProcessing"}, {"cls", {"x"}}, {"sep", {"x", 1}}}, "field \"cls\" must be [token, id]");
  corrupt("post_processor", {{"type", "BertProcessing"}, {"cls", {"x", -1}}, {"sep", {"x", 1}}}, "a token id must be an integer");
  const auto single = [&](const json& item, const std::string& text) {
    corrupt("post_processor", {{"type", "TemplateProcessing"}, {"single", json::array({item})}, {"special_tokens", json::object()}}, text);
  };
  single({{"Sequence", {{"id", "B"}}}}, "names text \"B\"");
  single({{"SpecialToken", {{"id", "<s>"}}}}, "field \"<s>\" must be an object, found nothing");
  single(json::object(), "field \"SpecialToken\" must be an object");
  corrupt("post_processor", {{"type", "TemplateProcessing"}, {"single", json(json::array_t(100))}}, "has 100 items, more than 64");
}

TEST(TokenizerErrors, RefusesEndlessNesting) {
  json normalizer = {{"type", "NFC"}}, pre = {{"type", "Digits"}}, post = {{"type", "ByteLevel"}}, decoder = {{"type", "Fuse"}};
  for (int i = 0; i < 40; ++i) {
    normalizer = {{"type", "Sequence"}, {"normalizers", json::array({normalizer})}};
    pre = {{"type", "Sequence"}, {"pretokenizers", json::array({pre})}};
    post = {{"type", "Sequence"}, {"processors", json::array({post})}};
    decoder = {{"type", "Sequence"}, {"decoders", json::array({decoder})}};
  }
  for (const auto& [part, value] :
       {std::pair("/normalizer", normalizer), {"/pre_tokenizer", pre}, {"/post_processor", post}, {"/decoder", decoder}}) {
    ExpectErrorWith(part, value, ErrorCode::kCorruptFile, "nests more than 16 sequences");
  }
}

TEST(TokenizerErrors, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Tokenizer::FromJson(Small().dump());
  for (const char* text : {"a\xFF", "a\xC3", "a\xED\xA0\x80", "a\xF5\x80\x80\x80", "a\xC0\x80"}) {
    const auto ids = tokenizer->Encode(text, false);
    ASSERT_FALSE(ids.ok());
    EXPECT_EQ(ids.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.error().message()), HasSubstr("byte 1 is not UTF-8"));
  }
}

TEST(TokenizerErrors, StopsAPatternThatExplodes) {
  json file = Small();
  file["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a|aa)+$"}}}, {"behavior", "Isolated"}};
  const auto tokenizer = Tokenizer::FromJson(file.dump());
  ASSERT_TRUE(tokenizer.ok());
  const auto ids = tokenizer->Encode(std::string(200, 'a') + "!", false);
  ASSERT_FALSE(ids.ok());
  EXPECT_THAT(std::string(ids.error().message()), HasSubstr("needs more than the 1000000 steps"));
}

TEST(TokenizerErrors, RefusesNegativeIdsAndSkipsUnknownOnes) {
  const auto tokenizer = Tokenizer::FromJson(Small().dump());
  EXPECT_THAT(std::string(tokenizer->Decode(std::vector<int32_t>{0, -1}, false).error().message()), HasSubstr("cannot decode token id -1"));
  EXPECT_THAT(std::string(StreamDecoder(*tokenizer).Push(-7).error().message()), HasSubstr("cannot decode token id -7"));
  EXPECT_EQ(*tokenizer->Decode(std::vector<int32_t>{0, 5, 2000000000, 3}, false), "aab");
}

TEST(TokenizerErrors, DropsUnknownCharactersOrUsesTheUnknownToken) {
  EXPECT_EQ(*Tokenizer::FromJson(Small().dump())->Encode("axxb", false), (std::vector<int32_t>{3}));
  json file = Small();
  file["model"]["vocab"]["?"] = 4;
  file["model"]["unk_token"] = "?";
  EXPECT_EQ(*Tokenizer::FromJson(file.dump())->Encode("axxb", false), (std::vector<int32_t>{0, 4, 4, 1}));
  file["model"]["fuse_unk"] = true;
  EXPECT_EQ(*Tokenizer::FromJson(file.dump())->Encode("axxb", false), (std::vector<int32_t>{0, 4, 1}));
}

class TokenizerFolder : public testing::Test {
 protected:
  void SetUp() override { Write("tokenizer.json", Small().dump()); }
  void Write(const char* name, const std::string& text) { std::ofstream(folder_ / name, std::ios::binary) << text; }

  test::TemporaryFolder folder_;
};

TEST_F(TokenizerFolder, TakesTheBeginAndEndTokensFromTheConfiguration) {
  Write("tokenizer_config.json", R"({"bos_token": {"content": "<s>"}, "eos_token": "b"})");
  for (const auto& path : {folder_.path(), folder_ / "tokenizer.json"}) {
    const auto tokenizer = Tokenizer::Load(path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
    EXPECT_EQ(tokenizer->bos_id(), 9);
    EXPECT_EQ(tokenizer->eos_id(), 1);
  }
}

TEST_F(TokenizerFolder, LeavesThemEmptyWhereTheConfigurationHasNone) {
  Write("tokenizer_config.json", R"({"bos_token": null, "eos_token": 5})");
  const auto tokenizer = Tokenizer::Load(folder_.path());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer->eos_id(), std::nullopt);
}

TEST_F(TokenizerFolder, NamesTheFileThatIsMissingOrBroken) {
  Write("tokenizer_config.json", "{");
  EXPECT_THAT(std::string(Tokenizer::Load(folder_.path()).error().message()), HasSubstr("tokenizer_config.json is not valid JSON"));
  Write("tokenizer.json", "{}");
  EXPECT_THAT(std::string(Tokenizer::Load(folder_.path()).error().message()),
              HasSubstr("tokenizer.json: the tokenizer file: field \"model\""));
  const auto missing = Tokenizer::Load(folder_ / "nowhere.json");
  EXPECT_EQ(missing.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(std::string(missing.error().message()), HasSubstr("nowhere.json"));
}

}  // namespace
}  // namespace billfish
