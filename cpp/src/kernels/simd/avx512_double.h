// Eight doubles in an AVX-512 register.
#pragma once
#include <immintrin.h>
#include <stddef.h>

namespace {

struct Avx512Double {
  using Real = double;
  using Vec = __m512d;
  static constexpr double smallest_normal = 2.2250738585072014e-308;
  static constexpr int width = 8;
  static constexpr int registers = 32;

  LSTMX_INLINE Vec set(double x) { return _mm512_set1_pd(x); }
  LSTMX_INLINE Vec load(const double* p) { return _mm512_loadu_pd(p); }
  LSTMX_INLINE void store(double* p, Vec a) { _mm512_storeu_pd(p, a); }
  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const double* p, ptrdiff_t n) { return _mm512_maskz_loadu_pd(mask(n), p); }
  LSTMX_INLINE void store_n(double* p, Vec a, ptrdiff_t n) { _mm512_mask_storeu_pd(p, mask(n), a); }

  LSTMX_INLINE Vec add(Vec a, Vec b) { return _mm512_add_pd(a, b); }
  LSTMX_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_pd(a, b); }
  LSTMX_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_pd(a, b); }
  LSTMX_INLINE Vec div(Vec a, Vec b) { return _mm512_div_pd(a, b); }
  LSTMX_INLINE Vec sqrt(Vec a) { return _mm512_sqrt_pd(a); }
  LSTMX_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_pd(a, b, c); }    // a*b + c
  LSTMX_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_pd(a, b, c); }  // c - a*b
  // min and max return the second operand where either is NaN
  LSTMX_INLINE Vec min(Vec a, Vec b) { return _mm512_min_pd(a, b); }
  LSTMX_INLINE Vec max(Vec a, Vec b) { return _mm512_max_pd(a, b); }
  LSTMX_INLINE Vec reciprocal(Vec a) { return div(set(1.0), a); }
  // Two quads [i f g o] of four units each, two vectors a quad <-> their gates i, f, g, o, one a vector.
  LSTMX_INLINE void gates_of_quads(Vec (&v)[4]) {
    const Vec a = v[0], b = v[1], c = v[2], d = v[3];
    v[0] = _mm512_shuffle_f64x2(a, c, 0x44);
    v[1] = _mm512_shuffle_f64x2(a, c, 0xee);
    v[2] = _mm512_shuffle_f64x2(b, d, 0x44);
    v[3] = _mm512_shuffle_f64x2(b, d, 0xee);
  }
  LSTMX_INLINE void quads_of_gates(Vec (&v)[4]) {
    const Vec i = v[0], f = v[1], g = v[2], o = v[3];
    v[0] = _mm512_shuffle_f64x2(i, f, 0x44);
    v[1] = _mm512_shuffle_f64x2(g, o, 0x44);
    v[2] = _mm512_shuffle_f64x2(i, f, 0xee);
    v[3] = _mm512_shuffle_f64x2(g, o, 0xee);
  }
  // lane 4r + j: the sum of lanes j, j + 4, ... of v[r]
  LSTMX_INLINE Vec fours_of_rows(const Vec (&v)[2]) {
    return add(_mm512_shuffle_f64x2(v[0], v[1], 0x44), _mm512_shuffle_f64x2(v[0], v[1], 0xee));
  }
  // lane 4k + j: the sum of lanes 4k to 4k + 3 of v[j]
  LSTMX_INLINE Vec sums_of_fours(const Vec (&v)[4]) {
    const Vec a = add(_mm512_unpacklo_pd(v[0], v[1]), _mm512_unpackhi_pd(v[0], v[1]));
    const Vec b = add(_mm512_unpacklo_pd(v[2], v[3]), _mm512_unpackhi_pd(v[2], v[3]));
    const Vec low = _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), b);
    return add(low, _mm512_permutex2var_pd(a, _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15), b));
  }
  // to[j]: of each four lanes the j-th, in all four
  LSTMX_INLINE void spread_fours(Vec v, Vec (&to)[4]) {
    to[0] = _mm512_permutex_pd(v, 0x00);
    to[1] = _mm512_permutex_pd(v, 0x55);
    to[2] = _mm512_permutex_pd(v, 0xaa);
    to[3] = _mm512_permutex_pd(v, 0xff);
  }
  // v[i][j] <-> v[j][i]
  LSTMX_INLINE void transpose(Vec (&v)[width]) {
    Vec pairs[2][4];  // of columns j, j + 2, j + 4, j + 6: two rows in each 128 bits
    for (int i = 0; i < 4; ++i) {
      pairs[0][i] = _mm512_unpacklo_pd(v[2 * i], v[2 * i + 1]);
      pairs[1][i] = _mm512_unpackhi_pd(v[2 * i], v[2 * i + 1]);
    }
    for (int j = 0; j < 2; ++j) {  // then the 128 bits
      const Vec a = _mm512_shuffle_f64x2(pairs[j][0], pairs[j][1], 0x44);
      const Vec b = _mm512_shuffle_f64x2(pairs[j][2], pairs[j][3], 0x44);
      const Vec c = _mm512_shuffle_f64x2(pairs[j][0], pairs[j][1], 0xee);
      const Vec d = _mm512_shuffle_f64x2(pairs[j][2], pairs[j][3], 0xee);
      v[j] = _mm512_shuffle_f64x2(a, b, 0x88);
      v[j + 2] = _mm512_shuffle_f64x2(a, b, 0xdd);
      v[j + 4] = _mm512_shuffle_f64x2(c, d, 0x88);
      v[j + 6] = _mm512_shuffle_f64x2(c, d, 0xdd);
    }
  }
  // lanes 4l to 4l + n - 1
  template <int l>
  LSTMX_INLINE void store_four(double* p, Vec a, ptrdiff_t n) {
    const __m256d four = _mm512_extractf64x4_pd(a, l);
    if (n == 4) {
      _mm256_storeu_pd(p, four);
    } else {
      _mm256_mask_storeu_pd(p, mask(n), four);
    }
  }
  // n lanes (at most 4) from each of two rows, rows `first` numbers on
  LSTMX_INLINE Vec load_fours(const double* const (&row)[2], ptrdiff_t first, ptrdiff_t n) {
    const Vec low = _mm512_castpd256_pd512(_mm256_maskz_loadu_pd(mask(n), row[0] + first));
    return _mm512_insertf64x4(low, _mm256_maskz_loadu_pd(mask(n), row[1] + first), 1);
  }
  // 2^n of the integer n that was added to exp_magic
  static constexpr int exp_steps = 1;
  static constexpr double exp_magic = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52, and the exponent's bias
  LSTMX_INLINE Vec power_of_two(Vec t) { return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(t), 52)); }

 private:
  LSTMX_INLINE __mmask8 mask(ptrdiff_t n) { return static_cast<__mmask8>((1u << n) - 1u); }
};

}  // namespace
