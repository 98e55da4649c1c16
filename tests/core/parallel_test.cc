#include "core/parallel.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>
#include <thread>
#include <vector>

namespace billfish {
namespace {

TEST(RunOnThreads, RunsEveryBodyOnce) {
  for (const int threads : {1, 2, 3, 8, 40}) {
    for (int round = 0; round < 200; ++round) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(threads));
      RunOnThreads(threads, [&](int thread) { ++runs[static_cast<size_t>(thread)]; });
      for (const auto& count : runs) ASSERT_EQ(count, 1) << threads;
    }
  }
}

TEST(RunOnThreads, WakesWorkersThatFellAsleep) {
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> runs{0};
    RunOnThreads(4, [&](int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ++runs;
    });
    EXPECT_EQ(runs, 4);
  }
}

TEST(RunOnThreads, WritesOfABodyAreSeenAfterTheCall) {
  std::vector<int> values(1000);
  for (int round = 1; round < 500; ++round) {
    ParallelFor(4, 1000, 10, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] = round;
    });
    ASSERT_EQ(std::accumulate(values.begin(), values.end(), 0), 1000 * round);
  }
}

TEST(RunOnThreads, ACallInsideARegionRunsOnItsOwnThread) {
  std::atomic<int> inner{0};
  RunOnThreads(3, [&](int) {
    const auto outer = std::this_thread::get_id();
    RunOnThreads(4, [&](int) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      ++inner;
    });
  });
  EXPECT_EQ(inner, 12);
}

TEST(RunOnThreads, CallersOnDifferentThreadsDoNotDisturbEachOther) {
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        std::atomic<int> mine{0};
        RunOnThreads(3, [&](int thread) { mine += thread + 1; });
        total += mine;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 4 * 500 * 6);
}

TEST(RunOnThreads, WorksInAForkedChild) {
  RunOnThreads(4, [](int) {});  // the parent has workers, the child will not
  const pid_t child = ::fork();
  if (child == 0) {
    std::atomic<int> runs{0};
    RunOnThreads(4, [&](int) { ++runs; });
    ::_exit(runs == 4 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(ParallelFor, CutsAtMultiplesOfTheGrain) {
  std::vector<std::atomic<int>> seen(103);
  ParallelFor(4, 103, 8, [&](int64_t begin, int64_t end) {
    EXPECT_EQ(begin % 8, 0);
    EXPECT_TRUE(end % 8 == 0 || end == 103);
    for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
  });
  for (const auto& count : seen) EXPECT_EQ(count, 1);
  ParallelFor(4, 0, 8, [](int64_t, int64_t) { FAIL() << "nothing to do"; });
}

}  // namespace
}  // namespace billfish
