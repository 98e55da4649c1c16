// bench: one row format, charts, and Ctrl-C.
#include <gmock/gmock.h>

#include "cli/program.h"

namespace billfish::cli_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void ExpectRow(const Json& row) {
  for (const char* text : {"op", "name", "kernel", "scheme", "mode", "activation", "limit"})
    EXPECT_NE(row[text].get<std::string>(), "") << text;
  for (const char* number : {"median_us", "gb_per_s", "gflop_per_s", "tokens_per_s", "limit_value", "fraction"}) {
    EXPECT_GT(row[number].get<double>(), 0) << number;
  }
  EXPECT_GE(row["repetitions"].get<int>(), 5);
}

std::vector<std::string> SmallBench(const std::string& what) {
  return {"bench", what, "--shapes", "64x128", "--scheme", "mxfp4,int4-g32", "--m", "1,8", "--seconds", "0.01", "--json"};
}

TEST(Bench, LinearWritesARowForEveryCombination) {
  const Json document = RunProgram(SmallBench("linear")).Document();
  ASSERT_EQ(document["rows"].size(), 4U);
  for (const Json& row : document["rows"]) ExpectRow(row);
  EXPECT_GT(document["limits"]["read_gb_per_s"].get<double>(), 0);
  EXPECT_GE(document["limits"]["int8_dot_gop_per_s"].get<double>(), 0.9 * document["limits"]["fp32_fma_gflop_per_s"].get<double>());
}

TEST(Bench, MoeTimesAGroupedMatrixAndAWholeBlock) {
  std::vector<std::string> arguments = SmallBench("moe");
  arguments.insert(arguments.end(), {"--experts", "4", "--top-k", "2"});
  const Json grouped = RunProgram(arguments).Document();
  ASSERT_EQ(grouped["rows"].size(), 4U);
  EXPECT_EQ(grouped["rows"][0]["op"], "grouped");
  arguments.emplace_back("--block");
  const Json block = RunProgram(arguments).Document();
  ASSERT_EQ(block["rows"].size(), 4U);
  EXPECT_EQ(block["rows"][0]["op"], "moe");
  for (const Json& row : block["rows"]) ExpectRow(row);
}

TEST(Bench, ModelTimesPrefillAndDecode) {
  const Json document = RunProgram({"bench", "model", TinyModel(), "--pp", "32", "--tg", "8", "--seconds", "0.01", "--json"}).Document();
  ASSERT_EQ(document["rows"].size(), 2U);
  EXPECT_EQ(document["rows"][0]["op"], "prefill");
  EXPECT_EQ(document["rows"][1]["op"], "decode");
  EXPECT_EQ(document["rows"][0]["scheme"], "mxfp4");
  for (const Json& row : document["rows"]) ExpectRow(row);
  EXPECT_FALSE(document["rows"][0].contains("weights_us"));
  for (const char* part : {"weights_us", "attention_us", "other_us"}) EXPECT_GT(document["rows"][1][part].get<double>(), 0) << part;
  // A saved report tells the parts again.
  const Scratch scratch;
  std::ofstream(scratch / "rows.json") << document.dump();
  EXPECT_EQ(RunProgram({"bench", "--from", scratch / "rows.json", "--json"}).Document(), document);
  EXPECT_THAT(RunProgram({"bench", "--from", scratch / "rows.json"}).out, HasSubstr("decode of tiny-moe-mxfp4, M 1, exact: weights "));
}

TEST(Bench, ModelTimesAShapeWithoutItsCheckpoint) {
  const std::vector<std::string> small = {"--pp", "16", "--tg", "4", "--seconds", "0.01", "--json"};
  std::vector<std::string> arguments = {"bench",    "model", "--shape",     "tiny",  "--layers",  "3",
                                        "--scheme", "nvfp4", "--attention", "nvfp4", "--lm-head", "int4-g128"};
  arguments.insert(arguments.end(), small.begin(), small.end());
  const Json document = RunProgram(arguments).Document();
  ASSERT_EQ(document["rows"].size(), 2U);
  for (const Json& row : document["rows"]) {
    ExpectRow(row);
    EXPECT_EQ(row["name"], "tiny L3");
    EXPECT_EQ(row["scheme"], "nvfp4");
    EXPECT_EQ(row["E"], 16);
  }
}

TEST(Bench, ModelTimesSeveralSequencesAtOnce) {
  const Json document = RunProgram({"bench", "model", "--shape", "tiny", "--layers", "2", "--pp", "0", "--tg", "4", "--batch", "1,5",
                                    "--seconds", "0.01", "--json"})
                            .Document();
  ASSERT_EQ(document["rows"].size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    const Json& row = document["rows"][i];
    ExpectRow(row);
    EXPECT_EQ(row["op"], "decode");
    EXPECT_EQ(row["M"], i == 0 ? 1 : 5);
    EXPECT_NEAR(row["tokens_per_s"].get<double>() * row["median_us"].get<double>() / 1e6, row["M"].get<double>(), 1e-6);
    for (const char* part : {"weights_us", "attention_us", "other_us"}) EXPECT_GT(row[part].get<double>(), 0) << part;
  }
}

