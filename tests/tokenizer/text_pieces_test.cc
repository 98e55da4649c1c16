// The parts below the tokenizer: UTF-8, the byte alphabet, regular expressions and splits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/oniguruma.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << pattern << ": " << regex.status().message();
  if (!regex.ok()) return {};
  std::vector<Range> ranges;
  const Status status = Regex::Scanner(*regex).FindAll(text, ranges);
  EXPECT_TRUE(status.ok()) << status.message();
  std::vector<std::string> found;
  for (const Range& r : ranges) found.emplace_back(text.substr(r.begin, r.end - r.begin));
  return found;
}

TEST(Utf8, RoundTripsEveryCharacter) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(c, text);
    const Utf8Unit unit = Utf8At(text, 0);
    ASSERT_EQ(unit.kind, Utf8Unit::Kind::kCharacter) << static_cast<uint32_t>(c);
    ASSERT_EQ(unit.length, text.size());
    ASSERT_EQ(unit.code_point, c);
    for (size_t length = 1; length < text.size(); ++length) {
      ASSERT_EQ(Utf8At(text.substr(0, length), 0).kind, Utf8Unit::Kind::kTruncated);
    }
  }
}

TEST(Utf8, ReplacesMaximalInvalidPartsByOneCharacterEach) {
  // The example of the Unicode standard, table 3-8.
  EXPECT_EQ(ToValidUtf8("a\xF1\x80\x80\xE1\x80\xC2"
                        "b\x80"
                        "c\x80\xBF"
                        "d"),
            "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
            "b\xEF\xBF\xBD"
            "c\xEF\xBF\xBD\xEF\xBF\xBD"
            "d");
  EXPECT_EQ(ToValidUtf8("\xED\xA0\x80"), "���");
  EXPECT_EQ(ToValidUtf8("\xE2\x82"), "�");
  EXPECT_EQ(FindInvalidUtf8("héllo"), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("hé\xC3"), 3u);
}

TEST(ByteAlphabet, IsAOneToOneMapOfBytesToPrintableCharacters) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = ByteToAlphabet(static_cast<uint8_t>(byte));
    EXPECT_EQ(AlphabetToByte(c), byte);
    AppendUtf8(c, all);
  }
  EXPECT_EQ(CountCharacters(all), 256u);
  EXPECT_EQ(ByteToAlphabet(' '), 0x120u);
  EXPECT_EQ(AlphabetToByte(' '), -1);
  EXPECT_EQ(AlphabetToByte(0x144), -1);
}

TEST(ByteAlphabet, TakesATokenOutsideOfItAsItsOwnBytes) {
  std::string bytes = "x";
  AppendBytesOfToken("Ġa", bytes);
  AppendBytesOfToken("你Ġ", bytes);
  EXPECT_EQ(bytes, "x a你Ġ");
}

TEST(Oniguruma, KeepsWhatPcreReadsTheSameWay) {
  for (const char* pattern : {"abc", "(?:a|b)+", "a{2,3}", "(?=x)y", "(?<!x)y", "(?<n>a)\\k<n>", "a*?b++", "\\x{41}", "(?i:ab)"}) {
    EXPECT_EQ(*TranslateOniguruma(pattern), pattern);
  }
}

TEST(Oniguruma, RewritesWhatDiffers) {
  EXPECT_EQ(*TranslateOniguruma("a{2}+"), "(?:a{2})+");
  EXPECT_EQ(*TranslateOniguruma("(ab){1,2}+c"), "(?:(ab){1,2})+c");
  EXPECT_EQ(*TranslateOniguruma("a{,3}"), "a{0,3}");
  EXPECT_EQ(*TranslateOniguruma("a{x}{"), "a\\{x}\\{");
  EXPECT_EQ(*TranslateOniguruma("(?m:.)"), "(?s:.)");
  EXPECT_EQ(*TranslateOniguruma("a(?i)b|c"), "a(?i:b|c)");
  EXPECT_EQ(*TranslateOniguruma("(a(?i)b)c"), "(a(?i:b))c");
  EXPECT_EQ(*TranslateOniguruma("\\u00e9"), "\\x{00e9}");
  EXPECT_EQ(*TranslateOniguruma("a(?#note)b"), "ab");
  EXPECT_EQ(*TranslateOniguruma("[a&&b]"), "(?:(?=[b])[a])");
  EXPECT_EQ(*TranslateOniguruma("[^a[b]]"), "(?:(?!(?:[a]|[b]))(?s:.))");
}

