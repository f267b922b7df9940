// The compiler's own cpuid support; it also asks whether the operating system saves the wide registers.
#include "cpu_features.h"

namespace lstmx {

Features detect_features() {
  Features found = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) found |= feature::avx2;
  if (__builtin_cpu_supports("fma")) found |= feature::fma;
  if (__builtin_cpu_supports("avx512f")) found |= feature::avx512f;
  if (__builtin_cpu_supports("avx512bw")) found |= feature::avx512bw;
  if (__builtin_cpu_supports("avx512dq")) found |= feature::avx512dq;
  if (__builtin_cpu_supports("avx512vl")) found |= feature::avx512vl;
#endif
  return found;
}

}  // namespace lstmx
