// Four doubles in an AVX register, with AVX2 integers and FMA.
#pragma once
#include <immintrin.h>
#include <stddef.h>

namespace {

struct Avx2Double {
  using Real = double;
  using Vec = __m256d;
  static constexpr double smallest_normal = 2.2250738585072014e-308;
  static constexpr int width = 4;
  static constexpr int registers = 16;

  LSTMX_INLINE Vec set(double x) { return _mm256_set1_pd(x); }
  LSTMX_INLINE Vec load(const double* p) { return _mm256_loadu_pd(p); }
  LSTMX_INLINE void store(double* p, Vec a) { _mm256_storeu_pd(p, a); }
  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const double* p, ptrdiff_t n) { return _mm256_maskload_pd(p, mask(n)); }
  LSTMX_INLINE void store_n(double* p, Vec a, ptrdiff_t n) { _mm256_maskstore_pd(p, mask(n), a); }

  LSTMX_INLINE Vec add(Vec a, Vec b) { return _mm256_add_pd(a, b); }
  LSTMX_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_pd(a, b); }
  LSTMX_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_pd(a, b); }
  LSTMX_INLINE Vec div(Vec a, Vec b) { return _mm256_div_pd(a, b); }
  LSTMX_INLINE Vec sqrt(Vec a) { return _mm256_sqrt_pd(a); }
  LSTMX_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_pd(a, b, c); }    // a*b + c
  LSTMX_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_pd(a, b, c); }  // c - a*b
  // min and max return the second operand where either is NaN
  LSTMX_INLINE Vec min(Vec a, Vec b) { return _mm256_min_pd(a, b); }
  LSTMX_INLINE Vec max(Vec a, Vec b) { return _mm256_max_pd(a, b); }
  LSTMX_INLINE Vec reciprocal(Vec a) { return div(set(1.0), a); }
  // A quad [i f g o] of four units is its gates already.
  LSTMX_INLINE void gates_of_quads(Vec (&)[4]) {}
  LSTMX_INLINE void quads_of_gates(Vec (&)[4]) {}
  // lane 4r + j: the sum of lanes j, j + 4, ... of v[r]
  LSTMX_INLINE Vec fours_of_rows(const Vec (&v)[1]) { return v[0]; }
  // lane 4k + j: the sum of lanes 4k to 4k + 3 of v[j]
  LSTMX_INLINE Vec sums_of_fours(const Vec (&v)[4]) {
    const Vec a = add(_mm256_unpacklo_pd(v[0], v[1]), _mm256_unpackhi_pd(v[0], v[1]));
    const Vec b = add(_mm256_unpacklo_pd(v[2], v[3]), _mm256_unpackhi_pd(v[2], v[3]));
    return add(_mm256_permute2f128_pd(a, b, 0x20), _mm256_permute2f128_pd(a, b, 0x31));
  }
  // to[j]: of each four lanes the j-th, in all four
  LSTMX_INLINE void spread_fours(Vec v, Vec (&to)[4]) {
    to[0] = _mm256_permute4x64_pd(v, 0x00);
    to[1] = _mm256_permute4x64_pd(v, 0x55);
    to[2] = _mm256_permute4x64_pd(v, 0xaa);
    to[3] = _mm256_permute4x64_pd(v, 0xff);
  }
  // v[i][j] <-> v[j][i]
  LSTMX_INLINE void transpose(Vec (&v)[width]) {
    const Vec a = _mm256_unpacklo_pd(v[0], v[1]), b = _mm256_unpackhi_pd(v[0], v[1]);
    const Vec c = _mm256_unpacklo_pd(v[2], v[3]), d = _mm256_unpackhi_pd(v[2], v[3]);
    v[0] = _mm256_permute2f128_pd(a, c, 0x20);
    v[1] = _mm256_permute2f128_pd(b, d, 0x20);
    v[2] = _mm256_permute2f128_pd(a, c, 0x31);
    v[3] = _mm256_permute2f128_pd(b, d, 0x31);
  }
  template <int>
  LSTMX_INLINE void store_four(double* p, Vec a, ptrdiff_t n) {
    n == 4 ? store(p, a) : store_n(p, a, n);
  }
  LSTMX_INLINE Vec load_fours(const double* const (&row)[1], ptrdiff_t first, ptrdiff_t n) {
    return n == 4 ? load(row[0] + first) : load_n(row[0] + first, n);
  }
  // 2^n of the integer n that was added to exp_magic
  static constexpr int exp_steps = 1;
  static constexpr double exp_magic = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52, and the exponent's bias
  LSTMX_INLINE Vec power_of_two(Vec t) { return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(t), 52)); }

 private:
  LSTMX_INLINE __m256i mask(ptrdiff_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
};

}  // namespace
