// Every rule of the safetensors format, broken one at a time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "billfish/checkpoint.h"
#include "support/checkpoint_folder.h"

namespace billfish {
namespace {

using test::SafetensorsBuilder;
using test::SafetensorsBytes;
using test::TemporaryFolder;
using test::WriteFile;
using testing::HasSubstr;

class Safetensors : public testing::Test {
 protected:
  Result<Checkpoint> Open(const std::string& bytes) {
    WriteFile(folder_ / "model.safetensors", bytes);
    return Checkpoint::Open(folder_ / "model.safetensors");
  }
  void ExpectCorrupt(const std::string& bytes, const std::string& text) {
    const auto checkpoint = Open(bytes);
    ASSERT_FALSE(checkpoint) << "accepted, expected: " << text;
    EXPECT_EQ(checkpoint.error().code(), ErrorCode::kCorruptFile);
    EXPECT_THAT(std::string(checkpoint.error().message()), HasSubstr(text));
  }
  void ExpectHeaderCorrupt(const std::string& header, const std::string& text, size_t data_bytes = 4) {
    ExpectCorrupt(SafetensorsBytes(header, std::string(data_bytes, '\0')), text);
  }
  TemporaryFolder folder_;
};

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets) {
  std::string text("\"");
  return text.append(name)
      .append(R"(":{"dtype":")")
      .append(dtype)
      .append(R"(","shape":)")
      .append(shape)
      .append(R"(,"data_offsets":)")
      .append(offsets)
      .append("}");
}

TEST_F(Safetensors, ReadsNamesTypesShapesAndPlaces) {
  const auto checkpoint = Open(SafetensorsBuilder().Add<float>("b", "F32", {2, 1}, {1, 2}).Add<uint8_t>("a", "U8", {3}, {7, 8, 9}).Bytes());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  ASSERT_EQ(checkpoint->tensors().size(), 2U);
  EXPECT_EQ(checkpoint->tensors()[0].name, "a");
  EXPECT_EQ(checkpoint->tensors()[1].shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(*checkpoint->ReadF32("b"), (std::vector<float>{1, 2}));
  EXPECT_EQ(static_cast<int>(checkpoint->Read("a")->data()[2]), 9);
  EXPECT_EQ(checkpoint->Read("c").error().code(), ErrorCode::kNotFound);
}

TEST_F(Safetensors, TheSmallestFileIsAnEmptyObjectPaddedWithSpaces) {
  EXPECT_TRUE(Open(SafetensorsBytes("{}      ", "")));
  EXPECT_TRUE(Open(SafetensorsBytes("{}", "")));
}

TEST_F(Safetensors, ScalarsAndEmptyTensorsAreLegal) {
  const auto checkpoint =
      Open(SafetensorsBytes("{" + Entry("s", "F32", "[]", "[0,4]") + "," + Entry("e", "F32", "[0,5]", "[4,4]") + "}", std::string(4, 'x')));
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->Find("e")->bytes, 0U);
}

TEST_F(Safetensors, UnknownFieldsOfATensorAreIgnored) {
  EXPECT_TRUE(
      Open(SafetensorsBytes(R"({"s":{"extra":{"a":[1,{"b":null}]},"dtype":"U8","more":-1.5,"shape":[1],"data_offsets":[0,1]}})", "x")));
}

TEST_F(Safetensors, MetadataIsTextOnly) {
  EXPECT_TRUE(Open(SafetensorsBytes(R"({"__metadata__":{"format":"pt"}})", "")));
  ExpectHeaderCorrupt(R"({"__metadata__":{"format":1}})", "a number in \"__metadata__\"", 0);
  ExpectHeaderCorrupt(R"({"__metadata__":{"format":{}}})", "an object inside", 0);
}

TEST_F(Safetensors, RefusesWrongLengths) {
  ExpectCorrupt("", "0 bytes are too few");
  ExpectCorrupt("1234567", "7 bytes are too few");
  ExpectCorrupt(std::string(8, '\xff'), "this is no safetensors file");
  ExpectCorrupt(std::string("\x10\0\0\0\0\0\0\0{}", 10), "it is truncated");
  ExpectCorrupt(std::string(8, '\0'), "does not begin with '{'");
  ExpectCorrupt(SafetensorsBytes(" {}", ""), "does not begin with '{'");
}

TEST_F(Safetensors, RefusesDamagedJson) {
  ExpectHeaderCorrupt("{", "invalid JSON");
  ExpectHeaderCorrupt("{}{}", "invalid JSON");
  ExpectHeaderCorrupt("{\"a\xff\":1}", "invalid JSON");
  ExpectHeaderCorrupt("{\"a\":1}", "a number at the top level");
  ExpectHeaderCorrupt("{\"a\":[]}", "a list at the top level");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[1]", "[0,4]") + ",}", "invalid JSON");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[-1]", "[0,4]") + "}", "the negative number -1");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[1.0]", "[0,4]") + "}", "the number 1.0");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[[1]]", "[0,4]") + "}", "a list in \"a\"");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "1", "[0,4]") + "}", "a number in \"a\"");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[99999999999999999999]", "[0,4]") + "}", "the number 99999999999999999999");
}

