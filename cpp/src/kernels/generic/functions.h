// The functions that a cell may apply to its gates, beside sigmoid and tanh: those of ONNX's recurrent operators. Their
// derivatives are given in terms of their values, for a tape keeps nothing else.
#pragma once

namespace {

template <class S>
struct Functions {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Act = Activations<S>;

  LSTMX_INLINE Vec apply(const Activation& a, Vec x) {
    Vec v[1] = {x};
    apply(a, v);
    return v[0];
  }

  template <int N>
  LSTMX_INLINE void apply(const Activation& a, Vec (&v)[N]) {
    if (a.function == Function::sigmoid) return Act::template sigmoid<N>(v);
    if (a.function == Function::tanh) return Act::template tanh<N>(v);
    Vec other[N];  // only they need to be in memory
    LSTMX_UNROLL
    for (int n = 0; n < N; ++n) other[n] = v[n];
    apply_other(a, other);
    LSTMX_UNROLL
    for (int n = 0; n < N; ++n) v[n] = other[n];
  }

  // the derivative where the function's value is y
  LSTMX_INLINE Vec slope(const Activation& a, Vec y) {
    if (a.function == Function::sigmoid) return S::mul(y, S::sub(one(), y));
    if (a.function == Function::tanh) return S::fnma(y, y, one());
    Vec other = y;
    to_other_slope(a, other);
    return other;
  }

  // 1 where x > 0, else 0
  LSTMX_INLINE Vec positive(Vec x) { return S::min(one(), S::max(S::set(0.0f), S::mul(x, S::set(huge)))); }
  LSTMX_INLINE Vec within(Vec x, Vec low, Vec high) {
    return S::mul(positive(S::sub(x, low)), positive(S::sub(high, x)));
  }

 private:
  static constexpr int log_terms = sizeof(Real) == 4 ? 9 : 17;  // of a series in at most 1/9
  static constexpr Real huge = 1 / S::smallest_normal;

  LSTMX_INLINE Vec one() { return S::set(1.0f); }
  LSTMX_INLINE Vec magnitude(Vec x) { return S::max(S::sub(S::set(0.0f), x), x); }

  // e^x - 1 = 2t / (1 - t), t = tanh(x / 2), for x at most 0
  LSTMX_INLINE Vec exp_minus_1(Vec x) {
    Vec t[1] = {S::mul(S::set(0.5f), x)};
    Act::template tanh<1>(t);
    return S::div(S::add(t[0], t[0]), S::sub(one(), t[0]));
  }

  // log(1 + u) = 2 artanh(s), s = u / (2 + u), for u from 0 to 1
  LSTMX_INLINE Vec log_1_plus(Vec u) {
    const Vec s = S::div(u, S::add(S::set(2.0f), u)), square = S::mul(s, s);
    Vec sum = S::set(0.0f);
    for (int n = 2 * log_terms - 1; n > 0; n -= 2) sum = S::fma(sum, square, S::set(Real(2) / n));
    return S::mul(s, sum);
  }

  // not inlined, for there are many functions and many calls
  template <int N>
  __attribute__((noinline)) static void apply_other(const Activation& a, Vec (&v)[N]) {
    const Vec alpha = S::set(a.alpha), beta = S::set(a.beta), zero = S::set(0.0f);
    switch (a.function) {
      case Function::sigmoid:
      case Function::tanh:
        return;
      case Function::relu:
        for (Vec& x : v) x = S::max(zero, x);
        return;
      case Function::hard_sigmoid:
        for (Vec& x : v) x = S::min(one(), S::max(zero, S::fma(alpha, x, beta)));
        return;
      case Function::affine:
        for (Vec& x : v) x = S::fma(alpha, x, beta);
        return;
      case Function::leaky_relu:
        for (Vec& x : v) x = S::fma(alpha, S::min(zero, x), S::max(zero, x));
        return;
      case Function::thresholded_relu:
        for (Vec& x : v) x = S::mul(x, positive(S::sub(x, alpha)));
        return;
      case Function::scaled_tanh:
        for (Vec& x : v) x = S::mul(beta, x);
        Act::template tanh<N>(v);
        for (Vec& x : v) x = S::mul(alpha, x);
        return;
      case Function::softsign:
        for (Vec& x : v) x = S::div(x, S::add(one(), magnitude(x)));
        return;
      case Function::elu:
        for (Vec& x : v) x = S::fma(alpha, exp_minus_1(S::min(zero, x)), S::max(zero, x));
        return;
      case Function::softplus:  // log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
        for (Vec& x : v) {
          const Vec u = S::add(one(), exp_minus_1(S::sub(zero, magnitude(x))));
          x = S::add(S::max(zero, x), log_1_plus(u));
        }
        return;
    }
  }

  __attribute__((noinline)) static void to_other_slope(const Activation& a, Vec& y) { y = other_slope(a, y); }

  LSTMX_INLINE Vec other_slope(const Activation& a, Vec y) {
    const Vec alpha = S::set(a.alpha);
    switch (a.function) {
      case Function::sigmoid:
      case Function::tanh:
        break;
      case Function::relu:
      case Function::thresholded_relu:
        return positive(y);
      case Function::hard_sigmoid:
        return S::mul(alpha, within(y, S::set(0.0f), one()));
      case Function::affine:
        return alpha;
      case Function::leaky_relu:
        return S::fma(S::sub(one(), alpha), positive(y), alpha);
      case Function::scaled_tanh: {
        const Vec t = S::div(y, alpha);
        return S::mul(S::set(a.alpha * a.beta), S::fnma(t, t, one()));
      }
      case Function::softsign: {
        const Vec rest = S::sub(one(), magnitude(y));
        return S::mul(rest, rest);
      }
      case Function::softplus:  // 1 - e^-y
        return S::sub(S::set(0.0f), exp_minus_1(S::sub(S::set(0.0f), y)));
      case Function::elu: {
        const Vec above = positive(y);
        return S::fma(above, S::sub(one(), S::add(y, alpha)), S::add(y, alpha));
      }
    }
    return alpha;
  }
};

}  // namespace
