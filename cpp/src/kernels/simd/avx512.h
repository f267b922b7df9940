// Sixteen floats in an AVX-512 register.
#pragma once
#include <immintrin.h>
#include <stddef.h>

#define LSTMX_INLINE static inline __attribute__((always_inline))

namespace {

struct Avx512 {
  using Real = float;
  using Vec = __m512;
  static constexpr float smallest_normal = 1.17549435e-38f;
  static constexpr int width = 16;
  static constexpr int registers = 32;

  LSTMX_INLINE Vec set(float x) { return _mm512_set1_ps(x); }
  LSTMX_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  LSTMX_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const float* p, ptrdiff_t n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  LSTMX_INLINE void store_n(float* p, Vec a, ptrdiff_t n) { _mm512_mask_storeu_ps(p, mask(n), a); }

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
  // Four quads [i f g o] of four units each, one a vector <-> their gates i, f, g, o, one a vector: a transpose of
  // 4x4 groups of four lanes.
  LSTMX_INLINE void gates_of_quads(Vec (&v)[4]) {
    const Vec a = _mm512_shuffle_f32x4(v[0], v[1], 0x44), b = _mm512_shuffle_f32x4(v[2], v[3], 0x44);
    const Vec c = _mm512_shuffle_f32x4(v[0], v[1], 0xee), d = _mm512_shuffle_f32x4(v[2], v[3], 0xee);
    v[0] = _mm512_shuffle_f32x4(a, b, 0x88);
    v[1] = _mm512_shuffle_f32x4(a, b, 0xdd);
    v[2] = _mm512_shuffle_f32x4(c, d, 0x88);
    v[3] = _mm512_shuffle_f32x4(c, d, 0xdd);
  }
  LSTMX_INLINE void quads_of_gates(Vec (&v)[4]) { gates_of_quads(v); }
  // lane 4r + j: the sum of lanes j, j + 4, ... of v[r]
  LSTMX_INLINE Vec fours_of_rows(const Vec (&v)[4]) {
    const Vec a = add(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xee));
    const Vec b = add(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xee));
    return add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  // lane 4k + j: the sum of lanes 4k to 4k + 3 of v[j]
  LSTMX_INLINE Vec sums_of_fours(const Vec (&v)[4]) {
    const Vec a = add(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const Vec b = add(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    return add(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  }
  // to[j]: of each four lanes the j-th, in all four
  LSTMX_INLINE void spread_fours(Vec v, Vec (&to)[4]) {
    to[0] = _mm512_permute_ps(v, 0x00);
    to[1] = _mm512_permute_ps(v, 0x55);
    to[2] = _mm512_permute_ps(v, 0xaa);
    to[3] = _mm512_permute_ps(v, 0xff);
  }
  // v[i][j] <-> v[j][i]
  LSTMX_INLINE void transpose(Vec (&v)[width]) {
    Vec by_column[4][4];
    for (int i = 0; i < 4; ++i) {  // four rows: 4x4 within each 128 bits
      const __m512 a = _mm512_unpacklo_ps(v[4 * i], v[4 * i + 1]), b = _mm512_unpackhi_ps(v[4 * i], v[4 * i + 1]);
      const __m512 c = _mm512_unpacklo_ps(v[4 * i + 2], v[4 * i + 3]);
      const __m512 d = _mm512_unpackhi_ps(v[4 * i + 2], v[4 * i + 3]);
      const __m512d ab_low = _mm512_castps_pd(a), cd_low = _mm512_castps_pd(c);
      const __m512d ab_high = _mm512_castps_pd(b), cd_high = _mm512_castps_pd(d);
      by_column[0][i] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low));
      by_column[1][i] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low));
      by_column[2][i] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high));
      by_column[3][i] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high));
    }
    for (int j = 0; j < 4; ++j) {  // then the 128 bits
      gates_of_quads(by_column[j]);
      for (int i = 0; i < 4; ++i) v[4 * i + j] = by_column[j][i];
    }
  }
  // lanes 4l to 4l + n - 1
  template <int l>
  LSTMX_INLINE void store_four(float* p, Vec a, ptrdiff_t n) {
    const __m128 four = _mm512_extractf32x4_ps(a, l);
    if (n == 4) {
      _mm_storeu_ps(p, four);
    } else {
      _mm_mask_storeu_ps(p, static_cast<__mmask8>(mask(n)), four);
    }
  }
  // n lanes (at most 4) from each of four rows, rows `first` floats on
  LSTMX_INLINE Vec load_fours(const float* const (&row)[4], ptrdiff_t first, ptrdiff_t n) {
    const __mmask8 lanes = static_cast<__mmask8>(mask(n));
    const Vec a = _mm512_castps128_ps512(_mm_maskz_loadu_ps(lanes, row[0] + first));
    const Vec b = _mm512_insertf32x4(a, _mm_maskz_loadu_ps(lanes, row[1] + first), 1);
    const Vec c = _mm512_insertf32x4(b, _mm_maskz_loadu_ps(lanes, row[2] + first), 2);
    return _mm512_insertf32x4(c, _mm_maskz_loadu_ps(lanes, row[3] + first), 3);
  }
  // 2^(n/16) of the integer n that was added to exp_magic: its low bits choose a power of 2^(1/16), the others are the
  // exponent. The table's exponents are less by what the low bits bring when they are shifted with the others.
  static constexpr int exp_steps = 16;
  static constexpr float exp_magic = 12582912.0f;  // 1.5 * 2^23
  LSTMX_INLINE Vec power_of_two(Vec t) {
    const __m512i n = _mm512_castps_si512(t);
    const __m512i powers = _mm512_setr_epi32(  //
        0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f, 0x3f7504f3,
        0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_permutexvar_epi32(n, powers), _mm512_slli_epi32(n, 19)));
  }
  // the exact 2^(n/16) over the one that power_of_two gives, less 1
  LSTMX_INLINE Vec power_error(Vec t) {
    const __m512 errors = _mm512_setr_ps(  //
        0.0f, 4.6285e-08f, -1.1992e-08f, 4.7298e-08f, 3.1934e-08f, 3.6211e-08f, -3.0991e-08f, -7.4752e-09f, 1.7114e-08f,
        -3.0477e-08f, 5.2333e-09f, 6.1076e-09f, -1.4720e-08f, -5.2588e-09f, -6.1283e-09f, 5.1406e-09f);
    return _mm512_permutexvar_ps(_mm512_castps_si512(t), errors);
  }

  // ---- parts in bf16, the upper half of a float

  // a rounded to bf16, ties away from zero
  LSTMX_INLINE Vec rounded_bf16(Vec a) {
    const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x8000));
    return _mm512_castsi512_ps(_mm512_and_si512(bits, upper_halves()));
  }
  // the upper halves of both, lane by lane: low's, then high's
  LSTMX_INLINE Vec paired_bf16(Vec low, Vec high) {
    const __m512i right = _mm512_srli_epi32(_mm512_castps_si512(low), 16);
    // right | (high & upper_halves)
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(right, _mm512_castps_si512(high), upper_halves(), 0xf8));
  }
  // by magnitude, NaN above all
  LSTMX_INLINE Vec larger_magnitude(Vec a, Vec b) {
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(0x7fffffff));
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), magnitude));
  }
  // of magnitudes: a bit for each that is neither 0 nor within [least, most]
  LSTMX_INLINE unsigned outside(Vec magnitudes, float least, float most) {
    const unsigned zero = _mm512_cmp_ps_mask(magnitudes, _mm512_setzero_ps(), _CMP_EQ_OQ);
    const unsigned above = _mm512_cmp_ps_mask(magnitudes, set(least), _CMP_GE_OQ);
    const unsigned below = _mm512_cmp_ps_mask(magnitudes, set(most), _CMP_LE_OQ);
    return ~(zero | (above & below)) & 0xffff;
  }
  // the lanes of `lanes`; the others read as 0
  LSTMX_INLINE Vec load_lanes_of(const float* p, unsigned lanes) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), p);
  }
  LSTMX_INLINE float largest_magnitude(Vec magnitudes) {
    const int bits = _mm512_reduce_max_epi32(_mm512_castps_si512(magnitudes));
    return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(bits)));
  }

 private:
  LSTMX_INLINE __m512i upper_halves() { return _mm512_set1_epi32(static_cast<int>(0xffff0000u)); }
  LSTMX_INLINE __mmask16 mask(ptrdiff_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
};

}  // namespace
