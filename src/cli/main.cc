#include <cstdio>

int main() {
  std::puts("billfish");
  return 0;
}
