#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "billfish/checkpoint.h"
#include "billfish/safetensors.h"
#include "checkpoint/write_fixture.h"
#include "checkpoint/writer/left_out.h"
#include "checkpoint/writer/module_kind.h"

namespace billfish {
namespace {

using checkpoint::KindOfModule;
using checkpoint::ModuleKind;
using testing::HasSubstr;

std::vector<std::byte> Counting(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

TEST(WriteSafetensors, ReadsBackWhatWasWrittenAligned) {
  const test::TemporaryFolder folder;
  const std::vector<std::byte> bytes = Counting(64);
  const std::span<const std::byte> all(bytes);
  const SafetensorsEntry tensors[] = {{"b", DType::kU8, {3}, all.first(3)},
                                      {"scalar", DType::kF32, {}, all.first(4)},
                                      {"a \"quoted\" \u00e9", DType::kBF16, {1, 5}, all.subspan(8, 10)},
                                      {"empty", DType::kI64, {0, 7}, {}},
                                      {"wide", DType::kI64, {2}, all.first(16)}};
  const Status status = WriteSafetensors(folder / "t.safetensors", tensors);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_FALSE(std::filesystem::exists(folder / "t.safetensors.part"));
  const auto file = Checkpoint::Open(folder / "t.safetensors");
  ASSERT_TRUE(file.ok()) << file.error().message();
  ASSERT_EQ(file->tensors().size(), 5U);
  for (const SafetensorsEntry& tensor : tensors) {
    SCOPED_TRACE(tensor.name);
    const TensorInfo* info = file->Find(tensor.name);
    ASSERT_NE(info, nullptr);
    EXPECT_EQ(info->dtype, tensor.dtype);
    EXPECT_EQ(info->shape, tensor.shape);
    EXPECT_EQ(info->file_offset % static_cast<size_t>(DTypeBits(tensor.dtype) / 8), 0U);
    const Bytes read = *file->Read(tensor.name);
    EXPECT_TRUE(std::equal(read.view().begin(), read.view().end(), tensor.bytes.begin(), tensor.bytes.end()));
  }
}

TEST(WriteSafetensors, RefusesWhatTheFormatCannotHold) {
  const test::TemporaryFolder folder;
  const std::vector<std::byte> bytes = Counting(64);
  const auto message = [&](const std::vector<SafetensorsEntry>& tensors) {
    const Status status = WriteSafetensors(folder / "t.safetensors", tensors);
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
    EXPECT_FALSE(std::filesystem::exists(folder / "t.safetensors"));
    return std::string(status.message());
  };
  const std::span<const std::byte> four = std::span<const std::byte>(bytes).first(4);
  EXPECT_THAT(message({{"a", DType::kU8, {4}, four}, {"a", DType::kF32, {1}, four}}), HasSubstr("two tensors named a"));
  EXPECT_THAT(message({{"a", DType::kF32, {2}, four}}), HasSubstr("a was given 4 bytes"));
  EXPECT_THAT(message({{"a", DType::kF4E2M1, {9}, four}}), HasSubstr("need 36 bits"));
  EXPECT_THAT(message({{"a", DType::kU8, {-4}, four}}), HasSubstr("no tensor has that shape"));
  EXPECT_THAT(message({{"a", DType::kU8, {std::numeric_limits<int64_t>::max(), 4}, four}}), HasSubstr("no tensor has that shape"));
  EXPECT_THAT(message({{"__metadata__", DType::kU8, {4}, four}}), HasSubstr("keeps that name for itself"));
  EXPECT_THAT(message({{"\xff", DType::kU8, {4}, four}}), HasSubstr("not valid UTF-8"));
}

TEST(WriteSafetensors, KeepsTheOldFileWhenTheNewOneCannotBeWritten) {
  const test::TemporaryFolder folder;
  const std::vector<std::byte> bytes = Counting(4);
  const SafetensorsEntry tensor[] = {{"a", DType::kU8, {4}, bytes}};
  const Status missing = WriteSafetensors(folder / "absent/t.safetensors", tensor);
  EXPECT_EQ(missing.code(), ErrorCode::kIo);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("cannot be created: No such file or directory"));
  std::filesystem::create_directory(folder / "t.safetensors");  // a rename onto a folder fails
  const Status status = WriteSafetensors(folder / "t.safetensors", tensor);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot be replaced"));
  EXPECT_TRUE(std::filesystem::is_directory(folder / "t.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(folder / "t.safetensors.part"));
}

TEST(ModuleKinds, FollowTheNamesOfEveryArchitecture) {
  for (const char* expert : {"model.layers.3.mlp.experts.17.gate_proj", "model.layers.0.block_sparse_moe.experts.7.w2",
                             "model.layers.0.mlp.experts.gate_up_proj", "layers.4.ffn.experts.200.w3"}) {
    EXPECT_EQ(KindOfModule(expert), ModuleKind::kExpert) << expert;
  }
  for (const char* linear : {"model.layers.3.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.layers.0.mlp.shared_expert.up_proj",
                             "layers.1.ffn.shared_experts.w1", "model.layers.0.self_attn.kv_a_proj_with_mqa"}) {
    EXPECT_EQ(KindOfModule(linear), ModuleKind::kLinear) << linear;
  }
  for (const char* never : {"model.embed_tokens", "model.layers.0.mlp.gate", "model.layers.0.mlp.router", "model.layers.0.input_layernorm",
                            "model.layers.0.mlp.shared_expert_gate", "model.layers.0.attn.indexer.wq_b", "model.layers.0.mlp.experts"}) {
    EXPECT_EQ(KindOfModule(never), ModuleKind::kNever) << never;
  }
  EXPECT_EQ(KindOfModule("lm_head"), ModuleKind::kHead);
  EXPECT_FALSE(Selects(QuantModules::kAll, ModuleKind::kHead, /*tied_head=*/true));
  EXPECT_TRUE(Selects(QuantModules::kAll, ModuleKind::kHead, /*tied_head=*/false));
  EXPECT_FALSE(Selects(QuantModules::kLinears, ModuleKind::kHead, /*tied_head=*/false));
}

TEST(LeftOutModules, BecomePatternsThatNoQuantisedModuleMatches) {
  const auto texts = [](const std::vector<std::string>& left_out, const std::vector<std::string>& quantized) {
    std::vector<std::string> result;
    for (const checkpoint::LeftOut& entry : checkpoint::SummariseLeftOut(left_out, quantized)) result.push_back(entry.text);
    return result;
  };
  const std::vector<std::string> gates = {"layers.0.gate", "layers.1.gate", "lm_head"};
  EXPECT_THAT(texts(gates, {"layers.0.w1"}), testing::ElementsAre("^layers\\.\\d+\\.gate$", "lm_head"));
  EXPECT_THAT(texts(gates, {"layers.2.gate"}), testing::ElementsAre("layers.0.gate", "layers.1.gate", "lm_head"));
}

}  // namespace
}  // namespace billfish
