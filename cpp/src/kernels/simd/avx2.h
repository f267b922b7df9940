// Eight floats in an AVX register, with AVX2 integers and FMA.
#pragma once
#include <immintrin.h>
#include <stddef.h>

#define LSTMX_INLINE static inline __attribute__((always_inline))

namespace {

struct Avx2 {
  using Vec = __m256;
  static constexpr int width = 8;
  static constexpr int registers = 16;

  LSTMX_INLINE Vec set(float x) { return _mm256_set1_ps(x); }
  LSTMX_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  LSTMX_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const float* p, ptrdiff_t n) { return _mm256_maskload_ps(p, mask(n)); }
  LSTMX_INLINE void store_n(float* p, Vec a, ptrdiff_t n) { _mm256_maskstore_ps(p, mask(n), a); }
  // p[0], p[stride], ... for the first n lanes
  LSTMX_INLINE Vec gather_n(const float* p, ptrdiff_t stride, ptrdiff_t n) {
    alignas(32) float lanes[width] = {};
    for (ptrdiff_t l = 0; l < n; ++l) lanes[l] = p[l * stride];
    return load(lanes);
  }

  LSTMX_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  LSTMX_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  LSTMX_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  LSTMX_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  LSTMX_INLINE Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
  LSTMX_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }    // a*b + c
  LSTMX_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a*b
  // min and max return the second operand where either is NaN
  LSTMX_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
  LSTMX_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  // a division: one operation, faster than an estimate with a Newton step at this width
  LSTMX_INLINE Vec reciprocal(Vec a) { return div(set(1.0f), a); }
  // 2^n of an integer n held as the low mantissa bits of t = n + 127 + 1.5*2^23
  LSTMX_INLINE Vec exponent_bits(Vec t) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23)); }

 private:
  LSTMX_INLINE __m256i mask(ptrdiff_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
};

}  // namespace
