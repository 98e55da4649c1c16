#include "billfish/context.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>

namespace billfish {
namespace {

TEST(Workspace, GrowsAndNeverShrinks) {
  Workspace workspace;
  EXPECT_EQ(workspace.memory().size(), 0U);
  ASSERT_TRUE(workspace.Reserve(1000).ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(workspace.memory().data()) % 64, 0U);
  ASSERT_TRUE(workspace.Reserve(10).ok());
  EXPECT_EQ(workspace.memory().size(), 1000U);
  ASSERT_TRUE(workspace.Reserve(2000).ok());
  EXPECT_EQ(workspace.memory().size(), 2000U);
}

TEST(Workspace, LendsMemoryWithoutOwningIt) {
  Workspace owner;
  ASSERT_TRUE(owner.Reserve(256).ok());
  {
    Workspace lent(owner.memory().subspan(64, 128));
    EXPECT_EQ(lent.memory().data(), owner.memory().data() + 64);
    EXPECT_EQ(lent.memory().size(), 128U);
    // Growing replaces the loan by memory of its own.
    ASSERT_TRUE(lent.Reserve(512).ok());
    EXPECT_EQ(lent.memory().size(), 512U);
    lent.memory()[511] = std::byte{1};
  }
  owner.memory()[255] = std::byte{1};
}

TEST(DefaultThreads, FollowsTheVariableWhereItIsANumber) {
  unsetenv("BILLFISH_THREADS");
  const int processors = DefaultThreads();
  EXPECT_GE(processors, 1);
  setenv("BILLFISH_THREADS", "3", 1);
  EXPECT_EQ(DefaultThreads(), 3);
  for (const char* nonsense : {"0", "-2", "many", "3x", ""}) {
    setenv("BILLFISH_THREADS", nonsense, 1);
    EXPECT_EQ(DefaultThreads(), processors) << nonsense;
  }
  unsetenv("BILLFISH_THREADS");
}

}  // namespace
}  // namespace billfish
