// Eight floats in an AVX register, with AVX2 integers and FMA.
#pragma once
#include <immintrin.h>
#include <stddef.h>

#define LSTMX_INLINE static inline __attribute__((always_inline))

namespace {

struct Avx2 {
  using Real = float;
  using Vec = __m256;
  static constexpr float smallest_normal = 1.17549435e-38f;
  static constexpr int width = 8;
  static constexpr int registers = 16;

  LSTMX_INLINE Vec set(float x) { return _mm256_set1_ps(x); }
  LSTMX_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  LSTMX_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const float* p, ptrdiff_t n) { return _mm256_maskload_ps(p, mask(n)); }
  LSTMX_INLINE void store_n(float* p, Vec a, ptrdiff_t n) { _mm256_maskstore_ps(p, mask(n), a); }

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
  // Two quads [i f g o] of four units each, two vectors a quad <-> their gates i, f, g, o, one a vector.
  LSTMX_INLINE void gates_of_quads(Vec (&v)[4]) {
    const Vec a = v[0], b = v[1], c = v[2], d = v[3];
    v[0] = _mm256_permute2f128_ps(a, c, 0x20);
    v[1] = _mm256_permute2f128_ps(a, c, 0x31);
    v[2] = _mm256_permute2f128_ps(b, d, 0x20);
    v[3] = _mm256_permute2f128_ps(b, d, 0x31);
  }
  LSTMX_INLINE void quads_of_gates(Vec (&v)[4]) {
    const Vec i = v[0], f = v[1], g = v[2], o = v[3];
    v[0] = _mm256_permute2f128_ps(i, f, 0x20);
    v[1] = _mm256_permute2f128_ps(g, o, 0x20);
    v[2] = _mm256_permute2f128_ps(i, f, 0x31);
    v[3] = _mm256_permute2f128_ps(g, o, 0x31);
  }
  // lane 4r + j: the sum of lanes j, j + 4, ... of v[r]
  LSTMX_INLINE Vec fours_of_rows(const Vec (&v)[2]) {
    return add(_mm256_permute2f128_ps(v[0], v[1], 0x20), _mm256_permute2f128_ps(v[0], v[1], 0x31));
  }
  // lane 4k + j: the sum of lanes 4k to 4k + 3 of v[j]
  LSTMX_INLINE Vec sums_of_fours(const Vec (&v)[4]) {
    const Vec a = add(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    const Vec b = add(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    return add(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  }
  // to[j]: of each four lanes the j-th, in all four
  LSTMX_INLINE void spread_fours(Vec v, Vec (&to)[4]) {
    to[0] = _mm256_permute_ps(v, 0x00);
    to[1] = _mm256_permute_ps(v, 0x55);
    to[2] = _mm256_permute_ps(v, 0xaa);
    to[3] = _mm256_permute_ps(v, 0xff);
  }
  // v[i][j] <-> v[j][i]
  LSTMX_INLINE void transpose(Vec (&v)[width]) {
    Vec by_column[4][2];
    for (int i = 0; i < 2; ++i) {  // four rows: 4x4 within each 128 bits
      const __m256 a = _mm256_unpacklo_ps(v[4 * i], v[4 * i + 1]), b = _mm256_unpackhi_ps(v[4 * i], v[4 * i + 1]);
      const __m256 c = _mm256_unpacklo_ps(v[4 * i + 2], v[4 * i + 3]);
      const __m256 d = _mm256_unpackhi_ps(v[4 * i + 2], v[4 * i + 3]);
      by_column[0][i] = _mm256_shuffle_ps(a, c, 0x44);
      by_column[1][i] = _mm256_shuffle_ps(a, c, 0xee);
      by_column[2][i] = _mm256_shuffle_ps(b, d, 0x44);
      by_column[3][i] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int j = 0; j < 4; ++j) {  // then the 128 bits
      v[j] = _mm256_permute2f128_ps(by_column[j][0], by_column[j][1], 0x20);
      v[4 + j] = _mm256_permute2f128_ps(by_column[j][0], by_column[j][1], 0x31);
    }
  }
  // lanes 4l to 4l + n - 1
  template <int l>
  LSTMX_INLINE void store_four(float* p, Vec a, ptrdiff_t n) {
    const __m128 four = _mm256_extractf128_ps(a, l);
    if (n == 4) {
      _mm_storeu_ps(p, four);
    } else {
      _mm_maskstore_ps(p, _mm256_castsi256_si128(mask(n)), four);
    }
  }
  // n lanes (at most 4) from each of two rows, rows `first` floats on
  LSTMX_INLINE Vec load_fours(const float* const (&row)[2], ptrdiff_t first, ptrdiff_t n) {
    return _mm256_set_m128(load_four(row[1] + first, n), load_four(row[0] + first, n));
  }
  // 2^n of the integer n that was added to exp_magic
  static constexpr int exp_steps = 1;
  static constexpr float exp_magic = 12582912.0f + 127.0f;  // 1.5 * 2^23, and the exponent's bias
  LSTMX_INLINE Vec power_of_two(Vec t) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23)); }

 private:
  LSTMX_INLINE __m128 load_four(const float* p, ptrdiff_t n) {
    return n == 4 ? _mm_loadu_ps(p) : _mm_maskload_ps(p, _mm256_castsi256_si128(mask(n)));
  }
  LSTMX_INLINE __m256i mask(ptrdiff_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
};

}  // namespace
