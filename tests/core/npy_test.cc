#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "billfish/npy.h"
#include "core/npy.h"
#include "support/temporary_folder.h"

namespace billfish {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A file of the given version with this header dictionary and raw data.
std::string Npy(std::string header, std::string_view data, int version = 1) {
  header += '\n';
  std::string file = "\x93NUMPY";
  file += static_cast<char>(version);
  file += '\0';
  for (size_t i = 0; i < (version == 1 ? 2u : 4u); ++i) file += static_cast<char>((header.size() >> (8 * i)) & 0xFF);
  return file + header + std::string(data);
}

template <class T>
std::string Raw(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), std::data(values), bytes.size());
  return bytes;
}

class NpyFile : public testing::Test {
 protected:
  Result<std::vector<int32_t>> Ids(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return ReadNpyIds(path_);
  }
  std::string Error(const std::string& bytes) {
    const auto ids = Ids(bytes);
    return ids.ok() ? "no error" : std::string(ids.error().message());
  }

  test::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "ids.npy";
};

TEST_F(NpyFile, GivesIdsOfEveryIntegerType) {
  const auto header = [](const char* descr) { return std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (2,), }"; };
  EXPECT_THAT(*Ids(Npy(header("|i1"), Raw<int8_t>({1, 127}))), ElementsAre(1, 127));
  EXPECT_THAT(*Ids(Npy(header("|u1"), Raw<uint8_t>({1, 255}))), ElementsAre(1, 255));
  EXPECT_THAT(*Ids(Npy(header("<i2"), Raw<int16_t>({1, 300}))), ElementsAre(1, 300));
  EXPECT_THAT(*Ids(Npy(header("<u2"), Raw<uint16_t>({1, 65535}))), ElementsAre(1, 65535));
  EXPECT_THAT(*Ids(Npy(header("<i4"), Raw<int32_t>({1, 70000}))), ElementsAre(1, 70000));
  EXPECT_THAT(*Ids(Npy(header("<u4"), Raw<uint32_t>({1, 70000}))), ElementsAre(1, 70000));
  EXPECT_THAT(*Ids(Npy(header("<i8"), Raw<int64_t>({1, 2147483647}))), ElementsAre(1, 2147483647));
  EXPECT_THAT(*Ids(Npy(header("<u8"), Raw<uint64_t>({1, 70000}))), ElementsAre(1, 70000));
}

TEST_F(NpyFile, ReadsAllThreeVersionsAndTwoDimensions) {
  const std::string header = "{'shape': (2, 3), 'fortran_order': False, 'descr': '<i4'}";
  for (const int version : {1, 2, 3}) {
    EXPECT_THAT(*Ids(Npy(header, Raw<int32_t>({1, 2, 3, 4, 5, 6}), version)), ElementsAre(1, 2, 3, 4, 5, 6)) << version;
  }
  EXPECT_THAT(*Ids(Npy("{'descr': '<i4', 'fortran_order': False, 'shape': (0,)}", "")), ElementsAre());
}

TEST_F(NpyFile, RefusesWhatIsNotATokenId) {
  const std::string header = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}";
  EXPECT_THAT(Error(Npy(header, Raw<int64_t>({1, -5}))), HasSubstr("element 1 is -5, which is not a token id"));
  EXPECT_THAT(Error(Npy(header, Raw<int64_t>({int64_t{1} << 31, 0}))), HasSubstr("element 0 is 2147483648"));
  EXPECT_THAT(Error(Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", Raw<float>({1}))),
              HasSubstr("must be integers, found dtype '<f4'"));
  EXPECT_THAT(Error(Npy("{'descr': '<i4', 'fortran_order': False, 'shape': ()}", Raw<int32_t>({1}))),
              HasSubstr("1 or 2 dimensions, found 0"));
}

TEST_F(NpyFile, NamesWhatItDoesNotSupport) {
  EXPECT_THAT(Error(Npy("{'descr': '>i4', 'fortran_order': False, 'shape': (1,)}", Raw<int32_t>({1}))),
              HasSubstr("dtype '>i4' is not implemented"));
  EXPECT_THAT(Error(Npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "x")), HasSubstr("dtype '|O'"));
  EXPECT_THAT(Error(Npy("{'descr': '<i4', 'fortran_order': True, 'shape': (1,)}", Raw<int32_t>({1}))), HasSubstr("Fortran order"));
  EXPECT_THAT(Error(Npy("{}", "", 9)), HasSubstr("version 9 is not known"));
}

TEST_F(NpyFile, RefusesBrokenFiles) {
  const std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}";
  const std::string good = Npy(header, Raw<int32_t>({1, 2}));
  for (size_t length = 0; length < good.size(); ++length) EXPECT_NE(Error(good.substr(0, length)), "no error") << length;
  EXPECT_THAT(Error(good + "x"), HasSubstr("needs 8 bytes of data, 9 are there"));
  EXPECT_THAT(Error("PK\x03\x04 something else"), HasSubstr("does not start with"));
  EXPECT_THAT(Error(std::string("\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF", 12)), HasSubstr("header claims 4294967295 bytes, 0 are there"));
  EXPECT_THAT(Error(Npy("[1]", "")), HasSubstr("does not start with {"));
  EXPECT_THAT(Error(Npy("{'descr'", "")), HasSubstr("not a dictionary"));
  EXPECT_THAT(Error(Npy("{'descr': '<i4' 'shape'", "")), HasSubstr("lacks a comma"));
  EXPECT_THAT(Error(Npy("{'descr': '<i4'}", "")), HasSubstr("lacks descr, fortran_order or shape"));
  EXPECT_THAT(Error(Npy("{'shape': (-1,)}", "")), HasSubstr("no usable value for 'shape'"));
  EXPECT_THAT(Error(Npy("{'other': 3}", "")), HasSubstr("no usable value for 'other'"));
  EXPECT_THAT(Error(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904)}", "")),
              HasSubstr("more elements than any file"));
}

TEST_F(NpyFile, NamesAMissingFile) {
  const auto ids = ReadNpyIds(folder_ / "nowhere.npy");
  ASSERT_FALSE(ids.ok());
  EXPECT_EQ(ids.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(std::string(ids.error().message()), HasSubstr("nowhere.npy"));
  const auto folder = ReadNpyIds(testing::TempDir());
  ASSERT_FALSE(folder.ok());
  EXPECT_THAT(std::string(folder.error().message()), HasSubstr("not a regular file"));
}

TEST(Npy, AcceptsFloatArrays) {
  const std::string bytes = Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", Raw<float>({1, 2}));
  const auto array = ParseNpy(bytes);
  ASSERT_TRUE(array.ok());
  EXPECT_EQ(array->item_bytes, 4u);
  EXPECT_THAT(array->shape, ElementsAre(2));
  EXPECT_EQ(array->data.size(), 8u);
}

}  // namespace
}  // namespace billfish
