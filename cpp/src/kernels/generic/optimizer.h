// One optimiser step over contiguous parameters, fused: each array is read and written once. PyTorch's formulas.
#pragma once

namespace {

using lstmx::AdamStep;
using lstmx::SgdStep;

template <class S>
struct Optimizer {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  static constexpr Index W = S::width;

  // v = momentum v + g; p -= lr v, or with Nesterov p -= lr (g + momentum v)
  static void sgd(const SgdStep<Real>& a) {
    const FlushDenormals guard;
    for (Index k = 0; k < a.n; k += W) {
      const Index lanes = a.n - k < W ? a.n - k : W;
      const Vec p = load_lanes<S>(a.params + k, lanes);
      const Vec g = S::fma(S::set(a.decay), p, S::mul(S::set(a.grad_scale), load_lanes<S>(a.grads + k, lanes)));
      Vec step = g;
      if (a.velocity) {
        const Vec v = S::fma(S::set(a.momentum), load_lanes<S>(a.velocity + k, lanes), g);
        store_lanes<S>(a.velocity + k, v, lanes);
        step = a.nesterov ? S::fma(S::set(a.momentum), v, g) : v;
      }
      store_lanes<S>(a.params + k, S::fnma(S::set(a.lr), step, p), lanes);
    }
  }

  // m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= step_size m / (sqrt(v) / root_bias + eps)
  static void adam(const AdamStep<Real>& a) {
    const FlushDenormals guard;
    const Vec rest1 = S::set(a.rest1), rest2 = S::set(a.rest2);
    for (Index k = 0; k < a.n; k += W) {
      const Index lanes = a.n - k < W ? a.n - k : W;
      const Vec p = load_lanes<S>(a.params + k, lanes);
      const Vec g = S::fma(S::set(a.l2), p, S::mul(S::set(a.grad_scale), load_lanes<S>(a.grads + k, lanes)));
      const Vec m = S::fma(S::set(a.beta1), load_lanes<S>(a.m + k, lanes), S::mul(rest1, g));
      const Vec v = S::fma(S::set(a.beta2), load_lanes<S>(a.v + k, lanes), S::mul(rest2, S::mul(g, g)));
      const Vec root = S::add(S::div(S::sqrt(v), S::set(a.root_bias)), S::set(a.eps));
      store_lanes<S>(a.m + k, m, lanes);
      store_lanes<S>(a.v + k, v, lanes);
      store_lanes<S>(a.params + k, S::fnma(S::set(a.step_size), S::div(m, root), S::mul(S::set(a.shrink), p)), lanes);
    }
  }
};

}  // namespace
