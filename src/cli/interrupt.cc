#include "cli/interrupt.h"

#include <csignal>

namespace billfish::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void OnInterrupt(int signal) {
  interrupted = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void CatchInterrupts() {
  interrupted = 0;
  // Without SA_RESTART, so that a read from the terminal returns too.
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

bool Interrupted() { return interrupted != 0; }

void ClearInterrupt() { CatchInterrupts(); }

}  // namespace billfish::cli
