// Sigmoid and tanh of N vectors at once, stage by stage, so that N independent chains fill the units.
//
// Both rest on e^z = 2^(n/s) e^r, n = round(s z / ln 2), |r| <= ln(2)/2s, where s = S::exp_steps is 1, or 16 where a
// register holds the 16 powers of 2^(1/16); and on a polynomial in r, minimax in float, Taylor's in double. At most 4
// ulp from the exact value (tests/kernels measures it); results below the smallest normal float come out as zero. A NaN
// passes through: in min and max the constant stands first.
#pragma once

#define LSTMX_UNROLL _Pragma("GCC unroll 64")

namespace {

template <class S>
struct Activations {
  using Real = typename S::Real;
  using Vec = typename S::Vec;

  // 1 / (1 + e^-x)
  template <int N>
  LSTMX_INLINE void sigmoid(Vec (&x)[N]) {
    Vec n[N], e[N];
    // at the lower end the result is zero, and e^-x does not overflow yet
    clamp<N>(x, is_double ? Real(709) : Real(88));
    round<N>(x, -1, n);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(S::sub(n[i], magic()), S::set(ln_2_high / steps), x[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(S::sub(n[i], magic()), S::set(ln_2_low / steps), x[i]);  // -r
    if constexpr (is_double) {
      polynomial<N>(x, e,
                    {-1.0 / 6227020800, 1.0 / 479001600, -1.0 / 39916800, 1.0 / 3628800, -1.0 / 362880, 1.0 / 40320,
                     -1.0 / 5040, 1.0 / 720, -1.0 / 120, 1.0 / 24, -1.0 / 6, 0.5, -1.0, 1.0});
    } else if constexpr (S::exp_steps > 1) {
      polynomial<N>(x, e, {-1.666684200e-01f, 0.5f, -1.0f, 1.0f});
    } else {
      polynomial<N>(
          x, e,
          {1.388251665e-03f, -8.366547525e-03f, 4.166720062e-02f, -1.666654348e-01f, 4.999999702e-01f, -1.0f, 1.0f});
    }
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(S::power_of_two(n[i]), e[i], S::set(1.0f));
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::reciprocal(x[i]);
  }

  // (e^2x - 1) / (e^2x + 1) = m / (m + 1), m = (e^2x - 1) / 2, which keeps its accuracy near zero
  template <int N>
  LSTMX_INLINE void tanh(Vec (&x)[N]) {
    Vec n[N], h[N];
    // from 9.01 on, tanh is 1 in float; from 19.07 on in double
    clamp<N>(x, is_double ? Real(19.1) : Real(9.02f));
    round<N>(x, 2, n);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {  // r / 2
      const Vec whole = S::sub(n[i], magic());
      if constexpr (S::exp_steps > 1) {
        x[i] = S::fnma(whole, S::set(0.693147181f / 2 / steps), x[i]);
      } else {
        x[i] = S::fnma(whole, S::set(ln_2_high / 2), x[i]);
        x[i] = S::fnma(whole, S::set(ln_2_low / 2), x[i]);
      }
    }
    // (e^r - 1) / 2 = r / 2 + (r / 2)^2 p(r / 2)
    if constexpr (is_double) {
      polynomial<N>(x, h,
                    {4096.0 / 6227020800, 2048.0 / 479001600, 1024.0 / 39916800, 512.0 / 3628800, 256.0 / 362880,
                     128.0 / 40320, 64.0 / 5040, 32.0 / 720, 16.0 / 120, 8.0 / 24, 4.0 / 6, 1.0});
    } else if constexpr (S::exp_steps > 1) {
      polynomial<N>(x, h, {3.333333333e-01f, 6.666666667e-01f, 1.0f});
    } else {
      polynomial<N>(x, h, {4.442405328e-02f, 1.338647604e-01f, 3.333376050e-01f, 6.666617392e-01f, 9.999999404e-01f});
    }
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) h[i] = S::mul(x[i], h[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) h[i] = S::fma(x[i], h[i], x[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {
      if constexpr (S::exp_steps > 1) h[i] = S::fma(S::power_error(n[i]), S::set(0.5f), h[i]);
      const Vec power = S::power_of_two(n[i]);
      x[i] = S::fma(power, h[i], S::fma(power, S::set(0.5f), S::set(-0.5f)));
    }
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::div(x[i], S::add(x[i], S::set(1.0f)));
  }

 private:
  static constexpr bool is_double = sizeof(Real) == 8;
  static constexpr Real steps = S::exp_steps;
  // the first so short that its product with n is exact
  static constexpr Real ln_2_high = is_double ? Real(0.693147180369123816) : Real(0.693359375f);
  static constexpr Real ln_2_low = is_double ? Real(1.90821492927058770e-10) : Real(-2.12194440e-4f);

  LSTMX_INLINE Vec magic() { return S::set(S::exp_magic); }  // 1.5 * 2^23 and a bias: a sum with it is an integer

  template <int N>
  LSTMX_INLINE void clamp(Vec (&x)[N], Real most) {
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::min(S::set(most), S::max(S::set(-most), x[i]));
  }

  // n: the integer next to factor * x * s / ln 2, added to magic
  template <int N>
  LSTMX_INLINE void round(const Vec (&x)[N], Real factor, Vec (&n)[N]) {
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i)
      n[i] = S::fma(x[i], S::set(factor * (is_double ? Real(1.4426950408889634) : Real(1.44269504f)) * steps), magic());
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
