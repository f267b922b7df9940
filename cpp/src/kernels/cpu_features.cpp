// The compiler's own cpuid support; it also asks whether the operating system saves the wide registers. Tile registers
// are a process's only once it has asked the operating system for them, which is done here, once.
#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lstmx {
namespace {

#if defined(__x86_64__)
// Linux: ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA. It fails on kernels that know neither.
bool tiles_are_granted() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

Features detect_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  const bool tile = (d >> 24 & 1) != 0, bf16 = (d >> 22 & 1) != 0;
  if (!tile || !bf16 || !tiles_are_granted()) return 0;
  return feature::amx_tile | feature::amx_bf16;
}
#endif

}  // namespace

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
  if (__builtin_cpu_supports("avx512bf16")) found |= feature::avx512_bf16;
  found |= detect_tiles();
#endif
  return found;
}

}  // namespace lstmx
