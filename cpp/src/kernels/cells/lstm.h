// The LSTM cell (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000): what happens between the
// product that makes the gates and the product that carries their gradients back. It knows nothing of time or layout.
#pragma once

namespace {

template <class S>
struct LstmCell {
  using Real = typename S::Real;
  using Vec = typename S::Vec;
  using Act = Activations<S>;
  using Inputs = CellInputs<S, LstmCell>;
  static constexpr bool staged = false;
  static constexpr int gates = 4;        // i f g o
  static constexpr Index gate_rows = 4;  // blocks of H rows in the weights, and where the gates' are; -1: nowhere
  static constexpr Index ih_gate[gates] = {0, 1, 2, 3}, hh_gate[gates] = {0, 1, 2, 3};
  static constexpr int unit_params = 0;
  static constexpr bool normalizes = false;

  static const Real* unit_param(const RecurrentWeights<Real>&, int, Index) { return nullptr; }
  static Real* unit_gradient(const RecurrentGradients<Real>&, int, Index) { return nullptr; }
  static Range params_read(const StagedInputs<Real>&) { return {0, 0}; }

  // h of n vectors of hidden units on its way
  template <int n>
  struct Outputs {
    Vec o[n > 0 ? n : 1], h[n > 0 ? n : 1];  // h: c until it is finished
  };

  // R vectors of hidden units at once, up to c, and `before` up to h: its activations fill the pauses of the others'.
  // gate: pre-activations in, activated gates out; c: the cell state, in place.
  template <int R, int before_count>
  LSTMX_INLINE void forward(Vec (&gate)[R][gates], Vec (&c)[R], Outputs<before_count>& before, Outputs<R>& out) {
    Vec sigmoids[3 * R], tanhs[before_count + R];
    LSTMX_UNROLL
    for (int p = 0; p < before_count; ++p) tanhs[p] = before.h[p];
    LSTMX_UNROLL
    for (int r = 0; r < R; ++r) {
      sigmoids[3 * r + 0] = gate[r][0];
      sigmoids[3 * r + 1] = gate[r][1];
      sigmoids[3 * r + 2] = gate[r][3];
      tanhs[before_count + r] = gate[r][2];
    }
    // 1. i, f, o = sigmoid, g = tanh
    Act::template tanh<before_count + R>(tanhs);
    LSTMX_UNROLL
    for (int p = 0; p < before_count; ++p) before.h[p] = S::mul(before.o[p], tanhs[p]);
    Act::template sigmoid<3 * R>(sigmoids);
    LSTMX_UNROLL
    for (int r = 0; r < R; ++r) {
      gate[r][0] = sigmoids[3 * r + 0];
      gate[r][1] = sigmoids[3 * r + 1];
      gate[r][2] = tanhs[before_count + r];
      gate[r][3] = sigmoids[3 * r + 2];
      // 2. c = f c_prev + i g
      c[r] = S::fma(gate[r][1], c[r], S::mul(gate[r][0], gate[r][2]));
      out.o[r] = gate[r][3];
      out.h[r] = c[r];
    }
  }

  // 3. h = o tanh(c)
  template <int n>
  LSTMX_INLINE void finish(Outputs<n>& out) {
    Act::template tanh<n>(out.h);
    LSTMX_UNROLL
    for (int r = 0; r < n; ++r) out.h[r] = S::mul(out.o[r], out.h[r]);
  }

  // of one vector, where the cell is staged
  LSTMX_INLINE void forward(const VariantOptions*, Vec (&gate)[gates], const Inputs& in, Vec& c, Vec& h) {
    Vec all[1][gates] = {{gate[0], gate[1], gate[2], gate[3]}}, cells[1] = {in.c};
    Outputs<0> none;
    Outputs<1> out;
    forward<1, 0>(all, cells, none, out);
    for (int g = 0; g < gates; ++g) gate[g] = all[0][g];
    c = cells[0];
    finish<1>(out);
    h = out.h[0];
  }

  // gate: activated gates in, gradients of the pre-activations out; dc: of c in, of c_prev out.
  LSTMX_INLINE void backward(Vec (&gate)[gates], Vec h, Vec c_prev, Vec dh, Vec& dc) {
    const Vec i = gate[0], f = gate[1], g = gate[2], o = gate[3];
    const Vec one = S::set(1.0f);
    // 3. tanh(c) = h / o; where o has vanished so has h
    const Vec tanh_c = S::div(h, S::max(S::set(S::smallest_normal), o));
    const Vec d_o = S::mul(dh, tanh_c);
    dc = S::fma(S::mul(dh, o), S::fnma(tanh_c, tanh_c, one), dc);
    // 2.
    const Vec d_i = S::mul(dc, g);
    const Vec d_f = S::mul(dc, c_prev);
    const Vec d_g = S::mul(dc, i);
    // 1.
    gate[0] = S::mul(d_i, S::mul(i, S::sub(one, i)));
    gate[1] = S::mul(d_f, S::mul(f, S::sub(one, f)));
    gate[2] = S::mul(d_g, S::fnma(g, g, one));
    gate[3] = S::mul(d_o, S::mul(o, S::sub(one, o)));
    dc = S::mul(dc, f);
  }
};

}  // namespace
