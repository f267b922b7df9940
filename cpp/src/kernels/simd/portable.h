// Four floats or doubles in the compiler's own vector type: SSE2 on baseline x86-64, whatever the compiler has elsewhere. There is
// no fused multiply-add here: fma() rounds twice (contraction is switched off, so that all code paths round alike).
#pragma once
#include <stddef.h>
#include <string.h>

#define LSTMX_INLINE static inline __attribute__((always_inline))

namespace {

template <class Real_>
struct Portable {
  using Real = Real_;
  static constexpr bool is_single = sizeof(Real) == 4;
  typedef Real Vec __attribute__((vector_size(4 * sizeof(Real))));
  static constexpr Real smallest_normal = is_single ? Real(1.17549435e-38f) : Real(2.2250738585072014e-308);
  static constexpr int width = 4;
  static constexpr int registers = 16;

  LSTMX_INLINE Vec set(Real x) { return Vec{x, x, x, x}; }
  LSTMX_INLINE Vec load(const Real* p) {
    Vec a;
    memcpy(&a, p, sizeof a);
    return a;
  }
  LSTMX_INLINE void store(Real* p, Vec a) { memcpy(p, &a, sizeof a); }
  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const Real* p, ptrdiff_t n) {
    Vec a = set(0);
    for (ptrdiff_t l = 0; l < n; ++l) a[l] = p[l];
    return a;
  }
  LSTMX_INLINE void store_n(Real* p, Vec a, ptrdiff_t n) {
    for (ptrdiff_t l = 0; l < n; ++l) p[l] = a[l];
  }

  LSTMX_INLINE Vec add(Vec a, Vec b) { return a + b; }
  LSTMX_INLINE Vec sub(Vec a, Vec b) { return a - b; }
  LSTMX_INLINE Vec mul(Vec a, Vec b) { return a * b; }
  LSTMX_INLINE Vec div(Vec a, Vec b) { return a / b; }
  LSTMX_INLINE Vec sqrt(Vec a) {
    for (int l = 0; l < width; ++l) a[l] = is_single ? __builtin_sqrtf(a[l]) : __builtin_sqrt(a[l]);
    return a;
  }
  LSTMX_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  LSTMX_INLINE Vec fnma(Vec a, Vec b, Vec c) { return c - a * b; }
  // min and max return the second operand where either is NaN
  LSTMX_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
  LSTMX_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
  LSTMX_INLINE Vec reciprocal(Vec a) { return set(1) / a; }
  // A quad [i f g o] of four units is its gates already.
  LSTMX_INLINE void gates_of_quads(Vec (&)[4]) {}
  LSTMX_INLINE void quads_of_gates(Vec (&)[4]) {}
  // v[i][j] <-> v[j][i]
  LSTMX_INLINE void transpose(Vec (&v)[width]) {
    for (int i = 0; i < width; ++i) {
      for (int j = 0; j < i; ++j) {
        const Real a = v[i][j];
        v[i][j] = v[j][i];
        v[j][i] = a;
      }
    }
  }
  template <int>
  LSTMX_INLINE void store_four(Real* p, Vec a, ptrdiff_t n) {
    store_n(p, a, n);
  }
  LSTMX_INLINE Vec load_fours(const Real* const (&row)[1], ptrdiff_t first, ptrdiff_t n) {
    return load_n(row[0] + first, n);
  }
  // 2^n of the integer n that was added to exp_magic
  static constexpr int exp_steps = 1;
  // 1.5 * 2^23 or 2^52, and the exponent's bias
  static constexpr Real exp_magic = is_single ? Real(12582912 + 127) : Real(6755399441055744 + 1023);
  LSTMX_INLINE Vec power_of_two(Vec t) {
    typedef decltype(Vec{} < Vec{}) Bits;  // integers of the same size
    Bits bits;
    memcpy(&bits, &t, sizeof bits);
    bits = bits << (is_single ? 23 : 52);
    memcpy(&t, &bits, sizeof t);
    return t;
  }
};

}  // namespace
