// Sigmoid and tanh of N vectors at once, stage by stage, so that N independent chains fill the units.
//
// Both rest on e^x = 2^(n/s) e^r, n = round(s x / ln 2), |r| <= ln(2)/2s, where s = S::exp_steps is 1, or 16 where a
// register holds the 16 powers of 2^(1/16); and on a minimax polynomial for e^r - 1 = r + r^2 p(r). At most 4 ulp from
// the exact value (tests/kernels measures it); results below the smallest normal float come out as zero. A NaN passes
// through: in min and max the constant stands first.
#pragma once

#define LSTMX_UNROLL _Pragma("GCC unroll 64")

namespace {

template <class S>
struct Activations {
  using Vec = typename S::Vec;

  template <int N>
  LSTMX_INLINE void sigmoid(Vec (&x)[N]) {
    Vec power[N];
    // at -88 the result is zero, and e^88 does not overflow yet
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::sub(S::set(0.0f), clamp(x[i], -88.0f, 88.0f));
    split_exp<N, false>(x, power);  // e^-x = power * (1 + x)
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(x[i], power[i], S::add(power[i], S::set(1.0f)));
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::reciprocal(x[i]);
  }

  template <int N>
  LSTMX_INLINE void tanh(Vec (&x)[N]) {
    Vec power[N];
    // from 9.01 on, tanh is 1 in float32
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = clamp(S::add(x[i], x[i]), -18.04f, 18.04f);
    split_exp<N, true>(x, power);  // e^2x = power * (1 + x); tanh = (e^2x - 1) / (e^2x + 1)
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {
      const Vec denominator = S::fma(x[i], power[i], S::add(power[i], S::set(1.0f)));
      x[i] = S::div(S::fma(x[i], power[i], S::sub(power[i], S::set(1.0f))), denominator);
    }
  }

 private:
  LSTMX_INLINE Vec clamp(Vec x, float low, float high) { return S::min(S::set(high), S::max(S::set(low), x)); }

  // x becomes e^r - 1 and power 2^(n/s), so that e^x = power * (1 + x); `near_zero`: x also has the rounding error of
  // power, so that (e^x - 1) is exact to float32 near 0 as well, if |x| is not large.
  template <int N, bool near_zero>
  LSTMX_INLINE void split_exp(Vec (&x)[N], Vec (&power)[N]) {
    constexpr float steps = S::exp_steps;
    const Vec magic = S::set(S::exp_magic);  // 1.5 * 2^23 and a bias: the sum rounds to an integer
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) power[i] = S::fma(x[i], S::set(1.44269504f * steps), magic);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {
      const Vec n = S::sub(power[i], magic);
      if constexpr (near_zero && S::exp_steps > 1) {  // n is small
        x[i] = S::fnma(n, S::set(0.693147181f / steps), x[i]);
      } else {  // ln 2 in two parts; n times the first is exact
        x[i] = S::fnma(n, S::set(0.693359375f / steps), x[i]);
        x[i] = S::fnma(n, S::set(-2.12194440e-4f / steps), x[i]);
      }
    }
    if constexpr (S::exp_steps == 1) {
      polynomial<N>(x, {1.388251665e-03f, 8.366547525e-03f, 4.166720062e-02f, 1.666654348e-01f, 4.999999702e-01f});
    } else {
      Vec error[N];
      LSTMX_UNROLL
      for (int i = 0; i < N; ++i) error[i] = near_zero ? S::power_error(power[i]) : S::set(0.0f);
      if constexpr (near_zero) {
        polynomial<N>(x, {4.166666667e-02f, 1.666666667e-01f, 0.5f});
      } else {
        polynomial<N>(x, {1.666684200e-01f, 0.5f});
      }
      LSTMX_UNROLL
      for (int i = 0; i < N; ++i)
        if constexpr (near_zero) x[i] = S::add(x[i], error[i]);
    }
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) power[i] = S::power_of_two(power[i]);
  }

  // x becomes x + x^2 p(x), the coefficients from the highest on
  template <int N, int n>
  LSTMX_INLINE void polynomial(Vec (&x)[N], const float (&coefficient)[n]) {
    Vec p[N];
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) p[i] = S::fma(x[i], S::set(coefficient[0]), S::set(coefficient[1]));
    LSTMX_UNROLL
    for (int k = 2; k < n; ++k) {
      LSTMX_UNROLL
      for (int i = 0; i < N; ++i) p[i] = S::fma(x[i], p[i], S::set(coefficient[k]));
    }
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) p[i] = S::mul(x[i], p[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(x[i], p[i], x[i]);
  }
};

}  // namespace
