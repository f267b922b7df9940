// Four floats or doubles in the compiler's own vector types, of 16 bytes: SSE2 on baseline x86-64, whatever the
// compiler has elsewhere. Doubles take two of them. There is no fused multiply-add here: fma() rounds twice
// (contraction is switched off, so that all code paths round alike).
#pragma once
#include <stddef.h>
#include <string.h>

#define LSTMX_INLINE static inline __attribute__((always_inline))

namespace {

// What differs between the scalars: Vec, and what needs to know its parts.
template <class Real>
struct PortableVector;

template <>
struct PortableVector<float> {
  typedef float Vec __attribute__((vector_size(16)));

  LSTMX_INLINE Vec set(float x) { return Vec{x, x, x, x}; }
  LSTMX_INLINE Vec load(const float* p) {
    Vec a;
    memcpy(&a, p, sizeof a);
    return a;
  }
  LSTMX_INLINE void store(float* p, Vec a) { memcpy(p, &a, sizeof a); }
  // min and max return the second operand where either is NaN
  LSTMX_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
  LSTMX_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
  LSTMX_INLINE float sqrt(float a) { return __builtin_sqrtf(a); }
  // 2^n of the integer n that was added to exp_magic
  static constexpr float exp_magic = 12582912.0f + 127.0f;  // 1.5 * 2^23, and the exponent's bias
  LSTMX_INLINE Vec power_of_two(Vec t) {
    typedef unsigned Bits __attribute__((vector_size(16)));
    return (Vec)((Bits)t << 23);
  }
};

template <>
struct PortableVector<double> {
  typedef double Half __attribute__((vector_size(16)));
  // the compiler would keep a vector of 32 bytes in memory
  struct Vec {
    Half low, high;

    friend inline __attribute__((always_inline)) Vec operator+(Vec a, Vec b) {
      return {a.low + b.low, a.high + b.high};
    }
    friend inline __attribute__((always_inline)) Vec operator-(Vec a, Vec b) {
      return {a.low - b.low, a.high - b.high};
    }
    friend inline __attribute__((always_inline)) Vec operator*(Vec a, Vec b) {
      return {a.low * b.low, a.high * b.high};
    }
    friend inline __attribute__((always_inline)) Vec operator/(Vec a, Vec b) {
      return {a.low / b.low, a.high / b.high};
    }
  };

  LSTMX_INLINE Vec set(double x) { return {Half{x, x}, Half{x, x}}; }
  LSTMX_INLINE Vec load(const double* p) {
    Half low, high;
    memcpy(&low, p, sizeof low);
    memcpy(&high, p + 2, sizeof high);
    return {low, high};
  }
  LSTMX_INLINE void store(double* p, Vec a) {
    memcpy(p, &a.low, sizeof a.low);
    memcpy(p + 2, &a.high, sizeof a.high);
  }
  LSTMX_INLINE Vec min(Vec a, Vec b) { return {a.low < b.low ? a.low : b.low, a.high < b.high ? a.high : b.high}; }
  LSTMX_INLINE Vec max(Vec a, Vec b) { return {a.low > b.low ? a.low : b.low, a.high > b.high ? a.high : b.high}; }
  LSTMX_INLINE double sqrt(double a) { return __builtin_sqrt(a); }
  static constexpr double exp_magic = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52, and the exponent's bias
  LSTMX_INLINE Vec power_of_two(Vec t) {
    typedef unsigned long long Bits __attribute__((vector_size(16)));
    return {(Half)((Bits)t.low << 52), (Half)((Bits)t.high << 52)};
  }
};

template <class Real_>
struct Portable : PortableVector<Real_> {
  using Real = Real_;
  using P = PortableVector<Real>;
  using Vec = typename P::Vec;
  static constexpr Real smallest_normal = sizeof(Real) == 4 ? Real(1.17549435e-38f) : Real(2.2250738585072014e-308);
  static constexpr int width = 4;
  static constexpr int registers = 16;
  static constexpr int exp_steps = 1;
  using P::load, P::set, P::store;

  // the first n lanes only; the others read as 0
  LSTMX_INLINE Vec load_n(const Real* p, ptrdiff_t n) {
    Real lanes[width] = {};
    for (ptrdiff_t l = 0; l < n; ++l) lanes[l] = p[l];
    return load(lanes);
  }
  LSTMX_INLINE void store_n(Real* p, Vec a, ptrdiff_t n) {
    Real lanes[width];
    store(lanes, a);
    for (ptrdiff_t l = 0; l < n; ++l) p[l] = lanes[l];
  }

  LSTMX_INLINE Vec add(Vec a, Vec b) { return a + b; }
  LSTMX_INLINE Vec sub(Vec a, Vec b) { return a - b; }
  LSTMX_INLINE Vec mul(Vec a, Vec b) { return a * b; }
  LSTMX_INLINE Vec div(Vec a, Vec b) { return a / b; }
  LSTMX_INLINE Vec sqrt(Vec a) {
    Real lanes[width];
    store(lanes, a);
    for (Real& x : lanes) x = P::sqrt(x);
    return load(lanes);
  }
  LSTMX_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  LSTMX_INLINE Vec fnma(Vec a, Vec b, Vec c) { return c - a * b; }
  LSTMX_INLINE Vec reciprocal(Vec a) { return set(1) / a; }
  // A quad [i f g o] of four units is its gates already.
  LSTMX_INLINE void gates_of_quads(Vec (&)[4]) {}
  LSTMX_INLINE void quads_of_gates(Vec (&)[4]) {}
  // v[i][j] <-> v[j][i]
  LSTMX_INLINE void transpose(Vec (&v)[width]) {
    Real rows[width][width];
    for (int i = 0; i < width; ++i) store(rows[i], v[i]);
    for (int i = 0; i < width; ++i) {
      const Real column[width] = {rows[0][i], rows[1][i], rows[2][i], rows[3][i]};
      v[i] = load(column);
    }
  }
  // lane 4r + j: the sum of lanes j, j + 4, ... of v[r]
  LSTMX_INLINE Vec fours_of_rows(const Vec (&v)[1]) { return v[0]; }
  // lane 4k + j: the sum of lanes 4k to 4k + 3 of v[j]
  LSTMX_INLINE Vec sums_of_fours(const Vec (&v)[4]) {
    Vec by_lane[4] = {v[0], v[1], v[2], v[3]};
    transpose(by_lane);
    return (by_lane[0] + by_lane[1]) + (by_lane[2] + by_lane[3]);
  }
  // to[j]: of each four lanes the j-th, in all four
  LSTMX_INLINE void spread_fours(Vec v, Vec (&to)[4]) {
    Real lanes[width];
    store(lanes, v);
    for (int j = 0; j < 4; ++j) to[j] = set(lanes[j]);
  }
  template <int>
  LSTMX_INLINE void store_four(Real* p, Vec a, ptrdiff_t n) {
    store_n(p, a, n);
  }
  LSTMX_INLINE Vec load_fours(const Real* const (&row)[1], ptrdiff_t first, ptrdiff_t n) {
    return load_n(row[0] + first, n);
  }
};

}  // namespace