TEST(Oniguruma, NamesWhatItCannotRead) {
  const auto error = [](std::string_view pattern) { return std::string(TranslateOniguruma(pattern).status().message()); };
  EXPECT_THAT(error("(a"), HasSubstr("has an unclosed group at byte 2"));
  EXPECT_THAT(error("a)"), HasSubstr("closes a group that was not opened at byte 1"));
  EXPECT_THAT(error("[a"), HasSubstr("has an unclosed character class"));
  EXPECT_THAT(error("[a&&]"), HasSubstr("empty character class"));
  EXPECT_THAT(error("[&&a]"), HasSubstr("empty character class"));
  EXPECT_THAT(error("a\\"), HasSubstr("ends in a backslash"));
  EXPECT_THAT(error("\\p{L"), HasSubstr("unclosed property name"));
  EXPECT_THAT(error("\\x{41"), HasSubstr("unclosed character code"));
  EXPECT_THAT(error("\\k<n"), HasSubstr("unclosed reference"));
  EXPECT_THAT(error("(?#x"), HasSubstr("unclosed comment"));
  EXPECT_THAT(error("(?~a)"), HasSubstr("uses \"(?~a\" at byte 0, which billfish does not know"));
  EXPECT_THAT(error(std::string(300, '(')), HasSubstr("more than 200 groups"));
  EXPECT_THAT(error(std::string(300, '[')), HasSubstr("nests too many character classes"));
  EXPECT_EQ(TranslateOniguruma("(?~a)").status().code(), ErrorCode::kUnsupported);
}

TEST(Regex, MatchesUnicodeClassesAsOnigurumaDoes) {
  EXPECT_THAT(Matches("\\s", "a \u0085\u180e\u3000b"), ElementsAre(" ", "\u0085", "\u3000"));
  EXPECT_THAT(Matches("\\w+", "a\u0301b_1½ c-d"), ElementsAre("a\u0301b_1½", "c", "d"));
  EXPECT_THAT(Matches("[\\w]+", "a½b"), ElementsAre("a", "b"));
  EXPECT_THAT(Matches("[^\\S\\n]+", " \n\t"), ElementsAre(" ", "\t"));
  EXPECT_THAT(Matches("[[:alpha:]]+", "aé1b"), ElementsAre("aé", "b"));
  EXPECT_THAT(Matches("[\\p{L}&&[^aeiou]]+", "hello"), ElementsAre("h", "ll"));
  EXPECT_THAT(Matches("(?i:'s|'LL)", "'S 'll 'ſ"), ElementsAre("'S", "'ll", "'ſ"));
  EXPECT_THAT(Matches("\\h+", "xBEEFg"), ElementsAre("BEEF"));
}

TEST(Regex, LeavesOutAnEmptyMatchBehindAnother) {
  EXPECT_THAT(Matches("x*", "axb"), ElementsAre("", "x", ""));
  EXPECT_THAT(Matches("", "é"), ElementsAre("", ""));
}

TEST(Regex, RefusesToMoveAMatchInsideALookaround) {
  EXPECT_THAT(std::string(Regex::Compile("(?<=(?=(a))\\K.)|b").status().message()), HasSubstr("does not compile"));
}

TEST(Regex, MatchesLongRunsWithoutAStack) {
  const std::string spaces(300'000, ' ');
  EXPECT_THAT(Matches("\\s+(?!\\S)|\\s+", spaces + "x"), ElementsAre(spaces.substr(1), " "));
  EXPECT_EQ(Matches("(?:a|b)+", std::string(100'000, 'a')).size(), 1u);
}

TEST(Split, CutsAsEachBehaviorSays) {
  const auto cut = [](SplitBehavior behavior, bool invert) {
    const std::string_view text = "--a-bc-";
    std::vector<Range> out;
    SplitAt(text.size(), {{0, 1}, {1, 2}, {3, 4}, {6, 7}}, behavior, invert, 0, out);
    std::vector<std::string> parts;
    for (const Range& r : out) parts.emplace_back(text.substr(r.begin, r.end - r.begin));
    return parts;
  };
  EXPECT_THAT(cut(SplitBehavior::kRemoved, false), ElementsAre("a", "bc"));
  EXPECT_THAT(cut(SplitBehavior::kRemoved, true), ElementsAre("-", "-", "-", "-"));
  EXPECT_THAT(cut(SplitBehavior::kIsolated, false), ElementsAre("-", "-", "a", "-", "bc", "-"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithPrevious, false), ElementsAre("-", "-", "a-", "bc-"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithNext, false), ElementsAre("-", "-a", "-bc", "-"));
  EXPECT_THAT(cut(SplitBehavior::kContiguous, false), ElementsAre("--", "a", "-", "bc", "-"));
}

}  // namespace
}  // namespace billfish::tokenizer
