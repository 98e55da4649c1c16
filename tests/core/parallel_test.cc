#include "core/parallel.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
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

// Runs `check` in a forked child; true if it returned true there. The child is killed after 20 s.
template <class Check>
bool HoldsInAForkedChild(Check check) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(check() ? 0 : 1);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The number of threads that two bodies ran on; both wait for each other for at most 10 s, so that one thread cannot run both.
int ThreadsOfTwoMeetingBodies() {
  std::atomic<int> arrived{0};
  std::thread::id ids[2];
  RunOnThreads(2, [&](int thread) {
    ids[thread] = std::this_thread::get_id();
    ++arrived;
    for (int i = 0; arrived < 2 && i < 10'000; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  return ids[0] == ids[1] ? 1 : 2;
}

TEST(RunOnThreads, AForkedChildStartsWorkersOfItsOwn) {
  ASSERT_EQ(ThreadsOfTwoMeetingBodies(), 2);  // the parent has workers
  EXPECT_TRUE(HoldsInAForkedChild([] { return ThreadsOfTwoMeetingBodies() == 2; }));
}

TEST(RunOnThreads, AChildForkedWhileAnotherThreadIsInARegionStartsWorkersOfItsOwn) {
  std::atomic<int> inside{0};
  std::atomic<bool> leave{false};
  std::thread other([&] {
    RunOnThreads(2, [&](int) {
      ++inside;
      while (!leave) std::this_thread::yield();
    });
  });
  // Both bodies: while the worker is still being started, the sanitizers hold locks of their own, which a child would keep for ever.
  while (inside < 2) std::this_thread::yield();
  EXPECT_TRUE(HoldsInAForkedChild([] { return ThreadsOfTwoMeetingBodies() == 2; }));
  leave = true;
  other.join();
}

TEST(RunOnThreads, WorkersTakeNoSignals) {
  std::atomic<int> blocked{0}, workers{0};
  const auto caller = std::this_thread::get_id();
  for (int round = 0; round < 100 && workers == 0; ++round) {
    RunOnThreads(4, [&](int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      if (std::this_thread::get_id() == caller) return;
      sigset_t mask;
      ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
      blocked += sigismember(&mask, SIGUSR1);
      ++workers;
    });
  }
  EXPECT_GT(workers, 0);
  EXPECT_EQ(blocked, workers);
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
