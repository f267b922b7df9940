// The GRU cell (Cho et al. 2014) with PyTorch's and cuDNN's equations, in which the reset gate acts on the product with
// h. That product is a gate of its own here, so that the other products stay sums over x and h. Its state is c; h is
// the same.
#pragma once

namespace {

template <class S>
struct GruCell {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Act = Activations<S>;
  using Inputs = CellInputs<S, GruCell>;
  static constexpr bool staged = true;
  static constexpr int gates = 4;        // r z n, and the part of n that comes from h
  static constexpr Index gate_rows = 3;  // blocks of H rows in the weights, and where the gates' are; -1: nowhere
  static constexpr Index ih_gate[gates] = {0, 1, 2, -1}, hh_gate[gates] = {0, 1, -1, 2};
  static constexpr int unit_params = 0;
  static constexpr bool normalizes = false;

  static const Real* unit_param(const RecurrentWeights<Real>&, int, Index) { return nullptr; }
  static Real* unit_gradient(const RecurrentGradients<Real>&, int, Index) { return nullptr; }
  static Range params_read(const StagedInputs<Real>&) { return {0, 0}; }

  LSTMX_INLINE void forward(const VariantOptions*, Vec (&gate)[gates], const Inputs& in, Vec& c, Vec& h) {
    // 1. r, z = sigmoid
    Vec rz[2] = {gate[0], gate[1]};
    Act::template sigmoid<2>(rz);
    // 2. n = tanh(n_x + r n_h)
    Vec n[1] = {S::fma(rz[0], gate[3], gate[2])};
    Act::template tanh<1>(n);
    gate[0] = rz[0];
    gate[1] = rz[1];
    gate[2] = n[0];
    // 3. h = (1 - z) n + z h_prev
    h = S::fma(rz[1], S::sub(in.c, n[0]), n[0]);
    // 4. zoneout
    if (in.keeps_h) h = S::fma(in.keep_h, in.c, S::mul(S::sub(S::set(1.0f), in.keep_h), h));
    c = h;
  }

  LSTMX_INLINE void backward(const VariantOptions*, Vec (&gate)[gates], const Inputs& in, Vec dh, Vec& dc, Vec&,
                             Vec (&)[1], Vec&) {
    const Vec one = S::set(1.0f), r = gate[0], z = gate[1], n = gate[2], n_h = gate[3];
    // 4.
    dh = S::add(dh, dc);
    Vec kept = S::set(0.0f);
    if (in.keeps_h) {
      kept = S::mul(in.keep_h, dh);
      dh = S::mul(S::sub(one, in.keep_h), dh);
    }
    // 3.
    const Vec d_z = S::mul(dh, S::sub(in.c, n)), d_n = S::fnma(dh, z, dh);
    dc = S::fma(dh, z, kept);
    // 2.
    gate[2] = S::mul(d_n, S::fnma(n, n, one));
    gate[3] = S::mul(gate[2], r);
    const Vec d_r = S::mul(gate[2], n_h);
    // 1.
    gate[0] = S::mul(d_r, S::mul(r, S::sub(one, r)));
    gate[1] = S::mul(d_z, S::mul(z, S::sub(one, z)));
  }
};

}  // namespace
