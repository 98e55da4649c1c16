// SHA-256 against the examples of FIPS 180-4 and the device code as it lies inside the library.
#include "cuda/sha256.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "cuda/embedded_sources.h"

namespace billfish::cuda {
namespace {

std::string Digest(std::string_view text) {
  Sha256 hash;
  hash.Add(std::as_bytes(std::span(text)));
  return Hex(hash.Finish());
}

TEST(Sha256, MatchesThePublishedExamples) {
  EXPECT_EQ(Digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Digest(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, FieldsDoNotRunIntoEachOther) {
  Sha256 one, two;
  one.AddField("ab"), one.AddField("c");
  two.AddField("a"), two.AddField("bc");
  EXPECT_NE(Hex(one.Finish()), Hex(two.Finish()));
}

TEST(EmbeddedSources, AreTheFilesOfTheFolderByteForByte) {
  namespace fs = std::filesystem;
  const fs::path src = fs::path(BILLFISH_SOURCE_DIR) / "src";
  std::set<std::string> names;
  for (const EmbeddedSource& source : EmbeddedSources()) {
    names.insert(source.name);
    std::ifstream in(src / source.name, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    EXPECT_EQ(std::string(source.text, source.bytes), text.str()) << source.name;
    EXPECT_EQ(source.text[source.bytes], '\0') << source.name;
  }
  for (const auto& entry : fs::directory_iterator(src / "cuda/kernels")) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".cu" && extension != ".cuh") continue;
    EXPECT_EQ(names.count(fs::relative(entry.path(), src).string()), 1U) << entry.path();
  }
}

}  // namespace
}  // namespace billfish::cuda
