// generate, chat, logits and eval on the model of this repository.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>

#include "cli/program.h"

namespace billfish::cli_test {
namespace {

using ::testing::HasSubstr;

Json Generate(std::vector<std::string> flags) {
  flags.insert(flags.begin(), {"generate", TinyModel(), "--json"});
  const Finished run = RunProgram(flags);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  return run.Document();
}

TEST(Generate, TextGoesToStdoutAndSpeedToStderr) {
  const Finished run = RunProgram({"generate", TinyModel(), "-p", "In the beginning", "-n", "12"});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_THAT(run.err, HasSubstr("tokens/s"));
  EXPECT_THAT(run.err, HasSubstr("mxfp4"));
  const Json document = Generate({"-p", "In the beginning", "-n", "12"});
  EXPECT_EQ(run.out, document["text"].get<std::string>() + "\n");
  EXPECT_EQ(document["new_tokens"], 12);
  EXPECT_NE(document["kernels"][0]["reason"], "");
  EXPECT_EQ(RunProgram({"generate", TinyModel(), "-p", "In the beginning", "-n", "12", "--no-stream"}).out, run.out);
}

TEST(Generate, ADashReadsThePromptFromStandardInput) {
  const Finished piped = RunProgram({"generate", TinyModel(), "-p", "-", "-n", "8"}, {.text = "In the beginning"});
  EXPECT_EQ(piped.exit_code, 0);
  EXPECT_EQ(piped.out, RunProgram({"generate", TinyModel(), "-p", "In the beginning", "-n", "8"}).out);
}

TEST(Generate, TheSeedDecidesTheTextAndThreadsDoNot) {
  const Json first = Generate({"-p", "The", "-n", "24", "--temp", "1", "--seed", "5", "--threads", "1"});
  EXPECT_EQ(first["ids"], Generate({"-p", "The", "-n", "24", "--temp", "1", "--seed", "5", "--threads", "2"})["ids"]);
  EXPECT_NE(first["ids"], Generate({"-p", "The", "-n", "24", "--temp", "1", "--seed", "6", "--threads", "1"})["ids"]);
}

TEST(Generate, WithoutAPromptIsWrongUsage) {
  const Finished run = RunProgram({"generate", TinyModel()});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("give -p TEXT"));
}

TEST(Generate, ASamplingFlagOutsideItsRangeIsNamed) {
  const Finished run = RunProgram({"generate", TinyModel(), "-p", "x", "--temp", "1", "--top-p", "1.5"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("top_p"));
}

TEST(Devices, EveryTextVerbTakesOneAndSaysWhereThereIsNone) {
  const Finished gpu = RunProgram({"generate", TinyModel(), "-p", "x", "-n", "2", "--device", "cuda", "--json"});
  if (gpu.exit_code == 0) {
    EXPECT_EQ(gpu.Document()["device"], "cuda");
  } else {
    EXPECT_THAT(gpu.err, HasSubstr("a GPU was asked for"));
    const Scratch scratch;
    for (const std::vector<std::string>& verb : {std::vector<std::string>{"eval", TinyModel(), "--ids", "1,2,3,4", "--window", "2"},
                                                 {"logits", TinyModel(), "--ids", "1,2", "--out", scratch / "l.safetensors"},
                                                 {"bench", "model", TinyModel()}}) {
      std::vector<std::string> arguments = verb;
      arguments.insert(arguments.end(), {"--device", "cuda"});
      const Finished run = RunProgram(arguments);
      EXPECT_NE(run.exit_code, 0) << verb[0];
      EXPECT_THAT(run.err, HasSubstr("a GPU was asked for")) << verb[0];
    }
  }
  EXPECT_EQ(Generate({"-p", "x", "-n", "2"})["device"], "cpu");
  const Finished wrong = RunProgram({"generate", TinyModel(), "-p", "x", "--device", "tpu"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("'tpu' is no device"));
}

TEST(Generate, Fp32ActivationsOnAGpuAreRefused) {
  const Finished run = RunProgram({"generate", TinyModel(), "-p", "x", "--device", "cuda", "--activations", "f32"});
  EXPECT_NE(run.exit_code, 0);
  EXPECT_THAT(run.err, HasSubstr("F32 activations were asked for on a GPU"));
}

TEST(Logits, TheFileHoldsEveryTokensLogitsAndAgreesWithGenerate) {
  const Scratch scratch;
  const Finished run = RunProgram({"logits", TinyModel(), "--ids", "17,300,45", "--out", scratch / "l.safetensors"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out, (scratch / "l.safetensors") + "\n");
  const std::string file = ReadFile(scratch / "l.safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  const Json header = Json::parse(file.substr(8, header_bytes), nullptr, false);
  EXPECT_EQ(header["logits"]["dtype"], "F32");
  EXPECT_EQ(header["logits"]["shape"], Json({3, 4096}));
  std::vector<float> last(4096);
  ASSERT_EQ(file.size(), 8 + header_bytes + 3 * 4096 * sizeof(float));
  std::memcpy(last.data(), file.data() + file.size() - last.size() * sizeof(float), last.size() * sizeof(float));
  const auto best = std::max_element(last.begin(), last.end()) - last.begin();
  EXPECT_EQ(Generate({"--ids", "17,300,45", "-n", "1", "--ignore-eos"})["ids"], Json({best}));
  // The ids of a safetensors file are read too, and a file of floats is none.
  EXPECT_EQ(RunProgram({"logits", TinyModel(), "--ids", scratch / "l.safetensors", "--out", scratch / "m"}).exit_code, 2);
}

TEST(Logits, IdsThatAreNoIdsAreRefused) {
  const Finished words = RunProgram({"logits", TinyModel(), "--ids", "1,two", "--out", "/tmp/never"});
  EXPECT_EQ(words.exit_code, 2);
  EXPECT_THAT(words.err, HasSubstr("'1,two'"));
  const Finished large = RunProgram({"logits", TinyModel(), "--ids", "4096", "--out", "/tmp/never"});
  EXPECT_EQ(large.exit_code, 2);
  EXPECT_THAT(large.err, HasSubstr("4096"));
  EXPECT_FALSE(fs::exists("/tmp/never"));
}

TEST(Eval, TheHeldOutSampleHasItsKnownPerplexity) {
  const Json document = RunProgram({"eval", TinyModel(), "--text", TinyModel() + "/held_out.txt", "--window", "512", "--json"}).Document();
  EXPECT_NEAR(document["perplexity"].get<double>(), 17.70, 0.02);
  EXPECT_EQ(document["windows"], 35);
  EXPECT_EQ(document["tokens"], 35 * 512);
}

TEST(Eval, FastModeStaysWithinOnePercent) {
  const std::vector<std::string> arguments = {"eval", TinyModel(), "--text", TinyModel() + "/held_out.txt", "--windows", "4", "--json"};
  std::vector<std::string> fast = arguments;
  fast.insert(fast.end(), {"--mode", "fast"});
  const double exact = RunProgram(arguments).Document()["perplexity"];
  EXPECT_NEAR(RunProgram(fast).Document()["perplexity"].get<double>(), exact, 0.01 * exact);
}

TEST(Eval, NeedsExactlyOneSource) {
  EXPECT_THAT(RunProgram({"eval", TinyModel()}).err, HasSubstr("--ids FILE.npy or --text FILE"));
  EXPECT_EQ(RunProgram({"eval", TinyModel(), "--ids", "1,2", "--text", "x"}).exit_code, 2);
}

TEST(Eval, MoreWindowsThanIdsIsRefused) {
  const Finished run = RunProgram({"eval", TinyModel(), "--ids", "1,2,3", "--window", "2", "--windows", "9"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(run.out, "");
}

TEST(Chat, AModelWithoutTemplateSaysSo) {
  const Finished run = RunProgram({"chat", TinyModel()}, {.text = "Hello\n"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("no chat template"));
}

TEST(Chat, EachLineGetsAnAnswerInTheTemplatesForm) {
  const Scratch scratch;
  fs::copy(TinyModel(), scratch / "chat", fs::copy_options::recursive);
  std::ofstream(scratch / "chat/chat_template.jinja") << "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
  const Finished run = RunProgram({"chat", scratch / "chat", "-n", "5", "--json"}, {.text = "Hello\nAnd again\n"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  std::istringstream lines(run.out);
  std::string line;
  int answers = 0;
  while (std::getline(lines, line)) {
    const Json answer = Json::parse(line, nullptr, false);
    ASSERT_TRUE(answer.is_object()) << line;
    EXPECT_LE(answer["new_tokens"].get<int>(), 5);
    ++answers;
  }
  EXPECT_EQ(answers, 2);
  // The same conversation without the cache's help: the second answer continues both turns.
  const Json first = Json::parse(run.out.substr(0, run.out.find('\n')), nullptr, false);
  const Json plain = RunProgram({"generate", scratch / "chat", "-p", "user: Hello\n", "-n", "5", "--json"}).Document();
  EXPECT_EQ(first["text"], plain["text"]);
}

TEST(PanelCache, TheSecondRunMapsWhatTheFirstKept) {
  const Scratch scratch;
  const std::vector<std::string> flags = {"generate",      TinyModel(),       "-p", "In the beginning", "-n", "8",
                                          "--panel-cache", scratch / "panels"};
  const Finished first = RunProgram(flags);
  EXPECT_EQ(first.exit_code, 0);
  EXPECT_THAT(first.err, HasSubstr("panel cache " + (scratch / "panels") + ": 0 matrices mapped (0 B)"));
  const Finished second = RunProgram(flags);
  EXPECT_EQ(second.out, first.out);
  EXPECT_THAT(second.err, HasSubstr(" 0 written (0 B)"));
  std::vector<std::string> with_json = flags;
  with_json.push_back("--json");
  const Json document = RunProgram(with_json).Document();
  EXPECT_GT(document["panel_cache"]["mapped"], 0);
  EXPECT_EQ(document["panel_cache"]["written"], 0);
}

TEST(PanelCache, AFolderThatCannotBeMadeIsReportedAndTheRunSucceeds) {
  const Finished run = RunProgram({"generate", TinyModel(), "-p", "a", "-n", "2", "--panel-cache", "/proc/panels"});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_THAT(run.err, HasSubstr("the next run packs again"));
}

}  // namespace
}  // namespace billfish::cli_test
