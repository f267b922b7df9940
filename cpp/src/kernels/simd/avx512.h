// Sixteen floats in an AVX-512 register.
#pragma once
#include <immintrin.h>
#include <stddef.h>

#define LSTMX_INLINE static inline __attribute__((always_inline))

namespace {

struct Avx512 {
  using Vec = __m512;
  static constexpr int width = 16;
  static constexpr int registers = 32;

  LSTMX_INLINE Vec set(float x) { return _mm512_set1_ps(x); }
  LSTMX_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  LSTMX_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const float* p, ptrdiff_t n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  LSTMX_INLINE void store_n(float* p, Vec a, ptrdiff_t n) { _mm512_mask_storeu_ps(p, mask(n), a); }
  // p[0], p[stride], ... for the first n lanes
  LSTMX_INLINE Vec gather_n(const float* p, ptrdiff_t stride, ptrdiff_t n) {
    alignas(64) float lanes[width] = {};
    for (ptrdiff_t l = 0; l < n; ++l) lanes[l] = p[l * stride];
    return load(lanes);
  }

  LSTMX_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  LSTMX_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  LSTMX_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  LSTMX_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  LSTMX_INLINE Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
  LSTMX_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }    // a*b + c
  LSTMX_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a*b
  // min and max return the second operand where either is NaN
  LSTMX_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
  LSTMX_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  // 1/a within 1 ulp: an estimate and one Newton step
  LSTMX_INLINE Vec reciprocal(Vec a) {
    const Vec y = _mm512_rcp14_ps(a);
    return mul(y, fnma(a, y, set(2.0f)));
  }
  // 2^n of an integer n held as the low mantissa bits of t = n + 127 + 1.5*2^23
  LSTMX_INLINE Vec exponent_bits(Vec t) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23)); }

 private:
  LSTMX_INLINE __mmask16 mask(ptrdiff_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
};

}  // namespace
