// Sigmoid and tanh of N vectors at once, stage by stage, so that N independent chains fill the units.
//
// Both rest on e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln(2)/2, and e^r - 1 = r + r^2 p(r) with a minimax polynomial
// (relative error 1.4e-8). At most 4 ulp from the exact value (tests/kernels measures it); results below the smallest
// normal float come out as zero. A NaN passes through: in min and max the constant stands first.
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
    split_exp<N>(x, power);  // e^-x = power * (1 + x)
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
    split_exp<N>(x, power);  // e^2x = power * (1 + x); tanh = (e^2x - 1) / (e^2x + 1)
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {
      const Vec denominator = S::fma(x[i], power[i], S::add(power[i], S::set(1.0f)));
      x[i] = S::div(S::fma(x[i], power[i], S::sub(power[i], S::set(1.0f))), denominator);
    }
  }

 private:
  LSTMX_INLINE Vec clamp(Vec x, float low, float high) { return S::min(S::set(high), S::max(S::set(low), x)); }

  // x becomes e^r - 1 and power 2^n, so that e^x = power * (1 + x)
  template <int N>
  LSTMX_INLINE void split_exp(Vec (&x)[N], Vec (&power)[N]) {
    const Vec magic =
        S::set(12582912.0f + 127.0f);  // 1.5 * 2^23: the sum rounds to an integer; 127: the exponent's bias
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) power[i] = S::fma(x[i], S::set(1.44269504f), magic);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) {
      const Vec n = S::sub(power[i], magic);
      x[i] = S::fnma(n, S::set(0.693359375f), x[i]);  // ln 2 in two parts; n times the first is exact
      x[i] = S::fnma(n, S::set(-2.12194440e-4f), x[i]);
    }
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) power[i] = S::exponent_bits(power[i]);
    Vec p[N];
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) p[i] = S::fma(x[i], S::set(1.388251665e-03f), S::set(8.366547525e-03f));
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) p[i] = S::fma(x[i], p[i], S::set(4.166720062e-02f));
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) p[i] = S::fma(x[i], p[i], S::set(1.666654348e-01f));
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) p[i] = S::fma(x[i], p[i], S::set(4.999999702e-01f));
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) p[i] = S::mul(x[i], p[i]);
    LSTMX_UNROLL
    for (int i = 0; i < N; ++i) x[i] = S::fma(x[i], p[i], x[i]);
  }
};

}  // namespace