TEST_F(Safetensors, RefusesDuplicateNames) {
  const std::string entry = Entry("a", "F32", "[1]", "[0,4]");
  ExpectHeaderCorrupt("{" + entry + "," + entry + "}", "the name \"a\" appears twice");
  ExpectHeaderCorrupt(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "has the field dtype twice");
}

TEST_F(Safetensors, RefusesWrongSizesAndPlaces) {
  ExpectHeaderCorrupt(R"({"a":{"dtype":"F32","shape":[1]}})", "must have dtype, shape and two data_offsets");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[1]", "[0,4,8]") + "}", "two data_offsets");
  ExpectHeaderCorrupt("{" + Entry("a", "F33", "[1]", "[0,4]") + "}", "unknown dtype \"F33\"");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[2]", "[0,4]") + "}", "needs 8 bytes by its dtype and shape; its offsets give it 4");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[1]", "[4,0]") + "}", "outside the 4 bytes");
  ExpectHeaderCorrupt("{" + Entry("a", "F32", "[2]", "[0,8]") + "}", "the file is truncated or damaged");
  ExpectHeaderCorrupt("{" + Entry("a", "F4", "[3]", "[0,2]") + "}", "no whole number of bytes");
  ExpectHeaderCorrupt("{" + Entry("a", "U8", "[4294967296,4294967296]", "[0,4]") + "}", "more elements than 64 bits can count");
  ExpectHeaderCorrupt("{" + Entry("a", "U8", "[9223372036854775807]", "[0,4]") + "}", "more bits than 64 bits can count");
  ExpectHeaderCorrupt("{" + Entry("a", "U8", "[2]", "[0,2]") + "," + Entry("b", "U8", "[1]", "[3,4]") + "}", "there is a hole");
  ExpectHeaderCorrupt("{" + Entry("a", "U8", "[3]", "[0,3]") + "," + Entry("b", "U8", "[2]", "[2,4]") + "}", "tensors overlap");
  ExpectHeaderCorrupt("{" + Entry("a", "U8", "[3]", "[0,3]") + "}", "1 bytes follow the last tensor");
  ExpectHeaderCorrupt("{}", "4 bytes follow the last tensor");
}

TEST_F(Safetensors, EveryTruncationIsAnErrorAndEveryBitFlipIsSafe) {
  const std::string sound =
      SafetensorsBuilder().Add<float>("layer.weight", "F32", {2, 2}, {1, 2, 3, 4}).Add<uint8_t>("b", "U8", {3}, {1, 2, 3}).Bytes();
  ASSERT_TRUE(Open(sound));
  for (size_t length = 0; length < sound.size(); ++length) EXPECT_FALSE(Open(sound.substr(0, length))) << length;
  const size_t header_end = sound.size() - 19;
  for (size_t bit = 0; bit < header_end * 8; ++bit) {
    std::string damaged = sound;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    const auto checkpoint = Open(damaged);
    if (!checkpoint) continue;
    for (const TensorInfo& tensor : checkpoint->tensors()) {
      const auto bytes = checkpoint->Read(tensor.name);
      ASSERT_TRUE(bytes);
      EXPECT_LE(tensor.file_offset + tensor.bytes, sound.size());
    }
    if (const auto modules = checkpoint->Modules()) {
      for (const ModuleInfo& module : *modules) (void)checkpoint->LoadWeight(module.name).has_value();
    }
  }
}

}  // namespace
}  // namespace billfish