TEST(Bench, ModelNeedsAFolderOrAShape) {
  const Finished neither = RunProgram({"bench", "model"});
  EXPECT_EQ(neither.exit_code, 2);
  EXPECT_THAT(neither.err, HasSubstr("a model folder or --shape NAME"));
  EXPECT_THAT(RunProgram({"bench", "model", TinyModel(), "--shape", "tiny"}).err, HasSubstr("path excludes --shape"));
  EXPECT_THAT(RunProgram({"bench", "model", TinyModel(), "--layers", "2"}).err, HasSubstr("--layers requires --shape"));
  EXPECT_THAT(RunProgram({"bench", "model", "--shape", "huge"}).err, HasSubstr("qwen3-30b-a3b"));
  EXPECT_THAT(RunProgram({"bench", "model", "--shape", "tiny", "--layers", "5"}).err,
              HasSubstr("5 layers of tiny were asked for, which has 4"));
  EXPECT_THAT(RunProgram({"bench", "model", "--shape", "tiny", "--scheme", "int3"}).err, HasSubstr("\"int3\" is not a scheme"));
  EXPECT_THAT(RunProgram({"bench", "model", "--shape", "tiny", "--pp", "0", "--tg", "0"}).err, HasSubstr("there is nothing to time"));
  EXPECT_THAT(RunProgram({"bench", "model", "--shape", "tiny", "--tg", "0", "--batch", "4"}).err,
              HasSubstr("--batch is about decode rows"));
  EXPECT_THAT(RunProgram({"bench", "model", "--shape", "tiny", "--batch", "1,65"}).err,
              HasSubstr("--batch got '65'; give whole numbers from 1 to 64"));
}

TEST(Bench, ModelMapsTheWeightsThatAnEarlierRunKept) {
  const Scratch scratch;
  const std::vector<std::string> flags = {"bench",      "model",         TinyModel(),        "--pp",      "8",    "--tg",  "2", "--mode",
                                          "exact,fast", "--panel-cache", scratch / "panels", "--seconds", "0.01", "--json"};
  const Finished first = RunProgram(flags);
  EXPECT_EQ(first.exit_code, 0);
  EXPECT_EQ(first.Document()["rows"].size(), 4U);
  EXPECT_THAT(first.err, HasSubstr("panel cache " + (scratch / "panels") + ": 0 matrices mapped (0 B)"));
  const Finished second = RunProgram(flags);
  EXPECT_EQ(second.Document()["rows"].size(), 4U);
  EXPECT_THAT(second.err, AllOf(HasSubstr(" 0 written (0 B)"), Not(HasSubstr(" 0 matrices mapped"))));
  const Finished random = RunProgram({"bench", "model", "--shape", "tiny", "--panel-cache", scratch / "panels"});
  EXPECT_EQ(random.exit_code, 2);
  EXPECT_THAT(random.err, HasSubstr("--shape excludes --panel-cache"));
}

TEST(Bench, ASavedReportIsDrawnAgain) {
  const Scratch scratch;
  const Finished timed = RunProgram(SmallBench("linear"));
  std::ofstream(scratch / "rows.json") << timed.out;
  for (const char* chart : {"roofline", "bars"}) {
    const std::string svg = scratch / (std::string(chart) + ".svg");
    const Finished drawn = RunProgram({"bench", "--from", scratch / "rows.json", "--svg", svg, "--chart", chart});
    EXPECT_EQ(drawn.exit_code, 0) << drawn.err;
    EXPECT_THAT(ReadFile(svg), HasSubstr("<svg xmlns"));
    EXPECT_THAT(ReadFile(svg), HasSubstr("int4-g32"));
    EXPECT_THAT(ReadFile(svg), HasSubstr("</svg>"));
  }
  EXPECT_EQ(RunProgram({"bench", "--from", scratch / "rows.json", "--json"}).Document(), timed.Document());
}

TEST(Bench, AFileThatIsNoReportIsRefused) {
  const Finished wrong = RunProgram({"bench", "--from", TinyModel() + "/config.json"});
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_THAT(wrong.err, HasSubstr("is no benchmark report"));
  const Scratch scratch;
  std::ofstream(scratch / "short.json") << R"({"schema": "billfish-bench-2", "rows": [], "limits": {}})";
  const Finished incomplete = RunProgram({"bench", "--from", scratch / "short.json"});
  EXPECT_EQ(incomplete.exit_code, 1);
  EXPECT_THAT(incomplete.err, HasSubstr("the field 'version'"));
  std::ofstream(scratch / "old.json") << R"({"schema": "billfish-bench-1", "rows": [], "limits": {}})";
  EXPECT_THAT(RunProgram({"bench", "--from", scratch / "old.json"}).err, HasSubstr("(schema billfish-bench-2)"));
  EXPECT_EQ(RunProgram({"bench", "--from", "/no/such/file"}).exit_code, 1);
  EXPECT_EQ(RunProgram({"bench"}).exit_code, 2);
}

TEST(Bench, WrongListsAreNamed) {
  EXPECT_THAT(RunProgram({"bench", "linear", "--shapes", "64by64"}).err, HasSubstr("--shapes got '64by64'"));
  EXPECT_THAT(RunProgram({"bench", "linear", "--m", "0"}).err, HasSubstr("--m got '0'"));
  EXPECT_THAT(RunProgram({"bench", "linear", "--scheme", "int3"}).err, HasSubstr("int3"));
  EXPECT_THAT(RunProgram({"bench", "linear", "--mode", "exakt"}).err, HasSubstr("--mode got 'exakt'"));
  EXPECT_THAT(RunProgram({"bench", "moe", "--experts", "2", "--top-k", "3", "--shapes", "64x64", "--scheme", "mxfp4"}).err,
              HasSubstr("3 of 2 experts"));
}

TEST(Bench, CtrlCEndsWithCode130) {
  const Finished run = RunProgram({"bench", "linear", "--shapes", "64x64", "--scheme", "mxfp4,nvfp4,int4-g32,bf16", "--m",
                                   "1,2,3,4,5,6,7,8", "--seconds", "2", "--json"},
                                  {.interrupt_after_ms = 1500});
  EXPECT_EQ(run.exit_code, 130);
  EXPECT_EQ(run.Document()["error"]["code"], "cancelled");
}

}  // namespace
}  // namespace billfish::cli_test
