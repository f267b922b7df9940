// Sigmoid and tanh of N vectors at once, stage by stage, so that N independent chains fill the units.
//
// Both rest on e^z = 2^(n/s) e^r, n = round(s z / ln 2), |r| <= ln(2)/2s, where s = S::exp_steps is 1, or 16 where a
// register holds the 16 powers of 2^(1/16); and on a minimax polynomial in r. At most 4 ulp from the exact value
// (tests/kernels measures it); results below the smallest normal number come out as zero. A NaN passes through: in min
// and max the constant stands first.
#pragma once

#define LSTMX_UNROLL _Pragma("GCC unroll 64")

namespace {

// e^-r for |r| <= ln(2)/2s, and ((e^r - 1) / 2 - r / 2) / (r / 2)^2 in r / 2; from the highest coefficient on.
template <class Real, int steps>
struct Polynomials;

template <>
struct Polynomials<float, 1> {
  static constexpr float exp[] = {
      1.388251665e-03f, -8.366547525e-03f, 4.166720062e-02f, -1.666654348e-01f, 4.999999702e-01f, -1.0f, 1.0f};
  static constexpr float expm1[] = {4.442405328e-02f, 1.338647604e-01f, 3.333376050e-01f, 6.666617392e-01f,
                                    9.999999404e-01f};
};

template <>
struct Polynomials<float, 16> {
  static constexpr float exp[] = {-1.666684200e-01f, 0.5f, -1.0f, 1.0f};
  static constexpr float expm1[] = {3.333333333e-01f, 6.666666667e-01f, 1.0f};
};

template <>
struct Polynomials<double, 1> {
  static constexpr double exp[] = {-2.510038549551032e-08,
                                   2.7620088445409746e-07,
                                   -2.7557268459997064e-06,
                                   2.4801521295954376e-05,
                                   -0.00019841269863053618,
                                   0.0013888888917213717,
                                   -0.008333333333330062,
                                   0.04166666666662413,
                                   -0.16666666666666669,
                                   0.5000000000000001,
                                   -1.0,
                                   1.0};
  static constexpr double expm1[] = {
      2.5702794747402568e-05, 0.0001414148528404979, 0.0007054660725759248, 0.00317459472588216, 0.012698412712354315,
      0.044444444535083893,   0.13333333333328098,   0.33333333333299303,   0.6666666666666667,  1.0000000000000002};
};

// Where a function has reached its limits in the scalar, and ln 2.
template <class Real>
struct Limits;

template <>
struct Limits<float> {
  static constexpr float sigmoid = 88.0f;           // at -88 the result is zero, and e^88 does not overflow yet
  static constexpr float tanh = 9.02f;              // from 9.01 on it is 1
  static constexpr float ln_2_high = 0.693359375f;  // so short that its product with n is exact
  static constexpr float ln_2_low = -2.12194440e-4f;
};

template <>
struct Limits<double> {
  static constexpr double sigmoid = 709.0;
  static constexpr double tanh = 19.07;
  static constexpr double ln_2_high = 0x1.62e42feep-1;
  static constexpr double ln_2_low = 1.90821492927058770002e-10;
};

template <class S>
struct Activations {
  using Real = typename S::Real;
  using Vec = typename S::Vec;

  // 1 / (1 + e^-x)
  template <int N>
  LSTMX_INLINE void sigmoid(Vec (&x)[N]) {
    Vec n[N], e[N];
    clamp<N>(x, Limits<Real>::sigmoid);
    round<N>(x, -1, n);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(S::sub(n[i], magic()), S::set(ln_2_high / steps), x[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(S::sub(n[i], magic()), S::set(ln_2_low / steps), x[i]);  // -r
    polynomial<N>(x, e, Coefficients::exp);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(S::power_of_two(n[i]), e[i], S::set(1));
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::reciprocal(x[i]);
  }

  // (e^2x - 1) / (e^2x + 1) = m / (m + 1), m = (e^2x - 1) / 2, which keeps its accuracy near zero
  template <int N>
  LSTMX_INLINE void tanh(Vec (&x)[N]) {
    Vec n[N], h[N];
    clamp<N>(x, Limits<Real>::tanh);
    round<N>(x, 2, n);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {  // r / 2
      const Vec whole = S::sub(n[i], magic());
      if constexpr (S::exp_steps > 1) {
        x[i] = S::fnma(whole, S::set(Real(0.69314718055994530942) / 2 / steps), x[i]);
      } else {
        x[i] = S::fnma(whole, S::set(ln_2_high / 2), x[i]);
        x[i] = S::fnma(whole, S::set(ln_2_low / 2), x[i]);
      }
    }
    // (e^r - 1) / 2 = r / 2 + (r / 2)^2 p(r / 2)
    polynomial<N>(x, h, Coefficients::expm1);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) h[i] = S::mul(x[i], h[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) h[i] = S::fma(x[i], h[i], x[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {
      if constexpr (S::exp_steps > 1) h[i] = S::fma(S::power_error(n[i]), S::set(Real(0.5)), h[i]);
      const Vec power = S::power_of_two(n[i]);
      x[i] = S::fma(power, h[i], S::fma(power, S::set(Real(0.5)), S::set(Real(-0.5))));
    }
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::div(x[i], S::add(x[i], S::set(1)));
  }

 private:
  using Coefficients = Polynomials<Real, S::exp_steps>;
  static constexpr Real steps = S::exp_steps, ln_2_high = Limits<Real>::ln_2_high, ln_2_low = Limits<Real>::ln_2_low;

  LSTMX_INLINE Vec magic() { return S::set(S::exp_magic); }  // so large that a sum with it is an integer

  template <int N>
  LSTMX_INLINE void clamp(Vec (&x)[N], Real most) {
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::min(S::set(most), S::max(S::set(-most), x[i]));
  }

  // n: the integer next to factor * x * s / ln 2, added to magic
  template <int N>
  LSTMX_INLINE void round(const Vec (&x)[N], Real factor, Vec (&n)[N]) {
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) n[i] = S::fma(x[i], S::set(factor * Real(1.44269504088896340736) * steps), magic());
  }

  // y = the polynomial with these coefficients, from the highest on, at x
  template <int N, int count>
  LSTMX_INLINE void polynomial(const Vec (&x)[N], Vec (&y)[N], const Real (&coefficient)[count]) {
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) y[i] = S::fma(x[i], S::set(coefficient[0]), S::set(coefficient[1]));
    LSTMX_UNROLL
    for (int k = 2; k < count; ++k) {
      LSTMX_UNROLL
      for (int i = 0; i < N; ++i) y[i] = S::fma(x[i], y[i], S::set(coefficient[k]));
    }
  }
};

}  // namespace
