// The command line itself: help, mistakes, streams and exit codes.
#include <gmock/gmock.h>

#include "cli/program.h"

namespace billfish::cli_test {
namespace {

using ::testing::HasSubstr;

const char* const kVerbs[] = {"inspect", "explain", "quantize", "dequantize", "verify",  "generate",   "chat",
                              "logits",  "eval",    "bench",    "kernels",    "version", "completions"};

TEST(Usage, HelpListsEveryVerbAndEveryVerbHasExamples) {
  const Finished help = RunProgram({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_EQ(help.err, "");
  for (const char* verb : kVerbs) {
    EXPECT_THAT(help.out, HasSubstr(verb));
    const Finished verb_help = RunProgram({verb, "--help"});
    EXPECT_EQ(verb_help.exit_code, 0) << verb;
    EXPECT_THAT(verb_help.out, HasSubstr("Examples:\n")) << verb;
    EXPECT_THAT(verb_help.out, HasSubstr(std::string("billfish ") + verb)) << verb;
    EXPECT_THAT(verb_help.out, HasSubstr("--json")) << verb;
  }
}

TEST(Usage, NoVerbIsWrongUsage) {
  const Finished run = RunProgram({});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(run.out, "");
  EXPECT_THAT(run.err, HasSubstr("billfish --help"));
}

TEST(Usage, AnUnknownVerbIsNamed) {
  const Finished run = RunProgram({"inspekt", "x"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("there is no verb 'inspekt'"));
}

TEST(Usage, AnUnknownFlagIsNamed) {
  const Finished run = RunProgram({"inspect", TinyModel(), "--frobnicate"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("--frobnicate"));
  EXPECT_EQ(run.out, "");
}

TEST(Usage, AValueOutsideItsSetIsRefused) {
  const Finished run = RunProgram({"eval", TinyModel(), "--ids", "1,2,3", "--mode", "sloppy"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("sloppy"));
}

TEST(Usage, AMissingFolderIsAFailureAndNamesIt) {
  for (const char* verb : {"inspect", "verify"}) {
    const Finished run = RunProgram({verb, "/no/such/folder"});
    EXPECT_EQ(run.exit_code, 1) << verb;
    EXPECT_EQ(run.out, "") << verb;
    EXPECT_THAT(run.err, HasSubstr("/no/such/folder")) << verb;
  }
}

TEST(Usage, JsonErrorsAreOneDocumentOnStdoutAndASentenceOnStderr) {
  const Finished run = RunProgram({"inspect", "/no/such/folder", "--json"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_EQ(run.Document()["error"]["code"], "not found");
  EXPECT_THAT(run.err, HasSubstr("/no/such/folder"));
}

TEST(Usage, TwoDashesEndTheFlags) {
  const Finished run = RunProgram({"inspect", "--", "--no-such-folder"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("--no-such-folder"));
}

TEST(Usage, VersionTellsCommitCompilerAndProcessor) {
  const Json version = RunProgram({"version", "--json"}).Document();
  for (const char* key : {"version", "commit", "compiler", "build", "cpu", "isa"}) EXPECT_NE(version[key].get<std::string>(), "") << key;
  EXPECT_GE(version["threads"].get<int>(), 1);
  EXPECT_THAT(RunProgram({"version"}).out, HasSubstr(version["compiler"].get<std::string>()));
  EXPECT_THAT(RunProgram({"--version"}).out, HasSubstr(version["version"].get<std::string>()));
}

TEST(Usage, ThreadsComeFromTheEnvironment) {
  EXPECT_EQ(RunProgram({"version", "--json"}, {.environment = {{"BILLFISH_THREADS", "3"}}}).Document()["threads"], 3);
}

TEST(Usage, CompletionsNameEveryVerbForEveryShell) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Finished run = RunProgram({"completions", shell});
    EXPECT_EQ(run.exit_code, 0);
    for (const char* verb : kVerbs) EXPECT_THAT(run.out, HasSubstr(verb)) << shell;
  }
  EXPECT_EQ(RunProgram({"completions", "tcsh"}).exit_code, 2);
}

TEST(Usage, BashAcceptsItsCompletionScript) {
  const Scratch scratch;
  const Finished run = RunProgram({"completions", "bash"}, {.stdout_path = scratch / "billfish.bash"});
  ASSERT_EQ(run.exit_code, 0);
  if (std::system("bash -c true") != 0) GTEST_SKIP() << "bash is not installed";
  EXPECT_EQ(std::system(("bash -n " + (scratch / "billfish.bash")).c_str()), 0);
  const std::string complete = "bash -c '. " + (scratch / "billfish.bash") +
                               "; COMP_WORDS=(billfish eval --mode e); COMP_CWORD=3; _billfish; test \"${COMPREPLY[*]}\" = exact'";
  EXPECT_EQ(std::system(complete.c_str()), 0);
}

TEST(Usage, AReaderThatLeftEndsTheProgramSilently) {
  const Finished run = RunProgram({"completions", "zsh"}, {.stdout_closed_pipe = true});
  EXPECT_EQ(run.signal, SIGPIPE);
  EXPECT_EQ(run.err, "");
}

TEST(Usage, AFullDiskUnderStandardOutputIsAFailure) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "/dev/full does not exist";
  const Finished run = RunProgram({"completions", "zsh"}, {.stdout_path = "/dev/full"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("standard output"));
}

TEST(Usage, ExplainNamesOneChosenKernelAndAReasonForEach) {
  const Finished run = RunProgram({"explain", "--scheme", "nvfp4", "--experts", "8", "--n", "64", "--k", "128", "--json"});
  EXPECT_EQ(run.exit_code, 0);
  const Json document = run.Document();
  int chosen = 0;
  for (const Json& verdict : document["verdicts"]) {
    EXPECT_NE(verdict["reason"], "");
    chosen += verdict["chosen"].get<bool>() ? 1 : 0;
    if (verdict["chosen"].get<bool>()) {
      EXPECT_EQ(verdict["kernel"], document["kernel"]);
    }
  }
  EXPECT_EQ(chosen, 1);
  EXPECT_THAT(RunProgram({"explain"}).out, HasSubstr("runs"));
}

TEST(Usage, ExplainRefusesAnUnknownSchemeAndListsTheKnown) {
  const Finished run = RunProgram({"explain", "--scheme", "int3"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("int3"));
  EXPECT_THAT(run.err, HasSubstr("nvfp4"));
}

TEST(Usage, ATierInTheEnvironmentChangesTheChoice) {
  const Json document = RunProgram({"explain", "--json"}, {.environment = {{"BILLFISH_KERNEL", "scalar"}}}).Document();
  EXPECT_EQ(document["kernel"], "w4a32_linear_scalar");
}

}  // namespace
}  // namespace billfish::cli_test
