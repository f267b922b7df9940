// Threads, and the floating-point state inside kernels. The only file that knows OpenMP; without it everything runs on
// the calling thread. After a fork the child has none of its parent's threads, so there it runs on one as well.
#pragma once
#include <sched.h>
#include <stddef.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "../fork.h"

namespace {

// Reads and writes of denormal numbers as zero for the lifetime of the object; then the caller's state again.
class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ | (1ul << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  unsigned long saved_;
#else
  FlushDenormals() {}
#endif
};

struct Range {
  lstmx::Index begin, end;
};

inline void relax() {
#if defined(__SSE2__)
  _mm_pause();
#endif
}

// Where a team meets. Waiting spins for a while, since steps are short, and then gives the processor away.
class Barrier {
 public:
  void wait(int size) {
    const unsigned generation = __atomic_load_n(&generation_, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == size) {
      __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
      __atomic_store_n(&generation_, generation + 1, __ATOMIC_RELEASE);
      return;
    }
    for (int spins = 0; __atomic_load_n(&generation_, __ATOMIC_ACQUIRE) == generation; ++spins) {
      if (spins < 4000) {
        relax();
      } else {
        sched_yield();
      }
    }
  }

 private:
  int arrived_ = 0;
  unsigned generation_ = 0;
};

// One thread of a team. A team's loops are split by what they write, so that no result depends on its size.
struct Team {
  int index, size;
  Barrier* meeting;

  // this thread's contiguous share of [0, n)
  Range share(lstmx::Index n) const {
    const lstmx::Index each = n / size, extra = n % size;
    const lstmx::Index begin = index * each + (index < extra ? index : extra);
    return {begin, begin + each + (index < extra ? 1 : 0)};
  }

  void barrier() const {
    if (size > 1) meeting->wait(size);
  }
};

// As many threads as the work feeds: one more for each three million multiply-adds, some 60 us, beside which a fork and
// a join cost little.
inline int team_size(int threads, double multiply_adds, lstmx::Index splits) {
  const double limit = 1.0 + multiply_adds / 3e6;
  double n = threads < limit ? threads : limit;
  if (n > static_cast<double>(splits)) n = static_cast<double>(splits);
  return n < 1.0 ? 1 : static_cast<int>(n);
}

// Runs body(Team) on every thread of a team of n, denormals flushed.
template <class Body>
inline void parallel(int n, const Body& body) {
#if defined(_OPENMP)
  if (n > 1 && !lstmx::is_forked_child()) {
    Barrier meeting;
#pragma omp parallel num_threads(n)
    {
      const FlushDenormals guard;
      // the runtime may grant fewer threads than were asked for
      body(Team{omp_get_thread_num(), omp_get_num_threads(), &meeting});
    }
    return;
  }
#endif
  const FlushDenormals guard;
  body(Team{0, 1, nullptr});
}

}  // namespace
