// Ctrl-C as a question that long work asks, instead of a sudden end.
#pragma once

namespace billfish::cli {

/// From now on the first Ctrl-C only makes Interrupted() true; the second one ends the program.
void CatchInterrupts();
bool Interrupted();
/// Forgets a Ctrl-C, so that an interactive program can go on.
void ClearInterrupt();

}  // namespace billfish::cli
