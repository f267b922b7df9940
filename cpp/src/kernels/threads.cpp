#include "threads.h"

#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lstmx {
namespace {

std::atomic<int> chosen{0};

int processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return CPU_COUNT(&set);
}

int parse(const std::string& text) {
  std::size_t end = 0;
  int n = 0;
  try {
    n = std::stoi(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end != text.size() || n < 1)
    throw std::invalid_argument("LSTMX_NUM_THREADS: expected a whole number of at least 1, got '" + text + "'");
  return n;
}

}  // namespace

bool has_openmp() {
#if LSTMX_WITH_OPENMP
  return true;
#else
  return false;
#endif
}

int default_threads() {
  int n = chosen.load(std::memory_order_relaxed);
  if (n == 0) {
    const char* wish = std::getenv("LSTMX_NUM_THREADS");
    n = wish != nullptr && *wish != '\0' ? parse(wish) : has_openmp() ? processors() : 1;
    chosen.store(n, std::memory_order_relaxed);
  }
  return n;
}

void set_default_threads(int n) {
  if (n < 1) throw std::invalid_argument("n: expected at least 1, got " + std::to_string(n));
  chosen.store(n, std::memory_order_relaxed);
}

}  // namespace lstmx
